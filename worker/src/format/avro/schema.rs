//! Avro's schemas: types that may refer to one another by name, in one list.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde_json::{Map, Value};

use super::super::given::micros;

/// Types of one schema, and columns that they make.
const MAX_TYPES: usize = 20_000;
/// How deep the columns of a schema may be within one another.
pub(super) const MAX_DEPTH: usize = 64;

/// A place in a schema's list.
pub(super) type At = usize;

/// A schema.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    pub(super) root: At,
}

/// A type, with what it means beyond its encoding.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) shape: Shape,
    pub(super) meaning: Option<Meaning>,
}

/// How a type is encoded.
#[derive(Debug)]
pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(Name, usize),
    Enum { name: Name, symbols: Vec<String>, default: Option<String> },
    Array(At),
    Map(At),
    Union(Vec<At>),
    Record(Name, Vec<RecordField>),
}

/// A field of a record.
#[derive(Debug)]
pub(super) struct RecordField {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) of: At,
    pub(super) default: Option<Value>,
}

/// A name and the others that it answers to, without their namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    name: String,
    aliases: Vec<String>,
}

impl Name {
    /// Whether a writer's type of the name `other` is this reader's type.
    pub(super) fn answers_to(&self, other: &Self) -> bool {
        self.name == other.name || self.aliases.contains(&other.name)
    }
}

/// A logical type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Decimal(u8, i8),
    Uuid,
    Date,
    Time(Unit),
    Timestamp(Unit),
    LocalTimestamp(Unit),
}

/// What a number of time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Schema {
    /// Reads the schema `text`, which may refer to the types of `references`, each of which to those before it.
    pub(super) fn parse(text: &str, references: &[(String, String)]) -> Result<Self, String> {
        let mut parser = Parser::default();
        for (name, text) in references {
            parser.text(text).map_err(|e| format!("{name}: {e}"))?;
        }
        let root = parser.text(text)?;
        let types = parser.types.into_iter().collect::<Option<Vec<_>>>().ok_or("a type is not complete")?;
        Ok(Self { types, root })
    }

    pub(super) fn get(&self, at: At) -> &Type {
        const NONE: &Type = &Type { shape: Shape::Null, meaning: None };
        self.types.get(at).unwrap_or(NONE)
    }

    pub(super) fn shape(&self, at: At) -> &Shape {
        &self.get(at).shape
    }

    /// The fields of the record that the schema is.
    pub(super) fn fields(&self) -> Result<&[RecordField], String> {
        match self.shape(self.root) {
            Shape::Record(_, fields) => Ok(fields),
            _ => Err("the schema is no record, and so has no columns".to_owned()),
        }
    }

    /// The columns that a reader of this schema makes. A field that can only be null is none.
    pub(super) fn columns(&self) -> Result<Fields, String> {
        let mut budget = MAX_TYPES;
        self.fields_of(self.fields()?, 1, &mut budget)
    }

    fn fields_of(&self, fields: &[RecordField], depth: usize, budget: &mut usize) -> Result<Fields, String> {
        let mut columns = Vec::new();
        for field in fields {
            let kind = self.column(field.of, depth, budget).map_err(|e| format!("{}: {e}", field.name))?;
            columns.extend(kind.map(|kind| Field::new(&field.name, kind, true)));
        }
        Ok(columns.into())
    }

    /// The column that the type at `at` makes.
    pub(super) fn column(&self, at: At, depth: usize, budget: &mut usize) -> Result<Option<DataType>, String> {
        *budget = budget.checked_sub(1).ok_or_else(|| format!("the schema makes more than {MAX_TYPES} columns"))?;
        if depth > MAX_DEPTH {
            return Err("the schema is recursive, or nested too deeply, and columns are not".to_owned());
        }
        let item = |of: At, budget: &mut usize| {
            let kind = self.column(of, depth + 1, budget)?;
            kind.ok_or_else(|| "an array or map of nulls makes no column".to_owned())
        };
        let this = self.get(at);
        if let Some(kind) = this.meaning.map(Meaning::column) {
            return Ok(Some(kind));
        }
        Ok(Some(match &this.shape {
            Shape::Null => return Ok(None),
            Shape::Boolean => DataType::Boolean,
            Shape::Int => DataType::Int32,
            Shape::Long => DataType::Int64,
            Shape::Float => DataType::Float32,
            Shape::Double => DataType::Float64,
            Shape::Bytes | Shape::Fixed(..) => DataType::Binary,
            Shape::String | Shape::Enum { .. } => DataType::Utf8,
            Shape::Array(of) => DataType::new_list(item(*of, budget)?, true),
            Shape::Map(of) => super::super::columns::map_of(DataType::Utf8, item(*of, budget)?),
            Shape::Record(_, fields) => DataType::Struct(self.fields_of(fields, depth + 1, budget)?),
            Shape::Union(_) => match *self.members(at) {
                [] => return Ok(None),
                [only] => return self.column(only, depth + 1, budget),
                ref several => {
                    let mut members = Vec::new();
                    for (member, of) in several.iter().enumerate() {
                        members.push(Field::new(format!("member{member}"), item(*of, budget)?, true));
                    }
                    DataType::Struct(members.into())
                }
            },
        }))
    }

    /// Whether the type at `at` makes a column: what can only be null makes none.
    pub(super) fn makes_column(&self, at: At) -> bool {
        match self.shape(at) {
            Shape::Null => false,
            Shape::Union(_) => !self.members(at).is_empty(),
            _ => true,
        }
    }

    /// The branches of the union at `at` that are not null.
    pub(super) fn members(&self, at: At) -> Vec<At> {
        let Shape::Union(branches) = self.shape(at) else { return Vec::new() };
        branches.iter().copied().filter(|branch| !matches!(self.shape(*branch), Shape::Null)).collect()
    }
}

