#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod limits;
mod oracle;
mod plans;
mod refusals;
mod runs;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{Query, QueryError, SourceTable};

/// 2026-03-01T12:00:00Z.
const NOW: i64 = 1_772_366_400_000_000;

fn clicks_schema() -> SchemaRef {
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("ts", stamp, true),
        Field::new("user_id", DataType::Int64, true),
        Field::new("item_id", DataType::Int32, true),
        Field::new("kind", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
        Field::new("url", DataType::Utf8View, true),
        Field::new("userAgent", DataType::Utf8, true),
    ]))
}

fn clicks() -> BTreeMap<String, SourceTable> {
    BTreeMap::from([("clicks".to_owned(), clicks_schema().into())])
}

fn plan(sql: &str) -> Result<Query, QueryError> {
    Query::plan("cleaned", Some(sql), &clicks(), NOW)
}
