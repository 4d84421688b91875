//! What the oracle thinks of objects of the shuffle store that are lost, and of what stands in their place.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_common::ids::TaskId;
use tidegate_proto::{convert, v1};
use v1::record;

use super::joins::JoinBook;
use super::{Invariant, Oracle};

/// How often an object may be lost: it is read again no more than that.
const MOST_TIMES: u32 = 2;

/// What is known of lost objects; each goes by the path under which it was first accepted.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// What stands in an object's place.
    current: BTreeMap<String, String>,
    /// Of each path, that under which the object was first accepted.
    first: BTreeMap<String, String>,
    /// Objects that are gone and not made anew yet; whether by a cancel.
    lost: BTreeMap<String, bool>,
    /// How often each was lost.
    times: BTreeMap<String, u32>,
    /// Paths at which nothing is expected any more.
    past: BTreeSet<String>,
    /// What each object was when somebody was told to make it anew, by its number.
    granted: BTreeMap<u64, String>,
}

impl Losses {
    fn first(&self, path: &str) -> String {
        self.first.get(path).map_or(path, String::as_str).to_owned()
    }

    /// The same objects, by the paths under which they were first accepted.
    pub(super) fn first_of(&self, objects: BTreeSet<(usize, String)>) -> BTreeSet<(usize, String)> {
        objects.into_iter().map(|(input, path)| (input, self.first(&path))).collect()
    }

    /// Whether it is no wonder that nothing stands at a path.
    pub(super) fn excuses(&self, path: &str) -> bool {
        self.past.contains(path)
    }

    /// Whether a cancel removed an object that was not made anew since.
    pub(super) fn is_removed(&self, first: &str) -> bool {
        self.lost.get(first).copied().unwrap_or(false)
    }

    fn lose(&mut self, first: &str, by_cancel: bool) {
        let path = self.current.get(first).cloned().unwrap_or_else(|| first.to_owned());
        self.past.insert(path);
        *self.times.entry(first.to_owned()).or_default() += 1;
        let lost = self.lost.entry(first.to_owned()).or_default();
        *lost |= by_cancel;
    }
}

impl JoinBook {
    /// Whether the object at `path` is one that slices need.
    pub(super) fn is_needed(&self, path: &str) -> bool {
        let needed = self.accepted.get(&self.lost.first(path)).is_some_and(|object| !object.needing.is_empty());
        needed && !self.lost.excuses(path)
    }

    /// What waits is removed.
    pub(super) fn cancelled(&mut self) {
        for (path, _) in self.accepted.iter().filter(|(_, object)| !object.needing.is_empty()) {
            self.lost.lose(path, true);
        }
    }
}

impl Oracle {
    /// The objects that may be lost: those that are needed and were not lost too often.
    pub(in super::super) fn at_stake(&self) -> Vec<(usize, String)> {
        let of = |(ix, book): (usize, &super::Book)| {
            let joins = book.joins.as_ref()?;
            let whole = |path: &&String| {
                let times = joins.lost.times.get(*path).copied().unwrap_or(0);
                times < MOST_TIMES && !joins.lost.lost.contains_key(*path) && !joins.accepted[*path].needing.is_empty()
            };
            let current = |path: &String| joins.lost.current.get(path).unwrap_or(path).clone();
            Some(joins.accepted.keys().filter(whole).map(|path| (ix, current(path))).collect::<Vec<_>>())
        };
        self.books.iter().enumerate().filter_map(of).flatten().collect()
    }

    /// An object is gone.
    pub(in super::super) fn object_lost(&mut self, ix: usize, path: &str) {
        let Some(joins) = &mut self.books[ix].joins else { return };
        joins.there.remove(path);
        let first = joins.lost.first(path);
        joins.lost.lose(&first, false);
    }

    /// A coordinator wants an object made anew.
    pub(super) fn regeneration_granted(
        &mut self,
        ix: usize,
        assign: &v1::Assign,
        work: &v1::RegenerateWork,
        current: bool,
    ) {
        let (Ok(TaskId::Regenerate(_, number)), Some(object)) = (convert::task_id(assign.task), &work.object) else {
            return;
        };
        let Some(joins) = &mut self.books[ix].joins else { return };
        let first = joins.lost.first(&object.path);
        let lost = joins.lost.lost.contains_key(&first);
        joins.lost.granted.insert(number, first);
        self.require(lost || !current, Invariant::MadeAnew, || {
            format!("{} is to be made anew, and is not lost", object.path)
        });
    }

    /// It was made anew, durably.
    pub(super) fn regenerated(&mut self, ix: usize, regenerated: &record::Regenerated) {
        let made = regenerated.made.clone().unwrap_or_default();
        let Some(joins) = &mut self.books[ix].joins else { return };
        let first = joins.lost.granted.get(&regenerated.object).cloned().unwrap_or_default();
        let lost = joins.lost.lost.remove(&first).is_some();
        let held: BTreeMap<i64, u64> = made.cells.iter().copied().zip(made.cell_rows.iter().copied()).collect();
        let gone = joins.gone.contains(&made.path);
        let (mut same, mut needed) = (false, false);
        if let Some(object) = joins.accepted.get_mut(&first) {
            same = object.cells == held && made.rows == held.values().sum::<u64>();
            needed = !object.needing.is_empty();
            object.bytes = made.bytes;
        }
        let old = joins.lost.current.insert(first.clone(), made.path.clone()).unwrap_or_else(|| first.clone());
        joins.lost.past.insert(old);
        joins.lost.first.insert(made.path.clone(), first.clone());
        self.require(lost && same && needed, Invariant::MadeAnew, || {
            format!("{} stands for {first}: lost {lost}, the same {same}, needed {needed}", made.path)
        });
        self.require(!gone, Invariant::NeededKept, || format!("{} is accepted, and was removed", made.path));
    }
}
