//! Join: answers a run of slices from what waits of them in the shuffle store, bucket by bucket.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use futures::stream::{BoxStream, StreamExt};
use tidegate_common::clock::Monotonic;
use tidegate_common::ids::{OutputIx, TaskId};
use tidegate_common::slices::Slices;
use tidegate_common::time::Span;
use tidegate_proto::v1;

use super::{Kinds, another_kind};
use crate::shuffle::Segments;
use crate::task::opened::{BackfillError, Opened};
use crate::task::ports::IcebergPort;
use crate::task::read::{Closed, OutputPort, ReadError};
use crate::task::{TaskContext, TaskEnd, TaskError, Verdict};
use crate::transform::{Effort, InputRows, Join, QueryError};

/// Of a join's memory, what its query may take; the rest is the writer's.
const QUERY_SHARE: usize = 2;
/// A bucket of more bytes than a query's memory by this factor is not even tried in memory: its hash tables take more
/// than its rows.
const TABLE_SHARE: u64 = 2;
/// Objects whose indexes are read at a time.
const OPENED_AT_ONCE: usize = 8;

/// What a run of slices is joined from.
struct Run<'a> {
    join: &'a Join,
    slices: Slices,
    run: Range<u32>,
    buckets: u32,
    /// The objects of each input, in the order of the inputs.
    inputs: Vec<Vec<Segments>>,
    memory: usize,
}

/// What came of it.
struct Joined {
    passed: u64,
    closed: Closed,
}

impl Kinds {
    pub(super) async fn join(
        &self,
        opened: &Opened,
        context: &TaskContext,
        work: v1::JoinWork,
    ) -> Result<TaskEnd, TaskError> {
        let (TaskId::Join(ix, first), Some(shape)) = (context.task, work.shape) else { return Err(another_kind()) };
        let began = context.lease.clock().now();
        let queries = opened.queries(opened.prepared()?.now).await?;
        let query = usize::try_from(ix.get()).ok().and_then(|at| queries.get(at));
        let no_such = || BackfillError::NoSuch { what: format!("join of output {ix}") };
        let join = query.and_then(|query| query.join()).ok_or_else(no_such)?;
        let slices = Slices::new(opened.resolved.window, Span::from_micros(shape.slice)).ok_or_else(no_such)?;
        let mut inputs = Vec::with_capacity(work.inputs.len());
        for objects in work.inputs {
            // What a worker handed in is believed by no other: nothing of another backfill is read.
            let own = format!("{}/", context.backfill);
            if objects.objects.iter().any(|object| !object.path.starts_with(&own)) {
                return Err(no_such().into());
            }
            inputs.push(self.segments(objects.objects).await?);
        }
        if inputs.len() != join.inputs().len() {
            return Err(no_such().into());
        }
        let memory = self.memory_per_read / QUERY_SHARE;
        let run = Run { join, slices, run: first..work.end_slice, buckets: shape.buckets.max(1), inputs, memory };
        let joined = match self.answer(opened, context, ix, &run, false).await {
            // What was written of it is left: no hand-in names it.
            Err(error) if error.is_memory() => self.answer(opened, context, ix, &run, true).await?,
            answered => answered?,
        };
        let anchors = run.anchors();
        let part = v1::OutputPart {
            output: ix.get(),
            rows_read: anchors,
            rows_passed: joined.passed,
            files: joined.closed.files,
            iceberg: joined.closed.iceberg,
            ..Default::default()
        };
        let hand_in = v1::HandIn {
            attempt: context.attempt.clone(),
            first_unit: first,
            end_unit: work.end_slice,
            rows_read: anchors,
            outputs: vec![part],
            busy_micros: micros_since(context, began),
            ..Default::default()
        };
        match context.hand_in(hand_in, false).await? {
            Verdict::Accepted => Ok(TaskEnd::HandedIn),
            Verdict::Refused { reason } => Err(ReadError::Refused { number: 0, reason }.into()),
        }
    }

    async fn segments(&self, objects: Vec<v1::ShuffleObject>) -> Result<Vec<Segments>, TaskError> {
        let opening = objects.into_iter().map(|object| async move { Segments::open(&self.shuffle, &object).await });
        let opened: Vec<_> = futures::stream::iter(opening).buffered(OPENED_AT_ONCE).collect().await;
        Ok(opened.into_iter().collect::<Result<_, _>>()?)
    }

    /// Writes the answer to files; with `in_pieces`, by joins that need little memory.
    async fn answer(
        &self,
        opened: &Opened,
        context: &TaskContext,
        ix: OutputIx,
        run: &Run<'_>,
        in_pieces: bool,
    ) -> Result<Joined, JoinError> {
        let attempt = if in_pieces { uuid::Uuid::new_v4().to_string() } else { context.attempt.clone() };
        let mut port = self.port(opened, &attempt, ix, None, run.memory).await?;
        let mut passed = 0;
        for slices in run.pieces() {
            for bucket in 0..run.buckets {
                context.lease.check().map_err(TaskError::from)?;
                passed += run.bucket(context, slices.clone(), bucket, in_pieces, &mut port).await?;
            }
        }
        Ok(Joined { passed, closed: port.close().await? })
    }
}

