//! Commits an intent exactly once: load, judge on the loaded base, stage, one compare-and-swap; then again, or the end.
//!
//! Whatever happened to an earlier try is found out by reading: a conflict and an unknown outcome alike end in the
//! next judgement. Nothing is ever deleted, and no try is repeated without a new judgement.

use std::time::Duration;

use backon::BackoffBuilder;
use sha2::{Digest, Sha256};
use tidegate_proto::v1;

use super::discard::Discarding;
use super::fence::FencingOff;
use super::intent::Landing;
use super::marker::{self, Verdict};
use super::produce::Staged;
use super::scope::Scope;
use super::{Catalogs, LoadedTable, OutputTarget, SinkError, Swap};

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

/// Commits `intent`, whose files are those of `parts` in their order, to the branch that it names.
///
/// A fence is an intent of kind `FENCE` without parts; its digest is `cancelled:<term>`. A discard has none either. The
/// result says how the intent ended; an end other than committed is proven by its evidence, and that of a cancelled
/// one is the marker that stands on the branch.
///
/// # Errors
/// [`SinkError::Intent`] when the parts are not what the intent names, or its branch is not its backfill's.
/// [`SinkError::Unknown`] when the last outcome could not be read; any other error means that the intent may be tried
/// again.
pub async fn commit(
    catalogs: &Catalogs,
    target: &OutputTarget,
    scope: &Scope,
    intent: &v1::Intent,
    parts: Vec<v1::OutputPart>,
) -> Result<v1::CommitResult, SinkError> {
    let work = match intent.kind() {
        v1::CommitKind::Discard => Work::Discard(Discarding::new(scope, intent)?),
        _ => Work::Land(Landing::new(scope, intent, parts)?),
    };
    drive(catalogs, target, &work).await
}

/// Sees to it that `intent` is in its table or never will be, for the coordinator of `term`. Cancelled is what a fence
/// proves, this one or an earlier; its evidence is the fence's marker.
///
/// # Errors
/// As [`commit()`].
pub async fn cancel(
    catalogs: &Catalogs,
    target: &OutputTarget,
    scope: &Scope,
    intent: &v1::Intent,
    term: u64,
) -> Result<v1::CommitResult, SinkError> {
    let work = match intent.kind() {
        v1::CommitKind::Discard => Work::Discard(Discarding::new(scope, intent)?),
        _ => Work::Fence(FencingOff::new(scope, intent, term)?),
    };
    drive(catalogs, target, &work).await
}

/// What is brought to its end.
enum Work<'a> {
    Land(Landing<'a>),
    Fence(FencingOff<'a>),
    Discard(Discarding<'a>),
}

/// What is to be done on the base that was judged.
pub(super) enum Next {
    /// Nothing: this is the end.
    End(v1::CommitResult),
    /// This compare-and-swap.
    Swap {
        staged: Staged,
        /// The property that the catalog's reply must show.
        shows: Option<(String, String)>,
        /// What it comes to when it is done.
        result: v1::CommitResult,
    },
}

impl Work<'_> {
    async fn next(&self, base: &LoadedTable) -> Result<Next, SinkError> {
        match self {
            Self::Land(landing) => landing.next(base).await,
            Self::Fence(fencing) => fencing.next(base).await,
            Self::Discard(discarding) => Ok(discarding.next(base)),
        }
    }

    /// The end where there is no table; `None` where that is an error.
    fn without_table(&self) -> Option<v1::CommitResult> {
        match self {
            Self::Land(_) => None,
            Self::Fence(fencing) => Some(fencing.without_table()),
            Self::Discard(discarding) => Some(discarding.without_table()),
        }
    }
}

/// Load, judge, swap, until there is an end.
async fn drive(catalogs: &Catalogs, target: &OutputTarget, work: &Work<'_>) -> Result<v1::CommitResult, SinkError> {
    let committer = catalogs.get(&target.catalog).await?;
    let ident = target.ident()?;
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
        let base = match committer.load(&ident).await {
            Ok(Some(base)) => base,
            Ok(None) => match work.without_table() {
                Some(result) => return Ok(v1::CommitResult { tries, ..result }),
                None => return Err(unknown.unwrap_or_else(|| target.gone())),
            },
            Err(error) => return Err(unknown.unwrap_or(error)),
        };
        let (staged, shows, result) = match work.next(&base).await? {
            Next::End(result) => return Ok(v1::CommitResult { tries, ..result }),
            Next::Swap { staged, shows, result } => (staged, shows, result),
        };
        let (updates, requirements) = staged;
        match committer.compare_and_swap(&base, updates, requirements).await {
            Ok(Swap::Done(table)) => {
                shows.map_or(Ok(()), |(key, own)| check_marker(&table, &key, &own))?;
                return Ok(v1::CommitResult { tries, ..result });
            }
            Ok(Swap::Conflict) => tracing::debug!(table = %ident, tries, "lost a race"),
            Err(error @ SinkError::Unknown { .. }) => {
                let said = crate::failure::chain(&error);
                tracing::warn!(table = %ident, tries, error = said, "outcome unknown");
                unknown = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(unknown.unwrap_or_else(|| SinkError::Conflict { table: target.full_name(), tries }))
}

/// How an intent ended by a verdict that is not to go.
pub(super) fn ended(intent: &v1::Intent, verdict: Verdict) -> v1::CommitResult {
    let proven = |end: v1::CommitEnd, evidence| v1::CommitResult { end: end.into(), evidence, ..Default::default() };
    match verdict {
        Verdict::AlreadyDone { snapshot } => {
            let is_fence = intent.kind() == v1::CommitKind::Fence;
            let marker = marker::of(intent);
            v1::CommitResult {
                end: if is_fence { v1::CommitEnd::Cancelled } else { v1::CommitEnd::Committed }.into(),
                snapshot_id: snapshot.unwrap_or(intent.snapshot_id),
                already_done: true,
                evidence: if is_fence { marker } else { format!("the table's marker is {marker}") },
                ..Default::default()
            }
        }
        Verdict::RolledBack(evidence) => proven(v1::CommitEnd::RolledBack, evidence),
        Verdict::Fenced(evidence) => proven(v1::CommitEnd::Fenced, evidence),
        Verdict::Go => proven(v1::CommitEnd::Unspecified, String::new()),
    }
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
