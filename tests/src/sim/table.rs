//! A virtual Iceberg table: snapshots with summaries, properties, one head that moves by compare-and-swap.
//!
//! As every catalog does that keeps to Iceberg's rules (v2), it refuses a snapshot whose id it has, or whose sequence
//! number it has passed: a head that was rolled back to where it was is not the head that it was.

use std::collections::BTreeMap;

use tidegate_worker::sink::marker::{Facts, MarkerSnapshot};

/// One snapshot.
#[derive(Clone, Debug)]
struct Snapshot {
    parent: Option<i64>,
    summary: BTreeMap<String, String>,
}

/// A virtual table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) uuid: String,
    head: Option<i64>,
    snapshots: BTreeMap<i64, Snapshot>,
    properties: BTreeMap<String, String>,
    foreign: i64,
    /// The sequence number of the newest commit; it never falls.
    sequence: u64,
}

/// A conditional commit on its way to the catalog.
#[derive(Clone, Debug)]
pub(super) struct Swap {
    pub(super) head: Option<i64>,
    /// The table's sequence number when this was staged.
    pub(super) sequence: u64,
    pub(super) snapshot_id: i64,
    pub(super) key: String,
    pub(super) marker: String,
}

impl Table {
    pub(super) fn new(at: usize) -> Self {
        Self {
            uuid: format!("table-{at}"),
            head: None,
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

    /// The snapshots from the head back; where they go in a circle, once around.
    fn ancestry(&self) -> impl Iterator<Item = (i64, &Snapshot)> {
        let of = |id: Option<i64>| id.and_then(|id| Some((id, self.snapshots.get(&id)?)));
        std::iter::successors(of(self.head), move |(_, snapshot)| of(snapshot.parent)).take(self.snapshots.len())
    }

    /// What a commit is judged by.
    pub(super) fn facts(&self, table_uuid: &str, key: &str) -> Facts {
        let property = self.properties.get(key).cloned();
        let carries = |snapshot: &Snapshot| property.is_some() && snapshot.summary.get(key) == property.as_ref();
        let descended = self.ancestry().find(|(_, snapshot)| carries(snapshot)).map(|(id, _)| id);
        let anywhere = self.snapshots.iter().find(|(_, snapshot)| carries(snapshot)).map(|(id, _)| *id);
        let property_snapshot = match (descended, anywhere) {
            (Some(id), _) => MarkerSnapshot::InAncestry(id),
            (None, Some(id)) => MarkerSnapshot::OffAncestry(id),
            (None, None) => MarkerSnapshot::Expired,
        };
        let newest = self.ancestry().find_map(|(_, snapshot)| snapshot.summary.get(key).cloned());
        Facts { same_table: self.uuid == table_uuid, property, property_snapshot, newest }
    }

    /// What a commit on the table as it is now has to assert.
    pub(super) fn base(&self) -> (Option<i64>, u64) {
        (self.head, self.sequence)
    }

    /// Whether the table shows that it has, or had, a snapshot of this id, in the ancestry or not.
    pub(super) fn shows(&self, id: i64) -> bool {
        self.snapshots.contains_key(&id) || self.snapshots.values().any(|snapshot| snapshot.parent == Some(id))
    }

    /// One conditional commit; false where the head has moved, even if it has moved back.
    pub(super) fn swap(&mut self, swap: &Swap) -> bool {
        if self.base() != (swap.head, swap.sequence) || self.snapshots.contains_key(&swap.snapshot_id) {
            return false;
        }
        let summary = BTreeMap::from([(swap.key.clone(), swap.marker.clone())]);
        self.commit(swap.snapshot_id, summary);
        self.properties.insert(swap.key.clone(), swap.marker.clone());
        true
    }

    fn commit(&mut self, id: i64, summary: BTreeMap<String, String>) {
        self.snapshots.insert(id, Snapshot { parent: self.head, summary });
        self.head = Some(id);
        self.sequence += 1;
    }

    /// Somebody else commits.
    pub(super) fn foreign_commit(&mut self) {
        let id = self.foreign;
        self.foreign -= 1;
        self.commit(id, BTreeMap::new());
    }

    /// All snapshots but the newest of the ancestry are expired; false where there was nothing to expire.
    pub(super) fn expire(&mut self) -> bool {
        let before = self.snapshots.len();
        let head = self.head;
        self.snapshots.retain(|id, _| Some(*id) == head);
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
        let parent = self.head.and_then(|head| self.snapshots.get(&head)?.parent);
        let Some(parent) = parent.filter(|parent| self.snapshots.contains_key(parent)) else { return false };
        self.head = Some(parent);
        true
    }

    /// Somebody else's tool writes a new version of the table and keeps no properties.
    pub(super) fn lose_properties(&mut self) {
        self.properties.clear();
        self.foreign_commit();
    }
}
