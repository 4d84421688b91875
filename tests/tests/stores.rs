//! Sources and tables in buckets, by a server that speaks S3's protocol: the same rows as from a disk, and refusals that
//! name the bucket, the key and the way out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use serde_json::json;
use tidegate_tests::sandbox::{Check, Input, Store, World, judge, must_balance, must_be_exact, root};

const EXAMPLE: &str = "examples/flights";

fn check(world: &World, table: &str, input: String, query: &str, time: &'static str) -> Check {
    Check {
        catalog: world.catalog(),
        table: table.to_owned(),
        branch: None,
        input: vec![input],
        others: Vec::new(),
        query: Some(query.to_owned()),
        time,
        window: None,
        backfill: None,
        may_miss: None,
    }
}

fn example(folder: &str) -> String {
    root().join(EXAMPLE).join(folder).join("*.parquet").display().to_string()
}

/// Everything in the text that is a secret of the store.
fn leaks(store: &Store, world: &World) -> Vec<String> {
    let secrets = store.env().map(|(_, value)| value.to_owned());
    let mut found = Vec::new();
    let mut open = vec![world.root().to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let text = fs::read(&path).unwrap_or_default();
                let holds = |secret: &String| text.windows(secret.len()).any(|part| part == secret.as_bytes());
                found.extend(secrets.iter().filter(|secret| holds(secret)).map(|_| path.display().to_string()));
            }
        }
    }
    found
}

#[tokio::test]
async fn given_the_example_in_a_bucket_when_workers_replay_it_into_a_bucket_then_other_engines_find_every_row_once() {
    let store = Store::guarded().await;
    store.make("flights");
    for folder in ["flights", "weather"] {
        store.put_folder("flights", &format!("in/{folder}"), &root().join(EXAMPLE).join(folder));
    }
    store.guard();
    let mut world = World::in_store(&store, "flights");
    let storage = store.storage();
    let spec = fs::read_to_string(root().join(EXAMPLE).join("aligned.yaml")).unwrap();
    let spec = spec.replace(
        "{path: flights/*.parquet}",
        &format!("{{path: 's3://flights/in/*/2013-*.parquet', storage: {storage}}}"),
    );
    let spec =
        spec.replace("{path: weather/*.parquet}", &format!("{{path: 's3://flights/in/weather', storage: {storage}}}"));
    world.write("spec.yaml", &spec);
    world.start_coordinator().await;
    world.start_worker("w-1", 2);
    world.start_worker("w-2", 2);

    let id = world.apply("spec.yaml").await;
    let last = world.until_over(&id).await;

    assert!(last.failure.is_none(), "{:?}", last.failure);
    must_balance(&last);
    let whole = |name: &str| {
        let table = format!("air.{name}");
        Check {
            backfill: Some(last.id.clone()),
            ..check(&world, &table, example(name), "SELECT * FROM input", "time_hour")
        }
    };
    let found = must_be_exact(&[whole("flights"), whole("weather")]);
    assert_eq!(found.iter().map(|table| table.rows).collect::<Vec<_>>(), [336_776, 26_115]);

    let again = "version: 1
kind: backfill
name: from-the-lake
window: {from: 2013-02-01, to: 2013-04-01}
sources:
  flights: {iceberg: {table: air.flights}, event_time: {column: time_hour}}
outputs:
  copy: {table: air.copy, sql: 'SELECT time_hour, carrier, flight FROM flights'}
";
    world.write("again.yaml", again);
    let id = world.apply("again.yaml").await;
    let last = world.until_over(&id).await;
    assert!(last.failure.is_none(), "{:?}", last.failure);
    let query = "SELECT time_hour, carrier, flight FROM input \
                 WHERE time_hour >= TIMESTAMPTZ '2013-02-01 00:00:00+00' AND time_hour < TIMESTAMPTZ '2013-04-01 00:00:00+00'";
    must_be_exact(&[check(&world, "air.copy", example("flights"), query, "time_hour")]);
    world.run(&["verify", &last.id]).await.with(0).saying(&["rows read back from the files"]);
    world.run(&["table", "snapshots", "air.flights", "-o", "json"]).await.with(0);
    assert_eq!(leaks(&store, &world), [""; 0], "no secret is written anywhere");
}

