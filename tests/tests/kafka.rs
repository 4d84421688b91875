//! Ranges of Kafka topics on a real broker: whatever lies in a range and at its edges, the table holds exactly the records
//! that a plain consumer finds in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Held, Isolation, Record, Replay, Writer, inside};
use tidegate_tests::sandbox::{BEGIN, Broker};

const HOUR: i64 = 3_600_000;
/// [`BEGIN`] in milliseconds.
const START: i64 = BEGIN / 1_000;

/// One partition, as it is written.
struct Log<'b> {
    broker: &'b Broker,
    topic: &'b str,
    partition: i32,
}

impl Log<'_> {
    fn records(&self, count: i64) -> Vec<Record> {
        let from = self.broker.watermarks(self.topic, self.partition, Isolation::Uncommitted).1;
        let record =
            |at: i64| Record::to(self.partition).key(format!("{at}")).value(format!("value {at}")).at(START + at);
        (from..from + count).map(record).collect()
    }

    fn plain(&self, count: i64) {
        self.broker.produce(self.topic, &self.records(count));
    }

    fn within(&self, writer: &mut Writer, count: i64) {
        writer.produce(self.topic, &self.records(count));
    }

    fn committed(&self, writer: &mut Writer, count: i64) {
        writer.begin();
        self.within(writer, count);
        writer.commit();
    }

    fn aborted(&self, writer: &mut Writer, count: i64) {
        writer.begin();
        self.within(writer, count);
        writer.abort();
    }
}

fn scan(ranges: &BTreeMap<i32, Range<i64>>) -> Value {
    let edge = |edge: fn(&Range<i64>) -> i64| -> BTreeMap<_, _> {
        ranges.iter().map(|(partition, range)| (partition.to_string(), edge(range))).collect()
    };
    json!({"start": {"offsets": edge(|range| range.start)}, "stop": {"offsets": edge(|range| range.end)}})
}

/// What is stable in each partition now.
fn stable(broker: &Broker, topic: &str) -> BTreeMap<i32, Range<i64>> {
    let range = |partition| {
        let (start, end) = broker.watermarks(topic, partition, Isolation::Committed);
        (partition, start..end)
    };
    (0..broker.partitions(topic)).map(range).collect()
}

/// A topic whose partitions have a transaction at each edge of a range, and these ranges.
async fn with_transactions(broker: &Broker) -> (String, BTreeMap<i32, Range<i64>>) {
    let topic = Broker::name("transactions");
    broker.create_topic(&topic, 13, &[]).await;
    let mut writer = broker.writer(&Broker::name("writer"));
    let log = |partition| Log { broker, topic: &topic, partition };
    // Two plain records, three of a transaction, its marker at 5, two plain records.
    for partition in 0..9 {
        log(partition).plain(2);
        match partition {
            2 | 4 | 5 => log(partition).committed(&mut writer, 3),
            _ => log(partition).aborted(&mut writer, 3),
        }
        log(partition).plain(2);
    }
    let mut ranges: BTreeMap<i32, Range<i64>> = [
        3..8, // begins among aborted records
        5..8, // begins at the marker
        3..8, // begins among committed records
        0..6, // ends behind aborted records and their marker
        0..6, // ends behind a marker
        0..4, // ends among committed records
        0..4, // ends among aborted records
        2..6, // holds aborted records alone
        5..6, // holds a marker alone
    ]
    .into_iter()
    .zip(0..)
    .map(|(range, partition)| (partition, range))
    .collect();
    // Two transactions at the same time, of which one is aborted.
    let mut other = broker.writer(&Broker::name("other"));
    writer.begin();
    other.begin();
    for _ in 0..3 {
        log(9).within(&mut writer, 2);
        log(9).within(&mut other, 2);
    }
    writer.abort();
    other.commit();
    ranges.insert(9, 1..14);
    ranges.insert(10, 0..0);
    log(11).plain(6);
    ranges.insert(11, 3..3);
    // Nothing but aborted transactions up to the end.
    log(12).plain(1);
    (0..20).for_each(|_| log(12).aborted(&mut writer, 5));
    ranges.insert(12, 0..121);
    (topic, ranges)
}

