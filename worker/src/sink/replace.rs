//! What a replacement takes out of a table: the data files in its window, and the delete files that apply to nothing
//! else.
//!
//! Files are taken whole. A file that may lie in the window and is younger than the plan is this backfill's own, and
//! stays, or somebody else's write, and a conflict; an older one of which nothing is proven is refused.

use std::collections::{BTreeSet, HashSet};

use iceberg::spec::{
    DataContentType, DataFile, Manifest, ManifestContentType, ManifestEntryRef, ManifestFile, Operation,
    PartitionSpecRef, PrimitiveLiteral, SchemaRef, SnapshotRef, TableMetadata, TableMetadataRef,
};

use super::scope::Scope;
use super::window::{Place, Placer};
use super::{LoadedTable, SinkError, marker};

/// Files that a message names at most.
const NAMED: usize = 3;
/// The field of a position delete file that holds the paths of data files; the format's own.
const DELETE_FILE_PATH: i32 = 2_147_483_546;

/// What is taken out of one branch.
#[derive(Default)]
pub(super) struct Removal {
    /// Manifests that stay as they are.
    pub(super) kept: Vec<ManifestFile>,
    /// Manifests that hold what goes.
    pub(super) cut: Vec<Cut>,
}

/// A manifest with files that go.
pub(super) struct Cut {
    pub(super) file: ManifestFile,
    pub(super) manifest: Manifest,
    /// The places of the entries that go.
    pub(super) removed: BTreeSet<usize>,
}

impl Cut {
    /// The files that go.
    pub(super) fn removed(&self) -> impl Iterator<Item = &DataFile> {
        let entries = self.manifest.entries().iter().enumerate();
        entries.filter(|(at, _)| self.removed.contains(at)).map(|(_, entry)| entry.data_file())
    }
}

impl Removal {
    /// Data files that go, and their rows.
    pub(super) fn data(&self) -> (u64, u64) {
        let removed = self.cut.iter().flat_map(Cut::removed);
        let data = removed.filter(|file| file.content_type() == DataContentType::Data);
        data.fold((0, 0), |(files, rows), file| (files + 1, rows + file.record_count()))
    }
}

/// What was found in the window.
pub(super) enum Found {
    /// This goes.
    Removal(Removal),
    /// Somebody else wrote into it after the plan; the files and their snapshots, for people.
    Conflict(String),
}

/// The snapshots of the table that carry a marker of `backfill`.
pub(super) fn own_snapshots(metadata: &TableMetadata, backfill: &str) -> HashSet<i64> {
    let keys = [marker::key(backfill, marker::MAIN), marker::key(backfill, &marker::staging_branch(backfill))];
    let carries = |snapshot: &&SnapshotRef| {
        keys.iter().any(|key| snapshot.summary().additional_properties.contains_key(key.as_str()))
    };
    metadata.snapshots().filter(carries).map(|snapshot| snapshot.snapshot_id()).collect()
}

/// The table as it was when a replacement was planned.
#[derive(Clone, Copy)]
pub(super) struct Planned {
    /// Its last sequence number.
    pub(super) through: i64,
    /// Of a replacement on main: main's head, 0 where there was none. What came to main since is none of what goes,
    /// however old its sequence number: it may have been staged elsewhere.
    pub(super) head: Option<i64>,
}

/// The snapshots that came to main since `head` was its head, but for those that only rewrote what was there.
///
/// # Errors
/// Says so where main no longer descends from `head`. One that expired is behind the oldest snapshot that is left.
fn since(metadata: &TableMetadataRef, head: i64) -> Result<HashSet<i64>, String> {
    let ancestry = marker::ancestry(metadata, metadata.current_snapshot());
    let at = ancestry.iter().position(|snapshot| snapshot.snapshot_id() == head);
    let is_behind = |oldest: &SnapshotRef| {
        let cut = oldest.parent_snapshot_id().is_some_and(|parent| metadata.snapshot_by_id(parent).is_none());
        let pinned = metadata.snapshot_by_id(head);
        cut && pinned.is_none_or(|pinned| pinned.sequence_number() < oldest.sequence_number())
    };
    let new = match at {
        Some(at) => &ancestry[..at],
        None if head == 0 || ancestry.last().is_some_and(is_behind) => &ancestry[..],
        None => return Err(format!("main no longer descends from snapshot {head}, its head when this was planned")),
    };
    let wrote = new.iter().filter(|snapshot| snapshot.summary().operation != Operation::Replace);
    Ok(wrote.map(|snapshot| snapshot.snapshot_id()).collect())
}

