//! A worker: one process, many slots. It keeps a session and runs the tasks that it is assigned.

use std::sync::Arc;

use tidegate_common::fence::Fences;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::access::Access;
use crate::session::{self, SessionConfig, SessionError};
use crate::shuffle::ShuffleStore;
use crate::sink::Catalogs;
use crate::task::budget::Budget;
use crate::task::kinds::Kinds;
use crate::task::lease::Clock;
use crate::task::opened::{Reach, Shelf};

/// What a worker is and may.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its own name, for people; a worker that comes back under it takes up what it held.
    pub name: String,
    /// How many reads it takes at once; at least 1.
    pub slots: usize,
    /// Bytes of memory that all reads share.
    pub memory_bytes: u64,
    /// What specs may reach here.
    pub access: Access,
    /// The catalogs of the tables that it may read and write; workers of one process may share them.
    pub catalogs: Arc<Catalogs>,
    /// The catalog of a table whose name has none.
    pub default_catalog: String,
    /// Where rows wait to be joined; the same for all workers of a coordinator.
    pub shuffle: ShuffleStore,
    /// All of them, outside tests.
    pub fences: Fences,
}

/// Why a worker ended otherwise than by draining.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Its session cannot go on.
    #[error("the session cannot go on")]
    Session(#[from] SessionError),
    /// No threads for its tasks.
    #[error("the threads of the tasks cannot be started")]
    Threads(#[from] std::io::Error),
}

/// Works for the coordinator behind `channel` until `shutdown` resolves or the coordinator drains it: it then hands in
/// at the next unit boundaries, gives back the rest and ends. Lost connections are made again for as long as it takes.
///
/// # Errors
/// [`WorkerError::Session`] when the coordinator will never have this worker: another version, no right.
pub async fn run(
    config: WorkerConfig,
    channel: Channel,
    shutdown: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    let slots = config.slots.max(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Threads::start(slots.min(cores))?;
    let memory = usize::try_from(config.memory_bytes).unwrap_or(usize::MAX);
    let reach = Reach { access: config.access, catalogs: config.catalogs, default_catalog: config.default_catalog };
    let body = Kinds {
        catalogs: reach.catalogs.clone(),
        channel: channel.clone(),
        budget: Budget::new(config.memory_bytes),
        memory_per_read: memory / slots,
        slots,
        fences: config.fences.clone(),
        shelf: Shelf::new(reach),
        shuffle: config.shuffle,
    };
    let session = SessionConfig {
        worker: config.name,
        slots,
        memory: config.memory_bytes,
        clock: Clock::machine(),
        fences: config.fences,
    };
    Ok(session::run(session, Arc::new(body), threads.handle(), channel, shutdown).await?)
}

/// The threads that tasks run on, apart from the session's: no query and no encoder delays a heartbeat.
struct Threads(Option<Runtime>);

impl Threads {
    fn start(threads: usize) -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(threads)
            .thread_name("tidegate-task")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().map_or_else(tokio::runtime::Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime must not be waited for within another.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
