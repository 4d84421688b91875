//! An output of a read task: its query, unless it keeps dead letters, and its Iceberg writer.

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use async_trait::async_trait;
use tidegate_common::ids::OutputIx;
use tidegate_common::time::{EventTime, Window};
use tidegate_proto::v1;
use uuid::Uuid;

use super::TaskError;
use super::read::{Closed, OutputPort};
use crate::failure::{Class, Classify};
use crate::sink::{Due, LoadedTable, OutputWriter, WriterSettings};
use crate::transform::{Query, Running};

/// The table that is there is not the one that was prepared.
#[derive(Debug, thiserror::Error)]
#[error("table {table} has uuid {found}, and {pinned} was prepared: it was dropped and created anew; plan again")]
struct OtherTable {
    table: String,
    found: String,
    pinned: String,
}

impl Classify for OtherTable {
    fn class(&self) -> Class {
        Class::Fatal { exit_code: 4 }
    }
}

/// Rows and their event times do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("the rows cannot be cut to the window")]
struct NotCut(#[from] ArrowError);

impl Classify for NotCut {
    fn class(&self) -> Class {
        Class::Poison
    }
}

fn cut(rows: &RecordBatch, times: &Int64Array, window: Window) -> Result<RecordBatch, NotCut> {
    let inside = |at: &i64| window.contains(EventTime::from_micros(*at));
    if times.values().iter().all(inside) {
        return Ok(rows.clone());
    }
    let mask: BooleanArray = times.values().iter().map(|at| Some(inside(at))).collect();
    Ok(filter_record_batch(rows, &mask)?)
}

/// One output's query and writer in one attempt.
pub(crate) struct IcebergPort {
    output: OutputIx,
    query: Option<Running>,
    /// What its rows are cut to, where its source is read beyond the window for another output.
    window: Option<Window>,
    writer: OutputWriter,
}

impl IcebergPort {
    /// Opens the output for an attempt. `query` comes with what the reader yields; without one, rows are written as they
    /// are. The writer keeps within `memory` bytes.
    pub(crate) fn open(
        output: OutputIx,
        query: Option<(&Query, SchemaRef)>,
        table: &LoadedTable,
        pinned: &v1::PreparedOutput,
        attempt: Uuid,
        memory: usize,
    ) -> Result<Self, TaskError> {
        let found = table.metadata().uuid().to_string();
        if found != pinned.uuid {
            return Err(OtherTable { table: pinned.table.clone(), found, pinned: pinned.uuid.clone() }.into());
        }
        let settings = WriterSettings::of(table, pinned.schema_id, pinned.spec_id)?;
        let memory_bytes = settings.memory_bytes.min(memory);
        let writer = OutputWriter::open(table, output.get(), attempt, WriterSettings { memory_bytes, ..settings })?;
        let query = query.map(|(query, input)| query.start(input)).transpose()?;
        Ok(Self { output, query, window: None, writer })
    }

    /// Leaves out rows outside `window`.
    pub(crate) fn within(self, window: Window) -> Self {
        Self { window: Some(window), ..self }
    }
}

#[async_trait]
impl OutputPort for IcebergPort {
    fn output(&self) -> OutputIx {
        self.output
    }

    async fn push(&mut self, rows: &RecordBatch, times: &Int64Array) -> Result<RecordBatch, TaskError> {
        let rows = match self.window {
            Some(window) => cut(rows, times, window)?,
            None => rows.clone(),
        };
        match &mut self.query {
            Some(query) => Ok(query.push(rows)?),
            None => Ok(rows),
        }
    }

    async fn write(&mut self, rows: RecordBatch) -> Result<(), TaskError> {
        Ok(self.writer.write(rows).await?)
    }

    fn draw_files(&mut self, read: u64, ahead: &[u64]) {
        self.writer.draw_files(read, ahead);
    }

    async fn due(&mut self) -> Result<Due, TaskError> {
        Ok(self.writer.due().await?)
    }

    async fn relieve(&mut self) -> Result<(), TaskError> {
        Ok(self.writer.end_row_groups().await?)
    }

    fn buffered_bytes(&self) -> u64 {
        u64::try_from(self.writer.buffered_bytes()).unwrap_or(u64::MAX)
    }

    async fn close(&mut self) -> Result<Closed, TaskError> {
        let closed = self.writer.close().await?;
        Ok(Closed { files: closed.files, iceberg: closed.iceberg, shuffled: None })
    }
}
