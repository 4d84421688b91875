//! A planned join or aggregate, and what it needs of each of its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Expr, LogicalPlan};
use tidegate_common::slices::Reach;
use tidegate_common::windows::WholeWindows;

use super::Mention;
use super::bounds::in_utc;
use super::keys::{keys, spreads};
use super::relation::{Branch, Relation};
use super::sieve::Sieve;
use super::walk::{TimeColumns, relation};
use super::windows::Clock;
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
    /// The rows of the result are those of each of these, one after the other.
    pub(super) units: Vec<Unit>,
    /// The windows that it groups by.
    whole: Option<WholeWindows>,
    /// Where windows overlap, how many hold one row at most; else 0.
    pub(super) hops: usize,
    /// Of each column of the result, the first anchor's column that it is as it is, as those of the others are of theirs.
    of_anchor: Vec<Option<String>>,
}

/// Some of the anchors, whose rows decide about rows of the result that nothing else decides about.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Their scans, and how rows of each are dealt out by groups; without groups there is one anchor only.
    pub(super) anchors: Vec<(usize, Dealing)>,
    /// Whether they are in groups.
    pub(super) is_grouped: bool,
}

/// By what the rows of an anchor are dealt out so that groups stay together.
#[derive(Clone, Debug)]
pub(super) struct Dealing {
    /// The windows that each hold whole groups; none where a row is in several.
    pub(super) by: Option<WholeWindows>,
    /// The places in the anchor's [`JoinInput::schema`] of columns that are the same in every row of a group; those of all
    /// anchors of a unit correspond.
    pub(super) places: Vec<usize>,
}

/// One mention of a source, as it is run.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    /// Which of the inputs it reads.
    pub(super) input: usize,
    /// Its own reach; none where nothing meets its rows.
    pub(super) reach: Option<Reach>,
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
        let relation = relation(&plan, &times, mentions)?;
        let mut names: Vec<&str> = Vec::new();
        for mention in relation.mentions() {
            if !names.contains(&mention.source.as_str()) {
                names.push(&mention.source);
            }
        }
        let unkeyed =
            names.iter().filter_map(|name| Some(JoinInput::new(output, name, sources.get(*name)?, &relation)));
        let mut inputs: Vec<JoinInput> = unkeyed.collect();
        let keys = keys(&inputs, &relation);
        inputs.iter_mut().zip(keys).for_each(|(input, keys)| input.keys = keys);
        let whole = relation.branches.iter().filter_map(|branch| Some(branch.groups.as_ref()?.whole)).map(Some);
        let whole = match whole.reduce(|one, other| one?.and(other?)) {
            Some(None) => {
                let what = "its parts group by windows that do not fit into each other";
                return Err(Refusal::new(mentions.aggregated(), what, "write one output each"));
            }
            whole => whole.flatten(),
        };
        let of_anchor = of_anchor(&relation, sources);
        let fields = plan.schema().fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), plain(field.data_type()), field.is_nullable()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (scans, units) = (scans(&relation, &inputs), units(&relation, &inputs));
        let hops = relation.branches.iter().map(|branch| branch.hops).max().unwrap_or(0);
        Ok(Self { output: output.to_owned(), plan, schema, inputs, scans, units, whole, hops, of_anchor })
    }

    /// Whether the rows of that scan decide about rows of the result.
    pub(super) fn is_anchor(&self, scan: usize) -> bool {
        self.units.iter().flat_map(|unit| &unit.anchors).any(|(at, _)| *at == scan)
    }

    /// What it needs of each source, the anchor's first.
    pub fn inputs(&self) -> &[JoinInput] {
        &self.inputs
    }

    /// What it needs of `source`.
    pub fn input(&self, source: &str) -> Option<&JoinInput> {
        self.inputs.iter().find(|input| input.source == source)
    }

    /// Whether rows that meet, and those of a group, agree on columns by which they can be distributed.
    pub fn is_keyed(&self) -> bool {
        self.inputs.iter().any(|input| !input.keys.is_empty())
    }

    /// The windows that it groups by: slices must be made of whole ones, and so must the window of the backfill. None
    /// where it does not aggregate.
    pub fn whole_windows(&self) -> Option<WholeWindows> {
        self.whole
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
    is_anchor: bool,
    columns: Vec<usize>,
    keys: Vec<usize>,
    schema: SchemaRef,
    filters: Vec<Expr>,
}

