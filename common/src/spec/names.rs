//! Names: of backfills, sources, outputs, columns and tables. Refused is whatever could leave a path or a query.

use std::fmt;
use std::str::FromStr;

use super::error::{SpecError, quoted};

/// `[catalog.]namespace.table`; without a catalog, the default one.
///
/// Each part is 1 to 128 letters, digits, `_` and `-`, so that it is safe in a path and in SQL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The catalog, as `tidegate.yaml` names it; `None` is the default one.
    pub catalog: Option<String>,
    /// The namespace.
    pub namespace: String,
    /// The table.
    pub name: String,
}

impl TableName {
    /// This table's companion: `companion("late")` of `air.flights` is `air.flights__late`.
    #[must_use]
    pub fn companion(&self, what: &str) -> Self {
        Self { name: format!("{}__{what}", self.name), ..self.clone() }
    }
}

impl FromStr for TableName {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = |why: String| {
            let error = SpecError::new(format!("{} is not the name of a table: {why}", quoted(text)));
            error.hint("write `namespace.table` or `catalog.namespace.table`")
        };
        let parts: Vec<&str> = text.split('.').collect();
        let part = |part: &str| match part.chars().find(|c| !in_name(*c)) {
            _ if part.is_empty() => Err(bad("a part of it is empty".to_owned())),
            Some(c) => Err(bad(format!("it holds {}", quoted(&c.to_string())))),
            None if part.len() > 128 => Err(bad("a part of it has more than 128 characters".to_owned())),
            None => Ok(part.to_owned()),
        };
        match parts.as_slice() {
            [namespace, name] => Ok(Self { catalog: None, namespace: part(namespace)?, name: part(name)? }),
            [catalog, namespace, name] => {
                Ok(Self { catalog: Some(part(catalog)?), namespace: part(namespace)?, name: part(name)? })
            }
            others => Err(bad(format!("it has {} parts", others.len()))),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(catalog) = &self.catalog {
            write!(f, "{catalog}.")?;
        }
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Checks the name of a backfill, source or output; `what` says which.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), SpecError> {
    if !name.is_empty() && name.len() <= 64 && name.chars().all(in_name) {
        return Ok(());
    }
    let error = SpecError::new(format!("{} is not the name of {what}", quoted(name)));
    Err(error.hint("use 1 to 64 letters, digits, `-` and `_`"))
}

/// Checks the name of a column: anything that can be shown, at most 255 bytes.
pub(super) fn check_column(name: &str) -> Result<(), SpecError> {
    if !name.trim().is_empty() && name.len() <= 255 && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(SpecError::new(format!("{} is not the name of a column", quoted(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_read_back_and_others_are_refused() {
        for text in ["a.b", "c.a.b", "A-1._x"] {
            assert_eq!(text.parse::<TableName>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "a",
            "a.b.c.d",
            "a..b",
            ".a.b",
            "a.b/c",
            "a.b\0",
            "a. b",
            "a.b$snapshots",
            "ä.b",
            "a.\u{202e}b",
            &format!("a.{}", "x".repeat(129)),
        ] {
            assert!(text.parse::<TableName>().is_err(), "{text}");
        }
    }
}
