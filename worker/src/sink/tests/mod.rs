//! The sink against real tables in a folder: what is committed is read again with Iceberg's own scan.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod committing;
mod crash;
mod inspecting;
mod occupying;
mod placing;
mod preparing;
mod racing;
mod replacing;
mod staging;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, cast::AsArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tempfile::TempDir;
use tidegate_proto::v1;
use uuid::Uuid;

use super::*;

/// A catalog and its warehouse in a folder of their own.
pub(super) struct Lake {
    pub(super) folder: TempDir,
    pub(super) catalogs: Catalogs,
}

impl Lake {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let catalogs = Catalogs::new([("lake".to_owned(), config(folder.path()))]);
        Self { folder, catalogs }
    }
}

pub(super) fn config(folder: &std::path::Path) -> CatalogConfig {
    CatalogConfig::Sqlite {
        name: "lake".to_owned(),
        path: folder.join("catalog.db"),
        warehouse: folder.join("warehouse").display().to_string(),
        storage: None,
    }
}

pub(super) fn target(name: &str, partition_by: &[&str]) -> OutputTarget {
    OutputTarget {
        catalog: "lake".to_owned(),
        namespace: vec!["ns".to_owned()],
        name: name.to_owned(),
        partition_by: partition_by.iter().map(|text| (*text).to_owned()).collect(),
        properties: BTreeMap::new(),
    }
}

/// Rows `from..to`: an id, a name, and an event time one hour after the one before.
pub(super) fn rows(from: i64, to: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(from..to);
    let names = StringArray::from_iter_values((from..to).map(|id| format!("name {}", id % 7)));
    let times = TimestampMicrosecondArray::from_iter_values((from..to).map(|id| id * 3_600_000_000));
    let columns: [(&str, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("name", Arc::new(names)), ("at", Arc::new(times.with_timezone("UTC")))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Rows of these ids, each at its hour since 1970.
pub(super) fn rows_at(rows: &[(i64, i64)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let names = StringArray::from_iter_values(rows.iter().map(|row| format!("name {}", row.0 % 7)));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1 * HOUR));
    let columns: [(&str, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("name", Arc::new(names)), ("at", Arc::new(times.with_timezone("UTC")))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Microseconds.
pub(super) const HOUR: i64 = 3_600_000_000;

/// What covers the hours `from..to` by the column `at`.
pub(super) fn hours(backfill: &str, from: i64, to: i64, replaces: bool) -> Scope {
    use tidegate_common::time::{EventTime, Window};
    let at = |hour: i64| EventTime::from_micros(hour * HOUR);
    let time = TimeColumn { name: "at".to_owned(), unit: None, zone: jiff::tz::TimeZone::UTC };
    Scope { window: Window::new(at(from), at(to)).unwrap(), time: Some(time), replaces, ..Scope::of(backfill) }
}

/// Commits rows as another backfill would, in one snapshot.
pub(super) async fn by_another(catalogs: &Catalogs, target: &OutputTarget, rows: RecordBatch) -> i64 {
    let prepared = prepared(catalogs, target).await;
    let parts = vec![part(catalogs, target, rows).await];
    let intent = intent(&prepared, 1, "", &parts);
    let other = format!("bf-{}", Uuid::new_v4());
    let result = commit(catalogs, target, &Scope::of(&other), &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed);
    intent.snapshot_id
}

pub(super) async fn prepared(catalogs: &Catalogs, target: &OutputTarget) -> v1::PreparedOutput {
    prepare(catalogs, target, &rows(0, 1).schema(), true, &Scope::of("bf-a")).await.unwrap()
}

pub(super) async fn writer(catalogs: &Catalogs, target: &OutputTarget) -> OutputWriter {
    let table = load(catalogs, target).await.unwrap();
    let metadata = table.metadata();
    let settings =
        WriterSettings::of(&table, metadata.current_schema_id(), metadata.default_partition_spec_id()).unwrap();
    OutputWriter::open(&table, 0, Uuid::new_v4(), settings).unwrap()
}

pub(super) async fn part(catalogs: &Catalogs, target: &OutputTarget, rows: RecordBatch) -> v1::OutputPart {
    let mut writer = writer(catalogs, target).await;
    writer.write(rows).await.unwrap();
    let closed = writer.close().await.unwrap();
    v1::OutputPart { files: closed.files, iceberg: closed.iceberg.to_vec().into(), ..Default::default() }
}

pub(super) fn intent(
    prepared: &v1::PreparedOutput,
    sequence: u64,
    predecessor: &str,
    parts: &[v1::OutputPart],
) -> v1::Intent {
    let files: Vec<_> = parts.iter().flat_map(|part| &part.files).collect();
    v1::Intent {
        version: 1,
        sequence,
        predecessor: predecessor.to_owned(),
        digest: digest(files.iter().map(|file| file.path.as_str())),
        table_uuid: prepared.uuid.clone(),
        snapshot_id: i64::try_from(Uuid::new_v4().as_u128() >> 66).unwrap() + 1,
        schema_id: prepared.schema_id,
        spec_id: prepared.spec_id,
        files: files.len() as u64,
        rows: files.iter().map(|file| file.rows).sum(),
        committed_through: 1_700_000_000_000_000,
        ..Default::default()
    }
}

/// The table's ids, sorted, read by Iceberg's own scan.
pub(super) async fn ids(catalogs: &Catalogs, target: &OutputTarget) -> Vec<i64> {
    let table = load(catalogs, target).await.unwrap();
    if table.metadata().current_snapshot().is_none() {
        return Vec::new();
    }
    ids_of(&table, "main").await
}

/// The ids on a branch of a table, sorted.
pub(super) async fn ids_of(table: &LoadedTable, branch: &str) -> Vec<i64> {
    let head = table.metadata().snapshot_for_ref(branch).unwrap().snapshot_id();
    let scan = table.table().scan().snapshot_id(head).build().unwrap();
    let batches: Vec<RecordBatch> = scan.to_arrow().await.unwrap().try_collect().await.unwrap();
    let mut ids: Vec<i64> = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect();
    ids.sort_unstable();
    ids
}
