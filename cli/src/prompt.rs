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
}
