//! A virtual read: unit by unit under the gate, handing in at unit boundaries.

use tidegate_common::fence::Fence;
use tidegate_common::gate::Gate;
use tidegate_common::ids::{BackfillId, TaskId};
use tidegate_common::time::EventTime;
use tidegate_proto::{convert, v1};

use super::joins::{self, Row};
use super::link::Up;
use super::mishap::Mishap;
use super::scenario::{MILLI, Order, SECOND};
use super::worker::Body;
use super::world::World;

/// Where a read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before a unit: it may begin, be held at the gate, or be asked to leave.
    Boundary,
    Held,
    InUnit,
    AwaitsReply,
}

/// A running read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    task: v1::ReadTask,
    /// How the outputs that join are cut.
    shapes: Vec<v1::ShuffleShape>,
    stage: Stage,
    /// The unit that is read, or to be read next.
    at: u32,
    /// The first unit that is not handed in.
    first: u32,
    /// The first unit that no accepted hand-in covers.
    pub(super) accepted: u32,
    number: u64,
    pub(super) outstanding: Option<(v1::HandIn, bool)>,
    past: Vec<v1::HandIn>,
    leave: bool,
    max_skew: i64,
}

impl Reading {
    pub(super) fn new(task: v1::ReadTask, next_unit: u32, shapes: Vec<v1::ShuffleShape>) -> Self {
        Self {
            task,
            shapes,
            stage: Stage::Boundary,
            at: next_unit,
            first: next_unit,
            accepted: next_unit,
            number: 0,
            outstanding: None,
            past: Vec::new(),
            leave: false,
            max_skew: 0,
        }
    }

    /// No row below it is left to be read.
    pub(super) fn cursor(&self) -> EventTime {
        self.task.units.get(self.at as usize).map_or(EventTime::MAX, |unit| EventTime::from_micros(unit.low))
    }

    pub(super) fn is_held(&self) -> bool {
        self.stage == Stage::Held
    }

    fn len(&self) -> u32 {
        u32::try_from(self.task.units.len()).unwrap_or(u32::MAX)
    }
}

impl World {
    fn reading(&mut self, at: usize, run: u64) -> Option<&mut Reading> {
        match &mut self.workers[at].runs.get_mut(&run)?.body {
            Body::Read(reading) => Some(reading),
            _ => None,
        }
    }

    /// A backfill's gate is told to a worker.
    pub(super) fn gate_moved(&mut self, at: usize, id: &BackfillId, gate: Gate) {
        self.workers[at].gates.insert(id.clone(), gate);
        let held = |body: &Body| matches!(body, Body::Read(reading) if reading.is_held());
        let runs = self.workers[at].runs.iter().filter(|(_, run)| run.grant.id == *id && held(&run.body));
        let runs: Vec<u64> = runs.map(|(run, _)| *run).collect();
        for run in runs {
            self.turn(at, run, 10);
        }
    }

    pub(super) fn ask_to_leave(&mut self, at: usize, run: u64) {
        let Some(reading) = self.reading(at, run) else { return };
        reading.leave = true;
        if reading.is_held() {
            self.turn(at, run, 10);
        }
    }

    /// A read goes on.
    pub(super) fn read(&mut self, at: usize, run: u64) {
        let Some(reading) = self.reading(at, run) else { return };
        match reading.stage {
            Stage::Boundary | Stage::Held => self.at_boundary(at, run),
            Stage::InUnit => self.unit_ends(at, run),
            Stage::AwaitsReply => {}
        }
    }

    fn at_boundary(&mut self, at: usize, run: u64) {
        let Some(reading) = self.reading(at, run) else { return };
        let (unit, covers) = (reading.at, reading.at > reading.first);
        let whole = unit >= reading.len();
        if whole || reading.leave {
            return if covers { self.deliver(at, run, !whole) } else { self.give_back(at, run) };
        }
        let bounds = reading.task.units.get(unit as usize).and_then(|unit| convert::bounds(unit).ok());
        let Some(bounds) = bounds else { return };
        let gated = self.fences.stands(Fence::GateBetweenUnits);
        let Some(of) = self.workers[at].runs.get(&run) else { return };
        let (grant, link) = (of.grant.clone(), of.link);
        let gate = self.workers[at].gates.get(&grant.id).copied().unwrap_or(Gate::OPEN);
        if gated && !gate.permits(bounds) {
            return self.held(at, run);
        }
        self.note(|| format!("worker {at} run {run} begins {} unit {unit} under {gate:?}", grant.task));
        self.oracle.begun(self.oracle.ix(&grant.id), grant.task, unit, gate, self.links[link].renewed);
        let takes = self.chance.between(50 * MILLI, 2 * SECOND) * self.workers[at].slow;
        let Some(reading) = self.reading(at, run) else { return };
        let was_held = std::mem::replace(&mut reading.stage, Stage::InUnit) == Stage::Held;
        if gate.watermark != EventTime::MIN {
            reading.max_skew = reading.max_skew.max(bounds.high().since(gate.watermark).as_micros());
        }
        if was_held {
            self.heartbeat(at);
        }
        self.turn(at, run, takes);
    }

