//! How much may wait in the shuffle store: what is refused before anything is read, and what ends a backfill that runs.

use tidegate_common::time::Span;

use super::*;

/// Two sources of a MiB for each half of a slice, of which `budget` bytes may wait, aligned within a slice.
fn bounded(budget: Option<u64>) -> Bench {
    let units: Vec<(i64, i64)> = (0..20).map(|half| (half * BACK, half * BACK + BACK - 1)).collect();
    let mut heavy = task(&units);
    heavy.units.iter_mut().for_each(|unit| unit.bytes = 1 << 20);
    let mut spec = Bench::spec(&[(false, false)], 2, Some(SLICE), true);
    spec.outputs[0].slice = Some(Span::from_micros(SLICE));
    spec.outputs[0].budget = budget;
    let mut bench = Bench::submitted(spec, true);
    bench.join(1, 2, Vec::new());
    prepare(&mut bench);
    for source in 0..2 {
        bench.enumerate(source, &[vec![heavy.clone()]]);
    }
    bench
}

/// For each source 20 MiB over ten slices: a slice of drift and a slice, and half a slice more of the one that is met before.
const ESTIMATE: u64 = 9 << 20;

#[test]
fn more_than_may_wait_by_the_estimate_is_refused_before_anything_is_read() {
    let mut bench = bounded(Some(ESTIMATE - 1));
    let status = bench.status();
    assert_eq!(status.phase(), v1::Phase::Failed);
    let failure = status.failure.unwrap();
    assert_eq!(failure.exit_code, 4);
    let said = "output out: about 9 MiB may wait in the shuffle store, and join.budget is 9 MiB: take a shorter \
                alignment.max_drift than 0.1s, a narrower join.slice, or a budget of 9 MiB or more";
    assert_eq!(failure.message, said);
    assert!(bench.grant(read(0, 0, 0)).is_none() && bench.grant(read(1, 0, 0)).is_none());
    assert!(!bench.journal.iter().any(|record| matches!(record.kind, Some(v1::record::Kind::Sliced(_)))));
    bench.restart();
    assert_eq!((bench.phase(), bench.status().failure.unwrap().message), (v1::Phase::Failed, said.to_owned()));
    for enough in [Some(ESTIMATE), None] {
        assert_eq!(bounded(enough).phase(), v1::Phase::Running, "{enough:?}");
    }
}

#[test]
fn what_comes_to_wait_beyond_the_budget_ends_the_backfill_and_retry_joins_first_what_is_ready() {
    let mut bench = bounded(Some(ESTIMATE));
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, sized(shuffled("s0", 0, 0, 4), ESTIMATE), false).unwrap();
    assert_eq!(bench.phase(), v1::Phase::Running, "so much may wait");
    bench.hand_in(other, sized(shuffled("s1", 0, 0, 4), 1), false).unwrap();
    let status = bench.status();
    assert_eq!(status.phase(), v1::Phase::Failed);
    let failure = status.failure.unwrap();
    assert_eq!(failure.exit_code, 1);
    assert!(
        failure.message.starts_with("output out: 9.1 MiB wait in the shuffle store, and join.budget is 9 MiB: `retry`")
    );
    assert_eq!(cleaning(&bench), None, "what waits is kept");
    bench.restart();
    assert_eq!((bench.phase(), join(&bench).live_bytes), (v1::Phase::Failed, ESTIMATE + 1));
    bench.sent.clear();
    bench.join(2, 4, Vec::new());
    bench.change(v1::Change::Retry);
    let slices: Vec<_> = runs(&bench).iter().map(|(held, work)| (first(*held), work.end_slice)).collect();
    assert_eq!(slices, [(0, 1), (1, 2)], "what is ready is joined");
    let (held, second) = (runs(&bench)[0].0, runs(&bench)[1].0);
    let reads = |bench: &Bench| bench.grant(read(0, 0, 0)).or(bench.grant(read(1, 0, 0)));
    assert_eq!(reads(&bench), None, "nothing is read before");
    bench.hand_in(second, joined("b", 1, 2), false).unwrap();
    bench.hand_in(held, joined("a", 0, 1), false).unwrap();
    assert!(reads(&bench).is_some());
    assert_eq!(
        (bench.phase(), join(&bench).live_bytes),
        (v1::Phase::Running, 1),
        "the third slice meets what came last"
    );
}

fn sized(mut hand_in: v1::HandIn, bytes: u64) -> v1::HandIn {
    hand_in.outputs[0].shuffled.as_mut().unwrap().bytes = bytes;
    hand_in
}
