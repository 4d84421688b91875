//! Windows of event time that overlap: one of a stated width begins every so often, and a row is in several.
//!
//! They are written in one form, which makes a row of each row for each window that holds it:
//! `unnest(generate_series(date_bin(H, ts) - (W - H), date_bin(H, ts), H)) AS start` yields the beginnings of the windows
//! of width `W`, one every `H`, that `ts` lies in. From there on the beginning of a window is the anchor's time: a slice
//! answers for the windows that begin in it, and reads their rows as far as the last of them reaches.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, Unnest, lit};
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_common::windows::WholeWindows;

use super::Within;
use super::bounds::{micros, unit};
use super::relation::{Branch, Relation};
use super::walk::Walk;
use super::windows::{Clock, clock_of};
use crate::transform::error::Refusal;

/// Windows that hold one row at most.
const MOST: i64 = 1_000;

/// What makes the list of windows.
pub(in crate::transform) const SERIES: &str = "generate_series";

/// The form that is accepted.
pub(in crate::transform) const HOPS: &str = "write unnest(generate_series(date_bin(H, ts) - (W - H), date_bin(H, ts), H)) for windows of W that begin \
                    every H, with intervals for W - H and H, of the event-time column itself, and at most 1000 windows to a row";

/// The windows that a row lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hops {
    /// Each of them begins where one of these does.
    whole: WholeWindows,
    /// How far the row lies from their beginnings.
    within: Within,
    /// How many there are.
    count: usize,
}

/// A series of times that lie in steps around another.
struct Series<'a> {
    of: &'a Expr,
    first: i64,
    step: i64,
    count: i64,
}

/// Whether these arguments of `generate_series` give no more than a bounded number of times around a column's value.
pub(in crate::transform) fn is_series(args: &[Expr]) -> bool {
    series(args).is_some_and(|series| series.of.any_column_refs())
}

fn series(args: &[Expr]) -> Option<Series<'_>> {
    let [start, stop, step] = args else { return None };
    let ((of, first), (last_of, last), step) = (shifted(start)?, shifted(stop)?, micros(step)?);
    if of != last_of || step <= 0 || first > last {
        return None;
    }
    let count = (last.checked_sub(first)? / step).checked_add(1)?;
    (count <= MOST).then_some(Series { of, first, step, count })
}

/// An expression that a stated length of time, in microseconds, is added to.
fn shifted(expr: &Expr) -> Option<(&Expr, i64)> {
    match expr {
        Expr::Alias(alias) => shifted(&alias.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) if micros(right).is_some() => {
            let (of, by) = shifted(left)?;
            Some((of, by.checked_add(micros(right)?)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) if micros(right).is_some() => {
            let (of, by) = shifted(left)?;
            Some((of, by.checked_sub(micros(right)?)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) if micros(left).is_some() => {
            let (of, by) = shifted(right)?;
            Some((of, by.checked_add(micros(left)?)?))
        }
        _ => Some((expr, 0)),
    }
}

/// The windows that `generate_series` of these arguments gives the beginnings of.
pub(super) fn hops(args: &[Expr], schema: &DFSchema, clocks: &[Option<Clock>]) -> Option<Hops> {
    let Series { of, first, step, count } = series(args)?;
    let Some(Clock::Of(whole)) = clock_of(of, schema, clocks) else { return None };
    let unit = unit(&of.get_type(schema).ok()?);
    if whole.width().as_micros() != step || first % unit != 0 {
        return None;
    }
    // An event time lies less than a step behind the beginning of its bin, and that `first`, `first + step`, … from those
    // of its windows.
    let last = first.checked_add(step.checked_mul(count - 1)?)?;
    let within = Within(last.checked_neg()?, step.checked_sub(1)?.checked_sub(first)?);
    let origin = EventTime::from_micros(whole.origin().as_micros().checked_add(first)?);
    let is_near = within.0 > i64::MIN / 2 && within.1 < i64::MAX / 2;
    let whole = WholeWindows::new(Span::from_micros(step), origin).filter(|_| is_near)?;
    Some(Hops { whole, within, count: usize::try_from(count).ok()? })
}

impl Walk<'_> {
    /// Each row of `input` once for each window that holds it.
    pub(super) fn of_unnest(&self, unnest: &Unnest, input: Relation) -> Result<Relation, Refusal> {
        let list = match (unnest.list_type_columns.as_slice(), unnest.struct_type_columns.as_slice()) {
            ([(at, list)], []) if list.depth == 1 => Some(*at),
            _ => None,
        };
        let branch = |branch: &Branch| {
            let Some(Clock::Hops(hops)) = branch.clocks.get(list?).copied().flatten() else { return None };
            Some(hopping(branch, unnest, list?, hops))
        };
        let refused = || Refusal::new(self.mentions.unnest, "UNNEST is refused but for windows of event time", HOPS);
        if input.branches.iter().any(Branch::gathers) {
            return Err(refused());
        }
        let branches = input.branches.iter().map(branch).collect::<Option<Vec<_>>>().ok_or_else(refused)?;
        Ok(Relation { branches, ..input })
    }
}

fn hopping(branch: &Branch, unnest: &Unnest, list: usize, hops: Hops) -> Branch {
    let from = || unnest.dependency_indices.iter().copied();
    let time = |at: usize| match at == list {
        true => Some(Within::SAME),
        false => Some(branch.times.get(at).copied().flatten()?.plus(hops.within)),
    };
    let mut hopping = Branch { hops: hops.count, ..branch.clone() };
    for mention in &mut hopping.mentions {
        mention.within = mention.within.plus(hops.within);
    }
    hopping.times = from().map(time).collect();
    hopping.clocks = from().map(|at| (at == list).then_some(Clock::Start(hops.whole))).collect();
    hopping.origins = from().map(|at| branch.origins.get(at).copied().flatten()).collect();
    hopping
}

/// `plan`, of whose windows that overlap none is left but those that begin in `slice`.
pub(super) fn cut(plan: &LogicalPlan, slice: Window) -> Result<LogicalPlan> {
    let cut = plan.clone().transform_up(|node| match node {
        LogicalPlan::Unnest(unnest) => {
            let Some((_, list)) = unnest.list_type_columns.first() else {
                return Ok(Transformed::no(LogicalPlan::Unnest(unnest)));
            };
            let start = Expr::Column(list.output_column.clone());
            let kind = start.get_type(&unnest.schema)?;
            let within = start.clone().gt_eq(instant(slice.from(), &kind)?).and(start.lt(instant(slice.to(), &kind)?));
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(within, LogicalPlan::Unnest(unnest).into())?)))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(cut?.data)
}

/// A time, as a value of this type; one that the type does not reach is its last.
fn instant(at: EventTime, kind: &DataType) -> Result<Expr> {
    let DataType::Timestamp(unit, zone) = kind else {
        return Err(DataFusionError::Plan(format!("a window begins at a {kind}")));
    };
    let (at, zone) = (at.as_micros(), zone.clone());
    Ok(lit(match unit {
        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(at.saturating_mul(1_000)), zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(at), zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(at.div_euclid(1_000)), zone),
        TimeUnit::Second => ScalarValue::TimestampSecond(Some(at.div_euclid(1_000_000)), zone),
    }))
}
