//! What a range of a topic means: offsets, fixed once.

use std::collections::BTreeMap;

use tidegate_common::spec::ScanOffset;
use tidegate_proto::v1;

use crate::kafka::{Broken, Client, Cluster, Fetcher, KafkaError};
use crate::source::asked::{Asked, AskedRange, Edge};
use crate::source::error::SourceError;

/// Why a range could not be pinned.
#[derive(Debug)]
pub(super) enum PinError {
    /// Kafka could not be asked.
    Kafka(KafkaError),
    /// It is not there: what, and the way out.
    Input(String),
}

impl PinError {
    /// As an error of the source `name`.
    pub(super) fn of(self, name: &str) -> SourceError {
        let source_name = name.to_owned();
        match self {
            Self::Kafka(source) => SourceError::Kafka { source_name, source },
            Self::Input(what) => SourceError::Input { source_name, what },
        }
    }
}

impl From<KafkaError> for PinError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// Partitions that are named at most where several are short of what was asked for.
const NAMED: usize = 5;
/// Offsets before the end of a log that are looked at for a record that its time index does not find.
const TAIL: i64 = 16;

/// Pins `[start, stop)` of every partition of `topic`: the logs must hold all of it.
pub(super) fn pin(
    cluster: &Cluster,
    topic: &str,
    start: &ScanOffset,
    stop: &ScanOffset,
) -> Result<v1::KafkaPin, PinError> {
    let asked = ask(cluster, topic, start, stop)?;
    check(topic, start, "scan.start", &asked.ranges, |range| range.start)?;
    check(topic, stop, "scan.stop", &asked.ranges, |range| range.stop)?;
    let range = |range: &AskedRange| {
        // A range that starts behind its end holds nothing: a time after the last record, a group that is ahead.
        let (start, end) = (in_log(range, range.start), in_log(range, range.stop));
        v1::KafkaRange { partition: range.partition, start, end: end.max(start) }
    };
    let ranges = asked.ranges.iter().map(range).collect();
    Ok(v1::KafkaPin { topic_id: asked.topic_id, ranges, format: Default::default(), partitions: asked.partitions })
}

/// What `[start, stop)` means in every partition of `topic`, whether the logs hold it or not.
pub(super) fn ask(cluster: &Cluster, topic: &str, start: &ScanOffset, stop: &ScanOffset) -> Result<Asked, PinError> {
    let client = cluster.client()?;
    let state = client.topic(topic)?;
    let all: Vec<i32> = (0..i32::try_from(state.partitions).unwrap_or(i32::MAX)).collect();
    let partitions = wanted(topic, &all, start, stop)?;
    // The ends first: what comes while the rest is asked lies behind them.
    let ends: BTreeMap<i32, i64> = client.ends(topic, &partitions)?.into_iter().collect();
    let starts: BTreeMap<i32, i64> = client.starts(topic, &partitions)?.into_iter().collect();
    let edges = Edges { cluster, client: &client, topic, partitions: &partitions, starts: &starts, ends: &ends };
    let (from, to) = (edges.resolve(start, "scan.start")?, edges.resolve(stop, "scan.stop")?);
    let range = |partition: &i32| {
        let (log_start, log_end) = (*starts.get(partition)?, *ends.get(partition)?);
        let (start, stop) = (*from.get(partition)?, *to.get(partition)?);
        Some(AskedRange { partition: *partition, log_start, log_end, written: log_end, start, stop })
    };
    let ranges = partitions.iter().filter_map(range).collect();
    Ok(Asked { topic_id: state.id, partitions: state.partitions, ranges })
}

/// The same, and how far the logs are written.
pub(super) fn ask_written(
    cluster: &Cluster,
    topic: &str,
    start: &ScanOffset,
    stop: &ScanOffset,
) -> Result<Asked, PinError> {
    let mut asked = ask(cluster, topic, start, stop)?;
    let partitions: Vec<i32> = asked.ranges.iter().map(|range| range.partition).collect();
    let ends: BTreeMap<i32, i64> = cluster.uncommitted_client()?.ends(topic, &partitions)?.into_iter().collect();
    for range in &mut asked.ranges {
        range.written = ends.get(&range.partition).copied().unwrap_or(range.log_end).max(range.log_end);
    }
    Ok(asked)
}

