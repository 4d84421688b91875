//! Joins of real processes: the answer of one batch query, by the word of another engine, in state that stays small.
//!
//! That kills change nothing is shown where everything is killed (`cluster`, `failpoints`): their scenario joins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde_json::Value;
use tidegate_proto::v1;
use tidegate_tests::sandbox::{BEGIN, Chance, Check, DAY, Input, Other, Store, World, must_be_exact, root, write_file};

const HOUR: i64 = DAY / 24;
const SPEC: &str = "spec.yaml";

/// What is left in the shuffle store of a world.
fn waiting(world: &World) -> Vec<String> {
    fn files(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, found),
                false => found.push(path.display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    files(&world.root().join(".tidegate/shuffle"), &mut found);
    found
}

fn rfc3339(micros: i64) -> String {
    tidegate_common::time::EventTime::from_micros(micros).to_string()
}

/// A join of `plays` with `shows`, over `window`, with more said of it.
fn spec(name: &str, window: (i64, i64), sql: &str, alignment: &str, more: &str) -> String {
    format!(
        "version: 1\nkind: backfill\nname: {name}\nwindow: {{from: '{}', to: '{}'}}\n{alignment}sources:\n  \
         plays: {{files: {{path: 'plays/*.parquet'}}, event_time: {{column: ts}}}}\n  \
         shows: {{files: {{path: 'shows/*.parquet'}}, event_time: {{column: ts}}}}\noutputs:\n  \
         out:\n    table: lake.{}\n    sql: \"{sql}\"\n{more}",
        rfc3339(window.0),
        rfc3339(window.1),
        name.replace('-', "_")
    )
}

fn check(world: &World, name: &str, window: (i64, i64), reach: (i64, i64), sql: &str, id: &Value) -> Check {
    let files = |name: &str| vec![world.root().join(name).join("*.parquet").display().to_string()];
    Check {
        catalog: world.catalog(),
        table: format!("lake.{}", name.replace('-', "_")),
        branch: None,
        input: files("plays"),
        others: vec![Other { name: "shows", input: files("shows"), window: (window.0 + reach.0, window.1 + reach.1) }],
        query: Some(sql.replace("FROM plays p", "FROM input p")),
        time: "ts",
        window: Some(window),
        backfill: Some(id.as_str().unwrap().to_owned()),
        may_miss: None,
    }
}

/// Plays and shows of `days` days, one of the other's for each key now and then.
fn world(days: u32) -> World {
    let world = World::new();
    Input { folder: "plays", rows: 20_000, days, files: 8, unit: 500, seed: 1 }.write(world.root());
    Input { folder: "shows", rows: 8_000, days, files: 2, unit: 400, seed: 2 }.write(world.root());
    world
}

#[tokio::test]
async fn given_the_example_when_flights_are_joined_with_weather_then_each_is_there_once_with_its_weather() {
    let (world, example) = (World::new(), root().join("examples/flights"));
    world.take_example();
    world.write(SPEC, &fs::read_to_string(example.join("joined.yaml")).unwrap());
    let report = world.run_local(SPEC, &[]).await.with(0).json();

    let files = |name: &str| vec![world.root().join(name).join("*.parquet").display().to_string()];
    let all = (0, 4_000_000_000_000_000);
    let sql = "SELECT f.time_hour, f.carrier, f.flight, f.origin, f.dest, f.dep_delay, w.temp, w.wind_speed, w.visib \
               FROM input f LEFT JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour";
    let table = |query: String| Check {
        catalog: world.catalog(),
        table: "air.flights_weather".to_owned(),
        branch: None,
        input: files("flights"),
        others: vec![Other { name: "weather", input: files("weather"), window: all }],
        query: Some(query),
        time: "time_hour",
        window: None,
        backfill: Some(report["id"].as_str().unwrap().to_owned()),
        may_miss: None,
    };
    let found = must_be_exact(&[table(sql.to_owned())]);
    assert_eq!(found[0].rows, 336_776);
    let without = tidegate_tests::sandbox::read_table(&world.catalog(), "air.flights_weather");
    let bare = |row: &&Value| ["temp", "wind_speed", "visib"].iter().all(|column| row[*column].is_null());
    assert_eq!(without.iter().filter(bare).count(), 1_556, "flights without weather");
    let join = &report["outputs"][0]["join"];
    assert_eq!((&join["slices_done"], &join["live_bytes"]), (&join["slices"], &0.into()), "{join}");
    assert_eq!(waiting(&world), [""; 0]);
}

#[tokio::test]
async fn given_the_example_of_impressions_and_plays_when_run_then_each_play_was_led_to_or_was_not() {
    let world = World::new();
    let plays = |table: &str, spec: &str| {
        let text = fs::read_to_string(root().join("examples/impressions").join(spec)).unwrap();
        world.write(SPEC, &text);
        let table = table.to_owned();
        let world = &world;
        async move {
            world.run_local(SPEC, &[]).await.with(0);
            let rows = tidegate_tests::sandbox::read_table(&world.catalog(), &table);
            rows.iter().map(|row| row["play"].as_i64().unwrap()).collect::<Vec<_>>()
        }
    };
    let attributed = plays("media.attributed", "attributed.yaml").await;
    let unseen = plays("media.unseen", "unseen.yaml").await;
    assert_eq!((attributed.len(), unseen.len()), (228_552, 161));
    let led: BTreeSet<i64> = attributed.into_iter().collect();
    let not: BTreeSet<i64> = unseen.into_iter().collect();
    assert_eq!((not.len(), led.len() + not.len()), (161, 8_639), "each play of the window is in one of them");
    assert!(led.is_disjoint(&not));
}

#[tokio::test]
async fn given_windows_of_event_time_when_rows_are_counted_in_them_then_each_is_there_once_and_whole() {
    let (world, example) = (World::new(), root().join("examples/flights"));
    world.take_example();
    let hourly = fs::read_to_string(example.join("hourly.yaml")).unwrap();
    // By a window of another width, over a join, with what is counted of the other side.
    let windy =
        "name: windy\nwindow: {from: 2013-01-01T00:00:00Z, to: 2014-01-01T00:00:00Z}\nalignment: {max_drift: 10d}\n";
    let joined = hourly
        .lines()
        .take_while(|line| !line.starts_with("outputs"))
        .filter(|line| !line.starts_with("name") && !line.starts_with("window"))
        .collect::<Vec<_>>()
        .join("\n");
    let sql = "SELECT date_trunc('day', f.time_hour) AS day, f.origin, count(*) AS flights, count(w.wind_speed) AS measured, \
               count(DISTINCT f.carrier) AS carriers FROM flights f LEFT JOIN weather w ON f.origin = w.origin \
               AND f.time_hour = w.time_hour GROUP BY 1, f.origin HAVING count(*) > 10";
    let weather = "\n  weather:\n    files: {path: weather/*.parquet}\n    event_time: {column: time_hour}\n";
    let outputs = format!("outputs:\n  windy:\n    table: air.windy\n    sql: \"{sql}\"\n");
    world.write("windy.yaml", &format!("{joined}{weather}{windy}{outputs}"));
    world.write(SPEC, &hourly);
    let mut ids = Vec::new();
    for spec in [SPEC, "windy.yaml"] {
        let report = world.run_local(spec, &[("TIDEGATE_WORKER_SLOTS", "2")]).await.with(0).json();
        let join = &report["outputs"][0]["join"];
        assert!(join["slices"].as_u64() > Some(4), "{join}");
        ids.push(report["id"].as_str().unwrap().to_owned());
    }
    let files = |name: &str| vec![world.root().join(name).join("*.parquet").display().to_string()];
    let table = |table: &str, query: &str, id: &String, window| Check {
        catalog: world.catalog(),
        table: table.to_owned(),
        branch: None,
        input: files("flights"),
        others: vec![Other { name: "weather", input: files("weather"), window: (0, 4_000_000_000_000_000) }],
        query: Some(query.replace("FROM flights", "FROM input")),
        time: "time_hour",
        window,
        backfill: Some(id.clone()),
        may_miss: None,
    };
    let by_hour = "SELECT time_bucket(INTERVAL '1 hour', time_hour) AS hour, origin, count(*) AS flights, \
                   count(dep_delay) AS departed, avg(dep_delay) AS mean_delay, max(dep_delay) AS longest_delay \
                   FROM flights GROUP BY 1, origin";
    let (from, to) = (1_356_998_400_000_000, 1_388_534_400_000_000);
    let found = must_be_exact(&[
        table("air.flights_hourly", by_hour, &ids[0], None),
        table("air.windy", sql, &ids[1], Some((from, to))),
    ]);
    assert!(found[0].rows > 10_000 && found[1].rows > 1_000, "{found:?}");
    world.write(SPEC, &hourly.replace("to: 2014-01-01", "to: 2013-06-01T00:30:00Z"));
    world.run_local(SPEC, &[]).await.with(3).saying(&["2013-06-01T01:00:00Z"]);
}

#[tokio::test]
async fn given_two_windows_next_to_each_other_when_each_is_joined_then_they_add_up_to_one() {
    let world = world(40);
    let sql = "SELECT p.ts, p.id, s.id AS show, s.amount FROM plays p JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '4' HOUR AND p.ts + INTERVAL '1' HOUR";
    // The cut is within a day, an hour and a unit.
    let cut = BEGIN + 17 * DAY + 12_345_678_901;
    let (from, to) = (BEGIN + DAY, BEGIN + 39 * DAY);
    let mut checks = Vec::new();
    for (name, window) in [("first", (from, cut)), ("second", (cut, to)), ("both", (from, to))] {
        world.write(SPEC, &spec(name, window, sql, "alignment: {max_drift: 3d}\n", ""));
        let report = world.run_local(SPEC, &[]).await.with(0).json();
        checks.push(check(&world, name, window, (-4 * HOUR, HOUR), sql, &report["id"]));
    }
    let found = must_be_exact(&checks);
    assert!(found[0].rows > 100 && found[1].rows > 100, "{found:?}");
    assert_eq!(found[0].rows + found[1].rows, found[2].rows);
}

#[tokio::test]
async fn given_slices_and_buckets_of_any_size_when_joined_then_the_answer_is_the_same() {
    let world = world(20);
    let sql = "SELECT p.ts, p.id, s.id AS show FROM plays p LEFT JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '2' HOUR AND p.ts WHERE p.id % 3 = 0";
    let window = (BEGIN + DAY, BEGIN + 19 * DAY);
    let mut checks = Vec::new();
    for (name, join) in
        [("one", "{slice: 30d}"), ("narrow", "{slice: 5h, buckets: 7}"), ("odd", "{slice: 1d, buckets: 1}")]
    {
        let more = format!("    join: {join}\n");
        world.write(SPEC, &spec(name, window, sql, "", &more));
        let report = world.run_local(SPEC, &[]).await.with(0).json();
        assert_eq!(report["outputs"][0]["join"]["buckets"], if name == "narrow" { 7 } else { 1 }, "{name}");
        checks.push(check(&world, name, window, (-2 * HOUR, 0), sql, &report["id"]));
    }
    must_be_exact(&checks);
}

#[tokio::test]
async fn given_little_memory_and_one_hot_key_when_joined_then_it_ends_and_is_exact() {
    let world = World::new();
    let mut chance = Chance::new(5);
    // Half of all rows have one key, and meet hundreds each.
    let mut rows = |folder: &str, count: i64, first: i64| {
        fs::create_dir_all(world.root().join(folder)).unwrap();
        let key = |chance: &mut Chance| {
            if chance.below(2) == 0 { "hot".to_owned() } else { format!("k{}", chance.below(50)) }
        };
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new((first..first + count).collect::<Int64Array>())),
            (
                "ts",
                Arc::new(
                    (0..count)
                        .map(|row| Some(BEGIN + DAY + row * (2 * DAY / count)))
                        .collect::<TimestampMicrosecondArray>()
                        .with_timezone("UTC"),
                ),
            ),
            ("key", Arc::new((0..count).map(|_| Some(key(&mut chance))).collect::<StringArray>())),
            (
                "note",
                Arc::new(
                    (0..count).map(|_| Some(format!("{:016x}", chance.next()).repeat(20))).collect::<StringArray>(),
                ),
            ),
        ];
        write_file(
            &world.root().join(folder).join("part.parquet"),
            &RecordBatch::try_from_iter(columns).unwrap(),
            1_000,
        );
    };
    rows("plays", 20_000, 0);
    rows("shows", 20_000, 1_000_000);
    let sql = "SELECT p.ts, p.id, s.id AS show, s.note FROM plays p JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '2' MINUTE AND p.ts";
    let window = (BEGIN + DAY, BEGIN + 3 * DAY);
    world.write(SPEC, &spec("tight", window, sql, "", "    join: {slice: 30d, buckets: 1}\n"));
    let env = [("TIDEGATE_WORKER_MEMORY", "16MiB"), ("TIDEGATE_WORKER_SLOTS", "2")];
    let report = world.run_local(SPEC, &env).await.with(0).json();
    must_be_exact(&[check(&world, "tight", window, (-HOUR / 30, 0), sql, &report["id"])]);
}

