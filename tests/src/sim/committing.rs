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

use super::link::{Grant, Up};
use super::mishap::Mishap;
use super::scenario::{MILLI, Micros, SECOND};
use super::table::Swap;
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

/// The name of a backfill's marker.
pub(super) fn marker_key(id: &BackfillId) -> String {
    marker::key(id.as_str(), "main")
}

/// A running commit.
#[derive(Clone, Debug)]
pub(super) struct Committing {
    intent: v1::Intent,
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
    pub(super) fn new(intent: v1::Intent) -> Self {
        Self { intent, files: Vec::new(), stage: Stage::Fetch }
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
            Body::Commit(committing) => self.commit(at, run, grant, *committing),
        }
    }

    fn prepare(&mut self, at: usize, run: u64, grant: Grant) {
        let order = &self.scenario.orders[self.oracle.ix(&grant.id)];
        let output = |(reads, table): (&u32, &usize)| v1::PreparedOutput {
            table: format!("t{table}"),
            uuid: self.tables[*table].uuid.clone(),
            marker: self.tables[*table].property(&marker_key(&grant.id)).cloned().unwrap_or_default(),
            source: order.spec.sources.get(*reads as usize).cloned().into_iter().collect(),
            ..Default::default()
        };
        let outputs = order.reads.iter().zip(&order.tables).map(output).collect();
        let prepared = v1::Prepared { version: 1, outputs, ..Default::default() };
        self.drop_run(at, run);
        self.say(at, Up::Done(grant, done::Result::Prepared(prepared)));
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
        let Committing { intent, files, stage } = committing;
        match stage {
            Stage::Fetch => self.fetch(at, run, &grant, intent),
            Stage::Load => self.load_and_judge(at, run, grant, intent),
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

    fn load_and_judge(&mut self, at: usize, run: u64, grant: Grant, intent: v1::Intent) {
        let table = &self.tables[self.table_of(&grant.id, intent.output)];
        let (key, own) = (marker_key(&grant.id), marker::of(&intent));
        let facts = table.facts(&intent.table_uuid, &key);
        let judged = self.fences.stands(Fence::MarkerVerdict);
        let verdict = if judged { marker::judge(&facts, &own, &intent.predecessor) } else { Verdict::Go };
        let (head, sequence) = table.base();
        let taken = judged && table.shows(intent.snapshot_id);
        // Who does not judge does not know of ids that follow from what is committed, either.
        let snapshot_id = if judged { intent.snapshot_id } else { self.chance.between(1, u64::MAX / 2) as i64 };
        let swap = Swap { head, sequence, snapshot_id, key, marker: own };
        self.note(|| format!("worker {at} run {run} judges {facts:?} as {verdict:?}, its snapshot shows: {taken}"));
        let end = match verdict {
            // As the sink does: the snapshot's id alone says that it has landed before.
            Verdict::Go if taken => v1::CommitEnd::Fenced,
            Verdict::Go => return self.commit_goes_on(at, run, Stage::Staged(swap), 5 * MILLI, SECOND),
            Verdict::AlreadyDone { .. } => v1::CommitEnd::Committed,
            Verdict::Fenced(_) => v1::CommitEnd::Fenced,
            Verdict::RolledBack(_) => v1::CommitEnd::RolledBack,
        };
        self.commit_ends(at, run, grant, &intent, end, true);
    }

    fn commit_ends(&mut self, at: usize, run: u64, grant: Grant, intent: &v1::Intent, end: v1::CommitEnd, found: bool) {
        let result = v1::CommitResult {
            end: end.into(),
            snapshot_id: intent.snapshot_id,
            already_done: found,
            evidence: "as read".to_owned(),
            tries: 1,
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
        let Landing { table, backfill, swap, intent, files } = landing;
        let done = self.tables[table].swap(&swap);
        self.note(|| format!("swap of {} of {backfill:?} lands: {done}", swap.marker));
        if done {
            self.oracle.landed(self.oracle.ix(&backfill), &intent, &files);
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
        match heard {
            Heard::Done => self.commit_ends(at, run, grant, &intent, v1::CommitEnd::Committed, false),
            Heard::Nothing if !self.fences.stands(Fence::UnknownOutcome) => self.guess(at, run, grant, &intent, &files),
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
