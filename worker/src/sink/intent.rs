//! An intent brought into its table: checked against its files, judged on the loaded base, staged there.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use iceberg::spec::DataFile;
use tidegate_proto::v1::{self, CommitKind};

use super::commit::{COMMITTED_THROUGH, Next, digest, ended};
use super::marker::{self, Verdict};
use super::produce::{Change, Staged, drop_branch, stage};
use super::replace::{self, Found, Planned, Removal};
use super::scope::Scope;
use super::staged;
use super::window::{Place, Placer};
use super::writer::decode;
use super::{LoadedTable, SinkError};

/// Files that are looked for at once.
const LOOKS: usize = 16;

/// An intent with its files.
pub(super) struct Landing<'a> {
    scope: &'a Scope,
    intent: &'a v1::Intent,
    parts: Vec<v1::OutputPart>,
    branch: &'a str,
    key: String,
    own: String,
}

/// The branch that an intent commits to.
///
/// # Errors
/// Any but main and the backfill's own.
pub(super) fn branch_of<'a>(scope: &Scope, intent: &'a v1::Intent) -> Result<&'a str, SinkError> {
    let own = marker::staging_branch(&scope.backfill);
    let bad = |what: String| Err(SinkError::Intent { marker: marker::of(intent), what });
    if !intent.drop_branch.is_empty() && (intent.drop_branch != own || !intent.branch.is_empty()) {
        return bad(format!(
            "branch {:?} is not dropped by a publish: that is {own}, by a commit to main",
            intent.drop_branch
        ));
    }
    match intent.branch.as_str() {
        "" if intent.kind() == CommitKind::Discard => bad("main is never discarded".to_owned()),
        "" => Ok(marker::MAIN),
        branch if branch == own => Ok(branch),
        branch => bad(format!("branch {branch:?} is not this backfill's: that is {own}")),
    }
}

impl<'a> Landing<'a> {
    pub(super) fn new(scope: &'a Scope, intent: &'a v1::Intent, parts: Vec<v1::OutputPart>) -> Result<Self, SinkError> {
        let branch = branch_of(scope, intent)?;
        let key = marker::key(&scope.backfill, branch);
        let landing = Self { scope, intent, parts, branch, key, own: marker::of(intent) };
        landing.check_parts()?;
        Ok(landing)
    }

    fn bad(&self, what: String) -> SinkError {
        SinkError::Intent { marker: self.own.clone(), what }
    }

    fn check_parts(&self) -> Result<(), SinkError> {
        let intent = self.intent;
        let files = || self.parts.iter().flat_map(|part| &part.files);
        if intent.snapshot_id <= 0 {
            return Err(self.bad(format!("snapshot id {} is not positive", intent.snapshot_id)));
        }
        if intent.kind() == CommitKind::Fence {
            let sound = files().next().is_none() && !intent.digest.is_empty();
            let bad = || self.bad("a fence has no files, and a digest `cancelled:<term>`".to_owned());
            return sound.then_some(()).ok_or_else(bad);
        }
        let count = files().count() as u64;
        if count == 0 && intent.kind() == CommitKind::Append && intent.drop_branch.is_empty() {
            return Err(self.bad("it has no files: it ends in the state store, without a commit".to_owned()));
        }
        let rows: u64 = files().map(|file| file.rows).sum();
        if (count, rows) != (intent.files, intent.rows) {
            let what = format!("it names {} files of {} rows, not {count} of {rows}", intent.files, intent.rows);
            return Err(self.bad(what));
        }
        let found = digest(files().map(|file| file.path.as_str()));
        if found != intent.digest {
            return Err(self.bad(format!("the digest of the files handed over is {found}")));
        }
        Ok(())
    }

    /// What is to be done on `base`.
    pub(super) async fn next(&self, base: &LoadedTable) -> Result<Next, SinkError> {
        let metadata = base.metadata();
        let facts = marker::read(&metadata, &self.intent.table_uuid, self.branch, &self.key);
        let verdict = marker::judge(&facts, &self.own, &self.intent.predecessor);
        tracing::debug!(marker = self.own, ?verdict, "judged");
        let Verdict::Go = verdict else { return Ok(Next::End(ended(self.intent, verdict))) };
        let id = self.intent.snapshot_id;
        if let Some(trace) = marker::trace_of(&metadata, id) {
            let what = format!("snapshot {trace} shows that {id} was committed, without marker {}", self.own);
            return Ok(Next::End(ended(self.intent, Verdict::Fenced(what))));
        }
        if !self.intent.drop_branch.is_empty() {
            let (branch, staged) = (&self.intent.drop_branch, &self.intent.staged_marker);
            if let Some(conflict) = staged::conflict(&metadata, &self.scope.backfill, branch, staged) {
                return Ok(Next::End(conflict));
            }
        }
        let files = self.files(base)?;
        if self.has_waited() {
            self.check_there(base).await?;
        }
        let found = match self.intent.kind() {
            CommitKind::Replace => Some(self.removal(base, &files).await?),
            _ => None,
        };
        let removal = match found {
            Some(Found::Conflict(evidence)) => {
                let end = v1::CommitEnd::Conflict.into();
                return Ok(Next::End(v1::CommitResult { end, evidence, ..Default::default() }));
            }
            Some(Found::Removal(removal)) => Some(removal),
            None => None,
        };
        let staged = self.stage(base, &files, removal.as_ref()).await?;
        let is_fence = self.intent.kind() == CommitKind::Fence;
        let end = if is_fence { v1::CommitEnd::Cancelled } else { v1::CommitEnd::Committed };
        let evidence = if is_fence { self.own.clone() } else { format!("committed as {}", self.own) };
        let (end, snapshot_id) = (end.into(), self.intent.snapshot_id);
        let result = v1::CommitResult { end, snapshot_id, evidence, ..Default::default() };
        Ok(Next::Swap { staged, shows: Some((self.key.clone(), self.own.clone())), result })
    }

