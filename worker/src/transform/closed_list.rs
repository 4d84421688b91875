//! The closed list: which logical plans are run, and how large they may become.
//!
//! It looks at the plan as it was written, before the optimizer, so that nothing refused can be optimized away.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Spans};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Exists};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, Union, Unnest};

use super::catalog::{Catalog, FunctionKind, OF_DISTINCT};
use super::error::{Place, Refusal};
use super::joined::{HOPS, SERIES, is_series};
use super::limits::{MAX_DEPTH, MAX_PARTS};
use super::screen::Mentions;

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

/// The name of the first source that `plan` scans, if everything in it is on the closed list.
pub(super) fn accept(plan: &LogicalPlan, catalog: &Catalog, mentions: &Mentions) -> Result<String, Unaccepted> {
    let mut look = Look { catalog, mentions, parts: 0, source: None, around: Vec::new() };
    look.columns(plan)?;
    look.source.ok_or_else(|| Unaccepted::Refused(Refusal::new(None, "it reads no source", "read a source")))
}

/// The first source that `plan` scans.
pub(super) fn scanned(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.table_name.table().to_owned()),
        other => other.inputs().into_iter().find_map(scanned),
    }
}

/// Whether what `plan` yields is not one row of its one source at a time.
pub(super) fn gathers(plan: &LogicalPlan) -> bool {
    use LogicalPlan::{Aggregate, Join, Union, Unnest};
    matches!(plan, Join(_) | Aggregate(_) | Union(_) | Unnest(_)) || plan.inputs().into_iter().any(gathers)
}

/// That `plan`, optimized, has no subquery left in an expression.
pub(super) fn decorrelated(plan: &LogicalPlan) -> Result<(), Refusal> {
    let left = |expr: &Expr| Ok(matches!(expr, Expr::Exists(_) | Expr::OuterReferenceColumn(..)));
    let found = plan.exists(|node| Ok(node.expressions().iter().any(|expr| expr.exists(left).unwrap_or(true))));
    if !found.unwrap_or(true) {
        return Ok(());
    }
    let what = "EXISTS is refused where DataFusion cannot make a join of it";
    Err(Refusal::new(None, what, "compare columns of its source with columns of the row, joined with AND"))
}

/// A plan that is looked through from its scans up.
struct Look<'a> {
    catalog: &'a Catalog,
    mentions: &'a Mentions,
    /// The parts of all expressions so far.
    parts: usize,
    source: Option<String>,
    /// What the rows around a subquery are, the nearest last.
    around: Vec<(DFSchemaRef, Vec<Size>)>,
}

