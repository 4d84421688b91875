//! Event time from the date parts of a path: `dt=%Y-%m-%d/hour=%H`, anywhere in it, folder by folder.

use jiff::civil::DateTime;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};
use tidegate_common::time::{Bounds, EventTime};

use super::event_time::instant_of;

/// The form of a path's date parts, as `strptime` writes it; a `/` stands between two folders.
#[derive(Clone, Debug)]
pub(crate) struct PathTime {
    form: String,
    parts: usize,
    zone: TimeZone,
    grain: Span,
}

impl PathTime {
    /// A form, checked by writing a date with it and reading that back.
    pub(crate) fn new(form: &str, zone: TimeZone) -> Result<Self, String> {
        let form = form.trim_matches('/').to_owned();
        let this = Self { parts: form.split('/').count(), grain: grain_of(&form), zone, form };
        let sample = jiff::civil::date(2024, 12, 31).at(23, 59, 59, 0);
        let read_back = strtime::format(&this.form, sample).ok().and_then(|text| this.read(&text));
        match read_back {
            Some(at) if at.date().year() == 2024 => Ok(this),
            _ => Err(format!(
                "event_time.path {}: no date can be read by it; write for example dt=%Y-%m-%d/hour=%H",
                this.form
            )),
        }
    }

    /// From the moment that the path names to the last microsecond before the next of its kind.
    pub(crate) fn bounds(&self, path: &str) -> Result<Bounds, String> {
        let parts: Vec<&str> = path.split('/').collect();
        let start = parts.windows(self.parts).rev().find_map(|parts| self.read(&parts.join("/")));
        let start = start.ok_or_else(|| format!("{path} has no date parts of the form {}", self.form))?;
        let micros = |wall: DateTime| instant_of(wall, &self.zone).map(|at| at.as_microsecond());
        let end = start.checked_add(self.grain).ok().and_then(micros);
        let bounds = micros(start).zip(end).and_then(|(low, end)| {
            Bounds::new(EventTime::from_micros(low), EventTime::from_micros(low.max(end.saturating_sub(1))))
        });
        bounds.ok_or_else(|| format!("{path}: its date is out of range"))
    }

    fn read(&self, text: &str) -> Option<DateTime> {
        let mut time = BrokenDownTime::parse(&self.form, text).ok()?;
        if time.month().is_none() && time.day_of_year().is_none() {
            time.set_month(Some(1)).ok()?;
        }
        if time.day().is_none() && time.day_of_year().is_none() {
            time.set_day(Some(1)).ok()?;
        }
        time.to_datetime().ok()
    }
}

/// The length of the smallest part that `form` names.
fn grain_of(form: &str) -> Span {
    let has = |letters: &str| {
        form.split('%')
            .skip(1)
            .any(|rest| rest.trim_start_matches(['-', '_', '0', '^', '#']).starts_with(|c| letters.contains(c)))
    };
    if has("STs") {
        1.second()
    } else if has("MR") {
        1.minute()
    } else if has("HIkl") {
        1.hour()
    } else if has("dejFDx") {
        1.day()
    } else if has("mbBh") {
        1.month()
    } else {
        1.year()
    }
}
