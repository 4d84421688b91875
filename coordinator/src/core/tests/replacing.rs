//! Outputs that replace what their window held.

use super::bench::{Bench, hand_in, poison, read, sealed, task};
use crate::core::*;

const MINUTE: Duration = Duration::from_secs(60);
const DIRECT: (bool, bool) = (false, true);
const STAGED: (bool, bool) = (true, true);

fn running(output: (bool, bool)) -> Bench {
    Bench::running_to(&[output], &[vec![vec![task(&[(0, 5)]), task(&[(10, 15)])]]], None)
}

fn deliver(bench: &mut Bench, at: u32) {
    let held = bench.grant(read(0, 0, at)).unwrap();
    bench.hand_in(held, hand_in(&format!("t{at}"), 0, 0, 1), false).unwrap();
}

fn kinds(bench: &Bench) -> Vec<(v1::CommitKind, u64)> {
    sealed(bench).iter().map(|intent| (intent.kind(), intent.files)).collect()
}

#[test]
fn a_direct_one_commits_once_when_all_is_read() {
    let mut bench = running(DIRECT);
    deliver(&mut bench, 0);
    bench.wait(10 * MINUTE);
    assert_eq!(kinds(&bench), [], "no interim commits, whatever the interval says");
    deliver(&mut bench, 1);
    assert_eq!(kinds(&bench), [(v1::CommitKind::Replace, 2)]);
    assert_eq!(sealed(&bench)[0].replaces_through, 7, "as the table was prepared");
    bench.commit();
    assert_eq!((bench.phase(), bench.status().outputs[0].rows_committed), (v1::Phase::Succeeded, 20));
    assert!(bench.status().outputs[0].replaces);
}

#[test]
fn a_direct_one_commits_nothing_while_a_task_is_parked() {
    let mut bench = running(DIRECT);
    for _ in 0..2 {
        let held = bench.grant(read(0, 0, 0)).unwrap();
        bench.fail(held, poison());
        bench.wait(Config::default().back_off);
    }
    deliver(&mut bench, 1);
    assert_eq!((bench.phase(), kinds(&bench)), (v1::Phase::Partial, vec![]));
    bench.change(v1::Change::Retry);
    deliver(&mut bench, 0);
    assert_eq!(kinds(&bench), [(v1::CommitKind::Replace, 2)]);
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}

#[test]
fn nothing_to_add_removes_all_the_same() {
    let mut bench = Bench::running_to(&[DIRECT], &[vec![]], None);
    assert_eq!(kinds(&bench), [(v1::CommitKind::Replace, 0)]);
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
    let mut bench = Bench::running_to(&[STAGED], &[vec![]], None);
    bench.commit();
    assert_eq!((bench.phase(), kinds(&bench)), (v1::Phase::Staged, vec![(v1::CommitKind::Replace, 0)]));
    bench.change(v1::Change::Publish);
    let (_, work) = bench.commit_work().unwrap();
    let intent = work.intent.unwrap();
    assert_eq!((intent.kind(), intent.files, intent.branch.as_str()), (v1::CommitKind::Replace, 0, ""));
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}

#[test]
fn a_staged_one_replaces_first_and_appends_then_and_is_published_as_one_replacement() {
    let mut bench = running(STAGED);
    deliver(&mut bench, 0);
    bench.wait(MINUTE);
    bench.commit();
    deliver(&mut bench, 1);
    bench.commit();
    assert_eq!(kinds(&bench), [(v1::CommitKind::Replace, 1), (v1::CommitKind::Append, 1)]);
    bench.change(v1::Change::Publish);
    let intent = bench.commit_work().unwrap().1.intent.unwrap();
    assert_eq!((intent.kind(), intent.files, intent.replaces_through), (v1::CommitKind::Replace, 2, 7));
    bench.commit();
    assert_eq!((bench.phase(), bench.status().outputs[0].rows_committed), (v1::Phase::Succeeded, 20));
}

#[test]
fn a_replacement_that_was_fenced_off_is_still_owed() {
    let mut bench = running(STAGED);
    deliver(&mut bench, 0);
    bench.wait(MINUTE);
    bench.change(v1::Change::Cancel);
    let (fencer, _) = bench.commit_work().unwrap();
    bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
    bench.commit();
    bench.change(v1::Change::Retry);
    deliver(&mut bench, 1);
    assert_eq!(kinds(&bench).pop(), Some((v1::CommitKind::Replace, 2)));
}

