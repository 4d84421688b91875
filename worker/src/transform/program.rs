//! A planned query as a short list of stages, and the loop that runs it over batches.
//!
//! A stage is a filter and a projection. The filter drops rows only of the columns that its projection uses; a plain
//! column goes through a projection as it is. Nothing is kept between batches.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{FilterBuilder, FilterPredicate};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, lit};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::error::QueryError;

type Computed = Arc<dyn PhysicalExpr>;

/// What is done with each batch.
#[derive(Debug)]
pub(super) struct Program {
    /// What is read, as ascending indices into the source.
    pub(super) columns: Vec<usize>,
    /// Conditions that every row of the result fulfils.
    pub(super) filters: Vec<Expr>,
    /// What the first stage sees: `columns`, in the order of the plan.
    input: SchemaRef,
    /// None where no row can pass.
    stages: Option<Vec<Stage>>,
    /// What the last stage yields.
    pub(super) schema: SchemaRef,
}

impl Program {
    /// From an optimized plan whose form before optimization is on the closed list.
    pub(super) fn lower(plan: &LogicalPlan) -> Result<Self> {
        let (nodes, scan) = chain(plan)?;
        let Some(scan) = scan else { return Ok(Self::nothing(plan)) };
        let read = scan.projection.clone().unwrap_or_else(|| (0..scan.source.schema().fields().len()).collect());
        let input = Arc::new(scan.source.schema().project(&read)?.with_metadata(Default::default()));
        let mut lowering = Lowering { seen: Arc::clone(&input), predicate: None, stages: Vec::new() };
        for node in nodes {
            match node {
                LogicalPlan::Filter(filter) => lowering.filter(physical(&filter.predicate, &filter.input)?)?,
                LogicalPlan::Projection(projection) => {
                    let exprs = projection.expr.iter().map(|expr| physical(expr, &projection.input));
                    lowering.project(exprs.collect::<Result<_>>()?, projection.schema.as_arrow())?;
                }
                _ => {}
            }
        }
        let (stages, schema) = lowering.finish(plan.schema().as_arrow())?;
        let mut columns = read;
        columns.sort_unstable();
        Ok(Self { columns, filters: unnormalize_cols(scan.filters.clone()), input, stages: Some(stages), schema })
    }

    /// For a plan that the optimizer has seen through: it yields no row, whatever is read.
    fn nothing(plan: &LogicalPlan) -> Self {
        let fields =
            plan.schema().fields().iter().map(|field| Field::new(field.name(), plain(field.data_type()), true));
        Self {
            columns: Vec::new(),
            filters: vec![lit(false)],
            input: Arc::new(Schema::empty()),
            stages: None,
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        }
    }

    /// The places in the result of the columns that are `column` of the source as it is.
    pub(super) fn copies_of(&self, column: &str) -> Vec<usize> {
        let Ok(index) = self.input.index_of(column) else { return Vec::new() };
        let stages = self.stages.as_deref().unwrap_or_default();
        stages.iter().fold(vec![index], |copies, stage| {
            let is_copy = |index: usize| stage.copied(index).is_some_and(|from| copies.contains(&from));
            (0..stage.exprs.len()).filter(|index| is_copy(*index)).collect()
        })
    }

    fn run(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let Some(stages) = &self.stages else { return Ok(self.no_rows()) };
        let mut batch = batch;
        for stage in stages {
            if batch.num_rows() == 0 {
                return Ok(self.no_rows());
            }
            batch = stage.run(batch)?;
        }
        Ok(batch)
    }

    fn no_rows(&self) -> RecordBatch {
        RecordBatch::new_empty(Arc::clone(&self.schema))
    }
}

/// The nodes of `plan` from the scan up, and the scan; no scan where the leaf is known to be empty.
fn chain(plan: &LogicalPlan) -> Result<(Vec<&LogicalPlan>, Option<&TableScan>)> {
    let mut nodes = Vec::new();
    let mut node = plan;
    let scan = loop {
        nodes.push(node);
        node = match node {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => break Some(scan),
            LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => break None,
            other => return Err(DataFusionError::Plan(format!("this cannot be run row by row: {}", other.display()))),
        };
    };
    nodes.reverse();
    Ok((nodes, scan))
}

