//! The driver: the one task that owns the core.
//!
//! It turns messages and timers into events, steps the core, makes what follows durable and only then lets anything
//! out. It decides nothing. A store that fails for good, or a head that somebody else has moved, ends it: the process
//! restarts, and the journal says where it was.

mod error;
mod journal;
mod submission;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sha2::{Digest, Sha256};
use tidegate_common::clock;
use tidegate_common::ids::{BackfillId, SessionId};
use tidegate_proto::v1::{self, from_coordinator};
use tokio::sync::{mpsc, oneshot, watch};

pub use error::DriverError;
pub use journal::{LogRange, POINTS, SEGMENT_AFTER, SEGMENT_BEFORE, read_journals};
pub use submission::{BadSpec, core_spec, resolve};

use crate::core::{Action, Config, Core, Event, Now, Refusal, Reply, RequestId};
use crate::store::blobs::Blobs;
use crate::store::meta::MetaStore;
use journal::Journal;

/// Messages that wait for the driver at most.
const INBOX: usize = 4096;
/// Messages that wait for a worker at most; one that falls further behind loses its session.
pub const SESSION_QUEUE: usize = 1024;
/// Messages that are stepped before their journal is written: one group commit.
const BATCH: usize = 256;

type Answer = oneshot::Sender<Result<Reply, Refusal>>;
type Look = Box<dyn FnOnce(&Core, &Log<'_>) + Send>;
/// What a session sends to its worker.
pub type Outgoing = mpsc::Sender<from_coordinator::Kind>;

enum Message {
    Event(Event),
    Request(Box<dyn FnOnce(RequestId) -> Event + Send>, Answer),
    Look(Look),
    Opened(SessionId, Outgoing),
}

/// Where the logs are, for whoever reads them.
pub struct Log<'a>(&'a Journal);

impl Log<'_> {
    /// Where the hand-ins `[from, to)` are.
    pub fn range(&self, id: &BackfillId, from: u64, to: u64) -> Option<LogRange> {
        self.0.range(id, from, to)
    }

    /// The numbers and paths of the log's blobs from `number` on.
    pub fn blobs_from(&self, id: &BackfillId, number: u64) -> Vec<(u64, String)> {
        self.0.blobs_from(id, number)
    }
}

/// The driver is gone: the coordinator is shutting down or was deposed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub struct Gone;

/// A handle to a running coordinator.
#[derive(Clone)]
pub struct Coordinator {
    inbox: mpsc::Sender<Message>,
    blobs: Blobs,
    lease: Duration,
    changes: watch::Receiver<u64>,
}

impl Coordinator {
    /// Tells the driver of an event.
    pub async fn event(&self, event: Event) -> Result<(), Gone> {
        self.inbox.send(Message::Event(event)).await.map_err(|_| Gone)
    }

    /// Asks for something; the answer comes when it is durable.
    pub async fn request(
        &self,
        event: impl FnOnce(RequestId) -> Event + Send + 'static,
    ) -> Result<Result<Reply, Refusal>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Message::Request(Box::new(event), answer)).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Looks at the core and the logs between two steps.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core, &Log<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |core, log| drop(answer.send(look(core, log))));
        self.inbox.send(Message::Look(look)).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Opens a session: what the core has to say to it goes to `outgoing`.
    pub async fn open_session(&self, session: SessionId, outgoing: Outgoing) -> Result<(), Gone> {
        self.inbox.send(Message::Opened(session, outgoing)).await.map_err(|_| Gone)
    }

    /// The coordinator's blobs, to be read.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// How long a lease lasts.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Changes whenever something may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The task that owns the core.
pub struct Driver {
    core: Core,
    journal: Journal,
    blobs: Blobs,
    inbox: mpsc::Receiver<Message>,
    /// For what comes back from its own reads; weak, so that the inbox closes when the last handle is gone.
    own: mpsc::WeakSender<Message>,
    sessions: BTreeMap<SessionId, Outgoing>,
    requests: BTreeMap<RequestId, Answer>,
    next_request: u64,
    /// Whoever looks sees only what is durable: they wait until the batch is.
    looks: Vec<Look>,
    changed: watch::Sender<u64>,
}

