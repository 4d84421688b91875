//! Asking a person. Never a silent yes: without a terminal and without `--yes`, the answer is no.

use std::io::{self, BufRead as _, Write as _};

use crate::exit::{Error, Exit};
use crate::style;

/// Has `question` answered with yes, or is told so by `--yes`.
///
/// # Errors
/// Exit 5 when the answer is anything else, or nobody can be asked.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Error> {
    let ask = || {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush())?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        Ok(line)
    };
    answered(question, yes, style::is_interactive(), ask)
}

/// Has the name of what is changed typed, or takes it from `--confirm=NAME`.
///
/// # Errors
/// Exit 5 when it is another name, or nobody can be asked.
pub(crate) fn confirm_name(what: &str, name: &str, given: Option<&str>) -> Result<(), Error> {
    let ask = || {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{what} Type its name, {}, to go on: ", style::plain(name)).and_then(|()| stderr.flush())?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        Ok(line)
    };
    named(name, given, style::is_interactive(), ask)
}

fn named(
    name: &str,
    given: Option<&str>,
    interactive: bool,
    ask: impl FnOnce() -> io::Result<String>,
) -> Result<(), Error> {
    let unconfirmed = |message: String| Error::new(Exit::Unconfirmed, message);
    let typed = match given {
        Some(given) => given.to_owned(),
        None if !interactive => {
            let hint = format!("take --confirm={name} when that is what you want");
            return Err(unconfirmed("not confirmed, and there is no terminal to ask on; nothing was done".to_owned())
                .hint(hint));
        }
        None => ask()
            .map_err(|error| unconfirmed("not confirmed: the answer cannot be read".to_owned()).because(error))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
    };
    if typed == name {
        return Ok(());
    }
    Err(unconfirmed(format!("not confirmed: {typed:?} is not {name:?}; nothing was done")))
}

fn answered(
    question: &str,
    yes: bool,
    interactive: bool,
    ask: impl FnOnce() -> io::Result<String>,
) -> Result<(), Error> {
    let unconfirmed = |message: String| Error::new(Exit::Unconfirmed, message);
    if yes {
        return Ok(());
    }
    if !interactive {
        return Err(unconfirmed(format!("not confirmed, and there is no terminal to ask on: {question}"))
            .hint("take --yes when that is what you want, or --dry-run to see more"));
    }
    let answer =
        ask().map_err(|error| unconfirmed("not confirmed: the answer cannot be read".to_owned()).because(error))?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(unconfirmed("not confirmed; nothing was done".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        let exit = |yes, interactive, line: &str| {
            answered("Sure?", yes, interactive, || Ok(line.to_owned())).err().map(|error| error.exit())
        };
        assert_eq!(exit(true, false, ""), None);
        assert_eq!(exit(false, true, "y\n"), None);
        assert_eq!(exit(false, true, "YES\n"), None);
        for no in ["", "\n", "n\n", "yep\n", "true\n"] {
            assert_eq!(exit(false, true, no), Some(Exit::Unconfirmed), "{no:?}");
        }
        assert_eq!(exit(false, false, "y\n"), Some(Exit::Unconfirmed), "a pipe is nobody to ask");
    }

    #[test]
    fn only_the_very_name_confirms() {
        let exit = |given: Option<&str>, interactive, line: &str| {
            named("billing", given, interactive, || Ok(line.to_owned())).err().map(|error| error.exit())
        };
        assert_eq!(exit(Some("billing"), false, ""), None);
        assert_eq!(exit(None, true, "billing\n"), None);
        for no in ["", "y", "Billing", "billing2", " billing"] {
            assert_eq!(exit(Some(no), true, "billing\n"), Some(Exit::Unconfirmed), "{no:?}");
            assert_eq!(exit(None, true, no), Some(Exit::Unconfirmed), "{no:?}");
        }
        assert_eq!(exit(None, false, "billing\n"), Some(Exit::Unconfirmed), "a pipe is nobody to ask");
    }
}
