//! A virtual worker's session: connecting, heartbeats, and what the coordinator says.

use tidegate_common::gate::Gate;
use tidegate_common::ids::TaskId;
use tidegate_coordinator::core::{CursorReport, HeldTask, Registration};
use tidegate_proto::convert;
use tidegate_proto::v1::{self, assign::Work, from_coordinator::Kind};

use super::committing::Committing;
use super::joining::Joining;
use super::link::{Down, Grant, Link, Up};
use super::mishap::Mishap;
use super::reading::Reading;
use super::regenerating::Regenerating;
use super::scenario::{LEASE, SECOND};
use super::worker::{Body, Run};
use super::world::{Event, World};

const BEAT: u64 = LEASE / 5;

impl World {
    /// A worker tries to connect.
    pub(super) fn connect(&mut self, at: usize) {
        if self.workers[at].link.is_some() {
            return;
        }
        self.fence(at);
        let incarnation = self.workers[at].incarnation;
        let Some(coordinator) = self.reachable() else {
            let after = self.chance.between(SECOND / 4, 2 * SECOND);
            return self.agenda.put(self.now + after, Event::Connect(at, incarnation));
        };
        let worker = &mut self.workers[at];
        let held = worker.runs.values().filter_map(|run| match &run.body {
            Body::Read(reading) => Some(HeldTask {
                id: run.grant.id.clone(),
                task: run.grant.task,
                token: run.grant.token,
                attempt: run.attempt.clone(),
                next_unit: reading.accepted,
            }),
            _ => None,
        });
        let registration = Registration { worker: format!("worker-{at}"), slots: worker.slots, held: held.collect() };
        let link = Link::new(at, incarnation, coordinator, worker.local(self.now));
        self.links.push(link);
        let link = self.links.len() - 1;
        self.workers[at].link = Some(link);
        self.workers[at].welcomed = false;
        self.send_up(link, Up::Register(registration));
    }

    /// A worker has lost its session: reads are held, everything else is dropped.
    pub(super) fn lose_session(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        worker.link = None;
        worker.welcomed = false;
        worker.unanswered.clear();
        worker.runs.retain(|_, run| matches!(run.body, Body::Read(_)));
        worker.runs.values_mut().for_each(|run| run.attached = false);
        let of: Vec<_> = worker.runs.values().map(|run| run.grant.id.clone()).collect();
        worker.known.retain(|id| of.contains(id));
        worker.gates.retain(|id, _| of.contains(id));
        let incarnation = worker.incarnation;
        let after = self.chance.between(SECOND / 20, 2 * SECOND);
        self.agenda.put(self.now + after, Event::Connect(at, incarnation));
        self.left_idle(at);
    }

    pub(super) fn worker_notices(&mut self, link: usize) {
        let (at, incarnation) = (self.links[link].worker, self.links[link].incarnation);
        let worker = &self.workers[at];
        if worker.alive && worker.incarnation == incarnation && worker.link == Some(link) {
            self.lose_session(at);
        }
    }

    /// A heartbeat is due, or cursors have moved.
    pub(super) fn beat(&mut self, at: usize, link: usize) {
        self.fence(at);
        let worker = &self.workers[at];
        if worker.link != Some(link) || !worker.welcomed {
            return;
        }
        let now = worker.local(self.now);
        if worker.unanswered.front().is_some_and(|(_, sent)| now - sent > LEASE / 2) {
            self.break_link(link, false);
            return self.lose_session(at);
        }
        self.heartbeat(at);
        let incarnation = self.workers[at].incarnation;
        self.agenda.put(self.now + BEAT, Event::Beat(at, incarnation, link));
    }

