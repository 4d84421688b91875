//! The answer of a join for one slice.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, TableScan, UserDefinedLogicalNode};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidegate_common::time::Window;

use super::hops;
use super::join::{Dealing, Join, Scan, Unit};
use super::lengths::in_lengths;
use super::rows::{InputRows, MentionExec, Mentioned, Unread};
use super::walk::Marked;
use crate::transform::error::QueryError;
use crate::transform::limits::on_planning_thread;
use crate::transform::program::said;
use crate::transform::quirks::{Rules, usual_rules};

/// How many consumers an error about memory names.
const NAMED: NonZeroUsize = NonZeroUsize::MIN;

/// A batch between operators is this part of the memory, if it has no fewer or more rows than these.
const BATCHES: usize = 64;
const LEAST_ROWS: usize = 32;
const MOST_ROWS: usize = 8 * 1024;

/// What a query may hold that is made and not run.
const TRIED_BYTES: usize = 64 << 20;

/// Batches of a result.
pub(super) type Answer = BoxStream<'static, Result<RecordBatch, QueryError>>;

/// How a slice is joined.
#[derive(Clone, Copy, Debug)]
pub enum Effort {
    /// By hash tables in memory; ends with [`QueryError::Memory`] where they do not fit.
    InMemory {
        /// What may be held.
        bytes: usize,
    },
    /// Piece by piece of the anchor's rows, as many as fit, each joined with all of the other inputs, which are opened
    /// anew for each: one key may have any number of rows. A query that aggregates takes whole groups at a time: what it
    /// keeps of one group must fit, and where it joins, the anchor's rows of one group or the smaller side.
    InPieces {
        /// What may be held; what is built of sources other than the anchor's must fit.
        bytes: usize,
    },
}

impl Join {
    /// The answer for the anchor's rows in `slice`; `inputs` in the order of [`Join::inputs`]. Nothing is read before
    /// the first batch is asked for.
    ///
    /// # Errors
    /// There are more or fewer inputs, or DataFusion cannot plan it. The stream ends with an error where the rows
    /// cannot be read, an expression fails on one, or the memory does not do.
    pub fn run(&self, slice: Window, inputs: Vec<Arc<dyn InputRows>>, effort: Effort) -> Result<Answer, QueryError> {
        if inputs.len() != self.inputs.len() {
            let what = format!("it joins {} sources, and there are rows of {}", self.inputs.len(), inputs.len());
            return Err(QueryError::Input { output: self.output.clone(), what });
        }
        match effort {
            Effort::InMemory { bytes } => self.whole(self.leaves(slice, &inputs), bytes, usual_rules()),
            Effort::InPieces { bytes } => {
                let of = |unit: &Unit| {
                    let leaves = self.leaves(slice, &inputs).without_anchors_but(&unit.anchors);
                    match (unit.is_grouped, unit.anchors.as_slice()) {
                        (false, [(anchor, _)]) => super::pieces::answer(self.clone(), leaves, *anchor, bytes),
                        _ => super::parts::answer(self.clone(), leaves, unit.clone(), bytes),
                    }
                };
                let answers: Vec<Answer> = self.units.iter().map(of).collect();
                Ok(futures::stream::iter(answers).flatten().boxed())
            }
        }
    }

    /// That DataFusion can compute its aggregates: some are planned, and refused when the first row comes.
    pub(in crate::transform) fn tried(&self) -> Result<(), DataFusionError> {
        let nothing = || Arc::new(NoRows) as Arc<dyn InputRows>;
        let inputs: Vec<_> = self.inputs.iter().map(|_| nothing()).collect();
        let leaves = Arc::new(self.leaves(Window::ALL, &inputs));
        let state = session(TRIED_BYTES, &leaves, usual_rules())?;
        let mut nodes = vec![physical(&self.plan, leaves, &state)?];
        while let Some(node) = nodes.pop() {
            let functions = node.as_any().downcast_ref::<AggregateExec>().map(AggregateExec::aggr_expr);
            for function in functions.unwrap_or_default() {
                match function.groups_accumulator_supported() {
                    true => drop(function.create_groups_accumulator()?),
                    false => drop(function.create_accumulator()?),
                }
            }
            nodes.extend(node.children().into_iter().cloned());
        }
        Ok(())
    }

    /// What each scan sees of `inputs` for `slice`.
    pub(super) fn leaves(&self, slice: Window, inputs: &[Arc<dyn InputRows>]) -> Leaves {
        let mentioned = |at: usize, of: &Scan| {
            Some(Mentioned {
                rows: Arc::clone(inputs.get(of.input)?),
                input: self.inputs.get(of.input)?.schema(),
                picked: of.picked.clone(),
                window: of.reach.and_then(|reach| reach.around(slice)),
                is_anchor: self.is_anchor(at),
            })
        };
        let leaves = self.scans.iter().filter_map(|(at, of)| Some((*at, Arc::new(mentioned(*at, of)?)))).collect();
        Leaves { slice, leaves, most_rows: None }
    }

