//! Reads messages straight into columns, by the plan of their descriptor.
//!
//! The values of a field may stand anywhere in a message, and several times: of single values the last counts,
//! messages are merged, lists go on. So a message is looked through first, then its columns are filled.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::columns::{Column, Values};
use super::plan::{Field, Kind, Message, Shape};
use super::wire::{Bad, Raw, Scan, Wire};

/// No value.
const NONE: usize = usize::MAX;

/// The values of one message's fields.
#[derive(Debug, Default)]
struct Found {
    /// By the field's place: its first value and its last one.
    ends: Vec<(usize, usize)>,
    /// All of them, each with the next one of its field.
    all: Vec<(Raw, usize)>,
    /// By the oneof: which of its fields came last.
    oneofs: Vec<usize>,
}

impl Found {
    /// Looks through `message`.
    fn read(&mut self, plan: &Message, message: &[u8]) -> Result<(), Bad> {
        self.ends.clear();
        self.ends.resize(plan.fields.len(), (NONE, NONE));
        self.all.clear();
        self.oneofs.clear();
        let mut scan = Scan::new(message);
        while let Some((number, raw)) = scan.field()? {
            let Some(place) = plan.place(number) else { continue };
            let Some(field) = plan.fields.get(place) else { continue };
            if let Some(oneof) = field.oneof {
                self.choose(oneof, place);
            }
            if field.column.is_none() {
                continue;
            }
            if !field.takes(raw.wire) {
                return Err(format!("the field {} ({number}) is not encoded as its type is", field.name));
            }
            self.add(place, raw);
        }
        Ok(())
    }

    fn add(&mut self, place: usize, raw: Raw) {
        let at = self.all.len();
        self.all.push((raw, NONE));
        let Some(ends) = self.ends.get_mut(place) else { return };
        match self.all.get_mut(ends.1) {
            Some(last) => last.1 = at,
            None => ends.0 = at,
        }
        ends.1 = at;
    }

    /// The field at `place` is the one of its oneof from now on.
    fn choose(&mut self, oneof: usize, place: usize) {
        if self.oneofs.len() <= oneof {
            self.oneofs.resize(oneof + 1, NONE);
        }
        let Some(chosen) = self.oneofs.get_mut(oneof) else { return };
        let before = std::mem::replace(chosen, place);
        if before != place
            && let Some(ends) = self.ends.get_mut(before)
        {
            *ends = (NONE, NONE);
        }
    }

    fn last(&self, place: usize) -> Option<Raw> {
        self.all.get(self.ends.get(place)?.1).map(|(raw, _)| *raw)
    }

    fn values(&self, place: usize) -> impl Iterator<Item = Raw> + '_ {
        let first = self.ends.get(place).map_or(NONE, |ends| ends.0);
        std::iter::successors(self.all.get(first), |(_, next)| self.all.get(*next)).map(|(raw, _)| *raw)
    }

    /// The bytes of the field's values, one behind another, which is how messages are merged.
    fn merged<'a>(&self, place: usize, message: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let mut values = self.values(place);
        let first = values.next()?.bytes(message);
        let mut merged = Cow::Borrowed(first);
        values.for_each(|value| merged.to_mut().extend_from_slice(value.bytes(message)));
        Some(merged)
    }
}

impl Field {
    /// Whether a value may be encoded like that.
    fn takes(&self, wire: Wire) -> bool {
        let own = match &self.kind {
            Kind::Bool
            | Kind::Int32
            | Kind::Sint32
            | Kind::Uint32
            | Kind::Int64
            | Kind::Sint64
            | Kind::Uint64
            | Kind::Enum(_) => Wire::Varint,
            Kind::Sfixed32 | Kind::Fixed32 | Kind::Float => Wire::Four,
            Kind::Sfixed64 | Kind::Fixed64 | Kind::Double => Wire::Eight,
            Kind::String | Kind::Bytes => return wire == Wire::Bytes,
            Kind::Timestamp(_) | Kind::Wrapper(_) | Kind::Message(_) | Kind::Opaque => {
                return matches!(wire, Wire::Bytes | Wire::Group);
            }
        };
        wire == own || wire == Wire::Bytes && self.shape == Shape::Repeated
    }
}

/// Reads messages; what it needs on the way is kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Reader {
    spare: Vec<Found>,
}

