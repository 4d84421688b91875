//! Slices: the grid on event time by which several sources are joined.
//!
//! A window is cut into slices of one width; each row of a join's result belongs to the slice that holds its anchor's
//! event time. Beyond both ends of the window go on pieces of the same width; all of them are *cells*: rows are kept by the
//! cell of their own event time, and a slice needs the cells that its sources reach into. The cell of a slice holds that
//! slice and nothing else.

use std::ops::{Range, RangeInclusive};

use crate::time::{EventTime, Span, Window};
use crate::windows::WholeWindows;

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

    /// From the least difference to the largest.
    pub fn length(self) -> Span {
        Span::from_micros(self.high.as_micros().saturating_sub(self.low.as_micros()))
    }

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

/// Bytes of input, as they lie in their files, that a slice should hold.
const SLICE_BYTES: u64 = 64 << 20;
/// Slices of a window at least, where nothing says how wide one should be.
const LEAST_SLICES: i64 = 16;
/// Slices of a window at most, unless the spec asks for more.
const MOST_SLICES: i64 = 4096;
/// A slice is at least this part of what it reaches: all of that is read again for each slice.
const REACH_PART: i64 = 4;
/// Bytes of input that one bucket of a slice should hold.
const BUCKET_BYTES: u64 = 16 << 20;
/// Buckets at most, unless the spec asks for more.
const MOST_BUCKETS: u64 = 64;

/// Widths that people can think in, in seconds.
const WIDTHS: [i64; 16] = [
    1,
    5,
    15,
    60,
    300,
    900,
    3_600,
    10_800,
    21_600,
    43_200,
    86_400,
    604_800,
    2_419_200,
    7_257_600,
    31_449_600,
    314_496_000,
];

/// What decides how an output that joins is cut: what the spec says, and what was found.
#[derive(Clone, Copy, Debug)]
pub struct Cutting {
    /// That of the anchor.
    pub window: Window,
    /// How far past the read watermark one may read; `None` without alignment.
    pub max_drift: Option<Span>,
    /// Bytes of all inputs that will be read, as they lie in their files.
    pub bytes: u64,
    /// The longest reach of an input.
    pub reach: Span,
    /// Whether rows that meet agree on columns by which they can be distributed.
    pub keyed: bool,
    /// The width that the spec asks for.
    pub slice: Option<Span>,
    /// The buckets that the spec asks for.
    pub buckets: Option<u32>,
    /// The windows that its aggregates group by: no slice holds a part of one.
    pub whole: Option<WholeWindows>,
}

/// How an output that joins is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The width of a slice.
    pub slice: Span,
    /// The buckets of a slice.
    pub buckets: u32,
}

impl Cutting {
    /// What the spec says, or what follows from what was found. The coordinator cuts by it, and a plan shows it.
    ///
    /// | the width of a slice | |
    /// |---|---|
    /// | holds about | 64 MiB of input |
    /// | at least | a quarter of the longest reach, and a 4,096th of the window |
    /// | at most | the drift, or without one a 16th of the window; or the longest reach, where that is more |
    /// | within these | a width that people can think in, where there is one |
    /// | whatever else | a multiple of the windows that are grouped by |
    pub fn choose(&self) -> Cut {
        let slice = self.slice.unwrap_or_else(|| self.width());
        let slice = self.whole.map_or(slice, |whole| whole.round_up(slice));
        // A spec's width that makes too many slices is no width.
        let slice = if Slices::new(self.window, slice).is_some() { slice } else { self.length() };
        let chosen =
            || u32::try_from(self.bytes_near(slice).div_ceil(BUCKET_BYTES).clamp(1, MOST_BUCKETS)).unwrap_or(1);
        let buckets = if self.keyed { self.buckets.unwrap_or_else(chosen).max(1) } else { 1 };
        Cut { slice, buckets }
    }

    fn length(&self) -> Span {
        self.window.to().since(self.window.from())
    }

