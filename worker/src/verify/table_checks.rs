//! The account held against a table, whose manifests and files are read anew.
//!
//! | check | holds when |
//! |---|---|
//! | snapshots | every committed intent's snapshot is an ancestor of the table, carries its marker, adds its rows and files, and rows before + added - removed = rows after |
//! | manifests | every file of a committed intent is in the table once, with its rows, and nothing else is there in the backfill's name |
//! | cancelled | no intent that was fenced off is in the table; asked where there is one |
//! | replaced | no file that the window held before it was replaced is left in it; asked of what replaces |
//! | contents | each of these files can be read and holds the rows that its manifest says |
//! | coverage | never broken: hours of the window without rows are listed, the longest first, for nobody knows that there should be some |
//!
//! The table is main, or the staging branch as long as what is on it is not published.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_common::ids::SourceIx;
use tidegate_common::spec::EventTimeOf;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use super::account::{Account, CommittedFile, OutputBook};
use super::{Check, Verdict, count};
use crate::sink::inspect::{self, Contents, LiveFile, SnapshotFacts, TableHistory};
use crate::sink::{self, Catalogs, LoadedTable, OutputTarget, Scope, SinkError, TimeColumn, marker};

const MICROS_AN_HOUR: i64 = 3_600_000_000;
/// Windows of more hours than this are not listed hour by hour.
const MOST_HOURS: i64 = 1_000_000;

/// A table, read anew for one output of a backfill.
#[derive(Clone, Debug, Default)]
pub struct TableFacts {
    /// The branch that holds what the backfill committed.
    pub branch: String,
    /// Its snapshots and markers.
    pub history: TableHistory,
    /// Its files.
    pub files: Vec<LiveFile>,
    /// What the backfill's files hold.
    pub contents: Contents,
    /// The column whose hours were counted.
    pub column: Option<String>,
    /// Files that should have been replaced and were not; `None` where that cannot be told, or nothing was replaced.
    pub left_over: Option<Vec<String>>,
}

/// Reads the table of an output: all manifests, and the files that the backfill committed.
///
/// # Errors
/// A table that is not there, or whose manifests cannot be read.
pub async fn read_table(
    catalogs: &Catalogs,
    target: &OutputTarget,
    account: &Account,
    output: &OutputBook,
) -> Result<TableFacts, SinkError> {
    let table = sink::load(catalogs, target).await?;
    let branch = branch(account, output);
    let history = inspect::history_of(&table, target, &branch);
    let files = inspect::live_files(&table, &branch).await?;
    let own: BTreeSet<&str> = committed_files(output).map(|file| file.path.as_str()).collect();
    let mut seen = BTreeSet::new();
    let to_read: Vec<LiveFile> = files
        .iter()
        .filter(|file| own.contains(file.path.as_str()) && seen.insert(file.path.as_str()))
        .cloned()
        .collect();
    let column = time_column(account, output);
    let contents = inspect::contents(&table, &to_read, column.as_deref()).await;
    let left_over = left_over(account, output, &table, &branch, column.as_deref()).await?;
    Ok(TableFacts { branch, history, files, contents, column, left_over })
}

/// The branch that an output's rows stand on.
fn branch(account: &Account, output: &OutputBook) -> String {
    if output.stages() { marker::staging_branch(&account.id) } else { marker::MAIN.to_owned() }
}

/// The files that the window held before its first replacement and still holds.
async fn left_over(
    account: &Account,
    output: &OutputBook,
    table: &LoadedTable,
    branch: &str,
    column: Option<&str>,
) -> Result<Option<Vec<String>>, SinkError> {
    let mut replaces = output.committed().filter(|(intent, _)| intent.kind() == v1::CommitKind::Replace);
    let asked = replaces.next().zip(account.spec.as_ref()).zip(column);
    let Some((((intent, _), spec), column)) = asked else { return Ok(None) };
    let source = spec.sources.iter().find(|one| Some(one.name.as_str()) == output.anchor());
    let zone = source.and_then(|source| source.event_time.as_ref()).map(|event_time| event_time.time_zone.clone());
    let zone = zone.unwrap_or(jiff::tz::TimeZone::UTC);
    let time = Some(TimeColumn { name: column.to_owned(), unit: None, zone });
    let scope = Scope { window: spec.window, time, replaces: true, ..Scope::of(&account.id) };
    sink::left_over(table, branch, &scope, intent.replaces_through).await.map(Some)
}

fn committed_files(output: &OutputBook) -> impl Iterator<Item = &CommittedFile> {
    output.committed().flat_map(|(intent, _)| output.files_of(intent))
}

