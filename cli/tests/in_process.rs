//! Runs in one process, as their users meet them: `run --local` and `loadtest`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

/// What `tidegate` printed as JSON in `folder`, when it ended well.
fn json(folder: &Path, words: &[&str]) -> (serde_json::Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(words).args(["-o", "json"]).current_dir(folder).env_clear().env("HOME", folder);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {said}");
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

#[test]
fn given_many_workers_when_a_load_test_runs_then_every_row_is_committed_once() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["loadtest", "--workers", "3", "--splits", "12", "--rows", "60000"];
    let (ended, _) = json(folder.path(), &words);
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["outputs"][0]["rows_committed"], 60_000);
    assert_eq!(ended["sources"][0]["rows_read"], 60_000);
}

#[test]
fn given_a_backfill_that_has_succeeded_when_it_is_run_again_then_there_is_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "version: 1\nkind: backfill\nname: again\nsources:\n  events: {generate: {rows: 5000, rate: 10}}\n\
                outputs:\n  events: {table: n.events}\n";
    std::fs::write(folder.path().join("spec.yaml"), spec).unwrap();
    let words = ["run", "spec.yaml", "--local", "--workers", "2"];
    let (first, _) = json(folder.path(), &words);
    let (second, said) = json(folder.path(), &words);
    assert!(said.contains("nothing to do"), "{said}");
    assert_eq!(first["outputs"][0]["last_snapshot"], second["outputs"][0]["last_snapshot"]);
    assert_eq!(second["outputs"][0]["rows_committed"], 5_000);
}
