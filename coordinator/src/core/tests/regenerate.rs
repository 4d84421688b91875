//! What is lost in the shuffle store is read again: by whom, how often, and what stands in its place.

use std::time::Duration;

use tidegate_common::ids::{OutputIx, SegmentIx, SourceIx};
use tidegate_proto::convert;
use tidegate_proto::v1::{assign::Work, done, from_coordinator::Kind, record};

use super::bench::{Bench, Held, poison, read};
use super::joining::{bench, cleaned, cleaning, first, heavy, join, joined, read_all, runs, shuffled};
use crate::core::*;

pub(super) fn missing(path: &str) -> v1::Evidence {
    let message = format!("{path} is not there: is the store of all workers the same one?");
    v1::Evidence { class: v1::Failure::Retryable.into(), message, lost: path.to_owned(), ..Default::default() }
}

/// What was granted to be read again, in order.
pub(super) fn regenerations(bench: &Bench) -> Vec<(Held, v1::RegenerateWork)> {
    let of = |(session, kind): &(SessionId, Kind)| {
        let Kind::Assign(assign) = kind else { return None };
        let Some(Work::Regenerate(work)) = &assign.work else { return None };
        let held = (*session, convert::task_id(assign.task).unwrap(), convert::token(assign.token).unwrap());
        let mut work = work.clone();
        // Who reads it again finds the same rows in the same cells, of which nobody tells it.
        let lost = work.object.as_mut().unwrap();
        assert!(lost.cells.is_empty());
        let accepted = bench.journal.iter().rev().find_map(|record| accepted_at(record, &lost.path)).unwrap();
        (lost.cells, lost.cell_rows) = (accepted.cells.clone(), accepted.cell_rows.clone());
        Some((held, work))
    };
    bench.sent.iter().filter_map(of).collect()
}

/// The object at `path` that a record accepts.
fn accepted_at<'a>(record: &'a v1::Record, path: &str) -> Option<&'a v1::ShuffleObject> {
    let objects: Vec<&v1::ShuffleObject> = match &record.kind {
        Some(record::Kind::HandIn(accepted)) => {
            let parts = accepted.hand_in.iter().flat_map(|hand_in| &hand_in.outputs);
            parts.filter_map(|part| part.shuffled.as_ref()).collect()
        }
        Some(record::Kind::Regenerated(regenerated)) => regenerated.made.iter().collect(),
        _ => Vec::new(),
    };
    objects.into_iter().find(|object| object.path == path)
}

/// What was lost, as somebody makes it anew.
pub(super) fn made(work: &v1::RegenerateWork, path: &str) -> v1::ShuffleObject {
    v1::ShuffleObject { path: path.to_owned(), index_crc: 7, ..work.object.clone().unwrap() }
}

pub(super) fn regenerate(bench: &mut Bench, held: Held, object: v1::ShuffleObject) {
    let result = done::Result::Regenerated(v1::Regenerated { object: Some(object) });
    bench.step(Event::Done(bench.lease(held), result));
}

fn recorded(bench: &Bench) -> usize {
    bench.journal.iter().filter(|record| matches!(record.kind, Some(record::Kind::Regenerated(_)))).count()
}

fn paths(work: &v1::JoinWork) -> Vec<&str> {
    work.inputs.iter().flat_map(|input| &input.objects).map(|object| object.path.as_str()).collect()
}

/// The last run of slices is joined and committed, and the store emptied.
fn ends(bench: &mut Bench) {
    let (held, work) = runs(bench).pop().unwrap();
    bench.hand_in(held, joined("end", first(held), work.end_slice), false).unwrap();
    bench.commit();
    // What stood there before goes first.
    for all in [false, true] {
        let (held, work) = cleaning(bench).unwrap();
        assert!(work.all || !all);
        cleaned(bench, held);
    }
    assert_eq!(bench.phase(), v1::Phase::Succeeded, "{:?}", bench.status());
}

