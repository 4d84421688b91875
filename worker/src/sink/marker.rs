//! The marker that a commit leaves in its table, and the judgement that makes a commit exactly once.
//!
//! The marker is `<sequence>:<digest>`; a fence's digest is `cancelled:<term>`. It stands under [`key`] as a table
//! property and in the snapshot's summary, both set by the one commit. [`judge`] is pure: it is given what was read
//! from the very base that the commit will assert, and reads nothing itself.

use iceberg::spec::{SnapshotRef, TableMetadataRef};
use iceberg::util::snapshot::ancestors_of;
use tidegate_proto::v1;

/// The branch that readers see.
pub const MAIN: &str = "main";

/// The branch that a staged backfill commits to until it is published.
pub fn staging_branch(backfill: &str) -> String {
    format!("tidegate_{backfill}")
}

/// The name of the marker of `backfill` on `branch`: of the property and of the entry in a snapshot's summary.
/// Markers are kept per branch, as intents are.
pub fn key(backfill: &str, branch: &str) -> String {
    match branch {
        MAIN => format!("tidegate.{backfill}"),
        branch => format!("tidegate.{backfill}@{branch}"),
    }
}

/// The digest of the fence that the coordinator of `term` asks for.
pub fn fence_digest(term: u64) -> String {
    format!("cancelled:{term}")
}

/// The marker that an intent's commit leaves.
pub fn of(intent: &v1::Intent) -> String {
    format!("{}:{}", intent.sequence, intent.digest)
}

/// Whether a text is a marker at all.
fn readable(marker: &str) -> bool {
    marker.split_once(':').is_some_and(|(sequence, rest)| sequence.parse::<u64>().is_ok() && !rest.is_empty())
}

/// Where the snapshot is that carries the marker which the property names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerSnapshot {
    /// In the ancestry of the branch's head.
    InAncestry(i64),
    /// In the table, and not in the branch's ancestry: somebody rolled the branch back.
    OffAncestry(i64),
    /// No longer in the table.
    Expired,
}

/// What was read from the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the table's uuid is the one that the intent names.
    pub same_table: bool,
    /// The marker in the table's property.
    pub property: Option<String>,
    /// Where that marker's snapshot is; of no meaning without a property.
    pub property_snapshot: MarkerSnapshot,
    /// The newest marker of this backfill in the ancestry of the branch's head.
    pub newest: Option<String>,
}

/// What is to be done with an intent on the base that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Commit it, on this base and no other.
    Go,
    /// It is in the table already.
    AlreadyDone {
        /// The snapshot that carries it; `None` where that has expired.
        snapshot: Option<i64>,
    },
    /// It is not this intent's turn and never will be: what was read proves it.
    Fenced(String),
    /// Somebody took the marker's snapshot out of the branch: what was read proves it.
    RolledBack(String),
}

/// Reads from `table` what [`judge`] needs; a branch that does not exist yet has the ancestry of main, where it
/// will fork.
pub fn read(table: &TableMetadataRef, table_uuid: &str, branch: &str, key: &str) -> Facts {
    let head = table.snapshot_for_ref(branch).or_else(|| table.current_snapshot());
    let ancestry = ancestry(table, head);
    let marked = |snapshot: &iceberg::spec::Snapshot| snapshot.summary().additional_properties.get(key).cloned();
    let property = table.properties().get(key).cloned();
    let carries = |snapshot: &&iceberg::spec::SnapshotRef| property.is_some() && marked(snapshot) == property;
    let property_snapshot = match (ancestry.iter().find(carries), table.snapshots().find(carries)) {
        (Some(snapshot), _) => MarkerSnapshot::InAncestry(snapshot.snapshot_id()),
        (None, Some(snapshot)) => MarkerSnapshot::OffAncestry(snapshot.snapshot_id()),
        (None, None) => MarkerSnapshot::Expired,
    };
    Facts {
        same_table: table.uuid().to_string() == table_uuid,
        newest: ancestry.iter().find_map(|snapshot| marked(snapshot)),
        property,
        property_snapshot,
    }
}

