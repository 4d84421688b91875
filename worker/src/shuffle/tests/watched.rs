//! What is asked of a bucket, and what becomes of it when the bucket does not do it.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;

/// A bucket in memory that remembers the ranges it was asked for, and can fail and be slow.
#[derive(Debug, Default)]
struct Watched {
    memory: InMemory,
    ranges: Mutex<Vec<Range<u64>>>,
    fails: AtomicBool,
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("watched")
    }
}

impl Watched {
    async fn answer(&self) -> Result<()> {
        tokio::task::yield_now().await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(object_store::Error::Generic { store: "watched", source: "it fails".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.answer().await?;
        self.memory.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.answer().await?;
        self.memory.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.ranges.lock().unwrap().push(range.clone());
        }
        self.answer().await?;
        self.memory.get_opts(at, options).await
    }

    fn delete_stream(&self, of: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.memory.delete_stream(of)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}

fn watched() -> (Arc<Watched>, ShuffleStore) {
    let watched = Arc::new(Watched::default());
    (watched.clone(), ShuffleStore::in_bucket("s3://b", watched, Path::from("")))
}

/// About `bytes` of rows that LZ4 does not make shorter.
fn dense(bytes: usize) -> RecordBatch {
    let mut seed = 7u64;
    let values = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 1) as i64
    });
    let values: Int64Array = values.take(bytes / 16).map(Some).collect();
    let times = Int64Array::from_iter_values((0..values.len() as i64).map(|n| 1_000 + n % 100));
    batch(vec![("$time", Arc::new(times)), ("n", Arc::new(values))])
}

#[tokio::test]
async fn only_the_chunks_that_are_wanted_are_read_and_neighbours_in_one_request() {
    let (watched, store) = watched();
    let mut writer = writer(&store, "0/o/a-1", 1);
    let of: Vec<(i64, &str)> = (0..100).map(|n| (1_000 + n, "x")).collect();
    writer.write(&rows(&of)).await.unwrap();
    writer.flush().await.unwrap();
    let once = writer.bytes_written();
    writer.write(&rows(&of)).await.unwrap();
    writer.flush().await.unwrap();
    let twice = writer.bytes_written();
    let object = writer.close().await.unwrap().unwrap();
    let segments = Segments::open(&store, &object).await.unwrap();
    assert!(watched.ranges.lock().unwrap().is_empty(), "one request reads a small index");

    let asked = async |cells| {
        let read: Vec<RecordBatch> = segments.rows(cells, 0).try_collect().await.unwrap();
        (count(&read), std::mem::take(&mut *watched.ranges.lock().unwrap()))
    };
    let (read, ranges) = asked(0..=9).await;
    assert_eq!((read, ranges.len(), &ranges[0]), (200, 1, &(0..twice)));
    assert_eq!(asked(20..=30).await, (0, vec![]));
    let (read, ranges) = asked(8..=9).await;
    assert_eq!((read, ranges.len()), (40, 2));
    assert_eq!((ranges[0].end, ranges[1].end), (once, twice));
    assert!(ranges.iter().all(|range| range.end - range.start < once / 4), "{ranges:?} of {once}");
}

#[tokio::test]
async fn a_large_object_goes_up_in_parts_and_comes_down_in_several_requests() {
    let (watched, store) = watched();
    let rows = dense(40 << 20);
    let mut writer = ShuffleWriter::create(&store, &backfill(), "0/o/a-1", rows.schema(), &[1], slices(), 3).unwrap();
    for at in (0..rows.num_rows()).step_by(100_000) {
        writer.write(&rows.slice(at, 100_000.min(rows.num_rows() - at))).await.unwrap();
        assert!(writer.buffered_bytes() < 64 << 20);
    }
    let object = writer.close().await.unwrap().unwrap();
    assert!(object.bytes > 20 << 20, "{}", object.bytes);
    let read = read(&store, &object, 3).await.unwrap();
    assert_eq!(count(&read), rows.num_rows());
    let sum = |rows: &RecordBatch| {
        let column = rows.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
        column.values().iter().map(|n| i128::from(*n)).sum::<i128>()
    };
    assert_eq!(read.iter().map(sum).sum::<i128>(), sum(&rows));
    let ranges = watched.ranges.lock().unwrap();
    assert!(ranges.len() > 3 && ranges.iter().all(|range| range.end - range.start <= 8 << 20), "{ranges:?}");
}

#[tokio::test]
async fn what_a_store_does_not_take_is_no_object_and_is_not_gone_on_with() {
    for is_large in [false, true] {
        let (watched, store) = watched();
        let rows = dense(if is_large { 16 << 20 } else { 1 << 10 });
        let create = || ShuffleWriter::create(&store, &backfill(), "0/o/a-1", rows.schema(), &[], slices(), 1).unwrap();
        let mut writer = create();
        writer.write(&rows).await.unwrap();
        watched.fails.store(true, Ordering::Relaxed);
        let error = if is_large { writer.flush().await.unwrap_err() } else { writer.close().await.unwrap_err() };
        assert!(matches!(error, ShuffleError::Store { .. }) && error.class() == Class::Retryable, "{error:?}");
        watched.fails.store(false, Ordering::Relaxed);
        if is_large {
            let mut writer = create();
            writer.write(&rows).await.unwrap();
            let mut flush = Box::pin(writer.flush());
            assert!(futures::poll!(&mut flush).is_pending(), "it waits for the store, and is dropped there");
            drop(flush);
            assert!(writer.close().await.unwrap_err().to_string().contains("given up"));
        }
        assert_eq!(watched.memory.list(None).try_collect::<Vec<_>>().await.unwrap(), []);
        let mut writer = create();
        writer.write(&rows).await.unwrap();
        let object = writer.close().await.unwrap().unwrap();
        watched.fails.store(true, Ordering::Relaxed);
        assert!(matches!(Segments::open(&store, &object).await, Err(ShuffleError::Store { .. })));
    }
}
