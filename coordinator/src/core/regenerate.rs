//! Regeneration: what an object of the shuffle store held that is missing or damaged is read again from its source.
//!
//! A task reads the units whose rows the object held and writes one object anew; it is accepted only if it holds the same
//! rows by cell. Their segment of the plan may be done and dropped: it is loaded once more for them, and what the plan
//! knows of it stays as it is.
//!
//! | the result | what follows |
//! |---|---|
//! | its token is not the task's live one | nothing |
//! | the object is needed no more | the task is over |
//! | it holds other rows than were accepted, or lies where something lies | the task has failed |
//! | anything else | it stands in the object's place |

use std::collections::{BTreeMap, BTreeSet};

use tidegate_common::ids::{BackfillId, OutputIx, SegmentIx, SourceIx, TaskId};
use tidegate_proto::v1::{self, assign::Work, record};

use super::action::{Action, Out};
use super::assign::{assign, may_run};
use super::backfill::Backfill;
use super::event::LeaseRef;
use super::join::{Join, Missed, Origin};
use super::read::poison;
use super::{Core, Wake};

/// Read tasks whose segments are done and dropped, loaded once more for what is regenerated of them.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// The segments that are asked for, and the objects for which they are.
    asked: BTreeMap<(SourceIx, SegmentIx), BTreeSet<(OutputIx, u64)>>,
    /// What was taken out of them and is not granted yet.
    here: BTreeMap<(OutputIx, u64), v1::ReadTask>,
}

impl Reloads {
    fn len(&self) -> usize {
        self.here.len() + self.asked.values().map(BTreeSet::len).sum::<usize>()
    }

    fn is_asked(&self, object: (OutputIx, u64)) -> bool {
        self.asked.values().any(|asked| asked.contains(&object))
    }
}

impl Core {
    /// Hands out what is to be read again for slices that are ready, the lowest first, while there are free slots.
    pub(super) fn assign_regenerations(&mut self, out: &mut Out) {
        let lacks = |id: &&BackfillId| self.backfills.get(*id).is_some_and(Backfill::has_lost);
        for id in self.active.iter().filter(lacks).cloned().collect::<Vec<_>>() {
            while let Some((ix, number)) = self.backfills.get(&id).and_then(next_lost) {
                if !self.regenerate(&id, ix, number, out) {
                    break;
                }
            }
        }
    }

    /// Whether slices of a backfill wait for what nobody reads again.
    pub(super) fn regenerations_wait(&self, backfill: &Backfill) -> bool {
        let joins = || backfill.outputs.iter().filter_map(|output| output.join.as_ref());
        joins().any(Join::has_lost) && !joins().any(Join::is_regenerating) && next_lost(backfill).is_some()
    }

    /// Grants an object to be read again, or asks for what is to be read; `false` where neither can be done now.
    fn regenerate(&mut self, id: &BackfillId, ix: OutputIx, number: u64, out: &mut Out) -> bool {
        let slots = usize::try_from(self.slots()).unwrap_or(usize::MAX);
        let free = self.free.last().map(|(_, session)| *session);
        let Some(backfill) = self.backfills.get_mut(id) else { return false };
        let Some((origin, recorded, shape)) = backfill.lost_object(ix, number) else { return false };
        let Some(task) = backfill.payload(ix, number, origin) else {
            if free.is_some() && backfill.reloads.len() >= slots {
                // What is here and not granted, though there is a slot, is of slices that were joined or set aside since.
                backfill.reloads.here.clear();
            }
            return backfill.reloads.len() < slots.max(1) && ask(backfill, (ix, number), origin, out);
        };
        let Some(session) = free else { return false };
        backfill.reloads.here.remove(&(ix, number));
        let of = TaskId::Regenerate(ix, number);
        let Some(token) = self.grant(id, of, session, out) else { return false };
        if let Some(join) = self.backfills.get_mut(id).and_then(|backfill| backfill.join_mut(ix)) {
            join.regenerating(number);
        }
        self.tell_gate(id, out);
        let gate = self.backfills.get(id).map(Backfill::gate_message);
        let (task, shape, object) = (Some(task), Some(shape), Some(recorded));
        let work = v1::RegenerateWork { source: origin.source.get(), task, shape, object, gate };
        out.send(session, assign(id, of, token, Work::Regenerate(work)));
        true
    }

