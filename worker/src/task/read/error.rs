//! Why a read cannot go on, and what that means for its task.

use arrow::error::ArrowError;
use tidegate_common::ids::OutputIx;
use tidegate_common::time::{Bounds, EventTime};

use crate::failure::{Class, Classify};

/// Why a read cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The coordinator refused a hand-in: somebody else holds the right.
    #[error("hand-in {number} was refused: {reason}")]
    Refused {
        /// The hand-in within the attempt.
        number: u64,
        /// What the coordinator said.
        reason: String,
    },
    /// The task cannot be read as it is: a unit's bounds are upside down, or its low is below that of the one before.
    #[error("the plan of this task makes no sense: {0}")]
    Plan(String),
    /// A record is no row, or has no event time, and the spec wants that to fail.
    #[error("a record cannot be used: {what}; `on_error: dead_letter` of its source keeps such records instead")]
    Unusable {
        /// What is wrong with it.
        what: String,
        /// File, unit, row.
        place: String,
    },
    /// A row's event time lies outside what was planned for its unit.
    #[error("a row has event time {at}, and its unit was planned for {bounds:?}: a declared bound does not hold")]
    OutOfBounds {
        /// The row's event time.
        at: EventTime,
        /// The unit's.
        bounds: Bounds,
        /// File, unit, row.
        place: String,
    },
    /// A unit holds more or fewer rows than were planned.
    #[error("a unit holds {found} rows, and was planned with {planned}: the input has changed since it was planned")]
    Rows {
        /// Read.
        found: u64,
        /// Planned.
        planned: u64,
        /// File and unit.
        place: String,
    },
    /// A query answered with more rows than it was given.
    #[error(
        "the query of output {output} answers {read} rows with {passed}; only projections and filters may stand here"
    )]
    MoreRows {
        /// The output.
        output: OutputIx,
        /// Rows pushed.
        read: u64,
        /// Rows answered.
        passed: u64,
    },
    /// Rows without event time could not be written down.
    #[error("rows without event time cannot be kept as JSON")]
    Letters {
        /// File and unit.
        place: String,
        /// Why.
        source: ArrowError,
    },
    /// A batch could not be filtered.
    #[error("rows outside the window cannot be filtered")]
    Filter {
        /// File and unit.
        place: String,
        /// Why.
        source: ArrowError,
    },
}

impl Classify for ReadError {
    fn class(&self) -> Class {
        match self {
            Self::Refused { .. } => Class::Fenced,
            Self::Plan(_) | Self::Unusable { .. } | Self::OutOfBounds { .. } => Class::Poison,
            Self::Rows { .. } | Self::Filter { .. } | Self::MoreRows { .. } | Self::Letters { .. } => Class::Poison,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Unusable { place, .. }
            | Self::OutOfBounds { place, .. }
            | Self::Rows { place, .. }
            | Self::Letters { place, .. }
            | Self::Filter { place, .. } => place.clone(),
            Self::Refused { .. } | Self::Plan(_) | Self::MoreRows { .. } => String::new(),
        }
    }
}
