//! The walk over an optimized plan that finds its anchor, reaches and keys.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, Projection, SubqueryAlias, TableScan, TableSource,
};

use super::bounds::{Side, Times, distance, time_of};
use super::windows::{Clock, clock_of};
use super::{Groups, Joined, Mention, Within};
use crate::transform::error::Refusal;
use crate::transform::screen::Mentions;

/// Of each source, its column that is the event time in UTC.
pub(super) type TimeColumns<'a> = BTreeMap<&'a str, Option<String>>;

/// Where a column comes from as it is: the mention, and the column of its source.
type Origin = Option<(usize, usize)>;

/// What is known of the columns of a relation.
type Columns = (Times, Vec<Option<Clock>>, Vec<Origin>);

/// A source as one scan of a plan names it.
#[derive(Debug)]
pub(super) struct Marked {
    /// Which scan of the plan.
    pub(super) at: usize,
    schema: SchemaRef,
}

impl TableSource for Marked {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// `plan` with its scans numbered.
pub(in crate::transform) fn mark(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let mut seen = 0_usize;
    let marked = plan.transform_up(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let source = Arc::new(Marked { at: seen, schema: scan.source.schema() });
            seen += 1;
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(marked?.data)
}

/// A relation of the plan.
pub(super) struct Relation {
    /// As its anchor is called.
    pub(super) name: String,
    /// The anchor first.
    pub(super) mentions: Vec<Mention>,
    /// By column of the relation.
    pub(super) times: Times,
    /// By column of the relation.
    pub(super) clocks: Vec<Option<Clock>>,
    /// By column of the relation.
    pub(super) origins: Vec<Origin>,
    /// As in [`Joined::classes`]; of a single mention that is not grouped every column is one.
    pub(super) classes: Vec<Vec<(usize, usize)>>,
    /// Mentions whose columns are null where nothing was met.
    pub(super) padded: BTreeSet<usize>,
    /// What its rows are groups of, where it aggregates.
    pub(super) groups: Option<Groups>,
}

/// What `plan`, optimized and marked, needs of its sources.
///
/// # Errors
/// What cannot be answered slice by slice, and what to add.
pub(super) fn joined(plan: &LogicalPlan, times: &TimeColumns<'_>, mentions: &Mentions) -> Result<Joined, Refusal> {
    let Relation { mentions, origins, classes, groups, .. } = Walk { times, mentions }.relation(plan)?;
    if mentions.is_empty() {
        return Err(Refusal::new(None, "no source decides which rows there are", "turn the join round"));
    }
    Ok(Joined { mentions, origins, classes, groups })
}

pub(super) struct Walk<'a> {
    times: &'a TimeColumns<'a>,
    pub(super) mentions: &'a Mentions,
}

impl Walk<'_> {
    fn relation(&self, plan: &LogicalPlan) -> Result<Relation, Refusal> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => self.of_scan(scan),
            LogicalPlan::Filter(filter) => self.relation(&filter.input),
            LogicalPlan::SubqueryAlias(alias) => self.of_alias(alias),
            LogicalPlan::Projection(projection) => Ok(of_projection(projection, self.relation(&projection.input)?)),
            LogicalPlan::Join(join) => self.of_join(join),
            LogicalPlan::Aggregate(aggregate) => self.of_aggregate(aggregate, self.relation(&aggregate.input)?),
            LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => Ok(nothing(empty.schema.fields().len())),
            other => Err(refused(other)),
        }
    }

    fn of_scan(&self, scan: &TableScan) -> Result<Relation, Refusal> {
        let Some(Marked { at, schema }) = scan.source.as_any().downcast_ref::<Marked>() else {
            return Err(Refusal::new(None, "a table that is no source is refused", "read a source"));
        };
        let source = scan.table_name.table().to_owned();
        let columns: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let time = self.times.get(source.as_str()).and_then(Option::as_ref);
        let is_time = |column: &usize| {
            let field = schema.fields().get(*column);
            field.is_some_and(|field| Some(field.name()) == time)
        };
        Ok(Relation {
            name: source.clone(),
            times: columns.iter().map(|column| is_time(column).then_some(Within::SAME)).collect(),
            clocks: columns.iter().map(|column| is_time(column).then_some(Clock::Time)).collect(),
            origins: columns.iter().map(|column| Some((0, *column))).collect(),
            classes: Vec::new(),
            padded: BTreeSet::new(),
            groups: None,
            mentions: vec![Mention {
                at: *at,
                source,
                within: Within::SAME,
                columns,
                filters: unnormalize_cols(scan.filters.clone()),
            }],
        })
    }

    fn of_alias(&self, alias: &SubqueryAlias) -> Result<Relation, Refusal> {
        let input = self.relation(&alias.input)?;
        // Names that the optimizer made up are nowhere in the SQL.
        let name = alias.alias.table();
        let name = if self.mentions.tables.contains_key(name) { name.to_owned() } else { input.name };
        Ok(Relation { name, ..input })
    }

    fn of_join(&self, join: &Join) -> Result<Relation, Refusal> {
        let anchored_right = anchored_right(join)?;
        let (left, right) = (self.relation(&join.left)?, self.relation(&join.right)?);
        if left.groups.is_some() || right.groups.is_some() {
            let what = "an aggregate inside a join is refused";
            let way_out =
                "aggregate what is joined, or write the aggregate to a table and join that in another backfill";
            return Err(Refusal::new(self.mentions.aggregated(), what, way_out));
        }
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        let ((anchor, anchor_schema), (other, other_schema)) = match anchored_right {
            false => ((&left, left_schema), (&right, right_schema)),
            true => ((&right, right_schema), (&left, left_schema)),
        };
        let on = || join.on.iter().map(|(left, right)| if anchored_right { (right, left) } else { (left, right) });
        if join.on.is_empty() {
            let (a, b) = (&anchor.name, &other.name);
            let what = format!("the join of {a} and {b} has no equality");
            return Err(self.at(other, what, format!("join on a column of each, like {a}.key = {b}.key")));
        }
        if join.null_equality == NullEquality::NullEqualsNull {
            let what = "IS NOT DISTINCT FROM as the equality of a join is refused: what is missing on both sides would meet, \
                        wherever it lies";
            return Err(self.at(other, what.to_owned(), "join with =".to_owned()));
        }
        for (a, b) in on() {
            self.comparable(a, anchor_schema, other)?;
            self.comparable(b, other_schema, other)?;
        }
        let within = distance(
            Side { schema: anchor_schema, times: &anchor.times },
            Side { schema: other_schema, times: &other.times },
            on(),
            join.filter.as_ref(),
        );
        let within = if other.mentions.is_empty() { Within::SAME } else { within };
        self.bounded(within, anchor, other)?;
        // Conditions that contradict each other let nothing meet.
        let within = Within(within.0, within.1.max(within.0));
        let classes = classes(
            anchor,
            other,
            on().map(|(a, b)| {
                (origin_of(a, anchor_schema, &anchor.origins), origin_of(b, other_schema, &other.origins))
            }),
        );
        Ok(together(join.join_type, anchored_right, (left, right), within, classes))
    }

    /// That rows can be joined on `key`.
    fn comparable(&self, key: &Expr, schema: &DFSchema, at: &Relation) -> Result<(), Refusal> {
        let of = key.get_type(schema).ok();
        if of.as_ref().is_some_and(|of| !of.is_nested() && !of.is_null()) {
            return Ok(());
        }
        let of = of.map_or_else(String::new, |of| format!(", which is {of}"));
        Err(self.at(at, format!("it joins on {key}{of}"), "join on numbers, texts, dates or times".to_owned()))
    }

    fn bounded(&self, within: Within, anchor: &Relation, other: &Relation) -> Result<(), Refusal> {
        let (a, b) = (&anchor.name, &other.name);
        let (missing, bound) = match (within.0 > i64::MIN / 2, within.1 < i64::MAX / 2) {
            (true, true) => return Ok(()),
            (false, false) => {
                ("is not bounded in event time", format!("BETWEEN {a}.<time> - INTERVAL '1' HOUR AND {a}.<time>"))
            }
            (false, true) => ("has no lower bound in event time", format!(">= {a}.<time> - INTERVAL '1' HOUR")),
            (true, false) => ("has no upper bound in event time", format!("<= {a}.<time> + INTERVAL '1' HOUR")),
        };
        let what = format!("the join of {a} and {b} {missing}: all of {b} would be kept for every row of {a}");
        let timeless =
            |of: &Relation| of.mentions.iter().find(|of| self.time_of(of).is_none()).map(|of| of.source.clone());
        let way_out = match timeless(anchor).or_else(|| timeless(other)) {
            Some(source) => format!(
                "no condition can bound it, for the event time of {source} is not a column that is a timestamp or a date \
                 in UTC; give it such a column, and name it with event_time.column, without unit and time_zone"
            ),
            None => {
                let (a, b) = (self.named_time(anchor), self.named_time(other));
                let bound = bound.replace("<time>", a);
                format!("add to its condition {}.{b} {bound}, with the event-time columns of both", other.name)
            }
        };
        Err(self.at(other, what, way_out))
    }

    pub(super) fn time_of(&self, mention: &Mention) -> Option<&str> {
        self.times.get(mention.source.as_str())?.as_deref()
    }

    fn named_time(&self, of: &Relation) -> &str {
        of.mentions.first().and_then(|anchor| self.time_of(anchor)).unwrap_or("<time>")
    }

    /// A refusal at the place where `relation` is named.
    fn at(&self, relation: &Relation, what: String, way_out: String) -> Refusal {
        Refusal::new(self.mentions.tables.get(&relation.name).copied(), what, way_out)
    }
}