#[tokio::test]
async fn given_csv_and_json_in_a_bucket_when_read_by_folder_and_by_glob_then_their_rows_are_those_of_the_files() {
    let store = Store::shared().await;
    store.make("lines");
    let mut rows = String::new();
    for day in 1..=9 {
        let (csv, json) = (
            format!("id,ts\n{day},2024-01-0{day}T00:00:00Z\n"),
            format!("{{\"id\":{day},\"ts\":\"2024-01-0{day}T00:00:00Z\"}}\n"),
        );
        store.put("lines", &format!("csv/month=1/day={day}/a.csv"), csv.as_bytes());
        store.put("lines", &format!("json/{day}.jsonl"), json.as_bytes());
        store.put("lines", &format!("json/_{day}.jsonl"), b"no data");
        rows.push_str(&csv);
    }
    let world = World::in_store(store, "lines");
    let storage = store.storage();
    world.write(
        "spec.yaml",
        &format!(
            "version: 1
kind: backfill
name: lines
sources:
  csv: {{files: {{path: 's3://lines/csv', schema: [{{name: id, type: bigint}}, {{name: ts, type: timestamptz}}], storage: {storage}}}, event_time: {{column: ts}}}}
  json: {{files: {{path: 's3://lines/json/*.jsonl', schema: [{{name: id, type: bigint}}, {{name: ts, type: timestamptz}}], storage: {storage}}}, event_time: {{column: ts}}}}
outputs:
  csv: {{table: lake.csv, sql: SELECT id FROM csv}}
  json: {{table: lake.json, sql: SELECT id FROM json}}
"
        ),
    );
    let env: Vec<_> = store.env().to_vec();
    world.run_local("spec.yaml", &env).await.with(0);
    let input = world.write("rows.csv", "").with_extension("parquet");
    let id = arrow::array::Int64Array::from_iter_values(1..=9);
    let rows = arrow::array::RecordBatch::try_from_iter([("id", std::sync::Arc::new(id) as arrow::array::ArrayRef)]);
    tidegate_tests::sandbox::write_file(&input, &rows.unwrap(), 9);
    let input = input.display().to_string();
    must_be_exact(
        &["csv", "json"].map(|name| check(&world, &format!("lake.{name}"), input.clone(), "SELECT * FROM input", "id")),
    );
}

/// A spec over a bucket; a case spoils it in one place.
const SOUND: &str = "version: 1
kind: backfill
name: refusals
sources:
  events: {files: {path: 's3://events/in/*.parquet', storage: STORAGE}, event_time: {column: ts}}
outputs:
  events: {table: lake.events, sql: SELECT * FROM events}
";

/// What is wrong: words of the spec or of the configuration and what stands there instead, variables; and how that is met.
struct Case {
    what: &'static str,
    spec: (&'static str, &'static str),
    config: (&'static str, &'static str),
    env: (&'static str, &'static str),
    code: i32,
    words: &'static [&'static str],
}

const SOUND_CASE: Case = Case { what: "", spec: ("", ""), config: ("", ""), env: ("", ""), code: 4, words: &[] };

