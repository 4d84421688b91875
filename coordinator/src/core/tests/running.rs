//! Alignment, slots, what is set aside, and how a backfill ends.

use tidegate_proto::v1::from_coordinator::Kind;

use super::bench::{Bench, hand_in, poison, read, sealed, task, worker};
use crate::core::*;

fn yields(bench: &Bench) -> Vec<TaskId> {
    let asked = bench.sent.iter().filter_map(|(_, kind)| match kind {
        Kind::Yield(wish) => tidegate_proto::convert::task_id(wish.task).ok(),
        _ => None,
    });
    asked.collect()
}

#[test]
fn a_unit_wider_than_the_drift_is_refused_with_what_to_set() {
    let mut bench = Bench::new(1, Some(1_000_000), false);
    bench.join(1, 1, Vec::new());
    bench.prepare();
    bench.enumerate(0, &[vec![task(&[(0, 2_000_000)])]]);
    assert_eq!(bench.phase(), v1::Phase::Failed);
    let message = bench.status().failure.unwrap().message;
    assert!(
        message.contains("2s wide") && message.contains("max_drift") && message.contains("allow_wide"),
        "{message}"
    );
}

#[test]
fn with_leave_a_wide_unit_waits_until_it_holds_the_watermark() {
    let plan = [vec![vec![task(&[(0, 5)])]], vec![vec![task(&[(1, 500)])]]];
    let mut bench = Bench::running(&plan, Some(10), 4);
    let first = bench.grant(read(0, 0, 0)).unwrap();
    assert_eq!(bench.grant(read(1, 0, 0)), None, "it would reach past the gate");
    bench.hand_in(first, hand_in("a", 0, 0, 1), false).unwrap();
    assert!(bench.grant(read(1, 0, 0)).is_some(), "now it is the lowest");
    assert_eq!(bench.status().promised_skew, Some(499));
}

#[test]
fn when_the_holder_has_no_slot_the_paused_reader_furthest_ahead_yields() {
    let plan = [vec![vec![task(&[(0, 1), (90, 95)]), task(&[(2, 3), (80, 85)]), task(&[(4, 5)])]]];
    let mut bench = Bench::running(&plan, Some(20), 2);
    let (far, near) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(0, 0, 1)).unwrap());
    bench.report(near, 80, true);
    bench.report(far, 90, true);
    assert_eq!(yields(&bench), [far.1]);
    bench.report(near, 80, true);
    assert_eq!(yields(&bench).len(), 1, "one at a time");
    assert_eq!(bench.grant(read(0, 0, 2)), None);
    bench.hand_in(far, hand_in("a", 0, 0, 1), true).unwrap();
    assert!(bench.grant(read(0, 0, 2)).is_some(), "the holder has its slot");
}

#[test]
fn a_poison_task_is_parked_and_holds_back_the_complete_watermark_alone() {
    let plan = [vec![vec![task(&[(0, 5)]), task(&[(10, 15)])]]];
    let mut bench = Bench::running(&plan, Some(100), 2);
    park(&mut bench, read(0, 0, 0));
    assert_eq!((bench.status().read_watermark, bench.status().complete_watermark), (Some(10), Some(0)));
    let other = bench.grant(read(0, 0, 1)).unwrap();
    bench.hand_in(other, hand_in("b", 0, 0, 1), false).unwrap();
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Partial);
    assert_eq!(bench.status().outputs[0].committed_through, Some(0), "what is parked is not complete");
}

/// Fails a task until it is set aside.
fn park(bench: &mut Bench, task: TaskId) {
    for _ in 0..2 {
        let held = bench.grant(task).unwrap();
        bench.fail(held, poison());
        bench.wait(Config::default().back_off);
    }
    assert_eq!(bench.status().parked.len(), 1);
}

#[test]
fn a_retry_takes_up_exactly_what_was_parked_and_at_once() {
    // The simulator's find: a task that was parked while it backed off stayed backing off for ever.
    let mut bench = Bench::running(&[vec![vec![task(&[(0, 5)]), task(&[(10, 15)])]]], None, 2);
    park(&mut bench, read(0, 0, 0));
    let other = bench.grant(read(0, 0, 1)).unwrap();
    bench.hand_in(other, hand_in("b", 0, 0, 1), false).unwrap();
    bench.commit();
    bench.sent.clear();
    bench.change(v1::Change::Retry);
    let again = bench.grant(read(0, 0, 0)).expect("granted at once, though it was backing off when it was parked");
    assert_eq!(bench.grant(read(0, 0, 1)), None, "what is done stays done");
    bench.hand_in(again, hand_in("c", 0, 0, 1), false).unwrap();
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}

