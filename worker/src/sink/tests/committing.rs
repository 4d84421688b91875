//! Commits: once, whoever else commits, and whatever others made of the table.

use iceberg::TableUpdate;
use iceberg::spec::MAIN_BRANCH;

use super::*;

pub(super) fn end(result: &v1::CommitResult) -> v1::CommitEnd {
    result.end()
}

/// Rows `from..to` as an intent and its parts.
pub(super) async fn work(
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
    let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &first, parts.clone()).await.unwrap();
    assert_eq!(
        (end(&result), result.snapshot_id, result.already_done, result.tries),
        (v1::CommitEnd::Committed, first.snapshot_id, false, 1)
    );
    let again = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &first, parts).await.unwrap();
    assert_eq!(
        (end(&again), again.snapshot_id, again.already_done),
        (v1::CommitEnd::Committed, first.snapshot_id, true)
    );
    let (second, parts) = work(&lake, &target, &prepared, 2, &marker::of(&first), (100, 150)).await;
    commit(&lake.catalogs, &target, &Scope::of("bf-a"), &second, parts).await.unwrap();
    assert_eq!(ids(&lake.catalogs, &target).await, (0..150).collect::<Vec<_>>());

    let table = load(&lake.catalogs, &target).await.unwrap();
    let metadata = table.metadata();
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(summary["total-records"], "150");
    assert_eq!(summary["tidegate.bf-a"], marker::of(&second));
    assert_eq!(summary[COMMITTED_THROUGH], "2023-11-14T22:13:20Z");
    assert_eq!(metadata.properties()["tidegate.bf-a"], marker::of(&second));
    let found = prepare(&lake.catalogs, &target, &rows(0, 1).schema(), true, &Scope::of("bf-a")).await.unwrap();
    assert_eq!((found.created, found.rows_before, found.marker), (false, 0, marker::of(&second)), "none of another");
    let other = prepare(&lake.catalogs, &target, &rows(0, 1).schema(), true, &Scope::of("bf-b")).await.unwrap();
    assert_eq!((other.rows_before, other.marker.as_str()), (150, ""));
}

/// Changes the table as another program would, by `updates`.
pub(super) async fn meddle(lake: &Lake, target: &OutputTarget, updates: Vec<TableUpdate>) {
    let table = load(&lake.catalogs, target).await.unwrap();
    let committer = lake.catalogs.get("lake").await.unwrap();
    assert!(matches!(committer.compare_and_swap(&table, updates, Vec::new()).await.unwrap(), Swap::Done(_)));
}

pub(super) fn head(snapshot_id: i64) -> TableUpdate {
    use iceberg::spec::{SnapshotReference, SnapshotRetention};
    let reference = SnapshotReference::new(snapshot_id, SnapshotRetention::branch(Some(3), Some(1_000), None));
    TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference }
}

/// A table with two intents committed, and the third's work.
pub(super) async fn two_committed(
    lake: &Lake,
    target: &OutputTarget,
) -> (v1::PreparedOutput, [v1::Intent; 3], [Vec<v1::OutputPart>; 3]) {
    let prepared = prepared(&lake.catalogs, target).await;
    let (first, one) = work(lake, target, &prepared, 1, "", (0, 10)).await;
    let (second, two) = work(lake, target, &prepared, 2, &marker::of(&first), (10, 20)).await;
    let (third, three) = work(lake, target, &prepared, 3, &marker::of(&second), (20, 30)).await;
    commit(&lake.catalogs, target, &Scope::of("bf-a"), &first, one.clone()).await.unwrap();
    commit(&lake.catalogs, target, &Scope::of("bf-a"), &second, two.clone()).await.unwrap();
    (prepared, [first, second, third], [one, two, three])
}

