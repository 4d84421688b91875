//! The oracle: a model of its own of what is durable, read and in the tables; it checks every [`Invariant`].
//!
//! It shares no code with the core. It is told of each durable write, each message that goes out, each unit that is
//! begun, each commit that lands and each file that is deleted, and remembers the first invariant that broke.

mod doubts;
mod joins;
mod journal;
mod lake;
mod reading;
mod regenerating;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_common::ids::{BackfillId, TaskId, Token};
use tidegate_coordinator::core::CoreOutput;
use tidegate_proto::v1;

use super::invariants::{Invariant, Violation};
use super::joins::Row;
use super::scenario::{Micros, Order, tasks};
use doubts::Doubt;
use joins::JoinBook;

/// A unit of the plan.
#[derive(Clone, Copy, Debug)]
struct Unit {
    low: i64,
    high: i64,
    rows: u64,
}

/// What is known of a read task.
#[derive(Clone, Debug)]
struct TaskBook {
    units: Vec<Unit>,
    /// The first unit that is in no accepted hand-in.
    next: u32,
    parked: bool,
    /// The highest token that it was granted under.
    granted: Option<Token>,
}

/// What is known of an output.
#[derive(Clone, Debug)]
struct OutputBook {
    sequence: u64,
    /// Whether the last intent's end is proven.
    ended: bool,
    sealed_to: u64,
    through: i64,
    /// The files of each accepted hand-in that has any, by log position.
    log: BTreeMap<u64, Vec<v1::DataFile>>,
    passed: u64,
    read: u64,
    /// Markers of the intents that were journalled as fenced or cancelled.
    fenced: BTreeSet<String>,
    staged: bool,
    replaces: bool,
    /// The term in which the last intent was given up, while it is open.
    doomed: Option<u64>,
    /// The last intent.
    intent: v1::Intent,
}

/// What is known of a backfill.
#[derive(Clone, Debug)]
pub(super) struct Book {
    order: Order,
    tasks: BTreeMap<TaskId, TaskBook>,
    tokens: BTreeSet<Token>,
    hand_ins: BTreeSet<(String, u64)>,
    outputs: Vec<OutputBook>,
    joins: Option<JoinBook>,
    /// Units that nobody has read through yet, parked ones left out.
    unread: BTreeSet<(i64, TaskId, u32)>,
    read_through: BTreeSet<(TaskId, u32)>,
    term: u64,
    log: u64,
    pub(super) created: bool,
    pub(super) phase: v1::Phase,
    pub(super) wish: v1::Wish,
    /// Whether what is staged goes to main.
    publishing: bool,
    complete: i64,
    throughs: Vec<i64>,
    /// How many records are durable, and what the core said of itself then.
    fingerprint: (usize, String),
    records: usize,
}

/// What was once written under a path.
#[derive(Clone, Debug)]
struct FileBook {
    attempt: String,
    deleted: bool,
    accepted: bool,
}

/// An attempt at a read task.
#[derive(Clone, Debug)]
struct AttemptBook {
    backfill: usize,
    task: TaskId,
    token: Token,
    refused: bool,
    /// Since when nothing of it can be accepted any more.
    condemned: Option<Micros>,
}

/// What a table's history holds.
#[derive(Clone, Debug, Default)]
struct History {
    /// The snapshot of each marker (its key and itself) that has landed.
    markers: BTreeMap<(String, String), i64>,
    files: BTreeSet<String>,
    tampered: bool,
    /// Whether somebody else wrote into the backfills' windows.
    intruded: bool,
    /// Fences that landed, and the branch that each stands on, by the names of the markers.
    fences: BTreeSet<(String, String)>,
    /// The files on each staging branch, by the marker's key.
    branches: BTreeMap<String, BTreeSet<String>>,
    /// Those of which somebody has since removed every trace: the property and the snapshots.
    forgotten: BTreeSet<(String, String)>,
}

/// The oracle.
#[derive(Debug)]
pub(super) struct Oracle {
    now: Micros,
    pub(super) violation: Option<Violation>,
    pub(super) books: Vec<Book>,
    ix: BTreeMap<BackfillId, usize>,
    files: BTreeMap<String, FileBook>,
    attempts: BTreeMap<String, AttemptBook>,
    /// The objects that each attempt at a join reads.
    joins_read: BTreeMap<String, BTreeSet<(usize, String)>>,
    /// The anchor's rows in each file that a join wrote.
    joined_rows: BTreeMap<String, Vec<Row>>,
    history: Vec<History>,
    doubts: Vec<Doubt>,
}

impl Oracle {
    pub(super) fn new(orders: &[Order], tables: usize) -> Self {
        Self {
            now: 0,
            violation: None,
            books: orders.iter().map(Book::new).collect(),
            ix: orders.iter().enumerate().map(|(ix, order)| (order.id.clone(), ix)).collect(),
            files: BTreeMap::new(),
            attempts: BTreeMap::new(),
            joins_read: BTreeMap::new(),
            joined_rows: BTreeMap::new(),
            history: vec![History::default(); tables],
            doubts: Vec::new(),
        }
    }

