//! A virtual Iceberg table: snapshots with summaries, properties, branches whose heads move by compare-and-swap.
//!
//! As every catalog does that keeps to Iceberg's rules (v2), it refuses a snapshot whose id it has, or whose sequence
//! number it has passed: a head that was rolled back to where it was is not the head that it was.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_worker::sink::marker::{Facts, MAIN, MarkerSnapshot};

/// One snapshot.
#[derive(Clone, Debug)]
struct Snapshot {
    parent: Option<i64>,
    summary: BTreeMap<String, String>,
    /// The sequence numbers of the files that others wrote into the backfills' windows.
    strangers: BTreeSet<u64>,
}

/// A virtual table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) uuid: String,
    heads: BTreeMap<String, i64>,
    snapshots: BTreeMap<i64, Snapshot>,
    properties: BTreeMap<String, String>,
    foreign: i64,
    /// The sequence number of the newest commit; it never falls.
    sequence: u64,
}

/// A conditional commit on its way to the catalog.
#[derive(Clone, Debug)]
pub(super) struct Swap {
    /// The heads that it asserts, by branch.
    asserts: Vec<(String, Option<i64>)>,
    /// The table's sequence number when this was staged.
    sequence: u64,
    adds: Option<Adds>,
    drops: Option<String>,
    key: String,
    pub(super) marker: String,
}

/// The snapshot that a commit adds.
#[derive(Clone, Debug)]
pub(super) struct Adds {
    pub(super) branch: String,
    pub(super) id: i64,
    /// Of a replacement: what others wrote goes up to this sequence number.
    pub(super) replaces_through: Option<u64>,
}

impl Table {
    pub(super) fn new(at: usize) -> Self {
        Self {
            uuid: format!("table-{at}"),
            heads: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            properties: BTreeMap::new(),
            foreign: -1,
            sequence: 0,
        }
    }

    /// The marker in the table's property.
    pub(super) fn property(&self, key: &str) -> Option<&String> {
        self.properties.get(key)
    }

    /// The sequence number of the newest commit.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A branch's head; one that is not there yet forks from main.
    fn head(&self, branch: &str) -> Option<i64> {
        self.heads.get(branch).or_else(|| self.heads.get(MAIN)).copied()
    }

    /// The snapshots from a branch's head back; where they go in a circle, once around.
    fn ancestry(&self, branch: &str) -> impl Iterator<Item = (i64, &Snapshot)> {
        let of = |id: Option<i64>| id.and_then(|id| Some((id, self.snapshots.get(&id)?)));
        std::iter::successors(of(self.head(branch)), move |(_, snapshot)| of(snapshot.parent))
            .take(self.snapshots.len())
    }

    /// What a commit to `branch` is judged by.
    pub(super) fn facts(&self, table_uuid: &str, key: &str, branch: &str) -> Facts {
        let property = self.properties.get(key).cloned();
        let carries = |snapshot: &Snapshot| property.is_some() && snapshot.summary.get(key) == property.as_ref();
        let descended = self.ancestry(branch).find(|(_, snapshot)| carries(snapshot)).map(|(id, _)| id);
        let anywhere = self.snapshots.iter().find(|(_, snapshot)| carries(snapshot)).map(|(id, _)| *id);
        let property_snapshot = match (descended, anywhere) {
            (Some(id), _) => MarkerSnapshot::InAncestry(id),
            (None, Some(id)) => MarkerSnapshot::OffAncestry(id),
            (None, None) => MarkerSnapshot::Expired,
        };
        let newest = self.ancestry(branch).find_map(|(_, snapshot)| snapshot.summary.get(key).cloned());
        Facts { same_table: self.uuid == table_uuid, property, property_snapshot, newest }
    }

    /// A commit on the table as it is now, that adds a snapshot, drops a branch, or both.
    pub(super) fn stage(&self, adds: Option<Adds>, drops: Option<String>, key: String, marker: String) -> Swap {
        let branches = adds.iter().map(|adds| &adds.branch).chain(&drops);
        let asserts = branches.map(|branch| (branch.clone(), self.heads.get(branch).copied())).collect();
        Swap { asserts, sequence: self.sequence, adds, drops, key, marker }
    }

