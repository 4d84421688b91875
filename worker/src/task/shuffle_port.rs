//! An output of a read task that joins: its rows go to the shuffle store, to wait for those that they meet.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use tidegate_common::ids::{BackfillId, OutputIx};
use tidegate_common::slices::Slices;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use super::TaskError;
use super::read::{Closed, OutputPort};
use crate::failure::{Class, Classify};
use crate::shuffle::{ShuffleStore, ShuffleWriter};
use crate::sink::Due;
use crate::transform::{JoinInput, Sieve};

/// An object does not grow above this.
const OBJECT_BYTES: u64 = 256 << 20;
/// How many slices the reader may get ahead of what it has handed in, where that would end files before their time.
const SLICES_AHEAD: i64 = 4;

/// The rows are not those that the query was planned for.
#[derive(Debug, thiserror::Error)]
#[error("rows of {input} cannot be shuffled")]
struct NotShuffled {
    input: String,
    source: ArrowError,
}

impl Classify for NotShuffled {
    fn class(&self) -> Class {
        Class::Poison
    }
}

/// Where an attempt's objects go, and how they are cut.
#[derive(Clone, Debug)]
pub(crate) struct Shuffling {
    pub(crate) store: ShuffleStore,
    pub(crate) backfill: BackfillId,
    /// Begins the names of this attempt's objects.
    pub(crate) prefix: String,
    pub(crate) slices: Slices,
    /// Where the rows lie that an anchor may meet.
    pub(crate) met: Window,
    pub(crate) buckets: u32,
    /// Bytes of memory that its rows may take before they are written.
    pub(crate) memory: usize,
    /// The window, where it is the anchor's rows that are shuffled.
    pub(crate) anchors_in: Option<Window>,
}

/// One output's part of a source that it joins, in one attempt.
pub(crate) struct ShufflePort {
    output: OutputIx,
    source: String,
    schema: SchemaRef,
    /// The columns of the schema that rows are distributed by.
    keys: Vec<usize>,
    sieve: Sieve,
    /// The places of the input's columns in what the reader yields.
    places: Vec<usize>,
    to: Shuffling,
    writer: Option<ShuffleWriter>,
    objects: u64,
    anchors: u64,
    /// The lowest event time of the first unit since the last hand-in, and of the last.
    first_low: Option<i64>,
    unit_low: Option<i64>,
}

impl ShufflePort {
    /// Shuffles what `input` needs of rows that have its columns at `places`.
    pub(crate) fn open(
        output: OutputIx,
        input: &JoinInput,
        places: Vec<usize>,
        to: Shuffling,
    ) -> Result<Self, TaskError> {
        let sieve = input.start()?;
        Ok(Self {
            output,
            source: input.source().to_owned(),
            schema: input.schema(),
            // The event time comes first.
            keys: input.keys().iter().map(|key| key + 1).collect(),
            sieve,
            places,
            to,
            writer: None,
            objects: 0,
            anchors: 0,
            first_low: None,
            unit_low: None,
        })
    }

    fn failed(&self, source: ArrowError) -> TaskError {
        NotShuffled { input: self.source.clone(), source }.into()
    }

    /// The rows that can matter, their event times before their columns.
    fn sieved(&mut self, rows: &RecordBatch, times: &Int64Array) -> Result<RecordBatch, TaskError> {
        let mut rows = rows.project(&self.places).map_err(|e| self.failed(e))?;
        let mut times: ArrayRef = Arc::new(times.clone());
        // What nobody meets is not looked at: it cannot fail the query either.
        if let Some(met) = self.met(&times) {
            (rows, times) = filtered(&rows, &times, &met).map_err(|e| self.failed(e))?;
        }
        if let Some(kept) = self.sieve.kept(&rows)? {
            (rows, times) = filtered(&rows, &times, &kept).map_err(|e| self.failed(e))?;
        }
        let columns = std::iter::once(times).chain(rows.columns().iter().cloned()).collect();
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| self.failed(e))
    }

    /// Which rows an anchor may meet; `None` where that is all. The others were read for another output, or to warm up.
    fn met(&self, times: &ArrayRef) -> Option<BooleanArray> {
        let times = times.as_primitive_opt::<Int64Type>()?.values();
        let is_met = |at: &i64| self.to.met.contains(EventTime::from_micros(*at));
        (!times.iter().all(is_met)).then(|| times.iter().map(|at| Some(is_met(at))).collect())
    }
}

