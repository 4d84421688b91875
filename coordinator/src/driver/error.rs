//! Why a driver ends.

use crate::store::StoreError;

/// Why a driver ends.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A store failed.
    #[error("the coordinator's state cannot be kept")]
    Store(#[from] StoreError),
    /// Another coordinator has taken over.
    #[error("another coordinator has taken over ({key} was moved): this one stops; nothing is lost")]
    Deposed {
        /// The record that was moved.
        key: String,
    },
    /// A test told it to fail here.
    #[error(transparent)]
    Injected(#[from] tidegate_common::failpoint::Injected),
    /// A stored record makes no sense to this build.
    #[error("{what} of the coordinator's state cannot be read: {why}; nothing was changed")]
    Unreadable {
        /// The record.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}
