//! Ids and times as messages and back.
//!
//! A message from a peer is not believed: what lacks a part or names nothing is a [`BadMessage`], never a default.

use tidegate_common::gate::Gate;
use tidegate_common::ids::{BackfillId, Epoch, OutputIx, SegmentIx, Sequence, SourceIx, TaskId, Term, Token};
use tidegate_common::slices::{self, Reach};
use tidegate_common::time::{Bounds, EventTime, Span};
use tidegate_common::windows::WholeWindows;

use crate::v1;

/// A message that a well-behaved peer does not send.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// A part that must be there is not.
    #[error("the message has no {0}")]
    Missing(&'static str),
    /// A part is there and makes no sense.
    #[error("the message's {part} makes no sense: {why}")]
    Nonsense {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// The id that `text` is.
pub fn backfill_id(text: &str) -> Result<BackfillId, BadMessage> {
    text.parse().map_err(|bad| BadMessage::Nonsense { part: "backfill", why: format!("{bad}") })
}

impl From<Token> for v1::Token {
    fn from(token: Token) -> Self {
        Self { term: token.term.get(), epoch: token.epoch.get() }
    }
}

impl From<v1::Token> for Token {
    fn from(token: v1::Token) -> Self {
        Self { term: Term::new(token.term), epoch: Epoch::new(token.epoch) }
    }
}

/// The token that a message must carry.
pub fn token(token: Option<v1::Token>) -> Result<Token, BadMessage> {
    token.map(Token::from).ok_or(BadMessage::Missing("token"))
}

impl From<TaskId> for v1::TaskId {
    fn from(task: TaskId) -> Self {
        use v1::task_id::{CommitId, JoinId, Kind, LateId, ReadId, RegenerateId, Unit};
        let kind = match task {
            TaskId::Prepare => Kind::Prepare(Unit {}),
            TaskId::Enumerate(source) => Kind::Enumerate(source.get()),
            TaskId::Read(source, segment, at) => {
                Kind::Read(ReadId { source: source.get(), segment: segment.get(), at })
            }
            TaskId::Commit(output, sequence) => {
                Kind::Commit(CommitId { output: output.get(), sequence: sequence.get() })
            }
            TaskId::Join(output, slice) => Kind::Join(JoinId { output: output.get(), slice }),
            TaskId::Late(output, object) => Kind::Late(LateId { output: output.get(), object }),
            TaskId::Clean => Kind::Clean(Unit {}),
            TaskId::Regenerate(output, object) => Kind::Regenerate(RegenerateId { output: output.get(), object }),
        };
        Self { kind: Some(kind) }
    }
}

/// The task that a message must name.
pub fn task_id(task: Option<v1::TaskId>) -> Result<TaskId, BadMessage> {
    use v1::task_id::Kind;
    Ok(match task.and_then(|task| task.kind).ok_or(BadMessage::Missing("task"))? {
        Kind::Prepare(_) => TaskId::Prepare,
        Kind::Enumerate(source) => TaskId::Enumerate(SourceIx::new(source)),
        Kind::Read(read) => TaskId::Read(SourceIx::new(read.source), SegmentIx::new(read.segment), read.at),
        Kind::Commit(commit) => TaskId::Commit(OutputIx::new(commit.output), Sequence::new(commit.sequence)),
        Kind::Join(join) => TaskId::Join(OutputIx::new(join.output), join.slice),
        Kind::Late(late) => TaskId::Late(OutputIx::new(late.output), late.object),
        Kind::Clean(_) => TaskId::Clean,
        Kind::Regenerate(lost) => TaskId::Regenerate(OutputIx::new(lost.output), lost.object),
    })
}

impl v1::PreparedOutput {
    /// The windows that its query groups by.
    pub fn whole_windows(&self) -> Option<WholeWindows> {
        WholeWindows::new(Span::from_micros(self.window_width), EventTime::from_micros(self.window_origin))
    }
}

impl v1::JoinInput {
    /// How far its rows lie from the anchor's that they meet.
    pub fn reach(&self) -> Reach {
        Reach { low: Span::from_micros(self.low), high: Span::from_micros(self.high) }
    }
}

impl v1::Enumerated {
    /// What of it waits to be joined with others, where it is met as far as `reach` says.
    pub fn met(&self, reach: Reach) -> slices::Found {
        let (bytes, widest_unit) = (self.bytes_to_read(), self.widest_unit);
        slices::Found { reach, bytes, low: self.low, high: self.high, widest_unit }
    }

    /// Bytes in range, less those that are proven to lie outside the window.
    pub fn bytes_to_read(&self) -> u64 {
        self.bytes_in_range.saturating_sub(self.bytes_pruned)
    }
}

/// The bounds of a unit; refused when its high lies before its low.
pub fn bounds(unit: &v1::UnitOfWork) -> Result<Bounds, BadMessage> {
    Bounds::new(EventTime::from_micros(unit.low), EventTime::from_micros(unit.high))
        .ok_or_else(|| BadMessage::Nonsense { part: "unit", why: format!("high {} < low {}", unit.high, unit.low) })
}

impl v1::Gate {
    /// The message that tells a worker of `gate`.
    pub fn of(backfill: &BackfillId, gate: Gate) -> Self {
        Self {
            backfill: backfill.to_string(),
            watermark: gate.watermark.as_micros(),
            gate: gate.gate.map(EventTime::as_micros),
            readers: Vec::new(),
        }
    }

    /// What the message says.
    pub fn value(&self) -> Gate {
        Gate { watermark: EventTime::from_micros(self.watermark), gate: self.gate.map(EventTime::from_micros) }
    }
}

impl v1::SourcePin {
    /// How many offsets are in range, on both sides of a cut; none where no topic is read.
    pub fn offsets(&self) -> Option<u64> {
        let ranges = self.kafka.as_ref()?.ranges.iter().chain(&self.archive);
        Some(ranges.map(|range| u64::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)).sum())
    }
}

impl v1::Record {
    /// A record of `kind` that became true at processing time `at` (microseconds).
    pub fn new(at: i64, kind: v1::record::Kind) -> Self {
        Self { kind: Some(kind), at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads_back_as_itself() {
        for task in [
            TaskId::Prepare,
            TaskId::Enumerate(SourceIx::new(3)),
            TaskId::Read(SourceIx::new(1), SegmentIx::new(2), 7),
            TaskId::Commit(OutputIx::new(1), Sequence::new(9)),
            TaskId::Join(OutputIx::new(1), 4),
            TaskId::Late(OutputIx::new(1), u64::MAX),
            TaskId::Clean,
            TaskId::Regenerate(OutputIx::new(1), 4),
        ] {
            assert_eq!(task_id(Some(task.into())).unwrap(), task);
        }
        assert!(task_id(None).is_err());
        assert!(task_id(Some(v1::TaskId { kind: None })).is_err());
    }
}
