//! The cut, held against every cut there could be.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::holding::Holding;
use super::super::runs::Runs;
use super::*;

fn asked(log: Range<i64>, start: Edge, stop: Edge) -> AskedRange {
    AskedRange { partition: 0, log_start: log.start, log_end: log.end, written: log.end, start, stop }
}

/// An archive of these offsets of partition 0, in units of three rows that were read.
fn archive(offsets: &[i64]) -> Holding {
    let units: Vec<&[i64]> = offsets.chunks(3).collect();
    let (mut holding, unknown) = Holding::of(&vec![None; units.len()]);
    let read = |unit: usize| {
        let mut runs = Runs::default();
        for offset in units[unit] {
            runs.push(*offset);
        }
        (unit, BTreeMap::from([(0, runs)]))
    };
    holding.read(unknown.into_iter().map(read).collect());
    holding
}

fn held(offsets: &[i64]) -> Vec<Piece> {
    archive(offsets).pieces().get(&0).cloned().unwrap_or_default()
}

fn decided(asked: &AskedRange, offsets: &[i64], switch: Option<i64>) -> Result<Cut, Hole> {
    let range = range(asked, offsets.iter().min().copied(), |_| None);
    cut(asked, &range, &held(offsets), switch)
}

#[test]
fn an_archive_is_read_to_its_end_and_the_topic_from_there() {
    let all: Vec<i64> = (0..60).collect();
    let asked = |log| asked(log, Edge::Earliest, Edge::Offset(100));
    let cut = |cut| Ok(Cut { partition: 0, start: 0, cut, end: 100 });
    assert_eq!(decided(&asked(40..100), &all, None), cut(60), "they overlap");
    assert_eq!(decided(&asked(60..100), &all, None), cut(60), "they touch");
    let missing = Err(Hole::Gone { missing: 60..61, log_start: 61 });
    assert_eq!(decided(&asked(61..100), &all, None), missing);
    assert_eq!(decided(&asked(61..100), &all, Some(61)), cut(61), "whoever says so takes what is there");
    assert_eq!(decided(&asked(0..100), &all, Some(0)), cut(0), "the topic alone");
    assert_eq!(decided(&asked(40..100), &all, Some(39)), Err(Hole::SwitchedTooLow { missing: 39..40 }));
    assert_eq!(decided(&asked(40..100), &all, Some(62)), Err(Hole::SwitchedTooHigh { missing: 60..62 }));
    assert_eq!(decided(&asked(0..50), &all, None), Err(Hole::Foreign { offset: 59, written: 50 }));
}

#[test]
fn what_the_archive_lacks_or_has_twice_is_read_from_the_topic_where_it_still_is() {
    let asked = asked(40..100, Edge::Earliest, Edge::Offset(100));
    let but = |without: &[i64]| (0..60).filter(|at| !without.contains(at)).collect::<Vec<i64>>();
    assert_eq!(decided(&asked, &but(&[50]), None).unwrap().cut, 50);
    assert_eq!(decided(&asked, &but(&[39]), None).unwrap().cut, 60, "below the log's start there is nothing else");
    assert_eq!(decided(&asked, &but(&[40]), None).unwrap().cut, 40);
    let twice: Vec<i64> = (0..60).chain([45]).collect();
    assert_eq!(decided(&asked, &twice, None).unwrap().cut, 45);
}

#[test]
fn a_partition_that_the_archive_lacks_is_read_from_the_topic_if_that_holds_it() {
    let from = |start| asked(40..100, start, Edge::Offset(100));
    assert_eq!(decided(&from(Edge::Earliest), &[], None), Ok(Cut { partition: 0, start: 40, cut: 40, end: 100 }));
    let gone = Hole::Gone { missing: 39..40, log_start: 40 };
    assert_eq!(decided(&from(Edge::Offset(39)), &[], None), Err(gone.clone()));
    assert!(gone.said(3, "t").contains("offset 39 is in neither"), "{}", gone.said(3, "t"));
    let held: Vec<i64> = (20..60).collect();
    let before = Hole::Before { missing: 10..20, first: 20, log_start: 40 };
    assert_eq!(decided(&from(Edge::Offset(10)), &held, None), Err(before));
}

#[test]
fn a_hole_in_which_the_log_starts_is_refused_though_the_archive_goes_on_behind_it() {
    let held: Vec<i64> = (0..10).chain(100..200).collect();
    let from = |log_start: i64, stop| asked(log_start..300, Edge::Earliest, Edge::Offset(stop));
    let gone = Hole::Gone { missing: 10..50, log_start: 50 };
    assert_eq!(decided(&from(50, 300), &held, None), Err(gone.clone()));
    assert!(gone.said(0, "t").contains("switch: {offsets: {0: 50}}"), "{}", gone.said(0, "t"));
    assert_eq!(decided(&from(50, 300), &held, Some(50)).unwrap().cut, 50, "whoever says so takes what is there");
    assert_eq!(decided(&from(50, 30), &held, None), Err(Hole::Gone { missing: 10..30, log_start: 50 }));
    assert_eq!(decided(&from(10, 300), &held, None).unwrap().cut, 10, "the topic has all of it");
    assert_eq!(decided(&from(150, 300), &held, None).unwrap().cut, 200, "of what lies within nobody can tell");
    assert_eq!(decided(&from(250, 50), &held[..], None).unwrap().cut, 50, "and the range may end within");
}

