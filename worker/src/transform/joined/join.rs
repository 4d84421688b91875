//! A planned join or aggregate, and what it needs of each of its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Expr, LogicalPlan};
use tidegate_common::slices::Reach;
use tidegate_common::windows::WholeWindows;

use super::bounds::in_utc;
use super::sieve::Sieve;
use super::walk::{TimeColumns, joined};
use super::{Joined, Mention};
use crate::shuffle::is_hashed;
use crate::transform::error::{QueryError, Refusal};
use crate::transform::program::plain;
use crate::transform::query::SourceTable;
use crate::transform::screen::Mentions;

/// The first column of [`JoinInput::schema`].
pub const TIME_COLUMN: &str = "$time";

/// The SQL of one output over several sources, or in groups, planned.
#[derive(Clone, Debug)]
pub struct Join {
    pub(super) output: String,
    pub(super) plan: LogicalPlan,
    pub(super) schema: SchemaRef,
    pub(super) inputs: Vec<JoinInput>,
    /// By number of the scan.
    pub(super) scans: BTreeMap<usize, Scan>,
    /// The scan of the anchor.
    pub(super) anchor: usize,
    /// The windows that it groups by, and the places in the anchor's [`JoinInput::schema`] of columns that are the same
    /// in every row of a group.
    pub(super) groups: Option<(WholeWindows, Vec<usize>)>,
    /// Of each column of the result, the anchor's column that it is as it is.
    of_anchor: Vec<Option<String>>,
}

/// One mention of a source, as it is run.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    /// Which of the inputs it reads.
    pub(super) input: usize,
    /// Its own reach.
    pub(super) reach: Reach,
    /// Its columns, by place in [`JoinInput::schema`].
    pub(super) picked: Vec<usize>,
}

impl Join {
    /// From an optimized plan with marked scans.
    pub(in crate::transform) fn plan(
        output: &str,
        plan: LogicalPlan,
        sources: &BTreeMap<String, SourceTable>,
        mentions: &Mentions,
    ) -> Result<Self, Refusal> {
        let time = |table: &SourceTable| {
            let (_, field) = table.schema.column_with_name(table.time.as_ref()?)?;
            in_utc(field.data_type()).then(|| field.name().clone())
        };
        let times: TimeColumns = sources.iter().map(|(name, table)| (name.as_str(), time(table))).collect();
        let joined = joined(&plan, &times, mentions)?;
        let mut names: Vec<&str> = Vec::new();
        for mention in &joined.mentions {
            if !names.contains(&mention.source.as_str()) {
                names.push(&mention.source);
            }
        }
        let unkeyed = names.iter().filter_map(|name| Some(JoinInput::new(output, name, sources.get(*name)?, &joined)));
        let mut inputs: Vec<JoinInput> = unkeyed.collect();
        key(&mut inputs, &joined);
        let scan = |mention: &Mention| {
            let input = inputs.iter().position(|input| input.source == mention.source)?;
            let place = |column: &usize| Some(inputs.get(input)?.columns.binary_search(column).ok()? + 1);
            let picked = mention.columns.iter().map(place).collect::<Option<_>>()?;
            Some((mention.at, Scan { input, reach: mention.within.reach(), picked }))
        };
        let scans = joined.mentions.iter().filter_map(scan).collect();
        let groups = joined.groups.as_ref().zip(inputs.first()).map(|(groups, anchor)| {
            let place = |column: &usize| Some(anchor.columns.binary_search(column).ok()? + 1);
            let is_hashed = |place: &usize| {
                anchor
                    .schema
                    .fields()
                    .get(*place)
                    .is_some_and(|field| spreads(field.data_type()) && is_hashed(field.data_type()))
            };
            (groups.whole, groups.columns.iter().filter_map(place).filter(is_hashed).collect())
        });
        let anchor = inputs.first().and_then(|input| sources.get(&input.source));
        let name = |column: usize| Some(anchor?.schema.fields().get(column)?.name().clone());
        let of_anchor =
            joined.origins.iter().map(|origin| origin.filter(|(of, _)| *of == 0).and_then(|(_, at)| name(at)));
        let of_anchor = of_anchor.collect();
        let fields = plan.schema().fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), plain(field.data_type()), field.is_nullable()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let anchor = joined.mentions.first().map_or(0, |anchor| anchor.at);
        Ok(Self { output: output.to_owned(), plan, schema, inputs, scans, anchor, groups, of_anchor })
    }

    /// What it needs of each source, the anchor's first.
    pub fn inputs(&self) -> &[JoinInput] {
        &self.inputs
    }

    /// What it needs of `source`.
    pub fn input(&self, source: &str) -> Option<&JoinInput> {
        self.inputs.iter().find(|input| input.source == source)
    }

    /// The windows that it groups by: slices must be made of whole ones, and so must the window of the backfill. None
    /// where it does not aggregate.
    pub fn whole_windows(&self) -> Option<WholeWindows> {
        self.groups.as_ref().map(|(whole, _)| *whole)
    }

    /// Of the result: as [`crate::transform::Query::schema`].
    pub(in crate::transform) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The places in the result of the columns that are `column` of the anchor as it is.
    pub(in crate::transform) fn copies_of(&self, column: &str) -> Vec<usize> {
        let of_anchor = self.of_anchor.iter().enumerate();
        of_anchor.filter(|(_, of)| of.as_deref() == Some(column)).map(|(at, _)| at).collect()
    }
}

