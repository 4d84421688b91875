//! A virtual worker that reads again what an object of the shuffle store held that is lost.

use tidegate_common::ids::TaskId;
use tidegate_proto::v1::{self, done};

use super::joins;
use super::link::{Grant, Up};
use super::mishap::Mishap;
use super::scenario::{MILLI, SECOND};
use super::worker::Body;
use super::world::World;

/// What is read again, and how far that is.
#[derive(Clone, Debug)]
pub(super) struct Regenerating {
    work: v1::RegenerateWork,
    /// How many units are read.
    at: usize,
}

impl Regenerating {
    pub(super) fn new(work: v1::RegenerateWork) -> Self {
        Self { work, at: 0 }
    }
}

impl World {
    /// It goes on: by one unit, or writes what it has read.
    pub(super) fn regenerate(&mut self, at: usize, run: u64, grant: Grant, mut of: Regenerating) {
        let ix = self.oracle.ix(&grant.id);
        if self.flaky(ix, grant.task) {
            return self.fail_join(at, run, grant, v1::Failure::Retryable);
        }
        if of.at < of.work.task.as_ref().map_or(0, |task| task.units.len()) {
            of.at += 1;
            if let Some(Body::Regenerate(body)) = self.workers[at].runs.get_mut(&run).map(|run| &mut run.body) {
                **body = of;
            }
            let takes = self.chance.between(50 * MILLI, SECOND) * self.workers[at].slow;
            return self.turn(at, run, takes);
        }
        let object = self.made(at, run, &grant, &of.work);
        self.drop_run(at, run);
        self.say(at, Up::Done(grant, done::Result::Regenerated(v1::Regenerated { object })));
    }

    /// Writes the rows of the units to an object of this attempt.
    fn made(&mut self, at: usize, run: u64, grant: &Grant, work: &v1::RegenerateWork) -> Option<v1::ShuffleObject> {
        let TaskId::Regenerate(output, _) = grant.task else { return None };
        let ix = self.oracle.ix(&grant.id);
        let lost = work.object.as_ref()?.path.clone();
        let (task, first) = self.shuffle.origin(&lost)?;
        let units = &work.task.as_ref()?.units;
        let joins = &self.scenario.orders[ix].joins.as_ref()?;
        let of = |(at, unit): (u32, &v1::UnitOfWork)| joins::rows(task, at, (unit.low, unit.high, unit.rows), joins);
        let mut rows: Vec<_> = (first..).zip(units).flat_map(of).collect();
        if self.goes_wrong(ix, grant.task) {
            rows.pop();
        }
        let joins = self.scenario.orders[ix].joins.as_ref()?;
        let is_anchor = joins.input(work.source) == Some(0);
        let path = format!("{}/{output}/made-of-{}", self.workers[at].runs.get(&run)?.attempt, grant.task);
        let object = joins::object(path.clone(), &rows, work.shape.as_ref()?.slice, joins.bytes, is_anchor);
        self.shuffle.write(&path, ix, rows, (task, first));
        self.oracle.shuffled(ix, &path);
        object
    }

    /// Whether it comes to other rows than were lost: once a task at most, so that it is never the last straw.
    fn goes_wrong(&mut self, ix: usize, task: TaskId) -> bool {
        !self.flaked.contains(&(ix, task)) && self.strikes(Mishap::OtherRows, 900) && self.flaked.insert((ix, task))
    }

    /// An object that somebody still needs is gone.
    pub(super) fn lose_object(&mut self) -> bool {
        let at_stake = self.oracle.at_stake();
        let Some((ix, path)) = self.chance.pick(&at_stake) else { return false };
        if self.shuffle.read(&path).is_none() {
            return false;
        }
        self.shuffle.remove(&path);
        self.oracle.object_lost(ix, &path);
        true
    }
}
