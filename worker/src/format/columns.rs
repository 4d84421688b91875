//! Columns under way: values are appended record by record, and those of a bad record are taken back.

use std::sync::Arc;

use arrow::array::builder::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, MapArray, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use arrow::error::ArrowError;

/// A column of a batch under way.
#[derive(Debug)]
pub(super) struct Column {
    kind: DataType,
    valid: NullBufferBuilder,
    pub(super) values: Values,
}

/// The values; under a null stands a zero.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(BooleanBufferBuilder),
    /// Dates, too: days since 1970.
    Int32(Vec<i32>),
    /// Times, too: microseconds since 1970.
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    /// Texts and binaries.
    Bytes(Bytes),
    /// The fields of structs.
    Struct(Vec<Column>),
    /// The items of lists, and the keys and values of maps, which are `entries` of two fields.
    List(Box<Items>),
}

/// The items of lists, one list behind another.
#[derive(Debug)]
pub(super) struct Items {
    pub(super) item: Column,
    /// Where each list begins, and where the last one ends.
    offsets: Vec<i32>,
}

impl Items {
    /// Ends a list, whose items were appended.
    pub(super) fn end(&mut self) {
        self.offsets.push(i32::try_from(self.item.len()).unwrap_or(-1));
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        if let Some(end) = self.offsets.last().and_then(|end| usize::try_from(*end).ok()) {
            self.item.truncate(end);
        }
    }

    fn finish(&mut self) -> Result<OffsetBuffer<i32>, ArrowError> {
        finish_offsets(&mut self.offsets)
    }
}

/// The values, and room for as many: the next batch is about as large.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len());
    std::mem::replace(values, room)
}

fn finish_offsets(under_way: &mut Vec<i32>) -> Result<OffsetBuffer<i32>, ArrowError> {
    let offsets = taken(under_way);
    under_way.push(0);
    if offsets.contains(&-1) {
        return Err(ArrowError::OffsetOverflowError(offsets.len()));
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

/// Runs of bytes, one behind another.
#[derive(Debug)]
pub(super) struct Bytes {
    data: Vec<u8>,
    /// Where each begins, and where the last one ends.
    offsets: Vec<i32>,
}

impl Default for Bytes {
    fn default() -> Self {
        Self { data: Vec::new(), offsets: vec![0] }
    }
}

impl Bytes {
    /// Appends `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.end();
    }

    /// Appends what `write` adds to the bytes; nothing may be taken away from them.
    pub(super) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.end();
    }

    /// A batch's values are less than 2 GiB together, and so is what is made of them; beyond, `finish` refuses.
    fn end(&mut self) {
        self.offsets.push(i32::try_from(self.data.len()).unwrap_or(-1));
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        let end = self.offsets.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(self.data.len());
        self.data.truncate(end);
    }

    fn finish(&mut self) -> Result<(OffsetBuffer<i32>, Buffer), ArrowError> {
        Ok((finish_offsets(&mut self.offsets)?, Buffer::from_vec(taken(&mut self.data))))
    }
}

impl Column {
    /// An empty column of `kind`; none when no format has such columns.
    pub(super) fn new(kind: &DataType) -> Option<Self> {
        let values = match kind {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int32 | DataType::Date32 => Values::Int32(Vec::new()),
            DataType::Int64
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Time64(TimeUnit::Microsecond) => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(..) => Values::Decimal(Vec::new()),
            DataType::Utf8 | DataType::Binary => Values::Bytes(Bytes::default()),
            DataType::Struct(fields) => {
                Values::Struct(fields.iter().map(|field| Self::new(field.data_type())).collect::<Option<_>>()?)
            }
            DataType::List(item) | DataType::Map(item, _) => {
                Values::List(Box::new(Items { item: Self::new(item.data_type())?, offsets: vec![0] }))
            }
            _ => return None,
        };
        Some(Self { kind: kind.clone(), valid: NullBufferBuilder::new(0), values })
    }

