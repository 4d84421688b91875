//! What a step of the coordinator's core costs, and that it does not grow with the number of splits.
//!
//! A backfill with one aligned source of so many one-unit tasks runs on 16 workers of 16 slots. Each step is one event
//! of that run; only [`Core::step`] is timed, not the making of events nor what a driver does with the actions.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "what is measured here is processing time itself")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate_common::clock::Monotonic;
use tidegate_common::ids::{BackfillId, SessionId, TaskId};
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_coordinator::core::{
    Action, Config, Core, CoreOutput, CoreSpec, CursorReport, Event, FoundSegment, LeaseRef, Now, Registration,
    RequestId, Submission,
};
use tidegate_proto::convert;
use tidegate_proto::v1::{self, done, from_coordinator::Kind};

const WORKERS: u64 = 16;
const SLOTS: u32 = 16;
/// Tasks of a plan segment.
const SEGMENT: u64 = 4_096;
/// Event time of a task; a hundred thousand of them are within the drift, so the gate holds nobody for long.
const WIDTH: i64 = 1_000;
const DRIFT: i64 = 100_000 * WIDTH;

/// A run that stands still until it is told to go on.
struct Run {
    core: Core,
    id: BackfillId,
    tasks: u64,
    micros: u64,
    hand_ins: u64,
    held: VecDeque<LeaseRef>,
    /// Spent in the core, over how many steps.
    spent: Duration,
    steps: u64,
}

impl Run {
    /// A backfill of `tasks` tasks of which the first grants are out.
    fn new(tasks: u64) -> Self {
        let id = BackfillId::from_digest(&[7; 32]);
        let mut run = Self {
            core: Core::new(Config::default()),
            id: id.clone(),
            tasks,
            micros: 1,
            hand_ins: 0,
            held: VecDeque::new(),
            spent: Duration::ZERO,
            steps: 0,
        };
        let spec = CoreSpec {
            name: "bench".to_owned(),
            window: Window::new(EventTime::from_micros(0), EventTime::from_micros(i64::MAX - 1)).unwrap(),
            max_drift: Some(Span::from_micros(DRIFT)),
            allow_wide: false,
            sources: vec!["clicks".to_owned()],
            limited: false,
            disorderly: Vec::new(),
            outputs: vec![CoreOutput {
                name: "clicks".to_owned(),
                commit_every: Duration::from_secs(3_600),
                commit_bytes: u64::MAX,
                staged: false,
                replaces: false,
                dead_letters: None,
                late: Default::default(),
                late_of: None,
                slice: None,
                buckets: None,
                budget: None,
            }],
        };
        let submission = Submission {
            id,
            spec,
            spec_json: String::new(),
            reason: String::new(),
            allow_existing: true,
            expected: None,
        };
        run.step(Event::Submit(RequestId(1), submission));
        for worker in 0..WORKERS {
            let registration = Registration { worker: format!("worker-{worker}"), slots: SLOTS, held: Vec::new() };
            run.step(Event::Joined(SessionId::new(worker), registration));
        }
        let prepare = run.held.pop_front().unwrap();
        let output = v1::PreparedOutput { source: vec!["clicks".to_owned()], ..Default::default() };
        let prepared = v1::Prepared { version: 1, outputs: vec![output], ..Default::default() };
        run.step(Event::Done(prepare, done::Result::Prepared(prepared)));
        run.enumerate();
        run
    }

    fn enumerate(&mut self) {
        let lease = self.held.pop_front().unwrap();
        let segments = u32::try_from(self.tasks.div_ceil(SEGMENT)).unwrap();
        for index in 0..segments {
            let tasks = segment(self.tasks, index);
            let info = v1::record::SegmentInfo {
                low: tasks[0].units[0].low,
                tasks: u32::try_from(tasks.len()).unwrap(),
                units: tasks.len() as u64,
                ..Default::default()
            };
            let found = FoundSegment { index, info, bytes: bytes::Bytes::new() };
            self.step(Event::SegmentFound(lease.clone(), found));
        }
        let found = v1::Enumerated {
            version: 1,
            segments,
            tasks: self.tasks,
            units: self.tasks,
            rows_in_range: self.tasks * 10,
            widest_unit: WIDTH,
            ..Default::default()
        };
        self.step(Event::Done(lease, done::Result::Enumerated(found)));
    }

