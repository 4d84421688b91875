//! Which hand-in is accepted: the rows of the truth table in `read`.

use super::bench::{Bench, Held, hand_in, read, task, token};
use crate::core::*;

/// One source with one task of three units; it is granted to worker 1.
fn granted() -> (Bench, Held) {
    let bench = Bench::running(&[vec![vec![task(&[(0, 5), (10, 15), (20, 25)])]]], None, 1);
    let held = bench.grant(read(0, 0, 0)).unwrap();
    (bench, held)
}

#[test]
fn the_next_units_are_accepted_and_the_last_that_was_accepted_again() {
    let (mut bench, held) = granted();
    assert_eq!(bench.hand_in(held, hand_in("a", 0, 0, 1), false), Ok(()));
    let journal = bench.journal.len();
    assert_eq!(bench.hand_in(held, hand_in("a", 0, 0, 1), false), Ok(()), "its answer was lost");
    assert_eq!(bench.journal.len(), journal, "said again, journalled once");
    assert_eq!(bench.hand_in(held, hand_in("a", 1, 1, 3), false), Ok(()));
    assert_eq!(bench.status().sources[0].units_done, 3);
}

#[test]
fn a_repeat_is_accepted_in_whatever_term() {
    let (mut bench, held) = granted();
    bench.hand_in(held, hand_in("a", 0, 0, 1), false).unwrap();
    bench.restart();
    assert_eq!(bench.hand_in(held, hand_in("a", 0, 0, 1), false), Ok(()));
}

#[test]
fn a_repeat_that_gives_the_task_back_gives_it_back() {
    // The simulator's find: the answer to a last hand-in was lost with the coordinator, the worker was adopted and said
    // it again; it was told yes and left, and the task stayed granted to nobody for as long as the worker lived.
    let (mut bench, held) = granted();
    bench.hand_in(held, hand_in("a", 0, 0, 1), true).unwrap();
    bench.restart();
    let claim = bench.held(held, "a", 0);
    bench.join(1, 1, vec![claim]);
    let adopted = bench.grant(held.1).unwrap();
    bench.hand_in(adopted, hand_in("a", 0, 0, 1), true).unwrap();
    bench.wait(Config::default().grace);
    let again = bench.grant(held.1).unwrap();
    assert!(again.2 > adopted.2, "the rest is granted anew");
}

#[test]
fn what_is_not_the_next_prefix_is_refused() {
    let (mut bench, held) = granted();
    bench.hand_in(held, hand_in("a", 0, 0, 1), false).unwrap();
    for (first, end) in [(0, 1), (0, 2), (2, 3), (1, 1), (1, 4), (3, 4)] {
        let answer = bench.hand_in(held, hand_in("a", 9, first, end), false);
        assert!(answer.unwrap_err().contains("not the next"), "[{first}, {end})");
    }
}

#[test]
fn a_token_that_is_not_the_live_one_is_refused() {
    let (mut bench, held) = granted();
    for stale in [token(0, 1), token(1, 0), token(9, 9)] {
        let answer = bench.hand_in((held.0, held.1, stale), hand_in("a", 0, 0, 1), false);
        assert_eq!(answer, Err("the lease is over".to_owned()), "{stale}");
    }
}

#[test]
fn a_task_that_is_done_and_a_backfill_that_is_cancelled_take_nothing() {
    let (mut bench, held) = granted();
    bench.hand_in(held, hand_in("a", 0, 0, 3), false).unwrap();
    assert_eq!(bench.hand_in(held, hand_in("b", 0, 0, 3), false), Err("the task is done".to_owned()));
    let (mut bench, held) = granted();
    bench.change(v1::Change::Cancel);
    assert!(bench.hand_in(held, hand_in("a", 0, 0, 1), false).unwrap_err().contains("cancelled"));
}

#[test]
fn what_does_not_add_up_is_refused_and_the_task_has_failed() {
    let rows = |wrong: &mut v1::HandIn| wrong.rows_read += 1;
    let lost = |wrong: &mut v1::HandIn| wrong.outputs[0].rows_passed -= 1;
    let files = |wrong: &mut v1::HandIn| wrong.outputs[0].files.clear();
    for spoil in [rows as fn(&mut v1::HandIn), lost, files] {
        let (mut bench, held) = granted();
        let mut wrong = hand_in("a", 0, 0, 1);
        spoil(&mut wrong);
        assert!(bench.hand_in(held, wrong, false).is_err());
        assert_eq!(bench.hand_in(held, hand_in("a", 1, 0, 1), false), Err("the lease is over".to_owned()));
        assert_eq!(bench.status().sources[0].rows_read, 0, "nothing of it enters the account");
    }
}
