//! `checkpoint reset` and `checkpoint restore`.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::tz::TimeZone;
use tidegate_common::clock;
use tidegate_common::spec::{parse_event_time, parse_span};
use tidegate_worker::checkpoint::spark::{self, Checkpoint, Folder};
use tidegate_worker::checkpoint::{self, Brokers, Committed, GroupBackup, HandOver, Partition, Scope, Target};

use super::moving::Mover;
use super::subject::{Subject, folder, text};
use super::{asked, failed};
use crate::args::{Reset, Restore, WayArgs};
use crate::commands::Context;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Format};
use crate::prompt;

/// Moves positions.
pub(super) async fn reset(args: Reset, context: &Context) -> Outcome {
    let subject = Subject::read(&args.of)?;
    let target = target(&args)?;
    let mut scope = subject.scope();
    if scope == Scope::Committed && !args.all_topics && subject.spark.is_none() && args.from_handoff.is_none() {
        return Err(Error::usage("no topic is named").hint("take --topic TOPIC, or --all-topics"));
    }
    if args.all_topics {
        scope = Scope::Committed;
    }
    match &subject.spark {
        Some(folder) => {
            let checkpoint = Checkpoint::load(folder).await.map_err(failed)?;
            let Some(brokers) = subject.logs()? else { return subject.settings().map(|_| Exit::Done) };
            move_spark(&checkpoint, &brokers, &scope, &target, &args.way, context).await
        }
        None => {
            let handed = match &target {
                Target::HandOver(hand_over) => hand_over.group.as_deref(),
                _ => None,
            };
            move_group(&subject.group(handed)?, &scope, &target, &args.way, context).await
        }
    }
}

/// Moves a group to where a backfill ended.
pub(in crate::commands) async fn hand_over(
    brokers: &Brokers,
    file: &Path,
    way: &WayArgs,
    context: &Context,
) -> Outcome {
    let target = Target::HandOver(read_hand_over(file)?);
    move_group(brokers, &Scope::Committed, &target, way, context).await
}

fn read_hand_over(file: &Path) -> Result<HandOver, Error> {
    HandOver::read(&text(file)?, &file.display().to_string()).map_err(failed)
}

async fn move_group(brokers: &Brokers, scope: &Scope, target: &Target, way: &WayArgs, context: &Context) -> Outcome {
    let plan = asked(|| {
        let committed = brokers.committed(&brokers.within(scope)?)?;
        checkpoint::plan(brokers, scope, &committed, target)
    })?;
    Mover::Group(brokers).go(&plan, way, context).await
}

async fn move_spark(
    checkpoint: &Checkpoint,
    brokers: &Brokers,
    scope: &Scope,
    target: &Target,
    way: &WayArgs,
    context: &Context,
) -> Outcome {
    let positions = checkpoint.last.as_ref().map(|(_, offsets)| offsets.positions()).unwrap_or_default();
    let committed: BTreeMap<Partition, Committed> = positions
        .iter()
        .map(|(partition, offset)| (partition.clone(), Committed { offset: *offset, metadata: String::new() }))
        .collect();
    let plan = asked(|| checkpoint::plan(brokers, scope, &committed, target))?;
    if checkpoint.is_stateful || checkpoint.is_pending() {
        let mut moved = positions;
        moved.extend(plan.moves.iter().map(|one| (one.partition.clone(), one.moved.new)));
        context.say(&format!("as startingOffsets of a new folder: {}", spark::starting_offsets(&moved)));
    }
    Mover::Spark(checkpoint).go(&plan, way, context).await
}

fn target(args: &Reset) -> Result<Target, Error> {
    let now = clock::processing_time_micros();
    Ok(match args {
        Reset { to_earliest: true, .. } => Target::Earliest,
        Reset { to_latest: true, .. } => Target::Latest,
        Reset { to_datetime: Some(at), .. } => Target::Time(millis_of(at, now)?),
        Reset { by_duration: Some(span), .. } => {
            let bad = |bad| Error::usage("--by-duration cannot be read").because(bad);
            let span = parse_span(span).map_err(bad)?;
            Target::Time(ceiling_millis(now.saturating_sub(span.as_micros())))
        }
        Reset { to_offset: Some(offset), .. } => Target::Offset(*offset),
        Reset { shift_by: Some(by), .. } => Target::Shift(*by),
        Reset { from_handoff: Some(file), .. } => Target::HandOver(read_hand_over(file)?),
        _ => return Err(Error::usage("no target is given")),
    })
}

