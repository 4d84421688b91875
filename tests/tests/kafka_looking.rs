//! Looking at a topic before it is replayed: `source describe`, `sample` and `offsets`, and what `plan` says of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Record, Replay};
use tidegate_tests::sandbox::{BEGIN, Broker};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// [`BEGIN`] in milliseconds: 2024-01-01, midnight.
const START: i64 = BEGIN / 1_000;
/// A century, so that nothing of 2024 goes.
const CENTURY: i64 = 36_500 * DAY;

fn hourly(partition: i32, hours: std::ops::Range<i64>) -> Vec<Record> {
    hours.map(|hour| Record::to(partition).value(format!(r#"{{"id": {hour}}}"#)).at(START + hour * HOUR)).collect()
}

async fn look(replay: &Replay, words: &[&str]) -> tidegate_tests::sandbox::Ended {
    replay.world.run(words).await
}

#[tokio::test]
async fn given_a_part_of_a_log_when_its_offsets_are_asked_for_then_log_range_times_and_headroom_are_told() {
    let broker = Broker::shared().await;
    let topic = Broker::name("offsets");
    let retention = CENTURY.to_string();
    broker.create_topic(&topic, 3, &[("retention.ms", &retention)]).await;
    broker.produce(&topic, &hourly(0, 0..10));
    broker.produce(&topic, &hourly(1, 0..5));
    // No record at the end of the range: three that were aborted, and a marker.
    let mut writer = broker.writer(&Broker::name("writer"));
    writer.begin();
    writer.produce(&topic, &hourly(1, 5..8));
    writer.abort();
    broker.delete_records(&topic, 0, 2).await;
    let scan = json!({"start": {"offsets": {"0": 4, "1": 3, "2": 0}}, "stop": {"offsets": {"0": 8, "1": 9, "2": 0}}});
    let replay = Replay::of(broker, &topic).scan(scan);

    let found = look(&replay, &["source", "offsets", Replay::SPEC, "-o", "json"]).await.with(0).json();
    let range = &found["items"][0];
    let expected = json!([
        {"partition": 0, "log_start": 2, "start": 4, "end": 8, "log_end": 10, "offsets": 4,
         "first": "2024-01-01T04:00:00Z", "last": "2024-01-01T07:00:00Z"},
        {"partition": 1, "log_start": 0, "start": 3, "end": 9, "log_end": 9, "offsets": 6,
         "first": "2024-01-01T03:00:00Z", "last": "2024-01-01T04:00:00Z"},
        {"partition": 2, "log_start": 0, "start": 0, "end": 0, "log_end": 0, "offsets": 0, "first": null, "last": null},
    ]);
    assert_eq!(range["partitions"], expected, "{found:#}");
    assert_eq!((&found["kind"], &range["topic"]), (&"SourceOffsetsList".into(), &Value::from(topic.as_str())));
    assert_eq!(range["offsets_ahead_of_retention"], 2);
    assert_eq!(
        range["retention"],
        json!({"seconds": 36_500.0 * 86_400.0, "bytes": null, "deletes": true, "compacts": false})
    );
    // A century of days after the first record of partition 1.
    assert_eq!(range["kept_until"], "2123-12-08T03:00:00Z");

    let said = ["RANGE START", "2 offsets before the range are still there; kept for", "until 2123-12-08T03:00:00Z"];
    look(&replay, &["source", "offsets", Replay::SPEC, "events"]).await.with(0).saying(&said);
    let said = ["kafka ", "3 partitions", "10 records", "_kafka Struct", "the record's timestamp", "RANGE START"];
    look(&replay, &["source", "describe", Replay::SPEC]).await.with(0).saying(&said);
}

#[tokio::test]
async fn given_a_topic_with_a_bad_record_when_sampled_then_rows_are_shown_and_the_bad_one_is_named() {
    let broker = Broker::shared().await;
    let topic = Broker::name("sample");
    broker.create_topic(&topic, 1, &[("retention.ms", "-1")]).await;
    broker.produce(&topic, &hourly(0, 0..2));
    broker.produce(&topic, &[Record::to(0).value("no JSON at all").at(START)]);
    broker.produce(&topic, &hourly(0, 3..100));
    let format = json!({"type": "json", "schema": [{"name": "id", "type": "bigint"}]});
    let replay = Replay::of(broker, &topic).with("/sources/events/kafka/format", format);

    let shown = look(&replay, &["source", "sample", Replay::SPEC, "--limit", "5", "-o", "jsonl"]).await.with(0);
    let rows: Vec<Value> = shown.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let places: Vec<_> = rows.iter().map(|row| (&row["row"]["id"], &row["row"]["_kafka"]["offset"])).collect();
    let expected = [0, 1, 3, 4].map(Value::from);
    assert_eq!(places, expected.iter().map(|id| (id, id)).collect::<Vec<_>>(), "{shown:?}");
    let named = format!("dead letter of events: kafka:{topic}/0, position 2: ");
    assert!(shown.stderr.contains(&named), "{shown:?}");
    let table = look(&replay, &["source", "sample", Replay::SPEC]).await.with(0);
    assert_eq!(table.stdout.lines().count(), 10, "a header, and ten records less the bad one: {table:?}");

    look(&replay, &["source", "sample", Replay::SPEC, "evnts"]).await.with(2).saying(&["has no source \"evnts\""]);
}

#[tokio::test]
async fn given_a_window_when_a_topic_is_planned_then_what_is_read_for_it_and_the_headroom_are_told() {
    let broker = Broker::shared().await;
    let topic = Broker::name("planned");
    broker.create_topic(&topic, 1, &[("retention.ms", "-1")]).await;
    broker.produce(&topic, &hourly(0, 0..1_000));
    let window = json!({"from": "2024-01-11", "to": "2024-01-21"});
    let replay = Replay::of(broker, &topic).with("/window", window);

    // Nothing is promised: the window spares nothing.
    let plan = look(&replay, &["plan", Replay::SPEC, "-o", "json"]).await.with(0).json();
    let range = &plan["sources"][0]["topic"];
    assert_eq!((&range["offsets_to_read"], &range["offsets_in_window"]), (&1_000.into(), &Value::Null), "{plan:#}");
    look(&replay, &["plan", Replay::SPEC]).await.with(0).saying(&["1,000 offsets, whatever the window"]);

    let replay = replay.with("/sources/events/event_time", json!({"out_of_orderness": "1h"}));
    let plan = look(&replay, &["plan", Replay::SPEC, "-o", "json"]).await.with(0).json();
    let range = &plan["sources"][0]["topic"];
    assert_eq!(range["offsets_in_window"], 240, "{plan:#}");
    let read = range["offsets_to_read"].as_u64().unwrap();
    assert!((240..=240 + 2 * 25).contains(&read), "{read}: the window and what lies with its edges in one unit");
    assert_eq!(range["read_amplification"], read as f64 / 240.0);
    let said = [
        "1 partition ",
        "1,000 records",
        "2024-01-01T00:00:00Z to 2024-02-11T15:00:00Z",
        "for about 240 of the window",
    ];
    let text = look(&replay, &["plan", Replay::SPEC]).await.with(0).saying(&said).saying(&["kept for ever"]);
    assert!(!text.stdout.contains("1 file"), "{}", text.stdout);
}
