//! Reads Avro's binary encoding straight into columns.

use super::super::columns::{Column, Values};
use super::resolve::{Decimal, Number, Read, Scale, Step};
use super::schema::{At, Schema, Shape};

/// How deep values that nobody wants may be within one another.
const MAX_DEPTH: usize = 128;
/// Items of arrays that take no bytes, for one record.
const FREE_ITEMS: usize = 1024;

/// What is wrong with a record.
pub(super) type Bad = String;

/// A record's bytes, from where they are not read yet.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// How many items of arrays and maps may still follow: each takes a byte, but for a few.
    items: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, items: bytes.len().saturating_add(FREE_ITEMS) }
    }

    /// All bytes were read.
    pub(super) fn end(&self) -> Result<(), Bad> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("{} bytes follow the record", self.rest.len())) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Bad> {
        let (now, rest) = self.rest.split_at_checked(count).ok_or_else(ended)?;
        self.rest = rest;
        Ok(now)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (now, rest) = self.rest.split_first_chunk::<N>().ok_or_else(ended)?;
        self.rest = rest;
        Ok(*now)
    }

    fn long(&mut self) -> Result<i64, Bad> {
        let (mut value, mut at) = (0_u64, 0);
        loop {
            let byte = *self.rest.get(at).ok_or_else(ended)?;
            let bits = u64::from(byte & 0x7f);
            if at == 9 && byte > 1 {
                return Err("a number has more than 64 bits".to_owned());
            }
            value |= bits << (7 * at);
            at += 1;
            if byte < 0x80 {
                break;
            }
        }
        self.rest = self.rest.get(at..).unwrap_or_default();
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn int(&mut self) -> Result<i32, Bad> {
        i32::try_from(self.long()?).map_err(|_| "an int has more than 32 bits".to_owned())
    }

    fn boolean(&mut self) -> Result<bool, Bad> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("a boolean is {other}")),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| format!("a length is {length}"))?)
    }

    fn text(&mut self) -> Result<&'a str, Bad> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is no UTF-8".to_owned())
    }

    fn branch(&mut self, of: usize) -> Result<usize, Bad> {
        let at = self.long()?;
        usize::try_from(at).ok().filter(|at| *at < of).ok_or_else(|| format!("a union has no branch {at}"))
    }

    /// The items of the next block of an array or a map, and its bytes where they are said; none at the end.
    fn block(&mut self) -> Result<Option<(usize, Option<usize>)>, Bad> {
        let count = self.long()?;
        let size = if count < 0 { Some(self.long()?) } else { None };
        let wrong = || "a block of an array or a map is longer than the record".to_owned();
        let items = usize::try_from(count.unsigned_abs()).map_err(|_| wrong())?;
        let size = size.map(|size| usize::try_from(size).map_err(|_| wrong())).transpose()?;
        self.items = self.items.checked_sub(items).ok_or_else(wrong)?;
        Ok((items > 0).then_some((items, size)))
    }

    /// Passes over a value of the type at `at`.
    fn skip(&mut self, schema: &Schema, at: At, depth: usize) -> Result<(), Bad> {
        if depth > MAX_DEPTH {
            return Err("the record is nested too deeply".to_owned());
        }
        match schema.shape(at) {
            Shape::Null => {}
            Shape::Boolean => self.boolean().map(|_| ())?,
            Shape::Int | Shape::Long | Shape::Enum { .. } => self.long().map(|_| ())?,
            Shape::Float => self.take(4).map(|_| ())?,
            Shape::Double => self.take(8).map(|_| ())?,
            Shape::Bytes | Shape::String => self.bytes().map(|_| ())?,
            Shape::Fixed(_, size) => self.take(*size).map(|_| ())?,
            Shape::Union(branches) => {
                let branch = self.branch(branches.len())?;
                if let Some(branch) = branches.get(branch) {
                    self.skip(schema, *branch, depth + 1)?;
                }
            }
            Shape::Array(of) => self.skip_blocks(schema, *of, false, depth)?,
            Shape::Map(of) => self.skip_blocks(schema, *of, true, depth)?,
            Shape::Record(_, fields) => {
                fields.iter().try_for_each(|field| self.skip(schema, field.of, depth + 1))?;
            }
        }
        Ok(())
    }

    fn skip_blocks(&mut self, schema: &Schema, of: At, has_keys: bool, depth: usize) -> Result<(), Bad> {
        while let Some((items, size)) = self.block()? {
            if let Some(size) = size {
                self.take(size)?;
                continue;
            }
            for _ in 0..items {
                if has_keys {
                    self.bytes()?;
                }
                self.skip(schema, of, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn ended() -> Bad {
    "the record ends too early".to_owned()
}

/// Reads the fields of a record, written by `writer`, into their columns.
pub(super) fn record(steps: &[Step], writer: &Schema, from: &mut Cursor<'_>, into: &mut [Column]) -> Result<(), Bad> {
    for step in steps {
        match step {
            Step::Skip(at) => from.skip(writer, *at, 0)?,
            Step::Into(place, read) => {
                if let Some(column) = into.get_mut(*place) {
                    value(read, writer, from, column)?;
                }
            }
            Step::Default(place, read, bytes) => {
                if let Some(column) = into.get_mut(*place) {
                    value(read, writer, &mut Cursor::new(bytes), column)?;
                }
            }
        }
    }
    Ok(())
}

fn value(read: &Read, writer: &Schema, from: &mut Cursor<'_>, column: &mut Column) -> Result<(), Bad> {
    match read {
        Read::Null => {
            column.push_null();
            return Ok(());
        }
        Read::Union(branches) => {
            return match branches.get(from.branch(branches.len())?) {
                Some(Ok(read)) => value(read, writer, from, column),
                Some(Err(e)) => Err(e.clone()),
                None => Err("a union has no such branch".to_owned()),
            };
        }
        _ => {}
    }
    match (read, column.next()) {
        (Read::Boolean, Values::Boolean(values)) => values.append(from.boolean()?),
        (Read::Int, Values::Int32(values)) => values.push(from.int()?),
        (Read::Long(scale), Values::Int64(values)) => values.push(scaled(from.long()?, *scale)?),
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        (Read::Float(number), Values::Float32(values)) => values.push(match number {
            Number::Whole => from.long()? as f32,
            Number::Float => f32::from_le_bytes(from.array()?),
            Number::Double => f64::from_le_bytes(from.array()?) as f32,
        }),
        #[allow(clippy::cast_precision_loss)]
        (Read::Double(number), Values::Float64(values)) => values.push(match number {
            Number::Whole => from.long()? as f64,
            Number::Float => f64::from(f32::from_le_bytes(from.array()?)),
            Number::Double => f64::from_le_bytes(from.array()?),
        }),
        (Read::Bytes(true), Values::Bytes(values)) => values.push(from.text()?.as_bytes()),
        (Read::Bytes(false), Values::Bytes(values)) => values.push(from.bytes()?),
        (Read::Fixed(size), Values::Bytes(values)) => values.push(from.take(*size)?),
        (Read::Uuid, Values::Bytes(values)) => {
            values.push(uuid::Uuid::from_bytes(from.array()?).to_string().as_bytes());
        }
        (Read::Decimal(kind), Values::Decimal(values)) => values.push(decimal(*kind, from)?),
        (Read::Enum(symbols), Values::Bytes(values)) => {
            let at = from.long()?;
            let symbol = usize::try_from(at).ok().and_then(|at| symbols.get(at));
            let symbol = symbol.ok_or_else(|| format!("an enum has no symbol {at}"))?;
            values.push(symbol.as_ref().map_err(String::clone)?.as_bytes());
        }
        (Read::Array(read), Values::List(items)) => {
            while let Some((count, _)) = from.block()? {
                for _ in 0..count {
                    value(read, writer, from, &mut items.item)?;
                }
            }
            items.end();
        }
        (Read::Map(read), Values::List(items)) => {
            while let Some((count, _)) = from.block()? {
                for _ in 0..count {
                    let Values::Struct(pair) = items.item.next() else { return Err(unfit()) };
                    let [key, item] = pair.as_mut_slice() else { return Err(unfit()) };
                    let Values::Bytes(keys) = key.next() else { return Err(unfit()) };
                    keys.push(from.text()?.as_bytes());
                    value(read, writer, from, item)?;
                }
            }
            items.end();
        }
        (Read::Record(steps), Values::Struct(fields)) => record(steps, writer, from, fields)?,
        (Read::Member(at, read), Values::Struct(members)) => {
            for (place, member) in members.iter_mut().enumerate() {
                if place == *at {
                    value(read, writer, from, member)?;
                } else {
                    member.push_null();
                }
            }
        }
        _ => return Err(unfit()),
    }
    Ok(())
}

fn unfit() -> Bad {
    "its schema does not fit its columns".to_owned()
}

fn scaled(value: i64, scale: Scale) -> Result<i64, Bad> {
    match scale {
        Scale::One => Ok(value),
        Scale::Times(times) => value.checked_mul(times).ok_or_else(|| "a time is out of range".to_owned()),
        Scale::Over(over) => Ok(value.div_euclid(over)),
    }
}

/// A number in two's complement, the highest byte first.
fn decimal(kind: Decimal, from: &mut Cursor<'_>) -> Result<i128, Bad> {
    let bytes = match kind.fixed {
        Some(size) => from.take(size)?,
        None => from.bytes()?,
    };
    let too_great = || format!("a decimal does not fit decimal({},{})", kind.precision, kind.scale);
    let value = whole(bytes).ok_or_else(too_great)?;
    let shift = i32::from(kind.scale) - i32::from(kind.written_scale);
    let unit = 10_i128.checked_pow(shift.unsigned_abs()).ok_or_else(too_great)?;
    let value = match shift {
        0.. => value.checked_mul(unit),
        _ => (value % unit == 0).then_some(value / unit),
    };
    let limit = 10_u128.pow(u32::from(kind.precision).min(38));
    value.filter(|value| value.unsigned_abs() < limit).ok_or_else(too_great)
}

/// The number that `bytes` are in two's complement; none when it has more than 128 bits.
pub(in super::super) fn whole(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
    if high.iter().any(|byte| *byte != sign) {
        return None;
    }
    let mut all = [sign; 16];
    all.get_mut(16 - low.len()..)?.copy_from_slice(low);
    let value = i128::from_be_bytes(all);
    (high.is_empty() || (value < 0) == (sign == 0xff)).then_some(value)
}