/// Finds what goes from the state `parent` of `base` when the window of `scope` is replaced, as it was `planned`;
/// `schema` is that of the files that take its place.
///
/// # Errors
/// [`SinkError::Preflight`] where nothing proves whether a file lies in the window.
pub(super) async fn find(
    base: &LoadedTable,
    parent: Option<&SnapshotRef>,
    scope: &Scope,
    schema: &SchemaRef,
    planned: Planned,
) -> Result<Found, SinkError> {
    let stretch = match planned.head {
        Some(head) => match since(&base.metadata(), head) {
            Ok(stretch) => stretch,
            Err(evidence) => return Ok(Found::Conflict(evidence)),
        },
        None => HashSet::new(),
    };
    let found = Search::of(base, parent, scope, schema, planned, stretch).await?;
    if !found.younger.is_empty() {
        return Ok(Found::Conflict(format!("written into the window after the plan: {}", listed(&found.younger))));
    }
    if !found.unproven.is_empty() {
        return Err(SinkError::Preflight {
            table: base.table().identifier().to_string(),
            what: format!(
                "nothing proves whether these files lie in the window to be replaced, for they were partitioned in \
                 another way: {}; rewrite them in the table's present partitions, or take a window that holds or \
                 spares them whole",
                listed(&found.unproven)
            ),
        });
    }
    Ok(Found::Removal(found.removal))
}

/// The data files on `branch` that lie in the window of `scope` and are no younger than `through`: what a replacement
/// planned then should have removed.
///
/// # Errors
/// Manifests that cannot be read; a table without the event-time column of `scope`.
pub async fn left_over(
    base: &LoadedTable,
    branch: &str,
    scope: &Scope,
    through: i64,
) -> Result<Vec<String>, SinkError> {
    let metadata = base.metadata();
    let (head, schema) = (metadata.snapshot_for_ref(branch), metadata.current_schema());
    let planned = Planned { through, head: None };
    let found = Search::of(base, head, scope, schema, planned, HashSet::new()).await?;
    Ok(found.paths.into_iter().collect())
}

fn listed(files: &[String]) -> String {
    let more = files.len().saturating_sub(NAMED);
    let named = files.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

struct Search<'a> {
    base: &'a LoadedTable,
    placer: Placer,
    own: HashSet<i64>,
    planned: Planned,
    /// What came to main since the plan.
    stretch: HashSet<i64>,
    removal: Removal,
    /// The data files that go.
    paths: BTreeSet<String>,
    younger: Vec<String>,
    unproven: Vec<String>,
}

impl<'a> Search<'a> {
    async fn of(
        base: &'a LoadedTable,
        parent: Option<&SnapshotRef>,
        scope: &Scope,
        schema: &SchemaRef,
        planned: Planned,
        stretch: HashSet<i64>,
    ) -> Result<Self, SinkError> {
        let placer = Placer::new(scope, schema).ok_or_else(|| SinkError::Preflight {
            table: base.table().identifier().to_string(),
            what: "it has no column of event time, by which its window could be replaced".to_owned(),
        })?;
        let mut search = Self {
            base,
            placer,
            own: own_snapshots(&base.metadata(), &scope.backfill),
            planned,
            stretch,
            removal: Removal::default(),
            paths: BTreeSet::new(),
            younger: Vec::new(),
            unproven: Vec::new(),
        };
        let Some(parent) = parent else { return Ok(search) };
        let doing = || format!("table {}: read {}", base.table().identifier(), parent.manifest_list());
        let list = base.table().manifest_list_reader(parent).load().await.map_err(SinkError::lake(doing()))?;
        // Data files first: which delete files go follows from them.
        for content in [ManifestContentType::Data, ManifestContentType::Deletes] {
            for manifest in list.entries().iter().filter(|manifest| manifest.content == content) {
                search.look_into(manifest).await?;
            }
        }
        Ok(search)
    }

