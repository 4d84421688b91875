//! Drives what a contributor runs: `cargo xtask test | sim | bench | services | example-data`.
//!
//! It calls cargo, python, java and maven and refuses to do their work. It depends on no other room and on no crate, because it is
//! compiled before all others.

mod catalog;
mod environment;
mod kafka;
mod maven;
mod registry;
mod shelf;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

use steps::{Step, cargo};

const USAGE: &str = "\
cargo xtask test [FILTER]       all checks and all tests; with FILTER, only the tests whose names contain it
cargo xtask sim [--seeds N]     the simulator, over N seeds (default 1000)
cargo xtask bench [FILTER]      what a step of the core costs (Criterion)
cargo xtask bench kafka [ARG…]  topics into tables, beside a plain drain of them and (--spark) Spark; ARGs go to bench/kafka/kafka.py
cargo xtask bench peers [ARG…]  one job on Tidegate and on DuckDB, by turns; ARGs go to bench/peers/peers.py
cargo xtask python              makes the environment that the tests check tables with; prints its interpreter
cargo xtask services            makes the servers that the tests speak to: a REST catalog, a Kafka broker, a schema registry
cargo xtask rest-catalog        makes the REST catalog alone; prints its folder
cargo xtask kafka               makes the Kafka broker alone; prints its folder
cargo xtask spark               makes what `bench kafka --spark` runs; prints its folder
cargo xtask registry            makes the schema registry alone; prints its folder
cargo xtask example-data --flights flights.csv --weather weather.csv --out examples/flights
                                makes the example data again";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        ["test"] => test(None),
        ["test", filter] if !filter.starts_with('-') => test(Some(filter)),
        ["sim"] => sim("1000"),
        ["sim", "--seeds", seeds] if seeds.parse::<u64>().is_ok() => sim(seeds),
        ["bench"] => steps::run([cargo("bench", "bench --package tidegate-bench")]),
        ["bench", "peers", rest @ ..] => peers(rest),
        ["bench", "kafka", rest @ ..] => bench_kafka(rest),
        ["bench", filter] if !filter.starts_with('-') => {
            steps::run([cargo("bench", "bench --package tidegate-bench --").arg(filter)])
        }
        ["python"] => environment::python().map(|interpreter| println!("{}", interpreter.display())),
        ["services"] => services().map(|[catalog, kafka, registry]| {
            println!("REST catalog     {}", catalog.display());
            println!("Kafka broker     {}", kafka.display());
            println!("schema registry  {}", registry.display());
        }),
        ["kafka"] => kafka::kafka().map(|folder| println!("{}", folder.display())),
        ["spark"] => environment::spark().map(|folder| println!("{}", folder.display())),
        ["registry"] => registry::registry().map(|folder| println!("{}", folder.display())),
        ["rest-catalog"] => catalog::rest_catalog().map(|folder| println!("{}", folder.display())),
        ["example-data", rest @ ..] => example_data(rest),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("xtask: {failed}");
            ExitCode::from(failed.exit_code)
        }
    }
}

/// What the tests need first, so that what is missing is said at once; then the checks; then the tests, whose summary
/// comes last.
fn test(filter: Option<&str>) -> Result<(), steps::Failed> {
    let (python, [catalog, kafka, registry]) = (environment::python()?, services()?);
    let deny_warnings = "clippy --workspace --all-targets -- --deny warnings";
    steps::run([
        cargo("format", "fmt --all --check"),
        cargo("lints", deny_warnings),
        cargo("docs", "doc --workspace --no-deps").env("RUSTDOCFLAGS", "--deny warnings"),
        cargo("binary", "build --package tidegate"),
    ])?;
    let tests = cargo("tests", "test --workspace").env("TIDEGATE_PYTHON", python);
    let tests = tests.env("TIDEGATE_REST_CATALOG", catalog).env("TIDEGATE_KAFKA", kafka);
    let tests = tests.env("TIDEGATE_REGISTRY", registry).speaks_last();
    steps::run([match filter {
        Some(filter) => tests.arg(filter),
        None => tests,
    }])
}

/// The folders of the REST catalog, of the Kafka broker and of the schema registry.
fn services() -> Result<[PathBuf; 3], steps::Failed> {
    Ok([catalog::rest_catalog()?, kafka::kafka()?, registry::registry()?])
}

fn peers(arguments: &[&str]) -> Result<(), steps::Failed> {
    steps::run([cargo("release binary", "build --release --package tidegate")])?;
    let binary = shelf::target()?.join("release/tidegate");
    let compare = steps::Step::new("peers", environment::python()?).arg(shelf::root().join("bench/peers/peers.py"));
    steps::run([arguments.iter().fold(compare.arg("--tidegate").arg(binary), steps::Step::arg)])
}

fn bench_kafka(arguments: &[&str]) -> Result<(), steps::Failed> {
    steps::run([cargo("release binaries", "build --release --package tidegate --package tidegate-bench")])?;
    let made = shelf::target()?.join("release");
    let bench = steps::Step::new("kafka", environment::python()?).arg(shelf::root().join("bench/kafka/kafka.py"));
    let bench = bench.arg("--tidegate").arg(made.join("tidegate")).arg("--load").arg(made.join("kafka_load"));
    let bench = bench.arg("--jars").arg(kafka::kafka()?.join("jars"));
    // Spark is fetched for those who ask for it.
    let (spark, arguments): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|argument| **argument == "--spark");
    let bench = if spark.is_empty() { bench } else { bench.arg("--spark").arg(environment::spark()?) };
    steps::run([arguments.iter().fold(bench, steps::Step::arg)])
}

fn sim(seeds: &str) -> Result<(), steps::Failed> {
    steps::run([cargo("simulator", "test --workspace --test simulator").env("TIDEGATE_SIM_SEEDS", seeds)])
}

fn example_data(arguments: &[&str]) -> Result<(), steps::Failed> {
    let make = cargo("example data", "run --quiet --package tidegate-tests --example make_flights --");
    steps::run([arguments.iter().fold(make, Step::arg)])
}
