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
    Change(v1::Change),
    Wait(u64),
    Heartbeat,
    Restart,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let task = 0..4usize;
    let changes = [v1::Change::Pause, v1::Change::Resume, v1::Change::Cancel, v1::Change::Retry, v1::Change::Resume];
    let one = prop_oneof![
        8 => (task.clone(), 1..4u32, any::<bool>())
            .prop_map(|(task, units, released)| Happening::HandIn { task, units, released }),
        2 => task.clone().prop_map(|task| Happening::Poison { task }),
        1 => task.prop_map(|task| Happening::Release { task }),
        3 => Just(Happening::Commit),
        2 => proptest::sample::select(changes.to_vec()).prop_map(Happening::Change),
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
        Happening::Commit => commit(bench),
        Happening::Change(change) => bench.change(*change),
        Happening::Wait(seconds) => bench.wait(Duration::from_secs(*seconds)),
        Happening::Heartbeat => bench.step(Event::Heartbeat(SessionId::new(1), number, Vec::new(), false)),
        Happening::Restart => {
            bench.restart();
            bench.join(1, 3, Vec::new());
        }
    }
}

fn commit(bench: &mut Bench) {
    let commits = |kind: &v1::from_coordinator::Kind| {
        matches!(kind, v1::from_coordinator::Kind::Assign(assign)
            if matches!(assign.work, Some(v1::assign::Work::Commit(_))))
    };
    if bench.sent.iter().any(|(_, kind)| commits(kind)) {
        bench.commit();
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
    fn folding_the_journal_is_living_through_it(happenings in happenings()) {
        let mut bench = Bench::running(&plan(), Some(30), 3);
        for (number, happening) in (0u64..).zip(&happenings) {
            happen(&mut bench, number, happening);
            let mut folded = Core::new(Config::default());
            folded.restore(bench.id.clone(), bench.spec.clone(), &bench.journal);
            let folded = folded.status(folded.backfill(&bench.id).unwrap());
            prop_assert_eq!(durable(bench.status()), durable(folded), "after {:?}", happening);
        }
    }
}
