//! The column `_kafka`: what Kafka knows of a record beside its value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, ListArray, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use arrow::error::ArrowError;

use crate::kafka::Records;

/// Its name.
pub(super) const NAME: &str = "_kafka";

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

fn header_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)].into()
}

fn headers_item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(header_fields()), true))
}

fn fields() -> Fields {
    vec![
        Field::new("topic", DataType::Utf8, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("timestamp", utc(), true),
        Field::new("timestamp_type", DataType::Utf8, true),
        Field::new("key", DataType::Binary, true),
        Field::new("headers", DataType::List(headers_item()), true),
    ]
    .into()
}

/// Its type.
pub(super) fn data_type() -> DataType {
    DataType::Struct(fields())
}

/// The column for `records` of a partition of `topic`.
pub(super) fn column(topic: &str, partition: i32, records: &Records) -> Result<ArrayRef, ArrowError> {
    let rows = records.offsets.len();
    let micros = records.timestamps.iter().map(|at| at.map(|(millis, _)| millis.saturating_mul(1_000)));
    let kinds =
        records.timestamps.iter().map(|at| at.map(|(_, by_broker)| if by_broker { "log_append" } else { "create" }));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, rows))),
        Arc::new(Int32Array::from_value(partition, rows)),
        Arc::new(Int64Array::from(records.offsets.clone())),
        Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone("+00:00")),
        Arc::new(StringArray::from_iter(kinds)),
        Arc::new(records.keys.clone()),
        Arc::new(headers(records, rows)?),
    ];
    Ok(Arc::new(StructArray::try_new(fields(), columns, None)?))
}

fn headers(records: &Records, rows: usize) -> Result<ListArray, ArrowError> {
    let (mut names, mut values) = (StringBuilder::new(), BinaryBuilder::new());
    let mut lengths = vec![0; rows];
    for header in &records.headers {
        names.append_value(&header.name);
        values.append_option(header.value.as_deref());
        if let Some(length) = lengths.get_mut(header.record) {
            *length += 1;
        }
    }
    let items = StructArray::try_new(header_fields(), vec![Arc::new(names.finish()), Arc::new(values.finish())], None)?;
    ListArray::try_new(headers_item(), OffsetBuffer::from_lengths(lengths), Arc::new(items), None)
}
