//! What the oracle thinks of outputs that join: which slices may be joined and of what, what they must hold, and what of
//! the shuffle store may go. It walks all units and rows, and inverts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use tidegate_common::ids::{TaskId, Token};
use tidegate_proto::{convert, v1};

use super::regenerating::Losses;
use super::{Book, Invariant, Oracle};
use crate::sim::joins::{Input, Joins, Row, rows, slice_of};
use crate::sim::scenario::{Order, WINDOW};

/// What is known of an output that joins.
#[derive(Clone, Debug)]
pub(super) struct JoinBook {
    pub(super) of: Joins,
    /// The width of a slice, once it is chosen.
    width: Option<i64>,
    /// The objects of accepted hand-ins, by the paths under which they were accepted.
    pub(super) accepted: BTreeMap<String, Object>,
    /// What lies in the store.
    pub(super) there: BTreeSet<String>,
    /// What was removed from it.
    pub(super) gone: BTreeSet<String>,
    /// Whether all of it was removed, so that what comes now comes behind.
    pub(super) emptied: bool,
    joined: BTreeSet<u32>,
    pub(super) parked: BTreeSet<u32>,
    /// The anchor's rows in accepted files.
    anchors: BTreeSet<Row>,
    /// Those that came when their slice was joined: they are in no file.
    too_late: BTreeSet<Row>,
    /// Rows of each input that came when slices which need their cells were joined.
    late: BTreeMap<usize, u64>,
    /// The highest token that each join was granted under.
    pub(super) granted: BTreeMap<TaskId, Token>,
    pub(super) lost: Losses,
}

/// An accepted object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    input: usize,
    /// The slices that still need it, by the first and the last of its cells.
    pub(super) needing: BTreeSet<u32>,
    /// Those that need one of its rows.
    in_need: BTreeSet<u32>,
    pub(super) bytes: u64,
    /// The rows of each cell.
    pub(super) cells: BTreeMap<i64, u64>,
}

impl JoinBook {
    pub(super) fn new(of: Joins) -> Self {
        Self {
            of,
            width: None,
            accepted: BTreeMap::new(),
            there: BTreeSet::new(),
            gone: BTreeSet::new(),
            emptied: false,
            joined: BTreeSet::new(),
            parked: BTreeSet::new(),
            anchors: BTreeSet::new(),
            too_late: BTreeSet::new(),
            late: BTreeMap::new(),
            granted: BTreeMap::new(),
            lost: Losses::default(),
        }
    }

    /// How many slices there are; none before it is cut.
    fn count(&self) -> u32 {
        let width = self.width.unwrap_or(i64::MAX).max(1);
        let slices = (0i64..).take_while(|slice| slice.checked_mul(width).is_some_and(|at| at < WINDOW.cast_signed()));
        self.width.map_or(0, |_| u32::try_from(slices.count()).unwrap_or(u32::MAX))
    }

    fn unjoined(&self) -> impl Iterator<Item = u32> {
        (0..self.count()).filter(|slice| !self.joined.contains(slice))
    }

    /// Where a slice begins, and its last microsecond.
    fn bounds(&self, slice: u32) -> (i64, i64) {
        let width = self.width.unwrap_or(0);
        (width * i64::from(slice), (width * i64::from(slice + 1)).min(WINDOW.cast_signed()) - 1)
    }

    /// The event times of `input` that a slice meets.
    fn met(&self, slice: u32, input: Input) -> RangeInclusive<i64> {
        let (first, last) = self.bounds(slice);
        first + input.low..=last + input.high
    }

    /// The cells that a slice meets of `input`.
    fn cells(&self, slice: u32, input: Input) -> RangeInclusive<i64> {
        let (met, width) = (self.met(slice, input), self.width.unwrap_or(1));
        slice_of(*met.start(), width)..=slice_of(*met.end(), width)
    }

    /// The objects that the slices of a run, which are not joined, meet of each input.
    fn met_by(&self, run: &Range<u32>) -> BTreeSet<(usize, String)> {
        let meets = |object: &Object| object.needing.iter().any(|slice| run.contains(slice));
        let met = self.accepted.iter().filter(|(_, object)| meets(object));
        met.map(|(path, object)| (object.input, path.clone())).collect()
    }

    /// Those of them that hold a row which they meet: what came while the run was under way, and holds none, it may lack.
    fn needed_by(&self, run: &Range<u32>) -> BTreeSet<(usize, String)> {
        let meets = |object: &Object| object.in_need.iter().any(|slice| run.contains(slice));
        let needed = self.accepted.iter().filter(|(_, object)| meets(object));
        needed.map(|(path, object)| (object.input, path.clone())).collect()
    }

