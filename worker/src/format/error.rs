//! Why a format could not be opened, or none of its records be decoded, and what that means for the task.

use arrow::error::ArrowError;

use crate::failure::{Class, Classify, TEMPORARY};

/// Why a format could not be opened, or none of its records be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The spec asks for what the format cannot give.
    #[error("format: {0}")]
    Spec(String),
    /// A schema is not there, cannot be read, or does not fit.
    #[error("format: {0}")]
    Schema(String),
    /// This worker's allow-list does not hold what the spec names.
    #[error("format: {0}")]
    Denied(String),
    /// The schema registry does not answer, or not now.
    #[error("the schema registry {registry} does not answer: {what}")]
    Unreachable {
        /// Its address.
        registry: String,
        /// What was asked, and what came.
        what: String,
    },
    /// The rows of a batch do not make one.
    #[error("the records of a batch cannot be put together")]
    Rows(#[source] ArrowError),
}

impl FormatError {
    pub(super) fn rows(error: ArrowError) -> Self {
        Self::Rows(error)
    }
}

impl Classify for FormatError {
    fn class(&self) -> Class {
        match self {
            Self::Spec(_) => Class::Fatal { exit_code: 3 },
            Self::Schema(_) | Self::Denied(_) => Class::Fatal { exit_code: 4 },
            Self::Unreachable { .. } => Class::Retryable,
            Self::Rows(_) => Class::Poison,
        }
    }

    fn exit_code(&self) -> Option<i32> {
        matches!(self, Self::Unreachable { .. }).then_some(TEMPORARY)
    }
}
