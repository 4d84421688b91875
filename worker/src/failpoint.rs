//! Failpoints of the worker: the places are named here, the mechanism is [`tidegate_common::failpoint`].

pub use tidegate_common::failpoint::{Injected, hit};

/// Before a finished data file is closed, and after it is durable.
pub const FILE_BEFORE_CLOSE: &str = "file.before-close";
/// After a data file is durable, before anybody has heard of it.
pub const FILE_AFTER_CLOSE: &str = "file.after-close";
/// Before a commit writes its first manifest.
pub const COMMIT_BEFORE_MANIFESTS: &str = "commit.before-manifests";
/// After a replacement has written the manifests that hold what goes anew, before their list.
pub const COMMIT_AFTER_REWRITE: &str = "commit.after-rewrite";
/// After a commit has written its manifests and their list.
pub const COMMIT_AFTER_MANIFESTS: &str = "commit.after-manifests";
/// Before a catalog of our own writes the table's new metadata file.
pub const COMMIT_BEFORE_METADATA: &str = "commit.before-metadata";
/// After the new metadata file is durable, before the catalog points at it.
pub const COMMIT_BEFORE_SWAP: &str = "commit.before-swap";
/// After the catalog points at the new metadata, before anybody has heard of it.
pub const COMMIT_AFTER_SWAP: &str = "commit.after-swap";
