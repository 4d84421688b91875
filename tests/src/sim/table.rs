//! A virtual Iceberg table: snapshots with summaries, properties, one head that moves by compare-and-swap.

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
    pub(super) head: Option<i64>,
    snapshots: BTreeMap<i64, Snapshot>,
    properties: BTreeMap<String, String>,
    foreign: i64,
    /// Whether somebody has removed them.
    pub(super) lost_properties: bool,
}

/// A conditional commit on its way to the catalog.
#[derive(Clone, Debug)]
pub(super) struct Swap {
    pub(super) head: Option<i64>,
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
            lost_properties: false,
        }
    }

    /// The marker in the table's property.
    pub(super) fn property(&self, key: &str) -> Option<&String> {
        self.properties.get(key)
    }

    fn ancestry(&self) -> impl Iterator<Item = (i64, &Snapshot)> {
        let of = |id: Option<i64>| id.and_then(|id| Some((id, self.snapshots.get(&id)?)));
        std::iter::successors(of(self.head), move |(_, snapshot)| of(snapshot.parent))
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

    /// One conditional commit; false where the head has moved.
    pub(super) fn swap(&mut self, swap: &Swap) -> bool {
        if self.head != swap.head {
            return false;
        }
        let summary = BTreeMap::from([(swap.key.clone(), swap.marker.clone())]);
        self.snapshots.insert(swap.snapshot_id, Snapshot { parent: self.head, summary });
        self.properties.insert(swap.key.clone(), swap.marker.clone());
        self.head = Some(swap.snapshot_id);
        true
    }

    /// Somebody else commits.
    pub(super) fn foreign_commit(&mut self) {
        let id = self.foreign;
        self.foreign -= 1;
        self.snapshots.insert(id, Snapshot { parent: self.head, summary: BTreeMap::new() });
        self.head = Some(id);
    }

    /// All snapshots but the newest of the ancestry are expired; false where there was nothing to expire.
    pub(super) fn expire(&mut self) -> bool {
        let before = self.snapshots.len();
        let head = self.head;
        self.snapshots.retain(|id, _| Some(*id) == head);
        self.snapshots.len() < before
    }

    /// Whether no property and no snapshot carries a marker, so that nobody can tell what has landed.
    pub(super) fn is_blind(&self) -> bool {
        self.properties.is_empty() && self.snapshots.values().all(|snapshot| snapshot.summary.is_empty())
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
        self.lost_properties = true;
        self.foreign_commit();
    }
}
