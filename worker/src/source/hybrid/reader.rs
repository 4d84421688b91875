//! Reads units of either side: those of the archive less the rows that are not its to give, those of the topic as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::time::Window;
use tidegate_proto::v1;

use super::Shared;
use super::detail::{self, ArchiveUnit, Side};
use super::runs::{Runs, twice};
use crate::source::error::{During, SourceError};
use crate::source::{SourceBatch, UnitReader};

type Batches = BoxStream<'static, Result<SourceBatch, SourceError>>;

/// A reader over splits of both sides.
pub(super) struct HybridReader {
    shared: Arc<Shared>,
    columns: Vec<usize>,
    schema: SchemaRef,
    window: Window,
    /// Of each split its side, and its place among that side's.
    sides: Vec<(Place, usize)>,
    archive: Vec<v1::Split>,
    live: Vec<v1::Split>,
    /// The columns that are read of the archive, those that tell a record's place first.
    held: Vec<usize>,
    of_archive: Option<Box<dyn UnitReader>>,
    of_live: Option<Box<dyn UnitReader>>,
}

enum Place {
    Archive(Vec<ArchiveUnit>),
    Live,
}

impl HybridReader {
    /// A reader that yields `columns` of `splits`.
    pub(super) fn new(
        shared: Arc<Shared>,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Self, SourceError> {
        let schema = shared.joined.schema.project(columns).map_err(|e| SourceError::Spec {
            source_name: shared.name.clone(),
            what: format!("columns {columns:?} are asked for: {e}"),
        })?;
        let (mut sides, mut archive, mut live) = (Vec::new(), Vec::new(), Vec::new());
        for split in splits {
            let side = detail::side(split).ok_or_else(|| {
                shared.input("what the plan says of a split cannot be read: was it made by a later release?".to_owned())
            })?;
            let own = |detail| v1::Split { file: split.file.clone(), detail };
            match side {
                Side::Archive(of) => {
                    sides.push((Place::Archive(of.units), archive.len()));
                    archive.push(own(of.detail));
                }
                Side::Live(of) => {
                    sides.push((Place::Live, live.len()));
                    live.push(own(of));
                }
            }
        }
        let mut held = shared.archive.columns.places();
        for column in shared.joined.wanted(columns) {
            if !held.contains(&column) {
                held.push(column);
            }
        }
        let (columns, schema) = (columns.to_vec(), Arc::new(schema));
        Ok(Self { shared, columns, schema, window, sides, archive, live, held, of_archive: None, of_live: None })
    }

    async fn read_archive(&mut self, unit: &v1::UnitOfWork, planned: ArchiveUnit) -> Result<Batches, SourceError> {
        let shared = self.shared.clone();
        if self.of_archive.is_none() {
            let source = &shared.archive.source;
            self.of_archive = Some(source.reader(&self.archive, &self.held, self.window).await?);
        }
        let Some(reader) = &mut self.of_archive else { return Err(SourceError::Abandoned) };
        let file = usize::try_from(unit.split).ok().and_then(|at| self.archive.get(at));
        let file = file.and_then(|split| split.file.as_ref()).map(|file| file.path.clone()).unwrap_or_default();
        let batches = reader.read(&v1::UnitOfWork { rows: planned.rows, ..*unit }).await?;
        let taking = Taking {
            shared,
            columns: self.columns.clone(),
            schema: self.schema.clone(),
            held: self.held.clone(),
            file,
            position: unit.position,
            planned,
            seen: BTreeMap::new(),
            rows: 0,
            taken: 0,
        };
        Ok(taking.over(batches))
    }

    async fn read_live(&mut self, unit: &v1::UnitOfWork) -> Result<Batches, SourceError> {
        let shared = self.shared.clone();
        if self.of_live.is_none() {
            self.of_live = Some(shared.live.reader(&self.live, &self.columns, self.window).await?);
        }
        let Some(reader) = &mut self.of_live else { return Err(SourceError::Abandoned) };
        let batches = reader.read(unit).await?;
        let (columns, schema) = (self.columns.clone(), self.schema.clone());
        let batches = batches.map(move |batch| {
            let batch = batch?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.rows.num_rows()));
            let made = columns.iter().zip(batch.rows.columns()).map(|(at, column)| shared.joined.of_live(*at, column));
            let rows = RecordBatch::try_new_with_options(schema.clone(), made.collect(), &options);
            let rows = rows.map_err(|e| shared.archive.corrupt(&shared.archive.topic, During::Read, e))?;
            Ok(SourceBatch { rows, ..batch })
        });
        Ok(batches.boxed())
    }
}

