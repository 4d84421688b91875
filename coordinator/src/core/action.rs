//! What is to be done: the actions of a step, in order, and the room in which they are gathered.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidegate_common::ids::{BackfillId, SegmentIx, SessionId, SourceIx};
use tidegate_proto::v1;

use super::event::{Now, RequestId};

/// What is to be done. The driver makes every journalled record of a step durable before it lets any other
/// action of that step out.
#[derive(Clone, Debug)]
pub enum Action {
    /// This became true; it must be durable before anybody hears of it.
    Journal(BackfillId, v1::Record),
    /// The table's record, moved in the same compare-and-swap as the journal record before it.
    TableRecord(BackfillId, u32, v1::TableRecord),
    /// Store an immutable blob; it is named by a later journal record.
    WriteBlob(String, Bytes),
    /// Read a plan segment back and answer with [`super::Event::SegmentLoaded`].
    LoadSegment {
        /// The backfill.
        id: BackfillId,
        /// The source.
        source: SourceIx,
        /// Its place in the source.
        segment: SegmentIx,
        /// Where it is and what it must hash to.
        info: v1::record::SegmentInfo,
    },
    /// Tell a worker.
    Send(SessionId, v1::from_coordinator::Kind),
    /// Answer a request.
    Reply(RequestId, Result<Reply, Refusal>),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What became of a submission.
    Applied(v1::Applied),
    /// The change is made or under way.
    Changed,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such backfill.
    #[error("there is no backfill {0}")]
    Unknown(BackfillId),
    /// Another spec runs under the same name.
    #[error("another spec runs under the name {name} ({other}): let it end or cancel it, or choose another name")]
    LiveName {
        /// The name.
        name: String,
        /// Who has it.
        other: BackfillId,
    },
    /// The backfill is not in a state in which this can be done.
    #[error("backfill {id} {why}")]
    NotNow {
        /// The backfill.
        id: BackfillId,
        /// What it is in the way, and the way out.
        why: String,
    },
}

/// The actions of one step, and the backfills it touched.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) now: Now,
    pub(super) actions: Vec<Action>,
    pub(super) touched: BTreeSet<BackfillId>,
}

impl Out {
    pub(super) fn new(now: Now) -> Self {
        Self { now, actions: Vec::new(), touched: BTreeSet::new() }
    }

    pub(super) fn send(&mut self, session: SessionId, kind: v1::from_coordinator::Kind) {
        self.actions.push(Action::Send(session, kind));
    }

    pub(super) fn reply(&mut self, request: RequestId, answer: Result<Reply, Refusal>) {
        self.actions.push(Action::Reply(request, answer));
    }

    pub(super) fn touch(&mut self, id: &BackfillId) {
        if !self.touched.contains(id) {
            self.touched.insert(id.clone());
        }
    }
}
