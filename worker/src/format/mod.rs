//! What the values of records are: bytes become rows of Arrow, record by record.
//!
//! A record that does not decode is no error: it is named, with what is wrong, and its neighbours are rows all the
//! same. An error is for what concerns all records. Whatever the bytes are, nothing here panics. It knows nothing of
//! Kafka's clients, and guesses no type and no unit.

mod avro;
mod columns;
mod csv;
mod debezium;
mod error;
mod framing;
pub(crate) mod given;
mod json;
mod protobuf;
mod raw;
mod registry;
#[cfg(test)]
mod tests;
mod text;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use tidegate_common::spec::model::{RecordFormat, RecordFormatSpec};

use self::columns::Column;
pub(crate) use self::error::FormatError;
use crate::access::{Access, Allowed, NOT_THERE, cannot_open};

/// A longer value is no record, whatever the format.
const MAX_VALUE: usize = 64 << 20;

/// What became of the records of one batch.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// One row for each record that is one, in the records' order; the columns that were asked for.
    pub(crate) rows: RecordBatch,
    /// The records that are no row, by their place in the batch, ascending.
    pub(crate) others: Vec<(usize, NoRow)>,
}

/// Why a record is no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoRow {
    /// It has no value.
    Tombstone,
    /// The spec leaves it out.
    Skipped,
    /// It does not decode: what is wrong with it.
    Bad(String),
}

/// Turns values into rows.
#[async_trait]
pub(crate) trait Decoder: Send {
    /// `keys` and `values` are of equal length; a null value is a tombstone, or for `raw` a row with a null value.
    async fn decode(&mut self, keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError>;
}

/// A format, opened for one topic.
#[async_trait]
pub(crate) trait Format: Send + Sync {
    /// All columns of the values.
    fn schema(&self) -> SchemaRef;

    /// What people call it.
    fn name(&self) -> &'static str;

    /// What another worker needs to open it alike: the schema of a registry, by value. Empty where the spec says all.
    fn pin(&self) -> Vec<u8> {
        Vec::new()
    }

    /// A decoder of these of its columns, in this order.
    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError>;
}

/// Opens the format of `topic`; with a `pin`, as the worker that made it did.
pub(crate) async fn open(
    topic: &str,
    spec: &RecordFormatSpec,
    access: &Access,
    pin: Option<&[u8]>,
) -> Result<Arc<dyn Format>, FormatError> {
    match spec.r#type {
        RecordFormat::Raw => Ok(Arc::new(raw::Raw::new())),
        RecordFormat::Json => Ok(Arc::new(json::Json::open(&given_columns(spec)?))),
        RecordFormat::Csv => Ok(Arc::new(csv::Csv::open(&given_columns(spec)?, spec.csv.as_ref())?)),
        RecordFormat::Avro => Ok(Arc::new(avro::Avro::open(topic, spec, access, pin).await?)),
        RecordFormat::Protobuf => Ok(Arc::new(protobuf::Protobuf::open(topic, spec, access, pin).await?)),
        RecordFormat::DebeziumJson => Ok(Arc::new(debezium::Debezium::open(&given_columns(spec)?, spec.changes))),
    }
}

fn given_columns(spec: &RecordFormatSpec) -> Result<SchemaRef, FormatError> {
    let columns = spec.schema.as_deref().unwrap_or_default();
    Ok(Arc::new(given::schema(columns).map_err(FormatError::Spec)?))
}

/// The file that the spec names under `key`.
fn read_file(key: &str, file: &str, access: &Access) -> Result<Vec<u8>, FormatError> {
    /// A schema is not longer.
    const MAX_FILE: u64 = 16 << 20;
    let path = Allowed::new(access).resolve(Path::new(file)).map_err(|e| match e.ends_with(NOT_THERE) {
        true => FormatError::Schema(format!("{key}: {e}")),
        false => FormatError::Denied(format!("{key}: {e}")),
    })?;
    let failed = |e: std::io::Error| FormatError::Schema(format!("{key}: {}", cannot_open(&path, &e)));
    let mut bytes = Vec::new();
    File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FormatError::Schema(format!("{key}: {file} has more than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// The columns of `schema` at `places`.
fn project(schema: &Schema, places: &[usize]) -> Result<SchemaRef, FormatError> {
    Ok(Arc::new(schema.project(places).map_err(FormatError::rows)?))
}

/// Decodes record by record: `row` appends one to the columns, or says why it is none; what it appended of such a
/// record is taken back.
fn decode_each(
    schema: &SchemaRef,
    columns: &mut [Column],
    values: &BinaryArray,
    mut row: impl FnMut(&mut [Column], &[u8]) -> Result<(), NoRow>,
) -> Result<Decoded, FormatError> {
    let (mut rows, mut others) = (0, Vec::new());
    for (at, value) in values.iter().enumerate() {
        let ended = match value {
            None => Err(NoRow::Tombstone),
            Some(value) if value.len() > MAX_VALUE => Err(NoRow::Bad(too_long(value.len()))),
            Some(value) => row(columns, value),
        };
        match ended {
            Ok(()) => rows += 1,
            Err(why) => {
                columns.iter_mut().for_each(|column| column.truncate(rows));
                others.push((at, why));
            }
        }
    }
    let arrays = columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>().map_err(FormatError::rows)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let rows = RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(FormatError::rows)?;
    Ok(Decoded { rows, others })
}

fn too_long(bytes: usize) -> String {
    format!("the value has {bytes} bytes, and a record's may have {MAX_VALUE}")
}

/// `text` as it may stand in a message: short, and in one line.
fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() { format!("\"{short}…\"") } else { format!("\"{short}\"") }
}
