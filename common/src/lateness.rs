//! How late rows are, that came when slices which need them were joined.
//!
//! Rows are known by their cell and no closer, so a row is *at most* as late as is said of it.

use crate::slices::{Reach, Slices};
use crate::time::Span;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

/// Classes of lateness.
pub const CLASSES: usize = 6;
/// What bounds each class but the last from above, in microseconds.
const BOUNDS: [i64; CLASSES - 1] = [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR];
/// What people call them.
pub const CLASS_NAMES: [&str; CLASSES] = ["<1m", "<10m", "<1h", "<6h", "<1d", ">=1d"];

/// The class that `late` is in.
pub fn class_of(late: Span) -> usize {
    BOUNDS.iter().position(|bound| late.as_micros() < *bound).unwrap_or(CLASSES - 1)
}

/// How late the rows of `cell` are at most, of a source of that reach, where `last` is the last joined slice that needs
/// them: from where the cell begins to the end of what that slice meets.
pub fn at_most(slices: Slices, reach: Reach, cell: i64, last: u32) -> Span {
    let met = slices.slice(last).map(|slice| slice.to().plus(reach.high));
    met.map_or(Span::ZERO, |end| end.since(slices.start(cell))).max(Span::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{EventTime, Window};

    #[test]
    fn classes_are_half_open() {
        let class = |micros| CLASS_NAMES.get(class_of(Span::from_micros(micros))).copied();
        let cases = [
            (0, "<1m"),
            (MINUTE - 1, "<1m"),
            (MINUTE, "<10m"),
            (HOUR, "<6h"),
            (24 * HOUR - 1, "<1d"),
            (24 * HOUR, ">=1d"),
        ];
        for (micros, name) in cases {
            assert_eq!(class(micros), Some(name), "{micros}");
        }
    }

    #[test]
    fn a_row_is_as_late_as_the_last_slice_that_could_have_taken_it_reaches() {
        let window = Window::new(EventTime::from_micros(0), EventTime::from_micros(95)).unwrap();
        let slices = Slices::new(window, Span::from_micros(10)).unwrap();
        let reach = |low, high| Reach { low: Span::from_micros(low), high: Span::from_micros(high) };
        let late = |reach, cell, last| at_most(slices, reach, cell, last).as_micros();
        assert_eq!(late(Reach::NONE, 3, 3), 10, "its own slice");
        assert_eq!(late(reach(-20, 0), 3, 5), 30);
        assert_eq!(late(reach(-20, 7), 3, 5), 37);
        assert_eq!(late(Reach::NONE, 9, 9), 5, "the last slice is narrower");
        assert_eq!(late(reach(-20, 0), -2, 0), 30, "before the window");
    }
}
