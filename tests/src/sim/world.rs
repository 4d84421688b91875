//! The world: everything that is virtual, the events that move it, and what strikes it.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_common::fence::{Fence, Fences};
use tidegate_common::ids::TaskId;
use tidegate_coordinator::core::{self, RequestId, Submission};
use tidegate_proto::v1;

use super::agenda::Agenda;
use super::chance::Chance;
use super::committing::{Heard, Landing};
use super::driver::{self, Process};
use super::invariants::Invariant;
use super::joins::Shuffle;
use super::link::Link;
use super::mishap::{Mishap, Struck};
use super::oracle::Oracle;
use super::scenario::{LEASE, Micros, SECOND, Scenario};
use super::store::Store;
use super::table::Table;
use super::trace::Trace;
use super::worker::Worker;
use super::{Options, Outcome};

/// How long a world may take to end after the mishaps have, besides what its units take to read.
const PATIENCE: Micros = 400 * SECOND;
/// How many events a world may take: a hundred times what the longest of many took. One that takes more goes in a circle.
const MOST_EVENTS: u64 = 1_000_000;
/// How long a file must have been garbage before it is deleted.
const GARBAGE_GRACE: Micros = LEASE * 3 / 2;

/// What happens. Numbers are places: of coordinators, links, workers, tables.
#[derive(Clone, Debug)]
pub(super) enum Event {
    StartCoordinator,
    Pump(usize),
    Transaction(usize),
    TransactionReply(usize, driver::Outcome),
    Tick(usize),
    Verify(usize),
    Tell(usize, Box<core::Event>),
    Up(usize),
    Down(usize),
    CoordinatorNotices(usize),
    WorkerNotices(usize),
    StartWorker(usize),
    Connect(usize, u32),
    Beat(usize, u32, usize),
    Turn(usize, u32, u64, u64),
    Leave(usize, u32),
    Dies(usize, u32),
    SwapLands(u64, usize, u32, u64, bool),
    SwapHeard(usize, u32, u64, u64, Heard),
    Mishap,
    Operator,
    Collector,
}

