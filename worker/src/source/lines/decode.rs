//! Turns the text of records into batches, and finds the record that does not decode.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::reader::{Decoder as CsvDecoder, ReaderBuilder as CsvBuilder};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::reader::{Decoder as JsonDecoder, ReaderBuilder as JsonBuilder};
use regex::Regex;
use tidegate_common::spec::model::{CsvSpec, Format};

use super::records::{Records, is_open, line_ends};
use super::{Head, project};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// What is wrong with a file that was cut off within a quoted field: the decoder would take what is there.
pub(super) const OPEN: &str = "the file ends within quotes";

/// How records are written.
#[derive(Clone, Debug)]
pub(super) enum Dialect {
    Csv(Csv),
    Json,
}

/// How CSV records are written.
#[derive(Clone, Debug)]
pub(super) struct Csv {
    pub(super) header: bool,
    pub(super) delimiter: u8,
    /// What stands for a missing value; none is the empty field.
    pub(super) null: Option<Regex>,
}

impl Dialect {
    /// What the spec says of it.
    pub(super) fn new(format: Format, csv: Option<&CsvSpec>) -> Result<Self, String> {
        if format != Format::Csv {
            return if csv.is_some() { Err("`csv` is for CSV files: remove it".to_owned()) } else { Ok(Self::Json) };
        }
        let given = csv.cloned().unwrap_or_default();
        let [delimiter] = *given.delimiter.as_bytes() else {
            return Err(format!("csv.delimiter {:?} is not one ASCII character", given.delimiter));
        };
        if delimiter == b'"' || delimiter == b'\n' || delimiter == b'\r' {
            return Err(format!("csv.delimiter {:?} cannot stand between fields", given.delimiter));
        }
        let null = (!given.null.is_empty()).then(|| Regex::new(&format!("^{}$", regex::escape(&given.null))));
        let null = null.transpose().map_err(|e| format!("csv.null: {e}"))?;
        Ok(Self::Csv(Csv { header: given.header, delimiter, null }))
    }

    /// What people call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Csv(_) => "csv",
            Self::Json => "json lines",
        }
    }

    /// How CSV is written, where this is CSV.
    pub(super) fn csv(&self) -> Option<&Csv> {
        match self {
            Self::Csv(csv) => Some(csv),
            Self::Json => None,
        }
    }

    /// Finds ends of records.
    pub(super) fn records(&self) -> Records {
        Records::new(self.csv().map(|csv| csv.delimiter))
    }
}

/// What is decoded of each record of one file.
#[derive(Clone, Debug)]
pub(super) struct Form {
    dialect: Dialect,
    /// CSV: the file's columns in its order. JSON: the wanted columns.
    schema: SchemaRef,
    /// CSV: the places of the wanted columns in the file.
    wanted: Vec<usize>,
    is_strict: bool,
}

impl Form {
    /// The columns `read` of the source, in that order. A strict one refuses JSON fields that are none of them.
    pub(super) fn new(dialect: &Dialect, schema: &SchemaRef, head: &Head, read: &[usize], is_strict: bool) -> Self {
        let (schema, wanted) = match dialect {
            Dialect::Csv(_) => {
                let place = |column: &usize| head.order.iter().position(|at| at == column);
                (project(schema, &head.order), read.iter().filter_map(place).collect())
            }
            Dialect::Json => (project(schema, read), Vec::new()),
        };
        Self { dialect: dialect.clone(), schema, wanted, is_strict }
    }

    /// What stands between two fields, in CSV.
    pub(super) fn delimiter(&self) -> Option<u8> {
        self.dialect.csv().map(|csv| csv.delimiter)
    }

    /// The columns that are decoded.
    pub(super) fn decoded(&self) -> SchemaRef {
        match self.dialect {
            Dialect::Csv(_) => project(&self.schema, &self.wanted),
            Dialect::Json => self.schema.clone(),
        }
    }