/// Forty rows of one source for each of the other, whose rows are wide: what waits is mostly those.
fn skewed() -> World {
    let world = World::new();
    Input { folder: "plays", rows: 200_000, days: 80, files: 20, unit: 200, seed: 3 }.write(world.root());
    fs::create_dir_all(world.root().join("shows")).unwrap();
    let mut chance = Chance::new(4);
    let count: i64 = 5_000;
    let mut wide = || (0..1024).map(|_| format!("{:016x}", chance.next())).collect::<String>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "ts",
            Arc::new(
                (0..count)
                    .map(|row| Some(BEGIN + row * (80 * DAY / count)))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ),
        ("key", Arc::new((0..count).map(|row| Some(format!("k{}", row % 97))).collect::<StringArray>())),
        ("note", Arc::new((0..count).map(|_| Some(wide())).collect::<StringArray>())),
    ];
    write_file(&world.root().join("shows/part.parquet"), &RecordBatch::try_from_iter(columns).unwrap(), 5);
    world
}

#[tokio::test]
async fn given_sources_of_very_different_size_when_they_are_aligned_then_a_tenth_waits_and_never_more_than_the_bound() {
    let world = skewed();
    let sql = "SELECT p.ts, p.id, length(s.note) AS long FROM plays p JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '1' HOUR AND p.ts";
    let window = (BEGIN + DAY, BEGIN + 79 * DAY);
    let slice = "    join: {slice: 3h}\n";
    let mut peaks = Vec::new();
    for (name, alignment, more) in [
        ("aligned", "alignment: {max_drift: 3h}\n", slice),
        ("free", "", slice),
        ("all", "", "    join: {slice: 80d}\n"),
    ] {
        world.write(SPEC, &spec(name, window, sql, alignment, more));
        let env = [("TIDEGATE_WORKER_SLOTS", "1")];
        let report = world.run_local(SPEC, &env).await.with(0).json();
        let join = &report["outputs"][0]["join"];
        assert_eq!(waiting(&world), [""; 0]);
        peaks.push(join["peak_bytes"].as_f64().unwrap());
    }
    println!("most that waited: {peaks:?}");
    let [aligned, free, all] = peaks[..] else { panic!("{peaks:?}") };
    assert!(aligned * 10.0 <= free, "aligned {aligned}, free {free}, everything {all}");
    // Drift, slice, reach, and what one hand-in spans: a slice, cut where a unit ends, which is a twelfth of a day; and a
    // slice waits for the whole cell that it meets a part of. What begins no run comes on top: a quarter of a MiB.
    let days = (3.0 + 3.0 + 1.0 + (3.0 + 2.0) + 3.0) / 24.0;
    let bound = all * days / 78.0 * 1.1 + f64::from(256 << 10);
    assert!(aligned <= bound, "{aligned} bytes waited, and the bound is {bound} of {all}");
}

