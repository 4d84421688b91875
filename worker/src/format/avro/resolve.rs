//! How what was written by one schema is read as another: Avro's rules of resolution, worked out once a schema.
//!
//! Times keep their meaning: what the writer counted in milliseconds is not read as microseconds because the reader's
//! schema says so. Names of records do not matter but to choose among the branches of a union.

use serde_json::Value;

use super::schema::{At, MAX_DEPTH, Meaning, RecordField, Schema, Shape, Unit};

/// Steps that one pair of schemas may take to resolve.
const MAX_STEPS: usize = 200_000;

/// How one value is read, and what becomes of it in its column.
#[derive(Debug)]
pub(super) enum Read {
    Null,
    Boolean,
    Int,
    /// An `int` or a `long`, counted in other units.
    Long(Scale),
    /// A number of that encoding, as a `float`.
    Float(Number),
    /// A number of that encoding, as a `double`.
    Double(Number),
    /// Bytes or a text, as bytes or (`true`) a text.
    Bytes(bool),
    Fixed(usize),
    Uuid,
    Decimal(Decimal),
    Enum(Vec<Result<String, String>>),
    Array(Box<Read>),
    Map(Box<Read>),
    Record(Vec<Step>),
    Union(Vec<Result<Read, String>>),
    /// Into that field of a struct, whose others are null.
    Member(usize, Box<Read>),
}

/// How a number is encoded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole,
    Float,
    Double,
}

/// What a whole number is times or over, so that it counts microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    One,
    Times(i64),
    Over(i64),
}

/// A decimal as it was written and as it is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal {
    /// Its bytes; none where they are counted.
    pub(super) fixed: Option<usize>,
    pub(super) written_scale: i8,
    pub(super) precision: u8,
    pub(super) scale: i8,
}

/// One step through a record.
#[derive(Debug)]
pub(super) enum Step {
    /// The writer's field is not wanted.
    Skip(At),
    /// It is a column's.
    Into(usize, Read),
    /// The writer has no such field: the column's default, encoded by the reader's schema.
    Default(usize, Read, Vec<u8>),
}

/// How records of `writer` are read as the `wanted` columns of `reader`.
pub(super) fn resolve(writer: &Schema, reader: &Schema, wanted: &[usize]) -> Result<Read, String> {
    let steps =
        Resolver { writer, reader, left: MAX_STEPS }.record(writer.fields()?, reader.fields()?, Some(wanted), 0)?;
    Ok(Read::Record(steps))
}

struct Resolver<'a> {
    writer: &'a Schema,
    reader: &'a Schema,
    left: usize,
}

