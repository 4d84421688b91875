//! Branches: staged, published, discarded; and intents that are cancelled.

use super::committing::{head, meddle, two_committed, work};
use super::racing::{Fault, Faulty};
use super::*;

const BRANCH: &str = "tidegate_bf-a";

fn on_branch(intent: v1::Intent) -> v1::Intent {
    v1::Intent { branch: BRANCH.to_owned(), ..intent }
}

fn discard(prepared: &v1::PreparedOutput, sequence: u64, predecessor: &str) -> v1::Intent {
    let kind = v1::CommitKind::Discard.into();
    v1::Intent { kind, ..on_branch(intent(prepared, sequence, predecessor, &[])) }
}

async fn end(lake: &Lake, target: &OutputTarget, intent: &v1::Intent, parts: &[v1::OutputPart]) -> v1::CommitEnd {
    commit(&lake.catalogs, target, &Scope::of("bf-a"), intent, parts.to_vec()).await.unwrap().end()
}

async fn cancelled(lake: &Lake, target: &OutputTarget, intent: &v1::Intent, term: u64) -> v1::CommitResult {
    cancel(&lake.catalogs, target, &Scope::of("bf-a"), intent, term).await.unwrap()
}

fn publish(prepared: &v1::PreparedOutput, last: &v1::Intent, parts: &[v1::OutputPart]) -> v1::Intent {
    let (drop_branch, staged_marker) = (BRANCH.to_owned(), marker::of(last));
    v1::Intent { drop_branch, staged_marker, ..intent(prepared, last.sequence + 1, "", parts) }
}

/// The snapshots in the table that were committed to the branch.
async fn left_on_record(lake: &Lake, target: &OutputTarget) -> Vec<i64> {
    let table = load(&lake.catalogs, target).await.unwrap();
    let key = marker::key("bf-a", BRANCH);
    let metadata = table.metadata();
    let own = metadata.snapshots().filter(|one| one.summary().additional_properties.contains_key(&key));
    own.map(|one| one.snapshot_id()).collect()
}

fn has_branch(table: &LoadedTable) -> bool {
    table.metadata().snapshot_for_ref(BRANCH).is_some()
}

/// A table with ten rows on main, and two intents staged.
async fn staged(lake: &Lake, target: &OutputTarget) -> (v1::PreparedOutput, [v1::Intent; 2], [Vec<v1::OutputPart>; 2]) {
    by_another(&lake.catalogs, target, rows(0, 10)).await;
    let prepared = prepared(&lake.catalogs, target).await;
    let (first, one) = work(lake, target, &prepared, 1, "", (10, 20)).await;
    let first = on_branch(first);
    let (second, two) = work(lake, target, &prepared, 2, &marker::of(&first), (20, 30)).await;
    let second = on_branch(second);
    assert_eq!(end(lake, target, &first, &one).await, v1::CommitEnd::Committed);
    assert_eq!(end(lake, target, &second, &two).await, v1::CommitEnd::Committed);
    (prepared, [first, second], [one, two])
}

#[tokio::test]
async fn given_staged_intents_when_published_then_one_snapshot_on_main_as_it_is_now_and_no_branch() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let (prepared, [first, second], [one, two]) = staged(&lake, &target).await;
    assert_eq!(ids(&lake.catalogs, &target).await, (0..10).collect::<Vec<_>>(), "main sees nothing of it");
    let table = load(&lake.catalogs, &target).await.unwrap();
    assert_eq!(ids_of(&table, BRANCH).await, (0..30).collect::<Vec<_>>());
    let found = prepare(&lake.catalogs, &target, &rows(0, 1).schema(), true, &Scope::of("bf-a")).await.unwrap();
    assert_eq!((found.marker.as_str(), found.branch_marker), ("", marker::of(&second)));

    by_another(&lake.catalogs, &target, rows(100, 105)).await;
    let parts = [one.clone(), two.clone()].concat();
    let publish = publish(&prepared, &second, &parts);
    assert_eq!(end(&lake, &target, &publish, &parts).await, v1::CommitEnd::Committed);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..30).chain(100..105).collect::<Vec<_>>());
    let table = load(&lake.catalogs, &target).await.unwrap();
    let current = table.metadata().current_snapshot().unwrap().clone();
    assert!(!has_branch(&table));
    assert_eq!(current.summary().additional_properties["added-records"], "20");
    assert_eq!(current.summary().additional_properties["tidegate.bf-a"], marker::of(&publish));
    // Whoever was late with what was staged finds no place any more.
    for (late, parts) in [(&second, &two), (&publish, &parts)] {
        let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), late, parts.clone()).await.unwrap();
        assert_eq!((result.end(), result.already_done), (v1::CommitEnd::Committed, true));
    }
    assert_eq!(end(&lake, &target, &first, &one).await, v1::CommitEnd::Fenced);
    assert!(left_on_record(&lake, &target).await.is_empty(), "nothing is left to be expired with the files");
    let table = load(&lake.catalogs, &target).await.unwrap();
    assert_eq!((has_branch(&table), table.metadata().current_snapshot_id()), (false, Some(publish.snapshot_id)));
}

