//! What is done to topics and groups.

use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tidegate_common::clock::monotonic;

use super::super::wait_until;
use super::{Broker, Isolation, PATIENCE, REQUEST, Record};

impl Broker {
    /// Makes a topic; waits until its partitions have their leader. Its records stay, however old their times are, unless
    /// `settings` say otherwise.
    ///
    /// # Panics
    /// When there is one of this name, or a setting is refused.
    pub async fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let wanted = settings.iter().fold(wanted, |wanted, (key, value)| wanted.set(key, value));
        done(self.admin.create_topics([&wanted], &options()).await);
        self.until_led(topic, partitions).await;
    }

    /// Deletes a topic; waits until nobody finds it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn delete_topic(&self, topic: &str) {
        done(self.admin.delete_topics(&[topic], &options()).await);
        wait_until(&format!("{topic} to be gone"), PATIENCE, async || (self.partitions(topic) == 0).then_some(()))
            .await;
    }

    /// Deletes a topic and makes another one of the same name.
    ///
    /// # Panics
    /// When there is none.
    pub async fn recreate_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.delete_topic(topic).await;
        self.create_topic(topic, partitions, settings).await;
    }

    /// Gives a topic more partitions, `partitions` in all.
    ///
    /// # Panics
    /// When it has as many.
    pub async fn grow_topic(&self, topic: &str, partitions: i32) {
        let count = usize::try_from(partitions).expect("a count");
        done(self.admin.create_partitions([&NewPartitions::new(topic, count)], &options()).await);
        self.until_led(topic, partitions).await;
    }

    /// Deletes all records of a partition below `offset`, as retention does; waits until the log begins there.
    ///
    /// # Panics
    /// When the log is shorter.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let below = list(topic, &[(partition, offset)]);
        let deleted = self.admin.delete_records(&below, &options()).await.expect("records are deleted");
        for element in deleted.elements() {
            element.error().unwrap_or_else(|error| panic!("{topic}/{partition} below {offset}: {error}"));
        }
        assert_eq!(self.watermarks(topic, partition, Isolation::Uncommitted).0, offset);
    }

    /// Where a partition begins, and where it ends: its high watermark, or its last stable offset when only what is
    /// committed counts.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn watermarks(&self, topic: &str, partition: i32, isolation: Isolation) -> (i64, i64) {
        let began = monotonic();
        loop {
            let consumer = self.consumer(&[("isolation.level", isolation.name())]);
            // A client that has not heard of the topic yet calls its partitions unknown.
            let heard = consumer.fetch_metadata(Some(topic), REQUEST);
            match heard.and_then(|_| consumer.fetch_watermarks(topic, partition, REQUEST)) {
                Ok(found) => return found,
                Err(error) if monotonic().since(began) > REQUEST => panic!("{topic}/{partition}: {error}"),
                Err(_) => {} // a broker that has just started knows little
            }
        }
    }

    /// Commits `offsets`, each of a partition, for a group that has no members.
    ///
    /// # Panics
    /// When the group has members.
    pub fn commit_offsets(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) {
        let consumer = self.consumer(&[("group.id", group)]);
        consumer.commit(&list(topic, offsets), CommitMode::Sync).expect("offsets are committed");
    }

    /// The offset that a group has committed for a partition.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn committed_offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let consumer = self.consumer(&[("group.id", group)]);
        let found = consumer.committed_offsets(list(topic, &[(partition, 0)]), REQUEST).expect("offsets are known");
        match found.find_partition(topic, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Settings of a topic that [`Broker::compact`] needs.
    pub const COMPACTED: [(&str, &str); 4] = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0"),
        ("segment.ms", "1"),
        ("delete.retention.ms", "0"),
    ];

    /// Has a topic compacted, all that it holds: waits until each partition holds each key at most once. It was made with
    /// [`Broker::COMPACTED`].
    ///
    /// The segment that is written to is never compacted. So each partition gets one more record, later than all others,
    /// which begins a segment; it belongs to a transaction that is aborted.
    ///
    /// # Panics
    /// When it does not happen.
    pub async fn compact(&self, topic: &str) {
        let held = self.content(topic, Isolation::Uncommitted);
        let latest = held.iter().filter_map(|held| held.timestamp).max().unwrap_or_default();
        let partitions = self.partitions(topic);
        let ends: Vec<i64> =
            (0..partitions).map(|partition| self.watermarks(topic, partition, Isolation::Uncommitted).1).collect();
        let mut writer = self.writer(&Self::name("compact"));
        writer.begin();
        let fillers: Vec<Record> = (0..partitions)
            .map(|partition| Record::to(partition).key("compact").value("").at(latest + 60_000))
            .collect();
        writer.produce(topic, &fillers);
        writer.abort();
        wait_until(&format!("{topic} to be compacted"), PATIENCE, async || {
            let held = self.content(topic, Isolation::Uncommitted);
            let before = held
                .iter()
                .filter(|held| usize::try_from(held.partition).is_ok_and(|partition| held.offset < ends[partition]));
            let mut keys: Vec<_> = before.map(|held| (held.partition, &held.key)).collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            (keys.len() == all).then_some(())
        })
        .await;
    }

    /// How many partitions a topic has; none when there is no such topic.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn partitions(&self, topic: &str) -> i32 {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), REQUEST).expect("the broker answers");
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        found.map_or(0, |found| i32::try_from(found.partitions().len()).expect("a count"))
    }

    /// Waits until each partition answers: a broker says that it leads one before it does.
    async fn until_led(&self, topic: &str, partitions: i32) {
        let all: Vec<(i32, i64)> = (0..partitions).map(|partition| (partition, 0)).collect();
        let consumer = self.consumer(&[]);
        wait_until(&format!("{partitions} partitions of {topic}"), PATIENCE, async || {
            let answer = consumer.offsets_for_times(list(topic, &all), REQUEST).ok()?;
            answer.elements().iter().all(|element| element.error().is_ok()).then_some(())
        })
        .await;
    }
}

/// Partitions of a topic, each with an offset.
pub(super) fn list(topic: &str, offsets: &[(i32, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("an offset");
    }
    list
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST))
}

fn done(answer: rdkafka::error::KafkaResult<Vec<TopicResult>>) {
    for result in answer.expect("the broker answers") {
        result.unwrap_or_else(|(topic, error)| panic!("{topic}: {error}"));
    }
}
