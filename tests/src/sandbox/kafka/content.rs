//! What a topic holds, by a plain consumer that reads it from its first record to its last: the oracle of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{Broker, REQUEST};

/// Which records a reader is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What is committed, up to the first open transaction.
    Committed,
    /// Everything, aborted transactions and open ones too.
    Uncommitted,
}

impl Isolation {
    /// As Kafka writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// A record that a topic holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its time in milliseconds; none when the broker says −1.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; a tombstone has none.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Held {
    /// Where it is: partition and offset.
    pub fn place(&self) -> (i32, i64) {
        (self.partition, self.offset)
    }

    fn new(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        }
    }
}

/// Those of `held` that are in the ranges, of offsets by partition.
pub fn inside(held: Vec<Held>, ranges: &BTreeMap<i32, Range<i64>>) -> Vec<Held> {
    let is_inside = |held: &Held| ranges.get(&held.partition).is_some_and(|range| range.contains(&held.offset));
    held.into_iter().filter(is_inside).collect()
}

impl Broker {
    /// All that a topic holds now, by partition and offset.
    ///
    /// # Panics
    /// When there is no such topic, or it cannot be read to its end.
    pub fn content(&self, topic: &str, isolation: Isolation) -> Vec<Held> {
        let consumer = self.consumer(&[
            ("group.id", "of-the-oracle"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("fetch.wait.max.ms", "10"),
            ("isolation.level", isolation.name()),
        ]);
        // Asked by this very client, which then knows the leaders when it is told its partitions.
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST).expect("the broker answers");
        let partitions = metadata.topics().iter().flat_map(|found| found.partitions());
        let mut open: BTreeSet<i32> = partitions.map(|partition| partition.id()).collect();
        assert!(!open.is_empty(), "there is no topic {topic}");
        let mut all = TopicPartitionList::new();
        for partition in &open {
            all.add_partition_offset(topic, *partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&all).expect("partitions are assigned");
        let mut held = Vec::new();
        while !open.is_empty() {
            match consumer.poll(REQUEST) {
                Some(Ok(message)) => held.push(Held::new(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => panic!("{topic}: no end of the partitions {open:?} within {REQUEST:?}"),
            }
        }
        held.sort_unstable();
        held
    }

    /// The places of all that is committed in a topic now.
    pub fn places(&self, topic: &str) -> BTreeSet<(i32, i64)> {
        self.content(topic, Isolation::Committed).iter().map(Held::place).collect()
    }
}
