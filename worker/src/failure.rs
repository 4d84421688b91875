//! What a task's failure means for the coordinator: every error of this crate answers it.

use tidegate_proto::v1;

/// What to do about an error; one to one with `tidegate.v1.Failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// May pass when tried again.
    Retryable,
    /// This worker cannot; another may.
    WorkerSick,
    /// This input cannot be processed, however often it is tried.
    Poison,
    /// Somebody else holds the right.
    Fenced,
    /// Whether it happened is not known.
    Unknown,
    /// The backfill as it is asked for cannot run; `exit_code` is what the CLI ends with (3 spec, 4 preflight).
    Fatal {
        /// The CLI's exit code.
        exit_code: i32,
    },
}

/// The exit code of what may pass when it is tried again.
pub const TEMPORARY: i32 = 75;

/// An error that knows what it means. `Display` says its own part, `source` the rest.
pub trait Classify: std::error::Error {
    /// What to do about it.
    fn class(&self) -> Class;

    /// What the CLI ends with where this ends the backfill; `None` leaves it to the class.
    fn exit_code(&self) -> Option<i32> {
        None
    }

    /// Where it happened: a file, a unit, a row; empty where that says nothing.
    fn place(&self) -> String {
        String::new()
    }

    /// The object of the shuffle store that is missing or damaged, where that is what happened.
    fn lost(&self) -> Option<String> {
        None
    }
}

/// An error and everything behind it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// An error as the evidence that goes to the coordinator; the worker's name and the attempts are filled in there.
pub fn evidence(error: &dyn Classify) -> v1::Evidence {
    let (class, exit_code) = match error.class() {
        Class::Retryable => (v1::Failure::Retryable, 0),
        Class::WorkerSick => (v1::Failure::WorkerSick, 0),
        Class::Poison => (v1::Failure::Poison, 0),
        Class::Fenced => (v1::Failure::Fenced, 0),
        Class::Unknown => (v1::Failure::Unknown, 0),
        Class::Fatal { exit_code } => (v1::Failure::Fatal, exit_code),
    };
    let exit_code = error.exit_code().unwrap_or(exit_code);
    let (message, place, lost) = (chain(error), error.place(), error.lost().unwrap_or_default());
    v1::Evidence { class: class.into(), message, place, exit_code, lost, ..Default::default() }
}
