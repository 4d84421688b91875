//! The edges of joins of real processes: what is read to warm up, and how much may wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde_json::Value;
use tidegate_common::time::EventTime;
use tidegate_tests::sandbox::{BEGIN, Chance, Check, DAY, Input, Other, World, must_be_exact, write_file};

const HOUR: i64 = DAY / 24;
const SPEC: &str = "spec.yaml";
const SQL: &str = "SELECT p.ts, p.id, s.id AS show FROM plays p LEFT JOIN shows s ON p.key = s.key \
                   AND s.ts BETWEEN p.ts - INTERVAL '2' HOUR AND p.ts";

/// A join of `plays` with `shows` over `window`.
fn spec(name: &str, window: (i64, i64), sql: &str, join: &str) -> String {
    let time = |at: i64| EventTime::from_micros(at).to_string();
    let source =
        |name: &str| format!("  {name}: {{files: {{path: '{name}/*.parquet'}}, event_time: {{column: ts}}}}\n");
    format!(
        "version: 1\nkind: backfill\nname: {name}\nwindow: {{from: '{}', to: '{}'}}\nalignment: {{max_drift: 3d}}\n\
         sources:\n{}{}outputs:\n  out: {{table: lake.{name}, sql: \"{sql}\", join: {join}}}\n",
        time(window.0),
        time(window.1),
        source("plays"),
        source("shows")
    )
}

fn check(world: &World, name: &str, window: (i64, i64), id: &Value) -> Check {
    let files = |name: &str| vec![world.root().join(name).join("*.parquet").display().to_string()];
    Check {
        catalog: world.catalog(),
        table: format!("lake.{name}"),
        branch: None,
        input: files("plays"),
        others: vec![Other { name: "shows", input: files("shows"), window: (window.0 - 2 * HOUR, window.1) }],
        query: Some(SQL.replace("FROM plays p", "FROM input p")),
        time: "ts",
        window: Some(window),
        backfill: Some(id.as_str().unwrap().to_owned()),
        may_miss: None,
    }
}

#[tokio::test]
async fn given_a_warm_up_when_joined_then_more_is_read_no_more_waits_and_the_answer_is_the_same() {
    let world = World::new();
    Input { folder: "plays", rows: 10_000, days: 40, files: 4, unit: 100, seed: 1 }.write(world.root());
    Input { folder: "shows", rows: 10_000, days: 40, files: 4, unit: 100, seed: 2 }.write(world.root());
    let window = (BEGIN + 20 * DAY, BEGIN + 30 * DAY);
    let (mut checks, mut inputs) = (Vec::new(), Vec::new());
    for (name, join) in [("cold", "{slice: 6h}"), ("warm", "{slice: 6h, warm_up: 15d}")] {
        world.write(SPEC, &spec(name, window, SQL, join));
        let report = world.run_local(SPEC, &[]).await.with(0).json();
        checks.push(check(&world, name, window, &report["id"]));
        inputs.push(report["outputs"][0]["join"]["inputs"].clone());
    }
    let found = must_be_exact(&checks);
    assert_eq!(found[0].rows, found[1].rows);
    let figure = |run: usize, input: usize, what: &str| inputs[run][input][what].as_u64().unwrap();
    assert_eq!(inputs[0][0], inputs[1][0], "the anchor is read over the window");
    let (cold, warm) = (figure(0, 1, "rows_read"), figure(1, 1, "rows_read"));
    assert!(warm > cold + 3_000, "fifteen of forty days of 10,000 rows: {cold}, {warm}");
    assert_eq!(figure(0, 1, "rows_shuffled"), figure(1, 1, "rows_shuffled"), "and nothing of it waits");
    assert_eq!(figure(1, 1, "rows_filtered") - figure(0, 1, "rows_filtered"), warm - cold);
}

