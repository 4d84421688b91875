//! The columns of CSV and JSON files: as the spec gives them, or as the files' beginning shows them.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::csv::reader::{Format, ReaderBuilder};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidegate_common::spec::model::ColumnSpec;

use super::decode::{Csv, Dialect};

/// Records from which columns are inferred.
const SAMPLE: usize = 1000;

/// The columns that a spec gives.
pub(super) fn given(columns: &[ColumnSpec]) -> Result<Schema, String> {
    let fields = columns.iter().map(|column| {
        let kind = type_of(&column.r#type).map_err(|e| format!("schema: column {}: {e}", column.name))?;
        Ok(Field::new(&column.name, kind, true))
    });
    let fields = fields.collect::<Result<Vec<_>, String>>()?;
    for (at, field) in fields.iter().enumerate() {
        if fields.iter().take(at).any(|other| other.name() == field.name()) {
            return Err(format!("schema: column {} is named twice", field.name()));
        }
    }
    if fields.is_empty() { Err("schema names no column".to_owned()) } else { Ok(Schema::new(fields)) }
}

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

fn micros(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from))
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

/// A type as SQL writes it.
fn type_of(text: &str) -> Result<DataType, String> {
    let lower = text.trim().to_lowercase();
    if let Some(inside) = lower.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
        let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
        let precision = precision.trim().parse::<u8>().ok().filter(|p| (1..=38).contains(p));
        let scale = scale.trim().parse::<i8>().ok().filter(|s| *s >= 0);
        let fits = precision.zip(scale).filter(|(p, s)| i16::from(*s) <= i16::from(*p));
        let (p, s) =
            fits.ok_or_else(|| format!("{text}: a decimal has 1 to 38 digits, and no more behind the point"))?;
        return Ok(DataType::Decimal128(p, s));
    }
    Ok(match lower.as_str() {
        "boolean" | "bool" => DataType::Boolean,
        "int" | "integer" => DataType::Int32,
        "bigint" | "long" => DataType::Int64,
        "real" | "float" => DataType::Float32,
        "double" => DataType::Float64,
        "varchar" | "text" | "string" => DataType::Utf8,
        "date" => DataType::Date32,
        "timestamp" => micros(None),
        "timestamptz" => micros(Some("+00:00")),
        _ => {
            return Err(format!(
                "{text} is no type: use boolean, int, bigint, real, double, varchar, date, timestamp, timestamptz or decimal(p,s)"
            ));
        }
    })
}