fn physical(expr: &Expr, input: &LogicalPlan) -> Result<Computed> {
    create_physical_expr(expr, input.schema(), &ExecutionProps::new())
}

/// A program under construction, from the scan up.
struct Lowering {
    /// What the next stage sees.
    seen: SchemaRef,
    predicate: Option<Computed>,
    stages: Vec<Stage>,
}

impl Lowering {
    fn filter(&mut self, predicate: Computed) -> Result<()> {
        if self.predicate.is_some() {
            let (all, seen) = (all(&self.seen), Arc::clone(&self.seen));
            self.project(all, &seen)?;
        }
        self.predicate = Some(predicate);
        Ok(())
    }

    fn project(&mut self, exprs: Vec<Computed>, names: &Schema) -> Result<()> {
        let stage = Stage::new(self.predicate.take(), exprs, names, &self.seen)?;
        self.seen = Arc::clone(&stage.schema);
        self.stages.push(stage);
        Ok(())
    }

    /// Makes the last stage yield plain types only.
    fn finish(mut self, names: &Schema) -> Result<(Vec<Stage>, SchemaRef)> {
        if self.predicate.is_some() || self.stages.is_empty() {
            self.project(all(&self.seen), names)?;
        }
        let Some(last) = self.stages.last_mut() else { return Ok((self.stages, self.seen)) };
        let mut fields = Vec::with_capacity(last.exprs.len());
        for (expr, field) in last.exprs.iter_mut().zip(last.schema.fields()) {
            let to = plain(field.data_type());
            if &to != field.data_type() {
                *expr = Arc::new(CastExpr::new(Arc::clone(expr), to.clone(), None));
            }
            fields.push(Field::new(field.name(), to, field.is_nullable()));
        }
        last.schema = Arc::new(Schema::new(fields));
        let schema = Arc::clone(&last.schema);
        Ok((self.stages, schema))
    }
}

/// Every column as it is.
fn all(schema: &Schema) -> Vec<Computed> {
    let columns = schema.fields().iter().enumerate();
    columns.map(|(index, field)| Arc::new(Column::new(field.name(), index)) as Computed).collect()
}

