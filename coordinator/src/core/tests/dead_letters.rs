//! The table that keeps a source's dead letters: an output like any other, but for what is asked of it.

use std::cell::RefCell;
use std::time::Duration;

use tidegate_common::spec::DeadLetterLimit;

use super::bench::{Bench, hand_in, read, task};
use crate::core::*;

/// A backfill of one source, one output, and the table that keeps the source's dead letters.
fn submitted(allow_existing: bool) -> Bench {
    let every = Duration::from_secs(60);
    let spec = Bench::new(1, None, true).spec;
    let keeper = CoreOutput {
        name: "s0__dead_letter".to_owned(),
        commit_every: every,
        commit_bytes: u64::MAX,
        staged: false,
        replaces: false,
        dead_letters: Some(DeadLetterLimit::PartsPerMillion(100_000)),
        late: Default::default(),
        late_of: None,
        slice: None,
        buckets: None,
        budget: None,
    };
    let outputs = spec.outputs.into_iter().chain([keeper]).collect();
    Bench::submitted(CoreSpec { outputs, ..spec }, allow_existing)
}

/// The hand-in of three units with `dead` dead letters, of which `kept` are in the table that keeps them.
fn with_dead(dead: u64, kept: u64) -> v1::HandIn {
    let mut hand_in = hand_in("a", 0, 0, 3);
    hand_in.rows_dead_letter = dead;
    let part = &mut hand_in.outputs[0];
    (part.rows_passed, part.rows_dead_letter) = (30 - dead, dead);
    part.files[0].rows = 30 - dead;
    let file = v1::DataFile { path: "dead".to_owned(), rows: kept, bytes: 1 };
    hand_in.outputs.push(v1::OutputPart {
        output: 1,
        rows_read: 30,
        rows_passed: kept,
        rows_filtered: 30 - kept,
        files: vec![file],
        ..Default::default()
    });
    hand_in
}

#[test]
fn a_hand_in_whose_dead_letters_are_not_all_kept_is_refused() {
    let mut bench = submitted(false);
    bench.join(1, 1, Vec::new());
    bench.prepare();
    bench.enumerate(0, &[vec![task(&[(0, 5), (10, 15), (20, 25)])]]);
    let held = bench.grant(read(0, 0, 0)).unwrap();
    let why = bench.hand_in(held, with_dead(4, 3), false).unwrap_err();
    assert!(why.contains("4 dead letters, 3 of them kept"), "{why}");
    bench.wait(Duration::from_secs(60));
    let held = bench.grant(read(0, 0, 0)).unwrap();
    bench.hand_in(held, with_dead(4, 4), false).unwrap();
    let status = bench.status();
    assert_eq!((status.sources[0].rows_dead_letter, status.outputs[0].rows_dead_letter), (4, 4));
    let keeper = &status.outputs[1];
    assert_eq!((keeper.rows_passed, keeper.rows_dead_letter), (4, 0));
    assert_eq!(keeper.dead_letters_expected, Some(3), "a tenth of thirty");
    assert_eq!(status.outputs[0].dead_letters_expected, None);
}

/// Prepares over tables that hold so many rows of others.
fn prepare_over(bench: &mut Bench, rows: [u64; 2]) {
    let rows = RefCell::new(rows.into_iter());
    bench.prepare_with(|table| table.rows_before = rows.borrow_mut().next().unwrap());
}

#[test]
fn dead_letters_of_other_runs_are_no_reason_to_refuse() {
    let mut bench = submitted(false);
    bench.join(1, 1, Vec::new());
    prepare_over(&mut bench, [0, 7]);
    assert_eq!(bench.phase(), v1::Phase::Enumerating);
    let mut bench = submitted(false);
    bench.join(1, 1, Vec::new());
    prepare_over(&mut bench, [7, 0]);
    assert_eq!(bench.phase(), v1::Phase::Failed);
}