    /// The answer over `leaves` at once; plans are made by `rules`.
    pub(super) fn whole(&self, leaves: Leaves, bytes: usize, rules: Rules) -> Result<Answer, QueryError> {
        let failed = Failed { output: self.output.clone(), bytes };
        // What makes many rows of each takes a batch at once, and asks nobody for the memory.
        let most_rows = leaves.batch_rows(bytes).checked_div(self.hops).map(|rows| rows.max(1));
        let leaves = Leaves { most_rows, ..leaves };
        let state = session(bytes, &leaves, rules).map_err(|error| failed.query(error))?;
        let leaves = Arc::new(leaves);
        let planned = on_planning_thread(&self.output, || physical(&self.plan, leaves, &state))?;
        let plan = planned.map_err(|error| failed.query(error))?;
        let (schema, context) = (Arc::clone(&self.schema), state.task_ctx());
        let rows = futures::stream::once(async move { execute_stream(plan, context) }).try_flatten();
        let rows = AssertUnwindSafe(rows).catch_unwind().map(move |rows| {
            let rows = rows.unwrap_or_else(|panic| Err(DataFusionError::Execution(said(panic.as_ref()))));
            rows.and_then(|rows| cleaned(&rows, &schema)).map_err(|error| failed.query(error))
        });
        Ok(rows.boxed())
    }
}

/// An input without rows.
#[derive(Debug)]
struct NoRows;

impl InputRows for NoRows {
    fn open(&self) -> BoxStream<'static, Result<RecordBatch>> {
        futures::stream::empty().boxed()
    }

    fn rows(&self) -> usize {
        0
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// Says what a failure is about.
pub(super) struct Failed {
    pub(super) output: String,
    pub(super) bytes: usize,
}

impl Failed {
    pub(super) fn query(&self, error: DataFusionError) -> QueryError {
        let (output, bytes) = (self.output.clone(), self.bytes);
        if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
            return QueryError::Memory { output, bytes, source: Box::new(error) };
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(found) = cause {
            if found.is::<Unread>() {
                return QueryError::Unread { output, source: Box::new(error) };
            }
            cause = found.source();
        }
        QueryError::Evaluate { output, source: Box::new(error) }
    }
}

/// What every run has of its own: memory, no files, and the rules by which plans are made.
fn session(bytes: usize, leaves: &Leaves, rules: Rules) -> Result<SessionState> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    config.options_mut().execution.batch_size = leaves.batch_rows(bytes);
    let pool = TrackConsumersPool::new(GreedyMemoryPool::new(bytes), NAMED);
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk);
    let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime.build_arc()?);
    Ok(state.with_physical_optimizer_rules(rules).build())
}

fn physical(plan: &LogicalPlan, leaves: Arc<Leaves>, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = hops::cut(plan, leaves.slice)?;
    let planner = DefaultPhysicalPlanner::with_extension_planners(vec![leaves]);
    futures::executor::block_on(planner.create_physical_plan(&in_lengths(&plan)?, state))
}

/// What each scan of the plan sees.
#[derive(Clone)]
pub(super) struct Leaves {
    /// What is answered.
    slice: Window,
    /// By number of the scan.
    leaves: BTreeMap<usize, Arc<Mentioned>>,
    /// Rows that are passed on at a time; `None`: as many as come.
    most_rows: Option<usize>,
}

impl Leaves {
    /// What the scan of that number sees.
    pub(super) fn get(&self, scan: usize) -> Option<&Arc<Mentioned>> {
        self.leaves.get(&scan)
    }

    /// The scan of that number sees `rows` instead.
    pub(super) fn with(mut self, scan: usize, rows: Arc<dyn InputRows>) -> Self {
        if let Some(leaf) = self.leaves.get_mut(&scan) {
            *leaf = Arc::new(leaf.of(rows));
        }
        self
    }

    /// Anchors that are none of these have no rows.
    fn without_anchors_but(self, kept: &[(usize, Dealing)]) -> Self {
        let is_kept = |scan: &usize| kept.iter().any(|(at, _)| at == scan);
        let others = self.leaves.iter().filter(|(scan, leaf)| leaf.is_anchor && !is_kept(scan));
        let others: Vec<usize> = others.map(|(scan, _)| *scan).collect();
        others.into_iter().fold(self, |leaves, scan| leaves.with(scan, Arc::new(NoRows)))
    }

    /// How many rows a batch between operators has: room is made for them at once.
    fn batch_rows(&self, bytes: usize) -> usize {
        let width = |rows: &dyn InputRows| rows.bytes().div_ceil(rows.rows().max(1));
        let width: usize = self.leaves.values().map(|of| width(of.rows.as_ref())).sum();
        (bytes / BATCHES / width.max(1)).clamp(LEAST_ROWS, MOST_ROWS)
    }
}

#[async_trait]
impl ExtensionPlanner for Leaves {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        _: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        _: &[Arc<dyn ExecutionPlan>],
        _: &SessionState,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(None)
    }

    async fn plan_table_scan(
        &self,
        _: &dyn PhysicalPlanner,
        scan: &TableScan,
        _: &SessionState,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let marked = scan.source.as_any().downcast_ref::<Marked>();
        let mentioned = marked.and_then(|marked| self.leaves.get(&marked.at));
        let schema = Arc::clone(scan.projected_schema.inner());
        Ok(mentioned.map(|mentioned| Arc::new(MentionExec::new(Arc::clone(mentioned), schema, self.most_rows)) as _))
    }
}

/// `rows` in the types of the result.
fn cleaned(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)?)
}
