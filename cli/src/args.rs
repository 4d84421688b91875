//! The command line, as clap reads it.
//!
//! Nothing has a default here that the configuration could set: flags win, but only when they are given.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;
use crate::style::Color;

pub(crate) use self::checkpoint::{
    Backup as CheckpointBackup, CheckpointCommand, CheckpointOf, Handoff, Reset, Restore, StreamChange, StreamCommand,
    StreamResume, Verify as CheckpointVerify, WayArgs,
};
pub(crate) use self::serve::{Coordinator, Worker};

mod checkpoint;
mod serve;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold());

const AFTER: &str = "\
Exit codes: 0 done or nothing to do, 1 failed, 2 usage, 3 spec invalid, 4 refused before anything was done, \
5 confirmation missing, 6 partial success, 7 verification mismatch, 8 --wait timed out, 10 plan --detailed-exitcode \
and there is work, 75 temporary: try again, 130 interrupted.";

/// Replay history through a data pipeline, in event-time order, committed exactly once to Iceberg.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, styles = STYLES, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How data is written to stdout; messages go to stderr [env: TIDEGATE_OUTPUT] [default: table]
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum)]
    pub output: Option<Format>,
    /// When to use colour; NO_COLOR is respected [env: TIDEGATE_COLOR] [default: auto]
    #[arg(long, global = true, value_name = "WHEN", value_enum)]
    pub color: Option<Color>,
    /// The coordinator's address [env: TIDEGATE_COORDINATOR] [default: http://127.0.0.1:7411]
    #[arg(long, global = true, value_name = "URL")]
    pub coordinator: Option<String>,
    /// The configuration file, in place of ./tidegate.yaml [env: TIDEGATE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say nothing but errors; no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to log to stderr: a level, or `target=level,…` [env: TIDEGATE_LOG] [default: info for coordinator and
    /// worker, else warn]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a spec without running anything
    Validate(SpecFile),
    /// Show what a spec's backfill would read, write and take, and change nothing
    Plan(Plan),
    /// Look at what a spec reads
    Source {
        /// What to do with it
        #[command(subcommand)]
        command: SourceCommand,
    },
    /// Look at an Iceberg table
    Table {
        /// What to do with it
        #[command(subcommand)]
        command: TableCommand,
    },
    /// Hold what a backfill's journal says against what its tables hold
    Verify(Verify),
    /// Print a JSON Schema (draft-07)
    Schema {
        /// Of what
        #[arg(value_enum)]
        of: Schema,
    },
    /// Start, attach to or resume the backfill of a spec on a coordinator, and wait for its end
    Apply(Apply),
    /// Run a backfill to its end, on a coordinator or, with --local, in this process
    Run(Run),
    /// Replay a year of real flights and weather in this process, with and without alignment
    Demo(Demo),
    /// Run many workers of this process over generated rows, into one table
    Loadtest(Loadtest),
    /// Show the backfills of a coordinator
    List,
    /// Show how a backfill stands
    Status(Status),
    /// Follow a backfill until it ends
    Watch(OfBackfill),
    /// Show what happened in a backfill
    Events(Events),
    /// Let readers hand in and stop at their next unit boundary
    Pause(Change),
    /// Let a paused backfill go on
    Resume(Change),
    /// End a backfill; what is committed stays, what is staged is dropped
    Cancel(Change),
    /// Take up again what failed or was parked
    Retry(Change),
    /// Commit what is staged to the tables, each in one snapshot, drop the branches, and wait for the end
    Publish(Publish),
    /// Write where each topic goes on after a backfill: for `checkpoint reset --from-handoff`
    Handoff(Handoff),
    /// Look at, keep, put back and move the positions of consumer groups and of Spark's checkpoint folders
    Checkpoint {
        /// What to do with them
        #[command(subcommand)]
        command: CheckpointCommand,
    },
    /// Pause and resume the live job that a spec names
    Stream {
        /// What to do with it
        #[command(subcommand)]
        command: StreamCommand,
    },
    /// Run a coordinator
    Coordinator(Coordinator),
    /// Run a worker
    Worker(Worker),
    /// Show the configuration
    Config {
        /// What to do with it
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a completion script
    Completion {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// A spec's file.
#[derive(Debug, Args)]
pub(crate) struct SpecFile {
    /// The spec; `-` reads it from stdin, and relative paths in it are then below the current folder
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Another window than the spec's.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WindowArgs {
    /// The window in place of the spec's, half-open: `2024-01-01/2024-02-01`, in UTC unless the times say otherwise
    #[arg(long, value_name = "FROM/TO", conflicts_with = "last")]
    pub window: Option<String>,
    /// The window that ends now: `7d`, `12h`
    #[arg(long, value_name = "DURATION")]
    pub last: Option<String>,
}

/// `plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The spec.
    #[command(flatten)]
    pub spec: SpecFile,
    /// Another window.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Slots that will read [default: those of one worker]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub slots: Option<u32>,
    /// Also save the plan to a file: the spec, every pinned file, the digests of the plan, the estimate
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// End with 10 when there is work, and with 0 when there is none
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// `source`.
#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// Show the columns, event times, files, rows and bounds of a spec's sources
    Describe {
        /// The spec.
        #[command(flatten)]
        spec: SpecFile,
        /// Only this source
        #[arg(value_name = "SOURCE")]
        source: Option<String>,
    },
}

/// `table`.
#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Show the snapshots of a table, and which backfills left them
    Snapshots {
        /// The table: [catalog.]namespace.table
        #[arg(value_name = "TABLE")]
        table: String,
    },
}

