//! A source's plan: its segments and read tasks, what is read of them, and the two watermarks that follow.
//!
//! Every question the coordinator asks at each event — how low is the lowest unread unit, which task may begin — is
//! the first entry of an ordered index, so an event costs O(log n) however many splits there are. Segments are loaded
//! when reading comes near them and dropped when they are done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_common::gate::Gate;
use tidegate_common::ids::SegmentIx;
use tidegate_common::time::{Bounds, EventTime};
use tidegate_proto::v1;

/// A read task's place in its source: the segment and the place in it.
pub type Place = (SegmentIx, u32);

/// How many tasks should be waiting to be granted before the next segment is left alone.
const READY_TARGET: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Task(SegmentIx, u32),
    Segment(SegmentIx),
}

/// What is accepted of a task; kept until its segment is done, so that a repeated hand-in is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first unit that is not accepted.
    pub next: u32,
    /// How many units it has; 0 until a hand-in or the loaded segment says so.
    pub total: u32,
    /// The attempt and number of the last accepted hand-in.
    pub last: Option<(String, u64)>,
    /// Whether it is set aside as poison.
    pub parked: bool,
}

impl Progress {
    fn is_done(&self) -> bool {
        self.total > 0 && self.next >= self.total
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loading {
    Unloaded,
    Asked,
    Loaded,
    Done,
}

#[derive(Debug)]
struct Segment {
    info: v1::record::SegmentInfo,
    state: Loading,
    /// Tasks that are neither done nor parked.
    open: u32,
    /// Tasks that are not done.
    unfinished: u32,
    progress: BTreeMap<u32, Progress>,
    tasks: Vec<Task>,
}

#[derive(Debug)]
struct Task {
    payload: Arc<v1::ReadTask>,
    cursor: Option<EventTime>,
    backing_off: bool,
    keys: Keys,
}

/// Under which keys a task stands in the indexes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Keys {
    unread: Option<EventTime>,
    unaccepted: Option<EventTime>,
    ready: Option<(EventTime, EventTime)>,
}

/// One source's plan and how far it has got.
#[derive(Debug, Default)]
pub struct SourcePlan {
    found: Option<v1::Enumerated>,
    segments: Vec<Segment>,
    open: u64,
    done: u64,
    unread: BTreeSet<(EventTime, Key)>,
    unaccepted: BTreeSet<(EventTime, Key)>,
    ready_by_high: BTreeSet<(EventTime, EventTime, Place)>,
    ready_by_low: BTreeSet<(EventTime, EventTime, Place)>,
    unloaded: BTreeSet<SegmentIx>,
    /// How many segments are asked for and not here.
    asked: usize,
    /// Begun before a restart, and not loaded since.
    unsettled: BTreeSet<SegmentIx>,
    /// Asked for by name: a worker says that it holds a task of theirs.
    wanted: BTreeSet<SegmentIx>,
}

impl SourcePlan {
    /// The enumeration is done: this is what there is to read.
    pub fn planned(&mut self, found: v1::Enumerated, segments: Vec<v1::record::SegmentInfo>) {
        self.open = segments.iter().map(|info| u64::from(info.tasks)).sum();
        for (ix, info) in (0u32..).zip(&segments) {
            let entry = (EventTime::from_micros(info.low), Key::Segment(SegmentIx::new(ix)));
            self.unread.insert(entry);
            self.unaccepted.insert(entry);
            self.unloaded.insert(SegmentIx::new(ix));
        }
        self.segments = segments
            .into_iter()
            .map(|info| Segment {
                state: Loading::Unloaded,
                open: info.tasks,
                unfinished: info.tasks,
                progress: BTreeMap::new(),
                tasks: Vec::new(),
                info,
            })
            .collect();
        self.found = Some(found);
    }

    /// What the enumeration found; `None` until it is done.
    pub fn found(&self) -> Option<&v1::Enumerated> {
        self.found.as_ref()
    }

