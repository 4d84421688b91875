//! Given small logs, what a reset must come to, counted offset by offset from the words of Kafka's documentation.

use std::collections::BTreeSet;

use proptest::option::of;
use proptest::prelude::*;

use super::*;

/// Kafka's words, written down once more: a log is the set of its offsets, a reader the set of those it will read.
fn oracle(to: To, facts: &Facts) -> Option<Move> {
    let log: BTreeSet<i64> = (facts.start..facts.end).collect();
    let reads = |position: i64| log.iter().copied().filter(|offset| *offset >= position).collect::<BTreeSet<i64>>();
    let asked = match to {
        To::Earliest => facts.start,
        To::Latest => facts.end,
        To::Found if facts.found.is_some() => facts.found?,
        To::Found => facts.end,
        To::Offset(offset) => offset,
        To::Shift(by) => facts.position? + by,
        To::Given => facts.given?,
    };
    // "is lower than earliest … set to earliest", "is higher than latest … set to latest"
    let new = if asked < facts.start {
        facts.start
    } else if asked > facts.end {
        facts.end
    } else {
        asked
    };
    let mut expected = Move { old: facts.position, new, ..Move::default() };
    if asked < facts.start || asked > facts.end {
        expected.outside = Some(asked);
    }
    if let Some(old) = facts.position {
        let (before, after) = (reads(old), reads(new));
        let skipped: BTreeSet<i64> = before.difference(&after).copied().collect();
        let covered = |offset: &&i64| facts.covered.is_some_and(|(from, to)| (from..to).contains(*offset));
        expected.skipped = skipped.len() as u64;
        expected.covered = skipped.iter().filter(covered).count() as u64;
        expected.again = after.difference(&before).count() as u64;
    }
    Some(expected)
}

fn targets() -> impl Strategy<Value = To> {
    prop_oneof![
        Just(To::Earliest),
        Just(To::Latest),
        Just(To::Found),
        Just(To::Given),
        (-5i64..40).prop_map(To::Offset),
        (-40i64..40).prop_map(To::Shift),
    ]
}

proptest! {
    #[test]
    fn a_reset_does_what_kafka_documents(
        to in targets(),
        start in 0i64..20,
        length in 0i64..15,
        position in of(0i64..40),
        found in of(0i64..15),
        given in of(0i64..40),
        covered in of((0i64..40, 0i64..40)),
    ) {
        let end = start + length;
        let found = found.map(|found| start + found).filter(|found| *found < end);
        let facts = Facts { position, start, end, found, given, covered };
        prop_assert_eq!(decide(to, &facts).ok(), oracle(to, &facts));
    }

    #[test]
    fn no_number_is_too_large(to in any::<i64>(), position in of(any::<i64>()), a in 0i64.., b in 0i64..) {
        let facts = Facts { position, start: a.min(b), end: a.max(b), covered: Some((a, b)), ..Facts::default() };
        for to in [To::Offset(to), To::Shift(to), To::Earliest, To::Latest] {
            if let Ok(moved) = decide(to, &facts) {
                prop_assert!((facts.start..=facts.end).contains(&moved.new));
                prop_assert!(moved.skipped == 0 || moved.again == 0);
            }
        }
    }
}

#[test]
fn what_counts_as_lost() {
    let facts = Facts { position: Some(10), start: 5, end: 30, ..Facts::default() };
    let gap = |to, facts: &Facts| decide(to, facts).map(|moved| moved.is_gap());
    assert_eq!(gap(To::Earliest, &facts), Ok(false), "reading again loses nothing");
    assert_eq!(gap(To::Offset(10), &facts), Ok(false), "nothing moves");
    assert_eq!(gap(To::Offset(11), &facts), Ok(true), "10 is never read");
    assert_eq!(gap(To::Offset(4), &facts), Ok(true), "4 is gone");
    assert_eq!(gap(To::Offset(31), &facts), Ok(true), "31 is not written yet");
    assert_eq!(gap(To::Latest, &Facts { position: None, ..facts }), Ok(false), "of no position nothing is lost");
    assert_eq!(gap(To::Shift(1), &Facts { position: None, ..facts }), Err(NoTarget::NoPosition));
    assert_eq!(gap(To::Given, &facts), Err(NoTarget::NotGiven));
    let handed = Facts { given: Some(20), covered: Some((10, 20)), ..facts };
    assert_eq!(gap(To::Given, &handed), Ok(false), "a backfill has read what is skipped");
    assert_eq!(gap(To::Given, &Facts { covered: Some((11, 20)), ..handed }), Ok(true), "10 is in nobody's range");
    assert_eq!(gap(To::Given, &Facts { position: Some(2), ..handed }), Ok(true), "5 to 9 are in nobody's range");
}
