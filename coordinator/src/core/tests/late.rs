//! Rows that come when slices which need them are joined: who takes them, how often, and what is said of them.

use std::cell::Cell;
use std::time::Duration;

use tidegate_common::ids::{OutputIx, SourceIx};
use tidegate_common::spec::model::LatePolicy;
use tidegate_common::time::Span;
use tidegate_proto::convert;
use tidegate_proto::v1::{assign::Work, from_coordinator::Kind};

use super::bench::{Bench, Held, poison, read, sealed, task};
use super::joining::{BACK, SLICE, cleaned, cleaning, first, heavy, join, joined, runs, shuffled, with_cells};
use super::regenerate::{made, missing, regenerate, regenerations};
use crate::core::*;

/// Two sources that may break their order, joined in ten slices; `s1` is met from half a slice before an anchor. With
/// `SideOutput`, output 1 keeps late rows.
fn bench(policy: LatePolicy, slots: u32) -> Bench {
    let units: Vec<(i64, i64)> = (0..20).map(|half| (half * BACK, half * BACK + BACK - 1)).collect();
    let mut spec = Bench::spec(&[(false, false)], 2, None, true);
    spec.outputs[0].slice = Some(Span::from_micros(SLICE));
    spec.outputs[0].late = policy;
    spec.disorderly = vec![SourceIx::new(0), SourceIx::new(1)];
    if policy == LatePolicy::SideOutput {
        let late_of = Some(OutputIx::new(0));
        spec.outputs.push(CoreOutput { name: "out__late".to_owned(), late_of, ..spec.outputs[0].clone() });
    }
    let mut bench = Bench::submitted(spec, true);
    bench.join(1, slots, Vec::new());
    let input =
        |source: &str, low| v1::JoinInput { source: source.to_owned(), low, high: 0, keyed: true, anchor: false };
    let at = Cell::new(0);
    bench.prepare_with(|table| {
        if at.replace(at.get() + 1) == 0 {
            table.inputs = vec![input("s0", 0), input("s1", -BACK)];
        } else {
            table.source.clear();
        }
    });
    for source in 0..2 {
        bench.enumerate(source, &[vec![task(&units)]]);
    }
    bench
}

/// All of the anchor and all but the last half slice of `s1` are accepted, and the first slices, of which it tells the
/// end, are joined; `s1` is still read.
fn half_joined(bench: &mut Bench) -> (Held, u32) {
    let (held, end, other) = half_granted(bench);
    bench.hand_in(held, joined("a", 0, end), false).unwrap();
    (other, end)
}

/// The same, and they are only granted.
fn half_granted(bench: &mut Bench) -> (Held, u32, Held) {
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, heavy(shuffled("s0", 0, 0, 20)), false).unwrap();
    bench.hand_in(other, heavy(shuffled("s1", 0, 0, 19)), false).unwrap();
    let (held, work) = runs(bench).remove(0);
    assert_eq!(first(held), 0);
    assert!((2..9).contains(&work.end_slice), "{}", work.end_slice);
    (held, work.end_slice, other)
}

/// The last half slice of `s1`: three of its rows are of the first cell, seven where they should be.
fn straggling() -> v1::HandIn {
    with_cells(shuffled("s1", 1, 19, 20), &[(0, 3), (9, 7)])
}

/// The late rows that were granted last.
fn late(bench: &Bench) -> Option<(Held, v1::LateWork)> {
    bench.sent.iter().rev().find_map(|(session, kind)| {
        let Kind::Assign(assign) = kind else { return None };
        let Some(Work::Late(work)) = &assign.work else { return None };
        let held = (*session, convert::task_id(assign.task).unwrap(), convert::token(assign.token).unwrap());
        Some((held, work.clone()))
    })
}

