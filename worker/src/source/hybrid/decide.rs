//! Looks at an archive beside its topic, and decides where each partition is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tidegate_proto::v1;

use super::archive::{Archive, Listed};
use super::cut::{self, Cut};
use super::holding::{Account, Holding, Piece, Twice};
use super::reader::doubled;
use crate::source::asked::{Asked, AskedRange, Edge};
use crate::source::error::SourceError;

/// Partitions that are named at most where several cannot be read as one.
const NAMED: usize = 5;

/// Where each partition is cut; what was found on the way comes with it.
pub(crate) struct Decided {
    pub(super) cuts: Vec<Cut>,
    pub(super) looked: Option<Looked>,
}

/// What an archive gives.
pub(super) struct Looked {
    pub(super) listed: Listed,
    pub(super) account: Account,
}

impl Decided {
    /// What `pin` says.
    pub(crate) fn pinned(pin: &v1::SourcePin) -> Self {
        let live = |partition| pin.kafka.as_ref()?.ranges.iter().find(|range| range.partition == partition);
        let cut = |range: &v1::KafkaRange| {
            let end = live(range.partition).map_or(range.end, |live| live.end);
            Cut { partition: range.partition, start: range.start, cut: range.end, end }
        };
        Self { cuts: pin.archive.iter().map(cut).collect(), looked: None }
    }

    /// What is read of the topic.
    pub(crate) fn live(&self) -> Vec<v1::KafkaRange> {
        let range = |cut: &Cut| v1::KafkaRange { partition: cut.partition, start: cut.cut, end: cut.end };
        self.cuts.iter().map(range).collect()
    }
}

/// A partition that is to be cut.
struct Wanted<'a> {
    asked: &'a AskedRange,
    range: Range<i64>,
    switch: Option<i64>,
}

impl Wanted<'_> {
    /// Whether more must be known of `piece` than its unit's statistics say: the topic holds a part of it, too, or it lies
    /// around an end.
    fn concerns(&self, piece: &Piece) -> bool {
        let ends = [Some(self.range.start), Some(self.range.end), self.switch];
        piece.to > self.asked.log_start || ends.into_iter().flatten().any(|at| piece.is_around(at))
    }
}

impl Archive {
    /// Decides where each partition of what is `asked` for is cut; at `switch` where it is given.
    pub(crate) async fn decide(
        &self,
        asked: &Asked,
        switch: Option<&BTreeMap<i32, i64>>,
    ) -> Result<Decided, SourceError> {
        let (listed, mut holding) = self.look().await?;
        self.check_topic(&listed, &holding).await?;
        self.check_partitions(asked, &holding, switch)?;
        let wanted = self.wanted(asked, (&listed, &holding), switch).await?;
        let concerns = |partition: i32, piece: &Piece| wanted.get(&partition).is_some_and(|one| one.concerns(piece));
        self.settle(&listed, &mut holding, concerns).await?;
        let pieces = holding.pieces();
        let (mut cuts, mut holes) = (Vec::new(), Vec::new());
        for (partition, one) in &wanted {
            let held = pieces.get(partition).map(Vec::as_slice).unwrap_or_default();
            match cut::cut(one.asked, &one.range, held, one.switch) {
                Ok(cut) => cuts.push(cut),
                Err(hole) => holes.push(hole.said(*partition, &self.topic)),
            }
        }
        if !holes.is_empty() {
            let more = holes.len().saturating_sub(NAMED);
            holes.truncate(NAMED);
            let (table, holes) = (&self.table, holes.join("; "));
            let more = if more > 0 { format!("; and {more} more partitions") } else { String::new() };
            return Err(self.input(format!("the archive {table} and the topic leave a hole: {holes}{more}")));
        }
        let account = holding.account(&cuts).map_err(|twice| self.doubled(&listed, twice))?;
        Ok(Decided { cuts, looked: Some(Looked { listed, account }) })
    }

