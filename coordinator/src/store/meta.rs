//! The contract of the meta store: few small values, each with a version, written by compare-and-swap alone.
//!
//! It holds what must move atomically: the term, a backfill's head, a table's record. It refuses to hold bulk; that
//! is what blobs are for.
//!
//! | key now | `Absent` | `Version(its version)` | `Version(another)` | `Version(0)` |
//! |---|---|---|---|---|
//! | absent | holds | — | conflict | conflict |
//! | present | conflict | holds | conflict | conflict |

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Result, StoreError};

/// The most comparisons, puts and deletes in one transaction, together.
pub const MAX_OPERATIONS: usize = 100;
/// The most bytes of keys and values in one transaction, together: 1 MiB.
pub const MAX_BYTES: usize = 1 << 20;
/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// A value and the version that its last write gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// Rises with each write of the key, across deletes too; never 0.
    pub version: u64,
    /// The value.
    pub value: Bytes,
}

/// What a key must be for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is no such key.
    Absent,
    /// Its last write gave it this version.
    Version(u64),
}

impl Expected {
    /// Whether a key whose version is `found`, `None` when it is absent, is as expected.
    pub fn holds(self, found: Option<u64>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Version(version) => found == Some(version),
        }
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// What it must be.
    pub expected: Expected,
}

/// A write that happens whole, if all its conditions hold, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold, judged against the state before any of the writes.
    pub compare: Vec<Compare>,
    /// What is written.
    pub puts: Vec<(String, Bytes)>,
    /// What is removed; a key that is absent stays absent.
    pub deletes: Vec<String>,
}

impl Txn {
    /// Adds the condition that `key` is absent.
    #[must_use]
    pub fn if_absent(self, key: impl Into<String>) -> Self {
        self.compare(key, Expected::Absent)
    }

    /// Adds the condition that the last write of `key` gave it `version`.
    #[must_use]
    pub fn if_version(self, key: impl Into<String>, version: u64) -> Self {
        self.compare(key, Expected::Version(version))
    }

    /// Adds a condition.
    #[must_use]
    pub fn compare(mut self, key: impl Into<String>, expected: Expected) -> Self {
        self.compare.push(Compare { key: key.into(), expected });
        self
    }

    /// Adds a write.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.puts.push((key.into(), value.into()));
        self
    }

    /// Adds a removal.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }

    /// Checks what every backend checks before it sends anything.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] above [`MAX_OPERATIONS`] or [`MAX_BYTES`]; [`StoreError::Key`] for a key that is empty,
    /// longer than [`MAX_KEY_BYTES`], or written twice.
    pub fn check(&self) -> Result<()> {
        let operations = self.compare.len() + self.puts.len() + self.deletes.len();
        within("operations", operations, MAX_OPERATIONS)?;
        let bytes = self.compare.iter().map(|compare| compare.key.len()).sum::<usize>()
            + self.puts.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
            + self.deletes.iter().map(String::len).sum::<usize>();
        within("bytes", bytes, MAX_BYTES)?;
        for compare in &self.compare {
            check_key(&compare.key)?;
        }
        let mut written = BTreeSet::new();
        for key in self.puts.iter().map(|(key, _)| key).chain(&self.deletes) {
            check_key(key)?;
            if !written.insert(key) {
                return Err(StoreError::Key { key: key.clone(), why: "is written twice in one transaction" });
            }
        }
        Ok(())
    }

    /// The first key that is not as expected, by what `version_of` says of each.
    ///
    /// # Errors
    /// Those of `version_of`.
    pub(super) fn conflict(&self, mut version_of: impl FnMut(&str) -> Result<Option<u64>>) -> Result<Option<String>> {
        for Compare { key, expected } in &self.compare {
            if !expected.holds(version_of(key)?) {
                return Ok(Some(key.clone()));
            }
        }
        Ok(None)
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<()> {
    if found > limit { Err(StoreError::TooLarge { what, found, limit }) } else { Ok(()) }
}

fn check_key(key: &str) -> Result<()> {
    let why = match key.len() {
        0 => "is empty",
        length if length > MAX_KEY_BYTES => "is longer than 1024 bytes",
        _ => return Ok(()),
    };
    Err(StoreError::Key { key: key.chars().take(64).collect(), why })
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened, and is durable.
    Done {
        /// The new version of each put, in their order.
        versions: Vec<u64>,
    },
    /// Nothing happened.
    Conflict {
        /// The first key that was not as expected.
        key: String,
    },
}

/// Few small values, each with a version. Reads see every transaction that was done before they began.
///
/// A call that is dropped before it answers may or may not have happened.
#[async_trait]
pub trait MetaStore: Send + Sync {
    /// Reads one key; `None` when it is absent.
    ///
    /// # Errors
    /// Whatever keeps the backend from answering.
    async fn get(&self, key: &str) -> Result<Option<Versioned>>;

    /// Reads at most `limit` keys that begin with `prefix` and come after `after`, in the order of their bytes.
    ///
    /// One call sees one state; two calls may see two.
    ///
    /// # Errors
    /// Whatever keeps the backend from answering.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>>;

    /// Writes all of `txn` durably if all its conditions hold, else nothing.
    ///
    /// # Errors
    /// Those of [`Txn::check`], before anything is sent; else whatever keeps the backend from answering, and then
    /// nothing is known of the outcome: read again.
    async fn transact(&self, txn: Txn) -> Result<Outcome>;
}
