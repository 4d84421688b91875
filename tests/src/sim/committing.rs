//! A virtual worker's tasks without a slot: prepare, enumerate, and the commit of an intent.
//!
//! A commit is load, judge, stage, one conditional swap, each an event of its own, so that anything may come between.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tidegate_common::fence::Fence;
use tidegate_common::ids::BackfillId;
use tidegate_coordinator::core::FoundSegment;
use tidegate_proto::v1::{self, done, record};
use tidegate_worker::sink::marker::{self, Verdict};

use super::joins::{Input, Joins};
use super::link::{Grant, Up};
use super::mishap::Mishap;
use super::scenario::{MILLI, Micros, SECOND};
use super::table::{Adds, Swap};
use super::worker::Body;
use super::world::{Event, World};

/// Where a commit stands.
#[derive(Clone, Debug)]
enum Stage {
    Fetch,
    Load,
    Staged(Swap),
    Sending(Swap),
    /// It waits for the answer to this swap.
    Waits(u64),
}

/// The name of a backfill's marker on a branch.
pub(super) fn marker_key(id: &BackfillId, branch: &str) -> String {
    marker::key(id.as_str(), branch)
}

/// The branch that an intent commits to.
pub(super) fn branch_of(intent: &v1::Intent) -> &str {
    if intent.branch.is_empty() { marker::MAIN } else { &intent.branch }
}

/// The marker of the fence that is asked for; `None` where the intent is to be committed.
fn fence_of(intent: &v1::Intent, cancel: u64) -> Option<String> {
    let fences = cancel > 0 && intent.kind() != v1::CommitKind::Discard;
    fences.then(|| format!("{}:{}", intent.sequence, marker::fence_digest(cancel)))
}

/// A running commit.
#[derive(Clone, Debug)]
pub(super) struct Committing {
    intent: v1::Intent,
    /// Above 0: it is to be fenced off.
    cancel: u64,
    files: Vec<v1::DataFile>,
    stage: Stage,
}

/// A swap on its way to the catalog; it lands whatever becomes of its sender.
#[derive(Clone, Debug)]
pub(super) struct Landing {
    table: usize,
    backfill: BackfillId,
    swap: Swap,
    intent: v1::Intent,
    /// Whether it is the intent's fence.
    fences: bool,
    files: Vec<v1::DataFile>,
}

/// What a worker hears of its swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Heard {
    Done,
    Conflict,
    Nothing,
}

impl Committing {
    pub(super) fn new(intent: v1::Intent, cancel: u64) -> Self {
        let without = cancel > 0 || intent.kind() == v1::CommitKind::Discard;
        let stage = if without { Stage::Load } else { Stage::Fetch };
        Self { intent, cancel, files: Vec::new(), stage }
    }
}

impl World {
    /// A run goes on.
    pub(super) fn take_turn(&mut self, at: usize, run: u64, turn: u64) {
        self.fence(at);
        let Some(of) = self.workers[at].runs.get(&run).filter(|run| run.turn == turn) else { return };
        let grant = of.grant.clone();
        match of.body.clone() {
            Body::Read(_) => self.read(at, run),
            Body::Prepare => self.prepare(at, run, grant),
            Body::Enumerate(next) => self.enumerate(at, run, grant, next),
            Body::Regenerate(of) => self.regenerate(at, run, grant, *of),
            Body::Join(joining) => self.join(at, run, grant, *joining),
            Body::Clean(work) => self.clean(at, run, grant, &work),
            Body::Commit(committing) => self.commit(at, run, grant, *committing),
        }
    }

    fn prepare(&mut self, at: usize, run: u64, grant: Grant) {
        let order = &self.scenario.orders[self.oracle.ix(&grant.id)];
        let inputs = |joins: &Joins| {
            let named = |input: &Input| Some((order.spec.sources.get(input.source as usize)?.clone(), *input));
            let input = |(source, input): (String, Input)| v1::JoinInput {
                source,
                low: input.low,
                high: input.high,
                keyed: joins.bytes > 100,
                anchor: false,
            };
            joins.inputs.iter().filter_map(named).map(input).collect::<Vec<_>>()
        };
        let output = |(at, (reads, table)): (usize, (&u32, &usize))| v1::PreparedOutput {
            table: format!("t{table}"),
            uuid: self.tables[*table].uuid.clone(),
            marker: self.property(*table, &grant.id, marker::MAIN),
            branch_marker: self.property(*table, &grant.id, &marker::staging_branch(grant.id.as_str())),
            sequence_before: self.tables[*table].sequence().cast_signed(),
            source: order.spec.sources.get(*reads as usize).cloned().into_iter().collect(),
            inputs: order.joins.iter().filter(|joins| joins.output as usize == at).flat_map(inputs).collect(),
            ..Default::default()
        };
        let outputs = order.reads.iter().zip(&order.tables).enumerate().map(output).collect();
        let prepared = v1::Prepared { version: 1, outputs, ..Default::default() };
        self.drop_run(at, run);
        self.say(at, Up::Done(grant, done::Result::Prepared(prepared)));
    }

