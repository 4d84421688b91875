//! What the schema of an event says of its numbers: which of them are times, counted in what, and which decimals.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use serde_json::Value as Json;

use super::super::columns::{Column, Values};
use super::super::json::scan::{Kind, Value};

/// What the schema of the events at hand says, by the names of the columns.
#[derive(Debug, Default)]
pub(in super::super) struct Units {
    /// The schema that it was read from: that of the next event is most often the same.
    schema: String,
    fields: HashMap<String, Unit>,
}

/// What a column's values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Days,
    Millis,
    Micros,
    Nanos,
    /// Whole units of `10^-scale`, as bytes in Base64.
    Decimal(u32),
}

impl Units {
    /// What `schema` says.
    pub(super) fn of(&mut self, schema: &str) -> &Self {
        if self.schema != schema {
            schema.clone_into(&mut self.schema);
            self.fields = read(schema).unwrap_or_default();
        }
        self
    }

    /// Appends `value` to `column` as the schema means it; none where it says nothing of it.
    pub(in super::super) fn push(
        &self,
        name: &str,
        value: &Value<'_>,
        column: &mut Column,
    ) -> Option<Result<(), String>> {
        let unit = *self.fields.get(name)?;
        let no = |what: &str| Some(Err(format!("{} is no {what}", value.shown())));
        match (column.kind(), unit, value.kind) {
            (DataType::Date32, Unit::Days, Kind::Number) => {
                let Ok(days) = value.text.parse() else { return no("date") };
                if let Values::Int32(values) = column.next() {
                    values.push(days);
                }
            }
            (DataType::Timestamp(..), Unit::Millis | Unit::Micros | Unit::Nanos, Kind::Number) => {
                let micros = value.text.parse::<i64>().ok().and_then(|number| match unit {
                    Unit::Millis => number.checked_mul(1000),
                    Unit::Nanos => Some(number.div_euclid(1000)),
                    _ => Some(number),
                });
                let Some(micros) = micros else { return no("time") };
                if let Values::Int64(values) = column.next() {
                    values.push(micros);
                }
            }
            (DataType::Decimal128(precision, scale), Unit::Decimal(written), Kind::Text | Kind::Escaped) => {
                let (precision, scale) = (*precision, *scale);
                let whole = base64(&value.unescaped()).and_then(|bytes| super::super::avro::whole(&bytes));
                let Some(whole) = whole.and_then(|whole| rescaled(whole, written, precision, scale)) else {
                    return no(&format!("decimal({precision},{scale})"));
                };
                if let Values::Decimal(values) = column.next() {
                    values.push(whole);
                }
            }
            _ => return None,
        }
        Some(Ok(()))
    }
}

fn rescaled(whole: i128, written: u32, precision: u8, scale: i8) -> Option<i128> {
    let scale = u32::try_from(scale).ok()?;
    let unit = 10_i128.checked_pow(scale.abs_diff(written))?;
    let value =
        if scale >= written { whole.checked_mul(unit)? } else { (whole % unit == 0).then_some(whole / unit)? };
    (value.unsigned_abs() < 10_u128.checked_pow(u32::from(precision))?).then_some(value)
}

/// The units of the fields of `after`.
fn read(schema: &str) -> Option<HashMap<String, Unit>> {
    let schema: Json = serde_json::from_str(schema).ok()?;
    let name_of = |field: &Json| field.get("field").and_then(Json::as_str).map(str::to_owned);
    let after = schema.get("fields")?.as_array()?.iter().find(|field| name_of(field).as_deref() == Some("after"))?;
    let fields = after.get("fields")?.as_array()?.iter();
    Some(fields.filter_map(|field| Some((name_of(field)?, unit(field)?))).collect())
}

fn unit(field: &Json) -> Option<Unit> {
    Some(match field.get("name")?.as_str()? {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Unit::Days,
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Unit::Millis,
        "io.debezium.time.MicroTimestamp" => Unit::Micros,
        "io.debezium.time.NanoTimestamp" => Unit::Nanos,
        "org.apache.kafka.connect.data.Decimal" => {
            Unit::Decimal(field.get("parameters")?.get("scale")?.as_str()?.parse().ok()?)
        }
        _ => return None,
    })
}

/// The bytes of a text in Base64, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}
