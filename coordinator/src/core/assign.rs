//! The assigner: which task goes to whom, and who yields.
//!
//! Tasks without a slot (prepare, enumerate, commit) go out as soon as they are due. Reads go out while there are free
//! slots: to the backfill that reads least, the lowest permitted unit first, so the task that holds the watermark is
//! always first. When it finds no slot, the paused reader furthest ahead yields (DESIGN §4.5): no deadlock.

use tidegate_common::gate::Gate;
use tidegate_common::ids::{BackfillId, OutputIx, Sequence, SessionId, SourceIx, TaskId, Term, Token};
use tidegate_common::time::EventTime;
use tidegate_proto::v1::{self, assign::Work, from_coordinator::Kind};

use super::action::Out;
use super::backfill::Backfill;
use super::grants::{Grant, is_read, takes_slot};
use super::plan::Place;
use super::{Core, joining};

impl Core {
    /// Grants a task to a session; the caller says what the worker is told.
    pub(super) fn grant(&mut self, id: &BackfillId, task: TaskId, session: SessionId, out: &mut Out) -> Option<Token> {
        let backfill = self.backfills.get_mut(id)?;
        let held_by = self.sessions.get_mut(&session)?;
        let token = backfill.mint();
        let reads = backfill.read_by(task);
        backfill.grants.insert(task, Grant::new(session, token, reads));
        held_by.grants.insert((id.clone(), task));
        if let Some((plan, place)) = backfill.read_task(task) {
            let next = plan.progress(place).unwrap_or_default().next;
            let low = plan.payload(place).and_then(|task| task.units.get(next as usize)).map(|unit| unit.low);
            plan.set_cursor(place, low.map_or(EventTime::MIN, EventTime::from_micros));
        }
        held_by.slotted += u32::from(takes_slot(task));
        held_by.odd_jobs += u32::from(!takes_slot(task));
        let prepared = backfill.prepared.is_some();
        if held_by.knows.insert(id.clone(), prepared) != Some(prepared) {
            out.send(session, Kind::Backfill(info(backfill)));
        }
        self.rank(session);
        Some(token)
    }

    /// Ends a task's grant; with `backing_off` it waits until its back-off is over.
    pub(super) fn end_grant(&mut self, id: &BackfillId, task: TaskId, backing_off: bool) -> Option<Grant> {
        let backfill = self.backfills.get_mut(id)?;
        let grant = backfill.grants.remove(task)?;
        if let Some(at) = grant.paused_at {
            backfill.paused.remove(&(at, task));
        }
        if let TaskId::Enumerate(source) = task
            && let Some(source) = backfill.sources.get_mut(source.get() as usize)
        {
            source.finding = Vec::new();
        }
        if let Some((plan, place)) = backfill.read_task(task) {
            plan.release(place, backing_off);
        }
        if let TaskId::Join(output, first) = task
            && let Some(join) = backfill.outputs.get_mut(output.get() as usize).and_then(|output| output.join.as_mut())
        {
            join.released(first);
        }
        if let TaskId::Regenerate(output, object) = task
            && let Some(join) = backfill.join_mut(output)
        {
            join.not_regenerating(object);
        }
        if let Some(session) = self.sessions.get_mut(&grant.session()) {
            session.grants.remove(&(id.clone(), task));
            session.slotted -= u32::from(takes_slot(task));
            session.odd_jobs -= u32::from(!takes_slot(task));
            session.paused -= u32::from(grant.paused_at.is_some());
        }
        self.rank(grant.session());
        Some(grant)
    }

    /// Hands out what needs no slot.
    pub(super) fn assign_odd_jobs(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        let idle = |task: &TaskId| {
            backfill.grants.get(*task).is_none() && !backfill.tries.get(task).is_some_and(|tries| tries.waiting)
        };
        let due: Vec<TaskId> = odd_jobs(backfill).into_iter().filter(idle).collect();
        for task in due {
            let Some((_, session)) = self.handy.first().copied() else { return };
            let slots = self.slots();
            let work = self.backfills.get_mut(id).and_then(|backfill| odd_work(backfill, task, slots));
            let Some(work) = work else { continue };
            let Some(token) = self.grant(id, task, session, out) else { continue };
            out.send(session, assign(id, task, token, work));
        }
    }

    /// How many slots all workers have.
    pub(super) fn slots(&self) -> u32 {
        self.sessions.values().fold(0, |slots, session| slots.saturating_add(session.slots))
    }