    fn property(&self, table: usize, id: &BackfillId, branch: &str) -> String {
        self.tables[table].property(&marker_key(id, branch)).cloned().unwrap_or_default()
    }

    fn enumerate(&mut self, at: usize, run: u64, grant: Grant, next: usize) {
        let order = &self.scenario.orders[self.oracle.ix(&grant.id)];
        let tidegate_common::ids::TaskId::Enumerate(source) = grant.task else { return };
        let Some(data) = order.sources.get(source.get() as usize) else { return };
        let Some(segment) = data.segments.get(next) else {
            let found = data.found.clone();
            self.drop_run(at, run);
            return self.say(at, Up::Done(grant, done::Result::Enumerated(found)));
        };
        let low = segment.first().and_then(|task| task.units.first()).map_or(0, |unit| unit.low);
        let info = record::SegmentInfo {
            low,
            tasks: u32::try_from(segment.len()).unwrap_or(0),
            units: segment.iter().map(|task| task.units.len() as u64).sum(),
            ..Default::default()
        };
        let bytes = Bytes::from(format!("{}/{next}", source.get()));
        let index = u32::try_from(next).unwrap_or(0);
        self.say(at, Up::Segment(grant, FoundSegment { index, info, bytes }));
        if let Some(Body::Enumerate(next)) = self.workers[at].runs.get_mut(&run).map(|run| &mut run.body) {
            *next += 1;
        }
        let after = self.chance.between(5 * MILLI, 400 * MILLI);
        self.turn(at, run, after);
    }

    fn commit(&mut self, at: usize, run: u64, grant: Grant, committing: Committing) {
        let Committing { intent, cancel, files, stage } = committing;
        match stage {
            Stage::Fetch => self.fetch(at, run, &grant, intent),
            Stage::Load => self.load_and_judge(at, run, grant, intent, cancel),
            Stage::Staged(swap) => {
                if self.strikes(Mishap::RetryableFailure, 20) {
                    let class = v1::Failure::Retryable.into();
                    let evidence = v1::Evidence { class, message: "as planned".to_owned(), ..Default::default() };
                    self.drop_run(at, run);
                    return self.say(at, Up::Fail(grant, evidence));
                }
                self.commit_goes_on(at, run, Stage::Sending(swap), 50 * MILLI, SECOND);
            }
            Stage::Sending(swap) => self.swap(
                at,
                run,
                &grant,
                Landing {
                    table: self.table_of(&grant.id, intent.output),
                    backfill: grant.id.clone(),
                    swap,
                    fences: fence_of(&intent, cancel).is_some(),
                    intent,
                    files,
                },
            ),
            Stage::Waits(_) => {}
        }
    }

    fn commit_goes_on(&mut self, at: usize, run: u64, stage: Stage, soonest: Micros, latest: Micros) {
        if let Some(Body::Commit(committing)) = self.workers[at].runs.get_mut(&run).map(|run| &mut run.body) {
            committing.stage = stage;
        }
        let slow = self.chance.one_in(20);
        let after = self.chance.between(soonest, if slow { 6 * SECOND } else { latest });
        self.turn(at, run, after);
    }

    fn table_of(&self, id: &BackfillId, output: u32) -> usize {
        self.scenario.orders[self.oracle.ix(id)].tables.get(output as usize).copied().unwrap_or(0)
    }

    /// The coordinator serves the intent's files from the log; what does not match the intent is not committed.
    fn fetch(&mut self, at: usize, run: u64, grant: &Grant, intent: v1::Intent) {
        let parts = self.store.parts(&grant.id, intent.output, intent.log_from, intent.log_to);
        let files: Vec<v1::DataFile> = parts.into_iter().flat_map(|part| part.files).collect();
        let mut hash = Sha256::new();
        files.iter().for_each(|file| hash.update(format!("{}\n", file.path).as_bytes()));
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != intent.digest {
            let message = format!("#{}: the files handed over are not those of the intent", intent.sequence);
            let evidence = v1::Evidence { class: v1::Failure::Retryable.into(), message, ..Default::default() };
            self.drop_run(at, run);
            return self.say(at, Up::Fail(grant.clone(), evidence));
        }
        if let Some(Body::Commit(committing)) = self.workers[at].runs.get_mut(&run).map(|run| &mut run.body) {
            committing.files = files;
        }
        self.commit_goes_on(at, run, Stage::Load, MILLI, 100 * MILLI);
    }

