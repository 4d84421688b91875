//! Operators who look at the positions of live jobs, keep them, put them back and move them, on a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::Record;
use tidegate_tests::sandbox::{Broker, Ended, PATIENCE, World, wait_until};

/// 2024-01-01T00:00:00Z, in milliseconds.
const BEGIN: i64 = 1_704_067_200_000;

/// A topic of two partitions with records at every minute, and a group that stands in its middle.
struct Live {
    world: World,
    broker: &'static Broker,
    topic: String,
    group: String,
}

impl Live {
    /// Partition 0 has 20 records, of which the group has read 8; partition 1 has 10, all read.
    async fn new() -> Self {
        let broker = Broker::shared().await;
        let (topic, group) = (Broker::name("checkpoint"), Broker::name("group"));
        broker.create_topic(&topic, 2, &[("retention.ms", "-1")]).await;
        let at = |partition, minute: i64| Record::to(partition).value("v").at(BEGIN + minute * 60_000);
        broker.produce(&topic, &(0..20).map(|minute| at(0, minute)).collect::<Vec<_>>());
        broker.produce(&topic, &(0..10).map(|minute| at(1, minute)).collect::<Vec<_>>());
        broker.commit_offsets(&group, &topic, &[(0, 8), (1, 10)]);
        Self { world: World::new(), broker, topic, group }
    }

    fn positions(&self) -> [Option<i64>; 2] {
        [0, 1].map(|partition| self.broker.committed_offset(&self.group, &self.topic, partition))
    }

    async fn run(&self, words: &[&str]) -> Ended {
        let named = ["--bootstrap-server", self.broker.bootstrap()];
        self.world.run(&[&["checkpoint"], words, &named[..]].concat()).await
    }

    async fn on_group(&self, words: &[&str]) -> Ended {
        self.run(&[words, &["--group", &self.group]].concat()).await
    }

    async fn reset(&self, words: &[&str]) -> Ended {
        self.on_group(&[&["reset", "--topic", &self.topic], words].concat()).await
    }

    async fn reset_for_good(&self, words: &[&str]) -> Ended {
        self.reset(&[words, &["--execute", "--confirm", &self.group, "-o", "json"]].concat()).await
    }

