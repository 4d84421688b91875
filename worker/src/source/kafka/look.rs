//! A range beside the log that it is a part of, as both are now: what people ask of a topic before they replay it.
//!
//! It reads a few records at either end of each partition. Nothing hangs on what it says: what is read is what is pinned.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_common::time::Window;

use super::{KafkaSource, Shared, blocking};
use crate::kafka::{Arrived, Client, Fetcher, Retention};
use crate::source::error::SourceError;

/// Offsets of the first look for a record; each further one is eight times as wide.
const LOOK: i64 = 64;
/// Offsets of the widest look: behind it, times stay unknown.
const FURTHEST: i64 = 1 << 15;
/// Looks in a row that bring nothing before one is given up.
const PATIENCE: u32 = 25;

/// A pinned range of a topic, beside its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRange {
    /// The topic.
    pub topic: String,
    /// Each partition that is read.
    pub partitions: Vec<PartitionRange>,
    /// What may remove records; none where the brokers do not say.
    pub retention: Option<Retention>,
    /// Offsets whose records lie in the window, about, by the brokers' time index; none where no order is promised that
    /// would make it say so.
    pub in_window: Option<u64>,
}

/// A range of a partition, beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionRange {
    /// Its number.
    pub partition: i32,
    /// The first offset that the log holds.
    pub log_start: i64,
    /// The first offset that is read.
    pub start: i64,
    /// The first offset behind those that are read.
    pub end: i64,
    /// Where the log ends, or what is committed of it.
    pub log_end: i64,
    /// The timestamp of the first record of the range, in microseconds; none where none was found, or it has none.
    pub first: Option<i64>,
    /// That of the last one.
    pub last: Option<i64>,
}

impl PartitionRange {
    /// How many offsets are read: at the most as many records.
    pub fn offsets(&self) -> u64 {
        u64::try_from(self.end.saturating_sub(self.start)).unwrap_or(0)
    }
}

impl TopicRange {
    /// The timestamps of the first and the last record, over all partitions, as far as they are known.
    pub fn times(&self) -> Option<(i64, i64)> {
        let first = self.partitions.iter().filter_map(|partition| partition.first).min();
        let last = self.partitions.iter().filter_map(|partition| partition.last).max();
        first.zip(last)
    }

    /// The fewest offsets that lie between a log's start and the range's; none where nothing is read. Negative where
    /// retention has passed it.
    pub fn ahead(&self) -> Option<i64> {
        self.read().map(|partition| partition.start - partition.log_start).min()
    }

    /// Until when, in microseconds, retention keeps the first record of every partition; none where it keeps them for
    /// ever, or it is not known. A record goes with its segment, so no sooner than by its own timestamp.
    pub fn kept_until(&self) -> Option<i64> {
        let millis = self.retention?.millis?;
        self.read().filter_map(|partition| partition.first?.checked_add(millis.checked_mul(1_000)?)).min()
    }

    fn read(&self) -> impl Iterator<Item = &PartitionRange> {
        self.partitions.iter().filter(|partition| partition.start < partition.end)
    }
}

impl KafkaSource {
    /// The range as it lies now; of its records, those of `window` are counted.
    pub(super) async fn look(&self, window: Window) -> Result<TopicRange, SourceError> {
        let shared = self.shared.clone();
        let looked = blocking(&shared.name.clone(), move || shared.look(window)).await??;
        let retention = self.shared.cluster.retention(&self.shared.topic).await;
        Ok(TopicRange { retention, ..looked })
    }
}

impl Shared {
    fn look(&self, window: Window) -> Result<TopicRange, SourceError> {
        let client = self.cluster.looking_client().map_err(|e| self.failed(e))?;
        self.check_topic(&client, Duration::ZERO)?;
        let all: Vec<i32> = self.pin.ranges.iter().map(|range| range.partition).collect();
        let edges = |found: Vec<(i32, i64)>| found.into_iter().collect::<BTreeMap<i32, i64>>();
        let starts = edges(client.starts(&self.topic, &all).map_err(|e| self.failed(e))?);
        let ends = edges(client.ends(&self.topic, &all).map_err(|e| self.failed(e))?);
        let in_window = self.in_window(&client, window)?;
        let mut fetcher = Fetcher::new(&client, &self.topic, false);
        let partitions = self.pin.ranges.iter().map(|range| {
            let (partition, start, end) = (range.partition, range.start, range.end);
            let log_start = starts.get(&partition).copied().unwrap_or(start);
            let log_end = ends.get(&partition).copied().unwrap_or(end);
            let from = start.max(log_start);
            let first = widening(from, end, |width| first(&mut fetcher, partition, from, end.min(from + width)));
            let last = widening(from, end, |width| last(&mut fetcher, partition, from.max(end - width), end));
            PartitionRange { partition, log_start, start, end, log_end, first, last }
        });
        let partitions = partitions.collect();
        Ok(TopicRange { topic: self.topic.clone(), partitions, retention: None, in_window })
    }

