//! What the oracle thinks of each durable record.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tidegate_common::ids::{BackfillId, TaskId};
use tidegate_proto::{convert, v1};
use tidegate_worker::sink::marker;
use v1::record::{self, Kind};

use super::joins::{JoinBook, outputs_of};
use super::{Invariant, Oracle, OutputBook};
use crate::sim::committing::marker_key;

impl Oracle {
    /// A record has become durable.
    pub(in super::super) fn recorded(&mut self, id: &BackfillId, record: &v1::Record) {
        let ix = self.ix(id);
        self.books[ix].records += 1;
        match &record.kind {
            Some(Kind::Created(_)) => self.books[ix].created = true,
            Some(Kind::Term(raised)) => self.term_raised(ix, raised.term),
            Some(Kind::Prepared(_)) => self.books[ix].phase = v1::Phase::Enumerating,
            Some(Kind::Planned(_)) => {}
            Some(Kind::Sliced(sliced)) => self.sliced(ix, sliced),
            Some(Kind::HandIn(accepted)) => self.hand_in(ix, accepted),
            Some(Kind::Sealed(intent)) => self.sealed(ix, intent),
            Some(Kind::Publishing(publishing)) => self.publishing(ix, publishing),
            Some(Kind::Ended(ended)) => self.intent_ended(ix, ended),
            Some(Kind::Parked(parked)) => self.parked(ix, parked),
            Some(Kind::Wish(changed)) => self.wished(ix, changed.wish()),
            Some(Kind::Phase(changed)) => self.phase(ix, changed),
            Some(Kind::Retried(retried)) => self.retried(ix, retried),
            Some(Kind::Regenerated(regenerated)) => self.regenerated(ix, regenerated),
            None => {}
        }
    }

    fn term_raised(&mut self, ix: usize, term: u64) {
        let before = std::mem::replace(&mut self.books[ix].term, term);
        self.require(term > before, Invariant::NumbersRise, || format!("term {term} after {before}"));
    }

    fn hand_in(&mut self, ix: usize, accepted: &record::HandInAccepted) {
        let (Ok(task), Some(hand_in)) = (convert::task_id(accepted.task), &accepted.hand_in) else { return };
        let book = &mut self.books[ix];
        let position = book.log;
        book.log += 1;
        book.hand_ins.insert((hand_in.attempt.clone(), hand_in.number));
        match task {
            TaskId::Join(..) => self.join_accepted(ix, task, hand_in),
            _ => self.units_accepted(ix, task, hand_in),
        }
        let book = &mut self.books[ix];
        let mut files = Vec::new();
        for part in hand_in.outputs.iter().filter(|part| part.shuffled.is_none()) {
            let Some(output) = book.outputs.get_mut(part.output as usize) else { continue };
            // What a join reads, it joins later.
            let joins = book.joins.as_ref().is_some_and(|joins| joins.of.output == part.output);
            if joins && matches!(task, TaskId::Read(..)) {
                continue;
            }
            output.read += part.rows_read;
            output.passed += part.rows_passed;
            if !part.files.is_empty() {
                output.log.insert(position, part.files.clone());
            }
            files.extend(part.files.iter().map(|file| file.path.clone()));
        }
        for path in files {
            self.file_accepted(&path);
        }
    }

    fn units_accepted(&mut self, ix: usize, task: TaskId, hand_in: &v1::HandIn) {
        let book = &mut self.books[ix];
        let (Some(of), TaskId::Read(source, ..)) = (book.tasks.get_mut(&task), task) else { return };
        let (first, end, next, units) = (hand_in.first_unit, hand_in.end_unit, of.next, of.units.len());
        of.next = end;
        of.parked = false;
        let (granted, token) = (of.granted, self.attempts.get(&hand_in.attempt).map(|attempt| attempt.token));
        let rows: u64 =
            of.units.get(first as usize..end as usize).unwrap_or_default().iter().map(|unit| unit.rows).sum();
        let (expected, parts) = (outputs_of(&book.order, source.get()), hand_in.outputs.len());
        let joined = book.joins.as_ref().map(|joins| joins.of.output);
        self.require(first == next && first < end && end as usize <= units, Invariant::NextPrefix, || {
            format!("{task}: units [{first}, {end}) of {units} accepted when {next} was next")
        });
        self.require(granted <= token, Invariant::SupersededStayOut, || {
            format!("{task}: {} under {token:?} is accepted, and {granted:?} was granted", hand_in.attempt)
        });
        self.require(rows == hand_in.rows_read && parts == expected, Invariant::CompleteAtSuccess, || {
            format!("{task}: {} rows of {rows} in {parts} of {expected} outputs", hand_in.rows_read)
        });
        for part in hand_in.outputs.iter().filter(|part| Some(part.output) == joined) {
            self.shuffle_accepted(ix, task, first..end, part);
        }
    }

