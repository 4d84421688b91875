//! The enumerate task: finds a source's splits, packs them into read tasks and hands these on as plan segments.
//!
//! It keeps what it found in memory until the last split is known, because tasks are sorted by event time and files
//! are not: about 300 bytes a file and 80 a unit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
    /// Nobody takes the segments any more.
    #[error("nobody takes the plan's segments any more")]
    Abandoned,
}

impl Classify for EnumerateError {
    fn class(&self) -> Class {
        match self {
            Self::Source(error) => error.class(),
            Self::TooLarge(_) => Class::Fatal { exit_code: 4 },
            Self::Abandoned => Class::Retryable,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Source(error) => error.place(),
            Self::TooLarge(error) => error.file.clone(),
            Self::Abandoned => String::new(),
        }
    }
}

/// Enumerates `source` over `window` and sends its plan segments in order; the answer is what was found in all.
///
/// # Errors
/// Those of the source; [`EnumerateError::TooLarge`] for a split that does not fit into a message;
/// [`EnumerateError::Abandoned`] when `segments` is closed.
pub async fn enumerate(
    source: &dyn Source,
    window: Window,
    packing: Packing,
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
    let tasks = pack::tasks(found, &packing)?;
    tally.tasks = tasks.len() as u64;
    tally.splits = tasks.iter().map(|task| task.splits.len() as u64).sum();
    for segment in pack::segments(tasks) {
        tally.segments += 1;
        segments.send(segment).await.map_err(|_| EnumerateError::Abandoned)?;
    }
    Ok(tally)
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
