//! The embedded meta store: one redb file in the state folder, with one process at a time.
//!
//! Every transaction is synced before it answers. Each value carries a checksum, because redb checks its pages only
//! after a crash. It refuses to repair what it cannot prove, and to open what another process holds.

use std::fs::{DirBuilder, File};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError,
};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::meta::{MetaStore, Outcome, Txn, Versioned};
use super::{Result, StoreError};

/// The file's name in the state folder.
pub const FILE_NAME: &str = "state.redb";
/// The format that this release writes and reads.
const FORMAT: u64 = 1;
/// What redb may keep in memory, in bytes; the meta store is small.
const CACHE_BYTES: usize = 16 << 20;

/// Key to (version, checksum, value).
const ENTRIES: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("entries");
/// `format`, and `revision`: the version that the last write gave.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The embedded meta store.
///
/// After an error of the disk every later call fails until it is opened again, which recovers the last durable state.
#[derive(Debug)]
pub struct RedbStore {
    inner: Arc<Inner>,
    // redb has one writer and blocks the others; they wait here instead, where waiting takes no thread.
    writer: Arc<Semaphore>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    database: Database,
}

impl RedbStore {
    /// Opens the store in `folder`; makes both if they are missing. Only this user may read what it makes.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds it; [`StoreError::Corrupt`] and
    /// [`StoreError::UnknownFormat`] when it cannot be read, with nothing changed; else what the disk said.
    pub async fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let path = folder.join(FILE_NAME);
        let inner = blocking(path.clone(), move || Inner::open(&folder, path)).await?;
        Ok(Self { inner: Arc::new(inner), writer: Arc::new(Semaphore::new(1)) })
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(self.inner.path.clone(), move || work(&inner)).await
    }
}

async fn blocking<T: Send + 'static>(path: PathBuf, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|source| Err(StoreError::CutShort { path, source }))
}

#[async_trait]
impl MetaStore for RedbStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let key = key.to_owned();
        self.run(move |inner| inner.get(&key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run(move |inner| inner.list(&prefix, after.as_deref(), limit)).await
    }

    async fn transact(&self, txn: Txn) -> Result<Outcome> {
        txn.check()?;
        let turn = Arc::clone(&self.writer).acquire_owned().await;
        self.run(move |inner| {
            let _turn = turn;
            inner.transact(&txn)
        })
        .await
    }
}

impl Inner {
    fn open(folder: &Path, path: PathBuf) -> Result<Self> {
        make_folder(folder)?;
        if !path.try_exists().map_err(|source| StoreError::from_io(&path, source))? {
            create(folder, &path)?;
        }
        let opened = Builder::new().set_cache_size(CACHE_BYTES).open(&path);
        let database = opened.map_err(|error| opening(folder, &path, error))?;
        let inner = Self { path, database };
        inner.check_format()?;
        Ok(inner)
    }