impl Resolver<'_> {
    fn record(
        &mut self,
        written: &[RecordField],
        read: &[RecordField],
        wanted: Option<&[usize]>,
        depth: usize,
    ) -> Result<Vec<Step>, String> {
        // Which of the writer's fields is each of the reader's.
        let source = |field: &RecordField| {
            let by_name = written.iter().position(|w| w.name == field.name);
            by_name.or_else(|| written.iter().position(|w| field.aliases.contains(&w.name)))
        };
        let mut targets: Vec<Option<(usize, &RecordField)>> = vec![None; written.len()];
        let (mut steps, mut missing, mut column) = (Vec::new(), Vec::new(), 0);
        for field in read.iter().filter(|field| self.reader.makes_column(field.of)) {
            let place = wanted.map_or(Some(column), |wanted| wanted.iter().position(|at| *at == column));
            column += 1;
            let Some(place) = place else { continue };
            match source(field) {
                Some(at) => {
                    if let Some(target) = targets.get_mut(at) {
                        if target.is_some() {
                            return Err(format!("two fields are read from the writer's {}", field.name));
                        }
                        *target = Some((place, field));
                    }
                }
                None => missing.push((place, field)),
            }
        }
        for (field, target) in written.iter().zip(targets) {
            steps.push(match target {
                None => Step::Skip(field.of),
                Some((place, into)) => {
                    let read = self.read(field.of, into.of, depth + 1);
                    Step::Into(place, read.map_err(|e| format!("{}: {e}", into.name))?)
                }
            });
        }
        for (place, field) in missing {
            let lacks = || format!("the writer's schema lacks the field {}, which has no default", field.name);
            let default = field.default.as_ref().ok_or_else(lacks)?;
            let (mut bytes, reader) = (Vec::new(), self.reader);
            let wrong = |e: String| format!("the default of the field {}: {e}", field.name);
            encode(reader, field.of, default, &mut bytes).map_err(wrong)?;
            let mut alike = Resolver { writer: reader, reader, left: self.left };
            let read = alike.read(field.of, field.of, depth + 1)?;
            self.left = alike.left;
            steps.push(Step::Default(place, read, bytes));
        }
        Ok(steps)
    }

    fn read(&mut self, written: At, read: At, depth: usize) -> Result<Read, String> {
        self.left = self.left.checked_sub(1).ok_or("the schemas are too large to be resolved")?;
        if depth > 2 * MAX_DEPTH {
            return Err("the schemas are nested too deeply".to_owned());
        }
        let (w, r) = (self.writer.get(written), self.reader.get(read));
        let unit = r.meaning.and_then(Meaning::unit);
        let counted = unit.map(|unit| w.meaning.and_then(Meaning::unit).unwrap_or(unit));
        Ok(match (&w.shape, &r.shape) {
            (Shape::Union(branches), _) => return self.written_union(branches, read, depth),
            (_, Shape::Union(_)) => return self.read_union(written, read, depth),
            (Shape::Null, Shape::Null) => Read::Null,
            (Shape::Boolean, Shape::Boolean) => Read::Boolean,
            (Shape::Int, Shape::Int) if unit.is_none() => Read::Int,
            (Shape::Int, Shape::Int) | (Shape::Int | Shape::Long, Shape::Long) => Read::Long(scale(counted)),
            (Shape::Int | Shape::Long, Shape::Float) => Read::Float(Number::Whole),
            (Shape::Int | Shape::Long, Shape::Double) => Read::Double(Number::Whole),
            (Shape::Float, Shape::Float) => Read::Float(Number::Float),
            (Shape::Float, Shape::Double) => Read::Double(Number::Float),
            (Shape::Double, Shape::Double) => Read::Double(Number::Double),
            (Shape::Bytes, Shape::Bytes) if matches!(r.meaning, Some(Meaning::Decimal(..))) => {
                decimal(w.meaning, r.meaning, None)
            }
            (Shape::Bytes | Shape::String, Shape::Bytes) if r.meaning.is_none() => Read::Bytes(false),
            (Shape::Bytes | Shape::String, Shape::String) => Read::Bytes(true),
            (Shape::Fixed(_, size), Shape::Fixed(_, same)) if size == same => match r.meaning {
                Some(Meaning::Decimal(..)) => decimal(w.meaning, r.meaning, Some(*size)),
                Some(_) => Read::Uuid,
                None => Read::Fixed(*size),
            },
            (Shape::Enum { symbols, .. }, Shape::Enum { symbols: known, default, .. }) => {
                let known = |symbol: &String| match (known.contains(symbol), default) {
                    (true, _) => Ok(symbol.clone()),
                    (false, Some(default)) => Ok(default.clone()),
                    (false, None) => Err(format!("the reader's schema lacks the symbol {symbol}")),
                };
                Read::Enum(symbols.iter().map(known).collect())
            }
            (Shape::Array(of), Shape::Array(as_)) => Read::Array(Box::new(self.read(*of, *as_, depth + 1)?)),
            (Shape::Map(of), Shape::Map(as_)) => Read::Map(Box::new(self.read(*of, *as_, depth + 1)?)),
            (Shape::Record(_, of), Shape::Record(_, as_)) => Read::Record(self.record(of, as_, None, depth + 1)?),
            (of, as_) => return Err(format!("what was written as {} is not read as {}", word(of), word(as_))),
        })
    }

    fn written_union(&mut self, branches: &[At], read: At, depth: usize) -> Result<Read, String> {
        let branches: Vec<_> = branches.iter().map(|branch| self.read(*branch, read, depth + 1)).collect();
        if let Some(Err(e)) = branches.first()
            && branches.iter().all(Result::is_err)
        {
            return Err(e.clone());
        }
        Ok(Read::Union(branches))
    }

    fn read_union(&mut self, written: At, read: At, depth: usize) -> Result<Read, String> {
        let Shape::Union(all) = self.reader.shape(read) else { return Err("a union is none".to_owned()) };
        let is_null = matches!(self.writer.shape(written), Shape::Null);
        if is_null && all.iter().any(|branch| matches!(self.reader.shape(*branch), Shape::Null)) {
            return Ok(Read::Null);
        }
        let members = self.reader.members(read);
        let exact = members.iter().position(|member| self.is_exact(written, *member));
        let order = exact.into_iter().chain(0..members.len());
        for at in order {
            let Some(member) = members.get(at) else { continue };
            if let Ok(read) = self.read(written, *member, depth + 1) {
                return Ok(if members.len() == 1 { read } else { Read::Member(at, Box::new(read)) });
            }
        }
        Err(format!("no branch of the reader's union reads {}", word(self.writer.shape(written))))
    }

    /// Whether the two are of one type, and of one name where they have names.
    fn is_exact(&self, written: At, read: At) -> bool {
        match (self.writer.shape(written), self.reader.shape(read)) {
            (Shape::Record(w, _), Shape::Record(r, _)) | (Shape::Fixed(w, _), Shape::Fixed(r, _)) => r.answers_to(w),
            (Shape::Enum { name: w, .. }, Shape::Enum { name: r, .. }) => r.answers_to(w),
            (w, r) => std::mem::discriminant(w) == std::mem::discriminant(r),
        }
    }
}

