//! Looks at an archive: which offsets of which partitions stand in which of its units.
//!
//! Statistics say it of units of one partition that no other lies in; of the others, and of those around the cuts, the columns
//! of partitions and offsets are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::error::ArrowError;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

use super::columns::{Columns, NO_TIME, integers, millis};
use super::holding::{Holding, Piece, Read, Span};
use crate::source::error::{During, SourceError};
use crate::source::{FoundSplit, Source};

/// Units whose places are read at a time.
const AT_A_TIME: usize = 8;
/// Pieces of offsets that are held at the most, all units together: 32 bytes each, and as much again while they are read.
const MAX_PIECES: usize = 16 << 20;

/// An archive of a topic.
#[derive(Clone)]
pub(crate) struct Archive {
    name: String,
    /// The topic.
    pub(super) topic: String,
    /// The table's name.
    pub(super) table: String,
    pub(super) source: Arc<dyn Source>,
    pub(super) columns: Columns,
    max_pieces: usize,
    /// Whether event times are the records' timestamps.
    is_by_record: bool,
}

/// The units of an archive.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) splits: Vec<FoundSplit>,
    /// Of each unit its split's place, and itself.
    pub(super) units: Vec<(usize, v1::UnitOfWork)>,
}

impl Listed {
    /// The file of a unit.
    pub(super) fn file(&self, unit: usize) -> &str {
        let split = self.units.get(unit).and_then(|(split, _)| self.splits.get(*split));
        split.and_then(|split| split.split.file.as_ref()).map(|file| file.path.as_str()).unwrap_or_default()
    }
}

impl Archive {
    /// The table `table`, read by `source`, with the topic's partitions and offsets at `columns`.
    pub(crate) fn new(name: &str, topic: &str, table: &str, source: Arc<dyn Source>, columns: Columns) -> Self {
        let (name, topic, table) = (name.to_owned(), topic.to_owned(), table.to_owned());
        Self { name, topic, table, source, columns, max_pieces: MAX_PIECES, is_by_record: false }
    }

    /// With event times that are the records' timestamps, or not.
    pub(crate) fn by_record(self, is_by_record: bool) -> Self {
        Self { is_by_record, ..self }
    }

    /// An event time of the archive, in microseconds; none where it is of a record that has none.
    pub(super) fn timed(&self, micros: Option<i64>) -> Option<i64> {
        micros.filter(|micros| !self.is_by_record || *micros != NO_TIME * 1_000)
    }

    /// With so many pieces at the most.
    #[cfg(test)]
    pub(super) fn with_max_pieces(self, max_pieces: usize) -> Self {
        Self { max_pieces, ..self }
    }

    pub(super) fn input(&self, what: String) -> SourceError {
        SourceError::Input { source_name: self.name.clone(), what }
    }

    /// What it holds of `window`.
    pub(super) async fn found(&self, window: Window) -> Result<Vec<FoundSplit>, SourceError> {
        let (sender, mut receiver) = mpsc::channel(16);
        let drain = async {
            let mut found = Vec::new();
            while let Some(split) = receiver.recv().await {
                found.push(split);
            }
            found
        };
        let (ended, found) = tokio::join!(self.source.enumerate(window, sender), drain);
        ended.map(|()| found)
    }

    /// All of its units, and what their statistics and, where these are not enough, their rows say they hold.
    pub(super) async fn look(&self) -> Result<(Listed, Holding), SourceError> {
        let splits = self.found(Window::ALL).await?;
        let asking: Vec<_> = splits.iter().map(|found| self.spans(found).boxed()).collect();
        let spans: Vec<Vec<Option<Span>>> = futures::stream::iter(asking).buffered(AT_A_TIME).try_collect().await?;
        let of =
            |(at, found): (usize, &FoundSplit)| found.units.iter().map(move |unit| (at, *unit)).collect::<Vec<_>>();
        let units = splits.iter().enumerate().flat_map(of).collect();
        let listed = Listed { units, splits };
        let (mut holding, unknown) = Holding::of(&spans.concat());
        self.read_in(&listed, &mut holding, unknown).await?;
        self.settle(&listed, &mut holding, |_, _| false).await?;
        Ok((listed, holding))
    }

