//! Why a store could not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store could not do what it was asked.
///
/// An error of a write that was sent says nothing about whether it happened: read again, and judge by what is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A transaction is larger than any backend takes. Nothing was sent.
    #[error("transaction of {found} {what}: at most {limit} fit into one; split it")]
    TooLarge {
        /// What is counted: operations or bytes.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A transaction names a key in a way that no backend takes. Nothing was sent.
    #[error("key {key:?} {why}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A blob's path is not one that every backend takes. Nothing was sent.
    #[error("blob path {path:?} {why}")]
    BlobPath {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no such blob.
    #[error("blob {path} is missing")]
    Missing {
        /// Where it should be.
        path: String,
    },
    /// There is a blob of that path with another content; a blob never changes.
    #[error("blob {path} is already there with another content, and blobs never change: two writers chose one path")]
    Different {
        /// Where it is.
        path: String,
    },
    /// Another process holds the state folder. Temporary.
    #[error(
        "another coordinator or `run --local` uses the state folder {}: wait until it ends, stop it, or name another folder",
        folder.display()
    )]
    InUse {
        /// The state folder.
        folder: PathBuf,
    },
    /// What is stored cannot be what was written.
    #[error("{} is damaged ({what}); nothing was changed: restore it from a backup, or move it away to start afresh", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was seen.
        what: String,
    },
    /// The state was written in a format that this release does not know.
    #[error("{} has format {found}, and this release knows {known}; nothing was changed: use the release that wrote it", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u64,
        /// The format that is known.
        known: u64,
    },
    /// The disk or the quota is full. Temporary, once there is room.
    #[error("no space left to write {}: free some, then run it again", path.display())]
    NoSpace {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The user of this process may not do this.
    #[error("permission denied for {}: let the user who runs this process read and write it", path.display())]
    Denied {
        /// What was to be read or written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk failed.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// What was to be read or written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The embedded database failed; after this it must be opened again.
    #[error("the state file {} failed", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<::redb::Error>,
    },
    /// The object store failed, its own retries included.
    #[error("the object store failed at {path}")]
    Object {
        /// The object.
        path: String,
        /// What it said.
        #[source]
        source: object_store::Error,
    },
    /// The thread that did the work is gone: this process is ending, or the work met a bug.
    #[error("the work on {} was cut short", path.display())]
    CutShort {
        /// What was worked on.
        path: PathBuf,
        /// How it ended.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl StoreError {
    /// Whether the same request, unchanged, may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::NoSpace { .. } => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::ResourceBusy
                    | io::ErrorKind::StaleNetworkFileHandle
            ),
            Self::Object { source, .. } => matches!(source, object_store::Error::Generic { .. }),
            _ => false,
        }
    }

    /// What the system said about `path`, by its kind.
    pub(super) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied { path, source },
            _ => Self::Io { path, source },
        }
    }
}