    /// A segment is here, or could not be had now: what is regenerated of it is taken out.
    pub(super) fn reloaded(
        &mut self,
        id: &BackfillId,
        of: (SourceIx, SegmentIx),
        tasks: Option<&[v1::ReadTask]>,
        out: &mut Out,
    ) {
        let retry_at = out.now.monotonic.after(self.config.back_off);
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        for object in backfill.reloads.asked.remove(&of).unwrap_or_default() {
            let Some((origin, ..)) = backfill.lost_object(object.0, object.1) else { continue };
            let at = usize::try_from(origin.place.1).ok();
            let task = tasks.zip(at).and_then(|(tasks, at)| part(tasks.get(at)?, origin));
            if let Some(task) = task {
                backfill.reloads.here.insert(object, task);
                continue;
            }
            let task = TaskId::Regenerate(object.0, object.1);
            backfill.tries.entry(task).or_default().waiting = true;
            self.wakes.insert((retry_at, Wake::BackOff(id.clone(), task)));
        }
        out.touch(id);
    }

    /// An object was read again.
    pub(super) fn regenerated(&mut self, lease: &LeaseRef, made: v1::Regenerated, out: &mut Out) {
        let TaskId::Regenerate(ix, number) = lease.task else { return };
        if !self.is_live(lease) {
            return;
        }
        let made = made.object.unwrap_or_default();
        let join = self.backfills.get(&lease.id).and_then(|backfill| backfill.join(ix));
        let Some((join, (_, recorded))) = join.and_then(|join| Some((join, join.object(number)?))) else {
            self.end_grant(&lease.id, lease.task, false);
            return out.touch(&lease.id);
        };
        let unsound = made.path.is_empty() || join.has_path(&made.path);
        let unsound = unsound.then(|| format!("{:?} is no place for an object", made.path));
        if let Some(why) = difference(recorded, &made).or(unsound) {
            return self.failed(lease, poison(why), out);
        }
        self.end_grant(&lease.id, lease.task, false);
        let regenerated = record::Regenerated { output: ix.get(), object: number, made: Some(made) };
        self.record(&lease.id, record::Kind::Regenerated(regenerated), out);
    }

    /// Says for what something is read again that cannot be.
    pub(super) fn tell_of_lost(&self, lease: &LeaseRef, evidence: &mut v1::Evidence) {
        let TaskId::Regenerate(ix, number) = lease.task else { return };
        let join = self.backfills.get(&lease.id).and_then(|backfill| backfill.join(ix));
        if let Some((_, lost)) = join.and_then(|join| join.object(number)) {
            evidence.message = format!(
                "{} is not to be had from the shuffle store (is that of all workers the same one?), and what it held \
                 cannot be read again: {}",
                lost.path, evidence.message
            );
        }
    }

    /// A join, or who writes late rows, failed and says what it did not find. Whether that is read again: then it is no
    /// failure of the task.
    pub(super) fn missed(&mut self, lease: &LeaseRef, evidence: &v1::Evidence, out: &mut Out) -> bool {
        let (TaskId::Join(ix, _) | TaskId::Late(ix, _)) = lease.task else { return false };
        let join = self.backfills.get_mut(&lease.id).and_then(|backfill| backfill.join_mut(ix));
        let Some(join) = join.filter(|_| !evidence.lost.is_empty()) else { return false };
        let missed = match lease.task {
            TaskId::Join(_, first) => join.missed(first, &evidence.lost),
            TaskId::Late(_, number) => join.missed_late(number, &evidence.lost),
            _ => Missed::Nothing,
        };
        if let Missed::TooOften(number) = missed {
            let evidence = v1::Evidence { attempts: 1, ..evidence.clone() };
            self.park(&lease.id, TaskId::Regenerate(ix, number), evidence, out);
        }
        missed != Missed::Nothing
    }
}

impl Backfill {
    pub(super) fn join(&self, ix: OutputIx) -> Option<&Join> {
        self.outputs.get(ix.get() as usize)?.join.as_ref()
    }

    pub(super) fn join_mut(&mut self, ix: OutputIx) -> Option<&mut Join> {
        self.outputs.get_mut(ix.get() as usize)?.join.as_mut()
    }

    fn has_lost(&self) -> bool {
        self.outputs.iter().filter_map(|output| output.join.as_ref()).any(Join::has_lost)
    }

    /// The source that a task reads; `None` where it reads none.
    pub(super) fn read_by(&self, task: TaskId) -> Option<SourceIx> {
        match task {
            TaskId::Read(source, ..) => Some(source),
            TaskId::Regenerate(ix, number) => Some(self.join(ix)?.object(number)?.0.source),
            _ => None,
        }
    }

    fn lost_object(&self, ix: OutputIx, number: u64) -> Option<(Origin, v1::ShuffleObject, v1::ShuffleShape)> {
        let join = self.join(ix)?;
        let (origin, object) = join.object(number)?;
        // What its cells hold is compared here.
        let (cells, cell_rows) = Default::default();
        let bare = v1::ShuffleObject { cells, cell_rows, ..object.clone() };
        Some((origin, bare, join.shape(ix.get())?))
    }

