//! Whether what a backfill's journal says is what its tables hold.
//!
//! An [`Account`] is drawn up from the journal alone, record by record. [`check_account`] holds it against itself: edges
//! that balance, units and files that were accepted once. [`check_table`] holds it against a table's manifests and
//! files, read anew. What cannot be told (a snapshot that has expired, files that were compacted) is said to be so; it
//! is neither called right nor wrong.

mod account;
mod joins;
mod journal_checks;
mod table_checks;
#[cfg(test)]
mod tests;

pub use account::{Account, BadJournal, CommittedFile, OutputBook, SourceBook};
pub use joins::{InputBook, JoinBook};
pub use journal_checks::check_account;
pub use table_checks::{TableFacts, check_table, read_table};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// What should be equal is equal.
    Holds,
    /// It cannot be told any more, or not yet.
    Untold,
    /// It is not.
    Broken,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is checked: ledger, units, slices, files, snapshots, rows, contents, coverage.
    pub what: &'static str,
    /// The source or table.
    pub of: String,
    /// What came of it.
    pub verdict: Verdict,
    /// The sums, for people.
    pub text: String,
    /// What is wrong, one line for each thing, the first few.
    pub details: Vec<String>,
}

/// Details of one check at most.
const DETAILS: usize = 10;

/// A count with its thousands apart.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Check {
    fn new(what: &'static str, of: &str, text: String) -> Self {
        Self { what, of: of.to_owned(), verdict: Verdict::Holds, text, details: Vec::new() }
    }

    fn broken_if(self, broken: bool) -> Self {
        if broken { Self { verdict: Verdict::Broken, ..self } } else { self }
    }

    /// Broken where there are `details`.
    fn broken_by(self, details: Vec<String>) -> Self {
        let broken = !details.is_empty();
        self.broken_if(broken).with(details)
    }

    fn untold_if(self, untold: bool) -> Self {
        if untold && self.verdict == Verdict::Holds { Self { verdict: Verdict::Untold, ..self } } else { self }
    }

    fn with(mut self, details: Vec<String>) -> Self {
        let more = details.len().saturating_sub(DETAILS);
        self.details.extend(details.into_iter().take(DETAILS));
        if more > 0 {
            self.details.push(format!("and {more} more"));
        }
        self
    }
}
