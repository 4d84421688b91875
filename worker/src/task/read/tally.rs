//! What a read task counts between two hand-ins.

use std::time::Duration;

use tidegate_common::ids::OutputIx;
use tidegate_common::time::{EventTime, Span};
use tidegate_proto::v1;

use super::Closed;
use super::sift::Sifted;

/// What comes with a batch of rows and is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside {
    /// Dead letters.
    pub(super) dead: u64,
    /// Records that are neither.
    pub(super) void: u64,
    /// Offsets without a record.
    pub(super) gaps: u64,
}

impl Beside {
    /// How many places of the unit they take.
    pub(super) fn places(&self) -> u64 {
        self.dead + self.void + self.gaps
    }
}

/// The counts of the units since the last hand-in. `read = passed + filtered + late + dead letter` holds of every output
/// by construction: filtered is what remains.
#[derive(Debug)]
pub(super) struct Tally {
    first_unit: u32,
    rows_read: u64,
    rows_outside: u64,
    rows_dead_letter: u64,
    rows_gaps: u64,
    rows_void: u64,
    rows_disordered: u64,
    pub(super) bytes_read: u64,
    /// Rows that each output's query let pass, or dead letters that it keeps.
    pub(super) passed: Vec<u64>,
    /// The output that keeps dead letters.
    keeper: Option<OutputIx>,
    max_skew: Span,
    /// Processing time at the gate.
    pub(super) held: Duration,
    /// Processing time waiting for the writers.
    pub(super) backpressure: Duration,
    /// Processing time waiting for the rate limit.
    pub(super) limited: Duration,
    /// Processing time reading and answering.
    pub(super) busy: Duration,
}

impl Tally {
    /// Nothing yet, from `first_unit` on.
    pub(super) fn new(first_unit: u32, outputs: usize, keeper: Option<OutputIx>) -> Self {
        Self {
            first_unit,
            rows_read: 0,
            rows_outside: 0,
            rows_dead_letter: 0,
            rows_gaps: 0,
            rows_void: 0,
            rows_disordered: 0,
            bytes_read: 0,
            passed: vec![0; outputs],
            keeper,
            max_skew: Span::ZERO,
            held: Duration::ZERO,
            backpressure: Duration::ZERO,
            limited: Duration::ZERO,
            busy: Duration::ZERO,
        }
    }

    /// Whether there is a unit before `end` to hand in.
    pub(super) fn covers(&self, end: u32) -> bool {
        self.first_unit < end
    }

    /// Counts a batch, and what came with it that is no row, of a unit that was begun when the read watermark was
    /// `watermark`.
    pub(super) fn batch(&mut self, sifted: &Sifted, beside: &Beside, watermark: EventTime) {
        self.rows_read += sifted.rows + beside.dead + beside.void;
        self.rows_outside += sifted.outside;
        self.rows_dead_letter += sifted.dead + beside.dead;
        self.rows_gaps += beside.gaps;
        self.rows_void += beside.void;
        self.rows_disordered += sifted.strays;
        // Before a first watermark is known there is nothing to be ahead of.
        if let Some(newest) = sifted.newest.filter(|_| watermark != EventTime::MIN) {
            self.max_skew = self.max_skew.max(newest.since(watermark));
        }
    }

    /// The hand-in of the units before `end_unit`.
    pub(super) fn hand_in(
        self,
        attempt: String,
        number: u64,
        end_unit: u32,
        closed: Vec<(OutputIx, Closed)>,
    ) -> v1::HandIn {
        let part = |((output, closed), passed): ((OutputIx, Closed), u64)| {
            // To the output that keeps them, dead letters are what it is there for.
            let dead = if self.keeper == Some(output) { 0 } else { self.rows_dead_letter };
            v1::OutputPart {
                output: output.get(),
                rows_read: self.rows_read,
                rows_passed: passed,
                rows_filtered: self.rows_read.saturating_sub(passed).saturating_sub(dead),
                rows_late: 0,
                rows_dead_letter: dead,
                files: closed.files,
                iceberg: closed.iceberg,
                shuffled: closed.shuffled,
            }
        };
        let outputs = closed.into_iter().zip(self.passed.iter().copied()).map(part).collect();
        v1::HandIn {
            attempt,
            number,
            first_unit: self.first_unit,
            end_unit,
            rows_read: self.rows_read,
            rows_outside: self.rows_outside,
            rows_dead_letter: self.rows_dead_letter,
            rows_gaps: self.rows_gaps,
            rows_void: self.rows_void,
            rows_disordered: self.rows_disordered,
            limited_micros: micros(self.limited),
            bytes_read: self.bytes_read,
            outputs,
            max_skew: self.max_skew.as_micros(),
            held_micros: micros(self.held),
            backpressure_micros: micros(self.backpressure),
            busy_micros: micros(self.busy),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
