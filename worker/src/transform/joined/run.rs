//! The answer of a join for one slice.

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{LogicalPlan, TableScan, UserDefinedLogicalNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidegate_common::time::Window;

use super::join::Join;
use super::rows::{InputRows, MentionExec, Mentioned, Unread};
use super::walk::Marked;
use crate::transform::error::QueryError;
use crate::transform::limits::on_planning_thread;
use crate::transform::program::said;

/// Rows in a batch, at most.
const BATCH_ROWS: usize = 8 * 1024;
/// The consumers that an error about memory names.
const NAMED: NonZeroUsize = NonZeroUsize::MIN;

/// How a slice is joined.
#[derive(Clone, Copy, Debug)]
pub enum Effort<'a> {
    /// By hash tables in memory; ends with [`QueryError::Memory`] where they do not fit.
    InMemory {
        /// What may be held.
        bytes: usize,
    },
    /// By sorting both sides, and merging; what does not fit is in files meanwhile.
    Spilling {
        /// What may be held.
        bytes: usize,
        /// Where the files are; each is removed when it is done with.
        folder: &'a Path,
    },
}

impl Effort<'_> {
    fn bytes(self) -> usize {
        match self {
            Self::InMemory { bytes } | Self::Spilling { bytes, .. } => bytes,
        }
    }
}

impl Join {
    /// The answer for the anchor's rows in `slice`; `inputs` in the order of [`Join::inputs`]. Nothing is read before
    /// the first batch is asked for.
    ///
    /// # Errors
    /// There are more or fewer inputs, or DataFusion cannot plan it. The stream ends with an error where the rows
    /// cannot be read, an expression fails on one, or the memory does not do.
    pub fn run(
        &self,
        slice: Window,
        inputs: Vec<Arc<dyn InputRows>>,
        effort: Effort<'_>,
    ) -> Result<BoxStream<'static, Result<RecordBatch, QueryError>>, QueryError> {
        if inputs.len() != self.inputs.len() {
            let what = format!("it joins {} sources, and there are rows of {}", self.inputs.len(), inputs.len());
            return Err(QueryError::Input { output: self.output.clone(), what });
        }
        let failed = Failed { output: self.output.clone(), bytes: effort.bytes() };
        let state = session(effort, &inputs).map_err(|error| failed.query(error))?;
        let leaves = Arc::new(self.leaves(slice, &inputs));
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

    fn leaves(&self, slice: Window, inputs: &[Arc<dyn InputRows>]) -> Leaves {
        let mentioned = |of: &super::join::Scan| {
            Some(Arc::new(Mentioned {
                rows: Arc::clone(inputs.get(of.input)?),
                input: self.inputs.get(of.input)?.schema(),
                picked: of.picked.clone(),
                window: of.reach.around(slice),
            }))
        };
        Leaves(self.scans.iter().filter_map(|(at, of)| Some((*at, mentioned(of)?))).collect())
    }
}

/// Says what a failure is about.
struct Failed {
    output: String,
    bytes: usize,
}

impl Failed {
    fn query(&self, error: DataFusionError) -> QueryError {
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

/// What every run has of its own: memory, files, and the rules by which plans are made.
fn session(effort: Effort<'_>, inputs: &[Arc<dyn InputRows>]) -> Result<SessionState> {
    let bytes = effort.bytes();
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    let mut rules = PhysicalOptimizer::new().rules;
    let (pool, disk): (Arc<dyn MemoryPool>, _) = match effort {
        Effort::InMemory { .. } => {
            let pool = TrackConsumersPool::new(GreedyMemoryPool::new(bytes), NAMED);
            (Arc::new(pool), DiskManagerMode::Disabled)
        }
        Effort::Spilling { folder, .. } => {
            let options = config.options_mut();
            options.execution.batch_size = batch_rows(bytes, inputs);
            options.execution.sort_spill_reservation_bytes = bytes / 16;
            options.execution.sort_in_place_threshold_bytes = bytes / 16;
            rules.insert(0, Arc::new(Merged));
            let pool = TrackConsumersPool::new(FairSpillPool::new(bytes), NAMED);
            (Arc::new(pool), DiskManagerMode::Directories(vec![folder.to_path_buf()]))
        }
    };
    let disk = DiskManagerBuilder::default().with_mode(disk);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc()?;
    let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime);
    Ok(state.with_physical_optimizer_rules(rules).build())
}

/// So many that a merge of many files holds little of each.
fn batch_rows(bytes: usize, inputs: &[Arc<dyn InputRows>]) -> usize {
    let widest = inputs.iter().map(|input| input.bytes().div_ceil(input.rows().max(1))).max().unwrap_or(0);
    (bytes / 256 / widest.max(1)).clamp(64, BATCH_ROWS)
}

fn physical(plan: &LogicalPlan, leaves: Arc<Leaves>, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    let planner = DefaultPhysicalPlanner::with_extension_planners(vec![leaves]);
    futures::executor::block_on(planner.create_physical_plan(plan, state))
}

/// The rows of each scan of the plan, by its number.
struct Leaves(std::collections::BTreeMap<usize, Arc<Mentioned>>);

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
        let mentioned = marked.and_then(|marked| self.0.get(&marked.at));
        let schema = Arc::clone(scan.projected_schema.inner());
        Ok(mentioned.map(|mentioned| Arc::new(MentionExec::new(Arc::clone(mentioned), schema)) as _))
    }
}

/// Makes hash joins into joins that sort and merge: these spill.
#[derive(Debug)]
struct Merged;

impl PhysicalOptimizerRule for Merged {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let merged = plan.transform_up(|node| {
            let Some(join) = node.as_any().downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
            let merged = SortMergeJoinExec::try_new(
                Arc::clone(join.left()),
                Arc::clone(join.right()),
                join.on().to_vec(),
                join.filter().cloned(),
                *join.join_type(),
                vec![SortOptions::default(); join.on().len()],
                join.null_equality(),
            )?;
            Ok(Transformed::yes(Arc::new(merged) as Arc<dyn ExecutionPlan>))
        });
        Ok(merged?.data)
    }

    fn name(&self) -> &'static str {
        "merged"
    }

    fn schema_check(&self) -> bool {
        true
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
