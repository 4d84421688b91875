//! The read task: the gated loop over the units of one source.
//!
//! A unit is begun only if the gate permits it, and the gate is asked between units and nowhere else. What was read is
//! handed in at unit boundaries: when files are of their size, when the coordinator wants the slot, and at the end. A
//! read that holds its share of memory that is used up ends its row groups. The loop knows neither SQL nor Iceberg: each output is an [`OutputPort`],
//! that of the dead letters, too.

mod again;
mod bury;
mod error;
mod limit;
mod sift;
mod tally;
#[cfg(test)]
mod tests;
mod units;

use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tidegate_common::clock::Monotonic;
use tidegate_common::fence::{Fence, Fences};
use tidegate_common::ids::{OutputIx, SourceIx};
use tidegate_common::spec::RateLimit;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use super::budget::{Budget, Charge};
use super::{Cursor, Fenced, TaskContext, TaskEnd, TaskError, Verdict, Wish};
use crate::sink::Due;
use crate::source::{NO_EVENT_TIME, UnitReader};
pub use again::read_again;
pub use bury::DeadLetters;
pub use error::ReadError;
use limit::Limiter;
use tally::{Beside, Tally};
use units::{Unit, bytes_ahead, place, units};

/// How long a wait for the rate limit goes on without a look at the lease.
const MAX_NAP: Duration = Duration::from_secs(1);

/// Where a read task's rows go: one output's query and its writer.
#[async_trait]
pub trait OutputPort: Send {
    /// The output's place in the spec.
    fn output(&self) -> OutputIx;

    /// The query's answer to `rows`, which have these event times: never more rows than were pushed.
    async fn push(&mut self, rows: &RecordBatch, times: &Int64Array) -> Result<RecordBatch, TaskError>;

    /// Writes an answer of [`OutputPort::push`]; waits where the writer is behind.
    async fn write(&mut self, rows: RecordBatch) -> Result<(), TaskError>;

    /// Draws the files ahead, at the beginning of a unit: `read` bytes of input were read, and `ahead` are those from
    /// each unit still to be read to the end, the next first, with a zero at the end.
    fn draw_files(&mut self, read: u64, ahead: &[u64]);

    /// Whether its files are such that a hand-in is due.
    async fn due(&mut self) -> Result<Due, TaskError>;

    /// Gives back what memory it holds; its open files go on.
    async fn relieve(&mut self) -> Result<(), TaskError>;

    /// Bytes of memory that it holds.
    fn buffered_bytes(&self) -> u64;

    /// Closes the open files and gives them out; what is written next goes into new ones.
    async fn close(&mut self) -> Result<Closed, TaskError>;
}

/// The files that one output closed at a unit boundary.
#[derive(Clone, Debug, Default)]
pub struct Closed {
    /// The files, for the coordinator.
    pub files: Vec<v1::DataFile>,
    /// Their Iceberg metadata; only the sink decodes it.
    pub iceberg: Bytes,
    /// Of an output that joins: its rows, which wait for that in the shuffle store.
    pub shuffled: Option<v1::ShuffleObject>,
}

/// What to read, and how.
#[derive(Clone, Debug)]
pub struct ReadJob {
    /// The source, whose rate limit its readers share.
    pub source: SourceIx,
    /// The units and their splits.
    pub task: v1::ReadTask,
    /// The first unit to be read.
    pub next_unit: u32,
    /// The read window; rows outside it are counted and not passed on.
    pub window: Window,
    /// How fast the source may be read, by all of its readers together.
    pub rate_limit: RateLimit,
    /// All of them, outside tests.
    pub fences: Fences,
}

/// Reads `job` from `source` into `outputs`; without `dead_letters`, a record that is none fails the task.
///
/// # Errors
/// Whatever the source, the outputs and [`ReadError`] say; an error of class fenced when the right is lost.
pub async fn read(
    context: TaskContext,
    job: ReadJob,
    source: Box<dyn UnitReader>,
    outputs: Vec<Box<dyn OutputPort>>,
    dead_letters: Option<DeadLetters>,
    budget: &Budget,
) -> Result<TaskEnd, TaskError> {
    Reading::new(context, job, source, outputs, dead_letters, budget)?.run().await
}

