//! The sink against real tables in a folder: what is committed is read again with Iceberg's own scan.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod committing;
mod crash;
mod inspecting;
mod preparing;
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

pub(super) async fn prepared(catalogs: &Catalogs, target: &OutputTarget) -> v1::PreparedOutput {
    prepare(catalogs, target, &rows(0, 1).schema(), true, "bf-a").await.unwrap()
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
    let scan = table.table().scan().build().unwrap();
    let batches: Vec<RecordBatch> = scan.to_arrow().await.unwrap().try_collect().await.unwrap();
    let mut ids: Vec<i64> = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect();
    ids.sort_unstable();
    ids
}
