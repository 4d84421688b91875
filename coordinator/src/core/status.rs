//! A backfill as operators see it.

use std::collections::BTreeMap;

use tidegate_common::ids::{SessionId, TaskId};
use tidegate_common::time::{EventTime, Span};
use tidegate_proto::v1;

use super::Core;
use super::backfill::{Backfill, CoreOutput, Source};
use super::output::Output;

impl Core {
    /// How a backfill stands.
    pub fn status(&self, backfill: &Backfill) -> v1::Backfill {
        let gate = backfill.gate();
        // What comes late has no order.
        let ordered = backfill.outputs.iter().zip(&backfill.spec.outputs).filter(|(_, spec)| spec.late_of.is_none());
        let complete = ordered.map(|(output, _)| backfill.complete_watermark(output)).min().flatten();
        let sources = backfill.sources.iter().zip(&backfill.spec.sources).enumerate();
        let outputs = backfill.outputs.iter().zip(&backfill.spec.outputs).enumerate();
        let outputs = outputs.filter(|(ix, (_, spec))| spec.late_of.is_none() || is_made(backfill, *ix));
        v1::Backfill {
            id: backfill.id.to_string(),
            name: backfill.spec.name.clone(),
            phase: backfill.phase.into(),
            wish: backfill.wish.into(),
            term: backfill.term.get(),
            created: backfill.created,
            updated: backfill.updated,
            ended: backfill.ended,
            read_watermark: finite(gate.watermark),
            gate: gate.gate.and_then(finite),
            complete_watermark: complete.and_then(finite),
            max_drift: backfill.spec.max_drift.map(Span::as_micros),
            promised_skew: backfill.promised_skew().map(Span::as_micros),
            sources: sources.map(|(ix, (source, name))| source_state(backfill, ix, source, name)).collect(),
            outputs: outputs.map(|(ix, (output, spec))| output_state(backfill, ix, output, spec)).collect(),
            workers: self.workers(backfill),
            parked: backfill.parked.iter().map(|(task, evidence)| parked(backfill, *task, evidence)).collect(),
            failure: backfill.failure.clone(),
            imbalances: if backfill.phase == v1::Phase::Failed { backfill.imbalances() } else { Vec::new() },
            running_tasks: u32::try_from(backfill.grants.len()).unwrap_or(u32::MAX),
            state: state(backfill).to_owned(),
        }
    }

    fn workers(&self, backfill: &Backfill) -> Vec<v1::WorkerState> {
        let mut busy: BTreeMap<SessionId, (u32, u32)> = BTreeMap::new();
        for (_, grant) in backfill.grants.iter() {
            let of = busy.entry(grant.session()).or_default();
            of.0 += 1;
            of.1 += u32::from(grant.paused_at.is_some());
        }
        let usable = self.sessions.iter().filter(|(_, session)| session.connected && session.alive);
        usable
            .map(|(id, session)| {
                let (busy, paused) = busy.get(id).copied().unwrap_or_default();
                v1::WorkerState { name: session.worker.clone(), slots: session.slots, busy, paused }
            })
            .collect()
    }
}

fn finite(at: EventTime) -> Option<i64> {
    (at != EventTime::MIN && at != EventTime::MAX).then(|| at.as_micros())
}

fn state(backfill: &Backfill) -> &'static str {
    let unknown = backfill.outputs.iter().any(|output| output.doomed.is_some());
    match (backfill.phase, backfill.wish) {
        (v1::Phase::Succeeded, _) => "succeeded",
        (v1::Phase::Partial, _) => "partial",
        (v1::Phase::Failed, _) => "failed",
        (v1::Phase::Cancelled, _) => "cancelled",
        (v1::Phase::Staged, _) => "staged",
        (_, v1::Wish::Cancel) if unknown => "cancelling, outcome unknown",
        (_, v1::Wish::Cancel) => "cancelling",
        (_, _) if backfill.publishing => "publishing",
        (_, v1::Wish::Pause) if backfill.grants.is_empty() => "paused",
        (_, v1::Wish::Pause) => "pausing",
        (v1::Phase::Preparing, _) => "preparing",
        (v1::Phase::Enumerating, _) => "enumerating",
        (v1::Phase::Running, _) if backfill.grace => "taking up",
        (v1::Phase::Running, _) if backfill.is_processed() => "committing",
        (v1::Phase::Running, _) => "running",
    }
}