/// The offset of `edge` that a log holds.
fn in_log(range: &AskedRange, edge: Edge) -> i64 {
    match edge {
        Edge::Earliest => range.log_start,
        Edge::Offset(offset) | Edge::Time { found: offset, .. } => offset,
    }
}

/// The partitions that are read: all, or those that the offsets name.
fn wanted(topic: &str, all: &[i32], start: &ScanOffset, stop: &ScanOffset) -> Result<Vec<i32>, PinError> {
    let mut partitions = all.to_vec();
    for offset in [start, stop] {
        let ScanOffset::Offsets(given) = offset else { continue };
        if let Some(unknown) = given.keys().find(|partition| !all.contains(partition)) {
            let what =
                format!("the topic {topic} has no partition {unknown}: its partitions are 0 to {}", all.len() - 1);
            return Err(PinError::Input(what));
        }
        partitions.retain(|partition| given.contains_key(partition));
    }
    Ok(partitions)
}

/// What is asked to fix an offset.
struct Edges<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    topic: &'a str,
    partitions: &'a [i32],
    starts: &'a BTreeMap<i32, i64>,
    ends: &'a BTreeMap<i32, i64>,
}

impl Edges<'_> {
    /// The first record of each partition at `millis` or later; none where the log truly holds none.
    ///
    /// The time index stops at the first segment that ever held so late a time, deleted records and all, and looks in no
    /// other. Where it finds nothing it is therefore asked three times, since what is deleted may go from its file between
    /// two questions, and the last records must not belie it.
    fn times(&self, key: &str, millis: i64) -> Result<BTreeMap<i32, Option<i64>>, PinError> {
        let asked = |partitions: &[i32]| -> Vec<(i32, i64)> { partitions.iter().map(|at| (*at, millis)).collect() };
        let mut found: BTreeMap<i32, Option<i64>> =
            self.client.offsets_at(self.topic, &asked(self.partitions))?.into_iter().collect();
        let nothing = |found: &BTreeMap<i32, Option<i64>>| -> Vec<i32> {
            found.iter().filter(|(_, at)| at.is_none()).map(|(partition, _)| *partition).collect()
        };
        let mut fetcher = Fetcher::looking(self.client, self.topic);
        for partition in self.client.timeless(self.topic, &nothing(&found))? {
            let first = fetcher.first_time(partition, edge(self.starts, partition), edge(self.ends, partition));
            self.must_have_no(key, partition, first)?;
        }
        found.extend(self.client.offsets_at(self.topic, &asked(&nothing(&found)))?);
        for partition in nothing(&found) {
            let late = self.late_record(&mut fetcher, partition, millis);
            self.must_have_no(key, partition, late)?;
        }
        Ok(found)
    }

    /// A record at `millis` or later among the last of `partition`.
    fn late_record(
        &self,
        fetcher: &mut Fetcher<'_>,
        partition: i32,
        millis: i64,
    ) -> Result<Option<(i64, i64)>, Broken> {
        let end = edge(self.ends, partition);
        let mut next = edge(self.starts, partition).max(end.saturating_sub(TAIL));
        while next < end {
            let Some((offset, at)) = fetcher.first_time(partition, next, end)? else { break };
            if at >= millis {
                return Ok(Some((offset, at)));
            }
            next = offset + 1;
        }
        Ok(None)
    }

    /// Refuses to believe the time index in `partition`, where a record was `seen` that it does not find.
    fn must_have_no(
        &self,
        key: &str,
        partition: i32,
        seen: Result<Option<(i64, i64)>, Broken>,
    ) -> Result<(), PinError> {
        let what = match seen {
            Ok(None) => return Ok(()),
            Ok(Some((offset, _))) => format!("its record at {offset} has one"),
            Err(Broken::Kafka(error)) => return Err(error.into()),
            Err(Broken::OutOfRange { .. } | Broken::Truncated { .. }) => "its log changes just now".to_owned(),
            Err(Broken::TooLong { next, .. }) => format!("what it holds at {next} is above receive.message.max.bytes"),
        };
        Err(PinError::Input(format!(
            "{key}: the brokers find no such time in partition {partition} of {}, and {what}: so it is while deleted records \
             are still in their files; try again in some minutes, or give `offsets`",
            self.topic
        )))
    }

    fn resolve(&self, offset: &ScanOffset, key: &str) -> Result<BTreeMap<i32, Edge>, PinError> {
        let end = |partition: i32| edge(self.ends, partition);
        match offset {
            ScanOffset::Earliest => Ok(self.partitions.iter().map(|at| (*at, Edge::Earliest)).collect()),
            ScanOffset::Latest => Ok(self.partitions.iter().map(|at| (*at, Edge::Offset(end(*at)))).collect()),
            ScanOffset::Offsets(given) => Ok(given.iter().map(|(at, offset)| (*at, Edge::Offset(*offset))).collect()),
            ScanOffset::Group(group) => {
                let mut found = BTreeMap::new();
                for (partition, offset) in self.cluster.committed(group, self.topic, self.partitions)? {
                    let Some(offset) = offset else {
                        return Err(PinError::Input(format!(
                            "{key}: the group {group} has no offset in partition {partition} of {}: give `offsets`",
                            self.topic
                        )));
                    };
                    found.insert(partition, Edge::Offset(offset));
                }
                Ok(found)
            }
            ScanOffset::Timestamp(at) => {
                // Rounded up: no record before the point is taken, and none at it is missed.
                let micros = at.as_micros();
                let millis = micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0);
                // No record is that late: nothing is read from the end on, never all from the beginning.
                let within = |(partition, offset): (i32, Option<i64>)| {
                    let found = offset.unwrap_or_else(|| end(partition)).min(end(partition));
                    (partition, Edge::Time { millis, found })
                };
                Ok(self.times(key, millis)?.into_iter().map(within).collect())
            }
        }
    }
}

