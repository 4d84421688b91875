//! A plan for programs: `kind: Plan`. What `--out` saves is the same document.

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_common::time::EventTime;
use tidegate_worker::survey::{DriftSurvey, JoinInputPlan, JoinPlan, OutputSurvey, SourceSurvey};

use super::Planned;
use crate::archive::Archive;
use crate::figures;
use crate::saved_plan::SavedPlan;
use crate::spec_file::Summary;
use crate::topic::{self, Topic};
use crate::view::{Found, Reach, found, reach};

/// A plan.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::commands) struct Plan {
    spec: Summary,
    slots: u32,
    sources: Vec<Source>,
    overlap_depth: u32,
    /// The widest unit: the tightest drift that these files allow.
    tightest_drift_seconds: f64,
    drifts: Vec<Drift>,
    outputs: Vec<Output>,
    estimate: Option<Estimate>,
    /// What `apply` takes from a plan that was saved.
    apply: SavedPlan,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlannedSource")]
struct Source {
    name: String,
    event_time: String,
    columns: Vec<String>,
    found: Found,
    /// How it lies in its topic; null where it is of none.
    topic: Option<Topic>,
    /// What comes from its archive; null where it has none.
    archive: Option<Archive>,
    widest_unit_in: Option<String>,
    sampled_units: u64,
    sampled_rows: u64,
    sampled_bytes: u64,
    sampled_seconds: f64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlannedDrift")]
struct Drift {
    /// Null is without alignment.
    max_drift_seconds: Option<f64>,
    of_spec: bool,
    /// On average, of the slots that there are.
    slots_busy: f64,
    /// On average, of as many slots as there is work for.
    slots_of_use: f64,
    slots_of_use_at_most: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlannedOutput")]
struct Output {
    name: String,
    /// The source that it reads; where it joins several, the anchor.
    source: String,
    /// How it joins several sources; null where it reads one.
    join: Option<Join>,
    /// Whether it is the table that keeps what of the source cannot be used.
    keeps_dead_letters: bool,
    /// The output whose late rows it keeps; null for all others.
    keeps_late_of: Option<String>,
    table: String,
    /// Whether the table is there.
    exists: bool,
    table_uuid: Option<String>,
    columns: Vec<String>,
    partition_by: Vec<String>,
    partitions: Option<u64>,
    rows_before: u64,
    /// The branch that it stages on; null where it commits to main.
    branch: Option<String>,
    /// What it will replace; null where it appends.
    replaces: Option<Replaces>,
    /// What this backfill has committed before.
    marker: Option<String>,
    rows: Option<u64>,
    bytes: Option<u64>,
}

/// How an output joins several sources.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlannedJoin")]
struct Join {
    /// The anchor first.
    inputs: Vec<JoinInput>,
    slice_seconds: f64,
    /// Of the window.
    slices: u32,
    /// Of each slice.
    buckets: u32,
    /// Bytes that wait in the shuffle store at most: an estimate, by the bytes of the files.
    state_bytes: u64,
    /// How many may; null is any number.
    budget_bytes: Option<u64>,
    /// How much earlier than their reach asks the sources that the anchor meets are read.
    warm_up_seconds: f64,
    /// Rows of the anchor in the window, about; null where only reading tells.
    anchor_rows: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlannedJoinInput")]
struct JoinInput {
    source: String,
    reach: Reach,
    /// Whether its rows decide which rows of the result there are.
    anchor: bool,
    /// Whether rows that meet agree on columns by which they can be distributed.
    keyed: bool,
    /// From where on it is read; null is from the beginning.
    from: Option<String>,
    /// Where its reading ends, and what is not read; null is at its end.
    to: Option<String>,
}

/// What is in the window now, and will be removed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Replaced")]
struct Replaces {
    files: u64,
    rows: u64,
}

/// Reading, SQL and encoding; commits and slow storage come on top.
#[derive(Debug, Serialize, JsonSchema)]
struct Estimate {
    seconds: f64,
    from_seconds: f64,
    to_seconds: f64,
    workers: u32,
    worker_hours: f64,
    cost: Option<f64>,
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

impl Plan {
    pub(super) fn of(planned: &Planned<'_>) -> Self {
        let survey = &planned.survey;
        Self {
            spec: Summary::of(planned.spec),
            slots: planned.slots,
            sources: survey.sources.iter().map(source).collect(),
            overlap_depth: survey.overlap_depth,
            tightest_drift_seconds: survey.tightest_drift.as_micros() as f64 / 1e6,
            drifts: survey.drifts.iter().map(drift).collect(),
            outputs: survey.outputs.iter().map(output).collect(),
            estimate: estimate(planned),
            apply: SavedPlan::of(planned.spec, survey),
        }
    }
}

fn source(source: &SourceSurvey) -> Source {
    Source {
        name: source.name.clone(),
        event_time: source.event_time.clone(),
        columns: source.columns.clone(),
        found: found(&source.found),
        topic: source.topic.as_ref().map(|range| Topic::of(range, &topic::of_topic(source))),
        archive: source.archive.as_ref().map(Archive::of),
        widest_unit_in: (!source.widest_in.is_empty()).then(|| source.widest_in.clone()),
        sampled_units: source.sampled.units,
        sampled_rows: source.sampled.rows,
        sampled_bytes: source.sampled.bytes,
        sampled_seconds: seconds(source.sampled.micros),
    }
}

fn drift(drift: &DriftSurvey) -> Drift {
    Drift {
        max_drift_seconds: drift.drift.map(|drift| drift.as_micros() as f64 / 1e6),
        of_spec: drift.of_spec,
        slots_busy: drift.with_slots.average,
        slots_of_use: drift.free.average,
        slots_of_use_at_most: drift.free.most,
    }
}

fn output(output: &OutputSurvey) -> Output {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    Output {
        name: output.name.clone(),
        source: output.source.clone(),
        join: output.join.as_ref().map(join),
        keeps_dead_letters: output.keeps_dead_letters,
        keeps_late_of: output.keeps_late_of.clone(),
        table: output.table.table.clone(),
        exists: !output.table.created,
        table_uuid: text(&output.table.uuid),
        columns: output.table.columns.clone(),
        partition_by: output.partition_by.clone(),
        partitions: output.partitions,
        rows_before: output.table.rows_before,
        branch: output.branch.clone(),
        replaces: output.replaces.map(|(files, rows)| Replaces { files, rows }),
        marker: text(&output.table.marker),
        rows: output.rows,
        bytes: output.bytes,
    }
}

fn join(join: &JoinPlan) -> Join {
    let time = |at: EventTime| (at != EventTime::MIN && at != EventTime::MAX).then(|| figures::time(at.as_micros()));
    let input = |input: &JoinInputPlan| JoinInput {
        source: input.source.clone(),
        reach: reach(input.reach.low.as_micros(), input.reach.high.as_micros()),
        anchor: input.is_anchor,
        keyed: input.keyed,
        from: time(input.from),
        to: time(input.to),
    };
    Join {
        inputs: join.inputs.iter().map(input).collect(),
        slice_seconds: join.slice.as_micros() as f64 / 1e6,
        slices: join.slices,
        buckets: join.buckets,
        state_bytes: join.state_bytes,
        budget_bytes: join.budget,
        warm_up_seconds: join.warm_up.as_micros() as f64 / 1e6,
        anchor_rows: join.anchors,
    }
}

fn estimate(planned: &Planned<'_>) -> Option<Estimate> {
    let estimate = planned.survey.estimate?;
    let (workers, worker_hours, cost) = effort(planned, estimate.likely);
    Some(Estimate {
        seconds: seconds(estimate.likely),
        from_seconds: seconds(estimate.from),
        to_seconds: seconds(estimate.to),
        workers,
        worker_hours,
        cost,
    })
}

/// How many workers that is, and the hours and the price of a run that takes `micros`.
pub(super) fn effort(planned: &Planned<'_>, micros: u64) -> (u32, f64, Option<f64>) {
    let workers = planned.slots.div_ceil(planned.slots_a_worker.max(1));
    let hours = micros as f64 / 3.6e9 * f64::from(workers);
    (workers, hours, planned.price.map(|price| price * hours))
}
