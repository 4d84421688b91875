//! Crashes: this test program runs itself, dies at a failpoint, and what is left is taken up again.

use std::process::Command;

use super::*;

const FOLDER: &str = "TIDEGATE_TEST_CRASH_FOLDER";
const DEED: &str = "TIDEGATE_TEST_CRASH_DEED";

/// Commits one intent in the folder that the environment names; its id and digest depend on nothing but that folder.
async fn one_commit(folder: &std::path::Path) -> v1::CommitResult {
    let catalogs = Catalogs::new([("lake".to_owned(), config(folder))]);
    let target = target("t", &[]);
    let prepared = prepared(&catalogs, &target).await;
    let kept = folder.join("part");
    let part = match std::fs::read(&kept) {
        Ok(bytes) => prost::Message::decode(bytes.as_slice()).unwrap(),
        Err(_) => {
            let part = part(&catalogs, &target, rows(0, 10)).await;
            std::fs::write(&kept, prost::Message::encode_to_vec(&part)).unwrap();
            part
        }
    };
    let parts = vec![part];
    let intent = v1::Intent { snapshot_id: 77, ..intent(&prepared, 1, "", &parts) };
    commit(&catalogs, &target, &Scope::of("bf-a"), &intent, parts).await.unwrap()
}

/// What the crashing process does; on its own it does nothing.
#[tokio::test]
async fn the_process_that_crashes() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        match std::env::var(DEED).as_deref() {
            Ok("replace") => drop(one_replacement(folder.as_ref()).await),
            Ok("fence") => drop(one_fence(folder.as_ref()).await),
            Ok("discard") => drop(one_discard(folder.as_ref()).await),
            _ => drop(one_commit(folder.as_ref()).await),
        }
    }
}

fn lake(folder: &std::path::Path) -> Catalogs {
    Catalogs::new([("lake".to_owned(), config(folder))])
}

/// A table in `folder` that is there already, as the last prepare saw it.
async fn known(folder: &std::path::Path, target: &OutputTarget) -> v1::PreparedOutput {
    let scope = hours("bf-a", 24, 48, true);
    prepare(&lake(folder), target, &rows(0, 1).schema(), true, &scope).await.unwrap()
}

fn days() -> OutputTarget {
    target("t", &["day(at)"])
}

/// Replaces the second of three days by nothing.
async fn one_replacement(folder: &std::path::Path) -> v1::CommitResult {
    let prepared = known(folder, &days()).await;
    let kind = v1::CommitKind::Replace.into();
    let (snapshot_id, replaces_through, replaces_head) = (77, 1, prepared.head_before);
    let intent = intent(&prepared, 1, "", &[]);
    let intent = v1::Intent { kind, snapshot_id, replaces_through, replaces_head, ..intent };
    commit(&lake(folder), &days(), &hours("bf-a", 24, 48, true), &intent, Vec::new()).await.unwrap()
}

/// Fences off an intent that nobody committed.
async fn one_fence(folder: &std::path::Path) -> v1::CommitResult {
    let prepared = known(folder, &days()).await;
    cancel(&lake(folder), &days(), &Scope::of("bf-a"), &intent(&prepared, 1, "", &[]), 5).await.unwrap()
}

/// Drops a branch with one fence on it.
async fn one_discard(folder: &std::path::Path) -> v1::CommitResult {
    let prepared = known(folder, &days()).await;
    let (branch, kind) = (marker::staging_branch("bf-a"), v1::CommitKind::Discard.into());
    let intent = v1::Intent { branch, kind, ..intent(&prepared, 2, "1:cancelled:5", &[]) };
    commit(&lake(folder), &days(), &Scope::of("bf-a"), &intent, Vec::new()).await.unwrap()
}