/// The snapshots from `head` back to the oldest that is still there.
pub(super) fn ancestry(table: &TableMetadataRef, head: Option<&SnapshotRef>) -> Vec<SnapshotRef> {
    // Once around, where somebody's parents go in a circle.
    let most = table.snapshots().len();
    head.map(|head| ancestors_of(table, head.snapshot_id()).take(most).collect()).unwrap_or_default()
}

/// Judges an intent whose marker is `own` and which follows `predecessor` (empty where it is the first).
///
/// | table | property | its snapshot | newest marker in the ancestry | verdict |
/// |---|---|---|---|---|
/// | another | any | any | any | fenced |
/// | same | unreadable | any | any | fenced |
/// | same | own | in the ancestry, or expired | any | already done |
/// | same | predecessor | in the ancestry, or expired | any | go |
/// | same | any readable | off the ancestry | any | rolled back |
/// | same | none | – | predecessor, or none where there is no predecessor | go |
/// | same | none | – | own | already done |
/// | same | anything else | | | fenced |
pub fn judge(facts: &Facts, own: &str, predecessor: &str) -> Verdict {
    if !facts.same_table {
        return Verdict::Fenced("the table is another one than the intent names: its uuid differs".to_owned());
    }
    let Some(property) = facts.property.as_deref() else {
        return match facts.newest.as_deref() {
            newest if newest.unwrap_or_default() == predecessor => Verdict::Go,
            Some(newest) if newest == own => Verdict::AlreadyDone { snapshot: None },
            newest => Verdict::Fenced(format!(
                "the table carries no marker property, and the newest marker in the branch's ancestry is {}, not {}",
                named(newest.unwrap_or_default()),
                named(predecessor)
            )),
        };
    };
    if !readable(property) {
        return Verdict::Fenced(format!("the table's marker property {property:?} is not a marker"));
    }
    match facts.property_snapshot {
        MarkerSnapshot::OffAncestry(snapshot) => Verdict::RolledBack(format!(
            "marker {property} stands in snapshot {snapshot}, which the branch no longer descends from"
        )),
        MarkerSnapshot::InAncestry(snapshot) if property == own => Verdict::AlreadyDone { snapshot: Some(snapshot) },
        MarkerSnapshot::Expired if property == own => Verdict::AlreadyDone { snapshot: None },
        _ if property == predecessor => Verdict::Go,
        _ => Verdict::Fenced(format!(
            "the table's marker is {property}, neither this intent's {own} nor its predecessor's {}",
            named(predecessor)
        )),
    }
}

/// The fence that stands where the intent `sequence` would: no commit of it can land any more.
///
/// | table | property | its snapshot | newest marker in the ancestry | fence |
/// |---|---|---|---|---|
/// | another | any | any | any | none |
/// | same | `<sequence>:cancelled:<term>` | in the ancestry, or expired | any | the property |
/// | same | none | – | `<sequence>:cancelled:<term>` | that marker |
/// | same | anything else | | | none |
pub fn standing_fence(facts: &Facts, sequence: u64) -> Option<&str> {
    let standing = match (&facts.property, facts.property_snapshot) {
        (Some(_), MarkerSnapshot::OffAncestry(_)) => None,
        (Some(property), _) => Some(property),
        (None, _) => facts.newest.as_ref(),
    };
    let standing = standing.filter(|_| facts.same_table)?;
    (fenced_sequence(standing) == Some(sequence)).then_some(standing)
}

/// Whether a marker is a fence's.
pub(super) fn is_fence(marker: &str) -> bool {
    fenced_sequence(marker).is_some()
}

/// The sequence number of the intent that a marker fences off, where it is a fence's.
fn fenced_sequence(marker: &str) -> Option<u64> {
    let (sequence, rest) = marker.split_once(':')?;
    rest.strip_prefix("cancelled:")?.parse::<u64>().ok()?;
    sequence.parse().ok()
}

