//! Reads the types of a spec from its tree.
//!
//! The type that is asked for decides what a scalar means: `1` is a number for a number and text for text, but
//! `"1"` in quotes is never a number unless a variable was put into it. Unknown keys are collected and skipped;
//! every other error ends the reading with the place and the path of what was wrong.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Visitor};

use super::error::{SpecError, did_you_mean, quoted};
use super::interpolate::{self, Environment};
use super::tree::{Key, MAX_TEXT, Node, Place, Value, spot};

/// The type whose fields are references to secrets: nothing in it is expanded.
const SECRET: &str = "Secret";

/// Reads one tree.
pub(super) struct Reader<'a> {
    env: Environment<'a>,
    errors: RefCell<Vec<SpecError>>,
    /// Bytes that came out of expanding so far.
    expanded: Cell<usize>,
}

/// The most bytes that expanding all scalars of a spec may give.
const MAX_EXPANDED: usize = 4 * MAX_TEXT;

impl<'a> Reader<'a> {
    pub(super) fn new(env: Environment<'a>) -> Self {
        Self { env, errors: RefCell::default(), expanded: Cell::new(0) }
    }

    /// What the tree under `node` says.
    pub(super) fn read<T: DeserializeOwned>(&self, node: &Node) -> Result<T, SpecError> {
        let root = NodeReader { reader: self, node, place: node.place, trail: &Trail::Top, expand: true };
        T::deserialize(root).map_err(|error| *root.located(error).0)
    }

    /// The unknown keys that were skipped.
    pub(super) fn into_errors(self) -> Vec<SpecError> {
        self.errors.into_inner()
    }
}

/// The keys that lead to a node, last one first.
enum Trail<'r> {
    Top,
    Step(&'r Trail<'r>, String),
}

impl Trail<'_> {
    fn path(&self) -> Vec<String> {
        match self {
            Self::Top => Vec::new(),
            Self::Step(parent, key) => {
                let mut path = parent.path();
                path.push(key.clone());
                path
            }
        }
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct NodeReader<'r> {
    reader: &'r Reader<'r>,
    node: &'r Node,
    place: Place,
    trail: &'r Trail<'r>,
    expand: bool,
}

/// A scalar with its variables put in.
struct Scalar {
    text: String,
    /// Whether it may be read as something else than text.
    open: bool,
}

impl<'r> NodeReader<'r> {
    fn located(&self, error: ReadError) -> ReadError {
        if error.0.line > 0 {
            return error;
        }
        ReadError(Box::new(error.0.at(self.place).of(self.trail.path())))
    }

    fn scalar(&self, wanted: &str) -> Result<Scalar, ReadError> {
        let (text, plain) = match &self.node.value {
            Value::Scalar { text, plain } => (text, *plain),
            Value::List(_) | Value::Map(_) => return Err(self.mistyped(wanted)),
        };
        if self.expand && interpolate::wanted(text) {
            let text = interpolate::expand(text, self.reader.env).map_err(ReadError::from)?;
            self.reader.expanded.set(self.reader.expanded.get().saturating_add(text.len()));
            if self.reader.expanded.get() > MAX_EXPANDED {
                let message = format!("the spec, its variables put in, is larger than {MAX_EXPANDED} bytes");
                return Err(SpecError::new(message).into());
            }
            return Ok(Scalar { text, open: true });
        }
        if self.is_null() {
            return Err(self.mistyped(wanted));
        }
        Ok(Scalar { text: text.clone(), open: plain })
    }

    fn is_null(&self) -> bool {
        match &self.node.value {
            Value::Scalar { text, plain: true } => matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            _ => false,
        }
    }

    fn mistyped(&self, wanted: &str) -> ReadError {
        let found = match &self.node.value {
            _ if self.is_null() => "nothing".to_owned(),
            Value::Scalar { text, .. } => quoted(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "keys and values".to_owned(),
        };
        ReadError::from(SpecError::new(format!("expected {wanted}, found {found}")))
    }

    fn number<T: std::str::FromStr>(&self, wanted: &str) -> Result<T, ReadError> {
        let Scalar { text, open } = self.scalar(wanted)?;
        if !open {
            let error = SpecError::new(format!("expected {wanted}, found the text {}", quoted(&text)));
            return Err(error.hint("take the quotation marks away").into());
        }
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
        match text.parse() {
            Ok(number) if plain => Ok(number),
            _ => Err(SpecError::new(format!("expected {wanted}, found {}", quoted(&text))).into()),
        }
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty, $wanted:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            visitor.$visit(self.number::<$type>($wanted)?)
        })*
    };
}

