//! A core on a bench: one backfill, a journal in memory, segments that are served at once, and workers without minds.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_common::ids::{Epoch, SegmentIx, SourceIx, Term, Token};
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_proto::convert;
use tidegate_proto::v1::{done, from_coordinator::Kind};

use crate::core::*;

/// Whom a task is granted to, and under which token.
pub(super) type Held = (SessionId, TaskId, Token);

pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) id: BackfillId,
    pub(super) spec: CoreSpec,
    /// What a saved plan says, the next time that it is applied.
    pub(super) expected: Option<v1::ExpectedPlan>,
    pub(super) journal: Vec<v1::Record>,
    /// Everything sent, in order.
    pub(super) sent: Vec<(SessionId, Kind)>,
    /// Which segments were asked for, in order.
    pub(super) asked: Vec<(SourceIx, SegmentIx)>,
    plan: BTreeMap<(SourceIx, SegmentIx), Vec<v1::ReadTask>>,
    /// Whether segments cannot be had now.
    pub(super) withheld: bool,
    pub(super) micros: u64,
    present: Vec<u64>,
    refusal: Option<Refusal>,
}

/// A task of units with these bounds, of ten rows each.
pub(super) fn task(units: &[(i64, i64)]) -> v1::ReadTask {
    let unit = |(low, high): &(i64, i64)| v1::UnitOfWork { rows: 10, low: *low, high: *high, ..Default::default() };
    v1::ReadTask { splits: Vec::new(), units: units.iter().map(unit).collect() }
}

pub(super) fn read(source: u32, segment: u32, at: u32) -> TaskId {
    TaskId::Read(SourceIx::new(source), SegmentIx::new(segment), at)
}

pub(super) fn worker(number: u64) -> SessionId {
    SessionId::new(number)
}

/// The hand-in of units `[first, end)` of ten rows each, by which the one output gains a file.
pub(super) fn hand_in(attempt: &str, number: u64, first: u32, end: u32) -> v1::HandIn {
    let rows = u64::from(end.saturating_sub(first)) * 10;
    let file = v1::DataFile { path: format!("{attempt}/{number}"), rows, bytes: rows };
    let part = v1::OutputPart { rows_read: rows, rows_passed: rows, files: vec![file], ..Default::default() };
    v1::HandIn {
        attempt: attempt.to_owned(),
        number,
        first_unit: first,
        end_unit: end,
        rows_read: rows,
        outputs: vec![part],
        ..Default::default()
    }
}

pub(super) fn poison() -> v1::Evidence {
    v1::Evidence { class: v1::Failure::Poison.into(), message: "bad bytes".to_owned(), ..Default::default() }
}

impl Bench {
    /// A backfill of `sources` sources whose output reads the first, with nobody to run it.
    pub(super) fn new(sources: usize, max_drift: Option<i64>, allow_wide: bool) -> Self {
        Self::of(&[(false, false)], sources, max_drift, allow_wide, true)
    }

    /// One with these outputs, each `(staged, replaces)`; all of them read the first source.
    pub(super) fn of(
        outputs: &[(bool, bool)],
        sources: usize,
        max_drift: Option<i64>,
        allow_wide: bool,
        allow_existing: bool,
    ) -> Self {
        Self::submitted(Self::spec(outputs, sources, max_drift, allow_wide), allow_existing)
    }

    /// What `sources` sources are to become, before it is submitted.
    pub(super) fn idle(sources: usize) -> Self {
        Self::unsubmitted(Self::spec(&[(false, false)], sources, None, true))
    }

    pub(super) fn spec(outputs: &[(bool, bool)], sources: usize, max_drift: Option<i64>, allow_wide: bool) -> CoreSpec {
        let output = |(staged, replaces): &(bool, bool)| CoreOutput {
            name: "out".to_owned(),
            commit_every: Duration::from_secs(60),
            commit_bytes: u64::MAX,
            staged: *staged,
            replaces: *replaces,
            dead_letters: None,
            late: Default::default(),
            late_of: None,
            slice: None,
            buckets: None,
            budget: None,
        };
        CoreSpec {
            name: "b".to_owned(),
            window: Window::new(EventTime::from_micros(0), EventTime::from_micros(1_000_000)).unwrap(),
            max_drift: max_drift.map(Span::from_micros),
            allow_wide,
            sources: (0..sources).map(|at| format!("s{at}")).collect(),
            limited: false,
            outputs: outputs.iter().map(output).collect(),
            disorderly: Vec::new(),
        }
    }

