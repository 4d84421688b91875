//! One line of CSV a value, without a header: as many fields as columns, in their order.
//!
//! A quote opens a field only at its start; within, two quotes are one, and whatever stands between the closing one
//! and the next delimiter makes the record a bad one. What stands for a missing value does so within quotes, too.

#[cfg(test)]
mod tests;

use arrow::array::BinaryArray;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidegate_common::spec::model::CsvSpec;

use super::columns::{self, Column};
use super::json::not_utf8;
use super::{Decoded, Decoder, Format, FormatError, NoRow, decode_each, project, text};

/// The format `csv`.
pub(super) struct Csv {
    schema: SchemaRef,
    delimiter: u8,
    null: String,
}

impl Csv {
    pub(super) fn open(schema: &SchemaRef, csv: Option<&CsvSpec>) -> Result<Self, FormatError> {
        let given = csv.cloned().unwrap_or_default();
        match *given.delimiter.as_bytes() {
            [delimiter] if delimiter.is_ascii() && !matches!(delimiter, b'"' | b'\n' | b'\r') => {
                Ok(Self { schema: schema.clone(), delimiter, null: given.null })
            }
            _ => Err(FormatError::Spec(format!("csv.delimiter {:?} cannot stand between fields", given.delimiter))),
        }
    }
}

impl Format for Csv {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn name(&self) -> &'static str {
        "csv"
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError> {
        let schema = project(&self.schema, columns)?;
        let lines = Lines {
            delimiter: self.delimiter,
            null: self.null.clone(),
            wanted: columns.to_vec(),
            names: schema.fields().iter().map(|field| field.name().clone()).collect(),
            fields: Fields::default(),
            width: self.schema.fields().len(),
        };
        Ok(Box::new(CsvDecoder { columns: columns::empty(&schema).map_err(FormatError::rows)?, schema, lines }))
    }
}

struct CsvDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    lines: Lines,
}

#[async_trait]
impl Decoder for CsvDecoder {
    async fn decode(&mut self, _keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError> {
        let Self { schema, columns, lines } = self;
        decode_each(schema, columns, values, |columns, value| {
            let line = std::str::from_utf8(value).map_err(|e| NoRow::Bad(not_utf8(&e)))?;
            lines.push(line, columns).map_err(NoRow::Bad)
        })
    }
}

/// Turns lines into rows.
struct Lines {
    delimiter: u8,
    null: String,
    /// The fields of the columns.
    wanted: Vec<usize>,
    names: Vec<String>,
    fields: Fields,
    width: usize,
}

/// The fields of a line, without their quotes.
#[derive(Default)]
struct Fields {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Fields {
    fn get(&self, at: usize) -> Option<&str> {
        let from = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.text.get(from..*self.ends.get(at)?)
    }

    /// Splits `line`; the error says what is wrong with it.
    fn split(&mut self, line: &str, delimiter: u8) -> Result<(), String> {
        self.text.clear();
        self.ends.clear();
        let mut rest = line;
        loop {
            rest = match rest.strip_prefix('"') {
                Some(quoted) => self.quoted(quoted)?,
                None => {
                    let is_end = |c: char| u32::from(c) == u32::from(delimiter) || c == '\n' || c == '\r';
                    let (field, rest) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
                    self.text.push_str(field);
                    rest
                }
            };
            self.ends.push(self.text.len());
            match rest.as_bytes() {
                [] | b"\n" | b"\r\n" => return Ok(()),
                [next, ..] if *next == delimiter => rest = rest.get(1..).unwrap_or_default(),
                [b'\n' | b'\r', ..] => return Err("the value has more than one line".to_owned()),
                _ => return Err(format!("field {}: something follows its closing quote", self.ends.len())),
            }
        }
    }

    /// Takes a field whose opening quote was taken, and gives what is behind its closing one.
    fn quoted<'a>(&mut self, mut rest: &'a str) -> Result<&'a str, String> {
        loop {
            let Some((text, behind)) = rest.split_once('"') else {
                return Err(format!("field {}: its closing quote is missing", self.ends.len() + 1));
            };
            self.text.push_str(text);
            match behind.strip_prefix('"') {
                None => return Ok(behind),
                Some(behind) => {
                    self.text.push('"');
                    rest = behind;
                }
            }
        }
    }
}

impl Lines {
    fn push(&mut self, line: &str, columns: &mut [Column]) -> Result<(), String> {
        if line.trim_end_matches(['\r', '\n']).is_empty() {
            return Err("the line is empty".to_owned());
        }
        self.fields.split(line, self.delimiter)?;
        let found = self.fields.ends.len();
        if found != self.width {
            return Err(format!("the line has {found} fields, and the schema {} columns", self.width));
        }
        for ((column, at), name) in columns.iter_mut().zip(&self.wanted).zip(&self.names) {
            match self.fields.get(*at).unwrap_or_default() {
                field if field == self.null => column.push_null(),
                field => text::push(column, field).map_err(|what| format!("column {name}: {what}"))?,
            }
        }
        Ok(())
    }
}
