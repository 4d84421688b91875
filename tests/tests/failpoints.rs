//! The process dies at every named point of the coordinator's journal and of the worker's sink, and is run again: the
//! tables are exact, whichever point it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_coordinator::driver::{POINTS, SEGMENT_AFTER, SEGMENT_BEFORE};
use tidegate_tests::sandbox::{Scenario, must_be_exact};
use tidegate_worker::failpoint;
use tokio::task::JoinSet;

/// Runs a scenario that dies at the `nth` hit of `point`, then again without the fault, which ends with `code`.
async fn die_and_resume(scenario: Scenario, point: String, nth: u32, code: i32) -> (Scenario, String) {
    let world = &scenario.world;
    let died = world.run_local(Scenario::SPEC, &[("TIDEGATE_FAILPOINTS", &format!("{point}=abort@{nth}"))]).await;
    assert_eq!(world.fired(), [point.as_str()], "{point}@{nth} must fire: {died:?}");
    assert_eq!(died.code, None, "{point}@{nth} must end the process by a signal: {died:?}");
    let ended = world.run_local(Scenario::SPEC, &[]).await;
    assert_eq!(ended.code, Some(code), "after {point}@{nth}: {}", ended.stderr);
    let id = ended.json()["id"].as_str().unwrap().to_owned();
    (scenario, id)
}

/// Dies at each point in a world of its own; then all tables are judged together.
async fn die_at_each(points: Vec<(String, u32)>, make: fn() -> Scenario, code: i32) {
    let mut deaths = JoinSet::new();
    for (point, nth) in points {
        deaths.spawn(die_and_resume(make(), point, nth, code));
    }
    let ended = deaths.join_all().await;
    let checks: Vec<_> = ended.iter().flat_map(|(scenario, id)| scenario.checks(id)).collect();
    must_be_exact(&checks);
}

#[tokio::test]
async fn given_a_death_at_any_point_of_the_journal_when_run_again_then_the_tables_are_exact() {
    let places = ["before-log", "before-head", "after-head"];
    // What was lost and is read again dies in `regenerate`.
    let kinds = POINTS.into_iter().filter(|kind| !["parked", "publishing", "regenerated"].contains(kind));
    let mut points: Vec<_> = kinds.flat_map(|kind| places.map(|place| (format!("{kind}.{place}"), 1))).collect();
    for again in ["hand-in", "sealed", "ended"] {
        points.extend(places.map(|place| (format!("{again}.{place}"), 2)));
    }
    points.extend([(SEGMENT_BEFORE.to_owned(), 1), (SEGMENT_AFTER.to_owned(), 2)]);
    die_at_each(points, Scenario::little, 0).await;
}

#[tokio::test]
async fn given_a_death_at_any_point_of_the_sink_when_run_again_then_the_tables_are_exact() {
    let points = [
        failpoint::FILE_BEFORE_CLOSE,
        failpoint::FILE_AFTER_CLOSE,
        failpoint::COMMIT_BEFORE_MANIFESTS,
        failpoint::COMMIT_AFTER_MANIFESTS,
        failpoint::COMMIT_BEFORE_METADATA,
        failpoint::COMMIT_BEFORE_SWAP,
        failpoint::COMMIT_AFTER_SWAP,
    ];
    let points = points.into_iter().flat_map(|point| [1, 3].map(|nth| (point.to_owned(), nth))).collect();
    die_at_each(points, Scenario::little, 0).await;
}

#[tokio::test]
async fn given_a_death_while_poison_is_parked_when_run_again_then_all_but_the_poison_is_there() {
    let points = ["before-log", "before-head", "after-head"].map(|place| (format!("parked.{place}"), 1));
    let with_poison = || {
        let mut scenario = Scenario::little();
        scenario.spoil(3);
        scenario
    };
    die_at_each(points.to_vec(), with_poison, 6).await;
}
