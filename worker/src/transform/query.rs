//! From the SQL of an output to a plan that can be run, and what the reader must know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::temporal_conversions::timestamp_us_to_datetime;
use datafusion::common::config::ConfigOptions;
use datafusion::common::utils::datafusion_strsim::normalized_levenshtein;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerContext};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::Statement;

use super::catalog::{self, Catalog, NotASource};
use super::closed_list::{self, Unaccepted};
use super::error::{Place, QueryError, Refusal};
use super::joined::{self, Join, JoinInput};
use super::limits::{self, ParseFailure};
use super::program::{Program, Running};
use super::screen::{self, Mentions, Stop};
use super::{parts, quirks};

/// What SQL sees of a source.
#[derive(Clone, Debug)]
pub struct SourceTable {
    /// Its columns.
    pub schema: SchemaRef,
    /// The one that is its event time in UTC as it is, a timestamp or a date; none where there is no such column.
    pub time: Option<String>,
}

impl From<SchemaRef> for SourceTable {
    fn from(schema: SchemaRef) -> Self {
        Self { schema, time: None }
    }
}

/// The SQL of one output, planned.
#[derive(Clone, Debug)]
pub struct Query {
    output: String,
    source: String,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    /// Row by row over one source.
    Rows(Arc<Program>),
    /// Slice by slice over several, or in groups.
    Join(Arc<Join>),
}

impl Query {
    /// Plans `sql`, or `SELECT *` of the one source where there is none, over `sources`. `now()` and its relatives
    /// stand for `now_micros`, microseconds since 1970 UTC.
    ///
    /// # Errors
    /// Fatal with exit code 3: the SQL is not one SELECT made of projections, filters, joins bounded in event time and
    /// aggregates of its windows, names what is not there, or is larger than the limits.
    pub fn plan(
        output_name: &str,
        sql: Option<&str>,
        sources: &BTreeMap<String, SourceTable>,
        now_micros: i64,
    ) -> Result<Self, QueryError> {
        let everything;
        let sql = match sql {
            Some(sql) => sql,
            None => {
                everything = select_all(output_name, sources)?;
                &everything
            }
        };
        let planner = Planner { output: output_name, sources, now_micros };
        limits::on_planning_thread(output_name, || planner.plan(sql))?
    }

    /// The sources it reads: each once, the anchor's first.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let others = self.join().map(Join::inputs).unwrap_or_default().iter().map(JoinInput::source);
        std::iter::once(self.source()).chain(others.filter(|source| *source != self.source()))
    }

    /// The source it reads; of several, the anchor's.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How it is answered slice by slice: where it reads several sources, or one several times, or groups by windows.
    pub fn join(&self) -> Option<&Join> {
        match &self.work {
            Work::Rows(_) => None,
            Work::Join(join) => Some(join),
        }
    }

    /// The columns of [`Query::source`] that must be read, as ascending indices into its schema.
    pub fn columns(&self) -> &[usize] {
        match &self.work {
            Work::Rows(program) => &program.columns,
            Work::Join(join) => join.inputs().first().map(JoinInput::columns).unwrap_or_default(),
        }
    }

    /// The columns of `source` that must be read; none where it reads another.
    pub fn columns_of(&self, source: &str) -> Option<&[usize]> {
        match &self.work {
            Work::Rows(program) => (self.source == source).then_some(&program.columns),
            Work::Join(join) => join.input(source).map(JoinInput::columns),
        }
    }

    /// The columns of the result: unique names, no views, no dictionaries, no metadata of the source.
    pub fn schema(&self) -> SchemaRef {
        match &self.work {
            Work::Rows(program) => Arc::clone(&program.schema),
            Work::Join(join) => join.schema(),
        }
    }

    /// The columns of the result that are the column `column` of [`Query::source`] as it is, under whatever name; of
    /// several mentions, the anchor's.
    pub fn copies_of(&self, column: &str) -> Vec<String> {
        let copies = match &self.work {
            Work::Rows(program) => program.copies_of(column),
            Work::Join(join) => join.copies_of(column),
        };
        let schema = self.schema();
        copies.into_iter().filter_map(|at| schema.fields().get(at)).map(|field| field.name().clone()).collect()
    }

    /// Conditions on the own columns of [`Query::source`], without qualifiers: a row for which one of them is not true
    /// is in no result. They serve to skip what need not be read; [`Running::push`] applies them all the same.
    pub fn filters(&self) -> &[Expr] {
        match &self.work {
            Work::Rows(program) => &program.filters,
            Work::Join(join) => join.inputs().first().map(JoinInput::filters).unwrap_or_default(),
        }
    }

    /// Starts over batches with the columns of `input`: at least [`Query::columns`], found by name.
    ///
    /// # Errors
    /// A column is missing or of another type, or it joins or aggregates: then see [`Query::join`].
    pub fn start(&self, input: SchemaRef) -> Result<Running, QueryError> {
        match &self.work {
            Work::Rows(program) => Running::new(self.output.clone(), Arc::clone(program), input),
            Work::Join(_) => {
                let what = "it joins or aggregates, and cannot be run row by row".to_owned();
                Err(QueryError::Input { output: self.output.clone(), what })
            }
        }
    }
}

