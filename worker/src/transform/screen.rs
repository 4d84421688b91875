//! What the text of a query may contain: refuses, with its place, every construct that is evaluated neither row by row nor
//! group by group.
//!
//! It is the first of two looks. The second, at the logical plan, knows no places and misses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::planner::IdentNormalizer;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, Spanned, Statement,
    TableFactor, Value, Visit, Visitor,
};

use super::catalog::{Catalog, FunctionKind};
use super::error::{Place, Refusal};
use super::groups;
use super::joined::{HOPS, SERIES};
use super::limits::{MAX_DEPTH, MAX_MENTIONS};

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

/// Where things are in the text of a query.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// Where each table, or what it is called there, is first named.
    pub(super) tables: BTreeMap<String, Place>,
    /// Where each GROUP BY is.
    pub(super) groups: Vec<Place>,
    /// Where the first aggregate is.
    pub(super) aggregate: Option<Place>,
    /// Where the first UNNEST is.
    pub(super) unnest: Option<Place>,
}

impl Mentions {
    /// Where it aggregates: the GROUP BY, if there is one only, or the first aggregate, if there is none.
    pub(super) fn aggregated(&self) -> Option<Place> {
        match self.groups.as_slice() {
            [] => self.aggregate,
            [place] => Some(*place),
            _ => None,
        }
    }
}

/// Looks through `statement`; answers where things are in it.
pub(super) fn screen(statement: &Statement, catalog: &Catalog) -> Result<Mentions, Stop> {
    let mut look = Look {
        catalog,
        depth: 0,
        mentions: Mentions::default(),
        accepted: BTreeSet::new(),
        named: BTreeMap::new(),
        read: vec![0],
        reads: BTreeMap::new(),
    };
    match statement.visit(&mut look) {
        ControlFlow::Break(stop) => Err(stop),
        ControlFlow::Continue(()) => Ok(look.mentions),
    }
}

struct Look<'a> {
    catalog: &'a Catalog,
    depth: usize,
    mentions: Mentions,
    /// The EXISTS that are conditions of their own, and the series of windows that are made rows.
    accepted: BTreeSet<*const Expr>,
    /// The bodies of WITH, and their names.
    named: BTreeMap<*const Query, String>,
    /// How many mentions of sources each query that is being looked at reads.
    read: Vec<usize>,
    /// How many each name of WITH stands for, at most.
    reads: BTreeMap<String, usize>,
}

pub(super) type Flow = ControlFlow<Stop>;

pub(super) fn refuse(at: &impl Spanned, what: impl Into<String>, way_out: impl Into<String>) -> Flow {
    Flow::Break(Stop::Refused(Refusal::new(Place::of(at.span().start), what, way_out)))
}

fn when(found: bool, at: &impl Spanned, what: &str, way_out: &str) -> Flow {
    if found { refuse(at, format!("{what}: {FIXED_ROWS}"), way_out) } else { Flow::Continue(()) }
}

