//! A range of a Kafka topic: splits are partitions, units are ranges of offsets.
//!
//! Every end is pinned to an offset when the backfill is prepared. A unit's `rows` are its offsets, and its reader
//! accounts for each of them: a row, a dead letter, a record that is neither, or a gap.

mod columns;
mod cut;
mod look;
mod pin;
mod reader;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use tidegate_common::spec::model::{KafkaSpec, SourceSpec};
use tidegate_common::spec::{EventTimeOf, Kafka, RateLimit, ResolvedEventTime};
use tidegate_common::time::{Span, Window};
use tidegate_proto::v1;
use tokio::sync::mpsc;

use self::cut::{Cutting, Grain, Promise};
pub use self::look::{PartitionRange, TopicRange};
use super::error::SourceError;
use super::event_time::EventTimeRule;
use super::{FoundSplit, Source, UnitReader, bounds::KnownBounds};
use crate::access::Access;
use crate::format::{self, Format};
use crate::kafka::{Arrived, Client, Cluster, Fetcher, KafkaError};

/// Milliseconds of event time that a unit should not be wider than, where nothing else is asked: a day.
const UNIT_MILLIS: i64 = 86_400_000;
/// How many units should fit into the drift.
const UNITS_A_DRIFT: i64 = 8;
/// How long reading a unit may take under a rate limit.
const UNIT_SECONDS: u64 = 5;
/// Offsets of a unit at the least.
const LEAST_OFFSETS: i64 = 100;
/// About how many bytes a record takes, for estimates, where none was seen.
const RECORD_BYTES: u64 = 256;

/// A range of a topic.
pub(crate) struct KafkaSource {
    shared: Arc<Shared>,
}

/// What the enumerator and every reader need.
struct Shared {
    name: String,
    topic: String,
    cluster: Cluster,
    /// Clients that nobody uses at the moment.
    idle: Mutex<Vec<Client>>,
    pin: v1::KafkaPin,
    format: Arc<dyn Format>,
    schema: SchemaRef,
    /// Where event times come from; none is the record's timestamp.
    rule: Option<EventTimeRule>,
    promise: Promise,
    allow_disorder: bool,
    grain: Grain,
}

/// What the spec says of a Kafka source, checked.
pub(crate) struct Described<'a> {
    pub(crate) kafka: &'a Kafka,
    pub(crate) event_time: &'a ResolvedEventTime,
    pub(crate) max_drift: Option<Span>,
}

