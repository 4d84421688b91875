//! Which columns a message makes, and how its fields become their values.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field as ArrowField, Fields};
use protox::prost_reflect::{Cardinality, FieldDescriptor, Kind as Declared, MessageDescriptor};

use super::super::columns::map_of;
use super::super::given::micros;

/// Columns that a message makes, over all that are within it.
const MAX_COLUMNS: usize = 20_000;
/// How deep messages may be within one another.
const MAX_DEPTH: usize = 64;

/// A message, and where its fields go.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
    /// The places of the fields by their numbers, ascending.
    numbers: Vec<(u32, usize)>,
}

impl Message {
    /// The place of the field of that number.
    pub(super) fn place(&self, number: u32) -> Option<usize> {
        // Most messages number their fields from 1 on.
        let likely = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
        match self.numbers.get(likely) {
            Some((found, place)) if *found == number => Some(*place),
            _ => {
                let at = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
                self.numbers.get(at).map(|(_, place)| *place)
            }
        }
    }
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    /// The column; none where nobody wants it.
    pub(super) column: Option<usize>,
    /// Of its fields that share this, the last one counts.
    pub(super) oneof: Option<usize>,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One; without one it is null.
    Optional,
    /// One; without one it is its type's zero.
    Implicit,
    /// One; a message without one is none.
    Required,
    Repeated,
    Map,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    Int32,
    Sint32,
    Sfixed32,
    Uint32,
    Fixed32,
    Int64,
    Sint64,
    Sfixed64,
    Uint64,
    Fixed64,
    Float,
    Double,
    String,
    Bytes,
    Enum(HashMap<i32, String>),
    /// `google.protobuf.Timestamp`.
    Timestamp(Box<Message>),
    /// One of `google.protobuf.*Value`.
    Wrapper(Box<Message>),
    Message(Box<Message>),
    /// A message that is within itself, or has no fields: its bytes.
    Opaque,
}

/// The columns of `message`, and the plan that fills all of them, or the `wanted`.
pub(super) fn plan(message: &MessageDescriptor, wanted: Option<&[usize]>) -> Result<(Fields, Message), String> {
    let mut planner = Planner { path: Vec::new(), left: MAX_COLUMNS };
    let (fields, mut plan) = planner.message(message)?;
    if fields.is_empty() {
        return Err(format!("the message {} has no fields, and so no columns", message.full_name()));
    }
    if let Some(wanted) = wanted {
        for field in &mut plan.fields {
            field.column = field.column.and_then(|column| wanted.iter().position(|at| *at == column));
        }
    }
    Ok((fields, plan))
}

struct Planner {
    /// The messages that the one at hand is in.
    path: Vec<String>,
    left: usize,
}

impl Planner {
    fn message(&mut self, message: &MessageDescriptor) -> Result<(Fields, Message), String> {
        if self.path.len() >= MAX_DEPTH {
            return Err(format!("{} is nested too deeply", message.full_name()));
        }
        self.path.push(message.full_name().to_owned());
        let (mut columns, mut fields, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for declared in &message.descriptor_proto().field {
            let Some(field) = message.get_field_by_name(declared.name()) else { continue };
            self.left = self.left.checked_sub(1).ok_or_else(|| format!("it makes more than {MAX_COLUMNS} columns"))?;
            let (kind, column) = self.field(&field).map_err(|e| format!("{}: {e}", field.name()))?;
            let place = fields.len();
            columns.push(ArrowField::new(field.name(), column, true));
            numbers.push((field.number(), place));
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let oneof = oneof.and_then(|oneof| message.oneofs().position(|other| other == oneof));
            let shape = shape(&field);
            fields.push(Field { name: field.name().to_owned(), kind, shape, column: Some(place), oneof });
        }
        numbers.sort_unstable();
        self.path.pop();
        Ok((columns.into(), Message { fields, numbers }))
    }

    fn field(&mut self, field: &FieldDescriptor) -> Result<(Kind, DataType), String> {
        let (kind, column) = self.kind(&field.kind())?;
        Ok(match shape(field) {
            Shape::Map => {
                let DataType::Struct(pair) = &column else { return Err("a map has no entries".to_owned()) };
                let [key, value] = pair.as_ref() else { return Err("a map's entry is no pair".to_owned()) };
                (kind, map_of(key.data_type().clone(), value.data_type().clone()))
            }
            Shape::Repeated => (kind, DataType::new_list(column, true)),
            _ => (kind, column),
        })
    }

    fn kind(&mut self, declared: &Declared) -> Result<(Kind, DataType), String> {
        Ok(match declared {
            Declared::Bool => (Kind::Bool, DataType::Boolean),
            Declared::Int32 => (Kind::Int32, DataType::Int32),
            Declared::Sint32 => (Kind::Sint32, DataType::Int32),
            Declared::Sfixed32 => (Kind::Sfixed32, DataType::Int32),
            Declared::Uint32 => (Kind::Uint32, DataType::Int64),
            Declared::Fixed32 => (Kind::Fixed32, DataType::Int64),
            Declared::Int64 => (Kind::Int64, DataType::Int64),
            Declared::Sint64 => (Kind::Sint64, DataType::Int64),
            Declared::Sfixed64 => (Kind::Sfixed64, DataType::Int64),
            Declared::Uint64 => (Kind::Uint64, DataType::Decimal128(20, 0)),
            Declared::Fixed64 => (Kind::Fixed64, DataType::Decimal128(20, 0)),
            Declared::Float => (Kind::Float, DataType::Float32),
            Declared::Double => (Kind::Double, DataType::Float64),
            Declared::String => (Kind::String, DataType::Utf8),
            Declared::Bytes => (Kind::Bytes, DataType::Binary),
            Declared::Enum(of) => {
                let mut names = HashMap::new();
                for value in of.values() {
                    names.entry(value.number()).or_insert_with(|| value.name().to_owned());
                }
                (Kind::Enum(names), DataType::Utf8)
            }
            Declared::Message(message) => self.of_message(message)?,
        })
    }

    fn of_message(&mut self, message: &MessageDescriptor) -> Result<(Kind, DataType), String> {
        let name = message.full_name();
        if self.path.iter().any(|outer| outer == name) || message.fields().len() == 0 {
            return Ok((Kind::Opaque, DataType::Binary));
        }
        let (fields, plan) = self.message(message)?;
        let plan = Box::new(plan);
        let single = fields.first().map(|field| field.data_type().clone());
        Ok(match (name, single) {
            ("google.protobuf.Timestamp", _) => (Kind::Timestamp(plan), micros(Some("+00:00"))),
            (name, Some(value)) if is_wrapper(name) => (Kind::Wrapper(plan), value),
            _ => (Kind::Message(plan), DataType::Struct(fields)),
        })
    }
}

fn is_wrapper(name: &str) -> bool {
    const WRAPPED: [&str; 9] = ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"];
    let word = name.strip_prefix("google.protobuf.").and_then(|name| name.strip_suffix("Value"));
    word.is_some_and(|word| WRAPPED.contains(&word))
}

fn shape(field: &FieldDescriptor) -> Shape {
    if field.is_map() {
        Shape::Map
    } else if field.is_list() {
        Shape::Repeated
    } else if field.cardinality() == Cardinality::Required {
        Shape::Required
    } else if field.parent_message().is_map_entry() || !field.supports_presence() {
        Shape::Implicit
    } else {
        Shape::Optional
    }
}
