//! The walk over an optimized plan that finds its anchor, reaches and keys.

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, Projection, SubqueryAlias, TableScan, TableSource, Union,
};

use super::bounds::{Side, distance, time_of};
use super::relation::{Branch, Meeting, Relation, origin_of};
use super::windows::{Clock, clock_of};
use super::{Mention, Within};
use crate::transform::error::Refusal;
use crate::transform::screen::Mentions;

/// Of each source, its column that is the event time in UTC.
pub(super) type TimeColumns<'a> = BTreeMap<&'a str, Option<String>>;

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

/// What is known of the rows of `plan`, optimized and marked.
///
/// # Errors
/// What cannot be answered slice by slice, and what to add.
pub(super) fn relation(plan: &LogicalPlan, times: &TimeColumns<'_>, mentions: &Mentions) -> Result<Relation, Refusal> {
    let relation = Walk { times, mentions, aggregates: Cell::new(0) }.relation(plan)?;
    if relation.branches.is_empty() {
        return Err(Refusal::new(None, "no source decides which rows there are", "turn the join round"));
    }
    Ok(relation)
}

pub(super) struct Walk<'a> {
    times: &'a TimeColumns<'a>,
    pub(super) mentions: &'a Mentions,
    /// How many aggregates there were.
    pub(super) aggregates: Cell<usize>,
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
            LogicalPlan::Union(union) => self.of_union(union),
            LogicalPlan::Unnest(unnest) => self.of_unnest(unnest, self.relation(&unnest.input)?),
            LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => Ok(nothing()),
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
        let of_scan = Branch {
            times: columns.iter().map(|column| is_time(column).then_some(Within::SAME)).collect(),
            clocks: columns.iter().map(|column| is_time(column).then_some(Clock::Time)).collect(),
            origins: columns.iter().map(|column| Some((0, *column))).collect(),
            classes: Vec::new(),
            padded: BTreeSet::new(),
            groups: None,
            hops: 0,
            mentions: vec![Mention {
                at: *at,
                source: source.clone(),
                within: Within::SAME,
                columns,
                filters: unnormalize_cols(scan.filters.clone()),
            }],
        };
        Ok(Relation { name: source, branches: vec![of_scan] })
    }

    fn of_union(&self, union: &Union) -> Result<Relation, Refusal> {
        let parts = union.inputs.iter().map(|part| self.relation(part)).collect::<Result<Vec<_>, _>>()?;
        let name = parts.first().map(|part| part.name.clone()).unwrap_or_default();
        let branches = parts.into_iter().flat_map(|part| part.branches).collect();
        Ok(Relation { name, branches })
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
        if left.branches.iter().chain(&right.branches).any(Branch::gathers) {
            let what = "an aggregate or UNNEST inside a join is refused";
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
        let meeting = Meeting {
            anchor: anchor_schema,
            other: other_schema,
            keys: on().collect(),
            is_outer: matches!(join.join_type, JoinType::Left | JoinType::Right),
            passes_on: matches!(join.join_type, JoinType::Left | JoinType::Right | JoinType::Inner),
            other_first: anchored_right,
        };
        let branch = |of: &Branch| {
            let met = other.branches.iter().map(|met| {
                let sides = (
                    Side { schema: anchor_schema, times: &of.times },
                    Side { schema: other_schema, times: &met.times },
                );
                let within = distance(sides.0, sides.1, on(), join.filter.as_ref());
                self.bounded(within, (anchor, of), (other, met))?;
                Ok((met, within))
            });
            Ok(of.meeting(&met.collect::<Result<Vec<_>, Refusal>>()?, &meeting))
        };
        let branches = anchor.branches.iter().map(branch).collect::<Result<Vec<_>, Refusal>>()?;
        Ok(Relation { name: anchor.name.clone(), branches })
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

    fn bounded(
        &self,
        within: Within,
        (anchor, of): (&Relation, &Branch),
        (other, met): (&Relation, &Branch),
    ) -> Result<(), Refusal> {
        let (a, b) = (&anchor.name, &other.name);
        let (missing, bound) = match (within.0 > i64::MIN / 2, within.1 < i64::MAX / 2) {
            _ if within.is_never() => return Ok(()),
            (true, true) => return Ok(()),
            (false, false) => {
                ("is not bounded in event time", format!("BETWEEN {a}.<time> - INTERVAL '1' HOUR AND {a}.<time>"))
            }
            (false, true) => ("has no lower bound in event time", format!(">= {a}.<time> - INTERVAL '1' HOUR")),
            (true, false) => ("has no upper bound in event time", format!("<= {a}.<time> + INTERVAL '1' HOUR")),
        };
        let what = format!("the join of {a} and {b} {missing}: all of {b} would be kept for every row of {a}");
        let timeless =
            |of: &Branch| of.mentions.iter().find(|of| self.time_of(of).is_none()).map(|of| of.source.clone());
        let way_out = match timeless(of).or_else(|| timeless(met)) {
            Some(source) => format!(
                "no condition can bound it, for the event time of {source} is not a column that is a timestamp or a date \
                 in UTC; give it such a column, and name it with event_time.column, without unit and time_zone"
            ),
            None => {
                let (a, b) = (self.named_time(of), self.named_time(met));
                let bound = bound.replace("<time>", a);
                format!("add to its condition {}.{b} {bound}, with the event-time columns of both", other.name)
            }
        };
        Err(self.at(other, what, way_out))
    }

    pub(super) fn time_of(&self, mention: &Mention) -> Option<&str> {
        self.times.get(mention.source.as_str())?.as_deref()
    }

    fn named_time(&self, of: &Branch) -> &str {
        of.anchor().and_then(|anchor| self.time_of(anchor)).unwrap_or("<time>")
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
        "join with event-time bounds, filter, compute columns, UNION ALL and group by windows",
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
        other => (format!("a {other} join is refused"), "write it as INNER, LEFT, RIGHT, FULL, EXISTS or NOT EXISTS"),
    };
    Err(Refusal::new(None, what, way_out))
}

/// A relation that the optimizer has seen to be empty.
fn nothing() -> Relation {
    Relation { name: String::new(), branches: Vec::new() }
}

fn of_projection(projection: &Projection, input: Relation) -> Relation {
    let schema = projection.input.schema();
    let branch = |branch: Branch| Branch {
        times: projection.expr.iter().map(|expr| time_of(expr, schema, &branch.times)).collect(),
        clocks: projection.expr.iter().map(|expr| clock_of(expr, schema, &branch.clocks)).collect(),
        origins: projection.expr.iter().map(|expr| origin_of(expr, schema, &branch.origins)).collect(),
        ..branch
    };
    Relation { branches: input.branches.into_iter().map(branch).collect(), ..input }
}