fn refused(node: &LogicalPlan) -> Refusal {
    let shown = node.display().to_string();
    let word = shown.split([':', ' ', '(']).next().unwrap_or_default();
    Refusal::new(
        None,
        format!("{word} over several sources is refused"),
        "join with event-time bounds, filter, compute columns and group by windows",
    )
}

fn anchored_right(join: &Join) -> Result<bool, Refusal> {
    use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
    let (what, way_out) = match join.join_type {
        Inner | Left | LeftSemi | LeftAnti if !join.null_aware => return Ok(false),
        Right | RightSemi | RightAnti => return Ok(true),
        LeftMark | RightMark => {
            ("EXISTS inside OR is refused".to_owned(), "make it a condition of its own, joined with AND")
        }
        other => (format!("a {other} join is not built yet"), "write it as INNER, LEFT, RIGHT, EXISTS or NOT EXISTS"),
    };
    Err(Refusal::new(None, what, way_out))
}

/// A relation that the optimizer has seen to be empty.
fn nothing(columns: usize) -> Relation {
    Relation {
        name: String::new(),
        mentions: Vec::new(),
        times: vec![None; columns],
        clocks: vec![None; columns],
        origins: vec![None; columns],
        classes: Vec::new(),
        padded: BTreeSet::new(),
        groups: None,
    }
}

