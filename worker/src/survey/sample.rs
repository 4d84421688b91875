//! Reads a few units against the clock, through the queries and into Parquet in memory: what a slot takes for a byte.
//!
//! Nothing is written to a table, and rows are not cut by partition: a run takes somewhat longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidegate_common::clock::{self, Monotonic};
use tidegate_common::ids::SourceIx;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use crate::failure::{Class, Classify};
use crate::source::{SourceBatch, UnitReader};
use crate::task::opened::Opened;
use crate::task::opened::Used;
use crate::task::{TaskError, kinds};
use crate::transform::{Query, Running};

/// What was read of a source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// Units, the last one perhaps in part.
    pub units: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes, as the plan counts them.
    pub bytes: u64,
    /// Processing time in microseconds, in one slot.
    pub micros: u64,
    /// The time a byte of the fastest unit takes, as a part of the mean; at most 1.
    pub fastest: f64,
    /// The time a byte of the slowest unit takes, in means; at least 1.
    pub slowest: f64,
}

impl Default for Sampled {
    fn default() -> Self {
        Self { units: 0, rows: 0, bytes: 0, micros: 0, fastest: 1.0, slowest: 1.0 }
    }
}

impl Sampled {
    /// Microseconds a byte; 0 where nothing was read.
    pub fn micros_a_byte(&self) -> f64 {
        if self.bytes == 0 { 0.0 } else { self.micros as f64 / self.bytes as f64 }
    }

    fn of(units: &[Timed]) -> Self {
        let sum = |of: fn(&Timed) -> u64| units.iter().map(of).sum();
        let mut all = Self {
            units: units.len() as u64,
            rows: sum(|unit| unit.rows),
            bytes: sum(|unit| unit.bytes),
            micros: sum(|unit| unit.micros),
            ..Self::default()
        };
        let mean = all.micros_a_byte();
        for unit in units.iter().filter(|unit| unit.bytes > 0 && mean > 0.0) {
            let part = unit.micros as f64 / unit.bytes as f64 / mean;
            all.fastest = all.fastest.min(part);
            all.slowest = all.slowest.max(part);
        }
        all
    }
}

/// What an output made of the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SampledOutput {
    /// Rows that were read for it.
    pub(super) read: u64,
    /// Rows that its query passed on.
    pub(super) passed: u64,
    /// Their bytes as Parquet.
    pub(super) bytes: u64,
}

/// A sample of every source, and what the outputs made of it, in the order of the spec.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// By source.
    pub(super) sources: Vec<Sampled>,
    /// By output.
    pub(super) outputs: Vec<SampledOutput>,
}

/// The rows could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the sampled rows of output {output} cannot be written as Parquet")]
struct NotEncoded {
    output: String,
    source: parquet::errors::ParquetError,
}

impl Classify for NotEncoded {
    fn class(&self) -> Class {
        Class::Poison
    }
}

/// The sampled rows could not be filtered.
#[derive(Debug, thiserror::Error)]
#[error("the sampled rows of source {name} cannot be cut to the window")]
struct NotCut {
    name: String,
    source: arrow::error::ArrowError,
}

impl Classify for NotCut {
    fn class(&self) -> Class {
        Class::Poison
    }
}

/// One unit, timed.
struct Timed {
    rows: u64,
    bytes: u64,
    micros: u64,
}

/// Reads units of every source for about `budget` in all; at least one batch of each.
pub(super) async fn take(opened: &Opened, tasks: &[Vec<v1::ReadTask>], budget: Duration) -> Result<Sample, TaskError> {
    let outputs = vec![SampledOutput::default(); opened.resolved.outputs.len()];
    let mut sample = Sample { sources: Vec::with_capacity(tasks.len()), outputs };
    let share = budget / u32::try_from(tasks.len().max(1)).unwrap_or(u32::MAX);
    for (ix, tasks) in (0..).map(SourceIx::new).zip(tasks) {
        let deadline = clock::monotonic().after(share);
        let mut timed = Vec::new();
        for picked in picked(tasks) {
            if clock::monotonic() >= deadline && !timed.is_empty() {
                break;
            }
            timed.push(one(opened, ix, picked, &mut sample.outputs, deadline).await?);
        }
        sample.sources.push(Sampled::of(&timed));
    }
    Ok(sample)
}

/// A few units from all over the plan: those at its ends, which the window may cut, weigh no more than the others.
fn picked(tasks: &[v1::ReadTask]) -> Vec<(&v1::ReadTask, v1::UnitOfWork)> {
    let all = || tasks.iter().flat_map(|task| task.units.iter().map(move |unit| (task, *unit)));
    let last = all().count().saturating_sub(1);
    let mut places = vec![last / 2, 0, last, last / 4, last - last / 4];
    let mut seen = BTreeSet::new();
    places.retain(|place| seen.insert(*place));
    let found: BTreeMap<usize, _> = all().enumerate().filter(|(place, _)| seen.contains(place)).collect();
    places.iter().filter_map(|place| found.get(place).copied()).collect()
}

