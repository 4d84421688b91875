//! The file that keeps a group's positions: JSON with a version, read by every later release.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_common::time::EventTime;

use super::error::CheckpointError;
use super::inspect::PartitionFacts;
use super::partition::{Committed, Partition};

const KIND: &str = "ConsumerGroupBackup";
const VERSION: u32 = 1;

/// A group's positions as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupBackup {
    /// What it is: `ConsumerGroupBackup`.
    pub kind: String,
    /// The version of this form; 1.
    pub version: u32,
    /// When it was taken, RFC 3339.
    pub taken_at: String,
    /// What the cluster calls itself, where it was told.
    pub cluster_id: Option<String>,
    /// Where the brokers were.
    pub bootstrap_servers: String,
    /// The group.
    pub group: String,
    /// The ids of the topics, where the brokers told them: a topic that is made again has another one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topic_ids: BTreeMap<String, String>,
    /// Its positions, by topic and partition.
    pub positions: Vec<BackedUp>,
}

/// A position as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset that was to be read.
    pub offset: i64,
    /// What was written beside it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The log's first offset then.
    pub log_start: i64,
    /// The offset behind the log's last then.
    pub log_end: i64,
}

impl BackedUp {
    /// Its partition.
    pub fn partition(&self) -> Partition {
        Partition::new(&self.topic, self.partition)
    }
}

impl GroupBackup {
    /// The positions `committed` of `group` and what is known of their partitions, taken at `now_micros`.
    pub fn new(
        (group, bootstrap, cluster_id): (&str, &str, Option<String>),
        committed: &BTreeMap<Partition, Committed>,
        facts: &[PartitionFacts],
        topic_ids: BTreeMap<String, String>,
        now_micros: i64,
    ) -> Self {
        let logs: BTreeMap<&Partition, &PartitionFacts> = facts.iter().map(|one| (&one.partition, one)).collect();
        let positions = committed.iter().map(|(partition, committed)| BackedUp {
            topic: partition.topic.clone(),
            partition: partition.number,
            offset: committed.offset,
            metadata: committed.metadata.clone(),
            log_start: logs.get(partition).map_or(0, |facts| facts.start),
            log_end: logs.get(partition).map_or(0, |facts| facts.end),
        });
        Self {
            kind: KIND.to_owned(),
            version: VERSION,
            taken_at: EventTime::from_micros(now_micros).to_string(),
            cluster_id,
            bootstrap_servers: bootstrap.to_owned(),
            group: group.to_owned(),
            topic_ids,
            positions: positions.collect(),
        }
    }

    /// Its text; ends with a line feed.
    pub fn text(&self) -> String {
        // Nothing in it has a key that is no text: it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Reads what [`Self::text`] wrote; `file` is its name.
    ///
    /// # Errors
    /// What is no backup, is of a later version, or names a partition twice.
    pub fn read(text: &str, file: &str) -> Result<Self, CheckpointError> {
        let backup: Self = versioned(text, file, KIND, VERSION)?;
        let mut seen = std::collections::BTreeSet::new();
        for kept in &backup.positions {
            if kept.offset < 0 || kept.partition < 0 || !seen.insert(kept.partition()) {
                let partition = kept.partition();
                return Err(CheckpointError::file(file, format!("{partition} is there twice, or is no position")));
            }
        }
        Ok(backup)
    }
}

/// A JSON document that says its kind and version.
pub(super) fn versioned<T: serde::de::DeserializeOwned>(
    text: &str,
    file: &str,
    kind: &str,
    newest: u32,
) -> Result<T, CheckpointError> {
    let bad = |what: String| CheckpointError::file(file, what);
    let document: serde_json::Value = serde_json::from_str(text).map_err(|why| bad(format!("it is no JSON: {why}")))?;
    let found = document.get("kind").and_then(serde_json::Value::as_str).unwrap_or("something else");
    if found != kind {
        return Err(bad(format!("it is no {kind} but {found}")));
    }
    match document.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version >= 1 && version <= u64::from(newest) => {}
        version => {
            let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return Err(bad(format!("its version is {version}, and this release reads up to {newest}")));
        }
    }
    serde_json::from_value(document).map_err(|why| bad(format!("it is no {kind}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first release wrote it.
    const FIXTURE: &str = r#"{
  "kind": "ConsumerGroupBackup",
  "version": 1,
  "taken_at": "2026-10-01T00:00:00Z",
  "cluster_id": "MkU3OEVBNTcwNTJENDM2Qk",
  "bootstrap_servers": "broker:9092",
  "group": "billing",
  "positions": [
    {
      "topic": "orders",
      "partition": 0,
      "offset": 1200,
      "metadata": "checkpoint 7",
      "log_start": 900,
      "log_end": 1500
    }
  ]
}
"#;

    #[test]
    fn a_backup_is_read_by_every_later_release() {
        let backup = GroupBackup::read(FIXTURE, "a.json").unwrap();
        assert_eq!(backup.text(), FIXTURE);
        assert_eq!(backup.positions[0].partition().to_string(), "orders-0");
        let ids = "  \"topic_ids\": {\n    \"orders\": \"c2hlIHNlbGxzIHNlYXM\"\n  },\n  \"positions\"";
        let with_ids = FIXTURE.replace("  \"positions\"", ids);
        assert_eq!(GroupBackup::read(&with_ids, "a.json").unwrap().text(), with_ids);
    }

    #[test]
    fn what_is_no_backup_is_refused() {
        let why = |text: &str| GroupBackup::read(text, "a.json").unwrap_err().to_string();
        assert!(why("{").contains("no JSON"));
        assert!(why("{}").contains("no ConsumerGroupBackup but something else"));
        assert!(why(&FIXTURE.replace("\"version\": 1", "\"version\": 2")).contains("reads up to 1"));
        assert!(why(&FIXTURE.replace("1200", "-3")).contains("orders-0"));
        assert!(why(&FIXTURE.replace("\"group\": \"billing\",", "")).contains("group"));
    }
}