    /// A backfill of `spec`, with nobody to run it.
    pub(super) fn submitted(spec: CoreSpec, allow_existing: bool) -> Self {
        let mut bench = Self::unsubmitted(spec);
        bench.submit(allow_existing);
        bench
    }

    fn unsubmitted(spec: CoreSpec) -> Self {
        let id = BackfillId::from_digest(&[7; 32]);
        Self {
            core: Core::new(Config::default()),
            id,
            spec,
            expected: None,
            journal: Vec::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            plan: BTreeMap::new(),
            withheld: false,
            micros: 1,
            present: Vec::new(),
            refusal: None,
        }
    }

    /// Why the last submission or change was refused.
    pub(super) fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// The spec is applied, for the first time or once more.
    pub(super) fn submit(&mut self, allow_existing: bool) {
        let (id, spec) = (self.id.clone(), self.spec.clone());
        let submission = Submission {
            id,
            spec,
            spec_json: String::new(),
            reason: String::new(),
            allow_existing,
            expected: self.expected.clone().map(Box::new),
        };
        self.step(Event::Submit(RequestId(1), submission));
    }

    /// A backfill that runs, with these outputs, each `(staged, replaces)`.
    pub(super) fn running_to(
        outputs: &[(bool, bool)],
        plan: &[Vec<Vec<v1::ReadTask>>],
        max_drift: Option<i64>,
    ) -> Self {
        let mut bench = Self::of(outputs, plan.len(), max_drift, true, true);
        bench.join(1, 4, Vec::new());
        bench.plan(plan);
        bench
    }

    /// A backfill that runs: `plan` is source by source, segment by segment. One worker with `slots` is there: 1.
    pub(super) fn running(plan: &[Vec<Vec<v1::ReadTask>>], max_drift: Option<i64>, slots: u32) -> Self {
        let mut bench = Self::new(plan.len(), max_drift, true);
        bench.join(1, slots, Vec::new());
        bench.plan(plan);
        bench
    }

    fn plan(&mut self, plan: &[Vec<Vec<v1::ReadTask>>]) {
        self.prepare();
        for (source, segments) in (0u32..).zip(plan) {
            self.enumerate(source, segments);
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let monotonic = Monotonic::from_micros(self.micros);
            let processing = i64::try_from(self.micros).unwrap();
            for action in self.core.step(Now { monotonic, processing }, event) {
                match action {
                    Action::Journal(_, record) => self.journal.push(record),
                    Action::Send(session, kind) => self.sent.push((session, kind)),
                    Action::LoadSegment { id, source, segment, .. } => {
                        self.asked.push((source, segment));
                        let tasks = self.plan.get(&(source, segment)).filter(|_| !self.withheld).cloned();
                        events.push(Event::SegmentLoaded(id, source, segment, tasks));
                    }
                    Action::Reply(_, answer) => self.refusal = answer.err(),
                    _ => {}
                }
            }
        }
    }

    /// Time passes, and who is there is heard of; what is due happens.
    pub(super) fn wait(&mut self, time: Duration) {
        let slice = Duration::from_secs(5);
        self.silence(time.min(slice));
        for session in self.present.clone() {
            self.step(Event::Heartbeat(worker(session), 0, Vec::new(), false));
        }
        if time > slice {
            self.wait(time - slice);
        }
    }

    /// Time passes, and nobody is heard of; what is due happens.
    pub(super) fn silence(&mut self, time: Duration) {
        self.micros += u64::try_from(time.as_micros()).unwrap();
        self.step(Event::Tick);
    }

    pub(super) fn join(&mut self, session: u64, slots: u32, held: Vec<HeldTask>) {
        self.present.push(session);
        let registration = Registration { worker: format!("worker-{session}"), slots, held };
        self.step(Event::Joined(worker(session), registration));
    }

