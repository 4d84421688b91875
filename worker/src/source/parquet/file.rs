//! One Parquet file: its footer, loaded once, and its row groups as streams of batches.

use std::any::Any;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use super::plain;
use crate::source::error::{During, SourceError};
use crate::source::store::{PinnedFile, store_error};

/// Bytes of a file's end that are fetched in the hope that they hold the whole footer.
const FOOTER_GUESS: usize = 64 << 10;
/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// A file and its footer.
#[derive(Clone, Debug)]
pub(in crate::source) struct ParquetFile {
    bytes: FileBytes,
    footer: ArrowReaderMetadata,
}

impl ParquetFile {
    /// Reads the footer of `file`.
    pub(in crate::source) async fn open(file: PinnedFile, during: During) -> Result<Self, SourceError> {
        let name = file.name().to_owned();
        let loaded = AssertUnwindSafe(Self::load(FileBytes(file))).catch_unwind().await;
        loaded.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))).map_err(|e| failure(&name, "footer", during, e))
    }

    async fn load(mut bytes: FileBytes) -> Result<Self, ParquetError> {
        let read = ArrowReaderMetadata::load_async(&mut bytes, ArrowReaderOptions::new()).await?;
        read.metadata().row_groups().iter().try_for_each(|group| bytes.check_group(group))?;
        let plain = read.schema().fields().iter().map(|field| plain_field(field, read.parquet_schema()));
        let plain = Schema::new(plain.collect::<Vec<_>>());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(plain));
        let footer = ArrowReaderMetadata::try_new(read.metadata().clone(), options)?;
        Ok(Self { bytes, footer })
    }

    /// Its path or URL.
    pub(in crate::source) fn name(&self) -> &str {
        self.bytes.0.name()
    }

    /// Its columns, in its own order, as they are read.
    pub(in crate::source) fn schema(&self) -> &SchemaRef {
        self.footer.schema()
    }

    /// Its columns as they are written.
    pub(in crate::source) fn parquet_schema(&self) -> &SchemaDescriptor {
        self.footer.parquet_schema()
    }

    /// Its row groups, in its own order.
    pub(in crate::source) fn row_groups(&self) -> &[RowGroupMetaData] {
        self.footer.metadata().row_groups()
    }

    /// What a person calls a row group.
    pub(in crate::source) fn place_of(&self, group: usize) -> String {
        format!("row group {group}")
    }

    /// The rows of a row group: the columns at `columns` of the file, in the file's order.
    pub(in crate::source) fn read_group(
        &self,
        group: usize,
        columns: &[usize],
        during: During,
    ) -> Result<BoxStream<'static, Result<RecordBatch, SourceError>>, SourceError> {
        let mask = ProjectionMask::roots(self.parquet_schema(), columns.iter().copied());
        let place = self.place_of(group);
        let batches = ParquetRecordBatchStreamBuilder::new_with_metadata(self.bytes.clone(), self.footer.clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|e| self.corrupt(&place, during, e))?;
        let name = self.name().to_owned();
        let batches = AssertUnwindSafe(batches).catch_unwind().map(move |batch| {
            let batch = batch.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
            batch.map_err(|e| failure(&name, &place, during, e))
        });
        Ok(batches.boxed())
    }

    /// The error of a decoder at `place`; a store's failure stays one.
    pub(in crate::source) fn corrupt(&self, place: &str, during: During, error: ParquetError) -> SourceError {
        failure(self.name(), place, during, error)
    }
}

/// Runs a decoder that may panic over a damaged file; that is its error then.
pub(in crate::source) fn caught<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    std::panic::catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

fn panicked(panic: &(dyn Any + Send)) -> ParquetError {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ParquetError::General(format!("the decoder gave up: {}", said.unwrap_or("it does not say why")))
}

/// A count that the format writes signed; below zero it is none.
pub(in crate::source) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// INT96 is read in microseconds: in nanoseconds, what lies beyond the year 2262 would come out as another time.
fn plain_field(field: &Field, written: &SchemaDescriptor) -> Field {
    let is_int96 =
        |leaf: &ColumnDescPtr| leaf.physical_type() == Type::INT96 && leaf.path().parts() == [field.name().as_str()];
    let kind = match plain(field.data_type()) {
        DataType::Timestamp(_, zone) if written.columns().iter().any(is_int96) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone)
        }
        kind => kind,
    };
    field.clone().with_data_type(kind)
}

fn failure(file: &str, place: &str, during: During, error: ParquetError) -> SourceError {
    let error = match error {
        ParquetError::External(cause) => match cause.downcast::<object_store::Error>() {
            Ok(store) => return store_error(file, *store),
            Err(cause) => ParquetError::External(cause),
        },
        error => error,
    };
    SourceError::Corrupt { file: file.to_owned(), place: place.to_owned(), during, source: Box::new(error) }
}

/// The bytes of a pinned file, for the decoder.
#[derive(Clone, Debug)]
struct FileBytes(PinnedFile);

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl FileBytes {
    /// A damaged footer names places that no file has.
    fn check_group(&self, group: &RowGroupMetaData) -> Result<(), ParquetError> {
        let size = i64::try_from(self.0.size()).unwrap_or(i64::MAX);
        let is_sound = group.columns().iter().all(|chunk| {
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let end = start.checked_add(chunk.compressed_size());
            start >= 0 && chunk.compressed_size() >= 0 && end.is_some_and(|end| end <= size)
        });
        if is_sound && group.num_rows() >= 0 {
            return Ok(());
        }
        Err(ParquetError::General(format!("a row group claims to lie outside the {size} bytes of the file")))
    }

    /// A footer that is cut off names ranges that the file does not have.
    fn check(&self, range: &Range<u64>) -> Result<(), ParquetError> {
        if range.start <= range.end && range.end <= self.0.size() {
            return Ok(());
        }
        let (start, end, size) = (range.start, range.end, self.0.size());
        Err(ParquetError::EOF(format!("bytes {start} to {end} are wanted of a file of {size}")))
    }
}

impl AsyncFileReader for FileBytes {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            self.check(&range)?;
            self.0.bytes(range).await.map_err(external)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            ranges.iter().try_for_each(|range| self.check(range))?;
            self.0.ranges(&ranges).await.map_err(external)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.0.size();
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_GUESS));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}
