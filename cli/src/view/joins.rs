//! An output that joins, as programs read it.

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_common::lateness::CLASS_NAMES;
use tidegate_proto::v1;

use super::seconds;
use crate::figures;

/// How an output stands that joins several sources.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Join {
    /// The anchor first.
    pub inputs: Vec<JoinInput>,
    /// Rows of the anchor that were shuffled and lie in the window: each is joined once.
    pub anchors: u64,
    /// The width of a slice; null until the window is cut.
    pub slice_seconds: Option<f64>,
    pub slices: u32,
    /// Slices, from the first on, whose rows are all there.
    pub slices_ready: u32,
    pub slices_running: u32,
    pub slices_done: u32,
    /// Of each slice.
    pub buckets: u32,
    /// In the shuffle store, of what is accepted and still needed.
    pub live_bytes: u64,
    /// The most that were.
    pub peak_bytes: u64,
    /// Objects of the shuffle store that were lost or damaged, and read again.
    pub regenerated: u64,
}

/// What was read of a source for an output that joins it: rows_read = shuffled + filtered + late + dead letter.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct JoinInput {
    pub source: String,
    pub reach: Reach,
    pub rows_read: u64,
    pub rows_shuffled: u64,
    pub rows_filtered: u64,
    pub rows_late: u64,
    pub rows_dead_letter: u64,
    /// Null where none was late.
    pub late: Option<LateRows>,
}

/// Rows that came when slices which need them were joined. A row is at most as late as is said of it.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct LateRows {
    pub by_lateness: Vec<LateClass>,
    pub most_seconds: f64,
    /// The slices that went without some of them, side by side as one; where they are very many, one around all.
    pub missed_by: Vec<MissedBy>,
}

/// Rows of one class of lateness.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct LateClass {
    /// <1m, <10m, <1h, <6h, <1d or >=1d.
    pub late: &'static str,
    pub rows: u64,
}

/// Event time, half-open.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct MissedBy {
    pub from: String,
    pub to: String,
}

/// How far from a row of the anchor the rows lie that it meets; negative is before it.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Reach {
    pub low_seconds: f64,
    pub high_seconds: f64,
}

/// `join` for programs.
pub(super) fn join(join: &v1::JoinState) -> Join {
    let input = |input: &v1::JoinInputState| JoinInput {
        source: input.source.clone(),
        reach: reach(input.low, input.high),
        rows_read: input.rows_read,
        rows_shuffled: input.rows_shuffled,
        rows_filtered: input.rows_filtered,
        rows_late: input.rows_late,
        rows_dead_letter: input.rows_dead_letter,
        late: input.late.as_ref().map(late_rows),
    };
    Join {
        inputs: join.inputs.iter().map(input).collect(),
        anchors: join.anchors,
        slice_seconds: (join.slices > 0).then(|| seconds(join.slice)),
        slices: join.slices,
        slices_ready: join.slices_ready,
        slices_running: join.running,
        slices_done: join.slices_done,
        buckets: join.buckets,
        live_bytes: join.live_bytes,
        peak_bytes: join.peak_bytes,
        regenerated: join.regenerated,
    }
}

/// `late` for programs.
pub(crate) fn late_rows(late: &v1::LateRows) -> LateRows {
    let class = |(name, rows): (&&'static str, &u64)| LateClass { late: name, rows: *rows };
    let range = |range: &v1::TimeRange| MissedBy { from: figures::time(range.from), to: figures::time(range.to) };
    LateRows {
        by_lateness: CLASS_NAMES.iter().zip(&late.rows_by).map(class).collect(),
        most_seconds: seconds(late.most),
        missed_by: late.missed_by.iter().map(range).collect(),
    }
}

/// A reach given in microseconds, for programs.
pub(crate) fn reach(low: i64, high: i64) -> Reach {
    Reach { low_seconds: seconds(low), high_seconds: seconds(high) }
}
