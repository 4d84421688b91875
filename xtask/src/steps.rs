//! Steps: commands that are announced, timed, and end all when one fails.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::process::Command;
use std::time::Instant;

/// A command with a name.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    command: Command,
    speaks_last: bool,
}

/// Why all ended, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failed {
    what: String,
    pub(crate) exit_code: u8,
}

impl Failed {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), exit_code: 1 }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)
    }
}

/// A step that runs cargo, the same that runs this, with `arguments` split at spaces.
pub(crate) fn cargo(name: &'static str, arguments: &str) -> Step {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut step = Step::new(name, cargo);
    // What cargo tells this program about its own package would look to build scripts like a change of theirs, and half
    // of all dependencies would be compiled again, here and once more in the next plain `cargo build`.
    let of_this_package = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_package)) {
        step.command.env_remove(name);
    }
    arguments.split(' ').fold(step, Step::arg)
}

impl Step {
    pub(crate) fn new(name: &'static str, program: impl AsRef<OsStr>) -> Self {
        Self { name, command: Command::new(program), speaks_last: false }
    }

    #[must_use]
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has the command say everything on stderr: stdout is for what was asked for.
    #[must_use]
    pub(crate) fn aside(mut self) -> Self {
        self.command.stdout(std::io::stderr());
        self
    }

    /// Leaves the last word to the command: its own summary says how it went and how long it took.
    #[must_use]
    pub(crate) fn speaks_last(mut self) -> Self {
        self.speaks_last = true;
        self
    }

    #[allow(clippy::disallowed_methods, reason = "the project's clock is in a room, and this depends on none")]
    fn run(mut self) -> Result<(), Failed> {
        eprintln!("== {}", self.name);
        let started = Instant::now();
        let status = self.command.status().map_err(|error| {
            let program = self.command.get_program().to_string_lossy();
            Failed::new(format!("{}: cannot run {program}: {error}", self.name))
        })?;
        let seconds = started.elapsed().as_secs_f64();
        if !status.success() {
            let exit_code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            return Err(Failed { what: format!("{} failed after {seconds:.1} s: {status}", self.name), exit_code });
        }
        if !self.speaks_last {
            eprintln!("== {}: ok, {seconds:.1} s", self.name);
        }
        Ok(())
    }
}

/// Runs the steps in order, up to the first that fails.
pub(crate) fn run(steps: impl IntoIterator<Item = Step>) -> Result<(), Failed> {
    steps.into_iter().try_for_each(Step::run)
}
