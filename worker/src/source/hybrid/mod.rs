//! An archive of a Kafka topic and the topic, as one source: of each partition `[start, cut)` comes from the archive and
//! `[cut, end)` from the topic.
//!
//! Cuts are found when the backfill is prepared, and pinned. What is counted are offsets, on both sides: an offset below a cut
//! is a row of the archive or a gap, and one that is two rows is refused. The two sides are sources of their own, which this
//! one knows as such.

mod archive;
mod columns;
mod cut;
mod decide;
mod detail;
mod holding;
mod reader;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::{OnceCell, mpsc};

pub(crate) use self::archive::Archive;
pub(crate) use self::columns::Columns;
use self::columns::Joined;
use self::cut::Cut;
pub(crate) use self::decide::Decided;
use self::decide::Looked;
use self::detail::{ArchiveSplit, ArchiveUnit, Side};
use super::error::SourceError;
use super::{ArchiveRange, ArchivedPart, FoundSplit, Source, TopicRange, UnitReader};

/// An archive and its topic.
pub(crate) struct HybridSource {
    shared: Arc<Shared>,
}

/// What the enumerator and every reader need.
struct Shared {
    name: String,
    archive: Archive,
    live: Arc<dyn Source>,
    joined: Joined,
    cuts: BTreeMap<i32, Cut>,
    looked: OnceCell<Looked>,
}

impl HybridSource {
    /// Opens the source: `archive` below the cuts, `live` from there.
    pub(crate) fn open(
        name: &str,
        archive: Archive,
        live: Arc<dyn Source>,
        decided: Decided,
    ) -> Result<Self, SourceError> {
        let held = archive.source.schema();
        let joined = Joined::of(&archive.topic, &live.schema(), (&archive.table, &held), &archive.columns);
        let joined = joined.map_err(|what| archive.input(what))?;
        let cuts = decided.cuts.into_iter().map(|cut| (cut.partition, cut)).collect();
        let (name, looked) = (name.to_owned(), OnceCell::new_with(decided.looked));
        Ok(Self { shared: Arc::new(Shared { name, archive, live, joined, cuts, looked }) })
    }
}

impl Shared {
    fn input(&self, what: String) -> SourceError {
        self.archive.input(what)
    }

    /// Whether the record at `offset` of `partition` is read from the archive.
    fn is_archived(&self, partition: i32, offset: i64) -> bool {
        self.cuts.get(&partition).is_some_and(|cut| cut.start <= offset && offset < cut.cut)
    }

    async fn looked(&self) -> Result<&Looked, SourceError> {
        self.looked.get_or_try_init(|| self.archive.looked(&self.cuts)).await
    }

    /// The archive's splits, with their units in `window` and the rows that these give.
    async fn archived(&self, window: Window) -> Result<Vec<FoundSplit>, SourceError> {
        let Looked { listed, account } = self.looked().await?;
        let mut within: BTreeMap<String, FoundSplit> = BTreeMap::new();
        if window != Window::ALL {
            let found = self.archive.found(window).await?;
            within.extend(found.into_iter().filter_map(|found| Some((found.split.file.as_ref()?.path.clone(), found))));
        }
        let taken = listed.units.iter().zip(&account.taken);
        let mut of_split: BTreeMap<usize, Vec<(v1::UnitOfWork, u64)>> = BTreeMap::new();
        for ((split, unit), taken) in taken.filter(|(_, taken)| **taken > 0) {
            of_split.entry(*split).or_default().push((*unit, *taken));
        }
        let mut all = Vec::new();
        for (split, units) in of_split {
            let Some(found) = listed.splits.get(split) else { continue };
            let path = found.split.file.as_ref().map(|file| file.path.as_str()).unwrap_or_default();
            let windowed = if window == Window::ALL { Some(found) } else { within.get(path) };
            all.push(self.of_file(found, &units, windowed.map(|found| found.units.as_slice()).unwrap_or_default()));
        }
        let gaps = account.parts.iter().map(|part| part.gaps).sum();
        Ok(with_gaps(all, gaps))
    }

    /// A file of the archive of which `units` give so many rows each, and of which `within` is in the window.
    fn of_file(&self, found: &FoundSplit, units: &[(v1::UnitOfWork, u64)], within: &[v1::UnitOfWork]) -> FoundSplit {
        let mut made = FoundSplit::default();
        let mut said = Vec::new();
        for (unit, taken) in units {
            match within.iter().find(|inside| inside.position == unit.position) {
                Some(inside) => {
                    made.units.push(v1::UnitOfWork { rows: *taken, ..*inside });
                    said.push(ArchiveUnit { position: unit.position, rows: unit.rows, taken: *taken, gaps: 0 });
                }
                None => {
                    made.rows_pruned += taken;
                    made.bytes_pruned += unit.bytes;
                }
            }
        }
        made.split = detail::wrapped(found.split.clone(), |detail| Side::Archive(ArchiveSplit { detail, units: said }));
        made
    }
}

