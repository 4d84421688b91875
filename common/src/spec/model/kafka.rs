//! The types of a Kafka source.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ColumnSpec, CsvSpec, Secret, is_false};

/// A range of a Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSpec {
    /// The topic.
    pub topic: String,
    /// Settings of librdkafka, `bootstrap.servers` among them. Only those of an allow-list are taken.
    pub properties: BTreeMap<String, String>,
    /// Settings whose values are secrets: `sasl.password: {from_env: KAFKA_PASSWORD}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// Which offsets are read; default all that are there when the backfill is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<ScanSpec>,
    /// What the records' values are.
    pub format: RecordFormatSpec,
    /// How fast it may be read, by all workers together; default as fast as the brokers allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
}

/// A range of offsets in every partition, half-open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScanSpec {
    /// The first offset. Default earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<OffsetSpec>,
    /// The first offset behind the range. Default latest. Partitions that `{offsets: …}` leaves out are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<OffsetSpec>,
}

/// An offset in every partition; what it is, is fixed when the backfill is planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OffsetSpec {
    /// The first one that is there.
    Earliest,
    /// The end: of the last committed transaction, or with `isolation.level: read_uncommitted` of the log.
    Latest,
    /// The first record whose timestamp is this or later; the end where there is none.
    Timestamp(String),
    /// Partition by partition: `{0: 1000, 1: 1200}`.
    Offsets(BTreeMap<String, i64>),
    /// Where this consumer group stands.
    Group(String),
}

/// What the values of records are, and how they become columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordFormatSpec {
    /// The format.
    pub r#type: RecordFormat,
    /// Columns and their types: of `json`, `csv` and `debezium_json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Vec<ColumnSpec>>,
    /// Where `avro` and `protobuf` find their schemas, and that their values are in Confluent's framing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry: Option<RegistrySpec>,
    /// The file of an Avro schema (`.avsc`), for values without framing; with a registry, the schema to read as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avro_schema: Option<String>,
    /// The file of a Protobuf descriptor set (`protoc --include_imports --descriptor_set_out`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor_set: Option<String>,
    /// The full name of the Protobuf message; with a registry, default the one that a value names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How `csv` values are written; they have no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvSpec>,
    /// What becomes of the updates and deletes of `debezium_json`. Default: both are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<ChangesSpec>,
}

/// The format of records' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// One JSON object.
    Json,
    /// Avro's binary encoding, in Confluent's framing where there is a registry.
    Avro,
    /// A Protobuf message, in Confluent's framing where there is a registry.
    Protobuf,
    /// A change event of Debezium as JSON, with or without its schema.
    DebeziumJson,
    /// One line of CSV.
    Csv,
    /// As it stands: the columns `key` and `value`, bytes.
    Raw,
}

/// A schema registry with Confluent's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrySpec {
    /// Its address.
    pub url: String,
    /// The subject; default `<topic>-value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The version of the subject that rows are read as; default the latest one when the backfill is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Secret>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Whether an `http://` address on another machine is allowed. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_http: bool,
}

/// What becomes of change events that are no inserts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangesSpec {
    /// Of updates.
    #[serde(default)]
    pub updates: UpdatesSpec,
    /// Of deletes.
    #[serde(default)]
    pub deletes: DeletesSpec,
}

/// What becomes of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdatesSpec {
    /// It cannot be used: the task fails, or it is a dead letter.
    #[default]
    Refuse,
    /// Its row as it is after it.
    After,
    /// It is left out, and counted.
    Skip,
}

/// What becomes of a delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeletesSpec {
    /// It cannot be used: the task fails, or it is a dead letter.
    #[default]
    Refuse,
    /// It is left out, and counted.
    Skip,
}

/// How fast a source may be read, by all workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitSpec {
    /// Bytes of records a second: `50MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// Records a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}
