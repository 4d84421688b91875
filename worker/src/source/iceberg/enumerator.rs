//! Finds the data files of a snapshot: those that its manifests leave in the window, with their deletes and their units,
//! and the count of all others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use iceberg::ErrorKind;
use iceberg::scan::FileScanTask;
use iceberg::spec::{DataFile, DataFileFormat, ManifestContentType, SnapshotRef};
use prost::Message;
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

use super::Shared;
use super::columns::Places;
use super::detail::Detail;
use crate::source::bounds::KnownBounds;
use crate::source::error::{During, SourceError};
use crate::source::parquet::{self, ParquetFile};
use crate::source::{FoundSplit, UnitSpans};

/// Footers that are read at a time.
const FOOTERS_AT_A_TIME: usize = 16;

/// Sends a split for every data file of `snapshot`; without units where it lies outside `window` for certain.
pub(super) async fn enumerate(
    shared: &Arc<Shared>,
    snapshot: &SnapshotRef,
    window: Window,
    found: mpsc::Sender<FoundSplit>,
) -> Result<(), SourceError> {
    let planned = planned(shared, snapshot, window).await?;
    let known = rest(shared, snapshot, &planned, &found).await?;
    let find = |mut task: FileScanTask| {
        let shared = shared.clone();
        let elsewhere = |delete: &str| known.aimed.get(delete).is_some_and(|file| *file != task.data_file_path);
        let spec_id = known.specs.get(&task.data_file_path).copied().unwrap_or_default();
        let deletes = std::mem::take(&mut task.deletes);
        task.deletes = deletes.into_iter().filter(|delete| !elsewhere(&delete.file_path)).collect();
        let snapshot = snapshot.snapshot_id();
        async move { shared.find(snapshot, task, spec_id, window).await }
    };
    let mut splits = futures::stream::iter(planned.into_values()).map(find).buffered(FOOTERS_AT_A_TIME);
    while let Some(split) = splits.next().await {
        found.send(split?).await.map_err(|_| SourceError::Abandoned)?;
    }
    Ok(())
}

/// The files that the manifests' partitions and bounds leave in the window, by name.
async fn planned(
    shared: &Shared,
    snapshot: &SnapshotRef,
    window: Window,
) -> Result<BTreeMap<String, FileScanTask>, SourceError> {
    let failed = |e: iceberg::Error| lake(shared, snapshot, e);
    // The scan's filter speaks of the snapshot's own schema, in which the column may have another name, or none.
    let schema = snapshot.schema(shared.table.metadata()).map_err(failed)?;
    let mut scan = shared.table.scan().snapshot_id(snapshot.snapshot_id()).select_empty();
    if let Some(filter) = shared.time.filter(&schema, window) {
        scan = scan.with_filter(filter);
    }
    let tasks = scan.build().map_err(failed)?.plan_files().await.map_err(failed)?;
    tasks.map_ok(|task| (task.data_file_path.clone(), task)).try_collect().await.map_err(failed)
}

/// What the scan does not say of what it planned.
#[derive(Default)]
struct Known {
    /// The one data file that a positional delete file speaks of, where it speaks of one.
    aimed: HashMap<String, String>,
    /// The partition spec of each planned data file.
    specs: HashMap<String, i32>,
}

/// Counts the live data files that are not among `planned`.
async fn rest(
    shared: &Shared,
    snapshot: &SnapshotRef,
    planned: &BTreeMap<String, FileScanTask>,
    found: &mpsc::Sender<FoundSplit>,
) -> Result<Known, SourceError> {
    let failed = |e: iceberg::Error| lake(shared, snapshot, e);
    let mut known = Known::default();
    let list = shared.table.manifest_list_reader(snapshot).load().await.map_err(failed)?;
    for manifest in list.entries() {
        let loaded = manifest.load_manifest(shared.table.file_io()).await.map_err(failed)?;
        for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            if manifest.content == ManifestContentType::Deletes {
                check_format(shared, file.file_path(), file.file_format(), "delete")?;
                known.aimed.extend(file.referenced_data_file().map(|data| (file.file_path().to_owned(), data)));
            } else if planned.contains_key(file.file_path()) {
                known.specs.insert(file.file_path().to_owned(), manifest.partition_spec_id);
            } else {
                found.send(left_out(file)).await.map_err(|_| SourceError::Abandoned)?;
            }
        }
    }
    Ok(known)
}