    fn held(&mut self, at: usize, run: u64) {
        let Some(reading) = self.reading(at, run) else { return };
        if std::mem::replace(&mut reading.stage, Stage::Held) != Stage::Held {
            self.heartbeat(at);
        }
        // Memory runs short now and then: what is held is handed in.
        let covers = self.reading(at, run).is_some_and(|reading| reading.at > reading.first);
        if covers && self.chance.one_in(6) {
            self.deliver(at, run, false);
        }
    }

    fn unit_ends(&mut self, at: usize, run: u64) {
        let Some(grant) = self.workers[at].runs.get(&run).map(|run| run.grant.clone()) else { return };
        let ix = self.oracle.ix(&grant.id);
        let Some(unit) = self.reading(at, run).map(|reading| reading.at) else { return };
        let poisoned = self.scenario.orders[ix].poison.contains(&(grant.task, unit));
        let failed = !poisoned && self.flaky(ix, grant.task);
        if poisoned || failed {
            let class = if poisoned { v1::Failure::Poison } else { v1::Failure::Retryable };
            let evidence = v1::Evidence { class: class.into(), message: "as planned".to_owned(), ..Default::default() };
            if self.workers[at].runs.get(&run).is_some_and(|run| run.attached) {
                self.say(at, Up::Fail(grant, evidence));
            }
            return self.drop_run(at, run);
        }
        self.oracle.read_through(ix, grant.task, unit);
        let eager = self.chance.permille(self.scenario.eager);
        let Some(reading) = self.reading(at, run) else { return };
        reading.at += 1;
        reading.stage = Stage::Boundary;
        let early = eager && reading.at < reading.len();
        self.heartbeat(at);
        if early { self.deliver(at, run, false) } else { self.at_boundary(at, run) }
    }

    /// A failure that passes when tried again: once a task at most, so that it is never the last straw.
    pub(super) fn flaky(&mut self, ix: usize, task: TaskId) -> bool {
        !self.flaked.contains(&(ix, task))
            && self.strikes(Mishap::RetryableFailure, 80)
            && self.flaked.insert((ix, task))
    }

    /// Closes the files and hands in the units before the next.
    fn deliver(&mut self, at: usize, run: u64, released: bool) {
        let Some(of) = self.workers[at].runs.get(&run) else { return };
        let (grant, attempt, attached) = (of.grant.clone(), of.attempt.clone(), of.attached);
        let ix = self.oracle.ix(&grant.id);
        let Body::Read(reading) = &of.body else { return };
        let (hand_in, shuffled) = hand_in(reading, &attempt, grant.task, &self.scenario.orders[ix]);
        let Some(reading) = self.reading(at, run) else { return };
        reading.stage = Stage::AwaitsReply;
        reading.outstanding = Some((hand_in.clone(), released));
        for file in hand_in.outputs.iter().flat_map(|part| &part.files) {
            self.oracle.written(&attempt, &file.path);
        }
        for object in hand_in.outputs.iter().filter_map(|part| part.shuffled.as_ref()) {
            self.shuffle.write(&object.path, ix, shuffled.clone(), (grant.task, hand_in.first_unit));
            self.oracle.shuffled(ix, &object.path);
        }
        if attached {
            self.say(at, Up::HandIn(grant, hand_in, released));
        }
    }

