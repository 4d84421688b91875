//! The roles and their configuration: `coordinator`, `worker`, `config`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::duration;

/// `coordinator`.
#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// Where to listen; port 0 takes a free one [env: TIDEGATE_LISTEN] [default: 127.0.0.1:7411]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// The folder of its state [env: TIDEGATE_STATE] [default: .tidegate]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How long a worker's lease lasts without a renewal
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = lease)]
    pub lease: std::time::Duration,
    /// After how many failures in a row a commit ends its backfill; the pause between two doubles, up to 30s
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub commit_tries: u32,
    /// Listen where other machines can connect, although nothing is encrypted and nobody is asked who they are
    #[arg(long)]
    pub insecure_listen_anywhere: bool,
}

/// `worker`.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// How many read tasks it takes at once [env: TIDEGATE_WORKER_SLOTS] [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// Its memory budget [env: TIDEGATE_WORKER_MEMORY] [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Where rows wait to be joined, the same for all workers: a folder, or s3://bucket/prefix [env:
    /// TIDEGATE_WORKER_SHUFFLE] [default: shuffle in the folder of the state]
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) shuffle: Option<String>,
    /// Its name, for people [env: TIDEGATE_WORKER_NAME] [default: the host's name and the process id]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A folder below which specs may read files and write tables; may be given more than once. Nothing is allowed
    /// until it is said [env: TIDEGATE_ALLOW_PATHS]
    #[arg(long = "allow-path", value_name = "DIR")]
    pub(crate) allow_paths: Vec<PathBuf>,
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

fn lease(text: &str) -> Result<std::time::Duration, String> {
    let lease = duration(text)?;
    let sensible = std::time::Duration::from_millis(500)..=std::time::Duration::from_secs(3600);
    if sensible.contains(&lease) { Ok(lease) } else { Err("a lease lasts from 500ms to 1h".to_owned()) }
}