#[test]
fn what_a_join_does_not_find_is_read_again_and_joined() {
    let mut bench = bench(1);
    read_all(&mut bench);
    let (held, _) = runs(&bench).pop().unwrap();
    bench.asked.clear();
    bench.fail(held, missing("s1/0"));
    let (again, work) = regenerations(&bench).pop().unwrap();
    assert_eq!(bench.asked, [(SourceIx::new(1), SegmentIx::new(0))], "the segment was done, and is loaded once more");
    assert_eq!((work.source, work.task.as_ref().unwrap().units.len()), (1, 20));
    assert_eq!(work.object.as_ref().unwrap().path, "s1/0");
    bench.wait(Duration::from_secs(60));
    assert_eq!((regenerations(&bench).len(), runs(&bench).len()), (1, 1), "its slices wait");

    regenerate(&mut bench, again, v1::ShuffleObject { bytes: 250, ..made(&work, "s1/again") });
    assert_eq!((recorded(&bench), join(&bench).regenerated), (1, 1));
    assert_eq!((join(&bench).live_bytes, join(&bench).peak_bytes), (450, 450));
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), paths(&work)), (0, vec!["s0/0", "s1/again"]));
    let (_, removed) = cleaning(&bench).unwrap();
    assert_eq!((removed.paths, removed.all), (vec!["s1/0".to_owned()], false), "what is damaged goes");
    ends(&mut bench);
}

#[test]
fn only_the_units_that_an_object_held_are_read_again() {
    let mut bench = bench(2);
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    for (number, end) in [(0, 6), (1, 9), (2, 20)] {
        let begin = [0, 6, 9][usize::try_from(number).unwrap()];
        bench.hand_in(other, shuffled("s1", number, begin, end), false).unwrap();
    }
    bench.hand_in(anchor, shuffled("s0", 0, 0, 20), false).unwrap();
    let (held, _) = runs(&bench).into_iter().find(|(_, work)| paths(work).contains(&"s1/1")).unwrap();
    bench.fail(held, missing("s1/1"));
    // What does not need it is joined meanwhile, and before.
    let (held, work) = runs(&bench).pop().unwrap();
    assert_eq!((first(held), work.end_slice, paths(&work)), (0, 3, vec!["s0/0", "s1/0"]));
    bench.hand_in(held, joined("meanwhile", 0, 3), false).unwrap();
    let (_, work) = regenerations(&bench).pop().unwrap();
    let lows: Vec<i64> = work.task.unwrap().units.iter().map(|unit| unit.low).collect();
    assert_eq!(lows, [300_000, 350_000, 400_000]);
}

#[test]
fn what_is_not_what_was_lost_is_not_taken_for_it() {
    let mut bench = bench(1);
    read_all(&mut bench);
    bench.fail(runs(&bench).pop().unwrap().0, missing("s0/0"));
    for wrong in 0..2 {
        let (held, work) = regenerations(&bench).pop().unwrap();
        let right = made(&work, "s0/again");
        let object = match wrong {
            0 => v1::ShuffleObject { rows: right.rows - 1, ..right },
            _ => v1::ShuffleObject { anchors: right.anchors - 1, ..right },
        };
        regenerate(&mut bench, held, object);
        bench.wait(Duration::from_secs(5));
    }
    assert_eq!(recorded(&bench), 0);
    assert_eq!(bench.phase(), v1::Phase::Partial, "nothing else is left to be done");
    let parked = &bench.status().parked[0];
    assert!(parked.task.starts_with("regenerate-o0.") && parked.source == "out", "{parked:?}");
    let said = &parked.evidence.as_ref().unwrap().message;
    for words in ["s0/0 is not to be had", "the same one?", "the source is not what it was", "200 of the anchor"] {
        assert!(said.contains(words), "{said}");
    }
    // What was parked stays so in the next process, and is tried again when somebody asks for it.
    bench.restart();
    assert_eq!(bench.phase(), v1::Phase::Partial);
    bench.join(2, 1, Vec::new());
    bench.change(v1::Change::Retry);
    bench.wait(Duration::from_secs(20));
    let (held, work) = regenerations(&bench).pop().unwrap();
    regenerate(&mut bench, held, made(&work, "s0/again"));
    ends(&mut bench);
}