struct Reading {
    context: TaskContext,
    job: ReadJob,
    units: Vec<Unit>,
    /// Bytes of input from each unit to the end.
    ahead: Vec<u64>,
    source: Box<dyn UnitReader>,
    outputs: Vec<Box<dyn OutputPort>>,
    dead_letters: Option<DeadLetters>,
    charge: Charge,
    limiter: Limiter,
    /// What the next hand-in covers.
    tally: Tally,
    number: u64,
    /// Bytes of input that this attempt has read.
    bytes_read: u64,
    /// Whether all of it was read before, and what is no row was dealt with then.
    again: bool,
}

impl Reading {
    fn new(
        context: TaskContext,
        job: ReadJob,
        source: Box<dyn UnitReader>,
        outputs: Vec<Box<dyn OutputPort>>,
        dead_letters: Option<DeadLetters>,
        budget: &Budget,
    ) -> Result<Self, TaskError> {
        let units = units(&job.task)?;
        let keeper = dead_letters.as_ref().map(|kept| kept.output);
        Ok(Self {
            ahead: bytes_ahead(&units),
            charge: budget.open(),
            limiter: Limiter::new(job.rate_limit),
            tally: Tally::new(job.next_unit, outputs.len(), keeper),
            context,
            job,
            units,
            source,
            outputs,
            dead_letters,
            number: 0,
            bytes_read: 0,
            again: false,
        })
    }

    async fn run(&mut self) -> Result<TaskEnd, TaskError> {
        let mut at = self.job.next_unit;
        self.charge.set(self.source.ahead_bytes());
        while self.unit(at).is_some() {
            self.promise(at, false);
            let Some(watermark) = self.admit(at).await? else { return self.leave(at).await };
            self.read_unit(at, watermark).await?;
            at += 1;
            self.promise(at, false);
            if self.unit(at).is_none() {
                break;
            }
            if self.is_due().await? {
                self.hand_in(at, false).await?;
            } else if self.charge.over_share() {
                self.relieve(at).await?;
            }
        }
        if self.tally.covers(at) {
            self.hand_in(at, false).await?;
            return Ok(TaskEnd::HandedIn);
        }
        Ok(TaskEnd::GivenBack)
    }

    async fn is_due(&mut self) -> Result<bool, TaskError> {
        let keeper = self.dead_letters.as_ref().map(|kept| kept.output);
        let mut due = Vec::with_capacity(self.outputs.len());
        for output in &mut self.outputs {
            let of = output.due().await?;
            // A few dead letters are not waited for.
            due.push(if keeper == Some(output.output()) && of != Due::Over { Due::Free } else { of });
        }
        Ok(Due::of_all(&due))
    }

    fn unit(&self, at: u32) -> Option<&Unit> {
        usize::try_from(at).ok().and_then(|at| self.units.get(at))
    }

    fn now(&self) -> Monotonic {
        self.context.lease.clock().now()
    }

    fn promise(&self, at: u32, paused: bool) {
        let at = self.unit(at).map_or(EventTime::MAX, |unit| unit.bounds.low());
        self.context.report(Cursor { at, paused });
    }