    /// Reads what others lie in, and what is `wanted`.
    pub(super) async fn settle(
        &self,
        listed: &Listed,
        holding: &mut Holding,
        wanted: impl Fn(i32, &Piece) -> bool + Send + Sync,
    ) -> Result<(), SourceError> {
        loop {
            let doubtful = holding.doubtful(&wanted);
            if doubtful.is_empty() {
                return Ok(());
            }
            self.read_in(listed, holding, doubtful).await?;
        }
    }

    async fn read_in(&self, listed: &Listed, holding: &mut Holding, units: Vec<usize>) -> Result<(), SourceError> {
        let pieces = AtomicUsize::new(holding.len());
        let reads: Vec<_> = units.into_iter().map(|unit| self.read(listed, unit, &pieces).boxed()).collect();
        let reads: Vec<(usize, Read)> = futures::stream::iter(reads).buffer_unordered(AT_A_TIME).try_collect().await?;
        holding.read(reads);
        Ok(())
    }

    fn too_many(&self) -> SourceError {
        let (table, most) = (&self.table, self.max_pieces);
        self.input(format!(
            "the offsets of the archive {table} lie in more than {most} pieces: write its files sorted by partition and offset"
        ))
    }

    /// What statistics say of the units of `found`.
    async fn spans(&self, found: &FoundSplit) -> Result<Vec<Option<Span>>, SourceError> {
        // Which topic a row is of, they do not say.
        if self.columns.topic.is_some() || found.units.is_empty() {
            return Ok(vec![None; found.units.len()]);
        }
        let bounds = self.source.spans(&found.split, &[self.columns.partition, self.columns.offset]).await?;
        let bounds: BTreeMap<u64, [Option<(i64, i64)>; 2]> =
            bounds.into_iter().filter_map(|unit| Some((unit.position, unit.bounds.try_into().ok()?))).collect();
        let span = |unit: &v1::UnitOfWork| match bounds.get(&unit.position) {
            Some([Some(partitions), Some(offsets)]) if unit.rows > 0 => {
                Some(Span { partitions: *partitions, offsets: *offsets, rows: unit.rows })
            }
            _ => None,
        };
        Ok(found.units.iter().map(span).collect())
    }

    /// The places of the records that a unit holds; with its, all units have so many `pieces`.
    async fn read(&self, listed: &Listed, unit: usize, pieces: &AtomicUsize) -> Result<(usize, Read), SourceError> {
        let mut read = Read::new();
        let keep = |partition: i32, offset: i64, _: Option<i64>| {
            let begins = read.entry(partition).or_default().push(offset);
            let is_full = begins && pieces.fetch_add(1, Ordering::Relaxed) >= self.max_pieces;
            if is_full { Err(self.too_many()) } else { Ok(()) }
        };
        self.each(listed, unit, &[], keep).await?;
        Ok((unit, read))
    }

    /// Of each partition the first offset whose timestamp is `at` milliseconds or later.
    pub(super) async fn first_at(&self, listed: &Listed, at: i64) -> Result<BTreeMap<i32, i64>, SourceError> {
        let Some(column) = self.columns.timestamp() else {
            return Err(self.input(
                "scan names a time, and the archive has no column of the records' timestamps: say which, by \
                 hybrid.archive.timestamp, or give offsets"
                    .to_owned(),
            ));
        };
        let of_unit = |unit: usize| async move {
            let mut first: BTreeMap<i32, i64> = BTreeMap::new();
            let keep = |partition: i32, offset: i64, time: Option<i64>| {
                if time.is_some_and(|time| time >= at) {
                    first.entry(partition).and_modify(|held| *held = offset.min(*held)).or_insert(offset);
                }
                Ok(())
            };
            self.each(listed, unit, &[column], keep).await?;
            Ok::<_, SourceError>(first)
        };
        let units: Vec<_> = (0..listed.units.len()).map(|unit| of_unit(unit).boxed()).collect();
        let mut units = futures::stream::iter(units).buffer_unordered(AT_A_TIME);
        let mut first: BTreeMap<i32, i64> = BTreeMap::new();
        while let Some(found) = units.next().await {
            for (partition, offset) in found? {
                first.entry(partition).and_modify(|held| *held = offset.min(*held)).or_insert(offset);
            }
        }
        Ok(first)
    }

