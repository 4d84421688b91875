//! Tasks: what a worker does under a lease, and the seam between them and the session.
//!
//! A [`TaskBody`] gets a [`TaskContext`]: its assignment, the gate, a wish to leave, its [`Lease`], and the way to hand
//! in. A body never learns its fencing token and never speaks to the coordinator: the session does, so that a task
//! goes on undisturbed while a connection is lost and found again. Tasks never delete anything.

pub mod budget;
pub(crate) mod dead_letter;
pub mod enumerate;
pub(crate) mod kinds;
pub(crate) mod late_rows;
pub mod lease;
pub(crate) mod opened;
pub mod pack;
mod ports;
pub mod read;
mod shuffle_port;
mod slicing;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use tidegate_common::gate::Gate;
use tidegate_common::ids::{BackfillId, TaskId};
use tidegate_common::time::EventTime;
use tidegate_proto::v1;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::failure::{self, Class, Classify};
pub use lease::{Clock, Fenced, Lease};
pub(crate) use slicing::read_window;

/// Runs tasks of every kind.
#[async_trait]
pub trait TaskBody: Send + Sync + 'static {
    /// Does what `context.assignment` says. Dropping the future abandons the attempt; its files are left.
    async fn run(&self, context: TaskContext) -> Result<TaskEnd, TaskError>;
}

/// A worker's own number for one attempt at a task; never crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub(crate) u64);

/// How a task ended that did not fail.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskEnd {
    /// Prepare, enumerate or commit: this is what came of it.
    Done(v1::done::Result),
    /// Read: its last hand-in was accepted, and with it the coordinator knows that the task ended.
    HandedIn,
    /// Given back with nothing to hand in.
    GivenBack,
}

/// The answer to a hand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is journalled.
    Accepted,
    /// It is not, and never will be.
    Refused {
        /// What the coordinator said.
        reason: String,
    },
}

/// What the coordinator wishes of a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// That it goes on.
    Run,
    /// That it hands in at the next unit boundary and gives the rest back: a yield or a drain.
    Leave,
}

/// The promise of a running read: every row that it has still to read has event time >= `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The promise; `MAX` when nothing remains.
    pub at: EventTime,
    /// Whether it is held at the gate.
    pub paused: bool,
}

/// Why a task failed: any classified error of this crate.
#[derive(Debug)]
pub struct TaskError(Box<dyn Classify + Send + Sync>);

impl TaskError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        self.0.class()
    }

    /// What goes to the coordinator.
    pub fn evidence(&self) -> v1::Evidence {
        failure::evidence(self.0.as_ref())
    }
}

impl<E: Classify + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

/// What a running task tells its session.
pub(crate) enum Report {
    /// It hands in and waits for the answer.
    HandIn { run: RunId, hand_in: v1::HandIn, released: bool, reply: oneshot::Sender<Verdict> },
    /// An enumeration found a plan segment.
    Segment { run: RunId, segment: v1::PlanSegment },
    /// It ended.
    End { run: RunId, end: Result<TaskEnd, v1::Evidence> },
}

/// Everything a task body works with.
pub struct TaskContext {
    /// The backfill.
    pub backfill: BackfillId,
    /// What the coordinator said about the backfill: its spec and what is prepared.
    pub info: Arc<v1::BackfillInfo>,
    /// Which task it is.
    pub task: TaskId,
    /// What to do.
    pub work: v1::assign::Work,
    /// Names this attempt, and everything it writes: a fresh UUID.
    pub attempt: String,
    /// The gate as it was last heard of.
    pub gate: watch::Receiver<Gate>,
    /// How many read tasks run, by source: they share its rate limit. Empty where no source has one.
    pub readers: watch::Receiver<Vec<u32>>,
    /// What the coordinator wishes.
    pub wish: watch::Receiver<Wish>,
    /// The right to go on.
    pub lease: Lease,
    /// The token as it was granted; for asking the coordinator for the files of an intent.
    pub granted: v1::Token,
    pub(crate) desk: Desk,
}

impl TaskContext {
    /// Hands in and waits for the answer, however long the connection is lost.
    ///
    /// # Errors
    /// [`Fenced`] when the lease ended before it was sent or before it was answered.
    pub async fn hand_in(&self, hand_in: v1::HandIn, released: bool) -> Result<Verdict, Fenced> {
        self.lease.check()?;
        let (reply, answer) = oneshot::channel();
        let run = self.desk.run;
        self.desk.send(Report::HandIn { run, hand_in, released, reply }).await?;
        answer.await.map_err(|_| Fenced)
    }

    /// Delivers a plan segment of an enumeration; waits where the session is behind.
    ///
    /// # Errors
    /// [`Fenced`] when the lease has ended.
    pub async fn segment(&self, segment: v1::PlanSegment) -> Result<(), Fenced> {
        self.lease.check()?;
        self.desk.send(Report::Segment { run: self.desk.run, segment }).await
    }

    /// Promises `cursor`; the session passes it on at once.
    pub fn report(&self, cursor: Cursor) {
        let moved = self.desk.cursor.send_if_modified(|held| held.replace(cursor) != Some(cursor));
        if moved {
            self.desk.moved.notify_one();
        }
    }
}

/// A task's way to its session.
pub(crate) struct Desk {
    pub(crate) run: RunId,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) cursor: watch::Sender<Option<Cursor>>,
    pub(crate) moved: Arc<Notify>,
}

impl Desk {
    async fn send(&self, report: Report) -> Result<(), Fenced> {
        self.reports.send(report).await.map_err(|_| Fenced)
    }
}

/// Runs `body` and reports how it ended, also when it panics.
pub(crate) async fn run(body: Arc<dyn TaskBody>, context: TaskContext) {
    let (run, reports) = (context.desk.run, context.desk.reports.clone());
    let task = context.task;
    let end = match AssertUnwindSafe(body.run(context)).catch_unwind().await {
        Ok(end) => end.map_err(|error| error.evidence()),
        Err(_) => Err(failure::evidence(&Panicked { task })),
    };
    // A session that is gone needs no report.
    let _ = reports.send(Report::End { run, end }).await;
}

/// A task body panicked: a bug of Tidegate, which another try may not meet.
#[derive(Debug, thiserror::Error)]
#[error("{task} panicked; the worker's log has the place; please report it")]
struct Panicked {
    task: TaskId,
}

impl Classify for Panicked {
    fn class(&self) -> Class {
        Class::Retryable
    }
}
