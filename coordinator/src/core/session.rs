//! Sessions and leases: who is there, for how long, and what they still hold.
//!
//! A session's heartbeats renew all of its leases at once. A connection that is lost keeps its leases until they end,
//! so that a worker that comes back in time goes on where it was; one that comes back too late is told to stop.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_common::clock::Monotonic;
use tidegate_common::ids::{BackfillId, SessionId, TaskId};
use tidegate_proto::v1::{self, from_coordinator::Kind};

use super::action::{Action, Out};
use super::event::{CursorReport, HeldTask, Registration};
use super::grants::Grant;
use super::{Core, Wake};

/// A worker's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) worker: String,
    pub(super) slots: u32,
    /// Tasks it holds that take a slot.
    pub(super) slotted: u32,
    pub(super) odd_jobs: u32,
    pub(super) paused: u32,
    pub(super) grants: BTreeSet<(BackfillId, TaskId)>,
    /// The backfills it was told of, and whether that was after they were prepared.
    pub(super) knows: BTreeMap<BackfillId, bool>,
    pub(super) lease_until: Monotonic,
    pub(super) connected: bool,
    pub(super) alive: bool,
    /// It hands in and leaves: it is to be assigned nothing more.
    pub(super) draining: bool,
    /// Under which keys it stands in the core's `free` and `handy`.
    ranked: (Option<u32>, Option<u32>),
}