impl Look<'_> {
    /// The sizes of the columns that `plan` yields.
    fn columns(&mut self, plan: &LogicalPlan) -> Result<Vec<Size>, Unaccepted> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
                self.source.get_or_insert_with(|| scan.table_name.table().to_owned());
                Ok(vec![Size::LEAF; scan.projected_schema.fields().len()])
            }
            LogicalPlan::SubqueryAlias(alias) => self.columns(&alias.input),
            LogicalPlan::Filter(filter) => {
                let columns = self.columns(&filter.input)?;
                for condition in split_conjunction(&filter.predicate) {
                    match condition {
                        Expr::Exists(exists) => self.subquery(exists, filter.input.schema(), &columns)?,
                        _ => drop(self.computed(condition, &[(filter.input.schema(), &columns)])?),
                    }
                }
                Ok(columns)
            }
            LogicalPlan::Projection(projection) => {
                let columns = self.columns(&projection.input)?;
                let input = projection.input.schema();
                projection.expr.iter().map(|expr| self.computed(expr, &[(input, &columns)])).collect()
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            other => Err(Unaccepted::Refused(refused_node(other))),
        }
    }

    fn join(&mut self, join: &Join) -> Result<Vec<Size>, Unaccepted> {
        use JoinType::{Full, Inner, Left, LeftAnti, LeftSemi, Right};
        if !matches!(join.join_type, Inner | Left | Right | Full | LeftSemi | LeftAnti) || join.null_aware {
            let what = format!("a {} join is refused", join.join_type);
            return Err(Unaccepted::Refused(Refusal::new(None, what, "write INNER, LEFT, RIGHT, FULL or EXISTS")));
        }
        let (mut left, right) = (self.columns(&join.left)?, self.columns(&join.right)?);
        let sides: [(&DFSchemaRef, &[Size]); 2] = [(join.left.schema(), &left), (join.right.schema(), &right)];
        for expr in join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter) {
            self.computed(expr, &sides)?;
        }
        if !matches!(join.join_type, LeftSemi | LeftAnti) {
            left.extend(right);
        }
        Ok(left)
    }

    fn union(&mut self, union: &Union) -> Result<Vec<Size>, Unaccepted> {
        let parts = union.inputs.iter().map(|part| self.columns(part)).collect::<Result<Vec<_>, _>>()?;
        let wider = |one: Vec<Size>, other: Vec<Size>| one.into_iter().zip(other).map(|(a, b)| a.or(b)).collect();
        Ok(parts.into_iter().reduce(wider).unwrap_or_default())
    }

    /// A row for each window that holds it: of a list that is made for it and bounded.
    fn unnest(&mut self, unnest: &Unnest) -> Result<Vec<Size>, Unaccepted> {
        let refused = || Unaccepted::Refused(unnested(self.mentions));
        let LogicalPlan::Projection(projection) = unnest.input.as_ref() else { return Err(refused()) };
        let ([(list, _)], []) = (unnest.list_type_columns.as_slice(), unnest.struct_type_columns.as_slice()) else {
            return Err(refused());
        };
        let columns = self.columns(&projection.input)?;
        let input = projection.input.schema();
        let mut sizes = Vec::with_capacity(projection.expr.len());
        for (at, expr) in projection.expr.iter().enumerate() {
            match unaliased(expr) {
                Expr::ScalarFunction(series) if at == *list && series.name() == SERIES && is_series(&series.args) => {
                    let of = series.args.iter().map(|arg| self.computed(arg, &[(input, &columns)]));
                    sizes.push(of.collect::<Result<Vec<_>, _>>()?.into_iter().fold(Size::LEAF, Size::or));
                }
                _ if at == *list => return Err(Unaccepted::Refused(unnested(self.mentions))),
                _ => sizes.push(self.computed(expr, &[(input, &columns)])?),
            }
        }
        Ok(unnest.dependency_indices.iter().map(|at| sizes.get(*at).copied().unwrap_or(Size::LEAF)).collect())
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Vec<Size>, Unaccepted> {
        if !self.around.is_empty() {
            let (what, way_out) = ("an aggregate inside EXISTS is refused", "ask whether there are rows, without it");
            return Err(Unaccepted::Refused(Refusal::new(self.mentions.aggregated(), what, way_out)));
        }
        let columns = self.columns(&aggregate.input)?;
        let input = aggregate.input.schema();
        let groups = aggregate.group_expr.iter().map(|expr| self.computed(expr, &[(input, &columns)]));
        let mut sizes = groups.collect::<Result<Vec<_>, _>>()?;
        for expr in &aggregate.aggr_expr {
            let function = self.accepted(expr)?;
            for part in function.params.args.iter().chain(function.params.filter.as_deref()) {
                self.computed(part, &[(input, &columns)])?;
            }
            // A value that is computed once for its group.
            sizes.push(Size::LEAF);
        }
        Ok(sizes)
    }

    /// The aggregate that `expr` is.
    fn accepted<'e>(&self, expr: &'e Expr) -> Result<&'e AggregateFunction, Unaccepted> {
        let of = |function: &AggregateFunction| {
            let params = &function.params;
            matches!(self.catalog.function(function.func.name()), Some(FunctionKind::Aggregate))
                && params.order_by.is_empty()
                && params.null_treatment.is_none()
                && (!params.distinct || OF_DISTINCT.contains(&function.func.name()))
        };
        match unaliased(expr) {
            Expr::AggregateFunction(function) if of(function) => Ok(function),
            other => {
                let what = format!("the aggregate {other} is refused");
                let refused = Refusal::new(self.mentions.aggregated(), what, "use another");
                Err(Unaccepted::Refused(refused))
            }
        }
    }

    fn subquery(&mut self, exists: &Exists, schema: &DFSchemaRef, columns: &[Size]) -> Result<(), Unaccepted> {
        self.around.push((Arc::clone(schema), columns.to_vec()));
        self.columns(&exists.subquery.subquery)?;
        self.around.pop();
        Ok(())
    }

    /// The size of `expr`, which is computed from `inputs`.
    fn computed(&mut self, expr: &Expr, inputs: &[(&DFSchemaRef, &[Size])]) -> Result<Size, Unaccepted> {
        pure(expr, self.catalog, !self.around.is_empty())?;
        let size_in = |schema: &DFSchema, sizes: &[Size], column: &Column| {
            sizes.get(schema.maybe_index_of_column(column)?).copied()
        };
        let size_of = |column: &Column, outer: bool| {
            let found = match outer {
                false => inputs.iter().find_map(|(schema, sizes)| size_in(schema, sizes, column)),
                true => self.around.iter().rev().find_map(|(schema, sizes)| size_in(schema, sizes, column)),
            };
            found.unwrap_or(Size::LEAF)
        };
        let size = measure(expr, &size_of)?;
        self.parts = self.parts.saturating_add(size.bounded(self.parts)?);
        Ok(size)
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

fn unnested(mentions: &Mentions) -> Refusal {
    Refusal::new(mentions.unnest, "UNNEST is refused but for windows of event time", HOPS)
}

fn refused_node(node: &LogicalPlan) -> Refusal {
    match node {
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
            Refusal::new(None, "it reads no source", "read a source")
        }
        _ => Refusal::new(
            None,
            format!("{} is refused", word(node)),
            "write SELECT, FROM, JOIN, WHERE, GROUP BY and UNION ALL only",
        ),
    }
}

fn word(node: &LogicalPlan) -> String {
    let shown = node.display().to_string();
    shown.split([':', ' ', '(']).next().unwrap_or_default().to_owned()
}

/// That `expr` gives the same value for the same row, and needs no other row; `correlated`: or the one around.
fn pure(expr: &Expr, catalog: &Catalog, correlated: bool) -> Result<(), Unaccepted> {
    let mut refused = None;
    expr.apply(|part| {
        refused = impure(part, catalog, correlated);
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

fn impure(part: &Expr, catalog: &Catalog, correlated: bool) -> Option<String> {
    let what = match part {
        Expr::OuterReferenceColumn(..) if correlated => return None,
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

    /// What holds for both.
    fn or(self, other: Self) -> Self {
        Self { parts: self.parts.max(other.parts), depth: self.depth.max(other.depth) }
    }

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

fn measure(expr: &Expr, size_of: &impl Fn(&Column, bool) -> Size) -> Result<Size> {
    match expr {
        Expr::Column(column) => return Ok(size_of(column, false)),
        Expr::OuterReferenceColumn(_, column) => return Ok(size_of(column, true)),
        _ => {}
    }
    let mut size = Size { parts: 1, depth: 0 };
    expr.apply_children(|child| {
        let child = measure(child, size_of)?;
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