/// The table's column that has the name of the source's event-time column, and is a time. Of a join, whose sources may
/// have columns of one name, it is the one that was pinned.
pub(super) fn time_column(account: &Account, output: &OutputBook) -> Option<String> {
    let table = output.table.as_ref().filter(|_| !account.keeps(output))?;
    if output.join.is_some() {
        return Some(table.time_column.clone()).filter(|column| !column.is_empty());
    }
    let at = account.sources.iter().position(|source| Some(source.name.as_str()) == output.anchor())?;
    let source = account.spec_source(SourceIx::new(u32::try_from(at).ok()?))?;
    let EventTimeOf::Column(name, _) = &source.event_time.as_ref()?.of else { return None };
    let is_it =
        |column: &String| column.split_once(' ').is_some_and(|(of, kind)| of == name && kind.starts_with("timestamp"));
    table.columns.iter().any(is_it).then(|| name.clone())
}

/// Holds an output against its table.
pub fn check_table(account: &Account, output: &OutputBook, facts: &TableFacts) -> Vec<Check> {
    let of = facts.history.table.as_str();
    let pinned = output.table.as_ref().map(|table| table.uuid.as_str()).unwrap_or_default();
    if facts.history.uuid != pinned {
        let text =
            format!("uuid {}, and the backfill wrote to {pinned}: it was dropped and created anew", facts.history.uuid);
        return vec![Check::new("snapshots", of, text).broken_if(true)];
    }
    let fenced_off = cancelled(account, output, facts);
    if output.committed().next().is_none() {
        return fenced_off.into_iter().collect();
    }
    let mut checks = vec![snapshots(account, output, facts), manifests(output, facts)];
    checks.extend(fenced_off);
    checks.extend(facts.left_over.as_ref().map(|left| replaced(facts, left)));
    checks.push(contents(output, facts));
    // Dead letters and late rows are of no hour of their own.
    checks.extend((!account.keeps(output)).then(|| coverage(account, facts)));
    checks
}

/// That no intent that was fenced off landed all the same.
fn cancelled(account: &Account, output: &OutputBook, facts: &TableFacts) -> Option<Check> {
    let (mut fenced, mut details) = (0, Vec::new());
    for (intent, _) in output.cancelled() {
        fenced += 1;
        let branch = if intent.branch.is_empty() { marker::MAIN } else { &intent.branch };
        let (key, own) = (marker::key(&account.id, branch), marker::of(intent));
        let landed = facts.history.snapshots.iter().filter(|one| one.markers.get(&key) == Some(&own));
        details
            .extend(landed.map(|one| format!("intent #{} was fenced off and is snapshot {}", intent.sequence, one.id)));
    }
    let text = format!("{} intents fenced off, and none of them in the table", count(fenced));
    (fenced > 0).then(|| Check::new("cancelled", &facts.history.table, text).broken_by(details))
}

/// That nothing is left of what the window held.
fn replaced(facts: &TableFacts, left: &[String]) -> Check {
    let details = left.iter().map(|path| format!("{path} was in the window before, and still is")).collect();
    let text = format!("{} files are left of what the window held before", count(left.len() as u64));
    Check::new("replaced", &facts.history.table, text).broken_by(details)
}

fn snapshots(account: &Account, output: &OutputBook, facts: &TableFacts) -> Check {
    let key = marker::key(&account.id, &facts.branch);
    let by_id: BTreeMap<i64, &SnapshotFacts> = facts.history.snapshots.iter().map(|one| (one.id, one)).collect();
    let (mut details, mut expired, mut known) = (Vec::new(), 0, BTreeSet::new());
    let mut last = None;
    for (intent, result) in output.committed() {
        let own = marker::of(intent);
        last = Some(own.clone());
        known.insert(own.clone());
        let Some(found) = by_id.get(&result.snapshot_id) else {
            expired += 1;
            continue;
        };
        let wrong = |what: String| format!("snapshot {} of intent #{}: {what}", found.id, intent.sequence);
        if !found.in_ancestry {
            details.push(wrong("the table no longer descends from it: it was rolled back".to_owned()));
        }
        if found.markers.get(&key) != Some(&own) {
            details.push(wrong(format!("it does not carry the marker {own}")));
        }
        if (found.added_rows, found.added_files) != (Some(intent.rows), Some(intent.files)) {
            let said = |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
            details.push(wrong(format!(
                "it says that it adds {} rows in {} files, and the intent has {} in {}",
                said(found.added_rows),
                said(found.added_files),
                intent.rows,
                intent.files
            )));
        }
        details.extend(before_and_after(found, &by_id).map(wrong));
    }
    let foreign = facts.history.snapshots.iter().filter(|one| one.in_ancestry);
    let is_fence = |marker: &str| {
        let fences = output.cancelled().map(|(intent, _)| format!("{}:cancelled:", intent.sequence));
        fences.into_iter().any(|fence| marker.starts_with(&fence))
    };
    for (snapshot, marker) in foreign.filter_map(|one| Some((one, one.markers.get(&key)?))) {
        let ended = output.intents.values().any(|(intent, _)| marker::of(intent) == *marker);
        // One that goes on may have committed since its journal was read.
        if account.is_over() && !known.contains(marker) && !ended && !is_fence(marker) {
            details.push(format!("snapshot {}: its marker {marker} is of no intent of the journal", snapshot.id));
        }
    }
    if last.is_some() && !facts.history.markers.contains_key(&key) {
        details.push(format!("the table's property {key} is gone"));
    }
    let commits = output.committed().count();
    let (of, removed) = match (output.stages(), facts.left_over.is_some()) {
        (true, of_all) => (format!("branch {}'s", facts.branch), if of_all { " - removed" } else { "" }),
        (false, true) => ("the table's".to_owned(), " - removed"),
        (false, false) => ("the table's".to_owned(), ""),
    };
    let text = format!(
        "{}/{commits} commits in {of} ancestry, each with its marker; rows before + added{removed} = after",
        commits - expired
    );
    let check = Check::new("snapshots", &facts.history.table, text).broken_by(details).untold_if(expired > 0);
    if expired > 0 {
        check.with(vec![format!("{expired} snapshots have expired: what they added is told by the files")])
    } else {
        check
    }
}

