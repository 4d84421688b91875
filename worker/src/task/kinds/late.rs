//! Late: writes those rows of an object of the shuffle store that came late to the table that keeps them.

use arrow::error::ArrowError;
use futures::StreamExt;
use tidegate_common::clock;
use tidegate_common::ids::{OutputIx, SourceIx, TaskId};
use tidegate_common::lateness;
use tidegate_common::slices::{Reach, Slices};
use tidegate_common::time::Span;
use tidegate_proto::v1;

use super::join::micros_since;
use super::{Kinds, another_kind};
use crate::failure::{Class, Classify};
use crate::shuffle::Segments;
use crate::task::late_rows::{Letterhead, letters};
use crate::task::opened::{BackfillError, Opened};
use crate::task::read::{OutputPort, ReadError};
use crate::task::{Lease, TaskContext, TaskEnd, TaskError, Verdict};

/// Rows that are made into JSON at a time.
const ROWS_AT_ONCE: usize = 1_024;

/// A late row cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("late rows of {input} cannot be kept")]
struct NotKept {
    input: String,
    source: ArrowError,
}

impl Classify for NotKept {
    fn class(&self) -> Class {
        Class::Poison
    }
}

/// What is to be written.
struct LateRows<'a> {
    segments: Segments,
    slices: Slices,
    reach: Reach,
    buckets: u32,
    work: &'a v1::LateWork,
    head: Letterhead,
}

impl Kinds {
    pub(super) async fn late(
        &self,
        opened: &Opened,
        context: &TaskContext,
        work: v1::LateWork,
    ) -> Result<TaskEnd, TaskError> {
        let began = context.lease.clock().now();
        let table = OutputIx::new(work.table);
        let mut port = self.port(opened, &context.attempt, table, None, self.memory_per_read).await?;
        let rows = self.late_rows(opened, context, &work).await?.write(&context.lease, &mut port).await?;
        let closed = port.close().await?;
        let part = v1::OutputPart {
            output: work.table,
            rows_read: rows,
            rows_passed: rows,
            files: closed.files,
            iceberg: closed.iceberg,
            ..Default::default()
        };
        let hand_in = v1::HandIn {
            attempt: context.attempt.clone(),
            end_unit: 1,
            rows_read: rows,
            outputs: vec![part],
            busy_micros: micros_since(context, began),
            ..Default::default()
        };
        match context.hand_in(hand_in, false).await? {
            Verdict::Accepted => Ok(TaskEnd::HandedIn),
            Verdict::Refused { reason } => Err(ReadError::Refused { number: 0, reason }.into()),
        }
    }

    async fn late_rows<'a>(
        &self,
        opened: &Opened,
        context: &TaskContext,
        work: &'a v1::LateWork,
    ) -> Result<LateRows<'a>, TaskError> {
        let TaskId::Late(ix, _) = context.task else { return Err(another_kind()) };
        let no_such = || BackfillError::NoSuch { what: format!("late rows of output {ix}") };
        let (Some(shape), Some(object)) = (&work.shape, &work.object) else { return Err(another_kind()) };
        // What a worker handed in is believed by no other: nothing of another backfill is read.
        if !object.path.starts_with(&format!("{}/", context.backfill)) {
            return Err(no_such().into());
        }
        let queries = opened.queries(opened.prepared()?.now).await?;
        let query = usize::try_from(ix.get()).ok().and_then(|at| queries.get(at));
        let source = opened.resolved.source(SourceIx::new(work.source)).ok_or_else(no_such)?;
        let input = query.and_then(|query| query.join()?.input(&source.name)).ok_or_else(no_such)?;
        let slices = Slices::new(opened.resolved.window, Span::from_micros(shape.slice)).ok_or_else(no_such)?;
        Ok(LateRows {
            segments: Segments::open(&self.shuffle, object).await?,
            slices,
            reach: input.reach(),
            buckets: shape.buckets.max(1),
            work,
            head: Letterhead {
                source: source.name.clone(),
                backfill: context.backfill.to_string(),
                read_at: clock::processing_time_micros(),
                missed_by: (0, 0),
                late: 0,
            },
        })
    }
}

