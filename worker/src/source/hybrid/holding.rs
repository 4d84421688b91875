//! What an archive holds of each partition: pieces of offsets, each of one unit. Pure.
//!
//! A unit that was read gives runs, exact to the offset. One whose statistics say that it is of one partition, and that no
//! other unit lies in its span, is one piece of so many rows: they are counted again when it is read, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::cut::Cut;
use super::runs::Runs;

/// Offsets `[from, to)` of a partition, of which a unit holds so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    pub(super) from: i64,
    pub(super) to: i64,
    /// `to - from` where it was read; else as many as the unit has, which may be fewer.
    pub(super) rows: u64,
    pub(super) unit: usize,
}

impl Piece {
    /// Whether some of it lies before `at` and some from there on.
    pub(super) fn is_around(&self, at: i64) -> bool {
        self.from < at && at < self.to
    }
}

/// What statistics say of a unit: closed bounds, and its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) partitions: (i64, i64),
    pub(super) offsets: (i64, i64),
    pub(super) rows: u64,
}

impl Span {
    /// It as a piece of one partition, if it can be one.
    fn plain(&self, unit: usize) -> Option<(i32, Piece)> {
        let (from, to) = (Some(self.offsets.0).filter(|from| *from >= 0)?, self.offsets.1.checked_add(1)?);
        let places = u64::try_from(to.checked_sub(from)?).ok()?;
        let is_one = self.partitions.0 == self.partitions.1 && (1..=places).contains(&self.rows);
        let partition = i32::try_from(self.partitions.0).ok().filter(|_| is_one)?;
        Some((partition, Piece { from, to, rows: self.rows, unit }))
    }
}

/// What a unit was found to hold, by partition.
pub(super) type Read = BTreeMap<i32, Runs>;

/// What the archive holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    units: usize,
    /// By partition, by where they begin.
    pieces: BTreeMap<i32, Vec<Piece>>,
    /// The units that were not read, each of one piece.
    believed: BTreeSet<usize>,
}

/// What of a partition comes from the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) cut: Cut,
    /// Rows of `[start, cut)`.
    pub(super) rows: u64,
    /// Offsets of `[start, cut)` without a row.
    pub(super) gaps: u64,
    /// Rows from the cut on, which are left to the topic or lie behind the range.
    pub(super) beyond: u64,
}

/// What is read of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// In the order of the cuts.
    pub(super) parts: Vec<Part>,
    /// Rows that each unit gives.
    pub(super) taken: Vec<u64>,
}

/// An offset that the archive holds more than once, where it is to be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Twice {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Rows too many in its partition.
    pub(super) rows: u64,
    /// The units of which two hold it.
    pub(super) units: (usize, usize),
}

impl Holding {
    /// Of units with these spans. Those that cannot be believed, which come with it, must be read.
    pub(super) fn of(spans: &[Option<Span>]) -> (Self, Vec<usize>) {
        let mut holding = Self { units: spans.len(), ..Self::default() };
        let plain = |(unit, span): (usize, &Option<Span>)| span.as_ref()?.plain(unit);
        for (partition, piece) in spans.iter().enumerate().filter_map(plain) {
            holding.pieces.entry(partition).or_default().push(piece);
            holding.believed.insert(piece.unit);
        }
        holding.pieces.values_mut().for_each(|pieces| pieces.sort_unstable());
        let unknown = (0..spans.len()).filter(|unit| !holding.believed.contains(unit)).collect();
        (holding, unknown)
    }

    /// Takes in what was read of units, in the place of what was believed of them.
    pub(super) fn read(&mut self, units: Vec<(usize, Read)>) {
        for (unit, _) in &units {
            self.believed.remove(unit);
        }
        let is_replaced: BTreeSet<usize> = units.iter().map(|(unit, _)| *unit).collect();
        self.pieces.values_mut().for_each(|pieces| pieces.retain(|piece| !is_replaced.contains(&piece.unit)));
        for (unit, read) in units {
            for (partition, runs) in read {
                let piece = |run: Range<i64>| {
                    let rows = u64::try_from(run.end - run.start).unwrap_or(0);
                    Piece { from: run.start, to: run.end, rows, unit }
                };
                self.pieces.entry(partition).or_default().extend(runs.sorted().into_iter().map(piece));
            }
        }
        self.pieces.retain(|_, pieces| !pieces.is_empty());
        self.pieces.values_mut().for_each(|pieces| pieces.sort_unstable());
    }

    /// Its pieces by partition, by where they begin.
    pub(super) fn pieces(&self) -> &BTreeMap<i32, Vec<Piece>> {
        &self.pieces
    }

    /// How many pieces it takes by now.
    pub(super) fn len(&self) -> usize {
        self.pieces.values().map(Vec::len).sum()
    }

    /// The units whose statistics are not enough: others lie in their spans, or `wanted` says so.
    pub(super) fn doubtful(&self, wanted: impl Fn(i32, &Piece) -> bool) -> Vec<usize> {
        let mut doubtful = Vec::new();
        for (partition, pieces) in &self.pieces {
            let mut widest: Option<Piece> = None;
            for piece in pieces.iter().copied() {
                if let Some(before) = widest.filter(|before| piece.from < before.to) {
                    doubtful.extend([before.unit, piece.unit]);
                }
                if wanted(*partition, &piece) {
                    doubtful.push(piece.unit);
                }
                widest = widest.filter(|before| before.to >= piece.to).or(Some(piece));
            }
        }
        doubtful.retain(|unit| self.believed.contains(unit));
        doubtful.sort_unstable();
        doubtful.dedup();
        doubtful
    }

    /// What is read of it where partitions are cut so.
    pub(super) fn account(&self, cuts: &[Cut]) -> Result<Account, Twice> {
        let mut account = Account { taken: vec![0; self.units], ..Account::default() };
        for cut in cuts {
            let (mut rows, mut beyond) = (0, 0);
            let mut widest: Option<(i64, usize)> = None;
            let mut doubled: Option<Twice> = None;
            for piece in self.pieces.get(&cut.partition).map(Vec::as_slice).unwrap_or_default() {
                let (from, to) = (piece.from.clamp(cut.start, cut.cut), piece.to.clamp(cut.start, cut.cut));
                let length = |from: i64, to: i64| u64::try_from(to - from).unwrap_or(0);
                // What was only believed lies on one side of either end: else it would have been read.
                let whole = (from, to) == (piece.from, piece.to);
                let here = if whole { piece.rows } else { length(from, to) };
                beyond += if piece.from >= cut.cut {
                    piece.rows
                } else {
                    length(piece.from.max(cut.cut), piece.to.max(cut.cut))
                };
                if here == 0 {
                    continue;
                }
                if let Some((end, unit)) = widest.filter(|(end, _)| from < *end) {
                    let more = length(from, to.min(end));
                    let first = Twice { partition: cut.partition, offset: from, rows: 0, units: (unit, piece.unit) };
                    doubled.get_or_insert(first).rows += more;
                }
                widest = widest.filter(|(end, _)| *end >= to).or(Some((to, piece.unit)));
                rows += here;
                if let Some(taken) = account.taken.get_mut(piece.unit) {
                    *taken += here;
                }
            }
            if let Some(doubled) = doubled {
                return Err(doubled);
            }
            let places = u64::try_from(cut.cut - cut.start).unwrap_or(0);
            account.parts.push(Part { cut: *cut, rows, gaps: places.saturating_sub(rows), beyond });
        }
        Ok(account)
    }
}

#[cfg(test)]
mod tests;
