//! The types of a spec, `version: 1`, `kind: backfill`.
//!
//! Sources and modes are externally tagged and nothing is flattened, so that an error keeps its position.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::event_time::{BoundsSpec, EventTimeSpec, OnDisorder, TimeUnitSpec};
pub use self::hybrid::{ArchiveSpec, HybridSpec, LiveTopicSpec, SwitchSpec};
pub use self::kafka::{
    ChangesSpec, DeletesSpec, KafkaSpec, OffsetSpec, RateLimitSpec, RecordFormat, RecordFormatSpec, RegistrySpec,
    ScanSpec, UpdatesSpec,
};
pub use self::output::{CommitSpec, JoinSpec, LatePolicy, LateSpec, Mode, OutputSpec, Publish};

mod event_time;
mod hybrid;
mod kafka;
mod output;

/// A backfill: one request to replay a window of history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The version of this schema; 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// What the file asks for.
    pub kind: Kind,
    /// The backfill's name: letters, digits, `-` and `_`, at most 64.
    pub name: String,
    /// The window of event time to replay, half-open; without one, everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowSpec>,
    /// How far the sources may drift apart; without it, there is no gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentSpec>,
    /// The live job that reads the same topics: what `stream` pauses and resumes, and what `apply` does not run beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveSpec>,
    /// What is read, by name.
    pub sources: BTreeMap<String, SourceSpec>,
    /// What is written, by name.
    pub outputs: BTreeMap<String, OutputSpec>,
}

/// What a file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A backfill.
    Backfill,
}

/// A half-open window of event time, as it is written: RFC 3339 times, dates, or `now-7d`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// The first point in the window.
    pub from: String,
    /// The first point after the window.
    pub to: String,
    /// The zone whose midnights dates without a time mean; moves day boundaries only. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// The live job that reads the same topics. Only the machine that has the spec's file knows it: neither the commands nor the
/// rest is part of the backfill, of its id, or of what a coordinator or a worker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveSpec {
    /// Its consumer group, on the brokers of the spec's Kafka sources.
    pub group: String,
    /// The command that stops it: run by `stream pause`, by the shell of whoever asks for it, after it was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<String>,
    /// The command that starts it again: run by `stream resume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

/// How far the sources of a backfill may drift apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlignmentSpec {
    /// How far past the slowest source one may read: `90s`, `2h30m`, `10d`, or ISO 8601.
    pub max_drift: String,
    /// Whether units wider than the drift are read all the same; the bound is then the widest unit.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_wide: bool,
}

/// One topic, table or path that is read. Exactly one of the kinds is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Files on a local disk or in an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesSpec>,
    /// An Iceberg table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iceberg: Option<IcebergSpec>,
    /// A range of a Kafka topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSpec>,
    /// An Iceberg archive of a Kafka topic, and the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hybrid: Option<HybridSpec>,
    /// Rows made up from a seed, for tests and load tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateSpec>,
    /// Where a row's event time comes from; a generated source brings its own, a Kafka record has its timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<EventTimeSpec>,
    /// What becomes of a record that does not decode, or has no event time. Default fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Where such records are kept, with `on_error: dead_letter`, and how many are expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetterSpec>,
}

impl SourceSpec {
    /// The topic that it reads, alone or behind an archive.
    pub fn topic(&self) -> Option<&KafkaSpec> {
        self.kafka.as_ref().or(self.hybrid.as_ref().map(|hybrid| &hybrid.live.kafka))
    }
}

/// Where the records of a source that cannot be used are kept, and how many are expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterSpec {
    /// `[catalog.]namespace.table`; default `<table>__dead_letter` of the first output, with several sources
    /// `<source>__dead_letter` beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// How many of them are no surprise: a number of records (`1000`), or a part of those read (`0.1%`). Above it the
    /// run ends all the same, with exit code 6. Default 1%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

/// Files on a local disk or in an object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesSpec {
    /// A file, a folder (read recursively) or a glob (`*`, `**`, `?`, `{a,b}`); relative to the spec's folder, or `s3://…`.
    pub path: String,
    /// The files' format; default by their ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Whole-file compression of CSV and JSON; default by their ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Columns and their types, for CSV and JSON, in order; default is to infer them from the files' beginnings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Vec<ColumnSpec>>,
    /// How a CSV file is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvSpec>,
    /// The store's settings: endpoint, region, credentials by reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
}

/// A file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values.
    Csv,
    /// One JSON object a line.
    Json,
}

/// Whole-file compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// None.
    None,
    /// gzip, several members allowed.
    Gzip,
    /// Zstandard, several frames allowed.
    Zstd,
}

/// A column of a CSV or JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type, as SQL writes it: `bigint`, `double`, `varchar`, `boolean`, `date`, `timestamp`, `timestamptz`, `decimal(12,2)`.
    pub r#type: String,
}

/// How a CSV file is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvSpec {
    /// Whether the first line names the columns. Default true.
    #[serde(default = "yes")]
    pub header: bool,
    /// What stands between two fields: one ASCII character. Default a comma.
    #[serde(default = "comma")]
    pub delimiter: String,
    /// What stands for a missing value. Default the empty field.
    #[serde(default)]
    pub null: String,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self { header: true, delimiter: comma(), null: String::new() }
    }
}

/// An object store's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageSpec {
    /// The store's address, where it is not the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<Secret>,
    /// The secret key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    /// A session token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
    /// Whether an `http://` endpoint on another machine is allowed. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_http: bool,
    /// Whether the bucket stands in the path (`https://host/bucket`), else before the host. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
}

/// A secret: never its value, only where the worker that needs it finds it. Exactly one is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The name of an environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_env: Option<String>,
    /// The path of a file whose content, less trailing line breaks, it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_file: Option<String>,
}

/// An Iceberg table that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IcebergSpec {
    /// `[catalog.]namespace.table`.
    pub table: String,
    /// The snapshot to read; default the current one at plan time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
}

/// Rows made up from a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// Where chance starts; the same seed gives the same rows.
    #[serde(default)]
    pub seed: u64,
    /// How many rows.
    pub rows: u64,
    /// Rows a second of event time.
    pub rate: f64,
    /// Event time of the first row. Default 2024-01-01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// How far a row's event time may lie behind its neighbours'. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disorder: Option<String>,
    /// The exponent of the keys' Zipf distribution; 0 is even. Default 0.
    #[serde(default)]
    pub skew: f64,
    /// How many different keys. Default 1,000.
    #[serde(default = "thousand")]
    pub keys: u64,
    /// How many splits. Default one for each million rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<u64>,
}

/// What to do with a record that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The task fails, naming the record.
    Fail,
    /// It is kept raw in the dead-letter table, and counted.
    DeadLetter,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn yes() -> bool {
    true
}

fn comma() -> String {
    ",".to_owned()
}

fn thousand() -> u64 {
    1_000
}
