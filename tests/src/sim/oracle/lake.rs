//! What the oracle thinks of files, of commits that land, and of what may be deleted.

use std::collections::BTreeSet;

use tidegate_common::ids::{TaskId, Token};
use tidegate_proto::v1;
use tidegate_worker::sink::marker;

use super::{AttemptBook, FileBook, Invariant, Oracle};
use crate::sim::committing::{branch_of, marker_key};
use crate::sim::scenario::Micros;
use crate::sim::table::Table;

impl Oracle {
    /// An attempt begins.
    pub(in super::super) fn attempted(&mut self, ix: usize, task: TaskId, token: Token, attempt: &str) {
        let book = AttemptBook { backfill: ix, task, token, refused: false, condemned: None };
        self.attempts.insert(attempt.to_owned(), book);
    }

    /// A hand-in of an attempt was refused: the attempt is over.
    pub(in super::super) fn refused(&mut self, attempt: &str) {
        if let Some(of) = self.attempts.get_mut(attempt) {
            of.refused = true;
        }
    }

    /// A file is written.
    pub(in super::super) fn written(&mut self, attempt: &str, path: &str) {
        let file = FileBook { attempt: attempt.to_owned(), deleted: false, accepted: false };
        self.files.insert(path.to_owned(), file);
    }

    pub(super) fn file_accepted(&mut self, path: &str) {
        let Some(file) = self.files.get_mut(path) else {
            return self.breaks(Invariant::OneIntent, format!("{path} was never written"));
        };
        let (twice, deleted) = (std::mem::replace(&mut file.accepted, true), file.deleted);
        self.require(!twice, Invariant::OneIntent, || format!("{path} is in two accepted hand-ins"));
        self.require(!deleted, Invariant::NothingLostToGarbage, || format!("{path} is accepted, and was deleted"));
    }

    /// A file is deleted.
    pub(in super::super) fn deleted(&mut self, path: &str) {
        let Some(file) = self.files.get_mut(path) else { return };
        file.deleted = true;
        let accepted = file.accepted;
        self.require(!accepted, Invariant::NothingLostToGarbage, || format!("{path} is deleted, and was accepted"));
    }

    /// The files that the garbage rule lets be deleted now: of an attempt that has been refused or superseded, or whose
    /// backfill has been over, for longer than `grace`; and, where the rule `spares`, in no accepted hand-in (so in no
    /// intent).
    pub(in super::super) fn garbage(&mut self, grace: Micros, spares: bool) -> Vec<String> {
        let over: BTreeSet<usize> = (0..self.books.len()).filter(|ix| self.is_over(*ix)).collect();
        for attempt in self.attempts.values_mut() {
            let book = &self.books[attempt.backfill];
            let joins = book.joins.as_ref().and_then(|joins| joins.granted.get(&attempt.task).copied());
            let granted = book.tasks.get(&attempt.task).and_then(|task| task.granted).or(joins);
            let dead = attempt.refused || granted > Some(attempt.token) || over.contains(&attempt.backfill);
            attempt.condemned = dead.then(|| attempt.condemned.unwrap_or(self.now));
        }
        let condemned = |file: &FileBook| {
            let since = self.attempts.get(&file.attempt).and_then(|attempt| attempt.condemned);
            since.is_some_and(|since| self.now >= since + grace)
        };
        let deletable = |file: &&FileBook| !file.deleted && condemned(file) && !(spares && file.accepted);
        self.files.iter().filter(|(_, file)| deletable(file)).map(|(path, _)| path.clone()).collect()
    }

    /// Whether the last intent of an output is in its table's history.
    pub(super) fn has_landed(&self, ix: usize, output: u32) -> bool {
        let book = &self.books[ix];
        let at = output as usize;
        let (Some(of), Some(table)) = (book.outputs.get(at), book.order.tables.get(at)) else { return false };
        let key = marker_key(&book.order.id, branch_of(&of.intent));
        self.history[*table].markers.contains_key(&(key, marker::of(&of.intent)))
    }

    /// Whether the fence of an output's last intent is in its table's history.
    pub(super) fn fence_stands(&self, ix: usize, output: u32) -> bool {
        let book = &self.books[ix];
        let at = output as usize;
        let (Some(of), Some(table)) = (book.outputs.get(at), book.order.tables.get(at)) else { return false };
        let Some(term) = of.doomed else { return false };
        let fence = format!("{}:{}", of.intent.sequence, marker::fence_digest(term));
        self.history[*table].fences.contains(&(marker_key(&book.order.id, branch_of(&of.intent)), fence))
    }

