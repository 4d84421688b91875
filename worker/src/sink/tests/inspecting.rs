//! What is read of a table is what was committed to it.

use super::*;
use crate::sink::inspect::{contents, history, live_files};

#[tokio::test]
async fn given_two_commits_when_inspected_then_each_snapshot_file_and_hour_is_told() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let first = vec![part(&lake.catalogs, &target, rows(0, 10)).await];
    let second = vec![part(&lake.catalogs, &target, rows(10, 30)).await];
    let one = intent(&prepared, 1, "", &first);
    let two = intent(&prepared, 2, &marker::of(&one), &second);
    for (intent, parts) in [(&one, first), (&two, second)] {
        commit(&lake.catalogs, &target, &Scope::of("bf-a"), intent, parts).await.unwrap();
    }

    let told = history(&lake.catalogs, &target).await.unwrap();
    let counts: Vec<_> = told.snapshots.iter().map(|one| (one.added_rows, one.added_files, one.total_rows)).collect();
    assert_eq!(counts, [(Some(10), Some(1), Some(10)), (Some(20), Some(1), Some(30))]);
    assert_eq!(told.snapshots[1].parent, Some(told.snapshots[0].id));
    assert!(told.snapshots.iter().all(|one| one.in_ancestry && one.operation == "append"));
    assert_eq!(told.snapshots.iter().map(|one| one.current).collect::<Vec<_>>(), [false, true]);
    assert_eq!(told.snapshots[0].markers["tidegate.bf-a"], marker::of(&one));
    assert_eq!(told.markers["tidegate.bf-a"], marker::of(&two));
    assert_eq!(told.snapshots[1].committed_through.as_deref(), Some("2023-11-14T22:13:20Z"));

    let table = load(&lake.catalogs, &target).await.unwrap();
    let mut files = live_files(&table, "main").await.unwrap();
    files.sort_by_key(|file| file.rows);
    assert_eq!(files.iter().map(|file| file.rows).collect::<Vec<_>>(), [10, 20]);
    assert_eq!(files[0].snapshot, Some(one.snapshot_id));
    let found = contents(&table, &files, Some("at")).await;
    assert_eq!((found.rows, found.hours.len(), found.hours[&29], found.without_time), (30, 30, 1, 0));

    // a file whose manifest lies, and one that is gone
    files[0].rows = 9;
    std::fs::remove_file(crate::sink::durable::local_path(&files[1].path).unwrap()).unwrap();
    let found = contents(&table, &files, None).await;
    assert_eq!(found.miscounted, [(files[0].path.clone(), 9, 10)]);
    assert_eq!((found.unreadable.len(), found.hours.len()), (1, 0));
    assert_eq!(found.unreadable[0].0, files[1].path);
}

#[tokio::test]
async fn given_no_catalog_file_when_it_is_only_read_then_there_are_no_tables_and_none_is_made() {
    let folder = TempDir::new().unwrap();
    let catalogs = Catalogs::to_read([("lake".to_owned(), config(folder.path()))]);
    let target = target("t", &[]);
    let query = rows(0, 1).schema();
    let described = prepare(&catalogs, &target, &query, false, &Scope::of("bf-a")).await.unwrap();
    assert!(described.created && described.uuid.is_empty());
    assert!(matches!(prepare(&catalogs, &target, &query, true, &Scope::of("bf-a")).await, Err(SinkError::Spec { .. })));
    assert!(matches!(history(&catalogs, &target).await, Err(SinkError::Preflight { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