impl Meaning {
    fn column(self) -> DataType {
        match self {
            Self::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
            Self::Uuid => DataType::Utf8,
            Self::Date => DataType::Date32,
            Self::Time(_) => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp(_) => micros(Some("+00:00")),
            Self::LocalTimestamp(_) => micros(None),
        }
    }

    /// What `logicalType` says of `shape`; one that is unknown, or does not fit, says nothing.
    fn of(given: &Map<String, Value>, shape: &Shape) -> Option<Self> {
        let word = given.get("logicalType")?.as_str()?;
        match (word, shape) {
            ("decimal", Shape::Bytes | Shape::Fixed(..)) => {
                let number = |key: &str| given.get(key).map_or(Some(0), Value::as_u64);
                let precision =
                    number("precision").and_then(|p| u8::try_from(p).ok()).filter(|p| (1..=38).contains(p))?;
                let scale = number("scale")
                    .and_then(|s| i8::try_from(s).ok())
                    .filter(|s| i16::from(*s) <= i16::from(precision))?;
                Some(Self::Decimal(precision, scale))
            }
            ("uuid", Shape::String | Shape::Fixed(_, 16)) => Some(Self::Uuid),
            ("date", Shape::Int) => Some(Self::Date),
            ("time-millis", Shape::Int) => Some(Self::Time(Unit::Millis)),
            ("time-micros", Shape::Long) => Some(Self::Time(Unit::Micros)),
            ("timestamp-millis", Shape::Long) => Some(Self::Timestamp(Unit::Millis)),
            ("timestamp-micros", Shape::Long) => Some(Self::Timestamp(Unit::Micros)),
            ("timestamp-nanos", Shape::Long) => Some(Self::Timestamp(Unit::Nanos)),
            ("local-timestamp-millis", Shape::Long) => Some(Self::LocalTimestamp(Unit::Millis)),
            ("local-timestamp-micros", Shape::Long) => Some(Self::LocalTimestamp(Unit::Micros)),
            ("local-timestamp-nanos", Shape::Long) => Some(Self::LocalTimestamp(Unit::Nanos)),
            _ => None,
        }
    }

