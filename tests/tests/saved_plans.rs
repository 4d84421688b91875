//! A plan is saved, looked at, and applied later: exactly what was planned, or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use tidegate_tests::sandbox::kafka::{Isolation, Record, Replay};
use tidegate_tests::sandbox::{BEGIN, Broker, Ended, Scenario, World, must_be_exact};

const PLAN: &str = "plan.json";

async fn plan(world: &World) -> Ended {
    let planned = world.run(&["plan", Scenario::SPEC, "--out", PLAN, "--detailed-exitcode"]).await.with(10);
    planned.saying(&["saved to plan.json", "Next: tidegate apply plan.json"])
}

/// Nothing was made: no table, and no file of one.
fn nothing_was_made(world: &World) {
    assert!(!world.root().join("warehouse/lake").exists(), "a table was made");
}

#[tokio::test]
async fn given_a_saved_plan_when_it_is_applied_then_its_rows_are_there_and_once_more_is_nothing_to_do() {
    let mut scenario = Scenario::little();
    plan(&scenario.world).await;
    scenario.world.start_coordinator().await;
    scenario.world.start_worker("w-1", 3);
    scenario.world.start_worker("w-2", 1);
    scenario
        .world
        .run(&["apply", PLAN, "--window", "2024-01-01/2024-02-01", "--yes"])
        .await
        .with(2)
        .saying(&["is fixed"]);

    scenario.world.run(&["apply", PLAN, "--yes"]).await.with(0).saying(&["SUCCEEDED"]);
    let id = scenario.world.apply(Scenario::SPEC).await;
    scenario.must_end_exact(&id).await;
    for again in [PLAN, Scenario::SPEC] {
        scenario.world.run(&["apply", again, "--yes"]).await.with(0).saying(&["nothing to do"]);
    }
    scenario.must_end_exact(&id).await;
}

/// What happens to the input between plan and apply, and the words by which it is named.
type Change = (fn(&Path), &'static [&'static str]);

/// Applies a plan after `change`: refused with `said` before anything is made; planned anew, it is exact.
async fn stale((change, said): Change) {
    let mut scenario = Scenario::little();
    plan(&scenario.world).await;
    change(scenario.world.root());
    scenario.world.start_coordinator().await;
    scenario.world.start_worker("w-1", 2);
    let refused = scenario.world.run(&["apply", PLAN, "--yes"]).await.with(4);
    refused.saying(said).saying(&["is not what the saved plan says", "make the plan again"]);
    nothing_was_made(&scenario.world);

    // A plan of what is there now is taken by the same backfill.
    plan(&scenario.world).await;
    scenario.world.run(&["apply", PLAN, "--yes"]).await.with(0).saying(&["SUCCEEDED"]);
    let id = scenario.world.apply(Scenario::SPEC).await;
    scenario.must_end_exact(&id).await;
}

#[tokio::test]
async fn given_a_file_that_came_when_the_plan_is_applied_then_nothing_is_made_and_it_is_named() {
    let copy = |root: &Path| {
        std::fs::copy(root.join("small/part-001.parquet"), root.join("small/part-009.parquet")).map(drop).unwrap();
    };
    stale((copy, &["source small", "part-009.parquet is new"])).await;
}

#[tokio::test]
async fn given_a_file_that_was_written_anew_when_the_plan_is_applied_then_nothing_is_made_and_it_is_named() {
    let rewrite = |root: &Path| {
        let file = root.join("big/part-002.parquet");
        std::fs::copy(root.join("big/part-003.parquet"), file).map(drop).unwrap();
    };
    stale((rewrite, &["source big", "part-002.parquet was written anew"])).await;
}

#[tokio::test]
async fn given_a_table_that_came_when_the_plan_is_applied_then_it_is_not_written_to() {
    let scenario = Scenario::little();
    let other = scenario.world.root().join("other.yaml");
    plan(&scenario.world).await;
    std::fs::copy(scenario.world.root().join(Scenario::SPEC), &other).unwrap();
    let spec = std::fs::read_to_string(&other).unwrap().replace("name: two-sources", "name: somebody-else");
    scenario.world.write("other.yaml", &spec);
    let first = scenario.world.run_local("other.yaml", &[]).await.with(0).json();
    let id = first["id"].as_str().unwrap();

    let refused = scenario.world.run_local(PLAN, &[]).await.with(4);
    refused.saying(&["table default.lake.big", "somebody else", "make the plan again"]);
    must_be_exact(&scenario.checks(id));
}

#[tokio::test]
async fn given_a_plan_that_was_edited_when_it_is_applied_then_it_is_refused_and_no_coordinator_is_asked() {
    let scenario = Scenario::little();
    plan(&scenario.world).await;
    let path = scenario.world.root().join(PLAN);
    let saved = std::fs::read_to_string(&path).unwrap();
    scenario.world.write(PLAN, &saved.replacen("part-000.parquet", "part-001.parquet", 1));
    let refused = scenario.world.run(&["apply", PLAN, "--yes"]).await.with(4);
    refused.saying(&["plan.json was damaged or edited", "make it again"]);
    scenario.world.write(PLAN, &saved[..saved.len() / 2]);
    scenario.world.run(&["apply", PLAN, "--yes"]).await.with(4).saying(&["plan.json was damaged or edited"]);
}

/// A topic of two partitions with `count` records each.
async fn topic(broker: &Broker, count: i64) -> String {
    let topic = Broker::name("planned");
    broker.create_topic(&topic, 2, &[]).await;
    produce(broker, &topic, count);
    topic
}

fn produce(broker: &Broker, topic: &str, count: i64) {
    let record = |at: i64| Record::to((at % 2).try_into().unwrap()).value(format!("{at}")).at(BEGIN / 1_000 + at);
    broker.produce(topic, &(0..2 * count).map(record).collect::<Vec<_>>());
}

/// The replay of a topic by a saved plan, with those who carry it out.
async fn planned(broker: &Broker, topic: &str) -> Replay {
    let mut replay = Replay::of(broker, topic);
    let planned = replay.world.run(&["plan", Replay::SPEC, "--out", PLAN, "--detailed-exitcode"]).await.with(10);
    planned.saying(&["saved to plan.json"]);
    replay.world.start_coordinator().await;
    replay.world.start_worker("w-1", 2);
    replay
}

#[tokio::test]
async fn given_records_that_came_when_the_plan_of_a_topic_is_applied_then_exactly_its_offsets_are_read() {
    let broker = Broker::shared().await;
    let topic = topic(broker, 50).await;
    let expected = broker.content(&topic, Isolation::Committed);
    let replay = planned(broker, &topic).await;
    produce(broker, &topic, 30);

    replay.world.run(&["apply", PLAN, "--yes"]).await.with(0).saying(&["SUCCEEDED"]);
    replay.must_hold(&expected);
    replay.world.run(&["apply", PLAN, "--yes"]).await.with(0).saying(&["nothing to do"]);
    replay.must_hold(&expected);
}

#[tokio::test]
async fn given_a_topic_that_was_made_again_when_its_plan_is_applied_then_nothing_is_made_and_it_is_named() {
    let broker = Broker::shared().await;
    let topic = topic(broker, 50).await;
    let replay = planned(broker, &topic).await;
    // As many records at the same offsets: only its id tells that it is another topic.
    broker.recreate_topic(&topic, 2, &[]).await;
    produce(broker, &topic, 50);

    replay.world.run(&["apply", PLAN, "--yes"]).await.with(4).saying(&[&topic, "created again"]);
    nothing_was_made(&replay.world);
}
