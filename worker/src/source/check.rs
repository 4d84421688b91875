//! Checks what a reader yields against what was planned: the rows of a unit, to the last one, within its bounds.

use arrow::array::Array;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use super::SourceBatch;
use super::error::SourceError;

/// The pin of the split at `at`.
pub(crate) fn pin_of_split<'a>(
    source_name: &str,
    splits: &'a [v1::Split],
    at: u32,
) -> Result<&'a v1::FilePin, SourceError> {
    let split = usize::try_from(at).ok().and_then(|at| splits.get(at));
    split.and_then(|split| split.file.as_ref()).ok_or_else(|| SourceError::Input {
        source_name: source_name.to_owned(),
        what: format!("a unit names split {at} of {}: the plan is damaged, plan the backfill again", splits.len()),
    })
}

/// What one unit was planned as.
pub(crate) struct Unit {
    file: String,
    place: String,
    /// 0 is not known.
    rows: u64,
    low: i64,
    high: i64,
    window: Window,
    way_out: &'static str,
}

impl Unit {
    /// The unit at `place` of `file`.
    pub(crate) fn new(file: &str, place: &str, unit: &v1::UnitOfWork, window: Window, way_out: &'static str) -> Self {
        let (file, place) = (file.to_owned(), place.to_owned());
        Self { file, place, rows: unit.rows, low: unit.low, high: unit.high, window, way_out }
    }

    /// `batches`, until one breaks the plan: a row of the window outside the unit's bounds, a row too many or too few.
    pub(crate) fn over(
        self,
        batches: BoxStream<'static, Result<SourceBatch, SourceError>>,
    ) -> BoxStream<'static, Result<SourceBatch, SourceError>> {
        let state = Some((self, batches, 0_u64));
        let checked = futures::stream::unfold(state, |state| async move {
            let (unit, mut batches, seen) = state?;
            match batches.next().await {
                None if unit.rows != 0 && seen != unit.rows => Some((Err(unit.miscounted(seen)), None)),
                None => None,
                Some(Err(e)) => Some((Err(e), None)),
                Some(Ok(batch)) => match unit.check(&batch, seen) {
                    Ok(now) => Some((Ok(batch), Some((unit, batches, now)))),
                    Err(e) => Some((Err(e), None)),
                },
            }
        });
        checked.boxed()
    }

    fn check(&self, batch: &SourceBatch, before: u64) -> Result<u64, SourceError> {
        let times = &batch.event_time;
        let (from, to) = (self.window.from().as_micros(), self.window.to().as_micros());
        let is_wrong = |at: i64| from <= at && at < to && !(self.low <= at && at <= self.high);
        let wrong = if batch.may_stray {
            None
        } else if times.null_count() == 0 {
            times.values().iter().position(|at| is_wrong(*at))
        } else {
            times.iter().position(|at| at.is_some_and(is_wrong))
        };
        if let Some(row) = wrong {
            return Err(SourceError::OutOfBounds {
                file: self.file.clone(),
                place: self.place.clone(),
                row: before + row as u64,
                found: EventTime::from_micros(times.value(row)),
                low: EventTime::from_micros(self.low),
                high: EventTime::from_micros(self.high),
                window: self.window,
                way_out: self.way_out,
            });
        }
        let now = before + times.len() as u64 + batch.dead.len() as u64 + batch.gaps + batch.void;
        if self.rows != 0 && now > self.rows { Err(self.miscounted(now)) } else { Ok(now) }
    }

    fn miscounted(&self, found: u64) -> SourceError {
        SourceError::Rows { file: self.file.clone(), place: self.place.clone(), planned: self.rows, found }
    }
}
