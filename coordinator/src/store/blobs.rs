//! Immutable blobs: specs, plan segments, the hand-in log, intents. A blob is written once and never changes.
//!
//! A blob that was put is durable before the answer, so that a compare-and-swap may name it. On a local disk that
//! means file and folders synced, which `object_store` does not do; elsewhere the object store promises it.
//! It refuses to overwrite, and paths that some backend would read differently.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::{Result, StoreError};

mod local;

use local::Local;

/// The longest path of a blob, in bytes.
pub const MAX_PATH_BYTES: usize = 900;
/// The longest name between two slashes, in bytes.
const MAX_NAME_BYTES: usize = 200;

/// Immutable blobs by path: names of `A-Z a-z 0-9 . _ = -` joined by `/`, none of which begins with a dot.
#[derive(Clone, Debug)]
pub struct Blobs(Backend);

#[derive(Clone, Debug)]
enum Backend {
    Local(Arc<Local>),
    Object { store: Arc<dyn ObjectStore>, root: object_store::path::Path },
}

impl Blobs {
    /// Blobs in a local folder, which is made when the first blob is put.
    pub fn local(folder: impl Into<std::path::PathBuf>) -> Self {
        Self(Backend::Local(Arc::new(Local::new(folder.into()))))
    }

    /// Blobs under `root` in an object store that is not a local disk. The store's own retries apply.
    pub fn object(store: Arc<dyn ObjectStore>, root: object_store::path::Path) -> Self {
        Self(Backend::Object { store, root })
    }

    /// Puts a blob durably. A blob of the same path and content that is already there is as good.
    ///
    /// # Errors
    /// [`StoreError::Different`] when the path is taken by another content; [`StoreError::BlobPath`] before anything
    /// is sent; else what the disk or the store said, and then nothing is known of the outcome: put it again.
    pub async fn put_new(&self, path: &str, content: Bytes) -> Result<()> {
        check_path(path)?;
        match &self.0 {
            Backend::Local(local) => local.run(path, move |local, path| local.put_new(path, &content)).await,
            Backend::Object { store, root } => {
                let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                match store.put_opts(&under(root, path), content.clone().into(), create).await {
                    Ok(_) => Ok(()),
                    Err(object_store::Error::AlreadyExists { .. }) if self.get(path).await? == content => Ok(()),
                    Err(object_store::Error::AlreadyExists { .. }) => {
                        Err(StoreError::Different { path: path.to_owned() })
                    }
                    Err(error) => Err(of_store(path, error)),
                }
            }
        }
    }

    /// Reads a blob whole.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none; else what the disk or the store said.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        check_path(path)?;
        match &self.0 {
            Backend::Local(local) => local.run(path, Local::get).await,
            Backend::Object { store, root } => {
                let found = store.get(&under(root, path)).await.map_err(|error| of_store(path, error))?;
                found.bytes().await.map_err(|error| of_store(path, error))
            }
        }
    }

    /// Removes a blob; one that is not there is as good.
    ///
    /// # Errors
    /// What the disk or the store said.
    pub async fn delete(&self, path: &str) -> Result<()> {
        check_path(path)?;
        match &self.0 {
            Backend::Local(local) => local.run(path, Local::delete).await,
            Backend::Object { store, root } => match store.delete(&under(root, path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(of_store(path, error)),
            },
        }
    }

    /// The paths of all blobs in `folder` and below, in order; of all blobs when it is empty.
    ///
    /// # Errors
    /// What the disk or the store said. A folder that is not there is empty.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
        if !folder.is_empty() {
            check_path(folder)?;
        }
        let listed: BTreeSet<String> = match &self.0 {
            Backend::Local(local) => local.run(folder, Local::list).await?,
            Backend::Object { store, root } => {
                let below = if folder.is_empty() { root.clone() } else { under(root, folder) };
                store
                    .list(Some(&below))
                    .try_filter_map(|found| {
                        let names: Option<Vec<_>> = found.location.prefix_match(root).map(Iterator::collect);
                        let path = names.map(|names| {
                            names.iter().map(|name| name.as_ref().to_owned()).collect::<Vec<_>>().join("/")
                        });
                        std::future::ready(Ok(path.filter(|path| check_path(path).is_ok())))
                    })
                    .try_collect()
                    .await
                    .map_err(|error| of_store(folder, error))?
            }
        };
        Ok(listed.into_iter().collect())
    }
}

fn under(root: &object_store::path::Path, path: &str) -> object_store::path::Path {
    path.split('/').fold(root.clone(), |parent, name| parent.join(name))
}

fn of_store(path: &str, error: object_store::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        object_store::Error::NotFound { .. } => StoreError::Missing { path },
        source => StoreError::Object { path, source },
    }
}

fn check_path(path: &str) -> Result<()> {
    let refused = |why| Err(StoreError::BlobPath { path: path.chars().take(100).collect(), why });
    if path.len() > MAX_PATH_BYTES {
        return refused("is longer than 900 bytes");
    }
    for name in path.split('/') {
        if name.is_empty() {
            return refused("has an empty name: it must not begin, end or double a slash");
        }
        if name.len() > MAX_NAME_BYTES {
            return refused("has a name longer than 200 bytes");
        }
        if name.starts_with('.') {
            return refused("has a name that begins with a dot");
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._=-".contains(&byte)) {
            return refused("has a character other than A-Z a-z 0-9 . _ = -");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
