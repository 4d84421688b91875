//! A row's event time: from a column of a time type or of integers with a unit, or from the date parts of a path.
//!
//! It refuses text columns (a type given in `schema`, or a cast, says what they mean) and guesses no unit. Whatever
//! does not fit into microseconds is null, which the reader of the rows counts as a row without event time. Every
//! conversion keeps the order of its inputs, so that bounds of a column are bounds of its event times.

use arrow::array::{Array, Int64Array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZone};
use tidegate_common::spec::model::{BoundsSpec, EventTimeSpec, TimeUnitSpec};
use tidegate_common::time::{Bounds, EventTime};

use super::error::SourceError;
use super::path_time::PathTime;

/// Where the event times of a source come from.
#[derive(Clone, Debug)]
pub(crate) struct EventTimeRule {
    from: From,
    zone: TimeZone,
    declared: Option<Declared>,
}

#[derive(Clone, Debug)]
enum From {
    Column { index: usize, unit: Option<TimeUnitSpec> },
    Path(PathTime),
}

#[derive(Clone, Debug)]
struct Declared {
    path: PathTime,
    /// Microseconds; none is the path's own grain.
    span: Option<i64>,
}

impl EventTimeRule {
    /// What `spec` means for a source of these columns.
    pub(crate) fn resolve(
        source_name: &str,
        spec: Option<&EventTimeSpec>,
        schema: &Schema,
    ) -> Result<Self, SourceError> {
        let refuse = |what: String| SourceError::Spec { source_name: source_name.to_owned(), what };
        let spec = spec.ok_or_else(|| refuse("no event_time: name the column, or the path's date parts".to_owned()))?;
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => {
                TimeZone::get(name).map_err(|_| refuse(format!("event_time.time_zone: no time zone {name:?}")))?
            }
        };
        let path = spec.path.as_deref().map(|form| PathTime::new(form, zone.clone())).transpose().map_err(refuse)?;
        let from = match (&spec.column, &path) {
            (Some(_), Some(_)) if spec.bounds.is_none() => {
                return Err(refuse(
                    "event_time names both a column and a path: keep one, or add event_time.bounds".to_owned(),
                ));
            }
            (Some(name), _) => Self::column_of(name, spec.unit, schema).map_err(refuse)?,
            (None, Some(path)) => From::Path(path.clone()),
            (None, None) => return Err(refuse("event_time names neither a column nor a path".to_owned())),
        };
        let declared = match (&spec.bounds, path) {
            (None, _) => None,
            (Some(BoundsSpec::Path), Some(path)) => Some(Declared { path, span: None }),
            (Some(BoundsSpec::Declared(text)), Some(path)) => {
                let span = span_micros(text).map_err(|e| refuse(format!("event_time.bounds.declared: {e}")))?;
                Some(Declared { path, span: Some(span) })
            }
            (Some(_), None) => {
                return Err(refuse(
                    "event_time.bounds needs event_time.path, the form of the path's date parts".to_owned(),
                ));
            }
        };
        Ok(Self { from, zone, declared })
    }

    fn column_of(name: &str, unit: Option<TimeUnitSpec>, schema: &Schema) -> Result<From, String> {
        let Ok(index) = schema.index_of(name) else {
            return Err(unknown_column(name, schema));
        };
        let kind = schema.field(index).data_type();
        match kind {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 if unit.is_none() => {}
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                return Err(format!("event_time.unit is for integers, and {name} is {kind}: remove the unit"));
            }
            k if k.is_integer() && unit.is_some() => {}
            k if k.is_integer() => {
                return Err(format!("{name} is {kind}: event_time.unit must say seconds, millis, micros or nanos"));
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                return Err(format!(
                    "{name} is text, and text is not read as a time by guess: give it the type timestamp or timestamptz \
                     in `schema` (CSV, JSON), or cast it when the files are written (Parquet)"
                ));
            }
            _ => return Err(format!("{name} is {kind}: event time is a timestamp, a date, or an integer with a unit")),
        }
        Ok(From::Column { index, unit })
    }

    /// The column it comes from, as an index into the source's schema; none where it comes from the path.
    pub(crate) fn column(&self) -> Option<usize> {
        match self.from {
            From::Column { index, .. } => Some(index),
            From::Path(_) => None,
        }
    }

    /// The event times of the values of its column.
    pub(crate) fn of_column(&self, values: &dyn Array) -> Int64Array {
        let From::Column { unit, .. } = self.from else { return Int64Array::new_null(values.len()) };
        let (scale, is_local) = match values.data_type() {
            DataType::Timestamp(unit, zone) => (Scale::of(*unit), zone.is_none() && self.zone != TimeZone::UTC),
            DataType::Date32 => (Scale::Times(86_400_000_000), self.zone != TimeZone::UTC),
            DataType::Date64 => (Scale::Times(1_000), self.zone != TimeZone::UTC),
            _ => (Scale::of(unit.map_or(TimeUnit::Microsecond, arrow_unit)), false),
        };
        let safe = CastOptions { safe: true, ..Default::default() };
        let numbers = cast_with_options(values, &DataType::Int64, &safe).ok();
        let Some(numbers) = numbers.as_ref().and_then(|a| a.as_any().downcast_ref::<Int64Array>()) else {
            return Int64Array::new_null(values.len());
        };
        numbers.unary_opt(|number| {
            let micros = scale.micros(number)?;
            if is_local { utc_of(micros, &self.zone) } else { Some(micros) }
        })
    }

    /// The event time of every row of the file at `path`, where that comes from the path.
    pub(crate) fn of_path(&self, path: &str) -> Option<Result<EventTime, String>> {
        match &self.from {
            From::Column { .. } => None,
            From::Path(form) => Some(form.bounds(path).map(Bounds::low)),
        }
    }

    /// The bounds that are promised for the file at `path`, so that nobody need read it for them.
    pub(crate) fn promised(&self, path: &str) -> Option<Result<Bounds, String>> {
        if let From::Path(form) = &self.from {
            let all = form.bounds(path).map(Bounds::low);
            return Some(all.and_then(|at| Bounds::new(at, at).ok_or_else(String::new)));
        }
        let declared = self.declared.as_ref()?;
        Some(declared.path.bounds(path).map(|own| match declared.span {
            None => own,
            Some(span) => {
                let last = own.low().as_micros().saturating_add(span.saturating_sub(1));
                Bounds::new(own.low(), EventTime::from_micros(last)).unwrap_or(own)
            }
        }))
    }

    /// What to do about a row outside its bounds.
    pub(crate) fn way_out(&self) -> &'static str {
        if self.declared.is_some() {
            "event_time.bounds promises what the file does not keep: widen it or leave it out"
        } else {
            "the file's statistics are wrong: write it again"
        }
    }
}