    /// Waits until the gate permits unit `at`: the read watermark as it is then, or `None` when the task is to leave.
    async fn admit(&mut self, at: u32) -> Result<Option<EventTime>, TaskError> {
        let Some(bounds) = self.unit(at).map(|unit| unit.bounds) else { return Ok(None) };
        let gated = self.job.fences.stands(Fence::GateBetweenUnits);
        let mut held_since = None;
        let admitted = loop {
            self.context.lease.check()?;
            if *self.context.wish.borrow_and_update() == Wish::Leave {
                break None;
            }
            let gate = *self.context.gate.borrow_and_update();
            if !gated || gate.permits(bounds) {
                break Some(gate.watermark);
            }
            if held_since.is_none() {
                held_since = Some(self.now());
                self.promise(at, true);
            }
            let over_share = tokio::select! {
                gate = self.context.gate.changed() => { gate.map_err(|_| Fenced)?; false }
                wish = self.context.wish.changed() => { wish.map_err(|_| Fenced)?; false }
                () = self.charge.until_over_share(), if self.tally.covers(at) && self.buffered_bytes() > 0 => true,
            };
            if over_share {
                self.relieve(at).await?;
            }
        };
        if let Some(since) = held_since {
            self.tally.held += self.now().since(since);
            self.promise(at, false);
        }
        Ok(admitted)
    }

    async fn read_unit(&mut self, at: u32, watermark: EventTime) -> Result<(), TaskError> {
        let Some(&Unit { unit, bounds, .. }) = self.unit(at) else { return Ok(()) };
        let (began, waited) = (self.now(), self.tally.backpressure + self.tally.limited);
        if let Some(ahead) = usize::try_from(at).ok().and_then(|at| self.ahead.get(at..)) {
            self.outputs.iter_mut().for_each(|output| output.draw_files(self.bytes_read, ahead));
        }
        let (mut rows, mut without_time) = (0, 0);
        let mut batches = self.source.read(&unit).await?;
        while let Some(batch) = batches.next().await {
            self.context.lease.check()?;
            let mut batch = batch?;
            let (dead, bytes, is_archived) = (std::mem::take(&mut batch.dead), batch.bytes, batch.is_archived);
            let mut beside = Beside { void: batch.void, gaps: batch.gaps, dead: 0 };
            let place = || place(&self.job.task, &unit);
            let places = batch.places.take();
            let sifted = sift::sift(batch, self.job.window, bounds)
                .map_err(|source| ReadError::Filter { place: place(), source })?;
            let row = |row: u64| {
                let known = places.as_ref().zip(usize::try_from(row).ok()).and_then(|(places, row)| places.get(row));
                format!("{}, row {}", place(), known.copied().unwrap_or(rows + row))
            };
            if let Some((stray, time)) = sifted.stray {
                return Err(ReadError::OutOfBounds { at: time, bounds, place: row(stray) }.into());
            }
            if let (Some(dead), None, false) = (sifted.first_dead, &self.dead_letters, self.again) {
                return Err(ReadError::Unusable { what: NO_EVENT_TIME.to_owned(), place: row(dead) }.into());
            }
            beside.dead = u64::try_from(dead.len()).unwrap_or(u64::MAX);
            rows += sifted.rows + beside.places();
            without_time += sifted.dead;
            self.tally.batch(&sifted, &beside, watermark);
            self.bury(&unit, &dead).await?;
            self.pass_on(sifted.kept, &sifted.times).await?;
            if !is_archived {
                self.keep_to_limit(sifted.rows + beside.dead + beside.void, bytes).await?;
            }
        }
        drop(batches);
        if without_time > 0 {
            self.bury_rows(&unit, without_time).await?;
        }
        if unit.rows > 0 && rows != unit.rows {
            let place = place(&self.job.task, &unit);
            return Err(ReadError::Rows { found: rows, planned: unit.rows, place }.into());
        }
        self.tally.bytes_read += unit.bytes;
        self.bytes_read = self.bytes_read.saturating_add(unit.bytes);
        let spent = self.now().since(began);
        let idle = (self.tally.backpressure + self.tally.limited).saturating_sub(waited);
        self.tally.busy += spent.saturating_sub(idle);
        Ok(())
    }

