//! Replacements: whole partitions go and others come in one snapshot, or the reason why not.

mod partitionings;
mod random;

use std::collections::BTreeMap;

use iceberg::TableUpdate;
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, Literal, ManifestListWriter, ManifestStatus,
    ManifestWriterBuilder, Operation, Snapshot, SnapshotReference, SnapshotRetention, Struct, Summary,
};

use super::committing::{head, meddle};
use super::*;

const BRANCH: &str = "tidegate_bf-a";

/// A replacement of what `scope` covers by `rows`, planned when the table was as `prepared` says.
async fn replacement(
    lake: &Lake,
    target: &OutputTarget,
    prepared: &v1::PreparedOutput,
    (sequence, predecessor): (u64, &str),
    rows: Option<RecordBatch>,
) -> (v1::Intent, Vec<v1::OutputPart>) {
    let mut parts = Vec::new();
    if let Some(rows) = rows {
        parts.push(part(&lake.catalogs, target, rows).await);
    }
    let (kind, through) = (v1::CommitKind::Replace.into(), prepared.sequence_before);
    let intent = intent(prepared, sequence, predecessor, &parts);
    (v1::Intent { kind, replaces_through: through, replaces_head: prepared.head_before, ..intent }, parts)
}

async fn plan(lake: &Lake, target: &OutputTarget, scope: &Scope) -> Result<v1::PreparedOutput, SinkError> {
    prepare(&lake.catalogs, target, &rows(0, 1).schema(), true, scope).await
}

/// The live data files of main: path, snapshot, data sequence number, row id.
async fn live(table: &LoadedTable) -> BTreeMap<String, (i64, i64, Option<i64>)> {
    let head = table.metadata().current_snapshot().unwrap().clone();
    let list = table.table().manifest_list_reader(&head).load().await.unwrap();
    let mut live = BTreeMap::new();
    for manifest in list.entries() {
        let loaded = manifest.load_manifest(table.io()).await.unwrap();
        for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
            let row = entry.data_file().first_row_id();
            let facts = (entry.snapshot_id().unwrap(), entry.sequence_number().unwrap(), row);
            assert!(live.insert(entry.file_path().to_owned(), facts).is_none());
        }
    }
    live
}

#[tokio::test]
async fn given_rows_in_the_window_when_replaced_then_only_they_go_and_the_rest_stays_as_it_was() {
    for version in ["2", "3"] {
        let lake = Lake::new();
        let mut target = target("t", &["day(at)", "bucket(2, id)"]);
        target.properties.insert("format-version".to_owned(), version.to_owned());
        by_another(&lake.catalogs, &target, rows(0, 96)).await;
        by_another(&lake.catalogs, &target, rows_at(&[(1_000, 0), (1_001, 95)])).await;
        let scope = hours("bf-a", 24, 72, true);
        let prepared = plan(&lake, &target, &scope).await.unwrap();
        assert_eq!((prepared.rows_before, prepared.sequence_before), (48, 2));
        let before = load(&lake.catalogs, &target).await.unwrap();
        assert_eq!(replaced(&before, &scope).await.unwrap(), (4, 48));
        let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 36))).await;
        // What others write beside the window is no conflict.
        by_another(&lake.catalogs, &target, rows(96, 100)).await;
        let kept = live(&load(&lake.catalogs, &target).await.unwrap()).await;
        for already_done in [false, true] {
            let result = commit(&lake.catalogs, &target, &scope, &intent, parts.clone()).await.unwrap();
            assert_eq!((result.end(), result.already_done), (v1::CommitEnd::Committed, already_done), "{result:?}");
        }
        let expected: Vec<_> = (0..36).chain(72..100).chain(1_000..1_002).collect();
        assert_eq!(ids(&lake.catalogs, &target).await, expected, "version {version}");

        let table = load(&lake.catalogs, &target).await.unwrap();
        let head = table.metadata().current_snapshot().unwrap().clone();
        assert_eq!(head.summary().operation, Operation::Overwrite);
        let summary = &head.summary().additional_properties;
        for (key, value) in [
            ("added-records", "12"),
            ("deleted-records", "48"),
            ("deleted-data-files", "4"),
            ("added-data-files", "2"),
            ("total-records", "66"),
            ("tidegate.bf-a", marker::of(&intent).as_str()),
        ] {
            assert_eq!(summary[key], value, "{key}");
        }
        let after = live(&table).await;
        let mut rewritten = 0;
        for (path, (snapshot, sequence, _)) in &after {
            match kept.get(path) {
                Some(before) => assert_eq!((&before.0, &before.1), (snapshot, sequence), "{path}"),
                None => assert_eq!(*snapshot, intent.snapshot_id, "{path}"),
            }
        }
        let list = table.table().manifest_list_reader(&head).load().await.unwrap();
        for manifest in list.entries().iter().filter(|manifest| manifest.added_snapshot_id == intent.snapshot_id) {
            let loaded = manifest.load_manifest(table.io()).await.unwrap();
            rewritten += loaded.entries().iter().filter(|entry| entry.status() == ManifestStatus::Deleted).count();
            let existing = loaded.entries().iter().filter(|entry| entry.status() == ManifestStatus::Existing);
            for entry in existing.filter(|_| version == "3") {
                assert!(entry.data_file().first_row_id().is_some(), "a row keeps its id");
            }
        }
        assert_eq!(rewritten, 4, "what went is on record");
        // Other writers go on from it.
        by_another(&lake.catalogs, &target, rows(200, 201)).await;
        assert_eq!(ids(&lake.catalogs, &target).await.len(), expected.len() + 1);
    }
}

