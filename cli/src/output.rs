//! stdout: the data, in the form that was asked for. Messages never come here.
//!
//! JSON, YAML and JSON lines carry `apiVersion` and `kind`, snake_case keys, RFC 3339 UTC times and base units
//! (bytes, seconds). The table is for people and no interface.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::exit::{Error, Exit};
use crate::style::plain;

/// The version of everything that `-o json` prints.
pub(crate) const API_VERSION: &str = "tidegate/v1";

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// One JSON document.
    Json,
    /// One line of JSON for each thing.
    Jsonl,
    /// One YAML document.
    Yaml,
    /// The names of things only, one a line.
    Name,
}

/// Something that is printed for machines.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

impl<'a, T: Serialize> Document<'a, T> {
    /// `body`, said to be a `kind`.
    pub(crate) fn new(kind: &'static str, body: &'a T) -> Self {
        Self { api_version: API_VERSION, kind, body }
    }

    /// Its text in `format`; ends with a line feed. Formats for people give JSON.
    pub(crate) fn text(&self, format: Format) -> Result<String, Error> {
        let failed = |what: &str, why: String| Error::new(Exit::Failed, format!("the {what} cannot be written: {why}"));
        let mut text = match format {
            Format::Jsonl => serde_json::to_string(self).map_err(|bad| failed("JSON", bad.to_string()))?,
            Format::Yaml => serde_saphyr::to_string(self).map_err(|bad| failed("YAML", bad.to_string()))?,
            _ => serde_json::to_string_pretty(self).map_err(|bad| failed("JSON", bad.to_string()))?,
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

/// Prints `body` in a format for machines; `name` is what `-o name` prints of it.
pub(crate) fn print_document<T: Serialize>(
    format: Format,
    kind: &'static str,
    name: &str,
    body: &T,
) -> Result<(), Error> {
    match format {
        Format::Name => print(&format!("{name}\n")),
        _ => print(&Document::new(kind, body).text(format)?),
    }
}

/// Writes `text` to stdout. A reader that has had enough ends the process, quietly.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(i32::from(Exit::Done.code())),
        Err(error) => Err(Error::new(Exit::Failed, "stdout cannot be written").because(error)),
        Ok(()) => Ok(()),
    }
}

/// Writes `line` to stderr; when that cannot be done there is nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Rows under a header, in columns. Cells are escaped; the last column is not padded.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let escaped = rows.iter().map(|row| row.iter().map(|cell| plain(cell).into_owned()).collect());
    let all: Vec<Vec<String>> =
        std::iter::once(header.iter().map(|&cell| cell.to_owned()).collect()).chain(escaped).collect();
    let width = |at: usize| all.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).map(|at| width(at).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "long one".to_owned()], vec!["bbb\u{7}".to_owned(), String::new()]];
        assert_eq!(columns(&["ID", "NAME"], &rows), "ID        NAME\na         long one\nbbb\\u{7}\n");
    }

    #[test]
    fn documents_say_what_they_are() {
        let body = std::collections::BTreeMap::from([("many", 1)]);
        let document = Document::new("Thing", &body);
        let line = "{\"apiVersion\":\"tidegate/v1\",\"kind\":\"Thing\",\"many\":1}\n";
        assert_eq!(document.text(Format::Jsonl).unwrap(), line);
        assert_eq!(document.text(Format::Yaml).unwrap(), "apiVersion: tidegate/v1\nkind: Thing\nmany: 1\n");
    }
}
