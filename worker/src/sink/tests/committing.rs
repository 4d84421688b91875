//! Commits: once, whoever else commits, whatever the catalog answers.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use iceberg::spec::MAIN_BRANCH;
use iceberg::{TableCreation, TableIdent, TableRequirement, TableUpdate};

use super::*;

fn end(result: &v1::CommitResult) -> v1::CommitEnd {
    result.end()
}

/// Rows `from..to` as an intent and its parts.
async fn work(
    lake: &Lake,
    target: &OutputTarget,
    prepared: &v1::PreparedOutput,
    sequence: u64,
    predecessor: &str,
    (from, to): (i64, i64),
) -> (v1::Intent, Vec<v1::OutputPart>) {
    let parts = vec![part(&lake.catalogs, target, rows(from, to)).await];
    (intent(prepared, sequence, predecessor, &parts), parts)
}

#[tokio::test]
async fn given_a_new_table_when_two_intents_are_committed_then_their_rows_are_there_once() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let (first, parts) = work(&lake, &target, &prepared, 1, "", (0, 100)).await;
    let result = commit(&lake.catalogs, &target, "main", "bf-a", &first, parts.clone()).await.unwrap();
    assert_eq!(
        (end(&result), result.snapshot_id, result.already_done, result.tries),
        (v1::CommitEnd::Committed, first.snapshot_id, false, 1)
    );
    let again = commit(&lake.catalogs, &target, "main", "bf-a", &first, parts).await.unwrap();
    assert_eq!(
        (end(&again), again.snapshot_id, again.already_done),
        (v1::CommitEnd::Committed, first.snapshot_id, true)
    );
    let (second, parts) = work(&lake, &target, &prepared, 2, &marker::of(&first), (100, 150)).await;
    commit(&lake.catalogs, &target, "main", "bf-a", &second, parts).await.unwrap();
    assert_eq!(ids(&lake.catalogs, &target).await, (0..150).collect::<Vec<_>>());

    let table = load(&lake.catalogs, &target).await.unwrap();
    let metadata = table.metadata();
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(summary["total-records"], "150");
    assert_eq!(summary["tidegate.bf-a"], marker::of(&second));
    assert_eq!(summary[COMMITTED_THROUGH], "2023-11-14T22:13:20Z");
    assert_eq!(metadata.properties()["tidegate.bf-a"], marker::of(&second));
    let found = prepare(&lake.catalogs, &target, &rows(0, 1).schema(), true, "bf-a").await.unwrap();
    assert_eq!((found.created, found.rows_before, found.marker), (false, 150, marker::of(&second)));
}
