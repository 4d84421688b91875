//! Reads row groups of an Iceberg table's files: as they stand where they are the table's, else by Iceberg's reader.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::arrow::ArrowReader;
use iceberg::scan::FileScanTask;
use iceberg::spec::DataFileFormat;
use tidegate_common::time::Window;
use tidegate_proto::v1;

use super::Shared;
use super::columns::Places;
use super::detail::Detail;
use super::equality::EqualityDeletes;
use crate::access::NOT_THERE;
use crate::source::error::{During, SourceError};
use crate::source::parquet::{ParquetFile, Wanted, read_unit, unsigned};
use crate::source::{SourceBatch, UnitReader, check};

/// Files whose footers and deletes a reader keeps.
const OPEN_FILES: usize = 16;
/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Bytes before the first row group of a Parquet file.
const MAGIC: u64 = 4;

/// A reader over some planned files.
pub(super) struct IcebergReader {
    shared: Arc<Shared>,
    splits: Vec<v1::Split>,
    wanted: Wanted,
    window: Window,
    open: VecDeque<(u32, Arc<OpenFile>)>,
}

struct OpenFile {
    file: Arc<ParquetFile>,
    detail: Detail,
    places: Places,
    equality: EqualityDeletes,
    way: Way,
}

/// How a file is read.
enum Way {
    /// As it stands; the columns' places.
    AsItStands(Vec<usize>),
    /// By Iceberg's reader, which keeps the file's positional deletes once they are loaded.
    ByIceberg(Box<ArrowReader>),
}

impl IcebergReader {
    /// A reader that yields `columns` of `splits`.
    pub(super) fn new(
        shared: Arc<Shared>,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Self, SourceError> {
        let wanted = Wanted::new(&shared.name, &shared.schema, columns)?;
        Ok(Self { shared, splits: splits.to_vec(), wanted, window, open: VecDeque::new() })
    }

    async fn file(&mut self, at: u32) -> Result<Arc<OpenFile>, SourceError> {
        if let Some((_, open)) = self.open.iter().find(|(split, _)| *split == at) {
            return Ok(open.clone());
        }
        let open = Arc::new(self.open_file(at).await?);
        if self.open.len() >= OPEN_FILES {
            self.open.pop_front();
        }
        self.open.push_back((at, open.clone()));
        Ok(open)
    }

    /// Opens the file of the split at `at`, checked against what was planned.
    async fn open_file(&self, at: u32) -> Result<OpenFile, SourceError> {
        let shared = &self.shared;
        let pin = check::pin_of_split(&shared.name, &self.splits, at)?;
        let split = usize::try_from(at).ok().and_then(|at| self.splits.get(at));
        let detail = split.and_then(|split| Detail::read(&split.detail)).ok_or_else(|| {
            shared.input(format!("what the plan says of {} cannot be read: was it made by a later release?", pin.path))
        })?;
        let held = shared.snapshot.as_ref().map(|snapshot| snapshot.snapshot_id());
        if held != Some(detail.snapshot) || shared.fields.schema_id() != detail.schema_id {
            let what = format!("the plan is of snapshot {}, and {held:?} is open", detail.snapshot);
            return Err(SourceError::Changed { file: format!("iceberg {}", shared.table.identifier()), what });
        }
        let pinned = shared.store.open_pinned(pin).await.map_err(|e| expired(e, shared, detail.snapshot))?;
        let file = Arc::new(ParquetFile::open(pinned, During::Read).await?);
        let places = Places::of(shared, &file)?;
        let as_it_stands = if detail.has_deletes() { None } else { places.unchanged(shared, &file) };
        let way = match as_it_stands {
            Some(places) => Way::AsItStands(places),
            None => {
                shared.check_deletes(&detail).await.map_err(|e| expired(e, shared, detail.snapshot))?;
                let reader = shared.table.reader_builder().with_data_file_concurrency_limit(1);
                Way::ByIceberg(Box::new(reader.with_batch_size(BATCH_ROWS).build()))
            }
        };
        let equality = EqualityDeletes::load(shared, &detail).await?;
        Ok(OpenFile { file, detail, places, equality, way })
    }
}

/// A file that is gone has, as a rule, gone with its snapshot.
fn expired(error: SourceError, shared: &Shared, snapshot: i64) -> SourceError {
    let table = shared.table.identifier();
    match error {
        SourceError::Changed { file, what } => {
            SourceError::Changed { file, what: format!("{what} (has snapshot {snapshot} of {table} expired?)") }
        }
        SourceError::Denied { what, .. } if what.ends_with(NOT_THERE) => SourceError::Changed {
            file: format!("iceberg {table}"),
            what: format!("{what} (has snapshot {snapshot} expired?)"),
        },
        error => error,
    }
}

#[async_trait]
impl UnitReader for IcebergReader {
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
        let open = self.file(unit.split).await?;
        let (shared, wanted) = (&self.shared, &self.wanted);
        let reader = match &open.way {
            Way::AsItStands(places) => {
                return read_unit(&shared.name, &shared.rule, wanted, (&open.file, places), unit, self.window);
            }
            Way::ByIceberg(reader) => reader.as_ref().clone(),
        };
        let file = open.file.name().to_owned();
        let group = usize::try_from(unit.position).unwrap_or(usize::MAX);
        let Some(midpoint) = midpoint(&open.file, group) else {
            return Err(SourceError::Changed { file, what: format!("it has no row group {group} any more") });
        };
        let place = open.file.place_of(group);
        let cut = Cut::new(shared.clone(), wanted, open.clone(), place.clone());
        let task = FileScanTask {
            file_size_in_bytes: self.splits_size(unit.split),
            start: midpoint,
            length: 1,
            record_count: None,
            data_file_path: open.detail.location.clone(),
            data_file_format: DataFileFormat::Parquet,
            schema: shared.fields.clone(),
            project_field_ids: cut.ids.clone(),
            predicate: None,
            deletes: open.detail.positional(),
            partition: None,
            partition_spec: None,
            name_mapping: shared.mapping.clone(),
            case_sensitive: true,
        };
        let task = futures::stream::once(futures::future::ready(Ok(task))).boxed();
        let batches = reader.read(task).map_err(|e| cut.corrupt(e))?.stream();
        let checks = check::Unit::new(&file, &place, unit, self.window, shared.rule.way_out());
        let rows = batches.map(move |batch| cut.apply(batch.map_err(|e| cut.corrupt(e))?));
        Ok(checks.over(rows.boxed()))
    }
}

