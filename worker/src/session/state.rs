//! What a worker holds, and until when: the pure part of the session.
//!
//! It is told what was sent, heard and when, and answers what holds. It knows no connection, no task body and reads no
//! clock.
//!
//! # How long a run may go on
//!
//! | the run | goes on until |
//! |---|---|
//! | assigned or adopted in this session | send time of the last heartbeat (or Register) that was answered + lease - margin |
//! | held from a lost session, not adopted yet | what it was when that session was lost |
//! | revoked, given back, refused | not at all |
//!
//! Times are this worker's own monotonic clock; counting from the send time makes them earlier than the coordinator's.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidegate_common::clock::Monotonic;
use tidegate_common::fence::{Fence, Fences};
use tidegate_common::ids::{BackfillId, TaskId, Token};
use tidegate_proto::v1;

use crate::task::{Clock, Cursor, Lease, RunId};

/// What a message names: a task of a backfill under a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) backfill: BackfillId,
    pub(crate) task: TaskId,
    pub(crate) token: Token,
}

impl Grant {
    /// The parts that every message about it begins with.
    pub(crate) fn message(&self) -> (String, Option<v1::TaskId>, Option<v1::Token>) {
        (self.backfill.to_string(), Some(self.task.into()), Some(self.token.into()))
    }

    /// The message that gives it back.
    pub(crate) fn release(&self) -> v1::from_worker::Kind {
        let (backfill, task, token) = self.message();
        v1::from_worker::Kind::Release(v1::Release { backfill, task, token })
    }
}

/// A hand-in that was sent, or is to be sent once its run is adopted.
#[derive(Clone, Debug)]
struct Outstanding {
    hand_in: v1::HandIn,
    released: bool,
}

/// One attempt at a task.
#[derive(Debug)]
struct Run {
    grant: Grant,
    attempt: String,
    lease: Lease,
    /// Whether the coordinator knows of it in this session.
    attached: bool,
    /// The coordinator has freed its slot: the last hand-in was accepted, only the body has yet to return.
    leaving: bool,
    /// The first unit that no accepted hand-in covers.
    next_unit: u32,
    /// How many units a read task has.
    units: u32,
    outstanding: Option<Outstanding>,
}

/// Why an assignment cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwilling {
    #[error("this worker has no free slot (it has {0})")]
    NoSlot(usize),
    #[error("this worker is leaving and takes no more work")]
    Leaving,
    #[error("this worker runs that task already")]
    Running,
}

/// What an Adopted means for the run it names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Adoption {
    /// It goes on; a hand-in that was not answered is to be sent again.
    GoesOn(Option<Box<v1::Delivery>>),
    /// The coordinator does not continue where this attempt stands: it is abandoned.
    Stale(RunId),
    /// There is no such run any more: the task is given back.
    Gone,
}

/// What a worker holds.
#[derive(Debug)]
pub(crate) struct State {
    slots: usize,
    clock: Clock,
    fences: Fences,
    draining: bool,
    lease: Duration,
    /// Heartbeats of this session that were not answered, with their send times.
    unanswered: VecDeque<(u64, Monotonic)>,
    /// Send time of what the coordinator answered last.
    answered: Monotonic,
    beats: u64,
    next_run: u64,
    runs: BTreeMap<RunId, Run>,
}