fn edge(of: &BTreeMap<i32, i64>, partition: i32) -> i64 {
    of.get(&partition).copied().unwrap_or(0)
}

/// Refuses offsets that the logs do not hold.
fn check(
    topic: &str,
    given: &ScanOffset,
    key: &str,
    ranges: &[AskedRange],
    edge: impl Fn(&AskedRange) -> Edge,
) -> Result<(), PinError> {
    let what = match given {
        ScanOffset::Offsets(_) => "the offset".to_owned(),
        ScanOffset::Group(group) => format!("the position of the group {group},"),
        ScanOffset::Earliest | ScanOffset::Latest | ScanOffset::Timestamp(_) => return Ok(()),
    };
    let (mut early, mut late) = (Vec::new(), Vec::new());
    for range in ranges {
        let (offset, start, end, partition) =
            (in_log(range, edge(range)), range.log_start, range.log_end, range.partition);
        let place =
            || format!("{what} {offset} of partition {partition} of {topic} lies outside its log [{start}, {end}]");
        if offset < start {
            early.push(format!(
                "{}: retention has removed those before {start}: {} are missing",
                place(),
                start - offset
            ));
        } else if offset > end {
            late.push(format!("{}: nothing is there yet", place()));
        }
    }
    let way_out = if early.is_empty() { "" } else { ARCHIVED };
    early.extend(late);
    if early.is_empty() {
        return Ok(());
    }
    let more = early.len().saturating_sub(NAMED);
    early.truncate(NAMED);
    let more = if more > 0 { format!("; and so {more} more partitions") } else { String::new() };
    Err(PinError::Input(format!("{key}: {}{more}{way_out}", early.join("; "))))
}

/// What to do where the topic has lost what is asked for.
const ARCHIVED: &str =
    "; where a table keeps them, read both as one source: `hybrid: {archive: {iceberg: …}, live: {kafka: …}}`";

/// Refuses ranges whose beginning retention has eaten since they were pinned.
pub(super) fn check_starts(client: &Client, topic: &str, ranges: &[v1::KafkaRange]) -> Result<(), PinError> {
    let partitions: Vec<i32> = ranges.iter().filter(|range| range.start < range.end).map(|r| r.partition).collect();
    for (partition, start) in client.starts(topic, &partitions)? {
        let Some(range) = ranges.iter().find(|range| range.partition == partition) else { continue };
        if range.start < start {
            return Err(PinError::Input(eaten(topic, partition, range.start, range.end, start)));
        }
    }
    Ok(())
}

/// What is missing of `[next, end)` of a partition whose log starts at `start`.
pub(super) fn eaten(topic: &str, partition: i32, next: i64, end: i64, start: i64) -> String {
    let missing = start.min(end) - next;
    format!(
        "retention has removed {missing} offsets, {next} to {}, of partition {partition} of {topic} that were to be read: \
         its log now starts at {start}; read them from an archive (`hybrid`), or plan again from there",
        start.min(end) - 1
    )
}
