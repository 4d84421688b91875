//! What cannot work is refused with the exit code of the contract, in words that name the thing and the place, and
//! nothing is half done: no table has a snapshot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidegate_tests::sandbox::{BEGIN, Check, Input, World, judge, write_file};
use tokio::task::JoinSet;

/// A spec that works; a case spoils it in one place.
const SOUND: &str = "version: 1
kind: backfill
name: refusals
window: {from: 2024-01-01, to: 2024-02-01}
sources:
  events: {files: {path: 'in/*.parquet'}, event_time: {column: ts}}
outputs:
  events:
    table: lake.events
    sql: SELECT * FROM events
";

/// What is wrong, and how that must be met.
struct Case {
    /// In words.
    what: &'static str,
    /// A part of [`SOUND`] and what stands there instead.
    spoil: (&'static str, &'static str),
    /// What else is done to the world.
    prepare: fn(&World),
    /// The exit code.
    code: i32,
    /// Words of the message: the thing, the place, the way out.
    words: &'static [&'static str],
}

const fn case(
    what: &'static str,
    spoil: (&'static str, &'static str),
    code: i32,
    words: &'static [&'static str],
) -> Case {
    Case { what, spoil, prepare: |_| {}, code, words }
}

/// What is wrong with a spec is found before anything is asked of a coordinator.
const SPECS: [Case; 14] = [
    case("unknown key", ("sources:", "sorces:"), 3, &["spec.yaml:5:1", "sorces", "did you mean `sources`"]),
    case("unknown nested key", ("path:", "pth:"), 3, &["spec.yaml:6:20", "pth", "did you mean `path`"]),
    case("wrong type", ("version: 1", "version: [1]"), 3, &["spec.yaml:1:1", "version: 1"]),
    case("unknown kind", ("kind: backfill", "kind: backfil"), 3, &["spec.yaml:2:7", "backfil", "backfill"]),
    case("no YAML", ("kind: backfill", "kind: [backfill"), 3, &["spec.yaml:"]),
    case("end before start", ("to: 2024-02-01", "to: 2023-02-01"), 3, &["spec.yaml:4", "window"]),
    case("empty window", ("to: 2024-02-01", "to: 2024-01-01"), 3, &["spec.yaml:4", "window"]),
    case("no time", ("from: 2024-01-01", "from: soon"), 3, &["spec.yaml:4:16", "soon"]),
    case("a key twice", ("kind: backfill", "kind: backfill\nkind: backfill"), 3, &["spec.yaml:3:1", "kind"]),
    case(
        "a name twice",
        ("outputs:", "  events: {files: {path: other.parquet}, event_time: {column: ts}}\noutputs:"),
        3,
        &["spec.yaml:7:3", "events"],
    ),
    case("a path for a name", ("name: refusals", "name: ../../tmp/x"), 3, &["spec.yaml:3:7", "../../tmp/x"]),
    case("a path for a table", ("lake.events", "../lake.events"), 3, &["spec.yaml:9:12", "table"]),
    case(
        "a secret in clear",
        ("in/*.parquet'", "s3://b/*.parquet', storage: {secret_access_key: k}"),
        3,
        &["spec.yaml:6:", "from_env"],
    ),
    case(
        "two tables in one place",
        ("    sql", "  again:\n    table: lake.events\n    sql"),
        3,
        &["spec.yaml:", "`again`", "`events`"],
    ),
];

