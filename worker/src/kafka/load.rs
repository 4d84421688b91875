//! Fills a topic with the rows of Parquet files, for the example: each row a JSON object, in the partition of its key, with
//! its event time as the record's timestamp.
//!
//! It makes the topic where there is none, so that records of long ago are kept. It adds to no topic that holds records
//! already, and never deletes one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tidegate_common::spec::model::{KafkaSpec, RecordFormat, RecordFormatSpec};

use super::config::{self, Silent};
use super::{Cluster, KafkaError, WAIT, error};
use crate::access::Access;
use crate::failure::{Class, Classify};

/// What is loaded where.
#[derive(Clone, Debug)]
pub struct Load {
    /// Brokers, `host:port` and more behind commas.
    pub servers: String,
    /// The topic.
    pub topic: String,
    /// The column of keys: text, never null.
    pub key: &'static str,
    /// The key of each partition, from partition 0 on.
    pub keys: &'static [&'static str],
    /// The column of event times: timestamps in microseconds, never null.
    pub time: &'static str,
    /// Parquet files, in the order of event time.
    pub files: Vec<&'static [u8]>,
}

/// What a partition got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its number.
    pub partition: i32,
    /// The key of its records.
    pub key: String,
    /// How many.
    pub records: u64,
    /// The first and the last event time, in microseconds.
    pub times: (i64, i64),
}

/// Why a topic was not filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Kafka could not be asked, or does not take it.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// There is a topic of that name which is not to be filled.
    #[error("the topic {topic} {what}")]
    Unfit {
        /// The topic.
        topic: String,
        /// What it is, and the way out.
        what: String,
    },
    /// Some records were not acknowledged.
    #[error(
        "{topic} at {servers} did not take all records ({what}): it holds a part of them; delete it and load it again"
    )]
    Partly {
        /// The topic.
        topic: String,
        /// The brokers.
        servers: String,
        /// What the client says of the first one.
        what: String,
    },
    /// The rows cannot be read.
    #[error("the rows cannot be read")]
    Rows(#[source] ArrowError),
}

impl Classify for LoadError {
    fn class(&self) -> Class {
        match self {
            Self::Kafka(error) => error.class(),
            Self::Unfit { .. } => Class::Fatal { exit_code: 4 },
            Self::Partly { .. } | Self::Rows(_) => Class::Poison,
        }
    }

    fn exit_code(&self) -> Option<i32> {
        if let Self::Kafka(error) = self { error.exit_code() } else { None }
    }
}

/// Fills the topic; gives what each partition got.
///
/// # Errors
/// [`LoadError`]; before anything is written for a topic that is not empty, that has other partitions, or that drops old
/// records.
pub async fn load(what: Load) -> Result<Vec<Loaded>, LoadError> {
    let cluster = Cluster::of(&spec(&what), &Access::local())?;
    let (is_new, cluster) = (create(&what, &cluster).await?, cluster);
    if !is_new {
        let retention = cluster.retention(&what.topic).await;
        if let Some(millis) = retention.and_then(|retention| retention.millis) {
            return Err(what.unfit(&format!(
                "drops records that are older than {millis} ms: set its retention.ms to -1, or name another topic"
            )));
        }
    }
    let work = tokio::task::spawn_blocking(move || {
        if !is_new {
            what.check(&cluster)?;
        }
        what.produce()
    });
    work.await.map_err(|e| LoadError::Rows(ArrowError::ExternalError(Box::new(e))))?
}

fn spec(what: &Load) -> KafkaSpec {
    let format = RecordFormatSpec {
        r#type: RecordFormat::Raw,
        schema: None,
        schema_registry: None,
        avro_schema: None,
        descriptor_set: None,
        message: None,
        csv: None,
        changes: None,
    };
    let properties = BTreeMap::from([("bootstrap.servers".to_owned(), what.servers.clone())]);
    KafkaSpec { topic: what.topic.clone(), properties, secrets: BTreeMap::new(), scan: None, format, rate_limit: None }
}

/// Makes the topic; whether it was not there before.
async fn create(what: &Load, cluster: &Cluster) -> Result<bool, LoadError> {
    let doing = format!("creating the topic {}", what.topic);
    let judge = |code, text: String| error::judged(code, text, &what.servers, &doing, &what.topic, None);
    let admin: AdminClient<Silent> =
        cluster.config.create_with_context(Silent).map_err(|e| KafkaError::Settings(e.to_string()))?;
    let partitions = i32::try_from(what.keys.len()).unwrap_or(i32::MAX);
    // As many copies as the brokers make by default; records of long ago are kept.
    let wanted = NewTopic::new(&what.topic, partitions, TopicReplication::Fixed(-1))
        .set("retention.ms", "-1")
        .set("cleanup.policy", "delete")
        .set("message.timestamp.type", "CreateTime");
    let options = AdminOptions::new().request_timeout(Some(config::WAIT)).operation_timeout(Some(config::WAIT));
    let answer = admin.create_topics([&wanted], &options).await;
    let answer = answer.map_err(|e| judge(error::code_of(&e), e.to_string()))?;
    match answer.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(judge(code, code.to_string()).into()),
        Some(Ok(_)) | None => Ok(true),
    }
}