/// Reads one unit of `task`; stops within it when the deadline has passed.
async fn one(
    opened: &Opened,
    ix: SourceIx,
    (task, unit): (&v1::ReadTask, v1::UnitOfWork),
    outputs: &mut [SampledOutput],
    deadline: Monotonic,
) -> Result<Timed, TaskError> {
    let queries = opened.queries(0).await?;
    let (source, described) = opened.source(ix).await?;
    let of_source: Vec<(usize, &Query)> = queries
        .iter()
        .enumerate()
        .filter(|(_, query)| query.join().is_none() && query.source() == described.name)
        .collect();
    let Used { columns, window } = opened.used(ix).await?;
    let input = kinds::projected(source.as_ref(), &columns);
    let mut sinks = Vec::with_capacity(of_source.len());
    for (at, query) in of_source {
        let name = opened.resolved.outputs.get(at).map(|output| output.name.clone()).unwrap_or_default();
        sinks.push(InMemory::open(at, name, query, query.start(input.clone())?)?);
    }
    let began = clock::monotonic();
    let mut reader = source.reader(&task.splits, &columns, window).await?;
    let rows = drain(reader.as_mut(), &unit, &described.name, window, &mut sinks, deadline).await?;
    for sink in sinks {
        let at = sink.at;
        let closed = sink.close()?;
        if let Some(output) = outputs.get_mut(at) {
            output.read += closed.read;
            output.passed += closed.passed;
            output.bytes += closed.bytes;
        }
    }
    let micros = u64::try_from(clock::monotonic().since(began).as_micros()).unwrap_or(u64::MAX);
    let part = if unit.rows > 0 { (rows as f64 / unit.rows as f64).min(1.0) } else { 1.0 };
    Ok(Timed { rows, bytes: (unit.bytes as f64 * part) as u64, micros })
}

/// The rows read. Of a unit whose rows only reading tells, all are read, so that its bytes are known.
async fn drain(
    reader: &mut dyn UnitReader,
    unit: &v1::UnitOfWork,
    name: &str,
    window: Window,
    sinks: &mut [InMemory],
    deadline: Monotonic,
) -> Result<u64, TaskError> {
    let mut rows = 0;
    let mut batches = reader.read(unit).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        rows += batch.rows.num_rows() as u64 + batch.dead.len() as u64;
        let kept = inside(&batch, window).map_err(|source| NotCut { name: name.to_owned(), source })?;
        for sink in sinks.iter_mut() {
            sink.push(batch.rows.num_rows() as u64, &kept)?;
        }
        if unit.rows > 0 && clock::monotonic() >= deadline {
            break;
        }
    }
    Ok(rows)
}

fn inside(batch: &SourceBatch, window: Window) -> Result<RecordBatch, arrow::error::ArrowError> {
    let kept = |at: Option<i64>| Some(at.is_some_and(|at| window.contains(EventTime::from_micros(at))));
    let mask: BooleanArray = batch.event_time.iter().map(kept).collect();
    filter_record_batch(&batch.rows, &mask)
}

/// One output's query, and Parquet in memory behind it.
struct InMemory {
    at: usize,
    name: String,
    query: Running,
    writer: ArrowWriter<Vec<u8>>,
    so_far: SampledOutput,
}

impl InMemory {
    fn open(at: usize, name: String, query: &Query, running: Running) -> Result<Self, TaskError> {
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = ArrowWriter::try_new(Vec::new(), query.schema(), Some(properties))
            .map_err(|source| NotEncoded { output: name.clone(), source })?;
        Ok(Self { at, name, query: running, writer, so_far: SampledOutput::default() })
    }

    fn push(&mut self, read: u64, kept: &RecordBatch) -> Result<(), TaskError> {
        self.so_far.read += read;
        if kept.num_rows() == 0 {
            return Ok(());
        }
        let answer = self.query.push(kept.clone())?;
        self.so_far.passed += answer.num_rows() as u64;
        self.writer.write(&answer).map_err(|source| NotEncoded { output: self.name.clone(), source })?;
        Ok(())
    }

    fn close(self) -> Result<SampledOutput, TaskError> {
        let bytes = self.writer.into_inner().map_err(|source| NotEncoded { output: self.name, source })?;
        Ok(SampledOutput { bytes: bytes.len() as u64, ..self.so_far })
    }
}
