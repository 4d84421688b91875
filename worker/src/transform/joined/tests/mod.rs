#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod anchors;
mod grouped;
mod oracle;
mod pieces;
mod refusals;
mod runs;
mod tables;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::time::{EventTime, Window};

use super::{Effort, InputRows, Join, JoinInput};
use crate::transform::{Query, QueryError, SourceTable};

/// 2026-03-01T12:00:00Z.
const NOW: i64 = 1_772_366_400_000_000;
const SECOND: i64 = 1_000_000;
const SOURCES: [&str; 3] = ["a", "b", "c"];
/// Most that a join holds in these tests, unless it is what they are about.
const AMPLE: Effort = Effort::InMemory { bytes: 64 << 20 };

/// A row of any of the sources; its time in nanoseconds.
#[derive(Clone, Debug)]
struct Row {
    k: Option<i64>,
    v: i64,
    s: Option<&'static str>,
    nanos: i64,
}

impl Row {
    /// Its event time, microseconds.
    fn time(&self) -> i64 {
        self.nanos.div_euclid(1_000)
    }
}

/// The columns of a source: each has its own types.
fn schema(source: &str) -> SchemaRef {
    let (v, s, unit, zone) = match source {
        "a" => (DataType::Int64, DataType::Utf8View, TimeUnit::Microsecond, "UTC"),
        "b" => (DataType::Int64, DataType::Utf8View, TimeUnit::Nanosecond, "UTC"),
        _ => (DataType::Int32, DataType::Utf8, TimeUnit::Microsecond, "+00:00"),
    };
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", v, false),
        Field::new("s", s, true),
        Field::new("ts", DataType::Timestamp(unit, Some(zone.into())), false),
    ]))
}

fn sources() -> BTreeMap<String, SourceTable> {
    let table = |source| SourceTable { schema: schema(source), time: Some("ts".to_owned()) };
    SOURCES.into_iter().map(|source| (source.to_owned(), table(source))).collect()
}

fn plan(sql: &str) -> Result<Query, QueryError> {
    Query::plan("out", Some(sql), &sources(), NOW)
}

/// All columns of `rows` of `source`.
fn batch(source: &str, rows: &[Row]) -> RecordBatch {
    let schema = schema(source);
    let nanos: ArrayRef =
        Arc::new(rows.iter().map(|row| Some(row.nanos)).collect::<arrow::array::TimestampNanosecondArray>());
    let micros: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.time())).collect::<TimestampMicrosecondArray>());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.k).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.v)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.s).collect::<StringViewArray>()),
        if source == "b" { nanos } else { micros },
    ];
    let typed = columns.iter().zip(schema.fields()).map(|(column, field)| {
        let zoneless = |of: &DataType| matches!(of, DataType::Timestamp(..));
        // Zones that say the same: nothing is shifted.
        if zoneless(field.data_type()) {
            column.to_data().into_builder().data_type(field.data_type().clone()).build().map(arrow::array::make_array)
        } else {
            cast(column, field.data_type())
        }
    });
    RecordBatch::try_new(schema.clone(), typed.collect::<Result<_, _>>().unwrap()).unwrap()
}

/// Rows as an input of a join has them.
#[derive(Debug)]
struct Given(Vec<RecordBatch>);

impl Given {
    fn new(input: &JoinInput, rows: &[Row], per_batch: usize) -> Self {
        let mut schemas = Vec::new();
        for rows in rows.chunks(per_batch.max(1)) {
            let times: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.time())).collect::<Int64Array>());
            let kept = batch(input.source(), rows).project(input.columns()).unwrap();
            let columns = std::iter::once(times).chain(kept.columns().iter().cloned()).collect();
            schemas.push(RecordBatch::try_new(input.schema(), columns).unwrap());
        }
        Self(schemas)
    }
}

impl InputRows for Given {
    fn open(&self) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
        futures::stream::iter(self.0.clone().into_iter().map(Ok)).boxed()
    }

    fn rows(&self) -> usize {
        self.0.iter().map(RecordBatch::num_rows).sum()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

fn window(from: i64, to: i64) -> Window {
    Window::new(EventTime::from_micros(from), EventTime::from_micros(to)).unwrap()
}

/// What the join of `query` says of `slice`.
async fn run(
    query: &Query,
    slice: Window,
    inputs: Vec<Arc<dyn InputRows>>,
    effort: Effort,
) -> Result<Vec<RecordBatch>, QueryError> {
    let mut batches = Vec::new();
    let mut rows = query.join().unwrap().run(slice, inputs, effort)?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        assert_eq!(batch.schema(), query.schema());
        batches.push(batch);
    }
    Ok(batches)
}

/// Rows as text, sorted.
fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    rows.sort();
    rows
}
