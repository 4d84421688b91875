//! An intent that is to be cancelled: found in its table, or fenced off there, so that no try of it can land any more.
//!
//! The fence is an empty append with the marker `<sequence>:cancelled:<term>` in the place that the intent's commit
//! would have taken. It drops no branch and removes no file, whatever the intent would have done. A fence of any term
//! serves as well as one of this term. A discard needs none: it is done instead (see [`super::discard`]).

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use tidegate_proto::v1;

use super::commit::{Next, ended};
use super::intent::branch_of;
use super::marker::{self, Verdict};
use super::produce::{Change, stage};
use super::scope::Scope;
use super::{LoadedTable, SinkError};

/// An intent that is to be fenced off.
pub(super) struct FencingOff<'a> {
    intent: &'a v1::Intent,
    branch: &'a str,
    key: String,
    own: String,
    /// The marker of the fence, and the id of its snapshot.
    fence: String,
    snapshot_id: i64,
}

impl<'a> FencingOff<'a> {
    pub(super) fn new(scope: &'a Scope, intent: &'a v1::Intent, term: u64) -> Result<Self, SinkError> {
        let branch = branch_of(scope, intent)?;
        let fence = format!("{}:{}", intent.sequence, marker::fence_digest(term));
        let snapshot_id = snapshot_id(&[&scope.backfill, &intent.table_uuid, branch, &fence]);
        let key = marker::key(&scope.backfill, branch);
        Ok(Self { intent, branch, key, own: marker::of(intent), fence, snapshot_id })
    }

    /// What is to be done on `base`.
    pub(super) async fn next(&self, base: &LoadedTable) -> Result<Next, SinkError> {
        let metadata = base.metadata();
        let facts = marker::read(&metadata, &self.intent.table_uuid, self.branch, &self.key);
        let cancelled = |snapshot_id, already_done, marker: &str| v1::CommitResult {
            end: v1::CommitEnd::Cancelled.into(),
            snapshot_id,
            already_done,
            evidence: marker.to_owned(),
            ..Default::default()
        };
        if let Some(standing) = marker::standing_fence(&facts, self.intent.sequence) {
            let snapshot = match facts.property_snapshot {
                marker::MarkerSnapshot::InAncestry(snapshot) => snapshot,
                _ => 0,
            };
            return Ok(Next::End(cancelled(snapshot, true, standing)));
        }
        let verdict = marker::judge(&facts, &self.own, &self.intent.predecessor);
        tracing::debug!(marker = self.own, fence = self.fence, ?verdict, "judged, to be fenced off");
        let Verdict::Go = verdict else { return Ok(Next::End(ended(self.intent, verdict))) };
        let id = self.intent.snapshot_id;
        if let Some(trace) = marker::trace_of(&metadata, id) {
            let what = format!("snapshot {trace} shows that {id} was committed, without its marker");
            return Ok(Next::End(ended(self.intent, Verdict::Fenced(what))));
        }
        if let Some(trace) = marker::trace_of(&metadata, self.snapshot_id) {
            let what = format!("snapshot {trace} shows that the fence was committed, out of place");
            return Ok(Next::End(ended(self.intent, Verdict::RolledBack(what))));
        }
        let change = Change {
            branch: self.branch,
            snapshot_id: self.snapshot_id,
            schema: metadata.current_schema(),
            spec: metadata.default_partition_spec(),
            files: &[],
            marker_key: &self.key,
            marker: &self.fence,
            summary: HashMap::new(),
            removal: None,
        };
        let staged = stage(base, change).await?;
        let result = cancelled(self.snapshot_id, false, &self.fence);
        Ok(Next::Swap { staged, shows: Some((self.key.clone(), self.fence.clone())), result })
    }

    /// What it comes to where the table is gone: nothing can land in it.
    pub(super) fn without_table(&self) -> v1::CommitResult {
        ended(self.intent, Verdict::Fenced("the table does not exist any more".to_owned()))
    }
}

/// A positive snapshot id that follows from what is committed, so that every try of a fence uses the same.
fn snapshot_id(parts: &[&str]) -> i64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let first = hash.finalize().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    i64::try_from(first >> 1).unwrap_or(i64::MAX).max(1)
}
