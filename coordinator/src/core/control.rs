//! Submissions, changes, phases and ends.

use tidegate_common::ids::{BackfillId, TaskId};
use tidegate_proto::v1::{self, record};

use super::action::{Out, Refusal, Reply};
use super::backfill::{Backfill, CoreOutput};
use super::event::{LeaseRef, RequestId, Submission};
use super::output::Output;
use super::{Core, Wake};

impl Core {
    pub(super) fn submit(&mut self, request: RequestId, submission: Submission, out: &mut Out) {
        let id = submission.id.clone();
        let answer = match self.backfills.get(&id) {
            None => self.create(submission, out),
            Some(backfill) if backfill.phase == v1::Phase::Succeeded => Ok(v1::Applied::NothingToDo),
            Some(backfill) => match other_inputs(backfill, submission.expected.as_deref()) {
                Some(why) => Err(Refusal::NotNow { id, why }),
                None if backfill.is_over() => {
                    let Submission { reason, allow_existing, expected, .. } = submission;
                    let expected = expected.map(|expected| *expected);
                    self.retry(&id, record::Retried { reason, allow_existing, submitted: true, expected }, out);
                    Ok(v1::Applied::Resumed)
                }
                None => Ok(v1::Applied::Attached),
            },
        };
        out.reply(request, answer.map(Reply::Applied));
    }

    fn create(&mut self, submission: Submission, out: &mut Out) -> Result<v1::Applied, Refusal> {
        let Submission { id, spec, spec_json, reason, allow_existing, expected } = submission;
        let expected = expected.map(|expected| *expected);
        let same_name = |other: &&Backfill| other.spec.name == spec.name && !other.is_over();
        if let Some(other) = self.backfills.values().find(same_name) {
            return Err(Refusal::LiveName { name: spec.name, other: other.id.clone() });
        }
        self.backfills.insert(id.clone(), Backfill::new(id.clone(), spec));
        let created = record::Created { id: id.to_string(), spec_json, reason, allow_existing, expected };
        self.record(&id, record::Kind::Created(created), out);
        self.lead(&id, out);
        Ok(v1::Applied::Created)
    }

    pub(super) fn change(
        &mut self,
        request: RequestId,
        id: &BackfillId,
        change: v1::Change,
        reason: String,
        out: &mut Out,
    ) {
        let answer = self.try_change(id, change, reason, out).map(|()| Reply::Changed);
        out.reply(request, answer);
    }

    fn try_change(
        &mut self,
        id: &BackfillId,
        change: v1::Change,
        reason: String,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let backfill = self.backfills.get(id).ok_or_else(|| Refusal::Unknown(id.clone()))?;
        if let Some(why) = refusal(backfill, change) {
            return Err(Refusal::NotNow { id: id.clone(), why: why.to_owned() });
        }
        match change {
            v1::Change::Unspecified => {}
            v1::Change::Pause => {
                self.wish(id, v1::Wish::Pause, reason, out);
                self.yield_all(id, "the backfill is paused", out);
            }
            v1::Change::Resume => self.wish(id, v1::Wish::Run, reason, out),
            v1::Change::Cancel => {
                self.lead(id, out);
                self.wish(id, v1::Wish::Cancel, reason, out);
                self.revoke(id, "the backfill is cancelled", |_| true, out);
            }
            v1::Change::Retry => self.retry(id, record::Retried { reason, ..Default::default() }, out),
            v1::Change::Publish if backfill.publishing => {}
            v1::Change::Publish => self.publish(id, reason, out),
        }
        Ok(())
    }

    fn wish(&mut self, id: &BackfillId, wish: v1::Wish, reason: String, out: &mut Out) {
        let changed = record::WishChanged { wish: wish.into(), reason };
        self.record(id, record::Kind::Wish(changed), out);
    }

    fn retry(&mut self, id: &BackfillId, retried: record::Retried, out: &mut Out) {
        self.lead(id, out);
        self.record(id, record::Kind::Retried(retried), out);
        // Workers open it anew: what they know of it may be what it failed of.
        for session in self.sessions.values_mut() {
            session.knows.remove(id);
        }
        self.revoke(id, "the intent is given up", |task| matches!(task, TaskId::Commit(..)), out);
        self.files_wait(id, out);
    }

    /// Makes a backfill this coordinator's, once: its term is raised before anything else.
    fn lead(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        let raised = record::TermRaised { term: backfill.term.next().get() };
        self.active.insert(id.clone());
        if !std::mem::replace(&mut backfill.led, true) {
            self.record(id, record::Kind::Term(raised), out);
        }
    }