#[test]
fn a_switch_does_not_drop_what_the_topic_may_still_hold() {
    let held: Vec<i64> = (100..200).collect();
    let from = |log_start: i64| asked(log_start..300, Edge::Offset(0), Edge::Offset(300));
    let over = Hole::SwitchedOver { missing: 0..100 };
    assert_eq!(decided(&from(0), &held, Some(150)), Err(over.clone()));
    assert!(over.said(0, "t").contains("switch at 0, or start at 100"), "{}", over.said(0, "t"));
    assert_eq!(decided(&from(50), &held, Some(150)), Err(Hole::SwitchedOver { missing: 50..100 }));
    let before = Hole::Before { missing: 0..100, first: 100, log_start: 120 };
    assert_eq!(decided(&from(120), &held, Some(150)), Err(before));
    assert_eq!(decided(&from(120), &held, Some(120)).unwrap().cut, 120, "at the log's start it says so");
    assert_eq!(decided(&from(0), &held, Some(0)).unwrap().cut, 0);
    let but: Vec<i64> = (0..200).filter(|at| *at != 60).collect();
    assert_eq!(decided(&from(50), &but, Some(150)), Err(Hole::SwitchedOver { missing: 60..61 }));
    assert_eq!(decided(&from(61), &but, Some(150)).unwrap().cut, 150);
}

#[test]
fn a_time_is_looked_for_in_both() {
    let asked = asked(40..100, Edge::Time { millis: 5, found: 70 }, Edge::Time { millis: 9, found: 90 });
    let at = |millis: i64| (millis == 5).then_some(30);
    assert_eq!(range(&asked, Some(0), at), 30..90);
    assert_eq!(range(&asked, Some(0), |_| None), 70..90);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Against every cut there could be: the one that is taken loses nothing, and no higher one would lose nothing.
    #[test]
    fn no_offset_that_is_anywhere_is_lost_and_none_is_read_twice(
        offsets in prop::collection::vec(0i64..24, 0..30),
        log_start in 0i64..26,
        length in 0i64..26,
        start in prop::option::of(0i64..26),
        stop in 0i64..40,
        switch in prop::option::of(0i64..40),
    ) {
        let log = log_start..log_start + length;
        let (mut offsets, stop) = (offsets, stop.min(log.end));
        offsets.retain(|at| *at < log.end);
        let asked = asked(log.clone(), start.map_or(Edge::Earliest, Edge::Offset), Edge::Offset(stop));
        let first = offsets.iter().min().copied();
        let start = start.unwrap_or_else(|| first.unwrap_or(log.start).min(log.start));
        let stop = stop.max(start);
        let times = |at: i64| offsets.iter().filter(|held| **held == at).count();
        // All that can be known to be lost: what is asked for, gone from the topic, and outside all that the archive spans,
        // or in the hole of the archive that the log's start lies in.
        let is_lost = |at: i64| at < log.start && (at < first.unwrap_or(i64::MAX) || (at..=log.start).all(|at| times(at) == 0)
            || offsets.iter().all(|held| *held < at));
        let lost = (start..stop).any(is_lost);
        let right = |cut: i64| {
            (start..cut).filter(|at| log.contains(at)).all(|at| times(at) == 1) && (cut..stop).all(|at| log.contains(&at))
        };
        let best = (start..=stop).filter(|cut| right(*cut)).max();
        if let Some(switch) = switch {
            // What is given is taken, if the topic holds what is read from it and lacks nothing that is not.
            let given = switch.clamp(start, stop);
            let is_first = given <= log.start.max(start);
            let is_right = |at: i64| match at < given {
                true => if log.contains(&at) { times(at) > 0 } else { is_first || first.is_some_and(|first| first <= at) },
                false => log.contains(&at),
            };
            let right = stop <= log.end && (start == stop || (start..stop).all(is_right));
            let taken = decided(&asked, &offsets, Some(switch)).ok().map(|cut| (cut.start, cut.cut, cut.end));
            prop_assert_eq!(taken, right.then_some((start, given, stop)));
        }
        match decided(&asked, &offsets, None) {
            Ok(cut) if start == stop => prop_assert_eq!((cut.start, cut.cut, cut.end), (start, start, stop)),
            Ok(cut) => {
                prop_assert!(!lost && stop <= log.end, "{cut:?}");
                prop_assert_eq!((cut.start, Some(cut.cut), cut.end), (start, best, stop));
                let account = archive(&offsets).account(&[cut]);
                let twice = (cut.start..cut.cut).find(|at| times(*at) > 1);
                prop_assert_eq!(account.as_ref().err().map(|twice| twice.offset), twice);
                if let Ok(account) = account {
                    let part = account.parts[0];
                    let gaps = (cut.start..cut.cut).filter(|at| times(*at) == 0).count() as u64;
                    let beyond = offsets.iter().filter(|at| **at >= cut.cut).count() as u64;
                    prop_assert_eq!((part.gaps, part.beyond), (gaps, beyond));
                    prop_assert_eq!(part.rows + part.gaps, u64::try_from(cut.cut - cut.start).unwrap());
                    prop_assert_eq!(account.taken.iter().sum::<u64>(), part.rows);
                }
            }
            Err(hole) => prop_assert!(lost || stop > log.end, "{hole:?} of {offsets:?}"),
        }
    }
}