#[tokio::test]
async fn given_transactions_at_every_edge_of_a_range_when_replayed_then_it_ends_and_holds_what_is_committed() {
    let broker = Broker::shared().await;
    let (topic, ranges) = with_transactions(broker).await;
    let expected = inside(broker.content(&topic, Isolation::Committed), &ranges);
    let places: Vec<_> = expected.iter().map(Held::place).filter(|(partition, _)| *partition < 9).collect();
    let by_hand = [(0, 6), (0, 7), (1, 6), (1, 7), (2, 3), (2, 4), (2, 6), (2, 7), (3, 0), (3, 1), (4, 0), (4, 1)];
    let by_hand = by_hand.into_iter().chain([(4, 2), (4, 3), (4, 4), (5, 0), (5, 1), (5, 2), (5, 3), (6, 0), (6, 1)]);
    assert_eq!(places, by_hand.collect::<Vec<_>>(), "the layout is what the test is about");

    Replay::of(broker, &topic).scan(scan(&ranges)).must_give(&expected).await;

    let expected = inside(broker.content(&topic, Isolation::Uncommitted), &ranges);
    let uncommitted = Replay::of(broker, &topic).property("isolation.level", "read_uncommitted");
    uncommitted.scan(scan(&ranges)).must_give(&expected).await;
}

#[tokio::test]
async fn given_open_transactions_when_planned_then_the_range_ends_before_them_whatever_becomes_of_them() {
    for (record, commits) in [("planned", true), ("planned", false), ("prepared", true)] {
        let broker = Broker::shared().await;
        let topic = Broker::name("open");
        broker.create_topic(&topic, 4, &[]).await;
        let mut writer = broker.writer(&Broker::name("writer"));
        let log = |partition| Log { broker, topic: &topic, partition };
        log(0).plain(3);
        log(2).committed(&mut writer, 2);
        log(3).plain(5);
        writer.begin();
        (0..3).for_each(|partition| log(partition).within(&mut writer, 4));
        log(2).plain(2);
        let ranges = stable(broker, &topic);
        assert_eq!(ranges.values().cloned().collect::<Vec<_>>(), [0..3, 0..0, 0..3, 0..5]);

        let replay = Replay::of(broker, &topic);
        replay.run_to(record).await;
        if commits {
            writer.commit()
        } else {
            writer.abort()
        }
        (0..4).for_each(|partition| log(partition).plain(10));

        let expected = inside(broker.content(&topic, Isolation::Committed), &ranges);
        assert_eq!(expected.len(), 3 + 2 + 5);
        replay.must_give(&expected).await;
    }
}

/// A topic of partitions of 20 records each, from which compaction takes some, and later records which it takes them for.
async fn to_be_compacted(broker: &Broker) -> (String, BTreeMap<i32, Range<i64>>) {
    let topic = Broker::name("compacted");
    broker.create_topic(&topic, 6, &Broker::COMPACTED).await;
    // A few records a batch: of some batches a part goes, of some all.
    let mut writer = broker.plain_writer(&[("batch.num.messages", "3"), ("linger.ms", "50")]);
    let goes: [fn(i64) -> bool; 6] =
        [|at| at >= 10, |at| at < 10, |at| (5..15).contains(&at), |_| true, |at| at % 2 == 1, |at| at == 19];
    for (goes, partition) in goes.into_iter().zip(0..) {
        let record =
            |at: i64, value: &str| Record::to(partition).key(format!("{at}")).value(value).at(START + at * HOUR);
        let first = (0..20).map(|at| record(at, "first"));
        let again = (0..20).filter(|at| goes(*at)).map(|at| record(at, "again").at(START + (20 + at) * HOUR));
        writer.produce(&topic, &first.chain(again).collect::<Vec<_>>());
    }
    (topic, (0..6).map(|partition| (partition, 0..20)).collect())
}

