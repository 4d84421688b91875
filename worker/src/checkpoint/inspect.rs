//! Positions beside the logs they are in: lag, age, and how far retention is behind them.

use std::collections::{BTreeMap, BTreeSet};

use super::brokers::Brokers;
use super::error::CheckpointError;
use super::partition::Partition;

/// A position and the log it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFacts {
    /// The partition.
    pub partition: Partition,
    /// The next offset that is read; none where nothing was committed.
    pub position: Option<i64>,
    /// The log's first offset.
    pub start: i64,
    /// The offset behind the log's last.
    pub end: i64,
    /// The time of the record at the position, or of the newest before it; milliseconds since 1970.
    pub time: Option<i64>,
    /// The time of the log's first record; milliseconds since 1970.
    pub start_time: Option<i64>,
}

impl PartitionFacts {
    /// Offsets that are still to be read; those that are gone count as well.
    pub fn lag(&self) -> Option<i64> {
        self.position.map(|position| self.end.saturating_sub(position).max(0))
    }

    /// Offsets between the log's start and the position; below zero where retention has eaten what was not read.
    pub fn headroom(&self) -> Option<i64> {
        self.position.map(|position| position.saturating_sub(self.start))
    }

    /// Record time between the log's start and the position, in milliseconds.
    pub fn headroom_millis(&self) -> Option<i64> {
        Some(self.time?.saturating_sub(self.start_time?))
    }

    /// Whether the position is in the log, its end included.
    pub fn is_inside(&self) -> bool {
        self.position.is_none_or(|position| (self.start..=self.end).contains(&position))
    }
}

/// The logs of these partitions.
pub(super) fn logs(
    brokers: &Brokers,
    of: &BTreeSet<Partition>,
) -> Result<BTreeMap<Partition, (i64, i64)>, CheckpointError> {
    of.iter().map(|partition| Ok((partition.clone(), brokers.log_of(partition)?))).collect()
}

/// The partitions `of`, with their `positions` beside their logs.
///
/// # Errors
/// A partition that is not there; brokers that do not answer.
pub fn inspect(
    brokers: &Brokers,
    of: &BTreeSet<Partition>,
    positions: &BTreeMap<Partition, i64>,
) -> Result<Vec<PartitionFacts>, CheckpointError> {
    let logs = logs(brokers, of)?;
    let placed = positions.iter().filter(|(partition, _)| of.contains(*partition));
    let times = brokers.times(&placed.map(|(partition, place)| (partition.clone(), *place)).collect(), &logs)?;
    let starts = logs.iter().map(|(partition, (start, _))| (partition.clone(), *start)).collect();
    let start_times = brokers.times(&starts, &logs)?;
    let facts = logs.into_iter().map(|(partition, (start, end))| PartitionFacts {
        position: positions.get(&partition).copied(),
        time: times.get(&partition).copied(),
        start_time: start_times.get(&partition).copied(),
        start,
        end,
        partition,
    });
    Ok(facts.collect())
}
