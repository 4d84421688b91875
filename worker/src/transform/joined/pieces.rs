//! A join in less memory than either side takes.
//!
//! Every row of a result is of one row of the anchor. So the anchor's rows are cut into pieces that fit, each piece is
//! built into the hash tables, and everything else goes by it, read anew for each piece. A piece that does not fit after
//! all, for each of its rows meets many below another join, is halved: hash tables are complete before the first row
//! comes out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::join::Join;
use super::rows::{InputRows, MentionExec, Unread};
use super::run::{Answer, Failed, Leaves};
use crate::transform::error::QueryError;
use crate::transform::quirks::{Rules, usual_rules};

/// The share of the memory that a piece has before it is built into tables.
const SHARE: usize = 4;

/// The answer of `join` over `leaves`, of which `anchor` alone decides about rows, within `bytes`.
pub(super) fn answer(join: Join, leaves: Leaves, anchor: usize, bytes: usize) -> Answer {
    let pieces = Pieces { join, leaves, anchor, bytes, unread: None, ahead: Vec::new(), running: None };
    futures::stream::try_unfold(pieces, |mut pieces| async move { Ok(pieces.next().await?.map(|rows| (rows, pieces))) })
        .boxed()
}

struct Pieces {
    join: Join,
    leaves: Leaves,
    /// Its scan.
    anchor: usize,
    bytes: usize,
    /// What is still to be read of the anchor; none before it is opened.
    unread: Option<BoxStream<'static, Result<RecordBatch, DataFusionError>>>,
    /// What is read, and not joined.
    ahead: Vec<Piece>,
    running: Option<(Piece, Answer)>,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        loop {
            let (piece, mut answer) = match self.running.take() {
                Some(running) => running,
                None => match self.start().await? {
                    Some(started) => started,
                    None => return Ok(None),
                },
            };
            match answer.next().await {
                Some(Ok(rows)) => {
                    // From now on it cannot begin anew.
                    self.running = Some((Piece::default(), answer));
                    return Ok(Some(rows));
                }
                Some(Err(error)) if error.is_memory() && piece.rows() > 1 => {
                    self.ahead.extend(piece.halves().map_err(|error| self.failed().query(error))?);
                }
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
    }

    async fn start(&mut self) -> Result<Option<(Piece, Answer)>, QueryError> {
        let piece = match self.ahead.pop() {
            Some(piece) => piece,
            None => self.read().await.map_err(|error| self.failed().query(error))?,
        };
        if piece.rows() == 0 {
            return Ok(None);
        }
        let leaves = self.leaves.clone().with(self.anchor, Arc::new(piece.clone()));
        let answer = self.join.whole(leaves, self.bytes, rules())?;
        Ok(Some((piece, answer)))
    }
}

impl Pieces {
    /// The anchor's next rows, as many as may become one piece; no rows where it is done.
    async fn read(&mut self) -> Result<Piece> {
        let most = (self.bytes / SHARE).max(1);
        let Some(anchor) = self.leaves.get(self.anchor) else { return Ok(Piece::default()) };
        let unread = self.unread.get_or_insert_with(|| anchor.rows.open());
        let (mut piece, mut held) = (Piece::default(), 0_usize);
        while held < most {
            let Some(batch) = unread.next().await else { break };
            let batch = batch.map_err(|error| DataFusionError::External(Box::new(Unread(error))))?;
            let rows = anchor.within(&batch)?;
            if rows.num_rows() > 0 {
                held = held.saturating_add(get_record_batch_memory_size(&rows));
                piece.0.push(rows);
            }
        }
        Ok(piece)
    }

    fn failed(&self) -> Failed {
        Failed { output: self.join.output.clone(), bytes: self.bytes }
    }
}

/// Some of the anchor's rows.
#[derive(Clone, Debug, Default)]
struct Piece(Vec<RecordBatch>);

impl Piece {
    /// Two pieces with the same rows between them, each in memory of its own size.
    fn halves(mut self) -> Result<[Self; 2]> {
        if let [batch] = self.0.as_slice() {
            let middle = batch.num_rows() / 2;
            let parts = [batch.slice(0, middle), batch.slice(middle, batch.num_rows() - middle)];
            let [first, second] = parts.map(|part| copied(&part));
            return Ok([Self(vec![first?]), Self(vec![second?])]);
        }
        let second = self.0.split_off(self.0.len() / 2);
        Ok([self, Self(second)])
    }
}

impl InputRows for Piece {
    fn open(&self) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
        futures::stream::iter(self.0.clone().into_iter().map(Ok)).boxed()
    }

    fn rows(&self) -> usize {
        self.0.iter().map(RecordBatch::num_rows).sum()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(get_record_batch_memory_size).sum()
    }
}

/// `rows` without what they are a slice of.
fn copied(rows: &RecordBatch) -> Result<RecordBatch> {
    let all: UInt64Array = (0..u64::try_from(rows.num_rows()).unwrap_or(u64::MAX)).collect();
    let copied = take_record_batch(rows, &all)?;
    let lean = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    Ok(RecordBatch::try_new(copied.schema(), copied.columns().iter().map(lean).collect())?)
}

/// The usual rules, but that the anchor's side is what tables are built of, however large the other is.
pub(super) fn rules() -> Rules {
    let chosen = |rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>| match rule.name() {
        "join_selection" => Arc::new(OfAnchor) as _,
        _ => rule,
    };
    usual_rules().into_iter().map(chosen).collect()
}

#[derive(Debug)]
struct OfAnchor;

impl PhysicalOptimizerRule for OfAnchor {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let turned = plan.transform_up(|node| {
            let swapped = match node.as_any().downcast_ref::<HashJoinExec>() {
                Some(join) if has_anchor(join.right()) => Some(join.swap_inputs(PartitionMode::CollectLeft)?),
                Some(join) if !has_anchor(join.left()) && is_smaller(join.right(), join.left())? => {
                    Some(join.swap_inputs(PartitionMode::CollectLeft)?)
                }
                _ => None,
            };
            Ok(swapped.map_or_else(|| Transformed::no(Arc::clone(&node)), Transformed::yes))
        });
        Ok(turned?.data)
    }

    fn name(&self) -> &'static str {
        "of_anchor"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn has_anchor(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let leaf = plan.as_any().downcast_ref::<MentionExec>();
    leaf.is_some_and(|leaf| leaf.mentioned.is_anchor) || plan.children().into_iter().any(has_anchor)
}

fn is_smaller(a: &Arc<dyn ExecutionPlan>, b: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let bytes = |of: &Arc<dyn ExecutionPlan>| Ok::<_, DataFusionError>(of.partition_statistics(None)?.total_byte_size);
    Ok(bytes(a)?.get_value().zip(bytes(b)?.get_value()).is_some_and(|(a, b)| a < b))
}