/// Judges a discard, whose marker is `own`, of the branch that [`read`] was given: `Go` drops the branch where it is
/// there, and makes `own` its property. Where the marker's snapshot is does not matter: what is on the branch goes.
///
/// | table | property, else newest in the ancestry | verdict |
/// |---|---|---|
/// | another | any | already done: the branch went with its table |
/// | same | own | already done |
/// | same | predecessor, or none where there is no predecessor | go |
/// | same | a fence of this sequence or an earlier one | go |
/// | same | anything else | fenced |
pub fn judge_discard(facts: &Facts, own: &str, predecessor: &str, sequence: u64) -> Verdict {
    if !facts.same_table {
        return Verdict::AlreadyDone { snapshot: None };
    }
    let standing = facts.property.as_deref().or(facts.newest.as_deref()).unwrap_or_default();
    if standing == own {
        Verdict::AlreadyDone { snapshot: None }
    } else if standing == predecessor || fenced_sequence(standing).is_some_and(|fenced| fenced <= sequence) {
        Verdict::Go
    } else {
        Verdict::Fenced(format!(
            "the branch's marker is {}, neither {} nor a fence before the discard",
            named(standing),
            named(predecessor)
        ))
    }
}

/// The snapshot that shows, without a marker, that snapshot `id` is in `table` or was: itself, or else a child of it.
///
/// An expired snapshot that were committed again under its id would become its own ancestor.
pub fn trace_of(table: &TableMetadataRef, id: i64) -> Option<i64> {
    let shows = |snapshot: &&iceberg::spec::SnapshotRef| {
        snapshot.snapshot_id() == id || snapshot.parent_snapshot_id() == Some(id)
    };
    table.snapshots().find(shows).map(|snapshot| snapshot.snapshot_id())
}

fn named(marker: &str) -> &str {
    if marker.is_empty() { "none" } else { marker }
}

#[cfg(test)]
mod tests {
    use super::MarkerSnapshot::{Expired, InAncestry, OffAncestry};
    use super::*;