    /// What its number counts, where it is of time.
    pub(super) fn unit(self) -> Option<Unit> {
        match self {
            Self::Time(unit) | Self::Timestamp(unit) | Self::LocalTimestamp(unit) => Some(unit),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Parser {
    types: Vec<Option<Type>>,
    /// By their full names.
    named: HashMap<String, At>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<At, String> {
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(e) => return Err(format!("the schema is no JSON: {e}")),
        };
        self.of(&value, "")
    }

    fn add(&mut self, found: Option<Type>) -> Result<At, String> {
        if self.types.len() >= MAX_TYPES {
            return Err(format!("the schema has more than {MAX_TYPES} types"));
        }
        self.types.push(found);
        Ok(self.types.len() - 1)
    }

    fn plain(&mut self, shape: Shape) -> Result<At, String> {
        self.add(Some(Type { shape, meaning: None }))
    }

    fn of(&mut self, value: &Value, namespace: &str) -> Result<At, String> {
        match value {
            Value::String(name) => self.word(name, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.of(branch, namespace)).collect::<Result<_, _>>()?;
                self.plain(Shape::Union(branches))
            }
            Value::Object(given) => self.object(given, namespace),
            other => Err(format!("{other} is no type")),
        }
    }

    fn word(&mut self, word: &str, namespace: &str) -> Result<At, String> {
        match primitive(word) {
            Some(shape) => self.plain(shape),
            None => {
                let full = full_name(word, namespace);
                let found = self.named.get(&full).or_else(|| self.named.get(word)).copied();
                found.ok_or_else(|| format!("the type {full} is not known"))
            }
        }
    }

    fn object(&mut self, given: &Map<String, Value>, namespace: &str) -> Result<At, String> {
        let kind = match given.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(other) => return self.of(other, namespace),
            None => return Err("a type lacks its `type`".to_owned()),
        };
        let shape = match kind {
            "array" => Shape::Array(self.of(member(given, "items")?, namespace)?),
            "map" => Shape::Map(self.of(member(given, "values")?, namespace)?),
            "record" | "error" | "enum" | "fixed" => return self.named_type(kind, given, namespace),
            word => match primitive(word) {
                Some(shape) => shape,
                None => return self.word(word, namespace),
            },
        };
        let meaning = Meaning::of(given, &shape);
        self.add(Some(Type { shape, meaning }))
    }

    fn named_type(&mut self, kind: &str, given: &Map<String, Value>, outer: &str) -> Result<At, String> {
        let word = text(given, "name")?;
        let namespace = match word.rsplit_once('.') {
            Some((namespace, _)) => namespace,
            None => given.get("namespace").and_then(Value::as_str).unwrap_or(outer),
        };
        let full = full_name(word, namespace);
        let name = Name { name: bare(word).to_owned(), aliases: aliases(given) };
        let at = self.add(None)?;
        if self.named.insert(full.clone(), at).is_some() {
            return Err(format!("the type {full} is defined twice"));
        }
        let shape = match kind {
            "fixed" => {
                let size = member(given, "size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                Shape::Fixed(name, size.ok_or_else(|| format!("{full}: its size is none"))?)
            }
            "enum" => {
                let symbols = member(given, "symbols")?.as_array().ok_or("the symbols are no list")?;
                let symbols = symbols.iter().map(|s| s.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
                let default = given.get("default").and_then(Value::as_str).map(str::to_owned);
                Shape::Enum { name, symbols: symbols.ok_or("a symbol is no text")?, default }
            }
            _ => {
                let fields = member(given, "fields")?.as_array().ok_or("the fields are no list")?;
                let fields = fields.iter().map(|field| self.field(field, namespace)).collect::<Result<Vec<_>, _>>();
                let fields = fields.map_err(|e| format!("{full}: {e}"))?;
                let mut seen = HashSet::new();
                if let Some(twice) = fields.iter().find(|field| !seen.insert(&field.name)) {
                    return Err(format!("{full}: the field {} is defined twice", twice.name));
                }
                Shape::Record(name, fields)
            }
        };
        let meaning = Meaning::of(given, &shape);
        if let Some(slot) = self.types.get_mut(at) {
            *slot = Some(Type { shape, meaning });
        }
        Ok(at)
    }

    fn field(&mut self, field: &Value, namespace: &str) -> Result<RecordField, String> {
        let given = field.as_object().ok_or("a field is none")?;
        let name = text(given, "name")?.to_owned();
        let of = self.of(member(given, "type")?, namespace).map_err(|e| format!("{name}: {e}"))?;
        // What a logical type says may stand beside the type of the field, too; it belongs to the type.
        Ok(RecordField { name, aliases: aliases(given), of, default: given.get("default").cloned() })
    }
}

fn primitive(word: &str) -> Option<Shape> {
    Some(match word {
        "null" => Shape::Null,
        "boolean" => Shape::Boolean,
        "int" => Shape::Int,
        "long" => Shape::Long,
        "float" => Shape::Float,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "string" => Shape::String,
        _ => return None,
    })
}

fn member<'a>(given: &'a Map<String, Value>, key: &str) -> Result<&'a Value, String> {
    given.get(key).ok_or_else(|| format!("a type lacks its `{key}`"))
}

fn text<'a>(given: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    member(given, key)?.as_str().ok_or_else(|| format!("a `{key}` is no text"))
}

fn bare(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, name)| name)
}

fn full_name(word: &str, namespace: &str) -> String {
    if word.contains('.') || namespace.is_empty() { word.to_owned() } else { format!("{namespace}.{word}") }
}

fn aliases(given: &Map<String, Value>) -> Vec<String> {
    let list = given.get("aliases").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(|alias| bare(alias).to_owned()).collect()
}
