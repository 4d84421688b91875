//! The times of records at places of a log.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::brokers::{ANSWER, Brokers};
use super::error::CheckpointError;
use super::partition::Partition;

/// How far back the newest record is looked for behind the end of a log, in offsets.
const FURTHEST: i64 = 1 << 14;

/// Which record's time is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The first one from there.
    First,
    /// The last one from there to the end of the log.
    Last,
}

impl Brokers {
    /// The time, in milliseconds, of the first record at or behind each place; where the log ends there, of the newest
    /// before. None where there is no such record, or it has no time. `logs` says where logs begin and end.
    ///
    /// # Errors
    /// Brokers that do not answer.
    pub(super) fn times(
        &self,
        places: &BTreeMap<Partition, i64>,
        logs: &BTreeMap<Partition, (i64, i64)>,
    ) -> Result<BTreeMap<Partition, i64>, CheckpointError> {
        let log = |partition: &Partition| logs.get(partition).copied().unwrap_or_default();
        let clamped = |partition: &Partition, place: i64| place.clamp(log(partition).0, log(partition).1);
        let places: BTreeMap<&Partition, i64> =
            places.iter().map(|(partition, place)| (partition, clamped(partition, *place))).collect();
        let inside = places.iter().filter(|(partition, place)| **place < log(partition).1);
        let mut times =
            self.read(&inside.map(|(partition, place)| ((*partition).clone(), *place)).collect(), Which::First)?;
        let mut back = 1;
        while back <= FURTHEST {
            let wanted = places.keys().filter(|partition| !times.contains_key(**partition));
            let from = wanted.filter_map(|partition| {
                let (start, end) = log(partition);
                // what the last round has seen to be empty needs no other look
                let is_new = end > start && (back == 1 || end - back / 8 > start);
                is_new.then(|| ((*partition).clone(), (end - back).max(start)))
            });
            let from: BTreeMap<Partition, i64> = from.collect();
            if from.is_empty() {
                break;
            }
            times.extend(self.read(&from, Which::Last)?);
            back *= 8;
        }
        Ok(times.into_iter().filter_map(|(partition, time)| Some((partition, time?))).collect())
    }

    /// Reads from each place to the first record, or to the end.
    fn read(
        &self,
        from: &BTreeMap<Partition, i64>,
        which: Which,
    ) -> Result<BTreeMap<Partition, Option<i64>>, CheckpointError> {
        let topics: BTreeSet<&str> = from.keys().map(|partition| partition.topic.as_str()).collect();
        let mut times = BTreeMap::new();
        // An end of a partition is told by its number alone: one topic at a time.
        for topic in topics {
            let of_topic = from.iter().filter(|(partition, _)| partition.topic == topic);
            let from: BTreeMap<i32, i64> = of_topic.map(|(partition, place)| (partition.number, *place)).collect();
            for (number, time) in self.read_topic(topic, &from, which)? {
                times.insert(Partition::new(topic, number), time);
            }
        }
        Ok(times)
    }

    fn read_topic(
        &self,
        topic: &str,
        from: &BTreeMap<i32, i64>,
        which: Which,
    ) -> Result<BTreeMap<i32, Option<i64>>, CheckpointError> {
        let what = || format!("the records of {topic} cannot be read");
        let mut all = TopicPartitionList::with_capacity(from.len());
        for (number, place) in from {
            let added = all.add_partition_offset(topic, *number, Offset::Offset(*place));
            added.map_err(CheckpointError::kafka(what()))?;
        }
        self.log.assign(&all).map_err(CheckpointError::kafka(what()))?;
        let mut open: BTreeSet<i32> = from.keys().copied().collect();
        let mut times = BTreeMap::new();
        while !open.is_empty() {
            match self.log.poll(ANSWER) {
                Some(Ok(message)) => {
                    let number = message.partition();
                    if open.contains(&number) {
                        times.insert(number, message.timestamp().to_millis());
                    }
                    if which == Which::First {
                        open.remove(&number);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    open.remove(&number);
                }
                Some(Err(error)) => return Err(CheckpointError::kafka(what())(error)),
                None => return Err(CheckpointError::kafka(what())(KafkaError::NoMessageReceived)),
            }
        }
        self.log.unassign().map_err(CheckpointError::kafka(what()))?;
        Ok(times)
    }
}
