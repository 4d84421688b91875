//! A cancel with an intent whose end is not proven: it is fenced off, and what it held is sealed again.

use super::bench::{Bench, Held, hand_in, read, sealed, task};
use crate::core::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Two units; the first is handed in and its intent prepared and granted. The reader goes on.
fn prepared() -> (Bench, Held, Held) {
    let mut bench = Bench::running(&[vec![vec![task(&[(0, 5), (10, 15)])]]], None, 1);
    let reader = bench.grant(read(0, 0, 0)).unwrap();
    bench.hand_in(reader, hand_in("a", 0, 0, 1), false).unwrap();
    bench.wait(MINUTE);
    let (committer, work) = bench.commit_work().unwrap();
    assert_eq!(work.cancel, 0);
    (bench, reader, committer)
}

fn cancelled() -> (Bench, Held, v1::CommitWork) {
    let (mut bench, _, _) = prepared();
    bench.change(v1::Change::Cancel);
    let (fencer, work) = bench.commit_work().unwrap();
    (bench, fencer, work)
}

#[test]
fn a_cancel_takes_the_commit_back_and_grants_it_anew_to_be_fenced_off() {
    let (mut bench, _, committer) = prepared();
    bench.change(v1::Change::Cancel);
    let (fencer, work) = bench.commit_work().unwrap();
    assert!(fencer.2 > committer.2, "under a new token");
    assert_eq!((work.cancel, work.intent.unwrap().sequence), (1, 1));
    assert!(bench.was_revoked(committer));
    assert_eq!((bench.phase(), bench.status().state.as_str()), (v1::Phase::Running, "cancelling, outcome unknown"));
}

#[test]
fn only_a_reader_s_proof_ends_it() {
    let (mut bench, fencer, _) = cancelled();
    bench.fail(fencer, v1::Evidence { class: v1::Failure::Unknown.into(), ..Default::default() });
    assert_eq!(bench.status().state, "cancelling, outcome unknown");
    bench.wait(Config::default().back_off);
    let (again, work) = bench.commit_work().unwrap();
    assert_eq!(work.cancel, 1);
    bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
    assert_eq!(bench.status().state, "cancelling, outcome unknown", "the first has lost the right to say so");
    bench.commit_ends(again, v1::CommitEnd::Cancelled);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
    assert_eq!(bench.status().outputs[0].rows_committed, 0);
}

#[test]
fn that_it_is_in_the_table_is_a_fact_whoever_found_it() {
    let (mut bench, _, committer) = prepared();
    bench.change(v1::Change::Cancel);
    bench.commit_ends(committer, v1::CommitEnd::Committed);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
    assert_eq!(bench.status().outputs[0].rows_committed, 10);
}

#[test]
fn the_fence_keeps_its_term_whoever_leads() {
    let (mut bench, _, _) = cancelled();
    bench.restart();
    bench.join(2, 1, Vec::new());
    assert_eq!(bench.status().term, 2);
    assert_eq!(bench.commit_work().unwrap().1.cancel, 1, "an intent has one fence");
}

#[test]
fn a_retry_seals_the_files_again_behind_the_fence() {
    for restarts in [false, true] {
        let (mut bench, fencer, _) = cancelled();
        bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
        if restarts {
            bench.restart();
            bench.join(2, 1, Vec::new());
        }
        bench.change(v1::Change::Retry);
        let reader = bench.grant(read(0, 0, 0)).unwrap();
        bench.hand_in(reader, hand_in("b", 0, 1, 2), false).unwrap();
        let last = sealed(&bench).pop().unwrap();
        assert_eq!((last.sequence, last.predecessor.as_str()), (2, "1:cancelled:1"));
        assert_eq!((last.log_from, last.log_to, last.files, last.rows), (0, 2, 2, 20));
        assert_eq!(last.digest, digest(&["a/0", "b/0"]));
        bench.commit();
        assert_eq!(bench.phase(), v1::Phase::Succeeded);
    }
}

fn digest(paths: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    paths.iter().for_each(|path| hash.update(format!("{path}\n")));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn files_that_wait_behind_the_fenced_intent_stay_behind_its_files() {
    let (mut bench, reader, _) = prepared();
    bench.hand_in(reader, hand_in("b", 0, 1, 2), false).unwrap();
    bench.change(v1::Change::Cancel);
    let (fencer, _) = bench.commit_work().unwrap();
    bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
    bench.change(v1::Change::Retry);
    let last = sealed(&bench).pop().unwrap();
    assert_eq!((last.files, last.digest), (2, digest(&["a/0", "b/0"])), "in the order of the log");
}

#[test]
fn an_intent_that_was_given_up_is_fenced_off_even_after_a_retry() {
    // Given fencing that fails until the backfill has failed, a retry must not commit what a late fencer may cut off.
    let (mut bench, _, _) = cancelled();
    let fatal = v1::Evidence { class: v1::Failure::Fatal.into(), ..Default::default() };
    let (fencer, _) = bench.commit_work().unwrap();
    bench.fail(fencer, fatal);
    assert_eq!(bench.phase(), v1::Phase::Failed);
    bench.change(v1::Change::Retry);
    let (fencer, work) = bench.commit_work().unwrap();
    assert_eq!(work.cancel, 1);
    bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
    assert_eq!(bench.phase(), v1::Phase::Running);
    bench.wait(MINUTE);
    assert_eq!(sealed(&bench).pop().unwrap().predecessor, "1:cancelled:1");
}

#[test]
fn a_cancel_of_what_has_failed_fences_off_what_it_left() {
    let (mut bench, _, committer) = prepared();
    bench.fail(committer, v1::Evidence { class: v1::Failure::Fatal.into(), ..Default::default() });
    assert_eq!(bench.phase(), v1::Phase::Failed);
    bench.change(v1::Change::Cancel);
    let (fencer, work) = bench.commit_work().unwrap();
    assert_eq!(work.cancel, 1);
    bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
    assert!(bench.refused(v1::Change::Cancel).contains("nothing to cancel"));
}

#[test]
fn while_it_is_cancelled_nothing_else_can_be_wished() {
    let (mut bench, _, _) = cancelled();
    for change in [v1::Change::Pause, v1::Change::Resume, v1::Change::Retry, v1::Change::Publish] {
        assert!(!bench.refused(change).is_empty(), "{change:?}");
    }
}

#[test]
fn a_cancelled_end_that_nobody_asked_for_fails() {
    let (mut bench, _, committer) = prepared();
    bench.commit_ends(committer, v1::CommitEnd::Cancelled);
    assert_eq!(bench.phase(), v1::Phase::Failed);
}
