//! What the text of a query may contain: refuses, with its place, every construct that is not evaluated row by row.
//!
//! It is the first of two looks. The second, at the logical plan, knows no places and misses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::planner::IdentNormalizer;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, Select,
    SelectItem, SetExpr, SetOperator, Spanned, Statement, TableFactor, Value, Visit, Visitor,
};

use super::catalog::{Catalog, FunctionKind};
use super::error::{Place, Refusal};
use super::limits::MAX_DEPTH;

/// The longest `lpad` and `rpad`.
const MAX_PADDING: u64 = 64 * 1024;
const FIXED_ROWS: &str = "an output of one source is computed row by row";

/// What stopped the look.
pub(super) enum Stop {
    /// A construct that is not evaluated row by row.
    Refused(Refusal),
    /// Two columns of one SELECT have this name.
    Twice(Option<Place>, String),
}

/// Where each table of a query is first named.
pub(super) type Mentions = BTreeMap<String, Place>;

/// Looks through `statement`; answers where its tables are named.
pub(super) fn screen(statement: &Statement, catalog: &Catalog) -> Result<Mentions, Stop> {
    let mut look = Look { catalog, depth: 0, mentions: Mentions::new() };
    match statement.visit(&mut look) {
        ControlFlow::Break(stop) => Err(stop),
        ControlFlow::Continue(()) => Ok(look.mentions),
    }
}

struct Look<'a> {
    catalog: &'a Catalog,
    depth: usize,
    mentions: Mentions,
}

type Flow = ControlFlow<Stop>;

fn refuse(at: &impl Spanned, what: impl Into<String>, way_out: impl Into<String>) -> Flow {
    Flow::Break(Stop::Refused(Refusal::new(Place::of(at.span().start), what, way_out)))
}

fn when(found: bool, at: &impl Spanned, what: &str, way_out: &str) -> Flow {
    if found { refuse(at, format!("{what}: {FIXED_ROWS}"), way_out) } else { Flow::Continue(()) }
}

impl Visitor for Look<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        if let Some(with) = &query.with
            && with.recursive
        {
            return refuse(query, "WITH RECURSIVE is refused", "write the query without recursion");
        }
        if let Some(order_by) = &query.order_by {
            return refuse(order_by, "ORDER BY is refused: rows are written as they are read", "take it out");
        }
        if let Some(limit) = &query.limit_clause {
            return refuse(
                limit,
                "LIMIT and OFFSET are refused: every row of the window is written",
                "filter with WHERE",
            );
        }
        if let Some(fetch) = &query.fetch {
            return refuse(fetch, "FETCH is refused: every row of the window is written", "filter with WHERE");
        }
        let odd = !query.locks.is_empty()
            || query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        when(odd, query, "a FOR, SETTINGS or FORMAT clause or a pipe is refused", "take it out")?;
        self.body(&query.body)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Flow {
        if let Some(place) = Place::of(relation.span().start) {
            let name = relation.0.iter().filter_map(|part| part.as_ident()).cloned().map(normal).collect::<Vec<_>>();
            self.mentions.entry(name.join(".")).or_insert(place);
        }
        Flow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        match factor {
            TableFactor::Table { args: Some(_), name, .. } => {
                refuse(factor, format!("the table function {name} is refused"), "read a source")
            }
            TableFactor::Table {
                args: None,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
                ..
            } => {
                let odd = !with_hints.is_empty()
                    || version.is_some()
                    || *with_ordinality
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || sample.is_some()
                    || !index_hints.is_empty();
                when(odd, factor, "a sample, version, partition or hint of a table is refused", "filter with WHERE")
            }
            TableFactor::Derived { lateral, sample, .. } => {
                when(*lateral || sample.is_some(), factor, "LATERAL and TABLESAMPLE are refused", "take it out")
            }
            TableFactor::NestedJoin { .. } => self.join(factor),
            TableFactor::UNNEST { .. } => when(true, factor, "UNNEST is refused", "take the elements by index"),
            _ => when(true, factor, "a table function, PIVOT or the like is refused", "read a source"),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let way_out = "take it apart, or write a chain of OR as IN (…)";
            return refuse(expr, format!("an expression is more than {MAX_DEPTH} levels deep"), way_out);
        }
        match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                refuse(expr, "a subquery in an expression is refused: joins are not built yet", "write the values out")
            }
            Expr::Function(function) => self.function(function, expr),
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                refuse(expr, "a parameter is refused", "write its value")
            }
            Expr::Prior(_) | Expr::MatchAgainst { .. } | Expr::InUnnest { .. } => {
                when(true, expr, "PRIOR, MATCH and IN UNNEST are refused", "use IN (…)")
            }
            _ => Flow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, _: &Expr) -> Flow {
        self.depth = self.depth.saturating_sub(1);
        Flow::Continue(())
    }
}

