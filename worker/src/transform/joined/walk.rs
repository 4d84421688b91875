//! The walk over an optimized plan that finds its anchor, reaches and keys.

use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Projection, TableScan};

use super::bounds::{Side, Times, distance, in_utc, time_of};
use super::{Input, Joined, TimeColumns, Within};
use crate::transform::error::Refusal;

/// Where a column comes from as it is: the input, and the column of its source.
type Origin = Option<(usize, usize)>;

/// A relation of the plan.
struct Relation {
    /// The anchor first.
    inputs: Vec<Input>,
    /// By column of the relation.
    times: Times,
    /// By column of the relation.
    origins: Vec<Origin>,
    /// Sets of columns, one of each input, that are equal in rows that meet; of a single input every column is one.
    classes: Vec<Vec<(usize, usize)>>,
}

/// What `plan`, optimized, needs of its sources.
///
/// # Errors
/// What cannot be answered slice by slice, and what to add.
pub(in crate::transform) fn joined(plan: &LogicalPlan, times: &TimeColumns) -> Result<Joined, Refusal> {
    let Relation { mut inputs, classes, .. } = relation(plan, times)?;
    for class in classes.iter().filter(|class| class.len() == inputs.len()).collect::<Vec<_>>() {
        for (input, column) in class {
            if let Some(input) = inputs.get_mut(*input) {
                input.keys.push(*column);
            }
        }
    }
    Ok(Joined { inputs })
}

fn relation(plan: &LogicalPlan, times: &TimeColumns) -> Result<Relation, Refusal> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => of_scan(scan, times),
        LogicalPlan::Filter(filter) => relation(&filter.input, times),
        LogicalPlan::SubqueryAlias(alias) => relation(&alias.input, times),
        LogicalPlan::Projection(projection) => Ok(of_projection(projection, relation(&projection.input, times)?)),
        LogicalPlan::Join(join) => of_join(join, times),
        other => {
            let shown = other.display().to_string();
            let word = shown.split([':', ' ', '(']).next().unwrap_or_default();
            Err(Refusal::new(
                None,
                format!("{word} over several sources is refused"),
                "join with event-time bounds, filter and compute columns",
            ))
        }
    }
}

fn of_scan(scan: &TableScan, times: &TimeColumns) -> Result<Relation, Refusal> {
    let source = scan.table_name.table().to_owned();
    let fields = scan.source.schema();
    let columns: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..fields.fields().len()).collect());
    let time = times.get(&source).cloned().flatten();
    let is_time = |column: &usize| {
        let field = fields.fields().get(*column);
        field.is_some_and(|field| Some(field.name()) == time.as_ref() && in_utc(field.data_type()))
    };
    Ok(Relation {
        inputs: vec![Input { source, reach: Within::SAME, keys: Vec::new() }],
        times: columns.iter().map(|column| is_time(column).then_some(Within::SAME)).collect(),
        origins: columns.iter().map(|column| Some((0, *column))).collect(),
        classes: Vec::new(),
    })
}

fn of_projection(projection: &Projection, input: Relation) -> Relation {
    let schema = projection.input.schema();
    let time = |expr: &Expr| time_of(expr, schema, &input.times);
    let origin = |expr: &Expr| origin_of(expr, schema, &input.origins);
    Relation {
        times: projection.expr.iter().map(time).collect(),
        origins: projection.expr.iter().map(origin).collect(),
        ..input
    }
}

fn origin_of(expr: &Expr, schema: &DFSchema, origins: &[Origin]) -> Origin {
    match expr {
        Expr::Column(column) => origins.get(schema.index_of_column(column).ok()?).copied().flatten(),
        Expr::Alias(alias) => origin_of(&alias.expr, schema, origins),
        _ => None,
    }
}

