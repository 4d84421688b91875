#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Which unit of which file a unit is.
type Name = (String, u64);

fn split(path: &str, units: &[(i64, i64, u64)]) -> FoundSplit {
    let pin = v1::FilePin { path: path.to_owned(), ..Default::default() };
    let units = (0..).zip(units).map(|(position, (low, high, bytes))| v1::UnitOfWork {
        position,
        rows: 1,
        low: *low,
        high: *high,
        bytes: *bytes,
        ..Default::default()
    });
    FoundSplit {
        split: v1::Split { file: Some(pin), ..Default::default() },
        units: units.collect(),
        ..Default::default()
    }
}

fn names(task: &v1::ReadTask) -> Vec<Name> {
    let name = |unit: &v1::UnitOfWork| {
        let split = &task.splits[unit.split as usize];
        (split.file.as_ref().unwrap().path.clone(), unit.position)
    };
    task.units.iter().map(name).collect()
}

fn packing(target_bytes: u64, max_drift: Option<i64>) -> Packing {
    Packing { target_bytes, max_drift: max_drift.map(Span::from_micros), ..Packing::default() }
}

#[test]
fn a_large_file_becomes_several_tasks_of_units_consecutive_by_low() {
    let found = vec![split("a", &[(30, 39, 60), (0, 9, 60), (10, 19, 60), (20, 29, 60)])];
    let tasks = tasks(found, &packing(120, None)).unwrap();
    let positions: Vec<Vec<u64>> = tasks.iter().map(|t| t.units.iter().map(|u| u.position).collect()).collect();
    assert_eq!(positions, [vec![1, 2], vec![3, 0]]);
}

#[test]
fn small_files_share_a_task_only_within_the_drift() {
    let found = || vec![split("a", &[(0, 9, 1)]), split("c", &[(100, 109, 1)]), split("b", &[(10, 19, 1)])];
    let packed = |drift| tasks(found(), &packing(1000, drift)).unwrap().iter().map(names).collect::<Vec<_>>();
    let name = |path: &str| (path.to_owned(), 0);
    assert_eq!(packed(None), [vec![name("a"), name("b"), name("c")]]);
    assert_eq!(packed(Some(50)), [vec![name("a"), name("b")], vec![name("c")]]);
    assert_eq!(packed(Some(10)), [vec![name("a")], vec![name("b")], vec![name("c")]]);
}

#[test]
fn slots_lower_the_target_but_not_below_its_floor() {
    let packing = Packing { slots: 1, ..Packing::default() };
    assert_eq!(packing.target(80 << 20), 10 << 20);
    assert_eq!(packing.target(80), Packing::MIN_TARGET);
    assert_eq!(packing.target(u64::MAX), 512 << 20);
}

#[test]
fn a_task_fills_a_file_where_every_slot_still_gets_four() {
    let target = |file_bytes: u64, total: u64| Packing { slots: 2, file_bytes, ..Packing::default() }.target(total);
    assert_eq!(target(8 << 20, 96 << 20), 8 << 20, "a sixteenth would be 6 MiB");
    assert_eq!(target(32 << 20, 96 << 20), 12 << 20, "an eighth");
    assert_eq!(target(2 << 20, 96 << 20), 6 << 20, "a sixteenth is three files");
    assert_eq!(target(2 << 30, 96 << 30), 2 << 30, "where a file takes more than a task's usual bytes");
}

#[test]
fn tasks_of_files_of_any_size_are_near_the_target() {
    for file in [90_u64, 130, 200, 300, 340, 420, 540, 640, 900] {
        let found = (0..40).map(|at| split(&format!("{at:02}"), &vec![(at, at, 10); file as usize / 10]));
        let tasks = tasks(found.collect(), &packing(512, None)).unwrap();
        let sizes: Vec<u64> = tasks.iter().map(|task| task.units.iter().map(|unit| unit.bytes).sum()).collect();
        let (last, others) = sizes.split_last().unwrap();
        assert!(others.iter().all(|size| (330..=780).contains(size)) && *last <= 1024, "{file}: {sizes:?}");
    }
}

