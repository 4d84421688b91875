//! The gate: how far past the slowest source one may read.

use crate::time::{Bounds, EventTime, Span};

/// An alignment group's read watermark and the gate that follows from it.
///
/// # When a unit may be begun
///
/// | gate | the unit | may begin |
/// |---|---|---|
/// | none (no alignment) | any | yes |
/// | `g` | `high <= g` | yes |
/// | `g` | `low <= watermark`: it holds the watermark | yes, however wide |
/// | `g` | otherwise | no |
///
/// It is the unit's `high` that is held against the gate. Were it the `low`, a row could be read as far ahead as the
/// drift *and* the width of a unit; so every row read is at most `max(drift, widest unit)` past the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The read watermark of the group.
    pub watermark: EventTime,
    /// Where reading stops; `None` where nothing is aligned.
    pub gate: Option<EventTime>,
}

impl Gate {
    /// A gate that holds nothing back.
    pub const OPEN: Self = Self { watermark: EventTime::MIN, gate: None };

    /// The gate of a group at `watermark` whose sources may drift `max_drift` apart.
    pub fn new(watermark: EventTime, max_drift: Option<Span>) -> Self {
        Self { watermark, gate: max_drift.map(|drift| watermark.plus(drift)) }
    }

    /// Whether a unit with these bounds may be begun.
    pub fn permits(self, unit: Bounds) -> bool {
        self.gate.is_none_or(|gate| unit.high() <= gate || unit.low() <= self.watermark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(low: i64, high: i64) -> Bounds {
        Bounds::new(EventTime::from_micros(low), EventTime::from_micros(high)).unwrap()
    }

    #[test]
    fn a_unit_may_begin_as_the_table_says() {
        let gate = Gate::new(EventTime::from_micros(100), Some(Span::from_micros(10)));
        assert!(gate.permits(bounds(105, 110)), "up to the gate, which is included");
        assert!(!gate.permits(bounds(105, 111)), "its rows would lie past the gate");
        assert!(gate.permits(bounds(100, 999)), "it holds the watermark");
        assert!(gate.permits(bounds(90, 999)), "it lies behind the watermark after a crash");
        assert!(Gate::OPEN.permits(bounds(0, i64::MAX - 1)), "nothing is aligned");
    }
}
