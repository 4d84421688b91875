//! Aggregates whose groups lie in windows of event time.
//!
//! An aggregate is answered slice by slice where it groups by `date_bin` or `date_trunc` of the anchor's event time
//! itself, over a constant width: then every row of a group is of an anchor's row in one window, and a slice that is made
//! of whole windows holds whole groups. The backfill's window must be made of whole windows too, which is for the worker
//! to see. Sums of floats may differ in their last bits from those over another order of the same rows.
//!
//! It refuses an aggregate below a join, and windows of months and years, which have no one width.

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Aggregate, Case, Expr, ExprSchemable};
use tidegate_common::time::{EventTime, Span};
use tidegate_common::windows::WholeWindows;

use super::Within;
use super::bounds::{MICROS_A_DAY, coarser, in_utc, micros, truncated, unit};
use super::hops::{Hops, SERIES, hops};
use super::relation::{Branch, Class, Groups, Origin, Relation, origin_of};
use super::walk::Walk;
use crate::transform::error::Refusal;

/// The first Monday since 1970.
const MONDAY: i64 = 4 * MICROS_A_DAY;

/// What a column says of its row's anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Its event time.
    Time,
    /// Where the one of these windows begins that its event time lies in.
    Of(WholeWindows),
    /// Its event time, which is where one of these windows begins.
    Start(WholeWindows),
    /// Where several windows begin, which all hold its event time.
    Hops(Hops),
    /// Nothing, for it is null.
    Null,
}

