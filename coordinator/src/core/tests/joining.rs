//! Slices: when they are ready, who joins them, how often, and what stays in the shuffle store meanwhile.

mod budget;

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_common::ids::OutputIx;
use tidegate_proto::convert;
use tidegate_proto::v1::{assign::Work, done, from_coordinator::Kind};

use super::bench::{Bench, Held, poison, read, sealed, task};
use crate::core::*;

pub(super) const SLICE: i64 = 100_000;
/// How far back the second source is met.
pub(super) const BACK: i64 = 50_000;

/// Two sources, each of one task with a unit for each half of a slice; ten slices of the one output. `s1` is met from
/// half a slice before an anchor.
pub(super) fn bench(slots: u32) -> Bench {
    bench_cut(slots, Some(tidegate_common::time::Span::from_micros(SLICE)))
}

/// The same, cut as the spec says, or as is chosen.
fn bench_cut(slots: u32, slice: Option<tidegate_common::time::Span>) -> Bench {
    let units: Vec<(i64, i64)> = (0..20).map(|half| (half * BACK, half * BACK + BACK - 1)).collect();
    let plan = [vec![vec![task(&units)]], vec![vec![task(&units)]]];
    let mut spec = Bench::spec(&[(false, false)], 2, None, true);
    spec.outputs[0].slice = slice;
    let mut bench = Bench::submitted(spec, true);
    bench.join(1, slots, Vec::new());
    prepare(&mut bench);
    for (source, segments) in (0u32..).zip(&plan) {
        bench.enumerate(source, segments);
    }
    bench
}

fn prepare(bench: &mut Bench) {
    let input =
        |source: &str, low| v1::JoinInput { source: source.to_owned(), low, high: 0, keyed: true, anchor: false };
    bench.prepare_with(|table| table.inputs = vec![input("s0", 0), input("s1", -BACK)]);
}

/// The hand-in of the halves `[first, end)`, shuffled into one object.
pub(super) fn shuffled(source: &str, number: u64, first: u32, end: u32) -> v1::HandIn {
    let rows = u64::from(end - first) * 10;
    let object = v1::ShuffleObject {
        path: format!("{source}/{number}"),
        bytes: rows,
        rows,
        first_cell: i64::from(first) / 2,
        last_cell: i64::from(end - 1) / 2,
        anchors: if source == "s0" { rows } else { 0 },
        ..Default::default()
    };
    let cells = (first..end).fold(BTreeMap::<i64, u64>::new(), |mut cells, half| {
        *cells.entry(i64::from(half) / 2).or_default() += 10;
        cells
    });
    let object = v1::ShuffleObject {
        cells: cells.keys().copied().collect(),
        cell_rows: cells.into_values().collect(),
        ..object
    };
    let part = v1::OutputPart { rows_read: rows, rows_passed: rows, shuffled: Some(object), ..Default::default() };
    v1::HandIn {
        attempt: source.to_owned(),
        number,
        first_unit: first,
        end_unit: end,
        rows_read: rows,
        outputs: vec![part],
        ..Default::default()
    }
}

/// The same, whose rows lie in these cells.
pub(super) fn with_cells(mut hand_in: v1::HandIn, cells: &[(i64, u64)]) -> v1::HandIn {
    let object = hand_in.outputs[0].shuffled.as_mut().unwrap();
    (object.first_cell, object.last_cell) = (cells[0].0, cells[cells.len() - 1].0);
    object.cells = cells.iter().map(|(cell, _)| *cell).collect();
    object.cell_rows = cells.iter().map(|(_, rows)| *rows).collect();
    if object.anchors > 0 {
        let inside = cells.iter().filter(|(cell, _)| (0..10).contains(cell));
        object.anchors = inside.map(|(_, rows)| rows).sum();
    }
    hand_in
}

/// The same, of so many bytes that joining it is worth a task.
pub(super) fn heavy(mut hand_in: v1::HandIn) -> v1::HandIn {
    hand_in.outputs[0].shuffled.as_mut().unwrap().bytes = 40 << 20;
    hand_in
}

/// Both sources are read, one after the other, whichever comes first.
pub(super) fn read_all(bench: &mut Bench) {
    let first = u32::from(bench.grant(read(0, 0, 0)).is_none());
    for source in [first, 1 - first] {
        let held = bench.grant(read(source, 0, 0)).unwrap();
        bench.hand_in(held, shuffled(&format!("s{source}"), 0, 0, 20), false).unwrap();
    }
}

