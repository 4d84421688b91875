//! The command line, as clap reads it.
//!
//! Nothing has a default here that the configuration could set: flags win, but only when they are given.

mod checkpoint;
mod looking;
mod roles;
mod running;
mod steering;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};

pub(crate) use self::checkpoint::{
    Backup as CheckpointBackup, CheckpointCommand, CheckpointOf, Handoff, Reset, Restore, StreamChange, StreamCommand,
    StreamResume, Verify as CheckpointVerify, WayArgs,
};
pub(crate) use self::looking::{LateCommand, LateExport, Plan, Schema, SourceCommand, TableCommand, Verify};
pub(crate) use self::roles::{ConfigCommand, Coordinator, Worker};
pub(crate) use self::running::{Apply, Demo, DemoCommand, LoadKafka, Loadtest, Run};
pub(crate) use self::steering::{Change, Events, OfBackfill, Publish, Status};
use crate::output::Format;
use crate::style::Color;

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
    /// Look at rows that came when their slice was joined
    Late {
        /// What to do with them
        #[command(subcommand)]
        command: LateCommand,
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

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span = tidegate_common::spec::parse_span(text).map_err(|bad| bad.to_string())?;
    u64::try_from(span.as_micros()).map(std::time::Duration::from_micros).map_err(|_| "it is negative".to_owned())
}