impl Load {
    fn unfit(&self, what: &str) -> LoadError {
        LoadError::Unfit { topic: self.topic.clone(), what: what.to_owned() }
    }

    /// Refuses a topic that is there and is not as it would be made, or not empty.
    fn check(&self, cluster: &Cluster) -> Result<(), LoadError> {
        let client = cluster.client()?;
        let there = client.topic(&self.topic)?;
        if usize::try_from(there.partitions) != Ok(self.keys.len()) {
            let (has, wants) = (there.partitions, self.keys.len());
            return Err(self.unfit(&format!("has {has} partitions, and {wants} are wanted: name another topic")));
        }
        let all: Vec<i32> = (0..).take(self.keys.len()).collect();
        let starts: BTreeMap<i32, i64> = client.starts(&self.topic, &all)?.into_iter().collect();
        let held = client.ends(&self.topic, &all)?.into_iter();
        let held: i64 = held.map(|(partition, end)| end - starts.get(&partition).copied().unwrap_or(0)).sum();
        if held > 0 {
            return Err(
                self.unfit(&format!("holds {held} records already, and nothing is added to them: name another topic"))
            );
        }
        Ok(())
    }

    /// Writes all rows; returns when every one is acknowledged.
    fn produce(&self) -> Result<Vec<Loaded>, LoadError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("client.id", "tidegate-demo");
        // Each record once, in this order.
        config.set("enable.idempotence", "true").set("linger.ms", "20").set("compression.type", "lz4");
        let producer: BaseProducer<Refused> =
            config.create_with_context(Refused::default()).map_err(|e| KafkaError::Settings(e.to_string()))?;
        let mut loaded: Vec<Loaded> = (0..)
            .zip(self.keys)
            .map(|(partition, key)| Loaded {
                partition,
                key: (*key).to_owned(),
                records: 0,
                times: (i64::MAX, i64::MIN),
            })
            .collect();
        for file in &self.files {
            let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from_static(file));
            let reader = reader.and_then(ParquetRecordBatchReaderBuilder::build);
            for rows in reader.map_err(|e| LoadError::Rows(e.into()))? {
                self.send(&producer, &rows.map_err(LoadError::Rows)?, &mut loaded)?;
            }
        }
        let partly =
            |what: String| LoadError::Partly { topic: self.topic.clone(), servers: self.servers.clone(), what };
        producer.flush(WAIT).map_err(|e| partly(e.to_string()))?;
        let refused = producer.context().0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        refused.map_or(Ok(loaded), |what| Err(partly(what)))
    }

    fn send(
        &self,
        producer: &BaseProducer<Refused>,
        rows: &RecordBatch,
        loaded: &mut [Loaded],
    ) -> Result<(), LoadError> {
        let missing =
            |name: &str| LoadError::Rows(ArrowError::SchemaError(format!("the column {name} is not as wanted")));
        let keys = rows.column_by_name(self.key).and_then(|column| column.as_string_opt::<i32>());
        let keys = keys.filter(|keys| keys.null_count() == 0).ok_or_else(|| missing(self.key))?;
        let times = rows.column_by_name(self.time);
        let times = times.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.filter(|times| times.null_count() == 0).ok_or_else(|| missing(self.time))?;
        let mut lines = LineDelimitedWriter::new(Vec::new());
        lines.write(rows).and_then(|()| lines.finish()).map_err(LoadError::Rows)?;
        let lines = lines.into_inner();
        let lines = lines.split(|byte| *byte == b'\n');
        for ((key, time), line) in keys.iter().flatten().zip(times.values()).zip(lines) {
            let to = loaded.iter_mut().find(|to| to.key == key).ok_or_else(|| missing(self.key))?;
            to.records += 1;
            to.times = (to.times.0.min(*time), to.times.1.max(*time));
            let mut record =
                BaseRecord::to(&self.topic).partition(to.partition).key(key).payload(line).timestamp(time / 1_000);
            while let Err((error, again)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(self.judged(&error).into());
                }
                record = again;
                producer.poll(Duration::from_millis(100));
            }
        }
        producer.poll(Duration::ZERO);
        Ok(())
    }

    fn judged(&self, error: &ClientError) -> KafkaError {
        let doing = format!("writing to {}", self.topic);
        error::judged(error::code_of(error), error.to_string(), &self.servers, &doing, &self.topic, None)
    }
}

/// What became of records: the first error.
#[derive(Default)]
struct Refused(Mutex<Option<String>>);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            let place = record.partition();
            let mut first = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            first.get_or_insert_with(|| format!("partition {place}: {error}"));
        }
    }
}