fn of_join(join: &Join, times: &TimeColumns) -> Result<Relation, Refusal> {
    use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
    let anchored_right = match join.join_type {
        Inner | Left | LeftSemi | LeftAnti if !join.null_aware => false,
        Right | RightSemi | RightAnti => true,
        other => {
            return Err(Refusal::new(
                None,
                format!("a {other} join is not built yet"),
                "write it as INNER, LEFT, RIGHT, EXISTS or NOT EXISTS",
            ));
        }
    };
    let (left, right) = (relation(&join.left, times)?, relation(&join.right, times)?);
    let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
    let ((anchor, anchor_schema), (other, other_schema)) = match anchored_right {
        false => ((&left, left_schema), (&right, right_schema)),
        true => ((&right, right_schema), (&left, left_schema)),
    };
    let on = || join.on.iter().map(|(left, right)| if anchored_right { (right, left) } else { (left, right) });
    let within = distance(
        Side { schema: anchor_schema, times: &anchor.times },
        Side { schema: other_schema, times: &other.times },
        on(),
        join.filter.as_ref(),
    );
    bounded(within, anchor, other)?;
    if join.on.is_empty() {
        let (a, b) = (name(anchor), name(other));
        let what = format!("the join of {a} and {b} has no equality");
        return Err(Refusal::new(None, what, format!("join on a column of each, like {a}.key = {b}.key")));
    }
    let classes = classes(
        anchor,
        other,
        on().map(|(a, b)| (origin_of(a, anchor_schema, &anchor.origins), origin_of(b, other_schema, &other.origins))),
    );
    Ok(together(join.join_type, anchored_right, (left, right), within, classes))
}

fn name(of: &Relation) -> &str {
    of.inputs.first().map_or("", |input| input.source.as_str())
}

fn bounded(within: Within, anchor: &Relation, other: &Relation) -> Result<(), Refusal> {
    let (a, b) = (name(anchor), name(other));
    let (missing, bound) = match (within.0 > i64::MIN / 2, within.1 < i64::MAX / 2) {
        (true, true) => return Ok(()),
        (false, false) => {
            ("is not bounded in event time", format!("BETWEEN {a}.<time> - INTERVAL '1' HOUR AND {a}.<time>"))
        }
        (false, true) => ("has no lower bound in event time", format!(">= {a}.<time> - INTERVAL '1' HOUR")),
        (true, false) => ("has no upper bound in event time", format!("<= {a}.<time> + INTERVAL '1' HOUR")),
    };
    let what = format!("the join of {a} and {b} {missing}: all of {b} would be kept for every row of {a}");
    Err(Refusal::new(
        None,
        what,
        format!("add to its condition {b}.<time> {bound}, with the event-time columns of both"),
    ))
}

/// The classes of the join's rows: pairs that it makes equal, with what is equal to them below.
fn classes(
    anchor: &Relation,
    other: &Relation,
    on: impl Iterator<Item = (Origin, Origin)>,
) -> Vec<Vec<(usize, usize)>> {
    let class = |of: &Relation, origin: (usize, usize)| match of.inputs.len() {
        1 => Some(vec![origin]),
        _ => of.classes.iter().find(|class| class.contains(&origin)).cloned(),
    };
    let behind = anchor.inputs.len();
    on.filter_map(|(a, b)| {
        let mut merged = class(anchor, a?)?;
        merged.extend(class(other, b?)?.into_iter().map(|(input, column)| (input + behind, column)));
        Some(merged)
    })
    .collect()
}

/// The relation that a join makes: the anchor's inputs first, the columns in the order of the plan.
fn together(
    join: JoinType,
    anchored_right: bool,
    (left, right): (Relation, Relation),
    within: Within,
    classes: Vec<Vec<(usize, usize)>>,
) -> Relation {
    let (anchor, other) = if anchored_right { (right, left) } else { (left, right) };
    let behind = anchor.inputs.len();
    let mut inputs = anchor.inputs;
    inputs.extend(other.inputs.into_iter().map(|input| Input { reach: input.reach.plus(within), ..input }));
    let times_of_other = other.times.into_iter().map(|time| Some(time?.plus(within))).collect::<Times>();
    let origins_of_other =
        other.origins.into_iter().map(|origin| origin.map(|(input, column)| (input + behind, column)));
    let origins_of_other: Vec<Origin> = origins_of_other.collect();
    let (anchor, other) = ((anchor.times, anchor.origins), (times_of_other, origins_of_other));
    let (times, origins) = match join {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::RightSemi | JoinType::RightAnti => anchor,
        _ if anchored_right => ([other.0, anchor.0].concat(), [other.1, anchor.1].concat()),
        _ => ([anchor.0, other.0].concat(), [anchor.1, other.1].concat()),
    };
    Relation { inputs, times, origins, classes }
}
