//! The core: a pure state machine that decides everything.
//!
//! `step(now, event) -> actions`. It refuses to know a clock, chance, a socket or a disk: time comes with the event,
//! what is to be done goes out as [`Action`]s, and its collections are ordered, so that the same events give the same
//! actions. The driver makes every [`Action::Journal`] of a step durable before it lets any other action out; a
//! restarted coordinator folds the same records ([`Core::restore`]) and goes on.
//!
//! | file | decides |
//! |---|---|
//! | `control` | submissions, changes, phases, ends |
//! | `session` | who is there, for how long, and what they still hold |
//! | `assign` | which task goes to whom; who yields |
//! | `read` | which hand-in is accepted; what a failure leads to |
//! | `joining` | how a join is cut, which slices go out, what of the shuffle store goes |
//! | `late` | which rows came late, what becomes of them, and who writes them |
//! | `regenerate` | what of the shuffle store is read again, and whether that is what was lost |
//! | `commit` | when an intent is sealed, and its ends |
//! | `publish` | when what is staged goes to main, or goes |
//! | `backfill`, `grants`, `join`, `output`, `plan`, `ledger` | the state they decide on |
//! | `fold` | how the journal makes that state |

mod action;
mod assign;
mod backfill;
mod commit;
mod control;
mod event;
mod fold;
mod grants;
mod join;
mod joining;
mod late;
mod ledger;
mod output;
mod plan;
mod publish;
mod read;
mod regenerate;
mod session;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_common::clock::Monotonic;
use tidegate_common::fence::Fences;
use tidegate_common::ids::{BackfillId, SessionId, SourceIx, TaskId};
use tidegate_proto::v1;

pub use action::{Action, Refusal, Reply};
pub use backfill::{Backfill, CoreOutput, CoreSpec};
pub use event::{CursorReport, Event, FoundSegment, HeldTask, LeaseRef, Now, Registration, RequestId, Submission};
pub use ledger::{OutputAccount, SourceAccount};
pub use plan::{Place, Progress, SourcePlan};

use action::Out;
use session::Session;

/// How the core goes about its work; all of it configuration, nothing of it depends on how it was built.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a lease lasts without a renewal.
    pub lease: Duration,
    /// How long a restarted coordinator waits for workers to report what they hold.
    pub grace: Duration,
    /// After how many failures a read task is parked, and a prepare or enumerate task ends its backfill.
    pub max_tries: u32,
    /// After how many failures a commit task ends its backfill.
    pub max_commit_tries: u32,
    /// How long a failed task waits at first; doubled each time.
    pub back_off: Duration,
    /// How long it waits at most.
    pub max_back_off: Duration,
    /// Which fences stand; all, but in a test.
    pub fences: Fences,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            grace: Duration::from_secs(15),
            max_tries: 4,
            max_commit_tries: 20,
            back_off: Duration::from_millis(500),
            max_back_off: Duration::from_secs(30),
            fences: Fences::default(),
        }
    }
}

/// Something that is due at a point of time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Lease(SessionId),
    BackOff(BackfillId, TaskId),
    Seal(BackfillId),
    Grace(BackfillId),
}

/// The state of everything a coordinator decides on.
#[derive(Debug)]
pub struct Core {
    config: Config,
    backfills: BTreeMap<BackfillId, Backfill>,
    /// Those that have not ended, or have an intent whose end is not proven.
    active: BTreeSet<BackfillId>,
    sessions: BTreeMap<SessionId, Session>,
    /// Usable sessions with free slots, by how many.
    free: BTreeSet<(u32, SessionId)>,
    /// Usable sessions by how many tasks without a slot they do.
    handy: BTreeSet<(u32, SessionId)>,
    wakes: BTreeSet<(Monotonic, Wake)>,
}