    /// Whether nothing is left to be read: every task is done or parked.
    pub fn is_read(&self) -> bool {
        self.found.is_some() && self.open == 0
    }

    /// How many tasks are done.
    pub fn tasks_done(&self) -> u64 {
        self.done
    }

    /// The read watermark: the lowest event time that may still be read; `MAX` when nothing is left.
    pub fn read_watermark(&self) -> EventTime {
        self.unread.first().map_or(EventTime::MAX, |(low, _)| *low)
    }

    /// The complete watermark: the lowest event time that is not accepted; `MAX` when everything is.
    ///
    /// `None` after a restart until the segments that were begun are loaded again: their lows alone would say less
    /// than was said before.
    pub fn complete_watermark(&self) -> Option<EventTime> {
        self.unsettled.is_empty().then(|| self.unaccepted.first().map_or(EventTime::MAX, |(low, _)| *low))
    }

    /// Whether every segment that was begun before a restart is loaded again.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Where a segment is; `None` where there is none.
    pub fn segment(&self, ix: SegmentIx) -> Option<&v1::record::SegmentInfo> {
        self.segments.get(ix.get() as usize).map(|segment| &segment.info)
    }

    /// The next segment to load, where one is needed: because it was begun, because it may hold the watermark, or
    /// because few tasks wait to be granted.
    pub fn ask_next(&mut self, watermark: EventTime) -> Option<(SegmentIx, &v1::record::SegmentInfo)> {
        let begun = self.unsettled.iter().chain(&self.wanted).copied().find(|ix| self.unloaded.contains(ix));
        let next = begun.or_else(|| {
            let ix = *self.unloaded.first()?;
            let low = EventTime::from_micros(self.segments.get(ix.get() as usize)?.info.low);
            let near = low <= watermark || self.ready_by_low.len() < READY_TARGET;
            (near && self.asked == 0).then_some(ix)
        })?;
        self.asked += 1;
        self.unloaded.remove(&next);
        let segment = self.segments.get_mut(next.get() as usize)?;
        segment.state = Loading::Asked;
        Some((next, &segment.info))
    }

    /// A segment that was asked for is here. Anything else is ignored.
    pub fn load(&mut self, ix: SegmentIx, tasks: Vec<v1::ReadTask>) {
        let Some(segment) = self.segments.get_mut(ix.get() as usize) else { return };
        if segment.state != Loading::Asked || tasks.len() != segment.info.tasks as usize {
            return;
        }
        segment.state = Loading::Loaded;
        self.asked = self.asked.saturating_sub(1);
        self.wanted.remove(&ix);
        segment.tasks = tasks
            .into_iter()
            .map(|task| Task { payload: Arc::new(task), cursor: None, backing_off: false, keys: Keys::default() })
            .collect();
        let entry = (EventTime::from_micros(segment.info.low), Key::Segment(ix));
        let count = segment.info.tasks;
        self.unread.remove(&entry);
        self.unaccepted.remove(&entry);
        for at in 0..count {
            self.reindex((ix, at));
        }
        self.unsettled.remove(&ix);
    }

    /// A segment that was asked for could not be had now; it may be asked for again.
    pub fn load_failed(&mut self, ix: SegmentIx) {
        if let Some(segment) = self.segments.get_mut(ix.get() as usize)
            && segment.state == Loading::Asked
        {
            segment.state = Loading::Unloaded;
            self.asked = self.asked.saturating_sub(1);
            self.unloaded.insert(ix);
        }
    }

    /// Asks for a segment by name; `false` when it needs no asking: it is loaded, or done, or there is none.
    pub fn want(&mut self, ix: SegmentIx) -> bool {
        let state = self.segments.get(ix.get() as usize).map(|segment| segment.state);
        if state == Some(Loading::Unloaded) {
            self.wanted.insert(ix);
        }
        matches!(state, Some(Loading::Unloaded | Loading::Asked))
    }

