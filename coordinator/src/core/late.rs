//! Late rows: which they are, what becomes of them, and the tasks that write them to their table.
//!
//! A slice is *sealed* when its join's hand-in is accepted, and not before: that is durable, so a replay finds the same
//! rows late. A row is *late* when a slice that needs its cell is sealed by then; those slices that are not take it all
//! the same. A run that is only granted is taken back, and granted anew with the rows that came.
//!
//! | the rows are of | late rows are |
//! |---|---|
//! | a source that may not break its order | refused: the promise is broken |
//! | one that may, `include` | refused: the answer would lack them |
//! | one that may, `side_output` | accepted, counted, and written to their table by a task of their own |
//! | one that may, `drop` | accepted and counted |

use std::collections::BTreeMap;
use std::ops::Range;

use rangemap::RangeSet;
use tidegate_common::ids::{BackfillId, OutputIx, SourceIx, TaskId};
use tidegate_common::lateness::{self, CLASSES};
use tidegate_common::slices::Slices;
use tidegate_common::spec::model::LatePolicy;
use tidegate_common::time::Span;
use tidegate_proto::v1::{self, assign::Work};

use super::Core;
use super::action::Out;
use super::assign::{assign, may_run};
use super::backfill::Backfill;
use super::join::Join;
use super::ledger;
use super::read::Judgement;

/// Windows that operators are told of; more are one around all.
const MOST_WINDOWS: usize = 1_000;

/// Cells of an object at most: a worker makes no more pieces of one.
const MOST_CELLS: usize = 350_000;

/// What of an object is late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lateness {
    /// Rows that are late.
    pub(super) rows: u64,
    /// Of those, rows of the anchor whose own slice is joined: they are in no answer.
    pub(super) anchors: u64,
    /// The cells that they lie in, ascending, each with the slices from the first that went without it to the last.
    cells: Vec<(i64, Range<u32>)>,
    /// The slices that went without some of them.
    missed_by: RangeSet<u32>,
    /// Rows by how late they are, and the most, in microseconds.
    rows_by: [u64; CLASSES],
    most: i64,
}

/// How late the rows of a source were, and which slices went without some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LateBook {
    rows_by: [u64; CLASSES],
    most: i64,
    missed_by: RangeSet<u32>,
}

impl LateBook {
    pub(super) fn book(&mut self, late: &Lateness) {
        self.rows_by.iter_mut().zip(late.rows_by).for_each(|(sum, rows)| *sum += rows);
        self.most = self.most.max(late.most);
        self.missed_by.extend(late.missed_by.iter().cloned());
    }

    /// As operators see it; `None` where no row was late.
    pub(super) fn state(&self, slices: Slices) -> Option<v1::LateRows> {
        let (first, last) = (self.missed_by.first()?, self.missed_by.last()?);
        let range = |run: Range<u32>| {
            let window = slices.run(run)?;
            Some(v1::TimeRange { from: window.from().as_micros(), to: window.to().as_micros() })
        };
        let missed_by = match self.missed_by.len() {
            0..=MOST_WINDOWS => self.missed_by.iter().cloned().filter_map(range).collect(),
            _ => range(first.start..last.end).into_iter().collect(),
        };
        Some(v1::LateRows { rows_by: self.rows_by.to_vec(), most: self.most, missed_by })
    }
}

/// What is wrong with the cells that an object is said to hold; `None` where nothing is.
pub(super) fn unsound_cells(object: &v1::ShuffleObject) -> Option<String> {
    let v1::ShuffleObject { cells, cell_rows, first_cell, last_cell, rows, .. } = object;
    let ascend = cells.windows(2).all(|pair| matches!(pair, [one, next] if one < next));
    let ends = (cells.first(), cells.last()) == (Some(first_cell), Some(last_cell));
    let sum = cell_rows.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
    let few = cells.len() <= MOST_CELLS;
    let sound = few && cells.len() == cell_rows.len() && cell_rows.iter().all(|rows| *rows > 0) && sum == Some(*rows);
    (!(ascend && ends && sound)).then(|| {
        format!(
            "{rows} rows in cells {first_cell} to {last_cell}, and they are said to be {} in {} cells",
            sum.unwrap_or(u64::MAX),
            cells.len()
        )
    })
}

