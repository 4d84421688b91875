//! What happens: the one closed set of events that the core is stepped with.

use bytes::Bytes;
use tidegate_common::clock::Monotonic;
use tidegate_common::ids::{BackfillId, SegmentIx, SessionId, SourceIx, TaskId, Token};
use tidegate_common::time::EventTime;
use tidegate_proto::v1;

use super::CoreSpec;

/// The time of a step, as the edge read it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For leases, back-off and intervals.
    pub monotonic: Monotonic,
    /// Processing time in microseconds since 1970, for the journal.
    pub processing: i64,
}

/// Whoever waits for an answer, as the driver counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request to run a backfill.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its identity.
    pub id: BackfillId,
    /// What the core needs to know of the spec.
    pub spec: CoreSpec,
    /// The spec itself, canonical.
    pub spec_json: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// Whether `append` may add to a window that already holds rows of others.
    pub allow_existing: bool,
    /// What must be there, where it is asked for by a saved plan.
    pub expected: Option<Box<v1::ExpectedPlan>>,
}

/// What a worker says of itself when its session begins.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The worker's own name.
    pub worker: String,
    /// How many read tasks it takes at once.
    pub slots: u32,
    /// Read tasks it goes on with.
    pub held: Vec<HeldTask>,
}

/// A read task that a worker goes on with after it lost its session.
#[derive(Clone, Debug)]
pub struct HeldTask {
    /// The backfill.
    pub id: BackfillId,
    /// The task.
    pub task: TaskId,
    /// The token it was granted under.
    pub token: Token,
    /// The attempt's uuid.
    pub attempt: String,
    /// The first unit that no hand-in covers of which this worker knows that it was accepted.
    pub next_unit: u32,
}

/// How far a running read is.
#[derive(Clone, Debug)]
pub struct CursorReport {
    /// The backfill.
    pub id: BackfillId,
    /// The task.
    pub task: TaskId,
    /// The token it reads under.
    pub token: Token,
    /// Every row it has still to read has an event time at or above this.
    pub cursor: EventTime,
    /// Whether it is held at the gate.
    pub paused: bool,
}

/// Which lease a message speaks of.
#[derive(Clone, Debug)]
pub struct LeaseRef {
    /// The session it came through.
    pub session: SessionId,
    /// The backfill.
    pub id: BackfillId,
    /// The task.
    pub task: TaskId,
    /// The token.
    pub token: Token,
}

/// A plan segment that an enumeration found; the edge has counted and hashed it.
#[derive(Clone, Debug)]
pub struct FoundSegment {
    /// Its place in the source.
    pub index: u32,
    /// What the journal will say of it; the blob's name is the core's to give.
    pub info: v1::record::SegmentInfo,
    /// The encoded segment.
    pub bytes: Bytes,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants a backfill to run.
    Submit(RequestId, Submission),
    /// Somebody wants a backfill to pause, resume, end or try again.
    Change(RequestId, BackfillId, v1::Change, String),
    /// A backfill that was replayed from its journal is this coordinator's now.
    TakeUp(BackfillId),
    /// A worker's session begins.
    Joined(SessionId, Registration),
    /// A worker's session is gone.
    Left(SessionId),
    /// A worker is alive; the number is to be answered. `true` when it is draining: it is to be assigned nothing more.
    Heartbeat(SessionId, u64, Vec<CursorReport>, bool),
    /// A worker hands in; `true` when it gives the rest of the task back.
    HandIn(LeaseRef, v1::HandIn, bool),
    /// An enumeration found a segment.
    SegmentFound(LeaseRef, FoundSegment),
    /// A task is done.
    Done(LeaseRef, v1::done::Result),
    /// A task failed.
    Failed(LeaseRef, v1::Evidence),
    /// A worker gives a task back.
    Released(LeaseRef),
    /// A segment that was asked for is here, or could not be had now.
    SegmentLoaded(BackfillId, SourceIx, SegmentIx, Option<Vec<v1::ReadTask>>),
    /// Time has passed: see [`super::Core::next_wake`].
    Tick,
}
