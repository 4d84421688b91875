//! A staging branch thrown away with the marker that stands for it. What was staged on it is garbage then.
//!
//! It drops the branch of its own backfill and no other, and never main. It is done when the branch is gone, whoever
//! dropped it, so it needs no fence of its own: to cancel a discard is to do it.

use tidegate_proto::v1;

use super::commit::{Next, ended};
use super::intent::branch_of;
use super::marker::{self, Verdict};
use super::produce::drop_branch;
use super::scope::Scope;
use super::{LoadedTable, SinkError};

/// A branch that is to be dropped.
pub(super) struct Discarding<'a> {
    intent: &'a v1::Intent,
    branch: &'a str,
    key: String,
}

impl<'a> Discarding<'a> {
    pub(super) fn new(scope: &'a Scope, intent: &'a v1::Intent) -> Result<Self, SinkError> {
        let branch = branch_of(scope, intent)?;
        Ok(Self { intent, branch, key: marker::key(&scope.backfill, branch) })
    }

    /// What is to be done on `base`.
    pub(super) fn next(&self, base: &LoadedTable) -> Next {
        let metadata = base.metadata();
        let facts = marker::read(&metadata, &self.intent.table_uuid, self.branch, &self.key);
        let there = metadata.snapshot_for_ref(self.branch).is_some();
        let verdict = marker::judge_discard(&facts, there, &self.intent.predecessor, self.intent.sequence);
        tracing::debug!(branch = self.branch, ?verdict, "judged, to be dropped");
        match verdict {
            Verdict::Go => {
                let staged = drop_branch(&metadata, self.branch, &self.key);
                Next::Swap { staged, shows: None, result: dropped(false) }
            }
            Verdict::AlreadyDone { .. } => Next::End(dropped(true)),
            verdict => Next::End(ended(self.intent, verdict)),
        }
    }

    /// What it comes to where the table is gone, and its branches with it.
    pub(super) fn without_table(&self) -> v1::CommitResult {
        dropped(true)
    }
}

/// No marker stands on the branch any more: the evidence is empty.
fn dropped(already_done: bool) -> v1::CommitResult {
    v1::CommitResult { end: v1::CommitEnd::Cancelled.into(), already_done, ..Default::default() }
}
