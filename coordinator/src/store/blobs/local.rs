//! Blobs on a local disk, synced by hand.
//!
//! A blob is written under a name that begins with a dot, synced, given its own name without replacing another, and
//! then its folder is synced. A crash leaves at most a file with a dot, which is never listed.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::store::{Result, StoreError};

/// Blobs in a local folder.
#[derive(Debug)]
pub(super) struct Local {
    root: PathBuf,
    /// The folders whose entry in their parent this process has synced.
    anchored: Mutex<HashSet<PathBuf>>,
}

impl Local {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, anchored: Mutex::default() }
    }

    /// Runs `work` for the blob at `path` on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        path: &str,
        work: impl FnOnce(&Self, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (local, path) = (Arc::clone(self), path.to_owned());
        let file = self.root.join(&path);
        let done = tokio::task::spawn_blocking(move || work(&local, &path)).await;
        done.unwrap_or_else(|source| Err(StoreError::CutShort { path: file, source }))
    }

    pub(super) fn put_new(&self, path: &str, content: &[u8]) -> Result<()> {
        let file = self.root.join(path);
        let folder = file.parent().unwrap_or(&self.root);
        self.make_folder(folder)?;
        let at = |source| StoreError::from_io(&file, source);
        let mut fresh = tempfile::Builder::new().prefix(".put-").tempfile_in(folder).map_err(at)?;
        fresh.write_all(content).map_err(at)?;
        fresh.as_file().sync_all().map_err(at)?;
        match fresh.persist_noclobber(&file) {
            Ok(_) => {}
            Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => {
                if self.get(path)? != content {
                    return Err(StoreError::Different { path: path.to_owned() });
                }
            }
            Err(failed) => return Err(at(failed.error)),
        }
        sync_folder(folder)
    }

    pub(super) fn get(&self, path: &str) -> Result<Bytes> {
        let file = self.root.join(path);
        match fs::read(&file) {
            Ok(content) => Ok(content.into()),
            Err(error) if absent(&error) => Err(StoreError::Missing { path: path.to_owned() }),
            Err(error) => Err(StoreError::from_io(&file, error)),
        }
    }

    pub(super) fn delete(&self, path: &str) -> Result<()> {
        let file = self.root.join(path);
        match fs::remove_file(&file) {
            Ok(()) => Ok(()),
            Err(error) if absent(&error) => Ok(()),
            Err(error) => Err(StoreError::from_io(&file, error)),
        }
    }

    pub(super) fn list(&self, folder: &str) -> Result<BTreeSet<String>> {
        let mut listed = BTreeSet::new();
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let place = self.root.join(&folder);
            let at = |source| StoreError::from_io(&place, source);
            let entries = match fs::read_dir(&place) {
                Ok(entries) => entries,
                Err(error) if absent(&error) => continue,
                Err(error) => return Err(at(error)),
            };
            for entry in entries {
                let entry = entry.map_err(at)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if super::check_path(&path).is_err() {
                    continue;
                }
                if entry.file_type().map_err(at)?.is_dir() {
                    open.push(path);
                } else {
                    listed.insert(path);
                }
            }
        }
        Ok(listed)
    }

    /// Makes `folder` and all above it, and makes sure once that each is durable in its parent: one that is there
    /// already may be the work of a process that died before it synced.
    fn make_folder(&self, folder: &Path) -> Result<()> {
        if self.anchored.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) && folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(|source| StoreError::from_io(folder, source))?;
        let made = folder.ancestors().take_while(|above| above.starts_with(&self.root));
        for parent in made.filter_map(Path::parent).filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        self.anchored.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_path_buf());
        Ok(())
    }
}

/// A blob is absent also when what should be its folder is none.
fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| StoreError::from_io(folder, source))
}
