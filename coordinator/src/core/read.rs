//! Hand-ins, plan segments and failures: what is accepted, and what a failure leads to.
//!
//! # Which hand-in is accepted
//!
//! | the hand-in | answer |
//! |---|---|
//! | is the last one that was accepted of its task, in whatever term | accepted, again |
//! | its backfill has ended or is being cancelled, or its task is done | refused |
//! | its token is not the task's live one | refused |
//! | its units are not exactly the next that are not accepted | refused |
//! | its own sums, or the plan's rows, do not add up | refused, and the task has failed |
//! | rows of it come late, and may not | refused, and the task is parked |
//! | anything else | accepted |

use std::time::Duration;

use tidegate_common::fence::Fence;
use tidegate_common::ids::{BackfillId, SegmentIx, SourceIx, TaskId};
use tidegate_proto::v1::{self, from_coordinator::Kind, record};

use super::action::{Action, Out};
use super::event::{FoundSegment, LeaseRef};
use super::grants::takes_slot;
use super::{Core, Wake, joining, late, ledger};

pub(super) enum Judgement {
    Accept { total: u32, planned: u64 },
    Repeat,
    Refuse(String),
    Unsound(String),
    TooLate(String),
}

impl Core {
    pub(super) fn hand_in(&mut self, lease: &LeaseRef, hand_in: v1::HandIn, released: bool, out: &mut Out) {
        let judgement = self.judge_hand_in(lease, &hand_in);
        let (attempt, number) = (hand_in.attempt.clone(), hand_in.number);
        let (accepted, reason) = match judgement {
            Judgement::Repeat => {
                if released {
                    self.released(lease, out);
                }
                (true, String::new())
            }
            Judgement::Accept { total, planned } => {
                self.accept(lease, hand_in, (total, planned), released, out);
                (true, String::new())
            }
            Judgement::Refuse(reason) => (false, reason),
            Judgement::Unsound(reason) => {
                let message = format!("the hand-in does not add up: {reason}");
                self.failed(lease, poison(message), out);
                (false, reason)
            }
            Judgement::TooLate(reason) => {
                // Read again, it would come as late: it is set aside at once.
                self.end_grant(&lease.id, lease.task, false);
                let evidence = v1::Evidence { attempts: 1, place: lease.task.to_string(), ..poison(reason.clone()) };
                self.park(&lease.id, lease.task, evidence, out);
                (false, reason)
            }
        };
        let reply = v1::HandInReply {
            backfill: lease.id.to_string(),
            task: Some(lease.task.into()),
            attempt,
            number,
            accepted,
            reason,
        };
        out.send(lease.session, Kind::HandInReply(reply));
    }

    fn judge_hand_in(&mut self, lease: &LeaseRef, hand_in: &v1::HandIn) -> Judgement {
        let fences = self.config.fences.clone();
        let refuse = |why: &str| Judgement::Refuse(why.to_owned());
        let Some(backfill) = self.backfills.get_mut(&lease.id) else { return refuse("there is no such backfill") };
        let live = backfill.grants.get(lease.task).is_some_and(|grant| grant.token() == lease.token);
        let (over, cancelled) = (backfill.is_over(), backfill.wish == v1::Wish::Cancel);
        let fenced = fences.stands(Fence::TokenCompare);
        if let TaskId::Join(..) | TaskId::Late(..) = lease.task
            && (over || cancelled)
        {
            return refuse("the backfill has ended or is being cancelled");
        }
        match lease.task {
            TaskId::Join(output, first) => return joining::judge(backfill, (output, first), live || !fenced, hand_in),
            TaskId::Late(output, number) => return late::judge(backfill, (output, number), live || !fenced, hand_in),
            _ => {}
        }
        let keepers = backfill.dead_letter_outputs();
        let unfit = joining::unfit(backfill, lease.task, hand_in);
        let too_late = if unfit.is_none() { late::refused(backfill, lease.task, hand_in) } else { None };
        let Some((plan, place)) = backfill.read_task(lease.task) else { return refuse("it is not a read task") };
        let Some(progress) = plan.progress(place) else { return refuse("there is no such task") };
        if progress.last.as_ref().is_some_and(|last| (&last.0, last.1) == (&hand_in.attempt, hand_in.number)) {
            return Judgement::Repeat;
        }
        if over || cancelled {
            return refuse("the backfill has ended or is being cancelled");
        }
        let Some(task) = plan.payload(place).filter(|_| !plan.is_done(place)) else {
            return refuse("the task is done");
        };
        if !live && fenced {
            return refuse("the lease is over");
        }
        let (first, end, total) = (hand_in.first_unit, hand_in.end_unit, task.units.len());
        let in_task = first < end && (end as usize) <= total;
        if !in_task || (first != progress.next && fences.stands(Fence::PrefixRule)) {
            return refuse("its units are not the next of the task");
        }
        let units = task.units.get(first as usize..end as usize).unwrap_or_default();
        let unsound = ledger::unsound(hand_in, units).or_else(|| ledger::unkept(hand_in, &keepers)).or(unfit);
        match (unsound, too_late) {
            (Some(why), _) => Judgement::Unsound(why),
            (None, Some(why)) => Judgement::TooLate(why),
            (None, None) => Judgement::Accept {
                total: u32::try_from(total).unwrap_or(u32::MAX),
                planned: ledger::planned_rows(units),
            },
        }
    }

