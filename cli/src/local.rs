//! Local mode: the same coordinator and workers in one process, over the same session through memory.
//!
//! There is no second engine: what runs here is what runs on many nodes, less the network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tidegate_coordinator::core::Config;
use tidegate_coordinator::driver::{Driver, DriverError};
use tidegate_coordinator::service;
use tidegate_coordinator::store::StoreError;
use tidegate_coordinator::store::blobs::Blobs;
use tidegate_coordinator::store::redb::RedbStore;
use tidegate_worker::worker::{self, WorkerConfig, WorkerError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Bytes that lie between a worker and the coordinator at most.
const PIPE: usize = 1 << 20;

/// Why a local run cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    /// The state folder cannot be used.
    #[error("the state folder cannot be used")]
    State(#[from] StoreError),
    /// The coordinator ended.
    #[error("the coordinator in this process ended")]
    Coordinator(#[from] DriverError),
    /// A worker ended.
    #[error("a worker in this process ended")]
    Worker(#[from] WorkerError),
    /// The in-memory connection failed.
    #[error("the connection within this process failed")]
    Transport(#[from] tonic::transport::Error),
    /// A task of this process died.
    #[error("a task of this process died")]
    Died(#[from] tokio::task::JoinError),
}

/// A coordinator and its workers in this process.
pub(crate) struct Local {
    /// To the coordinator.
    pub(crate) channel: Channel,
    stop_workers: CancellationToken,
    stop_server: CancellationToken,
    workers: Vec<JoinHandle<Result<(), WorkerError>>>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    driver: JoinHandle<Result<(), DriverError>>,
}

impl Local {
    /// Opens the state folder, takes up what it holds, and starts the workers.
    ///
    /// # Errors
    /// [`LocalError::State`] when another process uses the folder or it cannot be written.
    pub(crate) async fn start(
        state: PathBuf,
        workers: impl IntoIterator<Item = WorkerConfig>,
    ) -> Result<Self, LocalError> {
        let meta = Arc::new(RedbStore::open(&state).await?);
        // Nobody outside this process can hold anything, so nothing is waited for.
        let config = Config { grace: Duration::ZERO, ..Config::default() };
        let (coordinator, driver) = Driver::open(config, meta, Blobs::local(state.join("blobs"))).await?;
        let (stop_workers, stop_server) = (CancellationToken::new(), CancellationToken::new());
        let (connections, accepted) = mpsc::channel(16);
        let incoming = ReceiverStream::new(accepted).map(Ok::<_, std::io::Error>);
        let driver = tokio::spawn(driver.run());
        let router = service::router(coordinator).await;
        let stopped = stop_server.clone().cancelled_owned();
        let server = tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped));
        let endpoint = Endpoint::from_static("http://local");
        let connector = tower::service_fn(move |_| {
            let connections = connections.clone();
            async move {
                let (near, far) = tokio::io::duplex(PIPE);
                connections.send(far).await.map_err(|_| std::io::Error::other("the coordinator has ended"))?;
                Ok::<_, std::io::Error>(TokioIo::new(near))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await?;
        let workers = workers
            .into_iter()
            .map(|config| tokio::spawn(worker::run(config, channel.clone(), stop_workers.clone().cancelled_owned())));
        let workers = workers.collect();
        Ok(Self { channel, stop_workers, stop_server, workers, server, driver })
    }

    /// Ends with the first part that ends by itself: none should.
    pub(crate) async fn failed(&mut self) -> LocalError {
        let workers = futures::future::select_all(self.workers.iter_mut());
        tokio::select! {
            (ended, _, _) = workers => match ended {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) => DriverError::Deposed { key: "worker".to_owned() }.into(),
                Err(died) => died.into(),
            },
            ended = &mut self.driver => match ended {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) => DriverError::Deposed { key: "driver".to_owned() }.into(),
                Err(died) => died.into(),
            },
        }
    }

    /// Drains the workers, then ends the coordinator. What is durable stays; what was read since the last hand-in is
    /// handed in first.
    ///
    /// # Errors
    /// What a worker or the coordinator ended with.
    pub(crate) async fn stop(self) -> Result<(), LocalError> {
        self.stop_workers.cancel();
        for worker in self.workers {
            worker.await??;
        }
        drop(self.channel);
        self.stop_server.cancel();
        self.server.await??;
        Ok(self.driver.await??)
    }
}