impl Look<'_> {
    fn body(&self, body: &SetExpr) -> Flow {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(_) => Flow::Continue(()),
            SetExpr::SetOperation { op, .. } => {
                let word = match op {
                    SetOperator::Union => "UNION",
                    SetOperator::Except | SetOperator::Minus => "EXCEPT",
                    SetOperator::Intersect => "INTERSECT",
                };
                refuse(body, format!("{word} is refused: an output reads its source once"), "write one output each")
            }
            SetExpr::Values(_) => when(true, body, "VALUES is refused", "read a source"),
            _ => when(true, body, "a statement inside the query is refused", "write one SELECT over a source"),
        }
    }

    fn select(&self, select: &Select) -> Flow {
        if select.from.is_empty() {
            return refuse(select, "there is no FROM", "read a source");
        }
        if let [_, other, ..] = select.from.as_slice() {
            return self.join(other);
        }
        if let Some(join) = select.from.first().and_then(|from| from.joins.first()) {
            return self.join(join);
        }
        when(select.distinct.is_some(), select, "DISTINCT is refused", "take it out")?;
        when(select.top.is_some(), select, "TOP is refused", "filter with WHERE")?;
        when(groups(&select.group_by), &select.group_by, "GROUP BY is refused", "aggregate the table afterwards")?;
        if let Some(having) = &select.having {
            return when(true, having, "HAVING is refused", "filter with WHERE");
        }
        if let Some(qualify) = &select.qualify {
            return when(true, qualify, "QUALIFY is refused", "filter with WHERE");
        }
        let odd = select.into.is_some()
            || select.prewhere.is_some()
            || select.value_table_mode.is_some()
            || select.select_modifiers.is_some()
            || select.optimizer_hint.is_some()
            || !select.lateral_views.is_empty()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || !select.named_window.is_empty();
        when(odd, select, "only SELECT, FROM and WHERE are accepted", "take the other clauses out")?;
        unique(&select.projection)
    }

    fn join(&self, at: &impl Spanned) -> Flow {
        refuse(at, "joins are not built yet", "read one source in each output")
    }

    fn function(&self, function: &Function, at: &Expr) -> Flow {
        let name = function.name.to_string().to_lowercase();
        if function.over.is_some() {
            return when(true, at, &format!("the window function {name} is refused"), "compute it from the table");
        }
        match self.catalog.function(&name) {
            None if name == "unnest" => when(true, at, "UNNEST is refused", "take the elements by index"),
            Some(FunctionKind::Aggregate) => {
                when(true, at, &format!("the aggregate {name} is refused"), "aggregate the table afterwards")
            }
            Some(FunctionKind::Window) => {
                when(true, at, &format!("the window function {name} is refused"), "compute it from the table")
            }
            Some(FunctionKind::Volatile) => {
                let what = format!("{name}() is refused: a row that is read again must come out the same");
                refuse(at, what, "derive the value from the row, for example with sha256")
            }
            Some(FunctionKind::Unbounded) => {
                refuse(at, format!("{name} is refused: its result can outgrow the memory"), "do without it")
            }
            Some(FunctionKind::Padding) if !short(&function.args) => {
                refuse(at, format!("{name} needs its length as a number of at most {MAX_PADDING}"), "write the number")
            }
            _ => Flow::Continue(()),
        }
    }
}

fn short(args: &FunctionArguments) -> bool {
    let FunctionArguments::List(list) = args else { return false };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(length)))) = list.args.get(1) else { return false };
    matches!(&length.value, Value::Number(number, _) if number.parse::<u64>().is_ok_and(|n| n <= MAX_PADDING))
}

fn groups(group_by: &GroupByExpr) -> bool {
    !matches!(group_by, GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty())
}

fn unique(items: &[SelectItem]) -> Flow {
    let mut seen = BTreeSet::new();
    for item in items {
        let name = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => normal(name.clone()),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => match parts.last() {
                Some(name) => normal(name.clone()),
                None => continue,
            },
            SelectItem::UnnamedExpr(expr) => expr.to_string(),
            SelectItem::ExprWithAlias { alias, .. } => normal(alias.clone()),
            _ => continue,
        };
        if !seen.insert(name.clone()) {
            return Flow::Break(Stop::Twice(Place::of(item.span().start), name));
        }
    }
    Flow::Continue(())
}

/// A name as DataFusion reads it: lower case unless quoted.
fn normal(name: Ident) -> String {
    IdentNormalizer::new(true).normalize(name)
}
