//! Why a source could not be opened, enumerated or read, and what that means for the task.

use tidegate_common::time::{EventTime, Window};

use crate::failure::{Class, Classify, TEMPORARY};
use crate::format::FormatError;
use crate::kafka::KafkaError;
use crate::storage::{StoreError, Trouble, is_unreachable};

/// An error of somebody else's crate, kept as the cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What was being done when a file turned out unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// The backfill was being planned: it cannot start as it is asked for.
    Plan,
    /// A unit was being read: that unit is poison, the others are not.
    Read,
}

/// Why a source could not be opened, enumerated or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The spec asks for what this source cannot give.
    #[error("source {source_name}: {what}")]
    Spec {
        /// The source's name.
        source_name: String,
        /// What is wrong, and the way out.
        what: String,
    },
    /// The spec is sound, but what it names is not there, not readable, or not of one form.
    #[error("source {source_name}: {what}")]
    Input {
        /// The source's name.
        source_name: String,
        /// What was found, and the way out.
        what: String,
    },
    /// This worker's allow-list does not hold what the spec names.
    #[error("source {source_name}: {what}")]
    Denied {
        /// The source's name.
        source_name: String,
        /// What is refused, and where it is allowed.
        what: String,
    },
    /// A file is no longer what was planned.
    #[error("{file} changed since the plan: {what}; plan the backfill again")]
    Changed {
        /// The file.
        file: String,
        /// What it was and what it is.
        what: String,
    },
    /// A file, or a piece of it, cannot be decoded.
    #[error("{file}{}: cannot be decoded", at(place))]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it: a row group, a line; empty for the whole.
        place: String,
        /// What was being done.
        during: During,
        /// What the decoder says.
        #[source]
        source: Cause,
    },
    /// The store could not be read.
    #[error("{file}: cannot be read from its store")]
    Store {
        /// The file or folder.
        file: String,
        /// What the store says.
        #[source]
        source: StoreError,
    },
    /// A table's metadata could not be read.
    #[error("{doing}")]
    Lake {
        /// What was tried, of which table and snapshot.
        doing: String,
        /// What Iceberg's library says.
        #[source]
        source: Cause,
    },
    /// A row lies in the window but outside the bounds that its unit was planned with.
    #[error(
        "{file}, {place}, row {row}: event time {found} lies outside the unit's bounds [{low}, {high}] within {window}; {way_out}"
    )]
    OutOfBounds {
        /// The file.
        file: String,
        /// The unit.
        place: String,
        /// The row's place in the unit, from 0.
        row: u64,
        /// Its event time.
        found: EventTime,
        /// The unit's low.
        low: EventTime,
        /// The unit's high.
        high: EventTime,
        /// The read window.
        window: Window,
        /// Where the bounds come from, and so what to do.
        way_out: &'static str,
    },
    /// A unit holds more or fewer rows than were planned.
    #[error("{file}, {place}: {found} rows where the plan counted {planned}")]
    Rows {
        /// The file.
        file: String,
        /// The unit.
        place: String,
        /// Rows by the plan.
        planned: u64,
        /// Rows that were found.
        found: u64,
    },
    /// Kafka could not be asked.
    #[error("source {source_name}")]
    Kafka {
        /// The source's name.
        source_name: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// The records' format could not be opened, or its registry not be asked.
    #[error("source {source_name}")]
    Format {
        /// The source's name.
        source_name: String,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// Nobody waits for what an enumeration finds any more.
    #[error("the enumeration was given up")]
    Abandoned,
}

fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(", {place}") }
}

impl Classify for SourceError {
    fn class(&self) -> Class {
        match self {
            Self::Spec { .. } => Class::Fatal { exit_code: 3 },
            Self::Input { .. } | Self::Denied { .. } | Self::Changed { .. } => Class::Fatal { exit_code: 4 },
            Self::Corrupt { during: During::Plan, .. } => Class::Fatal { exit_code: 4 },
            Self::Corrupt { .. } | Self::OutOfBounds { .. } | Self::Rows { .. } => Class::Poison,
            Self::Store { source, .. } => store_class(source),
            Self::Kafka { source, .. } => source.class(),
            Self::Format { source, .. } => source.class(),
            Self::Lake { .. } | Self::Abandoned => Class::Retryable,
        }
    }

    fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Store { source, .. } if source.trouble() == Trouble::Unreachable => Some(TEMPORARY),
            Self::Kafka { source, .. } => source.exit_code(),
            Self::Format { source, .. } => source.exit_code(),
            Self::Lake { source, .. } if is_unreachable(source.as_ref()) => Some(TEMPORARY),
            _ => None,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Changed { file, .. } | Self::Store { file, .. } => file.clone(),
            Self::Corrupt { file, place, .. } => format!("{file}{}", at(place)),
            Self::Rows { file, place, .. } => format!("{file}, {place}"),
            Self::OutOfBounds { file, place, row, .. } => format!("{file}, {place}, row {row}"),
            Self::Spec { .. }
            | Self::Input { .. }
            | Self::Denied { .. }
            | Self::Lake { .. }
            | Self::Kafka { .. }
            | Self::Format { .. }
            | Self::Abandoned => String::new(),
        }
    }
}

fn store_class(error: &StoreError) -> Class {
    use object_store::Error::{NotSupported, Precondition};
    match (error.trouble(), &error.0) {
        (Trouble::Missing | Trouble::Refused, _) => Class::Fatal { exit_code: 4 },
        (_, Precondition { .. } | NotSupported { .. }) => Class::Fatal { exit_code: 4 },
        _ => Class::Retryable,
    }
}
