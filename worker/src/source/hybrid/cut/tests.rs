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
        units[unit].iter().for_each(|offset| runs.push(*offset));
        (unit, BTreeMap::from([(0, runs)]))
    };
    holding.read(unknown.into_iter().map(read).collect());
    holding
}

fn held(offsets: &[i64]) -> Vec<Piece> {
    archive(offsets).pieces().remove(&0).unwrap_or_default()
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
    assert_eq!(decided(&asked(40..100), &all, Some(61)), Err(Hole::SwitchedTooHigh { missing: 60..61 }));
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
    let before = Hole::Before { missing: 10..20, log_start: 40 };
    assert_eq!(decided(&from(Edge::Offset(10)), &held, None), Err(before));
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
    ) {
        let log = log_start..log_start + length;
        let (mut offsets, stop) = (offsets, stop.min(log.end));
        offsets.retain(|at| *at < log.end);
        let asked = asked(log.clone(), start.map_or(Edge::Earliest, Edge::Offset), Edge::Offset(stop));
        let first = offsets.iter().min().copied();
        let start = start.unwrap_or_else(|| first.unwrap_or(log.start).min(log.start));
        let stop = stop.max(start);
        let times = |at: i64| offsets.iter().filter(|held| **held == at).count();
        let last = offsets.iter().max().map_or(start, |last| last + 1);

        // All that can be known to be lost: what is asked for, gone from the topic, and outside all that the archive spans.
        let is_lost = |at: i64| at < log.start && (at >= last || at < first.unwrap_or(i64::MAX));
        let lost = (start..stop).any(is_lost);
        let right = |cut: i64| {
            (start..cut).filter(|at| log.contains(at)).all(|at| times(at) == 1) && (cut..stop).all(|at| log.contains(&at))
        };
        let best = (start..=stop).filter(|cut| right(*cut)).max();
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
