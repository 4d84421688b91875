//! Staged, published, replaced, cancelled: by real processes, and by the word of other engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_proto::v1;
use tidegate_tests::sandbox::{Check, Scenario, judge, must_be_exact, wait_until};
use tidegate_worker::failpoint;
use tokio::task::JoinSet;

/// About 5,000 rows into two tables that are staged.
fn staged() -> Scenario {
    let scenario = Scenario::little();
    scenario.respell("    commit:", "    publish: staged\n    commit:");
    scenario
}

/// The scenario's checks, of the branch.
fn on_branch(scenario: &Scenario, id: &str) -> Vec<Check> {
    let branch = format!("tidegate_{id}");
    scenario.checks(id).into_iter().map(|check| Check { branch: Some(branch.clone()), ..check }).collect()
}

/// The scenario's checks of main, where nothing of it may be.
fn nothing(scenario: &Scenario, id: &str) -> Vec<Check> {
    scenario.checks(id).into_iter().map(|check| Check { query: None, ..check }).collect()
}

fn have_no_branch(scenario: &Scenario, id: &str) {
    for found in judge(&on_branch(scenario, id)) {
        assert_eq!(found.problems, ["no such branch"], "{}", found.table);
    }
}

#[tokio::test]
async fn given_a_staged_backfill_when_it_is_published_then_main_holds_it_all_at_once_and_nothing_before() {
    let mut scenario = staged();
    scenario.world.start_coordinator().await;
    scenario.world.start_worker("w-1", 2);
    scenario.world.start_worker("w-2", 2);
    let applied = scenario.world.run(&["apply", Scenario::SPEC, "--yes"]).await.with(0);
    applied.saying(&["STAGED", "branch tidegate_bf-", "lake.big", "tidegate publish", "tidegate cancel"]);
    let id = scenario.world.apply(Scenario::SPEC).await;

    must_be_exact(&[on_branch(&scenario, &id), nothing(&scenario, &id)].concat());
    let waiting = scenario.world.run(&["status", &id, "--wait", "-o", "json"]).await.with(0).json();
    assert_eq!((&waiting["phase"], &waiting["outputs"][0]["rows_committed"]), (&"staged".into(), &0.into()));
    assert_eq!(waiting["outputs"][0]["rows_staged"], waiting["outputs"][0]["rows_passed"]);
    scenario.world.run(&["publish", &id]).await.with(5).saying(&["not confirmed"]);

    scenario.world.run(&["publish", &id, "--yes", "--reason", "audited"]).await.with(0).saying(&["SUCCEEDED"]);
    let (last, found) = scenario.must_end_exact(&id).await;
    assert!(found.iter().all(|table| table.snapshots == 1), "{found:?}");
    have_no_branch(&scenario, &last.id);
    scenario.world.run(&["publish", &id, "--yes"]).await.with(4).saying(&["is published"]);
    scenario.world.run(&["cancel", &id, "--yes"]).await.with(4);
    scenario.world.run(&["apply", Scenario::SPEC, "--yes"]).await.with(0).saying(&["nothing to do"]);
}

#[tokio::test]
async fn given_a_staged_backfill_when_it_is_cancelled_then_its_branch_is_gone_and_it_can_be_staged_again() {
    let mut scenario = staged();
    scenario.world.start_coordinator().await;
    scenario.world.start_worker("w-1", 2);
    scenario.world.run(&["apply", Scenario::SPEC, "--yes"]).await.with(0);
    let id = scenario.world.apply(Scenario::SPEC).await;

    scenario.world.run(&["cancel", &id, "--yes"]).await.with(0);
    let over = scenario.world.until_over(&id).await;
    assert_eq!(over.phase(), v1::Phase::Cancelled, "{:?}", over.failure);
    have_no_branch(&scenario, &id);
    must_be_exact(&nothing(&scenario, &id));

    scenario.world.run(&["apply", Scenario::SPEC, "--yes"]).await.with(0).saying(&["STAGED"]);
    must_be_exact(&on_branch(&scenario, &id));
    scenario.world.run(&["publish", &id, "--yes"]).await.with(0);
    scenario.must_end_exact(&id).await;
}

