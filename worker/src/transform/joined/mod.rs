//! The SQL of an output over several sources, or in groups: what it needs of each source, and its answer slice by slice.
//!
//! A plan over several sources has an *anchor*: the mention of a source whose rows decide which slice of event time a
//! row of the result belongs to. It is the left side of INNER, LEFT, SEMI and ANTI joins and the right side of RIGHT
//! ones, transitively. The event time of every other mention's rows lies within bounds of the anchor's, its *reach*,
//! which follow from the conditions that join them; where they do not, the join needs everything of a source at once and
//! is refused. A slice is then answered by the plan itself over the anchor's rows in the slice and the other mentions'
//! rows in the slice widened by their reach: a row of the result is in the answer of one slice only, since nothing but
//! the anchor's event time decides which.
//!
//! Above all joins the plan may aggregate, by windows of the anchor's event time: then slices are made of whole windows,
//! and a slice holds whole groups. One source that is aggregated is a join of one input.
//!
//! A plan may have several anchors: UNION ALL has those of its parts, and a FULL join is what a LEFT join yields and, of
//! the right side, what met nothing (`transform/parts.rs`). Each row of the result still belongs to one row of one of them.
//! Windows that overlap make the beginning of a window the anchor's time ([`hops`]).
//!
//! Everything follows from the optimized plan, which is also the one that runs: whatever the optimizer made of the SQL,
//! planning and running agree.

mod bounds;
mod hops;
mod join;
mod keys;
mod lengths;
mod parts;
mod pieces;
mod relation;
mod rows;
mod run;
mod sieve;
mod walk;
mod windows;

#[cfg(test)]
mod tests;

use datafusion::logical_expr::Expr;
use tidegate_common::slices::Reach;
use tidegate_common::time::Span;

pub(super) use hops::{HOPS, SERIES, is_series};
pub use join::{Join, JoinInput, TIME_COLUMN};
pub use rows::InputRows;
pub use run::Effort;
pub use sieve::Sieve;
pub(super) use walk::mark;

/// How far a time lies from another, in microseconds: at least `.0` and at most `.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Within(i64, i64);

impl Within {
    /// The same time.
    const SAME: Self = Self(0, 0);
    /// No time at all: that of a null, or of rows that nothing meets.
    const NEVER: Self = Self(i64::MAX, i64::MIN);

    fn is_never(self) -> bool {
        self.0 > self.1
    }

    /// What is within `self` of what is within `other`.
    fn plus(self, other: Self) -> Self {
        match self.is_never() || other.is_never() {
            true => Self::NEVER,
            false => Self(self.0.saturating_add(other.0), self.1.saturating_add(other.1)),
        }
    }

    /// What both say.
    fn and(self, other: Self) -> Self {
        Self(self.0.max(other.0), self.1.min(other.1))
    }

    /// What one or the other says.
    fn or(self, other: Self) -> Self {
        Self(self.0.min(other.0), self.1.max(other.1))
    }

    /// None of what nothing meets.
    fn reach(self) -> Option<Reach> {
        (!self.is_never()).then(|| Reach { low: Span::from_micros(self.0), high: Span::from_micros(self.1) })
    }
}

/// One mention of a source in a plan.
#[derive(Clone, Debug)]
struct Mention {
    /// Which of the plan's scans it is.
    at: usize,
    /// The source.
    source: String,
    /// Where its rows lie, seen from the anchor's event time.
    within: Within,
    /// Its columns that are read, by place in the source.
    columns: Vec<usize>,
    /// Conditions that each of its rows must fulfil, without qualifiers.
    filters: Vec<Expr>,
}
