//! Operators who ask for what is under way, done, not allowed or not possible on this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use tidegate_proto::v1;
use tidegate_tests::sandbox::{PATIENCE, Scenario, must_be_exact, wait_until};

fn rows(backfill: &v1::Backfill) -> u64 {
    backfill.sources.iter().map(|source| source.rows_read).sum()
}

#[tokio::test]
async fn given_a_backfill_that_runs_when_applied_again_then_it_is_attached_to_and_once_done_there_is_nothing_to_do() {
    let mut scenario = Scenario::large();
    scenario.world.start_coordinator().await;
    scenario.world.start_worker("w-1", 2);
    let id = scenario.world.apply(Scenario::SPEC).await;
    let running = scenario.world.until(&id, "reading", |backfill| rows(backfill) > 0).await;
    assert_eq!(running.ended, 0);

    let again = scenario.world.run(&["apply", Scenario::SPEC, "--detach", "--yes", "-o", "name"]).await.with(0);
    assert_eq!(again.stdout.trim(), id, "it is the same backfill");
    scenario.must_end_exact(&id).await;

    let done = scenario.world.run(&["apply", Scenario::SPEC, "--yes", "-o", "name"]).await.with(0);
    assert_eq!(done.stdout.trim(), id);
    done.saying(&["nothing to do"]);
    scenario.must_end_exact(&id).await;
}

#[tokio::test]
async fn given_a_backfill_that_runs_when_another_spec_has_its_name_then_it_is_refused_with_what_differs() {
    let mut scenario = Scenario::large();
    scenario.world.start_coordinator().await;
    let id = scenario.world.apply(Scenario::SPEC).await;
    let spec = std::fs::read_to_string(scenario.world.root().join(Scenario::SPEC)).unwrap();
    scenario.world.write("other.yaml", &spec.replace("max_drift: 4d", "max_drift: 5d"));
    let refused = scenario.world.run(&["apply", "other.yaml", "--detach", "--yes"]).await.with(4);
    refused.saying(&["two-sources", "max_drift", "4d", "5d"]);
    scenario.world.start_worker("w-1", 2);
    scenario.must_end_exact(&id).await;
}

#[tokio::test]
async fn given_a_run_in_one_process_when_a_second_begins_on_the_same_state_then_it_is_refused_and_the_first_goes_on() {
    let mut scenario = Scenario::large();
    let world = &mut scenario.world;
    let mut command = world.command(&["run", Scenario::SPEC, "--local", "--yes"]);
    command.env("TIDEGATE_WORKER_SLOTS", "1");
    let mut first = world.spawn("first", command);
    // The lowest sign of life that a second run could disturb: a table that the first one made.
    let table = world.root().join("warehouse/lake");
    wait_until("the first run to make its table", PATIENCE, async || table.exists().then_some(())).await;
    assert!(first.is_alive(), "{}", first.said());

    let second = world.run(&["run", Scenario::SPEC, "--local", "--yes"]).await;
    assert!(matches!(second.code, Some(4 | 75)), "{second:?}");
    second.saying(&[".tidegate"]);
    let status = first.ended(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", first.said());

    let done = scenario.world.run_local(Scenario::SPEC, &[]).await.with(0);
    let id = done.json()["id"].as_str().unwrap().to_owned();
    must_be_exact(&scenario.checks(&id));
}

#[tokio::test]
async fn given_a_spec_that_leaves_the_allowed_folders_when_applied_then_no_worker_follows_it() {
    let mut scenario = Scenario::little();
    scenario.world.start_coordinator().await;
    scenario.world.start_worker("w-1", 1);
    let spec = std::fs::read_to_string(scenario.world.root().join(Scenario::SPEC)).unwrap();
    for (file, path) in [("climbs.yaml", "../../../../etc/*.conf"), ("elsewhere.yaml", "/etc/*.conf")] {
        let spec = spec.replace("big/*.parquet", path).replace("name: two-sources", &format!("name: {}", &file[..5]));
        scenario.world.write(file, &spec.replace("lake.", &format!("{}.", &file[..5])));
        let refused = scenario.world.run(&["apply", file, "--yes"]).await.with(4);
        refused.saying(&["source big", "allow"]);
    }
}

#[tokio::test]
async fn given_a_worker_whose_disk_is_full_when_another_comes_then_it_does_the_work_and_nothing_is_doubled() {
    let mut scenario = Scenario::large();
    let world = &mut scenario.world;
    world.start_coordinator().await;
    // Where a file may have 64 blocks, no data file of this input fits; the signal would kill, the error must not.
    let sound = {
        let mut command = world.command(&[]);
        command.arg("worker").arg("--name").arg("full").args(["--slots", "1", "--allow-path"]).arg(world.root());
        command
    };
    let mut full = Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"]).arg(sound.get_program()).args(sound.get_args());
    full.current_dir(world.root()).envs(sound.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let full = world.spawn("full", full);
    world.workers.insert("full".to_owned(), full);
    let id = world.apply(Scenario::SPEC).await;
    wait_until("the full disk to be named", PATIENCE, async || {
        world.workers["full"].said().contains("task failed").then_some(())
    })
    .await;
    let said = world.workers["full"].said();
    assert!(said.contains("File too large"), "{said}");
    world.kill_worker("full");

    world.start_worker("roomy", 2);
    let last = world.until_over(&id).await;
    assert!(matches!(last.phase(), v1::Phase::Succeeded | v1::Phase::Partial), "{:?}", last.failure);
    if last.phase() == v1::Phase::Partial {
        assert!(!last.parked.is_empty());
        scenario.world.run(&["retry", &id, "--yes"]).await.with(0);
        scenario.world.until(&id, "the retry", |backfill| backfill.phase() == v1::Phase::Succeeded).await;
    }
    scenario.must_end_exact(&id).await;
}
