//! Stages a snapshot: writes its manifests and says which updates, under which assertions, commit it.
//!
//! Every try writes under fresh random names, so that two tries never share a file. What is staged may land on the
//! base that it was staged on and on no other; a refused try leaves files that nobody names, which garbage collection
//! finds. It appends only: an append without files is a fence.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{
    DataFile, FormatVersion, ManifestFile, ManifestListWriter, ManifestWriterBuilder, Operation, PartitionSpecRef,
    SchemaRef, Snapshot, SnapshotReference, SnapshotRetention, SnapshotSummaryCollector, Summary, TableMetadataRef,
};
use iceberg::{TableRequirement, TableUpdate};
use tidegate_common::clock;
use uuid::Uuid;

use super::{LoadedTable, SinkError};
use crate::failpoint::{self, hit};

/// Files of one manifest at most; about 4 MiB of it.
const FILES_A_MANIFEST: usize = 10_000;

/// What one snapshot adds to a branch.
#[derive(Clone, Debug)]
pub(super) struct Append<'a> {
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
}

/// What a compare-and-swap needs.
pub(super) type Staged = (Vec<TableUpdate>, Vec<TableRequirement>);

/// Stages `append` on `base`.
pub(super) async fn stage(base: &LoadedTable, append: Append<'_>) -> Result<Staged, SinkError> {
    hit(failpoint::COMMIT_BEFORE_MANIFESTS)?;
    let metadata = base.metadata();
    let head = metadata.snapshot_for_ref(append.branch).cloned();
    let parent = head.as_ref().or_else(|| metadata.current_snapshot()).cloned();
    let attempt = Uuid::new_v4();
    let doing =
        || format!("table {}: write the manifests of snapshot {}", base.table().identifier(), append.snapshot_id);

    let mut manifests = Vec::new();
    for (number, files) in append.files.chunks(FILES_A_MANIFEST).enumerate() {
        let path = format!("{}/metadata/{attempt}-m{number}.avro", metadata.location());
        manifests.push(write_manifest(base, &append, path, files).await.map_err(SinkError::lake(doing()))?);
    }
    if let Some(parent) = &parent {
        let list = base.table().manifest_list_reader(parent).load().await.map_err(SinkError::lake(doing()))?;
        manifests.extend(list.entries().iter().cloned());
    }
    let list = format!("{}/metadata/snap-{}-0-{attempt}.avro", metadata.location(), append.snapshot_id);
    let next_row = write_list(base, &append, parent.as_deref(), list.clone(), manifests)
        .await
        .map_err(SinkError::lake(doing()))?;
    hit(failpoint::COMMIT_AFTER_MANIFESTS)?;

    let now = clock::processing_time_micros() / 1_000;
    let snapshot = Snapshot::builder()
        .with_snapshot_id(append.snapshot_id)
        .with_parent_snapshot_id(parent.as_ref().map(|parent| parent.snapshot_id()))
        .with_sequence_number(metadata.next_sequence_number())
        .with_timestamp_ms(now.max(metadata.last_updated_ms()))
        .with_manifest_list(list)
        .with_summary(Summary {
            operation: Operation::Append,
            additional_properties: summary(&append, parent.as_deref()),
        })
        .with_schema_id(append.schema.schema_id());
    let snapshot = match next_row {
        Some(next) => snapshot.with_row_range(metadata.next_row_id(), next - metadata.next_row_id()).build(),
        None => snapshot.build(),
    };
    let reference = SnapshotReference::new(append.snapshot_id, retention(&metadata, append.branch));
    Ok((
        vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: append.branch.to_owned(), reference },
            TableUpdate::SetProperties {
                updates: HashMap::from([(append.marker_key.to_owned(), append.marker.to_owned())]),
            },
        ],
        vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: append.branch.to_owned(),
                snapshot_id: head.map(|head| head.snapshot_id()),
            },
        ],
    ))
}

async fn write_manifest(
    base: &LoadedTable,
    append: &Append<'_>,
    path: String,
    files: &[DataFile],
) -> iceberg::Result<ManifestFile> {
    let output = base.io().new_output(path)?;
    let (schema, spec) = (append.schema.clone(), append.spec.as_ref().clone());
    let builder = ManifestWriterBuilder::new(output, Some(append.snapshot_id), schema, spec);
    let mut writer = match base.metadata().format_version() {
        FormatVersion::V1 => builder.build_v1(),
        FormatVersion::V2 => builder.build_v2_data(),
        FormatVersion::V3 => builder.build_v3_data(),
    };
    for file in files {
        // A negative sequence number is one that readers inherit from the snapshot.
        writer.add_file(file.clone(), -1)?;
    }
    writer.write_manifest_file().await
}

/// Writes the manifest list; gives the table's next row id where the format counts rows.
async fn write_list(
    base: &LoadedTable,
    append: &Append<'_>,
    parent: Option<&Snapshot>,
    path: String,
    manifests: Vec<ManifestFile>,
) -> iceberg::Result<Option<u64>> {
    let metadata = base.metadata();
    let output = base.io().new_output(path)?.writer().await?;
    let (id, parent, sequence) =
        (append.snapshot_id, parent.map(Snapshot::snapshot_id), metadata.next_sequence_number());
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

/// The snapshot's summary: what it adds, the totals, the marker. A total that the parent does not state is unknown
/// and stays so.
fn summary(append: &Append<'_>, parent: Option<&Snapshot>) -> HashMap<String, String> {
    const TOTALS: [(&str, &str); 6] = [
        ("total-data-files", "added-data-files"),
        ("total-records", "added-records"),
        ("total-files-size", "added-files-size"),
        ("total-delete-files", "added-delete-files"),
        ("total-position-deletes", "added-position-deletes"),
        ("total-equality-deletes", "added-equality-deletes"),
    ];
    let mut collector = SnapshotSummaryCollector::default();
    for file in append.files {
        collector.add_file(file, append.schema.clone(), append.spec.clone());
    }
    let mut summary = append.summary.clone();
    summary.extend(collector.build());
    for (total, added) in TOTALS {
        let before = match parent {
            None => Some(0),
            Some(parent) => parent.summary().additional_properties.get(total).and_then(|text| text.parse::<u64>().ok()),
        };
        if let Some(before) = before {
            let added = summary.get(added).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
            summary.insert(total.to_owned(), (before + added).to_string());
        }
    }
    summary.insert(append.marker_key.to_owned(), append.marker.to_owned());
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