const CASES: [Case; 10] = [
    Case {
        what: "no such bucket",
        spec: ("s3://events/", "s3://nowhere/"),
        words: &["source events", "s3://nowhere/in", "no such bucket"],
        ..SOUND_CASE
    },
    Case {
        what: "no such key",
        spec: ("in/*.parquet", "in/nowhere.parquet"),
        words: &["source events", "s3://events/in/nowhere.parquet"],
        ..SOUND_CASE
    },
    Case {
        what: "a glob that matches nothing",
        spec: ("in/*.parquet", "in/*.nothing"),
        words: &["source events", "s3://events/in/*.nothing"],
        ..SOUND_CASE
    },
    Case {
        what: "a wrong secret",
        env: ("TEST_STORE_SECRET", "wrong"),
        words: &["s3://events/in", "credentials"],
        ..SOUND_CASE
    },
    Case {
        what: "an unknown id",
        env: ("TEST_STORE_ID", "nobody"),
        words: &["s3://events/in", "credentials"],
        ..SOUND_CASE
    },
    Case {
        what: "a variable that is not set",
        spec: ("TEST_STORE_ID", "TEST_STORE_NOBODY"),
        code: 3,
        words: &["source events", "storage.access_key_id", "TEST_STORE_NOBODY"],
        ..SOUND_CASE
    },
    Case {
        what: "a store that is not there",
        spec: ("STORE", "127.0.0.1:1"),
        code: 75,
        words: &["s3://events/in", "does not answer"],
        ..SOUND_CASE
    },
    Case {
        what: "a warehouse in no bucket",
        config: ("s3://events/", "s3://nowhere/"),
        words: &["lake.events", "s3://nowhere/warehouse"],
        ..SOUND_CASE
    },
    Case {
        what: "a warehouse with a wrong key",
        config: (
            "\"secret_access_key\":{\"from_env\":\"TEST_STORE_SECRET\"}",
            "\"secret_access_key\":{\"from_env\":\"HOME\"}",
        ),
        words: &["lake.events", "s3://events/warehouse", "credentials", "SignatureDoesNotMatch"],
        ..SOUND_CASE
    },
    Case {
        what: "a warehouse without settings",
        config: ("storage", "storage_"),
        code: 2,
        words: &["tidegate.yaml", "storage_"],
        ..SOUND_CASE
    },
];

async fn is_refused(store: &Store, case: &Case) -> Result<(), String> {
    let world = World::in_store(store, "events");
    let authority = store.endpoint().replace("http://", "");
    let (part, instead) = case.spec;
    let storage = store.storage().to_string();
    let spec = SOUND.replace("STORAGE", &storage);
    let part = if part == "STORE" { authority } else { part.to_owned() };
    world.write("spec.yaml", &spec.replacen(&part, instead, usize::from(!part.is_empty())));
    let config = fs::read_to_string(world.root().join("tidegate.yaml")).unwrap();
    let (part, instead) = case.config;
    world.write("tidegate.yaml", &config.replacen(part, instead, usize::from(!part.is_empty())));
    let mut env = store.env().to_vec();
    env.push(case.env);
    env.retain(|(name, _)| !name.is_empty());
    let ended = world.run_local("spec.yaml", &env).await;
    let said = ended.said();
    let missing: Vec<_> = case.words.iter().filter(|word| !said.contains(**word)).collect();
    let leaked = said.contains(store.env()[1].1);
    if ended.code == Some(case.code) && missing.is_empty() && !said.contains("panicked") && !leaked {
        return Ok(());
    }
    Err(format!("{}: exit {:?}, expected {}; words missing: {missing:?}\n{said}", case.what, ended.code, case.code))
}

#[tokio::test]
async fn given_a_bucket_a_key_or_credentials_that_do_not_fit_when_run_then_it_is_refused_with_the_way_out() {
    let store = Store::guarded().await;
    store.make("events");
    let input = World::new();
    Input { folder: "in", rows: 200, days: 10, files: 2, unit: 20, seed: 7 }.write(input.root());
    store.put_folder("events", "in", &input.root().join("in"));
    store.guard();
    let cases = futures_of(&store).await;
    assert!(cases.is_empty(), "{} of {}:\n\n{}", cases.len(), CASES.len(), cases.join("\n"));

    let world = World::in_store(&store, "events");
    world.write("spec.yaml", &SOUND.replace("STORAGE", &store.storage().to_string()));
    let env = store.env().to_vec();
    world.run_local("spec.yaml", &env).await.with(0);
    let found = judge(&[check(
        &world,
        "lake.events",
        input.root().join("in/*.parquet").display().to_string(),
        "SELECT * FROM input",
        "ts",
    )]);
    assert!(found[0].problems.is_empty(), "nothing was half done: {found:?}");
    assert_eq!(json!(found[0].snapshots), 1);
}

async fn futures_of(store: &Store) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in CASES.chunks(2) {
        let (a, b) = (&pair[0], &pair[1]);
        let (a, b) = tokio::join!(is_refused(store, a), is_refused(store, b));
        wrong.extend([a, b].into_iter().filter_map(Result::err));
    }
    wrong
}