    /// Says what every run promises.
    pub(super) fn heartbeat(&mut self, at: usize) {
        let now = self.workers[at].local(self.now);
        let worker = &mut self.workers[at];
        if !worker.welcomed {
            return;
        }
        worker.beats += 1;
        let number = worker.beats;
        worker.unanswered.push_back((number, now));
        let reports = worker.runs.values().filter(|run| run.attached).filter_map(|run| match &run.body {
            Body::Read(reading) => Some(CursorReport {
                id: run.grant.id.clone(),
                task: run.grant.task,
                token: run.grant.token,
                cursor: reading.cursor(),
                paused: reading.is_held(),
            }),
            _ => None,
        });
        let reports = reports.collect();
        let draining = worker.draining;
        self.say(at, Up::Heartbeat(number, reports, draining));
    }

    /// A message of the coordinator arrives.
    pub(super) fn down(&mut self, link: usize) {
        let Some(message) = self.links[link].down.pop_front() else { return };
        let (at, incarnation) = (self.links[link].worker, self.links[link].incarnation);
        let worker = &self.workers[at];
        if !worker.alive || worker.incarnation != incarnation || worker.link != Some(link) {
            return;
        }
        self.fence(at);
        match message {
            Down::Welcome => self.welcome(at, link),
            Down::Kind(kind) => {
                self.oracle.heard(&kind);
                self.told(at, link, *kind);
            }
        }
    }

    fn welcome(&mut self, at: usize, link: usize) {
        let registered = self.links[link].registered;
        let worker = &mut self.workers[at];
        worker.welcomed = true;
        worker.answered = registered;
        worker.unanswered.clear();
        let incarnation = worker.incarnation;
        self.agenda.put(self.now + BEAT, Event::Beat(at, incarnation, link));
    }

    fn told(&mut self, at: usize, link: usize, kind: Kind) {
        match kind {
            Kind::Welcome(_) => {}
            Kind::Drain(_) => self.drain(at),
            Kind::Backfill(info) => {
                if let Ok(id) = convert::backfill_id(&info.backfill) {
                    self.workers[at].known.insert(id.clone());
                    self.workers[at].gates.entry(id).or_insert(Gate::OPEN);
                }
            }
            Kind::Assign(assign) => self.assigned(at, link, assign),
            Kind::Gate(gate) => {
                if let Ok(id) = convert::backfill_id(&gate.backfill) {
                    self.gate_moved(at, &id, gate.value());
                }
            }
            Kind::Renewed(renewed) => self.renewed(at, renewed.heartbeat),
            Kind::Revoke(revoke) => {
                if let Some(run) = self.named(at, &revoke.backfill, revoke.task, revoke.token) {
                    if revoke.reason == "rows came that its slices need" {
                        self.struck.count(Mishap::DisturbedJoin);
                    }
                    self.drop_run(at, run);
                }
            }
            Kind::Yield(wish) => {
                if let Some(run) = self.named(at, &wish.backfill, wish.task, wish.token) {
                    self.ask_to_leave(at, run);
                }
            }
            Kind::HandInReply(reply) => {
                self.replied(at, &reply);
                self.join_replied(at, &reply);
            }
            Kind::Adopted(adopted) => self.adopted(at, link, &adopted),
        }
    }

    fn named(&self, at: usize, backfill: &str, task: Option<v1::TaskId>, token: Option<v1::Token>) -> Option<u64> {
        self.workers[at].find(&grant(backfill, task, token)?)
    }

    fn renewed(&mut self, at: usize, number: u64) {
        let fences = self.self_fences();
        let worker = &mut self.workers[at];
        let Some((_, sent)) = worker.unanswered.iter().find(|(sent, _)| *sent == number).copied() else { return };
        worker.unanswered.retain(|(sent, _)| *sent > number);
        worker.answered = worker.answered.max(sent);
        let until = worker.until(fences);
        worker.runs.values_mut().filter(|run| run.attached).for_each(|run| run.until = until);
    }

