//! Columns that a spec gives, as SQL writes them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidegate_common::spec::model::ColumnSpec;

/// The columns that a spec gives.
pub(crate) fn schema(columns: &[ColumnSpec]) -> Result<Schema, String> {
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

/// A time in microseconds.
pub(crate) fn micros(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from))
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