    /// A backfill that was replayed from its journal goes on, after a grace in which workers say what they hold.
    pub(super) fn take_up(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        if backfill.is_over() && backfill.outputs.iter().all(|output| output.prepared_intent().is_none()) {
            return;
        }
        let may_be_held = backfill.phase == v1::Phase::Running && !self.config.grace.is_zero();
        self.lead(id, out);
        if let Some(backfill) = self.backfills.get_mut(id).filter(|_| may_be_held) {
            backfill.grace = true;
            self.wake(out.now.monotonic.after(self.config.grace), Wake::Grace(id.clone()));
        }
        self.files_wait(id, out);
    }

    pub(super) fn grace_over(&mut self, id: &BackfillId, out: &mut Out) {
        if let Some(backfill) = self.backfills.get_mut(id) {
            backfill.grace = false;
            out.touch(id);
        }
    }

    pub(super) fn prepared(&mut self, lease: &LeaseRef, prepared: v1::Prepared, out: &mut Out) {
        if !self.is_live(lease) {
            return;
        }
        self.end_grant(&lease.id, lease.task, false);
        let Some(backfill) = self.backfills.get(&lease.id) else { return };
        if let Some(failure) = stale(backfill, &prepared).or_else(|| unfit(backfill, &prepared)) {
            return self.fail_backfill(&lease.id, failure, out);
        }
        self.record(&lease.id, record::Kind::Prepared(prepared), out);
    }

    pub(super) fn enumerated(&mut self, lease: &LeaseRef, found: v1::Enumerated, out: &mut Out) {
        let TaskId::Enumerate(source) = lease.task else { return };
        if !self.is_live(lease) {
            return;
        }
        let Some(backfill) = self.backfills.get_mut(&lease.id) else { return };
        let changed = backfill.expected_of(source).and_then(|expected| expected.changed(&found, None));
        let Some(of) = backfill.sources.get_mut(source.get() as usize) else { return };
        let segments = std::mem::take(&mut of.finding);
        let name = backfill.spec.sources.get(source.get() as usize).cloned().unwrap_or_default();
        let (drift, wide) = (backfill.spec.max_drift, backfill.spec.allow_wide);
        self.end_grant(&lease.id, lease.task, false);
        if let Some(changed) = changed {
            return self.fail_backfill(&lease.id, fatal(not_as_planned(&format!("source {name}"), &changed), 4), out);
        }
        let tasks: u64 = segments.iter().map(|segment| u64::from(segment.tasks)).sum();
        if segments.len() != found.segments as usize || tasks != found.tasks {
            let message = format!(
                "source {name}: the plan is incomplete: {} segments with {tasks} tasks are here, {} with {} were found",
                segments.len(),
                found.segments,
                found.tasks
            );
            return self.fail_backfill(&lease.id, fatal(message, 1), out);
        }
        if let Some(drift) = drift.filter(|drift| !wide && found.widest_unit > drift.as_micros()) {
            let widest = tidegate_common::time::Span::from_micros(found.widest_unit);
            let message = format!(
                "source {name} has a unit {widest} wide, and alignment.max_drift is {drift}: set max_drift to {} \
                 or more, or alignment.allow_wide: true (the bound is then the widest unit)",
                widest.to_be_written()
            );
            return self.fail_backfill(&lease.id, fatal(message, 4), out);
        }
        let planned = record::SourcePlanned { source: source.get(), found: Some(found), segments };
        self.record(&lease.id, record::Kind::Planned(planned), out);
    }

    /// Ends a backfill as failed. Its readers are told to stop; a commit under way goes on to its end.
    pub(super) fn fail_backfill(&mut self, id: &BackfillId, failure: v1::Evidence, out: &mut Out) {
        self.end(id, v1::Phase::Failed, Some(failure), out);
        self.revoke(id, "the backfill has failed", |task| !matches!(task, TaskId::Commit(..)), out);
    }

    fn end(&mut self, id: &BackfillId, phase: v1::Phase, evidence: Option<v1::Evidence>, out: &mut Out) {
        let changed = record::PhaseChanged { phase: phase.into(), evidence };
        self.record(id, record::Kind::Phase(changed), out);
        self.active.remove(id);
    }