    /// A decoder of up to `rows` records.
    pub(super) fn decoder(&self, rows: usize) -> Result<Decoder, ArrowError> {
        Ok(match &self.dialect {
            Dialect::Csv(csv) => {
                let mut builder = CsvBuilder::new(self.schema.clone())
                    .with_header(false)
                    .with_delimiter(csv.delimiter)
                    .with_batch_size(rows)
                    .with_projection(self.wanted.clone());
                if let Some(null) = &csv.null {
                    builder = builder.with_null_regex(null.clone());
                }
                Decoder::Csv(Box::new(builder.build_decoder()))
            }
            Dialect::Json => {
                let builder =
                    JsonBuilder::new(self.schema.clone()).with_batch_size(rows).with_strict_mode(self.is_strict);
                Decoder::Json(Box::new(builder.build_decoder()?))
            }
        })
    }
}

/// A decoder of either dialect.
pub(super) enum Decoder {
    Csv(Box<CsvDecoder>),
    Json(Box<JsonDecoder>),
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.decode(bytes),
            Self::Json(decoder) => decoder.decode(bytes),
        }
    }

    pub(super) fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.flush(),
            Self::Json(decoder) => decoder.flush(),
        }
    }

    /// What remains when the text ends here.
    fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if let Self::Csv(decoder) = self {
            decoder.decode(&[])?;
        }
        self.flush()
    }
}

/// A record that does not decode.
#[derive(Debug)]
pub(super) struct BadRecord {
    /// Lines that end before it, in the text that was fed.
    pub(super) lines_before: u64,
    pub(super) error: ArrowError,
}

/// Decodes a text, keeping that of the batch under way, so that a bad record can be found in it.
pub(super) struct Decoding {
    form: Arc<Form>,
    decoder: Decoder,
    pending: Vec<u8>,
    lines_before: u64,
}

impl Decoding {
    /// At the start of a record.
    pub(super) fn new(form: Arc<Form>) -> Result<Self, BadRecord> {
        let decoder = form.decoder(BATCH_ROWS).map_err(|error| BadRecord { lines_before: 0, error })?;
        Ok(Self { form, decoder, pending: Vec::new(), lines_before: 0 })
    }

    /// Takes more of the text and adds the batches that it fills to `full`.
    pub(super) fn feed(&mut self, mut text: &[u8], full: &mut Vec<RecordBatch>) -> Result<(), BadRecord> {
        while !text.is_empty() {
            let taken = match self.decoder.decode(text) {
                Ok(taken) => taken,
                Err(error) => {
                    self.pending.extend_from_slice(text);
                    return Err(self.find(error));
                }
            };
            let (now, rest) = text.split_at(taken.min(text.len()));
            self.pending.extend_from_slice(now);
            text = rest;
            if !text.is_empty() {
                let batch = self.decoder.flush().map_err(|error| self.find(error))?;
                if batch.is_none() && taken == 0 {
                    return Err(self.find(ArrowError::ParseError("the decoder makes no progress".to_owned())));
                }
                full.extend(batch);
                self.forget();
            }
        }
        Ok(())
    }

    /// Ends the text, which is at the end of a record or of the file, and adds what remains to `full`.
    pub(super) fn finish(&mut self, full: &mut Vec<RecordBatch>) -> Result<(), BadRecord> {
        if is_open(&self.pending, self.form.delimiter()) {
            return Err(self.find(ArrowError::ParseError(OPEN.to_owned())));
        }
        while let Some(batch) = self.decoder.finish().map_err(|error| self.find(error))? {
            full.push(batch);
        }
        self.forget();
        Ok(())
    }

    /// Lines that ended in the text so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines_before
    }

    fn forget(&mut self) {
        self.lines_before += line_ends(&self.pending);
        self.pending.clear();
    }

    /// Decodes the text under way record by record, to say which of them it is.
    fn find(&self, error: ArrowError) -> BadRecord {
        let mut lines_before = self.lines_before;
        let mut text = self.pending.as_slice();
        while !text.is_empty() {
            let end = self.form.dialect.records().end(text, 0).unwrap_or(text.len());
            let (record, rest) = text.split_at(end);
            if let Err(error) = self.decode_alone(record) {
                return BadRecord { lines_before, error };
            }
            lines_before += line_ends(record);
            text = rest;
        }
        BadRecord { lines_before: self.lines_before, error }
    }

    fn decode_alone(&self, record: &[u8]) -> Result<(), ArrowError> {
        if is_open(record, self.form.delimiter()) {
            return Err(ArrowError::ParseError(OPEN.to_owned()));
        }
        let mut decoder = self.form.decoder(2)?;
        decoder.decode(record)?;
        decoder.finish()?;
        Ok(())
    }
}
