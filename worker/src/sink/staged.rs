//! What a publish asks of its staging branch: that it is there with just what was staged, and that main has none of it.

use std::collections::HashSet;

use iceberg::spec::{SnapshotRef, TableMetadataRef};
use tidegate_proto::v1;

use super::marker;

/// The entry of a snapshot's summary in which other engines name the snapshot that they picked it from.
const PICKED_FROM: &str = "source-snapshot-id";

/// Why what `backfill` staged on `branch`, whose head is to carry the marker `expected`, cannot go to main as `table`
/// is: a conflict; `None` where it can.
pub(super) fn conflict(
    table: &TableMetadataRef,
    backfill: &str,
    branch: &str,
    expected: &str,
) -> Option<v1::CommitResult> {
    let key = marker::key(backfill, branch);
    let marker_of = |snapshot: &SnapshotRef| snapshot.summary().additional_properties.get(&key).cloned();
    let staged: HashSet<i64> =
        table.snapshots().filter(|one| marker_of(one).is_some()).map(|one| one.snapshot_id()).collect();
    let picked = |snapshot: &SnapshotRef| {
        let from = snapshot.summary().additional_properties.get(PICKED_FROM);
        from.and_then(|from| from.parse().ok()).is_some_and(|from: i64| staged.contains(&from))
    };
    let ancestry = marker::ancestry(table, table.current_snapshot());
    let first = ancestry.iter().rev().find(|one| staged.contains(&one.snapshot_id()) || picked(one));
    if let Some(first) = first {
        let back = first.parent_snapshot_id().map_or_else(|| "it was empty".to_owned(), |id| format!("snapshot {id}"));
        return Some(ended(
            format!("main has what was staged already, from snapshot {} on", first.snapshot_id()),
            format!("set main back to before that ({back}) and `retry`"),
        ));
    }
    let right = table.snapshots().find(|one| marker_of(one).as_deref() == Some(expected));
    let way_out = right.map_or_else(
        || "its files may be gone as well: start the backfill anew".to_owned(),
        |one| format!("set branch {branch} to snapshot {} and `retry`", one.snapshot_id()),
    );
    match table.snapshot_for_ref(branch) {
        None => Some(ended(format!("branch {branch} does not exist any more"), way_out)),
        Some(head) if marker_of(head).as_deref() != Some(expected) => {
            let head = head.snapshot_id();
            Some(ended(format!("snapshot {head}, the head of branch {branch}, does not carry {expected}"), way_out))
        }
        Some(_) => None,
    }
}

fn ended(evidence: String, way_out: String) -> v1::CommitResult {
    v1::CommitResult { end: v1::CommitEnd::Conflict.into(), evidence, way_out, ..Default::default() }
}