impl Visitor for Look<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        self.read.push(0);
        if let Some(with) = &query.with {
            if with.recursive {
                return refuse(query, "WITH RECURSIVE is refused", "write the query without recursion");
            }
            for body in &with.cte_tables {
                self.named.insert(std::ptr::from_ref(&*body.query), normal(body.alias.name.clone()));
            }
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

    fn post_visit_query(&mut self, query: &Query) -> Flow {
        let read = self.read.pop().unwrap_or(0);
        match self.named.remove(&std::ptr::from_ref(query)) {
            Some(name) => {
                let most = self.reads.entry(name).or_default();
                *most = read.max(*most);
                Flow::Continue(())
            }
            None => self.reads(read, query),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Flow {
        let name = relation.0.iter().filter_map(|part| part.as_ident()).cloned().map(normal).collect::<Vec<_>>();
        let name = name.join(".");
        let read = self.reads.get(&name).copied().unwrap_or(1);
        self.named_at(name, relation);
        self.reads(read, relation)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        if let TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } = factor
        {
            self.named_at(normal(alias.name.clone()), factor);
        }
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
            TableFactor::NestedJoin { table_with_joins, .. } => joins(&table_with_joins.joins),
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
            Expr::Exists { .. } if self.accepted.contains(&std::ptr::from_ref(expr)) => Flow::Continue(()),
            Expr::Exists { .. } => {
                let way_out = "make it a condition of its own in WHERE, joined with AND";
                refuse(expr, "EXISTS inside another expression is refused", way_out)
            }
            Expr::InSubquery { .. } => {
                let way_out = "write EXISTS (SELECT 1 FROM … WHERE …), with bounds in event time";
                refuse(expr, "IN (SELECT …) is refused", way_out)
            }
            Expr::Subquery(_) => refuse(expr, "a subquery for a value is refused", "join its source"),
            Expr::Function(function) => self.function(function, expr),
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                refuse(expr, "a parameter is refused", "write its value")
            }
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                refuse(expr, "GROUPING SETS, CUBE and ROLLUP are refused", "write one output for each set of groups")
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
    /// That these mentions are not too many.
    fn reads(&mut self, read: usize, at: &impl Spanned) -> Flow {
        let Some(reads) = self.read.last_mut() else { return Flow::Continue(()) };
        *reads = reads.saturating_add(read);
        if *reads > MAX_MENTIONS {
            let what = format!("it reads sources more than {MAX_MENTIONS} times");
            return refuse(at, what, "join fewer, or in several backfills");
        }
        Flow::Continue(())
    }

    fn named_at(&mut self, name: String, at: &impl Spanned) {
        if let Some(place) = Place::of(at.span().start) {
            self.mentions.tables.entry(name).or_insert(place);
        }
    }

    fn body(&mut self, body: &SetExpr) -> Flow {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(_) => Flow::Continue(()),
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, left, right } => {
                self.body(left)?;
                self.body(right)
            }
            SetExpr::SetOperation { op, .. } => {
                let word = match op {
                    SetOperator::Union => "UNION without ALL",
                    SetOperator::Except | SetOperator::Minus => "EXCEPT",
                    SetOperator::Intersect => "INTERSECT",
                };
                refuse(
                    body,
                    format!("{word} is refused: it compares all rows with all"),
                    "write UNION ALL, or NOT EXISTS",
                )
            }
            SetExpr::Values(_) => when(true, body, "VALUES is refused", "read a source"),
            _ => when(true, body, "a statement inside the query is refused", "write one SELECT over a source"),
        }
    }

    fn select(&mut self, select: &Select) -> Flow {
        if select.from.is_empty() {
            return refuse(select, "there is no FROM", "read a source");
        }
        select.from.iter().try_for_each(|from| joins(&from.joins))?;
        self.accepted.extend(
            select.selection.iter().flat_map(conditions).filter(|part| is_exists(part)).map(std::ptr::from_ref),
        );
        when(select.distinct.is_some(), select, "DISTINCT is refused", "take it out")?;
        when(select.top.is_some(), select, "TOP is refused", "filter with WHERE")?;
        if let Some(by) = groups::grouped(select)? {
            self.mentions.groups.extend(Place::of(by.span().start));
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
        when(odd, select, "only SELECT, FROM, WHERE, GROUP BY and HAVING are accepted", "take the other clauses out")?;
        select.projection.iter().for_each(|item| self.windows(item));
        unique(&select.projection)
    }

    /// Accepts a column that is unnest(generate_series(…)): what it is of is seen at the plan.
    fn windows(&mut self, item: &SelectItem) {
        let (SelectItem::UnnamedExpr(made) | SelectItem::ExprWithAlias { expr: made, .. }) = item else { return };
        let Some(series) = argument_of("unnest", made).filter(|of| argument_of(SERIES, of).is_some()) else { return };
        self.mentions.unnest = self.mentions.unnest.or(Place::of(made.span().start));
        self.accepted.extend([std::ptr::from_ref(made), std::ptr::from_ref(series)]);
    }

    fn function(&mut self, function: &Function, at: &Expr) -> Flow {
        let name = function.name.to_string().to_lowercase();
        if function.over.is_some() {
            return when(true, at, &format!("the window function {name} is refused"), "compute it from the table");
        }
        match self.catalog.function(&name) {
            _ if self.accepted.contains(&std::ptr::from_ref(at)) => Flow::Continue(()),
            None if name == "unnest" => refuse(at, "UNNEST is refused but for windows of event time", HOPS),
            Some(FunctionKind::Aggregate) => {
                self.mentions.aggregate = self.mentions.aggregate.or(Place::of(at.span().start));
                groups::aggregate(function, &name, at)
            }
            Some(FunctionKind::OtherAggregate) => groups::other_aggregate(&name, at),
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

/// That all of `joins` are built.
fn joins(joins: &[Join]) -> Flow {
    use JoinOperator::{CrossJoin, FullOuter, Inner, Left, LeftAnti, LeftOuter, LeftSemi, Right, RightOuter};
    for join in joins {
        let constraint = match &join.join_operator {
            JoinOperator::Join(constraint) | Inner(constraint) | CrossJoin(constraint) | Left(constraint) => constraint,
            LeftOuter(constraint) | Right(constraint) | RightOuter(constraint) => constraint,
            LeftSemi(constraint) | LeftAnti(constraint) => constraint,
            FullOuter(JoinConstraint::Using(_)) => {
                let what = "FULL JOIN with USING is refused: engines differ in which side its columns are of";
                return refuse(join, what, "write ON, and coalesce(a.key, b.key) where either is meant");
            }
            FullOuter(constraint) => constraint,
            _ => {
                return refuse(
                    join,
                    "this kind of join is refused",
                    "write INNER, LEFT, RIGHT or FULL JOIN, or EXISTS",
                );
            }
        };
        if matches!(constraint, JoinConstraint::Natural) {
            return refuse(join, "NATURAL JOIN is refused: columns that are added would change it", "write USING (…)");
        }
    }
    Flow::Continue(())
}

/// The conditions that must all be true for `selection` to be.
fn conditions(selection: &Expr) -> Vec<&Expr> {
    let (mut found, mut ahead) = (Vec::new(), vec![selection]);
    while let Some(next) = ahead.pop() {
        match next {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => ahead.extend([left.as_ref(), right.as_ref()]),
            Expr::Nested(inner) => ahead.push(inner),
            other => found.push(other),
        }
    }
    found
}

fn is_exists(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists { .. })
}

/// The first argument of `expr`, where it is a call of the function `name`.
fn argument_of<'a>(name: &str, expr: &'a Expr) -> Option<&'a Expr> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first() else { return None };
    function.name.to_string().eq_ignore_ascii_case(name).then_some(first)
}

fn short(args: &FunctionArguments) -> bool {
    let FunctionArguments::List(list) = args else { return false };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(length)))) = list.args.get(1) else { return false };
    matches!(&length.value, Value::Number(number, _) if number.parse::<u64>().is_ok_and(|n| n <= MAX_PADDING))
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