/// A number of some unit, as microseconds.
#[derive(Clone, Copy)]
enum Scale {
    Times(i64),
    Over(i64),
}

impl Scale {
    fn of(unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::Second => Self::Times(1_000_000),
            TimeUnit::Millisecond => Self::Times(1_000),
            TimeUnit::Microsecond => Self::Times(1),
            TimeUnit::Nanosecond => Self::Over(1_000),
        }
    }

    /// Floors; `None` where it does not fit, or is one of the two ends that stand for "before" and "after everything".
    fn micros(self, number: i64) -> Option<i64> {
        let micros = match self {
            Self::Times(factor) => number.checked_mul(factor)?,
            Self::Over(divisor) => number.div_euclid(divisor),
        };
        (micros != i64::MIN && micros != i64::MAX).then_some(micros)
    }
}

fn arrow_unit(unit: TimeUnitSpec) -> TimeUnit {
    match unit {
        TimeUnitSpec::Seconds => TimeUnit::Second,
        TimeUnitSpec::Millis => TimeUnit::Millisecond,
        TimeUnitSpec::Micros => TimeUnit::Microsecond,
        TimeUnitSpec::Nanos => TimeUnit::Nanosecond,
    }
}

/// The moment that the wall clock of `zone` shows as `local` (microseconds as if it were UTC).
///
/// A wall time that happens twice means the first; one that is skipped means the moment of the change.
fn utc_of(local: i64, zone: &TimeZone) -> Option<i64> {
    let wall = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(local).ok()?);
    instant_of(wall, zone).map(Timestamp::as_microsecond)
}

/// The moment at which the wall clock of `zone` shows `wall`; see [`utc_of`].
pub(crate) fn instant_of(wall: jiff::civil::DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let moments = zone.to_ambiguous_timestamp(wall);
    let is_skipped = matches!(moments.offset(), AmbiguousOffset::Gap { .. });
    let earlier = moments.earlier().ok()?;
    if is_skipped { zone.following(earlier).next().map(|change| change.timestamp()) } else { Some(earlier) }
}

/// A length of time as it is written in a spec, in microseconds; a day is 24 hours.
pub(crate) fn span_micros(text: &str) -> Result<i64, String> {
    let span: jiff::Span =
        text.parse().map_err(|e| format!("{text:?} is no length of time ({e}): write 90s, 2h30m or 10d"))?;
    let length = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|e| format!("{text:?}: {e}; write it in days or less"))?;
    let micros = i64::try_from(length.as_micros()).map_err(|_| format!("{text:?} is too long"))?;
    if micros < 0 { Err(format!("{text:?} is negative")) } else { Ok(micros) }
}

/// Says that there is no column `name`, what there is, and which of it was probably meant.
pub(crate) fn unknown_column(name: &str, schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let near = names.iter().map(|n| (strsim::damerau_levenshtein(&n.to_lowercase(), &name.to_lowercase()), *n)).min();
    let hint = match near {
        Some((distance, near)) if distance <= 1 + name.len() / 4 => format!("did you mean {near}? "),
        _ => String::new(),
    };
    let shown = names.iter().take(50).copied().collect::<Vec<_>>().join(", ");
    let more = if names.len() > 50 { format!(" and {} more", names.len() - 50) } else { String::new() };
    format!("no column {name}: {hint}the columns are {shown}{more}")
}

#[cfg(test)]
mod tests;
