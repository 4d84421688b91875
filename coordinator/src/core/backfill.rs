//! A backfill's state: what its journal says, and what is only known while it runs.
//!
//! [`Backfill::apply`] folds one journalled record into the state; nothing else changes the durable part. A restarted
//! coordinator folds the same records and has the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tidegate_common::clock::Monotonic;
use tidegate_common::gate::Gate;
use tidegate_common::ids::{BackfillId, Epoch, LogPosition, Sequence, SessionId, SourceIx, TaskId, Term, Token};
use tidegate_common::spec::DeadLetterLimit;
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_proto::convert;
use tidegate_proto::v1::{self, record};

use super::event::HeldTask;
use super::ledger::{OutputAccount, SourceAccount};
use super::plan::{Place, SourcePlan};

/// What the core needs to know of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreSpec {
    /// The backfill's name.
    pub name: String,
    /// What is replayed.
    pub window: Window,
    /// How far sources may drift apart; `None` when nothing is aligned.
    pub max_drift: Option<Span>,
    /// Whether units wider than the drift may be read.
    pub allow_wide: bool,
    /// The sources' names, in order.
    pub sources: Vec<String>,
    /// The outputs, in order.
    pub outputs: Vec<CoreOutput>,
}

/// What the core needs to know of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreOutput {
    /// Its name.
    pub name: String,
    /// Processing time between two commits.
    pub commit_every: Duration,
    /// Bytes of data files between two commits.
    pub commit_bytes: u64,
    /// How many dead letters of its source are expected, where it is the table that keeps them.
    pub dead_letters: Option<DeadLetterLimit>,
}

/// One source of a backfill.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) plan: SourcePlan,
    pub(super) account: SourceAccount,
    /// Segments of the enumeration that is running, by index; forgotten with its grant.
    pub(super) finding: Vec<record::SegmentInfo>,
}

/// One output of a backfill.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) source: Option<SourceIx>,
    pub(super) account: OutputAccount,
    pub(super) sequence: Sequence,
    pub(super) sealed_through: LogPosition,
    /// The last intent; it is prepared while `ended` is false.
    pub(super) intent: Option<v1::Intent>,
    pub(super) ended: bool,
    /// `<sequence>:<digest>` of the last commit that is in the table.
    pub(super) marker: String,
    pub(super) last_snapshot: i64,
    pub(super) committed_through: EventTime,
    pub(super) unsealed: Unsealed,
    /// When the oldest unsealed file was handed in; soft.
    pub(super) unsealed_since: Option<Monotonic>,
}

/// Files of accepted hand-ins that are in no intent yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsealed {
    pub(super) files: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Over each file's path and a line break, in the order of the log.
    pub(super) paths: Sha256,
}

/// A task that is granted to a session.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who holds it.
    pub session: SessionId,
    /// Under which token.
    pub token: Token,
    pub(super) paused_at: Option<EventTime>,
    pub(super) yielding: bool,
}

/// How often a task was tried since it last made progress.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries {
    pub(super) failed: u32,
    pub(super) poison: u32,
    pub(super) waiting: bool,
    pub(super) evidence: Option<v1::Evidence>,
}

/// A backfill.
#[derive(Debug)]
pub struct Backfill {
    pub(super) id: BackfillId,
    pub(super) spec: CoreSpec,
    pub(super) spec_json: String,
    pub(super) allow_existing: bool,
    pub(super) term: Term,
    pub(super) phase: v1::Phase,
    pub(super) wish: v1::Wish,
    pub(super) failure: Option<v1::Evidence>,
    pub(super) prepared: Option<v1::Prepared>,
    pub(super) log: LogPosition,
    pub(super) sources: Vec<Source>,
    pub(super) outputs: Vec<Output>,
    pub(super) parked: BTreeMap<TaskId, v1::Evidence>,
    pub(super) created: i64,
    pub(super) updated: i64,
    pub(super) ended: i64,
    // What follows is soft: lost with the process, and nothing rests on it.
    pub(super) epoch: Epoch,
    pub(super) grants: BTreeMap<TaskId, Grant>,
    pub(super) reading: u32,
    pub(super) paused: BTreeSet<(EventTime, TaskId)>,
    pub(super) tries: BTreeMap<TaskId, Tries>,
    pub(super) told: Option<Gate>,
    pub(super) grace: bool,
    /// Whether this process has raised the term: without that it grants nothing.
    pub(super) led: bool,
    /// Tasks that workers say they hold, whose segments are not loaded yet.
    pub(super) claims: Vec<(SessionId, HeldTask)>,
}

impl Backfill {
    /// A backfill that was just created, or is about to be replayed from its journal.
    pub(super) fn new(id: BackfillId, spec: CoreSpec) -> Self {
        let sources = spec.sources.iter().map(|_| Source::new()).collect();
        let outputs = spec.outputs.iter().map(|_| Output::new()).collect();
        Self {
            id,
            spec,
            spec_json: String::new(),
            allow_existing: false,
            term: Term::default(),
            phase: v1::Phase::Preparing,
            wish: v1::Wish::Run,
            failure: None,
            prepared: None,
            log: LogPosition::default(),
            sources,
            outputs,
            parked: BTreeMap::new(),
            created: 0,
            updated: 0,
            ended: 0,
            epoch: Epoch::default(),
            grants: BTreeMap::new(),
            reading: 0,
            paused: BTreeSet::new(),
            tries: BTreeMap::new(),
            told: None,
            grace: false,
            led: false,
            claims: Vec::new(),
        }
    }

