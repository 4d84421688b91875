//! An archive of a topic and the topic as one source, on a real broker and real tables: whatever each of them still holds, the
//! table holds every record of the range once, or the run is refused and says what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use tidegate_proto::v1;
use tidegate_tests::sandbox::kafka::{Held, Isolation, Record, Replay};
use tidegate_tests::sandbox::{BEGIN, Broker, Signal, read_table};

/// [`BEGIN`] in milliseconds.
const START: i64 = BEGIN / 1_000;
const HOUR: i64 = 3_600_000;
/// What the archive keeps of each record, as a backfill of the topic writes it.
const ARCHIVED: &str = "SELECT _kafka.partition AS _kafka_partition, _kafka.offset AS _kafka_offset, _kafka.timestamp AS \
                        _kafka_timestamp, key, value FROM events";

/// A topic, and a world in which it is archived and replayed.
struct Both<'b> {
    broker: &'b Broker,
    topic: String,
    replay: Replay,
    archives: u32,
}

fn records(partition: i32, numbers: std::ops::Range<i64>) -> Vec<Record> {
    let record =
        |at: i64| Record::to(partition).key(format!("{at}")).value(format!("value {at}")).at(START + at * HOUR);
    numbers.map(record).collect()
}

impl<'b> Both<'b> {
    /// A topic of so many partitions, each with so many records.
    async fn of(broker: &'b Broker, partitions: i32, each: i64) -> Both<'b> {
        let topic = Broker::name("archived");
        broker.create_topic(&topic, partitions, &[]).await;
        (0..partitions).for_each(|partition| drop(broker.produce(&topic, &records(partition, 0..each))));
        Self::on(broker, topic)
    }

    fn on(broker: &'b Broker, topic: String) -> Both<'b> {
        let replay = Replay::of(broker, &topic);
        let live = Self::topic_spec(broker, &topic);
        let hybrid = json!({"archive": {"iceberg": {"table": "lake.archive"}}, "live": {"kafka": live}});
        let replay = replay.with("/sources/events", json!({"hybrid": hybrid}));
        Self { broker, topic, replay, archives: 0 }
    }

    fn topic_spec(broker: &Broker, topic: &str) -> Value {
        json!({"topic": topic, "properties": {"bootstrap.servers": broker.bootstrap()}, "format": {"type": "raw"}})
    }

    /// Backfills what `scan` says into the archive, by `sql`.
    async fn archive_as(&mut self, scan: Value, sql: &str) {
        let mut kafka = Self::topic_spec(self.broker, &self.topic);
        kafka["scan"] = scan;
        self.archives += 1;
        let name = format!("archive-{}", self.archives);
        let output = json!({"table": "lake.archive", "sql": sql});
        let spec = json!({"version": 1, "kind": "backfill", "name": name, "sources": {"events": {"kafka": kafka}},
                          "outputs": {"archive": output}});
        let file = format!("{name}.yaml");
        self.replay.world.write(&file, &spec.to_string());
        self.replay.world.run_local_with(&file, &["--allow-existing"], &[]).await.with(0);
    }

    /// Backfills all into the archive, by `sql`; rows without event time, too.
    async fn archive_json(&mut self, format: &Value, sql: &str) {
        let mut kafka = Self::topic_spec(self.broker, &self.topic);
        kafka["format"] = format.clone();
        let spec = json!({"version": 1, "kind": "backfill", "name": "archive", "sources": {"events": {"kafka": kafka}},
                          "outputs": {"archive": {"table": "lake.archive", "sql": sql}}});
        self.replay.world.write("archive.yaml", &spec.to_string());
        self.replay.world.run_local("archive.yaml", &[]).await.with(0);
    }

    /// Backfills offsets `[from, to)` of each partition into the archive.
    async fn archive(&mut self, ranges: &[(i32, i64, i64)]) {
        let edge = |edge: fn(&(i32, i64, i64)) -> i64| -> Value {
            let offsets: serde_json::Map<String, Value> =
                ranges.iter().map(|range| (range.0.to_string(), edge(range).into())).collect();
            json!({"offsets": offsets})
        };
        self.archive_as(json!({"start": edge(|range| range.1), "stop": edge(|range| range.2)}), ARCHIVED).await;
    }

    fn content(&self) -> Vec<Held> {
        self.broker.content(&self.topic, Isolation::Committed)
    }

    /// With `value` at `at` of the hybrid source.
    fn with(mut self, at: &str, value: Value) -> Self {
        self.replay = self.replay.with(&format!("/sources/events/hybrid/{at}"), value);
        self
    }

    /// Wants the table to hold `expected`, its ledger balanced, and its range to be so many offsets.
    async fn must_give(&self, expected: &[Held], offsets: u64) -> Value {
        let report = self.replay.must_give(expected).await;
        let source = &report["sources"][0];
        assert_eq!(source["found"]["rows_in_range"], offsets, "{report:#}");
        report
    }
}

#[tokio::test]
async fn given_a_topic_that_lost_what_its_archive_holds_when_both_are_replayed_then_each_record_is_there_once() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 3, 40).await;
    let expected = both.content();
    both.archive(&[(0, 0, 20), (1, 0, 30), (2, 0, 40)]).await;
    both.broker.delete_records(&both.topic, 0, 20).await;
    both.broker.delete_records(&both.topic, 1, 10).await;