    fn verdict(property: Option<&str>, at: MarkerSnapshot, newest: Option<&str>, predecessor: &str) -> &'static str {
        let facts = Facts {
            same_table: true,
            property: property.map(str::to_owned),
            property_snapshot: at,
            newest: newest.map(str::to_owned),
        };
        word(&judge(&facts, "2:bb", predecessor))
    }

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Go => "go",
            Verdict::AlreadyDone { .. } => "done",
            Verdict::Fenced(_) => "fenced",
            Verdict::RolledBack(_) => "rolled back",
        }
    }

    #[test]
    fn the_rows_of_the_truth_table() {
        let (own, before) = ("2:bb", "1:aa");
        #[rustfmt::skip]
        let rows = [
            // property        its snapshot    newest          predecessor  verdict
            (Some("rubbish"),  InAncestry(7),  None,           before,      "fenced"),
            (Some("x:1"),      Expired,        None,           before,      "fenced"),
            (Some("1:"),       Expired,        None,           before,      "fenced"),
            (Some(own),        InAncestry(7),  Some(own),      before,      "done"),
            (Some(own),        Expired,        None,           before,      "done"),
            (Some(own),        OffAncestry(7), Some(before),   before,      "rolled back"),
            (Some(before),     InAncestry(7),  Some(before),   before,      "go"),
            (Some(before),     Expired,        None,           before,      "go"),
            (Some(before),     OffAncestry(7), None,           before,      "rolled back"),
            (Some("9:zz"),     OffAncestry(7), None,           before,      "rolled back"),
            (None,             Expired,        Some(before),   before,      "go"),
            (None,             Expired,        None,           "",          "go"),
            (None,             Expired,        None,           before,      "fenced"),
            (None,             Expired,        Some("9:zz"),   before,      "fenced"),
            (None,             Expired,        Some(own),      before,      "done"),
            (None,             Expired,        Some(own),      "",          "done"),
            (None,             Expired,        Some("2:cancelled:5"), before, "fenced"),
            (None,             Expired,        Some(before),   "",          "fenced"),
            (Some(before),     InAncestry(7),  Some(before),   "",          "fenced"),
            (Some("9:zz"),     InAncestry(7),  Some("9:zz"),   before,      "fenced"),
            (Some("1:rolled_back"), Expired,   None,           before,      "fenced"),
            (Some("2:cancelled:5"), InAncestry(7), None,       before,      "fenced"),
        ];
        for (property, at, newest, predecessor, expected) in rows {
            let found = verdict(property, at, newest, predecessor);
            assert_eq!(found, expected, "{property:?} {at:?} {newest:?} after {predecessor:?}");
        }
    }

    #[test]
    fn given_another_table_when_judged_then_fenced_whatever_it_carries() {
        for property in [None, Some("2:bb".to_owned()), Some("1:aa".to_owned())] {
            let facts = Facts { same_table: false, property, property_snapshot: InAncestry(1), newest: None };
            assert_eq!(word(&judge(&facts, "2:bb", "1:aa")), "fenced");
        }
    }

    fn facts(property: Option<&str>, at: MarkerSnapshot, newest: Option<&str>) -> Facts {
        let (property, newest) = (property.map(str::to_owned), newest.map(str::to_owned));
        Facts { same_table: true, property, property_snapshot: at, newest }
    }

    #[test]
    fn the_rows_of_the_fences_table() {
        let (fence, own, before) = ("2:cancelled:5", "2:bb", "1:aa");
        #[rustfmt::skip]
        let rows = [
            // property        its snapshot    newest           fence
            (Some(fence),      InAncestry(7),  Some(fence),     Some(fence)),
            (Some(fence),      Expired,        None,            Some(fence)),
            (Some(fence),      OffAncestry(7), Some(before),    None),
            (None,             Expired,        Some(fence),     Some(fence)),
            (None,             Expired,        Some(before),    None),
            (Some(own),        InAncestry(7),  Some(own),       None),
            (Some(before),     InAncestry(7),  Some(fence),     None),
            (Some("3:cancelled:5"), InAncestry(7), None,        None),
            (Some("2:cancelled:"),  InAncestry(7), None,        None),
            (Some("2:cancelled"),   InAncestry(7), None,        None),
        ];
        for (property, at, newest, expected) in rows {
            let facts = facts(property, at, newest);
            assert_eq!(standing_fence(&facts, 2), expected, "{property:?} {at:?} {newest:?}");
            assert_eq!(standing_fence(&Facts { same_table: false, ..facts }, 2), None);
        }
    }

    #[test]
    fn the_rows_of_the_discards_table() {
        let (own, before) = ("2:bb", "1:aa");
        #[rustfmt::skip]
        let rows = [
            // property                newest          predecessor  verdict
            (None,                     None,           "",          "go"),
            (None,                     None,           before,      "fenced"),
            (None,                     Some(before),   before,      "go"),
            (None,                     Some(before),   "",          "fenced"),
            (None,                     Some("9:zz"),   before,      "fenced"),
            (Some(before),             Some("9:zz"),   before,      "go"),
            (Some(own),                None,           before,      "done"),
            (Some("2:cancelled:5"),    Some(before),   before,      "go"),
            (Some("1:cancelled:5"),    None,           before,      "go"),
            (Some("3:cancelled:5"),    None,           before,      "fenced"),
            (Some("2:cc"),             None,           before,      "fenced"),
            (Some("rubbish"),          None,           before,      "fenced"),
        ];
        for (property, newest, predecessor, expected) in rows {
            for at in [InAncestry(7), OffAncestry(7), Expired] {
                let facts = facts(property, at, newest);
                let found = judge_discard(&facts, own, predecessor, 2);
                assert_eq!(word(&found), expected, "{property:?} {newest:?} after {predecessor:?}");
                let other = Facts { same_table: false, ..facts };
                assert_eq!(word(&judge_discard(&other, own, predecessor, 2)), "done", "its branch is gone");
            }
        }
    }
}
