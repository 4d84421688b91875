//! A backfill's state: what its journal says, and what is only known while it runs.
//!
//! [`Backfill::apply`] alone changes the durable part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_common::gate::Gate;
use tidegate_common::ids::{
    BackfillId, Epoch, LogPosition, OutputIx, Sequence, SessionId, SourceIx, TaskId, Term, Token,
};
use tidegate_common::spec::DeadLetterLimit;
use tidegate_common::spec::model::LatePolicy;
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_proto::v1::{self, record};

use super::event::HeldTask;
use super::grants::Grants;
use super::join::Join;
use super::ledger::SourceAccount;
use super::output::Output;
use super::plan::{Place, SourcePlan};
use super::regenerate::Reloads;

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
    /// Whether a source has a rate limit: its readers are then told how many they are.
    pub limited: bool,
    /// The outputs, in order.
    pub outputs: Vec<CoreOutput>,
    /// The sources whose rows may break the order that is declared of them: of an output that joins, they may be late.
    pub disorderly: Vec<SourceIx>,
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
    /// Whether it commits to a staging branch, and to main only when it is published.
    pub staged: bool,
    /// Whether what the window held goes when its rows come.
    pub replaces: bool,
    /// How many dead letters of its source are expected, where it is the table that keeps them.
    pub dead_letters: Option<DeadLetterLimit>,
    /// Where it joins, what becomes of late rows.
    pub late: LatePolicy,
    /// The output whose late rows it keeps, where that is what it is for.
    pub late_of: Option<OutputIx>,
    /// Where it joins, the width of a slice; `None` where it is to be chosen.
    pub slice: Option<Span>,
    /// Where it joins, into how many buckets rows are distributed; `None` where that is to be chosen.
    pub buckets: Option<u32>,
    /// Where it joins, bytes of its rows that may wait in the shuffle store at once; `None` is no limit.
    pub budget: Option<u64>,
}

impl CoreOutput {
    /// Whether it commits nothing before all is read: one intent on main replaces what the window held.
    pub(super) fn is_held(&self) -> bool {
        self.replaces && !self.staged
    }
}

/// One source of a backfill.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) plan: SourcePlan,
    pub(super) account: SourceAccount,
    /// Segments of the enumeration that is running, by index; forgotten with its grant.
    pub(super) finding: Vec<record::SegmentInfo>,
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
    /// What a saved plan says is there: the sources are then enumerated before anything is prepared.
    pub(super) expected: Option<v1::ExpectedPlan>,
    pub(super) term: Term,
    pub(super) phase: v1::Phase,
    pub(super) wish: v1::Wish,
    pub(super) failure: Option<v1::Evidence>,
    pub(super) prepared: Option<v1::Prepared>,
    pub(super) log: LogPosition,
    pub(super) sources: Vec<Source>,
    pub(super) outputs: Vec<Output>,
    pub(super) parked: BTreeMap<TaskId, v1::Evidence>,
    /// Whether what is staged goes to main: from then on every output is driven to its end.
    pub(super) publishing: bool,
    /// Whether the tables are to be looked at anew, for what their windows hold now.
    pub(super) repin: bool,
    pub(super) created: i64,
    pub(super) updated: i64,
    pub(super) ended: i64,
    // What follows is soft: lost with the process, and nothing rests on it.
    pub(super) epoch: Epoch,
    pub(super) grants: Grants,
    pub(super) paused: BTreeSet<(EventTime, TaskId)>,
    pub(super) tries: BTreeMap<TaskId, Tries>,
    pub(super) told: Option<v1::Gate>,
    pub(super) grace: bool,
    /// Whether this process has raised the term: without that it grants nothing.
    pub(super) led: bool,
    /// Tasks that workers say they hold, whose segments are not loaded yet.
    pub(super) claims: Vec<(SessionId, HeldTask)>,
    pub(super) reloads: Reloads,
    /// What of the shuffle store is being removed; everything where nothing is named.
    pub(super) cleaning: Vec<String>,
    /// Whether nothing of it is left there, or it was tried often enough.
    pub(super) cleaned: bool,
}

