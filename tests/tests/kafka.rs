//! Ranges of Kafka topics on a real broker: whatever lies in a range and at its edges, the table holds exactly the records
//! that a plain consumer finds in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Held, Isolation, Record, Replay, Writer};
use tidegate_tests::sandbox::{BEGIN, Broker, Chance, read_table};

const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
/// [`BEGIN`] in milliseconds.
const START: i64 = BEGIN / 1_000;
/// So that records of the future are taken.
const ANY_TIME: [(&str, &str); 1] = [("message.timestamp.after.max.ms", "9223372036854775807")];

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

fn inside(held: Vec<Held>, ranges: &BTreeMap<i32, Range<i64>>) -> Vec<Held> {
    let is_inside = |held: &Held| ranges.get(&held.partition).is_some_and(|range| range.contains(&held.offset));
    held.into_iter().filter(is_inside).collect()
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

fn window(from: i64, to: i64) -> Value {
    let text = |millis: i64| tidegate_common::time::EventTime::from_micros(millis * 1_000).to_string();
    json!({"from": text(from), "to": text(to)})
}

#[tokio::test]
async fn given_times_in_no_order_in_the_future_and_missing_when_a_window_is_replayed_then_no_record_in_it_is_missed() {
    let broker = Broker::shared().await;
    let topic = Broker::name("times");
    broker.create_topic(&topic, 3, &ANY_TIME).await;
    let mut chance = Chance::new(21);
    let mut time = || match chance.below(50) {
        0 => -1,
        1 => START + 40_000 * DAY,
        2 => 1,
        _ => START + i64::try_from(chance.below(60)).unwrap() * DAY,
    };
    let record =
        |at: u32, time: i64| Record::to(i32::try_from(at % 3).unwrap()).key(at.to_string()).value("v").at(time);
    broker.produce(&topic, &(0..6_000).map(|at| record(at, time())).collect::<Vec<_>>());

    let held = broker.content(&topic, Isolation::Committed);
    // The bounds are times that records have: the first is in the window, the second is not.
    let (from, to) = (START + 20 * DAY, START + 40 * DAY);
    let in_window = |held: &Held| held.timestamp.is_some_and(|time| (from..to).contains(&time));
    let expected: Vec<Held> = held.iter().filter(|held| in_window(held)).cloned().collect();
    let timeless: Vec<(i32, i64)> = held.iter().filter(|held| held.timestamp.is_none()).map(Held::place).collect();
    assert!(expected.len() > 1_000 && timeless.len() > 50, "{} and {}", expected.len(), timeless.len());

    let replay = Replay::of(broker, &topic).with("/window", window(from, to));
    replay.run().await.with(6).saying(&["no event time", "dead_letter"]);
    let source = "/sources/events";
    let replay = replay.with(&format!("{source}/on_error"), "dead_letter".into());
    let replay = replay.with(&format!("{source}/dead_letter"), json!({"limit": "50%"}));
    let replay = replay.with("/name", "kept".into()).with("/outputs/events/table", "lake.kept".into());
    let report = replay.run().await.with(0).json();
    replay.must_balance(&report);
    replay.must_hold_in("lake.kept", &expected);
    assert_eq!(dead(&replay, "lake.kept__dead_letter", &topic), timeless);
}

/// Where the records in a table of dead letters stood.
fn dead(replay: &Replay, table: &str, topic: &str) -> Vec<(i32, i64)> {
    let place = |row: &Value| {
        let file = row["file"].as_str().unwrap();
        let partition = file.strip_prefix(&format!("kafka:{topic}/")).unwrap_or_else(|| panic!("{row}"));
        (partition.parse().unwrap(), row["position"].as_i64().unwrap())
    };
    let mut places: Vec<_> = read_table(&replay.world.catalog(), table).iter().map(place).collect();
    places.sort_unstable();
    places
}

#[tokio::test]
async fn given_a_promise_of_order_when_a_window_is_replayed_then_offsets_far_from_it_are_not_read_and_none_is_missed() {
    let broker = Broker::shared().await;
    let topic = Broker::name("nearly-ordered");
    broker.create_topic(&topic, 2, &[]).await;
    let mut chance = Chance::new(22);
    let mut records = Vec::new();
    for at in 0..4_000 {
        let back = i64::try_from(chance.below(u64::try_from(HOUR).unwrap())).unwrap();
        records.push(Record::to(at % 2).key(at.to_string()).value("v").at(START + i64::from(at) * HOUR / 2 - back));
    }
    // One record of each partition stands where nobody looks for it.
    for partition in [0, 1] {
        let stray = 3_000 + usize::try_from(partition).unwrap();
        records[stray] = Record::to(partition).key("stray").value("v").at(START + 30 * DAY);
    }
    broker.produce(&topic, &records);
    let held = broker.content(&topic, Isolation::Committed);
    let (from, to) = (START + 20 * DAY, START + 25 * DAY);
    let within = |from: i64, to: i64| -> Vec<Held> {
        held.iter().filter(|held| held.timestamp.is_some_and(|time| (from..to).contains(&time))).cloned().collect()
    };

    let promising = |from, to, promise: Value| {
        Replay::of(broker, &topic).with("/window", window(from, to)).with("/sources/events/event_time", promise)
    };
    let promise = json!({"out_of_orderness": "1h"});
    let report = promising(from, to, promise.clone()).must_give(&within(from, to)).await;
    let read = report["sources"][0]["rows_read"].as_u64().unwrap();
    assert!((240..400).contains(&read), "240 records are in the window, and few of others are read: {report:#}");

    // The strays are read with the records among which they stand, and lie outside what was promised of them.
    let (from, to) = (START + 29 * DAY, START + 65 * DAY);
    let failed = promising(from, to, promise).run().await.with(6);
    failed.saying(&["out_of_orderness", "on_disorder", &format!("kafka:{topic}/")]);
    let allowed = json!({"out_of_orderness": "1h", "on_disorder": "allow"});
    promising(from, to, allowed).must_give(&within(from, to)).await;
    promising(from, to, json!({})).must_give(&within(from, to)).await;
}

#[tokio::test]
async fn given_transactions_that_were_written_later_than_their_records_say_when_a_window_is_replayed_then_none_is_missed()
 {
    let broker = Broker::shared().await;
    let topic = Broker::name("replayed");
    broker.create_topic(&topic, 1, &[]).await;
    let mut writer = broker.writer(&Broker::name("writer"));
    // One record an hour for 40 days, a transaction a day. Markers have the time at which they are written, and the brokers'
    // index of times counts them as it counts records.
    for day in 0..40 {
        let record =
            |hour: i64| Record::to(0).key(format!("{day}/{hour}")).value("v").at(START + day * DAY + hour * HOUR);
        writer.begin();
        writer.produce(&topic, &(0..24).map(record).collect::<Vec<_>>());
        if day % 4 == 2 { writer.abort() } else { writer.commit() }
    }
    let held = broker.content(&topic, Isolation::Committed);
    let (from, to) = (START + 20 * DAY, START + 30 * DAY);
    let in_window = |held: &&Held| held.timestamp.is_some_and(|time| (from..to).contains(&time));
    let expected: Vec<Held> = held.iter().filter(in_window).cloned().collect();
    assert_eq!(expected.len(), 8 * 24);

    let promising = || Replay::of(broker, &topic).with("/sources/events/event_time", json!({"out_of_orderness": "1h"}));
    promising().with("/window", window(from, to)).must_give(&expected).await;
    promising().with("/alignment", json!({"max_drift": "2d"})).must_give(&held).await;
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
async fn given_a_range_of_times_when_replayed_then_it_is_what_lies_between_their_first_records() {
    let broker = Broker::shared().await;
    let topic = Broker::name("by-time");
    broker.create_topic(&topic, 3, &[]).await;
    // The second partition has no order; the third ends before the range.
    let times = [vec![0, 1, 2, 3, 4, 5], vec![0, 4, 1, 2, 5, 3, 0], vec![0, 1]];
    for (times, partition) in times.into_iter().zip(0..) {
        let records = times.into_iter().map(|day: i64| Record::to(partition).value("v").at(START + day * DAY));
        broker.produce(&topic, &records.collect::<Vec<_>>());
    }
    let held = broker.content(&topic, Isolation::Committed);
    let at = |day: i64| window(START + day * DAY, START + 99 * DAY)["from"].clone();
    let between = |ranges: [Range<i64>; 3]| inside(held.clone(), &(0..).zip(ranges).collect());

    let replay = |scan: Value| Replay::of(broker, &topic).scan(scan);
    let (start, stop) = (json!({"timestamp": at(2)}), json!({"timestamp": at(5)}));
    replay(json!({"start": start, "stop": stop})).must_give(&between([2..5, 1..4, 2..2])).await;
    replay(json!({"start": start})).must_give(&between([2..6, 1..7, 2..2])).await;
    // No record is that late: then nothing is read, and not all.
    replay(json!({"start": {"timestamp": at(50)}})).must_give(&[]).await;
    replay(json!({"stop": {"timestamp": at(50)}})).must_give(&held).await;
}

#[tokio::test]
async fn given_records_that_were_deleted_just_now_when_a_time_is_asked_for_then_it_is_no_empty_range() {
    let broker = Broker::shared().await;
    let topic = Broker::name("deleted");
    broker.create_topic(&topic, 1, &[]).await;
    // The log then begins within a transaction; for a while the brokers find none of its times, though its records are there.
    let mut writer = broker.writer(&Broker::name("writer"));
    for round in 0..8 {
        writer.begin();
        let record = |at: i64| Record::to(0).value("v").at(START + (round * 5 + at) * HOUR);
        writer.produce(&topic, &(0..5).map(record).collect::<Vec<_>>());
        if round % 4 == 1 { writer.abort() } else { writer.commit() }
    }
    let held: Vec<Held> =
        broker.content(&topic, Isolation::Committed).into_iter().filter(|held| held.offset >= 20).collect();
    assert_eq!(held.len(), 18);
    let from = window(START, START + DAY)["from"].clone();
    let replay = Replay::of(broker, &topic).scan(json!({"start": {"timestamp": from}}));
    replay.world.run(&["validate", Replay::SPEC]).await.with(0); // what is slow the first time is done
    broker.delete_records(&topic, 0, 20).await;
    let mut refused = 0;
    loop {
        let ended = replay.run().await;
        if ended.code == Some(4) && refused < 50 {
            ended.saying(&["find no time", "partition 0", "try again"]);
            refused += 1;
            continue;
        }
        replay.must_balance(&ended.with(0).json());
        break;
    }
    replay.must_hold(&held);
    let promising = json!({"out_of_orderness": "1h"});
    Replay::of(broker, &topic).with("/sources/events/event_time", promising).must_give(&held).await;
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

#[tokio::test]
async fn given_records_with_all_they_can_have_when_replayed_as_json_then_columns_hold_it_and_bad_ones_are_dead_letters()
{
    let broker = Broker::shared().await;
    let topic = Broker::name("json");
    let mut settings = ANY_TIME.to_vec();
    settings.push(("message.timestamp.type", "LogAppendTime"));
    broker.create_topic(&topic, 2, &settings).await;
    let json = |id: i32| format!("{{\"id\": {id}, \"ts\": \"2024-01-01T00:00:{id:02}Z\"}}");
    let good = |id: i32| Record::to(id % 2).key([255, 0]).value(json(id)).header("h", Some(b"\xff")).header("h", None);
    let mut records: Vec<Record> = (0..20).map(good).collect();
    records.insert(6, Record::to(0).key("tombstone"));
    records.insert(12, Record::to(1).value("{\"id\": 1"));
    records.insert(12, Record::to(0).value([0xff, 0xfe]));
    records.push(Record::to(1).value("{\"id\": 3}"));
    broker.produce(&topic, &records);
    let held = broker.content(&topic, Isolation::Committed);
    let is_dead = |held: &&Held| held.value.as_ref().is_some_and(|value| !value.ends_with(b"Z\"}"));
    let letters: Vec<(i32, i64)> = held.iter().filter(is_dead).map(Held::place).collect();
    assert_eq!(letters.len(), 3);

    let schema = json!([{"name": "id", "type": "bigint"}, {"name": "ts", "type": "timestamptz"}]);
    let sql = "SELECT id, ts, _kafka.topic AS topic, _kafka.partition AS p, _kafka.offset AS o, _kafka.timestamp_type AS tt, \
               CAST(_kafka.timestamp AS BIGINT) AS t, _kafka.key AS key, _kafka.headers AS headers FROM events";
    let replay = Replay::of(broker, &topic)
        .with("/sources/events/kafka/format", json!({"type": "json", "schema": schema}))
        .with("/sources/events/event_time", json!({"column": "ts"}))
        .with("/sources/events/on_error", "dead_letter".into())
        .with("/sources/events/dead_letter", json!({"limit": 5}))
        .with("/outputs/events/sql", sql.into());
    let report = replay.run().await.with(0).json();
    replay.must_balance(&report);

    assert_eq!(dead(&replay, "lake.events__dead_letter", &topic), letters);
    let rows = read_table(&replay.world.catalog(), Replay::TABLE);
    let wanted = held.iter().filter(|held| held.value.is_some() && !letters.contains(&held.place())).map(|held| {
        let value: Value = serde_json::from_slice(held.value.as_ref().unwrap()).unwrap();
        let headers = json!([{"key": "h", "value": "ff"}, {"key": "h", "value": null}]);
        let time = held.timestamp.unwrap() * 1_000;
        let (partition, offset) = held.place();
        json!({"id": value["id"], "ts": value["ts"].as_str().unwrap().replace('Z', "+00:00"), "topic": topic, "p": partition,
               "o": offset, "tt": "log_append", "t": time, "key": "ff00", "headers": headers})
    });
    let by_place = |row: &Value| (row["p"].as_i64(), row["o"].as_i64());
    let mut rows: Vec<Value> = rows;
    rows.sort_by_key(by_place);
    assert_eq!(rows, wanted.collect::<Vec<_>>());
}