    pub(super) fn change(&mut self, change: v1::Change) {
        self.step(Event::Change(RequestId(2), self.id.clone(), change, String::new()));
    }

    /// Why a change cannot be made.
    pub(super) fn refused(&mut self, change: v1::Change) -> String {
        let journal = self.journal.len();
        self.refusal = None;
        self.change(change);
        assert_eq!(self.journal.len(), journal, "{change:?} changes nothing");
        self.refusal.take().map(|refusal| refusal.to_string()).unwrap_or_default()
    }

    pub(super) fn lease(&self, held: Held) -> LeaseRef {
        LeaseRef { session: held.0, id: self.id.clone(), task: held.1, token: held.2 }
    }

    /// Whom `task` was granted to last, by assignment or adoption.
    pub(super) fn grant(&self, task: TaskId) -> Option<Held> {
        let found = self.sent.iter().rev().find_map(|(session, kind)| {
            let (of, token) = match kind {
                Kind::Assign(assign) => (assign.task, assign.token),
                Kind::Adopted(adopted) => (adopted.task, adopted.token),
                _ => return None,
            };
            (convert::task_id(of).unwrap() == task).then(|| (*session, convert::token(token).unwrap()))
        });
        found.map(|(session, token)| (session, task, token))
    }

    pub(super) fn prepare(&mut self) {
        self.prepare_with(|_| {});
    }

    /// The tables are prepared, and `look` like this; their markers are those that the core believes in.
    pub(super) fn prepare_with(&mut self, look: impl Fn(&mut v1::PreparedOutput)) {
        let held = self.grant(TaskId::Prepare).unwrap();
        let source: Vec<String> = self.spec.sources.first().cloned().into_iter().collect();
        let output = |known: &super::super::output::Output| {
            let mut table = v1::PreparedOutput {
                uuid: "u".to_owned(),
                source: source.clone(),
                marker: known.marker.clone(),
                branch_marker: known.branch_marker.clone(),
                sequence_before: 7,
                ..Default::default()
            };
            look(&mut table);
            table
        };
        let outputs = self.core.backfill(&self.id).unwrap().outputs.iter().map(output).collect();
        let prepared = v1::Prepared { version: 1, outputs, now: 0, sources: vec![] };
        self.step(Event::Done(self.lease(held), done::Result::Prepared(prepared)));
    }

    pub(super) fn enumerate(&mut self, source: u32, segments: &[Vec<v1::ReadTask>]) {
        let held = self.grant(TaskId::Enumerate(SourceIx::new(source))).unwrap();
        for (index, tasks) in (0u32..).zip(segments) {
            let info = v1::record::SegmentInfo {
                low: tasks[0].units[0].low,
                tasks: u32::try_from(tasks.len()).unwrap(),
                ..Default::default()
            };
            self.plan.insert((SourceIx::new(source), SegmentIx::new(index)), tasks.clone());
            let found = FoundSegment { index, info, bytes: bytes::Bytes::new() };
            self.step(Event::SegmentFound(self.lease(held), found));
        }
        let tasks = || segments.iter().flatten();
        let units = || tasks().flat_map(|task| &task.units);
        let found = v1::Enumerated {
            version: 1,
            segments: u32::try_from(segments.len()).unwrap(),
            tasks: tasks().count() as u64,
            units: units().count() as u64,
            rows_in_range: units().map(|unit| unit.rows).sum(),
            widest_unit: units().map(|unit| unit.high - unit.low).max().unwrap_or(0),
            bytes_in_range: units().map(|unit| unit.bytes).sum(),
            low: units().map(|unit| unit.low).min().unwrap_or(0),
            high: units().map(|unit| unit.high).max().unwrap_or(0),
            digest: "as-found".to_owned(),
            ..Default::default()
        };
        self.step(Event::Done(self.lease(held), done::Result::Enumerated(found)));
    }

    pub(super) fn status(&self) -> v1::Backfill {
        self.core.status(self.core.backfill(&self.id).unwrap())
    }

