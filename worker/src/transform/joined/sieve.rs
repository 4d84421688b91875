//! Which rows of a source can matter to a join at all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::transform::error::QueryError;
use crate::transform::program::said;

/// Says of each row of a source whether it can matter.
#[derive(Debug)]
pub struct Sieve {
    output: String,
    schema: SchemaRef,
    condition: Option<Arc<dyn PhysicalExpr>>,
}

impl Sieve {
    /// For rows with the columns of `schema`; every row can matter where there is no condition.
    pub(super) fn new(output: &str, schema: SchemaRef, condition: Option<&Expr>) -> Result<Self, QueryError> {
        let plan = |condition: &Expr| {
            let columns = DFSchema::try_from(schema.as_ref().clone())?;
            create_physical_expr(condition, &columns, &ExecutionProps::new())
        };
        let condition = condition.map(plan).transpose().map_err(|error| QueryError::Plan {
            output: output.to_owned(),
            place: None,
            source: Box::new(error),
        })?;
        Ok(Self { output: output.to_owned(), schema, condition })
    }

    /// Which of `rows` can matter, never null; `None`: all of them. `rows` have the columns of
    /// [`super::JoinInput::columns`], in that order.
    ///
    /// # Errors
    /// Poison: the condition failed on a row, or the rows are not of that source.
    pub fn kept(&mut self, rows: &RecordBatch) -> Result<Option<BooleanArray>, QueryError> {
        let types =
            |schema: &SchemaRef| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if types(&rows.schema()) != types(&self.schema) {
            let what = format!("rows have the columns {}; the SQL was planned for {}", rows.schema(), self.schema);
            return Err(QueryError::Input { output: self.output.clone(), what });
        }
        let Some(condition) = &self.condition else { return Ok(None) };
        // As for a query over one source: kernels panic on some extreme values.
        let evaluated = catch_unwind(AssertUnwindSafe(|| mask(condition, rows)));
        let evaluated = evaluated.unwrap_or_else(|panic| Err(DataFusionError::Execution(said(panic.as_ref()))));
        let failed = |error| QueryError::Evaluate { output: self.output.clone(), source: Box::new(error) };
        evaluated.map(Some).map_err(failed)
    }
}

fn mask(condition: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
    let mask = condition.evaluate(rows)?.into_array(rows.num_rows())?;
    match mask.as_boolean_opt() {
        Some(mask) if mask.null_count() > 0 => Ok(prep_null_mask_filter(mask)),
        Some(mask) => Ok(mask.clone()),
        None => Err(DataFusionError::Execution(format!("a condition is {}, not a boolean", mask.data_type()))),
    }
}