#[tokio::test]
async fn given_a_rollback_by_another_when_committed_then_rolled_back() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (_, [first, second, third], [_, two, three]) = two_committed(&lake, &target).await;
    meddle(&lake, &target, vec![head(first.snapshot_id)]).await;
    for (intent, parts) in [(second, two), (third, three)] {
        let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &intent, parts).await.unwrap();
        assert_eq!(end(&result), v1::CommitEnd::RolledBack);
        assert!(result.evidence.contains("no longer descends"), "{}", result.evidence);
    }
    assert_eq!(ids(&lake.catalogs, &target).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_the_property_was_removed_when_committed_then_the_ancestry_decides() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (_, [first, _, third], [one, _, three]) = two_committed(&lake, &target).await;
    let removal = TableUpdate::RemoveProperties { removals: vec!["tidegate.bf-a".to_owned()] };
    meddle(&lake, &target, vec![removal]).await;
    let stale = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &first, one).await.unwrap();
    assert_eq!(end(&stale), v1::CommitEnd::Fenced);
    let next = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &third, three).await.unwrap();
    assert_eq!(end(&next), v1::CommitEnd::Committed);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_no_marker_is_left_and_a_child_of_its_snapshot_is_when_committed_again_then_fenced() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let (first, one) = work(&lake, &target, &prepared, 1, "", (0, 10)).await;
    let (other, parts) = work(&lake, &target, &prepared, 1, "", (100, 110)).await;
    commit(&lake.catalogs, &target, &Scope::of("bf-a"), &first, one.clone()).await.unwrap();
    commit(&lake.catalogs, &target, &Scope::of("bf-b"), &other, parts).await.unwrap();
    let removal = TableUpdate::RemoveProperties { removals: vec!["tidegate.bf-a".to_owned()] };
    let expiry = TableUpdate::RemoveSnapshots { snapshot_ids: vec![first.snapshot_id] };
    meddle(&lake, &target, vec![removal, expiry]).await;
    let again = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &first, one).await.unwrap();
    assert_eq!(end(&again), v1::CommitEnd::Fenced);
    assert!(again.evidence.contains(&other.snapshot_id.to_string()), "{}", again.evidence);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..10).chain(100..110).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_the_markers_snapshot_expired_when_committed_again_then_still_already_done_and_the_next_goes() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [_, second, third], [_, two, three]) = two_committed(&lake, &target).await;
    let (other, parts) = work(&lake, &target, &prepared, 1, "", (100, 110)).await;
    commit(&lake.catalogs, &target, &Scope::of("bf-b"), &other, parts).await.unwrap();
    meddle(&lake, &target, vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![second.snapshot_id] }]).await;
    let again = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &second, two).await.unwrap();
    assert_eq!((end(&again), again.already_done), (v1::CommitEnd::Committed, true));
    let next = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &third, three).await.unwrap();
    assert_eq!(end(&next), v1::CommitEnd::Committed);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..30).chain(100..110).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_a_fence_when_it_lands_then_the_intent_it_cancels_never_does() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [_, second, third], [.., three]) = two_committed(&lake, &target).await;
    let fence = v1::Intent {
        digest: "cancelled:4".to_owned(),
        kind: v1::CommitKind::Fence.into(),
        predecessor: marker::of(&second),
        ..intent(&prepared, 3, "", &[])
    };
    let fenced = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &fence, Vec::new()).await.unwrap();
    assert_eq!(end(&fenced), v1::CommitEnd::Cancelled);
    let late = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &third, three).await.unwrap();
    assert_eq!(end(&late), v1::CommitEnd::Fenced);
    assert!(late.evidence.contains("3:cancelled:4"), "{}", late.evidence);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_a_table_dropped_and_made_anew_when_committed_then_fenced() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let (mut intent, parts) = work(&lake, &target, &prepared, 1, "", (0, 10)).await;
    intent.table_uuid = Uuid::new_v4().to_string();
    let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &intent, parts).await.unwrap();
    assert_eq!(end(&result), v1::CommitEnd::Fenced);
}

#[tokio::test]
async fn given_parts_that_the_intent_does_not_name_when_committed_then_refused() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let (intent, parts) = work(&lake, &target, &prepared, 1, "", (0, 10)).await;
    let (_, others) = work(&lake, &target, &prepared, 1, "", (0, 10)).await;
    let mut mixed = parts.clone();
    mixed[0].iceberg = others[0].iceberg.clone();
    for wrong in [others, Vec::new(), [parts.clone(), parts].concat(), mixed] {
        let refused = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &intent, wrong).await;
        assert!(matches!(refused, Err(SinkError::Intent { .. })), "{refused:?}");
    }
    assert_eq!(ids(&lake.catalogs, &target).await, Vec::<i64>::new());
}

