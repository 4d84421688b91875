//! Lists files of a local disk: one file, a folder and everything below it, or a glob; by name, links followed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use futures::StreamExt;
use futures::stream::BoxStream;
use globset::{GlobBuilder, GlobMatcher};
use tidegate_proto::v1::FilePin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::error::SourceError;
use crate::access::{Allowed, cannot_open};

/// Files listed ahead of whoever asks for them.
const AHEAD: usize = 256;

/// The files that `location` names, sorted by name folder by folder.
pub(crate) fn files(
    source_name: &str,
    location: &str,
    allowed: Allowed,
) -> BoxStream<'static, Result<FilePin, SourceError>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let walk = Walk { source_name: source_name.to_owned(), allowed, sender };
    let location = PathBuf::from(location);
    tokio::task::spawn_blocking(move || {
        if let Err(Stop::Failed(error)) = walk.start(&location) {
            // A receiver that is gone needs no error.
            let _gone = walk.sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver).boxed()
}

/// Whether `name` is that of a marker, a temporary or a hidden file: no data.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

/// Whether `part` of a path holds what a glob gives a meaning to.
pub(crate) fn has_glob(part: &str) -> bool {
    part.contains(['*', '?', '[', '{'])
}

/// A matcher of `pattern` in which only `**` crosses folders.
pub(crate) fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|e| e.to_string())
}

enum Stop {
    Failed(SourceError),
    NobodyListens,
}

struct Walk {
    source_name: String,
    allowed: Allowed,
    sender: mpsc::Sender<Result<FilePin, SourceError>>,
}

impl Walk {
    fn start(&self, location: &Path) -> Result<(), Stop> {
        let (base, pattern) = self.base(location)?;
        let real = self.allowed.resolve(&base).map_err(|what| self.input(what))?;
        let about = fs::metadata(&real).map_err(|e| self.input(cannot_open(&base, &e)))?;
        if about.is_dir() {
            return self.folder(&base, &base, pattern.as_ref(), &mut vec![real]);
        }
        self.found(&base, &about)
    }

    /// The part of `location` that is no pattern, and the pattern below it. What exists under its name is no pattern.
    fn base(&self, location: &Path) -> Result<(PathBuf, Option<GlobMatcher>), Stop> {
        let is_plain = |path: &Path| !has_glob(&path.to_string_lossy());
        if is_plain(location) || (self.allowed.resolve(location).is_ok()) {
            return Ok((location.to_owned(), None));
        }
        let base = location.ancestors().find(|folder| is_plain(folder)).unwrap_or(Path::new("/"));
        let rest = location.strip_prefix(base).unwrap_or(location).to_string_lossy();
        let pattern = glob(&rest).map_err(|what| {
            Stop::Failed(SourceError::Spec {
                source_name: self.source_name.clone(),
                what: format!("the glob {rest}: {what}"),
            })
        })?;
        Ok((base.to_owned(), Some(pattern)))
    }

    /// `above` holds the real paths of the folders above, so that a link back to one of them ends there.
    fn folder(
        &self,
        base: &Path,
        folder: &Path,
        pattern: Option<&GlobMatcher>,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), Stop> {
        let cannot = |path: &Path, e: &std::io::Error| self.input(cannot_open(path, e));
        let entries = fs::read_dir(folder).map_err(|e| cannot(folder, &e))?;
        let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(|e| cannot(folder, &e))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if is_hidden(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let path = entry.path();
            let is_link = entry.file_type().map_err(|e| cannot(&path, &e))?.is_symlink();
            let about = fs::metadata(&path).map_err(|e| cannot(&path, &e))?;
            if about.is_dir() {
                let real = self.allowed.resolve(&path).map_err(|what| self.input(what))?;
                if !above.contains(&real) {
                    above.push(real);
                    self.folder(base, &path, pattern, above)?;
                    above.pop();
                }
            } else if pattern.is_none_or(|p| p.is_match(path.strip_prefix(base).unwrap_or(&path))) {
                if is_link {
                    self.allowed.resolve(&path).map_err(|what| self.input(what))?;
                }
                self.found(&path, &about)?;
            }
        }
        Ok(())
    }

    fn found(&self, path: &Path, about: &fs::Metadata) -> Result<(), Stop> {
        let Some(name) = path.to_str() else {
            return Err(self.input(format!("{} is not UTF-8: rename the file", path.display())));
        };
        let modified = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let pin = FilePin {
            path: name.to_owned(),
            size: about.len(),
            etag: String::new(),
            modified: i64::try_from(modified.as_micros()).unwrap_or(i64::MAX),
        };
        self.sender.blocking_send(Ok(pin)).map_err(|_| Stop::NobodyListens)
    }

    fn input(&self, what: String) -> Stop {
        Stop::Failed(SourceError::Input { source_name: self.source_name.clone(), what })
    }
}