/// So many late rows are in a file.
fn written(rows: u64) -> v1::HandIn {
    let file = v1::DataFile { path: "late.parquet".to_owned(), rows, bytes: rows };
    let part =
        v1::OutputPart { output: 1, rows_read: rows, rows_passed: rows, files: vec![file], ..Default::default() };
    v1::HandIn { attempt: "late".to_owned(), end_unit: 1, rows_read: rows, outputs: vec![part], ..Default::default() }
}

/// Every slice from `from` on is joined, by whoever has it.
fn join_rest(bench: &mut Bench, from: u32) {
    let mut done = from;
    while done < 10 {
        let (held, work) = runs(bench).into_iter().rev().find(|(held, _)| first(*held) == done).unwrap();
        bench.hand_in(held, joined(&format!("rest-{done}"), done, work.end_slice), false).unwrap();
        done = work.end_slice;
    }
}

/// Another worker comes, with more slots than there are slices.
fn more_slots(bench: &mut Bench) {
    bench.join(9, 16, Vec::new());
}

/// What is sealed is committed, the shuffle store is emptied.
fn end(bench: &mut Bench) {
    while bench.commit_work().is_some() {
        bench.commit();
    }
    let (held, work) = cleaning(bench).unwrap();
    cleaned(bench, held);
    if !work.all {
        end(bench);
    }
}

fn input(bench: &Bench) -> v1::JoinInputState {
    join(bench).inputs[1].clone()
}

#[test]
fn given_side_output_then_late_rows_go_to_their_table_and_every_edge_balances() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, joined_to) = half_joined(&mut bench);
    more_slots(&mut bench);
    bench.hand_in(other, straggling(), false).unwrap();
    let (held, work) = late(&bench).unwrap();
    assert_eq!(held.1, TaskId::Late(OutputIx::new(0), 2), "the third object");
    let object = work.object.clone().unwrap();
    assert_eq!((work.table, work.source, object.path.as_str(), object.cells.len()), (1, 1, "s1/1", 0));
    assert_eq!((work.cells, work.missed_from, work.missed_to), (vec![0], vec![0], vec![2]), "met by two slices");
    let said = input(&bench);
    assert_eq!((said.rows_read, said.rows_shuffled, said.rows_late), (200, 197, 3));
    let late_rows = said.late.unwrap();
    assert_eq!((late_rows.rows_by, late_rows.most), (vec![3, 0, 0, 0, 0, 0], 2 * SLICE));
    assert_eq!(late_rows.missed_by, [v1::TimeRange { from: 0, to: 2 * SLICE }]);
    join_rest(&mut bench, joined_to);
    assert_eq!(bench.commit_work(), None, "not all is processed");
    for (rows, table) in [(2, 1), (3, 0)] {
        let mut wrong = written(rows);
        wrong.outputs[0].output = table;
        assert!(bench.hand_in(late(&bench).unwrap().0, wrong, false).is_err());
        bench.wait(Duration::from_secs(2));
        bench.change(v1::Change::Retry);
    }
    let (held, _) = late(&bench).unwrap();
    bench.hand_in(held, written(3), false).unwrap();
    assert!(bench.hand_in(held, written(3), false).is_err(), "once");
    end(&mut bench);
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
    let intents: Vec<(u32, u64)> = sealed(&bench).iter().map(|intent| (intent.output, intent.rows)).collect();
    assert!(intents.contains(&(1, 3)), "{intents:?}");
    let status = bench.status();
    assert_eq!((status.outputs[1].late_of.as_str(), status.outputs[1].rows_committed), ("out", 3));
    assert_eq!(bench.core.backfill(&bench.id).unwrap().imbalances(), [""; 0]);
}

#[test]
fn given_drop_then_late_rows_are_counted_and_nobody_writes_them() {
    let mut bench = bench(LatePolicy::Drop, 2);
    let (other, joined_to) = half_joined(&mut bench);
    bench.hand_in(other, straggling(), false).unwrap();
    assert_eq!(late(&bench), None);
    assert_eq!((input(&bench).rows_late, input(&bench).rows_shuffled), (3, 197));
    join_rest(&mut bench, joined_to);
    end(&mut bench);
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
}

