//! Aggregates whose groups lie in windows of event time.
//!
//! An aggregate is answered slice by slice where it groups by `date_bin` or `date_trunc` of the anchor's event time
//! itself, over a constant width: then every row of a group is of an anchor's row in one window, and a slice that is made
//! of whole windows holds whole groups. The backfill's window must be made of whole windows too, which is for the worker
//! to see. Sums of floats may differ in their last bits from those over another order of the same rows.
//!
//! It refuses an aggregate below a join, and windows of months and years, which have no one width.

use std::collections::BTreeSet;

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable};
use tidegate_common::time::{EventTime, Span};
use tidegate_common::windows::WholeWindows;

use super::bounds::{MICROS_A_DAY, coarser, in_utc, micros, truncated, unit};
use super::walk::{Relation, Walk, class_of, origin_of};
use super::{Groups, Within};
use crate::transform::error::Refusal;

/// The first Monday since 1970.
const MONDAY: i64 = 4 * MICROS_A_DAY;

/// What a column says of its row's anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Its event time.
    Time,
    /// Which of these windows its event time lies in.
    Of(WholeWindows),
}

/// What the value of `expr` says of the anchor, where the columns of its relation say `clocks`.
pub(super) fn clock_of(expr: &Expr, schema: &DFSchema, clocks: &[Option<Clock>]) -> Option<Clock> {
    let is_time = |expr: &Expr| clock_of(expr, schema, clocks) == Some(Clock::Time);
    let windows = |width: i64, origin: i64| {
        WholeWindows::new(Span::from_micros(width), EventTime::from_micros(origin)).map(Clock::Of)
    };
    match expr {
        Expr::Column(column) => clocks.get(schema.index_of_column(column).ok()?).copied().flatten(),
        Expr::Alias(alias) => clock_of(&alias.expr, schema, clocks),
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
            _ => None,
        },
        _ => None,
    }
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
        let schema = aggregate.input.schema();
        let computed = aggregate.aggr_expr.len();
        let by = || aggregate.group_expr.iter();
        let clocks: Vec<_> = by().map(|expr| clock_of(expr, schema, &input.clocks)).collect();
        let origins: Vec<_> = by().map(|expr| origin_of(expr, schema, &input.origins)).collect();
        let whole = match input.mentions.is_empty() {
            true => None,
            false => Some(self.windows(&clocks, &input)?),
        };
        // What is null where nothing was met is of rows that may be anywhere.
        let alike = origins.iter().flatten().filter(|(mention, _)| !input.padded.contains(mention));
        let classes: Vec<_> = alike.filter_map(|origin| class_of(&input, *origin)).collect();
        // The anchor's columns that a group has one value of: grouped by, or equal to one that is.
        let direct = origins.iter().flatten().chain(classes.iter().flatten());
        let columns: BTreeSet<usize> = direct.filter(|(at, _)| *at == 0).map(|(_, column)| *column).collect();
        Ok(Relation {
            times: vec![None; origins.len() + computed],
            groups: whole.map(|whole| Groups { whole, columns: columns.into_iter().collect() }),
            origins: [origins, vec![None; computed]].concat(),
            clocks: [clocks, vec![None; computed]].concat(),
            classes,
            ..input
        })
    }

    /// The windows that an aggregate of `input` groups by, whose group expressions say `clocks` of the anchor.
    fn windows(&self, clocks: &[Option<Clock>], input: &Relation) -> Result<WholeWindows, Refusal> {
        let of = |clock: &Option<Clock>| match clock {
            Some(Clock::Of(whole)) => Some(*whole),
            _ => None,
        };
        let found: Vec<WholeWindows> = clocks.iter().filter_map(of).collect();
        if found.is_empty() {
            return Err(self.unbounded_groups(input));
        }
        let below = input.groups.as_ref().map(|groups| groups.whole);
        let both = found.iter().filter_map(|whole| below.map_or(Some(*whole), |below| below.and(*whole)));
        both.min_by_key(|whole| whole.width()).ok_or_else(|| {
            let what = "an aggregate of an aggregate groups by windows that do not fit into each other";
            Refusal::new(self.mentions.aggregated(), what, "group by the same windows in both, or by multiples")
        })
    }

    fn unbounded_groups(&self, input: &Relation) -> Refusal {
        let anchor = &input.name;
        let what = "an aggregate needs a window of event time: without one its groups are never complete";
        let way_out = match input.mentions.first().and_then(|anchor| self.time_of(anchor)) {
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
