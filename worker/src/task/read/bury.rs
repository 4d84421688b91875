//! Dead letters of a read task: written to the output that keeps them, batch by batch, so that none is held longer.

use arrow::array::Array;
use arrow::compute::{filter_record_batch, is_null};
use futures::StreamExt;
use tidegate_common::ids::OutputIx;
use tidegate_proto::v1;

use super::{ReadError, Reading, place};
use crate::source::{DeadRecord, SourceBatch, UnitReader};
use crate::task::TaskError;
use crate::task::dead_letter::{self, Letterhead};

/// Where a read task's dead letters go.
pub struct DeadLetters {
    /// The output that keeps them; one of the task's.
    pub output: OutputIx,
    /// What all of them say.
    pub letterhead: Letterhead,
    /// Reads the same splits with every column: a row without event time is kept whole, whatever the queries need.
    pub whole: Box<dyn UnitReader>,
}

impl Reading {
    /// Writes records of `unit` to the output that keeps dead letters.
    pub(super) async fn bury(&mut self, unit: &v1::UnitOfWork, dead: &[DeadRecord]) -> Result<(), TaskError> {
        let Some(first) = dead.first().filter(|_| !self.again) else { return Ok(()) };
        let place = || place(&self.job.task, unit);
        let Some(kept) = &self.dead_letters else {
            let place = format!("{}, record at {}", place(), first.position);
            return Err(ReadError::Unusable { what: first.error.clone(), place }.into());
        };
        let split = usize::try_from(unit.split).ok().and_then(|at| self.job.task.splits.get(at));
        let file = split.and_then(|split| split.file.as_ref()).map(|file| file.path.as_str()).unwrap_or_default();
        let letters = dead_letter::letters(&kept.letterhead, file, dead)
            .map_err(|source| ReadError::Letters { place: place(), source })?;
        let keeper = kept.output;
        let clock = self.context.lease.clock().clone();
        let outputs = self.outputs.iter_mut().zip(&mut self.tally.passed);
        for (output, passed) in outputs.filter(|(output, _)| output.output() == keeper) {
            let began = clock.now();
            *passed += u64::try_from(letters.num_rows()).unwrap_or(u64::MAX);
            output.write(letters.clone()).await?;
            self.tally.backpressure += clock.now().since(began);
        }
        Ok(())
    }

    /// Reads `unit` once more, with every column, and writes its `planned` rows without event time to the output that
    /// keeps dead letters.
    pub(super) async fn bury_rows(&mut self, unit: &v1::UnitOfWork, planned: u64) -> Result<(), TaskError> {
        let Some(kept) = &mut self.dead_letters else { return Ok(()) };
        let mut batches = kept.whole.read(unit).await?;
        let (mut rows, mut found) = (0, 0);
        while let Some(batch) = batches.next().await {
            self.context.lease.check()?;
            let batch = batch?;
            let dead = without_time(&batch, unit.position, rows)
                .map_err(|source| ReadError::Letters { place: place(&self.job.task, unit), source })?;
            rows += u64::try_from(batch.rows.num_rows()).unwrap_or(u64::MAX);
            found += u64::try_from(dead.len()).unwrap_or(u64::MAX);
            self.bury(unit, &dead).await?;
        }
        if found != planned {
            return Err(ReadError::Rows { found, planned, place: place(&self.job.task, unit) }.into());
        }
        Ok(())
    }
}

/// The rows of `batch` that have no event time; its first row is row `before` of the unit at `position`,
/// unless it says which rows it has.
fn without_time(batch: &SourceBatch, position: u64, before: u64) -> Result<Vec<DeadRecord>, arrow::error::ArrowError> {
    let times = &batch.event_time;
    let rows = filter_record_batch(&batch.rows, &is_null(times)?)?;
    let place =
        |(at, row): (u64, usize)| batch.places.as_ref().and_then(|places| places.get(row)).copied().unwrap_or(at);
    let places = (before..).zip(0..times.len()).filter(|(_, row)| times.is_null(*row)).map(place);
    dead_letter::rows_as_json(&rows, position, places)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn a_dead_row_is_named_by_its_place_also_where_others_were_left_out() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_from_iter([("v", values)]).unwrap();
        let batch = SourceBatch::of(rows, Int64Array::from(vec![None, Some(5), None]), Vec::new());
        let named = |batch: &SourceBatch| -> Vec<u64> {
            without_time(batch, 0, 10).unwrap().iter().filter_map(|dead| dead.row).collect()
        };
        assert_eq!(named(&batch), [10, 12]);
        assert_eq!(named(&SourceBatch { places: Some(vec![13, 14, 19]), ..batch }), [13, 19]);
    }
}
