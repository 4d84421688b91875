//! Where an archive ends and its topic begins, partition by partition. Pure.
//!
//! A record at offset `o` is read from the archive if `o < cut`, else from the topic. What the topic still holds, it holds
//! for certain; of an offset that a table lacks nobody can tell whether there ever was a record. So the archive is believed
//! below the log's start, where there is nothing else, and from there on as far as it holds every offset once: the cut is the
//! first one that it does not.

use std::ops::Range;

use super::holding::Piece;
use crate::source::asked::{AskedRange, Edge};

/// How a partition is read: `[start, cut)` from the archive, `[cut, end)` from the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) cut: i64,
    pub(super) end: i64,
}

/// Why a partition cannot be read as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hole {
    /// These are neither in the archive nor in the topic any more.
    Gone { missing: Range<i64>, log_start: i64 },
    /// These are asked for, and the archive begins behind them.
    Before { missing: Range<i64>, log_start: i64 },
    /// The archive holds an offset that the topic has never had.
    Foreign { offset: i64, written: i64 },
    /// The range's end lies behind the topic's.
    Beyond { end: i64, log_end: i64 },
    /// By the switch that is given, these would be read from the topic, which has lost them.
    SwitchedTooLow { missing: Range<i64> },
    /// By the switch that is given, these would be read from the archive, which ends before them.
    SwitchedTooHigh { missing: Range<i64> },
}

impl Hole {
    /// What is wrong with `partition` of `topic`, and the way out.
    pub(super) fn said(&self, partition: i32, topic: &str) -> String {
        let of = |missing: &Range<i64>| match missing.end - missing.start {
            1 => format!("offset {} is", missing.start),
            many => format!("offsets {} to {} ({many}) are", missing.start, missing.end - 1),
        };
        let what = match self {
            Self::Gone { missing, log_start } => format!(
                "the archive ends at {}, the topic's log begins at {log_start}: {} in neither; if no record was there, or \
                 none is missed, say so by switch: {{offsets: {{{partition}: {}}}}}",
                missing.start,
                of(missing),
                missing.end
            ),
            Self::Before { missing, log_start } => format!(
                "the archive begins at {}, the topic's log at {log_start}: {} in neither; start at {}",
                missing.end,
                of(missing),
                missing.end
            ),
            Self::Foreign { offset, written } => format!(
                "the archive holds offset {offset}, and the topic was never written further than {written}: it is of another \
                 topic, or of one that was deleted and created again"
            ),
            Self::Beyond { end, log_end } => {
                format!("the range ends at {end}, and the topic at {log_end}: nothing is there yet")
            }
            Self::SwitchedTooLow { missing } => {
                format!("{} to be read from the topic, which has lost them; switch at {}", of(missing), missing.end)
            }
            Self::SwitchedTooHigh { missing } => {
                format!("{} to be read from the archive, which ends before; switch at {}", of(missing), missing.start)
            }
        };
        format!("partition {partition} of {topic}: {what}")
    }
}

/// Where the range of `asked` begins and ends. `first` is the archive's first offset, `at` gives the first one that it holds
/// of that time or later.
pub(super) fn range(asked: &AskedRange, first: Option<i64>, at: impl Fn(i64) -> Option<i64>) -> Range<i64> {
    let offset = |edge: Edge| match edge {
        Edge::Earliest => first.map_or(asked.log_start, |first| first.min(asked.log_start)),
        Edge::Offset(offset) => offset,
        Edge::Time { millis, found } => at(millis).map_or(found, |held| held.min(found)),
    };
    let (start, end) = (offset(asked.start), offset(asked.stop));
    start..end.max(start)
}

/// How `range` of the partition of `asked` is read, of which the archive holds `held`, sorted; by `switch` where it is given.
pub(super) fn cut(asked: &AskedRange, range: &Range<i64>, held: &[Piece], switch: Option<i64>) -> Result<Cut, Hole> {
    let (start, end, partition) = (range.start, range.end, asked.partition);
    let of = |cut| Ok(Cut { partition, start, cut, end });
    let last = held.iter().map(|piece| piece.to).max();
    if let Some(last) = last.filter(|last| *last > asked.written) {
        return Err(Hole::Foreign { offset: last - 1, written: asked.written });
    }
    if start > asked.log_end || end > asked.log_end {
        return Err(Hole::Beyond { end, log_end: asked.log_end });
    }
    if start == end {
        return of(start);
    }
    // From here on the topic holds what it ever held of the range.
    let kept = asked.log_start.clamp(start, end);
    let last = last.unwrap_or(start).max(start);
    let log_start = asked.log_start;
    if let Some(given) = switch {
        let cut = given.clamp(start, end);
        return match cut {
            cut if cut < kept => Err(Hole::SwitchedTooLow { missing: cut..kept }),
            // Up to where the log starts, whoever gives the switch says that nothing is missing.
            cut if cut > last.max(kept) => Err(Hole::SwitchedTooHigh { missing: last.max(kept)..cut }),
            cut => of(cut),
        };
    }
    if last < kept {
        return Err(Hole::Gone { missing: last..kept, log_start });
    }
    match held.iter().map(|piece| piece.from).filter(|_| start < kept).min() {
        Some(first) if first > start => Err(Hole::Before { missing: start..first.min(kept), log_start }),
        _ => of(held_once(held, kept).min(end)),
    }
}

/// The first offset from `from` on that is not in exactly one of `held`, which are sorted by where they begin.
fn held_once(held: &[Piece], from: i64) -> i64 {
    let mut next = from;
    let mut reaching = held.iter().filter(|piece| piece.to > from).peekable();
    while let Some(piece) = reaching.next() {
        // What begins within it is there twice from there on.
        let clear = reaching.peek().map_or(piece.to, |other| other.from.max(piece.from)).min(piece.to);
        if piece.from > next {
            break;
        }
        next = next.max(clear);
        if clear < piece.to {
            break;
        }
    }
    next
}

#[cfg(test)]
mod tests;
