//! A backfill as programs read it (`-o json`): snake_case keys, RFC 3339 UTC times, bytes and seconds.
//!
//! Ids of snapshots are text: they do not fit into the numbers of most JSON readers. Keys are added, never renamed.

mod joins;

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_proto::v1;

use self::joins::Join;
pub(crate) use self::joins::{LateRows, Reach, late_rows, reach};
use crate::figures;
use crate::ledger::{self, Edge};

/// A backfill; `kind: Backfill`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Backfill {
    /// The whole id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// preparing, enumerating, running, staged, succeeded, partial, failed or cancelled.
    pub phase: String,
    /// What its operator wants: run, pause or cancel.
    pub wish: String,
    /// How it stands, in a word for people.
    pub state: String,
    /// The number of its coordinator's leadership.
    pub term: u64,
    /// When it was created.
    pub created: String,
    /// When it last changed.
    pub updated: String,
    /// When it ended.
    pub ended: Option<String>,
    /// The exit code of a command that waits for its end, or until it is staged; null while it runs.
    pub exit_code: Option<u8>,
    /// Soft; moves the gate only.
    pub read_watermark: Option<String>,
    /// Where reading stops.
    pub gate: Option<String>,
    /// Below this, everything was accepted.
    pub complete_watermark: Option<String>,
    /// How far past the slowest source one may read.
    pub max_drift_seconds: Option<f64>,
    /// The largest skew that the plan promises.
    pub promised_skew_seconds: Option<f64>,
    /// What is read.
    pub sources: Vec<Source>,
    /// What is written.
    pub outputs: Vec<Output>,
    /// Every edge of the ledger.
    pub ledger: Vec<Edge>,
    /// Who works on it.
    pub workers: Vec<Worker>,
    /// Tasks that were given up; `retry` takes them up.
    pub parked: Vec<Parked>,
    /// Why it failed.
    pub failure: Option<Evidence>,
    /// Tasks that run.
    pub running_tasks: u32,
}

/// What is read.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Source {
    pub name: String,
    /// What its enumeration found; null until it has ended.
    pub found: Option<Found>,
    pub watermark: Option<String>,
    pub tasks_done: u64,
    pub units_done: u64,
    pub rows_read: u64,
    /// Of rows_read: rows of units whose rows only reading tells; in range as well.
    pub rows_unplanned: u64,
    pub rows_outside_window: u64,
    pub rows_dead_letter: u64,
    /// Offsets that hold no record: markers of transactions, aborted records, what compaction removed.
    pub rows_gaps: u64,
    /// Of rows_read: tombstones, and changes that the spec leaves out.
    pub rows_void: u64,
    /// Of rows_read: rows that broke the declared order, and may.
    pub rows_disordered: u64,
    pub bytes_read: u64,
    /// The largest row event time - read watermark at read; null before the first row.
    pub max_skew_seconds: Option<f64>,
    /// Summed over readers, as the three below.
    pub held_at_gate_seconds: f64,
    pub backpressure_seconds: f64,
    /// Waiting for the source's rate limit.
    pub limited_seconds: f64,
    pub busy_seconds: f64,
    pub running: u32,
    pub held: u32,
}

/// What an enumeration found.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Found {
    pub files: u64,
    pub splits: u64,
    pub tasks: u64,
    pub units: u64,
    pub rows_in_range: u64,
    pub rows_pruned: u64,
    pub bytes_in_range: u64,
    pub bytes_pruned: u64,
    pub widest_unit_seconds: f64,
    pub low: Option<String>,
    pub high: Option<String>,
    pub overlap_depth: u32,
    pub pinned: String,
}

