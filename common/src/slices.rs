//! Slices: the grid on event time by which several sources are joined.
//!
//! A window is cut into slices of one width; each row of a join's result belongs to the slice that holds its anchor's
//! event time. Beyond both ends of the window go on pieces of the same width; all of them are *cells*: rows are kept by the
//! cell of their own event time, and a slice needs the cells that its sources reach into. The cell of a slice holds that
//! slice and nothing else.

use std::ops::{Range, RangeInclusive};

use crate::time::{EventTime, Span, Window};

/// How far the rows of a source that a row of the anchor meets lie from it: `row - anchor` is at least `low` and at most
/// `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The least difference; negative where rows before the anchor's are met.
    pub low: Span,
    /// The largest.
    pub high: Span,
}

impl Reach {
    /// The anchor's own: the same row.
    pub const NONE: Self = Self { low: Span::ZERO, high: Span::ZERO };

    /// What both together reach.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// The window in which rows of the source meet an anchor in `window`.
    pub fn around(self, window: Window) -> Option<Window> {
        Window::new(window.from().plus(self.low), window.to().plus(self.high))
    }
}

/// A window, cut into slices of one width; the last may be narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    window: Window,
    width: i64,
}

impl Slices {
    /// Most slices of a window.
    pub const MOST: u32 = 100_000;

    /// Cuts `window`; `None` where the width is not positive, or gives more than [`Slices::MOST`].
    pub fn new(window: Window, width: Span) -> Option<Self> {
        let slices = Self { window, width: width.as_micros() };
        (slices.width > 0 && slices.try_count()? <= Self::MOST).then_some(slices)
    }

    fn try_count(self) -> Option<u32> {
        let length = self.window.to().as_micros().checked_sub(self.window.from().as_micros())?;
        u32::try_from(length.div_euclid(self.width) + i64::from(length.rem_euclid(self.width) > 0)).ok()
    }

    /// The width of a slice.
    pub fn width(self) -> Span {
        Span::from_micros(self.width)
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.try_count().unwrap_or(0)
    }

    /// The slice of that number.
    pub fn slice(self, ix: u32) -> Option<Window> {
        let from = self.window.from().plus(Span::from_micros(self.width.saturating_mul(i64::from(ix))));
        Window::new(from, from.plus(self.width()).min(self.window.to()))
    }

    /// The slices `[first, end)` as one window.
    pub fn run(self, slices: Range<u32>) -> Option<Window> {
        let (first, last) = (self.slice(slices.start)?, self.slice(slices.end.checked_sub(1)?)?);
        Window::new(first.from(), last.to())
    }

    /// The cell of an event time: that of slice `n` is `n`; those before the window are negative.
    pub fn cell_of(self, at: EventTime) -> i64 {
        let of = |origin: EventTime| at.as_micros().saturating_sub(origin.as_micros()).div_euclid(self.width);
        match at < self.window.to() {
            true => of(self.window.from()),
            false => i64::from(self.count()).saturating_add(of(self.window.to())),
        }
    }

    /// Where a cell begins.
    fn start_of(self, cell: i64) -> i64 {
        let count = i64::from(self.count());
        let (origin, steps) = match cell < count {
            true => (self.window.from(), cell),
            false => (self.window.to(), cell - count),
        };
        origin.as_micros().saturating_add(self.width.saturating_mul(steps))
    }

    /// The cells that hold what an anchor in `[first, end)` meets of a source of that reach.
    pub fn cells(self, slices: Range<u32>, reach: Reach) -> Option<RangeInclusive<i64>> {
        let met = reach.around(self.run(slices)?)?;
        Some(self.cell_of(met.from())..=self.cell_of(EventTime::from_micros(met.to().as_micros().saturating_sub(1))))
    }

    /// The slices that need something of the cells `[first, last]` of a source of that reach.
    pub fn needing(self, cells: RangeInclusive<i64>, reach: Reach) -> Range<u32> {
        // An anchor at t meets [t + low, t + high]: it is needed by those in [start - high, end - low).
        let lowest = self.start_of(*cells.start()).saturating_sub(reach.high.as_micros());
        let end = self.start_of(cells.end().saturating_add(1));
        let behind = end.saturating_sub(1).saturating_sub(reach.low.as_micros());
        let slice = |at: i64| self.cell_of(EventTime::from_micros(at));
        let clamped = |slice: i64| u32::try_from(slice.clamp(0, i64::from(self.count()))).unwrap_or(0);
        let (first, end) = (clamped(slice(lowest)), clamped(slice(behind).saturating_add(1)));
        first..end.max(first)
    }

