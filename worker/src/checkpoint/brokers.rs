//! Brokers, asked: topics, logs, groups and their positions; and told a group's new positions.
//!
//! Ends of logs are high watermarks, as for Kafka's own tools. Positions are read as they are stable: a pending
//! transaction of the group is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::error::CheckpointError;
use super::group::GroupFacts;
use super::partition::{Committed, Partition, Scope};
use super::settings::Settings;
use crate::kafka::{self, Quiet, Unreached, told, topic_id};

/// How long an answer may take.
pub(super) const ANSWER: Duration = Duration::from_secs(15);

/// A cluster, and one group of it. All calls wait for their answer.
pub struct Brokers {
    group_name: String,
    /// Of the group, without ever joining it.
    group: BaseConsumer<Quiet>,
    /// Of no group: what the logs hold.
    pub(super) log: BaseConsumer<Quiet>,
    bootstrap: String,
    /// Whether they have let this client in.
    reached: AtomicBool,
}

impl std::fmt::Debug for Brokers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brokers").field("bootstrap", &self.bootstrap).field("group", &self.group_name).finish()
    }
}

impl Brokers {
    /// The cluster that `settings` reach, and the group `group` of it.
    ///
    /// # Errors
    /// Settings that librdkafka does not take.
    pub fn open(settings: &Settings, group: &str) -> Result<Self, CheckpointError> {
        let client = |more: &[(&str, &str)]| {
            let common = [
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("enable.partition.eof", "true"),
            ];
            let made = settings.client(&[&common[..], more].concat()).create_with_context(Quiet::default());
            made.map_err(|error| CheckpointError::Settings(format!("the client cannot be made: {}", told(&error))))
        };
        let group_client = client(&[("group.id", group), ("isolation.level", "read_committed")])?;
        let log = client(&[
            ("group.id", "tidegate-checkpoint-reads-only"),
            ("isolation.level", "read_uncommitted"),
            ("auto.offset.reset", "error"),
            ("fetch.wait.max.ms", "50"),
            ("fetch.message.max.bytes", "65536"),
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "4096"),
        ])?;
        let bootstrap = settings.bootstrap().to_owned();
        Ok(Self { group_name: group.to_owned(), group: group_client, log, bootstrap, reached: AtomicBool::new(false) })
    }

    /// Where they are.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The group's name.
    pub fn group_name(&self) -> &str {
        &self.group_name
    }

    /// Waits for brokers that let this client in, and says soon why none does.
    fn reach(&self) -> Result<(), CheckpointError> {
        if self.reached.load(Ordering::Relaxed) {
            return Ok(());
        }
        match kafka::reach(&self.log) {
            Ok(()) => {
                self.reached.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(Unreached::Refused(why)) => Err(CheckpointError::Refused(format!("{} refuses: {why}", self.bootstrap))),
            Err(Unreached::Lost(why)) => {
                let what = format!("{} does not answer ({why})", self.bootstrap);
                Err(CheckpointError::kafka(what)(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown)))
            }
        }
    }

    /// What the cluster calls itself; none where the brokers do not tell it.
    pub fn cluster_id(&self) -> Option<String> {
        self.log.client().fetch_cluster_id(ANSWER)
    }

    /// How many partitions each topic has; topics that Kafka keeps for itself are left out.
    ///
    /// # Errors
    /// Brokers that do not answer.
    pub fn topics(&self) -> Result<BTreeMap<String, Vec<i32>>, CheckpointError> {
        let failed = CheckpointError::kafka(format!("the topics of {} cannot be read", self.bootstrap));
        self.reach()?;
        let metadata = self.log.fetch_metadata(None, ANSWER).map_err(failed)?;
        let own = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
        Ok(own.map(|topic| (topic.name().to_owned(), numbers(topic))).collect())
    }

    /// The partitions of `topic`.
    ///
    /// # Errors
    /// A topic that is not there; brokers that do not answer.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>, CheckpointError> {
        let failed = CheckpointError::kafka(format!("the topic {topic} of {} cannot be read", self.bootstrap));
        self.reach()?;
        let metadata = self.log.fetch_metadata(Some(topic), ANSWER).map_err(failed)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let numbers = found.map(numbers).filter(|numbers| !numbers.is_empty());
        numbers.ok_or_else(|| CheckpointError::Missing(format!("there is no topic {topic} at {}", self.bootstrap)))
    }

    /// The ids of `topics`; those without one, of brokers before Kafka 2.8, are left out.
    ///
    /// # Errors
    /// A topic that is not there; brokers that do not answer.
    pub fn topic_ids<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t str>,
    ) -> Result<BTreeMap<String, String>, CheckpointError> {
        let topics: BTreeSet<&str> = topics.into_iter().collect();
        let mut ids = BTreeMap::new();
        for topic in topics {
            let failed = CheckpointError::kafka(format!("the topic {topic} of {} cannot be read", self.bootstrap));
            ids.extend(topic_id(&self.log, topic, ANSWER).map_err(failed)?.map(|id| (topic.to_owned(), id)));
        }
        Ok(ids)
    }

    /// Every partition that `scope` means and that is there; of [`Scope::Committed`] those of all topics.
    ///
    /// # Errors
    /// A topic or partition that is not there; brokers that do not answer.
    pub fn within(&self, scope: &Scope) -> Result<BTreeSet<Partition>, CheckpointError> {
        let mut found = BTreeSet::new();
        match scope {
            Scope::Committed => {
                for (topic, numbers) in self.topics()? {
                    found.extend(numbers.into_iter().map(|number| Partition::new(&topic, number)));
                }
            }
            Scope::Topics(topics) => {
                for one in topics {
                    let there = self.partitions(&one.topic)?;
                    let wanted = one.partitions.as_ref().unwrap_or(&there);
                    if let Some(missing) = wanted.iter().find(|number| !there.contains(number)) {
                        let many = there.len();
                        return Err(CheckpointError::Missing(format!(
                            "the topic {} has {many} partitions, and {missing} is none of them",
                            one.topic
                        )));
                    }
                    found.extend(wanted.iter().map(|number| Partition::new(&one.topic, *number)));
                }
            }
        }
        Ok(found)
    }

    /// What the group has committed for these partitions; those without a position are left out.
    ///
    /// # Errors
    /// Brokers that do not answer; a transaction of the group that is pending.
    pub fn committed(&self, of: &BTreeSet<Partition>) -> Result<BTreeMap<Partition, Committed>, CheckpointError> {
        let what = || format!("the positions of the group {} cannot be read", self.group_name);
        if of.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut wanted = TopicPartitionList::with_capacity(of.len());
        for partition in of {
            wanted.add_partition(&partition.topic, partition.number);
        }
        let found = self.group.committed_offsets(wanted, ANSWER).map_err(CheckpointError::kafka(what()))?;
        let mut committed = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(CheckpointError::kafka(what()))?;
            if let Offset::Offset(offset) = element.offset() {
                let partition = Partition::new(element.topic(), element.partition());
                committed.insert(partition, Committed { offset, metadata: element.metadata().to_owned() });
            }
        }
        Ok(committed)
    }

    /// Where the log of a partition begins and ends.
    ///
    /// # Errors
    /// A partition that is not there; brokers that do not answer.
    pub fn log_of(&self, of: &Partition) -> Result<(i64, i64), CheckpointError> {
        let found = self.log.fetch_watermarks(&of.topic, of.number, ANSWER);
        found.map_err(CheckpointError::kafka(format!("where the log of {of} begins and ends cannot be read")))
    }

    /// The first offset in each partition whose record's time is `millis` or later; none where there is no such record.
    ///
    /// # Errors
    /// Brokers that do not answer.
    pub fn at_time(
        &self,
        of: &BTreeSet<Partition>,
        millis: i64,
    ) -> Result<BTreeMap<Partition, Option<i64>>, CheckpointError> {
        let what = || "the offsets of a time cannot be read".to_owned();
        let mut wanted = TopicPartitionList::with_capacity(of.len());
        for partition in of {
            let added = wanted.add_partition_offset(&partition.topic, partition.number, Offset::Offset(millis));
            added.map_err(CheckpointError::kafka(what()))?;
        }
        let found = self.log.offsets_for_times(wanted, ANSWER).map_err(CheckpointError::kafka(what()))?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(CheckpointError::kafka(what()))?;
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            offsets.insert(Partition::new(element.topic(), element.partition()), offset);
        }
        Ok(offsets)
    }

    /// How the group stands.
    ///
    /// # Errors
    /// Brokers that do not answer.
    pub fn group(&self) -> Result<GroupFacts, CheckpointError> {
        let what = format!("the group {} at {} cannot be looked at", self.group_name, self.bootstrap);
        let failed = CheckpointError::kafka(what);
        self.reach()?;
        let found = self.group.fetch_group_list(Some(&self.group_name), ANSWER).map_err(failed)?;
        let info = found.groups().iter().find(|info| info.name() == self.group_name);
        Ok(info.map_or_else(|| self.nobody(), GroupFacts::of))
    }

    fn nobody(&self) -> GroupFacts {
        let (name, state) = (self.group_name.clone(), "Dead".to_owned());
        GroupFacts { name, state, protocol_type: String::new(), members: Vec::new() }
    }

    /// Every group of the cluster, by name.
    ///
    /// # Errors
    /// Brokers that do not answer.
    pub fn groups(&self) -> Result<Vec<GroupFacts>, CheckpointError> {
        let failed = CheckpointError::kafka(format!("the groups of {} cannot be read", self.bootstrap));
        self.reach()?;
        let found = self.group.fetch_group_list(None, ANSWER).map_err(failed)?;
        let mut groups: Vec<GroupFacts> = found.groups().iter().map(GroupFacts::of).collect();
        groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(groups)
    }

    /// Sets the group's positions. The coordinator takes them only while the group has no members.
    ///
    /// # Errors
    /// A group that has become active; brokers that do not answer: then it is not known whether they are set.
    pub(super) fn commit(&self, positions: &BTreeMap<Partition, Committed>) -> Result<(), CheckpointError> {
        let what = || format!("the positions of the group {} cannot be set", self.group_name);
        let mut wanted = TopicPartitionList::with_capacity(positions.len());
        for (partition, position) in positions {
            let added =
                wanted.add_partition_offset(&partition.topic, partition.number, Offset::Offset(position.offset));
            added.map_err(CheckpointError::kafka(what()))?;
            if let Some(mut element) = wanted.find_partition(&partition.topic, partition.number)
                && !position.metadata.is_empty()
            {
                element.set_metadata(&position.metadata);
            }
        }
        match self.group.commit(&wanted, CommitMode::Sync) {
            Ok(()) => Ok(()),
            Err(error) if is_of_members(&error) => {
                let group = &self.group_name;
                Err(CheckpointError::Active(format!(
                    "the group {group} became active: its coordinator refuses ({error})"
                )))
            }
            Err(error) => Err(CheckpointError::kafka(what())(error)),
        }
    }
}

/// Whether the coordinator says that positions are its members' to set.
fn is_of_members(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{FencedInstanceId, FencedMemberEpoch, IllegalGeneration, RebalanceInProgress};
    use RDKafkaErrorCode::{StaleMemberEpoch, UnknownMemberId};
    error.rdkafka_error_code().is_some_and(|code| {
        matches!(
            code,
            FencedInstanceId
                | FencedMemberEpoch
                | IllegalGeneration
                | RebalanceInProgress
                | StaleMemberEpoch
                | UnknownMemberId
        )
    })
}

fn numbers(topic: &rdkafka::metadata::MetadataTopic) -> Vec<i32> {
    let mut numbers: Vec<i32> = topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
    numbers.sort_unstable();
    numbers
}
