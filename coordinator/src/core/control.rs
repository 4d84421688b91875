//! Submissions, changes, phases and ends.

use tidegate_common::ids::{BackfillId, TaskId};
use tidegate_proto::v1::{self, record};

use super::action::{Out, Refusal, Reply};
use super::backfill::Backfill;
use super::event::{LeaseRef, RequestId, Submission};
use super::{Core, Wake};

impl Core {
    pub(super) fn submit(&mut self, request: RequestId, submission: Submission, out: &mut Out) {
        let id = submission.id.clone();
        let answer = match self.backfills.get(&id).map(|backfill| (backfill.phase, backfill.is_over())) {
            None => self.create(submission, out),
            Some((v1::Phase::Succeeded, _)) => Ok(v1::Applied::NothingToDo),
            Some((_, true)) => {
                self.retry(&id, submission.reason, submission.allow_existing, out);
                Ok(v1::Applied::Resumed)
            }
            Some((_, false)) => Ok(v1::Applied::Attached),
        };
        out.reply(request, answer.map(Reply::Applied));
    }

    fn create(&mut self, submission: Submission, out: &mut Out) -> Result<v1::Applied, Refusal> {
        let Submission { id, spec, spec_json, reason, allow_existing } = submission;
        let same_name = |other: &&Backfill| other.spec.name == spec.name && !other.is_over();
        if let Some(other) = self.backfills.values().find(same_name) {
            return Err(Refusal::LiveName { name: spec.name, other: other.id.clone() });
        }
        self.backfills.insert(id.clone(), Backfill::new(id.clone(), spec));
        let created = record::Created { id: id.to_string(), spec_json, reason, allow_existing };
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
        let (over, wish, has_parked) = (backfill.is_over(), backfill.wish, !backfill.parked.is_empty());
        let not_now = |why: &str| Err(Refusal::NotNow { id: id.clone(), why: why.to_owned() });
        match change {
            v1::Change::Unspecified => not_now("was asked for no change"),
            v1::Change::Publish => not_now("has nothing staged to publish"),
            v1::Change::Pause if over => not_now("has ended: there is nothing to pause"),
            v1::Change::Pause if wish == v1::Wish::Cancel => not_now("is being cancelled"),
            v1::Change::Pause => {
                self.wish(id, v1::Wish::Pause, reason, out);
                self.yield_all(id, "the backfill is paused", out);
                Ok(())
            }
            v1::Change::Resume if over => not_now("has ended: `retry` takes up what failed"),
            v1::Change::Resume if wish == v1::Wish::Cancel => not_now("is being cancelled"),
            v1::Change::Resume => {
                self.wish(id, v1::Wish::Run, reason, out);
                Ok(())
            }
            v1::Change::Cancel if over => not_now("has ended: there is nothing to cancel"),
            v1::Change::Cancel => {
                self.wish(id, v1::Wish::Cancel, reason, out);
                self.revoke_all(id, "the backfill is cancelled", out);
                Ok(())
            }
            v1::Change::Retry if !over && !has_parked => not_now("runs, and nothing in it is parked"),
            v1::Change::Retry if backfill.phase == v1::Phase::Succeeded => not_now("has succeeded"),
            v1::Change::Retry => {
                self.retry(id, reason, false, out);
                Ok(())
            }
        }
    }

    fn wish(&mut self, id: &BackfillId, wish: v1::Wish, reason: String, out: &mut Out) {
        let changed = record::WishChanged { wish: wish.into(), reason };
        self.record(id, record::Kind::Wish(changed), out);
    }