    both.must_give(&expected, 120).await;
}

/// What the archive alone gave, by the plan.
async fn planned(both: &Both<'_>) -> Value {
    let plan = both.replay.world.run(&["plan", Replay::SPEC, "-o", "json"]).await.with(0).json();
    plan["sources"][0]["archive"].clone()
}

fn cuts(archive: &Value) -> Vec<i64> {
    archive["partitions"].as_array().unwrap().iter().map(|part| part["cut"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn given_an_archive_that_overlaps_its_topic_when_planned_then_as_much_as_can_be_is_read_from_the_archive() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 3, 40).await;
    both.archive(&[(0, 0, 25), (2, 0, 30)]).await;
    both.broker.delete_records(&both.topic, 0, 10).await;
    let expected = both.content();

    let archive = planned(&both).await;
    assert_eq!(cuts(&archive), [25, 0, 30], "{archive:#}");
    assert_eq!((&archive["rows"], &archive["gaps"], &archive["rows_beyond"]), (&55.into(), &0.into(), &0.into()));
    let said = both.replay.world.run(&["plan", Replay::SPEC]).await.with(0);
    said.saying(&["55 rows of the archive", "65 offsets of the topic, from 25 in partition 0, 0 in partition 1"]);

    let looks: [(&[&str], &[&str]); 3] = [
        (
            &["source", "describe", Replay::SPEC],
            &["iceberg lake.archive @ snapshot", "55 rows of the archive", "1 file, 3 partitions"],
        ),
        (&["source", "offsets", Replay::SPEC], &[&both.topic, "RANGE START", "10         25           40"]),
        (&["source", "sample", Replay::SPEC, "--limit", "60"], &["_kafka", &both.topic]),
    ];
    for (command, words) in looks {
        both.replay.world.run(command).await.with(0).saying(words);
    }
    // Behind a stop within the archive, the topic has nothing to give.
    let scanned = json!({"start": {"offsets": {"0": 12, "2": 0}}, "stop": {"offsets": {"0": 20, "2": 40}}});
    let both = both.with("live/kafka/scan", scanned);
    let archive = planned(&both).await;
    assert_eq!((cuts(&archive), &archive["rows_beyond"]), (vec![20, 30], &5.into()), "{archive:#}");
    let inside = |held: &&Held| match held.partition {
        0 => (12..20).contains(&held.offset),
        partition => partition == 2,
    };
    both.must_give(&expected.iter().filter(inside).cloned().collect::<Vec<_>>(), 48).await;
}

#[tokio::test]
async fn given_a_hole_between_archive_and_topic_when_planned_then_it_is_refused_unless_a_switch_says_otherwise() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 2, 40).await;
    both.archive(&[(0, 0, 20), (1, 0, 20)]).await;
    let expected = both.content();
    both.broker.delete_records(&both.topic, 0, 25).await;
    both.broker.delete_records(&both.topic, 1, 20).await;

    for command in [&["plan", Replay::SPEC][..], &["run", Replay::SPEC, "--local", "--yes"]] {
        let refused = both.replay.world.run(command).await.with(4);
        refused.saying(&["leave a hole", "partition 0", "offsets 20 to 24 (5) are in neither", "{offsets: {0: 25}}"]);
    }
    assert!(!both.replay.world.root().join("warehouse/lake/events").exists(), "nothing was made");

    let both = both.with("switch", json!({"offsets": {"0": 24}}));
    both.replay.run().await.with(4).saying(&["offset 24 is to be read from the topic, which has lost them"]);
    let both = both.with("switch", json!({"offsets": {"0": 25, "1": 21}}));
    both.replay.run().await.with(4).saying(&["offset 20 is to be read from the archive, which ends before"]);
    let both = both.with("switch", json!({"offsets": {"7": 25}}));
    both.replay.run().await.with(4).saying(&["switch names partition 7"]);
    let both = both.with("switch", json!({"offsets": {"0": 25}}));
    assert_eq!(planned(&both).await["gaps"], 5);
    let there = |held: &&Held| held.partition == 1 || !(20..25).contains(&held.offset);
    let report = both.must_give(&expected.iter().filter(there).cloned().collect::<Vec<_>>(), 80).await;
    assert_eq!(report["sources"][0]["rows_gaps"], 5, "{report:#}");
}

