//! Joins: how an output that joins is cut, which slices go out to be joined, and what of the shuffle store goes.

use std::ops::Range;

use tidegate_common::fence::Fence;
use tidegate_common::ids::{BackfillId, OutputIx, TaskId};
use tidegate_common::slices::{Bytes, Cut, Cutting, Found, OverBudget, Slices, waiting};
use tidegate_proto::v1::{self, assign::Work, record};

use super::action::Out;
use super::assign::{assign, may_run};
use super::backfill::{Backfill, CoreOutput};
use super::control::fatal;
use super::join::Join;
use super::output::Output;
use super::read::Judgement;
use super::{Core, ledger};

/// Objects that one task is told of: some two hundred bytes each, in a message of less than four MiB.
const MOST_OBJECTS: usize = 12_000;
/// Objects of the shuffle store that are removed at a time.
const REMOVED_AT_ONCE: usize = 512;

impl Core {
    /// Everything is enumerated: chooses how outputs that join are cut.
    pub(super) fn cut_joins(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        if backfill.phase != v1::Phase::Running || backfill.is_cut() {
            return;
        }
        let outputs = (0u32..).zip(backfill.outputs.iter().zip(&backfill.spec.outputs));
        let uncut = outputs.filter_map(|(ix, (output, spec))| {
            let join = output.join.as_ref().filter(|join| join.slices().is_none())?;
            let prepared = backfill.prepared.as_ref()?.outputs.get(ix as usize)?;
            let cut = choose(backfill, join, spec, prepared);
            let sliced = |Cut { slice, buckets }| record::Sliced { output: ix, slice: slice.as_micros(), buckets };
            Some(cut.map(sliced).map_err(|over| fatal(format!("output {}: {over}", spec.name), 4)))
        });
        match uncut.collect::<Result<Vec<_>, _>>() {
            Ok(cuts) => cuts.into_iter().for_each(|sliced| self.record(id, record::Kind::Sliced(sliced), out)),
            Err(over) => self.fail_backfill(id, over, out),
        }
    }