    fn retry(&mut self, id: &BackfillId, reason: String, allow_existing: bool, out: &mut Out) {
        self.lead(id, out);
        self.record(id, record::Kind::Retried(record::Retried { reason, allow_existing }), out);
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
        if let Some(failure) = unfit(backfill, &prepared) {
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
        let Some(of) = backfill.sources.get_mut(source.get() as usize) else { return };
        let segments = std::mem::take(&mut of.finding);
        let name = backfill.spec.sources.get(source.get() as usize).cloned().unwrap_or_default();
        let (drift, wide) = (backfill.spec.max_drift, backfill.spec.allow_wide);
        self.end_grant(&lease.id, lease.task, false);
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
                "source {name} has a unit {widest} wide, and alignment.max_drift is {drift}: set max_drift to {widest} \
                 or more, or alignment.allow_wide: true (the bound is then the widest unit)"
            );
            return self.fail_backfill(&lease.id, fatal(message, 4), out);
        }
        let planned = record::SourcePlanned { source: source.get(), found: Some(found), segments };
        self.record(&lease.id, record::Kind::Planned(planned), out);
    }

    /// Ends a backfill as failed. Its readers are told to stop; a commit under way goes on to its end.
    pub(super) fn fail_backfill(&mut self, id: &BackfillId, failure: v1::Evidence, out: &mut Out) {
        self.end(id, v1::Phase::Failed, Some(failure), out);
        self.revoke_all(id, "the backfill has failed", out);
    }

    fn end(&mut self, id: &BackfillId, phase: v1::Phase, evidence: Option<v1::Evidence>, out: &mut Out) {
        let changed = record::PhaseChanged { phase: phase.into(), evidence };
        self.record(id, record::Kind::Phase(changed), out);
        self.active.remove(id);
    }

    fn revoke_all(&mut self, id: &BackfillId, reason: &str, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        let others = backfill.grants.iter().filter(|(task, _)| !matches!(task, TaskId::Commit(..)));
        let grants: Vec<_> = others.map(|(task, grant)| (*task, grant.session, grant.token)).collect();
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

    /// Ends a backfill that is done: all is read or parked and every file is in a proven commit; or it was cancelled
    /// and no intent is open.
    pub(super) fn end_if_done(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        if backfill.is_over() || backfill.outputs.iter().any(|output| output.prepared_intent().is_some()) {
            return;
        }
        if backfill.wish == v1::Wish::Cancel {
            return self.end(id, v1::Phase::Cancelled, None, out);
        }
        if !backfill.is_read() || backfill.outputs.iter().any(|output| output.unsealed.files > 0) {
            return;
        }
        if !backfill.parked.is_empty() {
            return self.end(id, v1::Phase::Partial, None, out);
        }
        match backfill.imbalances() {
            wrong if wrong.is_empty() => self.end(id, v1::Phase::Succeeded, None, out),
            wrong => {
                self.fail_backfill(id, fatal(format!("the ledger does not balance: {}", wrong.join("; ")), 1), out)
            }
        }
    }
}

/// Why a backfill cannot run on what `prepare` found.
fn unfit(backfill: &Backfill, prepared: &v1::Prepared) -> Option<v1::Evidence> {
    if prepared.outputs.len() != backfill.outputs.len() {
        return Some(fatal("prepare answered for other outputs than the spec has".to_owned(), 1));
    }
    let marked = prepared.outputs.iter().zip(&backfill.outputs).find(|(table, output)| table.marker != output.marker);
    if let Some((table, output)) = marked {
        let message = format!(
            "table {} carries this backfill's marker {:?}, and this coordinator's state says {:?}: the state was lost \
             or belongs to another deployment; bring the state back, or start over in a new table",
            table.table, table.marker, output.marker
        );
        return Some(fatal(message, 4));
    }
    // Dead letters of other runs are not doubled by ours: each row names its backfill.
    let append = prepared.outputs.iter().zip(&backfill.spec.outputs).filter(|(_, spec)| spec.dead_letters.is_none());
    let taken = |table: &&v1::PreparedOutput| table.rows_before > 0 && table.marker.is_empty();
    let taken = append.map(|(table, _)| table).find(taken).filter(|_| !backfill.allow_existing)?;
    let message = format!(
        "table {} holds {} rows in the window that this backfill did not write: appending would double them; choose \
         another window or table, or say --allow-existing if they are not the same rows",
        taken.table, taken.rows_before
    );
    Some(fatal(message, 4))
}

fn fatal(message: String, exit_code: i32) -> v1::Evidence {
    v1::Evidence { class: v1::Failure::Fatal.into(), message, exit_code, ..Default::default() }
}