impl<'de> de::Deserializer<'de> for NodeReader<'_> {
    type Error = ReadError;

    whole_numbers! {
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number, 0 or more";
        deserialize_u64 visit_u64 u64, "a whole number, 0 or more";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let wanted = "true or false";
        let Scalar { text, open } = self.scalar(wanted)?;
        match text.as_str() {
            "true" | "True" | "TRUE" if open => visitor.visit_bool(true),
            "false" | "False" | "FALSE" if open => visitor.visit_bool(false),
            _ => Err(SpecError::new(format!("expected {wanted}, found {}", quoted(&text))).into()),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_string(self.scalar("text")?.text)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { parent: self, items: items.iter().enumerate() }),
            _ => Err(self.mistyped("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(Entries::new(self, entries, None)),
            _ => Err(self.mistyped("keys and values")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(entries) => {
                let inside = Self { expand: self.expand && name != SECRET, ..self };
                visitor.visit_map(Entries::new(inside, entries, Some(fields)))
            }
            Value::Scalar { .. } if name == SECRET && !self.is_null() => {
                let error = SpecError::new("a secret is never written into a spec");
                Err(error.hint("write `{from_env: VARIABLE}` or `{from_file: path}`").into())
            }
            _ => {
                let wanted = format!("keys and values ({})", fields.join(", "));
                Err(self.mistyped(&wanted))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(entries) => match entries.as_slice() {
                [(key, node)] => {
                    visitor.visit_enum(Variant { parent: self, name: key.text.clone(), of: Some((key, node)) })
                }
                _ => Err(SpecError::new(format!("expected exactly one of {}", variants.join(", "))).into()),
            },
            _ => {
                let name = self.scalar(&format!("one of {}", variants.join(", ")))?.text;
                visitor.visit_enum(Variant { parent: self, name, of: None })
            }
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Scalar { .. } => self.deserialize_string(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct Items<'r> {
    parent: NodeReader<'r>,
    items: std::iter::Enumerate<std::slice::Iter<'r, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some((at, node)) = self.items.next() else { return Ok(None) };
        let trail = Trail::Step(self.parent.trail, at.to_string());
        let child = NodeReader { node, place: node.place, trail: &trail, ..self.parent };
        seed.deserialize(child).map(Some).map_err(|error| child.located(error))
    }
}

struct Entries<'r> {
    parent: NodeReader<'r>,
    entries: std::slice::Iter<'r, (Key, Node)>,
    /// The keys that there are, where they are known.
    fields: Option<&'static [&'static str]>,
    current: Option<&'r (Key, Node)>,
}

impl<'r> Entries<'r> {
    fn new(parent: NodeReader<'r>, entries: &'r [(Key, Node)], fields: Option<&'static [&'static str]>) -> Self {
        Self { parent, entries: entries.iter(), fields, current: None }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        for entry in self.entries.by_ref() {
            let (key, _) = entry;
            match self.fields {
                Some(fields) if !fields.contains(&key.text.as_str()) => {
                    let error = SpecError::new(format!("unknown key {}", quoted(&key.text)));
                    let error = error.hint(did_you_mean(&key.text, fields)).at(key.place);
                    self.parent.reader.errors.borrow_mut().push(error.of(self.parent.trail.path()));
                }
                _ => {
                    self.current = Some(entry);
                    return seed.deserialize(de::value::StrDeserializer::new(&key.text)).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        let Some((key, node)) = self.current.take() else {
            return Err(de::Error::custom("a value without its key"));
        };
        let trail = Trail::Step(self.parent.trail, key.text.clone());
        let child = NodeReader { node, place: spot(key.place, node), trail: &trail, ..self.parent };
        seed.deserialize(child).map_err(|error| child.located(error))
    }
}

struct Variant<'r> {
    parent: NodeReader<'r>,
    name: String,
    of: Option<(&'r Key, &'r Node)>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), ReadError> {
        let name = seed.deserialize(de::value::StrDeserializer::<ReadError>::new(&self.name))?;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.of {
            None => Ok(()),
            Some(_) => Err(SpecError::new(format!("{} takes no value", quoted(&self.name))).into()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        let Some((key, node)) = self.of else {
            let error = SpecError::new(format!("{} needs a value", quoted(&self.name)));
            return Err(error.hint(format!("write `{{{}: …}}`", self.name)).into());
        };
        let trail = Trail::Step(self.parent.trail, key.text.clone());
        let child = NodeReader { node, place: spot(key.place, node), trail: &trail, ..self.parent };
        seed.deserialize(child).map_err(|error| child.located(error))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, ReadError> {
        Err(de::Error::custom("a spec has no such values"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, ReadError> {
        Err(de::Error::custom("a spec has no such values"))
    }
}

/// Why a tree could not be read. Its place is set where it is known.
#[derive(Debug)]
struct ReadError(Box<SpecError>);

impl From<SpecError> for ReadError {
    fn from(error: SpecError) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        SpecError::new(message.to_string()).into()
    }

    fn missing_field(field: &'static str) -> Self {
        SpecError::new(format!("the key `{field}` is missing")).into()
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        SpecError::new(format!("unknown value {}", quoted(variant))).hint(did_you_mean(variant, expected)).into()
    }
}
