//! Commits an intent exactly once: load, judge on the loaded base, stage, one compare-and-swap; then again, or the end.
//!
//! Whatever happened to an earlier try is found out by reading: a conflict and an unknown outcome alike end in the
//! next judgement. Nothing is ever deleted, and no try is repeated without a new judgement.

use std::collections::HashMap;
use std::time::Duration;

use backon::BackoffBuilder;
use iceberg::spec::DataFile;
use sha2::{Digest, Sha256};
use tidegate_proto::v1;

use super::marker::{self, Verdict};
use super::produce::{Append, stage};
use super::writer::decode;
use super::{Catalogs, LoadedTable, OutputTarget, SinkError, Swap, table};

const TRIES: usize = 30;

/// The entry of a snapshot's summary that says below which event time the table is complete.
pub const COMMITTED_THROUGH: &str = "tidegate.committed-through";

/// The digest of an intent: SHA-256 in hexadecimal over its files' paths, in order, each followed by a line break.
pub fn digest<'a>(paths: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.as_bytes());
        hash.update(b"\n");
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Commits `intent`, whose files are those of `parts` in their order, to `branch` of `target`'s table.
///
/// A fence is an intent of kind `FENCE` without parts; its digest is `cancelled:<term>`. The result says how the
/// intent ended; an end other than committed or cancelled is proven by its evidence.
///
/// # Errors
/// [`SinkError::Intent`] when the parts are not what the intent names. [`SinkError::Unknown`] when the last outcome
/// could not be read; any other error means that the intent may be tried again.
pub async fn commit(
    catalogs: &Catalogs,
    target: &OutputTarget,
    branch: &str,
    backfill: &str,
    intent: &v1::Intent,
    parts: Vec<v1::OutputPart>,
) -> Result<v1::CommitResult, SinkError> {
    let own = marker::of(intent);
    check_parts(intent, &parts, &own)?;
    let committer = catalogs.get(&target.catalog).await?;
    let key = marker::key(backfill, branch);
    let waits = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(5))
        .with_max_delay(Duration::from_millis(500))
        .with_max_times(TRIES - 1)
        .build();
    let mut unknown = None;
    let mut tries = 0;
    for wait in std::iter::once(Duration::ZERO).chain(waits) {
        tokio::time::sleep(wait).await;
        tries += 1;
        let base = match table::load(catalogs, target).await {
            Ok(base) => base,
            Err(error) => return Err(unknown.unwrap_or(error)),
        };
        let facts = marker::read(&base.metadata(), &intent.table_uuid, branch, &key);
        let verdict = marker::judge(&facts, &own, &intent.predecessor);
        tracing::debug!(marker = own, ?verdict, tries, "judged");
        let Verdict::Go = verdict else { return Ok(ended(intent, verdict, tries)) };
        if let Some(trace) = marker::trace_of(&base.metadata(), intent.snapshot_id) {
            let what = format!("snapshot {trace} shows that {} was committed, without {own}", intent.snapshot_id);
            return Ok(ended(intent, Verdict::Fenced(what), tries));
        }
        let (updates, requirements) = stage_intent(&base, branch, &key, &own, intent, &parts).await?;
        match committer.compare_and_swap(&base, updates, requirements).await {
            Ok(Swap::Done(table)) => {
                check_marker(&table, &key, &own)?;
                return Ok(done(intent, Some(intent.snapshot_id), false, format!("committed as {own}"), tries));
            }
            Ok(Swap::Conflict) => tracing::debug!(marker = own, tries, "lost a race"),
            Err(error @ SinkError::Unknown { .. }) => {
                tracing::warn!(marker = own, tries, error = crate::failure::chain(&error), "outcome unknown");
                unknown = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(unknown.unwrap_or_else(|| SinkError::Conflict { table: target.full_name(), tries }))
}

/// How an intent ended by a verdict that is not to go.
fn ended(intent: &v1::Intent, verdict: Verdict, tries: u64) -> v1::CommitResult {
    let proven =
        |end: v1::CommitEnd, evidence| v1::CommitResult { end: end.into(), evidence, tries, ..Default::default() };
    match verdict {
        Verdict::AlreadyDone { snapshot } => {
            let evidence = format!("the table's marker is {}", marker::of(intent));
            done(intent, snapshot, true, evidence, tries)
        }
        Verdict::RolledBack(evidence) => proven(v1::CommitEnd::RolledBack, evidence),
        Verdict::Fenced(evidence) => proven(v1::CommitEnd::Fenced, evidence),
        Verdict::Go => proven(v1::CommitEnd::Unspecified, String::new()),
    }
}

fn done(
    intent: &v1::Intent,
    snapshot: Option<i64>,
    already_done: bool,
    evidence: String,
    tries: u64,
) -> v1::CommitResult {
    let end = if is_fence(intent) { v1::CommitEnd::Cancelled } else { v1::CommitEnd::Committed };
    let snapshot_id = snapshot.unwrap_or(intent.snapshot_id);
    v1::CommitResult { end: end.into(), snapshot_id, already_done, evidence, tries }
}

fn is_fence(intent: &v1::Intent) -> bool {
    intent.kind == i32::from(v1::CommitKind::Fence)
}

/// A catalog whose reply does not show the marker cannot commit exactly once.
fn check_marker(table: &LoadedTable, key: &str, own: &str) -> Result<(), SinkError> {
    if table.metadata().properties().get(key).is_some_and(|marker| marker == own) {
        return Ok(());
    }
    let what =
        format!("the catalog's reply to a commit does not show property {key}: use one that keeps table properties");
    Err(SinkError::Preflight { table: table.table().identifier().to_string(), what })
}

fn check_parts(intent: &v1::Intent, parts: &[v1::OutputPart], own: &str) -> Result<(), SinkError> {
    let bad = |what: String| Err(SinkError::Intent { marker: own.to_owned(), what });
    let files = || parts.iter().flat_map(|part| &part.files);
    if intent.snapshot_id <= 0 {
        return bad(format!("snapshot id {} is not positive", intent.snapshot_id));
    }
    if is_fence(intent) {
        return if files().next().is_some() || intent.digest.is_empty() {
            bad("a fence has no files, and a digest `cancelled:<term>`".to_owned())
        } else {
            Ok(())
        };
    }
    let count = files().count() as u64;
    if count == 0 {
        return bad("it has no files: it ends in the state store, without a commit".to_owned());
    }
    let rows: u64 = files().map(|file| file.rows).sum();
    if (count, rows) != (intent.files, intent.rows) {
        return bad(format!("it names {} files of {} rows, not {count} of {rows}", intent.files, intent.rows));
    }
    let found = digest(files().map(|file| file.path.as_str()));
    if found != intent.digest {
        return bad(format!("the digest of the files handed over is {found}"));
    }
    Ok(())
}

async fn stage_intent(
    base: &LoadedTable,
    branch: &str,
    key: &str,
    own: &str,
    intent: &v1::Intent,
    parts: &[v1::OutputPart],
) -> Result<super::produce::Staged, SinkError> {
    let metadata = base.metadata();
    let bad = |what: String| SinkError::Intent { marker: own.to_owned(), what };
    let schema = metadata
        .schema_by_id(intent.schema_id)
        .ok_or_else(|| bad(format!("schema {} is no longer in the table's metadata", intent.schema_id)))?;
    let spec = metadata
        .partition_spec_by_id(intent.spec_id)
        .ok_or_else(|| bad(format!("partition spec {} is no longer in the table's metadata", intent.spec_id)))?;
    let mut files: Vec<DataFile> = Vec::new();
    for part in parts {
        let decoded = decode(&part.iceberg, schema, spec)?;
        let same = decoded.len() == part.files.len()
            && decoded.iter().zip(&part.files).all(|(a, b)| {
                a.file_path() == b.path && a.record_count() == b.rows && a.file_size_in_bytes() == b.bytes
            });
        if !same {
            return Err(bad("the files' metadata are not those of the files".to_owned()));
        }
        files.extend(decoded);
    }
    let mut summary = HashMap::new();
    if let Ok(through) = jiff::Timestamp::from_microsecond(intent.committed_through) {
        summary.insert(COMMITTED_THROUGH.to_owned(), through.to_string());
    }
    let append = Append {
        branch,
        snapshot_id: intent.snapshot_id,
        schema,
        spec,
        files: &files,
        marker_key: key,
        marker: own,
        summary,
    };
    stage(base, append).await
}
