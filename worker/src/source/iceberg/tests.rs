//! The source against real tables in a folder: written by the sink, read by the source, counted against the rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod changing;
mod deleting;
mod lake;
mod pruning;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::TryStreamExt;
use serde_json::json;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use self::lake::Lake;
use crate::access::Access;
use crate::failure::{Class, Classify, chain};
use crate::source::{FoundSplit, Source, SourceError};

const HOUR: i64 = 3_600_000_000;

/// Rows `from..to`: an id, a name, and an event time one hour after the one before.
fn rows(from: i64, to: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(from..to);
    let names = StringArray::from_iter_values((from..to).map(|id| format!("name {}", id % 7)));
    let times = TimestampMicrosecondArray::from_iter_values((from..to).map(|id| id * HOUR));
    let columns: [(&str, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("name", Arc::new(names)), ("at", Arc::new(times.with_timezone("UTC")))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn hours(from: i64, to: i64) -> Window {
    Window::new(EventTime::from_micros(from * HOUR), EventTime::from_micros(to * HOUR)).unwrap()
}

async fn find(source: &dyn Source, window: Window) -> Result<Vec<FoundSplit>, SourceError> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
    source.enumerate(window, sender).await?;
    let mut found = Vec::new();
    while let Some(split) = receiver.recv().await {
        found.push(split);
    }
    Ok(found)
}

/// Every row of the units: column `column`, in words, and the event time.
async fn read(
    source: &dyn Source,
    found: &[FoundSplit],
    column: &str,
    window: Window,
) -> Result<Vec<(String, Option<i64>)>, SourceError> {
    let column = source.schema().index_of(column).unwrap();
    let mut rows = Vec::new();
    for split in found.iter().filter(|split| !split.units.is_empty()) {
        let mut reader = source.reader(std::slice::from_ref(&split.split), &[column], window).await?;
        for unit in &split.units {
            let batches: Vec<_> = reader.read(unit).await?.try_collect().await?;
            let held: usize = batches.iter().map(|batch| batch.rows.num_rows()).sum();
            assert!(unit.rows == 0 || unit.rows == held as u64);
            for batch in batches {
                let shown = arrow::util::display::array_value_to_string;
                let values = (0..batch.rows.num_rows()).map(|row| shown(batch.rows.column(0), row).unwrap());
                rows.extend(values.zip(batch.event_time.iter()));
            }
        }
    }
    rows.sort_unstable_by_key(|(text, at)| (*at, text.parse::<i64>().ok(), text.clone()));
    Ok(rows)
}

/// The ids of all rows in the window.
async fn ids(source: &dyn Source, window: Window) -> Vec<i64> {
    let found = find(source, window).await.unwrap();
    let rows = read(source, &found, "id", window).await.unwrap();
    let inside = |at: &Option<i64>| at.is_none_or(|at| window.contains(EventTime::from_micros(at)));
    rows.iter().filter(|(_, at)| inside(at)).map(|(id, _)| id.parse().unwrap()).collect()
}

/// Rows to be read, rows pruned.
fn counted(found: &[FoundSplit]) -> (u64, u64) {
    let units = found.iter().flat_map(|split| &split.units);
    (units.map(|unit| unit.rows).sum(), found.iter().map(|split| split.rows_pruned).sum())
}

fn refused(result: Result<impl Sized, SourceError>) -> String {
    let Err(error) = result else { panic!("it is not refused") };
    assert_eq!(error.class(), Class::Fatal { exit_code: 4 }, "{}", chain(&error));
    chain(&error)
}