    /// The slices of a run are joined.
    fn join(&mut self, run: &Range<u32>) {
        self.joined.extend(run.clone());
        self.parked.retain(|slice| !run.contains(slice));
        self.accepted.values_mut().for_each(|object| object.needing.retain(|slice| !run.contains(slice)));
    }

    /// The event time below which everything is joined.
    fn through(&self) -> i64 {
        match self.width {
            Some(_) => self.unjoined().next().map_or(i64::MAX, |slice| self.bounds(slice).0),
            None => 0,
        }
    }
}

impl Book {
    /// The rows of `source` that wait to be joined, or were; those of `accepted` units alone, or of all.
    fn rows_of(&self, source: u32, joins: &Joins, accepted: bool) -> impl Iterator<Item = Row> {
        let of_source = move |task: &TaskId| matches!(task, TaskId::Read(of, ..) if of.get() == source);
        self.tasks.iter().filter(move |(task, _)| of_source(task)).flat_map(move |(task, book)| {
            let of = |(unit, at): (&super::Unit, u32)| rows(*task, at, (unit.low, unit.high, unit.rows), joins);
            let units = if accepted { book.next } else { u32::MAX };
            book.units.iter().zip(0..units).flat_map(of).collect::<Vec<_>>()
        })
    }

    /// The anchor's rows in the slices of `run`.
    fn anchors_in(&self, joins: &JoinBook, run: &Range<u32>) -> BTreeSet<Row> {
        let Some(anchor) = joins.of.inputs.first() else { return BTreeSet::new() };
        let (from, to) = (joins.bounds(run.start).0, joins.bounds(run.end.saturating_sub(1)).1);
        self.rows_of(anchor.source, &joins.of, true).filter(|row| (from..=to).contains(&row.at)).collect()
    }

    /// Whether a unit that is not accepted may hold what a slice meets.
    fn misses(&self, joins: &JoinBook, slice: u32) -> bool {
        joins.of.inputs.iter().any(|input| {
            let met = joins.met(slice, *input);
            let of_source = |task: &TaskId| matches!(task, TaskId::Read(of, ..) if of.get() == input.source);
            let open = self.tasks.iter().filter(|(task, _)| of_source(task));
            let mut units = open.flat_map(|(_, book)| book.units.iter().skip(book.next as usize));
            units.any(|unit| unit.low <= *met.end() && *met.start() <= unit.high)
        })
    }

    /// What is set aside or waits for what is set aside: every other slice that is whole is joined.
    pub(super) fn forgotten_slices(&self) -> Vec<u32> {
        let Some(joins) = &self.joins else { return Vec::new() };
        let whole = |slice: &u32| {
            joins.of.inputs.iter().all(|input| {
                let end = (joins.cells(*slice, *input).end() + 1) * joins.width.unwrap_or(1);
                self.lowest_unaccepted(input.source) >= end
            })
        };
        joins.unjoined().filter(|slice| !joins.parked.contains(slice) && whole(slice)).collect()
    }

    /// Whether no join can process that slice.
    pub(super) fn is_poison(&self, task: TaskId) -> bool {
        let (Some(joins), TaskId::Join(_, slice)) = (&self.joins, task) else { return false };
        let (first, last) = joins.bounds(slice);
        joins.of.poison.iter().any(|at| (first..=last).contains(at))
    }

    /// How many rows of its anchor an output joins, late ones left out; `None` where it does not join.
    pub(super) fn anchors(&self, output: u32) -> Option<u64> {
        let joins = self.joins.as_ref().filter(|joins| joins.of.output == output)?;
        Some((self.rows_of(joins.of.inputs.first()?.source, &joins.of, false).count() - joins.too_late.len()) as u64)
    }

    /// Below which event time everything is accepted that goes into an output.
    pub(super) fn accepted_through(&self, output: u32) -> i64 {
        match &self.joins {
            Some(joins) if joins.of.output == output => joins.through(),
            _ => self.order.reads.get(output as usize).map_or(i64::MAX, |source| self.lowest_unaccepted(*source)),
        }
    }
}

/// The objects that a join is to read, of each input.
fn named(work: &v1::JoinWork) -> BTreeSet<(usize, String)> {
    let inputs = work.inputs.iter().enumerate();
    inputs.flat_map(|(at, input)| input.objects.iter().map(move |object| (at, object.path.clone()))).collect()
}

/// How many outputs gain something by a hand-in of `source`.
pub(super) fn outputs_of(order: &Order, source: u32) -> usize {
    let joined = order.joins.as_ref().map(|joins| joins.output);
    let reads = (0u32..).zip(&order.reads).filter(|(output, of)| **of == source && Some(*output) != joined);
    reads.count() + usize::from(order.joins.as_ref().is_some_and(|joins| joins.input(source).is_some()))
}