/// What is joined of slices of twenty anchors each.
pub(super) fn joined(attempt: &str, first: u32, end: u32) -> v1::HandIn {
    let rows = u64::from(end - first) * 20;
    let file = v1::DataFile { path: format!("{attempt}.parquet"), rows, bytes: rows };
    let part = v1::OutputPart { rows_read: rows, rows_passed: rows, files: vec![file], ..Default::default() };
    v1::HandIn {
        attempt: attempt.to_owned(),
        first_unit: first,
        end_unit: end,
        rows_read: rows,
        outputs: vec![part],
        ..Default::default()
    }
}

/// The runs of slices that were granted, in order, with what they need.
pub(super) fn runs(bench: &Bench) -> Vec<(Held, v1::JoinWork)> {
    let run = |(session, kind): &(SessionId, Kind)| {
        let Kind::Assign(assign) = kind else { return None };
        let Some(Work::Join(work)) = &assign.work else { return None };
        let held = (*session, convert::task_id(assign.task).unwrap(), convert::token(assign.token).unwrap());
        Some((held, work.clone()))
    };
    bench.sent.iter().filter_map(run).collect()
}

pub(super) fn first(held: Held) -> u32 {
    let TaskId::Join(_, first) = held.1 else { panic!("{:?} is no join", held.1) };
    first
}

/// What was last asked to be removed, and by whom.
pub(super) fn cleaning(bench: &Bench) -> Option<(Held, v1::CleanWork)> {
    bench.sent.iter().rev().find_map(|(session, kind)| {
        let Kind::Assign(assign) = kind else { return None };
        let Some(Work::Clean(work)) = &assign.work else { return None };
        let held = (*session, convert::task_id(assign.task).unwrap(), convert::token(assign.token).unwrap());
        Some((held, work.clone()))
    })
}

pub(super) fn cleaned(bench: &mut Bench, held: Held) {
    bench.step(Event::Done(bench.lease(held), done::Result::Cleaned(v1::Cleaned {})));
}

pub(super) fn join(bench: &Bench) -> v1::JoinState {
    bench.status().outputs[0].join.clone().unwrap()
}

#[test]
fn where_the_spec_says_nothing_it_is_cut_once_by_what_was_found() {
    let mut bench = bench_cut(2, None);
    read_all(&mut bench);
    let cut = join(&bench);
    assert_eq!((cut.slice, cut.slices, cut.buckets), (62_500, 16, 1), "a second without alignment: a 16th of it");
    let sliced = |record: &&v1::Record| matches!(record.kind, Some(v1::record::Kind::Sliced(_)));
    assert_eq!(bench.journal.iter().filter(sliced).count(), 1);
}

#[test]
fn slices_are_made_of_the_windows_that_are_grouped_by() {
    let cut = |slice: Option<i64>, width| {
        let units: Vec<(i64, i64)> = (0..20).map(|half| (half * BACK, half * BACK + BACK - 1)).collect();
        let mut spec = Bench::spec(&[(false, false)], 1, None, true);
        spec.outputs[0].slice = slice.map(tidegate_common::time::Span::from_micros);
        let mut bench = Bench::submitted(spec, true);
        bench.join(1, 1, Vec::new());
        let input = v1::JoinInput { source: "s0".to_owned(), low: 0, high: 0, keyed: true, anchor: false };
        bench.prepare_with(|table| {
            table.inputs = vec![input.clone()];
            table.window_width = width;
        });
        bench.enumerate(0, &[vec![task(&units)]]);
        let cut = join(&bench);
        (cut.slice, cut.slices)
    };
    assert_eq!(cut(None, 0), (62_500, 16), "a second without alignment: a 16th of it");
    assert_eq!(cut(None, 50_000), (100_000, 10));
    assert_eq!(cut(None, 500_000), (500_000, 2));
    assert_eq!(cut(Some(SLICE), 20_000), (SLICE, 10), "a multiple of it");
    assert_eq!(cut(Some(SLICE + 1), 20_000), (SLICE + 20_000, 9));
}