#[test]
fn a_split_that_cannot_be_sent_is_refused_by_name() {
    let mut found = split("a", &[(0, 9, 1)]);
    found.split.detail = vec![0; Packing::MAX_TASK_BYTES].into();
    assert_eq!(tasks(vec![found], &packing(1000, None)).unwrap_err().file, "a");
}

#[test]
fn a_segment_holds_no_more_than_its_limits() {
    let many: Vec<FoundSplit> = (0..5000).map(|i| split(&format!("{i:05}"), &[(i, i, 100)])).collect();
    let found = segments(tasks(many, &packing(1, None)).unwrap());
    assert!(found.len() >= 3);
    for (at, segment) in found.iter().enumerate() {
        assert_eq!(segment.index as usize, at);
        assert!(
            segment.tasks.len() <= Packing::MAX_SEGMENT_TASKS && segment.encoded_len() <= Packing::MAX_SEGMENT_BYTES
        );
    }
}

#[test]
fn a_task_holds_no_more_than_its_limits() {
    let units: Vec<(i64, i64, u64)> = (0..20_000).map(|i| (i64::MAX - i, i64::MAX - i, u64::MAX / 100_000)).collect();
    let tasks = tasks(vec![split("a", &units)], &packing(u64::MAX, None)).unwrap();
    assert_eq!(tasks.iter().map(|task| task.units.len()).sum::<usize>(), 20_000);
    for task in tasks {
        assert!(task.units.len() <= Packing::MAX_UNITS && task.encoded_len() <= Packing::MAX_TASK_BYTES);
    }
}

prop_compose! {
    fn found()(files in prop::collection::vec(prop::collection::vec((0_i64..500, 0_i64..40, 0_u64..100), 0..6), 0..20)) -> Vec<FoundSplit> {
        let file = |(at, units): (usize, Vec<(i64, i64, u64)>)| {
            let units: Vec<_> = units.into_iter().map(|(low, width, bytes)| (low, low + width, bytes)).collect();
            split(&format!("f{at}"), &units)
        };
        files.into_iter().enumerate().map(file).collect()
    }
}

proptest! {
    /// INV: each unit is in one task; units, tasks and segments are in order of low; target and drift are kept
    /// wherever a task is more than one piece of one file.
    #[test]
    fn every_unit_is_in_one_task_and_everything_is_in_order(found in found(), target in 1_u64..300, drift in prop::option::of(0_i64..200)) {
        let all: BTreeSet<Name> = found.iter().flat_map(|s| s.units.iter().map(|u| (s.split.file.as_ref().unwrap().path.clone(), u.position))).collect();
        let packed = tasks(found.clone(), &packing(target, drift)).unwrap();

        let placed: Vec<Name> = packed.iter().flat_map(names).collect();
        prop_assert_eq!(placed.len(), all.len());
        prop_assert_eq!(placed.into_iter().collect::<BTreeSet<_>>(), all);
        for task in &packed {
            prop_assert!(task.units.is_sorted_by_key(|unit| unit.low));
            let bytes: u64 = task.units.iter().map(|unit| unit.bytes).sum();
            let widest = task.units.iter().map(|unit| unit.bytes).max().unwrap_or(0);
            prop_assert!(bytes <= target + target / 2 + widest, "{bytes} of {target}, {widest}");
            let low = task.units.iter().map(|unit| unit.low).min().unwrap();
            let high = task.units.iter().map(|unit| unit.high).max().unwrap();
            prop_assert!(task.splits.len() == 1 || drift.is_none_or(|drift| high - low <= drift));
        }
        let mut reversed = found;
        reversed.reverse();
        prop_assert_eq!(&tasks(reversed, &packing(target, drift)).unwrap(), &packed, "the order of finding is nothing");

        let count = packed.len();
        let cut = segments(packed);
        let lows: Vec<i64> = cut.iter().flat_map(|s| &s.tasks).map(|task| task.units[0].low).collect();
        prop_assert_eq!(lows.len(), count);
        prop_assert!(lows.is_sorted());
    }
}
