//! The columns of CSV and JSON files as the files' beginning shows them.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::csv::reader::{Format, ReaderBuilder};
use arrow::datatypes::{DataType, Field, Schema};

use super::decode::{Csv, Dialect};
use crate::format::given::micros;

/// Records from which columns are inferred.
const SAMPLE: usize = 1000;

/// The columns that `head`, the beginning of a file, shows.
pub(super) fn inferred(dialect: &Dialect, head: &[u8]) -> Result<Schema, String> {
    let whole = whole_records(dialect, head);
    let schema = match dialect {
        Dialect::Csv(csv) => format_of(csv).infer_schema(Cursor::new(whole), Some(SAMPLE)).map(|(schema, _)| schema),
        Dialect::Json => {
            arrow::json::reader::infer_json_schema(Cursor::new(whole), Some(SAMPLE)).map(|(schema, _)| schema)
        }
    };
    let schema = schema.map_err(|e| e.to_string())?;
    if schema.fields().is_empty() {
        return Err("there is no record".to_owned());
    }
    let fields = schema.fields().iter().enumerate().map(|(at, field)| {
        let kind = match (settled(field.data_type()), dialect) {
            (DataType::Timestamp(..), Dialect::Csv(csv)) => timestamp(csv, &schema, at, whole)?,
            (kind, _) => kind,
        };
        Ok(Field::new(field.name(), kind, true))
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>, String>>()?))
}

/// With a zone when every value of the column at `at` names one, without when none does.
fn timestamp(csv: &Csv, schema: &Schema, at: usize, text: &[u8]) -> Result<DataType, String> {
    let words =
        Schema::new(schema.fields().iter().map(|f| Field::new(f.name(), DataType::Utf8, true)).collect::<Vec<_>>());
    let rows = ReaderBuilder::new(Arc::new(words))
        .with_format(format_of(csv))
        .with_projection(vec![at])
        .with_batch_size(SAMPLE)
        .build_buffered(Cursor::new(text))
        .map_err(|e| e.to_string())?
        .next();
    let Some(rows) = rows else { return Ok(micros(None)) };
    let rows = rows.map_err(|e| e.to_string())?;
    let values: Vec<&str> =
        rows.column(0).as_string::<i32>().iter().flatten().filter(|text| !text.is_empty()).collect();
    let zoned = values.iter().filter(|text| has_zone(text)).count();
    match zoned {
        0 => Ok(micros(None)),
        all if all == values.len() => Ok(micros(Some("+00:00"))),
        _ => Err(format!("some times of {} name a zone and some do not", schema.field(at).name())),
    }
}

/// Whether the time `text` ends in `Z` or an offset; the `-` of its date does not count.
fn has_zone(text: &str) -> bool {
    let time = text.get(10..).unwrap_or_default();
    time.ends_with(['Z', 'z']) || time.contains(['+', '-'])
}

/// The names that a CSV header gives.
pub(super) fn names(csv: &Csv, header: &[u8]) -> Result<Vec<String>, String> {
    let (schema, _) = format_of(csv).infer_schema(Cursor::new(header), Some(0)).map_err(|e| e.to_string())?;
    Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
}

fn format_of(csv: &Csv) -> Format {
    let format = Format::default().with_header(csv.header).with_delimiter(csv.delimiter);
    csv.null.iter().fold(format, |format, null| format.with_null_regex(null.clone()))
}

/// `head` up to its last whole record, where it holds one.
fn whole_records<'a>(dialect: &Dialect, head: &'a [u8]) -> &'a [u8] {
    let mut records = dialect.records();
    let mut end = 0;
    while let Some(next) = head.get(end..).and_then(|rest| records.end(rest, 0)) {
        end += next;
    }
    if end == 0 || head.len() < super::HEAD_BYTES { head } else { head.get(..end).unwrap_or(head) }
}

/// Times in microseconds, as everything else; a column of which only nulls were seen is text.
fn settled(kind: &DataType) -> DataType {
    match kind {
        DataType::Timestamp(_, zone) => micros(zone.as_deref()),
        DataType::Null => DataType::Utf8,
        DataType::Date64 => micros(None),
        other => other.clone(),
    }
}
