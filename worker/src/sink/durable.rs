//! Durable writes on a local disk: what is named afterwards survives a loss of power.
//!
//! Iceberg's own local storage syncs a streamed file but no folder, and a one-shot file not at all. This knows local
//! paths only: an object store makes an object durable before it answers.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::SinkError;

/// The path on this machine that `location` names: a plain path, `file:/…` or `file://…`; `None` for other schemes.
pub(super) fn local_path(location: &str) -> Option<PathBuf> {
    let path = match location.strip_prefix("file:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None if location.contains("://") => return None,
        None => location,
    };
    Some(PathBuf::from(path))
}

/// Writes a whole file that must not exist yet: under another name, synced, then renamed, then its folder synced.
pub(super) fn put_new(path: &Path, content: &[u8]) -> Result<(), SinkError> {
    let io = |source| SinkError::Io { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("/"));
    create_folder(folder)?;
    let draft = folder.join(format!(".{}.draft", Uuid::new_v4()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&draft).map_err(io)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io)?;
    // A link fails where a rename would replace what is there.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(io)?;
    linked.map_err(io)?;
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), SinkError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| SinkError::Io { path: folder.to_owned(), source })
}

/// Creates a folder and those above it, each one's name made durable in the one above.
pub(super) fn create_folder(folder: &Path) -> Result<(), SinkError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent();
    if let Some(above) = above {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(SinkError::Io { path: folder.to_owned(), source })
        }
        _ => above.map_or(Ok(()), sync_folder),
    }
}
