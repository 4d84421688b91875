//! What looks and changes nothing: `plan`, `source`, `table`, `late`, `verify`, `schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{OfBackfill, SpecFile, WindowArgs};

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
    /// Also save the plan to a file, to be applied later: exactly what it says, or nothing
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// End with 10 when there is work, and with 0 when there is none
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// `source`.
#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// Show the columns, event times, files or partitions, rows and bounds of a spec's sources
    Describe {
        /// The spec.
        #[command(flatten)]
        spec: SpecFile,
        /// Only this source
        #[arg(value_name = "SOURCE")]
        source: Option<String>,
    },
    /// Show the first records of a spec's sources, decoded; those that do not decode are named on stderr
    Sample {
        /// The spec.
        #[command(flatten)]
        spec: SpecFile,
        /// Only this source
        #[arg(value_name = "SOURCE")]
        source: Option<String>,
        /// How many records of each source
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
    },
    /// Show where the ranges of a spec's Kafka sources lie in their logs, partition by partition
    Offsets {
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

/// `late`.
#[derive(Debug, Subcommand)]
pub(crate) enum LateCommand {
    /// Show how many rows of each source came late, how late, and the windows that went without some
    List(OfBackfill),
    /// Write a backfill's late rows out of the tables that keep them, a line of JSON each
    Export(LateExport),
}

/// `late export`.
#[derive(Debug, Args)]
pub(crate) struct LateExport {
    /// The backfill.
    #[command(flatten)]
    pub of: OfBackfill,
    /// Only those of this output of the spec
    #[arg(long = "of", value_name = "OUTPUT")]
    pub only: Option<String>,
    /// A new file for them, in place of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
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
    /// What `-o json` prints: backfills, lists of them, events, plans, specs in short
    Output,
}
