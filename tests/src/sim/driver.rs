//! The virtual driver: owns a real core, makes what it decides durable, and only then lets it out.
//!
//! It does what the real driver promises: the journal records and table records of some steps go into one transaction
//! that compares the heads; nothing else of these steps goes out before that has happened. A driver that does not know
//! whether its transaction happened, or whose transaction was refused, dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tidegate_common::clock::Monotonic;
use tidegate_common::fence::Fence;
use tidegate_common::ids::{BackfillId, SessionId};
use tidegate_coordinator::core::{self, Action, Config, Core, LeaseRef, Now, RequestId};
use tidegate_proto::v1;

use super::invariants::Invariant;
use super::link::{Down, Grant, Up};
use super::mishap::Mishap;
use super::scenario::{LEASE, MILLI, Micros, SECOND};
use super::store::{Head, Transaction};
use super::world::{Event, World};

/// A coordinator's process.
#[derive(Debug)]
pub(super) struct Process {
    core: Core,
    pub(super) alive: bool,
    /// Whether workers and operators can reach it: only once its terms are durable.
    pub(super) listens: bool,
    pub(super) stopped_until: Micros,
    /// Its monotonic clock's zero.
    zero: Micros,
    inbox: VecDeque<core::Event>,
    heads: BTreeMap<BackfillId, Head>,
    in_flight: Option<(Transaction, Vec<Action>)>,
    sessions: BTreeMap<SessionId, usize>,
    next_session: u64,
    tick_at: Option<Monotonic>,
}

/// How a transaction went, as far as the driver hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Done,
    Refused,
    Failed,
    Unheard,
}

impl World {
    /// A coordinator starts: it folds what is stored and raises the terms.
    pub(super) fn start_coordinator(&mut self) {
        let config = Config {
            lease: Duration::from_micros(LEASE),
            grace: Duration::from_micros(LEASE),
            fences: self.fences.clone(),
            ..Config::default()
        };
        let mut core = Core::new(config);
        let mut inbox = VecDeque::new();
        let mut heads = BTreeMap::new();
        for (id, shelf) in &self.store.shelves {
            let ix = self.oracle.ix(id);
            core.restore(id.clone(), self.scenario.orders[ix].spec.clone(), &shelf.log);
            if let Some(backfill) = core.backfill(id) {
                self.oracle.restored(ix, &core.status(backfill));
            }
            heads.insert(id.clone(), shelf.head);
            inbox.push_back(core::Event::TakeUp(id.clone()));
        }
        let zero = self.chance.below(SECOND).min(self.now);
        let process = Process {
            core,
            alive: true,
            listens: false,
            stopped_until: 0,
            zero,
            inbox,
            heads,
            in_flight: None,
            sessions: BTreeMap::new(),
            next_session: 0,
            tick_at: None,
        };
        let at = self.processes.len();
        self.processes.push(process);
        self.note(|| format!("coordinator {at} starts"));
        self.agenda.put(self.now, Event::Pump(at));
        self.agenda.put(self.now + LEASE / 3, Event::Verify(at));
    }

    /// A coordinator's process is gone; its connections break.
    pub(super) fn kill_coordinator(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if !std::mem::replace(&mut process.alive, false) {
            return;
        }
        process.listens = false;
        let links: Vec<usize> = (0..self.links.len()).filter(|link| self.links[*link].coordinator == at).collect();
        self.note(|| format!("coordinator {at} dies"));
        for link in links {
            self.break_link(link, false);
        }
        if !self.processes.iter().any(|process| process.alive) {
            let after = self.chance.between(SECOND / 10, 8 * SECOND);
            self.agenda.put(self.now + after, Event::StartCoordinator);
        }
    }

    /// A coordinator reads the heads, so that one that was superseded learns of it though nothing is to be written. It is
    /// superseded, too, where the term is its own: what had ended when it started, an older one may have taken up again.
    pub(super) fn verify(&mut self, at: usize) {
        let process = &self.processes[at];
        let compares = self.fences.stands(Fence::TermCompare);
        let deposed = self.store.shelves.iter().any(|(id, shelf)| process.heads.get(id) != Some(&shelf.head));
        if deposed && compares && process.in_flight.is_none() {
            self.struck.count(Mishap::Deposed);
            return self.kill_coordinator(at);
        }
        self.agenda.put(self.now + LEASE / 3, Event::Verify(at));
    }

    /// Something happens that a coordinator's core is to know.
    pub(super) fn tell(&mut self, at: usize, event: core::Event) {
        if self.processes[at].alive {
            self.processes[at].inbox.push_back(event);
            self.agenda.put(self.now, Event::Pump(at));
        }
    }

    fn clock(&self, at: usize) -> Now {
        let monotonic = Monotonic::from_micros(self.now - self.processes[at].zero);
        Now { monotonic, processing: i64::try_from(self.now).unwrap_or(0) }
    }