#[test]
fn given_include_then_what_reads_late_rows_is_parked_at_once_and_says_the_way_out() {
    let mut bench = bench(LatePolicy::Include, 2);
    let (other, joined_to) = half_joined(&mut bench);
    let why = bench.hand_in(other, straggling(), false).unwrap_err();
    assert!(why.contains("output out: 3 rows of s1 came late: slices 0 to 1 of [1970-01-01T00:00:00Z,"), "{why}");
    let parked = bench.status().parked.remove(0);
    assert_eq!((parked.task.as_str(), parked.source.as_str()), ("read-s1g0.0", "s1"));
    assert!(parked.evidence.unwrap().message.contains("more `out_of_orderness`"));
    assert_eq!(input(&bench).rows_late, 0);
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), work.end_slice), (joined_to, 9), "the last is never ready");
    bench.hand_in(held, joined("b", joined_to, 9), false).unwrap();
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Partial);
}

#[test]
fn given_a_source_that_may_not_break_its_order_then_late_rows_are_refused_whatever_the_policy() {
    for policy in [LatePolicy::SideOutput, LatePolicy::Drop] {
        let mut bench = bench(policy, 2);
        let spec = CoreSpec { disorderly: vec![SourceIx::new(0)], ..bench.spec.clone() };
        bench.spec = spec;
        bench.restart();
        bench.join(1, 2, Vec::new());
        bench.wait(Duration::from_secs(20));
        let (other, _) = half_joined(&mut bench);
        let why = bench.hand_in(other, straggling(), false).unwrap_err();
        assert!(why.contains("its rows may not break their order"), "{why}");
        assert_eq!(bench.status().parked.len(), 1);
    }
}

#[test]
fn given_a_run_that_is_only_granted_then_it_is_taken_back_and_granted_anew_with_the_rows_under_every_policy() {
    for policy in [LatePolicy::SideOutput, LatePolicy::Drop, LatePolicy::Include] {
        let mut bench = bench(policy, 2);
        let (held, end, other) = half_granted(&mut bench);
        bench.hand_in(other, straggling(), false).unwrap();
        assert!(bench.was_revoked(held));
        assert!(bench.hand_in(held, joined("a", 0, end), false).is_err(), "its token is not the live one");
        let (again, work) = runs(&bench).into_iter().rev().find(|(held, _)| first(*held) == 0).unwrap();
        assert_ne!(again.2, held.2);
        let paths: Vec<&str> = work.inputs[1].objects.iter().map(|object| object.path.as_str()).collect();
        assert_eq!(paths, ["s1/0", "s1/1"]);
        join_rest(&mut bench, 0);
        assert_eq!((input(&bench).rows_late, late(&bench)), (0, None));
        while bench.commit_work().is_some() {
            bench.commit();
        }
        let (held, _) = cleaning(&bench).unwrap();
        cleaned(&mut bench, held);
        assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
    }
}

#[test]
fn given_rows_that_a_granted_run_does_not_need_then_it_goes_on() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (held, end, other) = half_granted(&mut bench);
    bench.hand_in(other, with_cells(shuffled("s1", 1, 19, 20), &[(9, 10)]), false).unwrap();
    assert!(!bench.was_revoked(held));
    bench.hand_in(held, joined("a", 0, end), false).unwrap();
}