fn branch_at(snapshot: i64) -> iceberg::TableUpdate {
    use iceberg::spec::{SnapshotReference, SnapshotRetention};
    let reference = SnapshotReference::new(snapshot, SnapshotRetention::branch(None, None, None));
    iceberg::TableUpdate::SetSnapshotRef { ref_name: BRANCH.to_owned(), reference }
}

#[tokio::test]
async fn given_a_branch_that_is_not_as_it_was_staged_when_published_then_conflict_until_it_is_set_right() {
    use iceberg::TableUpdate;
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [first, second], parts) = staged(&lake, &target).await;
    let parts = parts.concat();
    let publish = publish(&prepared, &second, &parts);
    let base = load(&lake.catalogs, &target).await.unwrap().metadata().current_snapshot_id().unwrap();
    let dropped = TableUpdate::RemoveSnapshotRef { ref_name: BRANCH.to_owned() };
    let back = format!("set branch {BRANCH} to snapshot {}", second.snapshot_id);
    for (meddled, said, way_out) in [
        (head(second.snapshot_id), "main has what was staged already", format!("snapshot {base}")),
        (branch_at(first.snapshot_id), "does not carry 2:", back.clone()),
        (dropped, "does not exist any more", back),
    ] {
        meddle(&lake, &target, vec![meddled]).await;
        let before = ids(&lake.catalogs, &target).await;
        let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &publish, parts.clone()).await.unwrap();
        assert_eq!(result.end(), v1::CommitEnd::Conflict, "{said}: {result:?}");
        assert!(result.evidence.contains(said) && result.way_out.contains(&way_out), "{result:?}");
        assert_eq!(ids(&lake.catalogs, &target).await, before, "nothing is there twice");
        meddle(&lake, &target, vec![head(base), branch_at(second.snapshot_id)]).await;
    }
    assert_eq!(end(&lake, &target, &publish, &parts).await, v1::CommitEnd::Committed);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..30).collect::<Vec<_>>());
    // It is in the table, whatever became of the branch.
    assert_eq!(end(&lake, &target, &publish, &parts).await, v1::CommitEnd::Committed);
}

#[tokio::test]
async fn given_others_commits_on_the_branch_when_published_then_conflict_and_theirs_are_still_there() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [_, second], parts) = staged(&lake, &target).await;
    let parts = parts.concat();
    let base = load(&lake.catalogs, &target).await.unwrap().metadata().current_snapshot_id().unwrap();
    meddle(&lake, &target, vec![head(second.snapshot_id)]).await;
    let theirs = by_another(&lake.catalogs, &target, rows(100, 105)).await;
    meddle(&lake, &target, vec![branch_at(theirs), head(base)]).await;
    let publish = publish(&prepared, &second, &parts);
    let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &publish, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Conflict);
    assert!(result.evidence.contains(&format!("snapshot {theirs}, the head")), "{}", result.evidence);
    assert!(has_branch(&load(&lake.catalogs, &target).await.unwrap()));
}

