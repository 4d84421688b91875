//! The world of a session test: a worker whose bodies are puppets, and the coordinator's end of its sessions.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use tidegate_common::clock::Monotonic;
use tidegate_common::fence::Fences;
use tidegate_common::ids::BackfillId;
use tidegate_proto::v1;
use tidegate_proto::v1::from_coordinator::Kind as Down;
use tidegate_proto::v1::from_worker::Kind as Up;
use tidegate_proto::v1::workers_server::{Workers, WorkersServer};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::session::{SessionConfig, SessionError, run};
use crate::task::{Clock, Fenced, TaskBody, TaskContext, TaskEnd, TaskError, Verdict};

pub(crate) const LEASE: Duration = Duration::from_secs(10);

pub(crate) fn backfill() -> String {
    BackfillId::from_digest(&[7; 32]).to_string()
}

pub(crate) fn token(epoch: u64) -> Option<v1::Token> {
    Some(v1::Token { term: 1, epoch })
}

pub(crate) fn read_id(at: u32) -> v1::task_id::Kind {
    v1::task_id::Kind::Read(v1::task_id::ReadId { source: 0, segment: 0, at })
}

pub(crate) fn task(at: u32) -> Option<v1::TaskId> {
    Some(v1::TaskId { kind: Some(read_id(at)) })
}

pub(crate) fn assign(kind: v1::task_id::Kind, epoch: u64, work: v1::assign::Work) -> Down {
    let task = Some(v1::TaskId { kind: Some(kind) });
    Down::Assign(v1::Assign { backfill: backfill(), task, token: token(epoch), work: Some(work) })
}

pub(crate) fn read_work() -> v1::assign::Work {
    let task = v1::ReadTask { splits: Vec::new(), units: vec![v1::UnitOfWork::default(); 10] };
    let gate = v1::Gate { backfill: backfill(), watermark: 0, gate: None, readers: Vec::new() };
    v1::assign::Work::Read(v1::ReadWork { task: Some(task), next_unit: 0, gate: Some(gate), shapes: Vec::new() })
}

/// A body that does what the test says.
pub(crate) struct Puppet {
    pub(crate) context: TaskContext,
    end: oneshot::Sender<Option<Result<TaskEnd, TaskError>>>,
}

impl Puppet {
    pub(crate) fn end(self, end: Result<TaskEnd, TaskError>) {
        assert!(self.end.send(Some(end)).is_ok(), "the body was dropped");
    }

    pub(crate) fn panics(self) {
        assert!(self.end.send(None).is_ok(), "the body was dropped");
    }

    pub(crate) async fn dropped(&mut self) {
        self.end.closed().await;
    }

    pub(crate) fn hands_in(self, hand_in: v1::HandIn, released: bool) -> JoinHandle<(Self, Result<Verdict, Fenced>)> {
        tokio::spawn(async move {
            let verdict = self.context.hand_in(hand_in, released).await;
            (self, verdict)
        })
    }
}

struct Puppets(mpsc::Sender<Puppet>);

#[async_trait]
impl TaskBody for Puppets {
    async fn run(&self, context: TaskContext) -> Result<TaskEnd, TaskError> {
        let (end, ends) = oneshot::channel();
        self.0.send(Puppet { context, end }).await.map_err(|_| Fenced)?;
        match ends.await {
            Ok(Some(end)) => end,
            Ok(None) => panic!("as the test wishes"),
            Err(_) => Err(Fenced.into()),
        }
    }
}

type Out = mpsc::Sender<Result<v1::FromCoordinator, Status>>;

/// What the log holds: the parts of every intent.
pub(crate) type Log = Arc<Mutex<Vec<v1::OutputPart>>>;

struct Coordinator(mpsc::Sender<(Streaming<v1::FromWorker>, Out)>, Log);