    /// Takes grants back. A commit goes on to its end, unless its intent was given up: then it is granted anew, to be
    /// fenced off.
    pub(super) fn revoke(&mut self, id: &BackfillId, reason: &str, which: impl Fn(&TaskId) -> bool, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        let given_up = |task: &TaskId| match task {
            TaskId::Commit(output, _) => {
                backfill.outputs.get(output.get() as usize).is_some_and(|output| output.doomed.is_some())
            }
            _ => true,
        };
        let grants = backfill.grants.iter().filter(|(task, _)| which(task) && given_up(task));
        let grants: Vec<_> = grants.map(|(task, grant)| (task, grant.session(), grant.token())).collect();
        for (task, session, token) in grants {
            self.end_grant(id, task, false);
            let revoke = v1::Revoke {
                backfill: id.to_string(),
                task: Some(task.into()),
                token: Some(token.into()),
                reason: reason.to_owned(),
            };
            out.send(session, v1::from_coordinator::Kind::Revoke(revoke));
        }
    }

    /// Ends a backfill that is done: all is read or parked and every file is in a proven commit; or it was cancelled,
    /// no intent is open and no branch is left. One with staged outputs rests when they wait for nothing but `publish`.
    pub(super) fn end_if_done(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        if backfill.is_at_rest() {
            return;
        }
        if backfill.wish == v1::Wish::Cancel {
            if !backfill.has_remains() && !backfill.is_littered() {
                self.end(id, v1::Phase::Cancelled, None, out);
            }
            return;
        }
        if backfill.repin || !backfill.is_committed() || (backfill.publishing && backfill.is_unpublished()) {
            return;
        }
        if !backfill.parked.is_empty() {
            return self.end(id, v1::Phase::Partial, None, out);
        }
        match backfill.imbalances() {
            // Nothing needs the shuffle store any more: it goes before anybody hears of the end.
            wrong if wrong.is_empty() && backfill.is_littered() => {}
            wrong if wrong.is_empty() && backfill.is_unpublished() => {
                let staged = record::PhaseChanged { phase: v1::Phase::Staged.into(), evidence: None };
                self.record(id, record::Kind::Phase(staged), out);
            }
            wrong if wrong.is_empty() => self.end(id, v1::Phase::Succeeded, None, out),
            wrong => {
                self.fail_backfill(id, fatal(format!("the ledger does not balance: {}", wrong.join("; ")), 1), out)
            }
        }
    }
}

/// Why a change cannot be made now; `None` where it can.
fn refusal(backfill: &Backfill, change: v1::Change) -> Option<&'static str> {
    use v1::{Change, Phase};
    let (over, staged) = (backfill.is_over(), backfill.phase == Phase::Staged);
    let cancelling = !over && backfill.wish == v1::Wish::Cancel;
    let publishing = backfill.publishing && backfill.phase != Phase::Succeeded;
    let has_staged = backfill.spec.outputs.iter().any(|output| output.staged);
    Some(match change {
        Change::Unspecified => "was asked for no change",
        Change::Pause if over => "has ended: there is nothing to pause",
        Change::Resume if over => "has ended: `retry` takes up what failed",
        Change::Pause | Change::Resume if cancelling => "is being cancelled",
        Change::Pause | Change::Resume | Change::Retry if staged => {
            "is staged: nothing of it runs, it waits for `publish` or `cancel`"
        }
        Change::Pause | Change::Cancel if publishing => "is being published: every output is driven to its end",
        Change::Cancel if over && !backfill.has_remains() && !backfill.may_hold_rows() => {
            "has ended: there is nothing to cancel"
        }
        Change::Retry if cancelling => "is being cancelled: it can be retried when that has ended",
        Change::Retry if backfill.phase == Phase::Succeeded => "has succeeded",
        Change::Retry if !over && backfill.parked.is_empty() => "runs, and nothing in it is parked",
        Change::Publish if !has_staged => "has no staged output: it commits as it goes",
        Change::Publish if backfill.phase == Phase::Succeeded => "is published: there is nothing more to do",
        Change::Publish if backfill.phase == Phase::Partial => {
            "is partial: `retry` takes up what is parked, `cancel` discards what is staged"
        }
        Change::Publish if over && publishing => "has failed while it was published: `retry` goes on with that",
        Change::Publish if over => "has ended and is not staged: `retry` takes it up",
        Change::Publish if cancelling => "is being cancelled: what is staged is discarded",
        Change::Publish if !staged && !publishing => "is not staged yet: not everything is read and on its branch",
        _ => return None,
    })
}