#[tokio::test]
async fn given_a_tag_on_a_staged_snapshot_when_the_branch_goes_then_what_the_tag_leads_to_stays() {
    use iceberg::spec::{SnapshotReference, SnapshotRetention};
    for discards in [false, true] {
        let lake = Lake::new();
        let target = target("t", &[]);
        let (prepared, [first, second], parts) = staged(&lake, &target).await;
        let reference = SnapshotReference::new(first.snapshot_id, SnapshotRetention::Tag { max_ref_age_ms: None });
        let tag = iceberg::TableUpdate::SetSnapshotRef { ref_name: "audited".to_owned(), reference };
        meddle(&lake, &target, vec![tag]).await;
        let (intent, parts) = match discards {
            true => (discard(&prepared, 3, &marker::of(&second)), Vec::new()),
            false => (publish(&prepared, &second, &parts.concat()), parts.concat()),
        };
        assert_eq!(end(&lake, &target, &intent, &parts).await, v1::CommitEnd::Committed);
        assert_eq!(left_on_record(&lake, &target).await, [first.snapshot_id]);
        let table = load(&lake.catalogs, &target).await.unwrap();
        assert_eq!(ids_of(&table, "audited").await, (0..20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn given_a_file_that_somebody_removed_when_what_waited_is_committed_then_it_is_named_and_nothing_is_committed() {
    use crate::failure::{Class, Classify};
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [_, second], parts) = staged(&lake, &target).await;
    let gone = parts[1][0].files[0].path.clone();
    std::fs::remove_file(gone.strip_prefix("file://").unwrap_or(&gone)).unwrap();
    let all = parts.concat();
    let publish = publish(&prepared, &second, &all);
    let discard = discard(&prepared, 3, &marker::of(&second));
    let behind = |predecessor: &str| on_branch(intent(&prepared, 4, predecessor, &all));
    let scope = Scope::of("bf-a");
    let refused = commit(&lake.catalogs, &target, &scope, &publish, all.clone()).await.unwrap_err();
    assert!(matches!(&refused, SinkError::FileGone { path, .. } if *path == gone), "{refused}");
    assert_eq!(refused.class(), Class::Fatal { exit_code: 4 });
    assert_eq!(end(&lake, &target, &discard, &[]).await, v1::CommitEnd::Committed);
    let staged_anew = behind(&marker::of(&discard));
    let refused = commit(&lake.catalogs, &target, &scope, &staged_anew, all.clone()).await.unwrap_err();
    assert!(matches!(refused, SinkError::FileGone { .. }), "{refused}");
    let fence = cancelled(&lake, &target, &staged_anew, 7).await.evidence;
    let after_a_fence = v1::Intent { sequence: 5, ..behind(&fence) };
    let refused = commit(&lake.catalogs, &target, &scope, &after_a_fence, all).await.unwrap_err();
    assert!(matches!(refused, SinkError::FileGone { .. }), "{refused}");
    assert_eq!(ids(&lake.catalogs, &target).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_a_discard_when_done_then_the_branch_is_gone_and_no_late_commit_revives_it() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [first, second], [one, two]) = staged(&lake, &target).await;
    let stale = discard(&prepared, 2, &marker::of(&first));
    assert_eq!(end(&lake, &target, &stale, &[]).await, v1::CommitEnd::Fenced);
    let discard = discard(&prepared, 3, &marker::of(&second));
    for already_done in [false, true] {
        let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &discard, Vec::new()).await.unwrap();
        assert_eq!((result.end(), result.already_done), (v1::CommitEnd::Committed, already_done));
    }
    for (late, parts) in [(&first, &one), (&second, &two)] {
        assert_eq!(end(&lake, &target, late, parts).await, v1::CommitEnd::Fenced);
    }
    assert!(!has_branch(&load(&lake.catalogs, &target).await.unwrap()));
    assert!(left_on_record(&lake, &target).await.is_empty());
    assert_eq!(ids(&lake.catalogs, &target).await, (0..10).collect::<Vec<_>>());
    // The chain goes on: what is staged next forks anew.
    let (next, parts) = work(&lake, &target, &prepared, 4, &marker::of(&discard), (40, 45)).await;
    assert_eq!(end(&lake, &target, &on_branch(next), &parts).await, v1::CommitEnd::Committed);
    let table = load(&lake.catalogs, &target).await.unwrap();
    assert_eq!(ids_of(&table, BRANCH).await, (0..10).chain(40..45).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_a_branch_that_somebody_dropped_or_never_was_when_discarded_then_done() {
    use iceberg::TableUpdate;
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [_, second], _) = staged(&lake, &target).await;
    meddle(&lake, &target, vec![TableUpdate::RemoveSnapshotRef { ref_name: BRANCH.to_owned() }]).await;
    let gone = discard(&prepared, 3, &marker::of(&second));
    assert_eq!(end(&lake, &target, &gone, &[]).await, v1::CommitEnd::Committed);
    let of_another = v1::Intent { table_uuid: Uuid::new_v4().to_string(), ..discard(&prepared, 5, "1:aa") };
    let result = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &of_another, Vec::new()).await.unwrap();
    assert_eq!((result.end(), result.already_done), (v1::CommitEnd::Committed, true));
    assert!(result.evidence.contains("is another one"), "{}", result.evidence);
    let never = v1::Intent { branch: "tidegate_bf-b".to_owned(), ..discard(&prepared, 1, "") };
    let result = commit(&lake.catalogs, &target, &Scope::of("bf-b"), &never, Vec::new()).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed);
}

#[tokio::test]
async fn given_a_branch_of_another_when_committed_to_or_dropped_then_refused() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, _, [one, _]) = staged(&lake, &target).await;
    let plain = || intent(&prepared, 3, "", &one);
    let kind = v1::CommitKind::Discard.into();
    for wrong in [
        v1::Intent { branch: "main".to_owned(), ..plain() },
        v1::Intent { branch: "tidegate_bf-b".to_owned(), ..plain() },
        v1::Intent { drop_branch: "main".to_owned(), ..plain() },
        v1::Intent { drop_branch: "tidegate_bf-b".to_owned(), ..plain() },
        v1::Intent { drop_branch: BRANCH.to_owned(), ..on_branch(plain()) },
        v1::Intent { kind, branch: String::new(), ..discard(&prepared, 3, "") },
        v1::Intent { kind, branch: "audit".to_owned(), ..discard(&prepared, 3, "") },
    ] {
        let refused = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &wrong, one.clone()).await;
        assert!(matches!(refused, Err(SinkError::Intent { .. })), "{wrong:?}: {refused:?}");
        let refused = cancel(&lake.catalogs, &target, &Scope::of("bf-a"), &wrong, 1).await;
        assert!(matches!(refused, Err(SinkError::Intent { .. })), "{wrong:?}: {refused:?}");
    }
    assert!(has_branch(&load(&lake.catalogs, &target).await.unwrap()));
}