#[tokio::test]
async fn given_gaps_of_compaction_anywhere_in_a_range_when_replayed_then_it_ends_and_holds_what_is_left() {
    let broker = Broker::shared().await;
    let (topic, ranges) = to_be_compacted(broker).await;
    broker.compact(&topic).await;
    let expected = inside(broker.content(&topic, Isolation::Committed), &ranges);
    assert_eq!(expected.len(), 10 + 10 + 10 + 10 + 19);

    Replay::of(broker, &topic).scan(scan(&ranges)).must_give(&expected).await;
    Replay::of(broker, &topic).must_give(&broker.content(&topic, Isolation::Committed)).await;
}

#[tokio::test]
async fn given_a_range_that_is_compacted_while_it_waits_when_replayed_then_it_ends_and_holds_what_is_left() {
    let broker = Broker::shared().await;
    let (topic, ranges) = to_be_compacted(broker).await;
    let replay = Replay::of(broker, &topic).scan(scan(&ranges));
    replay.run_to("planned").await;
    broker.compact(&topic).await;
    replay.must_give(&inside(broker.content(&topic, Isolation::Committed), &ranges)).await;
}

#[tokio::test]
async fn given_one_partition_and_64_some_of_them_empty_when_replayed_then_each_record_is_there_once() {
    let broker = Broker::shared().await;
    for (partitions, each) in [(1, 1_000), (64, 100), (3, 0)] {
        let topic = Broker::name(&format!("of-{partitions}"));
        broker.create_topic(&topic, partitions, &[]).await;
        let records = (0..partitions).filter(|partition| partition % 5 != 3).flat_map(|partition| {
            (0..each).map(move |at| Record::to(partition).key(format!("{at}")).value("v").at(START + at * HOUR))
        });
        broker.produce(&topic, &records.collect::<Vec<_>>());
        Replay::of(broker, &topic).must_give(&broker.content(&topic, Isolation::Committed)).await;
    }
}

#[tokio::test]
async fn given_a_range_from_where_a_group_stands_when_replayed_then_it_begins_there_and_the_group_stays() {
    let broker = Broker::shared().await;
    let (topic, group) = (Broker::name("of-a-group"), Broker::name("group"));
    broker.create_topic(&topic, 2, &[]).await;
    for partition in [0, 1] {
        let records = (0..10).map(|at| Record::to(partition).value("v").at(START + at));
        broker.produce(&topic, &records.collect::<Vec<_>>());
    }
    broker.commit_offsets(&group, &topic, &[(0, 4), (1, 10)]);
    let held = broker.content(&topic, Isolation::Committed);
    let between = |ranges: [Range<i64>; 2]| inside(held.clone(), &(0..).zip(ranges).collect());

    let replay = |scan: Value| Replay::of(broker, &topic).scan(scan);
    replay(json!({"start": {"group": group}})).must_give(&between([4..10, 10..10])).await;
    replay(json!({"stop": {"group": group}})).must_give(&between([0..4, 0..10])).await;
    let unknown = replay(json!({"start": {"group": Broker::name("nobody")}})).run().await;
    unknown.with(4).saying(&["nobody-", "offsets"]);
    assert_eq!([0, 1].map(|partition| broker.committed_offset(&group, &topic, partition)), [Some(4), Some(10)]);
}

#[tokio::test]
async fn given_a_range_that_the_log_does_not_hold_when_planned_then_it_is_refused_with_what_is_missing() {
    let broker = Broker::shared().await;
    let topic = Broker::name("outside");
    broker.create_topic(&topic, 1, &[]).await;
    Log { broker, topic: &topic, partition: 0 }.plain(10);
    broker.delete_records(&topic, 0, 4).await;

    let replay = |scan: Value| Replay::of(broker, &topic).scan(scan);
    let refused = replay(json!({"start": {"offsets": {"0": 1}}})).run().await.with(4);
    refused.saying(&[&topic, "partition 0", "3 are missing"]);
    replay(json!({"stop": {"offsets": {"0": 11}}})).run().await.with(4).saying(&[&topic, "[4, 10]"]);
    replay(json!({"start": {"offsets": {"1": 0}}})).run().await.with(4).saying(&[&topic, "no partition 1"]);
    Replay::of(broker, "no-such-topic").run().await.with(4).saying(&["no topic no-such-topic"]);
    replay(json!({})).must_give(&broker.content(&topic, Isolation::Committed)).await;
}
