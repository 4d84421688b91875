//! Partitions and what is meant of them.

use std::fmt;
use std::str::FromStr;

use super::error::CheckpointError;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// Its number, from 0.
    pub number: i32,
}

impl Partition {
    /// That partition of `topic`.
    pub fn new(topic: impl Into<String>, number: i32) -> Self {
        Self { topic: topic.into(), number }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.number)
    }
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset that it reads.
    pub offset: i64,
    /// What it wrote beside it; mostly empty.
    pub metadata: String,
}

/// A topic, or some of its partitions: `T` or `T:0,3`, as Kafka's own tools write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicScope {
    /// The topic.
    pub topic: String,
    /// Its partitions; none is all.
    pub partitions: Option<Vec<i32>>,
}

impl FromStr for TopicScope {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad =
            || CheckpointError::Usage(format!("{text:?} is no topic: write T, or T:0,1 for some of its partitions"));
        let (topic, partitions) = match text.split_once(':') {
            None => (text, None),
            Some((topic, numbers)) => {
                let number = |text: &str| text.trim().parse::<i32>().ok().filter(|number| *number >= 0).ok_or_else(bad);
                (topic, Some(numbers.split(',').map(number).collect::<Result<Vec<i32>, _>>()?))
            }
        };
        if topic.is_empty() {
            return Err(bad());
        }
        Ok(Self { topic: topic.to_owned(), partitions })
    }
}

/// Which partitions are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that have a position.
    Committed,
    /// Those of these topics, with or without a position.
    Topics(Vec<TopicScope>),
}

impl Scope {
    /// Whether `partition` is meant, where it has a position.
    pub fn holds(&self, partition: &Partition) -> bool {
        let Self::Topics(topics) = self else { return true };
        topics
            .iter()
            .filter(|scope| scope.topic == partition.topic)
            .any(|scope| scope.partitions.as_ref().is_none_or(|numbers| numbers.contains(&partition.number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_written_as_kafkas_tools_write_them() {
        let scope = |text: &str| text.parse::<TopicScope>().ok().map(|scope| (scope.topic, scope.partitions));
        assert_eq!(scope("orders"), Some(("orders".to_owned(), None)));
        assert_eq!(scope("orders:0,12"), Some(("orders".to_owned(), Some(vec![0, 12]))));
        for bad in ["", ":1", "orders:", "orders:-1", "orders:a", "orders:1,,2"] {
            assert_eq!(scope(bad), None, "{bad:?}");
        }
    }
}
