//! The program under test: built once for each test binary, with its profile and in its target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `tidegate`: that of `TIDEGATE_BINARY`, or built from this very tree.
///
/// # Panics
/// When it cannot be built.
pub fn tidegate() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

/// The workspace's root: where cargo runs this test, for another clone that shares the target folder may have compiled it.
///
/// # Panics
/// When there is none.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).join("..").canonicalize().expect("the workspace is there")
}

fn build() -> PathBuf {
    if let Some(given) = std::env::var_os("TIDEGATE_BINARY") {
        return PathBuf::from(given);
    }
    let profile = profile_folder();
    let target = profile.parent().expect("a profile is in a target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "tidegate", "--message-format", "json-render-diagnostics"]);
    cargo.current_dir(root()).arg("--target-dir").arg(target);
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => drop(cargo.args(["--profile", profile])),
    }
    // What cargo tells a test about its package would look to build scripts like a change of theirs, and half of all
    // dependencies would be compiled again.
    let of_this_package = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_package)) {
        cargo.env_remove(name);
    }
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "tidegate cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built: Vec<PathBuf> = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect();
    own(built.last().expect("cargo says where the program is"))
}

/// Another name for the file: another tree that shares the target folder builds over the first one.
fn own(built: &Path) -> PathBuf {
    let tree = root().to_string_lossy().bytes().fold(0u64, |hash, byte| hash.rotate_left(5) ^ u64::from(byte));
    let own = built.with_file_name(format!("tidegate-under-test-{tree:016x}"));
    let fresh = built.with_file_name(format!("tidegate-under-test-{tree:016x}-{}", std::process::id()));
    // A link left by an earlier process of this number.
    let _ = std::fs::remove_file(&fresh);
    std::fs::hard_link(built, &fresh).or_else(|_| std::fs::copy(built, &fresh).map(drop)).expect("a copy beside it");
    std::fs::rename(&fresh, &own).expect("a rename beside it");
    own
}

/// `target/debug`, or whatever the running test was built into.
fn profile_folder() -> PathBuf {
    let me = std::env::current_exe().expect("a test knows where it is");
    me.ancestors().nth(2).expect("a test is in target/<profile>/deps").to_path_buf()
}
