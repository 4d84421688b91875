//! What of a topic's ranges is read, in which units.

use std::time::Duration;

use tidegate_common::spec::RateLimit;
use tidegate_common::time::Window;
use tidegate_proto::v1;

use super::cut::{self, Cutting, Grain, Unit};
use super::{Shared, pin};
use crate::kafka::{Arrived, Broken, Client, Fetcher};
use crate::source::FoundSplit;
use crate::source::bounds::KnownBounds;
use crate::source::error::SourceError;

/// How long reading a unit may take under a rate limit.
const UNIT_SECONDS: u64 = 5;
/// About how many bytes a record takes, for estimates, where none was seen.
const RECORD_BYTES: u64 = 256;
/// Records that the size of all is estimated from.
const SAMPLE: i64 = 100;
/// Offsets that are looked at to confirm what the time index says, over all partitions.
const LOOKS: usize = 4096;
/// And in each partition at least.
const LEAST_LOOKS: usize = 16;
/// Looks among records that seem to lie behind the window, before they are believed to.
const SPOTS: i64 = 16;

impl Shared {
    /// Every partition with its units; those that the window excludes are left out where order is promised.
    pub(super) fn plan(&self, window: Window) -> Result<Vec<FoundSplit>, SourceError> {
        let client = self.cluster.looking_client().map_err(|e| self.failed(e))?;
        self.check_topic(&client, Duration::ZERO)?;
        pin::check_starts(&client, &self.topic, &self.pin.ranges).map_err(|e| e.of(&self.name))?;
        let mut fetcher = Fetcher::looking(&client, &self.topic);
        let record_bytes = self.record_bytes(&client, &mut fetcher)?;
        let grain = Grain { width: self.unit_width, offsets: unit_offsets(self.rate_limit, record_bytes) };
        let mut cuttings = self.cut(&client, grain)?;
        let looks = (LOOKS / cuttings.len().max(1)).max(LEAST_LOOKS);
        let mut found = Vec::with_capacity(cuttings.len());
        for (range, cutting) in self.pin.ranges.iter().zip(&mut cuttings) {
            let failed = |broken: Broken| self.broken(&client, range.partition, range.end, broken);
            let mut first_time = |from: i64| fetcher.first_time(range.partition, from, range.end).map_err(failed);
            if let Some(behind) = self.promise.behind {
                cutting.confirm(looks, behind, &mut first_time)?;
            }
            let prunes = self.is_kept(range, cutting, window, first_time)?;
            found.push(self.split(*range, cutting, record_bytes, window, prunes));
        }
        Ok(found)
    }

    /// Cuts every partition, asking one question for each of them at a time.
    fn cut(&self, client: &Client, grain: Grain) -> Result<Vec<Cutting>, SourceError> {
        let ranges = &self.pin.ranges;
        let mut cuttings: Vec<Cutting> =
            ranges.iter().map(|range| Cutting::new(range.start, range.end, grain)).collect();
        // That an index says nothing bounds no record.
        let all: Vec<i32> = ranges.iter().map(|range| range.partition).collect();
        let timeless = client.timeless(&self.topic, &all).map_err(|e| self.failed(e))?;
        loop {
            let questions = ranges.iter().zip(&mut cuttings);
            let questions = questions.filter(|(range, _)| !timeless.contains(&range.partition));
            let asked: Vec<(i32, i64)> =
                questions.filter_map(|(range, cutting)| Some((range.partition, cutting.question()?))).collect();
            if asked.is_empty() {
                return Ok(cuttings);
            }
            let answers = client.offsets_at(&self.topic, &asked).map_err(|e| self.failed(e))?;
            for (range, cutting) in ranges.iter().zip(&mut cuttings) {
                let answer = answers.iter().find(|(partition, _)| *partition == range.partition);
                if let Some((_, offset)) = answer {
                    cutting.answer(*offset);
                }
            }
        }
    }