    /// Folds one journalled record into the state.
    pub(super) fn apply(&mut self, record: &v1::Record) {
        use record::Kind;
        self.updated = record.at;
        match &record.kind {
            Some(Kind::Created(created)) => {
                self.created = record.at;
                self.spec_json.clone_from(&created.spec_json);
                self.allow_existing = created.allow_existing;
            }
            Some(Kind::Term(raised)) => self.term = Term::new(raised.term),
            Some(Kind::Prepared(prepared)) => self.apply_prepared(prepared),
            Some(Kind::Planned(planned)) => self.apply_planned(planned),
            Some(Kind::HandIn(accepted)) => self.apply_hand_in(accepted),
            Some(Kind::Sealed(intent)) => self.apply_sealed(intent),
            Some(Kind::Publishing(publishing)) => {
                publishing.intents.iter().for_each(|intent| self.apply_sealed(intent))
            }
            Some(Kind::Ended(ended)) => self.apply_ended(ended),
            Some(Kind::Parked(parked)) => self.apply_parked(parked),
            Some(Kind::Wish(changed)) => self.wish = changed.wish(),
            Some(Kind::Phase(changed)) => {
                self.phase = changed.phase();
                self.failure.clone_from(&changed.evidence);
                self.ended = if self.is_over() { record.at } else { 0 };
            }
            Some(Kind::Retried(retried)) => self.apply_retried(retried),
            None => {}
        }
    }

    fn apply_prepared(&mut self, prepared: &v1::Prepared) {
        for (output, found) in self.outputs.iter_mut().zip(&prepared.outputs) {
            let reads = found.source.first();
            let at = self.spec.sources.iter().position(|name| Some(name) == reads);
            output.source = at.and_then(|at| u32::try_from(at).ok()).map(SourceIx::new);
        }
        self.prepared = Some(prepared.clone());
        self.phase = v1::Phase::Enumerating;
    }

    fn apply_planned(&mut self, planned: &record::SourcePlanned) {
        if let (Some(source), Some(found)) = (self.sources.get_mut(planned.source as usize), &planned.found) {
            source.plan.planned(found.clone(), planned.segments.clone());
            source.finding = Vec::new();
        }
        if self.sources.iter().all(|source| source.plan.found().is_some()) {
            self.phase = v1::Phase::Running;
        }
    }

    fn apply_hand_in(&mut self, accepted: &record::HandInAccepted) {
        let (Ok(task), Some(hand_in)) = (convert::task_id(accepted.task), &accepted.hand_in) else { return };
        let TaskId::Read(source, segment, at) = task else { return };
        let Some(source) = self.sources.get_mut(source.get() as usize) else { return };
        source.account.book(hand_in, accepted.rows_planned);
        let total = accepted.units_in_task;
        source.plan.accept((segment, at), hand_in.end_unit, total, &hand_in.attempt, hand_in.number);
        for part in &hand_in.outputs {
            if let Some(output) = self.outputs.get_mut(part.output as usize) {
                output.account.book(part);
                output.unsealed.book(part);
            }
        }
        self.log = self.log.next();
        self.parked.remove(&task);
        self.tries.remove(&task);
    }

    fn apply_sealed(&mut self, intent: &v1::Intent) {
        let Some(output) = self.outputs.get_mut(intent.output as usize) else { return };
        output.sequence = Sequence::new(intent.sequence);
        output.sealed_through = LogPosition::new(intent.log_to);
        output.intent = Some(intent.clone());
        output.ended = false;
        output.unsealed = Unsealed::default();
        output.unsealed_since = None;
    }

    fn apply_ended(&mut self, ended: &record::IntentEnded) {
        let Some(output) = self.outputs.get_mut(ended.output as usize) else { return };
        let (Some(intent), Some(result)) = (&output.intent, &ended.result) else { return };
        if intent.sequence != ended.sequence || output.ended {
            return;
        }
        output.ended = true;
        if result.end() == v1::CommitEnd::Committed {
            output.account.commit(intent);
            let through = EventTime::from_micros(intent.committed_through);
            output.committed_through = output.committed_through.max(through);
            if intent.files > 0 {
                output.marker = format!("{}:{}", intent.sequence, intent.digest);
                output.last_snapshot = result.snapshot_id;
            }
        }
    }

    fn apply_parked(&mut self, parked: &record::Parked) {
        let Ok(task) = convert::task_id(parked.task) else { return };
        if let Some((plan, place)) = self.read_task(task) {
            plan.park(place);
            self.parked.insert(task, parked.evidence.clone().unwrap_or_default());
        }
    }