    /// A fence lands in a table.
    pub(in super::super) fn fence_landed(&mut self, ix: usize, intent: &v1::Intent, fence: &str) {
        let book = &self.books[ix];
        let Some(table) = book.order.tables.get(intent.output as usize).copied() else { return };
        let key = marker_key(&book.order.id, branch_of(intent));
        let landed = self.history[table].markers.contains_key(&(key.clone(), marker::of(intent)));
        let tampered = self.is_tampered(ix);
        let again = !self.history[table].fences.insert((key, fence.to_owned()));
        self.require((!landed && !again) || tampered, Invariant::OnceInTable, || {
            format!("fence {fence} lands, again is {again}, and its intent has landed: {landed}")
        });
    }

    /// Somebody else wrote into the backfills' windows.
    pub(in super::super) fn intruded(&mut self, table: usize) {
        self.history[table].intruded = true;
    }

    /// A commit lands in a table with these files.
    pub(in super::super) fn landed(&mut self, ix: usize, intent: &v1::Intent, files: &[v1::DataFile]) {
        let book = &self.books[ix];
        let at = intent.output as usize;
        let (Some(of), Some(table)) = (book.outputs.get(at), book.order.tables.get(at).copied()) else { return };
        let name = (marker_key(&book.order.id, branch_of(intent)), marker::of(intent));
        let branch = marker_key(&book.order.id, &marker::staging_branch(book.order.id.as_str()));
        let apart = !of.staged || !intent.branch.is_empty() || book.publishing;
        let fenced = of.fenced.contains(&name.1);
        let open = book.accepted_through(intent.output);
        let missing = of.log.range(..intent.log_from).flat_map(|(_, files)| files);
        let there = match intent.branch.is_empty() {
            true => self.history[table].files.clone(),
            false => self.history[table].branches.get(&branch).cloned().unwrap_or_default(),
        };
        let discards = intent.kind() == v1::CommitKind::Discard;
        let missing = missing.filter(|file| !discards && !there.contains(&file.path)).count();
        let deleted = files.iter().find(|file| self.files.get(&file.path).is_none_or(|book| book.deleted)).cloned();
        let tampered = self.is_tampered(ix);
        let history = &mut self.history[table];
        // The hole that ADR 5 tells of: a first commit of which no trace is left may land again, and only that.
        let forgotten = history.forgotten.remove(&name) && intent.predecessor.is_empty();
        let again = history.markers.insert(name.clone(), intent.snapshot_id).is_some();
        if discards || !intent.drop_branch.is_empty() {
            history.branches.remove(&branch);
        }
        let on = match intent.branch.is_empty() {
            true => &mut history.files,
            false => history.branches.entry(branch).or_default(),
        };
        let twice: Vec<&v1::DataFile> = files.iter().filter(|file| !on.insert(file.path.clone())).collect();
        let what = format!("{} of {:?}", name.1, self.books[ix].order.id);
        let twice = twice.len();
        self.require((!again && twice == 0) || (again && forgotten), Invariant::OnceInTable, || {
            format!("{what} lands, again is {again}, and {twice} of its files are there already")
        });
        self.require(apart, Invariant::StagedApart, || format!("{what} lands on main, and is staged"));
        self.require(!fenced || tampered, Invariant::EndsAreTrue, || format!("{what} lands after it ended as fenced"));
        self.require(missing == 0 || tampered, Invariant::HonestThrough, || {
            format!("{what} lands before {missing} files of earlier intents")
        });
        self.require(intent.committed_through <= open, Invariant::HonestThrough, || {
            format!("{what} says committed through {}, and {open} is not accepted", intent.committed_through)
        });
        self.require(deleted.is_none(), Invariant::NothingLostToGarbage, || format!("{what} lands with {deleted:?}"));
    }

    /// Somebody took commits or markers out of a table: its backfills may fail.
    pub(in super::super) fn tampered(&mut self, table: usize) {
        self.history[table].tampered = true;
    }

    /// Somebody removed properties or snapshots: notes of which markers that had landed `table` has no trace left.
    pub(in super::super) fn forgets(&mut self, at: usize, table: &Table) {
        let history = &mut self.history[at];
        let gone = history.markers.iter().filter(|((key, _), id)| table.forgets(key, **id));
        history.forgotten.extend(gone.map(|(name, _)| name.clone()));
    }
}
