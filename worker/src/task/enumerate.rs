//! The enumerate task: finds a source's splits, packs them into read tasks and hands these on as plan segments.
//!
//! It keeps what it found in memory until the last split is known, because tasks are sorted by event time and files
//! are not: about 300 bytes a file and 80 a unit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use prost::Message as _;
use sha2::{Digest, Sha256};
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

use super::pack::{self, Packing, TooLarge};
use crate::failure::{Class, Classify};
use crate::source::{FoundSplit, Source, SourceError};

/// Splits found ahead of being taken in.
const AHEAD: usize = 256;

/// Why a source could not be enumerated.
#[derive(Debug, thiserror::Error)]
pub enum EnumerateError {
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A split cannot be sent.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It is not what a saved plan says.
    #[error("source {source_name} is not what the saved plan says: {what}; make the plan again and apply that")]
    Stale {
        /// The source.
        source_name: String,
        /// What differs.
        what: String,
    },
    /// Nobody takes the segments any more.
    #[error("nobody takes the plan's segments any more")]
    Abandoned,
}

impl Classify for EnumerateError {
    fn class(&self) -> Class {
        match self {
            Self::Source(error) => error.class(),
            Self::TooLarge(_) | Self::Stale { .. } => Class::Fatal { exit_code: 4 },
            Self::Abandoned => Class::Retryable,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Source(error) => error.place(),
            Self::TooLarge(error) => error.file.clone(),
            Self::Stale { .. } | Self::Abandoned => String::new(),
        }
    }
}

/// Enumerates `source` over `window` and sends its plan segments in order; the answer is what was found in all.
///
/// # Errors
/// Those of the source; [`EnumerateError::TooLarge`] for a split that does not fit into a message;
/// [`EnumerateError::Stale`], before the first segment, when something else than `expected` was found;
/// [`EnumerateError::Abandoned`] when `segments` is closed.
pub async fn enumerate(
    source: &dyn Source,
    window: Window,
    packing: Packing,
    expected: Option<&v1::ExpectedSource>,
    segments: mpsc::Sender<v1::PlanSegment>,
) -> Result<v1::Enumerated, EnumerateError> {
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let drain = async {
        let mut found = Vec::new();
        while let Some(split) = receiver.recv().await {
            found.push(split);
        }
        found
    };
    let (ended, found) = tokio::join!(source.enumerate(window, sender), drain);
    ended?;
    let mut tally = tally(&found);
    tally.pinned = source.describe();
    tally.digest = digest(&found, source.pin());
    if let Some(expected) = expected {
        let pins: Vec<&v1::FilePin> = found.iter().filter_map(|split| split.split.file.as_ref()).collect();
        if let Some(what) = expected.changed(&tally, Some(&pins)) {
            return Err(EnumerateError::Stale { source_name: expected.name.clone(), what });
        }
    }
    let tasks = pack::tasks(found, &packing)?;
    tally.tasks = tasks.len() as u64;
    tally.splits = tasks.iter().map(|task| task.splits.len() as u64).sum();
    for segment in pack::segments(tasks) {
        tally.segments += 1;
        segments.send(segment).await.map_err(|_| EnumerateError::Abandoned)?;
    }
    Ok(tally)
}

/// What was found, as one figure: the state that was pinned, and every file with its units, in whatever order they came
/// and however they will be packed. What a split carries for its reader follows from these.
fn digest(found: &[FoundSplit], state: Option<v1::SourcePin>) -> String {
    let of_split = |found: &FoundSplit| {
        let mut hash = Sha256::new();
        let file = found.split.file.as_ref().map(|file| file.encode_to_vec()).unwrap_or_default();
        hash.update((file.len() as u64).to_be_bytes());
        hash.update(file);
        for figure in [found.rows_pruned, found.bytes_pruned, found.units.len() as u64] {
            hash.update(figure.to_be_bytes());
        }
        for unit in &found.units {
            for figure in [unit.position, unit.length, unit.rows] {
                hash.update(figure.to_be_bytes());
            }
            hash.update(unit.low.to_be_bytes());
            hash.update(unit.high.to_be_bytes());
        }
        hash.finalize()
    };
    let mut splits: Vec<_> = found.iter().map(of_split).collect();
    splits.sort_unstable();
    let mut hash = Sha256::new_with_prefix(b"tidegate/enumerated/v1");
    let state = state.map(|state| state.encode_to_vec()).unwrap_or_default();
    hash.update((state.len() as u64).to_be_bytes());
    hash.update(state);
    splits.iter().for_each(|split| hash.update(split));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Counts what was found, less what packing decides.
fn tally(found: &[FoundSplit]) -> v1::Enumerated {
    let mut tally = v1::Enumerated { version: 1, low: i64::MAX, high: i64::MIN, ..Default::default() };
    let mut file = None;
    for split in found {
        let path = split.split.file.as_ref().map(|file| file.path.as_str());
        tally.files += u64::from(file != Some(path));
        file = Some(path);
        tally.rows_pruned += split.rows_pruned;
        tally.bytes_pruned += split.bytes_pruned;
        tally.rows_in_range += split.rows_pruned;
        tally.bytes_in_range += split.bytes_pruned;
        for unit in &split.units {
            tally.units += 1;
            tally.rows_in_range += unit.rows;
            tally.bytes_in_range += unit.bytes;
            tally.widest_unit = tally.widest_unit.max(unit.high.saturating_sub(unit.low));
            tally.low = tally.low.min(unit.low);
            tally.high = tally.high.max(unit.high);
        }
    }
    let units = found.iter().flat_map(|split| &split.units);
    tally.overlap_depth = overlap_depth(units.map(|unit| (unit.low, unit.high)).collect());
    tally
}

/// The most units that share one point of event time; bounds are closed.
pub(crate) fn overlap_depth(mut units: Vec<(i64, i64)>) -> u32 {
    units.sort_unstable();
    let mut ends = BinaryHeap::new();
    let mut depth = 0;
    for (low, high) in units {
        while ends.peek().is_some_and(|Reverse(end)| *end < low) {
            ends.pop();
        }
        ends.push(Reverse(high));
        depth = depth.max(ends.len());
    }
    u32::try_from(depth).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
