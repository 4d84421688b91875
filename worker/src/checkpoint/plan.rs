//! A reset: planned from what the brokers say, and carried out with the result read back.

use std::collections::{BTreeMap, BTreeSet};

use super::backup::GroupBackup;
use super::brokers::Brokers;
use super::error::CheckpointError;
use super::handoff::HandOver;
use super::inspect::logs;
use super::partition::{Committed, Partition, Scope};
use super::reset::{Facts, Move, NoTarget, To, decide};

/// Where positions are to go, with what that takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// To the log's start.
    Earliest,
    /// To the log's end.
    Latest,
    /// To the first record of this time or later; milliseconds since 1970.
    Time(i64),
    /// To this offset.
    Offset(i64),
    /// By so many offsets.
    Shift(i64),
    /// Where a backup says.
    Backup(GroupBackup),
    /// Where a backfill ended.
    HandOver(HandOver),
}

/// One partition's part of a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMove {
    /// The partition.
    pub partition: Partition,
    /// How its position moves.
    pub moved: Move,
    /// What is written beside the position.
    pub metadata: String,
    /// The time of the record at the old position, or of the newest before; milliseconds since 1970.
    pub old_time: Option<i64>,
    /// The same of the new one.
    pub new_time: Option<i64>,
}

/// A reset that is yet to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The moves, by partition.
    pub moves: Vec<PartitionMove>,
    /// The positions that it starts from.
    pub before: BTreeMap<Partition, Committed>,
}

impl Plan {
    /// Whether records would be lost.
    pub fn is_gap(&self) -> bool {
        self.moves.iter().any(|one| one.moved.is_gap())
    }

    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        self.moves.iter().any(|one| one.moved.is_change())
    }

    /// The new positions.
    pub fn positions(&self) -> BTreeMap<Partition, Committed> {
        let new = |one: &PartitionMove| Committed { offset: one.moved.new, metadata: one.metadata.clone() };
        self.moves.iter().map(|one| (one.partition.clone(), new(one))).collect()
    }
}

/// What a target gives for each partition: the offset, what was written beside it, and what a backfill has read.
type Given = BTreeMap<Partition, (i64, String, Option<(i64, i64)>)>;

fn given(target: &Target) -> Given {
    match target {
        Target::Backup(backup) => {
            backup.positions.iter().map(|kept| (kept.partition(), (kept.offset, kept.metadata.clone(), None))).collect()
        }
        Target::HandOver(hand_over) => hand_over
            .positions()
            .map(|(partition, from, next)| (partition, (next, String::new(), hand_over.covers.then_some((from, next)))))
            .collect(),
        _ => Given::new(),
    }
}

/// Plans to move `positions` to `target`: those of `scope`, and of a backup or a hand-over no more than it gives.
///
/// # Errors
/// A scope in which there is nothing to move; a partition that is not there; brokers that do not answer.
pub fn plan(
    brokers: &Brokers,
    scope: &Scope,
    positions: &BTreeMap<Partition, Committed>,
    target: &Target,
) -> Result<Plan, CheckpointError> {
    let given = given(target);
    let of: BTreeSet<Partition> = match (target, scope) {
        (Target::Backup(_) | Target::HandOver(_), scope) => {
            let meant: BTreeSet<Partition> = given.keys().filter(|partition| scope.holds(partition)).cloned().collect();
            must_be_there(brokers, &meant)?;
            must_be_same(brokers, target, &meant)?;
            meant
        }
        (_, Scope::Committed) => positions.keys().cloned().collect(),
        (_, scope) => brokers.within(scope)?,
    };
    if of.is_empty() {
        return Err(CheckpointError::Usage("there is no position to move: name a topic with --topic".to_owned()));
    }
    let logs = logs(brokers, &of)?;
    let (to, found) = match target {
        Target::Earliest => (To::Earliest, BTreeMap::new()),
        Target::Latest => (To::Latest, BTreeMap::new()),
        Target::Time(millis) => (To::Found, brokers.at_time(&of, *millis)?),
        Target::Offset(offset) => (To::Offset(*offset), BTreeMap::new()),
        Target::Shift(by) => (To::Shift(*by), BTreeMap::new()),
        Target::Backup(_) | Target::HandOver(_) => (To::Given, BTreeMap::new()),
    };
    let mut moves = Vec::with_capacity(of.len());
    for partition in of {
        let (start, end) = logs.get(&partition).copied().unwrap_or_default();
        let kept = given.get(&partition);
        let facts = Facts {
            position: positions.get(&partition).map(|committed| committed.offset),
            start,
            end,
            found: found.get(&partition).copied().flatten(),
            given: kept.map(|(offset, ..)| *offset),
            covered: kept.and_then(|(_, _, covered)| *covered),
        };
        let moved = decide(to, &facts).map_err(|why| no_target(&partition, why))?;
        let metadata = kept.map(|(_, metadata, _)| metadata.clone()).unwrap_or_default();
        moves.push(PartitionMove { partition, moved, metadata, old_time: None, new_time: None });
    }
    timed(brokers, &mut moves, &logs)?;
    Ok(Plan { moves, before: positions.clone() })
}