/// What the value of `expr` says of the anchor, where the columns of its relation say `clocks`.
pub(super) fn clock_of(expr: &Expr, schema: &DFSchema, clocks: &[Option<Clock>]) -> Option<Clock> {
    let is_time = |expr: &Expr| matches!(clock_of(expr, schema, clocks), Some(Clock::Time | Clock::Start(_)));
    let windows = |width: i64, origin: i64| {
        WholeWindows::new(Span::from_micros(width), EventTime::from_micros(origin)).map(Clock::Of)
    };
    match expr {
        Expr::Column(column) => clocks.get(schema.index_of_column(column).ok()?).copied().flatten(),
        Expr::Alias(alias) => clock_of(&alias.expr, schema, clocks),
        Expr::Literal(value, _) if value.is_null() => Some(Clock::Null),
        Expr::Case(case) if case.expr.is_none() => of_case(case, schema, clocks),
        // A coarser type rounds to zero, which before 1970 is into the next window.
        Expr::Cast(cast) if in_utc(&cast.data_type) => {
            let from = cast.expr.get_type(schema).ok().filter(in_utc)?;
            (coarser(&from, &cast.data_type) == Within::SAME).then(|| clock_of(&cast.expr, schema, clocks)).flatten()
        }
        Expr::ScalarFunction(function) => match (function.name(), function.args.as_slice()) {
            ("date_trunc", [Expr::Literal(unit, _), time]) if is_time(time) => {
                let width = truncated(unit)?;
                windows(width, if width == 7 * MICROS_A_DAY { MONDAY } else { 0 })
            }
            ("date_bin", [width, time, origin @ ..]) if is_time(time) => {
                let origin = match origin {
                    [] => 0,
                    [Expr::Literal(origin, _)] => instant(origin)?,
                    _ => return None,
                };
                // What is finer than the column is rounded away, and several windows become one.
                let (width, unit) = (micros(width)?, unit(&time.get_type(schema).ok()?));
                (width % unit == 0 && origin % unit == 0).then(|| windows(width, origin)).flatten()
            }
            (SERIES, args) => hops(args, schema, clocks).map(Clock::Hops),
            ("coalesce", args) => {
                let of = args.iter().map(|arg| clock_of(arg, schema, clocks));
                of.into_iter().find(|clock| *clock != Some(Clock::Null)).unwrap_or(Some(Clock::Null))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The value of a CASE, where it is known which it is.
fn of_case(case: &Case, schema: &DFSchema, clocks: &[Option<Clock>]) -> Option<Clock> {
    for (when, then) in &case.when_then_expr {
        let is_null = |expr: &Expr| Some(clock_of(expr, schema, clocks)? == Clock::Null);
        let is_so = match when.as_ref() {
            Expr::IsNotNull(of) => !is_null(of)?,
            Expr::IsNull(of) => is_null(of)?,
            _ => return None,
        };
        if is_so {
            return clock_of(then, schema, clocks);
        }
    }
    case.else_expr.as_ref().map_or(Some(Clock::Null), |otherwise| clock_of(otherwise, schema, clocks))
}

/// A stated time, microseconds.
fn instant(of: &ScalarValue) -> Option<i64> {
    match of {
        ScalarValue::TimestampSecond(Some(at), _) => at.checked_mul(1_000_000),
        ScalarValue::TimestampMillisecond(Some(at), _) => at.checked_mul(1_000),
        ScalarValue::TimestampMicrosecond(Some(at), _) => Some(*at),
        ScalarValue::TimestampNanosecond(Some(at), _) => (at % 1_000 == 0).then_some(at / 1_000),
        _ => None,
    }
}

impl Walk<'_> {
    /// The groups that `aggregate` makes of `input`.
    pub(super) fn of_aggregate(&self, aggregate: &Aggregate, input: Relation) -> Result<Relation, Refusal> {
        let mut branches: Vec<Branch> = input.branches.iter().map(|branch| grouped(aggregate, branch)).collect();
        if branches.is_empty() {
            return Ok(input);
        }
        let of = self.aggregates.replace(self.aggregates.get() + 1);
        let whole = self.windows(&branches, &input)?;
        // What several anchors decide about is together only by what has one value in each of them.
        let mut columns: Vec<_> = branches.iter().map(of_anchor).collect();
        for at in 0..aggregate.group_expr.len() {
            if columns.iter().any(|columns| columns.get(at).copied().flatten().is_none()) {
                columns.iter_mut().filter_map(|columns| columns.get_mut(at)).for_each(|column| *column = None);
            }
        }
        for (branch, columns) in branches.iter_mut().zip(columns) {
            branch.groups = Some(Groups { of, whole, columns });
        }
        Ok(Relation { branches, ..input })
    }

    /// The windows that an aggregate groups by: those that one expression tells of the anchors of all `branches`.
    fn windows(&self, branches: &[Branch], input: &Relation) -> Result<WholeWindows, Refusal> {
        let of = |branch: &Branch, at: usize| match branch.clocks.get(at) {
            Some(Some(Clock::Of(whole) | Clock::Start(whole))) => Some(*whole),
            _ => None,
        };
        let columns = branches.first().map_or(0, |branch| branch.clocks.len());
        let all = |at: usize| branches.iter().map(|branch| of(branch, at)).collect::<Option<Vec<_>>>();
        let found: Vec<Vec<WholeWindows>> = (0..columns).filter_map(all).collect();
        if found.is_empty() {
            return Err(self.unbounded_groups(input));
        }
        let below = || input.branches.iter().filter_map(|branch| Some(branch.groups.as_ref()?.whole));
        let both = |of: Vec<WholeWindows>| of.into_iter().chain(below()).map(Some).reduce(|a, b| a?.and(b?))?;
        found.into_iter().filter_map(both).min_by_key(|whole| whole.width()).ok_or_else(|| {
            let what = "it groups by windows that do not fit into each other";
            let way_out =
                "group by the same windows in all parts, and in an aggregate of an aggregate, or by multiples";
            Refusal::new(self.mentions.aggregated(), what, way_out)
        })
    }

    fn unbounded_groups(&self, input: &Relation) -> Refusal {
        let anchor = &input.name;
        let what = "an aggregate needs a window of event time: without one its groups are never complete";
        let several = input.branches.len() > 1;
        let time = input.branches.first().and_then(Branch::anchor).and_then(|anchor| self.time_of(anchor));
        let way_out = match time {
            Some(time) if several => format!(
                "group by date_bin(INTERVAL '1' HOUR, …) or date_trunc('hour', …) of what is the event time in each part: \
                 {anchor}.{time} in the first; of a FULL join, coalesce of both sides' event times"
            ),
            Some(time) => format!(
                "group by date_bin(INTERVAL '1' HOUR, {anchor}.{time}) or date_trunc('hour', {anchor}.{time}), of that \
                 column itself and a width that is no month, quarter or year"
            ),
            None => format!(
                "nothing can be grouped by, for the event time of {anchor} is not a column that is a timestamp or a date \
                 in UTC; give it such a column, and name it with event_time.column, without unit and time_zone"
            ),
        };
        Refusal::new(self.mentions.aggregated(), what, way_out)
    }
}

/// The groups that `aggregate` makes of the rows of one branch.
fn grouped(aggregate: &Aggregate, input: &Branch) -> Branch {
    let schema = aggregate.input.schema();
    let computed = aggregate.aggr_expr.len();
    let by = || aggregate.group_expr.iter();
    let clocks: Vec<_> = by().map(|expr| clock_of(expr, schema, &input.clocks)).collect();
    let origins: Vec<_> = by().map(|expr| origin_of(expr, schema, &input.origins)).collect();
    // What is null where nothing was met is of rows that may be anywhere.
    let class = |origin: &Origin| input.class_of(origin.filter(|(mention, _)| !input.padded.contains(mention))?);
    let classes: Vec<Class> = origins.iter().filter_map(class).collect();
    Branch {
        times: vec![None; origins.len() + computed],
        origins: [origins, vec![None; computed]].concat(),
        clocks: [clocks, vec![None; computed]].concat(),
        classes,
        mentions: input.mentions.clone(),
        padded: input.padded.clone(),
        groups: None,
        hops: input.hops,
    }
}

/// Of each column, the anchor's that it is or equals in all rows of a group: none where it is null in those that met nothing.
fn of_anchor(branch: &Branch) -> Vec<Option<usize>> {
    let column = |origin: &Origin| {
        let origin = origin.filter(|(mention, _)| !branch.padded.contains(mention))?;
        let class = branch.classes.iter().find(|class| class.contains(&origin));
        let all = std::iter::once(&origin).chain(class.into_iter().flatten());
        all.filter(|(mention, _)| *mention == 0).map(|(_, column)| *column).next()
    };
    branch.origins.iter().map(column).collect()
}