#[tokio::test]
async fn given_a_crash_at_any_point_of_a_replacement_fence_or_discard_when_done_again_then_once() {
    use v1::CommitEnd::{Cancelled, Committed};
    let all = ["commit.before-manifests", "commit.after-manifests", "commit.before-metadata", "commit.before-swap"];
    let deeds = [("replace", &["commit.after-rewrite"][..], Committed), ("fence", &[], Cancelled)];
    let staged = deeds.iter().flat_map(|(deed, more, end)| all.iter().chain(*more).map(|point| (*deed, *point, *end)));
    let discard = all[2..].iter().map(|point| ("discard", *point, Committed));
    let lost = [("replace", Committed), ("fence", Cancelled), ("discard", Committed)];
    let lost = lost.map(|(deed, end)| (deed, "commit.after-swap", end));
    for (deed, point, end) in staged.chain(discard).chain(lost) {
        let folder = TempDir::new().unwrap();
        by_another(&lake(folder.path()), &days(), rows(0, 72)).await;
        if deed == "discard" {
            let prepared = known(folder.path(), &days()).await;
            let staged = v1::Intent { branch: marker::staging_branch("bf-a"), ..intent(&prepared, 1, "", &[]) };
            cancel(&lake(folder.path()), &days(), &Scope::of("bf-a"), &staged, 5).await.unwrap();
        }
        let (lived, fired) = run_deed(folder.path(), deed, &format!("{point}=abort@1"));
        assert_eq!((lived, fired), (false, format!("{point}\n")), "{deed} at {point}");
        let result = match deed {
            "replace" => one_replacement(folder.path()).await,
            "fence" => one_fence(folder.path()).await,
            _ => one_discard(folder.path()).await,
        };
        let already_done = point == "commit.after-swap";
        assert_eq!((result.end(), result.already_done), (end, already_done), "{deed} at {point}");
        let expected: Vec<_> = if deed == "replace" { (0..24).chain(48..72).collect() } else { (0..72).collect() };
        assert_eq!(ids(&lake(folder.path()), &days()).await, expected, "{deed} at {point}");
        let table = load(&lake(folder.path()), &days()).await.unwrap();
        let snapshots = if deed == "discard" { 1 } else { 2 };
        assert_eq!(table.metadata().snapshots().len(), snapshots, "{deed} at {point}");
        assert!(table.metadata().snapshot_for_ref(&marker::staging_branch("bf-a")).is_none());
    }
}

/// Runs [`the_process_that_crashes`] with a fault; says whether it lived, and what fired.
fn run(folder: &std::path::Path, fault: &str) -> (bool, String) {
    run_deed(folder, "commit", fault)
}

fn run_deed(folder: &std::path::Path, deed: &str, fault: &str) -> (bool, String) {
    let log = folder.join("fired");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sink::tests::crash::the_process_that_crashes", "--nocapture"])
        .env(FOLDER, folder)
        .env(DEED, deed)
        .env("TIDEGATE_FAILPOINTS", fault)
        .env("TIDEGATE_FAILPOINTS_LOG", &log)
        .output()
        .unwrap();
    (status.status.success(), std::fs::read_to_string(log).unwrap_or_default())
}

#[tokio::test]
async fn given_a_crash_at_any_point_of_a_commit_when_committed_again_then_once() {
    for (point, already_done) in [
        ("file.before-close", false),
        ("file.after-close", false),
        ("commit.before-manifests", false),
        ("commit.after-manifests", false),
        ("commit.before-metadata", false),
        ("commit.before-swap", false),
        ("commit.after-swap", true),
    ] {
        let folder = TempDir::new().unwrap();
        // The table's creation passes `before-metadata` first.
        let nth = if point == "commit.before-metadata" { 2 } else { 1 };
        let (lived, fired) = run(folder.path(), &format!("{point}=abort@{nth}"));
        assert!(!lived, "{point}");
        assert_eq!(fired, format!("{point}\n"));
        let result = one_commit(folder.path()).await;
        assert_eq!((result.end(), result.already_done), (v1::CommitEnd::Committed, already_done), "{point}");
        let catalogs = Catalogs::new([("lake".to_owned(), config(folder.path()))]);
        assert_eq!(ids(&catalogs, &target("t", &[])).await, (0..10).collect::<Vec<_>>(), "{point}");
    }
}

#[tokio::test]
async fn given_an_error_after_the_swap_when_committed_then_resolved_by_reading() {
    let folder = TempDir::new().unwrap();
    let (lived, fired) = run(folder.path(), "commit.after-swap=error@1");
    assert!(lived);
    assert_eq!(fired, "commit.after-swap\n");
    let catalogs = Catalogs::new([("lake".to_owned(), config(folder.path()))]);
    assert_eq!(ids(&catalogs, &target("t", &[])).await, (0..10).collect::<Vec<_>>());
}
