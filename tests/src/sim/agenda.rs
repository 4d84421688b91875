//! The agenda of a world: events in the order of their times, and of their making within one time.

use std::collections::BTreeMap;

use super::scenario::Micros;
use super::world::Event;

/// What is to happen, and when.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeMap<(Micros, u64), Event>,
    made: u64,
}

impl Agenda {
    /// `event` happens at `at`.
    pub(super) fn put(&mut self, at: Micros, event: Event) {
        self.made += 1;
        self.due.insert((at, self.made), event);
    }

    /// What happens next.
    pub(super) fn next(&mut self) -> Option<(Micros, Event)> {
        self.due.pop_first().map(|((at, _), event)| (at, event))
    }
}
