//! What follows a backfill and steers it: `status`, `events`, `pause` and its like, `publish`.

use clap::Args;

use super::duration;

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
