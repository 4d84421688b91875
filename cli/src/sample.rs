//! Backfills made by hand, for the tests of what is shown.
#![allow(clippy::unwrap_used)]

use tidegate_proto::v1;

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600_000_000;
/// When it is looked at.
pub(crate) const NOW: i64 = START + 510 * 1_000_000;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// 2013-01-01T00:00:00Z.
const FROM: i64 = 1_356_998_400_000_000;

fn source(name: &str, rows: u64, read: u64, units: u64) -> v1::SourceState {
    v1::SourceState {
        name: name.to_owned(),
        found: Some(v1::Enumerated {
            version: 1,
            segments: 1,
            files: 1,
            splits: 1,
            tasks: 4,
            units,
            rows_in_range: rows,
            rows_pruned: 1_000,
            bytes_in_range: 10_000_000,
            bytes_pruned: 4_096,
            widest_unit: 6 * DAY,
            low: FROM,
            high: FROM + 364 * DAY,
            overlap_depth: 2,
            pinned: format!("{name}.parquet"),
            digest: String::new(),
        }),
        watermark: Some(FROM + 100 * DAY),
        tasks_done: 1,
        units_done: units / 2,
        rows_read: read,
        rows_outside: 12,
        rows_dead_letter: 0,
        rows_gaps: 0,
        rows_void: 0,
        rows_disordered: 0,
        limited_micros: 0,
        bytes_read: 10_695_475,
        max_skew: 9 * DAY + 23 * HOUR,
        held_micros: 3_210_000,
        backpressure_micros: 450_000,
        busy_micros: 61_000_000,
        running: 2,
        paused: 1,
        rows_unplanned: 0,
    }
}

fn output(passed: u64, committed: u64) -> v1::OutputState {
    v1::OutputState {
        name: "flights".to_owned(),
        table: Some(v1::PreparedOutput {
            table: "default.air.flights".to_owned(),
            uuid: "0e3c1f3a-0000-4000-8000-000000000001".to_owned(),
            location: "/lake/air/flights".to_owned(),
            schema_id: 0,
            spec_id: 0,
            created: true,
            marker: String::new(),
            columns: vec!["time_hour timestamptz".to_owned(), "carrier string".to_owned()],
            source: vec!["flights".to_owned()],
            rows_before: 0,
            sequence_before: 0,
            branch_marker: String::new(),
            time_column: String::new(),
            head_before: 0,
            inputs: Vec::new(),
            window_width: 0,
            window_origin: 0,
        }),
        rows_read: passed + 76,
        rows_passed: passed,
        rows_filtered: 76,
        rows_late: 0,
        rows_dead_letter: 0,
        files: 12,
        bytes: 9_800_000,
        rows_committed: committed,
        files_committed: if committed > 0 { 12 } else { 0 },
        commits: if committed > 0 { 3 } else { 0 },
        last_snapshot: if committed > 0 { 8_744_120_993_871_203_511 } else { 0 },
        committed_through: (committed > 0).then_some(FROM + 364 * DAY),
        branch: String::new(),
        rows_staged: 0,
        files_staged: 0,
        staged_commits: 0,
        staged_snapshot: 0,
        replaces: false,
        dead_letters_expected: None,
        late_of: String::new(),
        join: None,
    }
}

/// One that goes on.
pub(crate) fn running() -> v1::Backfill {
    v1::Backfill {
        id: "bf-7k3m9qabcdefghij".to_owned(),
        name: "flights-weather-2013".to_owned(),
        phase: v1::Phase::Running.into(),
        wish: v1::Wish::Run.into(),
        term: 1,
        created: START,
        updated: NOW,
        ended: 0,
        read_watermark: Some(FROM + 100 * DAY),
        gate: Some(FROM + 110 * DAY),
        complete_watermark: Some(FROM + 98 * DAY),
        max_drift: Some(10 * DAY),
        promised_skew: Some(10 * DAY),
        sources: vec![source("flights", 336_776, 138_000, 12), source("weather", 26_115, 9_800, 8)],
        outputs: vec![output(137_924, 0)],
        workers: vec![
            v1::WorkerState { name: "w-1".to_owned(), slots: 4, busy: 3, paused: 1 },
            v1::WorkerState { name: "w-2".to_owned(), slots: 4, busy: 1, paused: 1 },
        ],
        parked: Vec::new(),
        failure: None,
        imbalances: Vec::new(),
        running_tasks: 4,
        state: "running".to_owned(),
    }
}