#[tokio::test]
async fn given_a_hole_in_which_the_log_starts_when_planned_then_what_the_archive_holds_behind_it_does_not_hide_it() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 1, 40).await;
    both.archive(&[(0, 0, 10)]).await;
    both.archive(&[(0, 30, 40)]).await;
    let expected = both.content();
    both.broker.delete_records(&both.topic, 0, 20).await;
    both.replay.run().await.with(4).saying(&["offsets 10 to 19 (10) are in neither", "{offsets: {0: 20}}"]);
    let both = both.with("switch", json!({"offsets": {"0": 35}}));
    both.replay.run().await.with(4).saying(&["offsets 20 to 29 (10) are to be read from the archive, which lacks"]);
    let both = both.with("switch", json!({"offsets": {"0": 20}}));
    let there = |held: &&Held| !(10..20).contains(&held.offset);
    both.must_give(&expected.iter().filter(there).cloned().collect::<Vec<_>>(), 40).await;
}

#[tokio::test]
async fn given_a_partition_that_the_archive_lacks_when_replayed_then_it_comes_from_the_topic_or_is_refused() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 2, 30).await;
    both.archive(&[(0, 0, 30)]).await;
    let expected = both.content();
    both.broker.delete_records(&both.topic, 0, 15).await;
    both.must_give(&expected, 60).await;

    let mut both = Both::of(broker, 2, 30).await;
    both.archive(&[(0, 0, 30)]).await;
    both.broker.delete_records(&both.topic, 1, 3).await;
    let both = both.with("live/kafka/scan", json!({"start": {"offsets": {"0": 0, "1": 1}}}));
    both.replay.run().await.with(4).saying(&["partition 1", "offsets 1 to 2 (2) are in neither", "begins at 3"]);
}

#[tokio::test]
async fn given_an_archive_that_holds_records_twice_when_replayed_then_none_is_there_twice() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 1, 40).await;
    both.archive(&[(0, 0, 20)]).await;
    both.archive(&[(0, 15, 30)]).await;
    let expected = both.content();
    // As long as the topic has them, the archive is believed only so far as it has each once.
    assert_eq!(cuts(&planned(&both).await), [15]);
    both.broker.delete_records(&both.topic, 0, 25).await;
    let refused = both.replay.run().await.with(4);
    refused.saying(&["holds offset 15 of partition 0 more than once (5 rows too many in this partition)"]);
    both.with("live/kafka/scan", json!({"start": {"offsets": {"0": 20}}})).must_give(&expected[20..], 20).await;
}

#[tokio::test]
async fn given_a_record_that_is_twice_in_one_file_where_statistics_look_sound_when_read_then_the_run_fails() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 1, 40).await;
    // 40 rows of offsets 0 to 39, of which 5 is missing and 4 is there twice.
    let damaged = ARCHIVED.replace("_kafka.offset AS", "CASE WHEN _kafka.offset = 5 THEN 4 ELSE _kafka.offset END AS");
    both.archive_as(json!({}), &damaged).await;
    broker.produce(&both.topic, &records(0, 40..50));
    both.broker.delete_records(&both.topic, 0, 40).await;
    both.replay.run().await.with(4).saying(&["holds offset 4 of partition 0 more than once"]);
    assert_eq!(read_table(&both.replay.world.catalog(), Replay::TABLE).len(), 0, "nothing of it is there");
}