    /// More rows may wait now: a backfill ends where that is more than its spec allows.
    pub(super) fn keep_to_budget(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id).filter(|backfill| !backfill.is_over()) else { return };
        let outputs = backfill.outputs.iter().zip(&backfill.spec.outputs);
        let over = outputs.filter_map(|(output, spec)| {
            let (live, budget) = (output.join.as_ref()?.live_bytes(), spec.budget?);
            (live > budget).then(|| fatal(exceeded(&spec.name, live, budget), 1))
        });
        let over = over.into_iter().next();
        over.into_iter().for_each(|over| self.fail_backfill(id, over, out));
    }

    /// Whether more waits of a backfill than may, and joins make it less: nothing is read meanwhile.
    pub(super) fn joins_first(&self, backfill: &Backfill) -> bool {
        let outputs = backfill.outputs.iter().zip(&backfill.spec.outputs);
        let is_over = |(output, spec): (&Output, &CoreOutput)| {
            let live = output.join.as_ref().map_or(0, Join::live_bytes);
            spec.budget.is_some_and(|budget| live > budget)
        };
        outputs.into_iter().any(is_over) && (backfill.grants.has_join() || self.next_run(backfill, 1).is_some())
    }

    /// Hands out slices that are ready while there are free slots.
    pub(super) fn assign_joins(&mut self, out: &mut Out) {
        while let Some((_, session)) = self.free.last().copied() {
            let slots = self.free.iter().fold(0, |slots: u32, (free, _)| slots.saturating_add(*free));
            let due = self.active.iter().filter_map(|id| self.backfills.get(id));
            let Some((id, ix, run)) = due.filter_map(|backfill| self.next_run(backfill, slots)).next() else { return };
            let (first, task) = (run.start, TaskId::Join(ix, run.start));
            let join = self.backfills.get_mut(&id).and_then(|backfill| backfill.join_mut(ix));
            let Some(join) = join else { return };
            let Some(shape) = join.shape(ix.get()) else { return };
            let Some(work) = work(join, run, shape) else {
                self.record(&id, record::Kind::Parked(too_many(task)), out);
                continue;
            };
            join.granted(first..work.end_slice);
            let Some(token) = self.grant(&id, task, session, out) else { return };
            out.send(session, assign(&id, task, token, Work::Join(work)));
        }
    }

    /// Whether slices of a backfill are ready and none is being joined.
    pub(super) fn joins_wait(&self, backfill: &Backfill) -> bool {
        !backfill.grants.has_join() && self.next_run(backfill, 1).is_some()
    }

    /// The next run of slices of a backfill that may be joined, where so many slots are free.
    fn next_run(&self, backfill: &Backfill, slots: u32) -> Option<(BackfillId, OutputIx, Range<u32>)> {
        if !may_run(backfill) {
            return None;
        }
        (0u32..).zip(&backfill.outputs).find_map(|(ix, output)| {
            let (ix, join) = (OutputIx::new(ix), output.join.as_ref()?);
            let tries = |slice: u32| backfill.tries.get(&TaskId::Join(ix, slice));
            let waiting = |slice: u32| tries(slice).is_some_and(|tries| tries.waiting);
            // What is parked keeps the slices that it reaches from ever being ready.
            let sources = join.inputs.iter().filter_map(|input| backfill.sources.get(input.source.get() as usize));
            let come = sources.into_iter().any(|source| !source.plan.is_read());
            let ready = match self.config.fences.stands(Fence::SliceReadiness) {
                true => backfill.ready_slices(join),
                false => join.slices().map_or(0, Slices::count),
            };
            let run = join.next_run((ready, come), slots, |slice| tries(slice).is_some(), waiting)?;
            Some((backfill.id.clone(), ix, run))
        })
    }

    /// What was to be removed from the shuffle store is gone.
    pub(super) fn cleaned(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        let paths = std::mem::take(&mut backfill.cleaning);
        backfill.cleaned = paths.is_empty();
        backfill.tries.remove(&TaskId::Clean);
        backfill.outputs.iter_mut().filter_map(|output| output.join.as_mut()).for_each(|join| join.removed(&paths));
        out.touch(id);
    }
}

/// The work of a run of slices, of as many of them as fit into a message; `None` where not even one does.
fn work(join: &Join, mut run: Range<u32>, shape: v1::ShuffleShape) -> Option<v1::JoinWork> {
    loop {
        let inputs = join.objects(&run);
        let objects: usize = inputs.iter().map(|input| input.objects.len()).sum();
        if objects <= MOST_OBJECTS {
            return Some(v1::JoinWork { end_slice: run.end, shape: Some(shape), inputs });
        }
        run = (run.len() > 1).then(|| run.start..run.start + (run.end - run.start) / 2)?;
    }
}

fn too_many(task: TaskId) -> record::Parked {
    let message = format!(
        "what it joins lies in more than {MOST_OBJECTS} objects of the shuffle store: apply it under another name with a \
         narrower `join.slice`, or fewer and larger input files"
    );
    let class = v1::Failure::Poison.into();
    let evidence = v1::Evidence { class, message, place: task.to_string(), attempts: 1, ..Default::default() };
    record::Parked { task: Some(task.into()), evidence: Some(evidence) }
}

fn exceeded(output: &str, live: u64, budget: u64) -> String {
    format!(
        "output {output}: {} wait in the shuffle store, and join.budget is {}: `retry` goes on, and joins first what is \
         ready; where that is not enough, another budget, alignment.max_drift or join.slice makes another backfill of it: \
         `cancel` this one, and apply that to a window or a table without what this one has committed",
        Bytes(live),
        Bytes(budget)
    )
}

