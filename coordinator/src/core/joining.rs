//! Joins: how an output that joins is cut, which slices go out to be joined, and what of the shuffle store goes.

use std::ops::Range;

use tidegate_common::fence::Fence;
use tidegate_common::ids::{BackfillId, OutputIx, TaskId};
use tidegate_common::slices::Slices;
use tidegate_common::time::{Span, Window};
use tidegate_proto::v1::{self, assign::Work, record};

use super::action::Out;
use super::assign::{assign, may_run};
use super::backfill::{Backfill, CoreOutput};
use super::join::Join;
use super::read::Judgement;
use super::{Core, ledger};

/// Bytes of input, as they lie in their files, that a slice should hold.
const SLICE_BYTES: u64 = 64 << 20;
/// Slices of a window at least, where nothing says how wide one should be.
const LEAST_SLICES: i64 = 16;
/// Slices of a window at most, unless the spec asks for more.
const MOST_SLICES: i64 = 4096;
/// Bytes of input that one bucket of a slice should hold.
const BUCKET_BYTES: u64 = 16 << 20;
/// Buckets at most, unless the spec asks for more.
const MOST_BUCKETS: u64 = 64;
/// Objects of the shuffle store that are removed at a time.
const REMOVED_AT_ONCE: usize = 512;

/// Widths that people can think in, in seconds.
const WIDTHS: [i64; 16] = [
    1,
    5,
    15,
    60,
    300,
    900,
    3_600,
    10_800,
    21_600,
    43_200,
    86_400,
    604_800,
    2_419_200,
    7_257_600,
    31_449_600,
    314_496_000,
];

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
            let keyed = backfill.prepared.as_ref()?.outputs.get(ix as usize)?.inputs.iter().all(|input| input.keyed);
            let (slice, buckets) = choose(backfill, join, spec, keyed);
            Some(record::Sliced { output: ix, slice: slice.as_micros(), buckets })
        });
        for sliced in uncut.collect::<Vec<_>>() {
            self.record(id, record::Kind::Sliced(sliced), out);
        }
    }

    /// Hands out slices that are ready while there are free slots.
    pub(super) fn assign_joins(&mut self, out: &mut Out) {
        while let Some((_, session)) = self.free.last().copied() {
            let slots = self.free.iter().fold(0, |slots: u32, (free, _)| slots.saturating_add(*free));
            let due = self.active.iter().filter_map(|id| self.backfills.get(id));
            let Some((id, ix, run)) = due.filter_map(|backfill| self.next_run(backfill, slots)).next() else { return };
            let task = TaskId::Join(ix, run.start);
            let join = self.backfills.get_mut(&id).and_then(|backfill| join_mut(backfill, ix));
            let Some(join) = join else { return };
            join.granted(run.clone());
            let Some(shape) = join.shape(ix.get()) else { return };
            let work = v1::JoinWork { end_slice: run.end, shape: Some(shape), inputs: join.objects(&run) };
            let Some(token) = self.grant(&id, task, session, out) else { return };
            out.send(session, assign(&id, task, token, Work::Join(work)));
        }
    }

    /// Whether slices of a backfill are ready and none is being joined.
    pub(super) fn joins_wait(&self, backfill: &Backfill) -> bool {
        let joins = backfill.grants.iter().any(|(task, _)| matches!(task, TaskId::Join(..)));
        !joins && self.next_run(backfill, 1).is_some()
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

fn join_mut(backfill: &mut Backfill, ix: OutputIx) -> Option<&mut Join> {
    backfill.outputs.get_mut(ix.get() as usize)?.join.as_mut()
}

/// What of the shuffle store is to be removed now.
pub(super) fn litter(backfill: &Backfill) -> Option<v1::CleanWork> {
    if !backfill.is_littered() || backfill.is_over() || backfill.grace {
        return None;
    }
    // What readers and joins still write would come behind it.
    let busy = backfill.grants.iter().any(|(task, _)| matches!(task, TaskId::Read(..) | TaskId::Join(..)));
    if !busy && (backfill.wish == v1::Wish::Cancel || (backfill.is_whole() && backfill.is_committed())) {
        return Some(v1::CleanWork { paths: Vec::new(), all: true });
    }
    if backfill.is_processed() {
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

/// The width of a slice and the number of buckets of an output: what the spec says, or what follows from what was found.
fn choose(backfill: &Backfill, join: &Join, spec: &CoreOutput, keyed: bool) -> (Span, u32) {
    let window = backfill.spec.window;
    let bytes = |input: &super::join::Input| {
        let source = backfill.sources.get(input.source.get() as usize);
        source.and_then(|source| source.plan.found()).map_or(0, |found| found.bytes_in_range)
    };
    let bytes: u64 = join.inputs.iter().map(bytes).sum();
    let reach =
        join.inputs.iter().map(|input| input.reach.high.as_micros().saturating_sub(input.reach.low.as_micros()));
    let reach = reach.max().unwrap_or(0);
    let width = spec.slice.unwrap_or_else(|| width(window, bytes, reach, backfill.spec.max_drift));
    // A spec's width that makes too many slices was refused with the spec.
    let width = if Slices::new(window, width).is_some() { width } else { length(window) };
    let share = width.as_micros().saturating_add(reach).min(length(window).as_micros()).max(1);
    let of_slice = u128::from(bytes) * u128::from(share.unsigned_abs())
        / u128::from(length(window).as_micros().max(1).unsigned_abs());
    let chosen = u64::try_from(of_slice).unwrap_or(u64::MAX).div_ceil(BUCKET_BYTES).clamp(1, MOST_BUCKETS);
    let buckets = spec.buckets.unwrap_or_else(|| u32::try_from(chosen).unwrap_or(1));
    (width, if keyed { buckets.max(1) } else { 1 })
}

fn length(window: Window) -> Span {
    window.to().since(window.from())
}

/// As wide as holds [`SLICE_BYTES`], and no wider than sources drift apart or reach, so that what waits stays small.
fn width(window: Window, bytes: u64, reach: i64, max_drift: Option<Span>) -> Span {
    let length = length(window).as_micros().max(1);
    let by_bytes = i64::try_from(bytes / SLICE_BYTES).unwrap_or(i64::MAX);
    let widest = match max_drift {
        Some(drift) => drift.as_micros().max(reach),
        None => (length / LEAST_SLICES).max(reach),
    };
    let wanted = (length / by_bytes.max(1)).min(widest).max(length / MOST_SLICES).max(reach / 4).max(1);
    let nice = WIDTHS.iter().map(|seconds| seconds * 1_000_000);
    let fitting = nice.filter(|width| *width <= wanted && length / width <= MOST_SLICES).max();
    Span::from_micros(fitting.unwrap_or(wanted).min(length))
}
