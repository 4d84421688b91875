//! One data file while it is written.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use iceberg::io::{FileIO, FileWrite};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, SchemaRef, Struct};
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::stats::{Columns, NanCounts};
use super::{SinkError, durable};
use crate::failpoint::{self, hit};
use crate::storage::PART;

/// The lake's storage as Parquet writes to it.
struct Storage(Box<dyn FileWrite>);

impl AsyncFileWriter for Storage {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), ParquetError>> {
        self.0.write(bytes).map(|done| done.map_err(|error| ParquetError::External(Box::new(error)))).boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, Result<(), ParquetError>> {
        self.0.close().map(|done| done.map_err(|error| ParquetError::External(Box::new(error)))).boxed()
    }
}

/// One data file while it is written.
pub(super) struct OpenFile {
    path: String,
    partition: Struct,
    writer: AsyncArrowWriter<Storage>,
    schema: SchemaRef,
    nans: NanCounts,
    rows: u64,
    is_local: bool,
}

impl OpenFile {
    /// Creates the file `path`, of a name that is used once.
    pub(super) async fn create(
        io: &FileIO,
        path: String,
        partition: Struct,
        (schema, arrow): (&SchemaRef, &ArrowSchemaRef),
        properties: WriterProperties,
    ) -> Result<Self, SinkError> {
        let doing = || format!("create {path}");
        let local = durable::local_path(&path);
        if let Some(folder) = local.as_deref().and_then(std::path::Path::parent) {
            durable::create_folder(folder)?;
        }
        let output = io.new_output(&path).map_err(SinkError::lake(doing()))?;
        let storage = Storage(output.writer().await.map_err(SinkError::lake(doing()))?);
        let options = ArrowWriterOptions::new().with_properties(properties);
        let writer = AsyncArrowWriter::try_new_with_options(storage, arrow.clone(), options)
            .map_err(SinkError::parquet(doing()))?;
        let (nans, is_local) = (NanCounts::new(schema), local.is_some());
        Ok(Self { nans, schema: schema.clone(), path, partition, writer, rows: 0, is_local })
    }

    /// Writes rows of the file's schema.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<(), SinkError> {
        self.nans.add(rows);
        self.rows += rows.num_rows() as u64;
        self.writer.write(rows).await.map_err(SinkError::parquet(format!("write {}", self.path)))
    }

    /// Ends the row group, which gives its memory back.
    pub(super) async fn flush(&mut self) -> Result<(), SinkError> {
        self.writer.flush().await.map_err(SinkError::parquet(format!("write {}", self.path)))
    }

    /// Bytes that are written, and those that Parquet says the row group in progress will take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.writer.bytes_written(), self.writer.in_progress_size())
    }

    /// Bytes of memory that the row group takes.
    pub(super) fn memory(&self) -> usize {
        self.writer.memory_size()
    }

    /// Bytes that are written and may not be sent yet: no end of a row group gives their memory back.
    pub(super) fn unsent(&self) -> usize {
        if self.is_local { 0 } else { self.writer.bytes_written().min(PART) }
    }

    /// Closes the file, durably.
    pub(super) async fn close(mut self, spec_id: i32) -> Result<DataFile, SinkError> {
        hit(failpoint::FILE_BEFORE_CLOSE)?;
        let doing = || format!("close {}", self.path);
        let footer = self.writer.finish().await.map_err(SinkError::parquet(doing()))?;
        let bytes = self.writer.bytes_written() as u64;
        if let Some(folder) = durable::local_path(&self.path).as_deref().and_then(std::path::Path::parent) {
            durable::sync_folder(folder)?;
        }
        hit(failpoint::FILE_AFTER_CLOSE)?;
        let columns = Columns::of(&footer, &self.schema);
        let mut offsets: Vec<i64> = footer.row_groups().iter().filter_map(|group| group.file_offset()).collect();
        offsets.sort_unstable();
        DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(self.path.clone())
            .file_format(DataFileFormat::Parquet)
            .partition(self.partition)
            .partition_spec_id(spec_id)
            .record_count(self.rows)
            .file_size_in_bytes(bytes)
            .column_sizes(columns.sizes)
            .value_counts(columns.values)
            .null_value_counts(columns.nulls)
            .nan_value_counts(self.nans.by_id())
            .lower_bounds(columns.lower)
            .upper_bounds(columns.upper)
            .split_offsets(Some(offsets))
            .build()
            .map_err(|error| SinkError::Lake { doing: format!("close {}", self.path), source: Box::new(error) })
    }
}