    async fn pass_on(&mut self, rows: RecordBatch, times: &Int64Array) -> Result<(), TaskError> {
        let pushed = u64::try_from(rows.num_rows()).unwrap_or(u64::MAX);
        let clock = self.context.lease.clock();
        let keeper = self.dead_letters.as_ref().map(|kept| kept.output);
        let outputs = self.outputs.iter_mut().zip(&mut self.tally.passed);
        for (output, passed) in outputs.filter(|(output, _)| pushed > 0 && keeper != Some(output.output())) {
            let answer = output.push(&rows, times).await?;
            let answered = u64::try_from(answer.num_rows()).unwrap_or(u64::MAX);
            if answered > pushed {
                return Err(ReadError::MoreRows { output: output.output(), read: pushed, passed: answered }.into());
            }
            *passed += answered;
            if answered > 0 {
                let began = clock.now();
                output.write(answer).await?;
                self.tally.backpressure += clock.now().since(began);
            }
        }
        let in_hand = u64::try_from(rows.get_array_memory_size()).unwrap_or(u64::MAX);
        self.charge.set(self.buffered_bytes().saturating_add(in_hand).saturating_add(self.source.ahead_bytes()));
        Ok(())
    }

    /// Gives back the memory that the outputs hold, before unit `at`; where it is not enough, by a hand-in.
    async fn relieve(&mut self, at: u32) -> Result<(), TaskError> {
        self.flush().await?;
        match self.buffered_bytes() > 0 && self.charge.over_share() && self.tally.covers(at) {
            true => self.hand_in(at, false).await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), TaskError> {
        let (clock, began) = (self.context.lease.clock().clone(), self.now());
        for output in &mut self.outputs {
            output.relieve().await?;
        }
        self.tally.backpressure += clock.now().since(began);
        self.charge.set(self.buffered_bytes().saturating_add(self.source.ahead_bytes()));
        Ok(())
    }

    fn buffered_bytes(&self) -> u64 {
        self.outputs.iter().map(|output| output.buffered_bytes()).sum()
    }

    /// Waits until this task's share of the source's rate limit allows more.
    async fn keep_to_limit(&mut self, records: u64, bytes: u64) -> Result<(), TaskError> {
        if self.limiter.is_open() {
            return Ok(());
        }
        let at = usize::try_from(self.job.source.get()).unwrap_or(usize::MAX);
        self.limiter.owe(records, bytes);
        let began = self.now();
        loop {
            self.context.lease.check()?;
            let readers = self.context.readers.borrow().get(at).copied().unwrap_or(1);
            let wait = self.limiter.wait(self.now(), readers);
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait.min(MAX_NAP)).await;
        }
        self.tally.limited += self.now().since(began);
        Ok(())
    }

    /// Hands in what was read of the units before `end`, and gives the rest back.
    async fn leave(&mut self, end: u32) -> Result<TaskEnd, TaskError> {
        if !self.tally.covers(end) {
            return Ok(TaskEnd::GivenBack);
        }
        self.hand_in(end, true).await?;
        Ok(TaskEnd::HandedIn)
    }

    /// Closes every output's files and hands in the units before `end`.
    async fn hand_in(&mut self, end: u32, released: bool) -> Result<(), TaskError> {
        self.context.lease.check()?;
        let (clock, began) = (self.context.lease.clock().clone(), self.now());
        let mut closed = Vec::with_capacity(self.outputs.len());
        for output in &mut self.outputs {
            closed.push((output.output(), output.close().await?));
        }
        self.charge.set(self.source.ahead_bytes());
        self.tally.backpressure += clock.now().since(began);
        let keeper = self.dead_letters.as_ref().map(|kept| kept.output);
        let fresh = Tally::new(end, self.outputs.len(), keeper);
        let tally = std::mem::replace(&mut self.tally, fresh);
        let hand_in = tally.hand_in(self.context.attempt.clone(), self.number, end, closed);
        match self.context.hand_in(hand_in, released).await? {
            Verdict::Accepted => {
                self.number += 1;
                Ok(())
            }
            Verdict::Refused { reason } => Err(ReadError::Refused { number: self.number, reason }.into()),
        }
    }
}
