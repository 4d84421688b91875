//! Crashes: this test program runs itself, dies at a failpoint, and what is left is taken up again.

use std::process::Command;

use super::*;

const FOLDER: &str = "TIDEGATE_TEST_CRASH_FOLDER";

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
        one_commit(folder.as_ref()).await;
    }
}

/// Runs [`the_process_that_crashes`] with a fault; says whether it lived, and what fired.
fn run(folder: &std::path::Path, fault: &str) -> (bool, String) {
    let log = folder.join("fired");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sink::tests::crash::the_process_that_crashes", "--nocapture"])
        .env(FOLDER, folder)
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
