//! A staging branch thrown away. What was staged on it is garbage then.
//!
//! It drops the branch of its own backfill and no other, and never main, and leaves its own marker as the branch's
//! property: a late commit of what was staged before finds that marker and does not bring the branch back. So it needs
//! no fence of its own: to cancel a discard is to do it. A branch that is gone already is asserted to be gone.

use std::collections::HashMap;

use iceberg::TableUpdate;
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
    own: String,
}

impl<'a> Discarding<'a> {
    pub(super) fn new(scope: &'a Scope, intent: &'a v1::Intent) -> Result<Self, SinkError> {
        let branch = branch_of(scope, intent)?;
        Ok(Self { intent, branch, key: marker::key(&scope.backfill, branch), own: marker::of(intent) })
    }

    /// What is to be done on `base`.
    pub(super) fn next(&self, base: &LoadedTable) -> Next {
        let metadata = base.metadata();
        let facts = marker::read(&metadata, &self.intent.table_uuid, self.branch, &self.key);
        if !facts.same_table {
            let what = "the table is another one than the intent names, whose branches are gone with it";
            return Next::End(dropped(true, what.to_owned()));
        }
        let verdict = marker::judge_discard(&facts, &self.own, &self.intent.predecessor, self.intent.sequence);
        tracing::debug!(branch = self.branch, ?verdict, "judged, to be dropped");
        let Verdict::Go = verdict else {
            return Next::End(v1::CommitResult { snapshot_id: 0, ..ended(self.intent, verdict) });
        };
        let (mut updates, requirements) = drop_branch(&metadata, self.branch, &self.key);
        updates.push(TableUpdate::SetProperties { updates: HashMap::from([(self.key.clone(), self.own.clone())]) });
        let shows = Some((self.key.clone(), self.own.clone()));
        let result = dropped(false, format!("branch {} was dropped", self.branch));
        Next::Swap { staged: (updates, requirements), shows, result }
    }

    /// What it comes to where the table is gone, and its branches with it.
    pub(super) fn without_table(&self) -> v1::CommitResult {
        dropped(true, "the table does not exist any more".to_owned())
    }
}

fn dropped(already_done: bool, evidence: String) -> v1::CommitResult {
    v1::CommitResult { end: v1::CommitEnd::Committed.into(), already_done, evidence, ..Default::default() }
}