/// The world.
pub(super) struct World {
    pub(super) now: Micros,
    pub(super) chance: Chance,
    pub(super) fences: Fences,
    pub(super) scenario: Scenario,
    pub(super) agenda: Agenda,
    pub(super) store: Store,
    pub(super) shuffle: Shuffle,
    pub(super) processes: Vec<Process>,
    pub(super) links: Vec<Link>,
    pub(super) workers: Vec<Worker>,
    pub(super) tables: Vec<Table>,
    pub(super) landings: BTreeMap<u64, Landing>,
    pub(super) oracle: Oracle,
    pub(super) struck: Struck,
    pub(super) flaked: BTreeSet<(usize, TaskId)>,
    pub(super) attempts: u64,
    pub(super) swaps: u64,
    pub(super) steps: u64,
    pub(super) trace: Trace,
    events: u64,
    most_events: u64,
    over_at: Option<Micros>,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options) -> Self {
        let mut chance = Chance::new(seed);
        let scenario = Scenario::new(&mut chance);
        let mut world = Self {
            now: SECOND,
            oracle: Oracle::new(&scenario.orders, scenario.tables),
            tables: (0..scenario.tables).map(Table::new).collect(),
            workers: scenario.hands.iter().map(|hand| Worker::new(hand.slots, hand.clock, hand.slow)).collect(),
            chance,
            fences: options.fences.clone(),
            agenda: Agenda::default(),
            store: Store::default(),
            shuffle: Shuffle::default(),
            processes: Vec::new(),
            links: Vec::new(),
            landings: BTreeMap::new(),
            struck: Struck::default(),
            flaked: BTreeSet::new(),
            attempts: 0,
            swaps: 0,
            steps: 0,
            trace: Trace::new(options.traced),
            events: 0,
            most_events: options.most_events.unwrap_or(MOST_EVENTS),
            over_at: None,
            scenario,
        };
        world.agenda.put(SECOND, Event::StartCoordinator);
        for at in 0..world.workers.len() {
            let after = world.chance.below(3 * SECOND);
            world.agenda.put(SECOND + after, Event::StartWorker(at));
        }
        for event in [Event::Mishap, Event::Operator, Event::Collector] {
            let after = world.chance.between(SECOND, 3 * SECOND);
            world.agenda.put(SECOND + after, event);
        }
        world
    }

    /// Lets everything happen, until all is over or an invariant breaks.
    pub(super) fn run(mut self) -> Outcome {
        let longest = self.scenario.calm_at + PATIENCE + self.longest_read();
        while let Some((at, event)) = self.agenda.next() {
            self.now = at;
            self.oracle.time_is(at);
            let over = self.over_at.is_some_and(|over| at > over + 2 * LEASE + GARBAGE_GRACE);
            if over || at > longest || self.oracle.violation.is_some() {
                break;
            }
            if self.events == self.most_events {
                self.oracle.breaks(Invariant::Liveness, format!("after {} events there is no end", self.events));
                break;
            }
            self.events += 1;
            self.trace.event(self.now, self.steps, &event);
            self.happen(event);
        }
        self.oracle.time_is(Micros::MAX);
        self.oracle.at_last();
        (0..self.oracle.late_rows()).for_each(|_| self.struck.count(Mishap::LateRow));
        let succeeded = self.oracle.books.iter().filter(|book| book.phase == v1::Phase::Succeeded).count() as u64;
        let (hash, trace) = self.trace.end();
        Outcome {
            violation: self.oracle.violation,
            hash,
            events: self.events,
            steps: self.steps,
            struck: self.struck,
            succeeded,
            trace,
        }
    }

    /// What all units take to read, and as many slices to join, one after the other, by the slowest.
    fn longest_read(&self) -> Micros {
        let sources = self.scenario.orders.iter().flat_map(|order| &order.sources);
        let joins = self.scenario.orders.iter().filter(|order| order.joins.is_some()).count() as u64;
        (sources.map(|source| source.found.units).sum::<u64>() + joins * 100) * 16 * SECOND
    }

    /// Writes down what happens, where it is asked for.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.line(self.now, line);
    }

    /// Puts an event off while the process that it is for is stopped.
    fn is_put_off(&mut self, event: &Event) -> bool {
        use Event as E;
        let until = match event {
            E::Pump(at) | E::TransactionReply(at, _) | E::Tick(at) | E::Verify(at) | E::Tell(at, _) => {
                self.processes[*at].stopped_until
            }
            E::Up(link) | E::CoordinatorNotices(link) => self.processes[self.links[*link].coordinator].stopped_until,
            E::Down(link) | E::WorkerNotices(link) => self.workers[self.links[*link].worker].stopped_until,
            E::Connect(at, _) | E::Beat(at, ..) | E::Turn(at, ..) | E::Leave(at, _) | E::SwapHeard(at, ..) => {
                self.workers[*at].stopped_until
            }
            _ => 0,
        };
        if until > self.now {
            self.agenda.put(until, event.clone());
        }
        until > self.now
    }

    /// Whether the process that an event is for is there no more.
    fn is_void(&self, event: &Event) -> bool {
        use Event as E;
        match event {
            E::Pump(at) | E::TransactionReply(at, _) | E::Tick(at) | E::Verify(at) | E::Tell(at, _) => {
                !self.processes[*at].alive
            }
            E::Connect(at, of) | E::Beat(at, of, _) | E::Turn(at, of, ..) | E::Leave(at, of) | E::Dies(at, of) => {
                !self.workers[*at].alive || self.workers[*at].incarnation != *of
            }
            E::SwapHeard(at, of, ..) => !self.workers[*at].alive || self.workers[*at].incarnation != *of,
            _ => false,
        }
    }

    fn happen(&mut self, event: Event) {
        if self.is_void(&event) || self.is_put_off(&event) {
            return;
        }
        match event {
            Event::StartCoordinator => self.start_coordinator(),
            Event::Pump(at) => self.pump(at),
            Event::Transaction(at) => self.transact(at),
            Event::TransactionReply(at, outcome) => self.transacted(at, outcome),
            Event::Tick(at) => self.tick(at),
            Event::Verify(at) => self.verify(at),
            Event::Tell(at, event) => self.tell(at, *event),
            Event::Up(link) => self.up(link),
            Event::Down(link) => self.down(link),
            Event::CoordinatorNotices(link) => self.coordinator_notices(link),
            Event::WorkerNotices(link) => self.worker_notices(link),
            Event::StartWorker(at) => self.start_worker(at),
            Event::Connect(at, _) => self.connect(at),
            Event::Beat(at, _, link) => self.beat(at, link),
            Event::Turn(at, _, run, turn) => self.take_turn(at, run, turn),
            Event::Leave(at, _) => self.leave(at),
            Event::Dies(at, _) => self.end_worker(at, LEASE),
            Event::SwapLands(number, at, of, run, unheard) => self.swap_lands(number, at, of, run, unheard),
            Event::SwapHeard(at, _, run, number, heard) => self.swap_heard(at, run, number, heard),
            Event::Mishap => self.mishap(),
            Event::Operator => self.operator(),
            Event::Collector => self.collect(),
        }
    }

    pub(super) fn is_calm(&self) -> bool {
        self.now >= self.scenario.calm_at
    }

    /// Whether `mishap` strikes here: `permille` times in a thousand in a world where it may, until the calm.
    pub(super) fn strikes(&mut self, mishap: Mishap, permille: u64) -> bool {
        let may = !self.is_calm() && self.scenario.mishaps.contains(&mishap);
        let strikes = may && self.chance.permille(permille);
        if strikes {
            self.struck.count(mishap);
        }
        strikes
    }

    fn mishap(&mut self) {
        if self.is_calm() {
            return;
        }
        let after = self.chance.between(self.scenario.pace / 4, self.scenario.pace * 7 / 4);
        self.agenda.put(self.now + after, Event::Mishap);
        let Some(mishap) = self.chance.pick(&self.scenario.mishaps) else { return };
        if self.befalls(mishap) {
            self.note(|| format!("mishap: {mishap:?}"));
            self.struck.count(mishap);
        }
    }

    /// Lets `mishap` happen somewhere; false where there is nothing that it could befall, or where it strikes by itself.
    fn befalls(&mut self, mishap: Mishap) -> bool {
        let alive: Vec<usize> = (0..self.processes.len()).filter(|at| self.processes[*at].alive).collect();
        let worker = usize::try_from(self.chance.below(self.workers.len() as u64)).unwrap_or(0);
        let table = usize::try_from(self.chance.below(self.tables.len() as u64)).unwrap_or(0);
        match mishap {
            Mishap::CoordinatorCrash => {
                let Some(at) = alive.last() else { return false };
                self.kill_coordinator(*at);
            }
            Mishap::CoordinatorPause => {
                let Some(at) = alive.last() else { return false };
                let takes = self.chance.between(SECOND, 3 * LEASE);
                self.processes[*at].stopped_until = self.now + takes;
                if self.chance.one_in(2) && alive.len() < 3 {
                    self.agenda.put(self.now + takes / 2, Event::StartCoordinator);
                }
            }
            Mishap::SecondCoordinator if (1..3).contains(&alive.len()) => {
                self.agenda.put(self.now, Event::StartCoordinator);
            }
            Mishap::WorkerCrash if self.workers[worker].alive => {
                let back = self.chance.between(SECOND / 10, 2 * LEASE);
                self.end_worker(worker, back);
            }
            Mishap::WorkerPause if self.workers[worker].alive => {
                let takes = self.chance.between(SECOND, 3 * LEASE);
                self.workers[worker].stopped_until = self.now + takes;
            }
            Mishap::WorkerDrain if self.workers[worker].alive => self.drain(worker),
            Mishap::LinkLoss | Mishap::HalfOpenLink => {
                let Some(link) = self.workers[worker].link.filter(|link| self.links[*link].whole) else { return false };
                self.break_link(link, mishap == Mishap::HalfOpenLink);
            }
            Mishap::StuckLink => {
                let Some(link) = self.workers[worker].link.filter(|link| self.links[*link].whole) else { return false };
                self.stick(link);
                if self.chance.one_in(2) {
                    let after = self.chance.between(SECOND, LEASE / 2);
                    self.agenda.put(self.now + after, Event::Dies(worker, self.workers[worker].incarnation));
                }
            }
            Mishap::ForeignCommit => self.tables[table].foreign_commit(false),
            Mishap::Intrusion => {
                self.tables[table].foreign_commit(true);
                self.oracle.intruded(table);
            }
            Mishap::Expiry => {
                let expires = self.tables[table].expire();
                self.oracle.forgets(table, &self.tables[table]);
                return expires;
            }
            Mishap::LostObject => return self.lose_object(),
            Mishap::Rollback | Mishap::PropertyLoss => return self.tamper(mishap, table),
            Mishap::OperatorPause | Mishap::OperatorCancel | Mishap::OperatorRetry => return self.operate(mishap),
            _ => return false,
        }
        true
    }

    fn tamper(&mut self, mishap: Mishap, table: usize) -> bool {
        // Rarely, or nothing would ever succeed.
        if !self.chance.one_in(4) || (mishap == Mishap::Rollback && !self.tables[table].roll_back()) {
            return false;
        }
        if mishap == Mishap::PropertyLoss {
            self.tables[table].lose_properties();
        }
        self.oracle.tampered(table);
        self.oracle.forgets(table, &self.tables[table]);
        true
    }

    fn operate(&mut self, mishap: Mishap) -> bool {
        let (change, rarely) = match mishap {
            Mishap::OperatorPause => (v1::Change::Pause, 1),
            Mishap::OperatorCancel => (v1::Change::Cancel, 4),
            _ => (v1::Change::Retry, 1),
        };
        let ix = usize::try_from(self.chance.below(self.scenario.orders.len() as u64)).unwrap_or(0);
        if !self.chance.one_in(rarely) || !self.oracle.books[ix].created {
            return false;
        }
        self.ask(ix, change)
    }

    pub(super) fn ask(&mut self, ix: usize, change: v1::Change) -> bool {
        let Some(at) = self.reachable() else { return false };
        let id = self.scenario.orders[ix].id.clone();
        let event = core::Event::Change(RequestId(ix as u64), id, change, "an operator wants it".to_owned());
        let after = self.chance.below(SECOND / 10);
        self.agenda.put(self.now + after, Event::Tell(at, Box::new(event)));
        true
    }

    /// The operators: they submit until it is confirmed, resume what is paused, and see that something runs.
    fn operator(&mut self) {
        let after = self.chance.between(SECOND, 4 * SECOND);
        self.agenda.put(self.now + after, Event::Operator);
        for ix in 0..self.scenario.orders.len() {
            let order = &self.scenario.orders[ix];
            let submits = !self.oracle.books[ix].created && order.submit_at <= self.now;
            let book = &self.oracle.books[ix];
            let paused = book.wish == v1::Wish::Pause && !self.oracle.is_over(ix);
            let staged = book.phase == v1::Phase::Staged;
            // What somebody wrote into a window that is replaced is replaced as well, where an operator says so.
            let insists = book.phase == v1::Phase::Failed && self.oracle.is_intruded(ix) && !self.is_calm();
            if submits || (insists && self.chance.one_in(4)) {
                let submission = Submission {
                    id: order.id.clone(),
                    spec: order.spec.clone(),
                    spec_json: String::new(),
                    reason: String::new(),
                    allow_existing: true,
                    expected: None,
                };
                let event = core::Event::Submit(RequestId(ix as u64), submission);
                if let Some(at) = self.reachable() {
                    self.tell(at, event);
                }
            } else if staged && (self.is_calm() || self.chance.one_in(4)) {
                let publishes = !self.chance.one_in(3);
                self.ask(ix, if publishes { v1::Change::Publish } else { v1::Change::Cancel });
            } else if paused && (self.is_calm() || self.chance.one_in(3)) {
                self.ask(ix, v1::Change::Resume);
            }
        }
        let over = self.is_calm() && (0..self.oracle.books.len()).all(|ix| self.oracle.is_over(ix));
        self.over_at = if over { self.over_at.or(Some(self.now)) } else { None };
    }

    /// Deletes what the garbage rule lets be deleted.
    fn collect(&mut self) {
        let after = self.chance.between(SECOND, 5 * SECOND);
        self.agenda.put(self.now + after, Event::Collector);
        let spares = self.fences.stands(Fence::GarbageRule);
        for path in self.oracle.garbage(GARBAGE_GRACE, spares) {
            self.oracle.deleted(&path);
        }
    }
}
