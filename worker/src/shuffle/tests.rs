//! The shuffle store, held against plain vectors, and against whatever may stand in a store instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use tidegate_common::ids::BackfillId;
use tidegate_common::slices::Slices;
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_proto::v1::ShuffleObject;

use super::*;
use crate::failure::{Class, Classify};

mod damage;
mod hash;
mod places;
mod round_trip;
mod watched;

fn backfill() -> BackfillId {
    "bf-abcdefghijklmnop".parse().unwrap()
}

/// From 1000 on, ten wide, ten of them.
fn slices() -> Slices {
    let window = Window::new(EventTime::from_micros(1_000), EventTime::from_micros(1_100)).unwrap();
    Slices::new(window, Span::from_micros(10)).unwrap()
}

fn in_memory() -> ShuffleStore {
    ShuffleStore::in_bucket("s3://b/some/prefix", Arc::new(InMemory::new()), Path::from("some/prefix"))
}

fn on_disk() -> (tempfile::TempDir, ShuffleStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ShuffleStore::open(folder.path().join("shuffle").to_str().unwrap()).unwrap();
    (folder, store)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let nullable = columns.into_iter().map(|(name, column)| (name, column, name != "$time"));
    RecordBatch::try_from_iter_with_nullable(nullable).unwrap()
}

/// Rows of a time and a text.
fn rows(of: &[(i64, &str)]) -> RecordBatch {
    let times: Int64Array = of.iter().map(|(time, _)| Some(*time)).collect();
    let texts: StringArray = of.iter().map(|(_, text)| Some(*text)).collect();
    batch(vec![("$time", Arc::new(times)), ("text", Arc::new(texts))])
}

fn schema() -> SchemaRef {
    let (time, text) = (Field::new("$time", DataType::Int64, false), Field::new("text", DataType::Utf8, true));
    Arc::new(Schema::new(vec![time, text]))
}

/// A writer of such rows, by their text.
fn writer(store: &ShuffleStore, name: &str, buckets: u32) -> ShuffleWriter {
    ShuffleWriter::create(store, &backfill(), name, schema(), &[1], slices(), buckets).unwrap()
}

async fn written(store: &ShuffleStore, name: &str, of: &[(i64, &str)]) -> ShuffleObject {
    let mut writer = writer(store, name, 4);
    writer.write(&rows(of)).await.unwrap();
    writer.close().await.unwrap().unwrap()
}

/// All rows of an object, or the first error.
async fn read(store: &ShuffleStore, object: &ShuffleObject, buckets: u32) -> Result<Vec<RecordBatch>, ShuffleError> {
    let segments = Segments::open(store, object).await?;
    let mut read = Vec::new();
    for bucket in 0..buckets {
        read.extend(segments.rows(i64::MIN..=i64::MAX, bucket).try_collect::<Vec<_>>().await?);
    }
    Ok(read)
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}