    /// The core is stepped with what has come, unless the last steps are not durable yet.
    pub(super) fn pump(&mut self, at: usize) {
        let process = &self.processes[at];
        if process.in_flight.is_some() || (process.inbox.is_empty() && process.listens) {
            return;
        }
        // A start takes everything up in one transaction; later a few events share one.
        let most = if self.processes[at].listens { self.chance.between(1, 4) } else { u64::MAX };
        let now = self.clock(at);
        let mut actions = Vec::new();
        for _ in 0..most {
            let process = &mut self.processes[at];
            let Some(event) = process.inbox.pop_front() else { break };
            self.trace.line(self.now, || format!("core {at} <- {}", brief(&event)));
            actions.extend(process.core.step(now, event));
            self.steps += 1;
        }
        let mut transaction = Transaction::default();
        let mut effects = Vec::new();
        for action in actions {
            match action {
                Action::Journal(id, record) => transaction.records.push((id, record)),
                Action::TableRecord(id, output, record) => transaction.tables.push((id, output, record)),
                Action::WriteBlob(name, bytes) => drop(self.store.blobs.insert(name, bytes)),
                other => effects.push(other),
            }
        }
        if transaction.records.is_empty() && transaction.tables.is_empty() {
            self.durable(at, &transaction, effects);
        } else {
            let heads = &self.processes[at].heads;
            let named =
                transaction.records.iter().map(|(id, _)| id).chain(transaction.tables.iter().map(|(id, ..)| id));
            let expected = named.map(|id| (id.clone(), heads.get(id).copied().unwrap_or_default())).collect();
            transaction.expected = expected;
            self.processes[at].in_flight = Some((transaction, effects));
            self.submit(at);
        }
        if !self.processes[at].inbox.is_empty() {
            self.agenda.put(self.now, Event::Pump(at));
        }
    }

    fn submit(&mut self, at: usize) {
        let slow = self.strikes(Mishap::SlowTransaction, 15);
        let takes = if slow { self.chance.between(SECOND, 6 * SECOND) } else { self.chance.between(MILLI, 10 * MILLI) };
        self.agenda.put(self.now + takes, Event::Transaction(at));
    }

    /// A transaction reaches the store, whatever has become of its sender.
    pub(super) fn transact(&mut self, at: usize) {
        let Some((transaction, _)) = self.processes[at].in_flight.clone() else { return };
        let unheard = self.strikes(Mishap::LostTransactionReply, 6);
        let failed = self.strikes(Mishap::FailedTransaction, 15) || (unheard && self.chance.one_in(2));
        let compares = self.fences.stands(Fence::TermCompare);
        let done = !failed && self.store.write(&transaction, compares);
        if done {
            for (id, record) in &transaction.records {
                self.note(|| format!("journal {id:?} {}", brief(&record.kind)));
                self.oracle.recorded(id, record);
                if let Some(v1::record::Kind::Regenerated(_)) = record.kind {
                    self.struck.count(Mishap::MadeAnew);
                }
            }
        } else if !failed {
            self.struck.count(Mishap::Deposed);
        }
        let outcome = match (unheard, failed, done) {
            (true, ..) => Outcome::Unheard,
            (_, true, _) => Outcome::Failed,
            (_, _, true) => Outcome::Done,
            _ => Outcome::Refused,
        };
        let takes = self.chance.between(MILLI, 5 * MILLI);
        self.agenda.put(self.now + takes, Event::TransactionReply(at, outcome));
    }

    pub(super) fn transacted(&mut self, at: usize, outcome: Outcome) {
        match outcome {
            Outcome::Failed => self.submit(at),
            Outcome::Refused | Outcome::Unheard => self.kill_coordinator(at),
            Outcome::Done => {
                let Some((transaction, effects)) = self.processes[at].in_flight.take() else { return };
                self.processes[at].heads.extend(transaction.heads());
                self.durable(at, &transaction, effects);
                self.agenda.put(self.now, Event::Pump(at));
            }
        }
    }

    /// What some steps decided is durable: it may be known.
    fn durable(&mut self, at: usize, transaction: &Transaction, effects: Vec<Action>) {
        self.processes[at].listens = true;
        let touched: BTreeSet<BackfillId> = transaction.expected.keys().cloned().collect();
        for id in touched {
            let core = &self.processes[at].core;
            if let Some(backfill) = core.backfill(&id).filter(|_| self.is_current(at, &id)) {
                self.oracle.said(self.oracle.ix(&id), &core.status(backfill));
            }
        }
        // What an earlier step of these said of the gate, a retry in a later one has overtaken, on the same stream.
        let retried = |(id, record): &(BackfillId, v1::Record)| {
            matches!(record.kind, Some(v1::record::Kind::Retried(_))).then(|| id.clone())
        };
        let overtaken: BTreeSet<BackfillId> = transaction.records.iter().filter_map(retried).collect();
        for effect in effects {
            self.let_out(at, effect, &overtaken);
        }
        let wake = self.processes[at].core.next_wake();
        if let Some(due) = wake.filter(|due| self.processes[at].tick_at.is_none_or(|at| *due < at)) {
            self.processes[at].tick_at = Some(due);
            let due = self.processes[at].zero + due.as_micros();
            self.agenda.put(due.max(self.now), Event::Tick(at));
        }
    }