impl Driver {
    /// Opens the stores, reads every backfill back and takes up those that have not ended.
    ///
    /// # Errors
    /// What the stores say, or a record that this build cannot read.
    pub async fn open(
        config: Config,
        meta: Arc<dyn MetaStore>,
        blobs: Blobs,
    ) -> Result<(Coordinator, Self), DriverError> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (changed, changes) = watch::channel(0);
        let lease = config.lease;
        let mut journal = Journal::new(meta, blobs.clone());
        let mut core = Core::new(config);
        let mut ids = Vec::new();
        for found in journal.recover().await? {
            core.restore(found.id.clone(), spec_of(&found)?, &found.records);
            ids.push(found.id);
        }
        let mut driver = Self {
            core,
            journal,
            blobs: blobs.clone(),
            inbox,
            own: sender.downgrade(),
            sessions: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            looks: Vec::new(),
            changed,
        };
        let mut actions = Vec::new();
        for id in ids {
            actions.extend(driver.core.step(now(), Event::TakeUp(id)));
        }
        driver.perform(actions).await?;
        Ok((Coordinator { inbox: sender, blobs, lease, changes }, driver))
    }

    /// Runs until every handle is gone.
    ///
    /// # Errors
    /// A store that fails for good, or another coordinator that has taken over.
    pub async fn run(mut self) -> Result<(), DriverError> {
        loop {
            let due = self.core.next_wake().map(|at| at.since(clock::monotonic()));
            let tick = async {
                match due {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let mut actions = tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return Ok(()),
                },
                () = tick => self.core.step(now(), Event::Tick),
            };
            for _ in 1..BATCH {
                let Ok(message) = self.inbox.try_recv() else { break };
                actions.extend(self.take(message));
            }
            self.perform(actions).await?;
            for look in std::mem::take(&mut self.looks) {
                look(&self.core, &Log(&self.journal));
            }
        }
    }

    fn take(&mut self, message: Message) -> Vec<Action> {
        match message {
            Message::Event(event) => {
                if let Event::Left(session) = &event {
                    self.sessions.remove(session);
                }
                self.core.step(now(), event)
            }
            Message::Request(event, answer) => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                self.requests.insert(request, answer);
                self.core.step(now(), event(request))
            }
            Message::Look(look) => {
                self.looks.push(look);
                Vec::new()
            }
            Message::Opened(session, outgoing) => {
                self.sessions.insert(session, outgoing);
                Vec::new()
            }
        }
    }

    /// Makes what is journalled durable, then does the rest.
    async fn perform(&mut self, actions: Vec<Action>) -> Result<(), DriverError> {
        if actions.is_empty() {
            return Ok(());
        }
        for action in self.journal.commit(actions).await? {
            match action {
                Action::Send(session, kind) => self.send(session, kind),
                Action::Reply(request, answer) => {
                    // Whoever asked may have gone; what was asked for is done all the same.
                    self.requests.remove(&request).map(|waiting| waiting.send(answer));
                }
                Action::LoadSegment { id, source, segment, info } => {
                    let (blobs, own) = (self.blobs.clone(), self.own.clone());
                    tokio::spawn(async move {
                        let tasks = load_segment(&blobs, &info).await;
                        if let Some(own) = own.upgrade() {
                            let loaded = Event::SegmentLoaded(id, source, segment, tasks);
                            drop(own.send(Message::Event(loaded)).await);
                        }
                    });
                }
                Action::Journal(..) | Action::TableRecord(..) | Action::WriteBlob(..) => {}
            }
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// A worker that does not keep up loses its session, never the driver its time.
    fn send(&mut self, session: SessionId, kind: from_coordinator::Kind) {
        let Some(outgoing) = self.sessions.get(&session) else { return };
        if let from_coordinator::Kind::HandInReply(v1::HandInReply {
            backfill, attempt, reason, accepted: false, ..
        }) = &kind
        {
            tracing::info!(%session, backfill, attempt, reason, "hand-in refused");
        }
        if let Err(mpsc::error::TrySendError::Full(_)) = outgoing.try_send(kind) {
            tracing::warn!(%session, "the worker does not keep up with its messages: its session is closed");
            self.sessions.remove(&session);
        }
    }
}

fn now() -> Now {
    Now { monotonic: clock::monotonic(), processing: clock::processing_time_micros() }
}

fn spec_of(found: &journal::Found) -> Result<crate::core::CoreSpec, DriverError> {
    let unreadable = |why: String| DriverError::Unreadable { what: format!("backfill {}", found.id), why };
    let json = found.records.iter().find_map(|record| match &record.kind {
        Some(v1::record::Kind::Created(created)) => Some(&created.spec_json),
        _ => None,
    });
    let json = json.ok_or_else(|| unreadable("its log does not say how it was created".to_owned()))?;
    Ok(core_spec(&resolve(json).map_err(|bad| unreadable(bad.to_string()))?))
}

async fn load_segment(blobs: &Blobs, info: &v1::record::SegmentInfo) -> Option<Vec<v1::ReadTask>> {
    let bytes = match blobs.get(&info.blob).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(blob = info.blob, %error, "a plan segment cannot be read; it is tried again");
            return None;
        }
    };
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != info.sha256 {
        tracing::error!(blob = info.blob, "a plan segment is not what was written: its hash differs");
        return None;
    }
    v1::PlanSegment::decode(bytes).ok().map(|segment| segment.tasks)
}
