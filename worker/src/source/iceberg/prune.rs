//! Which event times a window excludes for certain, as a filter on manifests: partitions and column bounds.
//!
//! The filter may let through what is not in the window (units are cut exactly by their files' footers), and never
//! leaves out a row of the window or one without event time.

use iceberg::expr::{Predicate, Reference};
use iceberg::spec::{Datum, PrimitiveType, Schema};
use tidegate_common::spec::model::{EventTimeSpec, TimeUnitSpec};
use tidegate_common::time::{EventTime, Window};

use crate::source::event_time::EventTimeRule;

/// A wall clock is never further from UTC than this, in microseconds.
const ZONE_SLACK: i64 = 2 * DAY;
const DAY: i64 = 86_400_000_000;
/// More than the widest truncation, so that a number this far from the ends can be truncated.
const MARGIN: i64 = 1 << 33;

/// The column that event times come from.
#[derive(Clone, Debug)]
pub(super) struct TimeColumn {
    /// Its place in the source's schema.
    pub(super) place: usize,
    /// Its field id.
    pub(super) id: i32,
    unit: Option<TimeUnitSpec>,
    has_zone: bool,
}

/// How the numbers of a column are event times.
enum Scale {
    Times(i64),
    Nanos,
}

impl TimeColumn {
    /// The column of `rule` among `fields`.
    pub(super) fn of(rule: &EventTimeRule, fields: &Schema, spec: Option<&EventTimeSpec>) -> Option<Self> {
        let place = rule.column()?;
        let id = fields.as_struct().fields().get(place)?.id;
        let spec = spec?;
        Some(Self { place, id, unit: spec.unit, has_zone: spec.time_zone.is_some() })
    }

    /// What rows of `window` satisfy, for files of `schema`; `None` where nothing can be left out.
    pub(super) fn filter(&self, schema: &Schema, window: Window) -> Option<Predicate> {
        let field = schema.as_struct().field_by_id(self.id)?;
        let kind = field.field_type.as_primitive_type()?;
        let (scale, is_local) = match kind {
            PrimitiveType::Timestamp => (Scale::Times(1), self.has_zone),
            PrimitiveType::Timestamptz => (Scale::Times(1), false),
            PrimitiveType::TimestampNs => (Scale::Nanos, self.has_zone),
            PrimitiveType::TimestamptzNs => (Scale::Nanos, false),
            PrimitiveType::Date => (Scale::Times(DAY), self.has_zone),
            PrimitiveType::Int | PrimitiveType::Long => (of_unit(self.unit?), false),
            _ => return None,
        };
        let slack = if is_local { ZONE_SLACK } else { 0 };
        let from = (window.from() != EventTime::MIN).then(|| window.from().as_micros().saturating_sub(slack));
        let last = (window.to() != EventTime::MAX).then(|| window.to().as_micros().saturating_add(slack - 1));
        let column = || Reference::new(&field.name);
        let low = from.and_then(|from| datum(kind, scale.low(from)?)).map(|at| column().greater_than_or_equal_to(at));
        let high = last.and_then(|last| datum(kind, scale.high(last)?)).map(|at| column().less_than_or_equal_to(at));
        let inside = match (low, high) {
            (Some(low), Some(high)) => low.and(high),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return None,
        };
        // An integer that does not fit into microseconds is no event time, and such rows belong to every window.
        let is_integer = matches!(kind, PrimitiveType::Int | PrimitiveType::Long);
        let beyond =
            scale.beyond().filter(|_| is_integer).and_then(|(low, high)| Some((datum(kind, low)?, datum(kind, high)?)));
        let beyond =
            beyond.map(|(low, high)| column().less_than_or_equal_to(low).or(column().greater_than_or_equal_to(high)));
        let inside = inside.or(column().is_null());
        Some(beyond.into_iter().fold(inside, Predicate::or))
    }
}

impl Scale {
    /// A number at or below every one whose event time is at or above `micros`.
    fn low(&self, micros: i64) -> Option<i64> {
        match self {
            Self::Times(factor) => Some(micros.div_euclid(*factor)),
            Self::Nanos => micros.checked_mul(1_000),
        }
    }

    /// The largest number whose event time is at or below `micros`.
    fn high(&self, micros: i64) -> Option<i64> {
        match self {
            Self::Times(factor) => Some(micros.div_euclid(*factor)),
            Self::Nanos => micros.checked_mul(1_000)?.checked_add(999),
        }
    }

    /// Numbers at or below the first and at or above the second may have no event time.
    fn beyond(&self) -> Option<(i64, i64)> {
        match self {
            Self::Times(factor) => Some((i64::MIN / factor + MARGIN, i64::MAX / factor - MARGIN)),
            Self::Nanos => None,
        }
    }
}

fn of_unit(unit: TimeUnitSpec) -> Scale {
    match unit {
        TimeUnitSpec::Seconds => Scale::Times(1_000_000),
        TimeUnitSpec::Millis => Scale::Times(1_000),
        TimeUnitSpec::Micros => Scale::Times(1),
        TimeUnitSpec::Nanos => Scale::Nanos,
    }
}

/// `None` where the type does not hold it: then it bounds nothing.
fn datum(kind: &PrimitiveType, number: i64) -> Option<Datum> {
    Some(match kind {
        PrimitiveType::Timestamp => Datum::timestamp_micros(number),
        PrimitiveType::Timestamptz => Datum::timestamptz_micros(number),
        PrimitiveType::TimestampNs => Datum::timestamp_nanos(number),
        PrimitiveType::TimestamptzNs => Datum::timestamptz_nanos(number),
        PrimitiveType::Date => Datum::date(i32::try_from(number).ok()?),
        PrimitiveType::Int => Datum::int(i32::try_from(number).ok()?),
        PrimitiveType::Long => Datum::long(number),
        _ => return None,
    })
}
