//! A worker whose disk has no more room for a data file: said clearly, nothing half done, and exact once there is room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_proto::v1;
use tidegate_tests::sandbox::{Check, Input, World, must_be_exact};

const SPEC: &str = "version: 1
kind: backfill
name: no-room
sources:
  big: {files: {path: 'big/*.parquet'}, event_time: {column: ts}}
outputs:
  big: {table: lake.big}
";

fn check(world: &World, id: &str, query: &str) -> Check {
    Check {
        catalog: world.catalog(),
        table: "lake.big".to_owned(),
        branch: None,
        input: vec![world.root().join("big/*.parquet").display().to_string()],
        others: Vec::new(),
        query: Some(query.to_owned()),
        time: "ts",
        window: None,
        backfill: Some(id.to_owned()),
        may_miss: None,
    }
}

#[tokio::test]
async fn given_no_room_for_a_data_file_when_run_then_the_file_is_named_nothing_is_half_there_and_with_room_it_is_exact()
{
    let mut world = World::new();
    Input { folder: "big", rows: 60_000, days: 20, files: 2, unit: 5_000, seed: 5 }.write(world.root());
    world.write("spec.yaml", SPEC);
    world.start_coordinator().await;
    // 256 KiB: enough for metadata, manifests, catalog and logs; a data file of this table wants more than a megabyte.
    world.start_worker_without_room("cramped", 2, 512);
    let ended = world.run(&["apply", "spec.yaml", "--yes"]).await.with(6);
    ended.saying(&["warehouse/lake/big/data/", ".parquet", "File too large", "tidegate retry"]);
    let id = world.run(&["status", "no-room", "-o", "name"]).await.with(0).stdout.trim().to_owned();
    let last = world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Partial, "{last:?}");
    // Another worker may have room: it is this one that cannot.
    let evidence = |parked: &v1::ParkedTask| parked.evidence.clone().unwrap();
    assert!(last.parked.iter().all(|parked| evidence(parked).class() == v1::Failure::WorkerSick), "{last:?}");
    // A small file had room; what did not is not there in part.
    let missing: u64 = 60_000 - last.outputs[0].rows_committed;
    assert!(!last.parked.is_empty() && missing > 0, "{last:?}");
    let whole = check(&world, &id, "SELECT * FROM input");
    let found = must_be_exact(&[Check { may_miss: Some(whole.input.clone()), ..whole.clone() }]);
    assert_eq!(found[0].rows, last.outputs[0].rows_committed);

    world.kill_worker("cramped");
    world.start_worker("roomy", 2);
    world.run(&["retry", &id, "--yes"]).await.with(0);
    let last = world.until(&id, "its success", |backfill| backfill.phase() == v1::Phase::Succeeded).await;
    assert_eq!(last.outputs[0].rows_committed, 60_000);
    let found = must_be_exact(&[whole]);
    assert_eq!(found[0].rows, 60_000);
}
