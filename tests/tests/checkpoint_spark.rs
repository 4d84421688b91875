//! Operators who look at the folders of Spark's queries, keep them, put them back and move them, beside a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use serde_json::{Value, json};
use tidegate_tests::sandbox::World;
use tidegate_tests::sandbox::kafka::Live;

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
    live.world.write("whole.json", &live.hand_over(0, 15, true));
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
