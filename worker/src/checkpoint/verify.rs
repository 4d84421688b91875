//! Whether positions, or a backup of them, can still be read from.

use std::collections::BTreeMap;

use super::backup::GroupBackup;
use super::brokers::Brokers;
use super::error::CheckpointError;
use super::inspect::PartitionFacts;
use super::partition::Partition;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: a partition, a batch, the whole.
    pub of: String,
    /// Whether it is as it should be.
    pub holds: bool,
    /// What was found.
    pub text: String,
}

impl Finding {
    pub(super) fn new(of: impl ToString, holds: bool, text: impl Into<String>) -> Self {
        Self { of: of.to_string(), holds, text: text.into() }
    }
}

/// Whether each position is in its log.
pub fn verify_positions(facts: &[PartitionFacts]) -> Vec<Finding> {
    let finding = |one: &PartitionFacts| {
        let log = format!("the log is [{}, {})", one.start, one.end);
        match one.position {
            None => Finding::new(&one.partition, true, format!("no position; {log}")),
            Some(position) if position < one.start => {
                let gone = one.start - position;
                Finding::new(
                    &one.partition,
                    false,
                    format!("{position}: {log}, {gone} offsets before it are gone unread"),
                )
            }
            Some(position) if position > one.end => {
                Finding::new(&one.partition, false, format!("{position}: {log}, it is not the log that was read"))
            }
            Some(position) => Finding::new(&one.partition, true, format!("{position}: {log}")),
        }
    };
    facts.iter().map(finding).collect()
}

/// Whether `backup` fits what is there: the cluster, the partitions, the logs.
///
/// # Errors
/// Brokers that do not answer.
pub fn verify_backup(brokers: &Brokers, backup: &GroupBackup) -> Result<Vec<Finding>, CheckpointError> {
    let mut findings = Vec::new();
    if let (Some(then), Some(now)) = (&backup.cluster_id, brokers.cluster_id()) {
        let text = if *then == now { format!("it is of {now}") } else { format!("it is of {then}, and this is {now}") };
        findings.push(Finding::new("cluster", *then == now, text));
    }
    let topics = brokers.topics()?;
    let mut facts = Vec::new();
    for kept in &backup.positions {
        let partition = kept.partition();
        if !topics.get(&kept.topic).is_some_and(|numbers| numbers.contains(&kept.partition)) {
            findings.push(Finding::new(&partition, false, "it is not there any more"));
            continue;
        }
        let (start, end) = brokers.log_of(&partition)?;
        if end < kept.log_end {
            let text = format!("the log ended at {} and ends at {end}: it is another one", kept.log_end);
            findings.push(Finding::new(&partition, false, text));
            continue;
        }
        facts.push(PartitionFacts { partition, position: Some(kept.offset), start, end, time: None, start_time: None });
    }
    findings.extend(verify_positions(&facts));
    let known = backup.topic_ids.keys().map(String::as_str).filter(|topic| topics.contains_key(*topic));
    for (topic, now) in brokers.topic_ids(known)? {
        if backup.topic_ids.get(&topic) != Some(&now) {
            findings.push(Finding::new(topic, false, "it was deleted and created again"));
        }
    }
    let more: BTreeMap<&str, usize> = backup.positions.iter().map(|kept| (kept.topic.as_str(), 0)).collect();
    for topic in more.keys().filter(|topic| topics.contains_key(**topic)) {
        let kept = |number: &i32| backup.positions.iter().any(|one| one.partition() == Partition::new(*topic, *number));
        let new = topics.get(*topic).map_or(0, |numbers| numbers.iter().filter(|number| !kept(number)).count());
        if new > 0 {
            findings.push(Finding::new(topic, true, format!("{new} partitions are not in the backup")));
        }
    }
    Ok(findings)
}
