//! An object while it is written to this machine's disk: under another name until all of it is durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::ShuffleError;

/// A file under a name of its own; dropped before it is finished, it is removed.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Begins the file that will stand at `path`; the folders above it are made.
    pub(super) fn create(path: PathBuf) -> Result<Self, ShuffleError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        create_folder(folder).map_err(ShuffleError::io(folder))?;
        let draft = folder.join(format!(".{}.draft", Uuid::new_v4()));
        let file = OpenOptions::new().write(true).create_new(true).open(&draft).map_err(ShuffleError::io(&draft))?;
        Ok(Self { file, draft, path })
    }

    /// Writes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ShuffleError> {
        self.file.write_all(bytes).map_err(ShuffleError::io(&self.draft))
    }

    /// Makes it durable, then gives it its name, which nothing may have yet, then makes that durable.
    pub(super) fn finish(self) -> Result<(), ShuffleError> {
        self.file.sync_all().map_err(ShuffleError::io(&self.draft))?;
        // A link fails where a rename would replace what is there.
        fs::hard_link(&self.draft, &self.path).map_err(ShuffleError::io(&self.path))?;
        fs::remove_file(&self.draft).map_err(ShuffleError::io(&self.draft))?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        sync_folder(folder).map_err(ShuffleError::io(folder))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already where it was finished; what stays in any case goes with the backfill.
        let _ = fs::remove_file(&self.draft);
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates a folder and those above it, each one's name made durable in the one above.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent();
    if let Some(above) = above {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => above.map_or(Ok(()), sync_folder),
    }
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove_file(path: &Path) -> Result<(), ShuffleError> {
    unless_missing(fs::remove_file(path)).map_err(ShuffleError::io(path))
}

/// Removes a folder and all that is in it, links not followed; one that is not there is no error.
pub(super) fn remove_folder(path: &Path) -> Result<(), ShuffleError> {
    unless_missing(fs::remove_dir_all(path)).map_err(ShuffleError::io(path))
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