#[tokio::test]
async fn given_an_intent_to_be_cancelled_when_fenced_off_then_it_never_lands_on_main_or_branch() {
    for branch in ["", BRANCH] {
        let lake = Lake::new();
        let target = target("t", &[]);
        by_another(&lake.catalogs, &target, rows(0, 10)).await;
        let prepared = prepared(&lake.catalogs, &target).await;
        let (mut intent, parts) = work(&lake, &target, &prepared, 1, "", (10, 20)).await;
        intent.branch = branch.to_owned();
        let fenced = cancelled(&lake, &target, &intent, 4).await;
        assert_eq!(
            (fenced.end(), fenced.evidence.as_str(), fenced.already_done),
            (v1::CommitEnd::Cancelled, "1:cancelled:4", false)
        );
        assert!(fenced.snapshot_id > 0);
        // Again, and by a later term: one fence stands.
        for term in [4, 7] {
            let again = cancelled(&lake, &target, &intent, term).await;
            assert_eq!((again.end(), again.evidence.as_str()), (v1::CommitEnd::Cancelled, "1:cancelled:4"));
            assert_eq!((again.already_done, again.snapshot_id), (true, fenced.snapshot_id));
        }
        let late = commit(&lake.catalogs, &target, &Scope::of("bf-a"), &intent, parts).await.unwrap();
        assert_eq!(late.end(), v1::CommitEnd::Fenced);
        assert_eq!(ids(&lake.catalogs, &target).await, (0..10).collect::<Vec<_>>());
        let discard = discard(&prepared, 2, if branch.is_empty() { "" } else { "1:cancelled:4" });
        assert_eq!(end(&lake, &target, &discard, &[]).await, v1::CommitEnd::Committed);
        assert!(!has_branch(&load(&lake.catalogs, &target).await.unwrap()));
    }
}

