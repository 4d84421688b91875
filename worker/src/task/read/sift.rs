//! Sorts the rows of a batch by event time: inside the window, outside it, without any.

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{filter, filter_record_batch, max, min};
use arrow::error::ArrowError;
use tidegate_common::time::{Bounds, EventTime, Window};

use crate::source::SourceBatch;

/// A batch, sorted. `rows = kept + outside + dead`.
#[derive(Debug)]
pub(super) struct Sifted {
    /// The rows inside the window.
    pub(super) kept: RecordBatch,
    /// Their event times.
    pub(super) times: Int64Array,
    /// Rows in the batch.
    pub(super) rows: u64,
    /// Rows outside the window.
    pub(super) outside: u64,
    /// Rows without event time.
    pub(super) dead: u64,
    /// The first row without event time.
    pub(super) first_dead: Option<u64>,
    /// The latest event time inside the window.
    pub(super) newest: Option<EventTime>,
    /// The first row inside the window that lies outside the unit's bounds, where none may.
    pub(super) stray: Option<(u64, EventTime)>,
    /// Rows inside the window that lie outside the unit's bounds, where they may.
    pub(super) strays: u64,
}

/// Sorts `batch`, of a unit with these bounds (clamped to `window`).
pub(super) fn sift(batch: SourceBatch, window: Window, bounds: Bounds) -> Result<Sifted, ArrowError> {
    let SourceBatch { rows: kept, event_time: times, may_stray, .. } = batch;
    if times.len() != kept.num_rows() {
        let (times, rows) = (times.len(), kept.num_rows());
        return Err(ArrowError::InvalidArgumentError(format!("{times} event times for {rows} rows")));
    }
    let (rows, dead) = (count(times.len()), count(times.null_count()));
    let in_bounds = |at: Option<i64>| at.is_none_or(|at| bounds.contains(EventTime::from_micros(at)));
    // Bounds are clamped to the window, so what lies within them lies within the window.
    if dead == 0 && in_bounds(min(&times)) && in_bounds(max(&times)) {
        let newest = max(&times).map(EventTime::from_micros);
        return Ok(Sifted { kept, times, rows, outside: 0, dead, first_dead: None, newest, stray: None, strays: 0 });
    }
    let inside = |at: i64| window.contains(EventTime::from_micros(at));
    let mask: BooleanArray = times.iter().map(|at| Some(at.is_some_and(inside))).collect();
    let passed = count(mask.true_count());
    let newest = times.iter().flatten().filter(|at| inside(*at)).max().map(EventTime::from_micros);
    let kept_times = filter(&times, &mask)?;
    Ok(Sifted {
        kept: filter_record_batch(&kept, &mask)?,
        times: kept_times.as_primitive().clone(),
        rows,
        outside: rows - passed - dead,
        dead,
        first_dead: times.iter().position(|at| at.is_none()).map(count),
        newest,
        stray: strays(&times, window, bounds).next().filter(|_| !may_stray),
        strays: if may_stray { count(strays(&times, window, bounds).count()) } else { 0 },
    })
}

fn strays(times: &Int64Array, window: Window, bounds: Bounds) -> impl Iterator<Item = (u64, EventTime)> {
    let at = |(row, at): (usize, Option<i64>)| Some((count(row), EventTime::from_micros(at?)));
    times.iter().enumerate().filter_map(at).filter(move |(_, at)| window.contains(*at) && !bounds.contains(*at))
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;

    use super::*;

    fn at(micros: i64) -> EventTime {
        EventTime::from_micros(micros)
    }

    fn sifted(times: &[Option<i64>], low: i64, high: i64) -> Sifted {
        let event_time = Int64Array::from(times.to_vec());
        let rows = RecordBatch::try_from_iter([("t", Arc::new(event_time.clone()) as ArrayRef)]).unwrap();
        let window = Window::new(at(10), at(20)).unwrap();
        sift(SourceBatch::of(rows, event_time, Vec::new()), window, Bounds::new(at(low), at(high)).unwrap()).unwrap()
    }

    #[test]
    fn rows_are_inside_outside_or_dead() {
        let sifted = sifted(&[Some(9), Some(10), None, Some(19), Some(20)], 10, 19);
        assert_eq!((sifted.rows, sifted.kept.num_rows(), sifted.outside, sifted.dead), (5, 2, 2, 1));
        assert_eq!((sifted.first_dead, sifted.newest, sifted.stray), (Some(2), Some(at(19)), None));
    }

    #[test]
    fn strays_that_are_allowed_are_counted() {
        let event_time = Int64Array::from(vec![12, 16, 25, 17]);
        let rows = RecordBatch::try_from_iter([("t", Arc::new(event_time.clone()) as ArrayRef)]).unwrap();
        let window = Window::new(at(10), at(20)).unwrap();
        let batch = SourceBatch { may_stray: true, ..SourceBatch::of(rows, event_time, Vec::new()) };
        let sifted = sift(batch, window, Bounds::new(at(11), at(15)).unwrap()).unwrap();
        assert_eq!((sifted.stray, sifted.strays, sifted.kept.num_rows()), (None, 2, 3));
    }

    #[test]
    fn a_unit_inside_the_window_passes_whole() {
        let sifted = sifted(&[Some(12), Some(11)], 11, 15);
        assert_eq!((sifted.rows, sifted.kept.num_rows(), sifted.newest), (2, 2, Some(at(12))));
    }

    #[test]
    fn a_row_inside_the_window_and_outside_its_unit_is_a_stray() {
        assert_eq!(sifted(&[Some(12), Some(16)], 11, 15).stray, Some((1, at(16))));
        assert_eq!(sifted(&[Some(12), Some(25)], 11, 15).stray, None, "outside the window it moves nothing");
    }
}
