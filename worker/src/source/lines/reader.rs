//! Reads units of planned CSV and JSON files.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidegate_common::spec::model::Compression;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;

use super::decode::{BadRecord, Form};
use super::sort::{Engine, Sorted};
use super::{Head, Shared};
use crate::source::error::{During, SourceError};
use crate::source::store::PinnedFile;
use crate::source::{SourceBatch, UnitReader, check};

/// A reader over some planned files.
pub(super) struct LinesReader {
    shared: Arc<Shared>,
    splits: Vec<v1::Split>,
    /// The source's columns that are decoded: those asked for, then the event time's.
    read: Vec<usize>,
    /// How many of `read` were asked for.
    asked: Vec<usize>,
    schema: SchemaRef,
    window: Window,
    open: VecDeque<(u32, PinnedFile, Head)>,
}

/// Files whose beginnings a reader keeps.
const OPEN_FILES: usize = 64;

impl LinesReader {
    /// A reader that yields `columns` of `splits`.
    pub(super) fn new(
        shared: Arc<Shared>,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Self, SourceError> {
        let schema = shared.schema.project(columns).map_err(|e| SourceError::Spec {
            source_name: shared.name.clone(),
            what: format!("columns {columns:?} are asked for: {e}"),
        })?;
        let mut read: Vec<usize> = columns.iter().copied().chain(shared.rule.column()).collect();
        read.sort_unstable();
        read.dedup();
        if read.is_empty() {
            read.push(0); // something must be decoded for rows to be counted
        }
        let asked = columns.iter().filter_map(|column| read.binary_search(column).ok()).collect();
        Ok(Self {
            shared,
            splits: splits.to_vec(),
            read,
            asked,
            schema: Arc::new(schema),
            window,
            open: VecDeque::new(),
        })
    }

    async fn file(&mut self, at: u32) -> Result<(PinnedFile, Head), SourceError> {
        if let Some((_, file, head)) = self.open.iter().find(|(split, ..)| *split == at) {
            return Ok((file.clone(), head.clone()));
        }
        let pin = check::pin_of_split(&self.shared.name, &self.splits, at)?;
        let file = self.shared.store.open_pinned(pin).await?;
        let head = self.shared.head(&file).await?;
        if self.open.len() >= OPEN_FILES {
            self.open.pop_front();
        }
        self.open.push_back((at, file.clone(), head.clone()));
        Ok((file, head))
    }
}

#[async_trait]
impl UnitReader for LinesReader {
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
        let (file, head) = self.file(unit.split).await?;
        let shared = self.shared.clone();
        let form = Arc::new(Form::new(&shared.dialect, &shared.schema, &head, &self.read, false));
        let is_whole = shared.compression_of(file.name()) != Compression::None;
        let length = (!is_whole).then_some(unit.length);
        let text = shared.bytes(&file, unit.position, length, During::Read).await?;
        let input = |what: String| shared.input(what);
        let cut = Cut {
            shared: shared.clone(),
            file: file.name().to_owned(),
            time: shared.rule.column().and_then(|column| self.read.binary_search(&column).ok()),
            all: shared.rule.of_path(file.name()).transpose().map_err(input)?,
            asked: self.asked.clone(),
            schema: self.schema.clone(),
        };
        let place = format!("bytes {} to {}", unit.position, unit.position.saturating_add(unit.length));
        let checks = check::Unit::new(file.name(), &place, unit, self.window, shared.rule.way_out());
        let start = unit.position;
        let rows =
            Rows { shared, file, start, engine: None, form, time: cut.time, text: Some(text), full: VecDeque::new() };
        let batches = rows.stream().and_then(move |sorted| futures::future::ready(cut.apply(sorted)));
        Ok(checks.over(batches.boxed()))
    }
}

/// The batches of a unit, as they are decoded.
struct Rows {
    shared: Arc<Shared>,
    file: PinnedFile,
    start: u64,
    form: Arc<Form>,
    /// The event-time column's place among those decoded.
    time: Option<usize>,
    engine: Option<Engine>,
    text: Option<BoxStream<'static, Result<Bytes, SourceError>>>,
    full: VecDeque<Sorted>,
}

impl Rows {
    fn stream(self) -> BoxStream<'static, Result<Sorted, SourceError>> {
        futures::stream::try_unfold(self, |mut rows| async move { Ok(rows.next().await?.map(|batch| (batch, rows))) })
            .boxed()
    }

    async fn next(&mut self) -> Result<Option<Sorted>, SourceError> {
        while self.full.is_empty() {
            let Some(text) = &mut self.text else { return Ok(None) };
            let chunk = text.try_next().await?;
            match self.decode(chunk.as_deref()) {
                Ok(batches) => self.full.extend(batches),
                Err(bad) => {
                    self.text = None;
                    let before = self.shared.lines_until(&self.file, self.start).await?;
                    return Err(self.shared.bad_record(self.file.name(), before, bad, During::Read));
                }
            }
            if chunk.is_none() {
                self.text = None;
            }
        }
        Ok(self.full.pop_front())
    }

    fn decode(&mut self, chunk: Option<&[u8]>) -> Result<Vec<Sorted>, BadRecord> {
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => self.shared.engine(self.form.clone(), self.time, self.start)?,
        };
        let mut full = Vec::new();
        match chunk {
            Some(chunk) => engine.feed(chunk, &mut full)?,
            None => engine.finish(&mut full)?,
        }
        self.engine = Some(engine);
        Ok(full)
    }
}

/// How a decoded batch becomes one of the source.
struct Cut {
    shared: Arc<Shared>,
    file: String,
    time: Option<usize>,
    all: Option<EventTime>,
    asked: Vec<usize>,
    schema: SchemaRef,
}

impl Cut {
    fn apply(&self, sorted: Sorted) -> Result<SourceBatch, SourceError> {
        let Sorted { rows: batch, dead } = sorted;
        let event_time = match self.time {
            Some(at) => self.shared.rule.of_column(batch.column(at)),
            None => Int64Array::from_iter(std::iter::repeat_n(self.all.map(EventTime::as_micros), batch.num_rows())),
        };
        let columns = self.asked.iter().map(|at| batch.column(*at).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        let rows = rows.map_err(|e| SourceError::Corrupt {
            file: self.file.clone(),
            place: String::new(),
            during: During::Read,
            source: Box::new(e),
        })?;
        Ok(SourceBatch::of(rows, event_time, dead))
    }
}