    pub(super) fn breaks(&mut self, invariant: Invariant, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, what, at: self.now });
        }
    }

    fn require(&mut self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
        if !holds {
            self.breaks(invariant, what());
        }
    }

    /// The place of a backfill among those of the scenario.
    pub(super) fn ix(&self, id: &BackfillId) -> usize {
        self.ix.get(id).copied().unwrap_or(0)
    }

    /// Whether a backfill has ended, durably.
    pub(super) fn is_over(&self, ix: usize) -> bool {
        let running = [v1::Phase::Preparing, v1::Phase::Enumerating, v1::Phase::Running, v1::Phase::Staged];
        self.books[ix].created && !running.contains(&self.books[ix].phase)
    }

    /// What the core says of a backfill just when everything it has decided is durable.
    pub(super) fn said(&mut self, ix: usize, status: &v1::Backfill) {
        let book = &mut self.books[ix];
        let mut fell = Vec::new();
        if let Some(complete) = status.complete_watermark {
            if complete < book.complete {
                fell.push(format!("complete watermark of {:?} from {} to {complete}", book.order.id, book.complete));
            }
            book.complete = complete;
        }
        for (seen, output) in book.throughs.iter_mut().zip(&status.outputs) {
            let through = output.committed_through.unwrap_or(i64::MIN);
            if through < *seen {
                fell.push(format!("committed-through of {} from {seen} to {through}", output.name));
            }
            *seen = through;
        }
        book.fingerprint = (book.records, fingerprint(status));
        for what in fell {
            self.breaks(Invariant::WatermarksRise, what);
        }
        self.join_said(ix, status);
    }

    /// What the core says of a backfill that it has just folded from its journal.
    pub(super) fn restored(&mut self, ix: usize, status: &v1::Backfill) {
        let book = &self.books[ix];
        let (records, before) = &book.fingerprint;
        let after = fingerprint(status);
        let differs = *records == book.records && *before != after;
        if differs {
            let what = format!("{:?} was\n{before}\nand is restored as\n{after}", book.order.id);
            self.breaks(Invariant::FoldEquality, what);
        }
    }

    /// The mishaps have ended long ago: how did everything end?
    pub(super) fn at_last(&mut self) {
        for ix in 0..self.books.len() {
            let book = &self.books[ix];
            let (id, phase, wish) = (book.order.id.clone(), book.phase, book.wish);
            if [v1::Phase::Succeeded, v1::Phase::Cancelled].contains(&phase) {
                self.left_nothing(ix);
            }
            if !self.is_over(ix) {
                self.breaks(Invariant::Liveness, format!("{id:?} is still {phase:?}, wish {wish:?}"));
            }
        }
    }

    /// Whether somebody has written into a window that a backfill replaces, so that it may fail.
    pub(super) fn is_intruded(&self, ix: usize) -> bool {
        let book = &self.books[ix];
        let tables = book.outputs.iter().zip(&book.order.tables).filter(|(output, _)| output.replaces);
        book.created && tables.into_iter().any(|(_, table)| self.history[*table].intruded)
    }

    /// Whether somebody has tampered with a table of a backfill, so that it may fail.
    fn is_tampered(&self, ix: usize) -> bool {
        self.books[ix].order.tables.iter().any(|table| self.history[*table].tampered)
    }
}

/// The durable part of what the core says.
fn fingerprint(status: &v1::Backfill) -> String {
    let v1::Backfill { phase, wish, term, created, updated, ended, outputs, parked, failure, .. } = status;
    let sources: Vec<_> = status
        .sources
        .iter()
        .map(|source| (source.tasks_done, source.units_done, source.rows_read, source.bytes_read, source.max_skew))
        .collect();
    let mut outputs = outputs.clone();
    for join in outputs.iter_mut().filter_map(|output| output.join.as_mut()) {
        (join.running, join.slices_ready) = (0, 0);
    }
    format!("{phase} {wish} {term} {created} {updated} {ended} {sources:?} {outputs:?} {parked:?} {failure:?}")
}

impl Book {
    fn new(order: &Order) -> Self {
        let unit = |unit: &v1::UnitOfWork| Unit { low: unit.low, high: unit.high, rows: unit.rows };
        let book = |task: v1::ReadTask| TaskBook {
            units: task.units.iter().map(unit).collect(),
            next: 0,
            parked: false,
            granted: None,
        };
        let tasks: BTreeMap<TaskId, TaskBook> =
            tasks(&order.sources).into_iter().map(|(id, task)| (id, book(task))).collect();
        let units =
            tasks.iter().flat_map(|(id, task)| task.units.iter().zip(0u32..).map(|(unit, at)| (unit.low, *id, at)));
        let output = |spec: &CoreOutput| OutputBook {
            staged: spec.staged,
            replaces: spec.replaces,
            doomed: None,
            sequence: 0,
            ended: true,
            sealed_to: 0,
            through: i64::MIN,
            log: BTreeMap::new(),
            passed: 0,
            read: 0,
            fenced: BTreeSet::new(),
            intent: v1::Intent::default(),
        };
        Self {
            unread: units.collect(),
            tasks,
            tokens: BTreeSet::new(),
            hand_ins: BTreeSet::new(),
            outputs: order.spec.outputs.iter().map(output).collect(),
            joins: order.joins.clone().map(JoinBook::new),
            read_through: BTreeSet::new(),
            term: 0,
            log: 0,
            created: false,
            phase: v1::Phase::Preparing,
            wish: v1::Wish::Run,
            publishing: false,
            complete: i64::MIN,
            throughs: vec![i64::MIN; order.reads.len()],
            fingerprint: (0, String::new()),
            records: 0,
            order: order.clone(),
        }
    }

    /// The lowest low of a source's units that are in no accepted hand-in.
    fn lowest_unaccepted(&self, source: u32) -> i64 {
        let of_source = |task: &TaskId| matches!(task, TaskId::Read(of, ..) if of.get() == source);
        let open = self
            .tasks
            .iter()
            .filter(|(task, _)| of_source(task))
            .flat_map(|(_, book)| book.units.iter().skip(book.next as usize).map(|unit| unit.low));
        open.min().unwrap_or(i64::MAX)
    }
}
