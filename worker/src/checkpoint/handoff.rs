//! The file that hands a topic over from a backfill to the live job: where each partition goes on.

use serde::{Deserialize, Serialize};
use tidegate_common::spec::{Resolved, ScanOffset};
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use super::backup::versioned;
use super::error::CheckpointError;
use super::partition::Partition;
use crate::verify::Account;

const KIND: &str = "HandOver";
const VERSION: u32 = 1;

/// Where a backfill ended, partition by partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// What it is: `HandOver`.
    pub kind: String,
    /// The version of this form; 1.
    pub version: u32,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// The backfill's id.
    pub backfill: String,
    /// Its name.
    pub name: String,
    /// The live job's group, where it is known.
    pub group: Option<String>,
    /// Whether the backfill has used every record of the ranges: it succeeded, and had no window that leaves some out.
    pub covers: bool,
    /// The topics.
    pub topics: Vec<HandOverTopic>,
}

/// A topic that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOverTopic {
    /// The source that read it.
    pub source: String,
    /// The topic.
    pub topic: String,
    /// Its id, where the brokers told it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic_id: String,
    /// Its partitions.
    pub partitions: Vec<HandOverPartition>,
}

/// A partition that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOverPartition {
    /// Its number.
    pub partition: i32,
    /// The first offset of the range.
    pub from: i64,
    /// The first offset behind the range: where the live job goes on.
    pub next: i64,
}

impl HandOver {
    /// What the backfill of `account` hands over at `now_micros`; `group` is the live job's, where that is not the one that
    /// the spec's scan names.
    ///
    /// # Errors
    /// A backfill that reads no topic, or has not come to its end.
    pub fn of(account: &Account, group: Option<String>, now_micros: i64) -> Result<Self, CheckpointError> {
        let refused = |what: String| CheckpointError::Refused(what);
        let id = &account.id;
        let spec = account.spec.as_ref().ok_or_else(|| refused(format!("the spec of {id} is not known")))?;
        let covers = match account.phase {
            v1::Phase::Succeeded => spec.window == Window::ALL,
            v1::Phase::Partial => false,
            phase => {
                let phase = phase.as_str_name().trim_start_matches("PHASE_").to_lowercase();
                return Err(refused(format!(
                    "{id} is {phase}, and hands over only what it has committed to its tables"
                )));
            }
        };
        let topics: Vec<HandOverTopic> = account.pins.iter().filter_map(|pin| topic(spec, pin)).collect();
        if topics.is_empty() {
            return Err(refused(format!("{id} reads no topic: there is nothing to hand over")));
        }
        Ok(Self {
            kind: KIND.to_owned(),
            version: VERSION,
            made_at: EventTime::from_micros(now_micros).to_string(),
            backfill: id.clone(),
            name: spec.spec.name.clone(),
            group: group.or_else(|| scanned_group(spec)),
            covers,
            topics,
        })
    }

    /// Its text; ends with a line feed.
    pub fn text(&self) -> String {
        // Nothing in it has a key that is no text: it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Reads what [`Self::text`] wrote; `file` is its name.
    ///
    /// # Errors
    /// What is no hand-over, is of a later version, or holds ranges that are none.
    pub fn read(text: &str, file: &str) -> Result<Self, CheckpointError> {
        let found: Self = versioned(text, file, KIND, VERSION)?;
        let mut seen = std::collections::BTreeSet::new();
        for (partition, from, next) in found.positions() {
            if from < 0 || next < from || !seen.insert(partition.clone()) {
                return Err(CheckpointError::file(file, format!("{partition} is there twice, or its range is none")));
            }
        }
        Ok(found)
    }

    /// Each partition with its range.
    pub fn positions(&self) -> impl Iterator<Item = (Partition, i64, i64)> {
        self.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|one| (Partition::new(&topic.topic, one.partition), one.from, one.next))
        })
    }
}

/// The group whose positions the spec reads from or up to.
fn scanned_group(spec: &Resolved) -> Option<String> {
    let scans = spec.sources.iter().filter_map(|source| source.kafka()).map(|kafka| [&kafka.start, &kafka.stop]);
    scans.flatten().find_map(|offset| match offset {
        ScanOffset::Group(group) => Some(group.clone()),
        _ => None,
    })
}

fn topic(spec: &Resolved, pin: &v1::SourcePin) -> Option<HandOverTopic> {
    let kafka = pin.kafka.as_ref()?;
    let topic = spec.spec.sources.get(&pin.source)?.topic()?.topic.clone();
    // What an archive gave is read as well: where the topic still held it, the cut let nothing of it go.
    let part = |range: &v1::KafkaRange| {
        let archived = pin.archive.iter().find(|archived| archived.partition == range.partition);
        let from = archived.map_or(range.start, |archived| archived.start.min(range.start));
        HandOverPartition { partition: range.partition, from, next: range.end }
    };
    let partitions = kafka.ranges.iter().map(part).collect();
    Some(HandOverTopic { source: pin.source.clone(), topic, topic_id: kafka.topic_id.clone(), partitions })
}

#[cfg(test)]
mod tests;
