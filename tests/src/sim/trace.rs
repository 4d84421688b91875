//! The trace of a run: a hash over everything that happens, and, where it is asked for, what happened in words.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::scenario::Micros;
use super::world::Event;

/// How many lines are kept; of a longer run the last.
const MOST_LINES: usize = 200_000;

/// The trace of a run.
#[derive(Debug)]
pub(super) struct Trace {
    hash: DefaultHasher,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// An empty trace; in words only where it is `told`.
    pub(super) fn new(told: bool) -> Self {
        Self { hash: DefaultHasher::new(), lines: told.then(VecDeque::new) }
    }

    /// Something happens, after `steps` steps of the core.
    pub(super) fn event(&mut self, now: Micros, steps: u64, event: &Event) {
        let hash = &mut self.hash;
        (now, std::mem::discriminant(event), steps).hash(hash);
        match event {
            Event::Up(link) | Event::Down(link) => link.hash(hash),
            Event::Turn(at, _, run, turn) => (at, run, turn).hash(hash),
            Event::TransactionReply(at, outcome) => (at, outcome).hash(hash),
            Event::SwapHeard(at, _, run, number, heard) => (at, run, number, heard).hash(hash),
            _ => {}
        }
    }

    /// Writes down what happens, where it is asked for.
    pub(super) fn line(&mut self, now: Micros, line: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == MOST_LINES {
            lines.pop_front();
        }
        lines.push_back(format!("{now:>12} {}", line()));
    }

    /// The hash, and the lines.
    pub(super) fn end(self) -> (u64, Vec<String>) {
        (self.hash.finish(), self.lines.unwrap_or_default().into())
    }
}
