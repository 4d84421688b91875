//! An output that joins: which rows of its sources wait, which slices are joined, and what of the shuffle store is still
//! needed. What its journal says alone changes it, but for the runs of slices that are granted.
//!
//! A slice is *ready* when the complete watermark of every source has passed what the slice meets of it. Ready slices
//! are joined in runs of neighbours, each run by one task. An object of the shuffle store is needed until the last slice
//! that meets one of its cells is joined and its late rows are in their table, and not a moment longer.

mod lost;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rangemap::RangeSet;
use tidegate_common::ids::SourceIx;
use tidegate_common::slices::{Reach, Slices};
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_proto::v1;

use super::late::{self, Lateness};
use super::ledger::InputAccount;
use lost::Lost;
pub(super) use lost::{Missed, Origin};

/// Bytes of the shuffle store that one run of slices joins, about.
const RUN_BYTES: u64 = 64 << 20;
/// Slices of a run at most.
const MOST_SLICES: u32 = 1_024;
/// A run is not begun for less while more is coming: so much waits beyond what must.
const LEAST_RUN_BYTES: u64 = 256 << 10;

/// One source of an output that joins.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) source: SourceIx,
    pub(super) reach: Reach,
    /// Whether its rows in the window are each joined once, and not only met.
    pub(super) is_anchor: bool,
    pub(super) account: InputAccount,
}

/// An object of the shuffle store that was accepted and is still needed.
#[derive(Debug)]
struct Object {
    input: usize,
    /// The slices that need something of it.
    slices: Range<u32>,
    object: v1::ShuffleObject,
    origin: Origin,
    /// What of it is still to be written to the table of late rows.
    late: Option<Lateness>,
}

impl Object {
    /// What a worker is told of it, who reads in the object what it holds.
    fn bare(&self) -> v1::ShuffleObject {
        let (cells, cell_rows) = Default::default();
        v1::ShuffleObject { cells, cell_rows, ..self.object.clone() }
    }
}

/// How an output that joins stands.
#[derive(Debug)]
pub(super) struct Join {
    /// An anchor first.
    pub(super) inputs: Vec<Input>,
    slices: Option<Slices>,
    buckets: u32,
    objects: BTreeMap<u64, Object>,
    /// Rows of the anchors that are to be joined.
    pub(super) anchors: u64,
    /// The output that keeps its late rows; `None` where they are only counted, or refused.
    pub(super) keeper: Option<u32>,
    /// Objects with late rows that are to be written, and those set aside.
    pub(super) unwritten: BTreeSet<u64>,
    pub(super) unwritten_parked: BTreeSet<u64>,
    accepted: u64,
    accepted_bytes: u64,
    live_bytes: u64,
    peak_bytes: u64,
    pub(super) joined: RangeSet<u32>,
    parked: BTreeSet<u32>,
    /// Objects that nothing needs any more.
    waste: BTreeSet<String>,
    lost: Lost,
    /// Slices whose run was taken back for rows that came: they are joined by themselves, so that a stream of such rows holds
    /// up no others; soft.
    pub(super) disturbed: BTreeSet<u32>,
    /// Runs that are granted, by their first slice, with their ends; soft.
    running: BTreeMap<u32, u32>,
}

impl Join {
    pub(super) fn new(inputs: Vec<Input>) -> Self {
        Self {
            inputs,
            slices: None,
            buckets: 0,
            objects: BTreeMap::new(),
            anchors: 0,
            keeper: None,
            unwritten: BTreeSet::new(),
            unwritten_parked: BTreeSet::new(),
            accepted: 0,
            accepted_bytes: 0,
            live_bytes: 0,
            peak_bytes: 0,
            joined: RangeSet::new(),
            parked: BTreeSet::new(),
            waste: BTreeSet::new(),
            lost: Lost::default(),
            disturbed: BTreeSet::new(),
            running: BTreeMap::new(),
        }
    }

    /// How it is cut is chosen.
    pub(super) fn cut(&mut self, window: Window, sliced: &v1::record::Sliced) {
        self.slices = Slices::new(window, Span::from_micros(sliced.slice));
        self.buckets = sliced.buckets.max(1);
    }

    /// The grid; `None` until it is chosen.
    pub(super) fn slices(&self) -> Option<Slices> {
        self.slices
    }

    /// What workers are told of how it is cut.
    pub(super) fn shape(&self, output: u32) -> Option<v1::ShuffleShape> {
        Some(v1::ShuffleShape { output, slice: self.slices?.width().as_micros(), buckets: self.buckets })
    }

    /// The input that `source` is.
    pub(super) fn input(&self, source: SourceIx) -> Option<usize> {
        self.inputs.iter().position(|input| input.source == source)
    }

