//! The demo's data, within the binary: it runs in any folder.

use std::path::Path;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        /// The path of each file below the demo's folder, and its content.
        pub(crate) const FILES: &[(&str, &[u8])] =
            &[$(($path, include_bytes!(concat!("../../examples/flights/", $path)))),*];
    };
}

files!(
    "aligned.yaml",
    "joined.yaml",
    "README.md",
    "flights/2013-01.parquet",
    "flights/2013-02.parquet",
    "flights/2013-03.parquet",
    "flights/2013-04.parquet",
    "flights/2013-05.parquet",
    "flights/2013-06.parquet",
    "flights/2013-07.parquet",
    "flights/2013-08.parquet",
    "flights/2013-09.parquet",
    "flights/2013-10.parquet",
    "flights/2013-11.parquet",
    "flights/2013-12.parquet",
    "weather/weather.parquet",
);

/// Writes the files below `folder`; one that is there already is left as it is, so that a demo that was interrupted
/// finds what it had pinned.
///
/// # Errors
/// What the file system says, with the path.
pub(crate) fn unpack(folder: &Path) -> Result<(), (std::path::PathBuf, std::io::Error)> {
    for (name, content) in FILES {
        let path = folder.join(name);
        let there = std::fs::metadata(&path).is_ok_and(|found| found.len() == content.len() as u64);
        if there {
            continue;
        }
        let write = || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, content)
        };
        write().map_err(|error| (path.clone(), error))?;
    }
    Ok(())
}