impl JoinInput {
    fn new(output: &str, source: &str, table: &SourceTable, relation: &Relation) -> Self {
        let mentions = || relation.mentions().filter(|mention| mention.source == source);
        let reach = mentions().filter_map(|mention| mention.within.reach()).reduce(Reach::or).unwrap_or(Reach::NONE);
        let mut columns: BTreeSet<usize> = mentions().flat_map(|mention| &mention.columns).copied().collect();
        columns.extend(table.time.as_ref().and_then(|time| table.schema.index_of(time).ok()));
        let columns: Vec<usize> = columns.into_iter().collect();
        let time = Arc::new(Field::new(TIME_COLUMN, DataType::Int64, false));
        let read = columns.iter().filter_map(|column| table.schema.fields().get(*column)).cloned();
        let schema = Arc::new(Schema::new(std::iter::once(time).chain(read).collect::<Vec<_>>()));
        // A mention without a condition needs every row.
        let distinct: BTreeMap<usize, &Mention> = mentions().map(|mention| (mention.at, mention)).collect();
        let conditions: Option<Vec<Expr>> =
            distinct.values().map(|mention| conjunction(mention.filters.clone())).collect();
        let filters = conditions.and_then(disjunction).into_iter().collect();
        let anchors = relation.branches.iter().filter_map(Branch::anchor);
        let is_anchor = anchors.into_iter().any(|anchor| anchor.source == source);
        // The rows of a slice's own cell are counted when it is joined, also where windows that overlap lie all before them.
        let reach = if is_anchor { reach.or(Reach::NONE) } else { reach };
        let (output, source) = (output.to_owned(), source.to_owned());
        Self { output, source, reach, is_anchor, columns, keys: Vec::new(), schema, filters }
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How far its rows lie from those of an anchor that they meet, over all that mention it; an anchor itself adds nothing,
    /// but for windows that overlap.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Whether its rows in a slice decide which rows the result has there.
    pub fn is_anchor(&self) -> bool {
        self.is_anchor
    }

    /// Its columns that are kept, as ascending indices into the source's schema: all that any mention needs, and the
    /// event time.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The places in [`JoinInput::columns`] of those by which rows can be distributed so that rows that meet are
    /// together, and those of a group, in one order for all inputs; none where no columns serve every join and group,
    /// or its rows are neither joined nor in groups.
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    pub(super) fn kept(&self) -> &Schema {
        &self.schema
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

impl Relation {
    /// The mentions of all branches; one that several branches meet comes as often.
    fn mentions(&self) -> impl Iterator<Item = &Mention> {
        self.branches.iter().flat_map(|branch| &branch.mentions)
    }
}

/// The scans of a plan, by number.
fn scans(relation: &Relation, inputs: &[JoinInput]) -> BTreeMap<usize, Scan> {
    let mut scans = BTreeMap::<usize, Scan>::new();
    for mention in relation.mentions() {
        let Some(input) = inputs.iter().position(|input| input.source == mention.source) else { continue };
        let place = |column: &usize| Some(inputs.get(input)?.columns.binary_search(column).ok()? + 1);
        let Some(picked) = mention.columns.iter().map(place).collect::<Option<_>>() else { continue };
        let scan = scans.entry(mention.at).or_insert(Scan { input, reach: None, picked });
        scan.reach = scan.reach.into_iter().chain(mention.within.reach()).reduce(Reach::or);
    }
    scans
}

/// The anchors, those of one aggregate together.
fn units(relation: &Relation, inputs: &[JoinInput]) -> Vec<Unit> {
    let mut units: Vec<(Option<usize>, Unit)> = Vec::new();
    for branch in &relation.branches {
        let Some(anchor) = branch.anchor() else { continue };
        let Some(input) = inputs.iter().find(|input| input.source == anchor.source) else { continue };
        let place = |column: &usize| Some(input.columns.binary_search(column).ok()? + 1);
        let is_hashed = |place: &usize| {
            let field = input.schema.fields().get(*place);
            field.is_some_and(|field| spreads(field.data_type()) && is_hashed(field.data_type()))
        };
        let places = branch.groups.iter().flat_map(|groups| groups.columns.iter().flatten());
        let dealing = Dealing {
            by: branch.groups.as_ref().filter(|_| branch.hops == 0).map(|groups| groups.whole),
            places: places.filter_map(place).filter(is_hashed).collect(),
        };
        let of = branch.groups.as_ref().map(|groups| groups.of);
        match units.iter_mut().find(|(known, _)| of.is_some() && *known == of) {
            Some((_, unit)) => unit.anchors.push((anchor.at, dealing)),
            None => units.push((of, Unit { anchors: vec![(anchor.at, dealing)], is_grouped: of.is_some() })),
        }
    }
    for (_, unit) in &mut units {
        // Groups of which some rows are in one window and others in several are told by their columns alone.
        if unit.anchors.iter().any(|(_, dealing)| dealing.by.is_none()) {
            unit.anchors.iter_mut().for_each(|(_, dealing)| dealing.by = None);
        }
    }
    units.into_iter().map(|(_, unit)| unit).collect()
}

/// Of each column of the result, the first anchor's column that it is as it is; of several anchors, only where it is the
/// event time of each. The beginning of the windows that are grouped by stands for the event time: it lies in the backfill's
/// window, which is made of whole ones, where its rows do.
fn of_anchor(relation: &Relation, sources: &BTreeMap<String, SourceTable>) -> Vec<Option<String>> {
    let Some(first) = relation.branches.first() else { return Vec::new() };
    let Some(table) = first.anchor().and_then(|anchor| sources.get(&anchor.source)) else { return Vec::new() };
    let own = |at: usize| {
        let column = first.origins.get(at).copied().flatten().filter(|(mention, _)| *mention == 0)?.1;
        table.schema.fields().get(column).map(|field| field.name().clone())
    };
    let is_time = |of: &Branch, at: usize| match (of.clocks.get(at).copied().flatten(), &of.groups) {
        (Some(Clock::Time), _) => true,
        (Some(Clock::Start(_)), None) => true,
        (Some(Clock::Of(windows) | Clock::Start(windows)), Some(groups)) => {
            groups.whole.and(windows) == Some(groups.whole)
        }
        _ => false,
    };
    let time = |at: usize| table.time.clone().filter(|_| relation.branches.iter().all(|of| is_time(of, at)));
    let column = |at: usize| match relation.branches.as_slice() {
        [only] if only.hops == 0 => own(at).or_else(|| time(at)),
        _ => time(at),
    };
    (0..first.clocks.len()).map(column).collect()
}