    /// What is wrong with an object of `source` in itself; `None` where nothing is.
    pub(super) fn unfit(&self, source: SourceIx, object: &v1::ShuffleObject) -> Option<String> {
        let Some(input) = self.input(source) else { return Some("it joins no such source".to_owned()) };
        let is_anchor = self.inputs.get(input).is_some_and(|input| input.is_anchor);
        late::unsound_cells(object).or_else(|| {
            let anchors = if is_anchor { self.anchors_of(object, |_| true) } else { 0 };
            (object.anchors != anchors).then(|| format!("{} anchors, and its cells hold {anchors}", object.anchors))
        })
    }

    pub(super) fn needing(&self, input: usize, object: &v1::ShuffleObject) -> Range<u32> {
        let reach = self.inputs.get(input).map(|input| input.reach);
        let slices = self.slices.zip(reach);
        slices.map_or(0..0, |(slices, reach)| slices.needing(object.first_cell..=object.last_cell, reach))
    }

    /// Books a hand-in's part of the rows that come from `origin`.
    pub(super) fn book(&mut self, origin: Origin, part: &v1::OutputPart) {
        let Some(at) = self.input(origin.source) else { return };
        let late = part.shuffled.as_ref().map(|object| self.lateness(at, object)).unwrap_or_default();
        if let Some(input) = self.inputs.get_mut(at) {
            input.account.book(part);
            input.account.book_late(&late);
        }
        let Some(object) = &part.shuffled else { return };
        self.anchors += object.anchors.saturating_sub(late.anchors);
        let slices = self.needing(at, object);
        self.accepted_bytes += object.bytes;
        let late = Some(late).filter(|late| late.rows > 0 && self.keeper.is_some());
        if late.is_none() && self.are_joined(&slices) {
            self.waste.insert(object.path.clone());
            return;
        }
        self.live_bytes += object.bytes;
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
        self.unwritten.extend(late.is_some().then_some(self.accepted));
        self.objects.insert(self.accepted, Object { input: at, slices, object: object.clone(), late, origin });
        self.accepted += 1;
    }

    /// Bytes of it in the shuffle store, of what is accepted and still needed.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Whether every one of these slices is joined.
    fn are_joined(&self, slices: &Range<u32>) -> bool {
        slices.is_empty() || self.joined.get(&slices.start).is_some_and(|run| run.end >= slices.end)
    }

    /// These slices are joined, for good: what only they needed is waste.
    pub(super) fn joined(&mut self, slices: Range<u32>) {
        if slices.is_empty() {
            return;
        }
        self.parked.retain(|slice| !slices.contains(slice));
        self.disturbed.retain(|slice| !slices.contains(slice));
        self.joined.insert(slices.clone());
        let touched = self.objects.iter().filter(|(_, object)| object.slices.start < slices.end);
        let over = |object: &Object| object.late.is_none() && self.are_joined(&object.slices);
        let gone: Vec<u64> = touched.filter(|(_, object)| over(object)).map(|(number, _)| *number).collect();
        gone.into_iter().for_each(|number| self.discard(number));
    }

    /// The late rows of an object are in their table: it is waste where no slice needs it.
    pub(super) fn late_written(&mut self, number: u64) {
        self.unwritten.remove(&number);
        self.unwritten_parked.remove(&number);
        let Some(object) = self.objects.get_mut(&number) else { return };
        object.late = None;
        let slices = object.slices.clone();
        if self.are_joined(&slices) {
            self.discard(number);
        }
    }

    fn discard(&mut self, number: u64) {
        if let Some(object) = self.objects.remove(&number) {
            self.forget_lost(number, &object);
            self.live_bytes = self.live_bytes.saturating_sub(object.object.bytes);
            self.waste.insert(object.object.path);
        }
    }

    /// An object whose late rows are to be written: its source, itself without its cells, and what of it is late.
    pub(super) fn with_late(&self, number: u64) -> Option<(SourceIx, v1::ShuffleObject, &Lateness)> {
        let object = self.objects.get(&number)?;
        Some((self.inputs.get(object.input)?.source, object.bare(), object.late.as_ref()?))
    }

    /// The runs that are granted, by their first slices.
    pub(super) fn running(&self) -> impl Iterator<Item = Range<u32>> {
        self.running.iter().map(|(first, end)| *first..*end)
    }

