//! A spec whose every value was checked: what the other rooms work from.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::dead_letter::DeadLetters;
use super::error::SpecError;
use super::late::Late;
use super::model::{
    ArchiveSpec, BoundsSpec, FilesSpec, KafkaSpec, LiveSpec, Mode, OnError, Publish, Spec, TimeUnitSpec,
};
use super::names::TableName;
use super::partition::PartitionField;
use crate::ids::{OutputIx, SourceIx};
use crate::time::{EventTime, Span, Window};

/// A checked spec. Only [`super::resolve()`] makes one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Resolved {
    /// The spec in its normal form: points in time are RFC 3339 in UTC (so `now-7d` is fixed), durations, sizes,
    /// paths and partition fields are written in one way. Resolving it again gives the same, at any time.
    pub spec: Spec,
    /// The read window; all of event time when the spec has none.
    pub window: Window,
    /// How far past the read watermark one may read, above zero; without it there is no gate.
    pub max_drift: Option<Span>,
    /// Whether units wider than the drift are read all the same.
    pub allow_wide: bool,
    /// The live job. It is taken out of `spec`: what pauses a job is no part of the backfill, and none of a coordinator's
    /// or a worker's business.
    pub live: Option<LiveSpec>,
    /// The sources in the order of their names: [`SourceIx`] counts them.
    pub sources: Vec<ResolvedSource>,
    /// The outputs in the order of their names, then the tables of dead letters in the order of their sources, then those of
    /// late rows in the order of their outputs: [`OutputIx`] counts them.
    pub outputs: Vec<ResolvedOutput>,
}

impl Resolved {
    /// The source of that number.
    pub fn source(&self, ix: SourceIx) -> Option<&ResolvedSource> {
        self.sources.get(usize::try_from(ix.get()).ok()?)
    }

    /// The output of that number.
    pub fn output(&self, ix: OutputIx) -> Option<&ResolvedOutput> {
        self.outputs.get(usize::try_from(ix.get()).ok()?)
    }
}

/// A checked source.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedSource {
    /// Its name: the table that SQL reads.
    pub name: String,
    /// What it reads.
    pub kind: SourceKind,
    /// Where event times come from; never there for generated rows, always for all others.
    pub event_time: Option<ResolvedEventTime>,
    /// What becomes of a record that does not decode, or has no event time.
    pub on_error: OnError,
}

impl ResolvedSource {
    /// Whether its rows may break the order that is declared of it.
    pub fn may_be_late(&self) -> bool {
        self.event_time.as_ref().is_some_and(|event_time| event_time.allow_disorder)
    }

    /// The range of a topic that it reads, alone or behind an archive.
    pub fn kafka(&self) -> Option<&Kafka> {
        match &self.kind {
            SourceKind::Kafka(kafka) => Some(kafka),
            SourceKind::Hybrid(hybrid) => Some(&hybrid.live),
            SourceKind::Files(_) | SourceKind::Iceberg { .. } | SourceKind::Generate(_) => None,
        }
    }
}

/// What a source reads.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Files; the path is absolute or a URL.
    Files(Box<FilesSpec>),
    /// An Iceberg table.
    Iceberg {
        /// The table.
        table: TableName,
        /// The snapshot to read; `None` is the current one at plan time.
        snapshot: Option<i64>,
    },
    /// A range of a Kafka topic.
    Kafka(Box<Kafka>),
    /// An archive of a Kafka topic, and the topic.
    Hybrid(Box<Hybrid>),
    /// Rows made up from a seed.
    Generate(Generate),
}

/// A range of a Kafka topic.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Kafka {
    /// The first offset of each partition.
    pub start: ScanOffset,
    /// The first offset behind the range.
    pub stop: ScanOffset,
    /// How fast it may be read, by all workers together.
    pub rate_limit: RateLimit,
    /// All the rest: the topic, the client's settings, the format.
    pub spec: KafkaSpec,
}

/// An archive of a Kafka topic, and the topic.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hybrid {
    /// The archive's table.
    pub table: TableName,
    /// The archive: its snapshot, and the columns that the spec names.
    pub archive: ArchiveSpec,
    /// The topic.
    pub live: Kafka,
    /// The first offset of each partition that is read from the topic; `None` is for the plan to find.
    pub switch: Option<BTreeMap<i32, i64>>,
}

/// An offset in every partition, before anybody has asked the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanOffset {
    /// The first one that is there.
    Earliest,
    /// The end.
    Latest,
    /// The first record whose timestamp is this or later.
    Timestamp(EventTime),
    /// Of these partitions, and no others.
    Offsets(BTreeMap<i32, i64>),
    /// Where this consumer group stands.
    Group(String),
}

