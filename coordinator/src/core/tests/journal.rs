//! Folding the journal gives the same durable state as living through it, whatever was lived through.

use proptest::prelude::*;

use super::bench::{Bench, Held, hand_in, poison, read, task};
use crate::core::*;

/// What may happen to a backfill of two sources with two tasks of three units each.
#[derive(Clone, Debug)]
enum Happening {
    HandIn { task: usize, units: u32, released: bool },
    Poison { task: usize },
    Release { task: usize },
    Commit,
    Ends(v1::CommitEnd),
    Change(v1::Change),
    ApplyAgain(bool),
    Prepare,
    Wait(u64),
    Heartbeat,
    Restart,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let task = 0..4usize;
    let changes = [v1::Change::Pause, v1::Change::Resume, v1::Change::Cancel, v1::Change::Retry, v1::Change::Resume];
    let changes = [&changes[..], &[v1::Change::Publish, v1::Change::Publish]].concat();
    let ends = vec![v1::CommitEnd::Cancelled, v1::CommitEnd::Conflict, v1::CommitEnd::Fenced];
    let one = prop_oneof![
        8 => (task.clone(), 1..4u32, any::<bool>())
            .prop_map(|(task, units, released)| Happening::HandIn { task, units, released }),
        2 => task.clone().prop_map(|task| Happening::Poison { task }),
        1 => task.prop_map(|task| Happening::Release { task }),
        4 => Just(Happening::Commit),
        1 => proptest::sample::select(ends).prop_map(Happening::Ends),
        1 => any::<bool>().prop_map(Happening::ApplyAgain),
        1 => Just(Happening::Prepare),
        2 => proptest::sample::select(changes).prop_map(Happening::Change),
        3 => (1..70u64).prop_map(Happening::Wait),
        3 => Just(Happening::Heartbeat),
        1 => Just(Happening::Restart),
    ];
    proptest::collection::vec(one, 1..40)
}

fn plan() -> Vec<Vec<Vec<v1::ReadTask>>> {
    let three = |at: i64| task(&[(at, at + 3), (at + 10, at + 12), (at + 20, at + 40)]);
    vec![vec![vec![three(0)], vec![three(15)]], vec![vec![three(5), three(30)]]]
}

const TASKS: [(u32, u32, u32); 4] = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 0, 1)];

fn live(bench: &Bench, task: usize) -> Option<Held> {
    let (source, segment, at) = TASKS[task];
    bench.grant(read(source, segment, at))
}

fn happen(bench: &mut Bench, number: u64, happening: &Happening) {
    match happening {
        Happening::HandIn { task, units, released } => {
            let Some(held) = live(bench, *task) else { return };
            let first = (0..3).find(|first| !bench.journal.iter().any(|record| covers(record, held.1, *first)));
            let Some(first) = first else { return };
            let mut hand_in = hand_in(&format!("attempt-{number}"), number, first, (first + units).min(3));
            if TASKS[*task].0 == 1 {
                hand_in.outputs.clear();
            }
            let _ = bench.hand_in(held, hand_in, *released);
        }
        Happening::Poison { task } => live(bench, *task).into_iter().for_each(|held| bench.fail(held, poison())),
        Happening::Release { task } => {
            if let Some(held) = live(bench, *task) {
                bench.step(Event::Released(bench.lease(held)));
            }
        }
        Happening::Commit => commit(bench, v1::CommitEnd::Committed),
        Happening::Ends(end) => commit(bench, *end),
        Happening::ApplyAgain(allow_existing) => bench.submit(*allow_existing),
        Happening::Prepare => {
            if bench.grant(TaskId::Prepare).is_some() {
                bench.prepare();
            }
        }
        Happening::Change(change) => bench.change(*change),
        Happening::Wait(seconds) => bench.wait(Duration::from_secs(*seconds)),
        Happening::Heartbeat => bench.step(Event::Heartbeat(SessionId::new(1), number, Vec::new(), false)),
        Happening::Restart => {
            bench.restart();
            bench.join(1, 3, Vec::new());
        }
    }
}

/// A worker's commit ends; of what is to be fenced off, the fence lands.
fn commit(bench: &mut Bench, end: v1::CommitEnd) {
    let Some((held, work)) = bench.commit_work() else { return };
    let fences = work.cancel > 0 && end == v1::CommitEnd::Committed;
    bench.commit_ends(held, if fences { v1::CommitEnd::Cancelled } else { end });
}

