//! A range of a Kafka topic: splits are partitions, units are ranges of offsets.
//!
//! Every end is pinned to an offset when the backfill is prepared. A unit's `rows` are its offsets, and its reader
//! accounts for each of them: a row, a dead letter, a record that is neither, or a gap.

mod columns;
mod cut;
mod fetching;
mod look;
mod pin;
mod planning;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use tidegate_common::clock::monotonic;
use tidegate_common::spec::model::{KafkaSpec, SourceSpec};
use tidegate_common::spec::{EventTimeOf, Kafka, RateLimit, ResolvedEventTime};
use tidegate_common::time::{Span, Window};
use tidegate_proto::v1;
use tokio::sync::mpsc;

use self::cut::Promise;
use self::fetching::Idle;
pub use self::look::{PartitionRange, TopicRange};
use super::asked::{Asked, Offsets};
use super::error::SourceError;
use super::event_time::EventTimeRule;
use super::{FoundSplit, Source, UnitReader};
use crate::access::Access;
use crate::format::{self, Format};
use crate::kafka::{Client, Cluster, KafkaError, TopicState};

/// Milliseconds of event time that a unit should not be wider than, where nothing else is asked: a day.
const UNIT_MILLIS: i64 = 86_400_000;
/// How many units should fit into the drift.
const UNITS_A_DRIFT: i64 = 8;
/// How long brokers may be away before a reader gives up.
const PATIENCE: Duration = Duration::from_secs(300);
/// A topic that the brokers do not know is asked for again after this: one that has just started knows little.
const AGAIN: Duration = Duration::from_secs(3);

/// A range of a topic.
pub(crate) struct KafkaSource {
    shared: Arc<Shared>,
    idle: Arc<Idle>,
}

/// What the enumerator and every reader need.
struct Shared {
    name: String,
    topic: String,
    cluster: Cluster,
    pin: v1::KafkaPin,
    format: Arc<dyn Format>,
    schema: SchemaRef,
    /// Where event times come from; none is the record's timestamp.
    rule: Option<EventTimeRule>,
    promise: Promise,
    allow_disorder: bool,
    /// Milliseconds of event time.
    unit_width: i64,
    rate_limit: RateLimit,
}

/// What the spec says of a Kafka source, checked.
pub(crate) struct Described<'a> {
    pub(crate) kafka: &'a Kafka,
    pub(crate) event_time: &'a ResolvedEventTime,
    pub(crate) max_drift: Option<Span>,
}

impl KafkaSource {
    /// What the spec's range means now, whether the topic still holds it or not.
    pub(crate) async fn ask(name: &str, kafka: &Kafka, access: &Access) -> Result<Asked, SourceError> {
        let failed = |source: KafkaError| SourceError::Kafka { source_name: name.to_owned(), source };
        let cluster = Cluster::of(&kafka.spec, access).map_err(failed)?;
        let (topic, start, stop) = (kafka.spec.topic.clone(), kafka.start.clone(), kafka.stop.clone());
        let asked = blocking(name, move || pin::ask_written(&cluster, &topic, &start, &stop)).await?;
        asked.map_err(|e| e.of(name))
    }

    /// Opens the source at `offsets`.
    pub(crate) async fn open(
        name: &str,
        spec: &SourceSpec,
        described: Described<'_>,
        access: &Access,
        offsets: Offsets<'_>,
    ) -> Result<Self, SourceError> {
        let failed = |source: KafkaError| SourceError::Kafka { source_name: name.to_owned(), source };
        let kafka: &KafkaSpec = &described.kafka.spec;
        let cluster = Cluster::of(kafka, access).map_err(failed)?;
        let bytes = if let Offsets::Pinned(pin) = &offsets { Some(pin.format.clone()) } else { None };
        let opened = format::open(&kafka.topic, &kafka.format, access, bytes.as_deref()).await;
        let format = opened.map_err(|source| SourceError::Format { source_name: name.to_owned(), source })?;
        let pin = match offsets {
            Offsets::Pinned(pin) => pin.clone(),
            Offsets::Found(pin) => v1::KafkaPin { format: format.pin().into(), ..pin },
            Offsets::OfSpec => {
                let (cluster, topic) = (cluster.clone(), kafka.topic.clone());
                let (start, stop) = (described.kafka.start.clone(), described.kafka.stop.clone());
                let pinned = blocking(name, move || pin::pin(&cluster, &topic, &start, &stop)).await?;
                v1::KafkaPin { format: format.pin().into(), ..pinned.map_err(|e| e.of(name))? }
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
            pin,
            format,
            schema,
            rule,
            promise: Promise { behind: described.event_time.out_of_orderness, by_record },
            allow_disorder: described.event_time.allow_disorder,
            unit_width: drift.unwrap_or(UNIT_MILLIS).min(UNIT_MILLIS),
            rate_limit: described.kafka.rate_limit,
        };
        Ok(Self { shared: Arc::new(shared), idle: Arc::default() })
    }
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

    fn bytes_a_byte(&self) -> u64 {
        4
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        let shared = self.shared.clone();
        let planned = blocking(&self.shared.name, move || shared.plan(window)).await??;
        for split in planned {
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
        Ok(Box::new(reader::KafkaReader::new(self.shared.clone(), self.idle.clone(), splits, columns, window)?))
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

    /// What the topic is now; brokers that do not answer, or do not know it, are asked again for so long.
    fn topic_now(&self, client: &Client, patience: Duration) -> Result<TopicState, KafkaError> {
        let began = monotonic();
        let mut unknown = false;
        loop {
            match client.topic(&self.topic) {
                Err(KafkaError::NoTopic { .. }) if !unknown => unknown = true,
                Err(KafkaError::Unreachable { .. } | KafkaError::Client { .. })
                    if monotonic().since(began) < patience => {}
                answer => return answer,
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Refuses a topic that is not the one that was pinned.
    fn check_topic(&self, client: &Client, patience: Duration) -> Result<(), SourceError> {
        let changed = |what: String| Err(SourceError::Changed { file: format!("the topic {}", self.topic), what });
        let now = match self.topic_now(client, patience) {
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
}
