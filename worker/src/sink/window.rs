//! Where files lie beside a backfill's window, by their partitions and their columns' bounds. Pure.
//!
//! A file lies inside when each of its rows must, outside when none can; whatever proves neither is unproven, and
//! never taken for one of them.

use iceberg::spec::{
    DataFile, Datum, ManifestFile, PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, Struct, Transform, Type,
};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use tidegate_common::spec::model::TimeUnitSpec;
use tidegate_common::time::{EventTime, Window};

use super::scope::{Scope, TimeColumn};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// Where a file lies beside the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Every row of it lies in the window.
    Inside,
    /// No row of it does.
    Outside,
    /// Neither is proven.
    Unproven,
}

/// Times from the first to the last, both included, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range(i64, i64);

impl Range {
    fn and(self, other: Self) -> Self {
        Self(self.0.max(other.0), self.1.min(other.1))
    }
}

/// What a partition says of event time.
enum Said {
    Nothing,
    /// Its rows have none.
    NoTime,
    Times(Range),
}

/// Tells where files lie beside a window.
#[derive(Clone, Debug)]
pub(super) struct Placer {
    column: TimeColumn,
    window: Window,
    field: i32,
    kind: PrimitiveType,
    /// The window as the column shows it; the ends of event time are open.
    from: i64,
    to: i64,
}

impl Placer {
    /// For the event-time column of `scope` in `schema`; `None` where there is none that is a time.
    pub(super) fn new(scope: &Scope, schema: &Schema) -> Option<Self> {
        let column = scope.time.as_ref()?;
        let field = schema.field_by_name(&column.name)?;
        let Type::Primitive(kind) = field.field_type.as_ref() else { return None };
        let is_wall = match kind {
            PrimitiveType::Timestamp | PrimitiveType::TimestampNs | PrimitiveType::Date => true,
            PrimitiveType::Timestamptz | PrimitiveType::TimestamptzNs => false,
            PrimitiveType::Long | PrimitiveType::Int if column.unit.is_some() => false,
            _ => return None,
        };
        let column = if is_wall { column.clone() } else { TimeColumn { zone: TimeZone::UTC, ..column.clone() } };
        let (from, to) = (column.wall(scope.window.from()), column.wall(scope.window.to()));
        Some(Self { column, window: scope.window, field: field.id, kind: kind.clone(), from, to })
    }

    /// Where the rows of `file` lie, which `spec` partitioned.
    pub(super) fn file(&self, file: &DataFile, spec: &PartitionSpec) -> Place {
        let by_partition = match self.said(file.partition(), spec) {
            Said::NoTime => return Place::Outside,
            Said::Nothing => None,
            Said::Times(range) => Some(range),
        };
        if let Some(place @ (Place::Inside | Place::Outside)) = by_partition.map(|range| self.place(range)) {
            return place;
        }
        let Some(bounds) = self.bounds(file) else { return Place::Unproven };
        match self.place(by_partition.map_or(bounds, |range| range.and(bounds))) {
            // A row without event time lies in no window; a partition by time holds none.
            Place::Inside if by_partition.is_none() && file.null_value_counts().get(&self.field) != Some(&0) => {
                Place::Unproven
            }
            place => place,
        }
    }

    /// Where all rows of a partition of `spec` lie.
    pub(super) fn partition(&self, values: &Struct, spec: &PartitionSpec) -> Place {
        match self.said(values, spec) {
            Said::Nothing => Place::Unproven,
            Said::NoTime => Place::Outside,
            Said::Times(range) => self.place(range),
        }
    }

    /// Whether the summary of a manifest proves that nothing in it lies in the window.
    pub(super) fn spares(&self, manifest: &ManifestFile, spec: &PartitionSpec) -> bool {
        let summaries = manifest.partitions.iter().flatten();
        spec.fields().iter().zip(summaries).any(|(field, summary)| {
            let Some(kind) = self.result(field.source_id, field.transform) else { return false };
            let time = |bytes: &[u8]| {
                let value = Datum::try_from_bytes(bytes, kind.clone()).ok()?;
                self.times(field.transform, value.literal())
            };
            let ends = (summary.lower_bound.as_ref(), summary.upper_bound.as_ref());
            let (Some(low), Some(high)) = ends else { return false };
            let range = time(low).zip(time(high)).map(|(low, high)| Range(low.0, high.1));
            range.is_some_and(|range| self.place(range) == Place::Outside)
        })
    }

    fn place(&self, Range(low, high): Range) -> Place {
        if low > high {
            Place::Unproven
        } else if high < self.from || (low >= self.to && self.to != i64::MAX) {
            Place::Outside
        } else if low >= self.from && (high < self.to || self.to == i64::MAX) {
            Place::Inside
        } else {
            Place::Unproven
        }
    }

    fn said(&self, values: &Struct, spec: &PartitionSpec) -> Said {
        let mut said = Said::Nothing;
        for (field, value) in spec.fields().iter().zip(values.fields()) {
            if self.result(field.source_id, field.transform).is_none() {
                continue;
            }
            let Some(value) = value else { return Said::NoTime };
            let range = value.as_primitive_literal().and_then(|value| self.times(field.transform, &value));
            said = match (said, range) {
                (Said::Times(before), Some(range)) => Said::Times(before.and(range)),
                (_, Some(range)) => Said::Times(range),
                (said, None) => said,
            };
        }
        said
    }

    /// The type of the partition values of a field that cuts event time; `None` for any other field.
    fn result(&self, source: i32, transform: Transform) -> Option<PrimitiveType> {
        match transform {
            _ if source != self.field => None,
            Transform::Year | Transform::Month | Transform::Hour => Some(PrimitiveType::Int),
            Transform::Day => Some(PrimitiveType::Date),
            Transform::Identity if self.kind == PrimitiveType::Date => Some(PrimitiveType::Date),
            _ => None,
        }
    }

