//! Seals and intents: when accepted files become the immutable list of one commit, and how that ends.
//!
//! An output's intents lie behind one another in the log: each starts where the last one ended, and the next is not
//! prepared before the end of the last is proven. So no file can be in two intents that land: an intent that is fenced
//! off gives its files back, and the next one starts where it did.
//!
//! # How an intent ends
//!
//! | the worker found | who may say so | then |
//! |---|---|---|
//! | committed | anybody: it is a fact | its files are in the table |
//! | cancelled, of an intent that was given up | who has the right to try | its fence is the marker, its files wait again |
//! | conflict | who has the right to try | no end: the backfill fails, and the intent may be tried again or given up |
//! | fenced, rolled back, or cancelled without being given up | who has the right to try | the backfill fails |

use sha2::{Digest, Sha256};
use tidegate_common::clock::Monotonic;
use tidegate_common::fence::Fence;
use tidegate_common::ids::{BackfillId, LogPosition, OutputIx, Sequence, TaskId};
use tidegate_common::time::EventTime;
use tidegate_proto::v1::{self, done, record};

use super::action::{Action, Out};
use super::backfill::{Backfill, CoreOutput};
use super::event::LeaseRef;
use super::output::{Output, Unsealed};
use super::{Core, Wake};

/// What is particular to an intent; the rest follows from its output and table.
pub(super) struct Draft {
    pub(super) kind: v1::CommitKind,
    pub(super) files: Unsealed,
    pub(super) log_from: LogPosition,
    pub(super) log_to: LogPosition,
    pub(super) branch: String,
    pub(super) drop_branch: String,
}

impl Core {
    /// Files were handed in: notes since when they wait, and wakes when they have waited long enough.
    pub(super) fn files_wait(&mut self, id: &BackfillId, out: &mut Out) {
        let now = out.now.monotonic;
        let Some(backfill) = self.backfills.get_mut(id) else { return };
        let mut due = Vec::new();
        for (output, spec) in backfill.outputs.iter_mut().zip(&backfill.spec.outputs) {
            if output.unsealed.files > 0 && output.unsealed_since.is_none() {
                output.unsealed_since = Some(now);
                due.push(now.after(spec.commit_every));
            }
        }
        for at in due {
            self.wake(at, Wake::Seal(id.clone()));
        }
    }

    /// Seals what is due: after the interval or the bytes, when all is read, and when a pause has taken hold.
    pub(super) fn seal_due(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        let waits = backfill.publishing || backfill.repin || !backfill.is_settled();
        if backfill.is_over() || backfill.wish == v1::Wish::Cancel || waits {
            return;
        }
        let outputs = (0u32..).zip(backfill.outputs.iter().zip(&backfill.spec.outputs));
        let due = outputs.filter(|(_, (output, spec))| self.is_due(backfill, output, spec, out.now.monotonic));
        let due: Vec<_> = due.collect();
        let lost = due.iter().find(|(_, (output, spec))| spec.is_held() && !output.is_gathered());
        if let Some(failure) = lost.map(|(ix, (output, _))| not_gathered(*ix, output)) {
            return self.fail_backfill(id, failure, out);
        }
        let intents = due.into_iter().filter_map(|(ix, (output, spec))| self.next_intent(backfill, ix, output, spec));
        for intent in intents.collect::<Vec<_>>() {
            self.seal(id, intent, out);
        }
    }

    fn is_due(&self, backfill: &Backfill, output: &Output, spec: &CoreOutput, now: Monotonic) -> bool {
        if output.prepared_intent().is_some() && self.config.fences.stands(Fence::IntentImmutability) {
            return false;
        }
        if backfill.is_whole() && spec.replaces && !output.replaced {
            return true;
        }
        if spec.is_held() || output.unsealed.files == 0 {
            return false;
        }
        let all = backfill.is_processed() || (backfill.wish == v1::Wish::Pause && backfill.grants.reads() == 0);
        let waited = output.unsealed_since.map(|since| now.since(since)).unwrap_or_default();
        all || waited >= spec.commit_every || output.unsealed.bytes >= spec.commit_bytes
    }