    /// The task at `place`, if its segment is loaded.
    pub fn payload(&self, place: Place) -> Option<&Arc<v1::ReadTask>> {
        self.task(place).map(|task| &task.payload)
    }

    /// What is accepted of the task at `place`; `None` where there is no such task.
    pub fn progress(&self, place: Place) -> Option<Progress> {
        let segment = self.segments.get(place.0.get() as usize)?;
        if place.1 >= segment.info.tasks {
            return None;
        }
        Some(segment.progress.get(&place.1).cloned().unwrap_or_default())
    }

    /// Whether the task at `place` is done: by its own progress, or because its whole segment is.
    pub fn is_done(&self, place: Place) -> bool {
        let Some(segment) = self.segments.get(place.0.get() as usize) else { return false };
        segment.state == Loading::Done || segment.progress.get(&place.1).is_some_and(Progress::is_done)
    }

    /// A hand-in of units up to `end` of `total` was accepted.
    pub fn accept(&mut self, place: Place, end: u32, total: u32, attempt: &str, number: u64) {
        let Some(segment) = self.segments.get_mut(place.0.get() as usize) else { return };
        let progress = segment.progress.entry(place.1).or_default();
        let was_parked = std::mem::take(&mut progress.parked);
        let was_done = progress.is_done();
        progress.next = end;
        progress.total = total;
        progress.last = Some((attempt.to_owned(), number));
        if was_parked {
            segment.open += 1;
            self.open += 1;
        }
        if progress.is_done() && !was_done {
            segment.open = segment.open.saturating_sub(1);
            segment.unfinished = segment.unfinished.saturating_sub(1);
            self.open = self.open.saturating_sub(1);
            self.done += 1;
        }
        if segment.state == Loading::Unloaded || segment.state == Loading::Asked {
            self.unsettled.insert(place.0);
        }
        self.reindex(place);
        self.drop_if_done(place.0);
    }

    fn drop_if_done(&mut self, ix: SegmentIx) {
        let Some(segment) = self.segments.get_mut(ix.get() as usize) else { return };
        if segment.unfinished > 0 {
            return;
        }
        let entry = (EventTime::from_micros(segment.info.low), Key::Segment(ix));
        if segment.state == Loading::Asked {
            self.asked = self.asked.saturating_sub(1);
        }
        segment.state = Loading::Done;
        self.wanted.remove(&ix);
        segment.tasks = Vec::new();
        segment.progress = BTreeMap::new();
        self.unread.remove(&entry);
        self.unaccepted.remove(&entry);
        self.unsettled.remove(&ix);
        self.unloaded.remove(&ix);
    }

    /// The task at `place` is set aside: finished for the read watermark, unfinished for the complete one.
    pub fn park(&mut self, place: Place) {
        let Some(segment) = self.segments.get_mut(place.0.get() as usize) else { return };
        let progress = segment.progress.entry(place.1).or_default();
        if !progress.parked && !progress.is_done() {
            progress.parked = true;
            segment.open = segment.open.saturating_sub(1);
            self.open = self.open.saturating_sub(1);
        }
        if segment.state == Loading::Unloaded || segment.state == Loading::Asked {
            self.unsettled.insert(place.0);
        }
        self.reindex(place);
    }

    /// The task at `place`, set aside before, is to be tried again.
    pub fn unpark(&mut self, place: Place) {
        let Some(segment) = self.segments.get_mut(place.0.get() as usize) else { return };
        if let Some(progress) = segment.progress.get_mut(&place.1)
            && std::mem::take(&mut progress.parked)
        {
            segment.open += 1;
            self.open += 1;
        }
        self.set_ready(place);
    }

    /// The task at `place` is granted, or its reader's cursor has moved: no row below `cursor` is left in it.
    /// A cursor never falls while the grant lasts.
    pub fn set_cursor(&mut self, place: Place, cursor: EventTime) {
        if let Some(task) = self.task_mut(place) {
            task.cursor = Some(task.cursor.map_or(cursor, |old| old.max(cursor)));
            task.backing_off = false;
        }
        self.reindex(place);
    }