/// What stands on main and on the branch, as positions of the log, by what the journal says has landed.
#[derive(Default)]
struct Tables {
    main: Vec<u64>,
    branch: Vec<u64>,
    publishing: bool,
}

impl Tables {
    fn of(journal: &[v1::Record]) -> Self {
        use v1::record::Kind;
        let (mut tables, mut open) = (Self::default(), None);
        for record in journal {
            match &record.kind {
                Some(Kind::Sealed(intent)) => open = Some(intent.clone()),
                Some(Kind::Publishing(publishing)) => {
                    tables.publishing = true;
                    open = publishing.intents.first().cloned().or(open);
                }
                Some(Kind::Ended(ended)) if ended.result.as_ref().unwrap().end() == v1::CommitEnd::Committed => {
                    tables.land(&open.take().unwrap());
                }
                _ => {}
            }
        }
        tables
    }

    fn land(&mut self, intent: &v1::Intent) {
        let added = intent.log_from..intent.log_to;
        match (intent.kind(), intent.branch.is_empty()) {
            (v1::CommitKind::Discard, _) => self.branch.clear(),
            (_, true) => self.main.extend(added),
            (_, false) => self.branch.extend(added),
        }
        if !intent.drop_branch.is_empty() {
            self.branch.clear();
        }
    }

    /// Nothing is anywhere twice; what is staged is on main only when it is published; what rests is complete.
    fn check(&self, bench: &Bench) -> Result<(), String> {
        let accepted = bench.journal.iter().filter_map(|record| match &record.kind {
            Some(v1::record::Kind::HandIn(accepted)) => accepted.hand_in.as_ref(),
            _ => None,
        });
        let with_files = (0..).zip(accepted).filter(|(_, hand_in)| !hand_in.outputs.is_empty());
        let all: Vec<u64> = with_files.map(|(position, _)| position).collect();
        let whole = |found: &[u64]| found.iter().filter(|position| all.contains(position)).eq(&all);
        let staged = bench.spec.outputs[0].staged;
        for (name, found) in [("main", &self.main), ("the branch", &self.branch)] {
            let distinct: std::collections::BTreeSet<u64> = found.iter().copied().collect();
            if distinct.len() != found.len() {
                return Err(format!("{name} holds {found:?}"));
            }
        }
        let phase = bench.phase();
        let wrong = (staged && !self.publishing && !self.main.is_empty())
            || (phase == v1::Phase::Succeeded && (!whole(&self.main) || !self.branch.is_empty()))
            || (phase == v1::Phase::Staged && !whole(&self.branch))
            || (phase == v1::Phase::Cancelled && staged && !(self.main.is_empty() && self.branch.is_empty()));
        if wrong {
            Err(format!("{phase:?}: main {:?}, branch {:?} of {all:?}", self.main, self.branch))
        } else {
            Ok(())
        }
    }
}

fn covers(record: &v1::Record, task: TaskId, unit: u32) -> bool {
    let Some(v1::record::Kind::HandIn(accepted)) = &record.kind else { return false };
    let of = tidegate_proto::convert::task_id(accepted.task).unwrap();
    let hand_in = accepted.hand_in.as_ref().unwrap();
    of == task && (hand_in.first_unit..hand_in.end_unit).contains(&unit)
}

/// The durable part of what the core says.
fn durable(status: v1::Backfill) -> String {
    let v1::Backfill { phase, wish, term, created, updated, ended, outputs, parked, failure, sources, .. } = status;
    let sources: Vec<_> = sources.iter().map(|s| (s.tasks_done, s.units_done, s.rows_read, s.bytes_read)).collect();
    format!("{phase} {wish} {term} {created} {updated} {ended} {outputs:?} {parked:?} {failure:?} {sources:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn folding_the_journal_is_living_through_it(
        output in proptest::sample::select(vec![(false, false), (false, true), (true, false), (true, true)]),
        happenings in happenings(),
    ) {
        let mut bench = Bench::running_to(&[output], &plan(), Some(30));
        for (number, happening) in (0u64..).zip(&happenings) {
            happen(&mut bench, number, happening);
            let mut folded = Core::new(Config::default());
            folded.restore(bench.id.clone(), bench.spec.clone(), &bench.journal);
            let folded = folded.status(folded.backfill(&bench.id).unwrap());
            prop_assert_eq!(durable(bench.status()), durable(folded), "after {:?}", happening);
            let sound = Tables::of(&bench.journal).check(&bench);
            prop_assert!(sound.is_ok(), "after {:?}: {:?}", happening, sound);
        }
    }
}