    /// Gives partition, offset and, where `more` names its column, timestamp of each record of the topic in a unit.
    async fn each(
        &self,
        listed: &Listed,
        unit: usize,
        more: &[usize],
        mut keep: impl FnMut(i32, i64, Option<i64>) -> Result<(), SourceError> + Send,
    ) -> Result<(), SourceError> {
        let Some((split, unit)) = listed.units.get(unit) else { return Ok(()) };
        let Some(found) = listed.splits.get(*split) else { return Ok(()) };
        let mut columns = self.columns.places();
        columns.extend(more);
        let mut reader = self.source.reader(std::slice::from_ref(&found.split), &columns, Window::ALL).await?;
        let mut batches = reader.read(&v1::UnitOfWork { split: 0, ..*unit }).await?;
        while let Some(batch) = batches.next().await {
            let rows = batch?.rows;
            let file = found.split.file.as_ref().map(|file| file.path.clone()).unwrap_or_default();
            let corrupt = |e: ArrowError| self.corrupt(&file, During::Plan, e);
            let places = self.places(&rows, &file)?;
            let times = match more {
                [] => None,
                _ => Some(millis(rows.column(rows.num_columns() - 1)).map_err(corrupt)?),
            };
            for (row, place) in places.into_iter().enumerate() {
                let Some((partition, offset)) = place else { continue };
                let time = times.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row));
                keep(partition, offset, time)?;
            }
        }
        Ok(())
    }

    /// A topic that the rows of the archive name; none where no row is left, or no column names any.
    pub(super) async fn some_topic(&self, listed: &Listed) -> Result<Option<String>, SourceError> {
        let Some(column) = self.columns.topic else { return Ok(None) };
        for (split, unit) in &listed.units {
            let Some(found) = listed.splits.get(*split) else { continue };
            let mut reader = self.source.reader(std::slice::from_ref(&found.split), &[column], Window::ALL).await?;
            let mut batches = reader.read(&v1::UnitOfWork { split: 0, ..*unit }).await?;
            while let Some(batch) = batches.next().await {
                let rows = batch?.rows;
                let topics = rows.columns().first().and_then(|column| column.as_any().downcast_ref::<StringArray>());
                if let Some(topic) = topics.and_then(|topics| topics.iter().flatten().next()) {
                    return Ok(Some(topic.to_owned()));
                }
            }
        }
        Ok(None)
    }

    /// Partition and offset of each row, none for those of other topics. The columns of [`Columns::places`] come first in `rows`.
    pub(super) fn places(&self, rows: &RecordBatch, file: &str) -> Result<Vec<Option<(i32, i64)>>, SourceError> {
        let corrupt = |e: ArrowError| self.corrupt(file, During::Plan, e);
        let partitions = integers(rows.column(0)).map_err(corrupt)?;
        let offsets = integers(rows.column(1)).map_err(corrupt)?;
        let topics = self.columns.topic.map(|_| rows.column(2).as_any().downcast_ref::<StringArray>());
        let place = |row: usize| -> Option<Option<(i32, i64)>> {
            match topics {
                Some(Some(topics)) if topics.is_valid(row) && topics.value(row) != self.topic => return Some(None),
                Some(Some(topics)) if topics.is_null(row) => return None,
                Some(None) => return None,
                _ => {}
            }
            let is_known = partitions.is_valid(row) && offsets.is_valid(row);
            let partition =
                i32::try_from(partitions.value(row)).ok().filter(|partition| is_known && *partition >= 0)?;
            let offset = offsets.value(row);
            (0..i64::MAX).contains(&offset).then_some(Some((partition, offset)))
        };
        (0..rows.num_rows())
            .map(|row| {
                place(row).ok_or_else(|| {
                    self.input(format!(
                        "{file}: a row of the archive {} does not say which record it is: its partition, its offset or its \
                         topic is null or none",
                        self.table
                    ))
                })
            })
            .collect()
    }

    pub(super) fn corrupt(&self, file: &str, during: During, error: ArrowError) -> SourceError {
        SourceError::Corrupt { file: file.to_owned(), place: String::new(), during, source: Box::new(error) }
    }
}