    /// Hands out joins, what is to be read again for them, and reads while there are free slots; then lets a reader yield
    /// where a join, or the task that holds a watermark, found no slot.
    pub(super) fn assign_slots(&mut self, out: &mut Out) {
        self.assign_joins(out);
        self.assign_late(out);
        self.assign_regenerations(out);
        while let Some((_, session)) = self.free.last().copied() {
            let Some((id, task)) = self.pick() else { break };
            let Some(token) = self.grant(&id, task, session, out) else { break };
            self.tell_gate(&id, out);
            let Some(work) = self.backfills.get_mut(&id).and_then(|backfill| read_work(backfill, task)) else { break };
            out.send(session, assign(&id, task, token, work));
        }
        if self.free.is_empty() {
            for id in self.active.clone() {
                self.make_room(&id, out);
            }
        }
    }

    /// The read to be granted next: of the backfill that reads least, the lowest that may begin.
    fn pick(&self) -> Option<(BackfillId, TaskId)> {
        let candidates = self.active.iter().filter_map(|id| {
            let backfill = self.backfills.get(id).filter(|backfill| !self.joins_first(backfill))?;
            let (_, source, place) = lowest_runnable(backfill)?;
            Some((backfill.grants.reads(), id, TaskId::Read(source, place.0, place.1)))
        });
        candidates.min_by_key(|(reading, id, _)| (*reading, (*id).clone())).map(|(_, id, task)| (id.clone(), task))
    }

    /// The holder of the watermark has no slot: the paused reader furthest ahead hands in and yields, of its own
    /// backfill if there is one, else of another.
    fn make_room(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id).filter(|backfill| may_read(backfill)) else { return };
        let watermark = backfill.gate().watermark;
        let starved = backfill.sources.iter().any(|source| source.plan.holder(watermark).is_some());
        let waits = self.joins_wait(backfill) || self.regenerations_wait(backfill);
        if !(starved || waits) || self.active.iter().any(|id| self.backfills.get(id).is_some_and(is_yielding)) {
            return;
        }
        let own = backfill.paused.last().map(|(at, task)| (*at, *task));
        // A join would wait until a reader is done: the one furthest ahead makes room.
        let own = own.or_else(|| if waits { furthest_ahead(backfill) } else { None });
        let victim = own.map(|(at, task)| (id.clone(), at, task)).or_else(|| {
            let others = self.active.iter().filter_map(|other| self.backfills.get(other));
            others.filter_map(|other| other.paused.last().map(|(at, task)| (other.id.clone(), *at, *task))).next()
        });
        let Some((id, at, task)) = victim else { return };
        let Some(backfill) = self.backfills.get_mut(&id) else { return };
        let Some(grant) = backfill.grants.get_mut(task) else { return };
        grant.yielding = true;
        let paused = grant.paused_at.take().is_some();
        backfill.paused.remove(&(at, task));
        let (session, token) = (grant.session(), grant.token());
        if let Some(session) = self.sessions.get_mut(&session) {
            session.paused -= u32::from(paused);
        }
        let reason = if starved { "the task that holds the watermark has no slot" } else { "a join has no slot" };
        out.send(session, yield_now(&id, task, token, reason));
    }

    /// Asks every reader of a backfill to hand in and give the rest back.
    pub(super) fn yield_all(&mut self, id: &BackfillId, reason: &str, out: &mut Out) {
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        for (task, grant) in backfill.grants.iter_mut().filter(|(task, _)| is_read(*task)) {
            grant.yielding = true;
            out.send(grant.session(), yield_now(id, task, grant.token(), reason));
        }
    }

    /// Tells the sessions that read of a backfill where its gate is, and how many share a limit, if either has changed.
    pub(super) fn tell_gate(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        let gate = backfill.gate_message();
        if backfill.told.as_ref() == Some(&gate) {
            return;
        }
        for session in backfill.grants.readers() {
            out.send(session, Kind::Gate(gate.clone()));
        }
        backfill.told = Some(gate);
    }
}

/// Whether reads and joins may be granted.
pub(super) fn may_run(backfill: &Backfill) -> bool {
    backfill.phase == v1::Phase::Running && backfill.wish == v1::Wish::Run && !backfill.grace && backfill.is_settled()
}

fn may_read(backfill: &Backfill) -> bool {
    may_run(backfill) && backfill.is_cut()
}

/// The running read whose cursor is highest.
fn furthest_ahead(backfill: &Backfill) -> Option<(EventTime, TaskId)> {
    let reads = backfill.grants.iter().filter_map(|(task, _)| {
        let TaskId::Read(source, segment, at) = task else { return None };
        let plan = &backfill.sources.get(source.get() as usize)?.plan;
        Some((plan.cursor((segment, at))?, task))
    });
    reads.max()
}

fn is_yielding(backfill: &Backfill) -> bool {
    backfill.grants.iter().any(|(_, grant)| grant.yielding)
}

fn lowest_runnable(backfill: &Backfill) -> Option<(EventTime, SourceIx, Place)> {
    if !may_read(backfill) {
        return None;
    }
    let gate: Gate = backfill.gate();
    let runnable = (0u32..).zip(&backfill.sources).filter_map(|(ix, source)| {
        let (low, place) = source.plan.runnable(gate)?;
        Some((low, SourceIx::new(ix), place))
    });
    runnable.min()
}