#[async_trait]
impl Workers for Coordinator {
    type SessionStream = ReceiverStream<Result<v1::FromCoordinator, Status>>;
    type ReadIntentStream = BoxStream<'static, Result<v1::OutputPart, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, down) = mpsc::channel(16);
        let _ = self.0.send((request.into_inner(), out)).await;
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn read_intent(&self, _: Request<v1::ReadIntentRequest>) -> Result<Response<Self::ReadIntentStream>, Status> {
        let parts: Vec<_> = self.1.lock().unwrap().clone().into_iter().map(Ok).collect();
        Ok(Response::new(futures::stream::iter(parts).boxed()))
    }
}

fn channel(server: mpsc::UnboundedSender<Result<DuplexStream, std::io::Error>>) -> Channel {
    let connector = tower::service_fn(move |_| {
        let (near, far) = tokio::io::duplex(1 << 16);
        let _ = server.send(Ok(far));
        async move { Ok::<_, std::io::Error>(TokioIo::new(near)) }
    });
    Endpoint::from_static("http://coordinator").connect_with_connector_lazy(connector)
}

fn incoming(
    connections: mpsc::UnboundedReceiver<Result<DuplexStream, std::io::Error>>,
) -> impl Stream<Item = Result<DuplexStream, std::io::Error>> {
    futures::stream::unfold(connections, |mut from| async move { from.recv().await.map(|next| (next, from)) })
}

/// A coordinator's end of a channel: the sessions that are opened over it.
pub(crate) struct Sessions(mpsc::Receiver<(Streaming<v1::FromWorker>, Out)>);

/// Serves workers over memory.
pub(crate) fn serve(log: Log) -> (Channel, Sessions) {
    let (opens, sessions) = mpsc::channel(16);
    let (connects, connections) = mpsc::unbounded_channel();
    let server = WorkersServer::new(Coordinator(opens, log)).max_decoding_message_size(crate::session::MAX_MESSAGE);
    tokio::spawn(Server::builder().add_service(server).serve_with_incoming(incoming(connections).boxed()));
    (channel(connects), Sessions(sessions))
}

impl Sessions {
    /// The next session, with its Register.
    pub(crate) async fn next(&mut self) -> (Peer, v1::Register) {
        let (mut from, out) = self.0.recv().await.unwrap();
        let first = from.message().await.unwrap().unwrap().kind;
        let Some(Up::Register(register)) = first else { panic!("{first:?} is no Register") };
        (Peer { from, out, renews: true, beats: 0, said_draining: false, cursors: Vec::new() }, register)
    }
}