    /// What is to be read for an object, where it is here.
    fn payload(&self, ix: OutputIx, number: u64, origin: Origin) -> Option<v1::ReadTask> {
        let source = self.sources.get(origin.source.get() as usize)?;
        let planned = source.plan.payload(origin.place).and_then(|task| part(task, origin));
        planned.or_else(|| self.reloads.here.get(&(ix, number)).cloned())
    }

    /// Folds that an object stands in the place of one that was lost.
    pub(super) fn apply_regenerated(&mut self, regenerated: &record::Regenerated) {
        let (ix, number) = (OutputIx::new(regenerated.output), regenerated.object);
        if let (Some(join), Some(made)) = (self.join_mut(ix), &regenerated.made) {
            join.regenerated(number, made);
        }
        self.parked.remove(&TaskId::Regenerate(ix, number));
        self.tries.remove(&TaskId::Regenerate(ix, number));
    }
}

/// The lost object of a backfill to be read again next.
fn next_lost(backfill: &Backfill) -> Option<(OutputIx, u64)> {
    if !may_run(backfill) {
        return None;
    }
    (0u32..).map(OutputIx::new).zip(&backfill.outputs).find_map(|(ix, output)| {
        let join = output.join.as_ref().filter(|join| join.has_lost())?;
        let waiting = |number: u64| {
            let tries = backfill.tries.get(&TaskId::Regenerate(ix, number));
            tries.is_some_and(|tries| tries.waiting) || backfill.reloads.is_asked((ix, number))
        };
        Some((ix, join.next_lost(backfill.ready_slices(join), waiting)?))
    })
}

/// Asks for the segment that an object's rows come from, once for all objects that need it at a time.
fn ask(backfill: &mut Backfill, object: (OutputIx, u64), origin: Origin, out: &mut Out) -> bool {
    let segment = origin.place.0;
    let source = backfill.sources.get(origin.source.get() as usize);
    let Some(info) = source.and_then(|source| source.plan.segment(segment)).cloned() else { return false };
    let asked = backfill.reloads.asked.entry((origin.source, segment)).or_default();
    if asked.is_empty() {
        out.actions.push(Action::LoadSegment { id: backfill.id.clone(), source: origin.source, segment, info });
    }
    asked.insert(object)
}

/// The units of a read task that an object's rows come from, with the splits that hold them and no others.
fn part(task: &v1::ReadTask, origin: Origin) -> Option<v1::ReadTask> {
    let range = usize::try_from(origin.first).ok()?..usize::try_from(origin.end).ok()?;
    let mut units = task.units.get(range)?.to_vec();
    let used: BTreeSet<u32> = units.iter().map(|unit| unit.split).collect();
    for unit in &mut units {
        unit.split = u32::try_from(used.range(..unit.split).count()).ok()?;
    }
    let split = |at: &u32| task.splits.get(usize::try_from(*at).ok()?).cloned();
    Some(v1::ReadTask { splits: used.iter().filter_map(split).collect(), units })
}

/// How what was read again differs from what was accepted; `None` where it does not.
fn difference(recorded: &v1::ShuffleObject, made: &v1::ShuffleObject) -> Option<String> {
    let cells = |of: &v1::ShuffleObject| match recorded.cells.is_empty() {
        true => (Vec::new(), Vec::new()),
        false => (of.cells.clone(), of.cell_rows.clone()),
    };
    let held = |of: &v1::ShuffleObject| (of.rows, of.anchors, of.first_cell, of.last_cell, cells(of));
    let said = |of: &v1::ShuffleObject| {
        format!("{} rows in cells {} to {}, {} of the anchor", of.rows, of.first_cell, of.last_cell, of.anchors)
    };
    (held(recorded) != held(made)).then(|| {
        format!(
            "the source is not what it was: {} were read then, {} now; bring back what was read then, then `retry`",
            said(recorded),
            said(made)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_task_has_the_splits_of_its_units_and_no_others() {
        let split = |path: &str| v1::Split {
            file: Some(v1::FilePin { path: path.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let unit = |split, position| v1::UnitOfWork { split, position, ..Default::default() };
        let task = v1::ReadTask {
            splits: ["a", "b", "c", "d"].map(split).to_vec(),
            units: vec![unit(0, 0), unit(3, 1), unit(1, 2), unit(3, 3), unit(2, 4)],
        };
        let of = |first, end| Origin { source: SourceIx::new(0), place: (SegmentIx::new(0), 0), first, end };
        let found = part(&task, of(1, 4)).unwrap();
        assert_eq!(found.splits, [split("b"), split("d")]);
        let units: Vec<(u32, u64)> = found.units.iter().map(|unit| (unit.split, unit.position)).collect();
        assert_eq!(units, [(1, 1), (0, 2), (1, 3)]);
        assert_eq!(part(&task, of(4, 6)), None, "it has five units");
    }
}
