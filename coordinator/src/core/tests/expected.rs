//! A backfill that was asked for by a saved plan: what must be there is there, or nothing is made.

use super::bench::{Bench, hand_in, read, task};
use crate::core::*;

fn tasks() -> Vec<Vec<v1::ReadTask>> {
    vec![vec![task(&[(0, 5)])]]
}

/// A plan in which every source has this digest and the table, this uuid.
fn expected(digest: &str, uuid: &str) -> Option<v1::ExpectedPlan> {
    let source = v1::ExpectedSource { name: "s0".to_owned(), digest: digest.to_owned(), ..Default::default() };
    let output = v1::ExpectedOutput { table: "n.t".to_owned(), uuid: uuid.to_owned(), ..Default::default() };
    Some(v1::ExpectedPlan { version: 1, sources: vec![source], outputs: vec![output] })
}

/// A backfill that expects this, with a worker.
fn bench(digest: &str, uuid: &str) -> Bench {
    let mut bench = Bench::idle(1);
    bench.expected = expected(digest, uuid);
    bench.submit(true);
    bench.join(1, 2, Vec::new());
    bench
}

fn failure(bench: &Bench) -> v1::Evidence {
    assert_eq!(bench.phase(), v1::Phase::Failed);
    bench.status().failure.unwrap()
}

#[test]
fn the_sources_are_enumerated_before_anything_is_prepared_and_the_run_is_as_any_other() {
    let mut bench = bench("as-found", "u");
    assert_eq!(bench.grant(TaskId::Prepare), None, "nothing is made yet");
    bench.enumerate(0, &tasks());
    assert_eq!(bench.phase(), v1::Phase::Preparing);
    assert_eq!(bench.grant(read(0, 0, 0)), None, "and nothing is read");
    bench.prepare();
    assert_eq!(bench.phase(), v1::Phase::Running);
    let held = bench.grant(read(0, 0, 0)).unwrap();
    bench.hand_in(held, hand_in("a", 0, 0, 1), false).unwrap();
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Succeeded);
}

#[test]
fn a_source_of_another_digest_fails_it_before_a_table_is_made_and_a_new_plan_takes_it_up() {
    let mut bench = bench("planned", "u");
    bench.enumerate(0, &tasks());
    let failure = failure(&bench);
    assert_eq!(failure.exit_code, 4);
    assert!(failure.message.contains("source s0") && failure.message.contains("make the plan again"), "{failure:?}");
    assert_eq!(bench.grant(TaskId::Prepare), None);

    bench.change(v1::Change::Retry);
    bench.enumerate(0, &tasks());
    assert_eq!(bench.phase(), v1::Phase::Failed, "a retry expects the same");

    bench.expected = expected("as-found", "u");
    bench.submit(true);
    bench.enumerate(0, &tasks());
    bench.prepare();
    assert_eq!(bench.phase(), v1::Phase::Running);
}

#[test]
fn the_spec_itself_applied_after_a_stale_plan_expects_nothing() {
    let mut bench = bench("planned", "u");
    bench.enumerate(0, &tasks());
    assert_eq!(bench.phase(), v1::Phase::Failed);
    bench.expected = None;
    bench.submit(true);
    bench.prepare();
    bench.enumerate(0, &tasks());
    assert_eq!(bench.phase(), v1::Phase::Running);
}

#[test]
fn another_table_than_was_planned_fails_it() {
    let mut bench = bench("as-found", "another");
    bench.enumerate(0, &tasks());
    bench.prepare();
    let failure = failure(&bench);
    assert!(failure.message.contains("table n.t is not what the saved plan says"), "{failure:?}");
    assert_eq!((failure.exit_code, bench.grant(read(0, 0, 0))), (4, None));
}

#[test]
fn a_plan_of_other_inputs_does_not_attach_to_a_backfill_that_runs() {
    let mut bench = bench("as-found", "u");
    bench.enumerate(0, &tasks());
    bench.prepare();
    let journal = bench.journal.len();
    bench.submit(true);
    assert_eq!(bench.take_refusal(), None, "the same plan attaches");
    bench.expected = expected("planned-later", "u");
    bench.submit(true);
    let refusal = bench.take_refusal().unwrap().to_string();
    assert!(refusal.contains("source s0") && refusal.contains("apply the spec"), "{refusal}");
    assert_eq!((bench.journal.len(), bench.phase()), (journal, v1::Phase::Running), "and changes nothing");
}
