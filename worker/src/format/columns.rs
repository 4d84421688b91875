//! Columns under way: values are appended record by record, and those of a bad record are taken back.

use std::sync::Arc;

use arrow::array::builder::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, TimeUnit};
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
        let Self { data, offsets } = std::mem::take(self);
        if offsets.contains(&-1) {
            return Err(ArrowError::OffsetOverflowError(data.len()));
        }
        Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(data)))
    }
}

impl Column {
    /// An empty column of `kind`; none when no format has such columns.
    pub(super) fn new(kind: &DataType) -> Option<Self> {
        let values = match kind {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int32 | DataType::Date32 => Values::Int32(Vec::new()),
            DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _) => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(..) => Values::Decimal(Vec::new()),
            DataType::Utf8 | DataType::Binary => Values::Bytes(Bytes::default()),
            _ => return None,
        };
        Some(Self { kind: kind.clone(), valid: NullBufferBuilder::new(0), values })
    }

    pub(super) fn kind(&self) -> &DataType {
        &self.kind
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
        }
    }

    /// The column as an array; it is empty afterwards.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let valid = self.valid.finish();
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), valid)),
            Values::Int32(values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                match self.kind {
                    DataType::Date32 => Arc::new(Date32Array::try_new(values, valid)?),
                    _ => Arc::new(Int32Array::try_new(values, valid)?),
                }
            }
            Values::Int64(values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                match &self.kind {
                    DataType::Timestamp(_, zone) => {
                        Arc::new(TimestampMicrosecondArray::try_new(values, valid)?.with_timezone_opt(zone.clone()))
                    }
                    _ => Arc::new(Int64Array::try_new(values, valid)?),
                }
            }
            Values::Float32(values) => {
                Arc::new(Float32Array::try_new(ScalarBuffer::from(std::mem::take(values)), valid)?)
            }
            Values::Float64(values) => {
                Arc::new(Float64Array::try_new(ScalarBuffer::from(std::mem::take(values)), valid)?)
            }
            Values::Decimal(values) => {
                let array = Decimal128Array::try_new(ScalarBuffer::from(std::mem::take(values)), valid)?;
                Arc::new(array.with_data_type(self.kind.clone()))
            }
            Values::Bytes(values) => {
                let (offsets, data) = values.finish()?;
                match self.kind {
                    DataType::Binary => Arc::new(BinaryArray::try_new(offsets, data, valid)?),
                    _ => Arc::new(StringArray::try_new(offsets, data, valid)?),
                }
            }
        })
    }
}

/// Empty columns of `schema`.
pub(super) fn empty(schema: &arrow::datatypes::Schema) -> Result<Vec<Column>, ArrowError> {
    let column = |field: &arrow::datatypes::FieldRef| {
        let unknown = || ArrowError::NotYetImplemented(format!("a column of type {}", field.data_type()));
        Column::new(field.data_type()).ok_or_else(unknown)
    };
    schema.fields().iter().map(column).collect()
}
