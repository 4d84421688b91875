//! A query's positions, moved: one file is written anew, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::Checkpoint;
use super::log::{Offsets, SourceOffsets, kafka_json};
use crate::checkpoint::{CheckpointError, Partition, Plan};

/// Whether a reset of this query is safe; see the module's own words for why.
///
/// # Errors
/// The reason why it is not.
pub fn must_be_resettable(checkpoint: &Checkpoint) -> Result<&Offsets, CheckpointError> {
    let folder = checkpoint.folder.shown();
    let refused = |what: String| Err(CheckpointError::Refused(format!("{folder}: {what}")));
    let Some((last, offsets)) = &checkpoint.last else {
        return refused("no batch is planned: set the query's startingOffsets instead".to_owned());
    };
    if checkpoint.is_pending() {
        let done = checkpoint.committed().map_or_else(|| "none".to_owned(), |done| done.to_string());
        return refused(format!(
            "batch {last} is planned and {done} is the last committed: Spark runs {last} again with exactly its positions, \
             and the sink may have some of it. Let the query finish that batch, then stop it"
        ));
    }
    if *last > 0 && !checkpoint.batches.planned.contains(&(last - 1)) {
        return refused(format!("Spark cannot begin at batch {last} without {}", last - 1));
    }
    if checkpoint.is_stateful {
        return refused(
            "the query keeps state, which belongs to its positions. Start it with a new folder, and with the positions \
             as its startingOffsets"
                .to_owned(),
        );
    }
    let mut topics: BTreeSet<&str> = BTreeSet::new();
    for source in offsets.kafka() {
        let of_source: BTreeSet<&str> = source.keys().map(|partition| partition.topic.as_str()).collect();
        if let Some(shared) = of_source.intersection(&topics).next() {
            return refused(format!("two sources of the query read {shared}: which of them is meant cannot be told"));
        }
        topics.extend(of_source);
    }
    if topics.is_empty() {
        return refused("the query has no Kafka source".to_owned());
    }
    Ok(offsets)
}

/// Writes the positions of `plan` into the last batch of `before`, as it was looked at when the plan was made.
///
/// # Errors
/// A query that cannot be reset, or has moved on; a store that does not answer.
pub async fn reset(before: &Checkpoint, plan: &Plan) -> Result<(), CheckpointError> {
    let now = Checkpoint::load(&before.folder).await?;
    let folder = now.folder.shown();
    let offsets = must_be_resettable(&now)?;
    if now.batches != before.batches || now.last != before.last {
        let what = "the query has moved on: it is running; nothing was written";
        return Err(CheckpointError::Active(format!("{folder}: {what}")));
    }
    let moved = with_positions(offsets, plan).map_err(|what| CheckpointError::Refused(format!("{folder}: {what}")))?;
    let Some(last) = now.planned() else { return Ok(()) };
    if now.folder.is_disk() {
        // Hadoop keeps the sum of the old content beside it, and would refuse the new one.
        now.folder.remove(&format!("offsets/.{last}.crc")).await?;
    }
    now.folder.put(&format!("offsets/{last}"), moved.text().into()).await?;
    let after = Checkpoint::load(&now.folder).await?;
    if after.batches != now.batches || after.last != Some((last, moved)) {
        return Err(CheckpointError::Raced(format!(
            "{folder}: the query went on while its positions were set: it is running, and may have begun where it was"
        )));
    }
    Ok(())
}

fn with_positions(offsets: &Offsets, plan: &Plan) -> Result<Offsets, String> {
    let mut moved = offsets.clone();
    for one in &plan.moves {
        let topic = &one.partition.topic;
        let source = moved.sources.iter_mut().find_map(|source| match source {
            SourceOffsets::Kafka(positions) if positions.keys().any(|held| held.topic == *topic) => Some(positions),
            _ => None,
        });
        let positions = source.ok_or_else(|| format!("the query does not read {topic}"))?;
        positions.insert(one.partition.clone(), one.moved.new);
    }
    Ok(moved)
}

/// `positions` as Spark's option `startingOffsets` takes them.
pub fn starting_offsets(positions: &BTreeMap<Partition, i64>) -> String {
    kafka_json(positions)
}