/// What is wrong with the counts of a snapshot; `None` where nothing is, or where they are not all stated.
fn before_and_after(snapshot: &SnapshotFacts, all: &BTreeMap<i64, &SnapshotFacts>) -> Option<String> {
    let before = match snapshot.parent {
        None => 0,
        Some(parent) => all.get(&parent)?.total_rows?,
    };
    let (added, removed, after) = (snapshot.added_rows?, snapshot.removed_rows?, snapshot.total_rows?);
    let sum = || match removed {
        0 => format!("{before} rows before + {added} added != {after} after"),
        _ => format!("{before} rows before + {added} added - {removed} removed != {after} after"),
    };
    (before + added != after + removed).then(sum)
}

fn manifests(output: &OutputBook, facts: &TableFacts) -> Check {
    let mut live: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    for file in &facts.files {
        live.entry(&file.path).or_insert((file.rows, 0)).1 += 1;
    }
    let (mut details, mut missing, mut there, mut rows) = (Vec::new(), Vec::new(), 0_u64, 0_u64);
    let mut own = BTreeSet::new();
    for file in committed_files(output) {
        own.insert(file.path.as_str());
        match live.get(file.path.as_str()) {
            None => missing.push(format!("{} ({} rows) is no longer in the table", file.path, file.rows)),
            Some((_, times)) if *times > 1 => details.push(format!("{} is in the table {times} times", file.path)),
            Some((found, _)) if *found != file.rows => {
                details.push(format!("{}: {found} rows in the manifest, {} were handed in", file.path, file.rows));
            }
            Some(_) => {}
        }
        if let Some((found, _)) = live.get(file.path.as_str()) {
            there += 1;
            rows += found;
        }
    }
    let ours: BTreeSet<i64> = output.committed().map(|(_, result)| result.snapshot_id).collect();
    let strays = facts.files.iter().filter(|file| file.snapshot.is_some_and(|at| ours.contains(&at)));
    details.extend(
        strays
            .filter(|file| !own.contains(file.path.as_str()))
            .map(|file| format!("{} was added by this backfill's snapshot, and nobody handed it in", file.path)),
    );
    let committed: u64 = output.committed().map(|(intent, _)| intent.rows).sum();
    let text = format!(
        "{}/{} files once each; {} rows in the manifests = {} committed",
        count(there),
        count(own.len() as u64),
        count(rows),
        count(committed)
    );
    let rewritten = rewritten_after(output, facts);
    let check = Check::new("manifests", &facts.history.table, text);
    match (missing.is_empty(), rewritten) {
        (false, Some(by)) => {
            let note = format!(
                "{} files were rewritten or removed since by others ({by}): their rows cannot be told apart",
                missing.len()
            );
            check.broken_by(details).untold_if(true).with(vec![note])
        }
        _ => check.broken_by([missing, details].concat()),
    }
}

/// The last snapshot of others behind the backfill's first commit that may have taken files away.
fn rewritten_after(output: &OutputBook, facts: &TableFacts) -> Option<String> {
    let ours: BTreeSet<i64> = output.committed().map(|(_, result)| result.snapshot_id).collect();
    let first = output.committed().next()?.1.snapshot_id;
    let since = facts.history.snapshots.iter().skip_while(|one| one.id != first);
    let takes = |one: &&SnapshotFacts| one.in_ancestry && one.operation != "append" && !ours.contains(&one.id);
    since.filter(takes).map(|one| format!("{} {}", one.operation, one.id)).last()
}

