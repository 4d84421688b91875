//! An archive of a topic and the topic as one source, on a real broker and real tables: whatever each of them still holds, the
//! table holds every record of the range once, or the run is refused and says what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Held, Isolation, Record, Replay};
use tidegate_tests::sandbox::{BEGIN, Broker};

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