#[test]
fn given_rows_that_some_of_the_slices_which_need_them_missed_then_the_others_take_them_and_they_are_late() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, joined_to) = half_joined(&mut bench);
    more_slots(&mut bench);
    // A row of the last joined cell is met by that slice and by the next.
    let cell = i64::from(joined_to) - 1;
    bench.hand_in(other, with_cells(shuffled("s1", 1, 19, 20), &[(cell, 10)]), false).unwrap();
    let (held, work) = late(&bench).unwrap();
    assert_eq!((work.missed_from, work.missed_to), (vec![joined_to - 1], vec![joined_to]));
    assert_eq!((input(&bench).rows_late, input(&bench).late.unwrap().most), (10, SLICE));
    let (next, work) = runs(&bench).into_iter().rev().find(|(held, _)| first(*held) == joined_to).unwrap();
    assert!(work.inputs[1].objects.iter().any(|object| object.path == "s1/1"));
    bench.hand_in(next, joined("b", joined_to, work.end_slice), false).unwrap();
    join_rest(&mut bench, work.end_slice);
    let removed = cleaning(&bench).unwrap().1.paths;
    assert_eq!(removed, ["s0/0", "s1/0"], "the late rows are still to be written");
    bench.hand_in(held, written(10), false).unwrap();
    end(&mut bench);
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
}

#[test]
fn given_late_anchors_then_they_are_not_waited_for() {
    let mut bench = bench(LatePolicy::Drop, 2);
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    bench.hand_in(anchor, heavy(shuffled("s0", 0, 0, 18)), false).unwrap();
    bench.hand_in(other, heavy(shuffled("s1", 0, 0, 20)), false).unwrap();
    let (held, work) = runs(&bench).remove(0);
    bench.hand_in(held, joined("a", 0, work.end_slice), false).unwrap();
    // Of the last twenty anchors, four are too late and one lies before the window.
    let last = with_cells(shuffled("s0", 1, 18, 20), &[(-3, 1), (1, 4), (9, 15)]);
    bench.hand_in(anchor, last, false).unwrap();
    let anchors = join(&bench);
    assert_eq!((anchors.anchors, anchors.inputs[0].rows_late, anchors.inputs[0].rows_shuffled), (195, 4, 196));
}

#[test]
fn a_replay_finds_the_same_rows_late() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, joined_to) = half_joined(&mut bench);
    more_slots(&mut bench);
    bench.hand_in(other, straggling(), false).unwrap();
    let (before, said) = (late(&bench).unwrap(), input(&bench));
    // More slices are joined meanwhile: what was late stays as it was.
    let (held, work) = runs(&bench).into_iter().rev().find(|(held, _)| first(*held) == joined_to).unwrap();
    bench.hand_in(held, joined("b", joined_to, work.end_slice), false).unwrap();
    bench.restart();
    assert_eq!(late(&bench), None);
    bench.join(2, 16, Vec::new());
    bench.wait(Duration::from_secs(20));
    let (held, again) = late(&bench).unwrap();
    assert_eq!((again, input(&bench)), (before.1, said));
    assert!(bench.hand_in(before.0, written(3), false).is_err(), "granted in another term");
    bench.hand_in(held, written(3), false).unwrap();
    join_rest(&mut bench, work.end_slice);
    bench.restart();
    bench.join(3, 16, Vec::new());
    bench.wait(Duration::from_secs(20));
    assert_eq!(late(&bench), None, "it is written");
    end(&mut bench);
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
}

#[test]
fn an_object_stays_until_its_slices_are_joined_and_its_late_rows_are_written() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, joined_to) = half_joined(&mut bench);
    more_slots(&mut bench);
    bench.hand_in(other, with_cells(heavy(shuffled("s1", 1, 19, 20)), &[(0, 10)]), false).unwrap();
    assert_eq!(join(&bench).live_bytes, 120 << 20);
    let (held, _) = late(&bench).unwrap();
    bench.hand_in(held, written(10), false).unwrap();
    assert_eq!(join(&bench).live_bytes, 80 << 20, "no slice needs it");
    let (held, work) = cleaning(&bench).unwrap();
    assert_eq!((work.paths, work.all), (vec!["s1/1".to_owned()], false));
    cleaned(&mut bench, held);
    join_rest(&mut bench, joined_to);
    end(&mut bench);
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
}

