//! Reads row groups of planned files, one at a time, and checks that each is what was planned.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use super::Shared;
use super::file::{ParquetFile, unsigned};
use crate::source::error::{During, SourceError};
use crate::source::event_time::EventTimeRule;
use crate::source::{SourceBatch, UnitReader, check};

/// Files whose footers a reader keeps.
const OPEN_FILES: usize = 64;

/// A reader over some planned files.
pub(super) struct ParquetReader {
    shared: Arc<Shared>,
    splits: Vec<v1::Split>,
    wanted: Wanted,
    window: Window,
    open: VecDeque<(u32, OpenFile)>,
}

/// What is asked of every file.
pub(in crate::source) struct Wanted {
    /// Indices into the source's schema.
    pub(in crate::source) columns: Vec<usize>,
    /// These columns, in that order.
    pub(in crate::source) schema: SchemaRef,
}

impl Wanted {
    /// The columns at `columns` of `schema`.
    pub(in crate::source) fn new(source_name: &str, schema: &Schema, columns: &[usize]) -> Result<Self, SourceError> {
        let schema = schema.project(columns).map_err(|e| SourceError::Spec {
            source_name: source_name.to_owned(),
            what: format!("columns {columns:?} are asked for: {e}"),
        })?;
        Ok(Self { columns: columns.to_vec(), schema: Arc::new(schema) })
    }
}

#[derive(Clone)]
struct OpenFile {
    file: Arc<ParquetFile>,
    /// For each column of the source, its place in the file.
    places: Arc<Vec<usize>>,
}

impl ParquetReader {
    /// A reader that yields `columns` of `splits`.
    pub(super) fn new(
        shared: Arc<Shared>,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Self, SourceError> {
        let wanted = Wanted::new(&shared.name, &shared.schema, columns)?;
        Ok(Self { shared, splits: splits.to_vec(), wanted, window, open: VecDeque::new() })
    }

    /// The file of the split at `at`, checked against its pin when it is opened.
    async fn file(&mut self, at: u32) -> Result<OpenFile, SourceError> {
        if let Some((_, open)) = self.open.iter().find(|(split, _)| *split == at) {
            return Ok(open.clone());
        }
        let pin = check::pin_of_split(&self.shared.name, &self.splits, at)?;
        let file = ParquetFile::open(self.shared.store.open_pinned(pin).await?, During::Read).await?;
        let places = Arc::new(self.shared.columns_of(&file)?);
        let open = OpenFile { file: Arc::new(file), places };
        if self.open.len() >= OPEN_FILES {
            self.open.pop_front();
        }
        self.open.push_back((at, open.clone()));
        Ok(open)
    }
}

#[async_trait]
impl UnitReader for ParquetReader {
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
        let OpenFile { file, places } = self.file(unit.split).await?;
        read_unit(&self.shared.name, &self.shared.rule, &self.wanted, (&file, &places), unit, self.window)
    }
}

/// The rows of one unit of `file`, whose columns stand, by their place in the source's schema, at `places`.
pub(in crate::source) fn read_unit(
    source_name: &str,
    rule: &EventTimeRule,
    wanted: &Wanted,
    (file, places): (&Arc<ParquetFile>, &[usize]),
    unit: &v1::UnitOfWork,
    window: Window,
) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
    let group = usize::try_from(unit.position).unwrap_or(usize::MAX);
    let held = file.row_groups().get(group).map(|group| unsigned(group.num_rows()));
    if held != Some(unit.rows) {
        let what = match held {
            Some(held) => format!("row group {group} held {} rows and holds {held}", unit.rows),
            None => format!("it has no row group {group} any more"),
        };
        return Err(SourceError::Changed { file: file.name().to_owned(), what });
    }
    let cut = Cut::new(source_name, rule, wanted, file, places)?;
    let batches = file.read_group(group, &cut.read, During::Read)?;
    let place = file.place_of(group);
    let checks = check::Unit::new(file.name(), &place, unit, window, rule.way_out());
    let rows = batches.and_then(move |batch| futures::future::ready(cut.apply(&batch)));
    Ok(checks.over(rows.boxed()))
}

/// How a batch of one file becomes a batch of the source.
struct Cut {
    /// The file's columns that are read, ascending.
    read: Vec<usize>,
    /// For each wanted column, its place in `read`.
    takes: Vec<usize>,
    /// The event-time column's place in `read`.
    time: Option<usize>,
    /// Every row's event time, where it comes from the path.
    all: Option<EventTime>,
    rule: EventTimeRule,
    schema: SchemaRef,
    file: Arc<ParquetFile>,
}

impl Cut {
    fn new(
        source_name: &str,
        rule: &EventTimeRule,
        wanted: &Wanted,
        file: &Arc<ParquetFile>,
        places: &[usize],
    ) -> Result<Self, SourceError> {
        let place = |column: &usize| places.get(*column).copied();
        let wants: Vec<usize> = wanted.columns.iter().filter_map(place).collect();
        let time = rule.column().as_ref().and_then(place);
        let mut read: Vec<usize> = wants.iter().copied().chain(time).collect();
        read.sort_unstable();
        read.dedup();
        let in_read = |place: &usize| read.binary_search(place).ok();
        let takes = wants.iter().filter_map(in_read).collect();
        let input = |what: String| SourceError::Input { source_name: source_name.to_owned(), what };
        let all = rule.of_path(file.name()).transpose().map_err(input)?;
        Ok(Self {
            time: time.as_ref().and_then(in_read),
            takes,
            all,
            rule: rule.clone(),
            schema: wanted.schema.clone(),
            file: file.clone(),
            read,
        })
    }

    fn apply(&self, batch: &RecordBatch) -> Result<SourceBatch, SourceError> {
        let corrupt = |e: arrow::error::ArrowError| self.file.corrupt("", During::Read, e.into());
        let event_time = match self.time {
            Some(at) => self.rule.of_column(batch.column(at)),
            None => Int64Array::from_iter(std::iter::repeat_n(self.all.map(EventTime::as_micros), batch.num_rows())),
        };
        let columns = self.takes.iter().zip(self.schema.fields()).map(|(at, field)| {
            let column = batch.column(*at);
            if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(corrupt)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(corrupt)?;
        Ok(SourceBatch::of(rows, event_time, Vec::new()))
    }
}
