//! The simulator over many seeds: nothing breaks, everything that can go wrong did; one seed is one trace; and every
//! fence has teeth.
//!
//! `TIDEGATE_SIM_SEEDS=n` runs the first n seeds, `TIDEGATE_SIM_SEEDS=n..m` those from n up to m; `TIDEGATE_SIM_SEED=x`
//! runs one and prints what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tidegate_tests::sim::{self, Mishap, Options, Outcome, Struck};

/// Seeds that are run by default.
const SEEDS: u64 = 300;
/// How long a seed may take; ten thousand times what it does, so that only one that goes in a circle takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many seeds that broke are told of in full, and by how many lines.
const TOLD: (usize, usize) = (3, 30);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("TIDEGATE_SIM_SEEDS") else { return 0..SEEDS };
    let (from, to) = text.split_once("..").unwrap_or(("0", &text));
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Runs one seed. One that hangs within a step, where no count of events ends it, ends the test by its name.
fn run_one(seed: u64, options: &Options) -> Outcome {
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("TIDEGATE_SIM_SEED={seed}: a single step has no end");
            std::process::exit(101);
        }
    });
    let outcome = sim::run(seed, options);
    drop(done);
    outcome
}

/// The first invariant that a seed broke, and the last that happened before.
fn last_of(seed: u64) -> String {
    let outcome = run_one(seed, &Options { traced: true, ..Options::default() });
    let tail = outcome.trace.len().saturating_sub(TOLD.1);
    format!("TIDEGATE_SIM_SEED={seed}, {} events:\n{}", outcome.events, outcome.trace[tail..].join("\n"))
}

/// Runs `seeds` on two threads; the outcomes in the order of the seeds.
fn run(seeds: Range<u64>, options: &Options) -> Vec<(u64, Outcome)> {
    let half = |odd: u64| {
        let seeds = seeds.clone().filter(move |seed| seed % 2 == odd);
        seeds.map(|seed| (seed, run_one(seed, options))).collect::<Vec<_>>()
    };
    let mut all = std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let mut all = half(0);
        all.extend(odd.join().expect("no seed panics"));
        all
    });
    all.sort_by_key(|(seed, _)| *seed);
    all
}

#[test]
fn given_every_mishap_when_every_fence_stands_then_no_invariant_breaks() {
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        return print(seed);
    }
    let outcomes = run(seeds(), &Options::default());
    let broken: Vec<(u64, String)> = outcomes
        .iter()
        .filter_map(|(seed, outcome)| {
            Some((*seed, format!("TIDEGATE_SIM_SEED={seed}: {}", outcome.violation.as_ref()?)))
        })
        .collect();
    let all: Vec<&str> = broken.iter().map(|(_, what)| what.as_str()).collect();
    let last: Vec<String> = broken.iter().take(TOLD.0).map(|(seed, _)| last_of(*seed)).collect();
    assert!(
        broken.is_empty(),
        "{} of {} seeds:\n{}\n{}",
        broken.len(),
        outcomes.len(),
        all.join("\n"),
        last.join("\n")
    );
    let mut struck = Struck::default();
    outcomes.iter().for_each(|(_, outcome)| struck.add(&outcome.struck));
    let spared: Vec<Mishap> = Mishap::ALL.into_iter().filter(|mishap| struck.times(*mishap) == 0).collect();
    assert!(spared.is_empty(), "these never struck: {spared:?}");
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<u64>();
    let (succeeded, steps) = (sum(|outcome| outcome.succeeded), sum(|outcome| outcome.steps));
    assert!(succeeded > outcomes.len() as u64, "a world without success proves little: {succeeded}");
    let most = outcomes.iter().map(|(_, outcome)| outcome.events).max().unwrap_or_default();
    let seeds = outcomes.len();
    println!("{seeds} seeds, {steps} steps, at most {most} events a seed, {succeeded} backfills succeeded; {struck:?}");
}

fn print(seed: u64) {
    let outcome = run_one(seed, &Options { traced: true, ..Options::default() });
    outcome.trace.iter().for_each(|line| println!("{line}"));
    assert!(outcome.violation.is_none(), "{}", outcome.violation.unwrap());
}

#[test]
fn given_the_same_seed_when_run_again_then_the_trace_is_the_same() {
    let traced = Options { traced: true, ..Options::default() };
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let (first, second) = (run_one(seed, &traced), run_one(seed, &traced));
        assert_eq!(first, second, "seed {seed}");
        assert_eq!(first.hash, run_one(seed, &Options::default()).hash, "watching changes nothing");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 12, "different seeds are different worlds");
}

#[test]
fn given_more_events_than_a_world_may_have_when_run_then_liveness_breaks_and_the_trace_tells_the_last() {
    let outcome = run_one(0, &Options { traced: true, most_events: Some(100), ..Options::default() });
    let violation = outcome.violation.expect("a hundred events are not enough");
    assert_eq!(violation.invariant, sim::Invariant::Liveness, "{violation}");
    assert_eq!(outcome.events, 100);
    assert!(!outcome.trace.is_empty());
}

/// Within how many seeds an invariant must break when a fence is down: several times what it takes on average.
#[cfg(debug_assertions)]
fn bites_within(fence: tidegate_common::fence::Fence) -> u64 {
    use tidegate_common::fence::Fence;
    match fence {
        Fence::MarkerVerdict | Fence::IntentImmutability | Fence::CompleteWatermark | Fence::GateBetweenUnits => 50,
        Fence::GarbageRule | Fence::SealedThrough | Fence::TermCompare => 50,
        Fence::SliceReadiness | Fence::NeededObjects => 50,
        Fence::UnknownOutcome | Fence::SelfFencing | Fence::PrefixRule | Fence::CancelFence => 200,
        // It takes a hand-in that arrives after its lease has ended and before anybody else has handed in.
        Fence::TokenCompare => 2_000,
    }
}

#[cfg(debug_assertions)]
#[test]
fn given_one_fence_down_when_run_then_an_invariant_breaks() {
    use tidegate_common::fence::{Fence, Fences};
    let mut toothless = Vec::new();
    for fence in Fence::ALL {
        let options = Options { fences: Fences::without(fence), ..Options::default() };
        let mut bite = |seed| run_one(seed, &options).violation.map(|violation| (seed, violation));
        match (0..bites_within(fence)).find_map(&mut bite) {
            Some((seed, violation)) => println!("{fence:?}: seed {seed}: {violation}"),
            None => toothless.push(fence),
        }
    }
    assert!(toothless.is_empty(), "no invariant breaks without {toothless:?}");
}
