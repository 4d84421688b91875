//! Reads what a table holds: its snapshots, the files that are alive, and the event times in them.
//!
//! For audits. It trusts nobody's summary where a manifest or a file can be read, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use bytes::Bytes;
use iceberg::spec::{ManifestContentType, Snapshot};
use iceberg::util::snapshot::ancestors_of;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;

use super::{COMMITTED_THROUGH, Catalogs, LoadedTable, OutputTarget, SinkError, durable, marker, table};

const MICROS_AN_HOUR: i64 = 3_600_000_000;

/// A table as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableHistory {
    /// `catalog.namespace.table`.
    pub table: String,
    /// Its uuid.
    pub uuid: String,
    /// Where it stands.
    pub location: String,
    /// Every snapshot that has not expired, the oldest first.
    pub snapshots: Vec<SnapshotFacts>,
    /// The markers of its properties: `tidegate.<backfill>` and what stands there.
    pub markers: BTreeMap<String, String>,
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Its id.
    pub id: i64,
    /// The one it follows.
    pub parent: Option<i64>,
    /// When it was committed, microseconds of processing time.
    pub at: i64,
    /// append, replace, overwrite or delete.
    pub operation: String,
    /// Rows that it added; `None` where it does not say.
    pub added_rows: Option<u64>,
    /// Files that it added.
    pub added_files: Option<u64>,
    /// Rows that it removed.
    pub removed_rows: Option<u64>,
    /// Files that it removed.
    pub removed_files: Option<u64>,
    /// Rows in the table behind it.
    pub total_rows: Option<u64>,
    /// The markers in its summary.
    pub markers: BTreeMap<String, String>,
    /// Below which event time a backfill said that the table is complete, RFC 3339.
    pub committed_through: Option<String>,
    /// Whether the branch as it is now descends from it.
    pub in_ancestry: bool,
    /// Whether it is the branch as it is now.
    pub current: bool,
}

/// A data file of the table as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFile {
    /// Where it stands.
    pub path: String,
    /// Rows, as the manifest says.
    pub rows: u64,
    /// The snapshot that added it.
    pub snapshot: Option<i64>,
}

/// What data files were found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Rows, as the files' footers say.
    pub rows: u64,
    /// Rows of each hour of event time, by the hour's number since 1970; empty where no column was read.
    pub hours: BTreeMap<i64, u64>,
    /// Rows without event time.
    pub without_time: u64,
    /// Files that cannot be read, and why.
    pub unreadable: Vec<(String, String)>,
    /// Files that hold another number of rows than the manifest says: path, manifest, file.
    pub miscounted: Vec<(String, u64, u64)>,
}

/// The snapshots of `target`'s table, seen from main.
///
/// # Errors
/// [`SinkError::Preflight`] where there is no such table.
pub async fn history(catalogs: &Catalogs, target: &OutputTarget) -> Result<TableHistory, SinkError> {
    Ok(history_of(&table::load(catalogs, target).await?, target, marker::MAIN))
}

/// The snapshots of a table that was loaded as `target`, seen from `branch`; one that is not there descends from none.
pub fn history_of(loaded: &LoadedTable, target: &OutputTarget, branch: &str) -> TableHistory {
    let metadata = loaded.metadata();
    let current = metadata.snapshot_for_ref(branch).map(|head| head.snapshot_id());
    let ancestry: BTreeSet<i64> = current
        .map(|head| ancestors_of(&metadata, head).map(|snapshot| snapshot.snapshot_id()).collect())
        .unwrap_or_default();
    let mut snapshots: Vec<SnapshotFacts> = metadata
        .snapshots()
        .map(|snapshot| SnapshotFacts {
            in_ancestry: ancestry.contains(&snapshot.snapshot_id()),
            current: Some(snapshot.snapshot_id()) == current,
            ..facts(snapshot)
        })
        .collect();
    snapshots.sort_by_key(|snapshot| (snapshot.at, snapshot.id));
    TableHistory {
        table: target.full_name(),
        uuid: metadata.uuid().to_string(),
        location: metadata.location().to_owned(),
        snapshots,
        markers: markers(metadata.properties()),
    }
}

