//! The shuffle store: a folder of this machine, or a prefix of a bucket, that all workers share.
//!
//! Each backfill has a folder of its own in it. Paths come over the wire: what is not plainly below that folder is
//! refused.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tidegate_common::ids::BackfillId;

use super::disk::{self, Draft};
use super::error::ShuffleError;
use super::upload::Upload;
use crate::storage::S3;

/// What the name of every object ends with.
const SUFFIX: &str = ".shuffle";

/// Where the shuffle store is.
#[derive(Clone)]
pub struct ShuffleStore {
    location: Arc<str>,
    store: Arc<dyn ObjectStore>,
    /// Of a folder of this machine; in a bucket, the prefix.
    disk: Option<Arc<std::path::Path>>,
    base: Path,
}

impl fmt::Debug for ShuffleStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShuffleStore").field(&self.location).finish()
    }
}

impl ShuffleStore {
    /// Opens the store at `location`: a folder of this machine, as a path or `file://`, or `s3://bucket/prefix`, with the
    /// credentials of this worker's environment. Asks nothing of it and makes nothing yet.
    pub fn open(location: &str) -> Result<Self, ShuffleError> {
        if location
            .split_once("://")
            .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')))
        {
            let what = "credentials do not belong there: the environment of the worker has them".to_owned();
            return Err(ShuffleError::Location { location: "***".to_owned(), what });
        }
        let bad = |what: String| ShuffleError::Location { location: location.to_owned(), what };
        let folder = match location.split_once("://") {
            None | Some(("file", _)) => location.strip_prefix("file://").unwrap_or(location),
            Some(("s3" | "s3a", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(bad("it names no bucket: write s3://bucket/prefix".to_owned()));
                }
                let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| bad(error.to_string()))?;
                return Ok(Self::in_bucket(location, Arc::new(S3::ambient(bucket).map_err(bad)?), prefix));
            }
            Some((scheme, _)) => return Err(bad(format!("{scheme}:// is none that is known: use a path or s3://"))),
        };
        if folder.is_empty() {
            return Err(bad("it is empty: name a folder, or s3://bucket/prefix".to_owned()));
        }
        let folder = std::path::absolute(folder).map_err(|error| bad(error.to_string()))?;
        let base = Path::from_absolute_path(&folder).map_err(|error| bad(error.to_string()))?;
        let store = Arc::new(LocalFileSystem::new());
        Ok(Self { location: location.into(), store, disk: Some(folder.into()), base })
    }

    /// The store below `prefix` of a bucket.
    pub(super) fn in_bucket(location: &str, store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { location: location.into(), store, disk: None, base: prefix }
    }

    /// Removes objects of a backfill; what is not there is no error. Where one path is refused, nothing is removed.
    pub async fn delete(&self, backfill: &BackfillId, paths: &[String]) -> Result<(), ShuffleError> {
        paths.iter().try_for_each(|path| check_path(backfill, path))?;
        match &self.disk {
            Some(folder) => paths.iter().try_for_each(|path| disk::remove_file(&folder.join(path))),
            None => self.remove(paths.iter().map(|path| self.key(path)).collect()).await,
        }
    }

    /// Removes all that is left of a backfill, with what attempts that died have left.
    pub async fn delete_all(&self, backfill: &BackfillId) -> Result<(), ShuffleError> {
        if let Some(folder) = &self.disk {
            return disk::remove_folder(&folder.join(backfill.as_str()));
        }
        let prefix = self.key(backfill.as_str());
        let listed = self.store.list(Some(&prefix)).map_ok(|object| object.location).try_collect().await;
        self.remove(listed.map_err(|error| self.failed(backfill.as_str(), error))?).await
    }

    async fn remove(&self, keys: Vec<Path>) -> Result<(), ShuffleError> {
        let mut removed = self.store.delete_stream(futures::stream::iter(keys.into_iter().map(Ok)).boxed());
        while let Some(done) = removed.next().await {
            match done {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("removing objects", error)),
            }
        }
        Ok(())
    }

    /// Begins an object.
    pub(super) fn create(&self, path: &str) -> Result<Output, ShuffleError> {
        let kind = match &self.disk {
            Some(folder) => Kind::Disk(Draft::create(folder.join(path))?),
            None => Kind::Bucket(Upload::create(self.store.clone(), self.key(path))),
        };
        Ok(Output { store: self.clone(), path: path.to_owned(), kind })
    }

    /// The last bytes of an object, at most `most`, and how many it has.
    pub(super) async fn tail(&self, path: &str, most: u64) -> Result<(Bytes, u64), ShuffleError> {
        self.get(path, GetRange::Suffix(most)).await
    }

    /// Some bytes of an object; fewer where it ends before.
    pub(super) async fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes, ShuffleError> {
        self.get(path, GetRange::Bounded(range)).await.map(|(bytes, _)| bytes)
    }

    async fn get(&self, path: &str, range: GetRange) -> Result<(Bytes, u64), ShuffleError> {
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let got = async {
            let got = self.store.get_opts(&self.key(path), options).await?;
            let size = got.meta.size;
            Ok((got.bytes().await?, size))
        };
        got.await.map_err(|error| self.failed(path, error))
    }

    /// A failure of the store at an object.
    pub(super) fn failed(&self, path: &str, error: object_store::Error) -> ShuffleError {
        ShuffleError::store(path, &self.location, error)
    }

    /// Of a path that was checked.
    fn key(&self, path: &str) -> Path {
        path.split('/').fold(self.base.clone(), |key, part| key.join(part))
    }
}