#[test]
fn late_rows_that_cannot_be_written_are_parked_alone_and_retried() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, joined_to) = half_joined(&mut bench);
    more_slots(&mut bench);
    bench.hand_in(other, straggling(), false).unwrap();
    for _ in 0..2 {
        bench.fail(late(&bench).unwrap().0, poison());
        bench.wait(Duration::from_secs(5));
    }
    join_rest(&mut bench, joined_to);
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Partial);
    let parked = &bench.status().parked[0];
    assert_eq!((parked.task.as_str(), parked.source.as_str()), ("late-o0.2", "out"));
    let (clean, work) = cleaning(&bench).unwrap();
    assert_eq!((work.paths, work.all), (vec!["s0/0".to_owned(), "s1/0".to_owned()], false), "it needs what it reads");
    cleaned(&mut bench, clean);
    bench.restart();
    bench.join(2, 16, Vec::new());
    bench.change(v1::Change::Retry);
    let (held, _) = late(&bench).unwrap();
    bench.hand_in(held, written(3), false).unwrap();
    end(&mut bench);
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status().failure);
}

#[test]
fn a_cancel_takes_late_rows_back_and_waits_for_nobody_who_writes_them() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, _) = half_joined(&mut bench);
    more_slots(&mut bench);
    bench.hand_in(other, straggling(), false).unwrap();
    let (held, _) = late(&bench).unwrap();
    bench.change(v1::Change::Cancel);
    assert!(bench.was_revoked(held));
    assert!(bench.hand_in(held, written(3), false).is_err());
    while bench.status().state.starts_with("cancelling") {
        match bench.commit_work() {
            Some((held, _)) => bench.commit_ends(held, v1::CommitEnd::Cancelled),
            None => {
                let (held, work) = cleaning(&bench).unwrap();
                assert!(work.all);
                cleaned(&mut bench, held);
            }
        }
    }
    assert_eq!(bench.phase(), v1::Phase::Cancelled);

    // Taken up again, what was removed is read again: late rows are written of that, and of nothing before.
    bench.change(v1::Change::Retry);
    assert_eq!((bench.phase(), late_grants(&bench)), (v1::Phase::Running, 1), "that was before the cancel");
    let mut done = 0;
    while let Some((held, work)) = regenerations(&bench).get(done).cloned() {
        let again = format!("{}/again", work.object.as_ref().unwrap().path);
        regenerate(&mut bench, held, made(&work, &again));
        done += 1;
    }
    let (held, work) = late(&bench).unwrap();
    assert!(work.object.unwrap().path.ends_with("/again"));
    bench.hand_in(held, written(3), false).unwrap();
}

#[test]
fn late_rows_of_an_object_that_is_lost_are_written_when_it_is_read_again() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, _) = half_joined(&mut bench);
    more_slots(&mut bench);
    bench.hand_in(other, straggling(), false).unwrap();
    let (held, work) = late(&bench).unwrap();
    let path = work.object.unwrap().path;
    bench.fail(held, missing(&path));
    let (again, work) = regenerations(&bench).pop().unwrap();
    assert_eq!(work.object.as_ref().unwrap().path, path);
    bench.wait(Duration::from_secs(60));
    assert_eq!(late_grants(&bench), 1, "it waits for what is read again");
    regenerate(&mut bench, again, made(&work, "s1/again"));
    let (held, work) = late(&bench).unwrap();
    assert_eq!(work.object.unwrap().path, "s1/again");
    bench.hand_in(held, written(3), false).unwrap();
    assert!(bench.status().parked.is_empty());
}

