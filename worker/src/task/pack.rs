//! Packs the splits that an enumeration found into read tasks, and these into plan segments.
//!
//! Pure: the same splits give the same plan, in whatever order they were found. It refuses a split that is too large
//! to send.

use prost::Message;
use tidegate_common::time::Span;
use tidegate_proto::v1;

use crate::source::FoundSplit;

/// How tasks are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Input bytes of a task.
    pub target_bytes: u64,
    /// Slots that will read. Each gets eight tasks where there is enough for that.
    pub slots: u64,
    /// Input bytes that fill one file of the outputs: a task's end ends its files, so that a task is to have as many,
    /// be they more than `target_bytes`. For their sake a slot gets half as many tasks at least. Zero where nobody knows.
    pub file_bytes: u64,
    /// How far the files of one task may reach in event time; none where there is no gate.
    pub max_drift: Option<Span>,
}

impl Packing {
    /// Units of one task.
    pub const MAX_UNITS: usize = 4096;
    /// Encoded bytes of one task.
    pub const MAX_TASK_BYTES: usize = 256 << 10;
    /// Tasks of one segment.
    pub const MAX_SEGMENT_TASKS: usize = 2048;
    /// Encoded bytes of one segment.
    pub const MAX_SEGMENT_BYTES: usize = 512 << 10;
    /// Input bytes below which no task is cut for the sake of parallelism.
    const MIN_TARGET: u64 = 1 << 20;

    /// Tasks for each slot: what is left over at the end is then small, also where a few more workers help.
    const TASKS_A_SLOT: u64 = 8;

    fn target(&self, total: u64) -> u64 {
        let tasks = self.slots.saturating_mul(Self::TASKS_A_SLOT);
        let (fair, coarse) = (total.checked_div(tasks), total.checked_div(tasks / 2));
        let share = fair.unwrap_or(u64::MAX).max(self.file_bytes.min(coarse.unwrap_or(u64::MAX)));
        self.target_bytes.max(self.file_bytes).min(share.max(Self::MIN_TARGET)).max(1)
    }
}

impl Default for Packing {
    fn default() -> Self {
        // As large as Iceberg's data files are to be by default: a task's end ends its files, however small they are.
        Self { target_bytes: 512 << 20, slots: 0, file_bytes: 0, max_drift: None }
    }
}

/// A split whose description alone does not fit into a task.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: what a reader must know of it takes {bytes} bytes, more than a task may hold ({})",
    Packing::MAX_TASK_BYTES
)]
pub struct TooLarge {
    /// The file.
    pub file: String,
    /// Encoded bytes of the split.
    pub bytes: usize,
}

/// What one field of a message takes beside its content: a tag and a length.
const FIELD: usize = 6;

/// Cuts and packs `found` into tasks sorted by low, each with its units sorted by low.
///
/// Every unit goes into exactly one task. A split of more than the target becomes several equal pieces of units
/// consecutive by low, each above one and a half targets by less than a unit; pieces next to each other by low share a task while they fit and reach no further than the drift.
///
/// # Errors
/// [`TooLarge`] when a split cannot be sent.
pub fn tasks(found: Vec<FoundSplit>, packing: &Packing) -> Result<Vec<v1::ReadTask>, TooLarge> {
    let total = found.iter().flat_map(|split| &split.units).map(|unit| unit.bytes).sum();
    let target = packing.target(total);
    let mut pieces = Vec::new();
    for split in found {
        cut(split, target, &mut pieces)?;
    }
    pieces.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut tasks: Vec<Piece> = Vec::new();
    for piece in pieces {
        match tasks.last_mut() {
            Some(task) if task.has_room_for(&piece, task.limit(target), packing.max_drift) => task.join(piece),
            _ => tasks.push(piece),
        }
    }
    // What is left over at the end is no task of its own where it is little.
    if let Some(last) = tasks.pop_if(|last| last.bytes <= target / 2) {
        match tasks.last_mut() {
            Some(task) if task.has_room_for(&last, target.saturating_add(target / 2), packing.max_drift) => {
                task.join(last)
            }
            _ => tasks.push(last),
        }
    }
    Ok(tasks.into_iter().map(Piece::into_task).collect())
}

/// Cuts tasks, sorted by low, into segments.
pub fn segments(tasks: Vec<v1::ReadTask>) -> Vec<v1::PlanSegment> {
    let mut segments: Vec<v1::PlanSegment> = Vec::new();
    let mut bytes = usize::MAX;
    for task in tasks {
        let size = task.encoded_len() + FIELD;
        match segments.last_mut() {
            Some(last)
                if bytes + size <= Packing::MAX_SEGMENT_BYTES && last.tasks.len() < Packing::MAX_SEGMENT_TASKS =>
            {
                last.tasks.push(task);
                bytes += size;
            }
            _ => {
                let index = u32::try_from(segments.len()).unwrap_or(u32::MAX);
                segments.push(v1::PlanSegment { version: 1, index, tasks: vec![task] });
                bytes = size + 2 * FIELD;
            }
        }
    }
    segments
}