/// An object while it is written.
pub(super) struct Output {
    store: ShuffleStore,
    path: String,
    kind: Kind,
}

enum Kind {
    Disk(Draft),
    Bucket(Upload),
}

impl Output {
    /// Bytes that wait in memory.
    pub(super) fn held(&self) -> usize {
        match &self.kind {
            Kind::Disk(_) => 0,
            Kind::Bucket(upload) => upload.held(),
        }
    }

    /// Writes the next bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ShuffleError> {
        match &mut self.kind {
            Kind::Disk(draft) => draft.write(bytes),
            Kind::Bucket(upload) => upload.write(bytes).await.map_err(|error| self.store.failed(&self.path, error)),
        }
    }

    /// Makes the object be there, and durable.
    pub(super) async fn finish(self) -> Result<(), ShuffleError> {
        match self.kind {
            Kind::Disk(draft) => draft.finish(),
            Kind::Bucket(upload) => upload.finish().await.map_err(|error| self.store.failed(&self.path, error)),
        }
    }

    /// Makes it never be.
    pub(super) async fn abort(self) {
        if let Kind::Bucket(upload) = self.kind {
            upload.abort().await;
        }
    }
}

/// The path of the object of that name.
pub(super) fn path_of(backfill: &BackfillId, name: &str) -> Result<String, ShuffleError> {
    let path = format!("{backfill}/{name}{SUFFIX}");
    check_path(backfill, &path).map(|()| path)
}

/// Whether `path` is that of an object of `backfill`, by its words alone.
pub(super) fn check_path(backfill: &BackfillId, path: &str) -> Result<(), ShuffleError> {
    let bad = |what| {
        let path = path.chars().take(256).collect();
        Err(ShuffleError::Path { path, backfill: backfill.to_string(), what })
    };
    let Some(name) = path.strip_prefix(backfill.as_str()).and_then(|rest| rest.strip_prefix('/')) else {
        return bad("it is not in that backfill's folder");
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = |part: &str| (1..=200).contains(&part.len()) && !part.starts_with('.') && part.chars().all(is_plain);
    if path.len() > 1000 || !name.split('/').all(fits) {
        return bad("its parts must be of letters, digits, `-`, `_` and `.`, and begin with no `.`");
    }
    if !name.ends_with(SUFFIX) {
        return bad("it does not end with .shuffle");
    }
    Ok(())
}