impl Oracle {
    /// How an output is cut has become durable.
    pub(super) fn sliced(&mut self, ix: usize, sliced: &v1::record::Sliced) {
        let Some(joins) = &mut self.books[ix].joins else { return };
        let before = joins.width.replace(sliced.slice);
        let begun = !joins.accepted.is_empty() || !joins.joined.is_empty();
        self.require(sliced.slice > 0 && !(begun && before.is_some()), Invariant::JoinedOnce, || {
            format!("slices of {before:?} are slices of {} now", sliced.slice)
        });
    }

    /// A hand-in of a source that a join reads was accepted.
    pub(super) fn shuffle_accepted(&mut self, ix: usize, task: TaskId, units: Range<u32>, part: &v1::OutputPart) {
        let book = &self.books[ix];
        let (Some(joins), TaskId::Read(source, ..)) = (&book.joins, task) else { return };
        let inputs = joins.of.inputs.iter().enumerate();
        let Some((at, input)) = inputs.into_iter().find(|(_, input)| input.source == source.get()) else { return };
        let unit = |at: u32| Some((at, *book.tasks.get(&task)?.units.get(at as usize)?));
        let of = |(at, unit): (u32, super::Unit)| rows(task, at, (unit.low, unit.high, unit.rows), &joins.of);
        let held: Vec<Row> = units.filter_map(unit).flat_map(of).collect();
        let in_object = part.shuffled.as_ref().map_or(0, |object| object.rows);
        let width = joins.width.unwrap_or(1);
        let cells = held.iter().map(|row| slice_of(row.at, width));
        let (Some(first), Some(last)) = (cells.clone().min(), cells.max()) else { return };
        let meets = |slice: &u32| {
            let cells = joins.cells(*slice, *input);
            first <= *cells.end() && *cells.start() <= last
        };
        let needing: BTreeSet<u32> = (0..joins.count()).filter(meets).collect();
        let missed = |row: &Row| {
            let cell = slice_of(row.at, width);
            joins.joined.iter().any(|slice| joins.cells(*slice, *input).contains(&cell))
        };
        let late: Vec<Row> = held.iter().filter(|row| missed(row)).copied().collect();
        let is_lost =
            |row: &&Row| u32::try_from(slice_of(row.at, width)).is_ok_and(|slice| joins.joined.contains(&slice));
        let lost: Vec<Row> = if at == 0 { late.iter().filter(is_lost).copied().collect() } else { Vec::new() };
        let may = joins.of.disorder > 0;
        let needing: BTreeSet<u32> = needing.difference(&joins.joined).copied().collect();
        let cells: BTreeSet<i64> = held.iter().map(|row| slice_of(row.at, width)).collect();
        let has_row = |slice: &&u32| cells.range(joins.cells(**slice, *input)).next().is_some();
        let in_need = needing.iter().filter(has_row).copied().collect();
        let Some(object) = &part.shuffled else {
            return self.breaks(Invariant::AnchorsOnce, format!("{task}: {} rows are in no object", held.len()));
        };
        let counts = held.len() as u64 == in_object && in_object == part.rows_passed;
        let sound = counts && (object.first_cell, object.last_cell) == (first, last);
        let gone = joins.gone.contains(&object.path) && !needing.is_empty();
        let mut in_cells: BTreeMap<i64, u64> = BTreeMap::new();
        held.iter().for_each(|row| *in_cells.entry(slice_of(row.at, width)).or_default() += 1);
        let book = Object { input: at, needing, in_need, bytes: object.bytes, cells: in_cells };
        let Some(joins) = &mut self.books[ix].joins else { return };
        let twice = joins.accepted.insert(object.path.clone(), book).is_some();
        joins.too_late.extend(lost);
        *joins.late.entry(at).or_default() += late.len() as u64;
        self.require(sound && !twice, Invariant::AnchorsOnce, || {
            format!("{}: {in_object} rows of {}, in it twice: {twice}", object.path, held.len())
        });
        self.require(may || late.is_empty(), Invariant::JoinedWhole, || {
            format!("{} is accepted, and slices that meet {late:?} are joined", object.path)
        });
        self.require(!gone, Invariant::NeededKept, || format!("{} is accepted, and was removed", object.path));
    }

    /// An object is written to the shuffle store. What an attempt that is over writes after that was emptied nobody
    /// expects to go.
    pub(in super::super) fn shuffled(&mut self, ix: usize, path: &str) {
        if let Some(joins) = self.books[ix].joins.as_mut().filter(|joins| !joins.emptied) {
            joins.there.insert(path.to_owned());
        }
    }

