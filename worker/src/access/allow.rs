//! The worker's allow-list of folders, asked with the path that a path really leads to.

use std::path::{Component, Path, PathBuf};

use crate::access::Access;

/// The folders below which a worker may read; none given is whatever the user may read.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    folders: Option<Vec<PathBuf>>,
}

impl Allowed {
    /// Those of `access`.
    pub(crate) fn new(access: &Access) -> Self {
        Self { folders: access.paths.clone() }
    }

    /// The real path behind the absolute path `path`, when it lies in an allowed folder after every link is followed.
    ///
    /// A path that cannot be allowed as it is written is refused before the disk is asked whether it exists.
    pub(crate) fn resolve(&self, path: &Path) -> Result<PathBuf, String> {
        let shown = path.display();
        let Some(folders) = &self.folders else {
            return path.canonicalize().map_err(|e| cannot_open(path, &e));
        };
        let folders: Vec<PathBuf> =
            folders.iter().flat_map(|f| [Some(f.clone()), f.canonicalize().ok()]).flatten().collect();
        let below = |path: &Path| folders.iter().any(|folder| path.starts_with(folder));
        let refused = || format!("{shown} is not in a folder that this worker allows: add one to allow.paths");
        if path.components().any(|part| part == Component::ParentDir) || !below(path) {
            return Err(refused());
        }
        let real = path.canonicalize().map_err(|e| cannot_open(path, &e))?;
        if below(&real) { Ok(real) } else { Err(format!("{} (a link leads out of the allowed folders)", refused())) }
    }
}

/// How what is said of a path that is not there ends.
pub(crate) const NOT_THERE: &str = "does not exist on this worker";

/// What a person needs to know of a failed look at `path`.
pub(crate) fn cannot_open(path: &Path, error: &std::io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{shown} {NOT_THERE}"),
        std::io::ErrorKind::PermissionDenied => format!("{shown}: permission denied to the user this worker runs as"),
        _ => format!("{shown}: {error}"),
    }
}