#[tokio::test]
async fn given_markers_and_aborted_records_in_both_when_replayed_then_they_are_gaps_and_each_record_is_there_once() {
    let broker = Broker::shared().await;
    let topic = Broker::name("transactions");
    broker.create_topic(&topic, 2, &[]).await;
    let mut writer = broker.writer(&Broker::name("writer"));
    for round in 0..8 {
        writer.begin();
        (0..2).for_each(|partition| drop(writer.produce(&topic, &records(partition, round * 5..round * 5 + 5))));
        if round % 4 == 1 { writer.abort() } else { writer.commit() }
    }
    let mut both = Both::on(broker, topic);
    // Six offsets a round, the last one a marker.
    both.archive(&[(0, 0, 30), (1, 0, 47)]).await;
    let expected = both.content();
    both.broker.delete_records(&both.topic, 0, 20).await;
    both.broker.delete_records(&both.topic, 1, 44).await;
    assert_eq!(cuts(&planned(&both).await), [23, 47], "markers are in the topic, or lie below its start");
    let report = both.must_give(&expected, 96).await;
    assert_eq!(report["sources"][0]["rows_gaps"], 96 - 60, "{report:#}");
}

#[tokio::test]
async fn given_columns_that_are_not_there_when_planned_then_both_sides_are_named() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 1, 10).await;
    both.archive_as(json!({}), &ARCHIVED.replace(", key, value", ", value, 1 AS extra").replace("_kafka_offset", "at"))
        .await;
    let refused = |both: &Both<'_>| both.replay.world.command(&["plan", Replay::SPEC]);
    let says = async |both: &Both<'_>, words: &[&str]| {
        drop(both.replay.world.run_command(refused(both)).await.with(4).saying(words))
    };
    says(&both, &["lake.archive has no column _kafka_offset", "hybrid.archive.offset"]).await;
    let both = both.with("archive/offset", "att".into());
    says(&both, &["no column att", "did you mean at"]).await;
    let both = both.with("archive/offset", "value".into());
    says(&both, &["value of lake.archive is Binary, and no integer"]).await;
    let both = both.with("archive/offset", "at".into());
    says(&both, &["the topic", &both.topic, "has a column key", "lake.archive has no column key"]).await;

    // A query that needs no more than both have is answered.
    let sql = "SELECT _kafka.partition AS p, _kafka.offset AS o, CAST(_kafka.timestamp AS BIGINT) AS t, value AS key, value FROM events";
    both.replay.world.write("narrow.yaml", &narrowed(&both, sql).to_string());
    both.replay.world.run(&["plan", "narrow.yaml"]).await.with(0);
    let sql = "SELECT _kafka.headers AS h FROM events";
    both.replay.world.write("narrow.yaml", &narrowed(&both, sql).to_string());
    both.replay.world.run(&["plan", "narrow.yaml"]).await.with(3).saying(&["headers"]);
}

fn narrowed(both: &Both<'_>, sql: &str) -> Value {
    let text = std::fs::read_to_string(both.replay.world.root().join(Replay::SPEC)).unwrap();
    let mut spec: Value = serde_json::from_str(&text).unwrap();
    spec["outputs"]["events"]["sql"] = sql.into();
    spec
}

#[tokio::test]
async fn given_an_archive_of_several_topics_when_replayed_then_only_rows_of_its_own_are_taken() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 1, 20).await;
    let other = Broker::name("other");
    broker.create_topic(&other, 1, &[]).await;
    broker.produce(&other, &records(0, 100..130));
    let sql = ARCHIVED.replacen("SELECT ", "SELECT _kafka.topic AS source_topic, ", 1);
    both.archive_as(json!({}), &sql).await;
    let topic = std::mem::replace(&mut both.topic, other);
    both.archive_as(json!({}), &sql).await;
    both.topic = topic;
    let expected = both.content();
    both.broker.delete_records(&both.topic, 0, 20).await;
    both.replay.run().await.with(4).saying(&["another topic", "offset 29"]);
    both.with("archive/topic", "source_topic".into()).must_give(&expected, 20).await;
}