    fn publishing(&mut self, ix: usize, publishing: &record::Publishing) {
        let book = &mut self.books[ix];
        let ready = book.phase == v1::Phase::Staged || book.publishing;
        (book.publishing, book.phase) = (true, v1::Phase::Running);
        let id = book.order.id.clone();
        self.require(ready, Invariant::StagedApart, || format!("{id:?} is published before it was staged"));
        publishing.intents.iter().for_each(|intent| self.sealed(ix, intent));
    }

    fn wished(&mut self, ix: usize, wish: v1::Wish) {
        let book = &mut self.books[ix];
        book.wish = wish;
        let (publishing, term, id) = (book.publishing, book.term, book.order.id.clone());
        if wish != v1::Wish::Cancel {
            return;
        }
        book.joins.iter_mut().for_each(JoinBook::cancelled);
        let open = |output: &&mut OutputBook| !output.ended && output.intent.kind() != v1::CommitKind::Discard;
        book.outputs.iter_mut().filter(open).for_each(|output| output.doomed = output.doomed.or(Some(term)));
        if [v1::Phase::Staged, v1::Phase::Partial, v1::Phase::Failed].contains(&book.phase) {
            book.phase = v1::Phase::Running;
        }
        self.require(!publishing, Invariant::StagedApart, || format!("{id:?} is published, and was cancelled"));
    }