/// Splits and units that stay together: a task in the making.
struct Piece {
    task: v1::ReadTask,
    bytes: u64,
    encoded: usize,
    low: i64,
    high: i64,
}

impl Piece {
    fn of(split: &v1::Split) -> Self {
        let encoded = split.encoded_len() + FIELD;
        let task = v1::ReadTask { splits: vec![split.clone()], units: Vec::new() };
        Self { task, bytes: 0, encoded, low: i64::MAX, high: i64::MIN }
    }

    fn push(&mut self, unit: v1::UnitOfWork) {
        self.bytes = self.bytes.saturating_add(unit.bytes);
        self.encoded += size_of_unit(&unit);
        self.low = self.low.min(unit.low);
        self.high = self.high.max(unit.high);
        self.task.units.push(unit);
    }

    fn order(&self) -> (i64, i64, &str, u64) {
        let path = self.task.splits.first().and_then(|split| split.file.as_ref()).map_or("", |file| &file.path);
        (self.low, self.high, path, self.task.units.first().map_or(0, |unit| unit.position))
    }

    fn has_room_for(&self, next: &Self, target: u64, max_drift: Option<Span>) -> bool {
        let reach = self.high.max(next.high).saturating_sub(self.low.min(next.low));
        self.bytes.saturating_add(next.bytes) <= target
            && self.task.units.len() + next.task.units.len() <= Packing::MAX_UNITS
            && self.encoded + next.encoded <= Packing::MAX_TASK_BYTES
            && max_drift.is_none_or(|drift| reach <= drift.as_micros())
    }

    /// Bytes up to which it may grow: past the target where it is far below it.
    fn limit(&self, target: u64) -> u64 {
        if self.bytes < target / 4 * 3 { target.saturating_add(target / 2) } else { target }
    }

    fn join(&mut self, next: Self) {
        let first = u32::try_from(self.task.splits.len()).unwrap_or(u32::MAX);
        self.bytes += next.bytes;
        self.encoded += next.encoded;
        self.low = self.low.min(next.low);
        self.high = self.high.max(next.high);
        self.task.splits.extend(next.task.splits);
        let units = next.task.units.into_iter();
        self.task.units.extend(units.map(|unit| v1::UnitOfWork { split: unit.split + first, ..unit }));
    }

    fn into_task(mut self) -> v1::ReadTask {
        self.task.units.sort_by_key(|unit| (unit.low, unit.high, unit.split, unit.position));
        self.task
    }
}

/// A unit's encoded bytes wherever it ends up: its split's number is counted at its largest.
fn size_of_unit(unit: &v1::UnitOfWork) -> usize {
    unit.encoded_len() + FIELD + 6
}

fn cut(mut found: FoundSplit, target: u64, pieces: &mut Vec<Piece>) -> Result<(), TooLarge> {
    found.units.sort_by_key(|unit| (unit.low, unit.high, unit.position));
    // Equal pieces: what is left over of a file would make a task of its own.
    let total: u128 = found.units.iter().map(|unit| u128::from(unit.bytes)).sum();
    let target = u128::from(target);
    let share = total.div_ceil(((total + target / 2) / target).max(1)).max(1);
    let (mut before, mut number) = (0_u128, 0);
    let mut open: Option<Piece> = None;
    for unit in found.units {
        let middle = before + u128::from(unit.bytes) / 2;
        before += u128::from(unit.bytes);
        let another = std::mem::replace(&mut number, middle / share) != number;
        let is_full = open.as_ref().is_some_and(|piece| {
            another
                || piece.task.units.len() >= Packing::MAX_UNITS
                || piece.encoded + size_of_unit(&unit) > Packing::MAX_TASK_BYTES
        });
        if is_full {
            pieces.extend(open.take());
        }
        let piece = open.get_or_insert_with(|| Piece::of(&found.split));
        piece.push(v1::UnitOfWork { split: 0, ..unit });
        if piece.encoded > Packing::MAX_TASK_BYTES {
            let file = found.split.file.map(|file| file.path).unwrap_or_default();
            return Err(TooLarge { file, bytes: piece.encoded });
        }
    }
    pieces.extend(open);
    Ok(())
}

#[cfg(test)]
mod tests;