#[tokio::test]
async fn given_a_topic_that_was_made_again_when_planned_then_its_archive_is_not_taken_for_its_past() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 1, 20).await;
    both.archive(&[(0, 0, 20)]).await;
    broker.recreate_topic(&both.topic, 1, &[]).await;
    broker.produce(&both.topic, &records(0, 0..10));
    both.replay.run().await.with(4).saying(&["holds offset 19", "never written further than 10", "created again"]);
}

fn window(from: i64, to: i64) -> Value {
    let text = |millis: i64| tidegate_common::time::EventTime::from_micros(millis * 1_000).to_string();
    json!({"from": text(from), "to": text(to)})
}

#[tokio::test]
async fn given_a_window_and_alignment_when_both_are_replayed_then_only_it_is_there_and_every_offset_is_accounted_for() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 2, 400).await;
    both.archive(&[(0, 0, 100), (1, 0, 100)]).await;
    both.archive(&[(0, 100, 200), (1, 100, 250)]).await;
    let held = both.content();
    both.broker.delete_records(&both.topic, 0, 150).await;
    both.broker.delete_records(&both.topic, 1, 250).await;
    for (from, to) in [(150, 300), (20, 60), (300, 320)] {
        let (from, to) = (START + from * HOUR, START + to * HOUR);
        let expected: Vec<Held> =
            held.iter().filter(|held| held.timestamp.is_some_and(|at| (from..to).contains(&at))).cloned().collect();
        assert!(!expected.is_empty());
        let (name, table) = (format!("window-{from}"), format!("lake.w{from}"));
        let replay = both.replay.with("/window", window(from, to)).with("/name", name.into());
        let replay = replay.with("/outputs/events/table", table.as_str().into());
        let replay = replay.with("/alignment", json!({"max_drift": "20d"}));
        both.replay = replay.with("/sources/events/event_time", json!({"out_of_orderness": "1h"}));
        let report = both.replay.run().await.with(0).json();
        both.replay.must_balance(&report);
        both.replay.must_hold_in(&table, &expected);
        assert_eq!(report["sources"][0]["found"]["rows_in_range"], 800, "{report:#}");
    }
}

#[tokio::test]
async fn given_a_start_by_time_that_only_the_archive_has_when_replayed_then_it_begins_there() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 2, 40).await;
    both.archive(&[(0, 0, 30), (1, 0, 30)]).await;
    let held = both.content();
    both.broker.delete_records(&both.topic, 0, 20).await;
    both.broker.delete_records(&both.topic, 1, 28).await;
    let at = |hours: i64| window(START + hours * HOUR, START + 999 * HOUR)["from"].clone();
    let scan = json!({"start": {"timestamp": at(7)}, "stop": {"timestamp": at(25)}});
    let expected: Vec<Held> = held.iter().filter(|held| (7..25).contains(&held.offset)).cloned().collect();
    both.with("live/kafka/scan", scan).must_give(&expected, 36).await;
}

#[tokio::test]
async fn given_a_range_that_waits_when_archive_and_topic_go_on_then_what_was_planned_is_read() {
    for record in ["prepared", "planned"] {
        let broker = Broker::shared().await;
        let mut both = Both::of(broker, 2, 40).await;
        both.archive(&[(0, 0, 30), (1, 0, 30)]).await;
        both.broker.delete_records(&both.topic, 0, 20).await;
        let expected = [both.archived_part(20), both.content()].concat();
        both.replay.run_to(record).await;
        (0..2).for_each(|partition| drop(broker.produce(&both.topic, &records(partition, 40..60))));
        both.archive(&[(0, 30, 50), (1, 30, 50)]).await;
        both.broker.delete_records(&both.topic, 0, 30).await;
        both.must_give(&expected, 80).await;
    }
}

impl Both<'_> {
    /// The first records of partition 0, as they were produced.
    fn archived_part(&self, below: i64) -> Vec<Held> {
        let record = |at: i64| Held {
            partition: 0,
            offset: at,
            timestamp: Some(START + at * HOUR),
            key: Some(at.to_string().into_bytes()),
            value: Some(format!("value {at}").into_bytes()),
            headers: Vec::new(),
        };
        (0..below).map(record).collect()
    }
}

