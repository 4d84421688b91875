//! Staged outputs: a branch to audit, then one commit to main, or none.

use tidegate_proto::v1::record::Kind;

use super::bench::{Bench, hand_in, poison, read, sealed, task};
use crate::core::*;

const MINUTE: Duration = Duration::from_secs(60);
const BRANCH: &str = "tidegate_";

/// A backfill of one source, two tasks and these outputs, each `(staged, replaces)`.
fn running(outputs: &[(bool, bool)]) -> Bench {
    let plan = [vec![vec![task(&[(0, 5)]), task(&[(10, 15)])]]];
    Bench::running_to(outputs, &plan, None)
}

/// Hands in the one unit of task `at` to every output.
fn deliver(bench: &mut Bench, at: u32) {
    let held = bench.grant(read(0, 0, at)).unwrap();
    let outputs = bench.spec.outputs.len();
    let mut parts = hand_in(&format!("t{at}"), 0, 0, 1);
    let part = parts.outputs.remove(0);
    parts.outputs = (0..outputs).map(|ix| v1::OutputPart { output: ix as u32, ..part.clone() }).collect();
    for (ix, part) in parts.outputs.iter_mut().enumerate() {
        part.files[0].path = format!("t{at}/{ix}");
    }
    bench.hand_in(held, parts, false).unwrap();
}

/// All is read and on the branch.
fn staged() -> Bench {
    let mut bench = running(&[(true, false)]);
    deliver(&mut bench, 0);
    bench.wait(MINUTE);
    bench.commit();
    deliver(&mut bench, 1);
    bench.commit();
    bench
}

fn publishing(bench: &Bench) -> Vec<v1::Intent> {
    let records = bench.journal.iter().filter_map(|record| match &record.kind {
        Some(Kind::Publishing(publishing)) => Some(publishing.intents.clone()),
        _ => None,
    });
    records.flatten().collect()
}

#[test]
fn intents_go_to_the_branch_on_a_chain_of_their_own() {
    let bench = staged();
    let intents = sealed(&bench);
    assert_eq!(intents.len(), 2);
    let branch = format!("{BRANCH}{}", bench.id);
    assert!(intents.iter().all(|intent| intent.branch == branch && intent.kind() == v1::CommitKind::Append));
    assert_eq!((intents[0].predecessor.as_str(), intents[1].predecessor.clone()), ("", marker(&intents[0])));
    let status = bench.status();
    assert_eq!((status.phase(), status.state.as_str(), status.ended), (v1::Phase::Staged, "staged", 0));
    let output = &status.outputs[0];
    assert_eq!((output.rows_staged, output.files_staged, output.staged_commits), (20, 2, 2));
    assert_eq!((output.rows_committed, output.commits, output.committed_through), (0, 0, None));
    assert_eq!(output.branch, branch);
}

fn marker(intent: &v1::Intent) -> String {
    format!("{}:{}", intent.sequence, intent.digest)
}

#[test]
fn a_publish_commits_all_files_to_main_as_one_and_drops_the_branch() {
    for restarts in [false, true] {
        let mut bench = staged();
        if restarts {
            bench.restart();
            bench.join(2, 1, Vec::new());
        }
        bench.change(v1::Change::Publish);
        let intents = publishing(&bench);
        let [intent] = intents.as_slice() else { panic!("one output, one intent: {intents:?}") };
        assert_eq!((intent.kind(), intent.branch.as_str()), (v1::CommitKind::Append, ""));
        assert_eq!((intent.sequence, intent.predecessor.as_str()), (3, ""), "main's own chain");
        assert_eq!((intent.log_from, intent.log_to, intent.files, intent.rows), (0, 2, 2, 20));
        assert_eq!(intent.drop_branch, format!("{BRANCH}{}", bench.id));
        assert_eq!((bench.phase(), bench.status().state.as_str()), (v1::Phase::Running, "publishing"));
        bench.commit();
        let status = bench.status();
        assert_eq!(status.phase(), v1::Phase::Succeeded);
        assert_eq!((status.outputs[0].rows_committed, status.outputs[0].commits), (20, 1));
        assert_eq!(status.outputs[0].rows_staged, 0);
        assert!(bench.refused(v1::Change::Publish).contains("is published"));
    }
}