    /// Everything that a backfill had there is removed.
    pub(in super::super) fn emptied(&mut self, ix: usize) {
        self.books[ix].joins.iter_mut().for_each(|joins| joins.emptied = true);
    }

    /// An object is removed from it.
    pub(in super::super) fn removed(&mut self, ix: usize, path: &str) {
        let book = &mut self.books[ix];
        let cancelled = book.wish == v1::Wish::Cancel;
        let Some(joins) = &mut book.joins else { return };
        joins.there.remove(path);
        joins.gone.insert(path.to_owned());
        let needed = joins.is_needed(path);
        self.require(!needed || cancelled, Invariant::NeededKept, || {
            format!("{path} is removed, and slices that need it are not joined")
        });
    }

    /// A join does not find what it was told to read.
    pub(in super::super) fn missed(&mut self, ix: usize, path: &str, slices: &Range<u32>) {
        let book = &self.books[ix];
        let Some(joins) = &book.joins else { return };
        let over = slices.clone().all(|slice| joins.joined.contains(&slice));
        let excused = book.wish == v1::Wish::Cancel || over || joins.lost.excuses(path);
        self.require(excused, Invariant::NeededKept, || format!("{path} is to be read for {slices:?}, and is gone"));
    }

    /// An attempt at a join reads these.
    pub(in super::super) fn join_reads(&mut self, attempt: &str, work: &v1::JoinWork) {
        self.joins_read.insert(attempt.to_owned(), named(work));
    }

    /// A file of a join holds these rows of the anchor.
    pub(in super::super) fn holds(&mut self, path: &str, rows: &[Row]) {
        self.joined_rows.insert(path.to_owned(), rows.to_vec());
    }

    /// A coordinator grants a join.
    pub(super) fn join_granted(&mut self, ix: usize, assign: &v1::Assign, work: &v1::JoinWork) {
        let (Ok(TaskId::Join(_, first)), Ok(token)) = (convert::task_id(assign.task), convert::token(assign.token))
        else {
            return;
        };
        let book = &mut self.books[ix];
        let Some(joins) = &mut book.joins else { return };
        let task = TaskId::Join(tidegate_common::ids::OutputIx::new(joins.of.output), first);
        let granted = joins.granted.entry(task).or_insert(token);
        *granted = (*granted).max(token);
        let book = &self.books[ix];
        let Some(joins) = &book.joins else { return };
        let run = first..work.end_slice;
        let early: Vec<u32> = run.clone().filter(|slice| book.misses(joins, *slice)).collect();
        let named = joins.lost.first_of(named(work));
        let removed: Vec<&String> =
            named.iter().map(|(_, path)| path).filter(|path| joins.lost.is_removed(path)).collect();
        let removed = format!("{removed:?}");
        let met = joins.met_by(&run);
        // What is joined already, an older coordinator may grant again, and has objects that are gone.
        let over = run.clone().any(|slice| joins.joined.contains(&slice));
        let sound = !run.is_empty() && run.end <= joins.count();
        // What came just behind the grant, and holds no row that the run needs, disturbs nobody.
        let is_whole = sound && named.is_subset(&met) && joins.needed_by(&run).is_subset(&named);
        let wrong = format!("slices {run:?} are granted with {named:?}, and meet {met:?}");
        self.require(early.is_empty(), Invariant::JoinedWhole, || {
            format!("slices {run:?} are granted, and what {early:?} meet is not all accepted")
        });
        if removed != "[]" && !over {
            let what = format!("slices {run:?} are granted with {removed}, which a cancel removed");
            self.doubt(ix, (task, token), Invariant::NeededKept, what);
        }
        if !is_whole && !over {
            self.doubt(ix, (task, token), Invariant::JoinedWhole, wrong);
        }
    }

