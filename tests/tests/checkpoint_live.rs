//! Live jobs beside a backfill on a real broker: paused, handed over to, resumed; and refused where their topic is another one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Live, Record};

/// 2024-01-01T00:00:00Z, in milliseconds.
const BEGIN: i64 = 1_704_067_200_000;

#[tokio::test(flavor = "multi_thread")]
async fn given_a_topic_that_was_made_again_when_its_old_positions_are_restored_or_handed_over_then_that_is_refused() {
    let live = Live::new().await;
    live.on_group(&["backup", "--out", "kept.json"]).await.with(0);
    live.world.write("spec.yaml", &live.spec());
    let id = live.world.run_local("spec.yaml", &[]).await.with(0).json()["id"].as_str().unwrap().to_owned();
    let words = ["handoff", &id, "--state", ".tidegate", "--group", &live.group, "--out", "handed.json"];
    live.world.run(&words).await.with(0);
    // As many partitions, and more records: only its id tells that it is another topic.
    live.broker.recreate_topic(&live.topic, 2, &[]).await;
    (0..2).for_each(|partition| {
        let records: Vec<Record> = (0..30).map(|at| Record::to(partition).value("new").at(BEGIN + at)).collect();
        live.broker.produce(&live.topic, &records);
    });
    live.broker.commit_offsets(&live.group, &live.topic, &[(0, 3), (1, 3)]);

    let execute = ["--execute", "--allow-gap", "--confirm", &live.group];
    for words in [["restore", "kept.json", ""], ["reset", "--from-handoff", "handed.json"]] {
        let words = words.into_iter().filter(|word| !word.is_empty()).chain(execute).collect::<Vec<_>>();
        let refused = live.run(&words).await.with(4);
        refused.saying(&[&live.topic, "deleted and created again", "tidegate checkpoint reset"]);
        assert_eq!(live.positions(), [Some(3), Some(3)]);
    }
    live.run(&["verify", "kept.json"]).await.with(7).saying(&["deleted and created again"]);
    live.reset_for_good(&["--to-latest", "--allow-gap"]).await.with(0);
    assert_eq!(live.positions(), [Some(30), Some(30)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_hand_over_when_a_group_is_reset_to_it_then_what_the_backfill_read_is_no_gap_and_all_else_is() {
    let live = Live::new().await;
    live.world.write("late.json", &live.hand_over(9, 15, true));
    live.world.write("part.json", &live.hand_over(0, 15, false));
    live.world.write("whole.json", &live.hand_over(0, 15, true));
    let execute = ["--execute", "--confirm", &live.group];
    for file in ["late.json", "part.json"] {
        let refused = live.run(&[&["reset", "--from-handoff", file], &execute[..]].concat()).await.with(4);
        refused.saying(&["would be skipped unread"]);
        assert_eq!(live.positions(), [Some(8), Some(10)], "{file}");
    }
    let done = live.run(&[&["reset", "--from-handoff", "whole.json"], &execute[..]].concat()).await.with(0);
    done.saying(&["7 of them read by the backfill"]);
    assert_eq!(live.positions(), [Some(15), Some(10)], "the other partition is none of its business");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_backfill_of_a_topic_when_it_has_ended_then_its_hand_over_moves_the_live_group_behind_it() {
    let mut live = Live::new().await;
    live.world.write("spec.yaml", &live.spec());
    let done = live
        .world
        .run_local("spec.yaml", &[])
        .await
        .with(0)
        .saying(&["stream resume spec.yaml", "echo resumed >> trace"]);
    let id = done.json()["id"].as_str().unwrap().to_owned();
    // What comes after the backfill's range is the live job's.
    live.broker.produce(&live.topic, &[Record::to(0).value("later").at(BEGIN + 3_600_000)]);

    let words = ["handoff", &id, "--state", ".tidegate", "--group", &live.group, "--out", "handed.json"];
    live.world.run(&words).await.with(0).saying(&["checkpoint reset", "--from-handoff handed.json"]);
    let made: Value =
        serde_json::from_str(&std::fs::read_to_string(live.world.root().join("handed.json")).unwrap()).unwrap();
    assert_eq!((&made["kind"], &made["covers"], &made["backfill"]), (&json!("HandOver"), &json!(true), &json!(id)));
    let ranges = json!([{"partition": 0, "from": 0, "next": 20}, {"partition": 1, "from": 0, "next": 10}]);
    assert_eq!(made["topics"][0]["partitions"], ranges);

    live.run(&["reset", "--from-handoff", "handed.json", "--execute", "--confirm", &live.group]).await.with(0);
    assert_eq!(live.positions(), [Some(20), Some(10)]);
    live.world.start_coordinator().await;
    live.world.run(&["handoff", "bf-aaaaaa"]).await.with(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_live_job_that_is_active_when_its_backfill_is_applied_then_it_is_refused_unless_that_is_meant() {
    let mut live = Live::new().await;
    live.world.write("spec.yaml", &live.spec());
    live.world.start_coordinator().await;
    let member = live.member(&[]).await;

    let refused = live.world.run(&["apply", "spec.yaml", "--detach", "--yes"]).await.with(4);
    refused.saying(&["the live job's group", "is active", "stream pause", "--live-ok"]);
    live.world.run(&["run", "spec.yaml", "--local", "--yes"]).await.with(4).saying(&["--live-ok"]);
    live.world.run(&["list", "-o", "name"]).await.with(0);
    live.world.run(&["stream", "status", "spec.yaml"]).await.with(0).saying(&["active", "the-live-job"]);
    let meant = live.world.run(&["apply", "spec.yaml", "--detach", "--yes", "--live-ok", "-o", "name"]).await.with(0);
    let id = meant.stdout.trim().to_owned();
    live.world.run(&["cancel", &id, "--yes"]).await.with(0);
    drop(member);

    let id = live.world.run(&["apply", "spec.yaml", "--detach", "--yes", "-o", "name"]).await.with(0).stdout;
    live.world.run(&["cancel", id.trim(), "--yes"]).await.with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_live_job_when_paused_and_resumed_then_its_commands_run_only_when_they_are_confirmed() {
    let live = Live::new().await;
    live.world.write("spec.yaml", &live.spec());
    let trace = || std::fs::read_to_string(live.world.root().join("trace")).unwrap_or_default();

    live.world.run(&["stream", "pause", "spec.yaml"]).await.with(5).saying(&["echo paused >> trace"]);
    live.world.run(&["stream", "pause", "spec.yaml", "--dry-run"]).await.with(0).saying(&["a dry run"]);
    assert_eq!(trace(), "");
    let paused = live.world.run(&["stream", "pause", "spec.yaml", "--yes", "--backup-to", "paused.json"]).await.with(0);
    assert_eq!((trace().as_str(), paused.stdout.trim()), ("paused\n", "paused.json"));
    live.run(&["verify", "paused.json"]).await.with(0);

    // The group of this test has nobody who comes back: that it is not active in time is said.
    live.world.write("whole.json", &live.hand_over(0, 15, true));
    let resume = ["stream", "resume", "spec.yaml", "--from-handoff", "whole.json", "--yes", "--timeout", "1s"];
    live.world.run(&resume).await.with(5).saying(&["--confirm"]);
    assert_eq!((trace().as_str(), live.positions()), ("paused\n", [Some(8), Some(10)]));
    let late = live.world.run(&[&resume[..], &["--confirm", &live.group]].concat()).await.with(8);
    late.saying(&["not active yet"]);
    assert_eq!((trace().as_str(), live.positions()), ("paused\nresumed\n", [Some(15), Some(10)]));
}