/// What of the shuffle store is to be removed now.
pub(super) fn litter(backfill: &Backfill) -> Option<v1::CleanWork> {
    if !backfill.is_littered() || backfill.is_over() || backfill.grace {
        return None;
    }
    // Who drains or ends in order hands in first. What a worker still writes that is fenced off may come behind it.
    let busy = backfill.grants.reads() > 0 || backfill.grants.has_join() || backfill.grants.has_late();
    if !busy && (backfill.wish == v1::Wish::Cancel || (backfill.is_whole() && backfill.is_committed())) {
        return Some(v1::CleanWork { paths: Vec::new(), all: true });
    }
    if backfill.is_whole() {
        return None; // all of it goes soon
    }
    let joins = backfill.outputs.iter().filter_map(|output| output.join.as_ref());
    let paths: Vec<String> = joins.flat_map(|join| join.waste(REMOVED_AT_ONCE)).take(REMOVED_AT_ONCE).collect();
    (!paths.is_empty()).then_some(v1::CleanWork { paths, all: false })
}

/// What is wrong with a hand-in for the outputs that join what it read; `None` where nothing is.
pub(super) fn unfit(backfill: &Backfill, task: TaskId, hand_in: &v1::HandIn) -> Option<String> {
    let TaskId::Read(source, ..) = task else { return None };
    hand_in.outputs.iter().find_map(|part| {
        let join = backfill.outputs.get(part.output as usize).and_then(|output| output.join.as_ref());
        let why = match (join, &part.shuffled) {
            (None, None) => None,
            (None, Some(_)) => Some("its rows were shuffled, and it joins nothing".to_owned()),
            (Some(_), _) if !part.files.is_empty() => Some("it joins, and files were written for it".to_owned()),
            // Readers never classify: which rows are late is told from their cells.
            (Some(_), _) if part.rows_late > 0 => Some(format!("{} of its rows are said to be late", part.rows_late)),
            (Some(join), Some(object)) => join.unfit(source, object),
            (Some(join), None) => join.input(source).is_none().then(|| "it joins no such source".to_owned()),
        };
        why.map(|why| format!("output {}: {why}", part.output))
    })
}

/// Whether the hand-in of a run of slices is accepted.
pub(super) fn judge(backfill: &Backfill, (ix, first): (OutputIx, u32), live: bool, hand_in: &v1::HandIn) -> Judgement {
    let refuse = |why: &str| Judgement::Refuse(why.to_owned());
    let Some(join) = backfill.outputs.get(ix.get() as usize).and_then(|output| output.join.as_ref()) else {
        return refuse("there is no such join");
    };
    if !live {
        return refuse("the lease is over");
    }
    if hand_in.first_unit != first || join.run_end(first) != Some(hand_in.end_unit) {
        return refuse("its slices are not those of the task");
    }
    match ledger::unsound_join(hand_in, ix.get()) {
        Some(why) => Judgement::Unsound(why),
        None => Judgement::Accept { total: hand_in.end_unit, planned: 0 },
    }
}

/// How an output that joins is cut: what the spec says, or what follows from what was found; refused where more of its rows
/// may then wait than the spec allows.
fn choose(
    backfill: &Backfill,
    join: &Join,
    spec: &CoreOutput,
    prepared: &v1::PreparedOutput,
) -> Result<Cut, OverBudget> {
    let found = join.inputs.iter().filter_map(|input| {
        let source = backfill.sources.get(input.source.get() as usize)?;
        Some(source.plan.found()?.met(input.reach))
    });
    let found: Vec<Found> = found.collect();
    let (window, max_drift) = (backfill.spec.window, backfill.spec.max_drift);
    let cutting = Cutting {
        window,
        max_drift,
        bytes: found.iter().map(|found| found.bytes).fold(0, u64::saturating_add),
        reach: join.inputs.iter().map(|input| input.reach.length()).max().unwrap_or_default(),
        keyed: prepared.inputs.iter().all(|input| input.keyed),
        slice: spec.slice,
        buckets: spec.buckets,
        whole: prepared.whole_windows(),
    };
    let cut = cutting.choose();
    let estimate = waiting(&found, window, cut.slice, max_drift);
    OverBudget::of(estimate, spec.budget, max_drift).map_or(Ok(cut), Err)
}