/// What is written.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Output {
    pub name: String,
    /// catalog.namespace.table; null until it is prepared, as all of the table.
    pub table: Option<String>,
    pub table_uuid: Option<String>,
    pub location: Option<String>,
    pub created: Option<bool>,
    pub columns: Vec<String>,
    pub sources: Vec<String>,
    pub rows_before: Option<u64>,
    pub rows_read: u64,
    pub rows_passed: u64,
    pub rows_filtered: u64,
    pub rows_late: u64,
    pub rows_dead_letter: u64,
    pub files: u64,
    pub bytes: u64,
    pub rows_committed: u64,
    pub files_committed: u64,
    pub snapshots: u64,
    pub last_snapshot: Option<String>,
    /// The table is complete below this.
    pub committed_through: Option<String>,
    /// The branch that it is staged on until it is published; null where it commits directly.
    pub branch: Option<String>,
    /// Of rows_passed: on the branch now, and not on main.
    pub rows_staged: u64,
    pub files_staged: u64,
    pub staged_snapshots: u64,
    pub last_staged_snapshot: Option<String>,
    /// Whether what the window held is replaced.
    pub replaces: bool,
    /// Of a table that keeps the dead letters of its source: the most that are within the limit. Null for all others.
    pub dead_letters_expected: Option<u64>,
    /// Of a table that keeps the late rows of another output: that output. Null for all others.
    pub late_of: Option<String>,
    /// Of an output that joins several sources; rows_read are then the anchor's rows that were joined, and rows_passed
    /// what came of them. Null for all others.
    pub join: Option<Join>,
}

/// Who works on it.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Worker {
    pub name: String,
    pub slots: u32,
    pub busy: u32,
    pub held: u32,
}

/// A task that was given up.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Parked {
    pub task: String,
    pub source: String,
    pub evidence: Evidence,
}

/// What went wrong.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Evidence {
    /// retryable, worker_sick, poison, fenced, unknown or fatal.
    pub class: String,
    /// The whole chain.
    pub message: String,
    /// File, unit, row.
    pub place: String,
    /// Where it was seen.
    pub worker: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// Something that happened; `kind: Event`.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct Event {
    pub number: u64,
    pub at: String,
    pub event: String,
    pub text: String,
}

/// Several of one kind; `kind: BackfillList` or `EventList`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct List<T> {
    /// They.
    pub items: Vec<T>,
}

fn seconds(micros: impl Into<i128>) -> f64 {
    micros.into() as f64 / 1e6
}

/// The word of a wire enum without its prefix, as it is written here.
fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

impl Backfill {
    /// `backfill` for programs.
    pub(crate) fn of(backfill: &v1::Backfill) -> Self {
        let over = backfill.ended != 0;
        Self {
            id: backfill.id.clone(),
            name: backfill.name.clone(),
            phase: word(backfill.phase().as_str_name(), "PHASE_"),
            wish: word(backfill.wish().as_str_name(), "WISH_"),
            state: backfill.state.clone(),
            term: backfill.term,
            created: figures::time(backfill.created),
            updated: figures::time(backfill.updated),
            ended: over.then(|| figures::time(backfill.ended)),
            exit_code: crate::report::is_at_rest(backfill).then(|| crate::report::exit_code(backfill).code()),
            read_watermark: backfill.read_watermark.map(figures::time),
            gate: backfill.gate.map(figures::time),
            complete_watermark: backfill.complete_watermark.map(figures::time),
            max_drift_seconds: backfill.max_drift.map(seconds),
            promised_skew_seconds: backfill.promised_skew.map(seconds),
            sources: backfill.sources.iter().map(source).collect(),
            outputs: backfill.outputs.iter().map(output).collect(),
            ledger: ledger::edges(backfill),
            workers: backfill.workers.iter().map(worker).collect(),
            parked: backfill.parked.iter().map(parked).collect(),
            failure: backfill.failure.as_ref().map(evidence),
            running_tasks: backfill.running_tasks,
        }
    }
}