    /// The slices before `end` that are not joined.
    fn unjoined(&self, end: u32) -> impl Iterator<Item = u32> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while let Some(joined) = self.joined.get(&at) {
                at = joined.end;
            }
            let next = (at < end).then_some(at);
            at = at.saturating_add(1);
            next
        })
    }

    pub(super) fn is_joined(&self, slice: u32) -> bool {
        self.joined.contains(&slice)
    }

    pub(super) fn park(&mut self, slice: u32) {
        self.parked.insert(slice);
    }

    pub(super) fn unpark(&mut self, slice: u32) {
        self.parked.remove(&slice);
    }

    /// How many slices from the first on are ready, where the complete watermarks of the inputs are these.
    pub(super) fn ready(&self, complete: impl Fn(SourceIx) -> Option<EventTime>) -> u32 {
        let Some(slices) = self.slices else { return 0 };
        let ready = |input: &Input| complete(input.source).map_or(0, |complete| slices.ready(complete, input.reach));
        self.inputs.iter().map(ready).min().unwrap_or(0)
    }

    /// The next run of slices to be granted, of those below `ready`, where more of them may `come`; `alone` are joined by
    /// themselves, and `waiting` not now.
    pub(super) fn next_run(
        &self,
        (ready, come): (u32, bool),
        slots: u32,
        alone: impl Fn(u32) -> bool,
        waiting: impl Fn(u32) -> bool,
    ) -> Option<Range<u32>> {
        let count = self.slices?.count();
        let free = |slice: u32| {
            let run = self.running.range(..=slice).next_back();
            run.is_none_or(|(_, end)| *end <= slice) && !self.parked.contains(&slice) && !self.is_lacking(slice)
        };
        let alone = |slice: u32| self.disturbed.contains(&slice) || alone(slice);
        let first = self.unjoined(ready).find(|slice| free(*slice) && !waiting(*slice))?;
        if alone(first) {
            return Some(first..first + 1);
        }
        // What one slice takes is what the others took.
        let each = self.accepted_bytes / u64::from(ready.max(1));
        let most = u32::try_from(RUN_BYTES / each.max(1)).unwrap_or(u32::MAX).clamp(1, MOST_SLICES);
        let stop = |slice: u32| self.is_joined(slice) || !free(slice) || alone(slice);
        let end = ready.min(first.saturating_add(most));
        let end = (first + 1..end).find(|slice| stop(*slice)).unwrap_or(end);
        let available = end - first;
        let more_comes = come && ready < count && end == ready;
        if more_comes && u64::from(available) * each < LEAST_RUN_BYTES {
            return None;
        }
        Some(first..first + available.div_ceil(slots.max(1)))
    }

    /// What the slices `run` need, in the order of the inputs.
    pub(super) fn objects(&self, run: &Range<u32>) -> Vec<v1::join_work::Objects> {
        let mut inputs = vec![v1::join_work::Objects::default(); self.inputs.len()];
        let needed = |object: &&Object| object.slices.start < run.end && run.start < object.slices.end;
        for object in self.objects.values().filter(needed) {
            if let Some(input) = inputs.get_mut(object.input) {
                input.objects.push(object.bare());
            }
        }
        inputs
    }

    pub(super) fn granted(&mut self, run: Range<u32>) {
        self.running.insert(run.start, run.end);
    }

    pub(super) fn released(&mut self, first: u32) {
        self.running.remove(&first);
    }

    /// The end of the granted run that begins with `first`.
    pub(super) fn run_end(&self, first: u32) -> Option<u32> {
        self.running.get(&first).copied()
    }

    /// Whether every slice below `ready`, and every late row, is done with or set aside.
    pub(super) fn is_idle(&self, ready: u32) -> bool {
        let rests = self.slices.is_some() && self.are_late_written() && !self.is_regenerating();
        rests && self.unjoined(ready).all(|slice| self.is_set_aside(slice))
    }

    /// The event time below which every row of the result is accepted.
    pub(super) fn complete(&self, window: Window) -> EventTime {
        let Some(slices) = self.slices else { return window.from() };
        let first = self.unjoined(slices.count()).next();
        first.map_or(EventTime::MAX, |first| slices.slice(first).map_or(window.from(), Window::from))
    }

    /// Whether anything was ever written to the shuffle store for it.
    pub(super) fn has_shuffled(&self) -> bool {
        self.accepted_bytes > 0
    }

    /// Some of what nothing needs any more.
    pub(super) fn waste(&self, most: usize) -> Vec<String> {
        self.waste.iter().take(most).cloned().collect()
    }

    /// These are removed; everything where nothing is named.
    pub(super) fn removed(&mut self, paths: &[String]) {
        self.waste.retain(|path| !paths.is_empty() && !paths.contains(path));
    }

    /// As operators see it.
    pub(super) fn state(&self, sources: &[String], ready: u32) -> v1::JoinState {
        let input = |input: &Input| {
            let name = usize::try_from(input.source.get()).ok().and_then(|at| sources.get(at));
            input.account.state(name.cloned().unwrap_or_default(), input.reach, self.slices)
        };
        let lengths = |ranges: &mut dyn Iterator<Item = Range<u32>>| ranges.map(|range| range.end - range.start).sum();
        v1::JoinState {
            inputs: self.inputs.iter().map(input).collect(),
            slice: self.slices.map_or(0, |slices| slices.width().as_micros()),
            slices: self.slices.map_or(0, Slices::count),
            slices_ready: ready,
            slices_done: lengths(&mut self.joined.iter().cloned()),
            buckets: self.buckets,
            live_bytes: self.live_bytes,
            peak_bytes: self.peak_bytes,
            anchors: self.anchors,
            regenerated: self.regenerated_count(),
            running: lengths(&mut self.running.iter().map(|(first, end)| *first..*end)),
        }
    }
}