fn scale(counted: Option<Unit>) -> Scale {
    match counted {
        None | Some(Unit::Micros) => Scale::One,
        Some(Unit::Millis) => Scale::Times(1000),
        Some(Unit::Nanos) => Scale::Over(1000),
    }
}

fn decimal(written: Option<Meaning>, read: Option<Meaning>, fixed: Option<usize>) -> Read {
    let Some(Meaning::Decimal(precision, scale)) = read else { return fixed.map_or(Read::Bytes(false), Read::Fixed) };
    let written_scale = if let Some(Meaning::Decimal(_, written)) = written { written } else { scale };
    Read::Decimal(Decimal { fixed, written_scale, precision, scale })
}

fn word(shape: &Shape) -> &'static str {
    match shape {
        Shape::Null => "null",
        Shape::Boolean => "boolean",
        Shape::Int => "int",
        Shape::Long => "long",
        Shape::Float => "float",
        Shape::Double => "double",
        Shape::Bytes => "bytes",
        Shape::String => "string",
        Shape::Fixed(..) => "fixed",
        Shape::Enum { .. } => "enum",
        Shape::Array(_) => "array",
        Shape::Map(_) => "map",
        Shape::Union(_) => "union",
        Shape::Record(..) => "record",
    }
}

/// Encodes the default `value` of the type at `at`.
fn encode(schema: &Schema, at: At, value: &Value, into: &mut Vec<u8>) -> Result<(), String> {
    let no = || format!("{value} is no {}", word(schema.shape(at)));
    match (schema.shape(at), value) {
        (Shape::Null, Value::Null) => {}
        (Shape::Boolean, Value::Bool(value)) => into.push(u8::from(*value)),
        (Shape::Int, value) => {
            let number = value.as_i64().filter(|number| i32::try_from(*number).is_ok());
            long(number.ok_or_else(no)?, into);
        }
        (Shape::Long, value) => long(value.as_i64().ok_or_else(no)?, into),
        #[allow(clippy::cast_possible_truncation)]
        (Shape::Float, value) => into.extend((value.as_f64().ok_or_else(no)? as f32).to_le_bytes()),
        (Shape::Double, value) => into.extend(value.as_f64().ok_or_else(no)?.to_le_bytes()),
        (Shape::String, Value::String(text)) => counted(text.as_bytes(), into),
        (Shape::Bytes, Value::String(text)) => counted(&latin(text).ok_or_else(no)?, into),
        (Shape::Fixed(_, size), Value::String(text)) => {
            into.extend(latin(text).filter(|bytes| bytes.len() == *size).ok_or_else(no)?);
        }
        (Shape::Enum { symbols, .. }, Value::String(text)) => {
            long(count(symbols.iter().position(|symbol| symbol == text).ok_or_else(no)?), into);
        }
        (Shape::Array(of), Value::Array(items)) => {
            if !items.is_empty() {
                long(count(items.len()), into);
                items.iter().try_for_each(|item| encode(schema, *of, item, into))?;
            }
            long(0, into);
        }
        (Shape::Map(of), Value::Object(items)) => {
            if !items.is_empty() {
                long(count(items.len()), into);
                for (key, item) in items {
                    counted(key.as_bytes(), into);
                    encode(schema, *of, item, into)?;
                }
            }
            long(0, into);
        }
        (Shape::Record(_, fields), Value::Object(given)) => {
            for field in fields {
                let value = given.get(&field.name).or(field.default.as_ref()).ok_or_else(no)?;
                encode(schema, field.of, value, into)?;
            }
        }
        (Shape::Union(branches), value) => {
            let start = into.len();
            for (at, branch) in branches.iter().enumerate() {
                long(count(at), into);
                if encode(schema, *branch, value, into).is_ok() {
                    return Ok(());
                }
                into.truncate(start);
            }
            return Err(no());
        }
        _ => return Err(no()),
    }
    Ok(())
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The bytes that a default writes as characters.
fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

fn counted(bytes: &[u8], into: &mut Vec<u8>) {
    long(count(bytes.len()), into);
    into.extend_from_slice(bytes);
}

fn long(value: i64, into: &mut Vec<u8>) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        into.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}