    /// What of the archive lies below cuts that were decided before.
    pub(super) async fn looked(&self, cuts: &BTreeMap<i32, Cut>) -> Result<Looked, SourceError> {
        let (listed, mut holding) = self.look().await?;
        let around = |partition: i32, piece: &Piece| {
            cuts.get(&partition).is_some_and(|cut| piece.is_around(cut.start) || piece.is_around(cut.cut))
        };
        self.settle(&listed, &mut holding, around).await?;
        let cuts: Vec<Cut> = cuts.values().copied().collect();
        let account = holding.account(&cuts).map_err(|twice| self.doubled(&listed, twice))?;
        Ok(Looked { listed, account })
    }

    /// Refuses an archive of which no row is of the topic.
    async fn check_topic(&self, listed: &Listed, holding: &Holding) -> Result<(), SourceError> {
        if !holding.pieces().is_empty() {
            return Ok(());
        }
        let Some(other) = self.some_topic(listed).await? else { return Ok(()) };
        let (table, topic, column) = (&self.table, &self.topic, self.columns.topic_name());
        Err(self.input(format!(
            "the archive {table} has rows, and none of the topic {topic}: its column {column} names {other}, for one; name \
             the column of topics by hybrid.archive.topic, or, if nothing of {topic} is archived, read the topic alone"
        )))
    }

    /// Refuses partitions that the topic does not have, in the archive and in the switch.
    fn check_partitions(
        &self,
        asked: &Asked,
        holding: &Holding,
        switch: Option<&BTreeMap<i32, i64>>,
    ) -> Result<(), SourceError> {
        let of_topic = |partition: &i32| u32::try_from(*partition).is_ok_and(|partition| partition < asked.partitions);
        if let Some(partition) = holding.pieces().keys().find(|partition| !of_topic(partition)) {
            let (table, topic, partitions) = (&self.table, &self.topic, asked.partitions);
            return Err(self.input(format!(
                "the archive {table} holds partition {partition}, and the topic {topic} has {partitions}: it is of another \
                 topic, or of one that was deleted and created again"
            )));
        }
        let is_read = |partition: &i32| asked.ranges.iter().any(|range| range.partition == *partition);
        match switch.into_iter().flat_map(BTreeMap::keys).find(|partition| !is_read(partition)) {
            Some(partition) => {
                Err(self.input(format!("switch names partition {partition} of {}, which is not read", self.topic)))
            }
            None => Ok(()),
        }
    }

    /// The range of each partition; times are looked for in the archive, too.
    async fn wanted<'a>(
        &self,
        asked: &'a Asked,
        (listed, holding): (&Listed, &Holding),
        switch: Option<&BTreeMap<i32, i64>>,
    ) -> Result<BTreeMap<i32, Wanted<'a>>, SourceError> {
        let edges = asked.ranges.iter().flat_map(|range| [range.start, range.stop]);
        let millis = edges.filter_map(|edge| if let Edge::Time { millis, .. } = edge { Some(millis) } else { None });
        let mut times = BTreeMap::new();
        for millis in millis.collect::<BTreeSet<i64>>() {
            times.insert(millis, self.first_at(listed, millis).await?);
        }
        let pieces = holding.pieces();
        let one = |asked: &'a AskedRange| {
            let partition = asked.partition;
            let first = pieces.get(&partition).and_then(|pieces| pieces.first()).map(|piece| piece.from);
            let range = cut::range(asked, first, |millis| times.get(&millis)?.get(&partition).copied());
            (partition, Wanted { asked, range, switch: switch.and_then(|switch| switch.get(&partition).copied()) })
        };
        Ok(asked.ranges.iter().map(one).collect())
    }

    fn doubled(&self, listed: &Listed, twice: Twice) -> SourceError {
        let (one, other) = (listed.file(twice.units.0), listed.file(twice.units.1));
        let files = if one == other { one.to_owned() } else { format!("{one} and {other}") };
        self.input(doubled(&self.table, twice.partition, twice.offset, twice.rows, &files))
    }
}
