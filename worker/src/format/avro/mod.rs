//! Avro's binary encoding, bare or in a schema registry's framing, read straight into columns.
//!
//! Rows are read as one schema, which is fixed when the backfill is planned, whatever schemas they were written by:
//! those are asked for by the ids that stand before the values. A record whose schema is not known, or cannot be read
//! as the rows' schema, is a bad one; a registry that does not answer is an error.

mod read;
mod resolve;
mod schema;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidegate_common::spec::model::RecordFormatSpec;

use self::read::Cursor;
pub(super) use self::read::whole;
use self::resolve::{Read, Step};
use self::schema::Schema;
use super::columns::{self, Column};
use super::framing::{self, Writers};
use super::registry::{self, Registry};
use super::{Decoded, Decoder, Format, FormatError, NoRow, decode_each, project, read_file};
use crate::access::Access;

const KIND: &str = "AVRO";
/// Plans that a decoder keeps.
const MAX_PLANS: usize = 1000;

/// The format `avro`.
pub(super) struct Avro {
    shared: Arc<Shared>,
    pin: Vec<u8>,
}

struct Shared {
    /// What rows are read as.
    reader: Arc<Schema>,
    columns: SchemaRef,
    /// Who wrote them; nobody but the reader's schema where values are bare.
    writers: Option<Writers<Schema>>,
}

impl Avro {
    /// Opens the format with the reader's schema of `pin`; without one, with that of the spec or the registry.
    pub(super) async fn open(
        topic: &str,
        spec: &RecordFormatSpec,
        access: &Access,
        pin: Option<&[u8]>,
    ) -> Result<Self, FormatError> {
        let registry = spec.schema_registry.as_ref().map(|spec| Registry::open(spec, access)).transpose()?;
        let wrong = |e: String| FormatError::Schema(format!("the Avro schema: {e}"));
        let given = match (pin, &spec.avro_schema, &registry, &spec.schema_registry) {
            (Some(pin), ..) => serde_json::from_slice(pin).map_err(|e| wrong(format!("its pin is damaged: {e}")))?,
            (None, Some(file), ..) => {
                let bytes = read_file("avro_schema", file, access)?;
                let text = String::from_utf8(bytes).map_err(|e| wrong(format!("{file}: {e}")))?;
                registry::Schema { text, references: Vec::new() }
            }
            (None, None, Some(registry), Some(spec)) => {
                registry.version(&registry::subject(spec, topic), spec.version, KIND).await?
            }
            _ => return Err(FormatError::Spec("avro needs a schema_registry or an avro_schema".to_owned())),
        };
        let reader = Schema::parse(&given.text, &given.references).map_err(wrong)?;
        let columns = Arc::new(arrow::datatypes::Schema::new(reader.columns().map_err(wrong)?));
        // A schema that does not fit itself has a wrong default, or names what does not exist.
        let all: Vec<usize> = (0..columns.fields().len()).collect();
        resolve::resolve(&reader, &reader, &all).map_err(wrong)?;
        let pin = serde_json::to_vec(&given).map_err(|e| wrong(e.to_string()))?;
        let writers = registry.map(|registry| Writers::new(registry, KIND));
        Ok(Self { shared: Arc::new(Shared { reader: Arc::new(reader), columns, writers }), pin })
    }
}

impl Format for Avro {
    fn schema(&self) -> SchemaRef {
        self.shared.columns.clone()
    }

    fn name(&self) -> &'static str {
        "avro"
    }

    fn pin(&self) -> Vec<u8> {
        self.pin.clone()
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError> {
        let shared = self.shared.clone();
        let schema = project(&shared.columns, columns)?;
        let bare = match shared.writers {
            None => Some(Plan::new(&shared.reader, &shared.reader, columns).map_err(FormatError::Schema)?),
            Some(_) => None,
        };
        let wanted = columns.to_vec();
        let columns = columns::empty(&schema).map_err(FormatError::rows)?;
        Ok(Box::new(AvroDecoder { shared, schema, columns, wanted, bare, plans: HashMap::new() }))
    }
}

/// How records of one writer are read.
struct Plan {
    writer: Arc<Schema>,
    steps: Vec<Step>,
}

impl Plan {
    fn new(writer: &Arc<Schema>, reader: &Schema, wanted: &[usize]) -> Result<Self, String> {
        match resolve::resolve(writer, reader, wanted)? {
            Read::Record(steps) => Ok(Self { writer: writer.clone(), steps }),
            _ => Err("the schema is no record".to_owned()),
        }
    }

    fn read(&self, value: &[u8], columns: &mut [Column]) -> Result<(), String> {
        let mut cursor = Cursor::new(value);
        read::record(&self.steps, &self.writer, &mut cursor, columns)?;
        cursor.end()
    }
}

struct AvroDecoder {
    shared: Arc<Shared>,
    schema: SchemaRef,
    columns: Vec<Column>,
    wanted: Vec<usize>,
    bare: Option<Plan>,
    plans: HashMap<u32, Result<Plan, String>>,
}

impl AvroDecoder {
    /// Works out how the records of each of `values`' schemas are read.
    async fn plan(&mut self, writers: &Writers<Schema>, values: &BinaryArray) -> Result<(), FormatError> {
        if self.plans.len() > MAX_PLANS {
            self.plans.clear();
        }
        for id in framing::ids(values) {
            if self.plans.contains_key(&id) {
                continue;
            }
            let writer = writers.get(id, |schema| Schema::parse(&schema.text, &schema.references)).await?;
            let plan = writer.and_then(|writer| {
                let plan = Plan::new(&writer, &self.shared.reader, &self.wanted);
                plan.map_err(|e| format!("the schema with the id {id} is not read as the rows' schema: {e}"))
            });
            self.plans.insert(id, plan);
        }
        Ok(())
    }
}

#[async_trait]
impl Decoder for AvroDecoder {
    async fn decode(&mut self, _keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError> {
        let shared = self.shared.clone();
        if let Some(writers) = &shared.writers {
            self.plan(writers, values).await?;
        }
        let Self { schema, columns, bare, plans, .. } = self;
        decode_each(schema, columns, values, |columns, value| {
            let read = match bare {
                Some(plan) => plan.read(value, columns),
                None => framing::split(value).and_then(|(id, value)| match plans.get(&id) {
                    Some(Ok(plan)) => plan.read(value, columns),
                    Some(Err(e)) => Err(e.clone()),
                    None => Err(format!("the schema with the id {id} is not known")),
                }),
            };
            read.map_err(NoRow::Bad)
        })
    }
}