/// One that is done.
pub(crate) fn succeeded() -> v1::Backfill {
    v1::Backfill {
        phase: v1::Phase::Succeeded.into(),
        ended: NOW,
        read_watermark: None,
        gate: None,
        complete_watermark: None,
        sources: vec![source("flights", 336_776, 335_776, 12), source("weather", 26_115, 25_115, 8)],
        outputs: vec![output(335_700, 335_700)],
        running_tasks: 0,
        state: "succeeded".to_owned(),
        ..running()
    }
}

/// How an output stands that joins flights with the weather of the hour before, and of how many of its rows that is.
fn join(flights: u64, weather: u64, slices_done: u32) -> v1::JoinState {
    let input = |source: &str, low, shuffled, filtered| v1::JoinInputState {
        source: source.to_owned(),
        low,
        high: 0,
        rows_read: shuffled + filtered,
        rows_shuffled: shuffled,
        rows_filtered: filtered,
        rows_late: 0,
        rows_dead_letter: 0,
        late: None,
    };
    let running = if slices_done < 53 { 2 } else { 0 };
    v1::JoinState {
        inputs: vec![input("flights", 0, flights - 76, 76), input("weather", -HOUR, weather - 115, 115)],
        slice: 7 * DAY,
        slices: 53,
        slices_ready: slices_done + running,
        slices_done,
        buckets: 1,
        live_bytes: if running > 0 { 19_084_083 } else { 0 },
        peak_bytes: 42_047_898,
        regenerated: 0,
        running,
        anchors: flights - 76,
    }
}

fn joining_output(anchors: u64, passed: u64, committed: u64, join: v1::JoinState) -> v1::OutputState {
    let mut output = output(passed, committed);
    (output.name, output.rows_read, output.rows_filtered) = ("flights_weather".to_owned(), anchors, 0);
    let table = output.table.as_mut().unwrap();
    table.table = "default.air.flights_weather".to_owned();
    table.source = vec!["flights".to_owned(), "weather".to_owned()];
    let input = |input: &v1::JoinInputState| v1::JoinInput {
        source: input.source.clone(),
        low: input.low,
        high: input.high,
        keyed: true,
        anchor: false,
    };
    table.inputs = join.inputs.iter().map(input).collect();
    v1::OutputState { join: Some(join), ..output }
}

/// One that goes on, and joins.
pub(crate) fn joining() -> v1::Backfill {
    v1::Backfill { outputs: vec![joining_output(30_000, 30_010, 0, join(138_000, 9_800, 12))], ..running() }
}

/// One that is done, and has joined.
pub(crate) fn joined() -> v1::Backfill {
    let output = joining_output(335_700, 335_912, 335_912, join(335_776, 25_115, 53));
    v1::Backfill { outputs: vec![output], ..succeeded() }
}

