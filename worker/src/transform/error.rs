//! Why the SQL of an output cannot be planned or run.

use std::fmt;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer;

use crate::failure::{Class, Classify};
use crate::shuffle::lost_in;

/// A place in the SQL of an output; both count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The character in the line.
    pub column: u64,
}

impl Place {
    /// The place of a token, where the parser knows it.
    pub(super) fn of(location: tokenizer::Location) -> Option<Self> {
        (location.line > 0).then_some(Self { line: location.line, column: location.column })
    }

    fn after(place: &Option<Self>) -> String {
        place.map(|place| format!(", SQL {place}")).unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why the SQL of an output cannot be planned or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The SQL asks for something outside the closed list.
    #[error("output {output}{}: {what}; {way_out}", Place::after(.place))]
    Refused {
        /// The output.
        output: String,
        /// Where in its SQL.
        place: Option<Place>,
        /// What is refused, and why.
        what: String,
        /// What to write instead.
        way_out: String,
    },
    /// The SQL names a table that is no source.
    #[error("output {output}{}: {table} is not a source{hint}; the sources are: {sources}", Place::after(.place))]
    UnknownTable {
        /// The output.
        output: String,
        /// Where in its SQL.
        place: Option<Place>,
        /// The table as it was written.
        table: String,
        /// "did you mean", or nothing.
        hint: String,
        /// All sources.
        sources: String,
    },
    /// The SQL names a column that is not there.
    #[error("output {output}{}: there is no column {column}{hint}; the columns are: {columns}", Place::after(.place))]
    UnknownColumn {
        /// The output.
        output: String,
        /// Where in its SQL.
        place: Option<Place>,
        /// The column as it was written.
        column: String,
        /// "did you mean", or nothing.
        hint: String,
        /// The columns that are there.
        columns: String,
    },
    /// Two columns of the result, or of an inner SELECT, have one name.
    #[error("output {output}{}: two columns are named {name}; give one another name with AS", Place::after(.place))]
    DuplicateName {
        /// The output.
        output: String,
        /// Where in its SQL.
        place: Option<Place>,
        /// The name.
        name: String,
    },
    /// The text is not SQL.
    #[error("output {output}{}: the SQL cannot be read", Place::after(.place))]
    Syntax {
        /// The output.
        output: String,
        /// Where in its SQL.
        place: Option<Place>,
        /// What the parser says.
        #[source]
        source: ParserError,
    },
    /// DataFusion cannot plan the SQL.
    #[error("output {output}{}: the SQL cannot be planned", Place::after(.place))]
    Plan {
        /// The output.
        output: String,
        /// Where in its SQL.
        place: Option<Place>,
        /// What DataFusion says.
        #[source]
        source: Box<DataFusionError>,
    },
    /// This worker has no thread left to plan on.
    #[error("output {output}: no thread to plan the SQL on")]
    NoThread {
        /// The output.
        output: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The rows handed in are not of the source the SQL was planned for.
    #[error("output {output}: {what}")]
    Input {
        /// The output.
        output: String,
        /// What is missing or different.
        what: String,
    },
    /// A join or an aggregate does not fit the memory it may have.
    #[error("output {output}: its answer for a slice does not fit {bytes} bytes")]
    Memory {
        /// The output.
        output: String,
        /// What it may hold.
        bytes: usize,
        /// What DataFusion says.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The rows to be joined could not be read.
    #[error("output {output}: what it joins cannot be read")]
    Unread {
        /// The output.
        output: String,
        /// Why.
        #[source]
        source: Box<DataFusionError>,
    },
    /// An expression failed on a row.
    #[error("output {output}: its SQL failed on the rows")]
    Evaluate {
        /// The output.
        output: String,
        /// What DataFusion says.
        #[source]
        source: Box<DataFusionError>,
    },
}

impl QueryError {
    /// Whether it is only that the memory does not do.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory { .. })
    }
}

impl Classify for QueryError {
    fn class(&self) -> Class {
        match self {
            Self::Refused { .. }
            | Self::UnknownTable { .. }
            | Self::UnknownColumn { .. }
            | Self::DuplicateName { .. }
            | Self::Syntax { .. }
            | Self::Plan { .. } => Class::Fatal { exit_code: 3 },
            Self::NoThread { .. } => Class::WorkerSick,
            Self::Memory { .. } | Self::Unread { .. } => Class::Retryable,
            Self::Input { .. } | Self::Evaluate { .. } => Class::Poison,
        }
    }

    fn lost(&self) -> Option<String> {
        match self {
            Self::Unread { source, .. } => lost_in(source.as_ref()),
            _ => None,
        }
    }

    fn place(&self) -> String {
        let (output, place) = match self {
            Self::Refused { output, place, .. }
            | Self::UnknownTable { output, place, .. }
            | Self::UnknownColumn { output, place, .. }
            | Self::DuplicateName { output, place, .. }
            | Self::Syntax { output, place, .. }
            | Self::Plan { output, place, .. } => (output, place),
            Self::NoThread { output, .. }
            | Self::Input { output, .. }
            | Self::Memory { output, .. }
            | Self::Unread { output, .. }
            | Self::Evaluate { output, .. } => (output, &None),
        };
        format!("output {output}{}", Place::after(place))
    }
}

/// A reason to refuse, before it is known for which output.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) place: Option<Place>,
    pub(super) what: String,
    pub(super) way_out: String,
}

impl Refusal {
    pub(super) fn new(place: Option<Place>, what: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { place, what: what.into(), way_out: way_out.into() }
    }

    pub(super) fn of(self, output: &str) -> QueryError {
        QueryError::Refused { output: output.to_owned(), place: self.place, what: self.what, way_out: self.way_out }
    }
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;

    use super::*;
    use crate::failure::evidence;
    use crate::shuffle::ShuffleError;

    #[test]
    fn what_is_lost_is_named_however_deep_in_a_query_it_was_met() {
        let missing = || ShuffleError::Missing { path: "bf/o0/a".to_owned(), location: "here".to_owned() };
        let (path, place, text) = ("bf/o0/b".to_owned(), "chunk 3".to_owned(), "x".to_owned());
        let corrupt = ShuffleError::Corrupt { path, place, expected: text.clone(), found: text };
        let plain = DataFusionError::External(Box::new(missing()));
        let deep = DataFusionError::External(Box::new(corrupt)).context("a stream");
        let deep = DataFusionError::from(ArrowError::ExternalError(Box::new(deep)));
        let unread = |source| QueryError::Unread { output: "out".to_owned(), source: Box::new(source) };
        assert_eq!(evidence(&unread(plain)).lost, "bf/o0/a");
        assert_eq!(evidence(&unread(deep)).lost, "bf/o0/b");
        assert_eq!(evidence(&missing()).lost, "bf/o0/a");
        let other = DataFusionError::Execution("no".to_owned());
        assert_eq!(evidence(&unread(other)).lost, "");
    }
}
