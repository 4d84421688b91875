//! Objects of the shuffle store that are lost or damaged while rows wait in real processes: they are read again, and the
//! answer is that of one batch query, by the word of another engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_proto::v1;
use tidegate_tests::sandbox::{BEGIN, Check, DAY, Input, Other, PATIENCE, World, must_be_exact, wait_until};
use tidegate_worker::failpoint;

const HOUR: i64 = DAY / 24;
const SPEC: &str = "spec.yaml";
const WINDOW: (i64, i64) = (BEGIN + DAY, BEGIN + 19 * DAY);
const SQL: &str = "SELECT p.ts, p.id, s.id AS show FROM plays p LEFT JOIN shows s ON p.key = s.key \
                   AND s.ts BETWEEN p.ts - INTERVAL '2' HOUR AND p.ts";

/// Every file of the shuffle store of a world.
fn waiting(world: &World) -> Vec<PathBuf> {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, found),
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    files(&world.root().join(".tidegate/shuffle"), &mut found);
    found.sort();
    found
}

/// A world with a coordinator and a backfill whose worker died when it had joined the first slices and had handed in
/// nothing of that: rows wait. The id, too.
async fn rows_wait(slice: &str) -> (World, String) {
    let mut world = World::new();
    Input { folder: "plays", rows: 20_000, days: 20, files: 8, unit: 500, seed: 1 }.write(world.root());
    Input { folder: "shows", rows: 8_000, days: 20, files: 2, unit: 400, seed: 2 }.write(world.root());
    let at = |micros| tidegate_common::time::EventTime::from_micros(micros).to_string();
    let spec = format!(
        "version: 1\nkind: backfill\nname: lost\nwindow: {{from: '{}', to: '{}'}}\nsources:\n  \
         plays: {{files: {{path: 'plays/*.parquet'}}, event_time: {{column: ts}}}}\n  \
         shows: {{files: {{path: 'shows/*.parquet'}}, event_time: {{column: ts}}}}\noutputs:\n  \
         out:\n    table: lake.lost\n    sql: \"{SQL}\"\n    join: {{slice: {slice}, buckets: 2}}\n",
        at(WINDOW.0),
        at(WINDOW.1)
    );
    world.write(SPEC, &spec);
    world.start_coordinator().await;
    // What is read is shuffled, so the first file of data is that of the first join.
    let dies = format!("{}=abort@1", failpoint::FILE_BEFORE_CLOSE);
    world.start_worker_with("dies", 1, &[("TIDEGATE_FAILPOINTS", &dies)]);
    let id = world.apply(SPEC).await;
    wait_until("the first join", PATIENCE, async || (!world.fired().is_empty()).then_some(())).await;
    world.kill_worker("dies");
    assert!(!waiting(&world).is_empty());
    (world, id)
}

/// Removes one object, cuts the next and changes a bit of the one behind it, and so on.
fn damage(world: &World) {
    for (at, path) in waiting(world).iter().enumerate() {
        let mut bytes = fs::read(path).unwrap();
        match at % 3 {
            0 => fs::remove_file(path).unwrap(),
            1 => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            _ => {
                let middle = bytes.len() / 3;
                bytes[middle] ^= 4;
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// The backfill has succeeded with the exact answer, after so much was read again, and has left nothing; how much.
async fn is_exact(world: &World, id: &str, last: &v1::Backfill) -> u64 {
    assert_eq!(last.phase(), v1::Phase::Succeeded, "{last:?}");
    let files = |name: &str| vec![world.root().join(name).join("*.parquet").display().to_string()];
    let found = must_be_exact(&[Check {
        catalog: world.catalog(),
        table: "lake.lost".to_owned(),
        branch: None,
        input: files("plays"),
        others: vec![Other { name: "shows", input: files("shows"), window: (WINDOW.0 - 2 * HOUR, WINDOW.1) }],
        query: Some(SQL.replace("FROM plays p", "FROM input p")),
        time: "ts",
        window: Some(WINDOW),
        backfill: Some(id.to_owned()),
        may_miss: None,
    }]);
    assert!(found[0].rows > 10_000, "{found:?}");
    assert_eq!(waiting(world), Vec::<PathBuf>::new());
    let regenerated = last.outputs[0].join.as_ref().unwrap().regenerated;
    let events = world.events(id).await;
    let told = events.iter().filter(|(kind, text)| kind == "regenerated" && text.contains("read again")).count();
    assert_eq!(told as u64, regenerated);
    world.run(&["verify", id]).await.with(0);
    regenerated
}

#[tokio::test]
async fn given_objects_that_are_gone_cut_or_changed_when_they_are_joined_then_they_are_read_again() {
    let (mut world, id) = rows_wait("3d").await;
    let damaged = waiting(&world).len();
    assert!(damaged >= 3, "each kind of damage: {damaged}");
    damage(&world);
    world.start_worker("mends", 2);
    let last = world.until_over(&id).await;
    let regenerated = is_exact(&world, &id, &last).await;
    assert!(regenerated >= 3, "{regenerated} of {damaged}");
    let report = world.run(&["status", &id]).await.with(0);
    report.saying(&["lost and read again"]);
}

#[tokio::test]
async fn given_a_death_around_the_record_of_what_was_read_again_when_it_goes_on_then_the_answer_is_exact() {
    for place in ["before-log", "before-head", "after-head"] {
        let (mut world, id) = rows_wait("30d").await;
        damage(&world);
        world.kill_coordinator();
        let point = format!("regenerated.{place}");
        world.start_coordinator_with(&[("TIDEGATE_FAILPOINTS", &format!("{point}=abort@1"))]).await;
        world.start_worker("mends", 1);
        wait_until("the death", PATIENCE, async || world.fired().contains(&point).then_some(())).await;
        world.kill_coordinator();
        world.start_coordinator().await;
        let last = world.until_over(&id).await;
        assert!(is_exact(&world, &id, &last).await >= 1, "{place}");
    }
}

#[tokio::test]
async fn given_a_cancel_while_rows_wait_when_it_is_applied_again_then_they_are_read_again() {
    let (mut world, id) = rows_wait("3d").await;
    world.run(&["cancel", &id, "--yes", "--reason", "a test"]).await.with(0);
    world.start_worker("mends", 2);
    let last = world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Cancelled);
    assert_eq!(waiting(&world), Vec::<PathBuf>::new());
    assert_eq!(world.apply(SPEC).await, id);
    let last = world.until_over(&id).await;
    assert!(is_exact(&world, &id, &last).await >= 1);
}

#[tokio::test]
async fn given_a_file_that_is_gone_too_when_its_rows_are_lost_then_it_is_partial_and_a_retry_goes_on() {
    let (mut world, id) = rows_wait("30d").await;
    damage(&world);
    let (there, away) = (world.root().join("plays/part-003.parquet"), world.root().join("away"));
    fs::rename(&there, &away).unwrap();
    world.start_worker("mends", 2);
    let last = world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Partial, "{last:?}");
    let parked = &last.parked[0];
    let said = &parked.evidence.as_ref().unwrap().message;
    assert!(parked.task.starts_with("regenerate-o0."), "{parked:?}");
    assert!(said.contains("is that of all workers the same one?") && said.contains("cannot be read again"), "{said}");
    fs::rename(&away, &there).unwrap();
    world.run(&["retry", &id, "--yes"]).await.with(0);
    let last = world.until(&id, "its success", |state| state.phase() == v1::Phase::Succeeded).await;
    assert!(is_exact(&world, &id, &last).await >= 1);
}
