//! Records that cannot be used, among those that can: each is in a table once, whatever happens to the workers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde_json::Value;
use tidegate_proto::v1;
use tidegate_tests::sandbox::{BEGIN, World, must_balance, read_table, write_file};

const FILES: usize = 12;
const RECORDS: usize = 3_000;
const SPEC: &str = "version: 1
kind: backfill
name: torn
alignment: {max_drift: 400d}
sources:
  clicks:
    files: {path: 'clicks/*.csv', schema: &columns [{name: id, type: bigint}, {name: ts, type: timestamptz}, {name: note, type: varchar}]}
    event_time: {column: ts}
    on_error: dead_letter
    dead_letter: {limit: 3%}
  views:
    files: {path: 'views/*.jsonl', schema: *columns}
    event_time: {column: ts}
    on_error: dead_letter
    dead_letter: {table: lake.views_that_are_none, limit: LIMIT}
outputs:
  clicks: {table: lake.clicks, sql: SELECT * FROM clicks, commit: {every: 1ms}}
  views: {table: lake.views, sql: 'SELECT id, ts FROM views', commit: {every: 1ms}}
";

/// Where a record that cannot be used stands: its file, the byte where it begins, and its bytes in hexadecimal.
type Letter = (String, i64, String);

/// What was written.
#[derive(Default)]
struct Written {
    ids: BTreeSet<i64>,
    dead: BTreeSet<Letter>,
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Files of records one in fifty of which is broken, each in one of a few ways.
fn write(
    world: &World,
    folder: &str,
    ending: &str,
    header: &str,
    record: fn(usize, usize) -> (bool, String),
) -> Written {
    let mut written = Written::default();
    for file in 0..FILES {
        let mut text = header.to_owned();
        let path = world.root().join(folder).join(format!("{file:02}.{ending}"));
        for at in 0..RECORDS {
            let (is_good, record) = record(file, at);
            if is_good {
                written.ids.insert(i64::try_from(file * RECORDS + at).unwrap());
            } else {
                let place = path.display().to_string();
                written.dead.insert((place, i64::try_from(text.len()).unwrap(), hex(&record)));
            }
            let _ = writeln!(text, "{record}");
        }
        world.write(&format!("{folder}/{file:02}.{ending}"), &text);
    }
    written
}

fn click(file: usize, at: usize) -> (bool, String) {
    let (id, ts) = (file * RECORDS + at, format!("2024-{:02}-{:02}T00:00:00Z", file + 1, at % 28 + 1));
    match at % 200 {
        50 => (false, format!("{id},never,x")),
        100 => (false, format!("{id},{ts}")),
        150 => (false, format!("one{id},{ts},\"in\nquotes\"")),
        199 => (false, format!("{id},,no time")),
        _ => (true, format!("{id},{ts},\"a\n{id}\"")),
    }
}

fn view(file: usize, at: usize) -> (bool, String) {
    let (id, ts) = (file * RECORDS + at, format!("2024-{:02}-{:02}T00:00:00Z", file + 1, at % 28 + 1));
    match at % 150 {
        50 => (false, format!("{{\"id\":{id},\"ts\":\"{ts}\"")),
        100 => (false, format!("[{id}]")),
        149 => (false, format!("{{\"id\":{id}}}")),
        _ => (true, format!("{{\"id\":{id},\"ts\":\"{ts}\"}}")),
    }
}

fn letters(world: &World, table: &str, id: &str) -> Vec<Letter> {
    let text = |row: &Value, column: &str| row[column].as_str().unwrap().to_owned();
    let rows = read_table(&world.catalog(), table);
    for row in &rows {
        assert_eq!(row["backfill"], id, "{row}");
        assert!(!text(row, "error").is_empty() && row["read_at"].is_string(), "{row}");
        assert_eq!(row["raw_bytes"].as_u64().unwrap() * 2, text(row, "raw").len() as u64, "{row}");
    }
    rows.iter().map(|row| (text(row, "file"), row["position"].as_i64().unwrap(), text(row, "raw"))).collect()
}

fn must_hold(world: &World, table: &str, written: &Written) {
    let ids: Vec<i64> = read_table(&world.catalog(), table).iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), written.ids.len(), "{table}");
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), written.ids, "{table}");
}

fn must_keep(world: &World, table: &str, id: &str, written: &Written) {
    let kept = letters(world, table, id);
    assert_eq!(kept.len(), written.dead.len(), "{table}");
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), written.dead, "{table}");
}

fn of_source(backfill: &v1::Backfill) -> Vec<u64> {
    backfill.sources.iter().map(|source| source.rows_dead_letter).collect()
}

