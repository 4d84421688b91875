//! Stages a snapshot: writes its manifests and says which updates, under which assertions, commit it.
//!
//! Every try writes under fresh random names, so that two tries never share a file. What is staged may land on the
//! base that it was staged on and on no other; a refused try leaves files that nobody names, which garbage collection
//! finds. An append without files is a fence; a replacement rewrites the manifests that hold what goes, and no others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    DataFile, DataFileBuilder, FormatVersion, ManifestContentType, ManifestEntry, ManifestFile, ManifestListWriter,
    ManifestWriter, ManifestWriterBuilder, Operation, PartitionSpecRef, SchemaRef, Snapshot, SnapshotReference,
    SnapshotRetention, SnapshotSummaryCollector, Summary, TableMetadataRef,
};
use iceberg::{TableRequirement, TableUpdate};
use tidegate_common::clock;
use uuid::Uuid;

use super::replace::{Cut, Removal};
use super::{LoadedTable, SinkError, marker};
use crate::failpoint::{self, hit};

/// Files of one manifest at most; about 4 MiB of it.
const FILES_A_MANIFEST: usize = 10_000;

/// What one snapshot changes in a branch.
pub(super) struct Change<'a> {
    /// The branch; it forks from main where it does not exist.
    pub(super) branch: &'a str,
    /// The snapshot's id, which the intent named.
    pub(super) snapshot_id: i64,
    /// The schema of the files.
    pub(super) schema: &'a SchemaRef,
    /// The partition spec of the files.
    pub(super) spec: &'a PartitionSpecRef,
    /// The files; none for a fence.
    pub(super) files: &'a [DataFile],
    /// Where the marker goes, in the summary and the table's properties.
    pub(super) marker_key: &'a str,
    /// The marker.
    pub(super) marker: &'a str,
    /// More entries of the summary.
    pub(super) summary: HashMap<String, String>,
    /// What goes; `None` for an append.
    pub(super) removal: Option<&'a Removal>,
}

/// What a compare-and-swap needs.
pub(super) type Staged = (Vec<TableUpdate>, Vec<TableRequirement>);

/// Stages `change` on `base`.
pub(super) async fn stage(base: &LoadedTable, change: Change<'_>) -> Result<Staged, SinkError> {
    hit(failpoint::COMMIT_BEFORE_MANIFESTS)?;
    let metadata = base.metadata();
    let head = metadata.snapshot_for_ref(change.branch).cloned();
    let parent = head.as_ref().or_else(|| metadata.current_snapshot()).cloned();
    let attempt = Uuid::new_v4();
    let doing =
        || format!("table {}: write the manifests of snapshot {}", base.table().identifier(), change.snapshot_id);

    let mut paths = (0_u64..).map(|number| format!("{}/metadata/{attempt}-m{number}.avro", metadata.location()));
    let mut manifests = Vec::new();
    for (files, path) in change.files.chunks(FILES_A_MANIFEST).zip(&mut paths) {
        manifests.push(write_manifest(base, &change, path, files).await.map_err(SinkError::lake(doing()))?);
    }
    match (change.removal, &parent) {
        (Some(removal), _) => {
            for (cut, path) in removal.cut.iter().zip(&mut paths) {
                manifests.push(rewrite(base, &change, path, cut).await.map_err(SinkError::lake(doing()))?);
            }
            manifests.extend(removal.kept.iter().cloned());
            hit(failpoint::COMMIT_AFTER_REWRITE)?;
        }
        (None, Some(parent)) => {
            let list = base.table().manifest_list_reader(parent).load().await.map_err(SinkError::lake(doing()))?;
            manifests.extend(list.entries().iter().cloned());
        }
        (None, None) => {}
    }
    let list = format!("{}/metadata/snap-{}-0-{attempt}.avro", metadata.location(), change.snapshot_id);
    let next_row = write_list(base, &change, parent.as_deref(), list.clone(), manifests)
        .await
        .map_err(SinkError::lake(doing()))?;
    hit(failpoint::COMMIT_AFTER_MANIFESTS)?;

    let now = clock::processing_time_micros() / 1_000;
    let snapshot = Snapshot::builder()
        .with_snapshot_id(change.snapshot_id)
        .with_parent_snapshot_id(parent.as_ref().map(|parent| parent.snapshot_id()))
        .with_sequence_number(metadata.next_sequence_number())
        .with_timestamp_ms(now.max(metadata.last_updated_ms()))
        .with_manifest_list(list)
        .with_summary(Summary {
            operation: if change.removal.is_some() { Operation::Overwrite } else { Operation::Append },
            additional_properties: summary(&metadata, &change, parent.as_deref()),
        })
        .with_schema_id(change.schema.schema_id());
    let snapshot = match next_row {
        Some(next) => snapshot.with_row_range(metadata.next_row_id(), next - metadata.next_row_id()).build(),
        None => snapshot.build(),
    };
    let reference = SnapshotReference::new(change.snapshot_id, retention(&metadata, change.branch));
    Ok((
        vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: change.branch.to_owned(), reference },
            TableUpdate::SetProperties {
                updates: HashMap::from([(change.marker_key.to_owned(), change.marker.to_owned())]),
            },
        ],
        vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: change.branch.to_owned(),
                snapshot_id: head.map(|head| head.snapshot_id()),
            },
        ],
    ))
}

