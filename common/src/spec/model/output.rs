//! The tables that a backfill writes, as a spec says them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One Iceberg table that is written, by one SQL query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// `[catalog.]namespace.table`.
    pub table: String,
    /// The query; default `SELECT *` of the one source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Partition fields of a table that is to be created: `month(time_hour)`, `bucket(16, id)`, `origin`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// Properties of a table that is to be created.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// What becomes of rows that are there.
    #[serde(default)]
    pub mode: Mode,
    /// When readers see the rows.
    #[serde(default)]
    pub publish: Publish,
    /// When to commit as it goes; default every minute and every 4 GiB. Not for `replace_window` that is direct: it
    /// commits once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitSpec>,
    /// How a query over several sources is cut; default: as the plan finds fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinSpec>,
    /// What becomes of rows that come when their slice is joined, of a query that joins or groups. Only Kafka sources with
    /// `on_disorder: allow` have such rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<LateSpec>,
}

/// What becomes of rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They stay; a window that holds some already is refused.
    #[default]
    Append,
    /// Those in the window are replaced, whole partitions only.
    ReplaceWindow,
}

/// When readers see the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Publish {
    /// As they are committed.
    #[default]
    Direct,
    /// On a branch to audit; then, when `publish` says so, in one snapshot of main.
    Staged,
}

/// When to commit as it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitSpec {
    /// Processing time between two commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Bytes of data files between two commits: `512MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
}

/// How a query that joins or aggregates is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinSpec {
    /// The width of a slice of event time, which is joined at once: `6h`; a multiple of the windows that are grouped by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// Into how many buckets the rows of a slice are distributed by their keys, 1 to 1024: each is joined by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<u32>,
    /// How much earlier than the anchor's rows ask for the other sources are read, at most 366 days: `1d`. Default none;
    /// the answer is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<String>,
    /// Bytes of its rows that may wait in the shuffle store at once: `4GiB`. Default any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
}

/// What becomes of rows that come when their slice is joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LateSpec {
    /// What becomes of them. Default `side_output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<LatePolicy>,
    /// The table that keeps them, `[catalog.]namespace.table`, with `side_output`; default `<table>__late`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// What becomes of late rows. They are counted in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// They are kept in a table of their own.
    #[default]
    SideOutput,
    /// They are counted, and no more.
    Drop,
    /// Every row is to be in the answer: what reads one that comes too late for that is parked.
    Include,
}
