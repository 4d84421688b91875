//! How large the files of an attempt become. Pure.
//!
//! A hand-in ends every open file, so a file reaches its size only where it ends with a unit. What a byte of input makes
//! of output is known from what has been read; with it the files ahead are drawn: as many of one size, near the target,
//! as end with the units. What Parquet says of a row group in progress is weighed by what it said of those that are
//! written, since it counts much of it before compression.

/// A file of three quarters of the target is large enough: Iceberg's own compaction leaves it alone.
const LEAST: f64 = 0.75;
/// No file grows above this, whatever was expected of it; Iceberg's own compaction leaves it alone.
const MOST: f64 = 1.8;
/// Files that are too small may be an eighth of what is handed in.
const CRUMBS: f64 = 1.0 / 8.0;

/// Row groups that Parquet says are smaller than this, in bytes, are not learned from.
const LEAST_WEIGHED: f64 = 1048576.0;

/// Whether an output's files are such that a hand-in is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It has no files.
    Free,
    /// A hand-in would end files before their time.
    Early,
    /// Its files are of their size.
    Ripe,
    /// It has so many files that it must.
    Over,
}

impl Due {
    /// Whether a hand-in is due of outputs that are so.
    pub(crate) fn of_all(outputs: &[Self]) -> bool {
        outputs.contains(&Self::Over) || (outputs.contains(&Self::Ripe) && !outputs.contains(&Self::Early))
    }
}

#[derive(Clone, Copy, Debug)]
struct Drawn {
    /// Files until the one that ends with a unit, itself included.
    files: u64,
    /// Whether it ends with this unit.
    now: bool,
}

/// The sizes of one attempt's files of one output, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Sizing {
    target: f64,
    /// At which size a file is closed.
    full: f64,
    /// What was drawn at the beginning of the unit; `None` where nothing could be.
    drawn: Option<Drawn>,
    /// A row group that was written: what Parquet said that it would take, and what it took.
    weighed: Option<(f64, f64)>,
}

impl Sizing {
    /// Files of `target` bytes.
    pub(super) fn new(target: usize) -> Self {
        let target = target.max(1) as f64;
        Self { target, full: target, drawn: None, weighed: None }
    }

    /// What a row group of which Parquet says that it takes `estimate` bytes will take, by what the one before took.
    pub(super) fn weigh(&self, estimate: usize) -> usize {
        let (said, took) = self.weighed.unwrap_or((1.0, 1.0));
        (estimate as f64 * took / said) as usize
    }

    /// What it may take: Parquet says too much of the pages that it has not compressed yet, and that is a share of a
    /// small row group and no more of a large one.
    pub(super) fn weigh_most(&self, estimate: usize) -> usize {
        let (said, took) = self.weighed.unwrap_or((1.0, 1.0));
        self.weigh(estimate).max((estimate as f64 - (said - took).max(0.0)) as usize)
    }

    /// A row group of which Parquet said `estimate` took `written` bytes. A tiny one tells nothing: it is headers.
    pub(super) fn learn(&mut self, estimate: usize, written: usize) {
        if estimate > 0 && estimate as f64 >= (self.target / 16.0).min(LEAST_WEIGHED) {
            self.weighed = Some((estimate as f64, written as f64));
        }
    }

    /// Draws the files ahead at the beginning of a unit. `read` bytes of input made `made` bytes of output, `open` of
    /// which are in the open file; `ahead` are the bytes of input from each unit still to be read to the end, the next
    /// first, with a zero at the end.
    pub(super) fn draw(&mut self, read: u64, made: u64, open: u64, ahead: &[u64]) {
        let (Some(&left), true) = (ahead.first(), read > 0 && made > 0) else { return self.undrawn() };
        let yielded = made as f64 / read as f64;
        let after = |end: usize| yielded * ahead.get(end).map_or(0.0, |bytes| *bytes as f64);
        let until = |end: usize| open as f64 + yielded * left as f64 - after(end);
        let last = ahead.len() - 1;
        let (mut low, mut end) = (1.min(last), last);
        while low < end {
            let middle = low + (end - low) / 2;
            if until(middle) >= self.target { end = middle } else { low = middle + 1 }
        }
        if after(end) < LEAST * self.target {
            end = last;
        }
        let files = (until(end) / self.target).round().max(1.0);
        self.drawn = Some(Drawn { files: files as u64, now: end <= 1 });
        self.full = until(end) / files;
    }

    fn undrawn(&mut self) {
        *self = Self { weighed: self.weighed, ..Self::new(self.target as usize) };
    }

    /// Whether a file of `size` bytes, rows of a unit still to come, is to be closed.
    pub(super) fn is_full(&self, size: usize) -> bool {
        let last = self.drawn.is_some_and(|drawn| drawn.files == 1);
        size as f64 >= if last { MOST * self.target } else { self.full }
    }

    /// As [`Sizing::is_full`], of a file that is weighed exactly: a little less will do.
    pub(super) fn is_full_enough(&self, size: usize) -> bool {
        self.is_full((size as f64 / 0.95) as usize)
    }

    /// A file is closed.
    pub(super) fn closed(&mut self) {
        match &mut self.drawn {
            Some(drawn) if drawn.files > 1 => drawn.files -= 1,
            _ => self.undrawn(),
        }
    }

    /// Whether a hand-in is due at a unit's end, with `closed` bytes in closed files and these in the open ones.
    pub(super) fn due(&self, closed: u64, open: impl Iterator<Item = usize>) -> Due {
        let (mut whole, mut crumbs) = (closed as f64, 0.0);
        for size in open {
            *(if size as f64 >= LEAST * self.target { &mut whole } else { &mut crumbs }) += size as f64;
        }
        let ends = self.drawn.is_none_or(|drawn| drawn.now);
        match (whole + crumbs > 0.0, ends && crumbs <= CRUMBS * whole) {
            (false, _) => Due::Free,
            (true, true) => Due::Ripe,
            (true, false) => Due::Early,
        }
    }
}

#[cfg(test)]
mod tests;