impl LateRows<'_> {
    /// Writes them, cell by cell; answers how many they are.
    async fn write(&self, lease: &Lease, port: &mut dyn OutputPort) -> Result<u64, TaskError> {
        let missed = self.work.missed_from.iter().zip(&self.work.missed_to);
        let mut written = 0;
        for (cell, (from, to)) in self.work.cells.iter().zip(missed) {
            let no_such = || BackfillError::NoSuch { what: format!("run of slices from {from} to {to}") };
            let window = self.slices.run(*from..*to).ok_or_else(no_such)?;
            let late = lateness::at_most(self.slices, self.reach, *cell, to.saturating_sub(1));
            let head = Letterhead {
                missed_by: (window.from().as_micros(), window.to().as_micros()),
                late: late.as_micros(),
                ..self.head.clone()
            };
            for bucket in 0..self.buckets {
                lease.check()?;
                written += self.cell(lease, &head, (*cell, bucket), port).await?;
            }
        }
        Ok(written)
    }

    async fn cell(
        &self,
        lease: &Lease,
        head: &Letterhead,
        (cell, bucket): (i64, u32),
        port: &mut dyn OutputPort,
    ) -> Result<u64, TaskError> {
        let mut written = 0;
        if self.segments.weigh(cell..=cell, bucket).rows == 0 {
            return Ok(0);
        }
        let mut chunks = self.segments.rows(cell..=cell, bucket);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            for first in (0..chunk.num_rows()).step_by(ROWS_AT_ONCE) {
                lease.check()?;
                let rows = chunk.slice(first, ROWS_AT_ONCE.min(chunk.num_rows() - first));
                let not_kept = |source| NotKept { input: head.source.clone(), source };
                port.write(letters(head, &rows).map_err(not_kept)?).await?;
                written += u64::try_from(rows.num_rows()).unwrap_or(u64::MAX);
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
    use async_trait::async_trait;
    use tidegate_common::clock::Monotonic;
    use tidegate_common::time::{EventTime, Window};

    use super::*;
    use crate::shuffle::{ShuffleStore, ShuffleWriter};
    use crate::sink::Due;
    use crate::task::Clock;
    use crate::task::read::Closed;

    /// Keeps what is written to it.
    #[derive(Default)]
    struct Kept(Vec<RecordBatch>);

    #[async_trait]
    impl OutputPort for Kept {
        fn output(&self) -> OutputIx {
            OutputIx::new(1)
        }

        async fn push(&mut self, rows: &RecordBatch, _: &Int64Array) -> Result<RecordBatch, TaskError> {
            Ok(rows.clone())
        }

        async fn write(&mut self, rows: RecordBatch) -> Result<(), TaskError> {
            self.0.push(rows);
            Ok(())
        }

        fn draw_files(&mut self, _: u64, _: &[u64]) {}

        async fn due(&mut self) -> Result<Due, TaskError> {
            Ok(Due::Free)
        }

        async fn relieve(&mut self) -> Result<(), TaskError> {
            Ok(())
        }

        fn buffered_bytes(&self) -> u64 {
            0
        }

        async fn close(&mut self) -> Result<Closed, TaskError> {
            Ok(Closed::default())
        }
    }

    fn store() -> (tempfile::TempDir, ShuffleStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ShuffleStore::open(folder.path().join("shuffle").to_str().unwrap()).unwrap();
        (folder, store)
    }

    /// Ten slices of ten from 1000 on.
    fn slices() -> Slices {
        let window = Window::new(EventTime::from_micros(1_000), EventTime::from_micros(1_100)).unwrap();
        Slices::new(window, Span::from_micros(10)).unwrap()
    }

    /// An object of rows of these times, which are their texts as well, in four buckets.
    async fn object(store: &ShuffleStore, times: &[i64]) -> v1::ShuffleObject {
        let schema = Arc::new(Schema::new(vec![
            Field::new("$time", DataType::Int64, false),
            Field::new("text", DataType::Utf8, true),
        ]));
        let texts: StringArray = times.iter().map(|time| Some(time.to_string())).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(times.to_vec())), Arc::new(texts)];
        let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let backfill = "bf-abcdefghijklmnop".parse().unwrap();
        let mut writer = ShuffleWriter::create(store, &backfill, "o", schema, &[1], slices(), 4).unwrap();
        writer.write(&rows).await.unwrap();
        writer.close().await.unwrap().unwrap()
    }

    async fn rows<'a>(store: &ShuffleStore, work: &'a v1::LateWork) -> LateRows<'a> {
        LateRows {
            segments: Segments::open(store, work.object.as_ref().unwrap()).await.unwrap(),
            slices: slices(),
            reach: Reach { low: Span::from_micros(-20), high: Span::ZERO },
            buckets: 4,
            work,
            head: Letterhead {
                source: "s".to_owned(),
                backfill: "bf-abcdefghijklmnop".to_owned(),
                read_at: 7,
                missed_by: (0, 0),
                late: 0,
            },
        }
    }

    fn lease() -> Lease {
        let lease = Lease::over(Clock::machine());
        lease.set(Monotonic::from_micros(u64::MAX));
        lease
    }

    #[tokio::test]
    async fn given_an_object_when_its_late_cells_are_written_then_all_their_rows_are_there_and_no_others() {
        let (_folder, store) = store();
        let times: Vec<i64> = (0..5_000).map(|at| 985 + at % 100).collect();
        let (cells, missed_from, missed_to) = (vec![-2, 1], vec![0, 1], vec![1, 4]);
        let object = Some(object(&store, &times).await);
        let work = v1::LateWork { cells, missed_from, missed_to, object, ..Default::default() };
        let mut kept = Kept::default();
        let written = rows(&store, &work).await.write(&lease(), &mut kept).await.unwrap();

        // From 985 to 989 and from 1010 to 1019, fifty rows of each time.
        assert_eq!(written, 15 * 50);
        let mut found = Vec::new();
        for batch in &kept.0 {
            let times =
                |name: &str| batch.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().clone();
            let late = batch.column_by_name("late_micros").unwrap().as_primitive::<Int64Type>();
            let texts = batch.column_by_name("row").unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                let time = times("event_time").value(row);
                assert_eq!(texts.value(row), format!("{{\"text\":\"{time}\"}}"));
                found.push((time, times("slice_from").value(row), times("slice_to").value(row), late.value(row)));
            }
            assert!(batch.num_rows() <= ROWS_AT_ONCE && batch.columns().iter().all(|column| column.null_count() == 0));
        }
        found.sort_unstable();
        let row = |time: i64| if time < 1_000 { (time, 1_000, 1_010, 30) } else { (time, 1_010, 1_040, 30) };
        let mut expected: Vec<_> = (985..990).chain(1_010..1_020).flat_map(|time| vec![row(time); 50]).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn given_a_lease_that_is_over_then_nothing_is_written() {
        let (_folder, store) = store();
        let object = Some(object(&store, &[1_000]).await);
        let (cells, missed_from, missed_to) = (vec![0], vec![0], vec![1]);
        let work = v1::LateWork { cells, missed_from, missed_to, object, ..Default::default() };
        let (mut kept, lease) = (Kept::default(), lease());
        lease.end();
        let failed = rows(&store, &work).await.write(&lease, &mut kept).await.unwrap_err();
        assert_eq!((failed.class(), kept.0.len()), (Class::Fenced, 0));
    }

    #[tokio::test]
    async fn given_slices_that_the_window_does_not_have_then_it_is_refused() {
        let (_folder, store) = store();
        let object = Some(object(&store, &[1_000]).await);
        let (cells, missed_from, missed_to) = (vec![0], vec![3], vec![3]);
        let work = v1::LateWork { cells, missed_from, missed_to, object, ..Default::default() };
        assert!(rows(&store, &work).await.write(&lease(), &mut Kept::default()).await.is_err());
    }
}
