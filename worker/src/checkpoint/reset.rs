//! Where a position goes, and what that skips, reads again and loses: arithmetic, and nothing else.
//!
//! The meaning of each target is Kafka's own (`kafka-consumer-groups --reset-offsets`):
//!
//! | target | the new position |
//! |---|---|
//! | earliest, latest | the log's start, its end |
//! | a time, a duration back | the first offset whose record's time is that or later; the log's end where there is none |
//! | an offset | that offset, at least the log's start, at most its end |
//! | a shift | the position plus the shift, at least the log's start, at most its end; without a position, none |
//! | given (a backup, a hand-over) | as an offset |
//!
//! What is lost are offsets that nobody will read: those between the position and a later new one that no backfill has
//! covered, and those that were asked for and are no longer in the log. A position ahead of its log is never taken as it is.

/// Where positions are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To the log's start.
    Earliest,
    /// To the log's end.
    Latest,
    /// To what was found for a time.
    Found,
    /// To this offset.
    Offset(i64),
    /// By so many offsets, forward or backward.
    Shift(i64),
    /// To what is given for the partition.
    Given,
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The position now.
    pub position: Option<i64>,
    /// The log's first offset.
    pub start: i64,
    /// The offset behind the log's last; at or behind `start`.
    pub end: i64,
    /// The offset that was found for the time; none is behind all records.
    pub found: Option<i64>,
    /// The offset that a backup or a hand-over gives.
    pub given: Option<i64>,
    /// Offsets `[from, to)` that a backfill has read: skipping them loses nothing.
    pub covered: Option<(i64, i64)>,
}

/// How a position moves; counts are of offsets, of which some may hold no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// The position before.
    pub old: Option<i64>,
    /// The position after, in the log.
    pub new: i64,
    /// What was asked for, where that is not in the log.
    pub outside: Option<i64>,
    /// Offsets of the log that were not read and will not be.
    pub skipped: u64,
    /// Of those skipped, offsets that a backfill has read.
    pub covered: u64,
    /// Offsets that were read and will be again.
    pub again: u64,
}

impl Move {
    /// Whether nobody will ever read some offsets, or what was asked for is not there.
    pub fn is_gap(&self) -> bool {
        self.skipped > self.covered || self.outside.is_some()
    }

    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        self.old != Some(self.new)
    }
}

/// Why there is no new position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// Nothing can be shifted without a position.
    NoPosition,
    /// Nothing is given for this partition.
    NotGiven,
}

/// Where a partition's position goes.
///
/// # Errors
/// A target that this partition has none for.
pub fn decide(to: To, facts: &Facts) -> Result<Move, NoTarget> {
    let wanted = match to {
        To::Earliest => facts.start,
        To::Latest => facts.end,
        To::Found => facts.found.unwrap_or(facts.end),
        To::Offset(offset) => offset,
        To::Shift(by) => facts.position.ok_or(NoTarget::NoPosition)?.saturating_add(by),
        To::Given => facts.given.ok_or(NoTarget::NotGiven)?,
    };
    let new = wanted.clamp(facts.start, facts.end.max(facts.start));
    let mut moved = Move { old: facts.position, new, outside: (wanted != new).then_some(wanted), ..Move::default() };
    // Offsets below the log's start can no longer be skipped or read again, and there are none behind its end.
    if let Some(old) = facts.position.map(|old| old.clamp(facts.start, facts.end.max(facts.start))) {
        moved.skipped = distance(old, new);
        moved.again = distance(new, old);
        if let Some((from, to)) = facts.covered {
            moved.covered = distance(from.max(old), to.min(new)).min(moved.skipped);
        }
    }
    Ok(moved)
}

/// How far `to` is behind `from`; nothing where it is not.
fn distance(from: i64, to: i64) -> u64 {
    u64::try_from(i128::from(to) - i128::from(from)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