impl State {
    /// Nothing held. `clock` is what the leases it hands out are measured on; the state itself never reads it.
    pub(crate) fn new(slots: usize, clock: Clock, fences: Fences) -> Self {
        Self {
            slots,
            clock,
            fences,
            draining: false,
            lease: Duration::ZERO,
            unanswered: VecDeque::new(),
            answered: Monotonic::default(),
            beats: 0,
            next_run: 0,
            runs: BTreeMap::new(),
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }

    /// The session is lost. Reads are held; the runs returned cannot be adopted and are to be dropped.
    pub(crate) fn lost(&mut self) -> Vec<RunId> {
        self.unanswered.clear();
        self.runs.values_mut().for_each(|run| run.attached = false);
        let of_session = |run: &Run| run.leaving || !matches!(run.grant.task, TaskId::Read(..));
        self.runs.iter().filter(|(_, run)| of_session(run)).map(|(id, _)| *id).collect()
    }

    /// What a Register says is held.
    pub(crate) fn held(&self) -> Vec<v1::Held> {
        let held = |run: &Run| {
            let (backfill, task, token) = run.grant.message();
            v1::Held { backfill, task, token, attempt: run.attempt.clone(), next_unit: run.next_unit }
        };
        self.runs.values().filter(|run| !run.leaving).map(held).collect()
    }

    /// The coordinator welcomed the Register that was sent at `sent`; its leases last `lease`.
    pub(crate) fn welcomed(&mut self, sent: Monotonic, lease: Duration) {
        self.lease = lease;
        self.answered = sent;
        self.unanswered.clear();
    }

    /// The number of a heartbeat that is sent at `now`.
    pub(crate) fn beat(&mut self, now: Monotonic) -> u64 {
        self.beats += 1;
        self.unanswered.push_back((self.beats, now));
        self.beats
    }

    /// The coordinator answered heartbeat `number`: every run of this session is renewed. Numbers that were not sent
    /// in this session change nothing.
    pub(crate) fn renewed(&mut self, number: u64) {
        let Some(&(_, sent)) = self.unanswered.iter().find(|(sent, _)| *sent == number) else { return };
        self.unanswered.retain(|(sent, _)| *sent > number);
        self.answered = self.answered.max(sent);
        let until = self.until();
        self.runs.values().filter(|run| run.attached).for_each(|run| run.lease.set(until));
    }

    /// Whether nothing was heard for so long that the connection must be dead, though nobody says so: half a lease.
    pub(crate) fn is_deaf(&self, now: Monotonic) -> bool {
        self.unanswered.front().is_some_and(|(_, sent)| now.since(*sent) > self.lease / 2)
    }

    /// When a grant of this session ends, unless it is renewed.
    fn until(&self) -> Monotonic {
        if !self.fences.stands(Fence::SelfFencing) {
            return Monotonic::from_micros(u64::MAX);
        }
        // The margin is for clocks that run at different speeds and for the file operation that is under way.
        self.answered.after(self.lease - self.lease / 5)
    }

    /// The run that a grant of the same task under a newer token makes void.
    pub(crate) fn superseded(&self, by: &Grant) -> Option<RunId> {
        let void = |old: &Grant| old.backfill == by.backfill && old.task == by.task && old.token < by.token;
        self.runs.iter().find(|(_, run)| void(&run.grant)).map(|(id, _)| *id)
    }

    /// Takes an assignment; `units` and `next_unit` are 0 where nothing is handed in. Slices are the units of a join, late rows
    /// are one.
    pub(crate) fn assigned(
        &mut self,
        grant: Grant,
        attempt: String,
        next_unit: u32,
        units: u32,
    ) -> Result<(RunId, Lease), Unwilling> {
        let takes_slot = |task: &TaskId| {
            matches!(task, TaskId::Read(..) | TaskId::Regenerate(..) | TaskId::Join(..) | TaskId::Late(..))
        };
        let same = |run: &Run| run.grant.backfill == grant.backfill && run.grant.task == grant.task && !run.leaving;
        let busy = self.runs.values().filter(|run| takes_slot(&run.grant.task) && !run.leaving).count();
        if self.draining {
            return Err(Unwilling::Leaving);
        }
        if self.runs.values().any(same) {
            return Err(Unwilling::Running);
        }
        if takes_slot(&grant.task) && busy >= self.slots {
            return Err(Unwilling::NoSlot(self.slots));
        }
        let id = RunId(self.next_run);
        self.next_run += 1;
        let lease = Lease::over(self.clock.clone());
        lease.set(self.until());
        let run = Run {
            grant,
            attempt,
            lease: lease.clone(),
            attached: true,
            leaving: false,
            next_unit,
            units,
            outstanding: None,
        };
        self.runs.insert(id, run);
        Ok((id, lease))
    }

    /// The coordinator adopts the attempt named `attempt` under `grant.token`, going on at `next_unit`.
    pub(crate) fn adopted(&mut self, grant: Grant, attempt: &str, next_unit: u32) -> Adoption {
        let until = self.until();
        let named = |run: &Run| {
            run.attempt == attempt
                && run.grant.task == grant.task
                && run.grant.backfill == grant.backfill
                && !run.leaving
        };
        let Some((id, run)) = self.runs.iter_mut().find(|(_, run)| named(run)) else { return Adoption::Gone };
        // An outstanding hand-in may have been accepted by a coordinator whose answer was lost.
        let covered = run.outstanding.as_ref().map(|sent| sent.hand_in.end_unit);
        run.grant = grant;
        run.attached = true;
        if next_unit != run.next_unit && Some(next_unit) != covered {
            return Adoption::Stale(*id);
        }
        run.lease.set(until);
        Adoption::GoesOn(run.delivery().map(Box::new))
    }

    /// A task hands in. The message to send now, or `None` where it waits for the run to be adopted.
    pub(crate) fn handing_in(&mut self, id: RunId, hand_in: v1::HandIn, released: bool) -> Option<v1::Delivery> {
        let run = self.runs.get_mut(&id)?;
        run.outstanding = Some(Outstanding { hand_in, released });
        run.attached.then(|| run.delivery()).flatten()
    }

    /// The coordinator answered a hand-in: the run that waits for it, if one does.
    pub(crate) fn replied(&mut self, reply: &v1::HandInReply) -> Option<RunId> {
        let waits = |run: &Run| {
            run.attempt == reply.attempt
                && run.outstanding.as_ref().is_some_and(|sent| sent.hand_in.number == reply.number)
        };
        let (id, run) = self.runs.iter_mut().find(|(_, run)| waits(run))?;
        let sent = run.outstanding.take()?;
        if reply.accepted {
            run.next_unit = sent.hand_in.end_unit;
            run.leaving = sent.released || sent.hand_in.end_unit == run.units;
        }
        Some(*id)
    }

    /// The run that a message of the coordinator concerns: the same task under the same token.
    pub(crate) fn find(&self, grant: &Grant) -> Option<RunId> {
        self.runs.iter().find(|(_, run)| run.grant == *grant).map(|(id, _)| *id)
    }

    /// What the coordinator knows run `id` by; `None` when it is gone.
    pub(crate) fn grant(&self, id: RunId) -> Option<&Grant> {
        self.runs.get(&id).map(|run| &run.grant)
    }

    /// Whether the coordinator of this session knows run `id`.
    pub(crate) fn is_attached(&self, id: RunId) -> bool {
        self.runs.get(&id).is_some_and(|run| run.attached && !run.leaving)
    }

    /// Whether the last hand-in of run `id` was accepted: the coordinator has nothing more to do with it.
    pub(crate) fn is_leaving(&self, id: RunId) -> bool {
        self.runs.get(&id).is_some_and(|run| run.leaving)
    }

    /// Whether any run is of `backfill`.
    pub(crate) fn works_for(&self, backfill: &BackfillId) -> bool {
        self.runs.values().any(|run| run.grant.backfill == *backfill)
    }

    /// Every run.
    pub(crate) fn ids(&self) -> Vec<RunId> {
        self.runs.keys().copied().collect()
    }

    /// The run is over; its lease ends with it.
    pub(crate) fn forget(&mut self, id: RunId) {
        if let Some(run) = self.runs.remove(&id) {
            run.lease.end();
        }
    }

    /// The runs whose leases are over at `now`.
    pub(crate) fn expired(&self, now: Monotonic) -> Vec<RunId> {
        self.runs.iter().filter(|(_, run)| !run.leaving && run.lease.until() <= now).map(|(id, _)| *id).collect()
    }

    /// When the first lease ends.
    pub(crate) fn next_expiry(&self) -> Option<Monotonic> {
        self.runs.values().filter(|run| !run.leaving).map(|run| run.lease.until()).min()
    }

    /// A running read's promise, as its heartbeat says it.
    pub(crate) fn cursor(&self, id: RunId, cursor: Cursor) -> Option<v1::Cursor> {
        let run = self.runs.get(&id).filter(|run| run.attached && !run.leaving)?;
        let (backfill, task, token) = run.grant.message();
        Some(v1::Cursor { backfill, task, token, cursor: cursor.at.as_micros(), paused: cursor.paused })
    }
}

impl Run {
    fn delivery(&self) -> Option<v1::Delivery> {
        let (backfill, task, token) = self.grant.message();
        let sent = self.outstanding.as_ref()?;
        let hand_in = Some(sent.hand_in.clone());
        Some(v1::Delivery { backfill, task, token, hand_in, released: sent.released })
    }
}

#[cfg(test)]
mod tests;