/// What only a look at the input, the SQL and the table shows.
const INPUTS: [Case; 17] = [
    case("missing file", ("in/*.parquet", "in/nowhere.parquet"), 4, &["source events", "in/nowhere.parquet"]),
    case("missing folder", ("in/*.parquet", "nowhere/"), 4, &["source events", "nowhere"]),
    case("a glob that matches nothing", ("in/*.parquet", "in/*.nothing"), 4, &["source events", "in/*.nothing"]),
    case("no such event-time column", ("column: ts", "column: when"), 3, &["source events", "when", "ts"]),
    case("an event time that is none", ("column: ts", "column: payload"), 3, &["source events", "payload"]),
    case("SQL that does not parse", ("SELECT *", "SELECT FROM WHERE"), 3, &["output events", "SQL"]),
    case("another table in the SQL", ("FROM events", "FROM passengers"), 3, &["output events", "passengers"]),
    case("no such column in the SQL", ("SELECT *", "SELECT ts, speed"), 3, &["output events", "speed"]),
    case("SQL that needs all rows", ("FROM events", "FROM events ORDER BY id"), 3, &["output events", "ORDER BY"]),
    case("another catalog", ("lake.events", "nowhere.lake.events"), 3, &["nowhere"]),
    case("no such column to partition by", ("    sql", "    partition_by: ['day(when)']\n    sql"), 3, &["when"]),
    Case {
        prepare: |world| cut(&world.root().join("in/part-001.parquet")),
        ..case("truncated Parquet", ("", ""), 4, &["in/part-001.parquet"])
    },
    Case {
        prepare: |world| drop(world.write("in/part-001.parquet", "id,ts\n1,2024-01-01\n")),
        ..case("no Parquet", ("", ""), 4, &["in/part-001.parquet"])
    },
    Case {
        prepare: |world| other_schema(&world.root().join("in/part-009.parquet")),
        ..case("files of different columns", ("", ""), 4, &["in/part-009.parquet", "id"])
    },
    Case {
        prepare: |world| drop(world.write("warehouse", "a file")),
        ..case("a warehouse that cannot be written", ("", ""), 4, &["warehouse"])
    },
    Case {
        prepare: |world| drop(world.write("catalog.db", &"no database ".repeat(1_000))),
        ..case("a catalog that is none", ("", ""), 4, &["catalog default"])
    },
    Case {
        prepare: |world| drop(world.write(".tidegate", "a file")),
        ..case("a state folder that is none", ("", ""), 4, &[".tidegate"])
    },
];

fn cut(file: &Path) {
    let length = fs::metadata(file).unwrap().len();
    fs::File::options().write(true).open(file).unwrap().set_len(length * 2 / 3).unwrap();
}

/// A file whose ids are no numbers.
fn other_schema(file: &Path) {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![Field::new("id", DataType::Boolean, false), Field::new("ts", utc, false)]);
    let id = Arc::new(arrow::array::BooleanArray::from(vec![true]));
    let ts = Arc::new(TimestampMicrosecondArray::from(vec![BEGIN]).with_timezone("UTC"));
    write_file(file, &RecordBatch::try_new(Arc::new(schema), vec![id, ts]).unwrap(), 1);
}

/// A world with input and a sound spec.
fn sound() -> World {
    let world = World::new();
    Input { folder: "in", rows: 200, days: 10, files: 3, unit: 20, seed: 7 }.write(world.root());
    world.write("spec.yaml", SOUND);
    world
}

fn no_commit(world: &World) -> Check {
    Check {
        catalog: world.catalog(),
        table: "lake.events".to_owned(),
        branch: None,
        input: Vec::new(),
        others: Vec::new(),
        query: None,
        time: "ts",
        window: None,
        backfill: None,
        may_miss: None,
    }
}

async fn is_refused(case: &'static Case) -> Result<World, String> {
    let world = sound();
    let (part, instead) = case.spoil;
    assert!(SOUND.contains(part), "{}", case.what);
    world.write("spec.yaml", &SOUND.replacen(part, instead, usize::from(!part.is_empty())));
    (case.prepare)(&world);
    let ended = world.run_local("spec.yaml", &[]).await;
    let said = ended.said();
    let missing: Vec<_> = case.words.iter().filter(|word| !said.contains(**word)).collect();
    if ended.code == Some(case.code) && missing.is_empty() && !said.contains("panicked") {
        return Ok(world);
    }
    Err(format!("{}: exit {:?}, expected {}; words missing: {missing:?}\n{}", case.what, ended.code, case.code, said))
}