pub(crate) struct World {
    started: mpsc::Receiver<Puppet>,
    sessions: Sessions,
    worker: JoinHandle<Result<(), SessionError>>,
    shutdown: Option<oneshot::Sender<()>>,
    clock: Clock,
    skipped: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new(slots: usize) -> Self {
        let (zero, skipped) = (tokio::time::Instant::now(), Arc::new(AtomicU64::new(1)));
        let ahead = skipped.clone();
        let clock = Clock::reading(move || {
            let skipped = Duration::from_micros(ahead.load(Ordering::SeqCst));
            Monotonic::from_micros(0).after(zero.elapsed() + skipped)
        });
        let (starts, started) = mpsc::channel(16);
        let (channel, sessions) = serve(Log::default());
        let (shutdown, asked) = oneshot::channel::<()>();
        let config = SessionConfig {
            worker: "w-1".to_owned(),
            slots,
            memory: 1 << 30,
            clock: clock.clone(),
            fences: Fences::default(),
        };
        let cpu = tokio::runtime::Handle::current();
        let asked = async {
            if asked.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let worker = tokio::spawn(run(config, Arc::new(Puppets(starts)), cpu, channel, asked));
        Self { started, sessions, worker, shutdown: Some(shutdown), clock, skipped }
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.clock.now()
    }

    /// The process stands still for `time`: its clock has moved on when it wakes, and no timer has fired.
    pub(crate) fn skip(&self, time: Duration) {
        self.skipped.fetch_add(u64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn ended(self) -> Result<(), SessionError> {
        self.worker.await.unwrap()
    }

    /// The next session, with its Register.
    pub(crate) async fn session(&mut self) -> (Peer, v1::Register) {
        self.sessions.next().await
    }

    /// A session that is welcomed and knows the backfill.
    pub(crate) async fn up(&mut self) -> Peer {
        let (mut peer, _) = self.session().await;
        peer.welcome().await;
        peer.send(Down::Backfill(v1::BackfillInfo { backfill: backfill(), ..Default::default() })).await;
        peer
    }

    pub(crate) async fn started(&mut self) -> Puppet {
        self.started.recv().await.unwrap()
    }

    /// Assigns read task `at`.
    pub(crate) async fn reading(&mut self, peer: &mut Peer, at: u32, epoch: u64) -> Puppet {
        peer.send(assign(read_id(at), epoch, read_work())).await;
        self.started().await
    }
}

/// The coordinator's end of one session.
pub(crate) struct Peer {
    from: Streaming<v1::FromWorker>,
    out: Out,
    /// Whether heartbeats are answered.
    pub(crate) renews: bool,
    pub(crate) beats: u64,
    pub(crate) said_draining: bool,
    cursors: Vec<v1::Cursor>,
}

impl Peer {
    pub(crate) async fn send(&mut self, kind: Down) {
        self.out.send(Ok(v1::FromCoordinator { kind: Some(kind) })).await.unwrap();
    }

    pub(crate) async fn welcome(&mut self) {
        let lease_millis = u64::try_from(LEASE.as_millis()).unwrap();
        self.send(Down::Welcome(v1::Welcome { lease_millis, heartbeat_millis: 1_000, coordinator: "c".into() })).await;
    }

    pub(crate) async fn adopt(&mut self, at: u32, epoch: u64, attempt: &str, next_unit: u32) {
        let attempt = attempt.to_owned();
        let adopted = v1::Adopted { backfill: backfill(), task: task(at), token: token(epoch), attempt, next_unit };
        self.send(Down::Adopted(adopted)).await;
    }

    /// Ends the session with `status`.
    pub(crate) async fn lose(self, status: Status) {
        self.out.send(Err(status)).await.unwrap();
    }

    /// The next message; heartbeats are answered on the way. `None` when the worker ended the session.
    pub(crate) async fn heard(&mut self) -> Option<Up> {
        let kind = self.from.message().await.ok()??.kind?;
        if let Up::Heartbeat(beat) = &kind {
            self.beats += 1;
            self.said_draining |= beat.draining;
            self.cursors.clone_from(&beat.cursors);
            if self.renews {
                self.send(Down::Renewed(v1::Renewed { heartbeat: beat.number })).await;
            }
        }
        Some(kind)
    }

    /// Hears the worker out; whether it said that it drains.
    pub(crate) async fn heard_until_the_end(mut self) -> bool {
        while self.heard().await.is_some() {}
        self.said_draining
    }

    /// The next message that is no heartbeat.
    pub(crate) async fn next(&mut self) -> Up {
        loop {
            match self.heard().await.expect("the session goes on") {
                Up::Heartbeat(_) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self) {
        let Some(Up::Heartbeat(_)) = self.heard().await else { panic!("no heartbeat") };
    }

    /// Takes a heartbeat without answering it: its number.
    pub(crate) async fn heartbeat_unanswered(&mut self) -> u64 {
        let kind = self.from.message().await.unwrap().unwrap().kind;
        let Some(Up::Heartbeat(beat)) = kind else { panic!("{kind:?} is no heartbeat") };
        beat.number
    }

    pub(crate) async fn cursor(&mut self) -> v1::Cursor {
        self.heartbeat().await;
        while self.cursors.is_empty() {
            self.heartbeat().await;
        }
        self.cursors[0].clone()
    }

    pub(crate) async fn fail(&mut self) -> v1::Evidence {
        let next = self.next().await;
        let Up::Fail(fail) = next else { panic!("{next:?} is no failure") };
        fail.evidence.unwrap()
    }
}
