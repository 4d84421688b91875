//! How many rows of others lie in the window, as prepare tells it.

use super::*;

async fn before(lake: &Lake, target: &OutputTarget, scope: &Scope) -> u64 {
    prepare(&lake.catalogs, target, &rows(0, 1).schema(), true, scope).await.unwrap().rows_before
}

#[tokio::test]
async fn given_rows_around_the_window_when_prepared_then_only_files_that_reach_into_it_count() {
    for fields in [&["day(at)"][..], &["month(at)"], &["bucket(2, id)"], &[]] {
        let lake = Lake::new();
        let target = target("t", fields);
        by_another(&lake.catalogs, &target, rows(0, 48)).await;
        by_another(&lake.catalogs, &target, rows(72, 96)).await;
        assert_eq!(
            before(&lake, &target, &hours("bf-a", 48, 72, false)).await,
            0,
            "{fields:?}: adjacent on both sides"
        );
        assert_eq!(before(&lake, &target, &hours("bf-a", 96, 999, false)).await, 0, "{fields:?}: behind it");
        let overlapping = before(&lake, &target, &hours("bf-a", 47, 60, false)).await;
        match fields {
            ["day(at)"] => assert_eq!(overlapping, 24, "the file of that day"),
            ["bucket(2, id)"] => assert!((1..48).contains(&overlapping), "the bucket that holds the last hour"),
            _ => assert_eq!(overlapping, 48, "{fields:?}: the file that reaches into it, whole"),
        }
        assert_eq!(before(&lake, &target, &Scope::of("bf-a")).await, 72, "{fields:?}: no column tells");
    }
}

#[tokio::test]
async fn given_rows_of_its_own_when_prepared_again_then_they_are_not_others() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let scope = hours("bf-a", 0, 48, false);
    by_another(&lake.catalogs, &target, rows(24, 72)).await;
    let prepared = prepared(&lake.catalogs, &target).await;
    let parts = vec![part(&lake.catalogs, &target, rows(0, 48)).await];
    let own = intent(&prepared, 1, "", &parts);
    commit(&lake.catalogs, &target, &scope, &own, parts).await.unwrap();
    let again = prepare(&lake.catalogs, &target, &rows(0, 1).schema(), true, &scope).await.unwrap();
    assert_eq!((again.rows_before, again.sequence_before), (24, 2));
    assert_eq!((again.marker, again.branch_marker), (marker::of(&own), String::new()));
}
