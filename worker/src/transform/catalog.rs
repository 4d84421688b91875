//! What SQL can see: the sources by name, DataFusion's pure scalar functions, and nothing else.
//!
//! There is deliberately no session behind it: no catalogue, no `information_schema`, no variable, no table function, no
//! work table for recursion, no window function, and no aggregate but those whose value is the same for the same rows in
//! any order.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, ScalarUDF, TableProviderFilterPushDown, TableSource, Volatility, WindowUDF,
};
use datafusion::sql::TableReference;

use super::query::SourceTable;

/// Functions whose result is not bounded by what they are given: one short row could fill the memory.
const UNBOUNDED: [&str; 6] = ["repeat", "space", "array_repeat", "array_resize", "range", "generate_series"];

/// Functions whose result is as long as their second argument says.
const PADDING: [&str; 2] = ["lpad", "rpad"];

/// Aggregates that are accepted: exact, and the same for the same rows in any order, but for the last bits of what is
/// computed of floats.
const AGGREGATES: [&str; 18] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "median",
    "corr",
    "covar_samp",
    "covar_pop",
];

/// Those of them that are accepted with DISTINCT.
pub(super) const OF_DISTINCT: [&str; 3] = ["count", "sum", "avg"];

/// What a function name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FunctionKind {
    /// One row in, one value out.
    Scalar,
    /// Another value each time.
    Volatile,
    /// A result as long as it likes.
    Unbounded,
    /// A result as long as the second argument says.
    Padding,
    /// Many rows in, one value out, whatever their order.
    Aggregate,
    /// An aggregate that depends on the order of rows, guesses, or is not on the list.
    OtherAggregate,
    /// Looks at the rows around.
    Window,
}

/// The tables and functions that SQL can name.
pub(super) struct Catalog {
    tables: BTreeMap<String, Arc<dyn TableSource>>,
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    aggregates: BTreeMap<String, Arc<AggregateUDF>>,
    other_aggregates: BTreeSet<String>,
    windows: BTreeSet<String>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Catalog {
    /// Over these sources.
    pub(super) fn new(sources: &BTreeMap<String, SourceTable>) -> Self {
        let mut scalars = BTreeMap::new();
        for function in SessionStateDefaults::default_scalar_functions() {
            for name in names(function.name(), function.aliases()) {
                scalars.insert(name, Arc::clone(&function));
            }
        }
        let (mut aggregates, mut other_aggregates) = (BTreeMap::new(), BTreeSet::new());
        for function in SessionStateDefaults::default_aggregate_functions() {
            let accepted = AGGREGATES.contains(&function.name());
            for name in names(function.name(), function.aliases()) {
                match accepted {
                    true => drop(aggregates.insert(name, Arc::clone(&function))),
                    false => drop(other_aggregates.insert(name)),
                }
            }
        }
        let windows = SessionStateDefaults::default_window_functions();
        Self {
            tables: sources
                .iter()
                .map(|(name, table)| (name.clone(), Arc::new(Table(Arc::clone(&table.schema))) as Arc<dyn TableSource>))
                .collect(),
            scalars,
            aggregates,
            other_aggregates,
            windows: windows.iter().flat_map(|f| names(f.name(), f.aliases())).collect(),
            planners: SessionStateDefaults::default_expr_planners(),
            options: ConfigOptions::default(),
        }
    }

    /// What `name` stands for; `None` where no function is called so.
    pub(super) fn function(&self, name: &str) -> Option<FunctionKind> {
        if let Some(function) = self.scalars.get(name) {
            return Some(match function.signature().volatility {
                Volatility::Volatile => FunctionKind::Volatile,
                _ if UNBOUNDED.contains(&function.name()) => FunctionKind::Unbounded,
                _ if PADDING.contains(&function.name()) => FunctionKind::Padding,
                _ => FunctionKind::Scalar,
            });
        }
        if self.aggregates.contains_key(name) {
            return Some(FunctionKind::Aggregate);
        }
        if self.other_aggregates.contains(name) {
            return Some(FunctionKind::OtherAggregate);
        }
        self.windows.contains(name).then_some(FunctionKind::Window)
    }
}

/// The function names that SQL may use, as they are written.
pub(super) fn function_names(catalog: &Catalog) -> impl Iterator<Item = &String> {
    catalog.scalars.keys().chain(catalog.aggregates.keys())
}

/// The names of accepted aggregates, for people.
pub(super) fn aggregates() -> String {
    AGGREGATES.join(", ")
}

fn names<'a>(name: &'a str, aliases: &'a [String]) -> impl Iterator<Item = String> + 'a {
    std::iter::once(name.to_owned()).chain(aliases.iter().cloned())
}

/// The SQL names a table that is no source.
#[derive(Debug)]
pub(super) struct NotASource(pub(super) TableReference);

impl fmt::Display for NotASource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a source", self.0)
    }
}

impl std::error::Error for NotASource {}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let found = match &name {
            TableReference::Bare { table } => self.tables.get(table.as_ref()),
            _ => None,
        };
        found.cloned().ok_or_else(|| DataFusionError::External(Box::new(NotASource(name))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A source as DataFusion's planner sees it: a schema, and filters that it may use to prune.
struct Table(SchemaRef);

impl TableSource for Table {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
