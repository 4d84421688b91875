//! A read task on the bench: a scripted source, outputs in memory, and the session's end of its context.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use futures::stream::BoxStream;
use tidegate_common::gate::Gate;
use tidegate_common::ids::{BackfillId, SegmentIx, SourceIx, TaskId};
use tidegate_common::spec::RateLimit;
use tidegate_common::spec::model::OnError;
use tidegate_common::time::{Bounds, Span};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::super::*;
use crate::source::{DeadRecord, RawAs, SourceBatch, SourceError};
use crate::task::dead_letter::Letterhead;
use crate::task::{Clock, Desk, Lease, Report, RunId};

/// A row is its event time; its id is its place among all rows.
pub(super) type Row = Option<i64>;

pub(super) const BUDGET: u64 = 1 << 20;

pub(super) fn at(micros: i64) -> EventTime {
    EventTime::from_micros(micros)
}

/// The rows that a part's files hold.
pub(super) fn ids(part: &v1::OutputPart) -> Vec<i64> {
    part.iceberg.chunks(8).map(|id| i64::from_le_bytes(id.try_into().unwrap())).collect()
}

#[allow(clippy::disallowed_methods)]
fn clock() -> Clock {
    let zero = tokio::time::Instant::now();
    Clock::reading(move || Monotonic::from_micros(1).after(zero.elapsed()))
}

pub(super) struct Bench {
    units: Arc<Vec<Vec<(i64, Row)>>>,
    begun: Arc<Mutex<Vec<usize>>>,
    reports: mpsc::Receiver<Report>,
    reports_in: mpsc::Sender<Report>,
    cursor: watch::Receiver<Option<Cursor>>,
    pub(super) task: v1::ReadTask,
    pub(super) window: Window,
    pub(super) on_error: OnError,
    pub(super) gate: watch::Sender<Gate>,
    pub(super) wish: watch::Sender<Wish>,
    pub(super) lease: Lease,
    pub(super) budget: Budget,
    pub(super) full_at: usize,
    pub(super) doubles: bool,
    /// Whether outputs keep their memory until they are closed.
    pub(super) clings: bool,
    /// How often an output gave its memory back.
    pub(super) relieved: Arc<AtomicUsize>,
    /// Whether the second reading of a unit finds nothing.
    pub(super) forgets: bool,
    /// What the source fetches ahead.
    pub(super) ahead: u64,
    pub(super) rate_limit: RateLimit,
}

impl Bench {
    pub(super) fn new(units: Vec<Vec<Row>>) -> Self {
        let mut id = 0..;
        let mut units: Vec<Vec<(i64, Row)>> = units.into_iter().map(|rows| id.by_ref().zip(rows).collect()).collect();
        units.sort_by_key(|rows| rows.iter().filter_map(|(_, at)| *at).min());
        let unit = |(position, rows): (usize, &Vec<(i64, Row)>)| v1::UnitOfWork {
            position: position as u64,
            rows: rows.len() as u64,
            bytes: 100,
            low: rows.iter().filter_map(|(_, at)| *at).min().unwrap_or(0),
            high: rows.iter().filter_map(|(_, at)| *at).max().unwrap_or(0),
            ..Default::default()
        };
        let file = v1::FilePin { path: "/in/a".to_owned(), ..Default::default() };
        let task = v1::ReadTask {
            splits: vec![v1::Split { file: Some(file), ..Default::default() }],
            units: units.iter().enumerate().map(unit).collect(),
        };
        let (reports_in, reports) = mpsc::channel(4);
        let lease = Lease::over(clock());
        lease.set(Monotonic::from_micros(u64::MAX));
        Self {
            units: Arc::new(units),
            begun: Arc::default(),
            reports,
            reports_in,
            cursor: watch::channel(None).1,
            task,
            window: Window::ALL,
            on_error: OnError::Fail,
            gate: watch::Sender::new(Gate::OPEN),
            wish: watch::Sender::new(Wish::Run),
            lease,
            budget: Budget::new(BUDGET),
            full_at: usize::MAX,
            doubles: false,
            clings: false,
            relieved: Arc::default(),
            forgets: false,
            ahead: 0,
            rate_limit: RateLimit::default(),
        }
    }

