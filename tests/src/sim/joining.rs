//! A virtual join: stretch by stretch of its slices, from the objects that it was told to read; and what empties the
//! shuffle store.

use std::collections::BTreeSet;
use std::ops::Range;

use tidegate_common::fence::Fence;
use tidegate_common::ids::TaskId;
use tidegate_proto::v1::{self, done};

use super::joins::{Row, slice_of, within};
use super::link::{Grant, Up};
use super::reading::files;
use super::scenario::{MILLI, SECOND};
use super::worker::Body;
use super::world::World;

/// A running join.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    output: u32,
    slices: Range<u32>,
    /// The first slice that is not joined yet.
    at: u32,
    width: i64,
    inputs: Vec<v1::join_work::Objects>,
    /// The anchor's rows that are joined.
    anchors: Vec<Row>,
    handed_in: bool,
}

impl Joining {
    pub(super) fn new(task: TaskId, work: v1::JoinWork) -> Option<Self> {
        let TaskId::Join(output, first) = task else { return None };
        Some(Self {
            output: output.get(),
            slices: first..work.end_slice,
            at: first,
            width: work.shape?.slice,
            inputs: work.inputs,
            anchors: Vec::new(),
            handed_in: false,
        })
    }

    /// What it reads.
    pub(super) fn paths(&self) -> BTreeSet<String> {
        self.inputs.iter().flat_map(|input| &input.objects).map(|object| object.path.clone()).collect()
    }
}

impl World {
    /// A join goes on: it joins a few more slices, or hands in.
    pub(super) fn join(&mut self, at: usize, run: u64, grant: Grant, mut joining: Joining) {
        if joining.handed_in {
            return;
        }
        if joining.at == joining.slices.end {
            return self.deliver_joined(at, run, grant, joining);
        }
        let ix = self.oracle.ix(&grant.id);
        let left = joining.slices.end - joining.at;
        let end = joining.at + u32::try_from(self.chance.between(1, u64::from(left))).unwrap_or(left);
        let stretch = joining.at..end;
        for path in joining.paths() {
            if self.shuffle.read(&path).is_none() {
                self.oracle.missed(ix, &path, &joining.slices);
                let evidence = v1::Evidence { class: v1::Failure::Retryable.into(), lost: path, ..Default::default() };
                self.drop_run(at, run);
                return self.say(at, Up::Fail(grant, evidence));
            }
        }
        let poison = self.scenario.orders[ix].joins.iter().flat_map(|joins| &joins.poison);
        let poisoned = poison
            .map(|at| slice_of(*at, joining.width))
            .any(|slice| u32::try_from(slice).is_ok_and(|slice| stretch.contains(&slice)));
        if poisoned || self.flaky(ix, grant.task) {
            let class = if poisoned { v1::Failure::Poison } else { v1::Failure::Retryable };
            return self.fail_join(at, run, grant, class);
        }
        let anchors = joining.inputs.first().map(|anchor| anchor.objects.as_slice()).unwrap_or_default();
        for object in anchors {
            let rows = self.shuffle.read(&object.path).unwrap_or_default();
            joining.anchors.extend(within(rows, &stretch, joining.width));
        }
        joining.at = end;
        if let Some(Body::Join(of)) = self.workers[at].runs.get_mut(&run).map(|run| &mut run.body) {
            **of = joining;
        }
        let longest = if self.chance.one_in(6) { 6 * SECOND } else { SECOND };
        let takes = self.chance.between(20 * MILLI, longest) * self.workers[at].slow;
        self.turn(at, run, takes);
    }

    pub(super) fn fail_join(&mut self, at: usize, run: u64, grant: Grant, class: v1::Failure) {
        let evidence = v1::Evidence { class: class.into(), message: "as planned".to_owned(), ..Default::default() };
        self.drop_run(at, run);
        self.say(at, Up::Fail(grant, evidence));
    }

    fn deliver_joined(&mut self, at: usize, run: u64, grant: Grant, joining: Joining) {
        let Some(of) = self.workers[at].runs.get_mut(&run) else { return };
        let attempt = of.attempt.clone();
        if let Body::Join(joining) = &mut of.body {
            joining.handed_in = true;
        }
        let rows = joining.anchors.len() as u64;
        let files = files(&attempt, joining.output, 0, rows);
        let mut left = joining.anchors.as_slice();
        for file in &files {
            let (own, others) = left.split_at(usize::try_from(file.rows).unwrap_or(0).min(left.len()));
            left = others;
            self.oracle.written(&attempt, &file.path);
            self.oracle.holds(&file.path, own);
        }
        let output = joining.output;
        let part = v1::OutputPart { output, rows_read: rows, rows_passed: rows, files, ..Default::default() };
        let hand_in = v1::HandIn {
            attempt,
            first_unit: joining.slices.start,
            end_unit: joining.slices.end,
            rows_read: rows,
            outputs: vec![part],
            ..Default::default()
        };
        self.say(at, Up::HandIn(grant, hand_in, false));
    }

    /// The hand-in of a join is answered.
    pub(super) fn join_replied(&mut self, at: usize, reply: &v1::HandInReply) {
        let waits = |body: &Body| matches!(body, Body::Join(joining) if joining.handed_in);
        let runs = &self.workers[at].runs;
        let found = runs.iter().find(|(_, run)| run.attempt == reply.attempt && waits(&run.body)).map(|(run, _)| *run);
        let Some(run) = found else { return };
        if reply.accepted {
            return self.drop_run(at, run);
        }
        self.oracle.refused(&reply.attempt);
        self.give_back(at, run);
    }

    /// Removes what it was told to remove from the shuffle store; a try that fails has removed some of it.
    pub(super) fn clean(&mut self, at: usize, run: u64, grant: Grant, work: &v1::CleanWork) {
        let ix = self.oracle.ix(&grant.id);
        let all = work.all || !self.fences.stands(Fence::NeededObjects);
        let mut paths = if all { self.shuffle.of(ix) } else { work.paths.clone() };
        let fails = self.flaky(ix, grant.task);
        if fails {
            paths.truncate(paths.len() / 2);
        }
        for path in &paths {
            self.shuffle.remove(path);
            self.oracle.removed(ix, path);
        }
        if fails {
            return self.fail_join(at, run, grant, v1::Failure::Retryable);
        }
        if work.all {
            self.oracle.emptied(ix);
        }
        self.drop_run(at, run);
        self.say(at, Up::Done(grant, done::Result::Cleaned(v1::Cleaned {})));
    }
}