    /// The intent of all files that wait: to main, or to the staging branch.
    fn next_intent(&self, backfill: &Backfill, ix: u32, output: &Output, spec: &CoreOutput) -> Option<v1::Intent> {
        let honest = self.config.fences.stands(Fence::SealedThrough);
        let replaces = spec.replaces && !output.replaced;
        let draft = Draft {
            kind: if replaces { v1::CommitKind::Replace } else { v1::CommitKind::Append },
            files: output.unsealed.clone(),
            log_from: if honest { output.sealed_through } else { LogPosition::default() },
            log_to: backfill.log,
            branch: if spec.staged { backfill.branch() } else { String::new() },
            drop_branch: String::new(),
        };
        self.intent(backfill, ix, draft)
    }

    /// The next intent of an output, from what is particular to it.
    pub(super) fn intent(&self, backfill: &Backfill, ix: u32, draft: Draft) -> Option<v1::Intent> {
        let table = backfill.prepared.as_ref()?.outputs.get(ix as usize)?;
        let output = backfill.outputs.get(ix as usize)?;
        let digest = draft.files.digest();
        let sequence = output.sequence.next();
        let predecessor = if draft.branch.is_empty() { &output.marker } else { &output.branch_marker };
        let replaces = draft.kind == v1::CommitKind::Replace;
        let staged_marker = if draft.drop_branch.is_empty() { String::new() } else { output.branch_marker.clone() };
        Some(v1::Intent {
            version: 1,
            output: ix,
            sequence: sequence.get(),
            predecessor: predecessor.clone(),
            snapshot_id: snapshot_id(&backfill.id, &table.uuid, sequence, &digest),
            digest,
            table_uuid: table.uuid.clone(),
            schema_id: table.schema_id,
            spec_id: table.spec_id,
            log_from: draft.log_from.get(),
            log_to: draft.log_to.get(),
            files: draft.files.files,
            rows: draft.files.rows,
            bytes: draft.files.bytes,
            committed_through: self.committed_through(backfill, output).as_micros(),
            kind: draft.kind.into(),
            branch: draft.branch,
            drop_branch: draft.drop_branch,
            replaces_through: if replaces { table.sequence_before } else { 0 },
            replaces_head: if replaces { table.head_before } else { 0 },
            staged_marker,
        })
    }

    /// The event time below which the table is complete once everything accepted so far is in it.
    fn committed_through(&self, backfill: &Backfill, output: &Output) -> EventTime {
        let low = if self.config.fences.stands(Fence::CompleteWatermark) {
            backfill.complete_watermark(output).unwrap_or(EventTime::MIN)
        } else {
            backfill.gate().watermark
        };
        low.min(backfill.spec.window.to()).max(output.committed_through).max(output.branch_through)
    }

    pub(super) fn seal(&mut self, id: &BackfillId, intent: v1::Intent, out: &mut Out) {
        let output = intent.output;
        self.record(id, record::Kind::Sealed(intent), out);
        self.table_record(id, output, v1::CommitEnd::Unspecified, out);
    }

    pub(super) fn table_record(&mut self, id: &BackfillId, ix: u32, end: v1::CommitEnd, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        let Some(output) = backfill.outputs.get(ix as usize) else { return };
        let record = v1::TableRecord {
            version: 1,
            term: backfill.term.get(),
            sequence: output.sequence.get(),
            intent: output.intent.clone(),
            end: end.into(),
            sealed_through: output.sealed_through.get(),
            snapshot_id: output.last_snapshot,
        };
        out.actions.push(Action::TableRecord(id.clone(), ix, record));
    }

    /// The intent that the holder of a live commit permit may commit.
    pub fn permitted_intent(&self, permit: &LeaseRef) -> Option<v1::Intent> {
        let TaskId::Commit(output, sequence) = permit.task else { return None };
        let output = self.backfills.get(&permit.id)?.outputs.get(output.get() as usize)?;
        let intent = output.prepared_intent().filter(|intent| intent.sequence == sequence.get())?;
        self.is_live(permit).then(|| intent.clone())
    }