/// The type that stands for `data_type` outside the engine: no view, no dictionary, no run ends.
pub(super) fn plain(data_type: &DataType) -> DataType {
    let inner = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(plain(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(inner(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(inner(item), *length),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// A filter, then a projection.
#[derive(Debug)]
struct Stage {
    predicate: Option<Computed>,
    /// Where there is a filter: the columns that `exprs` see, by index before it, and their schema.
    kept: Vec<usize>,
    kept_schema: SchemaRef,
    exprs: Vec<Computed>,
    schema: SchemaRef,
}

impl Stage {
    fn new(predicate: Option<Computed>, exprs: Vec<Computed>, names: &Schema, seen: &Schema) -> Result<Self> {
        let fields = exprs
            .iter()
            .zip(names.fields())
            .map(|(expr, name)| Ok(Field::new(name.name(), expr.data_type(seen)?, expr.nullable(seen)?)));
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        let used: BTreeSet<usize> = exprs.iter().flat_map(collect_columns).map(|column| column.index()).collect();
        let kept: Vec<usize> = used.into_iter().collect();
        let kept_schema = Arc::new(seen.project(&kept)?);
        let exprs = match predicate {
            Some(_) => exprs.into_iter().map(|expr| rebase(expr, &kept)).collect::<Result<_>>()?,
            None => exprs,
        };
        Ok(Self { predicate, kept, kept_schema, exprs, schema })
    }

    fn run(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let batch = match &self.predicate {
            Some(predicate) => self.filter(predicate, &batch)?,
            None => batch,
        };
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let columns = self.exprs.iter().map(|expr| expr.evaluate(&batch)?.into_array(rows));
        with_rows(&self.schema, columns.collect::<Result<_>>()?, rows)
    }

    /// The place before this stage of the column that stands at `index` behind it as it was.
    fn copied(&self, index: usize) -> Option<usize> {
        let place = self.exprs.get(index)?.as_any().downcast_ref::<Column>()?.index();
        if self.predicate.is_some() { self.kept.get(place).copied() } else { Some(place) }
    }

    /// The rows for which `predicate` is true, of the kept columns.
    fn filter(&self, predicate: &Computed, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mask = predicate.evaluate(batch)?.into_array(rows)?;
        let Some(mask) = mask.as_boolean_opt() else {
            return Err(DataFusionError::Execution(format!("a condition is {}, not a boolean", mask.data_type())));
        };
        let passed = mask.true_count();
        if passed == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.kept_schema)));
        }
        let kept = self.kept.iter().map(|index| batch.column(*index));
        if passed == rows {
            return with_rows(&self.kept_schema, kept.map(Arc::clone).collect(), rows);
        }
        let rows_that_pass = selection(mask, self.kept.len());
        let columns = kept.map(|column| rows_that_pass.filter(column.as_ref()));
        with_rows(&self.kept_schema, columns.collect::<Result<_, _>>()?, passed)
    }
}

/// Prepared once where several columns are filtered by it.
fn selection(mask: &arrow::array::BooleanArray, columns: usize) -> FilterPredicate {
    let builder = FilterBuilder::new(mask);
    if columns > 1 { builder.optimize().build() } else { builder.build() }
}

fn with_rows(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// `expr` over the columns `kept` of what it was over.
fn rebase(expr: Computed, kept: &[usize]) -> Result<Computed> {
    let moved = expr.transform_up(|part| {
        let Some(column) = part.as_any().downcast_ref::<Column>() else { return Ok(Transformed::no(part)) };
        let Ok(index) = kept.binary_search(&column.index()) else { return Ok(Transformed::no(part)) };
        Ok(Transformed::yes(Arc::new(Column::new(column.name(), index)) as Computed))
    })?;
    Ok(moved.data)
}

/// What a panic said.
pub(super) fn said(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("an expression panicked: {}", said.unwrap_or("it did not say why"))
}

/// A query over batches of one schema.
#[derive(Debug)]
pub struct Running {
    output: String,
    program: Arc<Program>,
    input: SchemaRef,
    /// Where in `input` the columns of the program are; `None` where they are all of it, in order.
    picked: Option<Vec<usize>>,
}

impl Running {
    pub(super) fn new(output: String, program: Arc<Program>, input: SchemaRef) -> Result<Self, QueryError> {
        let mut picked = Vec::with_capacity(program.input.fields().len());
        for wanted in program.input.fields() {
            let found =
                input.column_with_name(wanted.name()).filter(|(_, field)| field.data_type() == wanted.data_type());
            match found {
                Some((index, _)) => picked.push(index),
                None => {
                    let there = input.column_with_name(wanted.name());
                    let there = there.map_or("is missing".to_owned(), |(_, field)| format!("is {}", field.data_type()));
                    let what =
                        format!("column {} {there}; the SQL was planned for {}", wanted.name(), wanted.data_type());
                    return Err(QueryError::Input { output, what });
                }
            }
        }
        let as_is = picked.iter().copied().eq(0..input.fields().len());
        Ok(Self { output, program, input, picked: (!as_is).then_some(picked) })
    }

    /// The rows of the result that come from `batch`, in its order; exactly the schema of [`super::Query::schema`].
    ///
    /// # Errors
    /// Poison: an expression failed on a row, or the batch is not what was started over.
    pub fn push(&mut self, batch: RecordBatch) -> Result<RecordBatch, QueryError> {
        if batch.num_columns() != self.input.fields().len() {
            let (found, wanted) = (batch.num_columns(), self.input.fields().len());
            let what = format!("a batch has {found} columns, not {wanted}");
            return Err(QueryError::Input { output: self.output.clone(), what });
        }
        // Kernels panic on some extreme values (date_trunc outside 1677 to 2262 is one): that is the row's fault.
        let evaluated = catch_unwind(AssertUnwindSafe(|| self.evaluate(batch)));
        let evaluated = evaluated.unwrap_or_else(|panic| Err(DataFusionError::Execution(said(panic.as_ref()))));
        evaluated.map_err(|error| QueryError::Evaluate { output: self.output.clone(), source: Box::new(error) })
    }

    fn evaluate(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let (_, all, _) = batch.into_parts();
        let columns = match &self.picked {
            Some(picked) => picked.iter().filter_map(|index| all.get(*index)).map(Arc::clone).collect(),
            None => all,
        };
        self.program.run(with_rows(&self.program.input, columns, rows)?)
    }
}
