//! Shelves below the target folder: what the tests need beside this repository, made once for each content of what it is
//! made from.
//!
//! Whoever keeps the target folder outside the clone keeps them too. Two clones may share one: whoever comes second waits.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::steps::Failed;

/// The folder on the shelf `shelf` for what is made from `parts`; `make` fills it where that was not done.
pub(crate) fn on(
    shelf: &str,
    parts: &[&[u8]],
    make: impl FnOnce(&Path) -> Result<(), Failed>,
) -> Result<PathBuf, Failed> {
    let shelf = target()?.join(shelf);
    fs::create_dir_all(&shelf).map_err(|error| at(&shelf, &error))?;
    let name = format!("{:016x}", fingerprint(parts));
    let folder = shelf.join(&name);
    let lock = shelf.join(format!("{name}.lock"));
    let held = File::create(&lock).map_err(|error| at(&lock, &error))?;
    held.lock().map_err(|error| at(&lock, &error))?;
    let complete = folder.join("complete");
    if !complete.exists() {
        make(&folder)?;
        File::create(&complete).map_err(|error| at(&complete, &error))?;
    }
    Ok(folder)
}

/// The clone: the one that cargo runs this in, for another one that shares the target folder may have compiled it.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).join("..")
}

/// A failure at a file.
pub(crate) fn at(path: &Path, error: &io::Error) -> Failed {
    Failed::new(format!("{}: {error}", path.display()))
}

/// The target folder: where cargo put this very program, less `debug/xtask`.
pub(crate) fn target() -> Result<PathBuf, Failed> {
    let me = std::env::current_exe().map_err(|error| Failed::new(format!("where is xtask? {error}")))?;
    let target = me.ancestors().nth(2).map(Path::to_path_buf);
    target.ok_or_else(|| Failed::new(format!("{} is not in a target folder", me.display())))
}

/// FNV-1a over the parts: the same in every release of Rust, which the standard library's hashers do not promise.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_the_published_examples_and_tells_parts_apart() {
        assert_eq!(fingerprint(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(&[b"a"]), fingerprint(&[b"a"]));
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    }
}
