//! How much of a plan can be read at once: the gate, simulated over the read tasks of an alignment group.
//!
//! Pure. A task reads its units one after the other; a unit begins when [`Gate::permits`] it and a slot is free, the
//! lowest first, and lasts as long as its cost. A task that waits at the gate takes no slot, as in a run, where it
//! yields. It knows neither workers nor hand-ins.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use tidegate_common::gate::Gate;
use tidegate_common::time::{Bounds, EventTime, Span};

/// A unit as the simulation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedUnit {
    /// Its event-time bounds.
    pub bounds: Bounds,
    /// How long reading it lasts, in any unit of work; 0 counts as 1.
    pub cost: u64,
}

/// What a simulation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Busy {
    /// Slots that are busy, on average over the whole run; 0 where there is nothing to read.
    pub average: f64,
    /// Slots that are busy at most.
    pub most: usize,
    /// How long it lasts, in the unit of the costs.
    pub lasts: u64,
}

/// Reads `tasks`, each a row of units by low, with `slots` slots (at least 1; `usize::MAX` for no limit) under
/// `max_drift`; without a drift there is no gate.
///
/// O(n log n) in the units.
pub fn simulate(tasks: &[Vec<PlannedUnit>], max_drift: Option<Span>, slots: usize) -> Busy {
    let mut run = Run { tasks, next: vec![0; tasks.len()], ..Run::default() };
    (0..tasks.len()).for_each(|task| run.wait(task));
    let work: u64 = tasks.iter().flatten().map(cost).fold(0, u64::saturating_add);
    let mut most = 0;
    loop {
        run.admit(max_drift);
        run.start(slots.max(1));
        most = most.max(run.running.len());
        if !run.finish() {
            break;
        }
    }
    let average = if run.now == 0 { 0.0 } else { work as f64 / run.now as f64 };
    Busy { average, most, lasts: run.now }
}

fn cost(unit: &PlannedUnit) -> u64 {
    unit.cost.max(1)
}