    /// The hand-in of a join was accepted.
    pub(super) fn join_accepted(&mut self, ix: usize, task: TaskId, hand_in: &v1::HandIn) {
        let run = hand_in.first_unit..hand_in.end_unit;
        let book = &self.books[ix];
        let (Some(joins), TaskId::Join(output, first)) = (&book.joins, task) else { return };
        let granted = joins.granted.get(&task).copied();
        let token = self.attempts.get(&hand_in.attempt).map(|attempt| attempt.token);
        let known =
            output.get() == joins.of.output && first == run.start && !run.is_empty() && run.end <= joins.count();
        let again: Vec<u32> = run.clone().filter(|slice| joins.joined.contains(slice)).collect();
        let early: Vec<u32> = run.clone().filter(|slice| book.misses(joins, *slice)).collect();
        let (met, needed) = (joins.met_by(&run), joins.needed_by(&run));
        let read = joins.lost.first_of(self.joins_read.get(&hand_in.attempt).cloned().unwrap_or_default());
        let expected = book.anchors_in(joins, &run);
        let files = hand_in.outputs.iter().flat_map(|part| &part.files);
        let held: Vec<Row> = files.filter_map(|file| self.joined_rows.get(&file.path)).flatten().copied().collect();
        let once: BTreeSet<Row> = held.iter().copied().collect();
        let twice = once.iter().filter(|row| joins.anchors.contains(row)).count() + held.len() - once.len();
        let same = once == expected && hand_in.rows_read == expected.len() as u64;
        let (held, wanted) = (once.len(), expected.len());
        if let Some(joins) = &mut self.books[ix].joins {
            joins.join(&run);
            joins.anchors.extend(once);
        }
        self.require(known && again.is_empty(), Invariant::JoinedOnce, || {
            format!("{task}: slices {run:?} are accepted, and {again:?} were joined before")
        });
        self.require(granted <= token, Invariant::SupersededStayOut, || {
            format!("{task}: {} under {token:?} is accepted, and {granted:?} was granted", hand_in.attempt)
        });
        let whole = read.is_subset(&met) && needed.is_subset(&read);
        self.require(early.is_empty() && whole, Invariant::JoinedWhole, || {
            format!("{task}: slices {run:?} were joined of {read:?}, and meet {met:?}; open: {early:?}")
        });
        self.require(same && twice == 0, Invariant::AnchorsOnce, || {
            format!("{task}: {held} anchors of {wanted} in slices {run:?}, {twice} of them again")
        });
    }

    /// What a succeeded backfill lacks of its join, and whether it left anything in the shuffle store.
    pub(super) fn join_succeeded(&mut self, ix: usize) {
        let book = &self.books[ix];
        let Some(joins) = &book.joins else { return };
        let open: Vec<u32> = joins.unjoined().collect();
        let cut = joins.width.is_some();
        let anchor = joins.of.inputs.first().map_or(0, |anchor| anchor.source);
        let (wanted, held) =
            (book.rows_of(anchor, &joins.of, false).count(), joins.anchors.len() + joins.too_late.len());
        let both = joins.too_late.intersection(&joins.anchors).count();
        self.require(cut && open.is_empty(), Invariant::JoinedOnce, || format!("it succeeded without slices {open:?}"));
        self.require(wanted == held && both == 0, Invariant::AnchorsOnce, || {
            format!("{held} anchors of {wanted} are joined or late, {both} of them both")
        });
    }

    /// A backfill has succeeded, is staged or cancelled: nothing of it is left in the shuffle store, but what an attempt
    /// that was over wrote behind the last removal.
    pub(super) fn left_nothing(&mut self, ix: usize) {
        let Some(joins) = &self.books[ix].joins else { return };
        let left = joins.there.clone();
        self.require(left.is_empty(), Invariant::NothingLeft, || format!("{left:?} are left in the shuffle store"));
    }

    /// How many rows were late, of all sources that are joined.
    pub(in super::super) fn late_rows(&self) -> u64 {
        self.books.iter().filter_map(|book| book.joins.as_ref()).flat_map(|joins| joins.late.values()).sum()
    }

    /// What the core says of a join.
    pub(super) fn join_said(&mut self, ix: usize, status: &v1::Backfill) {
        let Some(joins) = &self.books[ix].joins else { return };
        let Some(said) = status.outputs.get(joins.of.output as usize).and_then(|output| output.join.as_ref()) else {
            return;
        };
        let late: Vec<u64> = said.inputs.iter().map(|input| input.rows_late).collect();
        let wanted: Vec<u64> = (0..late.len()).map(|at| joins.late.get(&at).copied().unwrap_or(0)).collect();
        self.require(late == wanted, Invariant::AnchorsOnce, || format!("{late:?} rows are late, and {wanted:?} are"));
        let Some(joins) = &self.books[ix].joins else { return };
        let live = joins.accepted.iter().filter(|(path, of)| !of.needing.is_empty() && !joins.lost.is_removed(path));
        let live: u64 = live.map(|(_, object)| object.bytes).sum();
        let (done, bytes) = (joins.joined.len(), said.live_bytes);
        self.require(live == bytes, Invariant::LiveBytes, || format!("{bytes} live bytes, and {live} are needed"));
        self.require(said.slices_done as usize == done, Invariant::JoinedOnce, || {
            format!("{} slices joined, and {done} are", said.slices_done)
        });
    }
}
