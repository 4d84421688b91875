//! Conditions of joins in plain numbers: a time plus or minus an interval goes by the calendar, for every pair of rows
//! that a condition is asked about. In UTC an interval without months is a length, and adding that is one addition.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::bounds::{in_utc, micros};

/// The same plan, the intervals in the conditions of its joins lengths.
pub(super) fn in_lengths(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let conditions = |node: LogicalPlan| match node {
        LogicalPlan::Join(mut join) => {
            let schema = join.left.schema().join(join.right.schema());
            let Ok(schema) = schema else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
            let filter = join.filter.take().map(|filter| filter.transform_up(|expr| Ok(in_length(expr, &schema))));
            let filter = filter.transpose()?;
            let is_changed = filter.as_ref().is_some_and(|filter| filter.transformed);
            join.filter = filter.map(|filter| filter.data);
            Ok(Transformed::new_transformed(LogicalPlan::Join(join), is_changed))
        }
        node => Ok(Transformed::no(node)),
    };
    Ok(plan.clone().transform_up(conditions)?.data)
}

/// A sum of a time and an interval, by its length; every other expression as it is.
fn in_length(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let length_of = |time: &Expr, by: &Expr| {
        let is_plain =
            matches!(time.get_type(schema), Ok(of @ DataType::Timestamp(TimeUnit::Microsecond, _)) if in_utc(&of));
        let length = micros(by).filter(|_| is_plain && matches!(by.get_type(schema), Ok(DataType::Interval(_))))?;
        Some(Box::new(Expr::Literal(ScalarValue::DurationMicrosecond(Some(length)), None)))
    };
    let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) = expr else {
        return Transformed::no(expr);
    };
    let (left, right, is_changed) = match (length_of(&left, &right), length_of(&right, &left)) {
        (Some(length), _) => (left, length, true),
        (None, Some(length)) if op == Operator::Plus => (right, length, true),
        _ => (left, right, false),
    };
    Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), is_changed)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, IntervalMonthDayNano, Schema};
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn days(months: i32, days: i32) -> Expr {
        lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, 1_000))))
    }

    #[test]
    fn an_interval_beside_a_time_in_utc_is_its_length_and_no_other_is() {
        let zoned = |zone: &str| DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        let fields = [("utc", zoned("UTC")), ("there", zoned("America/New_York")), ("day", DataType::Date32)];
        let fields = fields.map(|(name, of)| Field::new(name, of, true)).to_vec();
        let schema = DFSchema::try_from(Schema::new(fields)).unwrap();
        let length = || lit(ScalarValue::DurationMicrosecond(Some(2 * 86_400_000_000 + 1)));
        for (expr, expected) in [
            (col("utc") - days(0, 2), col("utc") - length()),
            (col("utc") + days(0, 2), col("utc") + length()),
            (days(0, 2) + col("utc"), col("utc") + length()),
        ] {
            let found = in_length(expr, &schema);
            assert_eq!((found.data, found.transformed), (expected, true));
        }
        for same in
            [col("utc") - days(1, 2), col("there") - days(0, 2), col("day") - days(0, 2), col("utc") - col("utc")]
        {
            let found = in_length(same.clone(), &schema);
            assert_eq!((found.data, found.transformed), (same, false));
        }
    }
}