fn facts(snapshot: &Snapshot) -> SnapshotFacts {
    let summary = &snapshot.summary().additional_properties;
    let number = |key: &str| summary.get(key).and_then(|text| text.parse().ok());
    use iceberg::spec::Operation::{Append, Overwrite};
    let told = matches!(snapshot.summary().operation, Append | Overwrite);
    SnapshotFacts {
        id: snapshot.snapshot_id(),
        parent: snapshot.parent_snapshot_id(),
        at: snapshot.timestamp_ms().saturating_mul(1_000),
        operation: snapshot.summary().operation.as_str().to_owned(),
        // One that adds nothing (a fence) or removes nothing has no such entries.
        added_rows: number("added-records").or(told.then_some(0)),
        added_files: number("added-data-files").or(told.then_some(0)),
        removed_rows: number("deleted-records").or(told.then_some(0)),
        removed_files: number("deleted-data-files").or(told.then_some(0)),
        total_rows: number("total-records"),
        markers: markers(summary),
        committed_through: summary.get(COMMITTED_THROUGH).cloned(),
        ..SnapshotFacts::default()
    }
}

fn markers(properties: &std::collections::HashMap<String, String>) -> BTreeMap<String, String> {
    let is_marker = |key: &str| key.starts_with("tidegate.") && key != COMMITTED_THROUGH;
    let found = properties.iter().filter(|(key, _)| is_marker(key));
    found.map(|(key, marker)| (key.clone(), marker.clone())).collect()
}

/// Every data file of `branch` as it is now, one entry for each time that a manifest names it.
pub async fn live_files(table: &LoadedTable, branch: &str) -> Result<Vec<LiveFile>, SinkError> {
    let metadata = table.metadata();
    let Some(snapshot) = metadata.snapshot_for_ref(branch) else { return Ok(Vec::new()) };
    let doing = || format!("table {}: read {}", table.table().identifier(), snapshot.manifest_list());
    let list = table.table().manifest_list_reader(snapshot).load().await.map_err(SinkError::lake(doing()))?;
    let mut files = Vec::new();
    for manifest in list.entries().iter().filter(|manifest| manifest.content == ManifestContentType::Data) {
        let doing = format!("table {}: read {}", table.table().identifier(), manifest.manifest_path);
        let loaded = manifest.load_manifest(table.io()).await.map_err(SinkError::lake(doing))?;
        files.extend(loaded.entries().iter().filter(|entry| entry.is_alive()).map(|entry| LiveFile {
            path: entry.file_path().to_owned(),
            rows: entry.record_count(),
            snapshot: entry.snapshot_id(),
        }));
    }
    Ok(files)
}

/// Reads `files`: their footers, and the times in `column` where there is one. A file that cannot be read is told of,
/// and the others are read all the same.
pub async fn contents(table: &LoadedTable, files: &[LiveFile], column: Option<&str>) -> Contents {
    let mut all = Contents::default();
    for file in files {
        match content(table, &file.path, column).await {
            Ok(found) => {
                if found.rows != file.rows {
                    all.miscounted.push((file.path.clone(), file.rows, found.rows));
                }
                all.rows += found.rows;
                all.without_time += found.without_time;
                for (hour, rows) in found.hours {
                    *all.hours.entry(hour).or_default() += rows;
                }
            }
            Err(error) => all.unreadable.push((file.path.clone(), crate::failure::chain(error.as_ref()))),
        }
    }
    all
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

async fn content(table: &LoadedTable, path: &str, column: Option<&str>) -> Result<Contents, Cause> {
    let column = column.map(str::to_owned);
    match durable::local_path(path) {
        Some(local) => {
            tokio::task::spawn_blocking(move || scan(std::fs::File::open(local)?, column.as_deref())).await?
        }
        None => {
            let bytes: Bytes = table.io().new_input(path)?.read().await?;
            tokio::task::spawn_blocking(move || scan(bytes, column.as_deref())).await?
        }
    }
}

fn scan(file: impl ChunkReader + 'static, column: Option<&str>) -> Result<Contents, Cause> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let footer = builder.metadata().file_metadata();
    let mut found = Contents { rows: u64::try_from(footer.num_rows())?, ..Contents::default() };
    let Some(column) = column else { return Ok(found) };
    let at = builder.schema().index_of(column)?;
    let only = ProjectionMask::roots(builder.parquet_schema(), [at]);
    for batch in builder.with_projection(only).build()? {
        let batch = batch?;
        let times = cast(batch.column(0), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
        let times: Int64Array = cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
        found.without_time += times.null_count() as u64;
        for at in times.iter().flatten() {
            *found.hours.entry(at.div_euclid(MICROS_AN_HOUR)).or_default() += 1;
        }
    }
    Ok(found)
}