impl KafkaSource {
    /// Opens the source at the offsets of `pin`; without one, at what the spec's range means now.
    pub(crate) async fn open(
        name: &str,
        spec: &SourceSpec,
        described: Described<'_>,
        access: &Access,
        pin: Option<&v1::SourcePin>,
    ) -> Result<Self, SourceError> {
        let failed = |source: KafkaError| SourceError::Kafka { source_name: name.to_owned(), source };
        let kafka: &KafkaSpec = &described.kafka.spec;
        let cluster = Cluster::of(kafka, access).map_err(failed)?;
        let pinned = pin.and_then(|pin| pin.kafka.clone());
        let bytes = pinned.as_ref().map(|pin| pin.format.clone());
        let opened = format::open(&kafka.topic, &kafka.format, access, bytes.as_deref()).await;
        let format = opened.map_err(|source| SourceError::Format { source_name: name.to_owned(), source })?;
        let (pin, client) = match pinned {
            Some(pin) => (pin, None),
            None => {
                let (cluster, topic) = (cluster.clone(), kafka.topic.clone());
                let (start, stop) = (described.kafka.start.clone(), described.kafka.stop.clone());
                let (pin, client) =
                    blocking(name, move || pin::pin(&cluster, &topic, &start, &stop)).await?.map_err(|e| e.of(name))?;
                (v1::KafkaPin { format: format.pin().into(), ..pin }, Some(client))
            }
        };
        let schema = schema_of(name, format.as_ref())?;
        let by_record = described.event_time.of == EventTimeOf::Record;
        let rule = (!by_record).then(|| EventTimeRule::resolve(name, spec.event_time.as_ref(), &schema)).transpose()?;
        let drift = described.max_drift.map(|drift| drift.as_micros() / 1_000 / UNITS_A_DRIFT);
        let shared = Shared {
            name: name.to_owned(),
            topic: kafka.topic.clone(),
            cluster,
            idle: Mutex::new(client.into_iter().collect()),
            pin,
            format,
            schema,
            rule,
            promise: Promise { behind: described.event_time.out_of_orderness, by_record },
            allow_disorder: described.event_time.allow_disorder,
            grain: Grain {
                width: drift.unwrap_or(UNIT_MILLIS).min(UNIT_MILLIS),
                offsets: unit_offsets(described.kafka.rate_limit),
            },
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Offsets of a unit: under a rate limit no more than a few seconds' worth, since a reader stops between units.
fn unit_offsets(limit: RateLimit) -> i64 {
    let of_bytes = limit.bytes.map(|bytes| bytes / RECORD_BYTES);
    let a_second = limit.records.into_iter().chain(of_bytes).min();
    let some = a_second.map(|records| i64::try_from(records.saturating_mul(UNIT_SECONDS)).unwrap_or(i64::MAX));
    some.map_or(cut::UNIT_OFFSETS, |offsets| offsets.clamp(LEAST_OFFSETS, cut::UNIT_OFFSETS))
}

/// The format's columns, then what Kafka knows of each record.
fn schema_of(name: &str, format: &dyn Format) -> Result<SchemaRef, SourceError> {
    let columns = format.schema();
    if columns.column_with_name(columns::NAME).is_some() {
        let what =
            format!("a column is called {}, as is what Kafka knows of a record: name it otherwise", columns::NAME);
        return Err(SourceError::Spec { source_name: name.to_owned(), what });
    }
    let known = Arc::new(Field::new(columns::NAME, columns::data_type(), true));
    let fields = columns.fields().iter().cloned().chain([known]).collect::<Vec<_>>();
    Ok(Arc::new(Schema::new(fields)))
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| SourceError::Lake { doing: format!("source {name}: asking Kafka"), source: Box::new(e) })
}

#[async_trait]
impl Source for KafkaSource {
    fn schema(&self) -> SchemaRef {
        self.shared.schema.clone()
    }

    fn describe(&self) -> String {
        let shared = &self.shared;
        format!("kafka {} ({}), offsets pinned", shared.topic, shared.format.name())
    }

    fn pin(&self) -> Option<v1::SourcePin> {
        let (source, kafka) = (self.shared.name.clone(), Some(self.shared.pin.clone()));
        Some(v1::SourcePin { source, kafka, ..Default::default() })
    }

    async fn topic(&self, window: Window) -> Result<Option<TopicRange>, SourceError> {
        self.look(window).await.map(Some)
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        let shared = self.shared.clone();
        let cut = blocking(&shared.name, {
            let shared = shared.clone();
            move || shared.cut()
        });
        let (cuttings, record_bytes) = cut.await??;
        for (range, cutting) in shared.pin.ranges.iter().zip(cuttings) {
            let split = shared.split(*range, &cutting, record_bytes, window);
            found.send(split).await.map_err(|_| SourceError::Abandoned)?;
        }
        Ok(())
    }

    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError> {
        Ok(Box::new(reader::KafkaReader::new(self.shared.clone(), splits, columns, window)?))
    }
}

impl Shared {
    fn failed(&self, source: KafkaError) -> SourceError {
        SourceError::Kafka { source_name: self.name.clone(), source }
    }

    /// What people call a partition.
    fn place(&self, partition: i32) -> String {
        format!("kafka:{}/{partition}", self.topic)
    }

    /// A client, connected before where there is one.
    fn client(&self) -> Result<Client, SourceError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.cluster.client().map_err(|e| self.failed(e)), Ok)
    }