    fn sealed(&mut self, ix: usize, intent: &v1::Intent) {
        let book = &self.books[ix];
        let Some(output) = book.outputs.get(intent.output as usize) else { return };
        let (sequence, to, ended, log) = (output.sequence, output.sealed_to, output.ended, book.log);
        let published = output.staged && book.publishing;
        // A publish is everything that was sealed, a discard nothing.
        let stretch = match (published, intent.kind()) {
            (true, _) => (0, to),
            (_, v1::CommitKind::Discard) => (to, to),
            _ => (to, intent.log_to.max(to)),
        };
        let place = (intent.branch.is_empty(), intent.drop_branch.is_empty());
        let apart = place == (!output.staged || published, !published);
        let (through, honest) = (output.through, book.accepted_through(intent.output));
        let mut hash = Sha256::new();
        let (mut files, mut rows) = (0u64, 0u64);
        for file in output.log.range(intent.log_from..intent.log_to).flat_map(|(_, files)| files) {
            hash.update(file.path.as_bytes());
            hash.update(b"\n");
            files += 1;
            rows += file.rows;
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let named = (intent.files, intent.rows, intent.digest.clone());
        self.require(intent.sequence == sequence + 1, Invariant::NumbersRise, || {
            format!("sequence {} after {sequence}", intent.sequence)
        });
        self.require(ended, Invariant::OneIntent, || {
            format!("#{} sealed before the end of #{sequence}", intent.sequence)
        });
        let found = (intent.log_from, intent.log_to);
        self.require(found == stretch && intent.log_to <= log, Invariant::OneIntent, || {
            format!("#{} is [{}, {}) after {to}, of {log}", intent.sequence, intent.log_from, intent.log_to)
        });
        self.require(apart, Invariant::StagedApart, || {
            format!("#{} goes to {:?} and drops {:?}", intent.sequence, intent.branch, intent.drop_branch)
        });
        self.require(named == (files, rows, digest), Invariant::OneIntent, || {
            format!("#{} names {named:?}, and its stretch holds {files} files of {rows} rows", intent.sequence)
        });
        // A discard says nothing of time: it is in no snapshot, and may be sealed before a restarted core knows the plan.
        let rises = intent.kind() == v1::CommitKind::Discard || intent.committed_through >= through;
        self.require(rises, Invariant::WatermarksRise, || {
            format!("committed-through {} after {through}", intent.committed_through)
        });
        self.require(intent.committed_through <= honest, Invariant::HonestThrough, || {
            format!("committed-through {} when {honest} is not accepted", intent.committed_through)
        });
        let output = &mut self.books[ix].outputs[intent.output as usize];
        output.sequence = intent.sequence;
        output.ended = false;
        output.sealed_to = intent.log_to;
        output.through = through.max(intent.committed_through);
        output.intent = intent.clone();
        output.doomed = None;
    }

    fn intent_ended(&mut self, ix: usize, ended: &record::IntentEnded) {
        let end = ended.result.as_ref().map(v1::CommitResult::end).unwrap_or_default();
        let landed = self.has_landed(ix, ended.output);
        let stands = self.fence_stands(ix, ended.output);
        let tampered = self.is_tampered(ix);
        let Some(output) = self.books[ix].outputs.get_mut(ended.output as usize) else { return };
        let open = !std::mem::replace(&mut output.ended, true) && output.sequence == ended.sequence;
        let given_up = output.doomed.take().is_some();
        if [v1::CommitEnd::Fenced, v1::CommitEnd::Cancelled].contains(&end) {
            output.fenced.insert(marker::of(&output.intent));
        }
        match (end, output.intent.kind()) {
            (v1::CommitEnd::Cancelled, _) if output.intent.drop_branch.is_empty() => {
                output.sealed_to = output.intent.log_from;
            }
            (v1::CommitEnd::Committed, v1::CommitKind::Discard) => output.sealed_to = 0,
            _ => {}
        }
        let what = || format!("#{} ended as {end:?}, and it is {landed} that it is in the table", ended.sequence);
        self.require(open, Invariant::OneIntent, || format!("#{} ended twice", ended.sequence));
        self.require(end != v1::CommitEnd::Committed || landed, Invariant::EndsAreTrue, what);
        self.require(end != v1::CommitEnd::Fenced || !landed || tampered, Invariant::EndsAreTrue, what);
        let cancelled = end == v1::CommitEnd::Cancelled;
        self.require(!cancelled || (stands && !landed) || tampered, Invariant::EndsAreTrue, what);
        let cause = end == v1::CommitEnd::Committed || (cancelled && given_up);
        self.require(cause || tampered, Invariant::Health, what);
    }

    fn parked(&mut self, ix: usize, parked: &record::Parked) {
        let Ok(task) = convert::task_id(parked.task) else { return };
        let book = &mut self.books[ix];
        let poisoned = book.order.poison.iter().any(|(of, _)| *of == task) || book.is_poison(task);
        if let (TaskId::Join(_, slice), Some(joins)) = (task, &mut book.joins) {
            joins.parked.insert(slice);
        }
        if let Some(of) = book.tasks.get_mut(&task) {
            of.parked = true;
        }
        book.unread.retain(|(_, of, _)| *of != task);
        let evidence = parked.evidence.clone().unwrap_or_default();
        self.require(poisoned, Invariant::Health, || format!("{task} is parked: {}", evidence.message));
    }

    fn retried(&mut self, ix: usize, retried: &record::Retried) {
        let book = &mut self.books[ix];
        let (term, anew) = (book.term, retried.allow_existing);
        let open = |output: &&mut OutputBook| !output.ended && output.intent.kind() == v1::CommitKind::Replace;
        book.outputs
            .iter_mut()
            .filter(|_| anew)
            .filter(open)
            .for_each(|output| output.doomed = output.doomed.or(Some(term)));
        for (task, of) in book.tasks.iter_mut().filter(|(_, of)| of.parked) {
            of.parked = false;
            let units = of.units.iter().zip(0u32..).skip(of.next as usize);
            let unread = units.filter(|(_, at)| !book.read_through.contains(&(*task, *at)));
            book.unread.extend(unread.map(|(unit, at)| (unit.low, *task, at)));
        }
        if let Some(joins) = &mut book.joins {
            joins.parked.clear();
            joins.emptied = false;
        }
        book.wish = v1::Wish::Run;
        book.phase = v1::Phase::Running;
    }

    fn phase(&mut self, ix: usize, changed: &record::PhaseChanged) {
        let phase = changed.phase();
        self.books[ix].phase = phase;
        let book = &self.books[ix];
        let evidence = changed.evidence.clone().unwrap_or_default().message;
        let cause = match phase {
            v1::Phase::Failed => book.order.too_wide || self.is_tampered(ix) || self.is_intruded(ix),
            v1::Phase::Partial => {
                book.tasks.values().any(|task| task.parked)
                    || book.joins.as_ref().is_some_and(|joins| !joins.parked.is_empty())
            }
            v1::Phase::Cancelled => book.wish == v1::Wish::Cancel,
            _ => true,
        };
        let id = book.order.id.clone();
        let forgotten = if phase == v1::Phase::Partial { book.forgotten_slices() } else { Vec::new() };
        self.require(cause, Invariant::Health, || format!("{id:?} is {phase:?}: {evidence}"));
        self.require(forgotten.is_empty(), Invariant::AllJoined, || {
            format!("{id:?} is {phase:?}, and slices {forgotten:?} could be joined")
        });
        if [v1::Phase::Succeeded, v1::Phase::Staged, v1::Phase::Cancelled].contains(&phase) {
            self.left_nothing(ix);
        }
        match phase {
            v1::Phase::Succeeded => {
                self.succeeded(ix);
                self.join_succeeded(ix);
            }
            v1::Phase::Staged | v1::Phase::Cancelled => self.staged_or_not(ix, phase),
            _ => {}
        }
        let open = self.books[ix].outputs.iter().any(|output| !output.ended);
        self.require(!open || phase == v1::Phase::Failed, Invariant::CompleteAtSuccess, || {
            format!("{id:?} is {phase:?} while an intent is open")
        });
    }

    /// All that is staged is on its branch when it waits to be published, and nothing of it anywhere when it was cancelled.
    fn staged_or_not(&mut self, ix: usize, phase: v1::Phase) {
        let book = &self.books[ix];
        let id = book.order.id.clone();
        let key = marker_key(&id, &marker::staging_branch(id.as_str()));
        let mut wrong = Vec::new();
        for (output, table) in book.outputs.iter().zip(&book.order.tables).filter(|(output, _)| output.staged) {
            let history = &self.history[*table];
            let files: BTreeSet<String> = output.log.values().flatten().map(|file| file.path.clone()).collect();
            let there = history.branches.get(&key).cloned().unwrap_or_default();
            let expected = if phase == v1::Phase::Staged { files.clone() } else { BTreeSet::new() };
            if there != expected || !history.files.is_disjoint(&files) {
                wrong.push(format!("{there:?} of {expected:?} on the branch"));
            }
        }
        let tampered = self.is_tampered(ix);
        self.require(wrong.is_empty() || tampered, Invariant::StagedApart, || {
            format!("{id:?} is {phase:?}: {wrong:?}")
        });
    }

    fn succeeded(&mut self, ix: usize) {
        let book = &self.books[ix];
        let id = book.order.id.clone();
        let open: Vec<TaskId> =
            book.tasks.iter().filter(|(_, of)| (of.next as usize) < of.units.len()).map(|(task, _)| *task).collect();
        let mut wrong = Vec::new();
        for (at, ((output, reads), table)) in
            (0u32..).zip(book.outputs.iter().zip(&book.order.reads).zip(&book.order.tables))
        {
            let found = book.order.sources.get(*reads as usize).map(|source| source.found.clone()).unwrap_or_default();
            let expected = book.anchors(at).unwrap_or(found.rows_in_range - found.rows_pruned);
            if output.read != expected {
                wrong.push(format!("{} rows read of {expected}", output.read));
            }
            let files: Vec<&v1::DataFile> = output.log.values().flatten().collect();
            let rows: u64 = files.iter().map(|file| file.rows).sum();
            if rows != output.passed {
                wrong.push(format!("{rows} rows in files of {} passed", output.passed));
            }
            let history = &self.history[*table].files;
            wrong.extend(files.iter().filter(|file| !history.contains(&file.path)).map(|file| file.path.clone()));
        }
        self.require(open.is_empty() && wrong.is_empty(), Invariant::CompleteAtSuccess, || {
            format!("{id:?} succeeded with {open:?} open and {wrong:?} missing")
        });
    }
}