impl Backfill {
    /// A backfill that was just created, or is about to be replayed from its journal.
    pub(super) fn new(id: BackfillId, spec: CoreSpec) -> Self {
        let sources = spec.sources.iter().map(|_| Source::new()).collect();
        let outputs = spec.outputs.iter().map(Output::new).collect();
        Self {
            id,
            spec,
            spec_json: String::new(),
            allow_existing: false,
            expected: None,
            term: Term::default(),
            phase: v1::Phase::Preparing,
            wish: v1::Wish::Run,
            failure: None,
            prepared: None,
            log: LogPosition::default(),
            sources,
            outputs,
            parked: BTreeMap::new(),
            publishing: false,
            repin: false,
            created: 0,
            updated: 0,
            ended: 0,
            epoch: Epoch::default(),
            grants: Grants::default(),
            paused: BTreeSet::new(),
            tries: BTreeMap::new(),
            told: None,
            grace: false,
            led: false,
            claims: Vec::new(),
            reloads: Reloads::default(),
            cleaning: Vec::new(),
            cleaned: false,
        }
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
        use v1::Phase;
        !matches!(self.phase, Phase::Preparing | Phase::Enumerating | Phase::Running | Phase::Staged)
    }

    /// Whether nothing more happens until somebody wants it: it has ended, or is staged.
    pub fn is_at_rest(&self) -> bool {
        self.is_over() || self.phase == v1::Phase::Staged
    }

    /// The name of its staging branches.
    pub fn branch(&self) -> String {
        format!("tidegate_{}", self.id)
    }

    /// Whether an intent is prepared and its end is not proven.
    pub(super) fn has_open_intent(&self) -> bool {
        self.outputs.iter().any(|output| output.prepared_intent().is_some())
    }

    /// Whether an output is staged and not on main yet.
    pub(super) fn is_unpublished(&self) -> bool {
        self.outputs.iter().zip(&self.spec.outputs).any(|(output, spec)| spec.staged && !output.published)
    }

    /// Whether there is something that a cancel would still undo: an intent without an end, a staging branch.
    pub(super) fn has_remains(&self) -> bool {
        self.has_open_intent() || self.outputs.iter().any(|output| output.branched)
    }

    /// Whether there may be something of it in the shuffle store.
    pub(super) fn is_littered(&self) -> bool {
        !self.cleaned && self.outputs.iter().any(|output| output.join.is_some())
    }

    /// Whether it ended with something in the shuffle store that only a cancel removes.
    pub(super) fn may_hold_rows(&self) -> bool {
        matches!(self.phase, v1::Phase::Failed | v1::Phase::Partial)
            && self.outputs.iter().filter_map(|output| output.join.as_ref()).any(Join::has_shuffled)
    }

    /// Whether anything was accepted or sealed: from then on it holds to what was pinned.
    pub(super) fn is_begun(&self) -> bool {
        self.log != LogPosition::default() || self.outputs.iter().any(|output| output.sequence != Sequence::default())
    }

    /// Whether every source is enumerated.
    pub(super) fn is_found(&self) -> bool {
        self.sources.iter().all(|source| source.plan.found().is_some())
    }

    /// What workers are told of the gate.
    pub(super) fn gate_message(&self) -> v1::Gate {
        let sources = if self.spec.limited { self.spec.sources.len() } else { 0 };
        let readers = (0..sources).map(|ix| self.grants.reads_of(SourceIx::new(u32::try_from(ix).unwrap_or(u32::MAX))));
        v1::Gate { readers: readers.collect(), ..v1::Gate::of(&self.id, self.gate()) }
    }

    /// What a saved plan says of a source.
    pub(super) fn expected_of(&self, source: SourceIx) -> Option<&v1::ExpectedSource> {
        self.expected.as_ref()?.sources.get(source.get() as usize)
    }