    fn files(&self, base: &LoadedTable) -> Result<Vec<DataFile>, SinkError> {
        let metadata = base.metadata();
        let (schema, spec) = pinned(&metadata, self.intent)?;
        let mut files: Vec<DataFile> = Vec::new();
        for part in &self.parts {
            let decoded = decode(&part.iceberg, schema, spec)?;
            let same = decoded.len() == part.files.len()
                && decoded.iter().zip(&part.files).all(|(a, b)| {
                    a.file_path() == b.path && a.record_count() == b.rows && a.file_size_in_bytes() == b.bytes
                });
            if !same {
                return Err(self.bad("the files' metadata are not those of the files".to_owned()));
            }
            files.extend(decoded);
        }
        Ok(files)
    }

    /// Whether its files may have been on no branch for long, where others that look for orphans delete them: staged
    /// ones, and those of an intent that was fenced off, or of a branch that was dropped.
    fn has_waited(&self) -> bool {
        let before = self.intent.predecessor.split_once(':').map(|(_, digest)| digest);
        let dropped = before.is_some_and(|before| before == digest([]));
        !self.intent.drop_branch.is_empty() || dropped || marker::is_fence(&self.intent.predecessor)
    }

    async fn check_there(&self, base: &LoadedTable) -> Result<(), SinkError> {
        let paths: Vec<String> = self.parts.iter().flat_map(|part| &part.files).map(|file| file.path.clone()).collect();
        for some in paths.chunks(LOOKS) {
            let looks: Vec<BoxFuture<'_, iceberg::Result<bool>>> =
                some.iter().map(|path| base.io().exists(path.clone()).boxed()).collect();
            let doing = || format!("table {}: look for the files of {}", base.table().identifier(), self.own);
            let there = try_join_all(looks).await.map_err(SinkError::lake(doing()))?;
            if let Some((path, _)) = some.iter().zip(there).find(|(_, there)| !there) {
                return Err(SinkError::FileGone { marker: self.own.clone(), path: path.clone() });
            }
        }
        Ok(())
    }

    /// What the files take the place of.
    async fn removal(&self, base: &LoadedTable, files: &[DataFile]) -> Result<Found, SinkError> {
        let metadata = base.metadata();
        let (schema, spec) = pinned(&metadata, self.intent)?;
        let placer = Placer::new(self.scope, schema);
        let strays = |file: &&DataFile| {
            placer.as_ref().is_none_or(|placer| placer.partition(file.partition(), spec) != Place::Inside)
        };
        if let Some(stray) = files.iter().find(strays) {
            return Err(self.bad(format!("{} does not lie in the window that is replaced", stray.file_path())));
        }
        let parent = metadata.snapshot_for_ref(self.branch).or_else(|| metadata.current_snapshot());
        let head = (self.branch == marker::MAIN).then_some(self.intent.replaces_head);
        let planned = Planned { through: self.intent.replaces_through, head };
        replace::find(base, parent, self.scope, schema, planned).await
    }

    async fn stage(
        &self,
        base: &LoadedTable,
        files: &[DataFile],
        removal: Option<&Removal>,
    ) -> Result<Staged, SinkError> {
        let metadata = base.metadata();
        let (schema, spec) = pinned(&metadata, self.intent)?;
        let mut summary = HashMap::new();
        if let Ok(through) = jiff::Timestamp::from_microsecond(self.intent.committed_through) {
            summary.insert(COMMITTED_THROUGH.to_owned(), through.to_string());
        }
        let change = Change {
            branch: self.branch,
            snapshot_id: self.intent.snapshot_id,
            schema,
            spec,
            files,
            marker_key: &self.key,
            marker: &self.own,
            summary,
            removal,
        };
        let (mut updates, mut requirements) = stage(base, change).await?;
        if !self.intent.drop_branch.is_empty() {
            let staged = marker::key(&self.scope.backfill, &self.intent.drop_branch);
            // The branch's marker stays: a late commit of what was staged finds that it has no place any more.
            let (drops, asserted) = drop_branch(&metadata, &self.intent.drop_branch, &staged);
            updates.extend(drops);
            requirements.extend(asserted);
        }
        Ok((updates, requirements))
    }
}

/// The schema and the partition spec that an intent names.
fn pinned<'a>(
    metadata: &'a iceberg::spec::TableMetadata,
    intent: &v1::Intent,
) -> Result<(&'a iceberg::spec::SchemaRef, &'a iceberg::spec::PartitionSpecRef), SinkError> {
    let gone = |what: String| SinkError::Intent { marker: marker::of(intent), what };
    let schema = metadata
        .schema_by_id(intent.schema_id)
        .ok_or_else(|| gone(format!("schema {} is no longer in the table's metadata", intent.schema_id)))?;
    let spec = metadata
        .partition_spec_by_id(intent.spec_id)
        .ok_or_else(|| gone(format!("partition spec {} is no longer in the table's metadata", intent.spec_id)))?;
    Ok((schema, spec))
}
