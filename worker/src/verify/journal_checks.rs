//! The account held against itself. Pure.
//!
//! | check | holds when |
//! |---|---|
//! | ledger of a source | in range = read + pruned + gaps, and of a topic, the offsets that are pinned; less was read only where the backfill did not succeed |
//! | ledger of an output | read of its source = read for it = passed + filtered + late + dead letter; passed = rows in its files = committed |
//! | ledger of an output that joins | rows of its anchor that were shuffled and lie in the window = joined; passed = rows in its files = committed |
//! | ledger of each source that it joins | read of the source = read for it = shuffled + filtered + late + dead letter; shuffled + late = rows in its objects |
//! | ledger of a table of dead letters | and: dead letters of its source = passed |
//! | ledger of a table of late rows | late rows of what it is for = passed |
//! | units | each hand-in covers the next units of its task, and all units of a plan that succeeded are accepted |
//! | slices | each is joined once, behind every object that it needs but for rows that may be late, and all are of an output that succeeded; no object was handed in twice, nor its late rows |
//! | files | no path was handed in twice, and each is in exactly one intent of main or, before it is published, of the staging branch; what was published is what was staged |

use std::collections::BTreeMap;

use tidegate_proto::v1;

use super::account::{Account, OutputBook, SourceBook};
use super::joins::{InputBook, JoinBook};
use super::{Check, Verdict, count};

/// Checks the account of a backfill.
pub fn check_account(account: &Account) -> Vec<Check> {
    let mut checks: Vec<Check> = account.sources.iter().map(|source| source_ledger(account, source)).collect();
    // What goes row by row has no table of late rows.
    let is_made = |output: &&OutputBook| {
        account.late_of(output).is_none() || output.table.as_ref().is_some_and(|table| !table.uuid.is_empty())
    };
    for output in account.outputs.iter().filter(is_made) {
        let inputs = output.join.iter().flat_map(|join| &join.inputs);
        checks.extend(inputs.map(|input| input_ledger(account, output, input)));
        checks.push(output_ledger(account, output));
    }
    checks.push(units(account));
    let joins = account.outputs.iter().filter_map(|output| Some((output, output.join.as_ref()?)));
    checks.extend(joins.map(|(output, join)| slices(account, output, join)));
    checks.extend(account.outputs.iter().filter(is_made).map(|output| files(account, output)));
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
    let passed = output.passed;
    let (sums, mut details) = match &output.join {
        Some(join) => joined_sums(account, output, join),
        None => query_sums(account, output),
    };
    let text = format!("{sums}; {} {}", count(committed), if output.stages() { "staged" } else { "committed" });
    if in_files != passed {
        details.push(format!("{passed} rows were passed on, and its files were handed in with {in_files}"));
    }
    let text = match account.kept_by(output) {
        Some(source) => {
            if source.dead_letter != passed {
                let (dead, name) = (source.dead_letter, &source.name);
                details.push(format!("{name} has {dead} dead letters, and {passed} of them were kept"));
            }
            format!("{text}; {} dead letters of {} = {} kept", count(source.dead_letter), source.name, count(passed))
        }
        None => match account.late_of(output).and_then(|of| of.join.as_ref()) {
            Some(join) => {
                let (late, kept) = (join.all_late(), count(passed));
                let twice = join.late_written != passed;
                if twice || judge(account, late, passed) == Verdict::Broken {
                    details.push(format!("{late} rows were late, and {passed} of them were kept"));
                }
                format!("{text}; {} late rows = {kept} kept", count(late))
            }
            None => text,
        },
    };
    let late = account.late_of(output).and_then(|of| of.join.as_ref());
    let waits = late.is_some_and(|join| judge(account, join.all_late(), passed) == Verdict::Untold);
    let waits =
        waits || output.join.as_ref().is_some_and(|join| judge(account, join.anchors, output.read) == Verdict::Untold);
    let check = Check::new("ledger", output.title(), text);
    let missing = match judge(account, passed, committed) {
        Verdict::Holds => return check.broken_by(details).untold_if(waits),
        Verdict::Untold => return check.broken_by(details).untold_if(true),
        Verdict::Broken => format!("{passed} rows were passed on, and {committed} are committed"),
    };
    details.push(missing);
    check.broken_by(details)
}