/// `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A backfill (its id, a unique beginning of it, or its name), or a table: then every backfill that wrote to it
    #[arg(value_name = "ID|TABLE")]
    pub of: String,
    /// Take the journal from the state folder of a run that is over, in place of a coordinator
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// What a schema is of.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Schema {
    /// A spec
    Spec,
    /// The configuration, tidegate.yaml
    Config,
    /// What `-o json` prints
    Output,
}

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The spec.
    #[command(flatten)]
    pub spec: SpecFile,
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
        let spec = SpecFile { file: PathBuf::new() };
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
pub(crate) struct Demo {
    /// Where the demo's data, state and tables go
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

/// A backfill.
#[derive(Debug, Args)]
pub(crate) struct OfBackfill {
    /// Its id, a unique beginning of it, or its name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The backfill.
    #[command(flatten)]
    pub of: OfBackfill,
    /// Wait for its end; the exit code is then that of the backfill
    #[arg(long)]
    pub wait: bool,
    /// How long to wait at most: `90s`, `2h30m`; exit code 8 when it is over
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = duration)]
    pub timeout: Option<std::time::Duration>,
}

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The backfill.
    #[command(flatten)]
    pub of: OfBackfill,
    /// Go on until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only events behind this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
}

/// `pause`, `resume`, `cancel`, `retry`.
#[derive(Debug, Args)]
pub(crate) struct Change {
    /// The backfill.
    #[command(flatten)]
    pub of: OfBackfill,
    /// Why; it is kept with the backfill
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Do not ask (only `cancel` and `publish` do)
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

/// `publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// What every change takes.
    #[command(flatten)]
    pub change: Change,
    /// Return once it is accepted, without waiting for its end
    #[arg(long, conflicts_with = "dry_run")]
    pub detach: bool,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the configuration as it is put together; secrets are never shown
    View {
        /// Say where each value comes from
        #[arg(long)]
        show_origin: bool,
    },
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span = tidegate_common::spec::parse_span(text).map_err(|bad| bad.to_string())?;
    u64::try_from(span.as_micros()).map(std::time::Duration::from_micros).map_err(|_| "it is negative".to_owned())
}

#[cfg(test)]
mod tests;
