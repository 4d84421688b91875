//! A topic replayed into a table that keeps each record's place beside its bytes, so that the one can be held against the
//! other: what tests of the Kafka source run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::oracle::read_table;
use super::super::world::{Ended, World};
use super::{Broker, Held};

/// The query of the output: whatever Kafka keeps of a record that has an order.
const SQL: &str =
    "SELECT _kafka.partition AS p, _kafka.offset AS o, CAST(_kafka.timestamp AS BIGINT) AS t, key, value FROM events";

/// A world with the spec of one backfill: the topic as source `events`, and the table `lake.events`.
#[derive(Debug)]
pub struct Replay {
    /// Where it happens.
    pub world: World,
    spec: Value,
}

impl Replay {
    /// The spec's file in the world.
    pub const SPEC: &str = "spec.yaml";
    /// The table.
    pub const TABLE: &str = "lake.events";

    /// Of all that is in `topic` when it is planned; as bytes, without alignment.
    ///
    /// # Panics
    /// When the world cannot be made.
    pub fn of(broker: &Broker, topic: &str) -> Self {
        let world = World::new();
        let host = broker.bootstrap().rsplit_once(':').map_or(broker.bootstrap(), |(host, _)| host);
        let file = world.root().join("tidegate.yaml");
        let mut config: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        config["allow"]["endpoints"].as_array_mut().unwrap().push(host.into());
        world.write("tidegate.yaml", &config.to_string());
        let properties = json!({"bootstrap.servers": broker.bootstrap()});
        let kafka = json!({"topic": topic, "properties": properties, "format": {"type": "raw"}});
        let output = json!({"table": Self::TABLE, "sql": SQL, "commit": {"every": "1ms"}});
        let spec = json!({
            "version": 1,
            "kind": "backfill",
            "name": "replay",
            "sources": {"events": {"kafka": kafka}},
            "outputs": {"events": output},
        });
        let replay = Self { world, spec };
        replay.write();
        replay
    }

    /// With `value` at the pointer `at` in the spec: `/window`, `/sources/events/event_time`.
    ///
    /// # Panics
    /// When there is nothing that it could stand in.
    #[must_use]
    pub fn with(mut self, at: &str, value: Value) -> Self {
        let (place, key) = at.rsplit_once('/').unwrap();
        self.spec.pointer_mut(place).unwrap_or_else(|| panic!("{place} is not in the spec"))[key] = value;
        self.write();
        self
    }

    /// With another range: `{"start": …, "stop": …}`.
    #[must_use]
    pub fn scan(self, scan: Value) -> Self {
        self.with("/sources/events/kafka/scan", scan)
    }

    /// With a setting of librdkafka.
    #[must_use]
    pub fn property(self, key: &str, value: &str) -> Self {
        self.with(&format!("/sources/events/kafka/properties/{key}"), value.into())
    }

    fn write(&self) {
        self.world.write(Self::SPEC, &format!("{:#}", self.spec));
    }

    /// Runs it to its end, in one process.
    pub async fn run(&self) -> Ended {
        self.world.run_local(Self::SPEC, &[]).await
    }

    /// Runs it to its end and wants it to be perfect: succeeded, its ledger balanced, and in the table exactly `expected`.
    ///
    /// # Panics
    /// When anything is wrong.
    pub async fn must_give(&self, expected: &[Held]) -> Value {
        let ended = self.run().await.with(0).json();
        self.must_balance(&ended);
        self.must_hold(expected);
        ended
    }

    /// Wants a report's ledger balanced at every edge.
    ///
    /// # Panics
    /// When one is not.
    pub fn must_balance(&self, report: &Value) {
        assert_eq!(report["phase"], "succeeded", "{report:#}");
        let edges = report["ledger"].as_array().unwrap();
        assert!(!edges.is_empty() && edges.iter().all(|edge| edge["balance"] == "balanced"), "{edges:#?}");
    }

    /// Plans it and dies when the plan, or with `prepared` its pins alone, are durable and before anything is read: what is
    /// done to the topic from now on happens while the range waits.
    ///
    /// # Panics
    /// When it does not die there.
    pub async fn run_to(&self, record: &str) {
        let point = format!("{record}.after-head");
        let died = self.world.run_local(Self::SPEC, &[("TIDEGATE_FAILPOINTS", &format!("{point}=abort@1"))]).await;
        assert_eq!((died.code, self.world.fired()), (None, vec![point]), "{died:?}");
    }

    /// Wants the table to hold exactly `expected`, each record once.
    ///
    /// # Panics
    /// With what is missing, foreign or there more than once.
    #[track_caller]
    pub fn must_hold(&self, expected: &[Held]) {
        self.must_hold_in(Self::TABLE, expected);
    }

    /// The same of another table.
    ///
    /// # Panics
    /// With what is missing, foreign or there more than once.
    #[track_caller]
    pub fn must_hold_in(&self, table: &str, expected: &[Held]) {
        let mut counts: BTreeMap<Row, (u32, u32)> = BTreeMap::new();
        expected.iter().for_each(|held| counts.entry(Row::of(held)).or_default().0 += 1);
        let rows = read_table(&self.world.catalog(), table);
        rows.iter().for_each(|row| counts.entry(Row::read(row)).or_default().1 += 1);
        let mut wrong: Vec<_> = counts.into_iter().filter(|(_, (wanted, found))| wanted != found).collect();
        let all = wrong.len();
        wrong.truncate(10);
        let what = format!("{all} of {} records are there another number of times than wanted", expected.len());
        assert!(wrong.is_empty(), "{what}; the first (record, (wanted, found)): {wrong:#?}");
    }
}

/// A record as the table keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    partition: i64,
    offset: i64,
    /// In microseconds.
    time: Option<i64>,
    key: Option<String>,
    value: Option<String>,
}

impl Row {
    fn of(held: &Held) -> Self {
        let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            partition: held.partition.into(),
            offset: held.offset,
            time: held.timestamp.map(|millis| millis * 1_000),
            key: held.key.as_ref().map(hex),
            value: held.value.as_ref().map(hex),
        }
    }

    fn read(row: &Value) -> Self {
        let number = |column: &str| row[column].as_i64();
        let text = |column: &str| row[column].as_str().map(str::to_owned);
        let (partition, offset) = (number("p").unwrap(), number("o").unwrap());
        Self { partition, offset, time: number("t"), key: text("key"), value: text("value") }
    }
}
