//! `checkpoint`, `stream` and `handoff`, as clap reads them.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::SpecFile;

/// `checkpoint`.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// Show the consumer groups of a cluster, or the batches of a Spark query
    List(CheckpointOf),
    /// Show where each partition stands: position, lag, age, retention headroom
    Inspect(CheckpointOf),
    /// Keep the positions in a file, or a Spark query's folder in another
    Backup(Backup),
    /// Say whether positions, a query's folder or a backup can still be read from
    Verify(Verify),
    /// Put back what a backup holds; a dry run unless --execute
    Restore(Restore),
    /// Move the positions; a dry run unless --execute
    Reset(Reset),
}

/// Whose positions, and where.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CheckpointOf {
    /// The brokers: host:port, more behind commas
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "spec")]
    pub bootstrap_server: Option<String>,
    /// A file of client properties, as Kafka's own tools take it
    #[arg(long, value_name = "FILE", requires = "bootstrap_server")]
    pub command_config: Option<PathBuf>,
    /// A spec whose Kafka source names brokers and topic, and whose `live` the group
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Which source of the spec, where several read Kafka
    #[arg(long, value_name = "NAME", requires = "spec")]
    pub source: Option<String>,
    /// The consumer group
    #[arg(long, value_name = "GROUP", conflicts_with = "spark")]
    pub group: Option<String>,
    /// Only this topic, or these partitions of it; may be given more than once
    #[arg(long = "topic", value_name = "T[:P,P]")]
    pub topics: Vec<String>,
    /// The checkpoint folder of a Spark query: a path, or s3://bucket/key
    #[arg(long, value_name = "FOLDER")]
    pub spark: Option<String>,
}

/// `checkpoint backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Whose.
    #[command(flatten)]
    pub of: CheckpointOf,
    /// The file, or for Spark the empty folder [default: tidegate-checkpoint-NAME-TIME here]
    #[arg(long, value_name = "PATH")]
    pub out: Option<String>,
}

/// `checkpoint verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A backup; without one, the group or the folder itself
    #[arg(value_name = "BACKUP")]
    pub backup: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: CheckpointOf,
}

/// How something severe is asked for.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WayArgs {
    /// Do it; without this it is only shown
    #[arg(long)]
    pub execute: bool,
    /// The name of what is changed, in place of typing it
    #[arg(long, value_name = "NAME", requires = "execute")]
    pub confirm: Option<String>,
    /// Go on where records would be lost: skipped unread, or no longer in the log
    #[arg(long)]
    pub allow_gap: bool,
    /// Where the positions are kept before they change [default: tidegate-checkpoint-NAME-TIME here]
    #[arg(long, value_name = "PATH")]
    pub backup_to: Option<String>,
}

/// `checkpoint restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// Whose.
    #[command(flatten)]
    pub of: CheckpointOf,
    /// How.
    #[command(flatten)]
    pub way: WayArgs,
}

/// `checkpoint reset`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true).args([
    "to_earliest", "to_latest", "to_datetime", "by_duration", "to_offset", "shift_by", "from_handoff",
])))]
pub(crate) struct Reset {
    /// Whose.
    #[command(flatten)]
    pub of: CheckpointOf,
    /// All topics that have a position, where none is named
    #[arg(long, conflicts_with = "topics")]
    pub all_topics: bool,
    /// To the first record that is there
    #[arg(long)]
    pub to_earliest: bool,
    /// To the end
    #[arg(long)]
    pub to_latest: bool,
    /// To the first record of this time or later: RFC 3339; UTC where it has no offset
    #[arg(long, value_name = "TIME")]
    pub to_datetime: Option<String>,
    /// To the first record of that long ago or later: `2h30m`, `PT2H30M`
    #[arg(long, value_name = "DURATION")]
    pub by_duration: Option<String>,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// By so many offsets, forward or backward
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub shift_by: Option<i64>,
    /// To where a backfill ended: the file that `handoff` wrote
    #[arg(long, value_name = "FILE")]
    pub from_handoff: Option<PathBuf>,
    /// How.
    #[command(flatten)]
    pub way: WayArgs,
}

/// `stream`.
#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Show the live job's group: its members, its positions
    Status(SpecFile),
    /// Run the spec's `live.pause`, wait until the group is inactive, and keep its positions
    Pause(StreamChange),
    /// Run the spec's `live.resume`, from where a backfill ended if that is said
    Resume(StreamResume),
}

/// `stream pause`.
#[derive(Debug, Args)]
pub(crate) struct StreamChange {
    /// The spec.
    #[command(flatten)]
    pub spec: SpecFile,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show the command, and do not run it
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// How long the group may take to become inactive, or active
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = super::duration)]
    pub timeout: std::time::Duration,
    /// Where the positions are kept [default: tidegate-checkpoint-NAME-TIME here]
    #[arg(long, value_name = "PATH")]
    pub backup_to: Option<String>,
}

/// `stream resume`.
#[derive(Debug, Args)]
pub(crate) struct StreamResume {
    /// What every change takes.
    #[command(flatten)]
    pub change: StreamChange,
    /// First move the group to where a backfill ended: the file that `handoff` wrote
    #[arg(long, value_name = "FILE")]
    pub from_handoff: Option<PathBuf>,
    /// The group's name, in place of typing it, with --from-handoff
    #[arg(long, value_name = "NAME", requires = "from_handoff")]
    pub confirm: Option<String>,
    /// Go on where records would be lost, with --from-handoff
    #[arg(long, requires = "from_handoff")]
    pub allow_gap: bool,
}

/// `handoff`.
#[derive(Debug, Args)]
pub(crate) struct Handoff {
    /// The backfill: its id, a unique beginning of it, or its name
    #[arg(value_name = "ID")]
    pub id: String,
    /// The file [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The live job's group, kept in the file [default: the one that the spec's scan names]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Take the journal from the state folder of a run that is over, in place of a coordinator
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}
