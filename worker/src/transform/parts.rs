//! What yields rows of several parts: FULL joins and UNION ALL.
//!
//! A FULL join is a LEFT join and, of its right side, what met nothing. Each row of either part is of one row of one side,
//! which a FULL join's are not; so it is taken apart before anything else looks at it.
//!
//! The columns of parts are given names of their own: DataFusion's optimizer (53.1) was seen to push a condition on a
//! column of a UNION ALL to a column of the same name on the wrong side of a join below, and to answer wrongly.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Projection, Union};

use super::error::Refusal;
use super::limits::MAX_MENTIONS;

/// `plan` without FULL joins, the columns of its parts named apart.
pub(super) fn taken_apart(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_parts(&plan)? {
        return Ok(plan);
    }
    let mut seen = 0_usize;
    let apart = plan.transform_up_with_subqueries(|node| {
        let apart = match node {
            LogicalPlan::Join(join) if join.join_type == JoinType::Full => {
                let (schema, parts) = (Arc::clone(&join.schema), full(&join)?);
                together(seen, parts, &schema)?
            }
            LogicalPlan::Union(union) => {
                let all = |part: &Arc<LogicalPlan>| part.schema().columns().into_iter().map(Expr::Column).collect();
                let parts = union.inputs.iter().map(|part| (all(part), Arc::clone(part))).collect();
                together(seen, parts, &union.schema)?
            }
            other => return Ok(Transformed::no(other.recompute_schema()?)),
        };
        seen += 1;
        Ok(Transformed::yes(apart))
    });
    Ok(apart?.data)
}

/// What is computed of a plan.
type Part = (Vec<Expr>, Arc<LogicalPlan>);

/// The rows of all `parts`, with the columns of `schema`; `number` is no other's of the plan.
fn together(number: usize, parts: Vec<Part>, schema: &DFSchema) -> Result<LogicalPlan> {
    let name = |at: usize| format!("$part{number}_{at}");
    let part = |(columns, of): Part| {
        let columns = columns.into_iter().enumerate().map(|(at, column)| column.alias(name(at)));
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns.collect(), of)?)))
    };
    let parts = parts.into_iter().map(part).collect::<Result<_>>()?;
    let union = LogicalPlan::Union(Union::try_new(parts)?);
    let back = |(at, column): (usize, Column)| {
        Expr::Column(Column::new_unqualified(name(at))).alias_qualified(column.relation, column.name)
    };
    let back = schema.columns().into_iter().enumerate().map(back).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(back, Arc::new(union))?))
}

/// The parts of a FULL join.
fn full(join: &Join) -> Result<Vec<Part>> {
    let columns = join.schema.columns();
    let of_left = join.left.schema().fields().len();
    let unmet = columns.iter().zip(join.schema.fields()).enumerate().map(|(at, (column, field))| match at < of_left {
        true => Ok(Expr::Literal(ScalarValue::try_from(field.data_type())?, None)),
        false => Ok(Expr::Column(column.clone())),
    });
    let unmet = unmet.collect::<Result<_>>()?;
    let met = columns.into_iter().map(Expr::Column).collect();
    Ok(vec![(met, of_type(join, JoinType::Left)?), (unmet, of_type(join, JoinType::RightAnti)?)])
}

fn of_type(join: &Join, kind: JoinType) -> Result<Arc<LogicalPlan>> {
    let (left, right) = (Arc::clone(&join.left), Arc::clone(&join.right));
    let (on, filter) = (join.on.clone(), join.filter.clone());
    let (constraint, nulls) = (join.join_constraint, join.null_equality);
    let of_type = Join::try_new(left, right, on, filter, kind, constraint, nulls, join.null_aware)?;
    Ok(Arc::new(LogicalPlan::Join(of_type)))
}

fn has_parts(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= match node {
            LogicalPlan::Join(join) => join.join_type == JoinType::Full,
            LogicalPlan::Union(_) => true,
            _ => false,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// That the sources are not read too often now: each FULL join reads both of its sides twice.
pub(super) fn bounded(plan: &LogicalPlan) -> Result<(), Refusal> {
    let mut mentions = 0_usize;
    let counted = plan.apply_with_subqueries(|node| {
        mentions += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        Ok(if mentions > MAX_MENTIONS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if counted.is_ok() && mentions <= MAX_MENTIONS {
        return Ok(());
    }
    let what =
        format!("it reads sources more than {MAX_MENTIONS} times, for a FULL JOIN reads both of its sides twice");
    Err(Refusal::new(None, what, "join fewer, or in several backfills"))
}
