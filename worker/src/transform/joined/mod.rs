//! What a join of sources needs of each, so that it can be answered slice by slice.
//!
//! A plan over several sources has an *anchor*: the source whose rows decide which slice of event time a row of the
//! result belongs to. It is the left side of INNER, LEFT, SEMI and ANTI joins and the right side of RIGHT ones,
//! transitively. The event time of every other source's rows lies within bounds of the anchor's, its *reach*, which
//! follow from the conditions that join them; where they do not, the join needs everything of a source at once and is
//! refused. A slice is then answered by the plan itself over the anchor's rows in the slice and the other sources' rows
//! in the slice widened by their reach: a row of the result is in the answer of one slice only, since nothing but the
//! anchor's event time decides which.
//!
//! The bounds are difference constraints, kept as intervals: of each column of a relation that is an event time, how far
//! it lies from the anchor's.

mod bounds;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use tidegate_common::time::Span;

pub(super) use walk::joined;

/// How far a time lies from another, in microseconds: at least `.0` and at most `.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Within(pub(super) i64, pub(super) i64);

impl Within {
    /// The same time.
    pub(super) const SAME: Self = Self(0, 0);

    /// What is within `self` of what is within `other`.
    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0), self.1.saturating_add(other.1))
    }

    /// What both say.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0.max(other.0), self.1.min(other.1))
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (back, forward) = (Span::from_micros(self.0.min(0).saturating_neg()), Span::from_micros(self.1.max(0)));
        write!(f, "from {back} before to {forward} after")
    }
}

/// One mention of a source in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// The source.
    pub(super) source: String,
    /// Where its rows lie, seen from the anchor's event time.
    pub(super) reach: Within,
    /// Its columns that rows can be distributed by, so that those which meet are together; empty where there are none
    /// that every join of the plan agrees on.
    pub(super) keys: Vec<usize>,
}

/// What a plan over several sources needs of them. The anchor is the first input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) inputs: Vec<Input>,
}

/// Of each source that a query can name, its column that is the event time in UTC; none where that is no column, or one
/// that must be converted.
pub(super) type TimeColumns = BTreeMap<String, Option<String>>;