#[test]
fn late_rows_of_what_cannot_be_read_again_are_set_aside_and_the_run_ends() {
    let mut bench = bench(LatePolicy::SideOutput, 2);
    let (other, from) = half_joined(&mut bench);
    more_slots(&mut bench);
    bench.hand_in(other, straggling(), false).unwrap();
    join_rest(&mut bench, from);
    let (held, work) = late(&bench).unwrap();
    bench.fail(held, missing(&work.object.unwrap().path));
    let (again, _) = regenerations(&bench).pop().unwrap();
    bench.fail(
        again,
        v1::Evidence { class: v1::Failure::Fatal.into(), message: "the file is gone".into(), ..Default::default() },
    );
    bench.commit();
    assert_eq!(bench.phase(), v1::Phase::Partial, "{:?}", bench.status());
    bench.change(v1::Change::Retry);
    bench.wait(Duration::from_secs(60));
    let (again, work) = regenerations(&bench).pop().unwrap();
    regenerate(&mut bench, again, made(&work, "s1/again"));
    let (held, _) = late(&bench).unwrap();
    bench.hand_in(held, written(3), false).unwrap();
    assert!(bench.status().parked.is_empty());
}

/// How often late rows were granted to be written.
fn late_grants(bench: &Bench) -> usize {
    let is_late = |kind: &Kind| matches!(kind, Kind::Assign(v1::Assign { work: Some(Work::Late(_)), .. }));
    bench.sent.iter().filter(|(_, kind)| is_late(kind)).count()
}

#[test]
fn cells_that_do_not_add_up_are_refused() {
    let cases: [&[(i64, u64)]; 6] = [
        &[(0, 3), (9, 6)],
        &[(0, 3), (9, 8)],
        &[(9, 3), (0, 7)],
        &[(0, 5), (0, 5)],
        &[(0, 0), (9, 10)],
        &[(3, u64::MAX), (4, 11)],
    ];
    for cells in cases {
        let mut bench = bench(LatePolicy::Drop, 2);
        let (other, _) = half_joined(&mut bench);
        let why = bench.hand_in(other, with_cells(shuffled("s1", 1, 19, 20), cells), false).unwrap_err();
        assert!(why.contains("they are said to be"), "{cells:?}: {why}");
    }
    type Harm = fn(&mut v1::ShuffleObject);
    let harms: [Harm; 5] = [
        |object| object.cells.clear(),
        |object| object.first_cell = -1,
        |object| object.last_cell = 10,
        |object| object.cell_rows.push(1),
        |object| object.anchors = 1,
    ];
    for harm in harms {
        let mut bench = bench(LatePolicy::Drop, 2);
        let (other, _) = half_joined(&mut bench);
        let mut hand_in = straggling();
        harm(hand_in.outputs[0].shuffled.as_mut().unwrap());
        assert!(bench.hand_in(other, hand_in, false).is_err());
    }
}

#[test]
fn a_reader_that_calls_rows_late_is_not_believed() {
    let mut bench = bench(LatePolicy::Drop, 2);
    let (other, _) = half_joined(&mut bench);
    let mut hand_in = straggling();
    let part = &mut hand_in.outputs[0];
    (part.rows_passed, part.rows_late) = (part.rows_passed - 1, 1);
    part.shuffled.as_mut().unwrap().rows -= 1;
    part.shuffled.as_mut().unwrap().cell_rows[1] -= 1;
    let why = bench.hand_in(other, hand_in, false).unwrap_err();
    assert!(why.contains("1 of its rows are said to be late"), "{why}");
}

#[test]
fn very_many_windows_are_told_as_one() {
    use rangemap::RangeSet;
    use tidegate_common::slices::Slices;
    use tidegate_common::time::{EventTime, Window};
    let window = Window::new(EventTime::from_micros(0), EventTime::from_micros(10_000)).unwrap();
    let slices = Slices::new(window, Span::from_micros(1)).unwrap();
    let of = |many: u32| {
        let missed: RangeSet<u32> = (0..many).map(|at| 2 * at..2 * at + 1).collect();
        super::super::late::book_of(missed).state(slices).unwrap().missed_by
    };
    assert_eq!(of(1_000).len(), 1_000);
    assert_eq!(of(1_001), [v1::TimeRange { from: 0, to: 2_001 }]);
}