fn left_out(file: &DataFile) -> FoundSplit {
    let (rows, bytes) = (file.record_count(), file.file_size_in_bytes());
    let pin = v1::FilePin { path: file.file_path().to_owned(), size: bytes, ..Default::default() };
    let split = v1::Split { file: Some(pin), ..Default::default() };
    FoundSplit { split, rows_pruned: rows, bytes_pruned: bytes, ..Default::default() }
}

/// What the footer of a planned file says of the integers of its row groups. Of a file with deletes, nothing.
pub(super) async fn spans(
    shared: &Arc<Shared>,
    split: &v1::Split,
    columns: &[usize],
) -> Result<Vec<UnitSpans>, SourceError> {
    let detail = Detail::read(&split.detail).filter(|detail| !detail.has_deletes());
    let (Some(_), Some(pin)) = (detail, &split.file) else { return Ok(Vec::new()) };
    let file = ParquetFile::open(shared.store.open_pinned(pin).await?, During::Plan).await?;
    let places = Places::of(shared, &file)?;
    let groups = file.row_groups().len();
    let of_column = |column: &usize| match places.of_column(*column) {
        Some(place) => parquet::of_integers(&file, place),
        None => Ok(vec![None; groups]),
    };
    let bounds = columns.iter().map(of_column).collect::<Result<Vec<_>, _>>()?;
    let of_group = |group: usize| bounds.iter().map(|column| column.get(group).copied().flatten()).collect();
    Ok((0..).zip(0..groups).map(|(position, group)| UnitSpans { position, bounds: of_group(group) }).collect())
}

impl Shared {
    async fn find(
        &self,
        snapshot: i64,
        task: FileScanTask,
        spec_id: i32,
        window: Window,
    ) -> Result<FoundSplit, SourceError> {
        let FileScanTask { data_file_path: location, deletes, .. } = task;
        check_format(self, &location, task.data_file_format, "data")?;
        let pin = self.store.pin(self.place_of(&location)?).await?;
        if pin.size != task.file_size_in_bytes {
            let (size, said) = (pin.size, task.file_size_in_bytes);
            return Err(self.input(format!("{location} holds {size} bytes, and the table's metadata say {said}")));
        }
        let file = ParquetFile::open(self.store.open_pinned(&pin).await?, During::Plan).await?;
        let places = Places::of(self, &file)?;
        places.check_constants(self, &location, spec_id)?;
        let bounds = match places.of_column(self.time.place) {
            Some(column) => parquet::of_groups(&file, column, &self.rule, None).await?,
            // The file is older than the column: no row has an event time.
            None => vec![KnownBounds { bounds: None, has_nulls: true }; file.row_groups().len()],
        };
        let detail = Detail::new(snapshot, self.fields.schema_id(), location, &deletes);
        self.check_deletes(&detail).await?;
        let split = v1::Split { file: Some(pin), detail: detail.encode_to_vec().into() };
        let mut found = parquet::found(split, &file, &bounds, window);
        if detail.has_deletes() {
            // Deletes take rows away, so bounds still hold; how many are left only reading tells.
            found.units.iter_mut().for_each(|unit| unit.rows = 0);
        }
        Ok(found)
    }

    /// Iceberg's reader opens the files by itself: that they are there, and allowed, is asked before.
    pub(super) async fn check_deletes(&self, detail: &Detail) -> Result<(), SourceError> {
        for delete in detail.deletes() {
            self.store.pin(self.place_of(&delete.file_path)?).await?;
        }
        Ok(())
    }
}

fn check_format(shared: &Shared, file: &str, format: DataFileFormat, kind: &str) -> Result<(), SourceError> {
    if format == DataFileFormat::Parquet {
        return Ok(());
    }
    let way_out =
        if kind == "data" { "write it again as Parquet" } else { "compact the table, which applies its deletes" };
    Err(shared.input(format!("{file} is a {kind} file of format {format}, and only Parquet can be read: {way_out}")))
}

/// The manifests could not be read: a snapshot that expires meanwhile loses them.
fn lake(shared: &Shared, snapshot: &SnapshotRef, error: iceberg::Error) -> SourceError {
    let what = format!("iceberg {} @ snapshot {}", shared.table.identifier(), snapshot.snapshot_id());
    match error.kind() {
        ErrorKind::Unexpected => SourceError::Lake {
            doing: format!("{what}: its manifests cannot be read (has it expired?)"),
            source: Box::new(error),
        },
        _ => SourceError::Corrupt {
            file: what,
            place: "manifests".to_owned(),
            during: During::Plan,
            source: Box::new(error),
        },
    }
}