impl Reader {
    /// Appends the fields of `message` to `columns`.
    pub(super) fn message(&mut self, plan: &Message, message: &[u8], columns: &mut [Column]) -> Result<(), Bad> {
        let mut found = self.spare.pop().unwrap_or_default();
        let ended = found.read(plan, message).and_then(|()| {
            for (place, field) in plan.fields.iter().enumerate() {
                if let Some(column) = field.column.and_then(|at| columns.get_mut(at)) {
                    self.field(field, place, &found, message, column).map_err(|e| within(&field.name, e))?;
                }
            }
            Ok(())
        });
        self.spare.push(found);
        ended
    }

    fn field(
        &mut self,
        field: &Field,
        place: usize,
        found: &Found,
        message: &[u8],
        column: &mut Column,
    ) -> Result<(), Bad> {
        match field.shape {
            Shape::Repeated => {
                let Values::List(items) = column.next() else { return Err(unfit()) };
                for raw in found.values(place) {
                    self.item(&field.kind, raw, message, &mut items.item)?;
                }
                items.end();
                return Ok(());
            }
            Shape::Map => {
                let Values::List(items) = column.next() else { return Err(unfit()) };
                self.map(&field.kind, found.values(place), message, &mut items.item)?;
                items.end();
                return Ok(());
            }
            _ => {}
        }
        if found.last(place).is_none() {
            match field.shape {
                Shape::Optional => {
                    column.push_null();
                    return Ok(());
                }
                Shape::Required => return Err("it is required, and missing".to_owned()),
                _ => {}
            }
        }
        match &field.kind {
            Kind::Timestamp(_) | Kind::Wrapper(_) | Kind::Message(_) | Kind::Opaque => {
                let merged = found.merged(place, message).unwrap_or_default();
                self.of_bytes(&field.kind, &merged, column)
            }
            kind => scalar(kind, found.last(place), message, column),
        }
    }

    /// Appends an item of a list, or those that stand in one value.
    fn item(&mut self, kind: &Kind, raw: Raw, message: &[u8], column: &mut Column) -> Result<(), Bad> {
        match kind {
            Kind::Timestamp(_) | Kind::Wrapper(_) | Kind::Message(_) | Kind::Opaque => {
                self.of_bytes(kind, raw.bytes(message), column)
            }
            Kind::String | Kind::Bytes => scalar(kind, Some(raw), message, column),
            kind if raw.wire == Wire::Bytes => {
                let mut scan = Scan::new(raw.bytes(message));
                while !scan.is_at_end() {
                    let value = match kind {
                        Kind::Sfixed32 | Kind::Fixed32 | Kind::Float => scan.four()?,
                        Kind::Sfixed64 | Kind::Fixed64 | Kind::Double => scan.eight()?,
                        _ => scan.varint()?,
                    };
                    scalar(kind, Some(Raw::of_number(Wire::Varint, value)), message, column)?;
                }
                Ok(())
            }
            kind => scalar(kind, Some(raw), message, column),
        }
    }

    /// Appends the entries of a map; of those with one key, the last.
    fn map(
        &mut self,
        kind: &Kind,
        entries: impl Iterator<Item = Raw>,
        message: &[u8],
        column: &mut Column,
    ) -> Result<(), Bad> {
        let Kind::Message(plan) = kind else { return Err(unfit()) };
        let entries: Vec<&[u8]> = entries.map(|raw| raw.bytes(message)).collect();
        let mut last = HashMap::new();
        if entries.len() > 1 {
            let mut found = self.spare.pop().unwrap_or_default();
            for (at, entry) in entries.iter().enumerate() {
                found.read(plan, entry)?;
                let key = found.last(0).map_or((0, &[][..]), |raw| (raw.number, raw.bytes(entry)));
                last.insert(canonical(plan, key), at);
            }
            self.spare.push(found);
            for (at, entry) in entries.iter().enumerate() {
                found = self.spare.pop().unwrap_or_default();
                found.read(plan, entry)?;
                let key = found.last(0).map_or((0, &[][..]), |raw| (raw.number, raw.bytes(entry)));
                let is_last = last.get(&canonical(plan, key)) == Some(&at);
                self.spare.push(found);
                if is_last {
                    self.entry(plan, entry, column)?;
                }
            }
            return Ok(());
        }
        entries.into_iter().try_for_each(|entry| self.entry(plan, entry, column))
    }

    fn entry(&mut self, plan: &Message, entry: &[u8], column: &mut Column) -> Result<(), Bad> {
        let Values::Struct(pair) = column.next() else { return Err(unfit()) };
        self.message(plan, entry, pair)
    }