fn of_projection(projection: &Projection, input: Relation) -> Relation {
    let schema = projection.input.schema();
    let time = |expr: &Expr| time_of(expr, schema, &input.times);
    let clock = |expr: &Expr| clock_of(expr, schema, &input.clocks);
    let origin = |expr: &Expr| origin_of(expr, schema, &input.origins);
    Relation {
        times: projection.expr.iter().map(time).collect(),
        clocks: projection.expr.iter().map(clock).collect(),
        origins: projection.expr.iter().map(origin).collect(),
        ..input
    }
}

pub(super) fn origin_of(expr: &Expr, schema: &DFSchema, origins: &[Origin]) -> Origin {
    match expr {
        Expr::Column(column) => origins.get(schema.index_of_column(column).ok()?).copied().flatten(),
        Expr::Alias(alias) => origin_of(&alias.expr, schema, origins),
        _ => None,
    }
}

/// The classes of the join's rows: pairs that it makes equal, with what is equal to them below.
fn classes(
    anchor: &Relation,
    other: &Relation,
    on: impl Iterator<Item = (Origin, Origin)>,
) -> Vec<Vec<(usize, usize)>> {
    let behind = anchor.mentions.len();
    on.filter_map(|(a, b)| {
        let mut merged = class_of(anchor, a?)?;
        merged.extend(class_of(other, b?)?.into_iter().map(|(mention, column)| (mention + behind, column)));
        Some(merged)
    })
    .collect()
}

/// The columns that are equal to `origin` in every row of `of`.
pub(super) fn class_of(of: &Relation, origin: (usize, usize)) -> Option<Vec<(usize, usize)>> {
    match of.mentions.len() {
        1 => Some(vec![origin]),
        _ => of.classes.iter().find(|class| class.contains(&origin)).cloned(),
    }
}

/// The relation that a join makes: the anchor's mentions first, the columns in the order of the plan.
fn together(
    join: JoinType,
    anchored_right: bool,
    (left, right): (Relation, Relation),
    within: Within,
    classes: Vec<Vec<(usize, usize)>>,
) -> Relation {
    let (anchor, other) = if anchored_right { (right, left) } else { (left, right) };
    let behind = anchor.mentions.len();
    let met = 0..other.mentions.len();
    let is_outer = matches!(join, JoinType::Left | JoinType::Right);
    let null = met.filter(|mention| is_outer || other.padded.contains(mention)).map(|mention| mention + behind);
    let padded = anchor.padded.iter().copied().chain(null).collect();
    let clocks_of_other = vec![None; other.clocks.len()];
    let mut mentions = anchor.mentions;
    mentions.extend(other.mentions.into_iter().map(|of| Mention { within: of.within.plus(within), ..of }));
    let times_of_other = other.times.into_iter().map(|time| Some(time?.plus(within))).collect::<Times>();
    let origins_of_other =
        other.origins.into_iter().map(|origin| origin.map(|(mention, column)| (mention + behind, column)));
    let origins_of_other: Vec<Origin> = origins_of_other.collect();
    let of_anchor = (anchor.times, anchor.clocks, anchor.origins);
    let of_other = (times_of_other, clocks_of_other, origins_of_other);
    let both = |(first, second): (Columns, Columns)| {
        ([first.0, second.0].concat(), [first.1, second.1].concat(), [first.2, second.2].concat())
    };
    let (times, clocks, origins) = match join {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::RightSemi | JoinType::RightAnti => of_anchor,
        _ if anchored_right => both((of_other, of_anchor)),
        _ => both((of_anchor, of_other)),
    };
    Relation { name: anchor.name, mentions, times, clocks, origins, classes, padded, groups: None }
}