impl Core {
    pub(super) fn joined(&mut self, id: SessionId, registration: Registration, out: &mut Out) {
        let until = out.now.monotonic.after(self.config.lease);
        let session = Session {
            worker: registration.worker.clone(),
            slots: registration.slots,
            slotted: 0,
            odd_jobs: 0,
            paused: 0,
            grants: BTreeSet::new(),
            knows: BTreeMap::new(),
            lease_until: until,
            connected: true,
            alive: true,
            draining: false,
            ranked: (None, None),
        };
        self.sessions.insert(id, session);
        self.wake(until, Wake::Lease(id));
        for held in registration.held {
            self.claim(id, held, out);
        }
        let abandoned: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, old)| !old.connected && old.worker == registration.worker)
            .map(|(old, _)| *old)
            .collect();
        for old in abandoned {
            self.end_session(old, out);
        }
        self.rank(id);
        self.touch_active(out);
    }

    /// There is somebody to do what waited for a worker.
    fn touch_active(&self, out: &mut Out) {
        self.active.iter().for_each(|backfill| out.touch(backfill));
    }

    /// A worker says that it holds a task: judged now, or when the task's segment is loaded.
    fn claim(&mut self, session: SessionId, held: HeldTask, out: &mut Out) {
        if let Some(backfill) = self.backfills.get_mut(&held.id)
            && !backfill.is_over()
            && let Some((plan, place)) = backfill.read_task(held.task)
            && plan.want(place.0)
        {
            out.touch(&held.id);
            return backfill.claims.push((session, held));
        }
        self.adopt_or_revoke(session, &held, out);
    }

    /// A segment was loaded: the claims that waited for it are judged.
    pub(super) fn judge_claims(&mut self, id: &BackfillId, out: &mut Out) {
        let claims = self.backfills.get_mut(id).map(|backfill| std::mem::take(&mut backfill.claims));
        for (session, held) in claims.unwrap_or_default() {
            if self.sessions.contains_key(&session) {
                self.claim(session, held, out);
            }
        }
    }

    /// A held attempt goes on under a new token if its next unit is the next that is not accepted.
    fn adopt_or_revoke(&mut self, session: SessionId, held: &HeldTask, out: &mut Out) {
        match self.adoptable(held) {
            Ok(next_unit) => {
                self.end_grant(&held.id, held.task, false);
                let Some(token) = self.grant(&held.id, held.task, session, out) else { return };
                let gate = self.backfills.get(&held.id).map(|backfill| backfill.gate_message());
                out.actions.extend(gate.map(|gate| Action::Send(session, Kind::Gate(gate))));
                out.send(
                    session,
                    Kind::Adopted(v1::Adopted {
                        backfill: held.id.to_string(),
                        task: Some(held.task.into()),
                        token: Some(token.into()),
                        attempt: held.attempt.clone(),
                        next_unit,
                    }),
                );
                out.touch(&held.id);
            }
            Err(reason) => {
                let revoke = v1::Revoke {
                    backfill: held.id.to_string(),
                    task: Some(held.task.into()),
                    token: Some(held.token.into()),
                    reason: reason.to_owned(),
                };
                out.send(session, Kind::Revoke(revoke));
            }
        }
    }

    fn adoptable(&mut self, held: &HeldTask) -> Result<u32, &'static str> {
        let backfill = self.backfills.get_mut(&held.id).ok_or("there is no such backfill")?;
        if backfill.is_over() || backfill.wish != v1::Wish::Run {
            return Err("the backfill does not run");
        }
        if backfill.grants.get(held.task).is_some_and(|grant| grant.token() != held.token) {
            return Err("the task was granted to somebody else");
        }
        if held.token.term > backfill.term {
            return Err("the token is of a term that this coordinator has not reached");
        }
        let (plan, place) = backfill.read_task(held.task).ok_or("only read tasks are held")?;
        if plan.payload(place).is_none() || plan.is_done(place) {
            return Err("the task is done");
        }
        let progress = plan.progress(place).unwrap_or_default();
        let own = progress.last.as_ref().is_some_and(|(attempt, _)| *attempt == held.attempt);
        match () {
            () if progress.parked => Err("the task is parked"),
            () if progress.next == held.next_unit || (own && progress.next > held.next_unit) => Ok(progress.next),
            () => Err("its units were handed in by somebody else"),
        }
    }

    pub(super) fn left(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.connected = false;
            self.rank(id);
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        id: SessionId,
        number: u64,
        cursors: Vec<CursorReport>,
        draining: bool,
        out: &mut Out,
    ) {
        let lease_until = out.now.monotonic.after(self.config.lease);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.lease_until = lease_until;
        let drains = draining && !std::mem::replace(&mut session.draining, draining);
        let was_alive = std::mem::replace(&mut session.alive, true);
        if !was_alive {
            self.wake(lease_until, Wake::Lease(id));
        }
        if drains || !was_alive {
            self.rank(id);
            self.touch_active(out);
        }
        for report in cursors {
            self.cursor(id, &report, out);
        }
        out.send(id, Kind::Renewed(v1::Renewed { heartbeat: number }));
    }

    fn cursor(&mut self, session: SessionId, report: &CursorReport, out: &mut Out) {
        let Some(backfill) = self.backfills.get_mut(&report.id) else { return };
        let live = |grant: &&mut Grant| grant.session() == session && grant.token() == report.token;
        let Some(grant) = backfill.grants.get_mut(report.task).filter(live) else {
            let revoke = v1::Revoke {
                backfill: report.id.to_string(),
                task: Some(report.task.into()),
                token: Some(report.token.into()),
                reason: "the lease is over".to_owned(),
            };
            return out.send(session, Kind::Revoke(revoke));
        };
        let paused_at = report.paused.then_some(report.cursor);
        let was = std::mem::replace(&mut grant.paused_at, paused_at);
        if was != paused_at {
            was.map(|at| backfill.paused.remove(&(at, report.task)));
            paused_at.map(|at| backfill.paused.insert((at, report.task)));
        }
        if let Some(session) = self.sessions.get_mut(&session) {
            session.paused = session.paused + u32::from(paused_at.is_some()) - u32::from(was.is_some());
        }
        if let Some((plan, place)) = backfill.read_task(report.task) {
            plan.set_cursor(place, report.cursor);
        }
        out.touch(&report.id);
    }

    /// A lease timer ran out: the lease was renewed meanwhile, or it is over.
    pub(super) fn lease_due(&mut self, id: SessionId, out: &mut Out) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.lease_until > out.now.monotonic {
            let until = session.lease_until;
            return self.wake(until, Wake::Lease(id));
        }
        if session.connected {
            session.alive = false;
            self.release_all(id, out);
            self.rank(id);
        } else {
            self.end_session(id, out);
        }
    }

    fn end_session(&mut self, id: SessionId, out: &mut Out) {
        self.left(id);
        self.release_all(id, out);
        self.sessions.remove(&id);
    }

    fn release_all(&mut self, id: SessionId, out: &mut Out) {
        let grants = self.sessions.get(&id).map(|session| session.grants.clone()).unwrap_or_default();
        for (backfill, task) in grants {
            self.end_grant(&backfill, task, false);
            out.touch(&backfill);
        }
    }

    /// Puts a session where its free slots and odd jobs say it belongs.
    pub(super) fn rank(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let usable = session.connected && session.alive && !session.draining;
        let free = session.slots.saturating_sub(session.slotted);
        let ranked = ((usable && free > 0).then_some(free), usable.then_some(session.odd_jobs));
        let old = std::mem::replace(&mut session.ranked, ranked);
        old.0.map(|free| self.free.remove(&(free, id)));
        old.1.map(|jobs| self.handy.remove(&(jobs, id)));
        ranked.0.map(|free| self.free.insert((free, id)));
        ranked.1.map(|jobs| self.handy.insert((jobs, id)));
    }
}
