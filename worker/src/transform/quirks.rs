//! What DataFusion (53.1) was seen to answer wrongly, and what keeps it from that. The tests that saw it are named; when
//! DataFusion is raised, take these away and look whether they still fail.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

/// The rules by which physical plans are made.
pub(super) type Rules = Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>;

/// DataFusion's own rules, but for those that push filters below joins: where the sides of an outer join were swapped, they
/// push a condition to the column of that name on the other side (`a_condition_on_what_was_not_met_is_of_its_own_side`). What
/// can be pushed down was before, by the logical plan.
pub(super) fn usual_rules() -> Rules {
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| !rule.name().starts_with("FilterPushdown"));
    rules
}

/// `plan`, the filters of whose aggregates are never null: `count` takes a null for true where the bit below it is set
/// (`a_filter_that_is_null_counts_nothing`).
pub(super) fn with_plain_filters(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plain = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(is_filtered) => {
            let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
            let aggr_expr = aggr_expr.into_iter().map(plain_filter).collect::<Result<_>>()?;
            let plain = Aggregate::try_new_with_schema(input, group_expr, aggr_expr, schema)?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(plain)))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(plain?.data)
}

fn is_filtered(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_filtered(&alias.expr),
        Expr::AggregateFunction(function) => function.params.filter.is_some(),
        _ => false,
    }
}

fn plain_filter(expr: Expr) -> Result<Expr> {
    let name = expr.schema_name().to_string();
    let plain = expr.transform_down(|part| match part {
        Expr::AggregateFunction(mut function) => {
            function.params.filter = function.params.filter.map(|filter| Box::new(Expr::IsTrue(filter)));
            Ok(Transformed::new(Expr::AggregateFunction(function), true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    });
    plain?.data.alias_if_changed(name)
}