    fn width(&self) -> Span {
        let length = self.length().as_micros().max(1);
        let reach = self.reach.as_micros().max(0);
        let least = ceil(length, MOST_SLICES).max(ceil(reach, REACH_PART)).min(length);
        let most = self.max_drift.map_or(length / LEAST_SLICES, Span::as_micros).max(reach).min(length).max(least);
        let slices = i64::try_from(self.bytes / SLICE_BYTES).unwrap_or(i64::MAX).max(1);
        let wanted = (length / slices).clamp(least, most);
        let nice = || WIDTHS.iter().map(|seconds| seconds * 1_000_000);
        let narrower = nice().filter(|width| (least..=wanted).contains(width)).max();
        let wider = || nice().find(|width| (wanted..=most).contains(width));
        Span::from_micros(narrower.or_else(wider).unwrap_or(wanted))
    }

    /// Bytes of input that one slice takes with what it reaches, if they are spread evenly.
    fn bytes_near(&self, slice: Span) -> u64 {
        let length = self.length().as_micros().max(1);
        let near = slice.as_micros().saturating_add(self.reach.as_micros()).clamp(1, length);
        let bytes = u128::from(self.bytes) * u128::from(near.unsigned_abs()) / u128::from(length.unsigned_abs());
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// `of / by`, rounded up; neither is negative.
fn ceil(of: i64, by: i64) -> i64 {
    of / by + i64::from(of % by > 0)
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

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;
    const DAY: i64 = 24 * HOUR;
    const MIB: u64 = 1 << 20;

    fn cutting(length: i64, max_drift: Option<i64>, bytes: u64, reach: i64) -> Cutting {
        Cutting {
            window: Window::new(at(0), at(length)).unwrap(),
            max_drift: max_drift.map(Span::from_micros),
            bytes,
            reach: Span::from_micros(reach),
            keyed: true,
            slice: None,
            buckets: None,
            whole: None,
        }
    }

    fn chosen(cutting: Cutting) -> (i64, u32, u32) {
        let cut = cutting.choose();
        (cut.slice.as_micros(), Slices::new(cutting.window, cut.slice).unwrap().count(), cut.buckets)
    }

    #[test]
    fn a_slice_holds_enough_and_is_no_wider_than_sources_drift_or_reach() {
        let cases = [
            ("little data: as wide as the drift", cutting(365 * DAY, Some(10 * DAY), 8 * MIB, 0), (7 * DAY, 53, 1)),
            ("the drift is a width that one can think in", cutting(30 * DAY, Some(DAY), 8 * MIB, 0), (DAY, 30, 1)),
            ("no drift: a 16th of the window", cutting(365 * DAY, None, 8 * MIB, 0), (7 * DAY, 53, 1)),
            ("much data: 64 MiB each", cutting(DAY, Some(DAY), 24 * 64 * MIB, 0), (HOUR, 24, 4)),
            ("too much data: no more than 4,096", cutting(365 * DAY, Some(DAY), 1 << 50, 0), (3 * HOUR, 2_920, 64)),
            ("a long reach: a quarter of it", cutting(30 * DAY, Some(HOUR), 1 << 40, 4 * DAY), (DAY, 30, 64)),
            (
                "wider where no such width is near",
                cutting(7 * DAY, Some(HOUR / 2), 1 << 37, 5 * HOUR),
                (3 * HOUR, 56, 64),
            ),
            ("nor anywhere between", cutting(30 * DAY, Some(HOUR), 1 << 40, 5 * DAY), (30 * HOUR, 24, 64)),
            ("a reach beyond the window: all of it", cutting(HOUR, Some(HOUR), MIB, 9 * HOUR), (HOUR, 1, 1)),
            ("next to no window", cutting(10, None, 0, 0), (1, 10, 1)),
        ];
        for (what, cutting, wanted) in cases {
            assert_eq!(chosen(cutting), wanted, "{what}");
        }
    }

    #[test]
    fn what_the_spec_says_goes_and_what_has_no_key_has_one_bucket() {
        let found = cutting(DAY, Some(HOUR), 100 * MIB, 0);
        let said = Cutting { slice: Some(Span::from_micros(7 * SECOND)), buckets: Some(100), ..found };
        assert_eq!(chosen(said), (7 * SECOND, 12_343, 100));
        assert_eq!(chosen(Cutting { keyed: false, ..said }).2, 1);
        assert_eq!(chosen(Cutting { slice: Some(Span::from_micros(1)), ..found }).0, DAY, "86 thousand million slices");
        assert_eq!(chosen(Cutting { buckets: Some(0), ..found }).2, 1);
    }

    #[test]
    fn a_slice_is_made_of_whole_windows() {
        let hours = |hours| WholeWindows::new(Span::from_micros(hours * HOUR), at(0));
        let found = Cutting { whole: hours(1), ..cutting(30 * DAY, Some(DAY), 1 << 50, 0) };
        let plain = Cutting { whole: None, ..found };
        assert_eq!((chosen(plain).0, chosen(found).0), (900 * SECOND, HOUR), "too narrow without");
        assert_eq!(chosen(Cutting { whole: hours(5), ..cutting(30 * DAY, Some(DAY), MIB, 0) }).0, 25 * HOUR);
        let wide = Cutting { whole: hours(24), ..cutting(30 * DAY, Some(HOUR), MIB, 0) };
        assert_eq!(chosen(wide).0, DAY, "wider than the drift, for want of a narrower one");
        let said = Cutting { slice: Some(Span::from_micros(HOUR + 1)), ..found };
        assert_eq!(chosen(said).0, 2 * HOUR);
        let too_fine = Cutting { slice: Some(Span::from_micros(1)), whole: hours(0), ..found };
        assert_eq!(chosen(too_fine).0, 30 * DAY);
    }

    proptest! {
        #[test]
        fn whatever_was_found_a_slice_is_made_of_whole_windows_and_no_wider_than_the_window(
            (width, windows) in (prop_oneof![1..1_000i64, SECOND..DAY], 1..5_000i64),
            drift in proptest::option::of(1..30 * DAY),
            bytes in any::<u64>(),
            reach in 0..60 * DAY,
            slice in proptest::option::of(1..2 * DAY),
        ) {
            let whole = WholeWindows::new(Span::from_micros(width), at(0));
            let slice = slice.map(Span::from_micros);
            let cutting = Cutting { whole, slice, ..cutting(width * windows, drift, bytes, reach) };
            let cut = cutting.choose().slice.as_micros();
            prop_assert_eq!(cut % width, 0);
            prop_assert!(slice.is_some() || cut <= width * windows, "{cut} is wider than the window");
        }

        #[test]
        fn a_width_is_within_its_bounds_whatever_was_found(
            length in prop_oneof![1..10_000i64, SECOND..DAY, DAY..4_000 * DAY],
            drift in proptest::option::of(prop_oneof![1..SECOND, SECOND..30 * DAY]),
            bytes in prop_oneof![0..200 * MIB, any::<u64>()],
            reach in prop_oneof![Just(0), 1..SECOND, SECOND..60 * DAY],
        ) {
            let (width, slices, buckets) = chosen(cutting(length, drift, bytes, reach));
            prop_assert!(i64::from(slices) <= MOST_SLICES, "{slices} slices");
            prop_assert!(width == length || width * 4 >= reach, "{width} is less than a quarter of {reach}");
            let widest = drift.unwrap_or(length / LEAST_SLICES).max(reach);
            let finest = length / MOST_SLICES + 1;
            prop_assert!(width <= widest.max(finest) && width <= length, "{width} is wider than {widest}");
            prop_assert!((1..=64).contains(&buckets));
            // One that people can think in, wherever one is allowed.
            let allowed = |width: i64| width <= widest && width <= length && width * MOST_SLICES >= length && width * 4 >= reach;
            let nice = |width: i64| WIDTHS.iter().any(|seconds| seconds * SECOND == width);
            prop_assert!(nice(width) || !WIDTHS.iter().any(|seconds| allowed(seconds * SECOND)), "{width}");
        }

        #[test]
        fn more_data_makes_no_wider_slices(bytes in any::<u64>(), more in any::<u64>(), reach in 0..DAY) {
            let width = |bytes| chosen(cutting(365 * DAY, Some(10 * DAY), bytes, reach)).0;
            prop_assert!(width(bytes.saturating_add(more)) <= width(bytes));
        }
    }
}
