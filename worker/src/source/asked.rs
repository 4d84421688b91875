//! What a spec asks for of a topic, before it is known where the records are.

use tidegate_proto::v1;

/// What is asked for of a topic, and how it lies in its logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Empty where the brokers do not tell it.
    pub(crate) topic_id: String,
    /// How many the topic has.
    pub(crate) partitions: u32,
    /// Those that are read.
    pub(crate) ranges: Vec<AskedRange>,
}

/// What is asked for of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AskedRange {
    pub(crate) partition: i32,
    /// The first offset that the log holds.
    pub(crate) log_start: i64,
    /// Where the log ends, or what is committed of it.
    pub(crate) log_end: i64,
    /// The first offset that nothing was written to yet, committed or not.
    pub(crate) written: i64,
    pub(crate) start: Edge,
    pub(crate) stop: Edge,
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The first offset that there is.
    Earliest,
    /// This one, whether the log still holds it or not.
    Offset(i64),
    /// The first record whose timestamp is `millis` or later: in the log, `found`.
    Time { millis: i64, found: i64 },
}

/// At which offsets a topic is opened.
#[derive(Clone, Debug)]
pub(crate) enum Offsets<'a> {
    /// At what the spec's range means now.
    OfSpec,
    /// At these, which were found just now; nothing is said of the format yet.
    Found(v1::KafkaPin),
    /// At those of the plan.
    Pinned(&'a v1::KafkaPin),
}
