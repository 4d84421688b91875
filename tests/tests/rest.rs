//! Tables behind a REST catalog, Iceberg's own: commits that race, whose answers get lost and that the catalog cannot make
//! just now, each once in the table by the word of PyIceberg and DuckDB; and refusals that say what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use serde_json::{Value, json};
use tidegate_proto::v1;
use tidegate_tests::sandbox::{
    BEGIN, Check, Lossy, PATIENCE, RestCatalog, Scenario, Signal, Store, World, must_balance, must_be_exact, root,
    write_file,
};
use tidegate_worker::sink::{
    CatalogConfig, Catalogs, OutputTarget, OutputWriter, RestConfig, Scope, WriterSettings, commit, digest, load,
    marker, prepare,
};

/// The client that the server knows.
const CLIENT: (&str, &str) = ("TEST_CLIENT_SECRET", "of-the-tests");

fn client() -> Value {
    json!({"oauth2": {"client_id": "tidegate", "client_secret": {"from_env": CLIENT.0}}})
}

/// The example in `world`, its tables behind `uri`.
fn example(world: &World) {
    let example = root().join("examples/flights");
    world.take_example();
    world.write("aligned.yaml", &fs::read_to_string(example.join("aligned.yaml")).unwrap());
}

#[tokio::test]
async fn given_the_example_when_workers_replay_it_into_a_rest_catalog_then_every_row_is_there_once() {
    let server = RestCatalog::shared().await;
    let mut world = World::new();
    let warehouse = world.warehouse();
    server.guard(&warehouse, "of-the-oracle");
    world.set_env(CLIENT.0, CLIENT.1);
    world.on_rest(&server.uri(), &warehouse, &client(), &json!({"token": "of-the-oracle"}));
    example(&world);
    world.start_coordinator().await;
    world.start_worker("w-1", 2);
    world.start_worker("w-2", 2);

    let id = world.apply("aligned.yaml").await;
    let last = world.until_over(&id).await;

    assert_eq!(last.phase(), v1::Phase::Succeeded, "{:?}", last.failure);
    must_balance(&last);
    let found = must_be_exact(&world.checks_of_example(&last.id));
    assert_eq!(found.iter().map(|table| table.rows).collect::<Vec<_>>(), [336_776, 26_115]);
    world.run(&["verify", &last.id]).await.with(0);
    for process in [world.coordinator().said(), world.worker("w-1").said(), world.worker("w-2").said()] {
        assert!(!process.contains(CLIENT.1) && !process.contains("token-"), "{process}");
    }
}

#[tokio::test]
async fn given_a_catalog_that_hands_out_credentials_when_a_killed_worker_is_replaced_then_its_tables_in_a_bucket_are_exact()
 {
    let (server, store) = (RestCatalog::shared().await, Store::guarded().await);
    store.make("handed");
    store.guard();
    let mut scenario = Scenario::little();
    let warehouse = "s3://handed/warehouse";
    let mut vended = store.properties();
    vended["s3.path-style-access"] = "true".into();
    server.vend(warehouse, &vended);
    scenario.world.on_rest(&server.uri(), warehouse, &json!({}), &vended);
    let world = &mut scenario.world;
    world.start_coordinator().await;
    world.start_worker_with("w-1", 1, &[("TIDEGATE_FAILPOINTS", "commit.after-swap=abort@2")]);
    let id = world.apply(Scenario::SPEC).await;
    world.worker("w-1").ended(PATIENCE).await;
    world.start_worker("w-2", 2);

    scenario.must_end_exact(&id).await;

    let said = scenario.world.worker("w-2").said();
    assert!(store.env().iter().all(|(_, secret)| !said.contains(secret)), "{said}");
    assert!(!scenario.world.root().join("warehouse").exists(), "nothing is on the disk");
    server.vend(warehouse, &json!({"s3.session-token-expires-at-ms": "1"}));
    scenario.world.run(&["verify", &id]).await.with(0).saying(&["rows read back from the files"]);
}

/// A table behind a REST catalog, and who commits to it, each with a client of its own.
struct Lake {
    world: World,
    target: OutputTarget,
    prepared: v1::PreparedOutput,
}

impl Lake {
    async fn new(server: &RestCatalog) -> Self {
        let mut world = World::new();
        let warehouse = world.warehouse();
        world.on_rest(&server.uri(), &warehouse, &json!({}), &json!({}));
        let target = OutputTarget {
            catalog: "lake".to_owned(),
            namespace: vec!["ns".to_owned()],
            name: "t".to_owned(),
            partition_by: vec!["bucket(4, id)".to_owned()],
            properties: BTreeMap::new(),
        };
        let catalogs = Self::committer(&server.uri(), &warehouse);
        let prepared = prepare(&catalogs, &target, &rows(0, 1).schema(), true, &Scope::of("bf-0")).await.unwrap();
        Self { world, target, prepared }
    }

