//! What becomes of a task that a worker says it holds.

use tidegate_proto::v1::from_coordinator::Kind;

use super::bench::{Bench, Held, hand_in, read, task, token, worker};
use crate::core::*;

fn granted() -> (Bench, Held) {
    let bench = Bench::running(&[vec![vec![task(&[(0, 5), (10, 15), (20, 25)])]]], Some(100), 1);
    let held = bench.grant(read(0, 0, 0)).unwrap();
    (bench, held)
}

/// Whether a worker that comes again with this is adopted, and at which unit.
fn comes_again(bench: &mut Bench, held: HeldTask) -> Option<u32> {
    bench.sent.clear();
    bench.join(2, 1, vec![held]);
    let adopted = bench.said(2).find_map(|kind| match kind {
        Kind::Adopted(adopted) => Some(adopted.next_unit),
        _ => None,
    });
    let revoked = bench.said(2).any(|kind| matches!(kind, Kind::Revoke(_)));
    assert_ne!(adopted.is_some(), revoked, "one or the other");
    adopted
}

#[test]
fn a_held_task_goes_on_where_its_accepted_units_end() {
    let (mut bench, held) = granted();
    bench.restart();
    let claim = bench.held(held, "a", 0);
    assert_eq!(comes_again(&mut bench, claim), Some(0));
    assert!(bench.grant(held.1).unwrap().2 > held.2, "under a new token");
}

#[test]
fn an_attempt_whose_answer_was_lost_is_adopted_behind_it() {
    let (mut bench, held) = granted();
    bench.hand_in(held, hand_in("a", 0, 0, 2), false).unwrap();
    bench.restart();
    let claim = bench.held(held, "a", 0);
    assert_eq!(comes_again(&mut bench, claim), Some(2), "its own hand-in was accepted");
}

#[test]
fn what_somebody_else_handed_in_is_not_adopted() {
    let (mut bench, held) = granted();
    bench.hand_in(held, hand_in("a", 0, 0, 2), false).unwrap();
    bench.restart();
    let claim = bench.held(held, "b", 0);
    assert_eq!(comes_again(&mut bench, claim), None);
}

#[test]
fn what_was_granted_to_somebody_else_is_done_or_of_a_later_term_is_not_adopted() {
    let (mut bench, held) = granted();
    let stale = bench.held((held.0, held.1, token(1, 0)), "a", 0);
    assert_eq!(comes_again(&mut bench, stale), None, "granted under another token");
    bench.restart();
    let later = bench.held((held.0, held.1, token(9, 1)), "a", 0);
    assert_eq!(comes_again(&mut bench, later), None, "of a term that is not reached");
    let (mut bench, held) = granted();
    bench.hand_in(held, hand_in("a", 0, 0, 3), false).unwrap();
    bench.restart();
    let done = bench.held(held, "a", 0);
    assert_eq!(comes_again(&mut bench, done), None, "done");
}

#[test]
fn a_backfill_that_is_paused_adopts_nothing() {
    let (mut bench, held) = granted();
    bench.change(v1::Change::Pause);
    bench.restart();
    let claim = bench.held(held, "a", 0);
    assert_eq!(comes_again(&mut bench, claim), None);
}

#[test]
fn an_adopted_read_hears_of_the_gate() {
    // The simulator's find: what was said of the gate while its session was lost was not said again; a read that was
    // held at an old gate and had come to hold the watermark waited for ever.
    let (mut bench, held) = granted();
    bench.restart();
    let claim = bench.held(held, "a", 0);
    comes_again(&mut bench, claim).unwrap();
    assert!(bench.said(2).any(|kind| matches!(kind, Kind::Gate(gate) if gate.watermark == 0)));
}

#[test]
fn nothing_is_granted_anew_before_the_grace_is_over() {
    let (mut bench, held) = granted();
    bench.restart();
    bench.join(3, 4, Vec::new());
    assert_eq!(bench.grant(held.1), None);
    bench.wait(Config::default().grace);
    assert_eq!(bench.grant(held.1).unwrap().0, worker(3));
}