#[tokio::test]
async fn given_rows_of_another_after_the_plan_when_replaced_then_conflict_that_names_them() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    by_another(&lake.catalogs, &target, rows(0, 96)).await;
    let scope = hours("bf-a", 24, 72, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 36))).await;
    let theirs = by_another(&lake.catalogs, &target, rows_at(&[(500, 30)])).await;
    for _ in 0..2 {
        let result = commit(&lake.catalogs, &target, &scope, &intent, parts.clone()).await.unwrap();
        assert_eq!(result.end(), v1::CommitEnd::Conflict);
        assert!(result.evidence.contains(&theirs.to_string()), "{}", result.evidence);
        assert!(result.evidence.contains(".parquet"), "{}", result.evidence);
    }
    assert_eq!(ids(&lake.catalogs, &target).await.len(), 97);
    // Planned anew it goes, theirs with the rest; the marker has not moved.
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (replaces_through, replaces_head) = (prepared.sequence_before, prepared.head_before);
    let intent = v1::Intent { replaces_through, replaces_head, ..intent };
    let result = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..36).chain(72..96).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_what_others_staged_before_the_plan_and_brought_to_main_after_it_when_replaced_then_conflict() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let base = by_another(&lake.catalogs, &target, rows(0, 96)).await;
    let theirs = by_another(&lake.catalogs, &target, rows_at(&[(500, 30)])).await;
    // They have it on a branch of their own.
    let reference = SnapshotReference::new(theirs, SnapshotRetention::branch(None, None, None));
    let audit = TableUpdate::SetSnapshotRef { ref_name: "audit".to_owned(), reference };
    meddle(&lake, &target, vec![audit, head(base)]).await;
    let scope = hours("bf-a", 24, 72, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    assert_eq!((prepared.sequence_before, prepared.head_before), (2, base));
    let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 36))).await;
    meddle(&lake, &target, vec![head(theirs)]).await;
    let result = commit(&lake.catalogs, &target, &scope, &intent, parts.clone()).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Conflict, "{result:?}");
    assert!(result.evidence.contains(&format!("snapshot {theirs}, sequence number 2")), "{}", result.evidence);
    // They take it back, and it goes.
    meddle(&lake, &target, vec![head(base)]).await;
    let result = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..36).chain(72..96).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_main_set_back_behind_the_plan_when_replaced_then_conflict_and_none_where_the_plans_head_expired() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let first = by_another(&lake.catalogs, &target, rows(0, 24)).await;
    let second = by_another(&lake.catalogs, &target, rows(24, 48)).await;
    let scope = hours("bf-a", 24, 48, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 30))).await;
    meddle(&lake, &target, vec![head(first)]).await;
    let result = commit(&lake.catalogs, &target, &scope, &intent, parts.clone()).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Conflict, "{result:?}");
    assert!(result.evidence.contains(&format!("no longer descends from snapshot {second}")), "{}", result.evidence);

    meddle(&lake, &target, vec![head(second)]).await;
    by_another(&lake.catalogs, &target, rows(48, 72)).await;
    meddle(&lake, &target, vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![first, second] }]).await;
    let result = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed, "{result:?}");
    assert_eq!(ids(&lake.catalogs, &target).await, (0..30).chain(48..72).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_race_with_others_who_write_into_the_window_then_before_it_is_a_conflict_and_after_it_they_stay() {
    for _ in 0..6 {
        let lake = Arc::new(Lake::new());
        let target = target("t", &["day(at)"]);
        by_another(&lake.catalogs, &target, rows(0, 72)).await;
        let scope = hours("bf-a", 24, 48, true);
        let prepared = plan(&lake, &target, &scope).await.unwrap();
        let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 30))).await;
        let theirs = {
            let (lake, target) = (lake.clone(), target.clone());
            tokio::spawn(async move {
                let catalogs = Catalogs::new([("lake".to_owned(), config(lake.folder.path()))]);
                by_another(&catalogs, &target, rows_at(&[(500, 30)])).await
            })
        };
        let result = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap();
        theirs.await.unwrap();
        let expected: Vec<_> = match result.end() {
            v1::CommitEnd::Conflict => (0..72).chain([500]).collect(),
            _ => (0..30).chain(48..72).chain([500]).collect(),
        };
        assert_eq!(ids(&lake.catalogs, &target).await, expected, "{result:?}");
    }
}