#[test]
fn what_holds_the_same_rows_in_other_cells_or_lies_where_something_lies_is_not_taken() {
    for (cells, path) in [(vec![4, 6], "fresh"), (vec![3, 7], "fresh"), (vec![6, 4], "s0/0"), (vec![6, 4], "")] {
        let mut bench = bench(2);
        let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
        bench.hand_in(anchor, shuffled("s0", 0, 0, 20), false).unwrap();
        let mut told = shuffled("s1", 0, 0, 20);
        let object = told.outputs[0].shuffled.as_mut().unwrap();
        (object.cells, object.cell_rows) = ((0..10).collect(), vec![20; 10]);
        bench.hand_in(other, told, false).unwrap();
        bench.fail(runs(&bench)[0].0, missing("s1/0"));
        let (held, work) = regenerations(&bench).pop().unwrap();
        let mut object = made(&work, path);
        if path == "fresh" {
            object.cell_rows[..2].copy_from_slice(&cells.iter().map(|rows| *rows as u64).collect::<Vec<_>>());
        }
        regenerate(&mut bench, held, object);
        assert_eq!(recorded(&bench), 0, "{cells:?} {path:?}");
        bench.wait(Duration::from_secs(5));
        let (held, work) = regenerations(&bench).pop().unwrap();
        regenerate(&mut bench, held, made(&work, "fresh"));
        assert_eq!(recorded(&bench), 1, "it has another try");
    }
}

#[test]
fn a_source_that_is_gone_sets_aside_only_what_was_lost_of_it() {
    let mut bench = bench(1);
    read_all(&mut bench);
    bench.fail(runs(&bench).pop().unwrap().0, missing("s1/0"));
    let (held, _) = regenerations(&bench).pop().unwrap();
    let class = v1::Failure::Fatal.into();
    bench.fail(
        held,
        v1::Evidence { class, message: "it does not exist".to_owned(), exit_code: 4, ..Default::default() },
    );
    assert_eq!(bench.phase(), v1::Phase::Partial);
    let said = bench.status().parked[0].evidence.clone().unwrap();
    assert!(said.message.ends_with("cannot be read again: it does not exist"), "{said:?}");
    bench.change(v1::Change::Retry);
    let (held, work) = regenerations(&bench).pop().unwrap();
    regenerate(&mut bench, held, made(&work, "s1/again"));
    ends(&mut bench);
}

#[test]
fn who_lost_the_lease_regenerates_nothing() {
    let mut bench = bench(1);
    read_all(&mut bench);
    bench.fail(runs(&bench).pop().unwrap().0, missing("s1/0"));
    let (old, work) = regenerations(&bench).pop().unwrap();
    bench.join(2, 1, Vec::new());
    bench.step(Event::Left(old.0));
    bench.silence(Duration::from_secs(16));
    bench.join(3, 1, Vec::new());
    bench.wait(Duration::from_secs(5));
    let (new, _) = regenerations(&bench).pop().unwrap();
    assert_ne!(old.2, new.2);
    regenerate(&mut bench, old, made(&work, "s1/late"));
    assert_eq!(recorded(&bench), 0);
    regenerate(&mut bench, new, made(&work, "s1/again"));
    assert_eq!(recorded(&bench), 1);
}

#[test]
fn a_restarted_coordinator_finds_out_again_and_knows_what_was_made() {
    let mut bench = bench(1);
    read_all(&mut bench);
    bench.fail(runs(&bench).pop().unwrap().0, missing("s1/0"));
    let (old, work) = regenerations(&bench).pop().unwrap();
    bench.restart();
    bench.join(2, 1, Vec::new());
    bench.wait(Duration::from_secs(20));
    assert_eq!(regenerations(&bench), [], "that it is lost was not durable");
    regenerate(&mut bench, old, made(&work, "s1/late"));
    assert_eq!(recorded(&bench), 0);
    bench.fail(runs(&bench).pop().unwrap().0, missing("s1/0"));
    let (held, work) = regenerations(&bench).pop().unwrap();
    regenerate(&mut bench, held, v1::ShuffleObject { bytes: 90, ..made(&work, "s1/again") });
    let before = bench.status().outputs;
    bench.restart();
    assert_eq!(join(&bench).live_bytes, before[0].join.as_ref().unwrap().live_bytes);
    assert_eq!((join(&bench).regenerated, join(&bench).peak_bytes), (1, 400));
    bench.join(3, 1, Vec::new());
    bench.wait(Duration::from_secs(20));
    assert_eq!(paths(&runs(&bench).pop().unwrap().1), ["s0/0", "s1/again"]);
    ends(&mut bench);
}

