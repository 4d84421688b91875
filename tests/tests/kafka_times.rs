//! Event times of records on a real broker, what a window or a range of times narrows, and all that a record can have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;

use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Held, Isolation, Record, Replay, inside};
use tidegate_tests::sandbox::{BEGIN, Broker, Chance, read_table};

const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
/// [`BEGIN`] in milliseconds.
const START: i64 = BEGIN / 1_000;
/// So that records of the future are taken.
const ANY_TIME: [(&str, &str); 1] = [("message.timestamp.after.max.ms", "9223372036854775807")];

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
            ended.saying(&["find no such time", "partition 0", "try again"]);
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
async fn given_deleted_records_that_were_later_than_those_behind_them_when_a_time_is_asked_for_then_none_is_lost_unsaid()
 {
    let broker = Broker::shared().await;
    let topic = Broker::name("later-deleted");
    broker.create_topic(&topic, 1, &[]).await;
    let mut writer = broker.writer(&Broker::name("writer"));
    let five = |hours: i64| (0..5).map(|at| Record::to(0).value("v").at(START + hours * HOUR + at)).collect::<Vec<_>>();
    // The end of the transaction has the time of day, years later, which begins a segment: the brokers look for times in
    // the first one alone, since what was deleted in it is late enough.
    writer.begin();
    writer.produce(&topic, &five(100));
    broker.plain_writer(&[]).produce(&topic, &[Record::to(0).value("early").at(START + HOUR)]);
    writer.commit();
    writer.begin();
    writer.produce(&topic, &five(50));
    writer.commit();
    broker.delete_records(&topic, 0, 5).await;
    let from = window(START + 50 * HOUR, START + 60 * HOUR)["from"].clone();
    let replay = Replay::of(broker, &topic).scan(json!({"start": {"timestamp": from}}));
    replay.run().await.with(4).saying(&["find no such time", "partition 0", "give `offsets`"]);
    let offsets = Replay::of(broker, &topic).scan(json!({"start": {"offsets": {"0": 5}}}));
    let held: Vec<Held> =
        broker.content(&topic, Isolation::Committed).into_iter().filter(|held| held.offset >= 5).collect();
    assert_eq!(held.len(), 6);
    offsets.must_give(&held).await;
}