fn source(source: &v1::SourceState) -> Source {
    Source {
        name: source.name.clone(),
        found: source.found.as_ref().map(found),
        watermark: source.watermark.map(figures::time),
        tasks_done: source.tasks_done,
        units_done: source.units_done,
        rows_read: source.rows_read,
        rows_unplanned: source.rows_unplanned,
        rows_outside_window: source.rows_outside,
        rows_dead_letter: source.rows_dead_letter,
        rows_gaps: source.rows_gaps,
        rows_void: source.rows_void,
        rows_disordered: source.rows_disordered,
        bytes_read: source.bytes_read,
        max_skew_seconds: (source.max_skew != i64::MIN).then(|| seconds(source.max_skew)),
        held_at_gate_seconds: seconds(source.held_micros),
        backpressure_seconds: seconds(source.backpressure_micros),
        limited_seconds: seconds(source.limited_micros),
        busy_seconds: seconds(source.busy_micros),
        running: source.running,
        held: source.paused,
    }
}

/// What an enumeration found, for programs.
pub(crate) fn found(found: &v1::Enumerated) -> Found {
    let any = found.low <= found.high;
    Found {
        files: found.files,
        splits: found.splits,
        tasks: found.tasks,
        units: found.units,
        rows_in_range: found.rows_in_range,
        rows_pruned: found.rows_pruned,
        bytes_in_range: found.bytes_in_range,
        bytes_pruned: found.bytes_pruned,
        widest_unit_seconds: seconds(found.widest_unit),
        low: any.then(|| figures::time(found.low)),
        high: any.then(|| figures::time(found.high)),
        overlap_depth: found.overlap_depth,
        pinned: found.pinned.clone(),
    }
}

fn output(output: &v1::OutputState) -> Output {
    let table = output.table.as_ref();
    let text = |get: fn(&v1::PreparedOutput) -> &String| table.map(get).filter(|text| !text.is_empty()).cloned();
    Output {
        name: output.name.clone(),
        table: text(|table| &table.table),
        table_uuid: text(|table| &table.uuid),
        location: text(|table| &table.location),
        created: table.map(|table| table.created),
        columns: table.map(|table| table.columns.clone()).unwrap_or_default(),
        sources: table.map(|table| table.source.clone()).unwrap_or_default(),
        rows_before: table.map(|table| table.rows_before),
        rows_read: output.rows_read,
        rows_passed: output.rows_passed,
        rows_filtered: output.rows_filtered,
        rows_late: output.rows_late,
        rows_dead_letter: output.rows_dead_letter,
        files: output.files,
        bytes: output.bytes,
        rows_committed: output.rows_committed,
        files_committed: output.files_committed,
        snapshots: output.commits,
        last_snapshot: (output.commits > 0).then(|| output.last_snapshot.to_string()),
        committed_through: output.committed_through.map(figures::time),
        branch: Some(&output.branch).filter(|branch| !branch.is_empty()).cloned(),
        rows_staged: output.rows_staged,
        files_staged: output.files_staged,
        staged_snapshots: output.staged_commits,
        last_staged_snapshot: (output.staged_snapshot != 0).then(|| output.staged_snapshot.to_string()),
        replaces: output.replaces,
        dead_letters_expected: output.dead_letters_expected,
        late_of: Some(&output.late_of).filter(|of| !of.is_empty()).cloned(),
        join: output.join.as_ref().map(joins::join),
    }
}

fn worker(worker: &v1::WorkerState) -> Worker {
    Worker { name: worker.name.clone(), slots: worker.slots, busy: worker.busy, held: worker.paused }
}

fn parked(parked: &v1::ParkedTask) -> Parked {
    Parked {
        task: parked.task.clone(),
        source: parked.source.clone(),
        evidence: parked.evidence.as_ref().map(evidence).unwrap_or_default(),
    }
}

fn evidence(evidence: &v1::Evidence) -> Evidence {
    Evidence {
        class: word(evidence.class().as_str_name(), "FAILURE_"),
        message: evidence.message.clone(),
        place: evidence.place.clone(),
        worker: evidence.worker.clone(),
        attempts: evidence.attempts,
    }
}

/// `event` for programs.
pub(crate) fn event(event: &v1::BackfillEvent) -> Event {
    Event { number: event.number, at: figures::time(event.at), event: event.kind.clone(), text: event.text.clone() }
}
