//! Reads units of a topic: a thread fetches, what it brings is decoded as it comes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tidegate_common::clock::monotonic;
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

use super::{PATIENCE, Shared, columns, pin};
use crate::format::{Decoded, Decoder, NoRow};
use crate::kafka::{Arrived, BATCH_BYTES, Broken, Client, Fetcher, KafkaError, Records, TooLong};
use crate::source::error::{During, SourceError};
use crate::source::{DeadRecord, NO_EVENT_TIME, RawAs, SourceBatch, UnitReader, check};

/// How often a client that is not asked anything is heard.
const HEARD_EVERY: Duration = Duration::from_secs(1);
/// Batches that are fetched ahead of being decoded.
const AHEAD: usize = 2;
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
    /// Where the thread that fetches takes its orders.
    fetching: Option<mpsc::Sender<Order>>,
}

#[derive(Clone, Copy)]
enum Column {
    /// The decoded column of that place.
    Decoded(usize),
    /// What Kafka knows of the record.
    Known,
}

/// A range that is to be fetched.
struct Order {
    partition: i32,
    offsets: Range<i64>,
    to: mpsc::Sender<Result<Records, SourceError>>,
}

impl KafkaReader {
    /// A reader that yields `columns` of `splits`.
    pub(super) fn new(
        shared: Arc<Shared>,
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
        let asked = columns.iter().map(place).collect();
        let (splits, schema) = (splits.to_vec(), Arc::new(schema));
        Ok(Self { shared, splits, read, asked, schema, window, fetching: None })
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

    /// Orders a range from the thread that fetches, which is started if need be.
    async fn order(
        &mut self,
        partition: i32,
        offsets: Range<i64>,
    ) -> Result<mpsc::Receiver<Result<Records, SourceError>>, SourceError> {
        let (to, arriving) = mpsc::channel(AHEAD);
        let order = Order { partition, offsets, to };
        let order = match &self.fetching {
            Some(fetching) => match fetching.send(order).await {
                Ok(()) => return Ok(arriving),
                Err(mpsc::error::SendError(order)) => order, // it has failed: another one may not
            },
            None => order,
        };
        let (fetching, orders) = mpsc::channel(1);
        let shared = self.shared.clone();
        let with_headers = self.asked.iter().any(|column| matches!(column, Column::Known));
        tokio::task::spawn_blocking(move || fetch(&shared, with_headers, orders));
        let gone = |_| SourceError::Abandoned;
        fetching.send(order).await.map_err(gone)?;
        self.fetching = Some(fetching);
        Ok(arriving)
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
        let arriving = self.order(range.partition, offsets.clone()).await?;
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

/// Fetches what is ordered, until nobody can order any more.
fn fetch(shared: &Shared, with_headers: bool, mut orders: mpsc::Receiver<Order>) {
    let Some(first) = orders.blocking_recv() else { return };
    let connected = shared.cluster.client().map_err(|e| shared.failed(e));
    let checked = connected.and_then(|client| shared.check_topic(&client, PATIENCE).map(|()| client));
    let client = match checked {
        Ok(client) => client,
        Err(e) => {
            let _ = first.to.blocking_send(Err(e)); // nobody listens any more: nothing is lost
            return;
        }
    };
    let mut fetcher = Fetcher::new(&client, &shared.topic, with_headers);
    let mut order = Some(first);
    while let Some(Order { partition, offsets, to }) = order {
        if let Err(e) = shared.fetch_range(&client, &mut fetcher, partition, offsets, &to) {
            let _ = to.blocking_send(Err(e));
            return;
        }
        drop(to); // the unit is over
        order = next_order(&client, &mut orders);
    }
}

/// The next order, however long it takes; what the client has to say is heard meanwhile.
fn next_order(client: &Client, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
    let here = tokio::runtime::Handle::current();
    loop {
        client.listen();
        match here.block_on(tokio::time::timeout(HEARD_EVERY, orders.recv())) {
            Ok(order) => return order,
            Err(_) => continue,
        }
    }
}

/// Sends what was fetched, however long that takes; `false` when nobody takes it any more.
fn deliver(client: &Client, to: &mpsc::Sender<Result<Records, SourceError>>, records: Records) -> bool {
    let here = tokio::runtime::Handle::current();
    let mut records = Ok(records);
    loop {
        client.listen();
        match here.block_on(to.send_timeout(records, HEARD_EVERY)) {
            Ok(()) => return true,
            Err(mpsc::error::SendTimeoutError::Timeout(back)) => records = back,
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return false,
        }
    }
}

impl Shared {
    /// Sends the records of `offsets`, and ends when all were sent or nobody takes them.
    fn fetch_range(
        &self,
        client: &Client,
        fetcher: &mut Fetcher<'_>,
        partition: i32,
        offsets: Range<i64>,
        to: &mpsc::Sender<Result<Records, SourceError>>,
    ) -> Result<(), SourceError> {
        let mut next = offsets.start;
        while next < offsets.end && !to.is_closed() {
            let began = monotonic();
            let arrived = fetcher.next(partition, next, offsets.end);
            let worked = monotonic().since(began);
            let (records, is_last) = match arrived {
                Ok(Arrived::Some(records)) => (records, false),
                Ok(Arrived::Last(records)) => (records, true),
                Err(broken) => return Err(self.broken(client, partition, offsets.end, broken)),
            };
            next = records.offsets.last().map_or(next, |last| last + 1);
            if is_last {
                next = offsets.end;
                // A topic that was made anew meanwhile would have answered as well.
                self.check_topic(client, PATIENCE)?;
            }
            if (is_last || !records.offsets.is_empty()) && !deliver(client, to, records) {
                return Ok(());
            }
            let rest = client.rest(worked);
            if !rest.is_zero() {
                std::thread::sleep(rest); // the brokers have asked for it
            }
        }
        Ok(())
    }

    pub(super) fn broken(&self, client: &Client, partition: i32, end: i64, broken: Broken) -> SourceError {
        let input = |what: String| SourceError::Input { source_name: self.name.clone(), what };
        let next = match broken {
            // One broker that has just started may not know it yet.
            Broken::Kafka(e @ KafkaError::NoTopic { .. }) => {
                let again = || KafkaError::Client {
                    servers: self.cluster.servers().to_owned(),
                    doing: format!("fetching {}", self.place(partition)),
                    what: e.to_string(),
                };
                return self.check_topic(client, PATIENCE).err().unwrap_or_else(|| self.failed(again()));
            }
            Broken::Kafka(e) => return self.failed(e),
            Broken::TooLong { next, answer: TooLong { bytes, limit } } => {
                let place = self.place(partition);
                return input(format!(
                    "{place}: the batch of records from offset {next} on comes in an answer of {bytes} bytes, and no more than \
                     {limit} are taken: raise receive.message.max.bytes in kafka.properties (up to 256 MiB), and fetch less at a \
                     time with fetch.max.bytes"
                ));
            }
            Broken::OutOfRange { next } => next,
            Broken::Truncated { end: log_end } => {
                let place = self.place(partition);
                return input(format!(
                    "{place}: the log ends at {log_end}, and offsets up to {end} were pinned: it was truncated; plan again"
                ));
            }
        };
        if let Err(e) = self.check_topic(client, PATIENCE) {
            return e;
        }
        let edges = client.starts(&self.topic, &[partition]).and_then(|starts| {
            let ends = client.ends(&self.topic, &[partition])?;
            Ok(starts.first().zip(ends.first()).map(|((_, start), (_, end))| *start..*end))
        });
        match edges {
            Ok(Some(log)) if log.start > next => input(pin::eaten(&self.topic, partition, next, end, log.start)),
            // An answer to an earlier question: the offset is there.
            Ok(Some(log)) if log.contains(&next) => self.failed(KafkaError::Client {
                servers: self.cluster.servers().to_owned(),
                doing: format!("fetching {}", self.place(partition)),
                what: format!("the offset {next} was said not to be there, and is"),
            }),
            Ok(_) => input(format!("{}: the log does not hold the offset {next} any more", self.place(partition))),
            Err(e) => self.failed(e),
        }
    }
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