    fn accept(
        &mut self,
        lease: &LeaseRef,
        hand_in: v1::HandIn,
        (total, planned): (u32, u64),
        released: bool,
        out: &mut Out,
    ) {
        let end = hand_in.end_unit;
        let disturbed = self.backfills.get(&lease.id).map(|backfill| late::disturbed(backfill, lease.task, &hand_in));
        let disturbed = disturbed.unwrap_or_default();
        let accepted = record::HandInAccepted {
            task: Some(lease.task.into()),
            hand_in: Some(hand_in),
            units_in_task: total,
            rows_planned: planned,
        };
        self.record(&lease.id, record::Kind::HandIn(accepted), out);
        self.files_wait(&lease.id, out);
        if !disturbed.is_empty() {
            self.revoke(&lease.id, "rows came that its slices need", |task| disturbed.contains_key(task), out);
        }
        for (task, slices) in disturbed {
            let TaskId::Join(ix, _) = task else { continue };
            let join = self.backfills.get_mut(&lease.id).and_then(|backfill| backfill.join_mut(ix));
            join.into_iter().for_each(|join| join.set_apart(&slices));
        }
        if released || end >= total {
            self.end_grant(&lease.id, lease.task, false);
        }
        if matches!(lease.task, TaskId::Read(..)) {
            self.keep_to_budget(&lease.id, out);
        }
    }

    /// The worker gives a task back, untouched or after its last hand-in.
    pub(super) fn released(&mut self, lease: &LeaseRef, out: &mut Out) {
        if self.is_live(lease) {
            self.end_grant(&lease.id, lease.task, false);
            out.touch(&lease.id);
        }
    }

    pub(super) fn is_live(&self, lease: &LeaseRef) -> bool {
        let grant = self.backfills.get(&lease.id).and_then(|backfill| backfill.grants.get(lease.task));
        grant.is_some_and(|grant| grant.token() == lease.token)
    }

    pub(super) fn segment_found(&mut self, lease: &LeaseRef, found: FoundSegment, out: &mut Out) {
        if !self.is_live(lease) {
            return;
        }
        let TaskId::Enumerate(source) = lease.task else { return };
        let Some(backfill) = self.backfills.get_mut(&lease.id) else { return };
        let Some(of) = backfill.sources.get_mut(source.get() as usize) else { return };
        if found.index as usize != of.finding.len() {
            return;
        }
        let blob = format!("backfills/{}/plan/{source}/{}/{:08}", lease.id, lease.token, found.index);
        out.actions.push(Action::WriteBlob(blob.clone(), found.bytes));
        of.finding.push(record::SegmentInfo { blob, ..found.info });
    }

