//! Late rows, on a real broker: a partition whose last records are of long ago, when the slices that need them are joined.
//!
//! A worker with one slot makes it certain: a join that waits has the reader yield, and goes first, so that all but the
//! newest slices are joined when the last records are read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Record, Replay};
use tidegate_tests::sandbox::{BEGIN, Broker, Chance, World, read_table, write_file};

const HOUR: i64 = 3_600_000_000;
const HOURS: i64 = 24;
const IN_ORDER: i64 = 4_000;
const STRAYS: i64 = 40;

/// What is played, or shown.
#[derive(Clone, Debug)]
struct Row {
    id: i64,
    at: i64,
    key: String,
}

fn rfc3339(micros: i64) -> String {
    tidegate_common::time::EventTime::from_micros(micros).to_string()
}

fn window(from: i64, to: i64) -> Value {
    json!({"from": rfc3339(BEGIN + from * HOUR), "to": rfc3339(BEGIN + to * HOUR)})
}

/// Plays in order of their times, and behind them those of the second hour.
fn plays(chance: &mut Chance) -> Vec<Row> {
    let mut key = || format!("k{}", chance.below(40));
    let step = HOURS * HOUR / IN_ORDER;
    let in_order: Vec<Row> = (0..IN_ORDER).map(|id| Row { id, at: BEGIN + id * step, key: key() }).collect();
    let stray = |id: i64, key| Row { id: IN_ORDER + id, at: BEGIN + HOUR + id * HOUR / STRAYS, key };
    in_order.into_iter().chain((0..STRAYS).map(|id| stray(id, key()))).collect()
}

fn shows(chance: &mut Chance) -> Vec<Row> {
    let step = HOURS * HOUR / 600;
    (0..600).map(|id| Row { id, at: BEGIN + id * step + 7, key: format!("k{}", chance.below(40)) }).collect()
}

/// The world with its topic, its files, and a spec of two joins, one with the plays on either side, and a count of them.
struct Late {
    replay: Replay,
    plays: Vec<Row>,
    shows: Vec<Row>,
}

const ATTRIBUTED: &str = "SELECT e.ts, e.id, e.pad, s.id AS show FROM events e LEFT JOIN shows s ON s.key = e.key AND s.ts BETWEEN \
                          e.ts - INTERVAL '1' HOUR AND e.ts";
const SEEN: &str = "SELECT s.ts, s.id AS show, e.id, e.pad FROM shows s JOIN events e ON e.key = s.key AND e.ts BETWEEN s.ts - \
                    INTERVAL '1' HOUR AND s.ts";
const COUNTED: &str =
    "SELECT date_bin(INTERVAL '1' HOUR, ts) AS hour, count(*) AS n, max(pad) AS pad FROM events GROUP BY 1";

impl Late {
    async fn new(name: &str) -> Self {
        let broker = Broker::shared().await;
        let topic = Broker::name(name);
        broker.create_topic(&topic, 1, &[]).await;
        let mut chance = Chance::new(31);
        let (plays, shows) = (plays(&mut chance), shows(&mut chance));
        // What makes slices worth a task: rows that do not pack well.
        let mut pad = || (0..24).map(|_| format!("{:016x}", chance.next())).collect::<String>();
        let records: Vec<Record> = plays
            .iter()
            .map(|row| {
                let value = json!({"ts": rfc3339(row.at), "id": row.id, "key": row.key, "pad": pad()}).to_string();
                let written = BEGIN + row.id * (HOURS * HOUR / (IN_ORDER + STRAYS));
                Record::to(0).value(value).at(written / 1_000)
            })
            .collect();
        broker.produce(&topic, &records);
        let schema = json!([{"name": "ts", "type": "timestamptz"}, {"name": "id", "type": "bigint"},
                            {"name": "key", "type": "string"}, {"name": "pad", "type": "string"}]);
        let output =
            |table: &str, sql: &str| json!({"table": format!("lake.{table}"), "sql": sql, "join": {"slice": "1h"}});
        let by_hour = |table: &str, sql: &str, column: &str| {
            let mut output = output(table, sql);
            output["partition_by"] = json!([format!("hour({column})")]);
            output
        };
        let outputs = json!({
            "attributed": by_hour("attributed", ATTRIBUTED, "ts"),
            "counted": by_hour("counted", COUNTED, "hour"),
            "seen": by_hour("seen", SEEN, "ts"),
        });
        let replay = Replay::of(broker, &topic)
            .with("/window", window(0, HOURS))
            .with("/alignment", json!({"max_drift": "4h"}))
            .with("/sources/events/kafka/format", json!({"type": "json", "schema": schema}))
            .with(
                "/sources/events/event_time",
                json!({"column": "ts", "out_of_orderness": "10m", "on_disorder": "allow"}),
            )
            .with("/sources/shows", json!({"files": {"path": "shows/*.parquet"}, "event_time": {"column": "ts"}}))
            .with("/outputs", outputs);
        write_shows(&replay.world, &shows);
        Self { replay, plays, shows }
    }