    /// The group's read watermark and gate. Sources that are not enumerated hold it at the beginning of time.
    pub fn gate(&self) -> Gate {
        let lowest = self.sources.iter().map(|source| source.plan.read_watermark()).min();
        Gate::new(lowest.filter(|_| self.is_found()).unwrap_or(EventTime::MIN), self.spec.max_drift)
    }

    /// The lowest event time of an output's source that is not accepted; `None` while that is not known.
    pub(super) fn complete_watermark(&self, output: &Output) -> Option<EventTime> {
        if let Some(join) = &output.join {
            return Some(join.complete(self.spec.window));
        }
        let source = self.sources.get(output.source?.get() as usize)?;
        source.plan.found()?;
        source.plan.complete_watermark()
    }

    /// Whether all that can be read is read, and all that can be joined is joined.
    pub(super) fn is_processed(&self) -> bool {
        // Which slices are ready is not known before what was begun is loaded again.
        let is_idle = |join: &Join| self.is_settled() && join.is_idle(self.ready_slices(join));
        let idle = |output: &Output| output.join.as_ref().is_none_or(is_idle);
        let read = self.phase == v1::Phase::Running && self.sources.iter().all(|source| source.plan.is_read());
        read && self.outputs.iter().all(idle)
    }

    /// How many slices of `join`, from the first on, are ready.
    pub(super) fn ready_slices(&self, join: &Join) -> u32 {
        join.ready(|source| self.sources.get(source.get() as usize)?.plan.complete_watermark())
    }

    /// Whether how every output that joins is cut is chosen: nothing is read before.
    pub(super) fn is_cut(&self) -> bool {
        self.outputs.iter().filter_map(|output| output.join.as_ref()).all(|join| join.slices().is_some())
    }

    /// Whether all is read and joined, and nothing is set aside.
    pub(super) fn is_whole(&self) -> bool {
        self.is_processed() && self.parked.is_empty()
    }

    /// Whether every output has, with its proof, all that can be committed before it is published.
    pub(super) fn is_committed(&self) -> bool {
        let whole = self.parked.is_empty();
        let done = |(output, spec): (&Output, &CoreOutput)| match spec.is_held() {
            true => output.replaced || !whole,
            false => output.unsealed.files == 0 && (output.replaced || !spec.replaces || !whole),
        };
        self.is_processed() && !self.has_open_intent() && self.outputs.iter().zip(&self.spec.outputs).all(done)
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
            let Some(found) = source.plan.found() else { continue };
            wrong.extend(source.account.imbalance(name, found));
            let pins = self.prepared.iter().flat_map(|prepared| &prepared.sources);
            let pin =
                pins.filter(|pin| pin.source == *name).find_map(|pin| source.account.out_of_range(name, found, pin));
            wrong.extend(pin);
        }
        for (output, spec) in self.outputs.iter().zip(&self.spec.outputs) {
            let staged = spec.staged && !output.published;
            if let Some(join) = &output.join {
                for input in &join.inputs {
                    let at = input.source.get() as usize;
                    let (Some(source), Some(name)) = (self.sources.get(at), self.spec.sources.get(at)) else {
                        continue;
                    };
                    wrong.extend(input.account.imbalances(&spec.name, name, &source.account));
                }
                wrong.extend(output.account.join_imbalances(&spec.name, join.anchors, staged));
            } else if let Some(join) = spec.late_of.and_then(|of| self.outputs.get(of.get() as usize)?.join.as_ref()) {
                wrong.extend(output.account.late_imbalances(&spec.name, join.late()));
            } else if let Some(source) = output.source.and_then(|at| self.sources.get(at.get() as usize)) {
                wrong.extend(output.account.imbalances(&spec.name, &source.account, staged));
                wrong.extend(spec.dead_letters.and_then(|_| output.account.unkept(&spec.name, &source.account)));
            }
        }
        wrong
    }
}

impl Source {
    pub(super) fn new() -> Self {
        Self { plan: SourcePlan::default(), account: SourceAccount::new(), finding: Vec::new() }
    }
}