#[test]
fn what_is_lost_again_and_again_is_read_twice_and_then_its_slices_are_set_aside() {
    let mut bench = bench(1);
    read_all(&mut bench);
    for time in 0..2 {
        let (held, work) = runs(&bench).pop().unwrap();
        bench.fail(held, missing(paths(&work)[1]));
        let (held, work) = regenerations(&bench).pop().unwrap();
        regenerate(&mut bench, held, made(&work, &format!("s1/again-{time}")));
    }
    // Who does not find it now sets it aside, at once and for all its slices.
    bench.fail(runs(&bench).pop().unwrap().0, missing("s1/again-1"));
    let status = bench.status();
    assert_eq!((status.phase(), status.parked.len(), runs(&bench).len()), (v1::Phase::Partial, 1, 3));
    let said = &status.parked[0].evidence.clone().unwrap().message;
    assert!(said.contains("is the store of all workers the same one?"), "{said}");
    assert_eq!((regenerations(&bench).len(), join(&bench).regenerated), (2, 2));
    bench.restart();
    assert_eq!((bench.phase(), bench.status().parked.len()), (v1::Phase::Partial, 1));
    bench.join(2, 1, Vec::new());
    // Asked for once more, it is read again.
    bench.change(v1::Change::Retry);
    let (held, work) = regenerations(&bench).pop().unwrap();
    regenerate(&mut bench, held, made(&work, "s1/at-last"));
    ends(&mut bench);
}

#[test]
fn what_was_cancelled_while_rows_waited_goes_on_and_reads_them_again() {
    for restarts in [false, true] {
        let mut bench = bench(1);
        read_all(&mut bench);
        let (revoked, _) = runs(&bench).pop().unwrap();
        bench.change(v1::Change::Cancel);
        assert!(bench.was_revoked(revoked));
        let (held, work) = cleaning(&bench).unwrap();
        assert!(work.all);
        cleaned(&mut bench, held);
        assert_eq!((bench.phase(), join(&bench).live_bytes), (v1::Phase::Cancelled, 0));
        if restarts {
            bench.restart();
            assert_eq!((bench.phase(), join(&bench).live_bytes), (v1::Phase::Cancelled, 0));
            bench.join(2, 1, Vec::new());
        }
        bench.submit(true);
        bench.wait(Duration::from_secs(20));
        for at in 0..2 {
            let granted = regenerations(&bench);
            assert_eq!(granted.len(), at + 1, "one after the other: there is one slot");
            let (held, work) = &granted[at];
            regenerate(&mut bench, *held, made(work, &format!("s{}/again", work.source)));
        }
        assert_eq!((join(&bench).live_bytes, join(&bench).peak_bytes), (400, 400));
        assert_eq!(paths(&runs(&bench).pop().unwrap().1), ["s0/again", "s1/again"]);
        ends(&mut bench);
    }
}

