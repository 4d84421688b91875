//! Objects of the shuffle store that are lost: which slices wait for them, and what stands in their place.
//!
//! Whether an object is lost is soft, but for those that a cancel removes: after a restart the joins find out again.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_common::ids::SourceIx;
use tidegate_proto::v1;

use super::super::plan::Place;
use super::{Join, Object};

/// How often an object is read again before the slices that need it are set aside: who has a store of its own never
/// finds what others write.
const MOST_TIMES: u32 = 2;

/// Where the rows of an object come from: units `[first, end)` of a read task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Origin {
    pub(in super::super) source: SourceIx,
    pub(in super::super) place: Place,
    pub(in super::super) first: u32,
    pub(in super::super) end: u32,
}

/// What it means that somebody did not find an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Missed {
    /// It was told of no such object.
    Nothing,
    /// The object was made anew meanwhile.
    Replaced,
    /// It is read again.
    ReadAgain,
    /// It was read again often enough, and is set aside.
    TooOften(u64),
}

/// What is lost of an output that joins.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// By the first slice that needs it.
    objects: BTreeSet<(u32, u64)>,
    /// Those that could not be read again.
    parked: BTreeSet<u64>,
    /// Those that are being read again; soft.
    granted: BTreeSet<u64>,
    /// How often each was read again since it was last tried anew.
    times: BTreeMap<u64, u32>,
    /// Those that a cancel removed.
    removed: BTreeSet<u64>,
    /// How many were read again.
    regenerated: u64,
}

impl Join {
    /// A join of the run that begins with slice `first` did not find an object there, or found it damaged.
    pub(in super::super) fn missed(&mut self, first: u32, path: &str) -> Missed {
        let Some(end) = self.run_end(first) else { return Missed::Nothing };
        if self.waste.contains(path) {
            return Missed::Replaced;
        }
        let needed = |object: &Object| object.slices.start < end && first < object.slices.end;
        let mut objects = self.objects.iter().filter(|(_, object)| needed(object) && object.object.path == path);
        let number = objects.next().map(|(number, _)| *number);
        number.map_or(Missed::Nothing, |number| self.lose(number))
    }

    /// The same of who was to write the late rows of an object.
    pub(in super::super) fn missed_late(&mut self, number: u64, path: &str) -> Missed {
        match self.objects.get(&number) {
            Some(object) if object.object.path == path => self.lose(number),
            Some(_) if self.waste.contains(path) => Missed::Replaced,
            _ => Missed::Nothing,
        }
    }

    /// An object is lost.
    fn lose(&mut self, number: u64) -> Missed {
        let Some(object) = self.objects.get(&number) else { return Missed::Nothing };
        if self.lost.times.get(&number).is_some_and(|times| *times >= MOST_TIMES) {
            return Missed::TooOften(number);
        }
        self.lost.objects.insert((object.slices.start, number));
        Missed::ReadAgain
    }

    /// Whether an object is lost.
    pub(in super::super) fn is_lost(&self, number: u64) -> bool {
        self.objects.get(&number).is_some_and(|object| self.lost.objects.contains(&(object.slices.start, number)))
    }

    /// Whether no late rows are to be written, but for those of objects that cannot be read again.
    pub(super) fn are_late_written(&self) -> bool {
        self.unwritten.iter().all(|number| self.lost.parked.contains(number))
    }

    /// The backfill is cancelled: what waits is removed, and read again should it ever go on.
    pub(in super::super) fn lose_all(&mut self) {
        self.lost.objects = self.objects.iter().map(|(number, object)| (object.slices.start, *number)).collect();
        self.lost.removed = self.objects.keys().copied().collect();
        self.live_bytes = 0;
    }

    /// Whether anything is lost.
    pub(in super::super) fn has_lost(&self) -> bool {
        !self.lost.objects.is_empty()
    }