fn source_state(backfill: &Backfill, ix: usize, source: &Source, name: &str) -> v1::SourceState {
    let of_source = |task: &TaskId| matches!(task, TaskId::Read(of, ..) if of.get() as usize == ix);
    let grants = backfill.grants.iter().filter(|(task, _)| of_source(task));
    let (running, paused) =
        grants.fold((0, 0), |(all, paused), (_, grant)| (all + 1, paused + u32::from(grant.paused_at.is_some())));
    let account = &source.account;
    v1::SourceState {
        name: name.to_owned(),
        found: source.plan.found().cloned(),
        watermark: source.plan.found().and_then(|_| finite(source.plan.read_watermark())),
        tasks_done: source.plan.tasks_done(),
        units_done: account.units,
        rows_read: account.read,
        rows_unplanned: account.unplanned,
        rows_outside: account.outside,
        rows_dead_letter: account.dead_letter,
        rows_gaps: account.gaps,
        rows_void: account.void,
        rows_disordered: account.disordered,
        bytes_read: account.bytes,
        max_skew: account.max_skew,
        held_micros: account.held,
        backpressure_micros: account.backpressure,
        limited_micros: account.limited,
        busy_micros: account.busy,
        running,
        paused,
    }
}

fn output_state(backfill: &Backfill, ix: usize, output: &Output, spec: &CoreOutput) -> v1::OutputState {
    let account = &output.account;
    v1::OutputState {
        name: spec.name.clone(),
        table: backfill.prepared.as_ref().and_then(|prepared| prepared.outputs.get(ix).cloned()),
        rows_read: account.read,
        rows_passed: account.passed,
        rows_filtered: account.filtered,
        rows_late: account.late,
        rows_dead_letter: account.dead_letter,
        files: account.files,
        bytes: account.bytes,
        rows_committed: account.rows_committed,
        files_committed: account.files_committed,
        commits: account.commits,
        last_snapshot: output.last_snapshot,
        committed_through: finite(output.committed_through),
        branch: if spec.staged { backfill.branch() } else { String::new() },
        rows_staged: account.rows_staged,
        files_staged: account.files_staged,
        staged_commits: account.staged_commits,
        staged_snapshot: output.branch_snapshot,
        replaces: spec.replaces,
        dead_letters_expected: spec.dead_letters.map(|limit| limit.most(account.read)),
        late_of: late_of(backfill, spec),
        join: output.join.as_ref().map(|join| join.state(&backfill.spec.sources, backfill.ready_slices(join))),
    }
}

/// Whether there is a table for it: there is none for the late rows of what goes row by row.
fn is_made(backfill: &Backfill, ix: usize) -> bool {
    let table = backfill.prepared.as_ref().and_then(|prepared| prepared.outputs.get(ix));
    table.is_some_and(|table| !table.uuid.is_empty())
}

/// The name of the output whose late rows it keeps.
fn late_of(backfill: &Backfill, spec: &CoreOutput) -> String {
    let of = spec.late_of.and_then(|of| backfill.spec.outputs.get(of.get() as usize));
    of.map(|of| of.name.clone()).unwrap_or_default()
}

fn parked(backfill: &Backfill, task: TaskId, evidence: &v1::Evidence) -> v1::ParkedTask {
    let source = match task {
        TaskId::Read(source, ..) => backfill.spec.sources.get(source.get() as usize).cloned().unwrap_or_default(),
        TaskId::Join(output, _) | TaskId::Late(output, _) | TaskId::Regenerate(output, _) => {
            backfill.spec.outputs.get(output.get() as usize).map(|output| output.name.clone()).unwrap_or_default()
        }
        _ => String::new(),
    };
    v1::ParkedTask { task: task.to_string(), source, evidence: Some(evidence.clone()) }
}