async fn are_refused(cases: &'static [Case]) {
    let mut all = JoinSet::new();
    for case in cases {
        all.spawn(is_refused(case));
    }
    let (right, wrong): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let worlds: Vec<World> = right.into_iter().filter_map(Result::ok).collect();
    let with_catalog = worlds.iter().filter(|world| is_database(&world.root().join("catalog.db")));
    for (verdict, world) in judge(&with_catalog.map(no_commit).collect::<Vec<_>>()).iter().zip(&worlds) {
        assert!(verdict.problems.is_empty(), "{:?}: {verdict:?}", world.root());
    }
}

fn is_database(file: &Path) -> bool {
    fs::read(file).is_ok_and(|content| content.starts_with(b"SQLite format 3"))
}

#[tokio::test]
async fn given_a_spec_that_is_wrong_when_run_then_it_is_refused_with_its_place() {
    are_refused(&SPECS).await;
}

#[tokio::test]
async fn given_an_input_a_query_or_a_table_that_does_not_fit_when_run_then_it_is_refused_and_nothing_is_written() {
    are_refused(&INPUTS).await;
}

#[tokio::test]
async fn given_the_sound_spec_when_run_twice_then_it_works_once_and_the_second_says_that_nothing_is_to_do() {
    let world = sound();
    let first = world.run_local("spec.yaml", &[]).await.with(0);
    let second = world.run_local("spec.yaml", &[]).await.with(0).saying(&["nothing to do"]);
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(second.json()["outputs"][0]["snapshots"], first.json()["outputs"][0]["snapshots"]);
}

#[tokio::test]
async fn given_a_table_of_other_columns_when_run_then_it_is_refused_and_the_table_is_as_it_was() {
    let world = sound();
    world.run_local("spec.yaml", &[]).await.with(0);
    let other = SOUND.replace("name: refusals", "name: other").replace("SELECT *", "SELECT ts, payload AS id");
    world.write("other.yaml", &other);
    world.run_local("other.yaml", &[]).await.with(4).saying(&["lake.events", "id"]);
}

#[tokio::test]
async fn given_rows_of_another_backfill_in_the_window_when_run_then_it_is_refused_unless_they_may_be_there() {
    let world = sound();
    world.run_local("spec.yaml", &[]).await.with(0);
    world.write("other.yaml", &SOUND.replace("name: refusals", "name: other"));
    world.run_local("other.yaml", &[]).await.with(4).saying(&["lake.events", "200 rows", "--allow-existing"]);
}

#[tokio::test]
async fn given_a_state_that_was_lost_and_a_marker_in_the_table_when_run_then_it_is_refused() {
    let world = sound();
    world.run_local("spec.yaml", &[]).await.with(0);
    fs::remove_dir_all(world.root().join(".tidegate")).unwrap();
    world.run_local("spec.yaml", &[]).await.with(4).saying(&["lake.events", "marker", "state"]);
}

#[tokio::test]
async fn given_rows_without_event_time_when_run_then_they_are_named_and_none_is_dropped_in_silence() {
    let world = sound();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("ts", utc, true)]);
    let ids = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let times = TimestampMicrosecondArray::from(vec![Some(BEGIN), None, Some(BEGIN + 1)]).with_timezone("UTC");
    fs::create_dir(world.root().join("nulls")).unwrap();
    let file = world.root().join("nulls/part-000.parquet");
    write_file(&file, &RecordBatch::try_new(Arc::new(schema), vec![ids, Arc::new(times)]).unwrap(), 3);
    world.write("spec.yaml", &SOUND.replace("in/", "nulls/"));
    world.run_local("spec.yaml", &[]).await.with(6).saying(&["nulls/part-000.parquet", "event time"]);
    let found = judge(&[no_commit(&world)]);
    assert!(found[0].problems.is_empty(), "{found:?}");
}