    fn load_and_judge(&mut self, at: usize, run: u64, grant: Grant, intent: v1::Intent, cancel: u64) {
        let judged = self.fences.stands(Fence::MarkerVerdict);
        let unjudged = if judged { 0 } else { self.chance.between(1, u64::MAX / 2).cast_signed() };
        let table = &self.tables[self.table_of(&grant.id, intent.output)];
        let branch = branch_of(&intent);
        let key = marker_key(&grant.id, branch);
        let facts = table.facts(&intent.table_uuid, &key, branch);
        let (own, fence) = (marker::of(&intent), fence_of(&intent, cancel));
        let discards = intent.kind() == v1::CommitKind::Discard;
        let verdict = match (judged, discards) {
            (false, _) => Verdict::Go,
            (true, true) => marker::judge_discard(&facts, &own, &intent.predecessor, intent.sequence),
            (true, false) => marker::judge(&facts, &own, &intent.predecessor),
        };
        let fenced_off = fence.is_some() && marker::standing_fence(&facts, intent.sequence).is_some();
        let taken = judged && !discards && table.shows(intent.snapshot_id);
        let through = u64::try_from(intent.replaces_through).unwrap_or(0);
        let replaces = intent.kind() == v1::CommitKind::Replace && fence.is_none();
        let conflicts = replaces && table.conflicts(branch, through);
        let end = match verdict {
            _ if fenced_off => v1::CommitEnd::Cancelled,
            // As the sink does: the snapshot's id alone says that it has landed before.
            Verdict::Go if taken => v1::CommitEnd::Fenced,
            Verdict::Go if conflicts => {
                self.struck.count(Mishap::WindowConflict);
                v1::CommitEnd::Conflict
            }
            Verdict::Go if fence.is_some() && !self.fences.stands(Fence::CancelFence) => v1::CommitEnd::Cancelled,
            Verdict::Go => {
                // A fence is a snapshot of its own.
                let id = match (judged, fence.is_some()) {
                    (true, false) => intent.snapshot_id,
                    (true, true) => intent.snapshot_id ^ 1,
                    // Who does not judge does not know of ids that follow from what is committed, either.
                    (false, _) => unjudged,
                };
                let replaces_through = replaces.then_some(through);
                let adds = (!discards).then(|| Adds { branch: branch.to_owned(), id, replaces_through });
                let publishes = fence.is_none() && !intent.drop_branch.is_empty();
                let drops = if publishes { Some(&intent.drop_branch) } else { discards.then_some(&intent.branch) };
                let swap = table.stage(adds, drops.cloned(), key, fence.unwrap_or(own));
                return self.commit_goes_on(at, run, Stage::Staged(swap), 5 * MILLI, SECOND);
            }
            Verdict::AlreadyDone { .. } if fence.is_some() => {
                self.struck.count(Mishap::FenceTooLate);
                v1::CommitEnd::Committed
            }
            Verdict::AlreadyDone { .. } => v1::CommitEnd::Committed,
            Verdict::Fenced(_) => v1::CommitEnd::Fenced,
            Verdict::RolledBack(_) => v1::CommitEnd::RolledBack,
        };
        self.note(|| format!("worker {at} run {run} judges {facts:?} as {end:?}, its snapshot shows: {taken}"));
        self.commit_ends(at, run, grant, &intent, end, true);
    }

    fn commit_ends(&mut self, at: usize, run: u64, grant: Grant, intent: &v1::Intent, end: v1::CommitEnd, found: bool) {
        let result = v1::CommitResult {
            end: end.into(),
            snapshot_id: intent.snapshot_id,
            already_done: found,
            evidence: "as read".to_owned(),
            tries: 1,
            ..Default::default()
        };
        self.drop_run(at, run);
        self.say(at, Up::Done(grant, done::Result::Commit(result)));
    }