/// What came of the rows read for an output of one source, and what is wrong with that.
fn query_sums(account: &Account, output: &OutputBook) -> (String, Vec<String>) {
    let OutputBook { read, passed, filtered, late, dead_letter, .. } = output;
    let text = format!("{} read = {}", count(*read), became([*passed, *filtered, *late, *dead_letter], "passed"));
    let mut details = Vec::new();
    if *read != passed + filtered + late + dead_letter {
        details.push("the rows read are not the sum of what became of them".to_owned());
    }
    if let Some([only]) = output.table.as_ref().map(|table| table.source.as_slice()) {
        details.extend(unread(account, only, *read));
    }
    (text, details)
}

/// What came of the anchors of an output that joins, and what is wrong with that.
fn joined_sums(account: &Account, output: &OutputBook, join: &JoinBook) -> (String, Vec<String>) {
    let (anchors, joined) = (count(join.anchors), count(output.read));
    let text = format!("{anchors} rows of the anchor shuffled = {joined} joined, {} passed", count(output.passed));
    let wrong = judge(account, join.anchors, output.read) == Verdict::Broken;
    let detail = || format!("{anchors} rows of the anchor were shuffled, and {joined} were joined");
    (text, wrong.then(detail).into_iter().collect())
}

/// One source of an output that joins it.
fn input_ledger(account: &Account, output: &OutputBook, input: &InputBook) -> Check {
    let InputBook { source, read, shuffled, filtered, late, dead_letter, .. } = input;
    let text = format!(
        "{} read of {source} = {}; {} rows in {} objects",
        count(*read),
        became([*shuffled, *filtered, *late, *dead_letter], "shuffled"),
        count(input.object_rows),
        count(input.objects)
    );
    let mut details = input.wrong.clone();
    if *read != shuffled + filtered + late + dead_letter {
        details.push(format!("the rows read of {source} are not the sum of what became of them"));
    }
    if input.object_rows != shuffled + late {
        let held = input.object_rows;
        details.push(format!("{shuffled} rows were shuffled and {late} were late, and its objects hold {held}"));
    }
    details.extend(unread(account, source, *read));
    Check::new("ledger", output.title(), text).broken_by(details)
}

/// What became of rows: those that went on, as `what` says, then those that did not.
fn became([on, filtered, late, dead_letter]: [u64; 4], what: &str) -> String {
    let (on, filtered, late, dead) = (count(on), count(filtered), count(late), count(dead_letter));
    format!("{on} {what} + {filtered} filtered + {late} late + {dead} dead letter")
}

/// What is wrong where `read` rows of the source of that name were read for an output.
fn unread(account: &Account, name: &str, read: u64) -> Option<String> {
    let source = account.sources.iter().find(|source| source.name == name)?;
    (source.read != read).then(|| format!("{} rows of {name} were read, {read} of them for it", source.read))
}

fn slices(account: &Account, output: &OutputBook, join: &JoinBook) -> Check {
    let mut details = join.wrong.clone();
    let Some(slices) = join.slices else {
        if succeeded(account) {
            details.push("it succeeded, and was never cut into slices".to_owned());
        }
        return Check::new("slices", output.title(), "not cut yet".to_owned()).broken_by(details).untold_if(true);
    };
    let (done, all) = (join.slices_joined(), slices.count());
    if succeeded(account) && done < all {
        details.push(format!("{} slices were not joined", all - done));
    }
    let text = format!("{}/{} slices of {} joined, once each", count(done.into()), count(all.into()), slices.width());
    Check::new("slices", output.title(), text).broken_by(details).untold_if(done < all)
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