    fn committer(uri: &str, warehouse: &str) -> Catalogs {
        let config = RestConfig {
            name: "lake".to_owned(),
            uri: uri.to_owned(),
            warehouse: Some(warehouse.to_owned()),
            ..RestConfig::default()
        };
        Catalogs::new([("lake".to_owned(), CatalogConfig::Rest(config))])
    }

    /// Writes the rows `from..to` and commits them as the next of `backfill`; gives the marker.
    async fn add(
        &self,
        catalogs: &Catalogs,
        backfill: &str,
        (sequence, predecessor): (u64, &str),
        (from, to): (i64, i64),
    ) -> (v1::CommitResult, String) {
        let table = load(catalogs, &self.target).await.unwrap();
        let settings = WriterSettings::of(&table, self.prepared.schema_id, self.prepared.spec_id).unwrap();
        let attempt = uuid::Uuid::new_v4();
        let mut writer = OutputWriter::open(&table, 0, attempt, settings).unwrap();
        writer.write(rows(from, to)).await.unwrap();
        let closed = writer.close().await.unwrap();
        let intent = v1::Intent {
            version: 1,
            sequence,
            predecessor: predecessor.to_owned(),
            digest: digest(closed.files.iter().map(|file| file.path.as_str())),
            table_uuid: self.prepared.uuid.clone(),
            snapshot_id: i64::try_from(attempt.as_u128() >> 66).unwrap() + 1,
            schema_id: self.prepared.schema_id,
            spec_id: self.prepared.spec_id,
            files: closed.files.len() as u64,
            rows: closed.files.iter().map(|file| file.rows).sum(),
            committed_through: BEGIN,
            ..Default::default()
        };
        let part =
            v1::OutputPart { files: closed.files, iceberg: closed.iceberg.to_vec().into(), ..Default::default() };
        let result = commit(catalogs, &self.target, &Scope::of(backfill), &intent, vec![part]).await.unwrap();
        (result, marker::of(&intent))
    }

    /// Wants the rows `0..to` in the table, each once, in `snapshots` snapshots.
    fn must_hold(&self, to: i64, snapshots: u64) {
        let input = self.world.root().join("expected.parquet");
        write_file(&input, &rows(0, to), 1_000);
        let found = must_be_exact(&[Check {
            catalog: self.world.catalog(),
            table: "ns.t".to_owned(),
            branch: None,
            input: vec![input.display().to_string()],
            others: Vec::new(),
            query: Some("SELECT * FROM input".to_owned()),
            time: "at",
            window: None,
            backfill: None,
            may_miss: None,
        }]);
        assert_eq!(found[0].snapshots, snapshots);
    }
}

/// Rows `from..to`: an id, and an event time one hour after the one before.
fn rows(from: i64, to: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(from..to);
    let times = TimestampMicrosecondArray::from_iter_values((from..to).map(|id| BEGIN + id * 3_600_000_000));
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("at", Arc::new(times.with_timezone("UTC")))];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_two_committers_that_race_when_each_commits_fifteen_times_then_thirty_land_and_none_twice() {
    let server = RestCatalog::shared().await;
    let lake = Arc::new(Lake::new(server).await);
    let racers = (0..2_i64).map(|racer| {
        let (lake, uri) = (lake.clone(), server.uri());
        tokio::spawn(async move {
            let catalogs = Lake::committer(&uri, &lake.world.warehouse());
            let (backfill, mut predecessor, mut tries) = (format!("bf-{racer}"), String::new(), 0);
            for sequence in 1..=15 {
                let from = (racer * 15 + sequence - 1) * 10;
                let at = (u64::try_from(sequence).unwrap(), predecessor.as_str());
                let (result, own) = lake.add(&catalogs, &backfill, at, (from, from + 10)).await;
                assert_eq!((result.end(), result.already_done), (v1::CommitEnd::Committed, false));
                tries += result.tries;
                predecessor = own;
            }
            tries
        })
    });
    let mut tries = 0;
    for racer in racers.collect::<Vec<_>>() {
        tries += racer.await.unwrap();
    }
    lake.must_hold(300, 30);
    assert_eq!(server.commits(&lake.world.warehouse()), tries, "each try is one request");
    assert!(tries > 30, "they must have raced");
}

