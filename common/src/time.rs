//! Event time: points, spans, bounds and half-open windows, in microseconds, UTC.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point of event time: microseconds since 1970-01-01T00:00:00Z.
///
/// [`EventTime::MIN`] and [`EventTime::MAX`] stand for "before" and "after everything": the low of nothing
/// that remains to be read is `MAX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(i64);

impl EventTime {
    /// Before every event.
    pub const MIN: Self = Self(i64::MIN);
    /// After every event.
    pub const MAX: Self = Self(i64::MAX);

    /// The point `micros` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This point, `span` later. `MIN` and `MAX` stay what they are, everything else saturates.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        match self {
            Self::MIN | Self::MAX => self,
            Self(at) => Self(at.saturating_add(span.0)),
        }
    }

    /// How far this point lies behind `earlier`; negative when it lies before it; saturates.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("-∞"),
            Self::MAX => f.write_str("+∞"),
            Self(micros) => match jiff::Timestamp::from_microsecond(micros) {
                Ok(at) => write!(f, "{at}"),
                Err(_) => write!(f, "{micros}us"),
            },
        }
    }
}

impl fmt::Debug for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A length of event time in microseconds; negative where one point lies before another.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Longer than anything.
    pub const MAX: Self = Self(i64::MAX);

    /// A span of `micros` microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Its length in microseconds.
    pub const fn as_micros(self) -> i64 {
        self.0
    }
}

impl Span {
    /// The shortest span that is no shorter and that [`fmt::Display`] says exactly: what a person can write down.
    pub fn to_be_written(self) -> Self {
        const PARTS: [i64; 4] = [86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000];
        if self.0 < 60_000_000 {
            return self;
        }
        // Of the two parts that are said, the smaller decides.
        let first = PARTS.iter().position(|part| self.0 >= *part).unwrap_or(3);
        let least = PARTS.get(first + 1).copied().unwrap_or(1_000_000);
        let over = self.0 % least;
        if over == 0 { self } else { Self(self.0.saturating_add(least - over)) }
    }
}

impl fmt::Display for Span {
    /// The two largest parts that say it: `10d`, `6d23h`, `29m10s`, `1.5s`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAX {
            return f.write_str("∞");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let micros = self.0.unsigned_abs();
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        if seconds < 60 && rest > 0 {
            let fraction = format!("{rest:06}");
            return write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'));
        }
        let parts =
            [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
        let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
        for (n, unit) in parts.iter().skip(first).take(2).filter(|(n, _)| *n > 0 || seconds == 0) {
            write!(f, "{n}{unit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The closed bounds `[low, high]` of the event times of some rows: of a unit, a file, a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bounds {
    low: EventTime,
    high: EventTime,
}

impl Bounds {
    /// Bounds from `low` to `high`, both included; `None` when `high` lies before `low`.
    pub fn new(low: EventTime, high: EventTime) -> Option<Self> {
        (low <= high).then_some(Self { low, high })
    }

    /// The bounds of one point.
    pub const fn at(point: EventTime) -> Self {
        Self { low: point, high: point }
    }

    /// The earliest event time.
    pub const fn low(self) -> EventTime {
        self.low
    }

    /// The latest event time.
    pub const fn high(self) -> EventTime {
        self.high
    }

    /// From the earliest to the latest.
    pub const fn width(self) -> Span {
        self.high.since(self.low)
    }

    /// The part of these bounds that lies in `window`; `None` when no part does.
    ///
    /// Bounds are clamped to the read window so that rows outside it never move a cursor.
    pub fn clamp(self, window: Window) -> Option<Self> {
        let last = EventTime(window.to.0.saturating_sub(1));
        Self::new(self.low.max(window.from), self.high.min(last))
    }

    /// The smallest bounds that hold both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// Whether `at` lies within.
    pub fn contains(self, at: EventTime) -> bool {
        self.low <= at && at <= self.high
    }
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.low, self.high)
    }
}

/// A half-open window `[from, to)` of event time; never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    from: EventTime,
    to: EventTime,
}

impl Window {
    /// All of event time.
    pub const ALL: Self = Self { from: EventTime::MIN, to: EventTime::MAX };

    /// The window from `from` (included) to `to` (excluded); `None` when it would hold nothing.
    pub fn new(from: EventTime, to: EventTime) -> Option<Self> {
        (from < to).then_some(Self { from, to })
    }

    /// The first point in the window.
    pub const fn from(self) -> EventTime {
        self.from
    }

    /// The first point after the window.
    pub const fn to(self) -> EventTime {
        self.to
    }

    /// Whether `at` lies within.
    pub fn contains(self, at: EventTime) -> bool {
        self.from <= at && at < self.to
    }

    /// The least window that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.from, self.to)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> EventTime {
        EventTime::from_micros(micros)
    }

    #[test]
    fn a_span_to_be_written_is_no_shorter_and_reads_back_as_itself() {
        let days = 86_400_000_000;
        for micros in
            [0, 1, 59_999_999, 60_000_001, 3_599_999_999, 3_600_000_001, days - 1, days + 1, 7 * days - 5, 61 * days]
        {
            let span = Span::from_micros(micros);
            let written = span.to_be_written();
            assert!(written >= span && written.as_micros() - micros < 3_600_000_000, "{span} {written}");
            assert_eq!(crate::spec::parse_span(&written.to_string()).unwrap(), written);
        }
        assert_eq!(Span::from_micros(7 * days - 5).to_be_written().to_string(), "7d");
    }

    #[test]
    fn a_span_reads_as_its_two_largest_parts() {
        let said: Vec<String> = [0, 1_500_000, 90_000_000, 864_000_000_000, 601_200_000_000, -1_750_000_000]
            .into_iter()
            .map(|micros| Span::from_micros(micros).to_string())
            .collect();
        assert_eq!(said, ["0s", "1.5s", "1m30s", "10d", "6d23h", "-29m10s"]);
    }

    #[test]
    fn bounds_are_clamped_to_the_half_open_window() {
        let window = Window::new(at(10), at(20)).unwrap();
        let clamp = |low, high| Bounds::new(at(low), at(high)).unwrap().clamp(window);
        assert_eq!(clamp(0, 50), Bounds::new(at(10), at(19)));
        assert_eq!(clamp(20, 50), None, "the window's end is not in the window");
        assert_eq!(clamp(0, 10), Bounds::new(at(10), at(10)), "its start is");
    }

    #[test]
    fn the_ends_of_time_do_not_move() {
        assert_eq!(EventTime::MAX.plus(Span::from_micros(-5)), EventTime::MAX);
        assert_eq!(EventTime::MIN.plus(Span::from_micros(5)), EventTime::MIN);
        assert_eq!(at(5).plus(Span::MAX), EventTime::MAX);
    }
}
