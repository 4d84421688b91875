//! Change events of Debezium as JSON: a row is what a change left behind.
//!
//! With its schema (`{"schema": …, "payload": …}`) an event says what its numbers count and how its decimals are
//! written; without, a number for a time and a decimal in bytes make the record a bad one, as in `json`. Inserts and
//! the reads of a snapshot are rows; what becomes of updates and deletes the spec says; all else is refused by name.

#[cfg(test)]
mod tests;
mod units;

use arrow::array::BinaryArray;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidegate_common::spec::model::{ChangesSpec, DeletesSpec, UpdatesSpec};

pub(super) use self::units::Units;
use super::columns::{self, Column};
use super::json::scan::{Kind, Scan, Value};
use super::json::{Objects, not_utf8};
use super::{Decoded, Decoder, Format, FormatError, NoRow, decode_each, project, shown};

/// The format `debezium_json`.
pub(super) struct Debezium {
    schema: SchemaRef,
    changes: ChangesSpec,
}

impl Debezium {
    pub(super) fn open(schema: &SchemaRef, changes: Option<ChangesSpec>) -> Self {
        Self { schema: schema.clone(), changes: changes.unwrap_or_default() }
    }
}

impl Format for Debezium {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn name(&self) -> &'static str {
        "debezium_json"
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError> {
        let schema = project(&self.schema, columns)?;
        let events = Events { changes: self.changes, objects: Objects::new(&schema), units: Units::default() };
        Ok(Box::new(DebeziumDecoder { columns: columns::empty(&schema).map_err(FormatError::rows)?, schema, events }))
    }
}

struct DebeziumDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    events: Events,
}

#[async_trait]
impl Decoder for DebeziumDecoder {
    async fn decode(&mut self, _keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError> {
        let Self { schema, columns, events } = self;
        decode_each(schema, columns, values, |columns, value| {
            let event = std::str::from_utf8(value).map_err(|e| NoRow::Bad(not_utf8(&e)))?;
            events.push(event, columns)
        })
    }
}

/// Turns events into rows.
struct Events {
    changes: ChangesSpec,
    objects: Objects,
    units: Units,
}

impl Events {
    fn push(&mut self, event: &str, columns: &mut [Column]) -> Result<(), NoRow> {
        let bad = |what: String| NoRow::Bad(what);
        let [schema, payload] = members(event, ["schema", "payload"]).map_err(bad)?;
        let payload = match payload {
            Some(payload) if payload.kind == Kind::Null => return Err(NoRow::Tombstone),
            Some(payload) => payload.text,
            None => event,
        };
        let [op, after] = members(payload, ["op", "after"]).map_err(bad)?;
        let Some(op) = op.filter(|op| matches!(op.kind, Kind::Text | Kind::Escaped)) else {
            return Err(bad("it is no change event: it has no `op`".to_owned()));
        };
        match (op.unescaped().as_str(), self.changes) {
            ("c" | "r", _) | ("u", ChangesSpec { updates: UpdatesSpec::After, .. }) => {}
            ("u", ChangesSpec { updates: UpdatesSpec::Skip, .. }) => return Err(NoRow::Skipped),
            ("d", ChangesSpec { deletes: DeletesSpec::Skip, .. }) => return Err(NoRow::Skipped),
            ("u", _) => return Err(bad("it is an update: see format.changes.updates (after, skip)".to_owned())),
            ("d", _) => return Err(bad("it is a delete: see format.changes.deletes (skip)".to_owned())),
            ("t", _) => return Err(bad("it is a truncation of the table, which no row can say".to_owned())),
            ("m", _) => return Err(bad("it is a message of the database's log, and no row".to_owned())),
            (other, _) => return Err(bad(format!("its `op` is {}, which is none", shown(other)))),
        }
        let Some(after) = after.filter(|after| after.kind == Kind::Object) else {
            return Err(bad("it has no row in `after`".to_owned()));
        };
        let schema = schema.filter(|schema| schema.kind == Kind::Object).map(|schema| schema.text);
        let units = schema.map(|schema| self.units.of(schema));
        self.objects.push_with(after.text, columns, units).map_err(bad)
    }
}

/// The members of those names of the object that `text` is.
fn members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Result<[Option<Value<'a>>; N], String> {
    let mut found = [None; N];
    let mut scan = Scan::new(text);
    let mut read = || {
        scan.expect(b'{', "it is not an object")?;
        let mut is_first = true;
        while scan.field(is_first)? {
            let name = scan.string()?;
            scan.colon()?;
            let value = scan.value(1)?;
            let place = match name.kind {
                Kind::Text => names.iter().position(|known| *known == name.text),
                _ => names.iter().position(|known| *known == name.unescaped()),
            };
            if let Some(found) = place.and_then(|place| found.get_mut(place)) {
                *found = Some(value);
            }
            is_first = false;
        }
        scan.end()
    };
    read().map_err(|wrong| wrong.to_string())?;
    Ok(found)
}