#[tokio::test]
async fn given_a_saved_plan_when_it_is_applied_later_then_it_reads_what_was_planned_or_fails() {
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, 2, 40).await;
    both.archive(&[(0, 0, 30), (1, 0, 30)]).await;
    let expected = both.content();
    both.replay.world.run(&["plan", Replay::SPEC, "--out", "plan.json"]).await.with(0);
    (0..2).for_each(|partition| drop(broker.produce(&both.topic, &records(partition, 40..60))));
    both.archive(&[(0, 30, 50), (1, 30, 50)]).await;
    both.broker.delete_records(&both.topic, 0, 30).await;
    let report = both.replay.world.run_local("plan.json", &[]).await.with(0).json();
    both.replay.must_balance(&report);
    both.replay.must_hold(&expected);

    let both = Both {
        replay: both.replay.with("/name", "again".into()).with("/outputs/events/table", "lake.again".into()),
        ..both
    };
    both.replay.world.run(&["plan", Replay::SPEC, "--out", "later.json"]).await.with(0);
    both.broker.delete_records(&both.topic, 1, 55).await;
    both.replay.world.run_local("later.json", &[]).await.with(4).saying(&["retention has removed", "partition 1"]);
}

#[tokio::test]
async fn given_a_topic_that_lost_its_beginning_when_it_is_planned_alone_then_the_plan_names_what_is_gone_and_the_archive()
 {
    let broker = Broker::shared().await;
    let both = Both::of(broker, 2, 40).await;
    both.broker.delete_records(&both.topic, 0, 10).await;
    both.broker.delete_records(&both.topic, 1, 5).await;
    let replay = Replay::of(broker, &both.topic);
    let plan = async |replay: &Replay| replay.world.run(&["plan", Replay::SPEC]).await;
    let at = window(START + 2 * HOUR, START + 30 * HOUR);
    let replay = replay.with("/window", at.clone());
    let said = plan(&replay).await.with(0);
    said.saying(&["the topic begins later", "offset 10", "in partition 0", "offset 5", "in partition 1", "hybrid"]);
    let replay = replay.scan(json!({"start": {"timestamp": at["from"]}}));
    plan(&replay).await.with(0).saying(&["the topic begins later", "hybrid"]);
    let replay = replay.scan(json!({"start": {"offsets": {"0": 2, "1": 4}}}));
    let refused = plan(&replay).await.with(4);
    refused.saying(&["partition 0", "8 are missing", "partition 1", "1 are missing", "hybrid: {archive"]);
}

#[tokio::test]
async fn given_workers_that_are_killed_while_both_are_read_then_every_record_is_there_once_and_the_journal_is_in_order()
{
    const WORKERS: [&str; 3] = ["w-1", "w-2", "w-3"];
    const PARTITIONS: i32 = 8;
    let broker = Broker::shared().await;
    let mut both = Both::of(broker, PARTITIONS, 3_000).await;
    // Of 16 days each: no wider than the drift.
    for from in [0, 400, 800, 1_200, 1_600] {
        both.archive(&(0..PARTITIONS).map(|partition| (partition, from, from + 400)).collect::<Vec<_>>()).await;
    }
    let expected = both.content();
    for partition in 0..PARTITIONS {
        both.broker.delete_records(&both.topic, partition, 1_000 + i64::from(partition) * 100).await;
    }
    let properties =
        json!({"bootstrap.servers": broker.bootstrap(), "queued.min.messages": "1", "fetch.message.max.bytes": "1000"});
    let mut both = both.with("live/kafka/properties", properties);
    both.replay = both
        .replay
        .with("/alignment", json!({"max_drift": "20d"}))
        .with("/sources/events/event_time", json!({"out_of_orderness": "1h"}))
        .with("/outputs/events/commit/every", "200ms".into());
    both.replay.world.start_coordinator().await;
    WORKERS.iter().for_each(|name| both.replay.world.start_worker(name, 1));
    let id = both.replay.world.apply(Replay::SPEC).await;
    let read = |backfill: &v1::Backfill| backfill.sources.iter().map(|source| source.rows_read).sum::<u64>();
    let mut killed = Vec::new();
    for (mark, name) in [(1, "w-1"), (6_000, "w-2"), (12_000, "w-3"), (18_000, "w-1")] {
        let reached = |backfill: &v1::Backfill| backfill.ended != 0 || read(backfill) >= mark;
        let seen = both.replay.world.until(&id, &format!("{mark} rows"), reached).await;
        if seen.ended != 0 {
            break;
        }
        let world = &mut both.replay.world;
        world.signal_worker(name, Signal::Kill);
        world.kill_worker(name);
        world.start_worker(name, 1);
        killed.push((read(&seen), name));
    }
    let last = both.replay.world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Succeeded, "{:?}", last.failure);
    assert!(killed.len() >= 2, "the run was over before it could be disturbed: {killed:?}");
    assert_eq!(last.imbalances, [""; 0]);
    assert_eq!(last.sources[0].found.as_ref().map(|found| found.rows_in_range), Some(24_000));
    both.replay.must_hold(&expected);
    both.replay
        .world
        .run(&["verify", &id])
        .await
        .with(0)
        .saying(&["24,000 in range = 24,000 read + 0 pruned + 0 gaps"]);
    let told = both.replay.world.run(&["handoff", &id, "--out", "handoff.json"]).await.with(0);
    let told: Value = serde_json::from_slice(&std::fs::read(both.replay.world.root().join("handoff.json")).unwrap())
        .unwrap_or_else(|bad| panic!("{bad}: {told:?}"));
    assert!(told.to_string().contains("\"next\":3000"), "{told}");
}

