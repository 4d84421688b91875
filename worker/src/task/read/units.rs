//! The units of a task, and what is known of them before they are read.

use tidegate_common::time::{Bounds, EventTime};
use tidegate_proto::v1;

use super::ReadError;

/// A unit with its bounds.
pub(super) struct Unit {
    pub(super) unit: v1::UnitOfWork,
    pub(super) bounds: Bounds,
}

/// The units of `task`, in the order of their lows.
pub(super) fn units(task: &v1::ReadTask) -> Result<Vec<Unit>, ReadError> {
    let mut promise = EventTime::MIN;
    let mut units = Vec::with_capacity(task.units.len());
    for unit in &task.units {
        let (low, high) = (EventTime::from_micros(unit.low), EventTime::from_micros(unit.high));
        let bad = |what: &str| ReadError::Plan(format!("{} has low {low} and {what}", place(task, unit)));
        let bounds = Bounds::new(low, high).ok_or_else(|| bad(&format!("high {high}")))?;
        if low < promise {
            return Err(bad(&format!("stands behind one of low {promise}")));
        }
        promise = low;
        units.push(Unit { unit: *unit, bounds });
    }
    Ok(units)
}

/// Bytes of input from each unit to the end, with a zero at the end.
pub(super) fn bytes_ahead(units: &[Unit]) -> Vec<u64> {
    let mut ahead = vec![0; units.len() + 1];
    for (at, unit) in units.iter().enumerate().rev() {
        ahead[at] = unit.unit.bytes.saturating_add(ahead[at + 1]);
    }
    ahead
}

/// File and unit, for people.
pub(super) fn place(task: &v1::ReadTask, unit: &v1::UnitOfWork) -> String {
    let file =
        usize::try_from(unit.split).ok().and_then(|at| task.splits.get(at)).and_then(|split| split.file.as_ref());
    let file = file.map_or("a split that the task does not name", |file| file.path.as_str());
    format!("{file}, unit at {}", unit.position)
}