#[tokio::test]
async fn given_a_shuffle_store_in_a_bucket_when_workers_share_it_then_the_answer_is_exact_and_the_bucket_empty() {
    let store = Store::shared().await;
    store.make("waiting-rows");
    let mut world = world(20);
    for (name, value) in [
        ("TIDEGATE_WORKER_SHUFFLE", "s3://waiting-rows/below/this".to_owned()),
        ("AWS_ENDPOINT_URL", store.endpoint()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "any".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "any".to_owned()),
    ] {
        world.set_env(name, &value);
    }
    let sql = "SELECT p.ts, p.id, s.id AS show FROM plays p LEFT JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '2' HOUR AND p.ts";
    let window = (BEGIN + DAY, BEGIN + 19 * DAY);
    world.write(SPEC, &spec("bucket", window, sql, "", "    join: {slice: 3d, buckets: 3}\n"));
    world.start_coordinator().await;
    for name in ["w-1", "w-2"] {
        world.start_worker(name, 2);
    }
    let id = world.apply(SPEC).await;
    let last = world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Succeeded, "{:?}", last.failure);
    must_be_exact(&[check(&world, "bucket", window, (-2 * HOUR, 0), sql, &last.id.into())]);
    assert_eq!(store.keys("waiting-rows"), [""; 0]);
    assert_eq!(waiting(&world), [""; 0]);
}

