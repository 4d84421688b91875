//! Colour, and what is fit for a terminal. State is never told by colour alone: the words say it too.

use std::borrow::Cow;
use std::io::IsTerminal;

use clap::ValueEnum;
use serde::Deserialize;

/// When to use colour.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Puts colour on words, or leaves them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For a stream that is a terminal or not.
    pub(crate) fn new(color: Color, no_color: bool, terminal: bool) -> Self {
        Self { on: color == Color::Always || color == Color::Auto && terminal && !no_color }
    }

    /// No colour.
    pub(crate) const fn plain() -> Self {
        Self { on: false }
    }

    /// What is good.
    pub(crate) fn good(self, text: &str) -> Cow<'_, str> {
        self.code("32", text)
    }

    /// What is bad.
    pub(crate) fn bad(self, text: &str) -> Cow<'_, str> {
        self.code("1;31", text)
    }

    /// What wants a look.
    pub(crate) fn warn(self, text: &str) -> Cow<'_, str> {
        self.code("33", text)
    }

    /// What may be passed over.
    pub(crate) fn dim(self, text: &str) -> Cow<'_, str> {
        self.code("2", text)
    }

    /// What stands out.
    pub(crate) fn bold(self, text: &str) -> Cow<'_, str> {
        self.code("1", text)
    }

    fn code<'t>(self, code: &str, text: &'t str) -> Cow<'t, str> {
        if self.on { Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m")) } else { Cow::Borrowed(text) }
    }
}

/// Whether a person sits at this process: they can be asked, and see the question.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// `text` with its control characters escaped: what comes from a spec or a worker must not write to the terminal.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| if is_control(c) { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_flag_then_no_color_then_the_terminal() {
        let on = |color, no_color, terminal| Paint::new(color, no_color, terminal).on;
        assert!(on(Color::Auto, false, true));
        assert!(!on(Color::Auto, false, false));
        assert!(!on(Color::Auto, true, true));
        assert!(on(Color::Always, true, false));
        assert!(!on(Color::Never, false, true));
    }
}
