//! `checkpoint backup`: positions in a file, a query's folder in another.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde::Serialize;
use tidegate_common::clock;
use tidegate_worker::checkpoint::spark::{self, Folder};
use tidegate_worker::checkpoint::{self, Brokers, Committed, GroupBackup, Partition};

use super::subject::{Subject, folder};
use super::{asked, failed};
use crate::args::CheckpointBackup;
use crate::commands::Context;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{plural, second};
use crate::output::{self, Format};

/// What was kept; `kind: CheckpointBackup`.
#[derive(Serialize)]
struct Kept<'a> {
    /// Where.
    backup: &'a str,
    positions: Option<usize>,
    files: Option<usize>,
}

/// Keeps what there is.
pub(super) async fn backup(args: CheckpointBackup, context: &Context) -> Outcome {
    let subject = Subject::read(&args.of)?;
    let (kept, many) = match &subject.spark {
        Some(from) => {
            let (to, files) = keep_spark(from, args.out.as_deref()).await?;
            let kept = Kept { backup: &to, positions: None, files: Some(files) };
            print(&kept, context)?;
            (to.clone(), plural(files as u64, "file"))
        }
        None => {
            let brokers = subject.group(None)?;
            let scope = subject.scope();
            let committed = asked(|| brokers.committed(&brokers.within(&scope)?))?;
            if committed.is_empty() {
                let group = brokers.group_name();
                return Err(Error::new(
                    Exit::Failed,
                    format!("the group {group} has no positions: there is nothing to keep"),
                )
                .hint("`tidegate checkpoint list` shows the groups"));
            }
            let file = keep_group(&brokers, &committed, args.out.as_deref())?;
            print(&Kept { backup: &file, positions: Some(committed.len()), files: None }, context)?;
            (file, plural(committed.len() as u64, "position"))
        }
    };
    context.say(&format!("{many} kept\nNext: tidegate checkpoint verify {kept}"));
    Ok(Exit::Done)
}

fn print(kept: &Kept<'_>, context: &Context) -> Result<(), Error> {
    match context.format() {
        Format::Table | Format::Wide => output::print(&format!("{}\n", kept.backup)),
        format => output::print_document(format, "CheckpointBackup", kept.backup, kept),
    }
}

/// Keeps the positions `committed` of a group in a file that must not be there yet; gives its path.
pub(in crate::commands) fn keep_group(
    brokers: &Brokers,
    committed: &BTreeMap<Partition, Committed>,
    out: Option<&str>,
) -> Result<String, Error> {
    let (of, positions) = (committed.keys().cloned().collect(), BTreeMap::new());
    let topics = committed.keys().map(|partition| partition.topic.as_str());
    let (facts, ids, cluster) = asked(|| {
        Ok((checkpoint::inspect(brokers, &of, &positions)?, brokers.topic_ids(topics)?, brokers.cluster_id()))
    })?;
    let now = clock::processing_time_micros();
    let backup = GroupBackup::new((brokers.group_name(), brokers.bootstrap(), cluster), committed, &facts, ids, now);
    let file = out.map_or_else(|| format!("{}.json", default_name(brokers.group_name(), now)), str::to_owned);
    write_new(&file, &backup.text())?;
    Ok(file)
}

/// Copies a query's folder; gives where to, and how many files.
pub(super) async fn keep_spark(from: &Folder, out: Option<&str>) -> Result<(String, usize), Error> {
    let now = clock::processing_time_micros();
    let to = out.map_or_else(|| default_name(from.name(), now), str::to_owned);
    let kept = spark::backup(from, &folder(&to)?, now).await.map_err(failed)?;
    Ok((to, kept.files.len()))
}

/// `tidegate-checkpoint-NAME-20261001T120000.123456Z`, fit for any file system.
fn default_name(name: &str, now_micros: i64) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = name.chars().map(fits).take(100).collect();
    let at = second(now_micros).replace(['-', ':'], "");
    format!("tidegate-checkpoint-{name}-{}.{:06}Z", at.trim_end_matches('Z'), now_micros.rem_euclid(1_000_000))
}

/// Writes a file that must not be there yet, and makes it durable.
pub(in crate::commands) fn write_new(file: &str, text: &str) -> Result<(), Error> {
    let write = || {
        let mut open = std::fs::File::create_new(file)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()
    };
    write().map_err(|bad: std::io::Error| {
        let exit = if bad.kind() == std::io::ErrorKind::AlreadyExists { Exit::Usage } else { Exit::Failed };
        Error::new(exit, format!("{file} cannot be written")).because(bad).hint("name another file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_fit_for_any_file_system() {
        let name = default_name("a/b c:é", 1_790_812_800_000_042);
        assert_eq!(name, "tidegate-checkpoint-a_b_c__-20261001T000000.000042Z");
    }
}
