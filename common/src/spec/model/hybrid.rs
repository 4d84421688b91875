//! The types of a hybrid source.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IcebergSpec, KafkaSpec};

/// An archive of a Kafka topic and the topic itself, as one source: of each partition, offsets below the switch are read from
/// the archive and all others from the topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HybridSpec {
    /// The archive.
    pub archive: ArchiveSpec,
    /// The topic.
    pub live: LiveTopicSpec,
    /// Where the archive ends and the topic begins. Default auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchSpec>,
}

/// A table that holds the topic's records, one a row, each with its partition and offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveSpec {
    /// The table.
    pub iceberg: IcebergSpec,
    /// Its column of partitions. Default `_kafka_partition`, or `_kafka_metadata_partition`; so for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Its column of offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// Its column of topics, where it holds several: rows of others are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its column of the records' timestamps: a timestamp, or an integer in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Its column of keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its column of headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<String>,
}

/// The topic of a hybrid source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveTopicSpec {
    /// A range of a Kafka topic; its offsets may be older than what the topic still holds.
    pub kafka: KafkaSpec,
}

/// Where an archive ends and its topic begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SwitchSpec {
    /// At the first offset that the topic holds and the archive does not.
    Auto,
    /// Partition by partition, the first offset that is read from the topic: `{0: 1000, 1: 1200}`.
    Offsets(BTreeMap<String, i64>),
}