/// `splits` of an archive, in which so many offsets below the cuts have no row: the first unit accounts for them.
fn with_gaps(mut splits: Vec<FoundSplit>, gaps: u64) -> Vec<FoundSplit> {
    if gaps == 0 {
        return splits;
    }
    let units = splits.iter().enumerate().flat_map(|(at, found)| found.units.iter().map(move |unit| (at, unit)));
    let path = |at: usize| splits.get(at).and_then(|found| found.split.file.as_ref()).map(|file| file.path.as_str());
    let first = units.min_by_key(|(at, unit)| (unit.low, unit.high, path(*at), unit.position));
    let Some((at, position)) = first.map(|(at, unit)| (at, unit.position)) else {
        // Nothing of the archive is read: they go unread with the rest.
        match splits.first_mut() {
            Some(found) => found.rows_pruned += gaps,
            None => splits.push(FoundSplit { rows_pruned: gaps, ..FoundSplit::default() }),
        }
        return splits;
    };
    if let Some(found) = splits.get_mut(at) {
        found.units.iter_mut().filter(|unit| unit.position == position).for_each(|unit| unit.rows += gaps);
        if let Some(Side::Archive(mut of)) = detail::side(&found.split) {
            of.units.iter_mut().filter(|unit| unit.position == position).for_each(|unit| unit.gaps = gaps);
            let split = v1::Split { file: found.split.file.take(), detail: of.detail };
            found.split = detail::wrapped(split, |detail| Side::Archive(ArchiveSplit { detail, units: of.units }));
        }
    }
    splits
}

#[async_trait]
impl Source for HybridSource {
    fn schema(&self) -> SchemaRef {
        self.shared.joined.schema.clone()
    }

    fn offers(&self, columns: &[usize]) -> Result<(), SourceError> {
        let lacks = self.shared.joined.lacks(columns);
        lacks.map_or(Ok(()), |why| Err(self.shared.input(why.to_owned())))
    }

    fn describe(&self) -> String {
        let Shared { archive, live, .. } = self.shared.as_ref();
        format!("{}, then {}", archive.source.describe(), live.describe())
    }

    fn pin(&self) -> Option<v1::SourcePin> {
        let shared = &self.shared;
        let range = |cut: &Cut| v1::KafkaRange { partition: cut.partition, start: cut.start, end: cut.cut };
        let archive = shared.cuts.values().map(range).collect();
        Some(v1::SourcePin { kafka: shared.live.pin()?.kafka, archive, ..shared.archive.source.pin()? })
    }

    async fn topic(&self, window: Window) -> Result<Option<TopicRange>, SourceError> {
        self.shared.live.topic(window).await
    }

    async fn archive(&self, window: Window) -> Result<Option<ArchiveRange>, SourceError> {
        let shared = &self.shared;
        let looked = shared.looked().await?;
        let part = |part: &holding::Part| ArchivedPart {
            partition: part.cut.partition,
            start: part.cut.start,
            cut: part.cut.cut,
            end: part.cut.end,
            rows: part.rows,
            gaps: part.gaps,
            beyond: part.beyond,
        };
        let found = shared.archived(window).await?;
        let units = || found.iter().flat_map(|found| &found.units);
        let times = units().map(|unit| unit.low).min().zip(units().map(|unit| unit.high).max());
        let files = found.iter().filter(|found| found.split.file.is_some()).count();
        Ok(Some(ArchiveRange {
            table: shared.archive.table.clone(),
            partitions: looked.account.parts.iter().map(part).collect(),
            files: u64::try_from(files).unwrap_or(u64::MAX),
            rows_pruned: found.iter().map(|found| found.rows_pruned).sum(),
            times,
        }))
    }

    fn bytes_a_byte(&self) -> u64 {
        self.shared.archive.source.bytes_a_byte().max(self.shared.live.bytes_a_byte())
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        for split in self.shared.archived(window).await? {
            found.send(split).await.map_err(|_| SourceError::Abandoned)?;
        }
        let (sender, mut live) = mpsc::channel::<FoundSplit>(16);
        let forward = async {
            while let Some(mut split) = live.recv().await {
                split.split = detail::wrapped(split.split, Side::Live);
                if found.send(split).await.is_err() {
                    break;
                }
            }
        };
        let (ended, ()) = tokio::join!(self.shared.live.enumerate(window, sender), forward);
        ended
    }

    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError> {
        Ok(Box::new(reader::HybridReader::new(self.shared.clone(), splits, columns, window)?))
    }
}
