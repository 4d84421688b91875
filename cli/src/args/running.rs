//! What runs backfills: `apply`, `run`, `demo`, `loadtest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::WindowArgs;

/// What can be applied.
#[derive(Debug, Args)]
pub(crate) struct Applicable {
    /// The spec, or a plan that `plan --out` saved; `-` reads it from stdin, and relative paths in a spec are then
    /// below the current folder
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The spec, or a plan that was saved.
    #[command(flatten)]
    pub spec: Applicable,
    /// Another window.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Return once it is accepted, without waiting for its end
    #[arg(long)]
    pub detach: bool,
    /// Why; it is kept with the backfill
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with_all = ["detach", "yes"])]
    pub dry_run: bool,
    /// Append to a window of a table that already holds rows of others
    #[arg(long)]
    pub allow_existing: bool,
    /// Start it although the live job's group is active
    #[arg(long)]
    pub live_ok: bool,
}

impl Apply {
    /// Nothing asked for and nothing said: for runs whose spec is not a file.
    pub(crate) fn silent() -> Self {
        let spec = Applicable { file: PathBuf::new() };
        let window = WindowArgs::default();
        let (detach, dry_run, allow_existing, live_ok) = (false, false, false, false);
        Self { spec, window, detach, reason: String::new(), yes: true, dry_run, allow_existing, live_ok }
    }
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// What `apply` takes.
    #[command(flatten)]
    pub apply: Apply,
    /// In this process, without a server; a run that was killed goes on when it is run again
    #[arg(long, conflicts_with_all = ["detach", "dry_run"])]
    pub local: bool,
    /// How many workers this process runs, with --local; the configured slots are shared out among them
    #[arg(long, value_name = "N", default_value_t = 1, requires = "local", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Then publish what is staged, with --local
    #[arg(long, requires = "local", conflicts_with = "discard")]
    pub publish: bool,
    /// Cancel it, and drop what is staged, with --local
    #[arg(long, requires = "local", conflicts_with = "allow_existing")]
    pub discard: bool,
    /// The folder of the state, with --local [env: TIDEGATE_STATE] [default: .tidegate]
    #[arg(long, value_name = "DIR", requires = "local")]
    pub state: Option<PathBuf>,
}

/// `demo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Demo {
    /// Where the demo's data, state and tables go
    #[arg(long, value_name = "DIR", default_value = "tidegate-demo")]
    pub folder: PathBuf,
    /// Something else than the replay.
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
}

/// `demo …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Load the year of flights into a Kafka topic, a partition for each airport, and write the spec that reads it
    LoadKafka(LoadKafka),
}

/// `demo load-kafka`.
#[derive(Debug, Args)]
pub(crate) struct LoadKafka {
    /// A broker, or several behind commas
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    pub bootstrap_server: String,
    /// The topic; made where it is missing, and refused where it holds records
    #[arg(long, value_name = "NAME", default_value = "flights")]
    pub topic: String,
    /// Where the spec goes
    #[arg(long, value_name = "DIR", default_value = "tidegate-demo")]
    pub folder: PathBuf,
}

/// `loadtest`.
#[derive(Debug, Args)]
pub(crate) struct Loadtest {
    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// How many splits the rows are cut into
    #[arg(long, value_name = "M", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub splits: u64,
    /// How many rows are generated
    #[arg(long, value_name = "ROWS", default_value_t = 4_000_000)]
    pub rows: u64,
    /// Where chance starts
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The exponent of the keys' Zipf distribution
    #[arg(long, default_value_t = 0.0)]
    pub skew: f64,
    /// How far event times lie out of order
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub disorder: String,
    /// Where state and table go
    #[arg(long, value_name = "DIR", default_value = "tidegate-loadtest")]
    pub folder: PathBuf,
}