/// A time as Kafka's own tools take it: RFC 3339, and UTC where it has no offset.
fn millis_of(text: &str, now: i64) -> Result<i64, Error> {
    let zoned =
        text.parse::<jiff::civil::DateTime>().is_ok() && text.contains('T') && text.parse::<jiff::Timestamp>().is_err();
    let whole = if zoned { format!("{text}Z") } else { text.to_owned() };
    let at = parse_event_time(&whole, &TimeZone::UTC, now);
    at.map(|at| ceiling_millis(at.as_micros())).map_err(|bad| Error::usage("--to-datetime cannot be read").because(bad))
}

/// Kafka counts milliseconds: the first record at or after a point is not before it.
fn ceiling_millis(micros: i64) -> i64 {
    micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0)
}

/// Puts back what a backup holds.
pub(super) async fn restore(args: Restore, context: &Context) -> Outcome {
    let subject = Subject::read(&args.of)?;
    if let Some(to) = &subject.spark {
        return restore_spark(&folder(&args.backup)?, to, &args.way, context).await;
    }
    let backup = GroupBackup::read(&text(Path::new(&args.backup))?, &args.backup).map_err(failed)?;
    let brokers = subject.group(Some(&backup.group))?;
    let cluster = tokio::task::block_in_place(|| brokers.cluster_id());
    if let (Some(then), Some(now)) = (&backup.cluster_id, &cluster)
        && then != now
    {
        let told =
            format!("{} is of the cluster {then}, and this is {now}: its offsets mean nothing here", args.backup);
        return Err(Error::new(Exit::Preflight, told));
    }
    move_group(&brokers, &subject.scope(), &Target::Backup(backup), &args.way, context).await
}

async fn restore_spark(from: &Folder, to: &Folder, way: &WayArgs, context: &Context) -> Outcome {
    let (backup, findings) = spark::verify_copy(from).await.map_err(failed)?;
    let batch = |batch: Option<u64>| batch.map_or_else(|| "none".to_owned(), |batch| batch.to_string());
    let (planned, committed) = (batch(backup.planned), batch(backup.committed));
    let files = backup.files.len();
    let what = format!(
        "{} to {}: {files} files, batch {planned} planned, {committed} committed, taken at {}",
        from.shown(),
        to.shown(),
        backup.taken_at
    );
    match context.format() {
        Format::Table | Format::Wide => output::print(&format!("{what}\n"))?,
        format => output::print_document(format, "SparkCheckpointBackup", to.name(), &backup)?,
    }
    context.say(
        "where the query went on after the backup was taken, its next batches have numbers that the sink may have seen: a sink \
         that remembers them (Delta, Iceberg, files) then leaves those rows out",
    );
    if let Some(broken) = findings.iter().find(|finding| !finding.holds) {
        let told = format!("the backup is not sound: {}: {}", broken.of, broken.text);
        return Err(Error::new(Exit::Preflight, told));
    }
    if !way.execute {
        context.say(&format!(
            "a dry run: nothing was changed\nNext: the same with --execute, and --confirm={}",
            to.name()
        ));
        return Ok(Exit::Done);
    }
    prompt::confirm_name(&format!("Restore into {}?", to.shown()), to.name(), way.confirm.as_deref())?;
    spark::restore(from, to).await.map_err(failed)?;
    context.say("restored, and read back");
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_kafkas_tools_and_never_before_what_was_asked() {
        let millis = |text: &str| millis_of(text, 0).ok();
        assert_eq!(millis("1970-01-01T00:00:01.500"), Some(1_500), "UTC where it has no offset");
        assert_eq!(millis("1970-01-01T00:00:01.500Z"), Some(1_500));
        assert_eq!(millis("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(millis("1970-01-02"), Some(86_400_000));
        assert_eq!(millis("1970-01-01T00:00:00.000001Z"), Some(1));
        assert_eq!(millis("soon"), None);
    }
}
