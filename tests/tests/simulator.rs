//! The simulator over many seeds: nothing breaks, everything that can go wrong did; one seed is one trace; and every
//! fence has teeth.
//!
//! `TIDEGATE_SIM_SEEDS=n` runs n seeds; `TIDEGATE_SIM_SEED=x` runs one and prints what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;

use tidegate_tests::sim::{self, Mishap, Options, Outcome, Struck};

/// Seeds that are run by default.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `seeds` on two threads; the outcomes in the order of the seeds.
fn run(seeds: Range<u64>, options: &Options) -> Vec<(u64, Outcome)> {
    let half = |odd: u64| {
        let seeds = seeds.clone().filter(move |seed| seed % 2 == odd);
        seeds.map(|seed| (seed, sim::run(seed, options))).collect::<Vec<_>>()
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
    let outcomes = run(0..number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS), &Options::default());
    let broken: Vec<String> = outcomes
        .iter()
        .filter_map(|(seed, outcome)| Some(format!("TIDEGATE_SIM_SEED={seed}: {}", outcome.violation.as_ref()?)))
        .collect();
    assert!(broken.is_empty(), "{} of {} seeds:\n{}", broken.len(), outcomes.len(), broken.join("\n"));
    let mut struck = Struck::default();
    outcomes.iter().for_each(|(_, outcome)| struck.add(&outcome.struck));
    let spared: Vec<Mishap> = Mishap::ALL.into_iter().filter(|mishap| struck.times(*mishap) == 0).collect();
    assert!(spared.is_empty(), "these never struck: {spared:?}");
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<u64>();
    let (succeeded, steps) = (sum(|outcome| outcome.succeeded), sum(|outcome| outcome.steps));
    assert!(succeeded > outcomes.len() as u64, "a world without success proves little: {succeeded}");
    println!("{} seeds, {steps} steps, {succeeded} backfills succeeded; {struck:?}", outcomes.len());
}

fn print(seed: u64) {
    let outcome = sim::run(seed, &Options { traced: true, ..Options::default() });
    outcome.trace.iter().for_each(|line| println!("{line}"));
    assert!(outcome.violation.is_none(), "{}", outcome.violation.unwrap());
}

#[test]
fn given_the_same_seed_when_run_again_then_the_trace_is_the_same() {
    let traced = Options { traced: true, ..Options::default() };
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let (first, second) = (sim::run(seed, &traced), sim::run(seed, &traced));
        assert_eq!(first, second, "seed {seed}");
        assert_eq!(first.hash, sim::run(seed, &Options::default()).hash, "watching changes nothing");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 12, "different seeds are different worlds");
}

/// Within how many seeds an invariant must break when a fence is down: several times what it takes on average.
#[cfg(debug_assertions)]
fn bites_within(fence: tidegate_common::fence::Fence) -> u64 {
    use tidegate_common::fence::Fence;
    match fence {
        Fence::MarkerVerdict | Fence::IntentImmutability | Fence::CompleteWatermark | Fence::GateBetweenUnits => 50,
        Fence::GarbageRule | Fence::SealedThrough | Fence::TermCompare => 50,
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
        let mut bite = |seed| sim::run(seed, &options).violation.map(|violation| (seed, violation));
        match (0..bites_within(fence)).find_map(&mut bite) {
            Some((seed, violation)) => println!("{fence:?}: seed {seed}: {violation}"),
            None => toothless.push(fence),
        }
    }
    assert!(toothless.is_empty(), "no invariant breaks without {toothless:?}");
}