    fn check_format(&self) -> Result<()> {
        let read = self.database.begin_read().map_err(|error| self.failed(error))?;
        let about = match read.open_table(ABOUT) {
            Ok(about) => about,
            Err(TableError::Storage(error)) => return Err(self.failed(error)),
            Err(error) => return Err(self.corrupt(format!("it is no state of Tidegate: {error}"))),
        };
        match about.get("format").map_err(|error| self.failed(error))?.map(|found| found.value()) {
            Some(FORMAT) => Ok(()),
            Some(found) => Err(StoreError::UnknownFormat { path: self.path.clone(), found, known: FORMAT }),
            None => Err(self.corrupt("it does not say its format".to_owned())),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let read = self.database.begin_read().map_err(|error| self.failed(error))?;
        let entries = read.open_table(ENTRIES).map_err(|error| self.failed(error))?;
        let found = entries.get(key).map_err(|error| self.failed(error))?;
        found.map(|found| self.checked(key, found.value())).transpose()
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let read = self.database.begin_read().map_err(|error| self.failed(error))?;
        let entries = read.open_table(ENTRIES).map_err(|error| self.failed(error))?;
        let range = entries.range::<&str>((start, Bound::Unbounded)).map_err(|error| self.failed(error))?;
        let mut listed = Vec::new();
        for entry in range.take(limit) {
            let (key, stored) = entry.map_err(|error| self.failed(error))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            listed.push((key.value().to_owned(), self.checked(key.value(), stored.value())?));
        }
        Ok(listed)
    }

    fn transact(&self, txn: &Txn) -> Result<Outcome> {
        let mut write = self.database.begin_write().map_err(|error| self.failed(error))?;
        write.set_durability(Durability::Immediate).map_err(|error| self.failed(error))?;
        let version = {
            let mut entries = write.open_table(ENTRIES).map_err(|error| self.failed(error))?;
            let conflict = txn.conflict(|key| {
                let found = entries.get(key).map_err(|error| self.failed(error))?;
                Ok(found.map(|found| found.value().0))
            })?;
            if let Some(key) = conflict {
                return Ok(Outcome::Conflict { key });
            }
            let mut about = write.open_table(ABOUT).map_err(|error| self.failed(error))?;
            let revision = about.get("revision").map_err(|error| self.failed(error))?.map_or(0, |found| found.value());
            let version = revision + 1;
            about.insert("revision", version).map_err(|error| self.failed(error))?;
            for (key, value) in &txn.puts {
                let stored = (version, checksum(key, version, value), value.as_ref());
                entries.insert(key.as_str(), stored).map_err(|error| self.failed(error))?;
            }
            for key in &txn.deletes {
                entries.remove(key.as_str()).map_err(|error| self.failed(error))?;
            }
            version
        };
        write.commit().map_err(|error| self.failed(error))?;
        Ok(Outcome::Done { versions: vec![version; txn.puts.len()] })
    }

    fn checked(&self, key: &str, (version, sum, value): (u64, u64, &[u8])) -> Result<Versioned> {
        if sum != checksum(key, version, value) {
            return Err(self.corrupt(format!("the value of {key} does not match its checksum")));
        }
        Ok(Versioned { version, value: Bytes::copy_from_slice(value) })
    }

    fn corrupt(&self, what: String) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), what }
    }

    fn failed(&self, error: impl Into<::redb::Error>) -> StoreError {
        failed(&self.path, error.into())
    }
}

fn failed(path: &Path, error: ::redb::Error) -> StoreError {
    match error {
        ::redb::Error::Io(source) => StoreError::from_io(path, source),
        ::redb::Error::Corrupted(what) => StoreError::Corrupt { path: path.to_path_buf(), what },
        source => StoreError::Database { path: path.to_path_buf(), source: Box::new(source) },
    }
}

fn opening(folder: &Path, path: &Path, error: DatabaseError) -> StoreError {
    let corrupt = |what: String| StoreError::Corrupt { path: path.to_path_buf(), what };
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { folder: folder.to_path_buf() },
        DatabaseError::UpgradeRequired(found) => {
            StoreError::UnknownFormat { path: path.to_path_buf(), found: found.into(), known: FORMAT }
        }
        DatabaseError::Storage(StorageError::Io(source))
            if matches!(source.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            corrupt(source.to_string())
        }
        DatabaseError::RepairAborted => corrupt("it cannot be recovered".to_owned()),
        error => failed(path, error.into()),
    }
}

/// The first eight bytes of SHA-256 over key, version and value.
fn checksum(key: &str, version: u64, value: &[u8]) -> u64 {
    let mut sum = Sha256::new();
    sum.update(u64::try_from(key.len()).unwrap_or(u64::MAX).to_be_bytes());
    sum.update(key);
    sum.update(version.to_be_bytes());
    sum.update(value);
    sum.finalize().iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn make_folder(folder: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| StoreError::from_io(folder, source))
}

/// Makes a whole file under another name and then gives it its own, so that a crash leaves none or a good one.
fn create(folder: &Path, path: &Path) -> Result<()> {
    let at = |source| StoreError::from_io(path, source);
    let fresh = tempfile::Builder::new().prefix(".state-").tempfile_in(folder).map_err(at)?;
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_file(fresh.reopen().map_err(at)?)
        .map_err(|error| opening(folder, path, error))?;
    let filled = (|| {
        let write = database.begin_write()?;
        write.open_table(ABOUT)?.insert("format", FORMAT)?;
        write.open_table(ENTRIES)?;
        write.commit()?;
        Ok(())
    })();
    filled.map_err(|error| failed(path, error))?;
    drop(database);
    fresh.as_file().sync_all().map_err(at)?;
    match fresh.persist_noclobber(path) {
        Ok(_) => {}
        Err(lost) if lost.error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(failed) => return Err(at(failed.error)),
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| StoreError::from_io(folder, source))
}

#[cfg(test)]
mod tests;
