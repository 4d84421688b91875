//! Slices: the grid on event time by which several sources are joined.
//!
//! A window is cut into slices of one width; each row of a join's result belongs to the slice that holds its anchor's
//! event time. Beyond both ends of the window go on pieces of the same width; all of them are *cells*: rows are kept by the
//! cell of their own event time, and a slice needs the cells that its sources reach into. The cell of a slice holds that
//! slice and nothing else.

mod waiting;

use std::ops::{Range, RangeInclusive};

pub use self::waiting::{Bytes, Found, OverBudget, waiting};

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
    pub fn start(self, cell: i64) -> EventTime {
        EventTime::from_micros(self.start_of(cell))
    }

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
mod tests;
