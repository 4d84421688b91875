//! Reads units of a topic: what is fetched is decoded as it comes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tidegate_common::time::Window;
use tidegate_proto::v1;

use super::fetching::{AHEAD, Fetching, Idle};
use super::{Shared, columns};
use crate::format::{Decoded, Decoder, NoRow};
use crate::kafka::{BATCH_BYTES, Records};
use crate::source::error::{During, SourceError};
use crate::source::{DeadRecord, NO_EVENT_TIME, RawAs, SourceBatch, UnitReader, check};

/// What to do about a record outside its bounds.
const WAY_OUT: &str = "event_time.out_of_orderness promises more order than there is: declare a longer one, or set \
                       event_time.on_disorder to allow";

/// A reader over some partitions.
pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    splits: Vec<v1::Split>,
    /// The format's columns that are decoded: those asked for, then the event time's.
    read: Vec<usize>,
    /// Where each column that was asked for comes from.
    asked: Vec<Column>,
    schema: SchemaRef,
    window: Window,
    fetching: Fetching,
}

#[derive(Clone, Copy)]
enum Column {
    /// The decoded column of that place.
    Decoded(usize),
    /// What Kafka knows of the record.
    Known,
}

impl KafkaReader {
    /// A reader that yields `columns` of `splits`.
    pub(super) fn new(
        shared: Arc<Shared>,
        idle: Arc<Idle>,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Self, SourceError> {
        let schema = shared.schema.project(columns).map_err(|e| SourceError::Spec {
            source_name: shared.name.clone(),
            what: format!("columns {columns:?} are asked for: {e}"),
        })?;
        let payload = shared.format.schema().fields().len();
        let time = shared.rule.as_ref().and_then(|rule| rule.column());
        let mut read: Vec<usize> = columns.iter().copied().filter(|at| *at < payload).chain(time).collect();
        read.sort_unstable();
        read.dedup();
        let place = |at: &usize| read.binary_search(at).map_or(Column::Known, Column::Decoded);
        let asked: Vec<Column> = columns.iter().map(place).collect();
        let with_headers = asked.iter().any(|column| matches!(column, Column::Known));
        let fetching = Fetching::new(shared.clone(), idle, with_headers);
        let (splits, schema) = (splits.to_vec(), Arc::new(schema));
        Ok(Self { shared, splits, read, asked, schema, window, fetching })
    }

    fn range(&self, unit: &v1::UnitOfWork) -> Result<v1::KafkaRange, SourceError> {
        let damaged = |what: &str| SourceError::Input {
            source_name: self.shared.name.clone(),
            what: format!("{what}: the plan is damaged, plan the backfill again"),
        };
        let split = usize::try_from(unit.split).ok().and_then(|at| self.splits.get(at));
        let split = split.ok_or_else(|| damaged(&format!("a unit names split {}", unit.split)))?;
        v1::KafkaRange::decode(split.detail.as_ref()).map_err(|e| damaged(&e.to_string()))
    }
}

#[async_trait]
impl UnitReader for KafkaReader {
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
        let range = self.range(unit)?;
        let shared = self.shared.clone();
        let (from, length) = (i64::try_from(unit.position), i64::try_from(unit.length));
        let offsets = match (from, length) {
            (Ok(from), Ok(length)) => from..from.saturating_add(length),
            _ => range.start..range.start,
        };
        let arriving = self.fetching.order(range.partition, offsets.clone()).await?;
        let place = format!("offsets {} to {}", offsets.start, offsets.end);
        let file = shared.place(range.partition);
        let decoder = shared.format.decoder(&self.read);
        let decoder = decoder.map_err(|source| SourceError::Format { source_name: shared.name.clone(), source })?;
        let checks = check::Unit::new(&file, &place, unit, self.window, WAY_OUT);
        let turning = Turning {
            shared,
            partition: range.partition,
            place: format!("{file}, {place}"),
            decoder,
            asked: self.asked.clone(),
            time: self
                .shared
                .rule
                .as_ref()
                .and_then(|rule| rule.column())
                .and_then(|at| self.read.binary_search(&at).ok()),
            schema: self.schema.clone(),
        };
        let batches = futures::stream::unfold((arriving, turning), |(mut arriving, mut turning)| async move {
            let batch = match arriving.recv().await? {
                Ok(records) => turning.turn(records).await,
                Err(e) => Err(e),
            };
            Some((batch, (arriving, turning)))
        });
        Ok(checks.over(batches.boxed()))
    }

    fn ahead_bytes(&self) -> u64 {
        let partitions: BTreeSet<i32> = self.splits.iter().filter_map(partition).collect();
        self.shared.cluster.ahead_bytes(partitions.len()).saturating_add((AHEAD * BATCH_BYTES) as u64)
    }
}