    /// Appends what a message of its own is.
    fn of_bytes(&mut self, kind: &Kind, bytes: &[u8], column: &mut Column) -> Result<(), Bad> {
        match kind {
            Kind::Message(plan) => {
                let Values::Struct(fields) = column.next() else { return Err(unfit()) };
                self.message(plan, bytes, fields)
            }
            Kind::Wrapper(plan) => {
                let mut found = self.spare.pop().unwrap_or_default();
                found.read(plan, bytes)?;
                let wrapped = plan.fields.first().ok_or_else(unfit)?;
                scalar(&wrapped.kind, found.last(0), bytes, column)?;
                self.spare.push(found);
                Ok(())
            }
            Kind::Timestamp(plan) => {
                let mut found = self.spare.pop().unwrap_or_default();
                found.read(plan, bytes)?;
                let part = |at| found.last(at).map_or(0, |raw: Raw| raw.number.cast_signed());
                let micros = micros(part(0), part(1))?;
                self.spare.push(found);
                let Values::Int64(values) = column.next() else { return Err(unfit()) };
                values.push(micros);
                Ok(())
            }
            _ => {
                let Values::Bytes(values) = column.next() else { return Err(unfit()) };
                values.push(bytes);
                Ok(())
            }
        }
    }
}

/// A map's key as another encoding of it would be, too.
fn canonical<'a>(plan: &Message, (number, bytes): (u64, &'a [u8])) -> (u64, &'a [u8]) {
    let number = match plan.fields.first().map(|field| &field.kind) {
        Some(Kind::Bool) => u64::from(number != 0),
        Some(Kind::Int32 | Kind::Sint32 | Kind::Uint32) => number & u64::from(u32::MAX),
        _ => number,
    };
    (number, bytes)
}

/// Appends a value that is no message; none is its type's zero.
#[allow(clippy::cast_possible_truncation)]
fn scalar(kind: &Kind, raw: Option<Raw>, message: &[u8], column: &mut Column) -> Result<(), Bad> {
    let number = raw.map_or(0, |raw| raw.number);
    let bytes = raw.map_or(&[][..], |raw| raw.bytes(message));
    match (kind, column.next()) {
        (Kind::Bool, Values::Boolean(values)) => values.append(number != 0),
        (Kind::Int32 | Kind::Sfixed32, Values::Int32(values)) => values.push((number as u32).cast_signed()),
        (Kind::Sint32, Values::Int32(values)) => {
            let number = number as u32;
            values.push((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
        (Kind::Uint32 | Kind::Fixed32, Values::Int64(values)) => values.push(i64::from(number as u32)),
        (Kind::Int64 | Kind::Sfixed64, Values::Int64(values)) => values.push(number.cast_signed()),
        (Kind::Sint64, Values::Int64(values)) => {
            values.push((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
        (Kind::Uint64 | Kind::Fixed64, Values::Decimal(values)) => values.push(i128::from(number)),
        (Kind::Float, Values::Float32(values)) => values.push(f32::from_bits(number as u32)),
        (Kind::Double, Values::Float64(values)) => values.push(f64::from_bits(number)),
        (Kind::String, Values::Bytes(values)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| "the text is no UTF-8".to_owned())?;
            values.push(text.as_bytes());
        }
        (Kind::Bytes, Values::Bytes(values)) => values.push(bytes),
        (Kind::Enum(names), Values::Bytes(values)) => {
            let number = (number as u32).cast_signed();
            match names.get(&number) {
                Some(name) => values.push(name.as_bytes()),
                None => values.push(number.to_string().as_bytes()),
            }
        }
        _ => return Err(unfit()),
    }
    Ok(())
}

/// The microseconds of a `google.protobuf.Timestamp`; what is finer is cut off.
fn micros(seconds: i64, nanos: i64) -> Result<i64, Bad> {
    // From the year 1 to 9999, as its definition says.
    let is_time = (-62_135_596_800..253_402_300_800).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    if is_time {
        Ok(seconds * 1_000_000 + nanos / 1000)
    } else {
        Err(format!("{seconds} s and {nanos} ns are no time"))
    }
}

fn within(name: &str, error: Bad) -> Bad {
    format!("{name}: {error}")
}

fn unfit() -> Bad {
    "its message does not fit its columns".to_owned()
}