    /// Clamps the units' bounds to the window, as a planner does; one that lies outside stands at its nearest point.
    pub(super) fn clamp(&mut self) {
        let (first, last) = (self.window.from().as_micros(), self.window.to().as_micros() - 1);
        for unit in &mut self.task.units {
            (unit.low, unit.high) = (unit.low.clamp(first, last), unit.high.clamp(first, last));
        }
    }

    /// Starts an attempt at `next_unit`.
    pub(super) fn start(&mut self, next_unit: u32) -> JoinHandle<Result<TaskEnd, TaskError>> {
        let (context, job) = (self.context(), self.job(next_unit));
        let keeps = self.on_error == OnError::DeadLetter;
        let source = Box::new(self.script(self.begun.clone(), self.units.clone()));
        let again = if self.forgets { Arc::new(vec![Vec::new(); self.units.len()]) } else { self.units.clone() };
        let letterhead = Letterhead { source: "s".to_owned(), backfill: "bf".to_owned(), read_at: 0 };
        let whole = Box::new(self.script(Arc::default(), again));
        let dead_letters = keeps.then_some(DeadLetters { output: OutputIx::new(2), letterhead, whole });
        let port = |output: u32, every: i64| self.port(output, every);
        let (mut outputs, budget) = (vec![port(0, 1), port(1, 3)], self.budget.clone());
        outputs.extend(keeps.then(|| port(2, 1)));
        tokio::spawn(async move { read(context, job, source, outputs, dead_letters, &budget).await })
    }

    /// Starts to read all units once more, at no gate, into an output that keeps every row.
    pub(super) fn start_again(&mut self) -> JoinHandle<Result<Closed, TaskError>> {
        let (context, job, budget) = (self.context(), self.job(0), self.budget.clone());
        let source = Box::new(self.script(self.begun.clone(), self.units.clone()));
        let output = self.port(0, 1);
        tokio::spawn(async move { read_again(context, job, source, output, &budget).await })
    }

    fn context(&mut self) -> TaskContext {
        let (cursor, cursors) = watch::channel(None);
        self.cursor = cursors;
        TaskContext {
            backfill: BackfillId::from_digest(&[1; 32]),
            info: Arc::default(),
            task: TaskId::Read(SourceIx::new(0), SegmentIx::new(0), 0),
            work: v1::assign::Work::Read(v1::ReadWork::default()),
            attempt: "attempt".to_owned(),
            gate: self.gate.subscribe(),
            readers: watch::channel(Vec::new()).1,
            wish: self.wish.subscribe(),
            lease: self.lease.clone(),
            granted: v1::Token::default(),
            desk: Desk { run: RunId(0), reports: self.reports_in.clone(), cursor, moved: Arc::new(Notify::new()) },
        }
    }

    fn job(&self, next_unit: u32) -> ReadJob {
        ReadJob {
            source: SourceIx::new(0),
            task: self.task.clone(),
            next_unit,
            window: self.window,
            rate_limit: self.rate_limit,
            fences: Fences::default(),
        }
    }

    fn script(&self, begun: Arc<Mutex<Vec<usize>>>, units: Arc<Vec<Vec<(i64, Row)>>>) -> Scripted {
        Scripted {
            units,
            window: self.window,
            begun,
            gate: self.gate.subscribe(),
            cursor: self.cursor.clone(),
            keeps: self.on_error == OnError::DeadLetter,
            ahead: self.ahead,
        }
    }

    fn port(&self, output: u32, every: i64) -> Box<dyn OutputPort> {
        let Self { full_at, doubles, clings, .. } = *self;
        let relieved = self.relieved.clone();
        Box::new(Memory { output, every, held: Vec::new(), full_at, doubles, ended: 0, clings, relieved })
    }

    pub(super) fn begun(&self) -> Vec<usize> {
        self.begun.lock().unwrap().clone()
    }

    pub(super) async fn cursor(&mut self, cursor: Cursor) {
        self.cursor.wait_for(|held| *held == Some(cursor)).await.unwrap();
    }

    pub(super) async fn handed_in(&mut self) -> (v1::HandIn, bool, oneshot::Sender<Verdict>) {
        match self.reports.recv().await.unwrap() {
            Report::HandIn { hand_in, released, reply, .. } => (hand_in, released, reply),
            Report::Segment { .. } | Report::End { .. } => panic!("no hand-in"),
        }
    }

