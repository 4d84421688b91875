//! The closed list: which logical plans are run, and how large they may become.
//!
//! It looks at the plan as it was written, before the optimizer, so that nothing refused can be optimized away.

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Spans};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::catalog::{Catalog, FunctionKind};
use super::error::{Place, Refusal};
use super::limits::{MAX_DEPTH, MAX_PARTS};

/// Why a plan is not run.
pub(super) enum Unaccepted {
    /// It is outside the closed list or too large.
    Refused(Refusal),
    /// DataFusion cannot make sense of it.
    Plan(DataFusionError),
}

impl From<DataFusionError> for Unaccepted {
    fn from(error: DataFusionError) -> Self {
        Self::Plan(error)
    }
}

/// The name of the one source that `plan` scans, if everything in it is on the closed list.
pub(super) fn accept(plan: &LogicalPlan, catalog: &Catalog) -> Result<String, Unaccepted> {
    let (nodes, source) = nodes(plan)?;
    let mut total = 0_usize;
    let mut columns: Vec<Size> = Vec::new();
    for node in nodes.iter().rev() {
        match node {
            LogicalPlan::TableScan(scan) => columns = vec![Size::LEAF; scan.projected_schema.fields().len()],
            LogicalPlan::Filter(filter) => {
                pure(&filter.predicate, catalog)?;
                total =
                    total.saturating_add(measure(&filter.predicate, filter.input.schema(), &columns)?.bounded(total)?);
            }
            LogicalPlan::Projection(projection) => {
                let mut next = Vec::with_capacity(projection.expr.len());
                for expr in &projection.expr {
                    pure(expr, catalog)?;
                    let size = measure(expr, projection.input.schema(), &columns)?;
                    total = total.saturating_add(size.bounded(total)?);
                    next.push(size);
                }
                columns = next;
            }
            _ => {}
        }
    }
    Ok(source)
}

/// The nodes from the result down to the scan, and the name of what is scanned.
fn nodes(plan: &LogicalPlan) -> Result<(Vec<&LogicalPlan>, String), Unaccepted> {
    let mut nodes = Vec::new();
    let mut node = plan;
    loop {
        nodes.push(node);
        node = match node {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
                return Ok((nodes, scan.table_name.table().to_owned()));
            }
            other => return Err(Unaccepted::Refused(refused_node(other))),
        };
    }
}

fn refused_node(node: &LogicalPlan) -> Refusal {
    let (what, way_out) = match node {
        LogicalPlan::Join(_) => ("joins are not built yet", "read one source in each output"),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => ("it reads no source", "read a source"),
        _ => {
            return Refusal::new(
                None,
                format!("{} is refused", word(node)),
                "write SELECT, FROM one source and WHERE only",
            );
        }
    };
    Refusal::new(None, what, way_out)
}

fn word(node: &LogicalPlan) -> String {
    let shown = node.display().to_string();
    shown.split([':', ' ', '(']).next().unwrap_or_default().to_owned()
}

/// That `expr` gives the same value for the same row, and needs no other row.
fn pure(expr: &Expr, catalog: &Catalog) -> Result<(), Unaccepted> {
    let mut refused = None;
    expr.apply(|part| {
        refused = impure(part, catalog);
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match refused {
        Some(what) => {
            let place = place(expr.spans());
            Err(Unaccepted::Refused(Refusal::new(place, what, "compute every value from its row alone")))
        }
        None => Ok(()),
    }
}

fn impure(part: &Expr, catalog: &Catalog) -> Option<String> {
    let what = match part {
        Expr::ScalarFunction(function) => match catalog.function(function.name()) {
            Some(FunctionKind::Scalar | FunctionKind::Padding) => return None,
            _ => return Some(format!("the function {} is refused", function.name())),
        },
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::OuterReferenceColumn(..) => {
            "a subquery in an expression"
        }
        Expr::AggregateFunction(_) | Expr::GroupingSet(_) => "an aggregate",
        Expr::WindowFunction(_) => "a window function",
        Expr::Unnest(_) => "UNNEST",
        Expr::Placeholder(_) => "a parameter",
        Expr::ScalarVariable(..) => "a variable",
        _ => return None,
    };
    Some(format!("{what} is refused"))
}

/// The place of the first of these spans.
pub(super) fn place(spans: Option<&Spans>) -> Option<Place> {
    spans.and_then(Spans::first).map(|span| Place { line: span.start.line, column: span.start.column })
}

/// How large an expression is once everything it refers to is put in its place.
#[derive(Clone, Copy)]
struct Size {
    parts: usize,
    depth: usize,
}

impl Size {
    /// A column as it is read; passing it on costs nothing, however wide the source.
    const LEAF: Self = Self { parts: 0, depth: 1 };

    fn bounded(self, before: usize) -> Result<usize, Unaccepted> {
        let (what, limit) = match self {
            Self { depth, .. } if depth > MAX_DEPTH => ("levels", MAX_DEPTH),
            Self { parts, .. } if parts.saturating_add(before) > MAX_PARTS => ("parts", MAX_PARTS),
            _ => return Ok(self.parts),
        };
        let what = format!("with the inner SELECTs put in, the expressions have more than {limit} {what}");
        Err(Unaccepted::Refused(Refusal::new(None, what, "write it shorter")))
    }
}

fn measure(expr: &Expr, input: &DFSchema, columns: &[Size]) -> Result<Size> {
    if let Expr::Column(column) = expr {
        return Ok(columns.get(input.index_of_column(column)?).copied().unwrap_or(Size::LEAF));
    }
    let mut size = Size { parts: 1, depth: 0 };
    expr.apply_children(|child| {
        let child = measure(child, input, columns)?;
        size.parts = size.parts.saturating_add(child.parts);
        size.depth = size.depth.max(child.depth);
        Ok(TreeNodeRecursion::Continue)
    })?;
    size.depth = size.depth.saturating_add(1);
    Ok(size)
}

/// The first name that two columns of `schema` have.
pub(super) fn twice(schema: &Schema) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    schema.fields().iter().find(|field| !seen.insert(field.name())).map(|field| field.name().clone())
}