/// Why a saved plan cannot go on with a backfill that is there already: that one holds to other inputs.
fn other_inputs(backfill: &Backfill, expected: Option<&v1::ExpectedPlan>) -> Option<String> {
    // One that is over and has accepted nothing holds to nothing: it is planned anew.
    let expected = expected.filter(|_| !backfill.is_over() || backfill.is_begun())?;
    let planned = expected.sources.iter().zip(&backfill.sources);
    let (source, changed) = planned.into_iter().find_map(|(expected, source)| {
        // A plan that was journalled by an earlier release has no digest: nothing is known to differ.
        let found = source.plan.found().filter(|found| !found.digest.is_empty())?;
        Some((&expected.name, expected.changed(found, None)?))
    })?;
    Some(format!(
        "goes on with what its source {source} was when it began, and this plan was made of something else: {changed}; \
         apply the spec to go on with it, or `cancel` it"
    ))
}

/// Why a saved plan does not hold, by what `prepare` found.
fn stale(backfill: &Backfill, prepared: &v1::Prepared) -> Option<v1::Evidence> {
    let expected = backfill.expected.as_ref().filter(|_| backfill.prepared.is_none())?;
    let source = |source: &v1::ExpectedSource| {
        Some(not_as_planned(&format!("source {}", source.name), &source.changed_state(&prepared.sources)?))
    };
    let output = |(output, found): (&v1::ExpectedOutput, &v1::PreparedOutput)| {
        Some(not_as_planned(&format!("table {}", output.table), &output.changed(found)?))
    };
    let changed = expected.sources.iter().find_map(source);
    let changed = changed.or_else(|| expected.outputs.iter().zip(&prepared.outputs).find_map(output));
    changed.map(|changed| fatal(changed, 4))
}

fn not_as_planned(what: &str, changed: &str) -> String {
    format!("{what} is not what the saved plan says: {changed}; make the plan again and apply that")
}

/// Why a backfill cannot run on what `prepare` found.
fn unfit(backfill: &Backfill, prepared: &v1::Prepared) -> Option<v1::Evidence> {
    if prepared.outputs.len() != backfill.outputs.len() {
        return Some(fatal("prepare answered for other outputs than the spec has".to_owned(), 1));
    }
    if let Some(lost) = prepared.outputs.iter().zip(&backfill.outputs).find_map(lost_state) {
        return Some(fatal(lost, 4));
    }
    let pinned = backfill.prepared.iter().flat_map(|pinned| &pinned.outputs);
    if let Some((table, _)) = prepared.outputs.iter().zip(pinned).find(|(table, pinned)| table.uuid != pinned.uuid) {
        return Some(fatal(format!("table {} is another one than was prepared: its uuid differs", table.table), 4));
    }
    // Dead letters and late rows of other runs are not doubled by ours: each row names its backfill.
    let taken = |(table, spec): &(&v1::PreparedOutput, &CoreOutput)| {
        let kept = spec.dead_letters.is_some() || spec.late_of.is_some();
        table.rows_before > 0 && table.marker.is_empty() && !spec.replaces && !kept
    };
    let outputs = prepared.outputs.iter().zip(&backfill.spec.outputs);
    let (table, _) = outputs.filter(|_| !backfill.allow_existing).find(taken)?;
    let message = format!(
        "table {} holds {} rows in the window that this backfill did not write: appending would double them; choose \
         another window or table, or say --allow-existing if they are not the same rows",
        table.table, table.rows_before
    );
    Some(fatal(message, 4))
}

/// What says that this coordinator's state of an output is not that of its table.
fn lost_state((table, output): (&v1::PreparedOutput, &Output)) -> Option<String> {
    let (found, known, whose) = match (table.marker == output.marker, table.branch_marker == output.branch_marker) {
        (true, true) => return None,
        (false, _) => (&table.marker, &output.marker, "marker"),
        (true, false) => (&table.branch_marker, &output.branch_marker, "marker for its staging branch"),
    };
    Some(format!(
        "table {} carries this backfill's {whose} {found:?}, and this coordinator's state says {known:?}: the state was \
         lost or belongs to another deployment; bring the state back, or start over in a new table",
        table.table
    ))
}

pub(super) fn fatal(message: String, exit_code: i32) -> v1::Evidence {
    v1::Evidence { class: v1::Failure::Fatal.into(), message, exit_code, ..Default::default() }
}