#[tokio::test]
async fn given_retention_settings_and_a_branch_when_committed_then_both_stay_and_main_is_untouched() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [_, second, third], [.., three]) = two_committed(&lake, &target).await;
    meddle(&lake, &target, vec![head(second.snapshot_id)]).await;
    commit(&lake.catalogs, &target, &Scope::of("bf-a"), &third, three).await.unwrap();
    let (staged, parts) = work(&lake, &target, &prepared, 1, "", (100, 110)).await;
    let staged = v1::Intent { branch: "tidegate_bf-b".to_owned(), ..staged };
    let result = commit(&lake.catalogs, &target, &Scope::of("bf-b"), &staged, parts).await.unwrap();
    assert_eq!(end(&result), v1::CommitEnd::Committed);

    let table = load(&lake.catalogs, &target).await.unwrap();
    let json = serde_json::to_value(table.table().metadata()).unwrap();
    assert_eq!(json["refs"]["main"]["min-snapshots-to-keep"], 3);
    assert_eq!(json["refs"]["main"]["snapshot-id"], third.snapshot_id);
    let branch = table.metadata().snapshot_for_ref("tidegate_bf-b").unwrap().clone();
    assert_eq!((branch.snapshot_id(), branch.parent_snapshot_id()), (staged.snapshot_id, Some(third.snapshot_id)));
    assert_eq!(branch.summary().additional_properties["total-records"], "40");
    assert_eq!(ids(&lake.catalogs, &target).await, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_a_reader_that_holds_a_transaction_when_committed_then_the_commit_is_true() {
    for wal in [true, false] {
        let lake = Lake::new();
        let target = target("t", &[]);
        let prepared = prepared(&lake.catalogs, &target).await;
        let (intent, parts) = work(&lake, &target, &prepared, 1, "", (0, 10)).await;
        let file = lake.folder.path().join("catalog.db");
        let reader = rusqlite::Connection::open(&file).unwrap();
        if !wal {
            // As a file is that another engine took out of WAL mode: only without other connections.
            drop(lake.catalogs);
            let mode: String = reader.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "delete");
        }
        reader.execute_batch("BEGIN").unwrap();
        let count = |db: &rusqlite::Connection| {
            db.query_row("SELECT count(*) FROM iceberg_tables", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count(&reader), 1);
        let catalogs = Catalogs::new([("lake".to_owned(), config(lake.folder.path()))]);
        let committed = commit(&catalogs, &target, &Scope::of("bf-a"), &intent, parts).await;
        let there = ids(&catalogs, &target).await.len();
        match committed {
            Ok(result) => assert_eq!((wal, end(&result), there), (true, v1::CommitEnd::Committed, 10)),
            Err(error) => {
                assert_eq!((wal, there), (false, 0), "{}", crate::failure::chain(&error));
                assert!(crate::failure::chain(&error).contains("locked"), "{}", crate::failure::chain(&error));
            }
        }
        reader.execute_batch("COMMIT").unwrap();
    }
}

#[tokio::test]
async fn given_each_format_version_when_committed_twice_then_read_back() {
    for version in ["1", "2", "3"] {
        let lake = Lake::new();
        let mut target = target("t", &["truncate(5, name)"]);
        target.properties.insert("format-version".to_owned(), version.to_owned());
        target.properties.insert("write.metadata.compression-codec".to_owned(), "gzip".to_owned());
        let (prepared, _, _) = two_committed(&lake, &target).await;
        assert_eq!(ids(&lake.catalogs, &target).await, (0..20).collect::<Vec<_>>(), "version {version}");
        let table = load(&lake.catalogs, &target).await.unwrap();
        assert_eq!((table.metadata().format_version() as u8).to_string(), version);
        assert!(table.metadata_location().ends_with(".gz.metadata.json"));
        assert_eq!(prepared.spec_id, table.metadata().default_partition_spec_id());
    }
}