    fn times(&self, transform: Transform, value: &PrimitiveLiteral) -> Option<Range> {
        let PrimitiveLiteral::Int(number) = value else { return None };
        let number = i64::from(*number);
        let after = number.checked_add(1)?;
        Some(Range(start(transform, number)?, start(transform, after)?.checked_sub(1)?))
    }

    fn bounds(&self, file: &DataFile) -> Option<Range> {
        let low = self.micros(file.lower_bounds().get(&self.field)?)?;
        let high = self.micros(file.upper_bounds().get(&self.field)?)?;
        Some(Range(low, high))
    }

    fn micros(&self, value: &Datum) -> Option<i64> {
        let number = match value.literal() {
            PrimitiveLiteral::Long(number) => *number,
            PrimitiveLiteral::Int(number) => i64::from(*number),
            _ => return None,
        };
        match (value.data_type(), self.column.unit) {
            (PrimitiveType::Timestamp | PrimitiveType::Timestamptz, _) => Some(number),
            (PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs, _) => Some(number.div_euclid(1_000)),
            (PrimitiveType::Date, _) => number.checked_mul(DAY),
            (_, Some(TimeUnitSpec::Seconds)) => number.checked_mul(1_000_000),
            (_, Some(TimeUnitSpec::Millis)) => number.checked_mul(1_000),
            (_, Some(TimeUnitSpec::Micros)) => Some(number),
            (_, Some(TimeUnitSpec::Nanos)) => Some(number.div_euclid(1_000)),
            (_, None) => None,
        }
    }

    /// Whether whole partitions of `fields` make up the window; the error says why not, and what would do.
    pub(super) fn whole_partitions(&self, fields: &[(i32, Transform)]) -> Result<(), String> {
        let name = &self.column.name;
        let mut times = fields.iter().filter(|(source, of)| self.result(*source, *of).is_some()).map(|field| field.1);
        let Some(finest) = times.clone().min_by_key(|transform| coarseness(*transform)) else {
            return Err(format!(
                "it has no partitions of the event time {name}, and mode: replace_window replaces whole ones: write to \
                 a table with partition_by such as day({name}), or append after removing the window's rows"
            ));
        };
        if times.any(|transform| self.is_whole(transform)) {
            return Ok(());
        }
        let written = match finest {
            Transform::Identity => name.clone(),
            transform => format!("{transform}({name})"),
        };
        let cut = format!(
            "mode: replace_window replaces whole partitions, and the window [{}, {}) cuts one of {written}",
            self.window.from(),
            self.window.to()
        );
        let nearest = floor(finest, self.from).zip(ceil(finest, self.to));
        let nearest = nearest.and_then(|(from, to)| self.column.moment(from).zip(self.column.moment(to)));
        Err(match nearest {
            Some((from, to)) => format!("{cut}; the nearest window that fits is [{from}, {to})"),
            None => format!("{cut}, and none near it fits in the time zone of {name}"),
        })
    }

    /// Whether both ends of the window are boundaries of `transform`, and moments that the column tells apart.
    fn is_whole(&self, transform: Transform) -> bool {
        [(self.from, self.window.from()), (self.to, self.window.to())].into_iter().all(
            |(wall, at): (i64, EventTime)| floor(transform, wall) == Some(wall) && self.column.moment(wall) == Some(at),
        )
    }
}

fn coarseness(transform: Transform) -> u8 {
    match transform {
        Transform::Hour => 0,
        Transform::Day | Transform::Identity => 1,
        Transform::Month => 2,
        _ => 3,
    }
}

/// The first microsecond of the partition `number` of a time transform.
fn start(transform: Transform, number: i64) -> Option<i64> {
    let of_date = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond());
    match transform {
        Transform::Hour => number.checked_mul(HOUR),
        Transform::Day | Transform::Identity => number.checked_mul(DAY),
        Transform::Month => {
            let year = i16::try_from(number.div_euclid(12).checked_add(1970)?).ok()?;
            let month = i8::try_from(number.rem_euclid(12) + 1).ok()?;
            of_date(Date::new(year, month, 1).ok()?)
        }
        Transform::Year => of_date(Date::new(i16::try_from(number.checked_add(1970)?).ok()?, 1, 1).ok()?),
        _ => None,
    }
}

/// The start of the partition that `at` falls into; the ends of event time are boundaries of all.
fn floor(transform: Transform, at: i64) -> Option<i64> {
    if at == i64::MIN || at == i64::MAX {
        return Some(at);
    }
    let date = || Some(TimeZone::UTC.to_datetime(Timestamp::from_microsecond(at).ok()?).date());
    let of_date = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond());
    match transform {
        Transform::Hour => at.checked_sub(at.rem_euclid(HOUR)),
        Transform::Day | Transform::Identity => at.checked_sub(at.rem_euclid(DAY)),
        Transform::Month => of_date(date()?.first_of_month()),
        Transform::Year => of_date(date()?.first_of_year()),
        _ => None,
    }
}

/// The first boundary at or behind `at`.
fn ceil(transform: Transform, at: i64) -> Option<i64> {
    let low = floor(transform, at)?;
    if low == at {
        return Some(at);
    }
    let civil = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(low).ok()?);
    let next = match transform {
        Transform::Hour => civil.checked_add(1.hour()),
        Transform::Month => civil.checked_add(1.month()),
        Transform::Year => civil.checked_add(1.year()),
        _ => civil.checked_add(1.day()),
    };
    Some(next.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
}
