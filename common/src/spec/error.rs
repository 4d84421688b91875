//! What is wrong with a spec, and where.
//!
//! Errors are collected, so that a user mends a spec in one go. A text from the spec is shown shortened and with
//! its control characters escaped: a spec must not write to the terminal of whoever reads the error.

use std::fmt;

use super::tree::Place;

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The file, as the reader was told; empty for a spec that did not come from one.
    pub file: String,
    /// The line, from 1; 0 when the spec has no text.
    pub line: u32,
    /// The column in characters, from 1; 0 when the spec has no text.
    pub column: u32,
    /// The keys that lead there; empty at the top.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

impl SpecError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        let (file, path) = (String::new(), Vec::new());
        Self { file, line: 0, column: 0, path, message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn at(self, place: Place) -> Self {
        Self { line: place.line, column: place.column, ..self }
    }

    pub(super) fn of(self, path: Vec<String>) -> Self {
        Self { path, ..self }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.file.is_empty() || self.line > 0 {
            f.write_str(" ")?;
        }
        if !self.path.is_empty() {
            let keys: Vec<String> = self.path.iter().map(|key| shown(key)).collect();
            write!(f, "{}: ", keys.join("."))?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SpecError {}

/// All that was found wrong with a spec, in the order of the text; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecErrors(Vec<SpecError>);

impl SpecErrors {
    /// More are not reported.
    pub(super) const MOST: usize = 100;

    /// What was `found` in `file`, in order.
    pub(super) fn new(mut found: Vec<SpecError>, file: &str) -> Self {
        for error in &mut found {
            file.clone_into(&mut error.file);
        }
        found.sort_by(|a, b| (a.line, a.column, &a.path, &a.message).cmp(&(b.line, b.column, &b.path, &b.message)));
        found.dedup();
        found.truncate(Self::MOST);
        Self(found)
    }

    /// The errors, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, SpecError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a SpecErrors {
    type Item = &'a SpecError;
    type IntoIter = std::slice::Iter<'a, SpecError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for SpecErrors {
    /// One error a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

/// `text`, fit to be shown: at most 60 characters, none of them a control or an invisible direction mark.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown = String::new();
    for c in text.chars().take(MOST) {
        match c {
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                shown.extend(c.escape_unicode());
            }
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// `text` between backquotes, fit to be shown.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}

/// The way out for a word that is none of `known`: the nearest one, or all of them.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    let short: String = word.chars().take(64).collect::<String>().to_lowercase();
    let nearest = known.iter().map(|known| (strsim::osa_distance(&short, known), *known)).min();
    match nearest {
        Some((far, known)) if far <= (known.len() / 3).max(1) => format!("did you mean `{known}`?"),
        _ => format!("expected one of {}", known.join(", ")),
    }
}