    /// Offsets of the window by the time index, if order is promised.
    fn in_window(&self, client: &Client, window: Window) -> Result<Option<u64>, SourceError> {
        if window != Window::ALL && self.promise.behind.is_none() {
            return Ok(None);
        }
        let at = |micros: i64| {
            let millis = micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0);
            let asked: Vec<(i32, i64)> = self.pin.ranges.iter().map(|range| (range.partition, millis)).collect();
            let found = client.offsets_at(&self.topic, &asked).map_err(|e| self.failed(e))?;
            Ok::<BTreeMap<i32, Option<i64>>, SourceError>(found.into_iter().collect())
        };
        let edges = match window {
            Window::ALL => None,
            window => Some((at(window.from().as_micros())?, at(window.to().as_micros())?)),
        };
        let counts = self.pin.ranges.iter().map(|range| {
            let Some((from, to)) = &edges else { return range.end - range.start };
            let place = |of: &BTreeMap<i32, Option<i64>>| {
                of.get(&range.partition).copied().flatten().unwrap_or(range.end).clamp(range.start, range.end)
            };
            (place(to) - place(from)).max(0)
        });
        Ok(Some(counts.filter_map(|count| u64::try_from(count).ok()).sum()))
    }
}

/// Looks into more and more of `[from, end)`, until a record is found.
fn widening(from: i64, end: i64, mut look: impl FnMut(i64) -> Option<Option<i64>>) -> Option<i64> {
    let mut width = LOOK;
    loop {
        if from >= end {
            return None;
        }
        if let Some(found) = look(width) {
            return found;
        }
        if width >= FURTHEST || width >= end - from {
            return None;
        }
        width *= 8;
    }
}

/// The timestamp of the first record of `[from, to)`, in microseconds; the outer none is no record.
fn first(fetcher: &mut Fetcher<'_>, partition: i32, from: i64, to: i64) -> Option<Option<i64>> {
    timestamps(fetcher, partition, from, to, true).first().copied()
}

/// That of the last one.
fn last(fetcher: &mut Fetcher<'_>, partition: i32, from: i64, to: i64) -> Option<Option<i64>> {
    timestamps(fetcher, partition, from, to, false).last().copied()
}

/// The timestamps of the records of `[from, to)`, or of a few first ones; what cannot be read, whoever reads will tell.
fn timestamps(fetcher: &mut Fetcher<'_>, partition: i32, from: i64, to: i64, few: bool) -> Vec<Option<i64>> {
    let (mut next, mut found, mut idle) = (from, Vec::new(), 0);
    while next < to && idle < PATIENCE && (found.is_empty() || !few) {
        let (records, is_last) = match fetcher.next(partition, next, to) {
            Ok(Arrived::Some(records)) => (records, false),
            Ok(Arrived::Last(records)) => (records, true),
            Err(_) => break,
        };
        idle = if records.offsets.is_empty() { idle + 1 } else { 0 };
        next = if is_last { to } else { records.offsets.last().map_or(next, |last| last + 1) };
        found.extend(records.timestamps.iter().map(|at| at.and_then(|(millis, _)| millis.checked_mul(1_000))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(log_start: i64, start: i64, end: i64, first: Option<i64>) -> PartitionRange {
        PartitionRange { log_start, start, end, log_end: end, first, last: first, ..PartitionRange::default() }
    }

    #[test]
    fn headroom_is_that_of_the_partition_with_the_least_and_partitions_without_offsets_have_none() {
        let partitions =
            vec![partition(5, 9, 20, Some(3_000)), partition(0, 7, 20, Some(2_000)), partition(4, 4, 4, None)];
        let retention = Some(Retention { millis: Some(10), deletes: true, ..Retention::default() });
        let range = TopicRange { partitions, retention, ..TopicRange::default() };
        assert_eq!((range.ahead(), range.kept_until(), range.times()), (Some(4), Some(12_000), Some((2_000, 3_000))));
        let eaten = TopicRange { partitions: vec![partition(9, 5, 20, None)], ..range.clone() };
        assert_eq!((eaten.ahead(), eaten.kept_until()), (Some(-4), None));
        let kept = TopicRange { retention: Some(Retention { deletes: true, ..Retention::default() }), ..range };
        assert_eq!(kept.kept_until(), None);
    }

    #[test]
    fn a_look_widens_until_it_finds_something_or_has_seen_all() {
        let mut widths = Vec::new();
        let found = widening(0, 1_000, |width| {
            widths.push(width);
            (width > 500).then_some(Some(7))
        });
        assert_eq!((found, widths), (Some(7), vec![64, 512]));
        let mut looks = 0;
        assert_eq!(
            widening(0, 100, |_| {
                looks += 1;
                None
            }),
            None
        );
        assert_eq!((looks, widening(3, 3, |_| Some(Some(1)))), (2, None));
    }
}
