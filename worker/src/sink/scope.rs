//! What an output of a backfill covers: whose it is, which window, and which column of its rows shows event time.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tidegate_common::spec::model::TimeUnitSpec;
use tidegate_common::time::{EventTime, Window};

/// What an output of a backfill covers.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The backfill's whole id.
    pub backfill: String,
    /// The window of event time that is replayed.
    pub window: Window,
    /// The output's column that is event time as the source has it; `None` where the query passes none on.
    pub time: Option<TimeColumn>,
    /// Whether what the table holds in the window is replaced.
    pub replaces: bool,
}

impl Scope {
    /// All of event time, for `backfill`, which appends.
    pub fn of(backfill: &str) -> Self {
        Self { backfill: backfill.to_owned(), window: Window::ALL, time: None, replaces: false }
    }
}

/// A column of an output that is event time.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeColumn {
    /// Its name in the output.
    pub name: String,
    /// What its numbers count, where it is of integers.
    pub unit: Option<TimeUnitSpec>,
    /// The zone of values that carry none.
    pub zone: TimeZone,
}

impl TimeColumn {
    /// The wall clock of the column's zone at `at`, as microseconds since 1970; the ends of event time stay.
    pub(super) fn wall(&self, at: EventTime) -> i64 {
        if at == EventTime::MIN || at == EventTime::MAX || self.zone == TimeZone::UTC {
            return at.as_micros();
        }
        let moment = Timestamp::from_microsecond(at.as_micros());
        let ahead = moment.map_or(0, |moment| self.zone.to_offset(moment).seconds());
        at.as_micros().saturating_add(i64::from(ahead).saturating_mul(1_000_000))
    }

    /// The moment at which that clock shows `wall`; `None` where it does so twice, or never.
    pub(super) fn moment(&self, wall: i64) -> Option<EventTime> {
        if wall == i64::MIN || wall == i64::MAX || self.zone == TimeZone::UTC {
            return Some(EventTime::from_micros(wall));
        }
        let civil = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(wall).ok()?);
        let moment = self.zone.to_ambiguous_timestamp(civil).unambiguous().ok()?;
        Some(EventTime::from_micros(moment.as_microsecond()))
    }
}