#[test]
fn what_another_process_ended_is_retried_under_tokens_that_were_never_given() {
    // The simulator's find: a coordinator takes up nothing that has ended, and a retry of it then gave out the tokens of
    // its predecessor again, so that an attempt of before would have been taken for the new one.
    let mut bench = Bench::running(&[vec![vec![task(&[(0, 5), (10, 15)])]]], None, 1);
    let first = bench.grant(read(0, 0, 0)).unwrap();
    bench.hand_in(first, hand_in("a", 0, 0, 1), false).unwrap();
    bench.change(v1::Change::Cancel);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
    bench.restart();
    bench.join(2, 1, Vec::new());
    bench.change(v1::Change::Retry);
    let again = bench.grant(read(0, 0, 0)).unwrap();
    assert!(again.2 > first.2 && again.2.term > first.2.term, "{} after {}", again.2, first.2);
}

#[test]
fn a_session_that_comes_back_to_life_is_given_what_waited() {
    // The simulator's find: a worker that was stopped past its lease and went on got no task without a slot.
    let mut bench = Bench::new(1, None, false);
    bench.join(1, 1, Vec::new());
    let first = bench.grant(TaskId::Prepare).unwrap();
    bench.silence(Config::default().lease);
    bench.sent.clear();
    bench.step(Event::Heartbeat(worker(1), 7, Vec::new(), false));
    let again = bench.grant(TaskId::Prepare).expect("granted with the heartbeat");
    assert!(again.2 > first.2);
}

#[test]
fn a_draining_worker_is_assigned_nothing_more() {
    let mut bench = Bench::new(1, None, false);
    bench.join(1, 1, Vec::new());
    let held = bench.grant(TaskId::Prepare).unwrap();
    bench.step(Event::Heartbeat(worker(1), 1, Vec::new(), true));
    bench.sent.clear();
    bench.step(Event::Released(bench.lease(held)));
    assert_eq!(bench.grant(TaskId::Prepare), None);
    bench.join(2, 1, Vec::new());
    assert_eq!(bench.grant(TaskId::Prepare).unwrap().0, worker(2));
}

#[test]
fn only_the_segments_near_the_watermark_are_loaded() {
    let unit = |at: i64| task(&[(at, at)]);
    let segments: Vec<Vec<v1::ReadTask>> = (0..40).map(|s| (0..100).map(|t| unit(s * 100 + t)).collect()).collect();
    let mut bench = Bench::running(&[segments], Some(50), 1);
    let loaded = bench.asked.len();
    assert!((1..=7).contains(&loaded), "{loaded} of 40 segments for 512 ready tasks");
    for at in 0..100 {
        let held = bench.grant(read(0, 0, at)).unwrap();
        bench.hand_in(held, hand_in(&format!("a{at}"), 0, 0, 1), false).unwrap();
    }
    assert!(bench.asked.len() <= loaded + 1, "one is done, so at most one more is near");
    bench.restart();
    bench.join(2, 1, Vec::new());
    bench.wait(Config::default().grace);
    assert!(bench.asked.iter().all(|(_, segment)| segment.get() > 0), "what is done is not loaded again");
    assert!(bench.grant(read(0, 1, 0)).is_some());
}

#[test]
fn the_complete_watermark_survives_a_restart_and_is_not_guessed_meanwhile() {
    let mut bench = Bench::running(&[vec![vec![task(&[(0, 5), (30, 35)]), task(&[(50, 55)])]]], None, 1);
    let held = bench.grant(read(0, 0, 0)).unwrap();
    bench.hand_in(held, hand_in("a", 0, 0, 1), false).unwrap();
    assert_eq!(bench.status().complete_watermark, Some(30));
    bench.core = Core::new(Config::default());
    bench.core.restore(bench.id.clone(), bench.spec.clone(), &bench.journal);
    assert_eq!(bench.status().complete_watermark, None, "its segment is not loaded: 0 would be a step back");
    bench.restart();
    assert_eq!(bench.status().complete_watermark, Some(30));
}

#[test]
fn an_intent_starts_where_the_last_one_ended_and_waits_for_its_end() {
    let mut bench = Bench::running(&[vec![vec![task(&[(0, 5), (10, 15), (20, 25)])]]], None, 1);
    let held = bench.grant(read(0, 0, 0)).unwrap();
    bench.hand_in(held, hand_in("a", 0, 0, 1), false).unwrap();
    bench.wait(std::time::Duration::from_secs(60));
    let intents = |bench: &Bench| -> Vec<(u64, u64, u64, String)> {
        sealed(bench).into_iter().map(|i| (i.sequence, i.log_from, i.log_to, i.predecessor)).collect()
    };
    assert_eq!(intents(&bench), [(1, 0, 1, String::new())]);
    bench.hand_in(held, hand_in("b", 0, 1, 3), false).unwrap();
    assert_eq!(intents(&bench).len(), 1, "the end of the first is not proven");
    bench.commit();
    let all = intents(&bench);
    assert_eq!((all[1].0, all[1].1, all[1].2), (2, 1, 2));
    assert!(all[1].3.starts_with("1:"), "it names its predecessor");
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}