/// What a join needs of one source.
#[derive(Clone, Debug)]
pub struct JoinInput {
    output: String,
    source: String,
    reach: Reach,
    columns: Vec<usize>,
    keys: Vec<usize>,
    schema: SchemaRef,
    filters: Vec<Expr>,
}

impl JoinInput {
    fn new(output: &str, source: &str, table: &SourceTable, joined: &Joined) -> Self {
        let mentions = || joined.mentions.iter().filter(|mention| mention.source == source);
        let reach = mentions().map(|mention| mention.within.reach()).reduce(Reach::or).unwrap_or(Reach::NONE);
        let mut columns: BTreeSet<usize> = mentions().flat_map(|mention| &mention.columns).copied().collect();
        columns.extend(table.time.as_ref().and_then(|time| table.schema.index_of(time).ok()));
        let columns: Vec<usize> = columns.into_iter().collect();
        let time = Arc::new(Field::new(TIME_COLUMN, DataType::Int64, false));
        let read = columns.iter().filter_map(|column| table.schema.fields().get(*column)).cloned();
        let schema = Arc::new(Schema::new(std::iter::once(time).chain(read).collect::<Vec<_>>()));
        // A mention without a condition needs every row.
        let conditions: Option<Vec<Expr>> = mentions().map(|mention| conjunction(mention.filters.clone())).collect();
        let filters = conditions.and_then(disjunction).into_iter().collect();
        Self { output: output.to_owned(), source: source.to_owned(), reach, columns, keys: Vec::new(), schema, filters }
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How far its rows lie from the anchor's that they meet, over all that mention it; the anchor itself adds nothing.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Its columns that are kept, as ascending indices into the source's schema: all that any mention needs, and the
    /// event time.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The places in [`JoinInput::columns`] of those by which rows can be distributed so that rows that meet are
    /// together, and those of a group, in one order for all inputs; none where no columns serve every join and group.
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// Of the rows that are kept: [`TIME_COLUMN`], microseconds, then [`JoinInput::columns`].
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Conditions on the source's own columns, without qualifiers: a row for which one of them is not true meets none.
    pub fn filters(&self) -> &[Expr] {
        &self.filters
    }

    /// Starts over rows with the columns of [`JoinInput::columns`], in that order.
    ///
    /// # Errors
    /// DataFusion cannot evaluate the conditions.
    pub fn start(&self) -> Result<Sieve, QueryError> {
        let columns: Vec<_> = self.schema.fields().iter().skip(1).cloned().collect();
        let condition = conjunction(self.filters.iter().cloned());
        Sieve::new(&self.output, Arc::new(Schema::new(columns)), condition.as_ref())
    }
}

/// Finds the columns by which all inputs can be distributed.
fn key(inputs: &mut [JoinInput], joined: &Joined) {
    let whole = joined.classes.iter().filter(|class| class.len() == joined.mentions.len());
    for class in whole {
        // Of each source, its one column: rows of a source are distributed once, whoever mentions it.
        let mut columns: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (mention, column) in class {
            if let Some(mention) = joined.mentions.get(*mention) {
                columns.entry(&mention.source).or_default().insert(*column);
            }
        }
        let place = |input: &JoinInput| {
            let columns = columns.get(input.source.as_str()).filter(|columns| columns.len() == 1)?;
            input.columns.binary_search(columns.first()?).ok()
        };
        let Some(places) = inputs.iter().map(place).collect::<Option<Vec<_>>>() else { continue };
        let of_type =
            |(input, place): (&JoinInput, &usize)| input.schema.fields().get(place + 1).map(|f| f.data_type().clone());
        let types: BTreeSet<Option<String>> =
            inputs.iter().zip(&places).map(of_type).map(|of| of.filter(spreads).map(|of| of.to_string())).collect();
        if types.len() == 1 && !types.contains(&None) {
            inputs.iter_mut().zip(places).for_each(|(input, place)| input.keys.push(place));
        }
    }
}

/// Whether equal values of this type are the same bytes.
fn spreads(of: &DataType) -> bool {
    !of.is_nested()
        && !of.is_floating()
        && !matches!(of, DataType::Dictionary(..) | DataType::RunEndEncoded(..) | DataType::Null)
        && !matches!(of, DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) | DataType::Interval(_))
}