/// How fast a source may be read, by all workers together; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes a second, above zero.
    pub bytes: Option<u64>,
    /// Records a second, above zero.
    pub records: Option<u64>,
}

/// Rows made up from a seed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generate {
    /// Where chance starts.
    pub seed: u64,
    /// How many rows; at least 1.
    pub rows: u64,
    /// Rows a second of event time; above zero, finite.
    pub rate: f64,
    /// Event time of the first row.
    pub start: EventTime,
    /// How far a row's event time may lie behind its neighbours'.
    pub disorder: Span,
    /// The exponent of the keys' Zipf distribution; 0 is even.
    pub skew: f64,
    /// How many different keys; at least 1.
    pub keys: u64,
    /// How many splits, from 1 to `rows`.
    pub splits: u64,
}

/// Where a row's event time comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedEventTime {
    /// A column or the path.
    pub of: EventTimeOf,
    /// The zone of timestamps, dates and paths that carry none.
    pub time_zone: TimeZone,
    /// Where a file's bounds come from when it brings no statistics; `None` is to read it once.
    pub bounds: Option<EventTimeBounds>,
    /// Kafka: how far a record's event time lies at most behind the largest timestamp before it, and a column's at most
    /// ahead of it; `None` where nothing is promised.
    pub out_of_orderness: Option<Span>,
    /// Kafka: whether records that break the promise are rows all the same.
    pub allow_disorder: bool,
}

impl ResolvedEventTime {
    /// The timestamps of Kafka's records, of which nothing is promised.
    pub(super) fn of_records() -> Self {
        Self {
            of: EventTimeOf::Record,
            time_zone: TimeZone::UTC,
            bounds: None,
            out_of_orderness: None,
            allow_disorder: false,
        }
    }
}

/// What an event time is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTimeOf {
    /// A column; an integer one has a unit.
    Column(String, Option<TimeUnitSpec>),
    /// The date parts of the file's path: `dt=%Y-%m-%d/hour=%H`.
    Path(String),
    /// The timestamp of the Kafka record.
    Record,
}

/// Where a file's event-time bounds come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTimeBounds {
    /// From the date parts of its path.
    Path,
    /// A file holds no more than this span, above zero, from the start that its path names.
    Declared(Span),
}

impl EventTimeBounds {
    pub(super) fn of(spec: &BoundsSpec) -> Result<Self, SpecError> {
        match spec {
            BoundsSpec::Path => Ok(Self::Path),
            BoundsSpec::Declared(span) => super::resolve::positive_span(span).map(Self::Declared),
        }
    }
}

/// A checked output.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedOutput {
    /// Its name.
    pub name: String,
    /// The table that is written; no two outputs write one.
    pub table: TableName,
    /// The query; `SELECT *` of the one source when the spec has none.
    pub sql: String,
    /// Partition fields of a table that is to be created.
    pub partition_by: Vec<PartitionField>,
    /// Properties of a table that is to be created.
    pub properties: BTreeMap<String, String>,
    /// What becomes of rows that are there.
    pub mode: Mode,
    /// When readers see the rows.
    pub publish: Publish,
    /// Processing time between two commits, above zero; default a minute.
    pub commit_every: Duration,
    /// Bytes of data files between two commits, above zero; default 4 GiB.
    pub commit_bytes: u64,
    /// Whose dead letters it keeps, where that is what it is for: it then has no query.
    pub dead_letters: Option<DeadLetters>,
    /// What becomes of its late rows, where it joins or groups.
    pub late: Late,
    /// Whose late rows it keeps, where that is what it is for: it then has no query.
    pub late_of: Option<OutputIx>,
    /// Where it joins, the width of a slice, above zero; `None` where the plan chooses it.
    pub slice: Option<Span>,
    /// Where it joins, how many buckets a slice has, 1 to 1024; `None` where the plan chooses that.
    pub buckets: Option<u32>,
    /// Where it joins, how much earlier than their reach asks the sources that its anchor meets are read: 0 to 366 days.
    pub warm_up: Span,
    /// Where it joins, bytes of its rows that may wait in the shuffle store at once, above zero; `None` is no limit.
    pub budget: Option<u64>,
}

impl ResolvedOutput {
    /// Whether it has a query: the others keep what another cannot.
    pub fn is_queried(&self) -> bool {
        self.dead_letters.is_none() && self.late_of.is_none()
    }
}
