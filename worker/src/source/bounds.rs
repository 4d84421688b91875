//! What is known of event times before a unit is planned, and what of it lies in the window.

use tidegate_common::time::{Bounds, EventTime, Window};

/// What is known of the event times of a unit's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownBounds {
    /// Those of its rows that have one; none when no row has.
    pub(crate) bounds: Option<Bounds>,
    /// Whether a row has none: such a unit is never left out.
    pub(crate) has_nulls: bool,
}

impl KnownBounds {
    /// Its bounds as a unit of `window`; `None` when it holds nothing of it for certain.
    ///
    /// | bounds in window | nulls | unit |
    /// |---|---|---|
    /// | some part | any | that part |
    /// | no part | no | none |
    /// | no part, or no bounds | yes | the point of the window nearest to its bounds, or to `file`'s |
    pub(crate) fn within(&self, window: Window, file: Option<Bounds>) -> Option<Bounds> {
        if let Some(inside) = self.bounds.and_then(|bounds| bounds.clamp(window)) {
            return Some(inside);
        }
        if !self.has_nulls {
            return None;
        }
        let near = self.bounds.or(file).map_or_else(|| beginning(window), Bounds::low);
        let last = EventTime::from_micros(window.to().as_micros().saturating_sub(1));
        let at = near.max(window.from()).min(last);
        Bounds::new(at, at)
    }
}

/// Where a unit of rows without event time is put when nothing else says: the beginning of what is read.
fn beginning(window: Window) -> EventTime {
    if window.from() == EventTime::MIN {
        EventTime::from_micros(0).min(EventTime::from_micros(window.to().as_micros().saturating_sub(1)))
    } else {
        window.from()
    }
}
