//! What a data file's Iceberg metadata says of its columns, from the Parquet footer.
//!
//! Bounds are given for every column outside lists and maps, long strings too: where Parquet cut a value, the cut one
//! is still a bound. A column without a bound in one row group has none in the file, for half a bound prunes rows
//! that are there.

use std::collections::HashMap;

use arrow::array::{Array, RecordBatch, cast::AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use iceberg::spec::{Datum, PrimitiveType, Schema, Type};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;

/// A file's columns, by field id.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) sizes: HashMap<i32, u64>,
    pub(super) values: HashMap<i32, u64>,
    pub(super) nulls: HashMap<i32, u64>,
    pub(super) lower: HashMap<i32, Datum>,
    pub(super) upper: HashMap<i32, Datum>,
    unbounded: Vec<i32>,
}

impl Columns {
    pub(super) fn of(footer: &ParquetMetaData, schema: &Schema) -> Self {
        let mut columns = Self::default();
        for group in footer.row_groups() {
            for chunk in group.columns() {
                let about = chunk.column_descr().self_type().get_basic_info();
                if about.has_id() {
                    columns.add(about.id(), chunk, schema);
                }
            }
        }
        for id in &columns.unbounded {
            columns.lower.remove(id);
            columns.upper.remove(id);
        }
        columns
    }

    fn add(&mut self, id: i32, chunk: &ColumnChunkMetaData, schema: &Schema) {
        *self.sizes.entry(id).or_default() += u64::try_from(chunk.compressed_size()).unwrap_or_default();
        let values = u64::try_from(chunk.num_values()).unwrap_or_default();
        *self.values.entry(id).or_default() += values;
        let nulls = chunk.statistics().and_then(Statistics::null_count_opt);
        *self.nulls.entry(id).or_default() += nulls.unwrap_or_default();
        let Some(Type::Primitive(r#type)) = schema.field_by_id(id).map(|field| field.field_type.as_ref()) else {
            return;
        };
        if chunk.column_descr().max_rep_level() > 0 || nulls == Some(values) {
            return;
        }
        match chunk.statistics().map(|statistics| bounds(statistics, r#type)) {
            Some((Some(low), Some(high))) => {
                keep(&mut self.lower, id, low, |new, old| new < old);
                keep(&mut self.upper, id, high, |new, old| new > old);
            }
            // Nothing but NaN: bounds are those of the other numbers.
            _ if matches!(r#type, PrimitiveType::Float | PrimitiveType::Double) => {}
            _ => self.unbounded.push(id),
        }
    }
}

fn keep(bounds: &mut HashMap<i32, Datum>, id: i32, new: Datum, better: impl Fn(&Datum, &Datum) -> bool) {
    match bounds.get(&id) {
        Some(old) if !better(&new, old) => {}
        _ => drop(bounds.insert(id, new)),
    }
}

fn bounds(statistics: &Statistics, r#type: &PrimitiveType) -> (Option<Datum>, Option<Datum>) {
    let datum = |bytes: Option<&[u8]>| {
        let mut bytes = bytes?.to_vec();
        let narrow = matches!(statistics.physical_type(), PhysicalType::INT32 | PhysicalType::INT64);
        if narrow && matches!(r#type, PrimitiveType::Decimal { .. }) {
            bytes.reverse();
        }
        Datum::try_from_bytes(&bytes, r#type.clone()).ok()
    };
    (datum(statistics.min_bytes_opt()), datum(statistics.max_bytes_opt()))
}

/// Counts the NaNs of the top-level columns of floating numbers: `(column, field id, NaNs so far)`.
#[derive(Debug)]
pub(super) struct NanCounts(Vec<(usize, i32, u64)>);

impl NanCounts {
    pub(super) fn new(schema: &Schema) -> Self {
        let fields = schema.as_struct().fields().iter().enumerate();
        let floating = fields.filter(|(_, field)| {
            matches!(field.field_type.as_ref(), Type::Primitive(PrimitiveType::Float | PrimitiveType::Double))
        });
        Self(floating.map(|(at, field)| (at, field.id, 0)).collect())
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) {
        for (at, _, count) in &mut self.0 {
            let column = batch.column(*at);
            let valid = |row: usize| column.is_valid(row);
            let found = match column.data_type() {
                DataType::Float32 => {
                    let values = column.as_primitive::<Float32Type>().values();
                    values.iter().enumerate().filter(|(row, value)| value.is_nan() && valid(*row)).count()
                }
                DataType::Float64 => {
                    let values = column.as_primitive::<Float64Type>().values();
                    values.iter().enumerate().filter(|(row, value)| value.is_nan() && valid(*row)).count()
                }
                _ => 0,
            };
            *count += found as u64;
        }
    }

    pub(super) fn by_id(&self) -> HashMap<i32, u64> {
        self.0.iter().map(|(_, id, count)| (*id, *count)).collect()
    }
}