    /// Whether a slice needs what is lost, or only of that what cannot be read again.
    fn needs(&self, slice: u32, lost: impl Fn(u64) -> bool) -> bool {
        // What covers a slice begins close before it, mostly.
        let mut below = self.lost.objects.range(..=(slice, u64::MAX)).rev().filter(|(_, number)| lost(*number));
        below.any(|(_, number)| self.objects.get(number).is_some_and(|of| of.slices.contains(&slice)))
    }

    /// Whether a slice waits for what is lost.
    pub(super) fn is_lacking(&self, slice: u32) -> bool {
        self.needs(slice, |_| true)
    }

    /// Whether a slice is not joined before somebody asks for it to be tried again.
    pub(super) fn is_set_aside(&self, slice: u32) -> bool {
        self.parked.contains(&slice)
            || (!self.lost.parked.is_empty() && self.needs(slice, |lost| self.lost.parked.contains(&lost)))
    }

    /// The lost object that the lowest slice below `ready` needs, of those that nobody reads again and that are not
    /// `waiting`.
    pub(in super::super) fn next_lost(&self, ready: u32, waiting: impl Fn(u64) -> bool) -> Option<u64> {
        let free = |number: &u64| {
            !self.lost.granted.contains(number) && !self.lost.parked.contains(number) && !waiting(*number)
        };
        let mut lost = self.lost.objects.range(..(ready, 0)).map(|(_, number)| *number).filter(free);
        lost.find(|number| {
            let slices =
                self.objects.get(number).map_or(0..0, |object| object.slices.start..object.slices.end.min(ready));
            let mut slices = slices.into_iter();
            self.unwritten.contains(number) || slices.any(|slice| !self.is_joined(slice) && !self.is_set_aside(slice))
        })
    }

    /// An object that is needed, and where its rows come from.
    pub(in super::super) fn object(&self, number: u64) -> Option<(Origin, &v1::ShuffleObject)> {
        self.objects.get(&number).map(|object| (object.origin, &object.object))
    }

    /// Whether an object lies at `path`, or did.
    pub(in super::super) fn has_path(&self, path: &str) -> bool {
        self.waste.contains(path) || self.objects.values().any(|object| object.object.path == path)
    }

    /// Somebody reads an object again.
    pub(in super::super) fn regenerating(&mut self, number: u64) {
        self.lost.granted.insert(number);
    }

    /// Nobody reads it again any more.
    pub(in super::super) fn not_regenerating(&mut self, number: u64) {
        self.lost.granted.remove(&number);
    }

    /// Whether anything is being read again.
    pub(in super::super) fn is_regenerating(&self) -> bool {
        !self.lost.granted.is_empty()
    }

    /// `made` stands in the place of an object.
    pub(in super::super) fn regenerated(&mut self, number: u64, made: &v1::ShuffleObject) {
        let Some(object) = self.objects.get_mut(&number) else { return };
        let old = std::mem::replace(&mut object.object, made.clone());
        self.lost.objects.remove(&(object.slices.start, number));
        if !self.lost.removed.remove(&number) {
            self.live_bytes = self.live_bytes.saturating_sub(old.bytes);
            self.waste.insert(old.path);
            *self.lost.times.entry(number).or_default() += 1;
        }
        self.live_bytes = self.live_bytes.saturating_add(made.bytes);
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
        self.lost.regenerated += 1;
    }

    /// An object is needed no more.
    pub(super) fn forget_lost(&mut self, number: u64, object: &Object) {
        self.lost.objects.remove(&(object.slices.start, number));
        self.lost.parked.remove(&number);
        self.lost.times.remove(&number);
        self.lost.removed.remove(&number);
    }

    /// An object cannot be read again as things are.
    pub(in super::super) fn park_object(&mut self, number: u64) {
        if let Some(object) = self.objects.get(&number) {
            self.lost.objects.insert((object.slices.start, number));
            self.lost.parked.insert(number);
        }
    }

    /// Everything is tried anew.
    pub(in super::super) fn try_anew(&mut self) {
        self.lost.parked.clear();
        self.lost.times.clear();
    }

    /// How many objects were read again.
    pub(super) fn regenerated_count(&self) -> u64 {
        self.lost.regenerated
    }
}