#[tokio::test]
async fn given_answers_that_get_lost_when_committed_then_reading_tells_and_each_lands_once() {
    let server = RestCatalog::shared().await;
    let lake = Lake::new(server).await;
    let way = Lossy::to(server.authority(), 2);
    let catalogs = Lake::committer(&way.uri(), &lake.world.warehouse());
    let (first, own) = lake.add(&catalogs, "bf-0", (1, ""), (0, 10)).await;
    let (second, own) = lake.add(&catalogs, "bf-0", (2, &own), (10, 20)).await;
    let (third, _) = lake.add(&catalogs, "bf-0", (3, &own), (20, 30)).await;

    assert_eq!((way.lost(), way.left()), (2, 0), "both answers were lost");
    let ends = [&first, &second, &third].map(|result| (result.end(), result.already_done));
    let done = v1::CommitEnd::Committed;
    assert_eq!(ends, [(done, true), (done, true), (done, false)]);
    assert_eq!(server.commits(&lake.world.warehouse()), 3, "no commit is asked for twice");
    lake.must_hold(30, 3);
}

#[tokio::test]
async fn given_server_errors_before_or_after_a_commit_is_made_when_committed_then_it_lands_once() {
    let server = RestCatalog::shared().await;
    let lake = Lake::new(server).await;
    let warehouse = lake.world.warehouse();
    let catalogs = Lake::committer(&server.uri(), &warehouse);
    let mut predecessor = String::new();
    let cases = [(500, false), (500, true), (502, true), (503, false), (504, true)];
    for (sequence, (status, afterwards)) in (1..).zip(cases) {
        server.fail(&warehouse, status, 1, afterwards);
        let from = i64::try_from(sequence - 1).unwrap() * 10;
        let (result, own) = lake.add(&catalogs, "bf-0", (sequence, &predecessor), (from, from + 10)).await;
        assert_eq!((result.end(), result.already_done), (v1::CommitEnd::Committed, afterwards), "{status}");
        predecessor = own;
    }
    assert_eq!(server.commits(&warehouse), 7, "five, and two more where nothing had been made");
    lake.must_hold(50, 5);
}

#[tokio::test]
async fn given_a_run_on_a_way_that_loses_answers_when_it_ends_then_every_row_is_there_once() {
    let server = RestCatalog::shared().await;
    let way = Lossy::to(server.authority(), 2);
    let mut scenario = Scenario::little();
    let warehouse = scenario.world.warehouse();
    scenario.world.on_rest(&way.uri(), &warehouse, &json!({}), &json!({}));
    let world = &mut scenario.world;
    world.start_coordinator().await;
    world.start_worker("w-1", 2);
    world.start_worker("w-2", 2);
    let id = world.apply(Scenario::SPEC).await;

    scenario.must_end_exact(&id).await;

    assert_eq!(way.left(), 0, "there is a commit for each table at least, and both answers were lost");
}

#[tokio::test]
async fn given_answers_that_get_lost_when_a_window_is_replaced_by_way_of_a_branch_then_its_rows_are_there_once() {
    let server = RestCatalog::shared().await;
    let way = Lossy::to(server.authority(), 4);
    let mut scenario = Scenario::little();
    scenario.respell("    commit: {every: 1ms}", "    mode: replace_window\n    publish: staged");
    scenario.respell("month(ts)", "day(ts)");
    let warehouse = scenario.world.warehouse();
    scenario.world.on_rest(&way.uri(), &warehouse, &json!({}), &json!({}));
    let mut held = None;
    for name in ["two-sources", "once-more"] {
        scenario.respell("name: two-sources", &format!("name: {name}"));
        let ended = scenario.world.run_local_with(Scenario::SPEC, &["--publish"], &[]).await.with(0).json();
        assert_eq!(ended["phase"], "succeeded", "{name}");
        let checks = scenario.checks(ended["id"].as_str().unwrap());
        let checks: Vec<_> = checks.into_iter().map(|check| Check { backfill: None, ..check }).collect();
        let rows: Vec<u64> = must_be_exact(&checks).iter().map(|table| table.rows).collect();
        assert_eq!(*held.get_or_insert_with(|| rows.clone()), rows, "{name}");
    }
    assert_eq!(way.left(), 0, "two tables are committed to and published, twice");
}

#[tokio::test]
async fn given_a_catalog_that_stands_still_and_forgets_its_tokens_when_it_goes_on_then_the_run_ends_exact() {
    let mut server = RestCatalog::start().await;
    let mut scenario = Scenario::little();
    let warehouse = scenario.world.warehouse();
    server.guard(&warehouse, "of-the-oracle");
    scenario.world.set_env(CLIENT.0, CLIENT.1);
    scenario.world.on_rest(&server.uri(), &warehouse, &client(), &json!({"token": "of-the-oracle"}));
    let world = &mut scenario.world;
    world.start_coordinator().await;
    world.start_worker("w-1", 2);
    let id = world.apply(Scenario::SPEC).await;
    world.until(&id, "a first commit", |backfill| backfill.outputs.iter().any(|output| output.commits > 0)).await;
    server.signal(Signal::Stop);
    let world = &scenario.world;
    world
        .until(&id, "all to be read that can be without the catalog", |backfill| {
            backfill.outputs.iter().any(|output| output.rows_passed > output.rows_committed)
        })
        .await;
    server.signal(Signal::Cont);
    server.revoke(&warehouse);
    server.guard(&warehouse, "of-the-oracle");

    scenario.must_end_exact(&id).await;
}