/// The tasks without a slot that a backfill needs now.
fn odd_jobs(backfill: &Backfill) -> Vec<TaskId> {
    let running = backfill.wish == v1::Wish::Run;
    let mut jobs = Vec::new();
    for (ix, output) in (0u32..).zip(&backfill.outputs) {
        if output.prepared_intent().is_some() && backfill.phase != v1::Phase::Failed {
            jobs.push(TaskId::Commit(OutputIx::new(ix), output.sequence));
        }
    }
    // A preparation reads markers: it waits until none of them can move.
    let pins = backfill.phase == v1::Phase::Preparing || (backfill.repin && !backfill.is_over());
    // With a saved plan nothing is made before it is known that the plan holds.
    let first = backfill.phase == v1::Phase::Preparing && backfill.expected.is_some();
    if pins && running && !backfill.has_open_intent() && (!first || backfill.is_found()) {
        jobs.push(TaskId::Prepare);
    }
    if (backfill.phase == v1::Phase::Enumerating || first) && running {
        let sources = (0u32..).zip(&backfill.sources).filter(|(_, source)| source.plan.found().is_none());
        jobs.extend(sources.map(|(ix, _)| TaskId::Enumerate(SourceIx::new(ix))));
    }
    if backfill.grants.get(TaskId::Clean).is_none() {
        jobs.extend(joining::litter(backfill).map(|_| TaskId::Clean));
    }
    jobs
}

fn odd_work(backfill: &mut Backfill, task: TaskId, slots: u32) -> Option<Work> {
    Some(match task {
        TaskId::Prepare => {
            // What was prepared once is what the backfill rests on, whatever was planned before.
            let expected = backfill.expected.as_ref().filter(|_| backfill.prepared.is_none());
            let ranges = ranges(expected);
            let expected = expected.map(|expected| expected.outputs.clone()).unwrap_or_default();
            Work::Prepare(v1::PrepareWork { expected, ranges })
        }
        TaskId::Enumerate(source) => {
            let (expected, ranges) = (backfill.expected_of(source).cloned(), ranges(backfill.expected.as_ref()));
            Work::Enumerate(v1::EnumerateWork { source: source.get(), expected, slots, ranges })
        }
        TaskId::Commit(output, sequence) => {
            let output = backfill.outputs.get(output.get() as usize)?;
            let intent = output.prepared_intent().filter(|intent| Sequence::new(intent.sequence) == sequence)?;
            let cancel = output.doomed.map_or(0, Term::get);
            Work::Commit(v1::CommitWork { intent: Some(intent.clone()), cancel })
        }
        TaskId::Clean => {
            let work = joining::litter(backfill)?;
            backfill.cleaning.clone_from(&work.paths);
            Work::Clean(work)
        }
        TaskId::Read(..) | TaskId::Regenerate(..) | TaskId::Join(..) | TaskId::Late(..) => return None,
    })
}

/// The ranges of topics that a saved plan pinned.
fn ranges(expected: Option<&v1::ExpectedPlan>) -> Vec<v1::SourcePin> {
    let states = expected.into_iter().flat_map(|expected| &expected.sources).filter_map(|source| source.state.clone());
    states.filter(|state| state.kafka.is_some()).collect()
}

fn read_work(backfill: &mut Backfill, task: TaskId) -> Option<Work> {
    let gate = backfill.gate_message();
    let joins = (0u32..).zip(&backfill.outputs).filter_map(|(ix, output)| output.join.as_ref()?.shape(ix));
    let shapes = joins.collect();
    let (plan, place) = backfill.read_task(task)?;
    let payload = plan.payload(place)?;
    let next_unit = plan.progress(place)?.next;
    Some(Work::Read(v1::ReadWork { task: Some((**payload).clone()), next_unit, gate: Some(gate), shapes }))
}

pub(super) fn assign(id: &BackfillId, task: TaskId, token: Token, work: Work) -> Kind {
    Kind::Assign(v1::Assign {
        backfill: id.to_string(),
        task: Some(task.into()),
        token: Some(token.into()),
        work: Some(work),
    })
}

fn yield_now(id: &BackfillId, task: TaskId, token: Token, reason: &str) -> Kind {
    Kind::Yield(v1::Yield {
        backfill: id.to_string(),
        task: Some(task.into()),
        token: Some(token.into()),
        reason: reason.to_owned(),
    })
}

fn info(backfill: &Backfill) -> v1::BackfillInfo {
    v1::BackfillInfo {
        backfill: backfill.id.to_string(),
        spec_json: backfill.spec_json.clone(),
        prepared: backfill.prepared.clone(),
        allow_existing: backfill.allow_existing,
    }
}