/// The columns of one source that these queries need together, ascending.
pub fn read_columns<'a>(queries: impl IntoIterator<Item = &'a Query>) -> Vec<usize> {
    let columns: BTreeSet<usize> = queries.into_iter().flat_map(Query::columns).copied().collect();
    columns.into_iter().collect()
}

fn select_all(output: &str, sources: &BTreeMap<String, SourceTable>) -> Result<String, QueryError> {
    let mut names = sources.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(format!("SELECT * FROM {}", quoted(name))),
        (None, _) => Err(Refusal::new(None, "there is no source", "name one under sources").of(output)),
        (Some(_), Some(_)) => {
            let what = format!("it has no sql and there are several sources: {}", listed(sources.keys()));
            Err(Refusal::new(None, what, "say with sql which one it reads").of(output))
        }
    }
}

struct Planner<'a> {
    output: &'a str,
    sources: &'a BTreeMap<String, SourceTable>,
    now_micros: i64,
}

impl Planner<'_> {
    fn plan(&self, sql: &str) -> Result<Query, QueryError> {
        let statement = limits::parse(sql).map_err(|failure| match failure {
            ParseFailure::Refused(refusal) => refusal.of(self.output),
            ParseFailure::Syntax(place, source) => QueryError::Syntax { output: self.output.to_owned(), place, source },
        })?;
        let catalog = Catalog::new(self.sources);
        let mentions = screen::screen(&statement, &catalog).map_err(|stop| match stop {
            Stop::Refused(refusal) => refusal.of(self.output),
            Stop::Twice(place, name) => self.twice(place, name),
        })?;
        let context = self.context()?;
        let analyzed = analyze(statement, &catalog).map_err(|error| self.explain(error, &mentions, &catalog))?;
        let source = closed_list::accept(&analyzed, &catalog, &mentions).map_err(|unaccepted| match unaccepted {
            Unaccepted::Refused(refusal) => refusal.of(self.output),
            Unaccepted::Plan(error) => self.explain(error, &mentions, &catalog),
        })?;
        if let Some(name) = closed_list::twice(analyzed.schema().as_arrow()) {
            return Err(self.twice(None, name));
        }
        let analyzed = parts::taken_apart(analyzed).map_err(|error| self.explain(error, &mentions, &catalog))?;
        parts::bounded(&analyzed).map_err(|refusal| refusal.of(self.output))?;
        let optimized = Optimizer::new()
            .optimize(analyzed, &context, |_, _| {})
            .and_then(quirks::with_plain_filters)
            .and_then(joined::mark)
            .map_err(|error| self.explain(error, &mentions, &catalog))?;
        closed_list::decorrelated(&optimized).map_err(|refusal| refusal.of(self.output))?;
        let output = self.output.to_owned();
        // The optimizer may have seen through a join, or even that nothing is read.
        if !closed_list::gathers(&optimized) {
            let program = Program::lower(&optimized).map_err(|error| self.explain(error, &mentions, &catalog))?;
            let source = closed_list::scanned(&optimized).unwrap_or(source);
            return Ok(Query { output, source, work: Work::Rows(Arc::new(program)) });
        }
        let join = Join::plan(self.output, optimized, self.sources, &mentions);
        let join = join.map_err(|refusal| refusal.of(self.output))?;
        if join.whole_windows().is_some() {
            join.tried().map_err(|error| self.unplannable(None, error))?;
        }
        let source = join.inputs().first().map_or(source, |anchor| anchor.source().to_owned());
        Ok(Query { output, source, work: Work::Join(Arc::new(join)) })
    }

    /// The optimizer's settings, with the time that `now()` stands for.
    fn context(&self) -> Result<OptimizerContext, QueryError> {
        let now = timestamp_us_to_datetime(self.now_micros).filter(|_| self.now_micros.checked_mul(1000).is_some());
        let now = now.ok_or_else(|| {
            let what = format!("now() cannot be {} microseconds since 1970", self.now_micros);
            Refusal::new(None, what, "take a time between 1678 and 2262").of(self.output)
        })?;
        let options = Arc::new(ConfigOptions::default());
        Ok(OptimizerContext::new_with_config_options(options).with_query_execution_start_time(now.and_utc()))
    }

    /// What DataFusion says, in the words of the spec.
    fn explain(&self, error: DataFusionError, mentions: &Mentions, catalog: &Catalog) -> QueryError {
        let place = error
            .diagnostic()
            .and_then(|diagnostic| diagnostic.span)
            .map(|span| Place { line: span.start.line, column: span.start.column });
        match error.find_root() {
            DataFusionError::External(external) => {
                if let Some(NotASource(table)) = external.downcast_ref::<NotASource>() {
                    return self.unknown_table(&table.to_string(), mentions);
                }
            }
            // Two errors that DataFusion types no further.
            DataFusionError::Plan(said) if said.starts_with("Projections require unique expression names") => {
                return self.twice(place, said.split('"').nth(1).unwrap_or_default().to_owned());
            }
            DataFusionError::Plan(said) if said.starts_with("Invalid function '") => {
                let name = said.split('\'').nth(1).unwrap_or_default();
                let what = format!("there is no function {name}{}", hint(name, catalog::function_names(catalog)));
                return Refusal::new(place, what, "use a scalar function of DataFusion, or an accepted aggregate")
                    .of(self.output);
            }
            DataFusionError::SchemaError(schema_error, _) => match schema_error.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => {
                    return self.unknown_column(field, valid_fields, place);
                }
                SchemaError::AmbiguousReference { field } => return self.twice(place, field.name.clone()),
                SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                    return self.twice(place, name.clone());
                }
            },
            _ => {}
        }
        self.unplannable(place, error)
    }

    fn unknown_table(&self, table: &str, mentions: &Mentions) -> QueryError {
        QueryError::UnknownTable {
            output: self.output.to_owned(),
            place: mentions.tables.get(table).copied(),
            table: table.to_owned(),
            hint: hint(table, self.sources.keys()),
            sources: listed(self.sources.keys()),
        }
    }

    fn unknown_column(&self, field: &Column, valid: &[Column], place: Option<Place>) -> QueryError {
        QueryError::UnknownColumn {
            output: self.output.to_owned(),
            place: place.or_else(|| closed_list::place(Some(field.spans()))),
            column: field.flat_name(),
            hint: hint(&field.name, valid.iter().map(|column| &column.name)),
            columns: listed(valid.iter().map(|column| &column.name)),
        }
    }

    fn twice(&self, place: Option<Place>, name: String) -> QueryError {
        QueryError::DuplicateName { output: self.output.to_owned(), place, name }
    }

    fn unplannable(&self, place: Option<Place>, source: DataFusionError) -> QueryError {
        QueryError::Plan { output: self.output.to_owned(), place, source: Box::new(source) }
    }
}