/// Stages, dies at the `nth` hit of `point` while it publishes, and goes on.
async fn die_publishing(point: String, nth: u32) {
    let scenario = staged();
    let world = &scenario.world;
    let ended = world.run_local(Scenario::SPEC, &[]).await.with(0).json();
    let id = ended["id"].as_str().unwrap().to_owned();
    assert_eq!(ended["phase"], "staged");
    let armed = format!("{point}=abort@{nth}");
    let died = world.run_local_with(Scenario::SPEC, &["--publish"], &[("TIDEGATE_FAILPOINTS", &armed)]).await;
    assert_eq!((world.fired(), died.code), (vec![point.clone()], None), "{point}@{nth} must fire: {died:?}");
    for found in judge(&scenario.checks(&id)) {
        assert!(found.rows == 0 || found.problems.is_empty(), "all or nothing, after {point}@{nth}: {found:?}");
    }
    let ended = world.run_local_with(Scenario::SPEC, &["--publish"], &[]).await.with(0).json();
    assert_eq!(ended["phase"], "succeeded");
    have_no_branch(&scenario, &id);
    let found = must_be_exact(&scenario.checks(&id));
    assert!(found.iter().all(|table| table.snapshots == 1), "{found:?}");
}

#[tokio::test]
async fn given_a_death_at_any_point_of_a_publish_when_it_goes_on_then_each_table_has_it_once() {
    let mut points: Vec<(String, u32)> =
        ["before-log", "before-head", "after-head"].map(|place| (format!("publishing.{place}"), 1)).to_vec();
    points.extend([1, 2].map(|nth| (failpoint::COMMIT_BEFORE_SWAP.to_owned(), nth)));
    points.extend([1, 2].map(|nth| (failpoint::COMMIT_AFTER_SWAP.to_owned(), nth)));
    let mut deaths = JoinSet::new();
    for (point, nth) in points {
        deaths.spawn(die_publishing(point, nth));
    }
    deaths.join_all().await;
}

#[tokio::test]
async fn given_a_local_run_when_what_it_staged_is_discarded_then_main_is_as_it_was() {
    let scenario = staged();
    let ended = scenario.world.run_local(Scenario::SPEC, &[]).await.with(0);
    let id = ended.json()["id"].as_str().unwrap().to_owned();
    ended.saying(&["--publish", "--discard"]);
    scenario.world.run_local_with(Scenario::SPEC, &["--discard"], &[]).await.with(0);
    have_no_branch(&scenario, &id);
    must_be_exact(&nothing(&scenario, &id));
}

/// One that replaces what its window held, by day, under a name of its own.
fn replacing(scenario: &Scenario, name: &str, publish: &str) {
    scenario.respell("name: two-sources", &format!("name: {name}"));
    let commit = "    commit: {every: 1ms}";
    scenario.respell(commit, &format!("    mode: replace_window\n    publish: {publish}"));
    scenario.respell("month(ts)", "day(ts)");
}

#[tokio::test]
async fn given_a_window_that_is_replaced_again_and_again_then_its_rows_are_there_once() {
    let scenario = Scenario::little();
    replacing(&scenario, "first", "direct");
    let checks = |id: &str| scenario.checks(id).into_iter().map(|check| Check { backfill: None, ..check });
    let mut files = None;
    for (from, to, more) in
        [("first", "first", None), ("first", "second", None), ("second", "third", Some("--publish"))]
    {
        scenario.respell(&format!("name: {from}"), &format!("name: {to}"));
        if more.is_some() {
            scenario.respell("publish: direct", "publish: staged");
        }
        let more: Vec<&str> = more.into_iter().collect();
        let ended = scenario.world.run_local_with(Scenario::SPEC, &more, &[]).await.with(0).json();
        assert_eq!(ended["phase"], "succeeded", "{to}");
        let id = ended["id"].as_str().unwrap().to_owned();
        let found = must_be_exact(&checks(&id).collect::<Vec<_>>());
        let rows: Vec<u64> = found.iter().map(|table| table.rows).collect();
        assert_eq!(*files.get_or_insert_with(|| rows.clone()), rows, "{to}");
    }
}