    /// How many slices, from the first on, are ready as far as a source of that reach goes: every cell that they meet of
    /// it lies below `complete`, to its end. What comes later is in other cells, though a slice meet only a part of one.
    pub fn ready(self, complete: EventTime, reach: Reach) -> u32 {
        // All cells below this one are complete.
        let whole = self.cell_of(complete);
        let is_ready = |ix: u32| self.cells(ix..ix + 1, reach).is_some_and(|cells| *cells.end() < whole);
        let (mut ready, mut end) = if complete == EventTime::MAX { (self.count(), 0) } else { (0, self.count()) };
        while ready < end {
            let middle = ready + (end - ready) / 2;
            (ready, end) = if is_ready(middle) { (middle + 1, end) } else { (ready, middle) };
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> EventTime {
        EventTime::from_micros(micros)
    }

    proptest! {
        /// Held against every single microsecond of a small window.
        #[test]
        fn the_grid_is_what_its_points_say(
            from in -40..40i64, length in 1..60i64, width in 1..30i64, low in -30..30i64, more in 0..30i64,
            complete in -100..200i64, (first, cells) in (-8..12i64, 0..6i64),
        ) {
            let window = Window::new(at(from), at(from + length)).unwrap();
            let slices = Slices::new(window, Span::from_micros(width)).unwrap();
            let reach = Reach { low: Span::from_micros(low), high: Span::from_micros(low + more) };
            let slice_of = |t: i64| (0..slices.count()).find(|ix| slices.slice(*ix).unwrap().contains(at(t)));
            let anchors: Vec<(i64, u32)> = (from..from + length).map(|t| (t, slice_of(t).unwrap())).collect();
            prop_assert_eq!(anchors.first().unwrap().1, 0);
            prop_assert_eq!(anchors.last().unwrap().1 + 1, slices.count());
            for (t, slice) in &anchors {
                prop_assert_eq!(slices.cell_of(at(*t)), i64::from(*slice));
            }
            for ix in 0..slices.count() {
                let met: Vec<i64> =
                    anchors.iter().filter(|(_, of)| *of == ix).flat_map(|(t, _)| t + low..=t + low + more).collect();
                let all: Vec<i64> = met.iter().map(|t| slices.cell_of(at(*t))).collect();
                let range = slices.cells(ix..ix + 1, reach).unwrap();
                prop_assert_eq!((range.start(), range.end()), (all.iter().min().unwrap(), all.iter().max().unwrap()));
                let cell_ends = |t: &i64| (*t..).find(|u| slices.cell_of(at(*u + 1)) != slices.cell_of(at(*t))).unwrap();
                let whole = met.iter().all(|t| cell_ends(t) < complete);
                prop_assert_eq!(ix < slices.ready(at(complete), reach), whole, "slice {}", ix);
            }
            let last = first + cells;
            let needing: Vec<u32> = (0..slices.count())
                .filter(|ix| {
                    let range = slices.cells(*ix..*ix + 1, reach).unwrap();
                    *range.start() <= last && first <= *range.end()
                })
                .collect();
            prop_assert_eq!(slices.needing(first..=last, reach).collect::<Vec<_>>(), needing);
        }
    }

    #[test]
    fn a_cell_behind_what_the_last_slice_meets_is_needed_by_none_though_that_slice_is_narrower_than_its_cell() {
        let window = Window::new(at(0), at(10_000)).unwrap();
        let slices = Slices::new(window, Span::from_micros(439)).unwrap();
        let reach = Reach { low: Span::ZERO, high: Span::from_micros(536) };
        assert_eq!(slices.cells(22..23, reach).unwrap(), 22..=24);
        assert_eq!((slices.needing(24..=24, reach), slices.needing(25..=25, reach)), (22..23, 23..23));
    }

    #[test]
    fn a_slice_that_meets_a_part_of_a_cell_is_ready_when_the_whole_cell_is_complete() {
        let window = Window::new(at(0), at(1_000)).unwrap();
        let slices = Slices::new(window, Span::from_micros(100)).unwrap();
        let reach = Reach { low: Span::ZERO, high: Span::from_micros(50) };
        assert_eq!(
            (slices.ready(at(150), reach), slices.ready(at(199), reach), slices.ready(at(200), reach)),
            (0, 0, 1)
        );
        assert_eq!(slices.needing(1..=1, reach), 0..2, "what comes below 200 is of the first slice's");
    }

    #[test]
    fn what_is_no_grid_is_none() {
        let window = Window::new(at(0), at(1_000_000)).unwrap();
        assert_eq!(Slices::new(window, Span::ZERO), None);
        assert_eq!(Slices::new(window, Span::from_micros(1)), None, "a million slices");
        assert_eq!(Slices::new(window, Span::from_micros(10)).map(Slices::count), Some(100_000));
    }
}