    /// A member of the group, which has its partitions.
    async fn member(&self, settings: &[(&str, &str)]) -> BaseConsumer {
        let own = [("group.id", self.group.as_str()), ("enable.auto.commit", "false"), ("client.id", "the-live-job")];
        let member = self.broker.consumer(&[&own[..], settings].concat());
        member.subscribe(&[&self.topic]).unwrap();
        wait_until("the member to have its partitions", PATIENCE, async || {
            let _ = member.poll(Duration::from_millis(100));
            (member.assignment().unwrap().count() == 2).then_some(())
        })
        .await;
        member
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn given_a_topic_that_was_made_again_when_its_old_positions_are_restored_or_handed_over_then_that_is_refused() {
    let live = Live::new().await;
    live.on_group(&["backup", "--out", "kept.json"]).await.with(0);
    live.world.write("spec.yaml", &spec(&live));
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

/// What `handoff` writes of a backfill that read the first partition from `from` to `next`.
fn hand_over(live: &Live, from: i64, next: i64, covers: bool) -> String {
    let partition = json!({"partition": 0, "from": from, "next": next});
    let topic = json!({"source": "s", "topic": live.topic, "partitions": [partition]});
    json!({
        "kind": "HandOver", "version": 1, "made_at": "2026-01-01T00:00:00Z", "backfill": "bf-aaaaaaaaaaaaaaaa", "name": "b",
        "group": live.group, "covers": covers, "topics": [topic],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_hand_over_when_a_group_is_reset_to_it_then_what_the_backfill_read_is_no_gap_and_all_else_is() {
    let live = Live::new().await;
    live.world.write("late.json", &hand_over(&live, 9, 15, true));
    live.world.write("part.json", &hand_over(&live, 0, 15, false));
    live.world.write("whole.json", &hand_over(&live, 0, 15, true));
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

#[tokio::test(flavor = "multi_thread")]
async fn given_a_backfill_of_a_topic_when_it_has_ended_then_its_hand_over_moves_the_live_group_behind_it() {
    let mut live = Live::new().await;
    live.world.write("spec.yaml", &spec(&live));
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

/// Writes a query's folder as Spark does: batches 0 to `planned`, of which all up to `committed` are; partition 0 of the
/// topic ends in batch n at n + 2.
fn spark(folder: &Path, topic: &str, planned: i64, committed: i64) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        // As Hadoop's local file system does.
        let sum = path.with_file_name(format!(".{}.crc", path.file_name().unwrap().to_string_lossy()));
        std::fs::write(sum, b"crc").unwrap();
    };
    write("metadata", "{\"id\":\"6a2b9c1e-0000-4000-8000-000000000001\"}");
    write("sources/0/0", &format!("v1\n{{\"{topic}\":{{\"0\":0,\"1\":0}}}}"));
    let metadata =
        "{\"batchWatermarkMs\":0,\"batchTimestampMs\":1704067200000,\"conf\":{\"spark.sql.shuffle.partitions\":\"8\"}}";
    for batch in 0..=planned {
        let positions = format!("{{\"{topic}\":{{\"1\":10,\"0\":{}}}}}", batch + 2);
        write(&format!("offsets/{batch}"), &format!("v1\n{metadata}\n{positions}\n-"));
    }
    for batch in 0..=committed {
        write(&format!("commits/{batch}"), "v1\n{\"nextBatchWatermarkMs\":0}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_query_of_spark_when_reset_then_its_next_batch_begins_there_and_nothing_else_changes() {
    let live = Live::new().await;
    let folder = live.world.root().join("query");
    spark(&folder, &live.topic, 6, 6);

    let seen = live.run(&["inspect", "--spark", "query", "-o", "json"]).await.with(0).json();
    assert_eq!(
        (&seen["planned"], &seen["committed"], &seen["stateful"], &seen["lag"]),
        (&json!(6), &json!(6), &json!(false), &json!(12))
    );
    live.run(&["verify", "--spark", "query"]).await.with(0).saying(&["batches 0 to 6", "the next is 7"]);
    live.world.run(&["checkpoint", "list", "--spark", "query"]).await.with(0).saying(&["6", "yes"]);

    let words = ["reset", "--spark", "query", "--to-datetime", "2024-01-01T00:03:00Z"];
    live.run(&words).await.with(0).saying(&["a dry run", "--confirm=query"]);
    live.run(&[&words[..], &["--execute"]].concat()).await.with(5);
    assert!(std::fs::read_to_string(folder.join("offsets/6")).unwrap().contains("\"0\":8"));
    let done =
        live.run(&[&words[..], &["--execute", "--confirm", "query", "-o", "json"]].concat()).await.with(0).json();

    let after = std::fs::read_to_string(folder.join("offsets/6")).unwrap();
    let lines: Vec<&str> = after.lines().collect();
    assert_eq!((lines[0], lines[3], lines.len()), ("v1", "-", 4));
    assert_eq!(serde_json::from_str::<Value>(lines[2]).unwrap(), json!({live.topic.as_str(): {"0": 3, "1": 3}}));
    assert!(!folder.join("offsets/.6.crc").exists(), "the sum of the old content is gone");
    assert!(folder.join("offsets/.5.crc").exists() && !folder.join("offsets/7").exists());
    let backup = live.world.root().join(done["backup"].as_str().unwrap());
    assert!(std::fs::read_to_string(backup.join("offsets/6")).unwrap().contains("\"0\":8"));
    live.run(&["verify", "--spark", "query"]).await.with(0);

    let words = ["reset", "--spark", "query", "--to-latest", "--execute", "--confirm", "query"];
    live.run(&words).await.with(4).saying(&["skipped unread"]);
    live.world.write("whole.json", &hand_over(&live, 0, 15, true));
    live.run(&["reset", "--spark", "query", "--from-handoff", "whole.json", "--execute", "--confirm", "query"])
        .await
        .with(0);
    assert!(std::fs::read_to_string(folder.join("offsets/6")).unwrap().contains("{\"0\":15,\"1\":3}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_query_that_cannot_be_reset_safely_when_it_is_asked_for_then_it_is_refused_with_the_way_out() {
    let live = Live::new().await;
    let root = live.world.root();
    spark(&root.join("pending"), &live.topic, 6, 5);
    spark(&root.join("stateful"), &live.topic, 6, 6);
    live.world.write("stateful/state/0/0/1.delta", "state");
    spark(&root.join("newer"), &live.topic, 6, 6);
    live.world.write("newer/offsets/6", "v2\n{}\n{}");
    spark(&root.join("holed"), &live.topic, 6, 6);
    std::fs::remove_file(root.join("holed/offsets/5")).unwrap();
    for (folder, code, words) in [
        ("pending", 4, ["batch 6 is planned and 5 is the last committed", "Let the query finish"]),
        ("stateful", 4, ["the query keeps state", "startingOffsets"]),
        ("newer", 2, ["its version is v2", "only v1"]),
        ("holed", 4, ["cannot begin at batch 6", "5"]),
        ("nothing", 2, ["no checkpoint of a Spark query", "metadata"]),
    ] {
        let before = std::fs::read(root.join(folder).join("offsets/6")).ok();
        let words_of = ["reset", "--spark", folder, "--to-earliest", "--execute", "--confirm", folder];
        live.run(&words_of).await.with(code).saying(&words);
        assert_eq!(std::fs::read(root.join(folder).join("offsets/6")).ok(), before, "{folder}");
    }
    live.world.run(&["checkpoint", "verify", "--spark", "pending"]).await.with(0).saying(&["6 is run again"]);
    live.world.run(&["checkpoint", "verify", "--spark", "newer"]).await.with(2);
    live.world.run(&["checkpoint", "verify", "--spark", "holed"]).await.with(7).saying(&["lack 5"]);
}

#[tokio::test]
async fn given_a_query_of_spark_when_backed_up_and_restored_then_it_is_the_same_and_a_damaged_copy_is_refused() {
    let world = World::new();
    spark(&world.root().join("query"), "t", 3, 2);
    world.write("query/state/0/_metadata/schema", "schema");
    world.write("query/offsets/.4.tmp", "half");
    let run = async |words: &[&str]| world.run(&[&["checkpoint"], words].concat()).await;

    run(&["backup", "--spark", "query", "--out", "kept"]).await.with(0).saying(&["10 files kept"]);
    run(&["verify", "kept"]).await.with(0).saying(&["10 files are what was copied"]);
    run(&["restore", "kept", "--spark", "query", "--execute", "--confirm", "query"])
        .await
        .with(4)
        .saying(&["is not empty"]);
    run(&["restore", "kept", "--spark", "again"]).await.with(0).saying(&["a dry run", "Delta"]);
    assert!(!world.root().join("again").exists());
    run(&["restore", "kept", "--spark", "again", "--execute"]).await.with(5);
    run(&["restore", "kept", "--spark", "again", "--execute", "--confirm", "again"]).await.with(0);
    for name in ["metadata", "sources/0/0", "offsets/0", "offsets/3", "commits/2", "state/0/_metadata/schema"] {
        let content = |folder: &str| std::fs::read(world.root().join(folder).join(name)).unwrap();
        assert_eq!(content("again"), content("query"), "{name}");
    }
    assert!(!world.root().join("again/tidegate-backup.json").exists());
    run(&["verify", "--spark", "again"]).await.with(0);

    world.write("kept/offsets/3", "v1\n{}\n{\"t\":{\"0\":999}}");
    run(&["verify", "kept"]).await.with(7).saying(&["it is not what was copied"]);
    run(&["restore", "kept", "--spark", "third", "--execute", "--confirm", "third"]).await.with(4);
}

/// A spec that reads the topic, with a live job whose commands leave a trace.
fn spec(live: &Live) -> String {
    format!(
        "version: 1
kind: backfill
name: replay
live: {{group: {}, pause: 'echo paused >> trace', resume: 'echo resumed >> trace'}}
sources:
  s: {{kafka: {{topic: {}, properties: {{bootstrap.servers: '{}'}}, format: {{type: raw}}}}}}
outputs:
  o: {{table: lake.replayed}}
",
        live.group,
        live.topic,
        live.broker.bootstrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_live_job_that_is_active_when_its_backfill_is_applied_then_it_is_refused_unless_that_is_meant() {
    let mut live = Live::new().await;
    live.world.write("spec.yaml", &spec(&live));
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
    live.world.write("spec.yaml", &spec(&live));
    let trace = || std::fs::read_to_string(live.world.root().join("trace")).unwrap_or_default();

    live.world.run(&["stream", "pause", "spec.yaml"]).await.with(5).saying(&["echo paused >> trace"]);
    live.world.run(&["stream", "pause", "spec.yaml", "--dry-run"]).await.with(0).saying(&["a dry run"]);
    assert_eq!(trace(), "");
    let paused = live.world.run(&["stream", "pause", "spec.yaml", "--yes", "--backup-to", "paused.json"]).await.with(0);
    assert_eq!((trace().as_str(), paused.stdout.trim()), ("paused\n", "paused.json"));
    live.run(&["verify", "paused.json"]).await.with(0);

    // The group of this test has nobody who comes back: that it is not active in time is said.
    live.world.write("whole.json", &hand_over(&live, 0, 15, true));
    let resume = ["stream", "resume", "spec.yaml", "--from-handoff", "whole.json", "--yes", "--timeout", "1s"];
    live.world.run(&resume).await.with(5).saying(&["--confirm"]);
    assert_eq!((trace().as_str(), live.positions()), ("paused\n", [Some(8), Some(10)]));
    let late = live.world.run(&[&resume[..], &["--confirm", &live.group]].concat()).await.with(8);
    late.saying(&["not active yet"]);
    assert_eq!((trace().as_str(), live.positions()), ("paused\nresumed\n", [Some(15), Some(10)]));
}