#[test]
fn a_slice_is_joined_when_everything_it_meets_is_accepted_and_not_before() {
    let mut bench = bench(4);
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, shuffled("s0", 0, 0, 6), false).unwrap();
    assert_eq!(join(&bench).slices_ready, 0, "nothing of s1 is there");
    bench.hand_in(other, shuffled("s1", 0, 0, 5), false).unwrap();
    assert_eq!(join(&bench).slices_ready, 2, "the third slice still meets the second half of itself");
    // So little is not worth a task while more comes.
    assert_eq!(runs(&bench).len(), 0);
    bench.hand_in(other, shuffled("s1", 1, 5, 20), false).unwrap();
    assert_eq!(join(&bench).slices_ready, 3);
    bench.hand_in(anchor, shuffled("s0", 1, 6, 20), false).unwrap();
    assert_eq!(join(&bench).slices_ready, 10);
    let granted = runs(&bench);
    let slices: Vec<(u32, u32)> = granted.iter().map(|(held, work)| (first(*held), work.end_slice)).collect();
    assert_eq!(slices, [(0, 3), (3, 6), (6, 8), (8, 10)], "shared between the slots");
    let paths = |work: &v1::JoinWork, input: usize| -> Vec<String> {
        work.inputs[input].objects.iter().map(|object| object.path.clone()).collect()
    };
    assert_eq!(
        (paths(&granted[0].1, 0), paths(&granted[0].1, 1)),
        (vec!["s0/0".to_owned()], vec!["s1/0".to_owned(), "s1/1".to_owned()])
    );
    assert_eq!(
        (paths(&granted[1].1, 0), paths(&granted[1].1, 1)),
        (vec!["s0/1".to_owned()], vec!["s1/0".to_owned(), "s1/1".to_owned()]),
        "the fourth slice meets what lies half a slice before it"
    );
}

#[test]
fn every_slice_is_joined_once_and_the_ledger_balances() {
    let mut bench = bench(1);
    read_all(&mut bench);
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), work.end_slice), (0, 10));
    assert!(bench.hand_in(held, joined("a", 0, 9), false).is_err(), "not what was granted");
    let mut wrong = joined("a", 0, 10);
    wrong.outputs[0].rows_passed += 1;
    assert!(bench.hand_in(held, wrong, false).is_err(), "rows that are in no file");
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), work.end_slice), (1, 10), "what failed waits");
    bench.hand_in(held, joined("b", 1, 10), false).unwrap();
    assert!(bench.hand_in(held, joined("b", 1, 10), false).is_err(), "its lease is over");
    bench.wait(Duration::from_secs(2));
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), work.end_slice), (0, 1), "what failed is tried by itself");
    bench.hand_in(held, joined("c", 0, 1), false).unwrap();
    bench.commit();
    assert_eq!(sealed(&bench).last().unwrap().committed_through, 1_000_000);
    assert_eq!(bench.phase(), v1::Phase::Running, "the shuffle store is not empty yet");
    let (held, work) = cleaning(&bench).unwrap();
    assert!(work.all);
    cleaned(&mut bench, held);
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
    assert_eq!((join(&bench).live_bytes, join(&bench).peak_bytes), (0, 400));
}

#[test]
fn anchors_that_are_not_joined_fail_the_backfill() {
    let mut bench = bench(1);
    read_all(&mut bench);
    let (held, _) = runs(&bench).pop().unwrap();
    let mut few = joined("a", 0, 10);
    few.rows_read -= 1;
    few.outputs[0].rows_read -= 1;
    bench.hand_in(held, few, false).unwrap();
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Failed);
    let message = bench.status().failure.unwrap().message;
    assert!(message.contains("200 rows of its anchor shuffled != 199 joined"), "{message}");
}

#[test]
fn an_object_goes_when_the_last_slice_that_needs_it_is_joined_and_stays_until_then() {
    let mut bench = bench(4);
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, shuffled("s0", 0, 0, 20), false).unwrap();
    // The first half of the last slice's cell is met by that slice alone; that before it by the ninth and the last.
    bench.hand_in(other, shuffled("s1", 0, 0, 18), false).unwrap();
    bench.hand_in(other, shuffled("s1", 1, 18, 20), false).unwrap();
    assert_eq!(join(&bench).live_bytes, 400);
    let granted = runs(&bench);
    assert_eq!(granted.len(), 4);
    for (held, work) in granted.iter().take(3) {
        bench.hand_in(*held, joined("x", first(*held), work.end_slice), false).unwrap();
        assert_eq!(cleaning(&bench), None, "all are needed by the last");
    }
    let journal = bench.journal.clone();
    let (held, work) = &granted[3];
    bench.hand_in(*held, joined("y", first(*held), work.end_slice), false).unwrap();
    assert_eq!(join(&bench).live_bytes, 0);
    // A coordinator that dies before that is known grants the last run anew, and only that.
    bench.journal = journal;
    bench.restart();
    bench.join(2, 1, Vec::new());
    bench.wait(Duration::from_secs(20));
    let again = runs(&bench);
    assert_eq!(again.len(), 1);
    assert_eq!((first(again[0].0), again[0].1.end_slice, join(&bench).live_bytes), (8, 10, 400));
    assert_eq!(join(&bench).slices_done, 8);
}