#[test]
fn of_what_is_lost_only_what_ready_slices_need_is_read_again_the_lowest_first() {
    let mut bench = bench(3);
    let (anchor, other) = (bench.grant(read(0, 0, 0)).unwrap(), bench.grant(read(1, 0, 0)).unwrap());
    // The second is of slices that are not ready: the other source is not read so far.
    bench.hand_in(anchor, shuffled("s0", 0, 0, 4), false).unwrap();
    bench.hand_in(anchor, shuffled("s0", 1, 4, 20), false).unwrap();
    bench.hand_in(other, shuffled("s1", 0, 0, 5), false).unwrap();
    bench.change(v1::Change::Cancel);
    let (held, _) = cleaning(&bench).unwrap();
    cleaned(&mut bench, held);
    bench.change(v1::Change::Retry);
    bench.wait(Duration::from_secs(5));
    let mut again: Vec<String> = regenerations(&bench).into_iter().map(|(_, work)| work.object.unwrap().path).collect();
    again.sort();
    assert_eq!(again, ["s0/0", "s1/0"]);
    assert_eq!(join(&bench).slices_ready, 2);
    for (held, work) in regenerations(&bench) {
        regenerate(&mut bench, held, made(&work, &format!("{}-again", work.object.as_ref().unwrap().path)));
    }
    let other = bench.grant(read(1, 0, 0)).unwrap();
    bench.hand_in(other, shuffled("s1-b", 1, 5, 20), false).unwrap();
    assert_eq!(regenerations(&bench).pop().unwrap().1.object.unwrap().path, "s0/1", "now its slices are ready");
}

#[test]
fn a_reader_makes_room_for_what_is_to_be_read_again() {
    let mut bench = bench(1);
    let yields = |bench: &Bench| bench.sent.iter().filter(|(_, kind)| matches!(kind, Kind::Yield(_))).count();
    if bench.grant(read(0, 0, 0)).is_none() {
        bench.hand_in(bench.grant(read(1, 0, 0)).unwrap(), shuffled("s1", 0, 0, 5), true).unwrap();
    }
    bench.hand_in(bench.grant(read(0, 0, 0)).unwrap(), heavy(shuffled("s0", 0, 0, 20)), false).unwrap();
    let (held, _) = runs(&bench).pop().unwrap();
    bench.fail(held, missing("s0/0"));
    // Its segment had to be loaded first, and meanwhile the slot was given to a reader.
    let reader = bench.grant(read(1, 0, 0)).unwrap();
    assert_eq!((regenerations(&bench).len(), yields(&bench)), (0, 1));
    bench.step(Event::Released(bench.lease(reader)));
    assert_eq!(regenerations(&bench).len(), 1);
}

#[test]
fn a_segment_that_cannot_be_had_now_is_asked_for_again_later() {
    let mut bench = bench(1);
    read_all(&mut bench);
    bench.asked.clear();
    bench.withheld = true;
    bench.fail(runs(&bench).pop().unwrap().0, missing("s1/0"));
    assert_eq!((bench.asked.len(), regenerations(&bench).len()), (1, 0));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.asked.len(), 2);
    bench.withheld = false;
    bench.wait(Duration::from_secs(1));
    let (held, work) = regenerations(&bench).pop().unwrap();
    regenerate(&mut bench, held, made(&work, "s1/again"));
    ends(&mut bench);
}

#[test]
fn what_a_join_was_not_told_to_read_is_not_read_again() {
    let mut bench = bench(1);
    read_all(&mut bench);
    let (held, _) = runs(&bench).pop().unwrap();
    bench.fail(held, missing("s1/of-nobody"));
    bench.wait(Duration::from_secs(5));
    assert_eq!(regenerations(&bench), []);
    bench.fail(runs(&bench).pop().unwrap().0, v1::Evidence { lost: "s1/of-nobody".to_owned(), ..poison() });
    assert_eq!(regenerations(&bench), []);
}

#[test]
fn what_is_read_again_takes_its_share_of_the_limit() {
    let mut bench = bench(1);
    bench.spec.limited = true;
    bench.restart();
    bench.join(2, 2, Vec::new());
    bench.wait(Duration::from_secs(20));
    read_all(&mut bench);
    bench.fail(runs(&bench).pop().unwrap().0, missing("s1/0"));
    let (held, work) = regenerations(&bench).pop().unwrap();
    assert_eq!(held.1, TaskId::Regenerate(OutputIx::new(0), 1));
    assert_eq!(work.gate.unwrap().readers, [0, 1]);
}