    fn apply_retried(&mut self, retried: &record::Retried) {
        self.allow_existing |= retried.allow_existing;
        for task in std::mem::take(&mut self.parked).into_keys() {
            if let Some((plan, place)) = self.read_task(task) {
                plan.unpark(place);
            }
        }
        self.tries.clear();
        self.failure = None;
        self.ended = 0;
        self.wish = v1::Wish::Run;
        if self.log == LogPosition::default() {
            // Nothing was accepted, so nothing holds it to what was pinned: it is planned anew.
            self.prepared = None;
            self.sources = self.spec.sources.iter().map(|_| Source::new()).collect();
        }
        self.phase = if self.prepared.is_none() {
            v1::Phase::Preparing
        } else if self.sources.iter().any(|source| source.plan.found().is_none()) {
            v1::Phase::Enumerating
        } else {
            v1::Phase::Running
        };
    }

    /// The plan and place of a read task; `None` for every other task.
    pub(super) fn read_task(&mut self, task: TaskId) -> Option<(&mut SourcePlan, Place)> {
        let TaskId::Read(source, segment, at) = task else { return None };
        Some((&mut self.sources.get_mut(source.get() as usize)?.plan, (segment, at)))
    }

    /// Its identity.
    pub fn id(&self) -> &BackfillId {
        &self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its spec, canonical.
    pub fn spec_json(&self) -> &str {
        &self.spec_json
    }

    /// When it was created: processing time in microseconds.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// Whether it has ended, one way or another.
    pub fn is_over(&self) -> bool {
        !matches!(self.phase, v1::Phase::Preparing | v1::Phase::Enumerating | v1::Phase::Running)
    }

    /// The group's read watermark and gate. Sources that are not enumerated hold it at the beginning of time.
    pub fn gate(&self) -> Gate {
        let all_found = self.sources.iter().all(|source| source.plan.found().is_some());
        let lowest = self.sources.iter().map(|source| source.plan.read_watermark()).min();
        Gate::new(lowest.filter(|_| all_found).unwrap_or(EventTime::MIN), self.spec.max_drift)
    }

    /// The lowest event time of an output's source that is not accepted; `None` while that is not known.
    pub(super) fn complete_watermark(&self, output: &Output) -> Option<EventTime> {
        let source = self.sources.get(output.source?.get() as usize)?;
        source.plan.found()?;
        source.plan.complete_watermark()
    }

    /// Whether all that can be read is read.
    pub(super) fn is_read(&self) -> bool {
        self.phase == v1::Phase::Running && self.sources.iter().all(|source| source.plan.is_read())
    }

    /// Whether everything that was begun before a restart is loaded again.
    pub(super) fn is_settled(&self) -> bool {
        self.sources.iter().all(|source| source.plan.is_settled())
    }

    /// The largest skew that a run of this plan may show: the drift, or the widest unit where that is wider.
    pub fn promised_skew(&self) -> Option<Span> {
        let widest = self.sources.iter().filter_map(|source| source.plan.found()).map(|found| found.widest_unit).max();
        self.spec.max_drift.map(|drift| drift.max(Span::from_micros(widest.unwrap_or(0))))
    }

    /// A token that this term has not given out before.
    pub(super) fn mint(&mut self) -> Token {
        self.epoch = self.epoch.next();
        Token { term: self.term, epoch: self.epoch }
    }

    /// The outputs that keep dead letters.
    pub(super) fn dead_letter_outputs(&self) -> Vec<u32> {
        let outputs = (0..).zip(&self.spec.outputs);
        outputs.filter(|(_, spec)| spec.dead_letters.is_some()).map(|(at, _)| at).collect()
    }

    /// The edges of the ledger that do not balance.
    pub fn imbalances(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (source, name) in self.sources.iter().zip(&self.spec.sources) {
            wrong.extend(source.plan.found().and_then(|found| source.account.imbalance(name, found)));
        }
        for (output, spec) in self.outputs.iter().zip(&self.spec.outputs) {
            if let Some(source) = output.source.and_then(|at| self.sources.get(at.get() as usize)) {
                wrong.extend(output.account.imbalances(&spec.name, &source.account));
                wrong.extend(spec.dead_letters.and_then(|_| output.account.unkept(&spec.name, &source.account)));
            }
        }
        wrong
    }
}

impl Source {
    fn new() -> Self {
        Self { plan: SourcePlan::default(), account: SourceAccount::new(), finding: Vec::new() }
    }
}

impl Output {
    fn new() -> Self {
        Self {
            source: None,
            account: OutputAccount::default(),
            sequence: Sequence::default(),
            sealed_through: LogPosition::default(),
            intent: None,
            ended: true,
            marker: String::new(),
            last_snapshot: 0,
            committed_through: EventTime::MIN,
            unsealed: Unsealed::default(),
            unsealed_since: None,
        }
    }

    /// The intent that is prepared and whose end is not proven.
    pub(super) fn prepared_intent(&self) -> Option<&v1::Intent> {
        self.intent.as_ref().filter(|_| !self.ended)
    }
}

impl Unsealed {
    fn book(&mut self, part: &v1::OutputPart) {
        for file in &part.files {
            self.files += 1;
            self.rows += file.rows;
            self.bytes += file.bytes;
            self.paths.update(file.path.as_bytes());
            self.paths.update(b"\n");
        }
    }
}