#[tokio::test]
async fn given_nothing_to_put_there_when_replaced_then_the_window_is_empty() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let scope = hours("bf-a", 24, 48, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (first, _) = replacement(&lake, &target, &prepared, (1, ""), None).await;
    let on_nothing = commit(&lake.catalogs, &target, &scope, &first, Vec::new()).await.unwrap();
    assert_eq!(on_nothing.end(), v1::CommitEnd::Committed, "a table without a snapshot");
    by_another(&lake.catalogs, &target, rows(0, 72)).await;
    let scope = hours("bf-b", 24, 48, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (second, _) = replacement(&lake, &target, &prepared, (1, ""), None).await;
    let result = commit(&lake.catalogs, &target, &scope, &second, Vec::new()).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..24).chain(48..72).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_a_staged_replacement_when_published_then_the_branch_had_it_first_and_main_gets_it_whole() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    by_another(&lake.catalogs, &target, rows(0, 72)).await;
    let scope = hours("bf-a", 24, 48, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let branch = || BRANCH.to_owned();
    let (first, one) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 30))).await;
    let first = v1::Intent { branch: branch(), ..first };
    let two = vec![part(&lake.catalogs, &target, rows(30, 40)).await];
    let second = v1::Intent { branch: branch(), ..intent(&prepared, 2, &marker::of(&first), &two) };
    let (third, three) = replacement(&lake, &target, &prepared, (3, &marker::of(&second)), Some(rows(40, 41))).await;
    let third = v1::Intent { branch: branch(), ..third };
    for (intent, parts) in [(&first, &one), (&second, &two), (&third, &three)] {
        let result = commit(&lake.catalogs, &target, &scope, intent, parts.clone()).await.unwrap();
        assert_eq!(result.end(), v1::CommitEnd::Committed, "{result:?}");
    }
    let table = load(&lake.catalogs, &target).await.unwrap();
    let staged: Vec<_> = (0..41).chain(48..72).collect();
    assert_eq!(ids_of(&table, BRANCH).await, staged, "its own files of the branch stay");
    assert_eq!(ids(&lake.catalogs, &target).await, (0..72).collect::<Vec<_>>());

    by_another(&lake.catalogs, &target, rows(72, 80)).await;
    let parts = [one, two, three].concat();
    let publish = intent(&prepared, 4, "", &parts);
    let kind = v1::CommitKind::Replace.into();
    let publish = v1::Intent {
        kind,
        replaces_through: prepared.sequence_before,
        replaces_head: prepared.head_before,
        drop_branch: branch(),
        staged_marker: marker::of(&third),
        ..publish
    };
    let result = commit(&lake.catalogs, &target, &scope, &publish, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed, "{result:?}");
    assert_eq!(ids(&lake.catalogs, &target).await, (0..41).chain(48..80).collect::<Vec<_>>());
    assert!(load(&lake.catalogs, &target).await.unwrap().metadata().snapshot_for_ref(BRANCH).is_none());
}