    /// A task is done.
    pub(super) fn done(&mut self, lease: &LeaseRef, result: done::Result, out: &mut Out) {
        match (lease.task, result) {
            (TaskId::Prepare, done::Result::Prepared(prepared)) => self.prepared(lease, prepared, out),
            (TaskId::Enumerate(_), done::Result::Enumerated(found)) => self.enumerated(lease, found, out),
            (TaskId::Commit(output, sequence), done::Result::Commit(result)) => {
                self.commit_ended(lease, output, sequence, result, out);
            }
            (TaskId::Clean, done::Result::Cleaned(_)) if self.is_live(lease) => {
                self.end_grant(&lease.id, lease.task, false);
                self.cleaned(&lease.id, out);
            }
            (TaskId::Regenerate(..), done::Result::Regenerated(made)) => self.regenerated(lease, made, out),
            _ => {}
        }
    }

    /// A commit has an end. That it is in the table is a fact whoever found it; that it is not is believed only of
    /// the one who has the right to try.
    fn commit_ended(
        &mut self,
        lease: &LeaseRef,
        ix: OutputIx,
        sequence: Sequence,
        result: v1::CommitResult,
        out: &mut Out,
    ) {
        let Some(output) = self.backfills.get(&lease.id).and_then(|backfill| backfill.outputs.get(ix.get() as usize))
        else {
            return;
        };
        let expected = output.prepared_intent().is_some_and(|intent| intent.sequence == sequence.get());
        let end = result.end();
        if !expected || (end != v1::CommitEnd::Committed && !self.is_live(lease)) {
            return;
        }
        if end == v1::CommitEnd::Conflict {
            self.end_grant(&lease.id, lease.task, false);
            return self.fail_backfill(&lease.id, conflict(&result), out);
        }
        let given_up = output.doomed.is_some();
        let evidence = result.evidence.clone();
        let ended = record::IntentEnded { output: ix.get(), sequence: sequence.get(), result: Some(result) };
        self.record(&lease.id, record::Kind::Ended(ended), out);
        self.table_record(&lease.id, ix.get(), end, out);
        self.end_grant(&lease.id, lease.task, false);
        if let Some(backfill) = self.backfills.get_mut(&lease.id) {
            backfill.tries.remove(&lease.task);
        }
        let why = match end {
            v1::CommitEnd::Committed => return,
            v1::CommitEnd::Cancelled if given_up => return self.files_wait(&lease.id, out),
            v1::CommitEnd::RolledBack => "a commit of this backfill was rolled back in the table",
            _ => "somebody else has written this backfill's marker",
        };
        let failure = v1::Evidence {
            class: v1::Failure::Fenced.into(),
            message: format!("{why}: {evidence}"),
            place: format!("commit {sequence}"),
            ..Default::default()
        };
        self.fail_backfill(&lease.id, failure, out);
    }
}

fn conflict(result: &v1::CommitResult) -> v1::Evidence {
    let v1::CommitResult { evidence, way_out, .. } = result;
    let message = match way_out.is_empty() {
        false => format!("somebody else has moved what is to be published: {evidence}; {way_out}"),
        true => format!(
            "somebody else has written into the window that it replaces, after it was prepared: {evidence}; take that \
             out and `retry`, or apply it again with --allow-existing: then what they wrote is replaced as well"
        ),
    };
    v1::Evidence { class: v1::Failure::Fenced.into(), message, exit_code: 4, ..Default::default() }
}

/// A replacement without these files would remove what the window holds for nothing.
fn not_gathered(ix: u32, output: &Output) -> v1::Evidence {
    let message = format!(
        "of {} files that were accepted, only {} wait to be committed: the others went with intent {}, whose end the \
         table does not show; a replacement without them would empty the window, so none is made: look at the table's \
         history, and start the backfill anew",
        output.account.files, output.unsealed.files, output.sequence
    );
    v1::Evidence { class: v1::Failure::Fenced.into(), message, place: format!("output {ix}"), ..Default::default() }
}

/// A positive snapshot id that follows from what is committed, so that every try of an intent uses the same.
fn snapshot_id(id: &BackfillId, table_uuid: &str, sequence: Sequence, digest: &str) -> i64 {
    let mut hash = Sha256::new();
    for part in [id.as_str(), table_uuid, &sequence.get().to_string(), digest] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let bytes = hash.finalize();
    let mut first = [0u8; 8];
    first.copy_from_slice(&bytes[..8]);
    (i64::from_be_bytes(first) & i64::MAX).max(1)
}
