//! How the process ends: the exit codes of the contract, and the error that carries one.
//!
//! An error is printed once, on stderr, by `main`: `error: …` with the chain behind it, then `hint: …` with the way out.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::process::ExitCode;

use tidegate_common::spec::SpecErrors;

use crate::style::{Paint, plain};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line or the configuration cannot be used.
    Usage = 2,
    /// The spec is invalid.
    SpecInvalid = 3,
    /// Refused before anything was done: a preflight failed, a plan is stale, the state does not allow it.
    Preflight = 4,
    /// An approval or a confirmation is missing.
    Unconfirmed = 5,
    /// Done, with parked work or dead letters above the limit.
    Partial = 6,
    /// A verification does not match.
    Mismatch = 7,
    /// `--wait` timed out.
    TimedOut = 8,
    /// `plan --detailed-exitcode`, and there is work.
    WorkToDo = 10,
    /// Temporary: try again.
    Temporary = 75,
    /// Interrupted (Ctrl-C).
    Interrupted = 130,
    /// Terminated (SIGTERM), before it could end by itself.
    Terminated = 143,
}

impl Exit {
    /// Every way to end, in order.
    pub const ALL: [Self; 13] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::SpecInvalid,
        Self::Preflight,
        Self::Unconfirmed,
        Self::Partial,
        Self::Mismatch,
        Self::TimedOut,
        Self::WorkToDo,
        Self::Temporary,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// Its number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The one with this number; `None` for a number that is not in the contract.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    exit: Exit,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a command answers: how the process ends.
pub(crate) type Outcome = Result<Exit, Error>;

impl Error {
    /// An error that ends the process with `exit`.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, source: None }
    }

    /// A command line or configuration that cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// With the way out.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With what is behind it.
    #[must_use]
    pub(crate) fn because(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The whole of it for a person; ends with a line feed.
    ///
    /// What has more than one line (the errors of a spec) begins on a line of its own, so that `file:line:column`
    /// stands where editors look for it.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let mut text = format!("{} {}", paint.bad("error:"), lines(&self.message));
        let mut said = self.message.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            let this = cause.to_string();
            if !said.contains(&this) {
                let several = this.contains('\n') || cause.is::<SpecErrors>();
                let _ = write!(text, "{}{}", if several { ":\n" } else { ": " }, lines(&this));
                said.push_str(&this);
            }
            next = cause.source();
        }
        text.push('\n');
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "{} {}", paint.bold("hint:"), lines(hint));
        }
        text
    }
}

/// `text` without anything that could write to the terminal other than its own words and line feeds.
fn lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let table: Vec<String> = Exit::ALL.iter().map(|exit| format!("{} {exit:?}", exit.code())).collect();
        insta::assert_snapshot!(table.join("\n"));
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(i32::from(exit.code())), Some(exit));
        }
        assert_eq!(Exit::from_code(99), None);
    }

    #[test]
    fn an_error_is_one_chain_with_its_hint() {
        let cause = std::io::Error::other("connection refused");
        let error = Error::new(Exit::Temporary, "no coordinator answers").because(cause).hint("start one");
        assert_eq!(
            error.render(Paint::plain()),
            "error: no coordinator answers: connection refused\nhint: start one\n"
        );
    }

    #[test]
    fn an_error_cannot_write_to_the_terminal() {
        let error = Error::usage("a\u{1b}[31mb");
        assert_eq!(error.render(Paint::plain()), "error: a\\u{1b}[31mb\n");
    }
}
