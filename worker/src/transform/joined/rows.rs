//! The rows of a join's inputs, as its plan sees them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::time::Window;

/// The rows of one source around a slice.
pub trait InputRows: Send + Sync + fmt::Debug {
    /// From the beginning; every call begins anew. Rows have [`super::JoinInput::schema`] and may lie anywhere in event
    /// time: each mention of the source is cut to what it needs.
    fn open(&self) -> BoxStream<'static, Result<RecordBatch, DataFusionError>>;
    /// How many there are, about.
    fn rows(&self) -> usize;
    /// How large they are, about.
    fn bytes(&self) -> usize;
}

/// The rows of an input could not be read; apart from all that can go wrong with what was read.
#[derive(Debug, thiserror::Error)]
#[error("the rows cannot be read")]
pub(super) struct Unread(#[source] pub(super) DataFusionError);

/// What one mention sees of its source: its columns, in its window.
#[derive(Debug)]
pub(super) struct Mentioned {
    pub(super) rows: Arc<dyn InputRows>,
    /// What rows come with.
    pub(super) input: SchemaRef,
    /// The places there of the columns that are read.
    pub(super) picked: Vec<usize>,
    /// No row lies outside; none where that is empty.
    pub(super) window: Option<Window>,
    /// Whether each row of the result is of one of its rows.
    pub(super) is_anchor: bool,
}

impl Mentioned {
    /// The same of other rows.
    pub(super) fn of(&self, rows: Arc<dyn InputRows>) -> Self {
        Self {
            rows,
            input: Arc::clone(&self.input),
            picked: self.picked.clone(),
            window: self.window,
            is_anchor: self.is_anchor,
        }
    }

    /// The rows of `batch` that lie in the window.
    pub(super) fn within(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if types(batch.schema_ref()) != types(&self.input) {
            let what = format!("the rows of an input have the columns {}, not {}", batch.schema(), self.input);
            return Err(DataFusionError::Execution(what));
        }
        let Some(window) = self.window else { return Ok(batch.slice(0, 0)) };
        let (from, to) = (window.from().as_micros(), window.to().as_micros());
        let times = batch.column(0).as_primitive::<Int64Type>();
        let within = BooleanArray::from_unary(times, |time| from <= time && time < to);
        if within.true_count() == batch.num_rows() {
            return Ok(batch.clone());
        }
        Ok(filter_record_batch(batch, &within)?)
    }

    /// The rows of `batch` that lie in the window, of the columns that are read, as `schema`.
    fn cut(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let within = self.within(batch)?;
        let options = RecordBatchOptions::new().with_row_count(Some(within.num_rows()));
        let picked = self.picked.iter().map(|place| Arc::clone(within.column(*place))).collect();
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), picked, &options)?)
    }
}

/// The leaf of a plan that reads one mention.
#[derive(Debug)]
pub(super) struct MentionExec {
    pub(super) mentioned: Arc<Mentioned>,
    schema: SchemaRef,
    /// Of a batch; `None`: as many as come.
    most_rows: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl MentionExec {
    /// `schema`: of the columns that are picked; batches have `most_rows` at most.
    pub(super) fn new(mentioned: Arc<Mentioned>, schema: SchemaRef, most_rows: Option<usize>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { mentioned, schema, most_rows, properties: Arc::new(properties) }
    }
}

/// A batch in portions of `most_rows` at most.
fn portions(batch: Result<RecordBatch>, most_rows: usize) -> impl Iterator<Item = Result<RecordBatch>> {
    let (batch, error) = match batch {
        Ok(batch) => (Some(batch), None),
        Err(error) => (None, Some(Err(error))),
    };
    let portion = move |batch: RecordBatch| {
        let count = batch.num_rows();
        let from = (0..count).step_by(most_rows.max(1));
        from.map(move |from| Ok(batch.slice(from, most_rows.min(count - from))))
    };
    batch.into_iter().flat_map(portion).chain(error)
}

impl DisplayAs for MentionExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MentionExec: columns={:?}", self.mentioned.picked)
    }
}

impl ExecutionPlan for MentionExec {
    fn name(&self) -> &'static str {
        "MentionExec"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (mentioned, schema) = (Arc::clone(&self.mentioned), Arc::clone(&self.schema));
        let rows = mentioned.rows.open().map(move |batch| match batch {
            Ok(batch) => mentioned.cut(&batch, &schema),
            Err(error) => Err(DataFusionError::External(Box::new(Unread(error)))),
        });
        let most_rows = self.most_rows.unwrap_or(usize::MAX);
        let rows = rows.flat_map(move |batch| futures::stream::iter(portions(batch, most_rows)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }

    fn partition_statistics(&self, _: Option<usize>) -> Result<Statistics> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Inexact(self.mentioned.rows.rows());
        statistics.total_byte_size = Precision::Inexact(self.mentioned.rows.bytes());
        Ok(statistics)
    }
}