    /// Whether the promise of order seems to be kept behind the window: what lies there may then go unread. Records that
    /// are seen to break it are read with all the others, and counted.
    fn is_kept(
        &self,
        range: &v1::KafkaRange,
        cutting: &Cutting,
        window: Window,
        mut first_time: impl FnMut(i64) -> Result<Option<(i64, i64)>, SourceError>,
    ) -> Result<bool, SourceError> {
        if self.promise.behind.is_none() {
            return Ok(false);
        }
        let Some((from, low)) = cutting.behind(window.to().as_micros(), self.promise) else { return Ok(true) };
        let step = ((range.end - from) / SPOTS).max(1);
        let spots = (0..SPOTS).map(|at| from + at * step).chain([from.max(range.end - SAMPLE), range.end - 1]);
        for spot in spots.filter(|spot| *spot < range.end) {
            if first_time(spot)?.is_some_and(|(_, millis)| millis.saturating_mul(1_000) < low) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// About how many bytes a record takes, from the first ones of the largest partition.
    fn record_bytes(&self, client: &Client, fetcher: &mut Fetcher<'_>) -> Result<u64, SourceError> {
        let Some(range) = self.pin.ranges.iter().max_by_key(|range| range.end - range.start) else {
            return Ok(RECORD_BYTES);
        };
        let end = range.end.min(range.start.saturating_add(SAMPLE));
        let (mut next, mut bytes, mut count) = (range.start, 0, 0);
        while next < end {
            // All of them, however they come: a plan that is made again says the same.
            let (records, is_last) = match fetcher.next(range.partition, next, end) {
                Ok(Arrived::Some(records)) => (records, false),
                Ok(Arrived::Last(records)) => (records, true),
                Err(broken) => return Err(self.broken(client, range.partition, range.end, broken)),
            };
            bytes += records.bytes();
            count += records.offsets.len();
            next = if is_last { end } else { records.offsets.last().map_or(next, |last| last + 1) };
        }
        let each = bytes.checked_div(count).and_then(|bytes| u64::try_from(bytes).ok());
        Ok(each.unwrap_or(RECORD_BYTES).max(1))
    }

    fn split(
        &self,
        range: v1::KafkaRange,
        cutting: &Cutting,
        record_bytes: u64,
        window: Window,
        prunes: bool,
    ) -> FoundSplit {
        let offsets = u64::try_from(range.end - range.start).unwrap_or(0);
        let size = offsets.saturating_mul(record_bytes);
        let file = v1::FilePin { path: self.place(range.partition), size, ..Default::default() };
        let detail = prost::Message::encode_to_vec(&range);
        let mut found =
            FoundSplit { split: v1::Split { file: Some(file), detail: detail.into() }, ..Default::default() };
        for Unit { from, to, bounds, latest } in cutting.units(self.promise) {
            let length = u64::try_from(to - from).unwrap_or(0);
            let (position, bytes) = (u64::try_from(from).unwrap_or(0), length.saturating_mul(record_bytes));
            // Where nothing is promised, or not kept, there is nothing to narrow by: a unit that seems to lie outside is
            // read at the window's edge.
            let is_outside = latest < window.from() || bounds.low() >= window.to();
            let known = KnownBounds { bounds: Some(bounds), has_nulls: !(prunes && is_outside) };
            match known.within(window, None) {
                Some(within) => {
                    let (low, high) = (within.low().as_micros(), within.high().as_micros());
                    found.units.push(v1::UnitOfWork { split: 0, position, length, rows: length, bytes, low, high });
                }
                None => {
                    found.rows_pruned += length;
                    found.bytes_pruned += bytes;
                }
            }
        }
        found
    }
}

/// Offsets of a unit: under a rate limit no more than a few seconds' worth, since a reader stops between units.
fn unit_offsets(limit: RateLimit, record_bytes: u64) -> i64 {
    let of_bytes = limit.bytes.map(|bytes| bytes / record_bytes.max(1));
    let a_second = limit.records.into_iter().chain(of_bytes).min();
    let some = a_second.map(|records| i64::try_from(records.saturating_mul(UNIT_SECONDS)).unwrap_or(i64::MAX));
    some.map_or(cut::UNIT_OFFSETS, |offsets| offsets.clamp(1, cut::UNIT_OFFSETS))
}
