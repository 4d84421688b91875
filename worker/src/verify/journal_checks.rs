//! The account held against itself. Pure.
//!
//! | check | holds when |
//! |---|---|
//! | ledger of a source | in range = read + pruned + gaps, and of a topic, the offsets that are pinned; less was read only where the backfill did not succeed |
//! | ledger of an output | read of its source = read for it = passed + filtered + late + dead letter; passed = rows in its files = committed |
//! | ledger of a table of dead letters | and: dead letters of its source = passed |
//! | units | each hand-in covers the next units of its task, and all units of a plan that succeeded are accepted |
//! | files | no path was handed in twice, and each is in exactly one intent of main or, before it is published, of the staging branch; what was published is what was staged |

use std::collections::BTreeMap;

use tidegate_proto::v1;

use super::account::{Account, OutputBook, SourceBook};
use super::{Check, Verdict, count};

/// Checks the account of a backfill.
pub fn check_account(account: &Account) -> Vec<Check> {
    let mut checks: Vec<Check> = account.sources.iter().map(|source| source_ledger(account, source)).collect();
    checks.extend(account.outputs.iter().map(|output| output_ledger(account, output)));
    checks.push(units(account));
    checks.extend(account.outputs.iter().map(|output| files(account, output)));
    checks
}

/// Whether all was read and committed, be it to a branch.
fn succeeded(account: &Account) -> bool {
    matches!(account.phase, v1::Phase::Succeeded | v1::Phase::Staged)
}

/// A sum that must be reached by a backfill that succeeded, and never passed by any.
fn judge(account: &Account, whole: u64, part: u64) -> Verdict {
    match part.cmp(&whole) {
        std::cmp::Ordering::Equal => Verdict::Holds,
        std::cmp::Ordering::Less if !succeeded(account) => Verdict::Untold,
        _ => Verdict::Broken,
    }
}

fn source_ledger(account: &Account, source: &SourceBook) -> Check {
    let Some(found) = &source.found else {
        return Check::new("ledger", &source.name, "not enumerated".to_owned()).untold_if(true);
    };
    let whole = found.rows_in_range + source.unplanned;
    let part = source.read + found.rows_pruned + source.gaps;
    let [in_range, read, pruned, gaps] = [whole, source.read, found.rows_pruned, source.gaps].map(count);
    let text = format!("{in_range} in range = {read} read + {pruned} pruned + {gaps} gaps");
    let check = Check::new("ledger", &source.name, text);
    let details = match judge(account, whole, part) {
        Verdict::Holds => Vec::new(),
        _ if part < whole => vec![format!("{} rows were not read", count(whole - part))],
        _ => vec![format!("{} rows too many were read", count(part - whole))],
    };
    let check = Check { verdict: judge(account, whole, part), ..check.with(details) };
    let pin = account.pins.iter().find(|pin| pin.source == source.name);
    match pin.and_then(v1::SourcePin::offsets).filter(|pinned| *pinned != whole) {
        Some(pinned) => check.broken_by(vec![format!("{} offsets are pinned, {in_range} are in range", count(pinned))]),
        None => check,
    }
}

fn output_ledger(account: &Account, output: &OutputBook) -> Check {
    let committed: u64 = output.committed().map(|(intent, _)| intent.rows).sum();
    let in_files: u64 = output.files.iter().map(|file| file.rows).sum();
    let OutputBook { read, passed, filtered, late, dead_letter, .. } = output;
    let text = format!(
        "{} read = {} passed + {} filtered + {} late + {} dead letter; {} {}",
        count(*read),
        count(*passed),
        count(*filtered),
        count(*late),
        count(*dead_letter),
        count(committed),
        if output.stages() { "staged" } else { "committed" }
    );
    let mut details = Vec::new();
    if *read != passed + filtered + late + dead_letter {
        details.push("the rows read are not the sum of what became of them".to_owned());
    }
    if in_files != *passed {
        details.push(format!("{passed} rows were passed on, and its files were handed in with {in_files}"));
    }
    if let Some([only]) = output.table.as_ref().map(|table| table.source.as_slice())
        && let Some(source) = account.sources.iter().find(|source| source.name == *only)
        && source.read != *read
    {
        details.push(format!("{} rows of {only} were read, {read} of them for it", source.read));
    }
    let text = match account.kept_by(output) {
        Some(source) => {
            if source.dead_letter != *passed {
                let (dead, name) = (source.dead_letter, &source.name);
                details.push(format!("{name} has {dead} dead letters, and {passed} of them were kept"));
            }
            format!("{text}; {} dead letters of {} = {} kept", count(source.dead_letter), source.name, count(*passed))
        }
        None => text,
    };
    let check = Check::new("ledger", output.title(), text);
    let missing = match judge(account, *passed, committed) {
        Verdict::Holds => return check.broken_by(details),
        Verdict::Untold => return check.broken_by(details).untold_if(true),
        Verdict::Broken => format!("{passed} rows were passed on, and {committed} are committed"),
    };
    details.push(missing);
    check.broken_by(details)
}

fn units(account: &Account) -> Check {
    let planned: u64 = account.sources.iter().filter_map(|source| source.found.as_ref()).map(|found| found.units).sum();
    let accepted: u64 = account.sources.iter().map(|source| source.units).sum();
    let (done, all, of) = (count(accepted), count(planned), count(account.tasks.len() as u64));
    let text = format!("{done}/{all} units of {of} tasks accepted, once each and in turn");
    let mut details = account.out_of_turn.clone();
    if accepted > planned || succeeded(account) && accepted < planned {
        details.push(format!("{planned} units were planned, and {accepted} accepted"));
    }
    Check::new("units", "all sources", text).broken_by(details).untold_if(accepted < planned)
}

fn files(account: &Account, output: &OutputBook) -> Check {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for file in &output.files {
        *times.entry(&file.path).or_default() += 1;
    }
    let mut details: Vec<String> = times
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|(path, times)| format!("{path} was handed in {times} times"))
        .collect();
    let mut through = 0;
    let mut in_intents = 0;
    for (intent, _) in output.committed() {
        let files = output.files_of(intent).count() as u64;
        in_intents += files;
        if files != intent.files {
            details.push(format!(
                "intent #{} names {} files, and its hand-ins hold {files}",
                intent.sequence, intent.files
            ));
        }
        if intent.log_from < through {
            details.push(format!("intent #{} takes hand-ins that an earlier one took", intent.sequence));
        }
        through = through.max(intent.log_to);
    }
    details.extend(published_otherwise(output));
    let all = output.files.len() as u64;
    if succeeded(account) && in_intents != all {
        details.push(format!("{all} files were handed in, and {in_intents} are in intents that committed"));
    }
    let text = format!("{}/{} files handed in are in exactly one committed intent", count(in_intents), count(all));
    Check::new("files", output.title(), text).broken_by(details).untold_if(in_intents < all)
}

/// How what was published differs from what was staged and could be audited.
fn published_otherwise(output: &OutputBook) -> Option<String> {
    let (published, _) = output.committed().find(|(intent, _)| !intent.drop_branch.is_empty())?;
    let sum = |of: fn(&v1::Intent) -> u64| output.staged().map(|(intent, _)| of(intent)).sum::<u64>();
    let staged = (sum(|intent| intent.files), sum(|intent| intent.rows));
    (staged != (published.files, published.rows)).then(|| {
        let (files, rows) = staged;
        format!(
            "intent #{} published {} files of {} rows, and {files} of {rows} were staged",
            published.sequence, published.files, published.rows
        )
    })
}