/// The partition that a split is of.
fn partition(split: &v1::Split) -> Option<i32> {
    v1::KafkaRange::decode(split.detail.as_ref()).ok().map(|range| range.partition)
}

/// Turns records into the batches of one unit.
struct Turning {
    shared: Arc<Shared>,
    partition: i32,
    place: String,
    decoder: Box<dyn Decoder>,
    asked: Vec<Column>,
    /// The event-time column's place among those decoded.
    time: Option<usize>,
    schema: SchemaRef,
}

impl Turning {
    async fn turn(&mut self, records: Records) -> Result<SourceBatch, SourceError> {
        let decoded = self.decoder.decode(&records.keys, &records.values).await;
        let decoded =
            decoded.map_err(|source| SourceError::Format { source_name: self.shared.name.clone(), source })?;
        self.join(decoded, &records).map_err(|e| SourceError::Corrupt {
            file: self.place.clone(),
            place: String::new(),
            during: During::Read,
            source: Box::new(e),
        })
    }

    /// Puts decoded rows and what Kafka knows of them side by side, and the others apart.
    fn join(&self, decoded: Decoded, records: &Records) -> Result<SourceBatch, ArrowError> {
        let Decoded { rows, others } = decoded;
        let mut is_row = vec![true; records.offsets.len()];
        let (mut dead, mut void) = (Vec::new(), 0);
        for (at, no_row) in &others {
            if let Some(is_row) = is_row.get_mut(*at) {
                *is_row = false;
            }
            match no_row {
                NoRow::Tombstone | NoRow::Skipped => void += 1,
                NoRow::Bad(error) => dead.extend(letter(records, *at, error)),
            }
        }
        let is_row = BooleanArray::from(is_row);
        let kept = |column: ArrayRef| if others.is_empty() { Ok(column) } else { filter(&column, &is_row) };
        if rows.num_rows() != is_row.true_count() {
            let (found, told) = (rows.num_rows(), is_row.true_count());
            return Err(ArrowError::InvalidArgumentError(format!("{found} rows of {told} records")));
        }
        let times = self.event_times(&rows, records, kept)?;
        let columns = self.asked.iter().map(|column| match column {
            Column::Decoded(at) => Ok(rows.column(*at).clone()),
            Column::Known => kept(columns::column(&self.shared.topic, self.partition, records)?),
        });
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns =
            columns.into_iter().zip(self.schema.fields()).map(|(column, field)| fit(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
        let mut batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let mut event_time = times;
        if event_time.null_count() > 0 {
            let has_time = arrow::compute::is_not_null(&event_time)?;
            let offsets = kept(Arc::new(Int64Array::from_iter_values(0..records.offsets.len() as i64)))?;
            let places = offsets.as_any().downcast_ref::<Int64Array>().map(|a| a.values().to_vec()).unwrap_or_default();
            let without = places.iter().zip(has_time.iter()).filter(|(_, has)| *has != Some(true));
            dead.extend(without.filter_map(|(at, _)| letter(records, usize::try_from(*at).ok()?, NO_EVENT_TIME)));
            dead.sort_by_key(|one| one.position);
            batch = filter_record_batch(&batch, &has_time)?;
            event_time = event_time.iter().flatten().collect::<Vec<i64>>().into();
        }
        let may_stray = self.shared.allow_disorder;
        let bytes = u64::try_from(records.bytes()).unwrap_or(u64::MAX);
        Ok(SourceBatch { gaps: records.gaps, void, may_stray, bytes, ..SourceBatch::of(batch, event_time, dead) })
    }

    fn event_times(
        &self,
        rows: &RecordBatch,
        records: &Records,
        kept: impl Fn(ArrayRef) -> Result<ArrayRef, ArrowError>,
    ) -> Result<Int64Array, ArrowError> {
        if let (Some(rule), Some(at)) = (&self.shared.rule, self.time) {
            return Ok(rule.of_column(rows.column(at)));
        }
        let micros = records.timestamps.iter().map(|at| at.and_then(|(millis, _)| millis.checked_mul(1_000)));
        let times = kept(Arc::new(Int64Array::from_iter(micros)))?;
        let times = times.as_any().downcast_ref::<Int64Array>().cloned();
        times.ok_or_else(|| ArrowError::CastError("event times are integers".to_owned()))
    }
}

/// A column as its field is declared: a decoder may leave out a time zone's other name.
fn fit(column: ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == wanted { Ok(column) } else { arrow::compute::cast(&column, wanted) }
}

/// The record at `at` as a dead letter: its value, as it came.
fn letter(records: &Records, at: usize, error: &str) -> Option<DeadRecord> {
    let offset = u64::try_from(*records.offsets.get(at)?).ok()?;
    let value = if records.values.is_null(at) { &[] } else { records.values.value(at) };
    Some(DeadRecord::new(offset, &Bytes::copy_from_slice(value), RawAs::RecordValue, error.to_owned()))
}