impl Join {
    /// What of an object of an input comes too late, by what is joined now.
    pub(super) fn lateness(&self, input: usize, object: &v1::ShuffleObject) -> Lateness {
        let mut late = Lateness::default();
        let Some((slices, reach)) = self.slices().zip(self.inputs.get(input).map(|input| input.reach)) else {
            return late;
        };
        if !self.joined.overlaps(&self.needing(input, object)) {
            return late;
        }
        for (cell, rows) in object.cells.iter().copied().zip(object.cell_rows.iter().copied()) {
            let needing = slices.needing(cell..=cell, reach);
            let mut missed: Option<Range<u32>> = None;
            for joined in self.joined.overlapping(&needing) {
                let run = joined.start.max(needing.start)..joined.end.min(needing.end);
                missed = Some(missed.map_or(run.start, |missed| missed.start)..run.end);
                late.missed_by.insert(run);
            }
            let Some(missed) = missed else { continue };
            let by = lateness::at_most(slices, reach, cell, missed.end.saturating_sub(1));
            late.count(rows, by);
            late.cells.push((cell, missed));
        }
        let is_anchor = self.inputs.get(input).is_some_and(|input| input.is_anchor);
        late.anchors = if is_anchor { self.anchors_of(object, |slice| self.is_joined(slice)) } else { 0 };
        late
    }

    /// Rows of an object of the anchor that lie in `which` slices: each cell of the window is one.
    pub(super) fn anchors_of(&self, object: &v1::ShuffleObject, which: impl Fn(u32) -> bool) -> u64 {
        let count = self.slices().map_or(0, Slices::count);
        let cells = object.cells.iter().zip(&object.cell_rows);
        let inside = cells.filter_map(|(cell, rows)| Some((u32::try_from(*cell).ok()?, rows)));
        let of = inside.filter(|(slice, _)| *slice < count && which(*slice)).map(|(_, rows)| *rows);
        of.fold(0, u64::saturating_add)
    }

    /// The runs that are granted and need rows of an object, by their first slices, with those of their slices that do.
    fn disturbed(&self, source: SourceIx, object: &v1::ShuffleObject) -> Vec<(u32, RangeSet<u32>)> {
        let reach = self.input(source).and_then(|at| self.inputs.get(at)).map(|input| input.reach);
        let Some((slices, reach)) = self.slices().zip(reach) else { return Vec::new() };
        let of_run = |run: Range<u32>| {
            let needing = object.cells.iter().map(|cell| slices.needing(*cell..=*cell, reach));
            let within = needing.map(|needing| needing.start.max(run.start)..needing.end.min(run.end));
            (run.start, within.filter(|within| !within.is_empty()).collect::<RangeSet<u32>>())
        };
        self.running().map(of_run).filter(|(_, slices)| !slices.is_empty()).collect()
    }

    /// These slices are joined by themselves from now on.
    pub(super) fn set_apart(&mut self, slices: &RangeSet<u32>) {
        self.disturbed.extend(slices.iter().cloned().flatten());
    }

    /// The late rows of an object are set aside.
    pub(super) fn park_late(&mut self, number: u64) {
        if self.unwritten.remove(&number) {
            self.unwritten_parked.insert(number);
        }
    }

    /// They are taken up again.
    pub(super) fn unpark_late(&mut self, number: u64) {
        if self.unwritten_parked.remove(&number) {
            self.unwritten.insert(number);
        }
    }

    /// All late rows.
    pub(super) fn late(&self) -> u64 {
        self.inputs.iter().map(|input| input.account.late()).sum()
    }

    /// What a worker is told of the late rows of an object.
    fn late_work(&self, ix: u32, number: u64) -> Option<v1::LateWork> {
        let (source, object, late) = self.with_late(number)?;
        Some(v1::LateWork {
            table: self.keeper?,
            source: source.get(),
            shape: Some(self.shape(ix)?),
            object: Some(object),
            cells: late.cells.iter().map(|(cell, _)| *cell).collect(),
            missed_from: late.cells.iter().map(|(_, missed)| missed.start).collect(),
            missed_to: late.cells.iter().map(|(_, missed)| missed.end).collect(),
        })
    }
}

impl Lateness {
    fn count(&mut self, rows: u64, by: Span) {
        self.rows = self.rows.saturating_add(rows);
        self.most = self.most.max(by.as_micros());
        if let Some(sum) = self.rows_by.get_mut(lateness::class_of(by)) {
            *sum = sum.saturating_add(rows);
        }
    }
}

impl Core {
    /// Hands out the writing of late rows while there are free slots.
    pub(super) fn assign_late(&mut self, out: &mut Out) {
        while let Some((_, session)) = self.free.last().copied() {
            let due = self.active.iter().filter_map(|id| self.backfills.get(id));
            let Some((id, task, work)) = due.filter_map(next).next() else { return };
            let Some(token) = self.grant(&id, task, session, out) else { return };
            out.send(session, assign(&id, task, token, Work::Late(work)));
        }
    }
}

