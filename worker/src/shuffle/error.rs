//! Why rows could not be kept, or not be had back.

use std::path::PathBuf;

use crate::failure::{Class, Classify, TEMPORARY};
use crate::storage::{StoreError, Trouble};

/// Why rows could not be kept, or not be had back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShuffleError {
    /// The configuration names no place that can be one.
    #[error("shuffle store {location}: {what}")]
    Location {
        /// What was given.
        location: String,
        /// What is wrong, and the way out.
        what: String,
    },
    /// A path that is no object of this backfill's.
    #[error("{path:?} is no shuffle object of backfill {backfill}: {what}")]
    Path {
        /// The path.
        path: String,
        /// The backfill.
        backfill: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The store does not answer, or not in time.
    #[error("the shuffle store cannot be reached: {path}")]
    Unreachable {
        /// The object.
        path: String,
        /// What was heard instead of an answer.
        #[source]
        source: StoreError,
    },
    /// The store answers, and does not let this be done.
    #[error("the shuffle store: {path}")]
    Store {
        /// The object.
        path: String,
        /// What it said.
        #[source]
        source: StoreError,
    },
    /// An object is not there.
    #[error(
        "{path} is not in the shuffle store {location}: is the shuffle store of all workers the same one? If it is, \
         somebody removed the object; what it held is read again, twice at most"
    )]
    Missing {
        /// The object.
        path: String,
        /// Where it was looked for.
        location: String,
    },
    /// An object is not what was written.
    #[error(
        "{path} in the shuffle store is damaged: {place}: {found} where {expected} was expected; what it held is read \
         again, twice at most"
    )]
    Corrupt {
        /// The object.
        path: String,
        /// Where in it.
        place: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Rows that cannot be kept or hashed.
    #[error("rows to be shuffled: {what}")]
    Rows {
        /// What is wrong with them.
        what: String,
    },
    /// A file or folder of this machine could not be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

impl ShuffleError {
    /// A store's failure at an object.
    pub(super) fn store(path: &str, location: &str, source: object_store::Error) -> Self {
        let (path, source) = (path.to_owned(), StoreError::from(source));
        match source.trouble() {
            Trouble::Missing => Self::Missing { path, location: location.to_owned() },
            Trouble::Unreachable => Self::Unreachable { path, source },
            Trouble::Refused | Trouble::Other => Self::Store { path, source },
        }
    }

    /// A failure of this machine at a file or folder.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Rows that Arrow refuses.
    pub(super) fn rows(what: impl ToString) -> Self {
        Self::Rows { what: what.to_string() }
    }
}

impl Classify for ShuffleError {
    fn class(&self) -> Class {
        match self {
            Self::Location { .. } => Class::Fatal { exit_code: 3 },
            Self::Path { .. } | Self::Rows { .. } => Class::Poison,
            Self::Store { source, .. } if source.trouble() == Trouble::Refused => Class::WorkerSick,
            Self::Io { source, .. } if sick(source) => Class::WorkerSick,
            // What is damaged or gone may be so for this worker only; read again often enough, what needs it is parked.
            Self::Unreachable { .. }
            | Self::Store { .. }
            | Self::Missing { .. }
            | Self::Corrupt { .. }
            | Self::Io { .. } => Class::Retryable,
        }
    }

    fn lost(&self) -> Option<String> {
        match self {
            Self::Missing { path, .. } | Self::Corrupt { path, .. } => Some(path.clone()),
            _ => None,
        }
    }

    fn exit_code(&self) -> Option<i32> {
        matches!(self, Self::Unreachable { .. }).then_some(TEMPORARY)
    }

    fn place(&self) -> String {
        match self {
            Self::Path { path, .. }
            | Self::Unreachable { path, .. }
            | Self::Store { path, .. }
            | Self::Missing { path, .. } => path.clone(),
            Self::Corrupt { path, place, .. } => format!("{path}, {place}"),
            Self::Io { path, .. } => path.display().to_string(),
            Self::Location { .. } | Self::Rows { .. } => String::new(),
        }
    }
}

/// The object that is missing or damaged, where that is at the bottom of `error`.
pub(crate) fn lost_in(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<ShuffleError>()?.lost())
}

/// Whether another machine may do better: this one's disk is full, read-only or not the user's.
fn sick(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), FileTooLarge | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}