impl Core {
    /// A core that knows of nothing.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            backfills: BTreeMap::new(),
            active: BTreeSet::new(),
            sessions: BTreeMap::new(),
            free: BTreeSet::new(),
            handy: BTreeSet::new(),
            wakes: BTreeSet::new(),
        }
    }

    /// Folds a backfill's journal back into state. It does nothing until [`Event::TakeUp`] raises its term.
    pub fn restore<'a>(&mut self, id: BackfillId, spec: CoreSpec, records: impl IntoIterator<Item = &'a v1::Record>) {
        let mut backfill = Backfill::new(id.clone(), spec);
        for record in records {
            backfill.apply(record);
        }
        self.backfills.insert(id, backfill);
    }

    /// Decides what follows from `event` at `now`.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut out = Out::new(now);
        match event {
            Event::Submit(request, submission) => self.submit(request, submission, &mut out),
            Event::Change(request, id, change, reason) => self.change(request, &id, change, reason, &mut out),
            Event::TakeUp(id) => self.take_up(&id, &mut out),
            Event::Joined(session, registration) => self.joined(session, registration, &mut out),
            Event::Left(session) => self.left(session),
            Event::Heartbeat(session, number, cursors, draining) => {
                self.heartbeat(session, number, cursors, draining, &mut out);
            }
            Event::HandIn(lease, hand_in, released) => self.hand_in(&lease, hand_in, released, &mut out),
            Event::SegmentFound(lease, segment) => self.segment_found(&lease, segment, &mut out),
            Event::Done(lease, result) => self.done(&lease, result, &mut out),
            Event::Failed(lease, evidence) => self.failed(&lease, evidence, &mut out),
            Event::Released(lease) => self.released(&lease, &mut out),
            Event::SegmentLoaded(id, source, segment, tasks) => {
                self.segment_loaded(&id, source, segment, tasks, &mut out);
            }
            Event::Tick => self.tick(&mut out),
        }
        for id in std::mem::take(&mut out.touched) {
            self.settle(&id, &mut out);
        }
        self.assign_slots(&mut out);
        // A slice may have been set aside instead.
        for id in std::mem::take(&mut out.touched) {
            self.settle(&id, &mut out);
        }
        out.actions
    }

    /// When [`Event::Tick`] is next due.
    pub fn next_wake(&self) -> Option<Monotonic> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// A backfill.
    pub fn backfill(&self, id: &BackfillId) -> Option<&Backfill> {
        self.backfills.get(id)
    }

    /// Every backfill, by id.
    pub fn backfills(&self) -> impl Iterator<Item = &Backfill> {
        self.backfills.values()
    }

    fn tick(&mut self, out: &mut Out) {
        while let Some((at, _)) = self.wakes.first() {
            if *at > out.now.monotonic {
                break;
            }
            let Some((_, wake)) = self.wakes.pop_first() else { break };
            match wake {
                Wake::Lease(session) => self.lease_due(session, out),
                Wake::BackOff(id, task) => self.back_off_over(&id, task, out),
                Wake::Seal(id) => out.touch(&id),
                Wake::Grace(id) => self.grace_over(&id, out),
            }
        }
    }

    fn wake(&mut self, at: Monotonic, wake: Wake) {
        self.wakes.insert((at, wake));
    }

    /// Makes `kind` true now: folds it into the state and journals it.
    fn record(&mut self, id: &BackfillId, kind: v1::record::Kind, out: &mut Out) {
        let record = v1::Record::new(out.now.processing, kind);
        if let Some(backfill) = self.backfills.get_mut(id) {
            backfill.apply(&record);
            out.actions.push(Action::Journal(id.clone(), record));
            out.touch(id);
        }
    }

    /// Does for a backfill whatever has become possible: load, seal, end, tell its readers of the gate, hand out work.
    fn settle(&mut self, id: &BackfillId, out: &mut Out) {
        self.cut_joins(id, out);
        self.load_ahead(id, out);
        self.seal_due(id, out);
        self.discard_due(id, out);
        self.publish_due(id, out);
        self.end_if_done(id, out);
        self.tell_gate(id, out);
        self.assign_odd_jobs(id, out);
        out.touched.remove(id);
    }

    fn load_ahead(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        if backfill.is_over() || backfill.phase != v1::Phase::Running {
            return;
        }
        let watermark = backfill.gate().watermark;
        for (ix, source) in (0u32..).zip(&mut backfill.sources) {
            while let Some((segment, info)) = source.plan.ask_next(watermark) {
                let (id, info) = (id.clone(), info.clone());
                out.actions.push(Action::LoadSegment { id, source: SourceIx::new(ix), segment, info });
            }
        }
    }
}