fn contents(output: &OutputBook, facts: &TableFacts) -> Check {
    let contents = &facts.contents;
    let own: BTreeSet<&str> = committed_files(output).map(|file| file.path.as_str()).collect();
    let expected: u64 = facts
        .files
        .iter()
        .filter(|file| own.contains(file.path.as_str()))
        .map(|file| (file.path.as_str(), file.rows))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .sum();
    let unreadable = contents.unreadable.iter().map(|(path, why)| format!("{path} cannot be read: {why}"));
    let wrong = contents
        .miscounted
        .iter()
        .map(|(path, said, found)| format!("{path} holds {found} rows, its manifest says {said}"));
    let text = format!("{} rows read back from the files = {} in the manifests", count(contents.rows), count(expected));
    let details: Vec<String> = unreadable.chain(wrong).collect();
    Check::new("contents", &facts.history.table, text).broken_if(contents.rows != expected).broken_by_more(details)
}

fn coverage(account: &Account, facts: &TableFacts) -> Check {
    let of = facts.history.table.as_str();
    let untold = |why: &str| Check::new("coverage", of, why.to_owned()).untold_if(true);
    let Some(column) = &facts.column else {
        return untold("the table has no column of the source's event time: rows an hour cannot be told");
    };
    let hours = &facts.contents.hours;
    let (Some(first), Some(last)) = (hours.keys().next(), hours.keys().next_back()) else {
        return untold("there are no rows");
    };
    let window = account.spec.as_ref().map_or(Window::ALL, |spec| spec.window);
    let (from, to) = if window == Window::ALL {
        (*first, last + 1)
    } else {
        let end = window.to().as_micros().saturating_sub(1).div_euclid(MICROS_AN_HOUR) + 1;
        (window.from().as_micros().div_euclid(MICROS_AN_HOUR), end)
    };
    if to - from > MOST_HOURS {
        return untold("the window is too long to be listed hour by hour");
    }
    let mut empty = gaps(hours, from, to);
    empty.sort_by_key(|(from, to)| (from - to, *from));
    let without: i64 = empty.iter().map(|(from, to)| to - from).sum();
    let hours_of = |hours: i64| count(u64::try_from(hours).unwrap_or_default());
    let text = format!("{}/{} hours have rows, by column {column}", hours_of(to - from - without), hours_of(to - from));
    let mut details: Vec<String> = empty.iter().map(|(from, to)| format!("no rows in {}", range(*from, *to))).collect();
    let outside: u64 = hours.iter().filter(|(hour, _)| !(from..to).contains(*hour)).map(|(_, rows)| rows).sum();
    if outside > 0 {
        details.insert(0, format!("{outside} rows lie in hours outside the window"));
    }
    if facts.contents.without_time > 0 {
        details.insert(0, format!("{} rows have no {column}", facts.contents.without_time));
    }
    Check::new("coverage", of, text).with(details)
}

/// The runs of hours in `[from, to)` without rows.
fn gaps(hours: &BTreeMap<i64, u64>, from: i64, to: i64) -> Vec<(i64, i64)> {
    let mut gaps = Vec::new();
    let mut next = from;
    for hour in hours.range(from..to).map(|(hour, _)| *hour).chain([to]) {
        if hour > next {
            gaps.push((next, hour));
        }
        next = hour + 1;
    }
    gaps
}

fn range(from: i64, to: i64) -> String {
    let at = |hour: i64| EventTime::from_micros(hour.saturating_mul(MICROS_AN_HOUR));
    format!("[{}, {}), {} h", at(from), at(to), to - from)
}

impl Check {
    /// Adds `details`; broken where there are some, as before where not.
    fn broken_by_more(self, details: Vec<String>) -> Self {
        let verdict = if details.is_empty() { self.verdict } else { Verdict::Broken };
        Self { verdict, ..self.with(details) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_the_runs_of_hours_without_rows() {
        let hours = BTreeMap::from([(2, 1), (3, 9), (7, 1), (99, 1)]);
        assert_eq!(gaps(&hours, 0, 10), [(0, 2), (4, 7), (8, 10)]);
        assert_eq!(gaps(&hours, 2, 4), []);
        assert_eq!(gaps(&BTreeMap::new(), 0, 3), [(0, 3)]);
        assert_eq!(range(0, 24), "[1970-01-01T00:00:00Z, 1970-01-02T00:00:00Z), 24 h");
    }
}