    pub(super) fn phase(&self) -> v1::Phase {
        self.status().phase()
    }

    /// Hands in, and says how that was answered.
    pub(super) fn hand_in(&mut self, held: Held, hand_in: v1::HandIn, released: bool) -> Result<(), String> {
        self.step(Event::HandIn(self.lease(held), hand_in, released));
        let reply = self.sent.iter().rev().find_map(|(_, kind)| match kind {
            Kind::HandInReply(reply) => Some(reply.clone()),
            _ => None,
        });
        let reply = reply.unwrap();
        if reply.accepted { Ok(()) } else { Err(reply.reason) }
    }

    pub(super) fn report(&mut self, held: Held, cursor: i64, paused: bool) {
        let (_, task, token) = held;
        let cursor = EventTime::from_micros(cursor);
        let report = CursorReport { id: self.id.clone(), task, token, cursor, paused };
        self.step(Event::Heartbeat(held.0, 1, vec![report], false));
    }

    pub(super) fn fail(&mut self, held: Held, evidence: v1::Evidence) {
        self.step(Event::Failed(self.lease(held), evidence));
    }

    /// The commit that was granted last of those whose intent is still prepared.
    pub(super) fn commit_work(&self) -> Option<(Held, v1::CommitWork)> {
        let outputs = &self.core.backfill(&self.id).unwrap().outputs;
        let open = |intent: &v1::Intent| {
            let of = outputs[intent.output as usize].prepared_intent();
            of.is_some_and(|open| open.sequence == intent.sequence)
        };
        self.sent.iter().rev().find_map(|(session, kind)| {
            let Kind::Assign(assign) = kind else { return None };
            let Some(v1::assign::Work::Commit(work)) = &assign.work else { return None };
            let held = (*session, convert::task_id(assign.task).unwrap(), convert::token(assign.token).unwrap());
            work.intent.as_ref().is_some_and(open).then(|| (held, work.clone()))
        })
    }

    /// A worker says how its commit ended.
    pub(super) fn commit_ends(&mut self, held: Held, end: v1::CommitEnd) {
        let result = v1::CommitResult { end: end.into(), ..Default::default() };
        self.step(Event::Done(self.lease(held), done::Result::Commit(result)));
    }

    /// An intent that is prepared is committed.
    pub(super) fn commit(&mut self) {
        let (held, work) = self.commit_work().unwrap();
        assert_eq!(work.cancel, 0, "it is not to be fenced off");
        self.commit_ends(held, v1::CommitEnd::Committed);
    }

    pub(super) fn was_revoked(&self, held: Held) -> bool {
        self.sent.iter().any(|(_, kind)| match kind {
            Kind::Revoke(revoke) => convert::token(revoke.token).is_ok_and(|token| token == held.2),
            _ => false,
        })
    }

    /// Another process folds the journal and takes the backfill up; whoever was there has to come again.
    pub(super) fn restart(&mut self) {
        self.core = Core::new(Config::default());
        self.core.restore(self.id.clone(), self.spec.clone(), &self.journal);
        self.sent.clear();
        self.asked.clear();
        self.present.clear();
        self.step(Event::TakeUp(self.id.clone()));
    }

    /// What a worker says that it holds.
    pub(super) fn held(&self, held: Held, attempt: &str, next_unit: u32) -> HeldTask {
        HeldTask { id: self.id.clone(), task: held.1, token: held.2, attempt: attempt.to_owned(), next_unit }
    }

    pub(super) fn said(&self, session: u64) -> impl Iterator<Item = &Kind> {
        self.sent.iter().filter(move |(to, _)| *to == worker(session)).map(|(_, kind)| kind)
    }
}

/// Every intent that was sealed, in order.
pub(super) fn sealed(bench: &Bench) -> Vec<v1::Intent> {
    let sealed = bench.journal.iter().filter_map(|record| match &record.kind {
        Some(v1::record::Kind::Sealed(intent)) => Some(intent.clone()),
        _ => None,
    });
    sealed.collect()
}

pub(super) fn token(term: u64, epoch: u64) -> Token {
    Token { term: Term::new(term), epoch: Epoch::new(epoch) }
}
