//! The worker protocol: one session a worker, and the files of an intent.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt};
use prost::Message;
use tidegate_common::ids::{OutputIx, Sequence, SessionId, TaskId};
use tidegate_proto::convert;
use tidegate_proto::v1::{self, from_coordinator, from_worker, workers_server::Workers};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::inbound;
use crate::core::{Event, LeaseRef};
use crate::driver::{Coordinator, LogRange, SESSION_QUEUE};

/// The version that a worker must be of: this build's.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves workers.
pub(super) struct WorkerService {
    coordinator: Coordinator,
    next_session: AtomicU64,
}

impl WorkerService {
    pub(super) fn new(coordinator: Coordinator) -> Self {
        Self { coordinator, next_session: AtomicU64::new(1) }
    }
}

#[tonic::async_trait]
impl Workers for WorkerService {
    type SessionStream = Outgoing<v1::FromCoordinator>;
    type ReadIntentStream = Outgoing<v1::OutputPart>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|message| message.kind);
        let Some(from_worker::Kind::Register(register)) = first else {
            return Err(Status::invalid_argument("a session begins with Register"));
        };
        if register.version != VERSION {
            return Err(Status::failed_precondition(format!(
                "worker {} is of version {}, this coordinator of {VERSION}: run the same version on both",
                register.worker, register.version
            )));
        }
        let registration = inbound::registration(register).map_err(bad_message)?;
        let session = SessionId::new(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (outgoing, queue) = mpsc::channel(SESSION_QUEUE);
        let lease = self.coordinator.lease();
        let welcome = v1::Welcome {
            lease_millis: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            heartbeat_millis: u64::try_from(lease.as_millis() / 4).unwrap_or(u64::MAX).max(1),
            coordinator: VERSION.to_owned(),
        };
        outgoing.try_send(from_coordinator::Kind::Welcome(welcome)).map_err(|_| Status::internal("no room"))?;
        self.coordinator.open_session(session, outgoing).await.map_err(gone)?;
        self.coordinator.event(Event::Joined(session, registration)).await.map_err(gone)?;
        tokio::spawn(receive(self.coordinator.clone(), session, incoming));
        let messages = ReceiverStream::new(queue).map(|kind| Ok(v1::FromCoordinator { kind: Some(kind) }));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn read_intent(
        &self,
        request: Request<v1::ReadIntentRequest>,
    ) -> Result<Response<Self::ReadIntentStream>, Status> {
        let request = request.into_inner();
        let output = request.output;
        let lease = LeaseRef {
            session: SessionId::default(),
            id: convert::backfill_id(&request.backfill).map_err(bad_message)?,
            task: TaskId::Commit(OutputIx::new(output), Sequence::new(request.sequence)),
            token: convert::token(request.token).map_err(bad_message)?,
        };
        let found = self.coordinator.look(move |core, log| {
            let intent = core.permitted_intent(&lease)?;
            Some((log.range(&lease.id, intent.log_from, intent.log_to)?, intent.log_from, intent.log_to))
        });
        let Some((range, from, to)) = found.await.map_err(gone)? else {
            return Err(Status::failed_precondition("the commit permit is no longer valid"));
        };
        let (parts, queue) = mpsc::channel(4);
        tokio::spawn(send_parts(self.coordinator.clone(), range, from..to, output, parts));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

/// Takes a worker's messages until its stream ends or makes no sense.
async fn receive(coordinator: Coordinator, session: SessionId, mut incoming: Streaming<v1::FromWorker>) {
    loop {
        let message = match incoming.message().await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%session, %error, "the session is lost");
                break;
            }
        };
        match inbound::event(session, message) {
            Ok(event) => {
                if coordinator.event(event).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%session, %error, "the worker sent what makes no sense: its session is closed");
                break;
            }
        }
    }
    // Fails only when the driver is gone, and with it every session.
    let _ = coordinator.event(Event::Left(session)).await;
}

/// Reads the log and sends what it holds for one output, in order.
async fn send_parts(
    coordinator: Coordinator,
    range: LogRange,
    wanted: std::ops::Range<u64>,
    output: u32,
    parts: mpsc::Sender<Result<v1::OutputPart, Status>>,
) {
    let mut position = range.first;
    for path in range.blobs {
        let blob = match coordinator.blobs().get(&path).await {
            Ok(bytes) => v1::LogBlob::decode(bytes).map_err(|bad| Status::data_loss(format!("{path}: {bad}"))),
            Err(error) => Err(Status::unavailable(format!("{path}: {error}"))),
        };
        let records = match blob {
            Ok(blob) => blob.records,
            Err(status) => return drop(parts.send(Err(status)).await),
        };
        for record in records {
            let Some(v1::record::Kind::HandIn(accepted)) = record.kind else { continue };
            let here = position;
            position += 1;
            if !wanted.contains(&here) {
                continue;
            }
            let all = accepted.hand_in.map(|hand_in| hand_in.outputs).unwrap_or_default();
            for part in all.into_iter().filter(|part| part.output == output && !part.files.is_empty()) {
                if parts.send(Ok(part)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn bad_message(bad: convert::BadMessage) -> Status {
    Status::invalid_argument(bad.to_string())
}

fn gone(gone: crate::driver::Gone) -> Status {
    Status::unavailable(gone.to_string())
}