/// Drops `branch` where it exists, asserting its head, and its own snapshots, which carry the marker `key`, where
/// nothing else leads to them: an engine that expires them later would delete files that main names.
pub(super) fn drop_branch(metadata: &TableMetadataRef, branch: &str, key: &str) -> Staged {
    let head = metadata.snapshot_for_ref(branch).map(|head| head.snapshot_id());
    let drops = head.map(|_| TableUpdate::RemoveSnapshotRef { ref_name: branch.to_owned() });
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch { r#ref: branch.to_owned(), snapshot_id: head },
    ];
    let snapshot_ids = stranded(metadata, branch, key);
    let removes = (!snapshot_ids.is_empty()).then_some(TableUpdate::RemoveSnapshots { snapshot_ids });
    (drops.into_iter().chain(removes).collect(), requirements)
}

/// The snapshots that carry the marker `key` and that no branch or tag but `branch` leads to.
fn stranded(metadata: &TableMetadataRef, branch: &str, key: &str) -> Vec<i64> {
    // The library names no references, except in the table's JSON.
    let json = serde_json::to_value(Arc::as_ref(metadata)).ok();
    let refs = json.as_ref().and_then(|json| json.get("refs")?.as_object());
    let Some(refs) = refs else { return Vec::new() };
    let others = refs.keys().filter(|name| *name != branch).map(|name| metadata.snapshot_for_ref(name));
    let others = others.chain([metadata.current_snapshot()]);
    let held: HashSet<i64> =
        others.flat_map(|head| marker::ancestry(metadata, head)).map(|snapshot| snapshot.snapshot_id()).collect();
    let own = metadata.snapshots().filter(|one| one.summary().additional_properties.contains_key(key));
    own.map(|one| one.snapshot_id()).filter(|id| !held.contains(id)).collect()
}

async fn write_manifest(
    base: &LoadedTable,
    change: &Change<'_>,
    path: String,
    files: &[DataFile],
) -> iceberg::Result<ManifestFile> {
    let output = base.io().new_output(path)?;
    let (schema, spec) = (change.schema.clone(), change.spec.as_ref().clone());
    let builder = ManifestWriterBuilder::new(output, Some(change.snapshot_id), schema, spec);
    let mut writer = writer(builder, base.metadata().format_version(), ManifestContentType::Data);
    for file in files {
        // A negative sequence number is one that readers inherit from the snapshot.
        writer.add_file(file.clone(), -1)?;
    }
    writer.write_manifest_file().await
}

fn writer(builder: ManifestWriterBuilder, version: FormatVersion, content: ManifestContentType) -> ManifestWriter {
    match (version, content) {
        (FormatVersion::V1, _) => builder.build_v1(),
        (FormatVersion::V2, ManifestContentType::Data) => builder.build_v2_data(),
        (FormatVersion::V2, ManifestContentType::Deletes) => builder.build_v2_deletes(),
        (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
        (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
    }
}

/// Writes a manifest anew: what goes is marked as deleted by this snapshot, what stays keeps its snapshot, its
/// sequence numbers and its row ids. What earlier snapshots deleted is left out.
async fn rewrite(base: &LoadedTable, change: &Change<'_>, path: String, cut: &Cut) -> iceberg::Result<ManifestFile> {
    let output = base.io().new_output(path)?;
    let of = cut.manifest.metadata();
    let builder =
        ManifestWriterBuilder::new(output, Some(change.snapshot_id), of.schema().clone(), of.partition_spec().clone());
    let mut writer = writer(builder, base.metadata().format_version(), cut.file.content);
    let mut next_row = cut.file.first_row_id;
    for (at, entry) in cut.manifest.entries().iter().enumerate() {
        if !entry.is_alive() {
            continue;
        }
        let file = with_row_id(entry, &mut next_row, of.partition_spec().spec_id())?;
        let unknown = || iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "an entry without a sequence number");
        let sequence = entry.sequence_number().ok_or_else(unknown)?;
        let file_sequence = entry.file_sequence_number;
        if cut.removed.contains(&at) {
            writer.add_delete_file(file, sequence, file_sequence)?;
        } else {
            writer.add_existing_file(file, entry.snapshot_id().ok_or_else(unknown)?, sequence, file_sequence)?;
        }
    }
    let written = writer.write_manifest_file().await?;
    // Every row in it has its id: none is to be given out.
    Ok(ManifestFile { first_row_id: cut.file.first_row_id, ..written })
}

/// The entry's file with the id of its first row written out: in another manifest it would inherit another.
fn with_row_id(entry: &ManifestEntry, next_row: &mut Option<u64>, spec_id: i32) -> iceberg::Result<DataFile> {
    let file = entry.data_file();
    let (Some(next), None) = (next_row.as_mut(), file.first_row_id()) else { return Ok(file.clone()) };
    let invalid = |error: String| iceberg::Error::new(iceberg::ErrorKind::DataInvalid, error);
    let first = i64::try_from(*next).map_err(|error| invalid(error.to_string()))?;
    *next += file.record_count();
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(Some(first))
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|error| invalid(error.to_string()))
}

