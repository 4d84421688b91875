//! The first records of a source, decoded, to be looked at.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use tidegate_common::ids::{BackfillId, SourceIx};
use tidegate_common::spec::Resolved;
use tidegate_common::time::Window;
use tokio::sync::mpsc;

use super::{Means, open};
use crate::failure::{Class, Classify};
use crate::source::{DeadRecord, FoundSplit, Source};
use crate::task::TaskError;

/// What a null is shown as.
const NULL: &str = "null";

/// The first records of a source.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The source.
    pub source: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Rows for people, cell by cell.
    pub cells: Vec<Vec<String>>,
    /// The same rows for programs: an object each, bytes in hexadecimal.
    pub objects: Vec<serde_json::Value>,
    /// Those that are no row, each with its file or partition.
    pub dead: Vec<(String, DeadRecord)>,
}

/// Rows could not be shown.
#[derive(Debug, thiserror::Error)]
#[error("the rows of source {name} cannot be shown")]
struct NotShown {
    name: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Classify for NotShown {
    fn class(&self) -> Class {
        Class::Poison
    }
}

/// The first `limit` records of the sources of `spec`, rows and dead letters together: of that named `only`, or of each.
///
/// # Errors
/// A source that cannot be read, and a record that does not decode where the source says so at once.
pub async fn rows(
    spec: &Resolved,
    id: &BackfillId,
    only: Option<&str>,
    limit: usize,
    means: &Means,
) -> Result<Vec<Rows>, TaskError> {
    let opened = open(spec, id, means)?;
    let mut all = Vec::new();
    for (ix, described) in (0..).map(SourceIx::new).zip(&opened.resolved.sources) {
        if only.is_none_or(|only| only == described.name) {
            let (source, _) = opened.source(ix).await?;
            all.push(first(&described.name, source.as_ref(), limit).await?);
        }
    }
    Ok(all)
}

async fn first(name: &str, source: &dyn Source, limit: usize) -> Result<Rows, TaskError> {
    let schema = source.schema();
    let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut rows = Rows { source: name.to_owned(), columns, ..Rows::default() };
    let (found, mut splits) = mpsc::channel(1);
    let mut finding = source.enumerate(Window::ALL, found);
    let mut ended = false;
    while rows.cells.len() + rows.dead.len() < limit {
        let split = if ended {
            splits.recv().await
        } else {
            tokio::select! {
                biased;
                enumerated = &mut finding => {
                    enumerated?;
                    ended = true;
                    continue;
                }
                split = splits.recv() => split,
            }
        };
        let Some(split) = split else { break };
        of_split(source, &schema, &split, limit, &mut rows).await?;
    }
    Ok(rows)
}

async fn of_split(
    source: &dyn Source,
    schema: &SchemaRef,
    found: &FoundSplit,
    limit: usize,
    rows: &mut Rows,
) -> Result<(), TaskError> {
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let mut reader = source.reader(std::slice::from_ref(&found.split), &columns, Window::ALL).await?;
    let file = found.split.file.as_ref().map(|file| file.path.clone()).unwrap_or_default();
    for unit in &found.units {
        let mut batches = reader.read(unit).await?;
        loop {
            let left = limit.saturating_sub(rows.cells.len() + rows.dead.len());
            if left == 0 {
                return Ok(());
            }
            let Some(batch) = batches.next().await else { break };
            let batch = batch?;
            rows.dead.extend(batch.dead.into_iter().take(left).map(|dead| (file.clone(), dead)));
            let left = limit.saturating_sub(rows.cells.len() + rows.dead.len());
            let batch = batch.rows.slice(0, batch.rows.num_rows().min(left));
            let shown = rows.show(&batch);
            shown.map_err(|source| NotShown { name: rows.source.clone(), source })?;
        }
    }
    Ok(())
}

impl Rows {
    fn show(&mut self, batch: &RecordBatch) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let options = FormatOptions::new().with_null(NULL);
        let cells = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let cells = cells.collect::<Result<Vec<_>, ArrowError>>()?;
        for row in 0..batch.num_rows() {
            let cells = cells.iter().map(|column| column.value(row).try_to_string());
            self.cells.push(cells.collect::<Result<_, ArrowError>>()?);
        }
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut lines: LineDelimitedWriter<Vec<u8>> = builder.build::<_, LineDelimited>(Vec::new());
        lines.write(batch)?;
        lines.finish()?;
        let lines = lines.into_inner();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.objects.push(serde_json::from_slice(line)?);
        }
        Ok(())
    }
}