#[test]
fn what_nothing_needs_any_more_is_removed_while_the_rest_is_read() {
    let mut bench = bench(2);
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, heavy(shuffled("s0", 0, 0, 4)), false).unwrap();
    bench.hand_in(other, heavy(shuffled("s1", 0, 0, 5)), false).unwrap();
    assert_eq!(runs(&bench), [], "both slots read");
    let yields = bench.sent.iter().filter(|(_, kind)| matches!(kind, Kind::Yield(_))).count();
    assert_eq!(yields, 1, "one of them is asked to make room");
    bench.hand_in(other, heavy(shuffled("s1", 1, 5, 6)), true).unwrap();
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), work.end_slice), (0, 1), "each of them takes much");
    bench.hand_in(held, joined("a", 0, 1), false).unwrap();
    assert_eq!(cleaning(&bench), None, "both objects are of two slices");
    let (held, _) = runs(&bench).pop().unwrap();
    bench.hand_in(held, joined("b", 1, 2), false).unwrap();
    let (held, work) = cleaning(&bench).unwrap();
    assert_eq!((work.paths, work.all), (vec!["s0/0".to_owned()], false), "s1 is still met by the third slice");
    assert_eq!(join(&bench).live_bytes, 80 << 20);
    let asked = |bench: &Bench| {
        bench
            .sent
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Assign(v1::Assign { work: Some(Work::Clean(_)), .. })))
            .count()
    };
    cleaned(&mut bench, held);
    assert_eq!(asked(&bench), 1, "and no more than that");
}

#[test]
fn rows_for_a_slice_that_is_joined_fail_their_task_and_are_not_lost_unsaid() {
    let mut bench = bench(2);
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, heavy(shuffled("s0", 0, 0, 20)), false).unwrap();
    bench.hand_in(other, shuffled("s1", 0, 0, 19), false).unwrap();
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!(first(held), 0, "nine slices are ready");
    bench.hand_in(held, joined("a", 0, work.end_slice), false).unwrap();
    let why = bench.hand_in(other, with_cells(shuffled("s1", 1, 19, 20), &[(0, 10)]), false).unwrap_err();
    assert!(why.contains("10 rows of s1 came late: slices 0 to 1 of"), "{why}");
    assert!(why.contains("its rows may not break their order"), "{why}");
}

#[test]
fn a_poison_slice_is_parked_alone_and_retried() {
    let mut bench = bench(1);
    read_all(&mut bench);
    for _ in 0..2 {
        let (held, _) = runs(&bench).pop().unwrap();
        assert_eq!(first(held), 0);
        bench.fail(held, poison());
        bench.wait(Duration::from_secs(5));
        let (rest, work) = runs(&bench).pop().unwrap();
        if first(rest) == 1 {
            bench.hand_in(rest, joined("rest", 1, work.end_slice), false).unwrap();
        }
    }
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Partial);
    let parked = &bench.status().parked[0];
    assert_eq!((parked.task.as_str(), parked.source.as_str()), ("join-o0.0", "out"));
    assert_eq!(cleaning(&bench), None, "what is parked needs what it reads");
    bench.change(v1::Change::Retry);
    let (held, _) = runs(&bench).pop().unwrap();
    assert_eq!(held.1, TaskId::Join(OutputIx::new(0), 0));
    bench.hand_in(held, joined("first", 0, 1), false).unwrap();
    bench.commit();
    let (held, _) = cleaning(&bench).unwrap();
    cleaned(&mut bench, held);
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}

#[test]
fn a_cancelled_backfill_leaves_nothing_in_the_shuffle_store() {
    let mut bench = bench(2);
    let anchor = bench.grant(read(0, 0, 0)).unwrap();
    bench.hand_in(anchor, shuffled("s0", 0, 0, 4), false).unwrap();
    bench.change(v1::Change::Cancel);
    assert_eq!(bench.status().state, "cancelling");
    let (held, work) = cleaning(&bench).unwrap();
    assert!(work.all);
    cleaned(&mut bench, held);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
}

#[test]
fn a_shuffle_store_that_cannot_be_emptied_keeps_no_backfill_from_its_end() {
    let mut bench = bench(2);
    bench.change(v1::Change::Cancel);
    for _ in 0..10 {
        if bench.phase() == v1::Phase::Cancelled {
            return;
        }
        let (held, _) = cleaning(&bench).unwrap();
        bench.fail(held, v1::Evidence { class: v1::Failure::Retryable.into(), ..Default::default() });
        bench.wait(Duration::from_secs(60));
    }
    panic!("it is {:?}", bench.phase());
}