#[tokio::test]
async fn given_a_catalog_that_dies_in_mid_run_when_it_stays_away_then_the_run_fails_clearly_and_goes_on_when_it_is_back()
 {
    let mut scenario = Scenario::large();
    let warehouse = scenario.world.warehouse();
    let mut server = RestCatalog::start_durable(&warehouse).await;
    scenario.world.on_rest(&server.uri(), &warehouse, &json!({}), &json!({}));
    let world = &mut scenario.world;
    world.start_coordinator_saying(&["--commit-tries", "3"], &[]).await;
    world.start_worker("w-1", 2);
    let id = world.apply(Scenario::SPEC).await;
    world.until(&id, "a first commit", |backfill| backfill.outputs.iter().any(|output| output.commits > 0)).await;

    server.kill();

    let failed = world.until_over(&id).await;
    assert_eq!(failed.phase(), v1::Phase::Failed, "{failed:?}");
    let ended = world.run(&["status", &id, "--wait"]).await.with(75);
    ended.saying(&["catalog default cannot be reached", &server.uri(), "tidegate retry"]);
    let accepted: u64 = failed.sources.iter().map(|source| source.rows_read).sum();
    assert!(accepted < 200_000, "it was in the middle of it");

    server.start_again(&warehouse).await;
    world.run(&["retry", &id, "--yes"]).await.with(0);
    scenario.must_end_exact(&id).await;
}

/// A spec that works; the catalog does not.
const SPEC: &str = "version: 1
kind: backfill
name: refusals
sources:
  events: {generate: {seed: 1, rows: 100, rate: 1}}
outputs:
  events: {table: lake.events}
";

#[tokio::test]
async fn given_a_catalog_that_is_not_there_or_does_not_know_us_when_run_then_it_is_refused_with_the_way_out() {
    let server = RestCatalog::shared().await;
    let refused = async |uri: &str, more: Value, env: (&str, &str), code: i32, words: &[&str]| {
        let mut world = World::new();
        let warehouse = world.warehouse();
        server.guard(&warehouse, "known");
        world.set_env(env.0, env.1);
        world.on_rest(uri, &warehouse, &more, &json!({}));
        world.write("spec.yaml", SPEC);
        let ended = world.run_local("spec.yaml", &[]).await.with(code).saying(words);
        assert!(!ended.said().contains(env.1), "{}", ended.said());
        world
    };
    let token = json!({"token": {"from_env": "TEST_TOKEN"}});
    let gone = "http://127.0.0.1:1";
    refused(gone, json!({}), ("TEST_TOKEN", "none-is-shown"), 75, &["catalog default cannot be reached", gone]).await;
    let (uri, none) = (server.uri(), ("TEST_TOKEN", "a-wrong-token"));
    refused(&uri, token.clone(), none, 4, &["catalog default", "401", "nobody knows this token", "`token`"]).await;
    let wrong = (CLIENT.0, "a-wrong-secret");
    refused(&uri, client(), wrong, 4, &["catalog default", "no token", "invalid_client", "client_secret"]).await;
    let unset = ("TEST_OTHER", "something-else");
    refused(&uri, token.clone(), unset, 3, &["catalog default", "TEST_TOKEN is not set"]).await;
    let page = format!("{uri}/v1/nowhere");
    refused(&page, json!({}), unset, 4, &["catalog default", "404", "is `uri` the address"]).await;
    refused("http://catalog.example", json!({}), unset, 3, &["uri", "not encrypted", "allow_http"]).await;

    let mut world = refused(&uri, json!({}), unset, 4, &["401"]).await;
    let both = json!({"token": {"from_env": "TEST_TOKEN"}, "oauth2": client()["oauth2"]});
    world.on_rest(&uri, "w", &both, &json!({}));
    world.run_local("spec.yaml", &[]).await.with(2).saying(&["catalogs.default.rest", "token and oauth2"]);
    world.set_env("TEST_TOKEN", "known");
    let warehouse = world.warehouse();
    world.on_rest(&uri, &warehouse, &token, &json!({"token": "known"}));
    world.run_local("spec.yaml", &[]).await.with(0);
    let view = world.run(&["config", "view", "-o", "json"]).await.with(0);
    assert!(view.said().contains("TEST_TOKEN") && !view.said().contains("known"), "{}", view.said());
}