fn analyze(statement: Statement, catalog: &Catalog) -> Result<LogicalPlan, DataFusionError> {
    let options = ParserOptions::default().with_collect_spans(true).with_map_string_types_to_utf8view(false);
    let plan = SqlToRel::new_with_options(catalog, options).sql_statement_to_plan(statement)?;
    Analyzer::new().execute_and_check(plan, &ConfigOptions::default(), |_, _| {})
}

/// Names in their order, as one would write them in SQL; no more than fit a line or two.
fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    const SHOWN: usize = 40;
    let names: Vec<_> = names.map(|name| quoted(name)).collect();
    match names.get(..SHOWN) {
        Some(first) if names.len() > SHOWN => format!("{} and {} more", first.join(", "), names.len() - SHOWN),
        _ => names.join(", "),
    }
}

fn hint<'a>(wrong: &str, names: impl Iterator<Item = &'a String>) -> String {
    const ALIKE: f64 = 0.6;
    let wrong = wrong.to_lowercase();
    let mut best: Option<(f64, &String)> = None;
    for name in names {
        let alike = normalized_levenshtein(&wrong, &name.to_lowercase());
        if alike >= ALIKE && best.is_none_or(|(found, _)| alike > found) {
            best = Some((alike, name));
        }
    }
    best.map(|(_, name)| format!(", did you mean {}?", quoted(name))).unwrap_or_default()
}

/// A name as it must be written in SQL: in quotes unless it is plain lower case.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