#[test]
fn a_publish_names_the_marker_that_its_branch_must_carry() {
    let mut bench = staged();
    assert!(sealed(&bench).iter().all(|intent| intent.staged_marker.is_empty()));
    let last = marker(&sealed(&bench)[1]);
    bench.change(v1::Change::Publish);
    assert_eq!(publishing(&bench)[0].staged_marker, last);
}

#[test]
fn the_digest_of_a_publish_is_over_every_file_in_the_order_of_the_log() {
    use sha2::{Digest, Sha256};
    let mut bench = staged();
    bench.change(v1::Change::Publish);
    let expected: String = Sha256::digest("t0/0\nt1/0\n").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(publishing(&bench)[0].digest, expected);
}

#[test]
fn one_record_prepares_the_publish_of_every_output() {
    let mut bench = running(&[(true, false), (false, false), (true, false)]);
    deliver(&mut bench, 0);
    deliver(&mut bench, 1);
    (0..3).for_each(|_| bench.commit());
    assert_eq!(bench.phase(), v1::Phase::Staged, "what commits directly is on main already");
    assert_eq!(bench.status().outputs[1].rows_committed, 20);
    bench.change(v1::Change::Publish);
    let outputs: Vec<u32> = publishing(&bench).iter().map(|intent| intent.output).collect();
    assert_eq!(outputs, [0, 2]);
    let records = bench.journal.iter().filter(|record| matches!(record.kind, Some(Kind::Publishing(_)))).count();
    assert_eq!(records, 1);
    bench.commit();
    assert_eq!(bench.status().state, "publishing", "each is driven to its end");
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}

#[test]
fn once_it_is_published_it_cannot_be_cancelled() {
    let mut bench = staged();
    bench.change(v1::Change::Publish);
    assert!(bench.refused(v1::Change::Cancel).contains("every output is driven to its end"));
    assert!(bench.refused(v1::Change::Pause).contains("every output is driven to its end"));
    bench.change(v1::Change::Publish);
    assert_eq!(publishing(&bench).len(), 1, "asked for again, done once");
    let (committer, _) = bench.commit_work().unwrap();
    bench.fail(committer, v1::Evidence { class: v1::Failure::Fatal.into(), ..Default::default() });
    assert_eq!(bench.phase(), v1::Phase::Failed);
    assert!(bench.refused(v1::Change::Cancel).contains("driven to its end"));
    assert!(bench.refused(v1::Change::Publish).contains("`retry` goes on"));
    bench.change(v1::Change::Retry);
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}

#[test]
fn a_cancel_before_it_drops_the_branch_and_leaves_main_alone() {
    let mut bench = staged();
    bench.change(v1::Change::Cancel);
    let (_, work) = bench.commit_work().unwrap();
    let drop = work.intent.unwrap();
    assert_eq!((drop.kind(), drop.files, drop.sequence), (v1::CommitKind::Discard, 0, 3));
    assert_eq!(drop.branch, format!("{BRANCH}{}", bench.id));
    assert_eq!(drop.predecessor, marker(&sealed(&bench)[1]), "behind the branch's last");
    assert_eq!(work.cancel, 0, "what drops a branch is not fenced off");
    assert_eq!(bench.status().state, "cancelling");
    bench.commit();
    let status = bench.status();
    assert_eq!((status.phase(), status.outputs[0].rows_staged), (v1::Phase::Cancelled, 0));
    assert_eq!(status.outputs[0].rows_committed, 0);
}

