//! What a range of a topic means: offsets, fixed once.

use std::collections::BTreeMap;

use tidegate_common::spec::ScanOffset;
use tidegate_proto::v1;

use crate::kafka::{Client, Cluster, KafkaError};
use crate::source::error::SourceError;

/// Why a range could not be pinned.
#[derive(Debug)]
pub(super) enum PinError {
    /// Kafka could not be asked.
    Kafka(KafkaError),
    /// It is not there: what, and the way out.
    Input(String),
}

impl PinError {
    /// As an error of the source `name`.
    pub(super) fn of(self, name: &str) -> SourceError {
        let source_name = name.to_owned();
        match self {
            Self::Kafka(source) => SourceError::Kafka { source_name, source },
            Self::Input(what) => SourceError::Input { source_name, what },
        }
    }
}

impl From<KafkaError> for PinError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// Pins `[start, stop)` of every partition of `topic`.
pub(super) fn pin(
    cluster: &Cluster,
    topic: &str,
    start: &ScanOffset,
    stop: &ScanOffset,
) -> Result<v1::KafkaPin, PinError> {
    let client = cluster.client()?;
    let state = client.topic(topic)?;
    let all: Vec<i32> = (0..i32::try_from(state.partitions).unwrap_or(i32::MAX)).collect();
    let partitions = wanted(topic, &all, start, stop)?;
    // The ends first: what comes while the rest is asked lies behind them.
    let ends: BTreeMap<i32, i64> = client.ends(topic, &partitions)?.into_iter().collect();
    let starts: BTreeMap<i32, i64> = client.starts(topic, &partitions)?.into_iter().collect();
    let edges = Edges { cluster, client: &client, topic, partitions: &partitions, starts: &starts, ends: &ends };
    let (from, to) = (edges.resolve(start, "scan.start")?, edges.resolve(stop, "scan.stop")?);
    let mut ranges = Vec::with_capacity(partitions.len());
    for partition in &partitions {
        let (Some(start), Some(end)) = (from.get(partition), to.get(partition)) else { continue };
        // A range that starts behind its end holds nothing: a time after the last record, a group that is ahead.
        ranges.push(v1::KafkaRange { partition: *partition, start: *start, end: *end.max(start) });
    }
    Ok(v1::KafkaPin { topic_id: state.id, ranges, format: Default::default(), partitions: state.partitions })
}

/// The partitions that are read: all, or those that the offsets name.
fn wanted(topic: &str, all: &[i32], start: &ScanOffset, stop: &ScanOffset) -> Result<Vec<i32>, PinError> {
    let mut partitions = all.to_vec();
    for offset in [start, stop] {
        let ScanOffset::Offsets(given) = offset else { continue };
        if let Some(unknown) = given.keys().find(|partition| !all.contains(partition)) {
            let what =
                format!("the topic {topic} has no partition {unknown}: its partitions are 0 to {}", all.len() - 1);
            return Err(PinError::Input(what));
        }
        partitions.retain(|partition| given.contains_key(partition));
    }
    Ok(partitions)
}

/// What is asked to fix an offset.
struct Edges<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    topic: &'a str,
    partitions: &'a [i32],
    starts: &'a BTreeMap<i32, i64>,
    ends: &'a BTreeMap<i32, i64>,
}

impl Edges<'_> {
    fn resolve(&self, offset: &ScanOffset, key: &str) -> Result<BTreeMap<i32, i64>, PinError> {
        match offset {
            ScanOffset::Earliest => Ok(self.starts.clone()),
            ScanOffset::Latest => Ok(self.ends.clone()),
            ScanOffset::Offsets(given) => {
                for (partition, offset) in given {
                    self.check(*partition, *offset, key, "the offset")?;
                }
                Ok(given.clone())
            }
            ScanOffset::Group(group) => {
                let mut found = BTreeMap::new();
                for (partition, offset) in self.cluster.committed(group, self.topic, self.partitions)? {
                    let Some(offset) = offset else {
                        return Err(PinError::Input(format!(
                            "{key}: the group {group} has no offset in partition {partition} of {}: give `offsets`",
                            self.topic
                        )));
                    };
                    self.check(partition, offset, key, &format!("the position of the group {group},"))?;
                    found.insert(partition, offset);
                }
                Ok(found)
            }
            ScanOffset::Timestamp(at) => {
                // Rounded up: no record before the point is taken, and none at it is missed.
                let micros = at.as_micros();
                let millis = micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0);
                let asked: Vec<(i32, i64)> = self.partitions.iter().map(|partition| (*partition, millis)).collect();
                let found = self.client.offsets_at(self.topic, &asked)?;
                // No record is that late: nothing is read from the end on, never all from the beginning.
                let end = |partition: i32| self.ends.get(&partition).copied().unwrap_or(0);
                let within = |(partition, offset): (i32, Option<i64>)| {
                    (partition, offset.unwrap_or_else(|| end(partition)).min(end(partition)))
                };
                Ok(found.into_iter().map(within).collect())
            }
        }
    }

    /// Refuses an offset that the log does not hold.
    fn check(&self, partition: i32, offset: i64, key: &str, what: &str) -> Result<(), PinError> {
        let (start, end) = (self.starts.get(&partition), self.ends.get(&partition));
        let (Some(start), Some(end)) = (start, end) else { return Ok(()) };
        if (*start..=*end).contains(&offset) {
            return Ok(());
        }
        let topic = self.topic;
        let why = if offset < *start {
            format!("retention has removed those before {start}: {} are missing", start - offset)
        } else {
            "nothing is there yet".to_owned()
        };
        Err(PinError::Input(format!(
            "{key}: {what} {offset} of partition {partition} of {topic} lies outside its log [{start}, {end}]: {why}"
        )))
    }
}

/// Refuses ranges whose beginning retention has eaten since they were pinned.
pub(super) fn check_starts(client: &Client, topic: &str, ranges: &[v1::KafkaRange]) -> Result<(), PinError> {
    let partitions: Vec<i32> = ranges.iter().filter(|range| range.start < range.end).map(|r| r.partition).collect();
    for (partition, start) in client.starts(topic, &partitions)? {
        let Some(range) = ranges.iter().find(|range| range.partition == partition) else { continue };
        if range.start < start {
            return Err(PinError::Input(eaten(topic, partition, range.start, range.end, start)));
        }
    }
    Ok(())
}

/// What is missing of `[next, end)` of a partition whose log starts at `start`.
pub(super) fn eaten(topic: &str, partition: i32, next: i64, end: i64, start: i64) -> String {
    let missing = start.min(end) - next;
    format!(
        "retention has removed {missing} offsets, {next} to {}, of partition {partition} of {topic} that were to be read: \
         its log now starts at {start}; read them from an archive, or plan again from there",
        start.min(end) - 1
    )
}