    /// A hand-in, if there is one once everybody had a turn.
    pub(super) async fn poll_handed_in(&mut self) -> Option<(v1::HandIn, bool, oneshot::Sender<Verdict>)> {
        tokio::select! {
            biased;
            handed_in = self.handed_in() => Some(handed_in),
            () = tokio::task::yield_now() => None,
        }
    }

    pub(super) async fn accept(&mut self) -> v1::HandIn {
        let (hand_in, _, reply) = self.handed_in().await;
        reply.send(Verdict::Accepted).unwrap();
        hand_in
    }

    /// What the coordinator would do, with the other sources at `others`.
    pub(super) fn move_gate(&self, others: EventTime, drift: Option<i64>) {
        let own = self.cursor.borrow().map_or(EventTime::MIN, |cursor| cursor.at);
        let gate = Gate::new(own.min(others), drift.map(Span::from_micros));
        self.gate.send_if_modified(|held| std::mem::replace(held, gate) != gate);
    }

    /// The account: every row once, in every output that wants it, and every count as an independent count has it.
    pub(super) fn check(&self, taken: &[v1::HandIn], drift: Option<i64>) {
        let inside = |row: &Row| row.is_some_and(|time| self.window.contains(at(time)));
        let rows: Vec<(i64, Row)> = self.units.iter().flatten().copied().collect();
        for (place, every) in [(0, 1), (1, 3)] {
            let mut wanted: Vec<i64> =
                rows.iter().filter(|(id, row)| inside(row) && id % every == 0).map(|(id, _)| *id).collect();
            let mut got: Vec<i64> = taken.iter().flat_map(|hand_in| ids(&hand_in.outputs[place])).collect();
            wanted.sort_unstable();
            got.sort_unstable();
            assert_eq!(got, wanted, "output {place}");
        }
        let mut lost: Vec<i64> = rows.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| *id).collect();
        let mut kept: Vec<i64> = taken.iter().flat_map(|hand_in| ids(&hand_in.outputs[2])).collect();
        lost.sort_unstable();
        kept.sort_unstable();
        assert_eq!(kept, lost, "dead letters");
        let sum = |of: fn(&v1::HandIn) -> u64| taken.iter().map(of).sum::<u64>();
        let dead = rows.iter().filter(|(_, row)| row.is_none()).count();
        let outside = rows.iter().filter(|(_, row)| row.is_some() && !inside(row)).count();
        assert_eq!(sum(|hand_in| hand_in.rows_read), rows.len() as u64);
        assert_eq!(sum(|hand_in| hand_in.rows_dead_letter), dead as u64);
        assert_eq!(sum(|hand_in| hand_in.rows_outside), outside as u64);
        for (hand_in, part) in taken.iter().flat_map(|hand_in| hand_in.outputs.iter().map(move |part| (hand_in, part)))
        {
            assert_eq!(part.rows_read, hand_in.rows_read);
            assert_eq!(part.rows_read, part.rows_passed + part.rows_filtered + part.rows_late + part.rows_dead_letter);
        }
        let widest = self.task.units.iter().map(|unit| unit.high - unit.low).max().unwrap_or(0);
        if let Some(drift) = drift {
            let skew = taken.iter().map(|hand_in| hand_in.max_skew).max().unwrap_or(0);
            assert!(skew <= drift.max(widest), "skew {skew} with drift {drift} and units of {widest}");
        }
    }
}

struct Scripted {
    units: Arc<Vec<Vec<(i64, Row)>>>,
    window: Window,
    begun: Arc<Mutex<Vec<usize>>>,
    gate: watch::Receiver<Gate>,
    cursor: watch::Receiver<Option<Cursor>>,
    /// Whether dead letters are kept: of the rows without event time, every second is then one before it is a row.
    keeps: bool,
    ahead: u64,
}

fn letter(id: i64) -> DeadRecord {
    let raw = format!("{{\"id\":{id}}}").into();
    DeadRecord::new(0, &raw, RawAs::Json, "torn".to_owned())
}

