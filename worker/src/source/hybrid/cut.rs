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
    /// These are asked for, and the archive begins behind them, at `first`.
    Before { missing: Range<i64>, first: i64, log_start: i64 },
    /// The archive holds an offset that the topic has never had.
    Foreign { offset: i64, written: i64 },
    /// The range's end lies behind the topic's.
    Beyond { end: i64, log_end: i64 },
    /// By the switch that is given, these would be read from the topic, which has lost them.
    SwitchedTooLow { missing: Range<i64> },
    /// By the switch that is given, these would be read from the archive, which ends before them.
    SwitchedTooHigh { missing: Range<i64> },
    /// By the switch that is given, these would be read from the archive, which lacks them, and the topic still has them.
    SwitchedOver { missing: Range<i64> },
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
                "the topic's log begins at {log_start}, and the archive holds nothing from {} to there: {} in neither; if no \
                 record was there, or none is missed, say so by switch: {{offsets: {{{partition}: {}}}}}",
                missing.start,
                of(missing),
                missing.end
            ),
            Self::Before { missing, first, log_start } => format!(
                "the archive begins at {first}, the topic's log at {log_start}: {} in neither; start at {}",
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
            Self::SwitchedOver { missing } => format!(
                "{} to be read from the archive, which lacks what the topic may still hold; switch at {}, or start at {}",
                of(missing),
                missing.start,
                missing.end
            ),
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
    let (log_start, kept) = (asked.log_start, asked.log_start.clamp(start, end));
    let first = held.first().map(|piece| piece.from);
    let before = first.filter(|first| start < kept && start < *first);
    let before = before.map(|first| Hole::Before { missing: start..first.min(kept), first, log_start });
    if let Some(given) = switch {
        let cut = given.clamp(start, end);
        let lacks = lacking(held, kept..cut.max(kept));
        return match (lacks, before) {
            _ if cut < kept => Err(Hole::SwitchedTooLow { missing: cut..kept }),
            (Some(missing), _) if missing.end == cut => Err(Hole::SwitchedTooHigh { missing }),
            (Some(missing), _) => Err(Hole::SwitchedOver { missing }),
            // At the log's start, whoever gives the switch says that nothing is missing before.
            (None, Some(before)) if cut > kept => Err(before),
            _ => of(cut),
        };
    }
    if let Some(before) = before {
        return Err(before);
    }
    let reached = reached(held, log_start).max(start);
    if reached < kept {
        return Err(Hole::Gone { missing: reached..kept, log_start });
    }
    of(held_once(held, kept).min(end))
}

/// Where `held` ends that is of use below `log_start`: all of it where it holds that offset, else what lies before. What is
/// held behind a hole in which the log starts says nothing of the hole.
fn reached(held: &[Piece], log_start: i64) -> i64 {
    let is_over = held.iter().any(|piece| piece.from <= log_start && log_start < piece.to);
    let of_use = held.iter().filter(|piece| is_over || piece.from < log_start);
    of_use.map(|piece| piece.to).max().unwrap_or(i64::MIN)
}

/// The first offsets of `range` that are in none of `held`, which are sorted by where they begin.
fn lacking(held: &[Piece], range: Range<i64>) -> Option<Range<i64>> {
    let mut next = range.start;
    for piece in held.iter().filter(|piece| piece.to > range.start) {
        if piece.from > next {
            let missing = next..piece.from.min(range.end);
            return Some(missing).filter(|missing| !missing.is_empty());
        }
        next = next.max(piece.to);
    }
    Some(next..range.end).filter(|missing| !missing.is_empty())
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