/// The late rows of a backfill that are to be written next.
fn next(backfill: &Backfill) -> Option<(BackfillId, TaskId, v1::LateWork)> {
    if !may_run(backfill) {
        return None;
    }
    (0u32..).zip(&backfill.outputs).find_map(|(ix, output)| {
        let join = output.join.as_ref()?;
        let free = |task: &TaskId| {
            backfill.grants.get(*task).is_none() && !backfill.tries.get(task).is_some_and(|tries| tries.waiting)
        };
        let task = |number: &u64| TaskId::Late(OutputIx::new(ix), *number);
        let number = *join.unwritten.iter().find(|number| free(&task(number)) && !join.is_lost(**number))?;
        Some((backfill.id.clone(), task(&number), join.late_work(ix, number)?))
    })
}

/// The joins of what a read hands in, with the objects that they get.
fn shuffled<'a>(
    backfill: &'a Backfill,
    hand_in: &'a v1::HandIn,
) -> impl Iterator<Item = (u32, &'a Join, &'a v1::ShuffleObject)> {
    hand_in.outputs.iter().filter_map(|part| {
        let join = backfill.outputs.get(part.output as usize)?.join.as_ref()?;
        Some((part.output, join, part.shuffled.as_ref()?))
    })
}

/// Why late rows of a read are not taken; `None` where there are none, or they are.
pub(super) fn refused(backfill: &Backfill, task: TaskId, hand_in: &v1::HandIn) -> Option<String> {
    let TaskId::Read(source, ..) = task else { return None };
    let disorderly = backfill.spec.disorderly.contains(&source);
    shuffled(backfill, hand_in).find_map(|(ix, join, object)| {
        let output = backfill.spec.outputs.get(ix as usize)?;
        let kept = output.late == LatePolicy::Drop || (output.late == LatePolicy::SideOutput && join.keeper.is_some());
        let late = join.lateness(join.input(source)?, object);
        let missed = late.missed_by.first()?.start..late.missed_by.last()?.end;
        if disorderly && kept {
            return None;
        }
        let name = backfill.spec.sources.get(source.get() as usize).map_or("?", String::as_str);
        let window = join.slices().and_then(|slices| slices.run(missed.clone()));
        let window = window.map(|window| format!(" [{}, {})", window.from(), window.to())).unwrap_or_default();
        let way_out = match disorderly {
            true => "`late.policy` is `include`: apply it under another name with more `out_of_orderness`, or another policy",
            false => {
                "its rows may not break their order: declare how far out of order they are, or, of a topic, \
                 `on_disorder: allow`"
            }
        };
        Some(format!(
            "output {}: {} rows of {name} came late: slices {} to {} of{window} need them and are joined already; {way_out}",
            output.name,
            late.rows,
            missed.start,
            missed.end - 1
        ))
    })
}

/// The joins that are under way without the rows that a read hands in, and those of their slices that need them.
pub(super) fn disturbed(backfill: &Backfill, task: TaskId, hand_in: &v1::HandIn) -> BTreeMap<TaskId, RangeSet<u32>> {
    let TaskId::Read(source, ..) = task else { return BTreeMap::new() };
    let joins = shuffled(backfill, hand_in);
    let tasks = joins.flat_map(|(ix, join, object)| {
        let runs = join.disturbed(source, object).into_iter();
        runs.map(move |(first, slices)| (TaskId::Join(OutputIx::new(ix), first), slices))
    });
    tasks.collect()
}

/// Whether the hand-in of late rows is accepted.
pub(super) fn judge(backfill: &Backfill, (ix, number): (OutputIx, u64), live: bool, hand_in: &v1::HandIn) -> Judgement {
    let refuse = |why: &str| Judgement::Refuse(why.to_owned());
    let join = backfill.outputs.get(ix.get() as usize).and_then(|output| output.join.as_ref());
    let Some((join, table)) = join.and_then(|join| Some((join, join.keeper?))) else {
        return refuse("no late rows are kept of that output");
    };
    if !live {
        return refuse("the lease is over");
    }
    let Some((_, _, late)) = join.with_late(number) else { return refuse("its late rows are written") };
    if (hand_in.first_unit, hand_in.end_unit) != (0, 1) {
        return refuse("its units are not those of the task");
    }
    match ledger::unsound_late(hand_in, table, late.rows) {
        Some(why) => Judgement::Unsound(why),
        None => Judgement::Accept { total: 1, planned: 0 },
    }
}

/// What is booked when slices were missed, for the tests.
#[cfg(test)]
pub(super) fn book_of(missed_by: RangeSet<u32>) -> LateBook {
    LateBook { missed_by, ..LateBook::default() }
}
