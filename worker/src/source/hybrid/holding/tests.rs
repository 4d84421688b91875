//! What statistics say of units, held against their rows.

use proptest::prelude::*;

use super::*;

/// A unit of partitions and offsets.
type Rows = Vec<(i32, i64)>;

fn span(rows: &Rows) -> Option<Span> {
    let bounds = |of: fn(&(i32, i64)) -> i64| Some((rows.iter().map(of).min()?, rows.iter().map(of).max()?));
    Some(Span {
        partitions: bounds(|(partition, _)| i64::from(*partition))?,
        offsets: bounds(|(_, offset)| *offset)?,
        rows: rows.len() as u64,
    })
}

fn read(rows: &Rows) -> Read {
    let mut read = Read::new();
    for (partition, offset) in rows {
        read.entry(*partition).or_default().push(*offset);
    }
    read
}

fn cuts(cut: (i64, i64)) -> [Cut; 2] {
    [0, 1].map(|partition| Cut { partition, start: cut.0, cut: cut.1, end: 99 })
}

/// As the archive is looked at: statistics first, then what they leave open.
fn looked_at(units: &[Rows], cut: (i64, i64)) -> (Holding, usize) {
    let spans: Vec<Option<Span>> = units.iter().map(span).collect();
    let (mut holding, unknown) = Holding::of(&spans);
    let all = |which: Vec<usize>| which.into_iter().map(|unit| (unit, read(&units[unit]))).collect::<Vec<_>>();
    let straddles = |_, piece: &Piece| [cut.0, cut.1].iter().any(|at| piece.from < *at && *at < piece.to);
    let mut reads = unknown.len();
    holding.read(all(unknown));
    loop {
        let doubtful = holding.doubtful(straddles);
        reads += doubtful.len();
        if doubtful.is_empty() {
            return (holding, reads);
        }
        holding.read(all(doubtful));
    }
}

#[test]
fn a_unit_of_one_partition_that_lies_alone_is_not_read() {
    let of = |partition: i32, offsets: Range<i64>| offsets.map(|offset| (partition, offset)).collect::<Rows>();
    let units = [of(0, 0..10), of(1, 0..10), of(0, 10..20), of(1, 5..12), [of(0, 20..22), of(1, 20..22)].concat()];
    let (holding, reads) = looked_at(&units, (0, 99));
    assert_eq!(reads, 3, "the one of two partitions, and the two that overlap");
    assert_eq!(holding.account(&cuts((0, 99))).unwrap_err().offset, 5);
    let (holding, reads) = looked_at(&units, (12, 99));
    assert_eq!(reads, 4, "and the one that the start lies in");
    assert_eq!(holding.account(&cuts((12, 99))).unwrap().taken, [0, 0, 8, 0, 4]);
}

#[test]
fn bounds_below_zero_are_no_offsets_and_are_looked_at() {
    let span = |from| Some(Span { partitions: (0, 0), offsets: (from, 9), rows: 5 });
    let (holding, unknown) = Holding::of(&[span(-1), span(0)]);
    assert_eq!((unknown, holding.len()), (vec![0], 1));
}

#[test]
fn what_was_read_stands_in_the_place_of_what_was_believed_and_counts() {
    let unit: Rows = [0, 1, 4, 7].map(|offset| (0, offset)).to_vec();
    let (mut holding, _) = Holding::of(&[span(&unit)]);
    assert_eq!(holding.len(), 1);
    holding.read(vec![(0, read(&unit))]);
    assert_eq!(holding.len(), 3);
    holding.read(vec![(0, Read::new())]);
    assert_eq!((holding.len(), holding.pieces().len()), (0, 0));
}

proptest! {
    #[test]
    fn statistics_and_what_is_read_together_say_what_reading_all_says(
        units in prop::collection::vec(prop::collection::vec((0i32..2, 0i64..30), 0..8), 0..8),
        (from, to) in (0i64..30, 0i64..30),
    ) {
        let cut = (from.min(to), from.max(to));
        // In a unit, each once: what is read twice within one is found when it is read.
        let once = |mut rows: Rows| { rows.sort_unstable(); rows.dedup(); rows };
        let units: Vec<Rows> = units.into_iter().map(once).collect();
        let (holding, _) = looked_at(&units, cut);
        let is_taken = |place: &&(i32, i64)| cut.0 <= place.1 && place.1 < cut.1;
        let mut taken: Rows = units.iter().flatten().filter(is_taken).copied().collect();
        taken.sort_unstable();
        let doubled = taken.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        match holding.account(&cuts(cut)) {
            Err(twice) => prop_assert_eq!(Some((twice.partition, twice.offset)), doubled),
            Ok(account) => {
                prop_assert_eq!(None, doubled);
                let each: Vec<u64> = units.iter().map(|rows| rows.iter().filter(is_taken).count() as u64).collect();
                prop_assert_eq!(&account.taken, &each);
                for part in &account.parts {
                    let rows = taken.iter().filter(|(partition, _)| *partition == part.cut.partition).count() as u64;
                    prop_assert_eq!((part.rows, part.rows + part.gaps), (rows, u64::try_from(cut.1 - cut.0).unwrap()));
                }
            }
        }
    }
}