    /// With a coordinator, and a worker of one slot.
    async fn started(mut self) -> Self {
        self.replay.world.start_coordinator().await;
        self.replay.world.start_worker("w-1", 1);
        self
    }

    fn world(&self) -> &World {
        &self.replay.world
    }

    fn rows(&self, table: &str) -> Vec<Value> {
        read_table(&self.world().catalog(), &format!("lake.{table}"))
    }

    /// Plays and shows that meet, where the show is at most an hour before (`back`) or behind.
    fn pairs(&self, plays: &[Row], back: bool) -> BTreeMap<i64, BTreeSet<i64>> {
        let met = |play: &Row, show: &Row| {
            let late = if back { play.at - show.at } else { show.at - play.at };
            play.key == show.key && (0..=HOUR).contains(&late)
        };
        let shows = |play: &Row| self.shows.iter().filter(|show| met(play, show)).map(|show| show.id).collect();
        plays.iter().map(|play| (play.id, shows(play))).collect()
    }

    /// Wants the three tables to hold what one query over `attributed`, `seen` and `counted` plays gives.
    fn must_hold(&self, [attributed, seen, counted]: [&[Row]; 3]) {
        let pairs = |table: &str| -> Vec<(i64, Option<i64>)> {
            let mut pairs: Vec<_> =
                self.rows(table).iter().map(|row| (row["id"].as_i64().unwrap(), row["show"].as_i64())).collect();
            pairs.sort_unstable();
            pairs
        };
        let met = |(id, shows): (i64, BTreeSet<i64>)| shows.into_iter().map(move |show| (id, Some(show)));
        let mut left: Vec<(i64, Option<i64>)> = Vec::new();
        for (id, shows) in self.pairs(attributed, true) {
            match shows.is_empty() {
                true => left.push((id, None)),
                false => left.extend(met((id, shows))),
            }
        }
        left.sort_unstable();
        assert_eq!(pairs("attributed"), left, "every play with its shows");
        let mut inner: Vec<_> = self.pairs(seen, false).into_iter().flat_map(met).collect();
        inner.sort_unstable();
        assert_eq!(pairs("seen"), inner, "every show with its plays");
        let mut hours: BTreeMap<i64, i64> = BTreeMap::new();
        counted.iter().for_each(|row| *hours.entry((row.at - BEGIN) / HOUR).or_default() += 1);
        let mut found: Vec<i64> = self.rows("counted").iter().map(|row| row["n"].as_i64().unwrap()).collect();
        let mut wanted: Vec<i64> = hours.into_values().collect();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "the plays of each hour");
    }
}

