//! Staged outputs: when what is on their branches goes to main, and when it goes for good.
//!
//! One record prepares the publish intents of all staged outputs. Before it a cancel discards all of them; after it
//! each is driven to its end. Across tables that is eventual, not atomic.

use tidegate_common::ids::{BackfillId, LogPosition};
use tidegate_proto::v1::{self, record};

use super::Core;
use super::action::Out;
use super::backfill::{Backfill, CoreOutput};
use super::commit::Draft;
use super::output::{Output, Unsealed};

impl Core {
    /// What is staged goes to main.
    pub(super) fn publish(&mut self, id: &BackfillId, reason: String, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        let outputs = (0u32..).zip(backfill.outputs.iter().zip(&backfill.spec.outputs));
        let due = outputs.filter(|(_, (output, spec))| is_due(output, spec));
        let drafts = due.map(|(ix, (output, spec))| (ix, to_main(backfill, output, spec)));
        let intents: Vec<v1::Intent> = drafts.filter_map(|(ix, draft)| self.intent(backfill, ix, draft)).collect();
        let outputs: Vec<u32> = intents.iter().map(|intent| intent.output).collect();
        self.record(id, record::Kind::Publishing(record::Publishing { intents, reason }), out);
        for ix in outputs {
            self.table_record(id, ix, v1::CommitEnd::Unspecified, out);
        }
    }

    /// A publish that was fenced off, or failed and is retried, is prepared anew.
    pub(super) fn publish_due(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        if !backfill.publishing || backfill.is_over() || backfill.repin {
            return;
        }
        if backfill.outputs.iter().zip(&backfill.spec.outputs).any(|(output, spec)| is_due(output, spec)) {
            self.publish(id, String::new(), out);
        }
    }

    /// A cancel drops each staging branch that may be there, once the last intent to it has its end.
    pub(super) fn discard_due(&mut self, id: &BackfillId, out: &mut Out) {
        let Some(backfill) = self.backfills.get(id) else { return };
        if backfill.wish != v1::Wish::Cancel || backfill.is_over() {
            return;
        }
        let branched = |output: &Output| output.branched && output.prepared_intent().is_none();
        let due = (0u32..).zip(&backfill.outputs).filter(|(_, output)| branched(output));
        let drafts = due.map(|(ix, output)| (ix, discard(backfill, output)));
        let intents: Vec<v1::Intent> = drafts.filter_map(|(ix, draft)| self.intent(backfill, ix, draft)).collect();
        for intent in intents {
            self.seal(id, intent, out);
        }
    }
}

/// Whether an output has something to publish and no intent that does.
fn is_due(output: &Output, spec: &CoreOutput) -> bool {
    let some = spec.replaces || output.staged_files().files > 0;
    spec.staged && some && !output.published && output.prepared_intent().is_none()
}

/// Every file of the output, as one commit to main.
fn to_main(backfill: &Backfill, output: &Output, spec: &CoreOutput) -> Draft {
    Draft {
        kind: if spec.replaces { v1::CommitKind::Replace } else { v1::CommitKind::Append },
        files: output.staged_files(),
        log_from: LogPosition::default(),
        log_to: output.sealed_through,
        branch: String::new(),
        drop_branch: backfill.branch(),
    }
}

fn discard(backfill: &Backfill, output: &Output) -> Draft {
    Draft {
        kind: v1::CommitKind::Discard,
        files: Unsealed::default(),
        log_from: output.sealed_through,
        log_to: output.sealed_through,
        branch: backfill.branch(),
        drop_branch: String::new(),
    }
}
