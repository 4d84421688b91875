//! Dead letters in a spec: the table that keeps them, and how many are expected.
//!
//! A table of dead letters is an output like any other, with a place of its own behind the outputs that the spec
//! names; only that it has no query, and gets what its source cannot use. Which output reads which source is known
//! to who plans the SQL and not here, so with several sources the table is named after its source.

use std::fmt;
use std::str::FromStr;

use super::error::{SpecError, quoted};
use super::model::{DeadLetterSpec, Mode, OnError, Publish, Spec};
use super::names::TableName;
use super::resolve::Findings;
use super::resolve_output::{COMMIT_BYTES, COMMIT_EVERY};
use super::resolved::{ResolvedOutput, ResolvedSource};
use crate::ids::SourceIx;
use crate::time::Span;

/// What tables and outputs of dead letters are called: `flights__dead_letter`.
const COMPANION: &str = "dead_letter";

/// What an output of dead letters keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// The source whose dead letters they are.
    pub source: SourceIx,
    /// How many are expected.
    pub limit: DeadLetterLimit,
}

/// How many dead letters of a source are no surprise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterLimit {
    /// A number of records.
    Records(u64),
    /// A part of the records read, in millionths: 0 to 1,000,000.
    PartsPerMillion(u32),
}

impl DeadLetterLimit {
    /// One in a hundred: a delimiter or a type that is wrong makes more, a torn line here and there fewer.
    pub const DEFAULT: Self = Self::PartsPerMillion(10_000);

    /// The most dead letters among `read` records that are within the limit.
    pub fn most(self, read: u64) -> u64 {
        match self {
            Self::Records(most) => most,
            Self::PartsPerMillion(parts) => {
                let most = u128::from(read) * u128::from(parts) / 1_000_000;
                u64::try_from(most).unwrap_or(u64::MAX)
            }
        }
    }
}

impl FromStr for DeadLetterLimit {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = || {
            let error = SpecError::new(format!("{} is no limit", quoted(text)));
            error.hint("write a number of records, `1000`, or a part of those read, `0.1%`")
        };
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.trim().parse().map(Self::Records).map_err(|_| bad());
        };
        let (whole, fraction) = percent.trim().split_once('.').unwrap_or((percent.trim(), ""));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || fraction.len() > 4 || !(fraction.is_empty() || digits(fraction)) {
            return Err(bad());
        }
        let parts = format!("{whole}{fraction:0<4}").parse::<u32>().ok().filter(|parts| *parts <= 1_000_000);
        parts.map(Self::PartsPerMillion).ok_or_else(bad)
    }
}

impl fmt::Display for DeadLetterLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(most) => write!(f, "{most}"),
            Self::PartsPerMillion(parts) => {
                let (whole, fraction) = (parts / 10_000, format!("{:04}", parts % 10_000));
                match fraction.trim_end_matches('0') {
                    "" => write!(f, "{whole}%"),
                    fraction => write!(f, "{whole}.{fraction}%"),
                }
            }
        }
    }
}

/// The tables that keep the dead letters of `sources`; `written` are the outputs that the spec names.
pub(super) fn tables(
    spec: &mut Spec,
    sources: &[ResolvedSource],
    written: &[ResolvedOutput],
    findings: &mut Findings,
) -> Vec<ResolvedOutput> {
    let is_one = spec.sources.len() == 1;
    let mut tables: Vec<ResolvedOutput> = Vec::new();
    for (ix, source) in (0..).map(SourceIx::new).zip(sources).filter(|(_, s)| s.on_error == OnError::DeadLetter) {
        let Some(given) = spec.sources.get_mut(&source.name).map(|source| &mut source.dead_letter) else { continue };
        let table = findings.within(&source.name, |findings| {
            let (table, limit) = findings.within("dead_letter", |findings| normal(given, findings))?;
            let table = table.or_else(|| default_table(&source.name, is_one, written))?;
            Some(output(&source.name, table, DeadLetters { source: ix, limit }))
        });
        let Some(table) = table else { continue };
        findings.within(&source.name, |findings| alone(&table, written.iter().chain(&tables), findings));
        tables.push(table);
    }
    tables
}

fn normal(given: &mut Option<DeadLetterSpec>, findings: &mut Findings) -> Option<(Option<TableName>, DeadLetterLimit)> {
    let Some(spec) = given else { return Some((None, DeadLetterLimit::DEFAULT)) };
    let table = findings.keep("table", spec.table.as_deref().map(|name| name.trim().parse()).transpose());
    let limit = findings.keep("limit", spec.limit.as_deref().map(str::parse).transpose());
    let (table, limit): (Option<TableName>, Option<DeadLetterLimit>) = (table?, limit?);
    *spec = DeadLetterSpec {
        table: table.as_ref().map(ToString::to_string),
        limit: limit.map(|limit: DeadLetterLimit| limit.to_string()),
    };
    if *spec == DeadLetterSpec::default() {
        *given = None;
    }
    Some((table, limit.unwrap_or(DeadLetterLimit::DEFAULT)))
}

fn default_table(source: &str, is_one: bool, written: &[ResolvedOutput]) -> Option<TableName> {
    let first = &written.first()?.table;
    Some(if is_one {
        first.companion(COMPANION)
    } else {
        TableName { name: source.to_owned(), ..first.clone() }.companion(COMPANION)
    })
}

fn output(source: &str, table: TableName, dead_letters: DeadLetters) -> ResolvedOutput {
    ResolvedOutput {
        name: format!("{source}__{COMPANION}"),
        table,
        sql: String::new(),
        partition_by: Vec::new(),
        properties: Default::default(),
        mode: Mode::Append,
        publish: Publish::Direct,
        commit_every: COMMIT_EVERY,
        commit_bytes: COMMIT_BYTES,
        dead_letters: Some(dead_letters),
        late: Default::default(),
        late_of: None,
        slice: None,
        buckets: None,
        warm_up: Span::ZERO,
        budget: None,
    }
}

/// Refuses a table, or the name of an output, that another output has.
fn alone<'a>(table: &ResolvedOutput, others: impl Iterator<Item = &'a ResolvedOutput>, findings: &mut Findings) {
    for other in others {
        if other.table == table.table {
            let message = format!("its dead letters would go to {}, which {} writes", table.table, quoted(&other.name));
            findings.add("dead_letter", SpecError::new(message).hint("name another `table`"));
        }
        if other.name == table.name {
            let message = format!("{} is what the output of its dead letters is called", quoted(&table.name));
            findings.here(SpecError::new(message).hint("give the output of that name another one"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_back_and_others_are_refused() {
        for (text, made) in [
            ("0", "0"),
            ("1000", "1000"),
            ("1%", "1%"),
            (" 0.10 %", "0.1%"),
            ("0.0001%", "0.0001%"),
            ("100%", "100%"),
            ("12.5%", "12.5%"),
        ] {
            let limit: DeadLetterLimit = text.parse().unwrap();
            assert_eq!(limit.to_string(), made);
            assert_eq!(made.parse::<DeadLetterLimit>().unwrap(), limit);
        }
        for text in ["", "%", ".5%", "1.%x", "-1", "101%", "0.00001%", "many", "1e3", "99999999999%", "1,5%"] {
            assert!(text.parse::<DeadLetterLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_is_of_what_was_read_and_rounds_down() {
        let limit: DeadLetterLimit = "1%".parse().unwrap();
        assert_eq!([0, 99, 100, 250, u64::MAX].map(|read| limit.most(read)), [0, 0, 1, 2, u64::MAX / 100]);
        assert_eq!(DeadLetterLimit::Records(7).most(0), 7);
    }
}