/// Writes the manifest list; gives the table's next row id where the format counts rows.
async fn write_list(
    base: &LoadedTable,
    change: &Change<'_>,
    parent: Option<&Snapshot>,
    path: String,
    manifests: Vec<ManifestFile>,
) -> iceberg::Result<Option<u64>> {
    let metadata = base.metadata();
    let output = base.io().new_output(path)?.writer().await?;
    let (id, parent, sequence) =
        (change.snapshot_id, parent.map(Snapshot::snapshot_id), metadata.next_sequence_number());
    let mut list = match metadata.format_version() {
        FormatVersion::V1 => ManifestListWriter::v1(output, id, parent),
        FormatVersion::V2 => ManifestListWriter::v2(output, id, parent, sequence),
        FormatVersion::V3 => ManifestListWriter::v3(output, id, parent, sequence, Some(metadata.next_row_id())),
    };
    list.add_manifests(manifests.into_iter())?;
    let next_row = list.next_row_id();
    list.close().await?;
    Ok(next_row)
}

/// The snapshot's summary: what it adds and removes, the totals, the marker. A total that the parent does not state
/// is unknown and stays so.
fn summary(metadata: &TableMetadataRef, change: &Change<'_>, parent: Option<&Snapshot>) -> HashMap<String, String> {
    const TOTALS: [(&str, &str, &str); 6] = [
        ("total-data-files", "added-data-files", "deleted-data-files"),
        ("total-records", "added-records", "deleted-records"),
        ("total-files-size", "added-files-size", "removed-files-size"),
        ("total-delete-files", "added-delete-files", "removed-delete-files"),
        ("total-position-deletes", "added-position-deletes", "removed-position-deletes"),
        ("total-equality-deletes", "added-equality-deletes", "removed-equality-deletes"),
    ];
    let mut collector = SnapshotSummaryCollector::default();
    for file in change.files {
        collector.add_file(file, change.schema.clone(), change.spec.clone());
    }
    for cut in change.removal.iter().flat_map(|removal| &removal.cut) {
        let spec = metadata.partition_spec_by_id(cut.file.partition_spec_id).unwrap_or(change.spec);
        let schema = cut.manifest.metadata().schema();
        cut.removed().for_each(|file| collector.remove_file(file, schema.clone(), spec.clone()));
    }
    let mut summary = change.summary.clone();
    summary.extend(collector.build());
    let number =
        |summary: &HashMap<String, String>, key: &str| summary.get(key).and_then(|text| text.parse::<u64>().ok());
    for (total, added, removed) in TOTALS {
        let before = match parent {
            None => Some(0),
            Some(parent) => number(&parent.summary().additional_properties, total),
        };
        let (added, removed) = (number(&summary, added), number(&summary, removed));
        let after = before.map(|before| before + added.unwrap_or_default());
        if let Some(after) = after.and_then(|after| after.checked_sub(removed.unwrap_or_default())) {
            summary.insert(total.to_owned(), after.to_string());
        }
    }
    summary.insert(change.marker_key.to_owned(), change.marker.to_owned());
    summary
}

/// How long the branch's snapshots are kept: as before.
fn retention(metadata: &TableMetadataRef, branch: &str) -> SnapshotRetention {
    // The library shows a branch's head but not its settings, except in the table's JSON.
    serde_json::to_value(Arc::as_ref(metadata))
        .ok()
        .and_then(|json| serde_json::from_value::<SnapshotReference>(json.get("refs")?.get(branch)?.clone()).ok())
        .map_or_else(|| SnapshotRetention::branch(None, None, None), |reference| reference.retention)
}
