//! One JSON object a value: its fields of the columns' names, read in one pass straight into the columns.
//!
//! The form is JSON's own, nothing laxer. A field that is no column is left out, a column without a field is null; of
//! fields of one name, the last counts. A value of another type makes the record a bad one: nothing is cut or guessed.

pub(super) mod scan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use arrow::array::BinaryArray;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;

use self::scan::{Kind, Scan, Value, Wrong};
use super::columns::{self, Column, Values};
use super::debezium::Units;
use super::{Decoded, Decoder, Format, FormatError, NoRow, decode_each, project, text};

/// The format `json`.
pub(super) struct Json {
    schema: SchemaRef,
}

impl Json {
    pub(super) fn open(schema: &SchemaRef) -> Self {
        Self { schema: schema.clone() }
    }
}

impl Format for Json {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn name(&self) -> &'static str {
        "json"
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError> {
        let schema = project(&self.schema, columns)?;
        let columns = columns::empty(&schema).map_err(FormatError::rows)?;
        Ok(Box::new(JsonDecoder { objects: Objects::new(&schema), schema, columns }))
    }
}

struct JsonDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    objects: Objects,
}

#[async_trait]
impl Decoder for JsonDecoder {
    async fn decode(&mut self, _keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError> {
        let Self { schema, columns, objects } = self;
        decode_each(schema, columns, values, |columns, value| {
            let record = std::str::from_utf8(value).map_err(|e| NoRow::Bad(not_utf8(&e)))?;
            objects.push(record, columns).map_err(NoRow::Bad)
        })
    }
}

pub(super) fn not_utf8(error: &std::str::Utf8Error) -> String {
    format!("the value is no UTF-8 at byte {}", error.valid_up_to())
}

/// Turns objects into rows.
pub(super) struct Objects {
    places: HashMap<String, usize>,
    names: Vec<String>,
    /// The fields of the object before, as their names were written: those of the next one are most often the same.
    expected: Vec<Expected>,
    /// Empty: room for the values of one object.
    found: Vec<Option<Value<'static>>>,
}

#[derive(Default)]
struct Expected {
    /// The name and the quote behind it.
    written: Vec<u8>,
    column: Option<usize>,
}

/// Fields of an object that are expected again, and bytes of their names.
const EXPECTED: usize = 1024;
const EXPECTED_NAME: usize = 256;

impl Objects {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let places = names.iter().cloned().zip(0..).collect();
        Self { places, names, expected: Vec::new(), found: Vec::new() }
    }

    /// Appends the object that `record` is to `columns`, or says why it is none of theirs.
    pub(super) fn push(&mut self, record: &str, columns: &mut [Column]) -> Result<(), String> {
        self.push_with(record, columns, None)
    }

    /// The same, where `units` say what some of the values mean.
    pub(super) fn push_with(
        &mut self,
        record: &str,
        columns: &mut [Column],
        units: Option<&Units>,
    ) -> Result<(), String> {
        let mut found = emptied(std::mem::take(&mut self.found));
        found.resize(columns.len(), None);
        self.read(record, &mut found).map_err(|wrong| wrong.to_string())?;
        for ((column, value), name) in columns.iter_mut().zip(&found).zip(&self.names) {
            match value {
                None => column.push_null(),
                Some(value) => {
                    let meant = units.and_then(|units| units.push(name, value, column));
                    meant.unwrap_or_else(|| push(column, value)).map_err(|what| format!("column {name}: {what}"))?;
                }
            }
        }
        self.found = emptied(found);
        Ok(())
    }

    /// Finds the columns' values in `record`, and that it is one object.
    fn read<'a>(&mut self, record: &'a str, found: &mut [Option<Value<'a>>]) -> Result<(), Wrong> {
        let mut scan = Scan::new(record);
        scan.expect(b'{', "it is not an object")?;
        let mut at = 0;
        while scan.field(at == 0)? {
            let column = self.column(at, &mut scan)?;
            scan.colon()?;
            let value = scan.value(1)?;
            if let Some(found) = column.and_then(|column| found.get_mut(column)) {
                *found = Some(value);
            }
            at += 1;
        }
        scan.end()
    }

    /// Reads the name of the object's field number `at`.
    fn column(&mut self, at: usize, scan: &mut Scan<'_>) -> Result<Option<usize>, Wrong> {
        scan.take(b'"');
        if let Some(expected) = self.expected.get(at)
            && scan.take_all(&expected.written)
        {
            return Ok(expected.column);
        }
        let name = scan.rest_of_string()?;
        let column = match name.kind {
            Kind::Text => self.places.get(name.text).copied(),
            _ => self.places.get(&name.unescaped()).copied(),
        };
        if at < EXPECTED && name.text.len() <= EXPECTED_NAME {
            if self.expected.len() == at {
                self.expected.push(Expected::default());
            }
            if let Some(expected) = self.expected.get_mut(at) {
                expected.column = column;
                expected.written.clear();
                expected.written.extend_from_slice(name.text.as_bytes());
                expected.written.push(b'"');
            }
        }
        Ok(column)
    }
}

/// The same room for values of another record.
fn emptied<'b>(mut found: Vec<Option<Value<'_>>>) -> Vec<Option<Value<'b>>> {
    found.clear();
    found.into_iter().map(|_| None).collect()
}

/// Appends `value` to `column`.
fn push(column: &mut Column, value: &Value<'_>) -> Result<(), String> {
    let is_truth = matches!(column.kind(), DataType::Boolean);
    let no = |column: &Column| Err(format!("{} is no {}", value.shown(), text::sql(column.kind())));
    match value.kind {
        Kind::Null => column.push_null(),
        Kind::True | Kind::False if is_truth => {
            if let Values::Boolean(values) = column.next() {
                values.append(value.kind == Kind::True);
            }
        }
        Kind::Number => match column.kind() {
            DataType::Timestamp(..) | DataType::Date32 => {
                let kind = text::sql(column.kind());
                return Err(format!(
                    "{} is no {kind}: a number does not say its unit; make the column a bigint",
                    value.shown()
                ));
            }
            _ => return text::number(column, value.text).or_else(|()| no(column)),
        },
        Kind::Text if !is_truth => return text::push(column, value.text),
        Kind::Escaped if !is_truth => match column.kind() {
            DataType::Utf8 => {
                if let Values::Bytes(values) = column.next() {
                    values.push_with(|into| scan::unescape(value.text, into));
                }
            }
            _ => return text::push(column, &value.unescaped()),
        },
        _ => return no(column),
    }
    Ok(())
}