fn must_be_there(brokers: &Brokers, meant: &BTreeSet<Partition>) -> Result<(), CheckpointError> {
    let topics: BTreeSet<&str> = meant.iter().map(|partition| partition.topic.as_str()).collect();
    for topic in topics {
        let there = brokers.partitions(topic)?;
        let missing = meant.iter().find(|partition| partition.topic == topic && !there.contains(&partition.number));
        if let Some(missing) = missing {
            return Err(CheckpointError::Refused(format!(
                "the partition {missing} is not there: the topic is not the one that it was"
            )));
        }
    }
    Ok(())
}

/// Refuses offsets of a topic that was deleted and created again since: in the new one they mean nothing.
fn must_be_same(brokers: &Brokers, target: &Target, meant: &BTreeSet<Partition>) -> Result<(), CheckpointError> {
    let (what, then): (&str, BTreeMap<&str, &str>) = match target {
        Target::Backup(backup) => {
            ("backup", backup.topic_ids.iter().map(|(topic, id)| (topic.as_str(), id.as_str())).collect())
        }
        Target::HandOver(hand_over) => {
            ("hand-over", hand_over.topics.iter().map(|one| (one.topic.as_str(), one.topic_id.as_str())).collect())
        }
        _ => return Ok(()),
    };
    let known = meant.iter().map(|partition| partition.topic.as_str());
    let known = known.filter(|topic| then.get(topic).is_some_and(|id| !id.is_empty()));
    for (topic, now) in brokers.topic_ids(known)? {
        let id = then.get(topic.as_str()).copied().unwrap_or_default();
        if id != now {
            return Err(CheckpointError::Refused(format!(
                "the topic {topic} was deleted and created again: its id is {now}, and {id} in the {what}, whose offsets mean \
                 nothing in it; reset the positions to a time or an end with `tidegate checkpoint reset`"
            )));
        }
    }
    Ok(())
}

fn no_target(partition: &Partition, why: NoTarget) -> CheckpointError {
    CheckpointError::Usage(match why {
        NoTarget::NoPosition => format!("{partition} has no position to shift from: give an offset or a time"),
        NoTarget::NotGiven => format!("nothing is given for {partition}"),
    })
}

fn timed(
    brokers: &Brokers,
    moves: &mut [PartitionMove],
    logs: &BTreeMap<Partition, (i64, i64)>,
) -> Result<(), CheckpointError> {
    let old = moves.iter().filter_map(|one| Some((one.partition.clone(), one.moved.old?))).collect();
    let new = moves.iter().map(|one| (one.partition.clone(), one.moved.new)).collect();
    let (old, new) = (brokers.times(&old, logs)?, brokers.times(&new, logs)?);
    for one in moves {
        one.old_time = old.get(&one.partition).copied();
        one.new_time = new.get(&one.partition).copied();
    }
    Ok(())
}

/// Sets a group's positions as `plan` says, and reads them back.
///
/// The coordinator refuses positions while the group has members. Consumers that assign partitions to themselves are no
/// members: where positions have moved since the plan was made, or are not what was set, that is said.
///
/// # Errors
/// A group that is active; positions that others moved; brokers that do not answer.
pub fn apply(brokers: &Brokers, plan: &Plan) -> Result<(), CheckpointError> {
    let of: BTreeSet<Partition> = plan.moves.iter().map(|one| one.partition.clone()).collect();
    let group = brokers.group_name();
    let now = brokers.committed(&of)?;
    let moved = of.iter().find(|partition| {
        let offset = |of: Option<&Committed>| of.map(|committed| committed.offset);
        offset(now.get(*partition)) != offset(plan.before.get(*partition))
    });
    if let Some(partition) = moved {
        return Err(CheckpointError::Active(format!(
            "somebody moves the positions of {group}: that of {partition} is not what it was a moment ago; nothing was set"
        )));
    }
    let wanted = plan.positions();
    brokers.commit(&wanted)?;
    let after = brokers.committed(&of)?;
    for (partition, position) in &wanted {
        let found = after.get(partition).map(|committed| committed.offset);
        if found != Some(position.offset) {
            let found = found.map_or_else(|| "none".to_owned(), |offset| offset.to_string());
            return Err(CheckpointError::Raced(format!(
                "the position of {partition} in {group} was set to {} and is {found}: somebody else sets it",
                position.offset
            )));
        }
    }
    let state = brokers.group()?;
    if state.activity() == super::group::Activity::Active {
        return Err(CheckpointError::Raced(format!(
            "the positions of {group} are set, and the group became active meanwhile ({}): its members may have begun \
             where they were before",
            state.who()
        )));
    }
    Ok(())
}