#[tokio::test]
async fn given_a_source_that_two_outputs_reach_into_differently_when_joined_then_each_keeps_what_it_meets() {
    let world = World::new();
    Input { folder: "plays", rows: 4_000, days: 40, files: 2, unit: 100, seed: 1 }.write(world.root());
    Input { folder: "shows", rows: 4_000, days: 40, files: 2, unit: 100, seed: 2 }.write(world.root());
    let window = (BEGIN + 30 * DAY, BEGIN + 32 * DAY);
    let far = SQL.replace("'2' HOUR", "'480' HOUR");
    let two = format!("{}  far: {{table: lake.far, sql: \"{far}\"}}\n", spec("near", window, SQL, "{slice: 6h}"));
    world.write(SPEC, &two);
    let report = world.run_local(SPEC, &[]).await.with(0).json();
    must_be_exact(&[check(&world, "near", window, &report["id"])]);
    let outputs = report["outputs"].as_array().unwrap();
    let shuffled = |name: &str| {
        let output = outputs.iter().find(|output| output["name"] == name).unwrap();
        output["join"]["inputs"][1]["rows_shuffled"].as_u64().unwrap()
    };
    // A hundred rows a day, over two days and two hours, and over 22 days; an hour of each is not exactly in order.
    assert!((200..220).contains(&shuffled("out")), "{}", shuffled("out"));
    assert!(shuffled("far") > 2_000, "{}", shuffled("far"));
}

#[tokio::test]
async fn given_more_than_may_wait_by_the_estimate_when_planned_or_run_then_it_is_refused_with_the_figures() {
    let world = World::new();
    Input { folder: "plays", rows: 10_000, days: 40, files: 4, unit: 100, seed: 1 }.write(world.root());
    Input { folder: "shows", rows: 10_000, days: 40, files: 4, unit: 100, seed: 2 }.write(world.root());
    let window = (BEGIN + 20 * DAY, BEGIN + 30 * DAY);
    world.write(SPEC, &spec("bounded", window, SQL, "{slice: 6h, budget: 1KiB}"));
    let said =
        ["output out: about ", "may wait in the shuffle store, and join.budget is 1 KiB", "or a budget of 1 MiB"];
    world.run(&["plan", SPEC]).await.with(4).saying(&said);
    world.run_local(SPEC, &[]).await.with(4).saying(&said);
    world.write(SPEC, &spec("bounded", window, SQL, "{slice: 6h, budget: 1MiB}"));
    world.run(&["plan", SPEC]).await.with(0).saying(&["of the 1.0 MiB that may", "rows of the anchor"]);
    let report = world.run_local(SPEC, &[]).await.with(0).json();
    must_be_exact(&[check(&world, "bounded", window, &report["id"])]);
}

#[tokio::test]
async fn given_rows_that_come_in_one_burst_when_more_wait_than_may_then_the_run_fails_and_says_how_to_go_on() {
    let world = World::new();
    Input { folder: "plays", rows: 4_000, days: 40, files: 4, unit: 100, seed: 1 }.write(world.root());
    fs::create_dir_all(world.root().join("shows")).unwrap();
    let mut chance = Chance::new(4);
    // A thousand rows of a KiB within an hour, and one of them weeks before and behind: an estimate by the day sees no burst.
    let burst = (0..1_000).map(|row| BEGIN + 20 * DAY + row * (HOUR / 1_000));
    let times: Vec<i64> = [BEGIN + 3 * DAY].into_iter().chain(burst).chain([BEGIN + 38 * DAY]).collect();
    let mut note = || (0..64).map(|_| format!("{:016x}", chance.next())).collect::<String>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(times.iter().copied().map(Some).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
        ("key", Arc::new(times.iter().map(|_| Some("k1")).collect::<StringArray>())),
        ("note", Arc::new(times.iter().map(|_| Some(note())).collect::<StringArray>())),
    ];
    write_file(&world.root().join("shows/part.parquet"), &RecordBatch::try_from_iter(columns).unwrap(), 1);
    let sql = "SELECT p.ts, p.id, length(s.note) AS long FROM plays p JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '2' HOUR AND p.ts";
    world.write(SPEC, &spec("burst", (BEGIN + 2 * DAY, BEGIN + 39 * DAY), sql, "{slice: 6h, budget: 200KiB}"));
    world.run(&["plan", SPEC]).await.with(0);
    let ended = world.run_local(SPEC, &[]).await.with(1);
    ended.saying(&["wait in the shuffle store, and join.budget is 200 KiB", "`retry` goes on", "`cancel` this one"]);
}
