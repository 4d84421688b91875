//! A folder on this machine or in a bucket: what a Spark checkpoint stands in.

use std::path::Path as DiskPath;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidegate_common::spec::model::StorageSpec;

use crate::access::Access;
use crate::checkpoint::CheckpointError;
use crate::storage::S3;

/// No file of a log is longer, in bytes.
const LONGEST_LOG: usize = 64 << 20;

/// A folder.
#[derive(Clone, Debug)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    base: Path,
    shown: String,
    is_disk: bool,
}

impl Folder {
    /// The folder at `location`: an absolute path of this machine, or `s3://bucket/key`, reached as `storage` and the
    /// user's own environment say. It need not be there.
    ///
    /// # Errors
    /// A location that is none, and settings that cannot be used.
    pub fn open(location: &str, storage: &StorageSpec) -> Result<Self, CheckpointError> {
        let usage = |what: String| CheckpointError::Usage(format!("{location}: {what}"));
        let location = location.strip_prefix("file://").unwrap_or(location).trim_end_matches('/');
        let (store, base, is_disk): (Arc<dyn ObjectStore>, Path, bool) = match location.split_once("://") {
            None => {
                let path = DiskPath::new(location);
                if !path.is_absolute() {
                    return Err(usage("it is relative: write it whole".to_owned()));
                }
                let base = Path::from_absolute_path(path).map_err(|bad| usage(bad.to_string()))?;
                (Arc::new(LocalFileSystem::new()), base, true)
            }
            Some(("s3" | "s3a", rest)) => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                let opened = S3::of(storage, &Access::local()).and_then(|s3| s3.open(bucket, None)).map_err(usage)?;
                (Arc::new(opened), Path::parse(key).map_err(|bad| usage(bad.to_string()))?, false)
            }
            Some((scheme, _)) => return Err(usage(format!("{scheme}:// is not read here: use a path or s3://"))),
        };
        Ok(Self { store, base, shown: location.to_owned(), is_disk })
    }

    /// As it was given.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.shown.rsplit('/').next().unwrap_or(&self.shown)
    }

    pub(super) fn is_disk(&self) -> bool {
        self.is_disk
    }

    /// Where `name` in it is, for people.
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.shown)
    }

    fn key(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.base.clone(), |path, part| path.join(part))
    }

    fn failed(&self, name: &str) -> impl Fn(object_store::Error) -> CheckpointError {
        let file = self.place(name);
        move |error| CheckpointError::Store { file: file.clone(), source: error.into() }
    }

    /// The names of the files right in the folder `name` of it.
    pub(super) async fn files(&self, name: &str) -> Result<Vec<String>, CheckpointError> {
        let listed = match self.store.list_with_delimiter(Some(&self.key(name))).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            listed => listed.map_err(self.failed(name))?,
        };
        Ok(listed.objects.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect())
    }

    /// The names, from its own root, of all files below the folder `name` of it. Left out is what Spark or Hadoop is still
    /// writing, and the sums that a local file system keeps.
    pub(super) async fn below(&self, name: &str) -> Result<Vec<String>, CheckpointError> {
        let metas: Vec<_> = self.store.list(Some(&self.key(name))).try_collect().await.map_err(self.failed(name))?;
        let of = |meta: &object_store::ObjectMeta| {
            let parts = meta.location.prefix_match(&self.base)?;
            Some(parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
        };
        let mut names: Vec<String> = metas.iter().filter_map(of).filter(|name| !is_passing(name)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Whether there is any file below the folder `name` of it.
    pub(super) async fn holds(&self, name: &str) -> Result<bool, CheckpointError> {
        match self.store.list(Some(&self.key(name))).try_next().await {
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            first => Ok(first.map_err(self.failed(name))?.is_some()),
        }
    }

    /// The whole file `name`; none where there is no such file.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Bytes>, CheckpointError> {
        match self.store.get(&self.key(name)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            got => Ok(Some(got.map_err(self.failed(name))?.bytes().await.map_err(self.failed(name))?)),
        }
    }

    /// The text of a log's file; none where there is no such file.
    pub(super) async fn text(&self, name: &str) -> Result<Option<String>, CheckpointError> {
        let Some(bytes) = self.get(name).await? else { return Ok(None) };
        if bytes.len() > LONGEST_LOG {
            return Err(CheckpointError::file(self.place(name), "it is too long for a file of a log"));
        }
        let text = String::from_utf8(bytes.to_vec());
        text.map(Some).map_err(|_| CheckpointError::file(self.place(name), "it is no text"))
    }

    /// Writes the file `name`, in place of one that is there, as a whole or not at all.
    pub(super) async fn put(&self, name: &str, content: Bytes) -> Result<(), CheckpointError> {
        self.store.put(&self.key(name), content.into()).await.map(|_| ()).map_err(self.failed(name))
    }

    /// Takes the file `name` away, if it is there.
    pub(super) async fn remove(&self, name: &str) -> Result<(), CheckpointError> {
        match self.store.delete(&self.key(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(name)(error)),
        }
    }
}

/// Whether a file is no part of a checkpoint: hidden, half written, or the sum of another.
fn is_passing(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.starts_with('.') || last.ends_with(".tmp") || last.ends_with("_tmp") || last.ends_with(".crc")
}