#[async_trait]
impl UnitReader for Scripted {
    fn ahead_bytes(&self) -> u64 {
        self.ahead
    }

    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
        let bounds = Bounds::new(at(unit.low), at(unit.high)).unwrap();
        let gate = *self.gate.borrow();
        let promises = self.cursor.borrow().is_some();
        assert!(gate.permits(bounds) || !promises, "{bounds:?} was begun at {gate:?}");
        let position = usize::try_from(unit.position).unwrap();
        self.begun.lock().unwrap().push(position);
        let batches: Vec<Vec<(i64, Row)>> = self.units[position].chunks(3).map(<[_]>::to_vec).collect();
        let (cursor, window, keeps) = (self.cursor.clone(), self.window, self.keeps);
        let batches = futures::stream::iter(batches).then(move |rows| {
            // What is read again promises nothing.
            let promise = cursor.borrow().map_or(EventTime::MIN, |cursor| cursor.at);
            let planned = |time: &EventTime| window.contains(*time) && bounds.contains(*time);
            let kept = rows.iter().filter_map(|(_, time)| time.map(at)).filter(planned);
            kept.for_each(|time| assert!(time >= promise, "{time} breaks the promise of {promise}"));
            let (torn, rows): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|(id, time)| keeps && time.is_none() && id % 2 == 1);
            let dead = torn.into_iter().map(|(id, _)| letter(id)).collect();
            async move {
                tokio::task::yield_now().await;
                let ids: Int64Array = rows.iter().map(|(id, _)| Some(*id)).collect();
                let event_time: Int64Array = rows.iter().map(|(_, time)| *time).collect();
                let rows = RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef)]).unwrap();
                Ok(SourceBatch::of(rows, event_time, dead))
            }
        });
        Ok(batches.boxed())
    }
}

/// Keeps every `every`th row, by id.
struct Memory {
    output: u32,
    every: i64,
    held: Vec<i64>,
    full_at: usize,
    doubles: bool,
    /// How many rows take no memory any more.
    ended: usize,
    clings: bool,
    relieved: Arc<AtomicUsize>,
}

#[async_trait]
impl OutputPort for Memory {
    fn output(&self) -> OutputIx {
        OutputIx::new(self.output)
    }

    async fn push(&mut self, rows: &RecordBatch, times: &Int64Array) -> Result<RecordBatch, TaskError> {
        assert_eq!((times.len(), times.iter().flatten().count()), (rows.num_rows(), rows.num_rows()));
        if self.doubles {
            return Ok(concat_batches(&rows.schema(), [rows, rows]).unwrap());
        }
        let ids = rows.column(0).as_primitive::<Int64Type>();
        Ok(filter_record_batch(rows, &ids.iter().map(|id| id.map(|id| id % self.every == 0)).collect()).unwrap())
    }

    async fn write(&mut self, rows: RecordBatch) -> Result<(), TaskError> {
        tokio::task::yield_now().await;
        if let Some(raw) = rows.column_by_name("raw") {
            let id = |raw: &[u8]| serde_json::from_slice::<serde_json::Value>(raw).unwrap()["id"].as_i64().unwrap();
            self.held.extend(raw.as_binary::<i32>().iter().flatten().map(id));
            return Ok(());
        }
        self.held.extend(rows.column(0).as_primitive::<Int64Type>().values());
        Ok(())
    }

    fn draw_files(&mut self, _: u64, _: &[u64]) {}

    async fn due(&mut self) -> Result<Due, TaskError> {
        Ok(if self.held.len() >= self.full_at { Due::Ripe } else { Due::Free })
    }

    async fn relieve(&mut self) -> Result<(), TaskError> {
        self.relieved.fetch_add(1, Ordering::SeqCst);
        self.ended = if self.clings { 0 } else { self.held.len() };
        Ok(())
    }

    fn buffered_bytes(&self) -> u64 {
        // So much that two tasks with rows use up the budget.
        if self.held.is_empty() || self.ended == self.held.len() { 0 } else { BUDGET / 3 }
    }

    async fn close(&mut self) -> Result<Closed, TaskError> {
        let rows = self.held.len() as u64;
        let iceberg: Vec<u8> = self.held.drain(..).flat_map(i64::to_le_bytes).collect();
        let file = v1::DataFile { path: "memory".to_owned(), rows, bytes: rows * 8 };
        Ok(Closed { files: vec![file], iceberg: iceberg.into(), shuffled: None })
    }
}