#[tokio::test]
async fn given_rows_that_wait_when_the_backfill_is_cancelled_then_nothing_of_it_stays() {
    let mut world = skewed();
    let sql = "SELECT p.ts, p.id, s.note FROM plays p JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '1' HOUR AND p.ts";
    world.write(SPEC, &spec("stopped", (BEGIN + DAY, BEGIN + 79 * DAY), sql, "", "    join: {slice: 1d}\n"));
    world.start_coordinator().await;
    world.start_worker("w-1", 2);
    let id = world.apply(SPEC).await;
    let waits = |state: &v1::Backfill| {
        state.outputs.first().and_then(|output| output.join.as_ref()).is_some_and(|join| join.live_bytes > 0)
    };
    let seen = world.until(&id, "rows to wait", |state| waits(state) || state.ended != 0).await;
    assert_eq!(seen.ended, 0, "it is over before it could be cancelled");
    world.run(&["cancel", &id, "--yes", "--reason", "a test"]).await.with(0);
    let last = world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Cancelled);
    assert_eq!(waiting(&world), [""; 0]);
}

#[tokio::test]
async fn given_a_worker_with_a_store_of_its_own_when_it_joins_what_others_read_then_it_reads_that_again() {
    let mut world = skewed();
    let sql = "SELECT p.ts, p.id, s.note FROM plays p JOIN shows s ON p.key = s.key AND s.ts = p.ts";
    world.write(SPEC, &spec("apart", (BEGIN + DAY, BEGIN + 79 * DAY), sql, "", "    join: {slice: 1d}\n"));
    world.start_coordinator().await;
    world.start_worker_with("reader", 1, &[]);
    let id = world.apply(SPEC).await;
    let waits = |state: &v1::Backfill| state.outputs[0].join.as_ref().is_some_and(|join| join.live_bytes > 0);
    let seen = world.until(&id, "rows to wait", |state| waits(state) || state.ended != 0).await;
    assert_eq!(seen.ended, 0, "it is over before its worker could be killed");
    world.kill_worker("reader");
    world.start_worker_with("apart", 1, &[("TIDEGATE_WORKER_SHUFFLE", "elsewhere")]);
    let last = world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Succeeded, "{last:?}");
    assert!(last.outputs[0].join.as_ref().unwrap().regenerated > 0);
    must_be_exact(&[check(&world, "apart", (BEGIN + DAY, BEGIN + 79 * DAY), (0, 0), sql, &last.id.into())]);
}

