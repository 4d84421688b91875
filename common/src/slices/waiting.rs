//! How much of what an output joins waits in the shuffle store at most: an estimate, and what a budget says to it.

use std::fmt;

use super::Reach;
use crate::time::{Span, Window};

/// What was found of one source of an output that joins.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// How far from the anchor's its rows lie that are met.
    pub reach: Reach,
    /// Bytes of it that will be read, as they lie in their files.
    pub bytes: u64,
    /// Its lowest event time in microseconds, above `high` where there is nothing.
    pub low: i64,
    /// Its highest.
    pub high: i64,
    /// Its widest unit, in microseconds.
    pub widest_unit: i64,
}

/// Bytes of `sources` that wait to be joined at most, were they spread evenly over their event times, where anchors lie in
/// `window`, slices are as wide as `slice`, and sources are at most `max_drift` apart.
///
/// A row waits until the slice of the last anchor that may meet it is joined; that slice waits for the ends of all cells
/// that it meets of any source, and none is further ahead of the slowest than they may drift apart. Without alignment all
/// may wait; what no anchor meets never does.
pub fn waiting(sources: &[Found], window: Window, slice: Span, max_drift: Option<Span>) -> u64 {
    let widest = sources.iter().map(|found| found.widest_unit).max().unwrap_or(0);
    let ahead = max_drift.map(|drift| i128::from(drift.as_micros().max(widest)));
    let slice = i128::from(slice.as_micros().max(1));
    let high = sources.iter().map(|found| i128::from(found.reach.high.as_micros())).max().unwrap_or(0).max(0);
    let met_until = high + (slice - high % slice) % slice;
    let of = |found: &Found| {
        let lasts = (i128::from(found.high) - i128::from(found.low) + 1).max(1);
        let waits = ahead.map(|ahead| ahead + slice + met_until - i128::from(found.reach.low.as_micros()));
        let met = found.met(window);
        let part = waits.map_or(met, |waits| waits.clamp(0, met));
        let bytes = i128::from(found.bytes) * part / lasts;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    sources.iter().map(of).fold(0, u64::saturating_add)
}

impl Found {
    /// How much of its event times anchors in `window` meet, in microseconds.
    fn met(&self, window: Window) -> i128 {
        let met = self.reach.around(window).unwrap_or(window);
        let (from, end) = (i128::from(met.from().as_micros()), i128::from(met.to().as_micros()));
        (end.min(i128::from(self.high) + 1) - from.max(self.low.into())).max(0)
    }
}

/// More may wait than the budget allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// Bytes that may wait, by the estimate.
    pub estimate: u64,
    /// Bytes that may by the spec.
    pub budget: u64,
    /// How far sources may drift apart; `None` where nothing is aligned.
    pub max_drift: Option<Span>,
}

impl OverBudget {
    /// Where `estimate` is more than `budget` allows.
    pub fn of(estimate: u64, budget: Option<u64>, max_drift: Option<Span>) -> Option<Self> {
        let budget = budget.filter(|budget| estimate > *budget)?;
        Some(Self { estimate, budget, max_drift })
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (estimate, budget) = (Bytes(self.estimate), Bytes(self.budget));
        write!(f, "about {estimate} may wait in the shuffle store, and join.budget is {budget}: ")?;
        match self.max_drift {
            Some(drift) => write!(f, "take a shorter alignment.max_drift than {drift}, a narrower join.slice")?,
            None => write!(f, "align the sources with alignment.max_drift, without which all of it may wait")?,
        }
        write!(f, ", or a budget of {} or more", Bytes(self.estimate.div_ceil(Bytes::MIB).saturating_mul(Bytes::MIB)))
    }
}

/// Bytes for people: `512 B`, `1.5 MiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl Bytes {
    const MIB: u64 = 1 << 20;
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(power, _)| self.0 >> power > 0) {
            None => write!(f, "{} B", self.0),
            Some((power, unit)) => {
                // Tenths, rounded up: no more is said to be enough than is.
                let tenths = (u128::from(self.0) * 10).div_ceil(1 << power);
                match tenths % 10 {
                    0 => write!(f, "{} {unit}", tenths / 10),
                    rest => write!(f, "{}.{rest} {unit}", tenths / 10),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::EventTime;

    const HOUR: i64 = 3_600_000_000;
    const MIB: u64 = 1 << 20;

    fn hours(from: i64, to: i64) -> Window {
        Window::new(EventTime::from_micros(from * HOUR), EventTime::from_micros(to * HOUR)).unwrap()
    }

    /// A MiB an hour over `[low, high)` hours, met over `reach` hours.
    fn found(low: i64, high: i64, reach: (i64, i64)) -> Found {
        let reach = Reach { low: Span::from_micros(reach.0 * HOUR), high: Span::from_micros(reach.1 * HOUR) };
        let bytes = (high - low).unsigned_abs() * MIB;
        Found { reach, bytes, low: low * HOUR, high: high * HOUR - 1, widest_unit: HOUR }
    }

    #[test]
    fn given_a_drift_then_rows_wait_for_it_for_a_slice_and_for_what_is_met() {
        let (six, day) = (Span::from_micros(6 * HOUR), Some(Span::from_micros(24 * HOUR)));
        let sources = [found(0, 720, (0, 0)), found(-4, 721, (-4, 1))];
        // 24 h of drift, a slice of 6 h, and the cell that ends behind the hour that is met; 4 h more of the other.
        assert_eq!(waiting(&sources, hours(0, 720), six, day), (36 + 40) * MIB);
        assert_eq!(waiting(&sources, hours(0, 720), six, None), (720 + 725) * MIB);
        assert_eq!(waiting(&sources, hours(0, 12), six, day), (12 + 17) * MIB, "what no anchor meets never waits");
        assert_eq!(waiting(&sources, hours(900, 912), six, None), 0);
    }

    #[test]
    fn given_a_budget_then_what_is_refused_is_what_may_wait_beyond_it_and_the_message_has_the_numbers() {
        assert_eq!(OverBudget::of(MIB, None, None), None);
        assert_eq!(OverBudget::of(MIB, Some(MIB), None), None);
        let said = |drift| OverBudget::of(3 * MIB + 1, Some(MIB), drift).unwrap().to_string();
        assert_eq!(
            said(Some(Span::from_micros(HOUR))),
            "about 3.1 MiB may wait in the shuffle store, and join.budget is 1 MiB: take a shorter alignment.max_drift \
             than 1h, a narrower join.slice, or a budget of 4 MiB or more"
        );
        assert!(said(None).contains("align the sources with alignment.max_drift"));
        let bytes = [0, 1023, 1024, 1_048_575, 1 << 41].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(bytes, ["0 B", "1023 B", "1 KiB", "1024 KiB", "2 TiB"]);
    }
}
