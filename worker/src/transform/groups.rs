//! What the text of a query may contain to group rows: GROUP BY, HAVING, and aggregates that do not depend on the order
//! of rows. Whether its groups lie in windows of event time is seen at the plan.

use datafusion::sql::sqlparser::ast::{DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, Select};
use std::ops::ControlFlow;

use super::catalog::{OF_DISTINCT, aggregates};
use super::screen::{Flow, Stop, refuse};

/// The GROUP BY of `select`, if there is one.
pub(super) fn grouped(select: &Select) -> ControlFlow<Stop, Option<&GroupByExpr>> {
    match &select.group_by {
        GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty() => {
            if let Some(having) = &select.having {
                refuse(having, "HAVING without GROUP BY is refused", "filter with WHERE")?;
            }
            ControlFlow::Continue(None)
        }
        by @ GroupByExpr::Expressions(_, modifiers) => {
            if !modifiers.is_empty() {
                refuse(by, "GROUP BY WITH … is refused", "write one output for each set of groups")?;
            }
            ControlFlow::Continue(Some(by))
        }
        GroupByExpr::All(_) => {
            refuse(
                select,
                "GROUP BY ALL is refused: columns that are added would change it",
                "name what is grouped by",
            )?;
            ControlFlow::Continue(None)
        }
    }
}

/// That the call `function` of the accepted aggregate `name` does not depend on the order of rows.
pub(super) fn aggregate(function: &Function, name: &str, at: &Expr) -> Flow {
    let FunctionArguments::List(list) = &function.args else {
        return refuse(at, format!("{name} without arguments is refused"), format!("write {name}(…)"));
    };
    if !list.clauses.is_empty() || !function.within_group.is_empty() || function.null_treatment.is_some() {
        let what = format!("{name} with ORDER BY, WITHIN GROUP or a treatment of nulls is refused");
        return refuse(at, what, "write it without: rows of a group have no order");
    }
    let distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
    if distinct && !OF_DISTINCT.contains(&name) {
        let what = format!("{name}(DISTINCT …) is refused");
        return refuse(at, what, format!("DISTINCT goes with {}", OF_DISTINCT.join(", ")));
    }
    Flow::Continue(())
}

/// Refuses an aggregate that is not on the list.
pub(super) fn other_aggregate(name: &str, at: &Expr) -> Flow {
    let what = format!("the aggregate {name} is refused: it depends on the order of rows, or is not exact");
    refuse(at, what, format!("use one of {}", aggregates()))
}
