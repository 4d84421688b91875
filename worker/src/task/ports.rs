//! An output of a read task: its query, unless it keeps dead letters, and its Iceberg writer.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidegate_common::ids::OutputIx;
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

/// One output's query and writer in one attempt.
pub(crate) struct IcebergPort {
    output: OutputIx,
    query: Option<Running>,
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
        Ok(Self { output, query, writer })
    }
}

#[async_trait]
impl OutputPort for IcebergPort {
    fn output(&self) -> OutputIx {
        self.output
    }

    async fn push(&mut self, rows: &RecordBatch) -> Result<RecordBatch, TaskError> {
        match &mut self.query {
            Some(query) => Ok(query.push(rows.clone())?),
            None => Ok(rows.clone()),
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