#[async_trait]
impl UnitReader for HybridReader {
    async fn read(&mut self, unit: &v1::UnitOfWork) -> Result<Batches, SourceError> {
        let damaged = |what: String| self.shared.input(format!("{what}: the plan is damaged, plan the backfill again"));
        let at = usize::try_from(unit.split).ok().and_then(|at| self.sides.get(at));
        let (place, inner) = at.ok_or_else(|| damaged(format!("a unit names split {}", unit.split)))?;
        let inner = v1::UnitOfWork { split: u32::try_from(*inner).unwrap_or(u32::MAX), ..*unit };
        let planned = match place {
            Place::Live => None,
            Place::Archive(units) => {
                let planned = units.iter().find(|planned| planned.position == unit.position).copied();
                Some(planned.ok_or_else(|| damaged(format!("nothing is said of the unit at {}", unit.position)))?)
            }
        };
        match planned {
            Some(planned) => self.read_archive(&inner, planned).await,
            None => self.read_live(&inner).await,
        }
    }

    fn ahead_bytes(&self) -> u64 {
        self.of_live.as_ref().map_or(0, |reader| reader.ahead_bytes())
    }
}

/// Takes the rows below the cuts of one unit of the archive, and sees to it that each offset comes once.
struct Taking {
    shared: Arc<Shared>,
    columns: Vec<usize>,
    schema: SchemaRef,
    held: Vec<usize>,
    file: String,
    position: u64,
    planned: ArchiveUnit,
    seen: BTreeMap<i32, Runs>,
    /// Rows of the unit so far, be they taken or left out.
    rows: u64,
    taken: u64,
}

impl Taking {
    fn over(self, batches: Batches) -> Batches {
        let state = Some((self, batches));
        let taken = futures::stream::unfold(state, |state| async move {
            let (mut taking, mut batches) = state?;
            match batches.next().await {
                Some(Ok(batch)) => match taking.take(&batch) {
                    Ok(taken) => Some((Ok(taken), Some((taking, batches)))),
                    Err(e) => Some((Err(e), None)),
                },
                Some(Err(e)) => Some((Err(e), None)),
                None => Some((taking.end(), None)),
            }
        });
        taken.boxed()
    }

    fn take(&mut self, batch: &SourceBatch) -> Result<SourceBatch, SourceError> {
        let places = self.shared.archive.places(&batch.rows, &self.file)?;
        let mut mask = Vec::with_capacity(places.len());
        for place in places {
            let taken = place.filter(|(partition, offset)| self.shared.is_archived(*partition, *offset));
            mask.push(taken.is_some());
            if let Some((partition, offset)) = taken {
                self.seen.entry(partition).or_default().push(offset);
                self.taken += 1;
            }
        }
        let made = self.made(batch, &mask.into());
        self.rows += u64::try_from(batch.rows.num_rows()).unwrap_or(u64::MAX);
        made.map_err(|e| self.shared.archive.corrupt(&self.file, During::Read, e))
    }

    fn made(&self, batch: &SourceBatch, mask: &BooleanArray) -> Result<SourceBatch, ArrowError> {
        let rows = filter_record_batch(&batch.rows, mask)?;
        let columns = self.shared.joined.of_archive(&self.columns, &rows, &self.held)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let made = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let times = batch.event_time.iter().zip(mask.values().iter()).filter(|(_, taken)| *taken).map(|(at, _)| at);
        let times = times.map(|at| self.shared.archive.timed(at)).collect::<Int64Array>();
        // Only rows without event time are asked for by their place.
        let is_asked = times.null_count() > 0;
        let places =
            is_asked.then(|| (self.rows..).zip(mask.values()).filter(|(_, taken)| *taken).map(|(at, _)| at).collect());
        Ok(SourceBatch { is_archived: true, places, ..SourceBatch::of(made, times, Vec::new()) })
    }

    /// What is to be said when all rows were taken: how many offsets had none.
    fn end(&mut self) -> Result<SourceBatch, SourceError> {
        let archive = &self.shared.archive;
        for (partition, runs) in std::mem::take(&mut self.seen) {
            if let Some(offset) = twice(&runs.sorted()) {
                return Err(archive.input(doubled(&archive.table, partition, offset, 1, &self.file)));
            }
        }
        if self.taken != self.planned.taken {
            let place = format!("unit at {}, rows below the cut", self.position);
            let (planned, found) = (self.planned.taken, self.taken);
            return Err(SourceError::Rows { file: self.file.clone(), place, planned, found });
        }
        let none = SourceBatch::of(
            RecordBatch::new_empty(self.schema.clone()),
            Int64Array::from(Vec::<i64>::new()),
            Vec::new(),
        );
        Ok(SourceBatch { gaps: self.planned.gaps, is_archived: true, ..none })
    }
}

/// What is said of a record that the archive has more than once.
pub(super) fn doubled(table: &str, partition: i32, offset: i64, rows: u64, file: &str) -> String {
    let rows = if rows > 1 { format!(" ({rows} rows too many in this partition)") } else { String::new() };
    format!(
        "the archive {table} holds offset {offset} of partition {partition} more than once{rows}, in {file}: read twice it \
         would be two rows; take the copies out of the archive, or start behind them"
    )
}