    fn assigned(&mut self, at: usize, link: usize, assign: v1::Assign) {
        let Some(grant) = grant(&assign.backfill, assign.task, assign.token) else { return };
        let worker = &self.workers[at];
        let takes_slot = |task: TaskId| {
            matches!(task, TaskId::Read(..) | TaskId::Regenerate(..) | TaskId::Join(..) | TaskId::Late(..))
        };
        let same = |run: &Run| run.grant.id == grant.id && run.grant.task == grant.task;
        let busy = worker.runs.values().filter(|run| takes_slot(run.grant.task)).count();
        if worker.draining {
            return self.say(at, Up::Release(grant));
        }
        let running = worker.runs.values().any(same);
        if running || (takes_slot(grant.task) && busy >= worker.slots as usize) || !worker.known.contains(&grant.id) {
            let message = format!("cannot be taken: running {running}, {busy} busy");
            let evidence = v1::Evidence { class: v1::Failure::Retryable.into(), message, ..Default::default() };
            return self.say(at, Up::Fail(grant, evidence));
        }
        self.attempts += 1;
        let attempt = format!("attempt-{}", self.attempts);
        let body = match assign.work {
            Some(Work::Prepare(_)) => Body::Prepare,
            Some(Work::Enumerate(_)) => Body::Enumerate(0),
            Some(Work::Commit(v1::CommitWork { intent: Some(intent), cancel })) => {
                Body::Commit(Box::new(Committing::new(intent, cancel)))
            }
            Some(Work::Read(v1::ReadWork { task: Some(task), next_unit, gate, shapes })) => {
                if let Some(gate) = gate {
                    self.gate_moved(at, &grant.id, gate.value());
                }
                Body::Read(Box::new(Reading::new(task, next_unit, shapes)))
            }
            Some(Work::Regenerate(work)) => Body::Regenerate(Box::new(Regenerating::new(work))),
            Some(Work::Join(work)) => {
                self.oracle.join_reads(&attempt, &work);
                let Some(joining) = Joining::new(grant.task, work) else { return };
                Body::Join(Box::new(joining))
            }
            Some(Work::Clean(work)) => Body::Clean(work),
            _ => return,
        };
        if matches!(grant.task, TaskId::Read(..) | TaskId::Join(..)) {
            self.oracle.attempted(self.oracle.ix(&grant.id), grant.task, grant.token, &attempt);
        }
        let until = self.workers[at].until(self.self_fences());
        let worker = &mut self.workers[at];
        let run = worker.next_run;
        worker.next_run += 1;
        worker.runs.insert(run, Run { grant, attempt, attached: true, until, link, body, turn: 0 });
        let after = self.chance.between(100, 20_000);
        self.turn(at, run, after);
    }

    fn adopted(&mut self, at: usize, link: usize, adopted: &v1::Adopted) {
        let Some(grant) = grant(&adopted.backfill, adopted.task, adopted.token) else { return };
        let until = self.workers[at].until(self.self_fences());
        let worker = &mut self.workers[at];
        let named = |run: &Run| run.attempt == adopted.attempt && run.grant.task == grant.task;
        let Some((id, run)) = worker.runs.iter_mut().find(|(_, run)| named(run)) else {
            return self.say(at, Up::Release(grant));
        };
        let id = *id;
        run.grant = grant;
        run.attached = true;
        run.link = link;
        let Body::Read(reading) = &run.body else { return };
        let covered = reading.outstanding.as_ref().map(|(hand_in, _)| hand_in.end_unit);
        if adopted.next_unit != reading.accepted && Some(adopted.next_unit) != covered {
            return self.give_back(at, id);
        }
        run.until = until;
        let again = reading.outstanding.clone().map(|(hand_in, released)| (run.grant.clone(), hand_in, released));
        match again {
            Some((grant, hand_in, released)) => self.say(at, Up::HandIn(grant, hand_in, released)),
            None => self.heartbeat(at),
        }
    }
}

pub(super) fn grant(backfill: &str, task: Option<v1::TaskId>, token: Option<v1::Token>) -> Option<Grant> {
    Some(Grant {
        id: convert::backfill_id(backfill).ok()?,
        task: convert::task_id(task).ok()?,
        token: convert::token(token).ok()?,
    })
}
