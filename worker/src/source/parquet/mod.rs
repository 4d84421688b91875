//! Parquet files: a unit is a row group, its bounds are those of its statistics or, without them, of its column.
//!
//! It refuses files of one source whose columns differ in name or type, and trusts no bounds that are not exact.

mod bounds;
mod file;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use tidegate_common::spec::model::EventTimeSpec;
use tidegate_common::time::{Bounds, Window};
use tidegate_proto::v1;
use tokio::sync::mpsc;

pub(in crate::source) use self::bounds::{of_groups, of_integers};
pub(in crate::source) use self::file::{ParquetFile, unsigned};
pub(in crate::source) use self::reader::{Wanted, read_unit};
use super::bounds::KnownBounds;
use super::error::{During, SourceError};
use super::event_time::EventTimeRule;
use super::store::Store;
use super::{FoundSplit, Source, UnitReader};

/// Footers that are read at a time while a source is enumerated.
const FOOTERS_AT_A_TIME: usize = 16;

/// The Parquet files of one source.
#[derive(Debug)]
pub(crate) struct ParquetSource {
    shared: Arc<Shared>,
}

/// What the enumerator and every reader need.
#[derive(Debug)]
struct Shared {
    name: String,
    store: Store,
    schema: SchemaRef,
    /// The file that `schema` was taken from.
    first: String,
    rule: EventTimeRule,
}

impl ParquetSource {
    /// Opens the source; the schema is that of `first`, its first file.
    pub(crate) async fn open(
        name: &str,
        store: Store,
        first: &v1::FilePin,
        event_time: Option<&EventTimeSpec>,
    ) -> Result<Self, SourceError> {
        let file = ParquetFile::open(store.open_pinned(first).await?, During::Plan).await?;
        let schema = source_schema(file.schema());
        let rule = EventTimeRule::resolve(name, event_time, &schema)?;
        let shared = Shared { name: name.to_owned(), store, schema: Arc::new(schema), first: first.path.clone(), rule };
        Ok(Self { shared: Arc::new(shared) })
    }
}

#[async_trait]
impl Source for ParquetSource {
    fn schema(&self) -> SchemaRef {
        self.shared.schema.clone()
    }

    fn describe(&self) -> String {
        format!("parquet {}", self.shared.store.location())
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        let shared = self.shared.clone();
        let mut splits = shared
            .store
            .files()
            .map(move |pin| {
                let shared = shared.clone();
                async move { shared.find(pin?, window).await }
            })
            .buffered(FOOTERS_AT_A_TIME);
        while let Some(split) = splits.next().await {
            found.send(split?).await.map_err(|_| SourceError::Abandoned)?;
        }
        Ok(())
    }

    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError> {
        Ok(Box::new(reader::ParquetReader::new(self.shared.clone(), splits, columns, window)?))
    }
}

impl Shared {
    /// The columns of a file, by their place in the source's schema.
    fn columns_of(&self, file: &ParquetFile) -> Result<Vec<usize>, SourceError> {
        let theirs = file.schema();
        let differ = |what: String| SourceError::Input {
            source_name: self.name.clone(),
            what: format!(
                "{what}: the files of one source have the same columns; split them into two sources, or narrow the path"
            ),
        };
        let places = self.schema.fields().iter().map(|field| {
            let Ok(place) = theirs.index_of(field.name()) else {
                return Err(differ(format!("{} has no column {}, and {} has", file.name(), field.name(), self.first)));
            };
            let kind = plain(theirs.field(place).data_type());
            if kind.equals_datatype(field.data_type()) {
                return Ok(place);
            }
            let (name, ours) = (field.name(), field.data_type());
            Err(differ(format!("column {name} is {kind} in {} and {ours} in {}", file.name(), self.first)))
        });
        let places = places.collect::<Result<Vec<_>, _>>()?;
        match theirs.fields().iter().find(|field| self.schema.index_of(field.name()).is_err()) {
            Some(extra) => {
                Err(differ(format!("{} has a column {}, and {} has not", file.name(), extra.name(), self.first)))
            }
            None => Ok(places),
        }
    }

    async fn find(&self, pin: v1::FilePin, window: Window) -> Result<FoundSplit, SourceError> {
        let file = ParquetFile::open(self.store.open_pinned(&pin).await?, During::Plan).await?;
        let columns = self.columns_of(&file)?;
        let bounds = self.bounds(&file, &columns).await?;
        let split = v1::Split { file: Some(pin), detail: Default::default() };
        Ok(found(split, &file, &bounds, window))
    }

    /// The bounds of each row group: from the path, from its statistics, from a promise, or from reading its column.
    async fn bounds(&self, file: &ParquetFile, columns: &[usize]) -> Result<Vec<KnownBounds>, SourceError> {
        let input = |what: String| SourceError::Input { source_name: self.name.clone(), what };
        let promised = self.rule.promised(file.name()).transpose().map_err(input)?;
        let Some(column) = self.rule.column().and_then(|at| columns.get(at).copied()) else {
            return Ok(vec![KnownBounds { bounds: promised, has_nulls: false }; file.row_groups().len()]);
        };
        bounds::of_groups(file, column, &self.rule, promised).await
    }
}

/// The row groups of `file`, whose event-time bounds are `bounds`, as the units of `split`.
pub(in crate::source) fn found(
    split: v1::Split,
    file: &ParquetFile,
    bounds: &[KnownBounds],
    window: Window,
) -> FoundSplit {
    let some = bounds.iter().filter_map(|group| group.bounds).reduce(Bounds::union);
    let mut found = FoundSplit { split, ..Default::default() };
    for (position, (group, bounds)) in (0..).zip(file.row_groups().iter().zip(bounds)) {
        let (rows, bytes) = (unsigned(group.num_rows()), unsigned(group.compressed_size()));
        if rows == 0 {
            continue;
        }
        let Some(within) = bounds.within(window, some) else {
            found.rows_pruned += rows;
            found.bytes_pruned += bytes;
            continue;
        };
        found.units.push(v1::UnitOfWork {
            split: 0,
            position,
            length: 0,
            rows,
            bytes,
            low: within.low().as_micros(),
            high: within.high().as_micros(),
        });
    }
    found.units.sort_by_key(|unit| (unit.low, unit.high, unit.position));
    found
}

/// The source's columns: plain types, nullable, without the first file's own remarks.
fn source_schema(file: &Schema) -> Schema {
    let field = |field: &Arc<Field>| Field::new(field.name(), plain(field.data_type()), true);
    Schema::new(file.fields().iter().map(field).collect::<Vec<_>>())
}

/// A column's type as it is read: text and bytes with 32-bit offsets, no dictionaries, no views.
pub(in crate::source) fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, value) => plain(value),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}