#[tokio::test]
async fn given_a_window_that_is_replaced_by_nothing_then_nothing_is_left_in_it() {
    for publish in ["direct", "staged"] {
        let scenario = Scenario::little();
        replacing(&scenario, "first", "direct");
        scenario.world.run_local(Scenario::SPEC, &[]).await.with(0);
        scenario.respell("name: first", "name: second");
        scenario.respell("publish: direct", &format!("publish: {publish}"));
        scenario.respell("SELECT * FROM big", "SELECT * FROM big WHERE id < 0");
        let more: &[&str] = if publish == "staged" { &["--publish"] } else { &[] };
        let ended = scenario.world.run_local_with(Scenario::SPEC, more, &[]).await.with(0).json();
        assert_eq!((&ended["phase"], &ended["outputs"][0]["rows_committed"]), (&"succeeded".into(), &0.into()));
        let id = ended["id"].as_str().unwrap();
        let mut checks = scenario.checks(id);
        checks[0].query = Some("SELECT * FROM input WHERE false".to_owned());
        checks.iter_mut().for_each(|check| check.backfill = None);
        must_be_exact(&checks);
    }
}

#[tokio::test]
async fn given_nothing_that_is_staged_when_it_is_to_be_published_then_refused() {
    let scenario = Scenario::little();
    let refused = scenario.world.run_local_with(Scenario::SPEC, &["--publish"], &[]).await.with(2);
    refused.saying(&["no output of this spec is staged", "publish: staged"]);
}

/// A commit that comes to nothing at `point`, again and again, when the backfill is cancelled; another worker finds out.
async fn cancelled_at(point: &str) -> (Scenario, v1::Backfill) {
    let mut scenario = Scenario::little().unjoined();
    scenario.world.start_coordinator().await;
    scenario.world.start_worker_with("broken", 2, &[("TIDEGATE_FAILPOINTS", &format!("{point}=error"))]);
    let id = scenario.world.apply(Scenario::SPEC).await;
    let world = &scenario.world;
    wait_until("a commit to fail", tidegate_tests::sandbox::PATIENCE, async || {
        world.fired().iter().any(|fired| fired == point).then_some(())
    })
    .await;
    scenario.world.run(&["cancel", &id, "--yes"]).await.with(0);
    let unknown = scenario.world.backfill(&id).await.unwrap();
    scenario.world.start_worker("sound", 2);
    scenario.world.kill_worker("broken");
    assert!(unknown.state.starts_with("cancel"), "{}", unknown.state);
    let over = scenario.world.until_over(&id).await;
    assert_eq!(over.phase(), v1::Phase::Cancelled, "{:?}", over.failure);
    (scenario, over)
}

#[tokio::test]
async fn given_a_commit_of_unknown_outcome_when_cancelled_then_it_is_proven_and_a_retry_loses_nothing() {
    for point in [failpoint::COMMIT_BEFORE_SWAP, failpoint::COMMIT_AFTER_SWAP] {
        let (scenario, over) = cancelled_at(point).await;
        let ends: Vec<String> = scenario.world.events(&over.id).await.into_iter().map(|(_, text)| text).collect();
        if point == failpoint::COMMIT_BEFORE_SWAP {
            assert!(ends.iter().any(|text| text.contains("cancelled") && text.contains("intent #")), "{ends:#?}");
        }
        let committed: u64 = over.outputs.iter().map(|output| output.rows_committed).sum();
        let found = judge(&scenario.checks(&over.id));
        assert_eq!(found.iter().map(|table| table.rows).sum::<u64>(), committed, "the report is true: {found:?}");

        scenario.world.run(&["apply", Scenario::SPEC, "--yes"]).await.with(0);
        must_be_exact(&scenario.checks(&over.id));
    }
}