    fn swap(&mut self, at: usize, run: u64, grant: &Grant, landing: Landing) {
        let lost = self.strikes(Mishap::LostCommitRequest, 80);
        let late = !lost && self.strikes(Mishap::LateCommit, 80);
        let unheard = lost || late || self.strikes(Mishap::LostCommitReply, 120);
        let takes =
            if late { self.chance.between(SECOND, 12 * SECOND) } else { self.chance.between(MILLI, 300 * MILLI) };
        if self.strikes(Mishap::RashCancel, 40) {
            self.ask(self.oracle.ix(&grant.id), v1::Change::Cancel);
        }
        let of_same = |other: &&Landing| other.backfill == grant.id && other.swap.marker == landing.swap.marker;
        if self.landings.values().any(|other| of_same(&other)) {
            self.struck.count(Mishap::TwoCommitters);
        }
        self.swaps += 1;
        let number = self.swaps;
        let incarnation = self.workers[at].incarnation;
        if !lost {
            self.landings.insert(number, landing);
            self.agenda.put(self.now + takes, Event::SwapLands(number, at, incarnation, run, unheard));
        }
        if unheard {
            let patience = self.chance.between(SECOND / 2, 3 * SECOND);
            let event = Event::SwapHeard(at, incarnation, run, number, Heard::Nothing);
            self.agenda.put(self.now + patience, event);
        }
        if let Some(Body::Commit(committing)) = self.workers[at].runs.get_mut(&run).map(|run| &mut run.body) {
            committing.stage = Stage::Waits(number);
        }
    }

    /// A swap reaches the catalog.
    pub(super) fn swap_lands(&mut self, number: u64, at: usize, incarnation: u32, run: u64, unheard: bool) {
        let Some(landing) = self.landings.remove(&number) else { return };
        let Landing { table, backfill, swap, intent, fences, files } = landing;
        let done = self.tables[table].swap(&swap);
        self.note(|| format!("swap of {} of {backfill:?} lands: {done}", swap.marker));
        let ix = self.oracle.ix(&backfill);
        let counts = match (fences, intent.kind(), intent.drop_branch.is_empty()) {
            (true, ..) => Some(Mishap::FenceLanded),
            (_, v1::CommitKind::Discard, _) => Some(Mishap::Discarded),
            (_, _, false) => Some(Mishap::Published),
            _ => None,
        };
        counts.filter(|_| done).into_iter().for_each(|what| self.struck.count(what));
        match (done, fences) {
            (true, true) => self.oracle.fence_landed(ix, &intent, &swap.marker),
            (true, false) => self.oracle.landed(ix, &intent, &files),
            (false, _) => {}
        }
        if !unheard {
            let heard = if done { Heard::Done } else { Heard::Conflict };
            let takes = self.chance.between(MILLI, 100 * MILLI);
            self.agenda.put(self.now + takes, Event::SwapHeard(at, incarnation, run, number, heard));
        }
    }

    /// A worker hears of its swap, or gives up waiting.
    pub(super) fn swap_heard(&mut self, at: usize, run: u64, number: u64, heard: Heard) {
        self.fence(at);
        let Some(of) = self.workers[at].runs.get(&run) else { return };
        let (grant, Body::Commit(committing)) = (of.grant.clone(), &of.body) else { return };
        if !matches!(committing.stage, Stage::Waits(waits) if waits == number) {
            return;
        }
        let intent = committing.intent.clone();
        let files = committing.files.clone();
        let fences = fence_of(&intent, committing.cancel).is_some();
        let end = if fences { v1::CommitEnd::Cancelled } else { v1::CommitEnd::Committed };
        match heard {
            Heard::Done => self.commit_ends(at, run, grant, &intent, end, false),
            Heard::Nothing if !fences && !self.fences.stands(Fence::UnknownOutcome) => {
                self.guess(at, run, grant, &intent, &files);
            }
            Heard::Conflict | Heard::Nothing => self.commit_goes_on(at, run, Stage::Load, MILLI, SECOND),
        }
    }

    /// What a committer does that does not read: it believes in success, or cleans up after what it believes to have
    /// failed.
    fn guess(&mut self, at: usize, run: u64, grant: Grant, intent: &v1::Intent, files: &[v1::DataFile]) {
        if self.chance.one_in(2) {
            return self.commit_ends(at, run, grant, intent, v1::CommitEnd::Committed, false);
        }
        files.iter().for_each(|file| self.oracle.deleted(&file.path));
        let evidence = v1::Evidence { class: v1::Failure::Retryable.into(), ..Default::default() };
        self.drop_run(at, run);
        self.say(at, Up::Fail(grant, evidence));
    }
}