impl Run<'_> {
    /// Rows of the anchors in the run: their cells are the slices.
    fn anchors(&self) -> u64 {
        let cells = i64::from(self.run.start)..=i64::from(self.run.end) - 1;
        let weigh = |segments: &Segments, bucket| segments.weigh(cells.clone(), bucket).rows;
        let of = |segments: &Segments| (0..self.buckets).map(|bucket| weigh(segments, bucket)).sum::<u64>();
        self.anchored().filter_map(|at| self.inputs.get(at)).flatten().map(of).sum()
    }

    /// Which inputs are anchors.
    fn anchored(&self) -> impl Iterator<Item = usize> {
        let inputs = self.join.inputs().iter().enumerate();
        inputs.filter(|(_, input)| input.is_anchor()).map(|(at, _)| at)
    }

    /// The whole run at once where a bucket of it fits, else slice by slice.
    fn pieces(&self) -> Vec<Range<u32>> {
        let heaviest = (0..self.buckets).map(|bucket| self.weigh(&self.run, bucket)).max().unwrap_or(0);
        match self.fits(heaviest) {
            true => vec![self.run.clone()],
            false => self.run.clone().map(|slice| slice..slice + 1).collect(),
        }
    }

    fn fits(&self, bytes: u64) -> bool {
        bytes.saturating_mul(TABLE_SHARE) <= u64::try_from(self.memory).unwrap_or(u64::MAX)
    }

    fn cells(&self, slices: &Range<u32>, input: usize) -> Option<RangeInclusive<i64>> {
        self.slices.cells(slices.clone(), self.join.inputs().get(input)?.reach())
    }

    /// Bytes, unpacked, of one bucket.
    fn weigh(&self, slices: &Range<u32>, bucket: u32) -> u64 {
        let of = |(input, objects): (usize, &Vec<Segments>)| {
            let Some(cells) = self.cells(slices, input) else { return 0 };
            objects.iter().map(|segments| segments.weigh(cells.clone(), bucket).bytes).sum::<u64>()
        };
        self.inputs.iter().enumerate().map(of).sum::<u64>()
    }

    /// Joins one bucket of some slices; answers how many rows came of it.
    async fn bucket(
        &self,
        context: &TaskContext,
        slices: Range<u32>,
        bucket: u32,
        in_pieces: bool,
        port: &mut IcebergPort,
    ) -> Result<u64, JoinError> {
        let Some(window) = self.slices.run(slices.clone()) else { return Ok(0) };
        let waiting = self.waiting(&slices, bucket);
        // No result has a row without one of an anchor.
        if self.anchored().filter_map(|at| waiting.get(at)).all(|anchor| anchor.rows == 0) {
            return Ok(0);
        }
        let bytes = waiting.iter().map(|input| input.bytes).sum::<usize>();
        let in_memory = self.fits(u64::try_from(bytes).unwrap_or(u64::MAX)) && !in_pieces;
        let effort = match in_memory {
            true => Effort::InMemory { bytes: self.memory },
            false => Effort::InPieces { bytes: self.memory },
        };
        let inputs = waiting.into_iter().map(|input| Arc::new(input) as Arc<dyn InputRows>).collect();
        let mut rows = self.join.run(window, inputs, effort)?;
        let mut passed = 0;
        while let Some(batch) = rows.next().await {
            context.lease.check().map_err(TaskError::from)?;
            let batch = batch?;
            passed += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
            port.write(batch).await?;
        }
        Ok(passed)
    }

    fn waiting(&self, slices: &Range<u32>, bucket: u32) -> Vec<Waiting> {
        let of = |(input, objects): (usize, &Vec<Segments>)| {
            let cells = self.cells(slices, input);
            let weights = objects.iter().zip(std::iter::repeat(cells.clone()));
            let weights = weights.filter_map(|(segments, cells)| Some(segments.weigh(cells?, bucket)));
            let (rows, bytes) = weights.fold((0, 0), |(rows, bytes), of| (rows + of.rows, bytes + of.bytes));
            let count = |many: u64| usize::try_from(many).unwrap_or(usize::MAX);
            Waiting { objects: objects.clone(), cells, bucket, rows: count(rows), bytes: count(bytes) }
        };
        self.inputs.iter().enumerate().map(of).collect()
    }
}

/// The rows of one input that wait for some slices, in one bucket.
#[derive(Clone)]
struct Waiting {
    objects: Vec<Segments>,
    cells: Option<RangeInclusive<i64>>,
    bucket: u32,
    rows: usize,
    bytes: usize,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of bucket {} in cells {:?}", self.rows, self.bucket, self.cells)
    }
}

impl InputRows for Waiting {
    fn open(&self) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
        let Self { objects, cells, bucket, .. } = self.clone();
        let Some(cells) = cells else { return futures::stream::empty().boxed() };
        let rows = futures::stream::iter(objects).flat_map(move |segments| segments.rows(cells.clone(), bucket));
        rows.map(|rows| rows.map_err(|error| DataFusionError::External(Box::new(error)))).boxed()
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A join failed; whether it was for want of memory decides whether it is tried otherwise.
enum JoinError {
    Query(QueryError),
    Task(TaskError),
}

impl JoinError {
    fn is_memory(&self) -> bool {
        matches!(self, Self::Query(error) if error.is_memory())
    }
}

impl From<QueryError> for JoinError {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<TaskError> for JoinError {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

impl From<JoinError> for TaskError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Query(error) => error.into(),
            JoinError::Task(error) => error,
        }
    }
}

pub(super) fn micros_since(context: &TaskContext, began: Monotonic) -> u64 {
    u64::try_from(context.lease.clock().now().since(began).as_micros()).unwrap_or(u64::MAX)
}