#[tokio::test]
async fn given_rows_of_either_side_without_event_time_when_replayed_then_they_are_dead_letters_and_all_is_accounted_for()
 {
    let broker = Broker::shared().await;
    let topic = Broker::name("json");
    broker.create_topic(&topic, 1, &[]).await;
    let record = |at: i64| {
        let time = if at % 10 == 3 { "null".to_owned() } else { format!("\"2024-01-01T00:00:{at:02}Z\"") };
        Record::to(0).value(format!("{{\"id\": {at}, \"ts\": {time}}}")).at(START + at)
    };
    broker.produce(&topic, &(0..40).map(record).collect::<Vec<_>>());
    let mut both = Both::on(broker, topic);
    let schema = json!([{"name": "id", "type": "bigint"}, {"name": "ts", "type": "timestamptz"}]);
    let format = json!({"type": "json", "schema": schema});
    let sql = "SELECT _kafka.partition AS source_partition, _kafka.offset AS source_offset, _kafka.timestamp AS source_time, \
               CAST(id AS INT) AS id, ts FROM events";
    both.archive_json(&format, sql).await;
    both.broker.produce(&both.topic, &(40..60).map(record).collect::<Vec<_>>());
    both.broker.delete_records(&both.topic, 0, 35).await;

    let mut both = both
        .with("archive/partition", "source_partition".into())
        .with("archive/offset", "source_offset".into())
        .with("archive/timestamp", "source_time".into())
        .with("live/kafka/format", format);
    both.replay = both
        .replay
        .with("/sources/events/event_time", json!({"column": "ts"}))
        .with("/sources/events/on_error", "dead_letter".into())
        .with("/sources/events/dead_letter", json!({"limit": "50%"}))
        .with("/outputs/events/sql", "SELECT id, ts, _kafka.offset AS o FROM events".into());
    let report = both.replay.run().await.with(0).json();
    both.replay.must_balance(&report);
    assert_eq!(report["sources"][0]["found"]["rows_in_range"], 60, "{report:#}");
    let catalog = both.replay.world.catalog();
    let mut rows: Vec<(i64, i64)> = read_table(&catalog, Replay::TABLE)
        .iter()
        .map(|row| (row["o"].as_i64().unwrap(), row["id"].as_i64().unwrap()))
        .collect();
    rows.sort_unstable();
    assert_eq!(rows, (0..60).filter(|at| at % 10 != 3).map(|at| (at, at)).collect::<Vec<_>>());
    let letters = read_table(&catalog, "lake.events__dead_letter");
    let of_topic = |row: &&Value| row["file"].as_str().unwrap().starts_with("kafka:");
    let mut live: Vec<i64> = letters.iter().filter(of_topic).map(|row| row["position"].as_i64().unwrap()).collect();
    live.sort_unstable();
    assert_eq!((letters.len(), live), (6, vec![43, 53]), "{letters:#?}");
}
