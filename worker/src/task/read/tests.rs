//! The gated loop over scripted sources and outputs in memory.

mod bench;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_common::gate::Gate;
use tidegate_common::spec::model::OnError;
use tidegate_common::time::Span;

use super::*;
use crate::failure::Class;
use bench::{Bench, Row, at, ids};

fn rows(times: &[i64]) -> Vec<Row> {
    times.iter().map(|time| Some(*time)).collect()
}

fn gate(watermark: i64, drift: i64) -> Gate {
    Gate::new(at(watermark), Some(Span::from_micros(drift)))
}

#[tokio::test(start_paused = true)]
async fn a_unit_past_the_gate_waits_for_it_and_says_so() {
    let mut bench = Bench::new(vec![rows(&[1, 2]), rows(&[30, 31])]);
    bench.gate.send_replace(gate(0, 10));
    let reading = bench.start(0);
    bench.cursor(Cursor { at: at(30), paused: true }).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(bench.begun(), [0]);
    bench.gate.send_replace(gate(30, 10));
    let hand_in = bench.accept().await;
    assert_eq!(reading.await.unwrap().unwrap(), TaskEnd::HandedIn);
    assert_eq!(bench.begun(), [0, 1]);
    assert_eq!((hand_in.first_unit, hand_in.end_unit, hand_in.rows_read), (0, 2, 4));
    assert!(hand_in.held_micros >= 3_000_000, "held for {} us", hand_in.held_micros);
    assert_eq!(hand_in.max_skew, 2, "2 was read when the watermark was 0, and 31 when it was 30");
    bench.cursor(Cursor { at: EventTime::MAX, paused: false }).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_to_leave_hands_in_what_it_has_and_gives_back_the_rest() {
    let mut bench = Bench::new(vec![rows(&[1, 2]), rows(&[30, 31])]);
    bench.gate.send_replace(gate(0, 10));
    let reading = bench.start(0);
    bench.cursor(Cursor { at: at(30), paused: true }).await;
    bench.wish.send_replace(Wish::Leave);
    let (hand_in, released, reply) = bench.handed_in().await;
    assert_eq!((hand_in.first_unit, hand_in.end_unit, released), (0, 1, true));
    reply.send(Verdict::Accepted).unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), TaskEnd::HandedIn);
    // And with nothing to hand in, it is given back untouched.
    assert_eq!(bench.start(1).await.unwrap().unwrap(), TaskEnd::GivenBack);
    assert_eq!(bench.begun(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_task_that_holds_its_share_of_a_used_up_budget_gives_its_memory_back_and_waits_on() {
    let mut bench = Bench::new(vec![rows(&[1, 2]), rows(&[30])]);
    bench.gate.send_replace(gate(0, 10));
    let mut other = bench.budget.open();
    let reading = bench.start(0);
    bench.cursor(Cursor { at: at(30), paused: true }).await;
    let held = bench.budget.used();
    assert!(held > 0);
    other.set(bench::BUDGET - 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(bench.relieved.load(Ordering::SeqCst), 2, "each of two outputs");
    assert_eq!(bench.budget.used(), bench::BUDGET - 1);
    bench.gate.send_replace(gate(30, 10));
    let last = bench.accept().await;
    assert_eq!((last.number, last.first_unit, last.end_unit), (0, 0, 2));
    assert_eq!(ids(&last.outputs[0]), [0, 1, 2]);
    assert_eq!(reading.await.unwrap().unwrap(), TaskEnd::HandedIn);
}

#[tokio::test(start_paused = true)]
async fn a_paused_task_whose_memory_only_a_hand_in_gives_back_hands_in_and_waits_on() {
    let mut bench = Bench::new(vec![rows(&[1, 2]), rows(&[30])]);
    bench.clings = true;
    bench.gate.send_replace(gate(0, 10));
    let mut other = bench.budget.open();
    let reading = bench.start(0);
    bench.cursor(Cursor { at: at(30), paused: true }).await;
    other.set(bench::BUDGET - 1);
    let (hand_in, released, reply) = bench.handed_in().await;
    assert_eq!((hand_in.first_unit, hand_in.end_unit, released), (0, 1, false));
    reply.send(Verdict::Accepted).unwrap();
    bench.gate.send_replace(gate(30, 10));
    let last = bench.accept().await;
    assert_eq!((last.number, last.first_unit, last.end_unit), (1, 1, 2));
    assert_eq!(reading.await.unwrap().unwrap(), TaskEnd::HandedIn);
}

#[tokio::test(start_paused = true)]
async fn what_a_source_fetches_ahead_counts_and_a_budget_that_is_smaller_holds_nothing_up() {
    let mut bench = Bench::new(vec![rows(&[1, 2]), rows(&[3]), rows(&[40])]);
    bench.ahead = bench::BUDGET + 1;
    bench.gate.send_replace(gate(0, 10));
    let reading = bench.start(0);
    bench.cursor(Cursor { at: at(40), paused: true }).await;
    assert_eq!(bench.budget.used(), bench.ahead, "what was read takes no memory any more, what was fetched does");
    bench.gate.send_replace(gate(40, 10));
    let all = bench.accept().await;
    assert_eq!((all.first_unit, all.end_unit), (0, 3));
    assert_eq!(reading.await.unwrap().unwrap(), TaskEnd::HandedIn);
    assert_eq!(bench.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_file_is_handed_in_at_the_next_unit_boundary() {
    let mut bench = Bench::new(vec![rows(&[1, 2]), rows(&[3]), rows(&[4, 5]), rows(&[6])]);
    bench.full_at = 3;
    let reading = bench.start(0);
    let hand_ins = [bench.accept().await, bench.accept().await];
    assert_eq!(reading.await.unwrap().unwrap(), TaskEnd::HandedIn);
    let covered = hand_ins.each_ref().map(|hand_in| (hand_in.number, hand_in.first_unit, hand_in.end_unit));
    assert_eq!(covered, [(0, 0, 2), (1, 2, 4)]);
    assert_eq!(ids(&hand_ins[0].outputs[0]), [0, 1, 2]);
    assert_eq!(ids(&hand_ins[1].outputs[0]), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_hand_in_ends_the_attempt() {
    let mut bench = Bench::new(vec![rows(&[1])]);
    let reading = bench.start(0);
    let (_, _, reply) = bench.handed_in().await;
    reply.send(Verdict::Refused { reason: "the token is stale".to_owned() }).unwrap();
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
    assert!(error.evidence().message.contains("the token is stale"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_or_handed_in_past_the_lease() {
    let mut bench = Bench::new(vec![rows(&[1]), rows(&[30])]);
    bench.gate.send_replace(gate(0, 10));
    let reading = bench.start(0);
    bench.cursor(Cursor { at: at(30), paused: true }).await;
    bench.lease.end();
    bench.gate.send_replace(gate(30, 10));
    assert_eq!(reading.await.unwrap().unwrap_err().class(), Class::Fenced);
    assert_eq!(bench.begun(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_row_without_event_time_fails_with_its_place_unless_it_is_a_dead_letter() {
    let mut bench = Bench::new(vec![vec![Some(1), Some(2), Some(3), Some(4), None]]);
    let evidence = bench.start(0).await.unwrap().unwrap_err().evidence();
    assert_eq!(evidence.class, i32::from(v1::Failure::Poison));
    assert_eq!(evidence.place, "/in/a, unit at 0, row 4");
    bench.on_error = OnError::DeadLetter;
    let reading = bench.start(0);
    let hand_in = bench.accept().await;
    assert_eq!(reading.await.unwrap().unwrap(), TaskEnd::HandedIn);
    let part = &hand_in.outputs[0];
    assert_eq!((part.rows_read, part.rows_passed, part.rows_filtered, part.rows_dead_letter), (5, 4, 0, 1));
    let kept = &hand_in.outputs[2];
    assert_eq!((kept.rows_read, kept.rows_passed, kept.rows_filtered, kept.rows_dead_letter), (5, 1, 4, 0));
    assert_eq!(ids(kept), [4]);
}

#[tokio::test(start_paused = true)]
async fn a_second_reading_that_finds_other_rows_without_event_time_fails() {
    let mut bench = Bench::new(vec![vec![Some(1), None, None, Some(4)]]);
    (bench.on_error, bench.forgets) = (OnError::DeadLetter, true);
    let evidence = bench.start(0).await.unwrap().unwrap_err().evidence();
    assert!(evidence.message.contains("holds 0 rows, and was planned with 1"), "{}", evidence.message);
    assert_eq!(evidence.place, "/in/a, unit at 0");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_not_as_planned_fails_with_its_place() {
    let mut bench = Bench::new(vec![rows(&[5, 6]), rows(&[7, 8])]);
    bench.task.units[1].rows = 3;
    let evidence = bench.start(0).await.unwrap().unwrap_err().evidence();
    assert!(evidence.message.contains("holds 2 rows, and was planned with 3"), "{}", evidence.message);
    assert_eq!(evidence.place, "/in/a, unit at 1");
    bench.task.units[1].rows = 2;
    bench.task.units[1].low = 8;
    let evidence = bench.start(0).await.unwrap().unwrap_err().evidence();
    assert_eq!(evidence.place, "/in/a, unit at 1, row 0");
    bench.task.units[1].high = 7;
    let evidence = bench.start(0).await.unwrap().unwrap_err().evidence();
    assert!(evidence.message.contains("has low"), "{}", evidence.message);
    (bench.task.units[0].low, bench.task.units[1].low) = (5, 4);
    let evidence = bench.start(0).await.unwrap().unwrap_err().evidence();
    assert!(evidence.message.contains("stands behind one"), "{}", evidence.message);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_answers_with_more_rows_than_it_got_is_refused() {
    let mut bench = Bench::new(vec![rows(&[5, 6])]);
    bench.doubles = true;
    let evidence = bench.start(0).await.unwrap().unwrap_err().evidence();
    assert!(evidence.message.contains("answers 2 rows with 4"), "{}", evidence.message);
}

/// The rows inside the window, as they are read, of which an output that keeps every row holds the ids.
fn held(closed: &Closed) -> Vec<i64> {
    let part = v1::OutputPart { iceberg: closed.iceberg.clone(), ..Default::default() };
    let mut held = ids(&part);
    held.sort_unstable();
    held
}

#[tokio::test(start_paused = true)]
async fn what_is_read_again_is_what_was_read_at_no_gate_and_in_one_piece() {
    let units = || vec![rows(&[12, 14]), vec![Some(30), None, Some(31), None], rows(&[60, 95]), rows(&[70, 71])];
    let read = |mut bench: Bench| async move {
        let reading = bench.start(0);
        let mut taken = Vec::new();
        while taken.last().is_none_or(|hand_in: &v1::HandIn| hand_in.end_unit < 4) {
            taken.push(bench.accept().await);
        }
        reading.await.unwrap().unwrap();
        let mut held: Vec<i64> = taken.iter().flat_map(|hand_in| ids(&hand_in.outputs[0])).collect();
        held.sort_unstable();
        (taken.len(), held)
    };
    let bench = || {
        let mut bench = Bench::new(units());
        (bench.full_at, bench.on_error) = (2, OnError::DeadLetter);
        bench.window = Window::new(at(10), at(90)).unwrap();
        bench.clamp();
        bench
    };
    let (hand_ins, was) = read(bench()).await;
    assert!(hand_ins > 2 && was.len() == 7, "{hand_ins} {was:?}");
    let mut bench = bench();
    bench.gate.send_replace(gate(0, 1));
    let closed = bench.start_again().await.unwrap().unwrap();
    assert_eq!(held(&closed), was);
    assert_eq!(bench.begun(), [0, 1, 2, 3]);
    assert!(bench.poll_handed_in().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_again_gives_back_memory_and_is_handed_in_by_nobody() {
    let mut bench = Bench::new((0..6).map(|unit| rows(&[unit * 10, unit * 10 + 1])).collect());
    let mut others: Vec<_> = (0..3).map(|_| bench.budget.open()).collect();
    others.iter_mut().for_each(|other| other.set(bench::BUDGET));
    let closed = bench.start_again().await.unwrap().unwrap();
    assert_eq!(held(&closed), (0..12).collect::<Vec<_>>());
    assert!(bench.relieved.load(Ordering::SeqCst) >= 6);
    assert!(bench.poll_handed_in().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_again_ends_with_its_lease() {
    let mut bench = Bench::new(vec![rows(&[1, 2]), rows(&[30, 31])]);
    bench.lease.end();
    let error = bench.start_again().await.unwrap().unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
    assert_eq!(bench.begun(), [0; 0]);
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods)]
async fn what_is_read_again_keeps_to_the_limit_of_its_source() {
    let mut bench = Bench::new((0..5).map(|unit| (0..20).map(|row| Some(unit * 100 + row)).collect()).collect());
    bench.rate_limit.records = Some(10);
    let began = tokio::time::Instant::now();
    let closed = bench.start_again().await.unwrap().unwrap();
    assert_eq!(held(&closed).len(), 100);
    assert!(began.elapsed() >= Duration::from_secs(8), "{:?}", began.elapsed());
}

/// What happens around a read task, one at a time.
#[derive(Clone, Debug)]
enum Happening {
    /// The other sources move on to this event time.
    Others(i64),
    /// The coordinator wants the slot.
    Leave,
    /// Another task takes all memory, or gives it back.
    Memory(bool),
    Nothing,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (0..120i64).prop_map(Happening::Others),
        1 => Just(Happening::Leave),
        1 => any::<bool>().prop_map(Happening::Memory),
        6 => Just(Happening::Nothing),
    ];
    proptest::collection::vec(one, 0..60)
}

fn unit_rows() -> impl Strategy<Value = Vec<Row>> {
    (0..100i64)
        .prop_flat_map(|start| proptest::collection::vec(proptest::option::weighted(0.95, start..start + 12), 0..8))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// For all units, gates, yields, refusals and shortages of memory: every row once, no promise broken, nothing begun
    /// past the gate (the last two are asserted by the scripted source, batch by batch).
    #[test]
    fn every_row_is_handed_in_exactly_once(
        units in proptest::collection::vec(unit_rows(), 1..9),
        happenings in happenings(),
        verdicts in proptest::collection::vec(proptest::bool::weighted(0.8), 0..12),
        drift in proptest::option::of(0..40i64),
        full_at in 1..12usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(replay(units, happenings.into(), verdicts.into(), drift, full_at));
    }
}

async fn replay(
    units: Vec<Vec<Row>>,
    mut happenings: VecDeque<Happening>,
    mut verdicts: VecDeque<bool>,
    drift: Option<i64>,
    full_at: usize,
) {
    let mut bench = Bench::new(units);
    (bench.full_at, bench.on_error) = (full_at, OnError::DeadLetter);
    bench.window = Window::new(at(10), at(90)).unwrap();
    bench.clamp();
    let mut other_task = bench.budget.open();
    let (mut others, mut next, mut taken) = (i64::MIN, 0, Vec::new());
    let all = u32::try_from(bench.task.units.len()).unwrap();
    while next < all {
        bench.wish.send_replace(Wish::Run);
        let reading = bench.start(next);
        for ticks in 0.. {
            assert!(ticks < 10_000, "stuck at unit {next}");
            if reading.is_finished() {
                break;
            }
            match happenings.pop_front() {
                Some(Happening::Others(to)) => others = others.max(to),
                Some(Happening::Leave) => drop(bench.wish.send_replace(Wish::Leave)),
                Some(Happening::Memory(all)) => other_task.set(if all { bench::BUDGET } else { 0 }),
                Some(Happening::Nothing) => {}
                None => others = i64::MAX,
            }
            bench.move_gate(at(others), drift);
            if let Some((hand_in, _, reply)) = bench.poll_handed_in().await {
                assert_eq!(hand_in.first_unit, next, "exactly the next prefix");
                if verdicts.pop_front().unwrap_or(true) {
                    next = hand_in.end_unit;
                    taken.push(hand_in);
                    reply.send(Verdict::Accepted).unwrap();
                } else {
                    reply.send(Verdict::Refused { reason: "stale".to_owned() }).unwrap();
                }
            }
        }
        match reading.await.unwrap() {
            Ok(_) => {}
            Err(error) => assert_eq!(error.class(), Class::Fenced, "{error:?}"),
        }
    }
    bench.check(&taken, drift);
}
