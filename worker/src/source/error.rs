//! Why a source could not be opened, enumerated or read.

use crate::failure::{Class, Classify};

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
}

impl Classify for SourceError {
    fn class(&self) -> Class {
        match self {
            Self::Spec { .. } => Class::Fatal { exit_code: 3 },
        }
    }
}
