#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

/// Writes `units` of input, each byte of which makes `yielded` bytes, in pieces, and hands in where it is due: the files'
/// sizes of each hand-in.
fn written(target: usize, units: &[u64], yielded: f64) -> Vec<Vec<usize>> {
    let mut sizing = Sizing::new(target);
    let mut ahead: Vec<u64> = vec![0];
    units.iter().rev().for_each(|bytes| ahead.push(ahead[ahead.len() - 1] + bytes));
    ahead.reverse();
    let (mut hand_ins, mut closed, mut open) = (Vec::new(), Vec::new(), 0_usize);
    let (mut read, mut made) = (0, 0.0);
    for (at, unit) in units.iter().enumerate() {
        sizing.draw(read, made as u64, open as u64, &ahead[at..]);
        let pieces = ((*unit as f64 * yielded / (target as f64 / 16.0)).ceil() as usize).max(1);
        for _ in 0..pieces {
            open += (*unit as f64 * yielded / pieces as f64) as usize;
            if sizing.is_full(open) {
                closed.push(std::mem::take(&mut open));
                sizing.closed();
            }
        }
        (read, made) = (read + unit, made + *unit as f64 * yielded);
        let due = sizing.due(closed.iter().sum::<usize>() as u64, Some(open).filter(|open| *open > 0).into_iter());
        if due == Due::Ripe || at + 1 == units.len() {
            closed.extend(Some(std::mem::take(&mut open)).filter(|open| *open > 0));
            hand_ins.push(std::mem::take(&mut closed));
        }
    }
    hand_ins
}

#[test]
fn small_units_add_up_to_files_of_the_target() {
    let hand_ins = written(1_000, &[90; 100], 1.0);
    let files: Vec<usize> = hand_ins.concat();
    assert_eq!(files.len(), 8, "{files:?}");
    assert!(files.iter().all(|size| (750..=1_500).contains(size)), "{files:?}");
    assert!(hand_ins.len() >= 5, "{hand_ins:?}");
}

#[test]
fn a_unit_of_some_files_is_cut_into_equal_ones() {
    for files in written(1_000, &[2_300; 6], 1.0).into_iter().skip(1) {
        assert!(files.iter().all(|size| (750..=1_500).contains(size)), "{files:?}");
    }
}

#[test]
fn what_parquet_says_is_weighed_by_what_was_written() {
    let mut sizing = Sizing::new(1_000);
    assert!(sizing.is_full(sizing.weigh(1_000)));
    sizing.learn(1_000, 300);
    assert_eq!((sizing.weigh(500), sizing.weigh(10_000)), (150, 3_000));
    assert_eq!((sizing.weigh_most(500), sizing.weigh_most(10_000)), (150, 9_300));
    sizing.learn(10, 40);
    assert_eq!(sizing.weigh(500), 150, "a tiny row group is headers");
    assert!(!sizing.is_full_enough(900) && sizing.is_full_enough(960));
}

#[test]
fn open_partitions_that_are_small_wait_for_those_that_are_large() {
    let sizing = Sizing::new(1_000);
    assert_eq!(sizing.due(0, [].into_iter()), Due::Free);
    assert_eq!(sizing.due(0, [100, 800].into_iter()), Due::Ripe);
    assert_eq!(sizing.due(1_000, [900, 400].into_iter()), Due::Early);
    assert_eq!(sizing.due(3_000, [900, 400].into_iter()), Due::Ripe);
}

#[test]
fn a_hand_in_is_due_when_no_output_is_early_or_one_is_over() {
    assert!(Due::of_all(&[Due::Ripe, Due::Free]) && Due::of_all(&[Due::Over, Due::Early]));
    assert!(!Due::of_all(&[Due::Ripe, Due::Early]) && !Due::of_all(&[Due::Free]) && !Due::of_all(&[]));
}

proptest! {
    #[test]
    fn files_are_near_the_target_whatever_the_units(
        units in prop::collection::vec(1_u64..30_000, 2..200), yielded in 0.05_f64..1.5,
    ) {
        let target = 10_000;
        let hand_ins = written(target, &units, yielded);
        let made: f64 = units.iter().map(|unit| *unit as f64 * yielded).sum();
        let files = hand_ins.concat();
        let bytes: usize = files.iter().sum();
        // Nothing is lost but what rounding of each piece takes.
        prop_assert!((bytes as f64 - made).abs() <= 17.0 * units.len() as f64 * 6.0);
        prop_assert!(files.iter().all(|size| *size <= 19_000), "{files:?}");
        let small: usize = files.iter().filter(|size| **size < 7_000).sum();
        // The first unit is read before anything is known, and the end is where it is.
        prop_assert!(small as f64 <= made / 8.0 + 14_000.0, "{small} of {made}: {hand_ins:?}");
    }
}