/// One that is done, and fifteen rows of the weather came when their slices were joined.
pub(crate) fn late() -> v1::Backfill {
    let mut run = joined();
    let inputs = &mut run.outputs[0].join.as_mut().unwrap().inputs;
    inputs[1].rows_shuffled -= 15;
    inputs[1].rows_late = 15;
    let missed_by =
        [(0, 2), (9, 10)].map(|(from, to)| v1::TimeRange { from: FROM + from * 7 * DAY, to: FROM + to * 7 * DAY });
    inputs[1].late =
        Some(v1::LateRows { rows_by: vec![0, 0, 1, 0, 4, 10], most: 15 * DAY, missed_by: missed_by.into() });
    let kept = v1::OutputState {
        name: "flights_weather__late".to_owned(),
        table: Some(v1::PreparedOutput {
            table: "default.air.flights_weather__late".to_owned(),
            created: true,
            ..Default::default()
        }),
        rows_read: 15,
        rows_filtered: 0,
        files: 2,
        bytes: 4_000,
        files_committed: 2,
        commits: 1,
        committed_through: None,
        late_of: "flights_weather".to_owned(),
        ..output(15, 15)
    };
    run.outputs.push(kept);
    run
}

/// One that is done, and has met a hundred records that it could not use where `expected` were no surprise.
pub(crate) fn with_dead_letters(expected: u64) -> v1::Backfill {
    let mut run = succeeded();
    let kept = v1::OutputState {
        name: "weather__dead_letter".to_owned(),
        table: Some(v1::PreparedOutput {
            table: "default.air.weather__dead_letter".to_owned(),
            created: true,
            source: vec!["weather".to_owned()],
            ..Default::default()
        }),
        rows_read: 25_115,
        rows_filtered: 25_015,
        files: 1,
        bytes: 20_000,
        files_committed: 1,
        commits: 1,
        dead_letters_expected: Some(expected),
        ..output(100, 100)
    };
    run.sources[1].rows_dead_letter = 100;
    run.outputs.push(kept);
    run
}

/// One that waits to be published.
pub(crate) fn staged() -> v1::Backfill {
    let mut output = output(335_700, 0);
    output.branch = "tidegate_bf-7k3m9qabcdefghij".to_owned();
    (output.rows_staged, output.files_staged, output.staged_commits) = (335_700, 12, 3);
    output.staged_snapshot = 8_744_120_993_871_203_511;
    output.replaces = true;
    v1::Backfill {
        phase: v1::Phase::Staged.into(),
        ended: 0,
        outputs: vec![output],
        state: "staged".to_owned(),
        ..succeeded()
    }
}

/// One that is done but for a task.
pub(crate) fn partial() -> v1::Backfill {
    let evidence = v1::Evidence {
        class: v1::Failure::Poison.into(),
        message: "row group 3 cannot be read: the page header is damaged".to_owned(),
        place: "/data/flights.parquet, row group 3".to_owned(),
        worker: "w-1".to_owned(),
        attempts: 4,
        exit_code: 0,
        lost: String::new(),
    };
    let parked =
        v1::ParkedTask { task: "read-s0g0.3".to_owned(), source: "flights".to_owned(), evidence: Some(evidence) };
    v1::Backfill {
        phase: v1::Phase::Partial.into(),
        sources: vec![source("flights", 336_776, 300_076, 12), source("weather", 26_115, 25_115, 8)],
        outputs: vec![output(300_000, 300_000)],
        parked: vec![parked],
        state: "partial".to_owned(),
        ..succeeded()
    }
}

/// One that could not begin.
pub(crate) fn failed() -> v1::Backfill {
    let sources = ["flights", "weather"].map(|name| v1::SourceState {
        name: name.to_owned(),
        max_skew: i64::MIN,
        ..Default::default()
    });
    v1::Backfill {
        phase: v1::Phase::Failed.into(),
        ended: START + 2_500_000,
        sources: sources.to_vec(),
        outputs: vec![v1::OutputState { name: "flights".to_owned(), ..Default::default() }],
        workers: Vec::new(),
        failure: Some(v1::Evidence {
            class: v1::Failure::Fatal.into(),
            message: "table air.flights has no column \u{1b}[31mcarrier".to_owned(),
            exit_code: 4,
            ..Default::default()
        }),
        running_tasks: 0,
        state: "failed".to_owned(),
        ..succeeded()
    }
}
