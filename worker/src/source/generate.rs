//! Rows made up from a seed, for tests and load tests.
//!
//! A row depends on the seed and its number alone, so any unit is made without the ones before it, and units are cut,
//! moved and repeated like those of a file.

mod rows;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::spec::model::{EventTimeSpec, GenerateSpec};
use tidegate_common::time::{Bounds, EventTime, Window};
use tidegate_proto::v1;
use tokio::sync::mpsc;

use self::rows::Rows;
use super::error::{During, SourceError};
use super::{FoundSplit, Source, SourceBatch, UnitReader, check};

/// Rows of a unit.
const UNIT_ROWS: u64 = 64 << 10;
/// Rows of a batch.
const BATCH_ROWS: u64 = 8192;
/// Rows of a split, where the spec does not say how many splits there are.
const SPLIT_ROWS: u64 = 1_000_000;
/// About how many bytes a row takes, for estimates.
const ROW_BYTES: u64 = 40;

/// A source of rows made up from a seed.
#[derive(Debug)]
pub(crate) struct GenerateSource {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    rows: Rows,
    schema: SchemaRef,
    splits: u64,
    seed: u64,
}

/// Opens the generated source of `spec`.
pub(crate) fn open(
    name: &str,
    spec: &GenerateSpec,
    event_time: Option<&EventTimeSpec>,
) -> Result<Arc<dyn Source>, SourceError> {
    let refuse = |what: String| SourceError::Spec { source_name: name.to_owned(), what };
    if event_time.is_some() {
        return Err(refuse(
            "a generated source brings its own event time, the column ts: remove event_time".to_owned(),
        ));
    }
    let splits = spec.splits.unwrap_or_else(|| spec.rows.div_ceil(SPLIT_ROWS).max(1));
    if splits == 0 {
        return Err(refuse("generate.splits is 0: there is at least one".to_owned()));
    }
    let rows = Rows::new(spec).map_err(refuse)?;
    let splits = splits.min(spec.rows.max(1));
    let shared = Shared { name: name.to_owned(), rows, schema: rows::schema(), splits, seed: spec.seed };
    Ok(Arc::new(GenerateSource { shared: Arc::new(shared) }))
}

#[async_trait]
impl Source for GenerateSource {
    fn schema(&self) -> SchemaRef {
        self.shared.schema.clone()
    }

    fn describe(&self) -> String {
        format!("{} rows generated from seed {}", self.shared.rows.count(), self.shared.seed)
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        for at in 0..self.shared.splits {
            found.send(self.shared.split(at, window)).await.map_err(|_| SourceError::Abandoned)?;
        }
        Ok(())
    }

    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError> {
        let schema = self.shared.schema.project(columns).map_err(|e| SourceError::Spec {
            source_name: self.shared.name.clone(),
            what: format!("columns {columns:?} are asked for: {e}"),
        })?;
        let (shared, splits, columns) = (self.shared.clone(), splits.to_vec(), Arc::from(columns));
        Ok(Box::new(GenerateReader { shared, splits, columns, schema: Arc::new(schema), window }))
    }
}

impl Shared {
    /// The first row of the split at `at`, which may be the one behind the last.
    fn start_of(&self, at: u64) -> u64 {
        let rows = u128::from(self.rows.count()) * u128::from(at) / u128::from(self.splits);
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    fn split(&self, at: u64, window: Window) -> FoundSplit {
        let (first, end) = (self.start_of(at), self.start_of(at + 1));
        let size = (end - first) * ROW_BYTES;
        let file = v1::FilePin { path: format!("generate:{}/{at}", self.name), size, ..Default::default() };
        let mut found =
            FoundSplit { split: v1::Split { file: Some(file), ..Default::default() }, ..Default::default() };
        let mut position = first;
        while position < end {
            let rows = UNIT_ROWS.min(end - position);
            let (length, bytes) = (rows, rows * ROW_BYTES);
            match self.bounds(position, rows).and_then(|bounds| bounds.clamp(window)) {
                Some(within) => {
                    let (low, high) = (within.low().as_micros(), within.high().as_micros());
                    found.units.push(v1::UnitOfWork { split: 0, position, length, rows, bytes, low, high });
                }
                None => {
                    found.rows_pruned += rows;
                    found.bytes_pruned += bytes;
                }
            }
            position += rows;
        }
        found.units.sort_by_key(|unit| (unit.low, unit.high, unit.position));
        found
    }

    fn bounds(&self, first: u64, rows: u64) -> Option<Bounds> {
        let times = (first..first + rows).map(|row| self.rows.event_time(row));
        let (low, high) = times.fold((i64::MAX, i64::MIN), |(low, high), at| (low.min(at), high.max(at)));
        Bounds::new(EventTime::from_micros(low), EventTime::from_micros(high))
    }
}

/// Makes the rows of units.
struct GenerateReader {
    shared: Arc<Shared>,
    splits: Vec<v1::Split>,
    columns: Arc<[usize]>,
    schema: SchemaRef,
    window: Window,
}

#[async_trait]
impl UnitReader for GenerateReader {
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
        let file = check::pin_of_split(&self.shared.name, &self.splits, unit.split)?.path.clone();
        let (first, end) = (unit.position, unit.position.saturating_add(unit.rows));
        if end > self.shared.rows.count() {
            let what = format!("rows {first} to {end} were planned of {}", self.shared.rows.count());
            return Err(SourceError::Changed { file, what });
        }
        let place = format!("rows {first} to {end}");
        let checks = check::Unit::new(&file, &place, unit, self.window, "the spec is not the one that was planned");
        let (shared, columns, schema) = (self.shared.clone(), self.columns.clone(), self.schema.clone());
        let batches = (first..end).step_by(usize::try_from(BATCH_ROWS).unwrap_or(usize::MAX)).map(move |from| {
            let rows = from..end.min(from + BATCH_ROWS);
            let event_time = Int64Array::from_iter_values(rows.clone().map(|row| shared.rows.event_time(row)));
            let made = columns.iter().map(|column| shared.rows.column(*column, rows.clone())).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(event_time.len()));
            let rows = RecordBatch::try_new_with_options(schema.clone(), made, &options);
            let rows = rows.map_err(|e| SourceError::Corrupt {
                file: file.clone(),
                place: place.clone(),
                during: During::Read,
                source: Box::new(e),
            })?;
            Ok(SourceBatch::of(rows, event_time, Vec::new()))
        });
        Ok(checks.over(futures::stream::iter(batches).boxed()))
    }
}

#[cfg(test)]
mod tests;
