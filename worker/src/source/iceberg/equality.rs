//! Equality deletes: rows whose columns equal those of a row of a delete file are not there.
//!
//! Iceberg's own reader is not asked: it also drops the rows whose column is null, and those of files older than the
//! column. Here null equals null and nothing else, as the format says. The keys are kept in memory.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use futures::TryStreamExt;

use super::Shared;
use super::columns::id_of;
use super::detail::Detail;
use crate::source::error::{During, SourceError};
use crate::source::parquet::ParquetFile;

/// The equality deletes of one data file.
#[derive(Default)]
pub(super) struct EqualityDeletes(Vec<Keys>);

/// The keys of all delete files that compare the same columns.
struct Keys {
    /// Places in the source's schema.
    columns: Vec<usize>,
    converter: RowConverter,
    keys: HashSet<Box<[u8]>>,
}

impl EqualityDeletes {
    /// Reads those of the file that `detail` describes.
    pub(super) async fn load(shared: &Shared, detail: &Detail) -> Result<Self, SourceError> {
        let mut sets: BTreeMap<Vec<usize>, Keys> = BTreeMap::new();
        for delete in detail.deletes() {
            let Some(ids) = delete.equality_ids else { continue };
            let mut columns =
                ids.iter().map(|id| column_of(shared, *id, &delete.file_path)).collect::<Result<Vec<_>, _>>()?;
            columns.sort_unstable();
            let keys = match sets.remove(&columns) {
                Some(keys) => keys,
                None => Keys::new(shared, columns.clone()).map_err(|e| corrupt(&delete.file_path, e))?,
            };
            let pin = shared.store.pin(shared.place_of(&delete.file_path)?).await?;
            let file = ParquetFile::open(shared.store.open_pinned(&pin).await?, During::Read).await?;
            sets.insert(columns, keys.load(shared, &file).await?);
        }
        Ok(Self(sets.into_values().collect()))
    }

    /// The columns that they compare, as places in the source's schema.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|keys| keys.columns.iter().copied())
    }

    /// The rows of `batch` that are still there; `place` says where a column of the source stands in it.
    pub(super) fn apply(
        &self,
        shared: &Shared,
        mut batch: RecordBatch,
        place: impl Fn(usize) -> usize,
    ) -> Result<RecordBatch, ArrowError> {
        for keys in &self.0 {
            let values = keys.columns.iter().map(|column| {
                let missing = || ArrowError::SchemaError(format!("column {column} was not read"));
                plain(shared, *column, batch.columns().get(place(*column)).ok_or_else(missing)?)
            });
            let rows = keys.converter.convert_columns(&values.collect::<Result<Vec<_>, _>>()?)?;
            let stays: BooleanArray = rows.iter().map(|row| Some(!keys.keys.contains(row.as_ref()))).collect();
            batch = filter_record_batch(&batch, &stays)?;
        }
        Ok(batch)
    }
}

impl Keys {
    fn new(shared: &Shared, columns: Vec<usize>) -> Result<Self, ArrowError> {
        let fields = shared.schema.project(&columns)?;
        let fields = fields.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Self { columns, converter: RowConverter::new(fields.collect())?, keys: HashSet::new() })
    }

    /// These, and the rows of `file`.
    async fn load(mut self, shared: &Shared, file: &ParquetFile) -> Result<Self, SourceError> {
        let fields = shared.fields.as_struct().fields();
        let place = |column: &usize| {
            let id = fields.get(*column)?.id;
            file.schema().fields().iter().position(|field| id_of(field) == Some(id))
        };
        let places: Option<Vec<usize>> = self.columns.iter().map(place).collect();
        let places = places.ok_or_else(|| {
            shared.input(format!("the delete file {} lacks a column that it compares, or field ids", file.name()))
        })?;
        let mut read = places.clone();
        read.sort_unstable();
        for group in 0..file.row_groups().len() {
            let mut batches = file.read_group(group, &read, During::Read)?;
            while let Some(batch) = batches.try_next().await? {
                self.add(shared, &batch, &places, &read).map_err(|e| corrupt(file.name(), e))?;
            }
        }
        Ok(self)
    }

    fn add(
        &mut self,
        shared: &Shared,
        batch: &RecordBatch,
        places: &[usize],
        read: &[usize],
    ) -> Result<(), ArrowError> {
        let values = self.columns.iter().zip(places).map(|(column, place)| {
            let at = read.binary_search(place).unwrap_or_default();
            plain(shared, *column, batch.column(at))
        });
        let rows = self.converter.convert_columns(&values.collect::<Result<Vec<_>, _>>()?)?;
        self.keys.extend(rows.iter().map(|row| Box::from(row.as_ref())));
        Ok(())
    }
}

/// `values` in the type that the source gives its column, so that keys are encoded alike.
fn plain(shared: &Shared, column: usize, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    cast(values, shared.schema.field(column).data_type())
}

fn column_of(shared: &Shared, id: i32, delete: &str) -> Result<usize, SourceError> {
    let place = shared.fields.as_struct().fields().iter().position(|field| field.id == id);
    place.ok_or_else(|| {
        shared.input(format!(
            "{delete} deletes rows by the column of field id {id}, which the table no longer has: compact the table, \
             which applies its deletes"
        ))
    })
}

fn corrupt(file: &str, error: ArrowError) -> SourceError {
    let (file, place) = (file.to_owned(), String::new());
    SourceError::Corrupt { file, place, during: During::Read, source: Box::new(error) }
}