    fn give_back(&self, client: Client) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }

    /// Refuses a topic that is not the one that was pinned.
    fn check_topic(&self, client: &Client) -> Result<(), SourceError> {
        let changed = |what: String| Err(SourceError::Changed { file: format!("the topic {}", self.topic), what });
        let now = match client.topic(&self.topic) {
            Ok(now) => now,
            Err(KafkaError::NoTopic { .. }) => return changed("it was deleted".to_owned()),
            Err(e) => return Err(self.failed(e)),
        };
        if !self.pin.topic_id.is_empty() && !now.id.is_empty() && now.id != self.pin.topic_id {
            let what = format!("it was deleted and created again: its id was {} and is {}", self.pin.topic_id, now.id);
            return changed(what);
        }
        if now.partitions < self.pin.partitions {
            return changed(format!("it had {} partitions and has {}", self.pin.partitions, now.partitions));
        }
        if now.partitions > self.pin.partitions {
            tracing::warn!(
                source = self.name,
                "the topic {} has {} partitions, and had {} when the backfill was planned: those that came later are not \
                 read",
                self.topic,
                now.partitions,
                self.pin.partitions
            );
        }
        Ok(())
    }

    /// Cuts every partition; also says about how many bytes a record takes.
    fn cut(&self) -> Result<(Vec<Cutting>, u64), SourceError> {
        let client = self.client()?;
        self.check_topic(&client)?;
        pin::check_starts(&client, &self.topic, &self.pin.ranges).map_err(|e| e.of(&self.name))?;
        let mut cuttings: Vec<Cutting> =
            self.pin.ranges.iter().map(|range| Cutting::new(range.start, range.end, self.grain)).collect();
        // A question for every partition at a time.
        loop {
            let asked: Vec<(i32, i64)> = self
                .pin
                .ranges
                .iter()
                .zip(&mut cuttings)
                .filter_map(|(range, cutting)| Some((range.partition, cutting.question()?)))
                .collect();
            if asked.is_empty() {
                break;
            }
            let answers = client.offsets_at(&self.topic, &asked).map_err(|e| self.failed(e))?;
            for (range, cutting) in self.pin.ranges.iter().zip(&mut cuttings) {
                let answer = answers.iter().find(|(partition, _)| *partition == range.partition);
                if let Some((_, offset)) = answer {
                    cutting.answer(*offset);
                }
            }
        }
        let record_bytes = self.record_bytes(&client);
        self.give_back(client);
        Ok((cuttings, record_bytes))
    }

    /// About how many bytes a record takes, from the first ones of a partition; nothing hangs on it but estimates.
    fn record_bytes(&self, client: &Client) -> u64 {
        let Some(range) = self.pin.ranges.iter().max_by_key(|range| range.end - range.start) else {
            return RECORD_BYTES;
        };
        let end = range.end.min(range.start.saturating_add(100));
        if range.start >= end {
            return RECORD_BYTES;
        }
        let mut fetcher = Fetcher::new(client, &self.topic, false);
        let (mut next, mut bytes, mut count) = (range.start, 0, 0);
        while next < end {
            // All of them, however they come: a plan that is made again says the same.
            let (records, is_last) = match fetcher.next(range.partition, next, end) {
                Ok(Arrived::Some(records)) => (records, false),
                Ok(Arrived::Last(records)) => (records, true),
                Err(_) => return RECORD_BYTES, // whoever reads will say why
            };
            bytes += records.bytes();
            count += records.offsets.len();
            next = if is_last { end } else { records.offsets.last().map_or(next, |last| last + 1) };
        }
        bytes.checked_div(count).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(RECORD_BYTES).max(1)
    }

    fn split(&self, range: v1::KafkaRange, cutting: &Cutting, record_bytes: u64, window: Window) -> FoundSplit {
        let offsets = u64::try_from(range.end - range.start).unwrap_or(0);
        let size = offsets.saturating_mul(record_bytes);
        let file = v1::FilePin { path: self.place(range.partition), size, ..Default::default() };
        let detail = prost::Message::encode_to_vec(&range);
        let mut found =
            FoundSplit { split: v1::Split { file: Some(file), detail: detail.into() }, ..Default::default() };
        for (from, to, bounds) in cutting.units(self.promise) {
            let length = u64::try_from(to - from).unwrap_or(0);
            let (position, bytes) = (u64::try_from(from).unwrap_or(0), length.saturating_mul(record_bytes));
            // Without a promise there is nothing to narrow by: a unit that seems to lie outside is read at its edge.
            let known = KnownBounds { bounds: Some(bounds), has_nulls: self.promise.behind.is_none() };
            match known.within(window, None) {
                Some(within) => {
                    let (low, high) = (within.low().as_micros(), within.high().as_micros());
                    found.units.push(v1::UnitOfWork { split: 0, position, length, rows: length, bytes, low, high });
                }
                None => {
                    found.rows_pruned += length;
                    found.bytes_pruned += bytes;
                }
            }
        }
        found
    }
}