/// A run in simulated time. A task stands in at most one of `waiting`, `ready` and `running`, with its next unit.
#[derive(Default)]
struct Run<'a> {
    tasks: &'a [Vec<PlannedUnit>],
    next: Vec<usize>,
    now: u64,
    /// The low of what each task has still to read, what it reads now included: their least is the read watermark.
    unread: BTreeSet<(EventTime, usize)>,
    waiting_by_low: BTreeSet<(EventTime, usize)>,
    waiting_by_high: BTreeSet<(EventTime, usize)>,
    ready: BTreeSet<(EventTime, usize)>,
    running: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Run<'_> {
    fn unit(&self, task: usize) -> Option<PlannedUnit> {
        self.tasks.get(task)?.get(*self.next.get(task)?).copied()
    }

    fn wait(&mut self, task: usize) {
        let Some(unit) = self.unit(task) else { return };
        self.unread.insert((unit.bounds.low(), task));
        self.waiting_by_low.insert((unit.bounds.low(), task));
        self.waiting_by_high.insert((unit.bounds.high(), task));
    }

    /// Moves to `ready` what the gate permits. The watermark never falls here, so what is permitted once stays so.
    fn admit(&mut self, max_drift: Option<Span>) {
        let Some((watermark, _)) = self.unread.first() else { return };
        let gate = Gate::new(*watermark, max_drift);
        while let Some((task, bounds)) = self.permitted(gate) {
            self.waiting_by_low.remove(&(bounds.low(), task));
            self.waiting_by_high.remove(&(bounds.high(), task));
            self.ready.insert((bounds.low(), task));
        }
    }

    /// A waiting task whose next unit the gate permits. Where neither that of the lowest high nor that of the lowest
    /// low may begin, none may.
    fn permitted(&self, gate: Gate) -> Option<(usize, Bounds)> {
        let candidates = [self.waiting_by_high.first(), self.waiting_by_low.first()];
        candidates.into_iter().flatten().find_map(|(_, task)| {
            let bounds = self.unit(*task)?.bounds;
            gate.permits(bounds).then_some((*task, bounds))
        })
    }

    fn start(&mut self, slots: usize) {
        while self.running.len() < slots
            && let Some((_, task)) = self.ready.pop_first()
        {
            let cost = self.unit(task).as_ref().map_or(0, cost);
            self.running.push(Reverse((self.now.saturating_add(cost), task)));
        }
    }

    /// Goes on to the end of the units that end next; `false` when nothing runs.
    fn finish(&mut self) -> bool {
        let Some(Reverse((end, _))) = self.running.peek().copied() else { return false };
        self.now = end;
        while let Some(Reverse((at, task))) = self.running.peek().copied()
            && at == end
        {
            self.running.pop();
            if let Some(unit) = self.unit(task) {
                self.unread.remove(&(unit.bounds.low(), task));
            }
            if let Some(next) = self.next.get_mut(task) {
                *next += 1;
            }
            self.wait(task);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: usize = usize::MAX;

    fn unit(low: i64, high: i64, cost: u64) -> PlannedUnit {
        let at = EventTime::from_micros;
        PlannedUnit { bounds: Bounds::new(at(low), at(high)).unwrap(), cost }
    }

    fn drift(micros: i64) -> Option<Span> {
        Some(Span::from_micros(micros))
    }

    #[test]
    fn two_tasks_of_the_same_time_are_read_at_once_however_tight_the_drift() {
        let plan = [vec![unit(0, 9, 5)], vec![unit(0, 9, 5)]];
        assert_eq!(simulate(&plan, drift(1), FREE), Busy { average: 2.0, most: 2, lasts: 5 });
    }

    #[test]
    fn files_one_after_the_other_in_time_are_read_one_after_the_other_unless_the_drift_spans_them() {
        let plan: Vec<_> = (0..4).map(|day| vec![unit(day * 10, day * 10 + 9, 5)]).collect();
        assert_eq!(simulate(&plan, drift(9), FREE), Busy { average: 1.0, most: 1, lasts: 20 });
        assert_eq!(simulate(&plan, drift(19), FREE), Busy { average: 2.0, most: 2, lasts: 10 });
        assert_eq!(simulate(&plan, None, FREE), Busy { average: 4.0, most: 4, lasts: 5 });
    }

    #[test]
    fn the_units_of_one_task_are_never_read_at_once() {
        let plan = [vec![unit(0, 9, 5), unit(0, 9, 5), unit(0, 9, 5)]];
        assert_eq!(simulate(&plan, None, FREE), Busy { average: 1.0, most: 1, lasts: 15 });
    }

    #[test]
    fn a_unit_wider_than_the_drift_is_read_when_it_holds_the_watermark() {
        let plan = [vec![unit(0, 100, 5)], vec![unit(50, 60, 5)]];
        assert_eq!(simulate(&plan, drift(10), FREE), Busy { average: 1.0, most: 1, lasts: 10 });
    }

    #[test]
    fn slots_are_the_limit_where_the_gate_is_not() {
        let plan = vec![vec![unit(0, 9, 5)]; 6];
        assert_eq!(simulate(&plan, drift(1), 4), Busy { average: 3.0, most: 4, lasts: 10 });
        assert_eq!(simulate(&plan, drift(1), 0).lasts, 30, "no slot counts as one");
    }

    #[test]
    fn nothing_to_read_keeps_nobody_busy() {
        assert_eq!(simulate(&[], drift(1), FREE), Busy::default());
        assert_eq!(simulate(&[vec![]], None, FREE), Busy::default());
    }

    /// The same without any order kept: every head is asked at every step.
    fn naive(tasks: &[Vec<PlannedUnit>], max_drift: Option<Span>) -> Busy {
        let mut next = vec![0; tasks.len()];
        let mut ends: Vec<Option<u64>> = vec![None; tasks.len()];
        let (mut now, mut most) = (0, 0);
        loop {
            let heads: Vec<_> = (0..tasks.len()).filter(|task| next[*task] < tasks[*task].len()).collect();
            let Some(watermark) = heads.iter().map(|task| tasks[*task][next[*task]].bounds.low()).min() else { break };
            let gate = Gate::new(watermark, max_drift);
            for task in heads {
                let unit = tasks[task][next[task]];
                if ends[task].is_none() && gate.permits(unit.bounds) {
                    ends[task] = Some(now + unit.cost.max(1));
                }
            }
            most = most.max(ends.iter().flatten().count());
            now = *ends.iter().flatten().min().unwrap();
            for (task, end) in ends.iter_mut().enumerate() {
                if *end == Some(now) {
                    *end = None;
                    next[task] += 1;
                }
            }
        }
        let work: u64 = tasks.iter().flatten().map(|unit| unit.cost.max(1)).sum();
        Busy { average: if now == 0 { 0.0 } else { work as f64 / now as f64 }, most, lasts: now }
    }

    fn plans() -> impl Strategy<Value = Vec<Vec<PlannedUnit>>> {
        let unit = (0_i64..50, 0_i64..20, 0_u64..9).prop_map(|(low, width, cost)| unit(low, low + width, cost));
        let task = prop::collection::vec(unit, 0..6).prop_map(|mut units| {
            units.sort_by_key(|unit| unit.bounds.low());
            units
        });
        prop::collection::vec(task, 0..8)
    }

    proptest! {
        #[test]
        fn the_ordered_simulation_is_the_naive_one(plan in plans(), drift in prop::option::of(1_i64..40)) {
            let drift = drift.map(Span::from_micros);
            prop_assert_eq!(simulate(&plan, drift, FREE), naive(&plan, drift));
        }

        #[test]
        fn a_wider_drift_never_lasts_longer_and_fewer_slots_never_shorter(plan in plans(), drift in 1_i64..40, slots in 1_usize..5) {
            let tight = simulate(&plan, Some(Span::from_micros(drift)), FREE);
            let wide = simulate(&plan, Some(Span::from_micros(drift * 2)), FREE);
            prop_assert!(wide.lasts <= tight.lasts);
            let few = simulate(&plan, Some(Span::from_micros(drift)), slots);
            prop_assert!(few.most <= slots && few.lasts >= tight.lasts);
        }
    }
}