    /// One event, and the segments that it asks for.
    fn step(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.micros += 10;
            let processing = i64::try_from(self.micros).unwrap();
            let now = Now { monotonic: Monotonic::from_micros(self.micros), processing };
            let begun = Instant::now();
            let actions = self.core.step(now, event);
            self.spent += begun.elapsed();
            self.steps += 1;
            for action in actions {
                match action {
                    Action::Send(session, Kind::Assign(assign)) => self.assigned(session, &assign),
                    Action::LoadSegment { id, source, segment: ix, .. } => {
                        let tasks = segment(self.tasks, ix.get());
                        events.push(Event::SegmentLoaded(id, source, ix, Some(tasks)));
                    }
                    _ => {}
                }
            }
        }
    }

    fn assigned(&mut self, session: SessionId, assign: &v1::Assign) {
        let (task, token) = (convert::task_id(assign.task).unwrap(), convert::token(assign.token).unwrap());
        if !matches!(task, TaskId::Commit(..)) {
            self.held.push_back(LeaseRef { session, id: self.id.clone(), task, token });
        }
    }

    /// The task that was granted first is read to its end and handed in; another is granted in its place.
    fn hand_in(&mut self) {
        if self.held.is_empty() {
            let (spent, steps) = (self.spent, self.steps);
            *self = Self::new(self.tasks);
            (self.spent, self.steps) = (spent, steps);
        }
        let lease = self.held.pop_front().unwrap();
        self.hand_ins += 1;
        let file = v1::DataFile { path: format!("file-{}", self.hand_ins), rows: 10, bytes: 1_000 };
        let part = v1::OutputPart { rows_read: 10, rows_passed: 10, files: vec![file], ..Default::default() };
        let hand_in = v1::HandIn {
            attempt: format!("attempt-{}", self.hand_ins),
            number: 1,
            first_unit: 0,
            end_unit: 1,
            rows_read: 10,
            outputs: vec![part],
            ..Default::default()
        };
        self.step(Event::HandIn(lease, hand_in, false));
    }

    /// A worker says how far its reads are.
    fn heartbeat(&mut self, number: u64) {
        let session = SessionId::new(number % WORKERS);
        let of_it = self.held.iter().filter(|lease| lease.session == session);
        let cursors = of_it.filter_map(|lease| {
            let TaskId::Read(_, segment, at) = lease.task else { return None };
            let place = i64::from(segment.get()) * SEGMENT as i64 + i64::from(at);
            let cursor = EventTime::from_micros(place * WIDTH + i64::try_from(number % 1_000).unwrap_or(0));
            let (id, task, token) = (lease.id.clone(), lease.task, lease.token);
            Some(CursorReport { id, task, token, cursor, paused: false })
        });
        let cursors = cursors.collect();
        self.step(Event::Heartbeat(session, number, cursors, false));
    }
}

/// The tasks of a segment, of one unit of ten rows each.
fn segment(tasks: u64, index: u32) -> Vec<v1::ReadTask> {
    let first = u64::from(index) * SEGMENT;
    let task = |at: u64| {
        let low = i64::try_from(at).unwrap() * WIDTH;
        let unit = v1::UnitOfWork { rows: 10, low, high: low + WIDTH - 1, ..Default::default() };
        v1::ReadTask { splits: Vec::new(), units: vec![unit] }
    };
    (first..tasks.min(first + SEGMENT)).map(task).collect()
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core step");
    group.sample_size(20);
    for tasks in [1_000, 10_000, 100_000, 1_000_000] {
        group.bench_with_input(BenchmarkId::new("hand-in and grant", tasks), &tasks, |bencher, tasks| {
            let mut run = Run::new(*tasks);
            bencher.iter_custom(|times| timed(&mut run, times, |run, _| run.hand_in()));
        });
        group.bench_with_input(BenchmarkId::new("heartbeat of 16 cursors", tasks), &tasks, |bencher, tasks| {
            let mut run = Run::new(*tasks);
            bencher.iter_custom(|times| timed(&mut run, times, Run::heartbeat));
        });
    }
    group.finish();
}

/// What the core spent on `times` rounds.
fn timed(run: &mut Run, times: u64, mut round: impl FnMut(&mut Run, u64)) -> Duration {
    run.spent = Duration::ZERO;
    for number in 0..times {
        round(run, number);
    }
    run.spent
}

criterion_group!(benches, steps);
criterion_main!(benches);