#[test]
fn a_direct_one_that_did_not_land_is_not_made_again_without_its_files() {
    // It used to be sealed anew with no files, and emptied the window.
    for end in [v1::CommitEnd::Fenced, v1::CommitEnd::RolledBack] {
        let mut bench = running(DIRECT);
        deliver(&mut bench, 0);
        deliver(&mut bench, 1);
        let (committer, _) = bench.commit_work().unwrap();
        bench.commit_ends(committer, end);
        assert_eq!(bench.phase(), v1::Phase::Failed);
        for restarts in [false, true] {
            if restarts {
                bench.restart();
                bench.join(2, 1, Vec::new());
            }
            bench.change(v1::Change::Retry);
            assert_eq!(kinds(&bench), [(v1::CommitKind::Replace, 2)], "{end:?}: no other");
            let failure = bench.status().failure.unwrap();
            assert_eq!(bench.phase(), v1::Phase::Failed);
            assert!(failure.message.contains("of 2 files that were accepted, only 0 wait"), "{}", failure.message);
        }
    }
}

/// All is read, and somebody else has written into the window.
fn in_conflict(output: (bool, bool)) -> Bench {
    let mut bench = running(output);
    deliver(&mut bench, 0);
    deliver(&mut bench, 1);
    if output == STAGED {
        bench.commit();
        bench.change(v1::Change::Publish);
    }
    let (committer, _) = bench.commit_work().unwrap();
    bench.commit_ends(committer, v1::CommitEnd::Conflict);
    let failure = bench.status().failure.unwrap();
    assert_eq!((bench.phase(), failure.exit_code), (v1::Phase::Failed, 4));
    assert!(failure.message.contains("`retry`") && failure.message.contains("--allow-existing"), "{}", failure.message);
    bench
}

#[test]
fn a_conflict_fails_and_a_retry_tries_the_same_intent_again() {
    for output in [DIRECT, STAGED] {
        let mut bench = in_conflict(output);
        bench.change(v1::Change::Retry);
        let (_, work) = bench.commit_work().unwrap();
        let sequence = work.intent.unwrap().sequence;
        assert_eq!((work.cancel, sequence), (0, if output == DIRECT { 1 } else { 2 }), "they took theirs out");
        bench.commit();
        assert_eq!(bench.phase(), v1::Phase::Succeeded);
    }
}

#[test]
fn with_leave_the_window_is_looked_at_anew_and_what_they_wrote_is_replaced_too() {
    for output in [DIRECT, STAGED] {
        let mut bench = in_conflict(output);
        bench.submit(true);
        let (fencer, work) = bench.commit_work().unwrap();
        assert!(work.cancel > 0, "the intent that would leave their rows is fenced off first");
        bench.sent.clear();
        assert_eq!(bench.grant(TaskId::Prepare), None, "markers are still to move");
        bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
        let fence = format!("{}:cancelled:{}", work.intent.unwrap().sequence, work.cancel);
        bench.prepare_with(|table| (table.sequence_before, table.head_before) = (9, 99));
        let (_, work) = bench.commit_work().unwrap();
        let intent = work.intent.unwrap();
        assert_eq!((intent.kind(), intent.replaces_through, intent.replaces_head), (v1::CommitKind::Replace, 9, 99));
        assert_eq!((intent.predecessor, intent.files), (fence, 2));
        bench.commit();
        assert_eq!((bench.phase(), bench.status().outputs[0].rows_committed), (v1::Phase::Succeeded, 20));
    }
}

#[test]
fn with_leave_a_replacement_by_nothing_is_pinned_anew_under_the_same_plan() {
    // The simulator's find: nothing was accepted, so it was planned anew in the middle of its publish, and never ended.
    for output in [DIRECT, STAGED] {
        let mut bench = Bench::running_to(&[output], &[vec![]], None);
        if output == STAGED {
            bench.commit();
            bench.change(v1::Change::Publish);
        }
        let (committer, _) = bench.commit_work().unwrap();
        bench.commit_ends(committer, v1::CommitEnd::Conflict);
        bench.submit(true);
        let (fencer, _) = bench.commit_work().unwrap();
        bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
        bench.prepare_with(|table| table.sequence_before = 9);
        assert_eq!(bench.commit_work().unwrap().1.intent.unwrap().replaces_through, 9);
        bench.commit();
        assert_eq!(bench.phase(), v1::Phase::Succeeded);
    }
}

#[test]
fn after_a_conflict_a_direct_one_can_be_cancelled() {
    let mut bench = in_conflict(DIRECT);
    bench.change(v1::Change::Cancel);
    let (fencer, work) = bench.commit_work().unwrap();
    assert!(work.cancel > 0);
    bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
}

#[test]
fn rows_in_the_window_are_no_reason_to_refuse_what_replaces_them() {
    for (output, phase) in [(DIRECT, v1::Phase::Enumerating), ((false, false), v1::Phase::Failed)] {
        let mut bench = Bench::of(&[output], 1, None, false, false);
        bench.join(1, 1, Vec::new());
        bench.prepare_with(|table| table.rows_before = 5);
        assert_eq!(bench.phase(), phase);
    }
}