impl IcebergReader {
    fn splits_size(&self, at: u32) -> u64 {
        let split = usize::try_from(at).ok().and_then(|at| self.splits.get(at));
        split.and_then(|split| split.file.as_ref()).map_or(0, |pin| pin.size)
    }
}

/// Iceberg's reader is asked for ranges of bytes, and reads the row groups whose midpoints, counted so, lie in them.
fn midpoint(file: &ParquetFile, group: usize) -> Option<u64> {
    let size = |group: &parquet::file::metadata::RowGroupMetaData| unsigned(group.compressed_size());
    let before: u64 = file.row_groups().get(..group)?.iter().map(size).sum();
    Some(MAGIC + before + size(file.row_groups().get(group)?) / 2)
}

/// How a batch of Iceberg's reader becomes a batch of the source.
struct Cut {
    /// The fields that are asked for.
    ids: Vec<i32>,
    /// For each wanted column, its place among them.
    takes: Vec<usize>,
    /// The event-time column's place among them.
    time: usize,
    /// They, as places in the source's schema.
    columns: Vec<usize>,
    schema: SchemaRef,
    place: String,
    shared: Arc<Shared>,
    open: Arc<OpenFile>,
}

impl Cut {
    fn new(shared: Arc<Shared>, wanted: &Wanted, open: Arc<OpenFile>, place: String) -> Self {
        let mut columns = wanted.columns.clone();
        columns.push(shared.time.place);
        columns.extend(open.equality.columns());
        // Iceberg's reader takes columns of equal types for each other unless they come in the file's order; and a
        // file that has none of those asked for must give one that it has.
        let known = (0..shared.schema.fields().len()).find(|column| open.places.of_column(*column).is_some());
        if columns.iter().all(|column| open.places.of_column(*column).is_none()) {
            columns.extend(known);
        }
        columns.sort_unstable_by_key(|column| (open.places.of_column(*column).unwrap_or(usize::MAX), *column));
        columns.dedup();
        let fields = shared.fields.as_struct().fields();
        let place_of = |column: &usize| columns.iter().position(|held| held == column).unwrap_or_default();
        Self {
            takes: wanted.columns.iter().map(place_of).collect(),
            time: place_of(&shared.time.place),
            ids: columns.iter().filter_map(|column| fields.get(*column)).map(|field| field.id).collect(),
            schema: wanted.schema.clone(),
            columns,
            place,
            shared: shared.clone(),
            open,
        }
    }

    fn corrupt(&self, error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
        let (file, place) = (self.open.file.name().to_owned(), self.place.clone());
        SourceError::Corrupt { file, place, during: During::Read, source: Box::new(error) }
    }

    fn apply(&self, batch: RecordBatch) -> Result<SourceBatch, SourceError> {
        let place = |column| self.columns.iter().position(|held| *held == column).unwrap_or(usize::MAX);
        let batch = self.open.equality.apply(&self.shared, batch, place).map_err(|e| self.corrupt(e))?;
        let event_time = self.shared.rule.of_column(batch.column(self.time));
        let columns = self.takes.iter().zip(self.schema.fields()).map(|(at, field)| {
            let column = batch.column(*at);
            if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|e| self.corrupt(e))?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        Ok(SourceBatch::of(rows.map_err(|e| self.corrupt(e))?, event_time, Vec::new()))
    }
}