    /// A hand-in is answered.
    pub(super) fn replied(&mut self, at: usize, reply: &v1::HandInReply) {
        let waits = |body: &Body| match body {
            Body::Read(reading) => {
                reading.outstanding.as_ref().is_some_and(|(hand_in, _)| hand_in.number == reply.number)
            }
            _ => false,
        };
        let runs = &self.workers[at].runs;
        let found = runs.iter().find(|(_, run)| run.attempt == reply.attempt && waits(&run.body)).map(|(run, _)| *run);
        let Some(run) = found else { return };
        if !reply.accepted {
            self.oracle.refused(&reply.attempt);
            return self.give_back(at, run);
        }
        let Some(reading) = self.reading(at, run) else { return };
        let Some((hand_in, released)) = reading.outstanding.take() else { return };
        reading.accepted = hand_in.end_unit;
        reading.first = hand_in.end_unit;
        reading.number += 1;
        reading.max_skew = 0;
        reading.stage = Stage::Boundary;
        reading.past.push(hand_in);
        if released || reading.accepted == reading.len() {
            return self.drop_run(at, run);
        }
        self.repeat(at, run);
        self.turn(at, run, 10);
    }

    /// Sends a hand-in that was accepted long ago again, as a worker would whose memory is not to be relied on.
    fn repeat(&mut self, at: usize, run: u64) {
        let past = self.reading(at, run).map(|reading| reading.past.clone()).unwrap_or_default();
        let Some((_, earlier)) = past.split_last().filter(|(_, earlier)| !earlier.is_empty()) else { return };
        if !self.strikes(Mishap::RepeatedHandIn, 300) {
            return;
        }
        let (Some(again), Some(of)) = (self.chance.pick(earlier), self.workers[at].runs.get(&run)) else { return };
        let grant = of.grant.clone();
        self.say(at, Up::HandIn(grant, again, false));
    }
}

/// The hand-in of what was read since the last, and the rows of it that wait to be joined.
fn hand_in(reading: &Reading, attempt: &str, task: TaskId, order: &Order) -> (v1::HandIn, Vec<Row>) {
    let units = reading.task.units.get(reading.first as usize..reading.at as usize).unwrap_or_default();
    let rows: u64 = units.iter().map(|unit| unit.rows).sum();
    let TaskId::Read(source, ..) = task else { return Default::default() };
    let part = |output: u32, passed: u64| v1::OutputPart {
        output,
        rows_read: rows,
        rows_passed: passed,
        rows_filtered: rows - passed,
        ..Default::default()
    };
    let joined = order.joins.as_ref().map(|joins| joins.output);
    let reads = (0u32..).zip(&order.reads).filter(|(output, of)| **of == source.get() && Some(*output) != joined);
    let mut outputs: Vec<v1::OutputPart> = reads
        .map(|(output, _)| {
            let passed: u64 = units.iter().map(|unit| joins::passed(unit.rows, output)).sum();
            v1::OutputPart { files: files(attempt, output, reading.number, passed), ..part(output, passed) }
        })
        .collect();
    let mut shuffled = Vec::new();
    if let Some(joins) = order.joins.as_ref().filter(|joins| joins.input(source.get()).is_some()) {
        let of = |(at, unit): (u32, &v1::UnitOfWork)| joins::rows(task, at, (unit.low, unit.high, unit.rows), joins);
        shuffled = (reading.first..).zip(units).flat_map(of).collect();
        let width = reading.shapes.iter().find(|shape| shape.output == joins.output).map_or(0, |shape| shape.slice);
        let path = format!("{attempt}/{}/{}-shuffled", joins.output, reading.number);
        let object = joins::object(path, &shuffled, width, joins.bytes, joins.input(source.get()) == Some(0));
        outputs.push(v1::OutputPart { shuffled: object, ..part(joins.output, shuffled.len() as u64) });
    }
    let hand_in = v1::HandIn {
        attempt: attempt.to_owned(),
        number: reading.number,
        first_unit: reading.first,
        end_unit: reading.at,
        rows_read: rows,
        bytes_read: rows * 100,
        outputs,
        max_skew: reading.max_skew,
        ..Default::default()
    };
    (hand_in, shuffled)
}

/// The files of so many rows: two, where that many have any.
pub(super) fn files(attempt: &str, output: u32, number: u64, rows: u64) -> Vec<v1::DataFile> {
    let halves = [rows / 2, rows - rows / 2];
    let file = |(at, rows): (usize, &u64)| v1::DataFile {
        path: format!("{attempt}/{output}/{number}-{at}"),
        rows: *rows,
        bytes: rows * 100,
    };
    halves.iter().enumerate().filter(|(_, rows)| **rows > 0).map(file).collect()
}
