//! The connection of a session: waiting to connect, connecting, or up.

use std::pin::Pin;
use std::time::Duration;

use backon::BackoffBuilder;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_common::clock::Monotonic;
use tidegate_proto::v1;
use tidegate_proto::v1::workers_client::WorkersClient;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::MAX_MESSAGE;

/// Messages that wait for the connection; what has no room waits in the session.
const QUEUE: usize = 8;
/// How long a connection may take until its Welcome.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a session cannot go on, ever.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The coordinator will not have this worker: another version, another deployment, no right.
    #[error("the coordinator refuses worker {worker} (version {version}): {reason}")]
    Refused {
        /// The worker's name.
        worker: String,
        /// Its version.
        version: &'static str,
        /// What the coordinator said.
        reason: String,
    },
}

/// A session that was welcomed.
pub(crate) struct Up {
    pub(crate) welcome: v1::Welcome,
    /// When its Register was sent, at the latest.
    pub(crate) sent: Monotonic,
    pub(crate) out: mpsc::Sender<v1::FromWorker>,
    incoming: Box<Streaming<v1::FromCoordinator>>,
}

/// What a connection has to say.
pub(crate) enum Heard {
    /// It is time to connect.
    Due,
    /// The session is up.
    Up(Box<Up>),
    /// A message.
    Message(Box<v1::FromCoordinator>),
    /// There is no session any more; it is worth another try.
    Lost(Status),
}

enum Stage {
    Waiting(Pin<Box<Sleep>>),
    Connecting(BoxFuture<'static, Result<Up, Status>>),
    Up(Box<Streaming<v1::FromCoordinator>>),
}

/// The connection, in whatever stage it is.
pub(crate) struct Link {
    channel: Channel,
    stage: Stage,
    backoff: backon::ExponentialBackoff,
}

impl Link {
    /// A connection that is due.
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, stage: waiting(Duration::ZERO), backoff: backoff() }
    }

    /// Sends `register` at `now` and waits for the Welcome.
    pub(crate) fn connect(&mut self, register: v1::Register, now: Monotonic) {
        self.stage = Stage::Connecting(greet(self.channel.clone(), register, now).boxed());
    }

    /// The session is up: its messages come from here.
    pub(crate) fn established(&mut self, up: Up) -> mpsc::Sender<v1::FromWorker> {
        self.backoff = backoff();
        self.stage = Stage::Up(up.incoming);
        up.out
    }

    /// Gives the connection up and waits a while; the time spent waiting grows with each try.
    pub(crate) fn lose(&mut self) {
        self.stage = waiting(self.backoff.next().unwrap_or(PATIENCE));
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up(_))
    }

    /// What comes next; cancel-safe.
    pub(crate) async fn next(&mut self) -> Heard {
        match &mut self.stage {
            Stage::Waiting(wait) => {
                wait.await;
                Heard::Due
            }
            Stage::Connecting(greeting) => match greeting.await {
                Ok(up) => Heard::Up(Box::new(up)),
                Err(status) => Heard::Lost(status),
            },
            Stage::Up(incoming) => match incoming.message().await {
                Ok(Some(message)) => Heard::Message(Box::new(message)),
                Ok(None) => Heard::Lost(Status::unavailable("the coordinator ended the session")),
                Err(status) => Heard::Lost(status),
            },
        }
    }
}

/// Whether a later try cannot end otherwise.
pub(crate) fn is_final(status: &Status) -> bool {
    use Code::{FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented};
    matches!(status.code(), FailedPrecondition | InvalidArgument | PermissionDenied | Unauthenticated | Unimplemented)
}

fn waiting(time: Duration) -> Stage {
    Stage::Waiting(Box::pin(tokio::time::sleep(time)))
}

fn backoff() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

async fn greet(channel: Channel, register: v1::Register, sent: Monotonic) -> Result<Up, Status> {
    let (out, queue) = mpsc::channel(QUEUE);
    let first = v1::FromWorker { kind: Some(v1::from_worker::Kind::Register(register)) };
    out.try_send(first).map_err(|_| Status::internal("a new queue has room"))?;
    let mut client =
        WorkersClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let greeting = async {
        let mut incoming = client.session(ReceiverStream::new(queue)).await?.into_inner();
        let first = incoming.message().await?.and_then(|message| message.kind);
        match first {
            Some(v1::from_coordinator::Kind::Welcome(welcome)) => {
                Ok(Up { welcome, sent, out, incoming: Box::new(incoming) })
            }
            Some(_) => Err(Status::data_loss("the session did not begin with a Welcome")),
            None => Err(Status::unavailable("the coordinator ended the session before its Welcome")),
        }
    };
    let timely = tokio::time::timeout(PATIENCE, greeting).await;
    timely.unwrap_or_else(|_| Err(Status::deadline_exceeded("no Welcome came")))
}