#[tokio::test]
async fn given_files_outside_the_window_when_they_are_to_replace_it_then_refused() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let scope = hours("bf-a", 24, 48, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 49))).await;
    let refused = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap_err();
    assert!(matches!(&refused, SinkError::Intent { what, .. } if what.contains("does not lie in the window")));
}

#[tokio::test]
async fn given_a_window_that_cannot_be_replaced_when_prepared_then_the_reason_and_the_way_out() {
    use crate::failure::{Class, Classify};
    let cut = hours("bf-a", 23, 50, true);
    let whole = hours("bf-a", 24, 48, true);
    let blind = Scope { time: None, ..whole.clone() };
    let mut old = target("t", &["day(at)"]);
    old.properties.insert("format-version".to_owned(), "1".to_owned());
    for (target, scope, said) in [
        (
            target("t", &["day(at)"]),
            &cut,
            "the nearest window that fits is [1970-01-01T00:00:00Z, 1970-01-04T00:00:00Z)",
        ),
        (target("t", &["month(at)"]), &whole, "[1970-01-01T00:00:00Z, 1970-02-01T00:00:00Z)"),
        (target("t", &[]), &whole, "partition_by such as day(at)"),
        (target("t", &["id"]), &whole, "partition_by such as day(at)"),
        (target("t", &["day(at)"]), &blind, "passes no event-time column"),
        (old, &whole, "format version 2"),
    ] {
        let lake = Lake::new();
        for exit_code in [3, 4] {
            if exit_code == 4 {
                prepared(&lake.catalogs, &target).await;
            }
            for create in [false, true] {
                let refused = prepare(&lake.catalogs, &target, &rows(0, 1).schema(), create, scope).await.unwrap_err();
                assert_eq!(refused.class(), Class::Fatal { exit_code }, "{refused}");
                assert!(refused.to_string().contains(said), "{refused}");
            }
        }
    }
}

#[tokio::test]
async fn given_a_table_by_dates_when_days_are_replaced_then_those_dates_go() {
    use arrow::array::Date32Array;
    let lake = Lake::new();
    let target = target("t", &["at"]);
    let batch = |days: std::ops::Range<i32>| {
        let ids = Int64Array::from_iter_values(days.clone().map(i64::from));
        let days: ArrayRef = Arc::new(Date32Array::from_iter_values(days));
        RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("at", days)]).unwrap()
    };
    let scope = hours("bf-a", 48, 96, true);
    let query = batch(0..1).schema();
    prepare(&lake.catalogs, &target, &query, true, &Scope::of("bf-o")).await.unwrap();
    let others = vec![part(&lake.catalogs, &target, batch(0..6)).await];
    let prepared = prepare(&lake.catalogs, &target, &query, true, &scope).await.unwrap();
    let theirs = intent(&prepared, 1, "", &others);
    commit(&lake.catalogs, &target, &Scope::of("bf-o"), &theirs, others).await.unwrap();
    let prepared = prepare(&lake.catalogs, &target, &query, true, &scope).await.unwrap();
    assert_eq!(prepared.rows_before, 2);
    let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(batch(3..4))).await;
    let result = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed, "{result:?}");
    assert_eq!(ids(&lake.catalogs, &target).await, [0, 1, 3, 4, 5]);
}
