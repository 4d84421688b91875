//! Files of this machine while they are written: streamed, and synced when they are closed.
//!
//! Iceberg's library does the same and says only in words what the system answered; here the answer stays in the chain of
//! causes, so that a full disk is known for one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::io::FileWrite;
use iceberg::{Error, ErrorKind, Result};

/// A file while it is written.
pub(super) struct DiskFile {
    path: PathBuf,
    file: Option<File>,
}

impl DiskFile {
    /// Creates the file that `location` names, a path or `file:` URL, and the folders above it.
    pub(super) fn create(location: &str) -> Result<Self> {
        let path = location.strip_prefix("file:").map_or(location, |rest| rest.strip_prefix("//").unwrap_or(rest));
        let path = PathBuf::from(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        let file = File::create(&path).map_err(failed("create", &path))?;
        Ok(Self { path, file: Some(file) })
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::DataInvalid, format!("{} is closed already", self.path.display()))
    }
}

#[async_trait]
impl FileWrite for DiskFile {
    async fn write(&mut self, content: Bytes) -> Result<()> {
        let Some(file) = &mut self.file else { return Err(self.closed()) };
        file.write_all(&content).map_err(failed("write", &self.path))
    }

    async fn close(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Err(self.closed()) };
        file.sync_all().map_err(failed("write", &self.path))
    }
}

fn failed(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("cannot {doing} {}", path.display());
    move |error| Error::new(ErrorKind::Unexpected, what).with_source(error)
}