    pub(super) fn segment_loaded(
        &mut self,
        id: &BackfillId,
        source: SourceIx,
        segment: SegmentIx,
        tasks: Option<Vec<v1::ReadTask>>,
        out: &mut Out,
    ) {
        let retry_at = out.now.monotonic.after(self.config.back_off);
        self.reloaded(id, (source, segment), tasks.as_deref(), out);
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        let Some(of) = backfill.sources.get_mut(source.get() as usize) else { return };
        match tasks {
            Some(tasks) => {
                of.plan.load(segment, tasks);
                self.judge_claims(id, out);
                out.touch(id);
            }
            None => {
                of.plan.load_failed(segment);
                self.wake(retry_at, Wake::Seal(id.clone()));
            }
        }
    }

    /// A task failed: it is tried again later, parked, or ends its backfill.
    pub(super) fn failed(&mut self, lease: &LeaseRef, mut evidence: v1::Evidence, out: &mut Out) {
        if !self.is_live(lease) {
            return;
        }
        evidence.worker = self.sessions.get(&lease.session).map(|session| session.worker.clone()).unwrap_or_default();
        let class = evidence.class();
        if class == v1::Failure::Fenced || self.missed(lease, &evidence, out) {
            self.end_grant(&lease.id, lease.task, false);
            return out.touch(&lease.id);
        }
        let Some(backfill) = self.backfills.get_mut(&lease.id) else { return };
        let tries = backfill.tries.entry(lease.task).or_default();
        tries.failed += 1;
        tries.poison += u32::from(class == v1::Failure::Poison);
        tries.waiting = true;
        evidence.attempts = tries.failed;
        tries.evidence = Some(evidence.clone());
        let (failed, poison) = (tries.failed, tries.poison);
        let may_park = takes_slot(lease.task);
        let is_commit = matches!(lease.task, TaskId::Commit(..));
        let most = if is_commit { self.config.max_commit_tries } else { self.config.max_tries };
        let is_fatal = class == v1::Failure::Fatal;
        // That a source is no longer what it was keeps from being joined only what is read of it again.
        let is_again = matches!(lease.task, TaskId::Regenerate(..));
        let hopeless = poison > u32::from(may_park) || failed >= most || (is_fatal && is_again);
        let is_clean = lease.task == TaskId::Clean;
        // What is left in the shuffle store harms nobody: it is no reason to fail what is committed.
        let gives_up = is_clean && hopeless && backfill.cleaning.is_empty();
        backfill.cleaned |= gives_up;
        self.end_grant(&lease.id, lease.task, true);
        if gives_up {
            return out.touch(&lease.id);
        }
        if (is_fatal && !is_clean && !is_again) || (hopeless && !may_park && !is_clean) {
            if !is_commit && evidence.exit_code == 0 {
                // Prepare and enumerate come before anything is done: what ends them is a failed preflight.
                evidence.exit_code = 4;
            }
            return self.fail_backfill(&lease.id, evidence, out);
        }
        if hopeless {
            self.tell_of_lost(lease, &mut evidence);
            return self.park(&lease.id, lease.task, evidence, out);
        }
        let doubled = self.config.back_off.saturating_mul(1 << (failed.saturating_sub(1)).min(16));
        self.wake_task(lease, doubled.min(self.config.max_back_off), out);
    }

    fn wake_task(&mut self, lease: &LeaseRef, after: Duration, out: &mut Out) {
        let at = out.now.monotonic.after(after);
        self.wake(at, Wake::BackOff(lease.id.clone(), lease.task));
        out.touch(&lease.id);
    }

    pub(super) fn park(&mut self, id: &BackfillId, task: TaskId, evidence: v1::Evidence, out: &mut Out) {
        let parked = record::Parked { task: Some(task.into()), evidence: Some(evidence) };
        self.record(id, record::Kind::Parked(parked), out);
    }

    pub(super) fn back_off_over(&mut self, id: &BackfillId, task: TaskId, out: &mut Out) {
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        if let Some(tries) = backfill.tries.get_mut(&task) {
            tries.waiting = false;
        }
        if let Some((plan, place)) = backfill.read_task(task) {
            plan.set_ready(place);
        }
        out.touch(id);
    }
}

pub(super) fn poison(message: String) -> v1::Evidence {
    v1::Evidence { class: v1::Failure::Poison.into(), message, ..Default::default() }
}
