//! The loop that owns a worker's connection, its leases and its running tasks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tidegate_common::clock::Monotonic;
use tidegate_common::fence::Fences;
use tidegate_proto::v1;
use tidegate_proto::v1::from_worker::Kind as Up;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tonic::transport::Channel;

use super::link::{self, Heard, Link, SessionError};
use super::runs::Runs;
use super::state::{Grant, State};
use crate::task::{Clock, Report, RunId, TaskBody};

/// Reports of tasks that wait for the session, and messages that wait for the connection.
const QUEUE: usize = 16;
/// How long the coordinator may take to end a session that the worker has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a session tells its coordinator of the worker, and what it measures time with.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The worker's own name.
    pub worker: String,
    /// How many reads it takes at once.
    pub slots: usize,
    /// Bytes of memory that reads share.
    pub memory: u64,
    /// Where time comes from.
    pub clock: Clock,
    /// All of them, outside tests.
    pub fences: Fences,
}

/// Keeps a session over `channel`, connecting again whenever it is lost, until `shutdown` or the coordinator drains this
/// worker and every task has ended. Bodies run on `cpu`.
///
/// # Errors
/// [`SessionError::Refused`] when the coordinator will never have this worker.
pub async fn run(
    config: SessionConfig,
    body: Arc<dyn TaskBody>,
    cpu: Handle,
    channel: Channel,
    shutdown: impl Future<Output = ()>,
) -> Result<(), SessionError> {
    let (reports_in, reports) = mpsc::channel(QUEUE);
    let moved = Arc::new(Notify::new());
    let session = Session {
        state: State::new(config.slots, config.clock.clone(), config.fences.clone()),
        runs: Runs::new(body, cpu, reports_in, moved.clone()),
        link: Link::new(channel),
        out: None,
        outbox: VecDeque::new(),
        reports,
        moved,
        beat_due: Monotonic::default(),
        beat_every: Duration::MAX,
        config,
    };
    session.drive(std::pin::pin!(shutdown)).await
}

enum Event {
    Heard(Heard),
    Report(Report),
    CursorMoved,
    Shutdown,
    /// A message went out, or a time came that the loop itself looks at.
    Progress,
}

pub(super) struct Session {
    pub(super) config: SessionConfig,
    pub(super) state: State,
    pub(super) runs: Runs,
    link: Link,
    /// The way up, while the session is up.
    out: Option<mpsc::Sender<v1::FromWorker>>,
    outbox: VecDeque<v1::FromWorker>,
    reports: mpsc::Receiver<Report>,
    moved: Arc<Notify>,
    pub(super) beat_due: Monotonic,
    beat_every: Duration,
}

