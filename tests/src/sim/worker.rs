//! The virtual workers: what they hold, and their processes' lives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate_common::fence::Fence;
use tidegate_common::gate::Gate;
use tidegate_common::ids::{BackfillId, TaskId};
use tidegate_proto::v1;

use super::committing::Committing;
use super::joining::Joining;
use super::link::{Grant, Up};
use super::reading::Reading;
use super::regenerating::Regenerating;
use super::scenario::{LEASE, Micros};
use super::world::{Event, World};

/// What a run does.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Prepare,
    /// The next segment to be sent.
    Enumerate(usize),
    Read(Box<Reading>),
    Regenerate(Box<Regenerating>),
    Join(Box<Joining>),
    Commit(Box<Committing>),
    Clean(v1::CleanWork),
}

/// One attempt at a task.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) grant: Grant,
    pub(super) attempt: String,
    /// Whether the coordinator of this session knows of it.
    pub(super) attached: bool,
    /// When its lease ends, on the worker's own clock.
    pub(super) until: Micros,
    /// The connection on which it was last granted.
    pub(super) link: usize,
    pub(super) body: Body,
    /// Which of its turns is the next; others are stale.
    pub(super) turn: u64,
}

/// A worker's process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) slots: u32,
    /// How many of its microseconds pass in a thousand of the world's.
    clock: u64,
    pub(super) slow: u64,
    pub(super) incarnation: u32,
    pub(super) alive: bool,
    pub(super) stopped_until: Micros,
    pub(super) draining: bool,
    /// The connection, from the attempt to connect on.
    pub(super) link: Option<usize>,
    /// Whether it has been welcomed on it.
    pub(super) welcomed: bool,
    /// When what the coordinator answered last was sent, on its own clock.
    pub(super) answered: Micros,
    pub(super) unanswered: VecDeque<(u64, Micros)>,
    pub(super) beats: u64,
    pub(super) runs: BTreeMap<u64, Run>,
    pub(super) next_run: u64,
    pub(super) gates: BTreeMap<BackfillId, Gate>,
    pub(super) known: BTreeSet<BackfillId>,
}

impl Worker {
    pub(super) fn new(slots: u32, clock: u64, slow: u64) -> Self {
        Self {
            slots,
            clock,
            slow,
            incarnation: 0,
            alive: false,
            stopped_until: 0,
            draining: false,
            link: None,
            welcomed: false,
            answered: 0,
            unanswered: VecDeque::new(),
            beats: 0,
            runs: BTreeMap::new(),
            next_run: 0,
            gates: BTreeMap::new(),
            known: BTreeSet::new(),
        }
    }

    /// Its own clock.
    pub(super) fn local(&self, now: Micros) -> Micros {
        now / 1000 * self.clock + now % 1000 * self.clock / 1000
    }

    /// When a grant of this session ends, on its own clock, unless it is renewed.
    pub(super) fn until(&self, fences: bool) -> Micros {
        if fences { self.answered + LEASE - LEASE / 5 } else { Micros::MAX }
    }

    /// The run that a message concerns: the same task under the same token.
    pub(super) fn find(&self, grant: &Grant) -> Option<u64> {
        self.runs.iter().find(|(_, run)| run.grant == *grant).map(|(id, _)| *id)
    }
}

impl World {
    pub(super) fn self_fences(&self) -> bool {
        self.fences.stands(Fence::SelfFencing)
    }

    /// A worker's process starts.
    pub(super) fn start_worker(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.alive {
            return;
        }
        worker.alive = true;
        worker.draining = false;
        worker.incarnation += 1;
        let incarnation = worker.incarnation;
        self.note(|| format!("worker {at} starts"));
        self.agenda.put(self.now, Event::Connect(at, incarnation));
    }

    /// A worker's process is gone, with everything it held.
    pub(super) fn end_worker(&mut self, at: usize, back_after: Micros) {
        let worker = &mut self.workers[at];
        if !std::mem::replace(&mut worker.alive, false) {
            return;
        }
        worker.runs.clear();
        worker.gates.clear();
        worker.known.clear();
        worker.unanswered.clear();
        worker.welcomed = false;
        worker.stopped_until = 0;
        let link = worker.link.take();
        self.note(|| format!("worker {at} is gone"));
        if let Some(link) = link {
            self.break_link(link, false);
        }
        self.agenda.put(self.now + back_after, Event::StartWorker(at));
    }

    /// Drops what is past its lease: the first thing a worker does whenever it does anything.
    pub(super) fn fence(&mut self, at: usize) {
        let now = self.workers[at].local(self.now);
        let expired = |run: &Run| run.until <= now;
        let runs = &self.workers[at].runs;
        let expired: Vec<u64> = runs.iter().filter(|(_, run)| expired(run)).map(|(id, _)| *id).collect();
        for run in expired {
            self.note(|| format!("worker {at} run {run} is past its lease"));
            self.give_back(at, run);
        }
    }

    /// Drops a run and says so, where the coordinator knows of it.
    pub(super) fn give_back(&mut self, at: usize, run: u64) {
        let Some(of) = self.workers[at].runs.remove(&run) else { return };
        if of.attached {
            self.say(at, Up::Release(of.grant));
        }
        self.left_idle(at);
    }

    /// Drops a run without a word.
    pub(super) fn drop_run(&mut self, at: usize, run: u64) {
        self.workers[at].runs.remove(&run);
        self.left_idle(at);
    }

    /// A worker that was asked to leave and holds nothing more goes.
    pub(super) fn left_idle(&mut self, at: usize) {
        let worker = &self.workers[at];
        if worker.draining && worker.runs.is_empty() && worker.alive {
            self.agenda.put(self.now + 1, Event::Leave(at, worker.incarnation));
        }
    }

    pub(super) fn leave(&mut self, at: usize) {
        let worker = &self.workers[at];
        if worker.draining && worker.runs.is_empty() {
            let after = self.chance.between(1_000_000, 10_000_000);
            self.end_worker(at, after);
        }
    }

    /// Asks every run of a worker to come to its end.
    pub(super) fn drain(&mut self, at: usize) {
        if !self.workers[at].alive || std::mem::replace(&mut self.workers[at].draining, true) {
            return;
        }
        self.heartbeat(at);
        let runs: Vec<(u64, TaskId)> = self.workers[at].runs.iter().map(|(id, run)| (*id, run.grant.task)).collect();
        for (run, task) in runs {
            match task {
                TaskId::Read(..) => self.ask_to_leave(at, run),
                TaskId::Commit(..) | TaskId::Join(..) | TaskId::Late(..) | TaskId::Clean => {}
                TaskId::Prepare | TaskId::Enumerate(_) | TaskId::Regenerate(..) => self.give_back(at, run),
            }
        }
        self.left_idle(at);
    }

    /// Says something to the coordinator, where there is a session.
    pub(super) fn say(&mut self, at: usize, message: Up) {
        if let Some(link) = self.workers[at].link.filter(|_| self.workers[at].welcomed) {
            self.send_up(link, message);
        }
    }

    /// A run's next turn is `after` from now; turns that were planned before are void.
    pub(super) fn turn(&mut self, at: usize, run: u64, after: Micros) {
        let incarnation = self.workers[at].incarnation;
        let Some(of) = self.workers[at].runs.get_mut(&run) else { return };
        of.turn += 1;
        let event = Event::Turn(at, incarnation, run, of.turn);
        self.agenda.put(self.now + after, event);
    }
}
