//! The python environment that the tests check tables with.
//!
//! It stands under the target folder, one for each content of the requirements, and is made once; whoever keeps the
//! target folder outside the clone keeps it too.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::{self, Failed, Step};

/// What is installed, pinned.
const REQUIREMENTS: &str = "tests/requirements.txt";

/// The interpreter of an environment that has all the requirements.
pub(crate) fn python() -> Result<PathBuf, Failed> {
    let requirements = root().join(REQUIREMENTS);
    let wanted = fs::read(&requirements).map_err(|error| at(&requirements, &error))?;
    let version = python_version()?;

    let shelf = target()?.join("tidegate-venv");
    fs::create_dir_all(&shelf).map_err(|error| at(&shelf, &error))?;
    let name = format!("{:016x}", fingerprint(&[version.as_bytes(), &wanted]));
    let environment = shelf.join(&name);
    let lock = shelf.join(format!("{name}.lock"));
    // Two clones may share a target folder; whoever comes second waits, and finds it made.
    let held = File::create(&lock).map_err(|error| at(&lock, &error))?;
    held.lock().map_err(|error| at(&lock, &error))?;

    let interpreter = environment.join("bin/python");
    let complete = environment.join("complete");
    if !(complete.exists() && interpreter.exists()) {
        steps::run([
            Step::new("python environment", "python3").arg("-m").arg("venv").arg("--clear").arg(&environment),
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--requirement"]
                .into_iter()
                .fold(Step::new("python packages", &interpreter), Step::arg)
                .arg(&requirements),
        ])?;
        File::create(&complete).map_err(|error| at(&complete, &error))?;
    }
    Ok(interpreter)
}

fn python_version() -> Result<String, Failed> {
    let needs = "the tests check tables with other engines and need it";
    let ask = |code: &str| Command::new("python3").args(["-c", code]).stderr(Stdio::null()).output();
    match ask("import sys; print(sys.version)") {
        Ok(answer) if answer.status.success() => match ask("import venv, ensurepip") {
            Ok(found) if found.status.success() => Ok(String::from_utf8_lossy(&answer.stdout).into_owned()),
            _ => Err(Failed::new(format!("python3 has no venv: {needs}; install python3-venv"))),
        },
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(Path::new("python3"), &error)),
        _ => Err(Failed::new(format!("there is no python3: {needs}; install python3 and python3-venv"))),
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The target folder: where cargo put this very program, less `debug/xtask`.
pub(crate) fn target() -> Result<PathBuf, Failed> {
    let me = std::env::current_exe().map_err(|error| Failed::new(format!("where is xtask? {error}")))?;
    let target = me.ancestors().nth(2).map(Path::to_path_buf);
    target.ok_or_else(|| Failed::new(format!("{} is not in a target folder", me.display())))
}

fn at(path: &Path, error: &io::Error) -> Failed {
    Failed::new(format!("{}: {error}", path.display()))
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

    #[test]
    fn every_requirement_is_pinned() {
        let requirements = fs::read_to_string(root().join(REQUIREMENTS)).unwrap();
        let lines = requirements.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert!(lines.into_iter().all(|line| line.contains("==")), "{requirements}");
    }
}