    /// Whether others wrote into the window of a branch after `through`.
    pub(super) fn conflicts(&self, branch: &str, through: u64) -> bool {
        self.strangers(branch).last().is_some_and(|newest| *newest > through)
    }

    fn strangers(&self, branch: &str) -> BTreeSet<u64> {
        let head = self.head(branch).and_then(|head| self.snapshots.get(&head));
        head.map(|snapshot| snapshot.strangers.clone()).unwrap_or_default()
    }

    /// Whether the table shows that it has, or had, a snapshot of this id, in the ancestry or not.
    pub(super) fn shows(&self, id: i64) -> bool {
        self.snapshots.contains_key(&id) || self.snapshots.values().any(|snapshot| snapshot.parent == Some(id))
    }

    /// One conditional commit; false where a head has moved, even if it has moved back.
    pub(super) fn swap(&mut self, swap: &Swap) -> bool {
        let held = swap.asserts.iter().all(|(branch, head)| self.heads.get(branch) == head.as_ref());
        let fits = |adds: &Adds| self.sequence == swap.sequence && !self.snapshots.contains_key(&adds.id);
        if !held || !swap.adds.as_ref().is_none_or(fits) {
            return false;
        }
        if let Some(Adds { branch, id, replaces_through }) = &swap.adds {
            let summary = BTreeMap::from([(swap.key.clone(), swap.marker.clone())]);
            let mut strangers = self.strangers(branch);
            strangers.retain(|file| replaces_through.is_none_or(|through| *file > through));
            self.commit(branch, *id, summary, strangers);
        }
        if let Some(branch) = &swap.drops {
            self.heads.remove(branch);
        }
        self.properties.insert(swap.key.clone(), swap.marker.clone());
        true
    }

    fn commit(&mut self, branch: &str, id: i64, summary: BTreeMap<String, String>, strangers: BTreeSet<u64>) {
        self.snapshots.insert(id, Snapshot { parent: self.head(branch), summary, strangers });
        self.heads.insert(branch.to_owned(), id);
        self.sequence += 1;
    }

    /// Somebody else commits to main: into the backfills' windows, or not.
    pub(super) fn foreign_commit(&mut self, into_window: bool) {
        let id = self.foreign;
        self.foreign -= 1;
        let mut strangers = self.strangers(MAIN);
        strangers.extend(into_window.then_some(self.sequence + 1));
        self.commit(MAIN, id, BTreeMap::new(), strangers);
    }

    /// All snapshots but the heads are expired; false where there was nothing to expire.
    pub(super) fn expire(&mut self) -> bool {
        let before = self.snapshots.len();
        let heads: BTreeSet<i64> = self.heads.values().copied().collect();
        self.snapshots.retain(|id, _| heads.contains(id));
        self.snapshots.len() < before
    }

    /// Whether nothing is left that tells of the commit of snapshot `id`: neither the property `key`, nor a snapshot with
    /// such a marker, nor a child of it.
    pub(super) fn forgets(&self, key: &str, id: i64) -> bool {
        !self.shows(id)
            && !self.properties.contains_key(key)
            && !self.snapshots.values().any(|snapshot| snapshot.summary.contains_key(key))
    }

    /// An operator rolls back to the head's parent; false where there is none in the table.
    pub(super) fn roll_back(&mut self) -> bool {
        let parent = self.head(MAIN).and_then(|head| self.snapshots.get(&head)?.parent);
        let Some(parent) = parent.filter(|parent| self.snapshots.contains_key(parent)) else { return false };
        self.heads.insert(MAIN.to_owned(), parent);
        true
    }

    /// Somebody else's tool writes a new version of the table and keeps no properties.
    pub(super) fn lose_properties(&mut self) {
        self.properties.clear();
        self.foreign_commit(false);
    }
}