fn filtered(rows: &RecordBatch, times: &ArrayRef, kept: &BooleanArray) -> Result<(RecordBatch, ArrayRef), ArrowError> {
    Ok((filter_record_batch(rows, kept)?, filter(times, kept)?))
}

#[async_trait]
impl OutputPort for ShufflePort {
    fn output(&self) -> OutputIx {
        self.output
    }

    async fn push(&mut self, rows: &RecordBatch, times: &Int64Array) -> Result<RecordBatch, TaskError> {
        // What nobody meets is behind nothing that waits.
        let met = |at: &i64| self.to.met.contains(EventTime::from_micros(*at));
        let low = times.iter().flatten().filter(met).min();
        self.unit_low = [self.unit_low, low].into_iter().flatten().min();
        self.sieved(rows, times)
    }

    async fn write(&mut self, rows: RecordBatch) -> Result<(), TaskError> {
        if let (Some(window), Some(times)) = (self.to.anchors_in, rows.column(0).as_any().downcast_ref::<Int64Array>())
        {
            let inside = times.values().iter().filter(|at| window.contains(EventTime::from_micros(**at)));
            self.anchors += u64::try_from(inside.count()).unwrap_or(u64::MAX);
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let Shuffling { store, backfill, prefix, slices, buckets, .. } = &self.to;
                let name = format!("{prefix}-{}", self.objects);
                self.objects += 1;
                let (schema, keys) = (self.schema.clone(), &self.keys);
                none.insert(ShuffleWriter::create(store, backfill, &name, schema, keys, *slices, *buckets)?)
            }
        };
        writer.write(&rows).await?;
        if writer.buffered_bytes() > self.to.memory {
            writer.flush().await?;
        }
        Ok(())
    }

    fn draw_files(&mut self, _read: u64, _ahead: &[u64]) {
        // A unit begins.
        self.first_low = self.first_low.or(self.unit_low);
        self.unit_low = None;
    }

    /// It is due with each slice that lies behind the reader: nobody can join before.
    async fn due(&mut self) -> Result<Due, TaskError> {
        if self.writer.as_ref().is_some_and(|writer| writer.bytes_written() >= OBJECT_BYTES) {
            return Ok(Due::Over);
        }
        let cell = |at: i64| self.to.slices.cell_of(EventTime::from_micros(at));
        let ahead = self.first_low.zip(self.unit_low).map_or(0, |(first, last)| cell(last).saturating_sub(cell(first)));
        Ok(match ahead {
            SLICES_AHEAD.. => Due::Over,
            1.. => Due::Ripe,
            _ => Due::Free,
        })
    }

    async fn relieve(&mut self) -> Result<(), TaskError> {
        match &mut self.writer {
            Some(writer) => Ok(writer.flush().await?),
            None => Ok(()),
        }
    }

    fn buffered_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| u64::try_from(writer.buffered_bytes()).unwrap_or(u64::MAX))
    }

    async fn close(&mut self) -> Result<Closed, TaskError> {
        (self.first_low, self.unit_low) = (None, None);
        let anchors = std::mem::take(&mut self.anchors);
        let Some(writer) = self.writer.take() else { return Ok(Closed::default()) };
        let object = writer.close().await?;
        Ok(Closed { shuffled: object.map(|object| v1::ShuffleObject { anchors, ..object }), ..Closed::default() })
    }
}