#[tokio::test]
async fn given_an_intent_that_landed_or_lost_its_place_when_cancelled_then_what_was_read() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (prepared, [first, second, third], [_, _, three]) = two_committed(&lake, &target).await;
    let landed = cancelled(&lake, &target, &second, 4).await;
    assert_eq!((landed.end(), landed.already_done), (v1::CommitEnd::Committed, true));
    assert_eq!(cancelled(&lake, &target, &first, 4).await.end(), v1::CommitEnd::Fenced);
    let other = v1::Intent { table_uuid: Uuid::new_v4().to_string(), ..third.clone() };
    assert_eq!(cancelled(&lake, &target, &other, 4).await.end(), v1::CommitEnd::Fenced);
    let missing = super::target("missing", &[]);
    assert_eq!(cancelled(&lake, &missing, &third, 4).await.end(), v1::CommitEnd::Fenced);
    meddle(&lake, &target, vec![head(first.snapshot_id)]).await;
    assert_eq!(cancelled(&lake, &target, &third, 4).await.end(), v1::CommitEnd::RolledBack);
    assert_eq!(end(&lake, &target, &third, &three).await, v1::CommitEnd::RolledBack);
    assert_eq!(ids(&lake.catalogs, &target).await, (0..10).collect::<Vec<_>>());
    assert_eq!(prepared.sequence_before, 0);
}

#[tokio::test]
async fn given_a_fault_of_the_catalog_when_fenced_off_or_discarded_then_once() {
    for (fault, times) in [(Fault::LostReply, 1), (Fault::LostRequest, 2), (Fault::Conflict, 3)] {
        let lake = Lake::new();
        let target = target("t", &[]);
        let (prepared, [_, second], _) = staged(&lake, &target).await;
        let (third, _) = work(&lake, &target, &prepared, 3, &marker::of(&second), (30, 40)).await;
        let (faulty, catalogs) = Faulty::over(&lake, fault, times).await;
        let result = cancel(&catalogs, &target, &Scope::of("bf-a"), &on_branch(third), 9).await.unwrap();
        assert!(faulty.fired(), "{fault:?}");
        assert_eq!((result.end(), result.evidence.as_str()), (v1::CommitEnd::Cancelled, "3:cancelled:9"), "{fault:?}");
        let snapshots = load(&catalogs, &target).await.unwrap().metadata().snapshots().len();
        assert_eq!(snapshots, 4, "{fault:?}: one on main, two staged, one fence");
        let (faulty, catalogs) = Faulty::over(&lake, fault, times).await;
        let discard = discard(&prepared, 4, "3:cancelled:9");
        let result = commit(&catalogs, &target, &Scope::of("bf-a"), &discard, Vec::new()).await.unwrap();
        assert!(faulty.fired(), "{fault:?}");
        assert_eq!(result.end(), v1::CommitEnd::Committed, "{fault:?}");
        assert!(!has_branch(&load(&catalogs, &target).await.unwrap()), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_a_commit_and_a_fence_racing_for_one_intent_when_both_end_then_one_of_them_is_true() {
    let lake = Arc::new(Lake::new());
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    for round in 0..6_i64 {
        let scope = Scope::of(&format!("bf-{round}"));
        let (intent, parts) = work(&lake, &target, &prepared, 1, "", (round * 10, round * 10 + 10)).await;
        let own = |folder: &std::path::Path| Catalogs::new([("lake".to_owned(), config(folder))]);
        let (one, other) = (own(lake.folder.path()), own(lake.folder.path()));
        let (landed, fenced) =
            tokio::join!(commit(&one, &target, &scope, &intent, parts), cancel(&other, &target, &scope, &intent, 3));
        let there = ids(&lake.catalogs, &target).await.contains(&(round * 10));
        let expected = if there {
            (v1::CommitEnd::Committed, v1::CommitEnd::Committed)
        } else {
            (v1::CommitEnd::Fenced, v1::CommitEnd::Cancelled)
        };
        assert_eq!((landed.unwrap().end(), fenced.unwrap().end()), expected, "round {round}");
    }
}
