//! Reads those rows of a table out that one backfill wrote to it: dead letters, late rows.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use iceberg::expr::Reference;
use iceberg::spec::Datum;

use super::{LoadedTable, SinkError};

/// The column that says whose a row is.
const BACKFILL: &str = "backfill";

/// The rows of main whose `backfill` is this one, as JSON objects, a line each; in no order.
///
/// # Errors
/// A table without that column, or whose manifests or files cannot be read.
pub async fn lines_of(
    table: &LoadedTable,
    backfill: &str,
) -> Result<BoxStream<'static, Result<Bytes, SinkError>>, SinkError> {
    let doing = format!("table {}: read its rows", table.table().identifier());
    if table.metadata().current_snapshot().is_none() {
        return Ok(futures::stream::empty().boxed());
    }
    let own = Reference::new(BACKFILL).equal_to(Datum::string(backfill));
    let scan = table.table().scan().select_all().with_filter(own).build().map_err(SinkError::lake(doing.clone()))?;
    let rows = scan.to_arrow().await.map_err(SinkError::lake(doing.clone()))?;
    let lines = rows.map(move |rows| {
        let rows = rows.map_err(SinkError::lake(doing.clone()))?;
        json_lines(&rows).map_err(SinkError::arrow(doing.clone()))
    });
    Ok(lines.boxed())
}

/// Rows as JSON objects, a line each: line feeds within values are escaped.
///
/// # Errors
/// A type that has no form in JSON.
pub fn json_lines(rows: &RecordBatch) -> Result<Bytes, ArrowError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(Bytes::from(writer.into_inner()))
}