impl Session {
    async fn drive(mut self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> Result<(), SessionError> {
        loop {
            let now = self.config.clock.now();
            self.beat(now);
            if self.state.draining() && self.state.is_idle() && (self.outbox.is_empty() || self.out.is_none()) {
                return self.leave().await;
            }
            let event = self.next(now, shutdown.as_mut()).await;
            // First of all: the process may have been stopped for any length of time.
            let now = self.config.clock.now();
            self.fence(now);
            match event {
                Event::Heard(heard) => self.heard(heard, now)?,
                Event::Report(report) => self.reported(report),
                Event::CursorMoved => self.beat_due = now,
                Event::Shutdown => self.drain("the worker was asked to stop"),
                Event::Progress => {}
            }
        }
    }

    async fn next(&mut self, now: Monotonic, shutdown: Pin<&mut impl Future<Output = ()>>) -> Event {
        let beat = (self.out.is_some() && !self.beat_waits()).then_some(self.beat_due);
        let timer = beat.into_iter().chain(self.state.next_expiry()).min();
        let sleep = timer.map_or(Duration::from_secs(60), |at| at.since(now));
        let draining = self.state.draining();
        let Self { link, out, outbox, reports, moved, .. } = self;
        let room = out.as_ref().map_or(std::future::pending().left_future(), |out| out.reserve().right_future());
        tokio::select! {
            () = shutdown, if !draining => Event::Shutdown,
            heard = link.next() => Event::Heard(heard),
            Ok(permit) = room, if !outbox.is_empty() => {
                if let Some(message) = outbox.pop_front() {
                    permit.send(message);
                }
                Event::Progress
            }
            Some(report) = reports.recv(), if outbox.len() < QUEUE => Event::Report(report),
            () = moved.notified() => Event::CursorMoved,
            () = tokio::time::sleep(sleep) => Event::Progress,
        }
    }

    /// Sends a heartbeat where one is due; cursors that move while one waits to be sent go with the next.
    fn beat(&mut self, now: Monotonic) {
        if self.out.is_some() && self.state.is_deaf(now) {
            tracing::warn!("no answer for half a lease, connecting again");
            return self.lose();
        }
        if self.out.is_none() || self.beat_waits() || now < self.beat_due {
            return;
        }
        let promise = |id: RunId| self.state.cursor(id, self.runs.cursor(id)?);
        let cursors = self.state.ids().into_iter().filter_map(promise).collect();
        let number = self.state.beat(now);
        self.beat_due = now.after(self.beat_every);
        let beat = v1::Heartbeat { number, cursors, draining: self.state.draining() };
        // Ahead of all else: plan segments without end must not cost the lease.
        self.outbox.push_front(v1::FromWorker { kind: Some(Up::Heartbeat(beat)) });
    }

    /// Whether a heartbeat waits to be sent.
    fn beat_waits(&self) -> bool {
        let first = self.outbox.front().and_then(|message| message.kind.as_ref());
        matches!(first, Some(Up::Heartbeat(_)))
    }

    /// Drops what is past its lease.
    fn fence(&mut self, now: Monotonic) {
        for id in self.state.expired(now) {
            tracing::warn!(run = ?self.state.grant(id), "lease ended without a renewal, attempt abandoned");
            self.give_back(id);
        }
    }

    fn heard(&mut self, heard: Heard, now: Monotonic) -> Result<(), SessionError> {
        match heard {
            Heard::Due => self.register(now),
            Heard::Up(up) => self.welcomed(*up, now),
            Heard::Message(message) => {
                if let Err(bad) = self.told(*message) {
                    tracing::warn!(error = %bad, "message of the coordinator ignored");
                }
            }
            Heard::Lost(status) if link::is_final(&status) => {
                let (worker, version) = (self.config.worker.clone(), env!("CARGO_PKG_VERSION"));
                return Err(SessionError::Refused { worker, version, reason: status.message().to_owned() });
            }
            Heard::Lost(status) => {
                tracing::warn!(code = ?status.code(), reason = status.message(), "session lost, connecting again");
                self.lose();
            }
        }
        Ok(())
    }

    fn register(&mut self, now: Monotonic) {
        let register = v1::Register {
            worker: self.config.worker.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: u32::try_from(self.state.slots()).unwrap_or(u32::MAX),
            memory: self.config.memory,
            held: self.state.held(),
        };
        self.link.connect(register, now);
    }

    fn welcomed(&mut self, up: link::Up, now: Monotonic) {
        tracing::info!(coordinator = up.welcome.coordinator, "session up");
        self.state.welcomed(up.sent, Duration::from_millis(up.welcome.lease_millis));
        self.beat_every = Duration::from_millis(up.welcome.heartbeat_millis.max(1));
        self.beat_due = now.after(self.beat_every);
        self.out = Some(self.link.established(up));
    }

    fn lose(&mut self) {
        self.link.lose();
        self.out = None;
        self.outbox.clear();
        for id in self.state.lost() {
            self.drop_run(id);
        }
        let state = &self.state;
        self.runs.retain(|backfill| state.works_for(backfill));
    }

    /// Drops a run and tells the coordinator so, where it knows of it.
    pub(super) fn give_back(&mut self, run: RunId) {
        if let Some(grant) = self.state.grant(run).filter(|_| self.state.is_attached(run)) {
            let message = grant.release();
            self.send(message);
        }
        self.drop_run(run);
    }

    pub(super) fn drop_run(&mut self, run: RunId) {
        self.state.forget(run);
        self.runs.end(run);
    }

    pub(super) fn fail(&mut self, grant: &Grant, evidence: v1::Evidence) {
        tracing::warn!(task = ?grant, message = evidence.message, place = evidence.place, "task failed");
        let (backfill, task, token) = grant.message();
        let evidence = Some(v1::Evidence { worker: self.config.worker.clone(), ..evidence });
        self.send(Up::Fail(v1::Fail { backfill, task, token, evidence }));
    }

    pub(super) fn send(&mut self, kind: Up) {
        if self.out.is_some() {
            self.outbox.push_back(v1::FromWorker { kind: Some(kind) });
        }
    }

    /// Ends the session in good order: what was sent is taken before the connection goes.
    async fn leave(mut self) -> Result<(), SessionError> {
        self.out = None;
        let farewell = async { while self.link.is_up() && matches!(self.link.next().await, Heard::Message(_)) {} };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("the coordinator did not end the session");
        }
        Ok(())
    }
}