#[tokio::test]
async fn given_broken_records_when_workers_are_killed_on_the_way_then_each_is_kept_once_and_all_others_are_rows() {
    let mut world = World::new();
    let clicks = write(&world, "clicks", "csv", "id,ts,note\n", click);
    let views = write(&world, "views", "jsonl", "", view);
    world.write("spec.yaml", &SPEC.replace("LIMIT", "3%"));
    world.start_coordinator().await;
    world.start_worker("w-1", 1);
    let id = world.apply("spec.yaml").await;
    world.until(&id, "reading", |backfill| backfill.sources.iter().any(|source| source.rows_read > 0)).await;
    world.kill_worker("w-1");
    world.start_worker("w-2", 2);

    let last = world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Succeeded, "{:?}", last.failure);
    must_balance(&last);
    assert_eq!(of_source(&last), [clicks.dead.len() as u64, views.dead.len() as u64]);
    must_hold(&world, "lake.clicks", &clicks);
    must_hold(&world, "lake.views", &views);
    must_keep(&world, "lake.clicks__dead_letter", &last.id, &clicks);
    must_keep(&world, "lake.views_that_are_none", &last.id, &views);
    world.run(&["verify", &id]).await.with(0).saying(&["720 dead letters of clicks = 720 kept"]);
    world.run(&["status", &id, "--wait", "--timeout", "5s"]).await.with(0).saying(&["limit kept", "720 dead letters"]);
}

#[tokio::test]
async fn given_more_broken_records_than_expected_when_run_then_it_succeeds_with_exit_6_and_without_the_key_it_fails() {
    let world = World::new();
    write(&world, "clicks", "csv", "id,ts,note\n", click);
    let views = write(&world, "views", "jsonl", "", view);
    world.write("spec.yaml", &SPEC.replace("LIMIT", "10"));
    let ended = world.run_local("spec.yaml", &[]).await.with(6);
    let (phase, id) = (ended.json()["phase"].clone(), ended.json()["id"].as_str().unwrap().to_owned());
    assert_eq!(phase, "succeeded");
    must_keep(&world, "lake.views_that_are_none", &id, &views);

    let strict = SPEC.lines().filter(|line| !line.contains("dead_letter")).collect::<Vec<_>>().join("\n");
    world.write("strict.yaml", &strict.replace("name: torn", "name: strict").replace("lake.", "strict."));
    let failed = world.run_local("strict.yaml", &[]).await.with(4);
    failed.saying(&["line", "on_error: dead_letter"]);
    assert!(fs::read_dir(world.root().join("warehouse/strict")).is_ok());
}

/// Rows without event time: first of a Parquet file, then of an Iceberg table.
const COLUMNAR: &str = "version: 1
kind: backfill
name: NAME
sources:
  pages:
    SOURCE
    event_time: {column: ts}
    on_error: dead_letter
outputs:
  pages: {table: lake.NAME, sql: 'SELECT SQL FROM pages'}
";

#[tokio::test]
async fn given_rows_without_event_time_when_a_query_needs_few_columns_then_each_is_kept_with_all_of_them() {
    let world = World::new();
    let times: TimestampMicrosecondArray =
        (0..1000).map(|at| (at % 250 != 7).then_some(BEGIN + at * 1_000_000)).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..1000))),
        ("ts", Arc::new(times.with_timezone("UTC"))),
        ("note", Arc::new(StringArray::from_iter_values((0..1000).map(|at| format!("\"{at}\n"))))),
    ];
    write_file(&world.root().join("pages.parquet"), &RecordBatch::try_from_iter(columns).unwrap(), 100);
    let spec = |name: &str, source: &str, sql: &str| {
        COLUMNAR.replace("NAME", name).replace("SOURCE", source).replace("SQL", sql)
    };
    world.write("a.yaml", &spec("files", "files: {path: pages.parquet}", "id"));
    let ended = world.run_local("a.yaml", &[]).await.with(0).json();
    assert_eq!(ended["outputs"][0]["rows_committed"], 996);
    let kept = read_table(&world.catalog(), "lake.files__dead_letter");
    let mut places: Vec<_> = kept.iter().map(|row| (row["position"].as_i64(), row["row"].as_i64())).collect();
    places.sort_unstable();
    assert_eq!(places, [(0, 7), (2, 57), (5, 7), (7, 57)].map(|(group, row)| (Some(group), Some(row))));
    let first = kept.iter().find(|row| row["position"] == 0).unwrap();
    let raw = "{\"id\":7,\"ts\":null,\"note\":\"\\\"7\\n\"}";
    assert_eq!((&first["raw"], &first["raw_as"]), (&hex(raw).into(), &"row as json".into()));

    // A table with such rows, made by a query, is read in turn.
    let sql = "id, CASE WHEN id % 200 = 3 THEN NULL ELSE ts END AS ts, note";
    world.write("b.yaml", &spec("torn", "files: {path: pages.parquet}", sql));
    world.run_local("b.yaml", &[]).await.with(0);
    world.write("c.yaml", &spec("again", "iceberg: {table: lake.torn}", "id"));
    let ended = world.run_local("c.yaml", &[]).await.with(0).json();
    assert_eq!(ended["outputs"][0]["rows_committed"], 991);
    let raw: Vec<String> = read_table(&world.catalog(), "lake.again__dead_letter")
        .iter()
        .map(|row| row["raw"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(raw.len(), 5);
    assert!(raw.contains(&hex("{\"id\":403,\"ts\":null,\"note\":\"\\\"403\\n\"}")), "{raw:?}");
}