    /// How far the reader of the task at `place` is; `None` where it is not granted.
    pub fn cursor(&self, place: Place) -> Option<EventTime> {
        self.task(place)?.cursor
    }

    /// The grant of the task at `place` is over; with `backing_off` it is not ready until [`Self::set_ready`].
    pub fn release(&mut self, place: Place, backing_off: bool) {
        if let Some(task) = self.task_mut(place) {
            task.cursor = None;
            task.backing_off = backing_off;
        }
        self.reindex(place);
    }

    /// The task at `place` has waited long enough.
    pub fn set_ready(&mut self, place: Place) {
        if let Some(task) = self.task_mut(place) {
            task.backing_off = false;
        }
        self.reindex(place);
    }

    /// The task that holds back `watermark` and is not granted, if there is one.
    pub fn holder(&self, watermark: EventTime) -> Option<Place> {
        let (low, _, place) = self.ready_by_low.first()?;
        (*low <= watermark).then_some(*place)
    }

    /// A task that may begin under `gate`, the lowest first; its low with it.
    pub fn runnable(&self, gate: Gate) -> Option<(EventTime, Place)> {
        let (low, high, place) = self.ready_by_low.first()?;
        if Bounds::new(*low, *high).is_some_and(|unit| gate.permits(unit)) {
            return Some((*low, *place));
        }
        let (high, low, place) = self.ready_by_high.first()?;
        Bounds::new(*low, *high).filter(|unit| gate.permits(*unit)).map(|_| (*low, *place))
    }

    fn task(&self, place: Place) -> Option<&Task> {
        self.segments.get(place.0.get() as usize)?.tasks.get(place.1 as usize)
    }

    fn task_mut(&mut self, place: Place) -> Option<&mut Task> {
        self.segments.get_mut(place.0.get() as usize)?.tasks.get_mut(place.1 as usize)
    }

    fn reindex(&mut self, place: Place) {
        let Some(segment) = self.segments.get_mut(place.0.get() as usize) else { return };
        let Some(task) = segment.tasks.get_mut(place.1 as usize) else { return };
        let keys = Keys::of(task, segment.progress.get(&place.1));
        let old = std::mem::replace(&mut task.keys, keys);
        let key = Key::Task(place.0, place.1);
        if old.unread != keys.unread {
            old.unread.map(|low| self.unread.remove(&(low, key)));
            keys.unread.map(|low| self.unread.insert((low, key)));
        }
        if old.unaccepted != keys.unaccepted {
            old.unaccepted.map(|low| self.unaccepted.remove(&(low, key)));
            keys.unaccepted.map(|low| self.unaccepted.insert((low, key)));
        }
        if old.ready != keys.ready {
            if let Some((low, high)) = old.ready {
                self.ready_by_low.remove(&(low, high, place));
                self.ready_by_high.remove(&(high, low, place));
            }
            if let Some((low, high)) = keys.ready {
                self.ready_by_low.insert((low, high, place));
                self.ready_by_high.insert((high, low, place));
            }
        }
    }
}

impl Keys {
    fn of(task: &Task, progress: Option<&Progress>) -> Self {
        let next = progress.map_or(0, |progress| progress.next);
        let Some(unit) = task.payload.units.get(next as usize) else { return Self::default() };
        let (low, high) = (EventTime::from_micros(unit.low), EventTime::from_micros(unit.high));
        if progress.is_some_and(|progress| progress.parked) {
            return Self { unaccepted: Some(low), ..Self::default() };
        }
        let ready = task.cursor.is_none() && !task.backing_off;
        Self { unread: Some(task.cursor.unwrap_or(low)), unaccepted: Some(low), ready: ready.then_some((low, high)) }
    }
}
