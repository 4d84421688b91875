//! Points of event time as people write them: RFC 3339 times, dates, `now` and `now-7d`.
//!
//! Zones come from the IANA database that is built in: the answer is the same on every machine, also on one
//! that has no database, and no file is read.

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::error::{SpecError, quoted};
use super::model::WindowSpec;
use super::quantity::parse_span;
use crate::time::{EventTime, Span, Window};

/// The zone of that name in the IANA database, such as `America/New_York` or `UTC`.
///
/// # Errors
/// A name that is not there.
pub fn zone(name: &str) -> Result<TimeZone, SpecError> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| {
        let error = SpecError::new(format!("there is no time zone {}", quoted(name)));
        error.hint("name one of the IANA database, such as `America/New_York` or `UTC`")
    })
}

/// The point that `text` means: an RFC 3339 time, a date (its midnight in `zone`), `now` or `now-7d`.
///
/// `now_micros` is processing time, microseconds since 1970.
///
/// # Errors
/// What is none of these, or finer than a microsecond.
pub fn parse_event_time(text: &str, zone: &TimeZone, now_micros: i64) -> Result<EventTime, SpecError> {
    let trimmed = text.trim();
    let bad = |why: &str| {
        let error = SpecError::new(format!("{} is not a point in time{why}", quoted(text)));
        error.hint("write `2013-01-31`, `2013-01-31T05:00:00Z`, `now` or `now-7d`")
    };
    if let Some(back) = trimmed.strip_prefix("now") {
        let span = match back.trim_start().strip_prefix('-') {
            Some(span) => parse_span(span)?,
            None if back.trim().is_empty() => Span::ZERO,
            None => return Err(bad(": only a duration can be taken from `now`")),
        };
        let at = now_micros.saturating_sub(span.as_micros());
        return in_calendar(at).ok_or_else(|| bad(OUTSIDE));
    }
    if trimmed.len() == 10 && trimmed.as_bytes().get(4) == Some(&b'-') {
        let date: Date = trimmed.parse().map_err(|_| bad(""))?;
        let midnight = date.to_zoned(zone.clone()).map_err(|_| bad(""))?;
        return in_calendar(midnight.timestamp().as_microsecond()).ok_or_else(|| bad(OUTSIDE));
    }
    let dated = trimmed.as_bytes().get(4) == Some(&b'-') && trimmed.as_bytes().get(7) == Some(&b'-');
    let at: jiff::Timestamp =
        trimmed.parse().ok().filter(|_| dated).ok_or_else(|| match trimmed.parse::<jiff::civil::DateTime>() {
            Ok(_) if dated => bad(": it lacks its offset from UTC, such as `Z` or `-05:00`"),
            _ => bad(""),
        })?;
    if at.subsec_nanosecond() % 1_000 != 0 {
        return Err(bad(": it is finer than a microsecond"));
    }
    in_calendar(at.as_microsecond()).ok_or_else(|| bad(OUTSIDE))
}

/// Only these years can be written back as RFC 3339 in any zone.
const OUTSIDE: &str = ": it lies outside the years 1 to 9998";

fn in_calendar(micros: i64) -> Option<EventTime> {
    const CALENDAR: std::ops::Range<i64> = -62_135_596_800_000_000..253_370_764_800_000_000;
    CALENDAR.contains(&micros).then_some(EventTime::from_micros(micros))
}

impl WindowSpec {
    /// The window that `2024-01-01/2024-02-01` names, half-open.
    ///
    /// # Errors
    /// A text that is not two points with a `/` between them; the points are checked when the spec is resolved.
    pub fn between(text: &str) -> Result<Self, SpecError> {
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [from, to] if !from.trim().is_empty() && !to.trim().is_empty() => {
                Ok(Self { from: from.trim().to_owned(), to: to.trim().to_owned(), time_zone: None })
            }
            _ => Err(SpecError::new(format!("{} is not a window", quoted(text))).hint("write `2024-01-01/2024-02-01`")),
        }
    }

    /// The window from `now-duration` to `now`.
    #[must_use]
    pub fn last(duration: &str) -> Self {
        Self { from: format!("now-{duration}"), to: "now".to_owned(), time_zone: None }
    }
}

/// What a window says that was given, with the key that an error is about.
pub(super) fn window(spec: &WindowSpec, now_micros: i64) -> Result<Window, Vec<(&'static str, SpecError)>> {
    let zone = match spec.time_zone.as_deref().map_or(Ok(TimeZone::UTC), zone) {
        Ok(zone) => zone,
        Err(error) => return Err(vec![("time_zone", error)]),
    };
    let from = parse_event_time(&spec.from, &zone, now_micros);
    let to = parse_event_time(&spec.to, &zone, now_micros);
    match (from, to) {
        (Ok(from), Ok(to)) => Window::new(from, to).ok_or_else(|| {
            let error = SpecError::new(format!("the window ends at {to}, and begins at {from}"));
            vec![("to", error.hint("windows are half-open: `to` is the first point after the window"))]
        }),
        (from, to) => Err([("from", from.err()), ("to", to.err())]
            .into_iter()
            .filter_map(|(key, error)| error.map(|error| (key, error)))
            .collect()),
    }
}