    async fn look_into(&mut self, file: &ManifestFile) -> Result<(), SinkError> {
        if file.added_files_count == Some(0) && file.existing_files_count == Some(0) {
            // It tells what an earlier snapshot removed.
            return Ok(());
        }
        let metadata = self.base.metadata();
        let spec = metadata.partition_spec_by_id(file.partition_spec_id).ok_or_else(|| SinkError::Lake {
            doing: format!("table {}: read {}", self.base.table().identifier(), file.manifest_path),
            source: format!("partition spec {} is not in the table's metadata", file.partition_spec_id).into(),
        })?;
        if self.placer.spares(file, spec) {
            self.removal.kept.push(file.clone());
            return Ok(());
        }
        let doing = || format!("table {}: read {}", self.base.table().identifier(), file.manifest_path);
        let manifest = file.load_manifest(self.base.io()).await.map_err(SinkError::lake(doing()))?;
        let mut removed = BTreeSet::new();
        for (at, entry) in manifest.entries().iter().enumerate().filter(|(_, entry)| entry.is_alive()) {
            let goes = match file.content {
                ManifestContentType::Data => self.data_file_goes(entry, spec),
                ManifestContentType::Deletes => self.delete_file_goes(entry, spec),
            };
            if goes {
                removed.insert(at);
            }
        }
        if removed.is_empty() {
            self.removal.kept.push(file.clone());
        } else {
            self.removal.cut.push(Cut { file: file.clone(), manifest, removed });
        }
        Ok(())
    }

    fn data_file_goes(&mut self, entry: &ManifestEntryRef, spec: &PartitionSpecRef) -> bool {
        match self.placer.file(entry.data_file(), spec) {
            Place::Outside => false,
            _ if self.is_younger(entry) => false,
            Place::Inside => {
                self.paths.insert(entry.file_path().to_owned());
                true
            }
            Place::Unproven => {
                self.unproven.push(entry.file_path().to_owned());
                false
            }
        }
    }

    fn delete_file_goes(&mut self, entry: &ManifestEntryRef, spec: &PartitionSpecRef) -> bool {
        let file = entry.data_file();
        let place = match (file.referenced_data_file(), only_path(file)) {
            (Some(path), _) if self.paths.contains(path.as_str()) => Place::Inside,
            (Some(_), _) => Place::Outside,
            (None, Some(path)) if self.paths.contains(path) => Place::Inside,
            _ => self.placer.partition(file.partition(), spec),
        };
        match place {
            Place::Outside => false,
            _ if self.is_younger(entry) => false,
            Place::Inside => true,
            // It may apply to other files as well; to those that go it applies in vain.
            Place::Unproven => false,
        }
    }

    /// Whether it was written after the plan; notes it where somebody else did.
    fn is_younger(&mut self, entry: &ManifestEntryRef) -> bool {
        let sequence = entry.sequence_number().unwrap_or(i64::MAX);
        let of = |snapshots: &HashSet<i64>| entry.snapshot_id().is_some_and(|snapshot| snapshots.contains(&snapshot));
        if sequence <= self.planned.through && !of(&self.stretch) {
            return false;
        }
        // On main nothing of its own is to be there before it has replaced the window.
        if self.planned.head.is_none() && of(&self.own) {
            return true;
        }
        let snapshot = entry.snapshot_id().map_or_else(|| "unknown".to_owned(), |snapshot| snapshot.to_string());
        self.younger.push(format!("{} (snapshot {snapshot}, sequence number {sequence})", entry.file_path()));
        true
    }
}

/// The data file that a position delete file applies to, where its bounds say that it is only one.
fn only_path(file: &DataFile) -> Option<&str> {
    let low = file.lower_bounds().get(&DELETE_FILE_PATH)?.literal();
    let high = file.upper_bounds().get(&DELETE_FILE_PATH)?.literal();
    match (low, high) {
        (PrimitiveLiteral::String(low), PrimitiveLiteral::String(high)) if low == high => Some(low),
        _ => None,
    }
}
