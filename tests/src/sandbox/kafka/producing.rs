//! Records, and who writes them: each is acknowledged before the test goes on.

use std::sync::Mutex;

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::{Broker, REQUEST, settings};

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: Option<i64>,
}

impl Record {
    /// A record of `partition`, without key and value.
    pub fn to(partition: i32) -> Self {
        Self { partition, ..Self::default() }
    }

    /// With a key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// With a value; without one it is a tombstone.
    #[must_use]
    pub fn value(mut self, value: impl AsRef<[u8]>) -> Self {
        self.value = Some(value.as_ref().to_vec());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }

    /// At a time in milliseconds, or at none: −1. The client takes 0 for now.
    #[must_use]
    pub fn at(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }
}

/// What became of the records of one call: their number in it, and the offset or the error.
#[derive(Debug, Default)]
struct Deliveries(Mutex<Vec<(usize, Result<i64, String>)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let result = result.as_ref().map(Message::offset).map_err(|(error, _)| error.to_string());
        self.0.lock().expect("no panic in it").push((*number, result));
    }
}

/// A writer, with or without transactions. A transaction that is neither committed nor aborted stays open when the writer is
/// dropped, for a quarter of an hour or until another writer takes its name.
pub struct Writer(BaseProducer<Deliveries>);

impl Broker {
    /// Writes records; gives their offsets.
    ///
    /// # Panics
    /// When one is not acknowledged.
    pub fn produce(&self, topic: &str, records: &[Record]) -> Vec<i64> {
        self.plain_writer(&[]).produce(topic, records)
    }

    /// A writer without transactions, with more of librdkafka's settings: `batch.num.messages` says how many records of a
    /// partition are written as one.
    pub fn plain_writer(&self, settings: &[(&str, &str)]) -> Writer {
        Writer(self.producer(settings))
    }

    /// A writer of transactions that goes by `name`.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub fn writer(&self, name: &str) -> Writer {
        self.writer_with(name, &[])
    }

    /// A writer of transactions that goes by `name`, with more of librdkafka's settings.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub fn writer_with(&self, name: &str, settings: &[(&str, &str)]) -> Writer {
        let own = [("transactional.id", name), ("transaction.timeout.ms", "900000")];
        let producer = self.producer(&[&own, settings].concat());
        producer.init_transactions(REQUEST).expect("a writer of transactions");
        Writer(producer)
    }

    fn producer(&self, more: &[(&str, &str)]) -> BaseProducer<Deliveries> {
        let mut config = settings(&self.bootstrap, more);
        config.set("linger.ms", "1").set("acks", "all");
        BaseProducer::from_config_and_context(&config, Deliveries::default()).expect("a producer")
    }
}

impl Writer {
    /// Begins a transaction.
    ///
    /// # Panics
    /// When one is open.
    pub fn begin(&mut self) {
        self.0.begin_transaction().expect("a transaction begins");
    }

    /// Commits the open transaction.
    ///
    /// # Panics
    /// When there is none.
    pub fn commit(&mut self) {
        self.0.commit_transaction(REQUEST).expect("a transaction is committed");
    }

    /// Aborts the open transaction.
    ///
    /// # Panics
    /// When there is none.
    pub fn abort(&mut self) {
        self.0.abort_transaction(REQUEST).expect("a transaction is aborted");
    }

    /// Writes records, each to its partition and in this order; gives their offsets.
    ///
    /// # Panics
    /// When one is not acknowledged.
    pub fn produce(&mut self, topic: &str, records: &[Record]) -> Vec<i64> {
        self.try_produce(topic, records)
            .into_iter()
            .map(|result| result.unwrap_or_else(|error| panic!("{topic}: {error}")))
            .collect()
    }

    /// Writes records; gives the offset of each, or why it was not acknowledged.
    ///
    /// # Panics
    /// When one cannot even be sent.
    pub fn try_produce(&mut self, topic: &str, records: &[Record]) -> Vec<Result<i64, String>> {
        use rdkafka::error::{KafkaError, RDKafkaErrorCode::QueueFull};
        for (number, record) in records.iter().enumerate() {
            let mut open = Some(described(topic, record, number));
            while let Some(next) = open.take() {
                match self.0.send(next) {
                    Ok(()) => {}
                    Err((KafkaError::MessageProduction(QueueFull), back)) => {
                        self.0.poll(REQUEST);
                        open = Some(back);
                    }
                    Err((error, _)) => panic!("{topic}: {error}"),
                }
            }
        }
        // What is not acknowledged in time says so itself.
        let _ = self.0.flush(REQUEST);
        let mut delivered = std::mem::take(&mut *self.0.context().0.lock().expect("no panic in it"));
        delivered.sort_unstable_by_key(|(number, _)| *number);
        assert_eq!(delivered.len(), records.len(), "each record of {topic} has an answer within {REQUEST:?}");
        delivered.into_iter().map(|(_, result)| result).collect()
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Writer")
    }
}

type Described<'r> = BaseRecord<'r, [u8], [u8], Box<usize>>;

fn described<'r>(topic: &'r str, record: &'r Record, number: usize) -> Described<'r> {
    let mut wanted = BaseRecord::with_opaque_to(topic, Box::new(number)).partition(record.partition);
    if let Some(key) = &record.key {
        wanted = wanted.key(key.as_slice());
    }
    if let Some(value) = &record.value {
        wanted = wanted.payload(value.as_slice());
    }
    if let Some(timestamp) = record.timestamp {
        wanted = wanted.timestamp(timestamp);
    }
    if record.headers.is_empty() {
        return wanted;
    }
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
        headers.insert(Header { key: name, value: value.as_deref() })
    });
    wanted.headers(headers)
}