#[test]
fn after_a_discard_a_retry_stages_everything_anew() {
    for restarts in [false, true] {
        let mut bench = staged();
        bench.change(v1::Change::Cancel);
        bench.commit();
        if restarts {
            bench.restart();
            bench.join(2, 1, Vec::new());
        }
        bench.change(v1::Change::Retry);
        let last = sealed(&bench).pop().unwrap();
        assert_eq!((last.sequence, last.log_from, last.log_to, last.files), (4, 0, 2, 2));
        let drop = sealed(&bench).into_iter().find(|intent| intent.kind() == v1::CommitKind::Discard).unwrap();
        assert_eq!(last.predecessor, marker(&drop));
        bench.commit();
        assert_eq!((bench.phase(), bench.status().outputs[0].rows_staged), (v1::Phase::Staged, 20));
        bench.change(v1::Change::Publish);
        bench.commit();
        assert_eq!((bench.phase(), bench.status().outputs[0].rows_committed), (v1::Phase::Succeeded, 20));
    }
}

#[test]
fn a_cancel_while_it_stages_fences_the_branch_first_and_then_drops_it() {
    let mut bench = running(&[(true, false)]);
    deliver(&mut bench, 0);
    bench.wait(MINUTE);
    bench.change(v1::Change::Cancel);
    let (fencer, work) = bench.commit_work().unwrap();
    assert_eq!((work.cancel, work.intent.unwrap().sequence), (1, 1));
    bench.commit_ends(fencer, v1::CommitEnd::Cancelled);
    let drop = bench.commit_work().unwrap().1.intent.unwrap();
    assert_eq!((drop.kind(), drop.predecessor.as_str()), (v1::CommitKind::Discard, "1:cancelled:1"));
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
}

#[test]
fn what_was_never_staged_has_nothing_to_discard() {
    let mut bench = running(&[(true, false)]);
    bench.change(v1::Change::Cancel);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
    assert!(sealed(&bench).is_empty());
}

#[test]
fn what_is_parked_leaves_it_partial_and_unpublished() {
    let mut bench = running(&[(true, false)]);
    for _ in 0..2 {
        let held = bench.grant(read(0, 0, 0)).unwrap();
        bench.fail(held, poison());
        bench.wait(Config::default().back_off);
    }
    deliver(&mut bench, 1);
    bench.commit();
    assert_eq!((bench.phase(), bench.status().outputs[0].rows_staged), (v1::Phase::Partial, 10));
    assert!(bench.refused(v1::Change::Publish).contains("is partial"));
    bench.change(v1::Change::Cancel);
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Cancelled, "what was staged is discarded");
}

#[test]
fn it_can_be_published_only_when_it_is_staged() {
    let mut bench = running(&[(true, false)]);
    assert!(bench.refused(v1::Change::Publish).contains("is not staged yet"));
    deliver(&mut bench, 0);
    assert!(bench.refused(v1::Change::Publish).contains("is not staged yet"));
    let mut direct = running(&[(false, false)]);
    assert!(direct.refused(v1::Change::Publish).contains("no staged output"));
    let mut bench = staged();
    for change in [v1::Change::Pause, v1::Change::Resume, v1::Change::Retry] {
        assert!(bench.refused(change).contains("waits for `publish` or `cancel`"));
    }
    bench.change(v1::Change::Cancel);
    bench.commit();
    assert!(bench.refused(v1::Change::Publish).contains("not staged"));
}

#[test]
fn a_staged_output_without_files_is_published_without_a_commit() {
    let mut bench = Bench::running_to(&[(true, false)], &[vec![]], None);
    assert_eq!(bench.phase(), v1::Phase::Staged);
    bench.change(v1::Change::Publish);
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
    assert!(publishing(&bench).is_empty() && sealed(&bench).is_empty());
}

#[test]
fn a_pause_that_all_was_read_under_does_not_hide_that_it_is_staged() {
    let mut bench = running(&[(true, false)]);
    deliver(&mut bench, 0);
    deliver(&mut bench, 1);
    bench.change(v1::Change::Pause);
    bench.commit();
    assert_eq!((bench.phase(), bench.status().state.as_str()), (v1::Phase::Staged, "staged"));
    bench.change(v1::Change::Publish);
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}
