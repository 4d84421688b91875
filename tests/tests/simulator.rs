//! The simulator over many seeds: nothing breaks; one seed is one trace; and every fence has teeth.

use tidegate_tests::sim::{self, Options};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn smoke() {
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        let outcome = sim::run(seed, &Options { traced: true, ..Options::default() });
        for line in &outcome.trace {
            println!("{line}");
        }
        println!("{:?}", outcome.violation);
        return;
    }
    let mut bad = 0;
    let mut struck = sim::Struck::default();
    let mut succeeded = 0;
    for seed in 0..number("TIDEGATE_SIM_SEEDS").unwrap_or(50) {
        let outcome = sim::run(seed, &Options::default());
        if let Some(violation) = &outcome.violation {
            println!("{seed} {} {} {} {violation}", outcome.events, outcome.steps, outcome.succeeded);
        }
        struck.add(&outcome.struck);
        succeeded += outcome.succeeded;
        bad += u64::from(outcome.violation.is_some());
    }
    println!("{struck:?} {succeeded}");
    assert_eq!(bad, 0);
}