fn write_shows(world: &World, shows: &[Row]) {
    let folder = world.root().join("shows");
    fs::create_dir_all(&folder).unwrap();
    let times = TimestampMicrosecondArray::from_iter_values(shows.iter().map(|row| row.at)).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(shows.iter().map(|row| row.id)))),
        ("ts", Arc::new(times)),
        ("key", Arc::new(StringArray::from_iter_values(shows.iter().map(|row| &row.key)))),
    ];
    write_file(&folder.join("all.parquet"), &RecordBatch::try_from_iter(columns).unwrap(), 25);
}

/// The plays in late rows, by what stands in `row`.
fn ids(rows: &[Value]) -> Vec<i64> {
    let id = |row: &Value| serde_json::from_str::<Value>(row["row"].as_str().unwrap()).unwrap()["id"].clone();
    // What only counts does not use the id; its rows are told by their times.
    let of = |row: &Value| id(row).as_i64().unwrap_or_else(|| panic!("{row}"));
    let mut ids: Vec<i64> = rows.iter().map(of).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn given_rows_that_come_when_their_slices_are_joined_then_they_are_in_their_table_and_the_answer_is_that_of_all_others()
 {
    let late = Late::new("late").await.started().await;
    let world = late.world();
    world.run(&["plan", Replay::SPEC]).await.with(0).saying(&["lake.seen__late", "the late rows of seen"]);
    let ended = world.run(&["apply", Replay::SPEC, "--yes", "-o", "json"]).await.with(0);
    let report = ended.json();
    late.replay.must_balance(&report);

    // The strays, and nothing else, are late; everything else is in the answer.
    let in_order = &late.plays[..usize::try_from(IN_ORDER).unwrap()];
    let strays: Vec<i64> = (IN_ORDER..IN_ORDER + STRAYS).collect();
    late.must_hold([in_order; 3]);
    for table in ["attributed__late", "seen__late"] {
        assert_eq!(ids(&late.rows(table)), strays, "{table}");
    }
    let counted = late.rows("counted__late");
    assert_eq!(counted.len(), strays.len());
    let hour = |row: &Value, column: &str| row[column].as_str().unwrap()[11..13].to_owned();
    assert!(counted.iter().all(|row| hour(row, "event_time") == "01"), "{counted:?}");
    // A play of the second hour is met by shows of that and of the next.
    for (table, to, most) in
        [("attributed__late", "02", HOUR), ("seen__late", "03", 2 * HOUR), ("counted__late", "02", HOUR)]
    {
        for row in late.rows(table) {
            assert_eq!((hour(&row, "slice_from"), hour(&row, "slice_to")), ("01".to_owned(), to.to_owned()), "{row}");
            assert_eq!(
                (&row["late_micros"], &row["source"], &row["backfill"]),
                (&most.into(), &"events".into(), &report["id"])
            );
        }
    }

    // Everybody who counts says the same.
    let id = report["id"].as_str().unwrap();
    world.run(&["verify", id]).await.with(0).saying(&["40 late", "40 late rows = 40 kept", "everything matches"]);
    world.run(&["status", id]).await.with(0).saying(&["40 rows of events: 40 <6h; at most 1h, missed by 1 window"]);
    let listed = world.run(&["late", "list", id, "-o", "json"]).await.with(0).json();
    let items = listed["items"].as_array().unwrap();
    let said: Vec<_> =
        items.iter().map(|one| (one["output"].as_str().unwrap(), one["rows"].as_u64().unwrap())).collect();
    assert_eq!(said, [("attributed", 40), ("counted", 40), ("seen", 40)]);
    let missed = |from: i64, to: i64| json!([{"from": rfc3339(BEGIN + from * HOUR), "to": rfc3339(BEGIN + to * HOUR)}]);
    assert_eq!((&items[0]["missed_by"], &items[2]["missed_by"]), (&missed(1, 2), &missed(1, 3)));
    let list = world.run(&["late", "list", id]).await.with(0);
    list.saying(&[
        "--window 2024-01-01T01:00:00Z/2024-01-01T03:00:00Z",
        "`mode: replace_window` at seen",
        "`mode: replace_window` at counted",
    ]);

    let lines = |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let exported = world.run(&["late", "export", id, "--of", "seen"]).await.with(0);
    assert_eq!(ids(&lines(&exported.stdout)), strays);
    world.run(&["late", "export", id, "--out", "late.jsonl"]).await.with(0).saying(&["120 late rows"]);
    assert_eq!(lines(&fs::read_to_string(world.root().join("late.jsonl")).unwrap()).len(), 120);
    world.run(&["late", "export", id, "--out", "late.jsonl"]).await.with(1).saying(&["name a new file"]);
    world.run(&["late", "export", id, "--of", "events"]).await.with(2).saying(&["it has attributed, counted, seen"]);

    take_in(&late).await;
}

/// A backfill of just the windows that went without late rows gives the answer of all rows.
async fn take_in(late: &Late) {
    let mut spec: Value =
        serde_json::from_str(&fs::read_to_string(late.world().root().join(Replay::SPEC)).unwrap()).unwrap();
    spec["name"] = "again".into();
    spec["sources"]["events"]["event_time"] = json!({"column": "ts", "out_of_orderness": "30h"});
    spec.as_object_mut().unwrap().remove("alignment");
    let outputs = spec["outputs"].as_object_mut().unwrap();
    outputs.values_mut().for_each(|output| output["mode"] = "replace_window".into());
    late.world().write("again.yaml", &spec.to_string());
    let window = format!("{}/{}", rfc3339(BEGIN + HOUR), rfc3339(BEGIN + 3 * HOUR));
    let report =
        late.world().run(&["apply", "again.yaml", "--window", &window, "--yes", "-o", "json"]).await.with(0).json();
    late.replay.must_balance(&report);
    late.must_hold([&late.plays, &late.plays, &late.plays]);
}

#[tokio::test]
async fn given_include_or_a_promise_of_order_when_rows_come_too_late_then_what_reads_them_is_parked_and_the_run_is_partial()
 {
    let mut late = Late::new("included").await;
    late.replay = late.replay.with("/outputs/seen/late", json!({"policy": "include"}));
    for output in ["attributed", "counted"] {
        late.replay = late.replay.with(&format!("/outputs/{output}/late"), json!({"policy": "drop"}));
    }
    let late = late.started().await;
    let ended = late.world().run(&["apply", Replay::SPEC, "--yes", "-o", "json"]).await.with(6);
    let report = ended.json();
    let said = report["parked"][0]["evidence"]["message"].as_str().unwrap().to_owned();
    let slices =
        "output seen: 40 rows of events came late: slices 1 to 2 of [2024-01-01T01:00:00Z, 2024-01-01T03:00:00Z)";
    assert!(said.starts_with(slices) && said.contains("`out_of_orderness`"), "{said}");
    assert_eq!(report["outputs"].as_array().unwrap().len(), 3, "nothing keeps late rows");
    late.world().run(&["late", "list", report["id"].as_str().unwrap()]).await.with(0).saying(&["no row of"]);
}

#[tokio::test]
async fn given_late_at_an_output_that_goes_row_by_row_then_it_is_refused_and_without_it_no_table_is_made() {
    let late = Late::new("row-by-row").await;
    let plain = json!({"plain": {"table": "lake.plain", "sql": "SELECT id, ts FROM events"}});
    let late = Late { replay: late.replay.with("/outputs", plain), ..late };
    // By a saved plan, in which no table of late rows stands.
    late.world().run(&["plan", Replay::SPEC, "--out", "plan.json"]).await.with(0);
    let report = late.world().run_local("plan.json", &[]).await.with(0).json();
    late.replay.must_balance(&report);
    assert_eq!(report["outputs"].as_array().unwrap().len(), 1, "{report:#}");
    assert!(!late.world().root().join("warehouse/lake/plain__late").exists());

    let late = Late { replay: late.replay.with("/outputs/plain/late", json!({"policy": "drop"})), ..late };
    late.replay.run().await.with(3).saying(&["output plain has `late`", "take `late` away"]);
}