    pub(super) fn kind(&self) -> &DataType {
        &self.kind
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// What is to be appended to, and the mark that there is one value more.
    pub(super) fn next(&mut self) -> &mut Values {
        self.valid.append_non_null();
        &mut self.values
    }

    /// Appends a null.
    pub(super) fn push_null(&mut self) {
        self.valid.append_null();
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            Values::Bytes(values) => values.push(&[]),
            Values::Struct(fields) => fields.iter_mut().for_each(Self::push_null),
            Values::List(items) => items.end(),
        }
    }

    /// Takes back whatever is behind the first `len` values, one that was not appended to the end among it.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.valid.len() {
            self.valid.truncate(len);
        }
        match &mut self.values {
            Values::Boolean(values) if len < values.len() => values.truncate(len),
            Values::Boolean(_) => {}
            Values::Int32(values) => values.truncate(len),
            Values::Int64(values) => values.truncate(len),
            Values::Float32(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Decimal(values) => values.truncate(len),
            Values::Bytes(values) => values.truncate(len),
            Values::Struct(fields) => fields.iter_mut().for_each(|field| field.truncate(len)),
            Values::List(items) => items.truncate(len),
        }
    }

    /// The column as an array; it is empty afterwards.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let len = self.valid.len();
        let valid = self.valid.finish();
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), valid)),
            Values::Int32(values) => {
                let values = ScalarBuffer::from(taken(values));
                match self.kind {
                    DataType::Date32 => Arc::new(Date32Array::try_new(values, valid)?),
                    _ => Arc::new(Int32Array::try_new(values, valid)?),
                }
            }
            Values::Int64(values) => {
                let values = ScalarBuffer::from(taken(values));
                match &self.kind {
                    DataType::Timestamp(_, zone) => {
                        Arc::new(TimestampMicrosecondArray::try_new(values, valid)?.with_timezone_opt(zone.clone()))
                    }
                    DataType::Time64(_) => Arc::new(Time64MicrosecondArray::try_new(values, valid)?),
                    _ => Arc::new(Int64Array::try_new(values, valid)?),
                }
            }
            Values::Float32(values) => Arc::new(Float32Array::try_new(ScalarBuffer::from(taken(values)), valid)?),
            Values::Float64(values) => Arc::new(Float64Array::try_new(ScalarBuffer::from(taken(values)), valid)?),
            Values::Decimal(values) => {
                let array = Decimal128Array::try_new(ScalarBuffer::from(taken(values)), valid)?;
                Arc::new(array.with_data_type(self.kind.clone()))
            }
            Values::Bytes(values) => {
                let (offsets, data) = values.finish()?;
                match self.kind {
                    DataType::Binary => Arc::new(BinaryArray::try_new(offsets, data, valid)?),
                    _ => Arc::new(StringArray::try_new(offsets, data, valid)?),
                }
            }
            Values::Struct(columns) => {
                let arrays = columns.iter_mut().map(Self::finish).collect::<Result<Vec<_>, _>>()?;
                let fields = if let DataType::Struct(fields) = &self.kind { fields.clone() } else { Fields::empty() };
                Arc::new(StructArray::try_new_with_length(fields, arrays, valid, len)?)
            }
            Values::List(items) => {
                let (offsets, values) = (items.finish()?, items.item.finish()?);
                match &self.kind {
                    DataType::Map(entries, is_sorted) => {
                        let pairs = values.as_struct().clone();
                        Arc::new(MapArray::try_new(entries.clone(), offsets, pairs, valid, *is_sorted)?)
                    }
                    DataType::List(item) => Arc::new(ListArray::try_new(item.clone(), offsets, values, valid)?),
                    other => return Err(ArrowError::NotYetImplemented(format!("a column of type {other}"))),
                }
            }
        })
    }
}

/// The type of maps.
pub(super) fn map_of(key: DataType, value: DataType) -> DataType {
    let pair = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
}

/// Empty columns of `schema`.
pub(super) fn empty(schema: &arrow::datatypes::Schema) -> Result<Vec<Column>, ArrowError> {
    let column = |field: &arrow::datatypes::FieldRef| {
        let unknown = || ArrowError::NotYetImplemented(format!("a column of type {}", field.data_type()));
        Column::new(field.data_type()).ok_or_else(unknown)
    };
    schema.fields().iter().map(column).collect()
}