/// Everything of s0 is accepted, and half of s1; then a unit of s1 cannot be processed, and the rest of it is parked.
fn parked_halfway(bench: &mut Bench) {
    let first = u32::from(bench.grant(read(0, 0, 0)).is_none());
    for source in [first, 1 - first] {
        let held = bench.grant(read(source, 0, 0)).unwrap();
        let end = if source == 0 { 20 } else { 10 };
        bench.hand_in(held, shuffled(&format!("s{source}"), 0, 0, end), source == 1).unwrap();
    }
    for _ in 0..2 {
        bench.fail(bench.grant(read(1, 0, 0)).unwrap(), poison());
        bench.wait(Duration::from_secs(5));
    }
    assert_eq!(bench.status().parked.len(), 1);
}

#[test]
fn little_is_joined_too_when_what_is_parked_lets_no_more_come() {
    let mut bench = bench(1);
    parked_halfway(&mut bench);
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), work.end_slice), (0, 5), "the sixth meets what is parked");
    bench.hand_in(held, joined("a", 0, 5), false).unwrap();
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Partial);
    assert_eq!((join(&bench).slices_done, join(&bench).live_bytes), (5, 300));
}

#[test]
fn a_restarted_coordinator_does_not_take_slices_for_unready_because_it_has_not_loaded_what_is_parked() {
    let mut bench = bench(1);
    parked_halfway(&mut bench);
    assert_eq!(runs(&bench).len(), 1);
    bench.restart();
    assert_eq!(bench.phase(), v1::Phase::Running, "five slices are still to be joined");
    bench.join(2, 1, Vec::new());
    bench.wait(Duration::from_secs(20));
    let (held, work) = runs(&bench).pop().unwrap();
    bench.hand_in(held, joined("a", first(held), work.end_slice), false).unwrap();
    bench.commit();
    assert_eq!((bench.phase(), join(&bench).slices_done), (v1::Phase::Partial, 5));
}

#[test]
fn rows_behind_what_a_slice_meets_are_not_late_though_they_share_a_cell_with_it() {
    let units: Vec<(i64, i64)> = (0..20).map(|half| (half * BACK, half * BACK + BACK - 1)).collect();
    let mut spec = Bench::spec(&[(false, false)], 2, None, true);
    spec.outputs[0].slice = Some(tidegate_common::time::Span::from_micros(SLICE));
    let mut bench = Bench::submitted(spec, true);
    bench.join(1, 3, Vec::new());
    // The second source is met up to half a slice behind an anchor.
    let input =
        |source: &str, high| v1::JoinInput { source: source.to_owned(), low: 0, high, keyed: true, anchor: false };
    bench.prepare_with(|table| table.inputs = vec![input("s0", 0), input("s1", BACK)]);
    for source in 0..2 {
        bench.enumerate(source, &[vec![task(&units)]]);
    }
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, heavy(shuffled("s0", 0, 0, 20)), false).unwrap();
    bench.hand_in(other, heavy(shuffled("s1", 0, 0, 3)), false).unwrap();
    assert_eq!(join(&bench).slices_ready, 0, "the first slice is of whole cells, and half of the second is open");
    bench.hand_in(other, heavy(shuffled("s1", 1, 3, 4)), false).unwrap();
    assert_eq!(join(&bench).slices_ready, 1);
    assert_eq!(runs(&bench).len(), 1);
    bench.hand_in(other, heavy(shuffled("s1", 2, 4, 5)), false).unwrap();
}

#[test]
fn what_failed_or_is_partial_keeps_its_rows_until_it_is_cancelled() {
    let mut bench = bench(1);
    read_all(&mut bench);
    for _ in 0..2 {
        let (held, _) = runs(&bench).pop().unwrap();
        bench.fail(held, poison());
        bench.wait(Duration::from_secs(5));
        let (rest, work) = runs(&bench).pop().unwrap();
        if first(rest) == 1 {
            bench.hand_in(rest, joined("rest", 1, work.end_slice), false).unwrap();
        }
    }
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Partial);
    bench.change(v1::Change::Cancel);
    let (held, work) = cleaning(&bench).unwrap();
    assert!(work.all);
    cleaned(&mut bench, held);
    assert_eq!(bench.phase(), v1::Phase::Cancelled);
    assert!(bench.refused(v1::Change::Cancel).contains("nothing to cancel"));
    assert_eq!(join(&bench).live_bytes, 0);
}