    pub(super) fn tick(&mut self, at: usize) {
        self.processes[at].tick_at = None;
        self.tell(at, core::Event::Tick);
    }

    /// Whether the newest term of a backfill is this coordinator's.
    fn is_current(&self, at: usize, id: &BackfillId) -> bool {
        self.processes[at].heads.get(id).is_some_and(|head| self.store.head(id).term == head.term)
    }

    fn let_out(&mut self, at: usize, effect: Action, overtaken: &BTreeSet<BackfillId>) {
        match effect {
            Action::Send(session, kind) => {
                self.note(|| format!("coordinator {at} -> {session}: {}", brief(&kind)));
                let of = self.backfill_of(&kind);
                let current = of.is_some_and(|id| !overtaken.contains(&id) && self.is_current(at, &id));
                self.oracle.sent(&kind, current);
                if let Some(link) = self.processes[at].sessions.get(&session).copied() {
                    self.send_down(link, Down::Kind(Box::new(kind)));
                }
            }
            Action::LoadSegment { id, source, segment, info } => {
                let found = self.store.blobs.get(&info.blob).cloned();
                let missing = self.strikes(Mishap::SegmentUnavailable, 60);
                let tasks = found.filter(|_| !missing).and_then(|bytes| self.segment(&id, &bytes));
                let takes = self.chance.between(MILLI, 200 * MILLI);
                let event = core::Event::SegmentLoaded(id, source, segment, tasks);
                self.agenda.put(self.now + takes, Event::Tell(at, Box::new(event)));
            }
            Action::Reply(RequestId(ix), Ok(core::Reply::Applied(_))) => {
                self.oracle.applied(usize::try_from(ix).unwrap_or(0));
            }
            Action::Reply(..) | Action::Journal(..) | Action::TableRecord(..) | Action::WriteBlob(..) => {}
        }
    }

    fn backfill_of(&self, kind: &v1::from_coordinator::Kind) -> Option<BackfillId> {
        use v1::from_coordinator::Kind;
        let name = match kind {
            Kind::Assign(assign) => &assign.backfill,
            Kind::Adopted(adopted) => &adopted.backfill,
            Kind::Gate(gate) => &gate.backfill,
            _ => return None,
        };
        name.parse().ok()
    }

    /// A plan segment's blob names its source and its place.
    fn segment(&self, id: &BackfillId, bytes: &Bytes) -> Option<Vec<v1::ReadTask>> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (source, at) = text.split_once('/')?;
        let order = &self.scenario.orders[self.oracle.ix(id)];
        let source = order.sources.get(source.parse::<usize>().ok()?)?;
        source.segments.get(at.parse::<usize>().ok()?).cloned()
    }

    /// A message of a worker arrives.
    pub(super) fn up(&mut self, link: usize) {
        let at = self.links[link].coordinator;
        let Some(message) = self.links[link].up.pop_front() else { return };
        if !self.processes[at].alive {
            return;
        }
        if let Up::Register(registration) = message {
            let process = &mut self.processes[at];
            process.next_session += 1;
            let session = SessionId::new(process.next_session);
            process.sessions.insert(session, link);
            self.links[link].session = Some(session);
            self.links[link].renewed = self.now;
            self.send_down(link, Down::Welcome);
            return self.tell(at, core::Event::Joined(session, registration));
        }
        let Some(session) = self.links[link].session else {
            return self.oracle.breaks(Invariant::Liveness, "a session began without a Register".to_owned());
        };
        let lease = |grant: Grant| LeaseRef { session, id: grant.id, task: grant.task, token: grant.token };
        let event = match message {
            Up::Register(_) => return,
            Up::Heartbeat(number, cursors, draining) => {
                self.links[link].renewed = self.now;
                core::Event::Heartbeat(session, number, cursors, draining)
            }
            Up::HandIn(grant, hand_in, released) => core::Event::HandIn(lease(grant), hand_in, released),
            Up::Segment(grant, segment) => core::Event::SegmentFound(lease(grant), segment),
            Up::Done(grant, result) => core::Event::Done(lease(grant), result),
            Up::Fail(grant, evidence) => core::Event::Failed(lease(grant), evidence),
            Up::Release(grant) => core::Event::Released(lease(grant)),
        };
        self.tell(at, event);
    }

    pub(super) fn coordinator_notices(&mut self, link: usize) {
        let at = self.links[link].coordinator;
        if let Some(session) = self.links[link].session {
            self.tell(at, core::Event::Left(session));
        }
    }

    /// The coordinator that a worker or an operator reaches: mostly the newest.
    pub(super) fn reachable(&mut self) -> Option<usize> {
        let listening = (0..self.processes.len()).filter(|at| self.processes[*at].listens);
        let listening: Vec<usize> = listening.collect();
        if self.chance.one_in(6) { self.chance.pick(&listening) } else { listening.last().copied() }
    }
}

fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.chars().take(400).collect()
}
