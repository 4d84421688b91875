//! Why a table could not be prepared, written or committed to.

use std::path::PathBuf;

use crate::failpoint::Injected;
use crate::failure::{Class, Classify, TEMPORARY};
use crate::storage::is_unreachable;

/// Any cause that is somebody else's error type.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a table could not be prepared, written or committed to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The spec or the configuration asks for what cannot be.
    #[error("{subject}: {what}")]
    Spec {
        /// The catalog or the table.
        subject: String,
        /// What is wrong, and the way out.
        what: String,
    },
    /// The table is not what the backfill needs: found before anything is written.
    #[error("table {table}: {what}")]
    Preflight {
        /// The table.
        table: String,
        /// What is wrong, and the way out.
        what: String,
    },
    /// A value does not fit its column.
    #[error("table {table}: column {column}, row {row} of the batch: {what}")]
    Value {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The first bad row, counted from 0 in its batch.
        row: usize,
        /// What is wrong, and the way out.
        what: String,
    },
    /// What was handed in is not what the intent names.
    #[error("intent {marker}: {what}")]
    Intent {
        /// The intent's marker.
        marker: String,
        /// What differs.
        what: String,
    },
    /// A data file that waited for its commit is not there any more.
    #[error(
        "intent {marker}: data file {path} does not exist any more: somebody removed it while no snapshot named it; \
         start the backfill anew"
    )]
    FileGone {
        /// The intent's marker.
        marker: String,
        /// The file.
        path: String,
    },
    /// The catalog did not answer, or said no; the table is as it was.
    #[error("catalog {catalog}: {doing}")]
    Catalog {
        /// The catalog.
        catalog: String,
        /// What was tried.
        doing: String,
        /// What it said.
        #[source]
        source: Cause,
    },
    /// The catalog does not answer, or cannot just now; the table is as it was.
    #[error("catalog {catalog} cannot be reached: {doing}")]
    Unreachable {
        /// The catalog.
        catalog: String,
        /// What was tried, and where.
        doing: String,
        /// What was heard instead of an answer.
        #[source]
        source: Cause,
    },
    /// Whether a commit happened is not known; only reading the table tells.
    #[error("table {table}: whether the commit happened is not known")]
    Unknown {
        /// The table.
        table: String,
        /// What was heard instead of an answer.
        #[source]
        source: Cause,
    },
    /// Others kept changing the table.
    #[error("table {table}: lost the race against other commits {tries} times")]
    Conflict {
        /// The table.
        table: String,
        /// How often it was tried.
        tries: u64,
    },
    /// Table metadata or a data file could not be read or written.
    #[error("{doing}")]
    Lake {
        /// What was tried, and where.
        doing: String,
        /// What went wrong.
        #[source]
        source: Cause,
    },
    /// A file of this machine could not be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// A test asked for it.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl SinkError {
    /// An error of the lake's libraries while `doing` something to somewhere.
    pub fn lake(doing: impl Into<String>) -> impl FnOnce(iceberg::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Lake { doing, source: Box::new(source) }
    }

    /// An error of Parquet while `doing` something to somewhere.
    pub(super) fn parquet(doing: impl Into<String>) -> impl FnOnce(parquet::errors::ParquetError) -> Self {
        let doing = doing.into();
        move |source| Self::Lake { doing, source: Box::new(source) }
    }

    /// An error of Arrow while `doing` something to somewhere.
    pub(super) fn arrow(doing: impl Into<String>) -> impl FnOnce(arrow::error::ArrowError) -> Self {
        let doing = doing.into();
        move |source| Self::Lake { doing, source: Box::new(source) }
    }
}

impl Classify for SinkError {
    fn class(&self) -> Class {
        match self {
            Self::Spec { .. } => Class::Fatal { exit_code: 3 },
            Self::Preflight { .. } | Self::FileGone { .. } => Class::Fatal { exit_code: 4 },
            Self::Value { .. } | Self::Intent { .. } => Class::Poison,
            Self::Unknown { .. } => Class::Unknown,
            Self::Io { source, .. } if sick(source) => Class::WorkerSick,
            Self::Lake { source, .. } if is_sick(source.as_ref()) => Class::WorkerSick,
            Self::Catalog { .. }
            | Self::Unreachable { .. }
            | Self::Conflict { .. }
            | Self::Lake { .. }
            | Self::Io { .. }
            | Self::Injected(_) => Class::Retryable,
        }
    }

    fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Unreachable { .. } => Some(TEMPORARY),
            Self::Lake { source, .. } if is_unreachable(source.as_ref()) => Some(TEMPORARY),
            _ => None,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Value { table, column, row, .. } => format!("{table}, column {column}, row {row}"),
            Self::Io { path, .. } => path.display().to_string(),
            _ => String::new(),
        }
    }
}

/// Whether another machine may do better: this one's disk is full, read-only or not the user's.
fn sick(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), FileTooLarge | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// Whether such a disk is at the root of what a library says.
fn is_sick(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.filter_map(|error| error.downcast_ref()).any(sick)
}