#[tokio::test]
async fn given_a_join_that_cannot_be_answered_in_bounded_state_when_run_then_it_says_what_to_add() {
    let world = world(10);
    let window = (BEGIN + DAY, BEGIN + 9 * DAY);
    let join = "FROM plays p JOIN shows s ON p.key = s.key";
    for (sql, more, said) in [
        (format!("SELECT p.id {join}"), "", "is not bounded in event time"),
        (format!("SELECT p.id {join} AND s.ts <= p.ts"), "", "has no lower bound"),
        (format!("SELECT p.id {join} AND s.ts = p.ts ORDER BY 1"), "", "ORDER BY is refused"),
        (format!("SELECT p.id {join} AND s.ts = p.ts"), "    join: {slice: 1ms}\n", "make `join.slice` wider"),
        (format!("SELECT p.id {join} AND s.ts = p.ts"), "    join: {buckets: 0}\n", "1 to 1024 buckets"),
        (format!("SELECT p.id {join} AND s.ts = p.ts"), "    join: {slise: 1d}\n", "did you mean"),
    ] {
        world.write(SPEC, &spec("refused", window, &sql, "", more));
        world.run_local(SPEC, &[]).await.with(3).saying(&[said]);
    }
    let endless = spec("endless", window, &format!("SELECT p.id {join} AND s.ts = p.ts"), "", "");
    let lines: Vec<&str> = endless.lines().filter(|line| !line.starts_with("window")).collect();
    world.write(SPEC, &lines.join("\n"));
    world.run_local(SPEC, &[]).await.with(3).saying(&["it needs a window"]);
}
