//! Operators who look at the positions of live jobs, keep them, put them back and move them, on a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::Live;
use tidegate_tests::sandbox::{Broker, PATIENCE, World, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn given_a_group_when_inspected_then_each_partition_has_its_position_lag_age_and_headroom() {
    let live = Live::new().await;
    live.broker.delete_records(&live.topic, 0, 3).await;

    let seen = live.on_group(&["inspect", "-o", "json"]).await.with(0).json();

    assert_eq!(
        (&seen["kind"], &seen["activity"], &seen["state"]),
        (&json!("Checkpoint"), &json!("inactive"), &json!("Empty"))
    );
    assert_eq!(seen["lag"], 12);
    let partitions = seen["partitions"].as_array().unwrap();
    let facts = |one: &Value| {
        let keys = [
            "topic",
            "partition",
            "position",
            "lag",
            "log_start",
            "log_end",
            "headroom",
            "position_time",
            "headroom_seconds",
        ];
        keys.map(|key| one[key].clone())
    };
    let topic = json!(live.topic);
    let first = [
        topic.clone(),
        json!(0),
        json!(8),
        json!(12),
        json!(3),
        json!(20),
        json!(5),
        json!("2024-01-01T00:08:00Z"),
        json!(300.0),
    ];
    // Nothing is behind the second position: its time is that of the newest record before it.
    let second = [
        topic,
        json!(1),
        json!(10),
        json!(0),
        json!(0),
        json!(10),
        json!(10),
        json!("2024-01-01T00:09:00Z"),
        json!(540.0),
    ];
    assert_eq!(partitions.iter().map(facts).collect::<Vec<_>>(), [first, second]);

    live.on_group(&["inspect"]).await.with(0).saying(&["inactive", "12 offsets behind", "5 (5m)"]);
    live.run(&["list"]).await.with(0).saying(&[&live.group, "Empty"]);
    live.on_group(&["verify"]).await.with(0);

    live.broker.delete_records(&live.topic, 0, 12).await;
    let told = live.on_group(&["verify"]).await.with(7);
    told.saying(&["4 offsets before it are gone unread"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_group_when_a_reset_is_not_executed_then_it_is_shown_and_nothing_moves() {
    let live = Live::new().await;
    for words in [
        &["--to-earliest"][..],
        &["--to-latest"],
        &["--to-datetime", "2024-01-01T00:05:00.000"],
        &["--by-duration", "P1D"],
        &["--to-offset", "3"],
        &["--shift-by", "-2"],
    ] {
        let shown = live.reset(&[words, &["-o", "json"]].concat()).await.with(0);
        assert_eq!(shown.json()["executed"], false, "{words:?}");
        assert_eq!(live.positions(), [Some(8), Some(10)], "{words:?}");
        shown.saying(&["a dry run", "--execute"]);
    }
    let shown = live.reset(&["--to-latest"]).await.with(0);
    shown.saying(&["12 offsets would be skipped unread", "--allow-gap", "up to 11m forward"]);
    live.on_group(&["reset", "--to-earliest"]).await.with(2).saying(&["--all-topics"]);
    live.reset(&[]).await.with(2);
    live.reset(&["--to-earliest", "--to-latest"]).await.with(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_an_inactive_group_when_reset_then_it_stands_where_kafka_says_and_where_it_was_is_kept() {
    let live = Live::new().await;
    for (words, positions, skipped, again) in [
        (&["--to-earliest"][..], [0, 0], 0, 18),
        (&["--to-offset", "8", "--allow-gap"], [8, 8], 16, 0),
        (&["--shift-by", "-3"], [5, 5], 0, 6),
        (&["--to-datetime", "2024-01-01T00:07:30Z", "--allow-gap"], [8, 8], 6, 0),
        (&["--to-datetime", "2024-01-01T00:04:00"], [4, 4], 0, 8),
        (&["--by-duration", "1h", "--allow-gap"], [20, 10], 22, 0),
    ] {
        let done = live.reset_for_good(words).await.with(0).json();
        assert_eq!(live.positions(), positions.map(Some), "{words:?}");
        assert_eq!(
            (&done["executed"], &done["skipped"], &done["again"]),
            (&json!(true), &json!(skipped), &json!(again)),
            "{words:?}"
        );
        let backup = done["backup"].as_str().unwrap();
        assert!(live.world.root().join(backup).exists(), "{backup}");
    }
    let again = live.reset_for_good(&["--to-latest"]).await.with(0);
    again.saying(&["nothing to do"]);

    // One partition only; the other stays.
    let one = format!("{}:1", live.topic);
    live.on_group(&["reset", "--topic", &one, "--to-offset", "2", "--execute", "--confirm", &live.group]).await.with(0);
    assert_eq!(live.positions(), [Some(20), Some(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_reset_when_it_is_not_confirmed_or_would_lose_records_then_it_is_refused_and_nothing_moves() {
    let live = Live::new().await;
    live.reset(&["--to-earliest", "--execute"]).await.with(5).saying(&["--confirm"]);
    live.reset(&["--to-earliest", "--execute", "--confirm", "another"]).await.with(5);
    live.reset_for_good(&["--to-latest"]).await.with(4).saying(&["12 offsets would be skipped unread", "--allow-gap"]);
    live.reset_for_good(&["--to-offset", "9"]).await.with(4);
    live.broker.delete_records(&live.topic, 0, 5).await;
    live.reset_for_good(&["--to-offset", "4"]).await.with(4).saying(&["is not in the log"]);
    live.reset_for_good(&["--shift-by", "100"]).await.with(4).saying(&["is not in the log"]);
    let missing = format!("{}:7", live.topic);
    live.on_group(&["reset", "--topic", &missing, "--to-earliest"]).await.with(2).saying(&["2 partitions"]);
    let none = Broker::name("none");
    live.on_group(&["reset", "--topic", &none, "--to-earliest"]).await.with(2).saying(&["there is no topic"]);
    assert_eq!(live.positions(), [Some(8), Some(10)]);
    let left: Vec<_> = std::fs::read_dir(live.world.root())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    assert!(left.iter().all(|name| !name.starts_with("tidegate-checkpoint")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_group_with_a_member_when_reset_then_it_is_refused_and_goes_on_once_the_member_is_gone() {
    let live = Live::new().await;
    let member = live.member(&[]).await;

    live.reset_for_good(&["--to-earliest"]).await.with(4).saying(&["is active", "the-live-job"]);
    live.reset(&["--to-earliest"]).await.with(0).saying(&["it would be refused"]);
    live.on_group(&["inspect", "-o", "json"]).await.with(0).saying(&["\"activity\": \"active\""]);
    assert_eq!(live.positions(), [Some(8), Some(10)]);

    drop(member);
    live.reset_for_good(&["--to-earliest"]).await.with(0);
    assert_eq!(live.positions(), [Some(0), Some(0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_member_of_the_newer_protocol_when_reset_then_its_coordinator_refuses() {
    let live = Live::new().await;
    let group = Broker::name("newer");
    let live = Live { group, ..live };
    let member = live.member(&[("group.protocol", "consumer"), ("auto.offset.reset", "earliest")]).await;
    let mut stands = TopicPartitionList::new();
    for partition in [0, 1] {
        stands.add_partition_offset(&live.topic, partition, Offset::Offset(2)).unwrap();
    }
    member.commit(&stands, CommitMode::Sync).unwrap();

    live.reset_for_good(&["--to-offset", "5", "--allow-gap"]).await.with(4).saying(&["active"]);

    drop(member);
    let done = wait_until("the coordinator to see that it is gone", PATIENCE, async || {
        let done = live.reset_for_good(&["--to-offset", "5", "--allow-gap"]).await;
        (done.code != Some(4)).then_some(done)
    })
    .await;
    done.with(0);
    assert_eq!(live.positions(), [Some(5), Some(5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_backup_when_positions_have_moved_then_it_puts_them_back() {
    let live = Live::new().await;
    live.on_group(&["backup", "--out", "kept.json"]).await.with(0).saying(&["2 positions kept"]);
    live.on_group(&["backup", "--out", "kept.json"]).await.with(2);
    live.run(&["verify", "kept.json"]).await.with(0).saying(&["everything is as it should be"]);
    live.reset_for_good(&["--to-latest", "--allow-gap"]).await.with(0);

    live.run(&["restore", "kept.json"]).await.with(0).saying(&["a dry run"]);
    assert_eq!(live.positions(), [Some(20), Some(10)]);
    live.run(&["restore", "kept.json", "--execute", "--confirm", &live.group]).await.with(0);
    assert_eq!(live.positions(), [Some(8), Some(10)]);

    // What retention has eaten since is said, and is a gap.
    live.broker.delete_records(&live.topic, 0, 12).await;
    live.run(&["verify", "kept.json"]).await.with(7).saying(&["gone unread"]);
    live.run(&["restore", "kept.json", "--execute", "--confirm", &live.group]).await.with(4);

    let text = std::fs::read_to_string(live.world.root().join("kept.json")).unwrap();
    live.world.write("other.json", &text.replace("\"cluster_id\": \"", "\"cluster_id\": \"not-"));
    live.run(&["restore", "other.json"]).await.with(4).saying(&["its offsets mean nothing here"]);
    live.broker.recreate_topic(&live.topic, 1, &[]).await;
    live.run(&["verify", "kept.json"]).await.with(7).saying(&["not there any more", "it is another one"]);
}

#[tokio::test]
async fn given_brokers_that_are_not_there_when_asked_then_it_is_temporary_and_says_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("127.0.0.1:{port}");
    let told =
        World::new().run(&["checkpoint", "inspect", "--bootstrap-server", &nobody, "--group", "g"]).await.with(75);
    told.saying(&[&nobody, "hint:"]);
    let world = World::new();
    world.write("jks.properties", "ssl.truststore.location=/a.jks\n");
    let words = ["checkpoint", "list", "--bootstrap-server", &nobody, "--command-config", "jks.properties"];
    world.run(&words).await.with(2).saying(&["export it as PEM"]);
}
