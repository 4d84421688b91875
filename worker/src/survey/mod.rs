//! What a backfill would do, found out without changing anything: the ground of a plan.
//!
//! It opens the sources, plans the queries, looks at the tables, enumerates every source to its end, and reads a few
//! units for as long as it is given. It creates no table and writes no file; what it writes, it writes into memory, to
//! learn what it costs.

mod joins;
mod parallelism;
mod partitions;
mod rows;
mod sample;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tidegate_common::clock;
use tidegate_common::ids::{BackfillId, OutputIx, SourceIx};
use tidegate_common::spec::model::Publish;
use tidegate_common::spec::{self, EventTimeOf, Resolved, ResolvedSource};
use tidegate_common::time::{Bounds, EventTime, Span, Window};
use tidegate_proto::v1;
use tokio::sync::mpsc;

pub use self::joins::{JoinInputPlan, JoinPlan};
pub use self::parallelism::{Busy, PlannedUnit, simulate};
pub use self::rows::{Rows, rows};
use self::sample::Sample;
pub use self::sample::Sampled;
use crate::access::Access;
pub use crate::kafka::Retention;
use crate::sink::{self, Catalogs, Scope};
pub use crate::source::{ArchiveRange, ArchivedPart, PartitionRange, TopicRange};
use crate::task::opened::{Opened, Reach, Shelf};
use crate::task::{TaskError, dead_letter, enumerate, kinds, late_rows};

/// With what a survey is made.
#[derive(Clone, Debug)]
pub struct Means {
    /// What the spec may reach here.
    pub access: Access,
    /// The catalogs of the tables; see [`Catalogs::to_read`].
    pub catalogs: Arc<Catalogs>,
    /// The catalog of a table whose name has none.
    pub default_catalog: String,
    /// Slots that will read, at least 1.
    pub slots: usize,
    /// How long units may be read to learn how fast that is.
    pub sample: Duration,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// In the order of the spec.
    pub sources: Vec<SourceSurvey>,
    /// In the order of the spec.
    pub outputs: Vec<OutputSurvey>,
    /// The most units, of all sources, that share one point of event time.
    pub overlap_depth: u32,
    /// The widest unit of all: the tightest drift that these files allow; zero where there is nothing to read.
    pub tightest_drift: Span,
    /// What a few drifts allow, from tight to wide; the last has no gate.
    pub drifts: Vec<DriftSurvey>,
    /// What reading will take; `None` where nothing could be sampled.
    pub estimate: Option<Estimate>,
}

/// What was found of a source.
#[derive(Clone, Debug)]
pub struct SourceSurvey {
    /// Its name.
    pub name: String,
    /// Its columns, `name type`.
    pub columns: Vec<String>,
    /// Where event times come from, for people.
    pub event_time: String,
    /// Files, rows, bytes, bounds.
    pub found: v1::Enumerated,
    /// The file with the widest unit; empty where there are no files.
    pub widest_in: String,
    /// Every file that will be read, as it was pinned, by path.
    pub pins: Vec<v1::FilePin>,
    /// Which state of it every task would read, where it has several.
    pub state: Option<v1::SourcePin>,
    /// How it lies in its topic, where it is of one.
    pub topic: Option<TopicRange>,
    /// What comes from its archive, where it has one; `topic` is then the rest.
    pub archive: Option<ArchiveRange>,
    /// How fast its units were read.
    pub sampled: Sampled,
}

/// What was found of an output.
#[derive(Clone, Debug)]
pub struct OutputSurvey {
    /// Its name.
    pub name: String,
    /// The source it reads; where it joins several, the anchor.
    pub source: String,
    /// How it joins; `None` where it reads one source.
    pub join: Option<JoinPlan>,
    /// Whether it keeps the dead letters of its source.
    pub keeps_dead_letters: bool,
    /// The output whose late rows it keeps.
    pub keeps_late_of: Option<String>,
    /// The table as it is; with an empty uuid, as it would be created.
    pub table: v1::PreparedOutput,
    /// The branch that it stages on until it is published; `None` where it commits to main.
    pub branch: Option<String>,
    /// Data files and rows that are there now and that it will replace; `None` where it appends.
    pub replaces: Option<(u64, u64)>,
    /// Partition fields of the spec.
    pub partition_by: Vec<String>,
    /// How many partitions the bounds suggest; `None` where they do not tell.
    pub partitions: Option<u64>,
    /// Rows that it will get, by the sample; `None` where there is none, and where it joins.
    pub rows: Option<u64>,
    /// Bytes of its files, by the sample.
    pub bytes: Option<u64>,
}

/// What one drift allows, reckoned with the bytes of the units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DriftSurvey {
    /// The drift; `None` is without a gate.
    pub drift: Option<Span>,
    /// Whether it is the spec's own.
    pub of_spec: bool,
    /// With as many slots as there is work for.
    pub free: Busy,
    /// With the slots that there are.
    pub with_slots: Busy,
}

/// What reading, SQL and encoding will take, in microseconds of processing time. Commits and slow storage come on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// At the sampled rate.
    pub likely: u64,
    /// As fast as the fastest units, and at least a fifth less.
    pub from: u64,
    /// As slow as the slowest units, and at least half as much again.
    pub to: u64,
}

/// Surveys the backfill of `spec`.
///
/// # Errors
/// What prepare and enumerate fail with: a source that cannot be read, a query that cannot be planned, a table that
/// does not fit.
pub async fn survey(spec: &Resolved, id: &BackfillId, means: &Means) -> Result<Survey, TaskError> {
    let opened = open(spec, id, means)?;
    opened.queries(clock::processing_time_micros()).await?;
    let tables = tables(&opened, id, means).await?;
    let branch = sink::marker::staging_branch(id.as_str());
    let mut sources = Vec::with_capacity(opened.resolved.sources.len());
    let mut tasks = Vec::new();
    for ix in (0..).map(SourceIx::new).take(opened.resolved.sources.len()) {
        let window = opened.used(ix).await?.window;
        let (surveyed, found) = source(&opened, (ix, window), Some(&means.catalogs), means.slots).await?;
        sources.push(surveyed);
        tasks.push(found);
    }
    let sample = sample::take(&opened, &tasks, means.sample).await?;
    for (source, sampled) in sources.iter_mut().zip(&sample.sources) {
        source.sampled = *sampled;
    }
    let units = || tasks.iter().flatten().flat_map(|task| &task.units);
    let tightest = sources.iter().map(|source| Span::from_micros(source.found.widest_unit)).max().unwrap_or_default();
    let bytes = planned(&tasks, |_, unit| unit.bytes);
    let micros = planned(&tasks, |ix, unit| {
        sources.get(ix).map_or(0, |source| (unit.bytes as f64 * source.sampled.micros_a_byte()) as u64)
    });
    let estimate = estimate(&micros, &sources, spec.max_drift, means.slots);
    Ok(Survey {
        outputs: outputs(&opened, tables, &branch, &sources, &sample),
        overlap_depth: enumerate::overlap_depth(units().map(|unit| (unit.low, unit.high)).collect()),
        tightest_drift: tightest,
        drifts: drifts(&bytes, tightest, spec.max_drift, means.slots),
        estimate,
        sources,
    })
}

/// Surveys the sources of `spec` alone: those that are `wanted`.
///
/// # Errors
/// As [`survey`], less what has to do with queries and tables.
pub async fn sources(
    spec: &Resolved,
    id: &BackfillId,
    wanted: impl Fn(&ResolvedSource) -> bool,
    means: &Means,
) -> Result<Vec<SourceSurvey>, TaskError> {
    let opened = open(spec, id, means)?;
    let mut surveyed = Vec::new();
    for (ix, described) in (0..).map(SourceIx::new).zip(&opened.resolved.sources) {
        if wanted(described) {
            // What is wrong with a query is no reason not to look at a source.
            let window = opened.used(ix).await.map_or(spec.window, |used| used.window);
            surveyed.push(source(&opened, (ix, window), None, means.slots).await?.0);
        }
    }
    Ok(surveyed)
}

fn open(spec: &Resolved, id: &BackfillId, means: &Means) -> Result<Arc<Opened>, TaskError> {
    let info = v1::BackfillInfo { spec_json: spec::canonical_json(&spec.spec), ..Default::default() };
    let Means { access, catalogs, default_catalog, .. } = means.clone();
    Ok(Shelf::new(Reach { access, catalogs, default_catalog }).open(id, &Arc::new(info))?)
}

/// A table as it is or would be created, and the data files and rows of it that are to be replaced.
type Table = (v1::PreparedOutput, Option<(u64, u64)>);

async fn tables(opened: &Opened, id: &BackfillId, means: &Means) -> Result<Vec<Table>, TaskError> {
    let queries = opened.queries(0).await?;
    let mut tables = Vec::with_capacity(queries.len());
    for (ix, query) in (0..).map(OutputIx::new).zip(queries) {
        let target = opened.target(ix)?;
        let scope = kinds::scope(opened, id, ix, 0).await?;
        let found = sink::prepare(&means.catalogs, &target, &query.schema(), false, &scope).await?;
        let replaces = match (scope.replaces, found.uuid.is_empty()) {
            (false, _) => None,
            (true, true) => Some((0, 0)),
            (true, false) => Some(sink::replaced(&sink::load(&means.catalogs, &target).await?, &scope).await?),
        };
        tables.push((kinds::told(query, found), replaces));
    }
    for (ix, source) in opened.keepers() {
        let (target, schema) = (opened.target(ix)?, dead_letter::schema());
        let found = sink::prepare(&means.catalogs, &target, &schema, false, &Scope::of(id.as_str())).await?;
        let source = opened.resolved.source(source).map(|source| source.name.clone());
        tables.push((v1::PreparedOutput { source: source.into_iter().collect(), ..found }, None));
    }
    for (ix, is_made) in opened.late_keepers(queries) {
        let (target, scope) = (opened.target(ix)?, Scope::of(id.as_str()));
        let found = match is_made {
            true => sink::prepare(&means.catalogs, &target, &late_rows::schema(), false, &scope).await?,
            false => v1::PreparedOutput::default(),
        };
        tables.push((found, None));
    }
    Ok(tables)
}

/// Enumerates one source over a window to its end; its read tasks come with it.
async fn source(
    opened: &Opened,
    (ix, window): (SourceIx, Window),
    catalogs: Option<&Catalogs>,
    slots: usize,
) -> Result<(SourceSurvey, Vec<v1::ReadTask>), TaskError> {
    let (source, described) = opened.source(ix).await?;
    let packing = kinds::packing(opened, (&described.name, source.as_ref()), catalogs, slots).await?;
    let (segments, mut queue) = mpsc::channel::<v1::PlanSegment>(2);
    let collect = async {
        let mut tasks = Vec::new();
        while let Some(segment) = queue.recv().await {
            tasks.extend(segment.tasks);
        }
        tasks
    };
    let finding = enumerate::enumerate(source.as_ref(), window, packing, None, segments);
    let (found, tasks) = tokio::join!(finding, collect);
    let fields = source.schema();
    let columns = fields.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
    let surveyed = SourceSurvey {
        name: described.name.clone(),
        columns: columns.collect(),
        event_time: event_time(described),
        found: found?,
        widest_in: widest_in(&tasks),
        pins: pins(&tasks),
        state: source.pin(),
        topic: source.topic(window).await?,
        archive: source.archive(window).await?,
        sampled: Sampled::default(),
    };
    Ok((surveyed, tasks))
}

fn event_time(source: &ResolvedSource) -> String {
    match source.event_time.as_ref().map(|event_time| &event_time.of) {
        Some(EventTimeOf::Column(name, None)) => format!("column {name}"),
        Some(EventTimeOf::Column(name, Some(unit))) => format!("column {name}, {unit:?} since 1970").to_lowercase(),
        Some(EventTimeOf::Path(pattern)) => format!("path {pattern}"),
        Some(EventTimeOf::Record) => "the record's timestamp".to_owned(),
        None => "generated".to_owned(),
    }
}

fn widest_in(tasks: &[v1::ReadTask]) -> String {
    let units = tasks.iter().flat_map(|task| task.units.iter().map(move |unit| (task, unit)));
    let widest = units.max_by_key(|(_, unit)| unit.high.saturating_sub(unit.low));
    let split = widest.and_then(|(task, unit)| task.splits.get(usize::try_from(unit.split).ok()?));
    split.and_then(|split| split.file.as_ref()).map(|file| file.path.clone()).unwrap_or_default()
}

fn pins(tasks: &[v1::ReadTask]) -> Vec<v1::FilePin> {
    let splits = tasks.iter().flat_map(|task| &task.splits);
    let mut pins: Vec<v1::FilePin> = splits.filter_map(|split| split.file.clone()).collect();
    pins.sort_by(|a, b| a.path.cmp(&b.path));
    pins.dedup_by(|a, b| a.path == b.path);
    pins
}

/// The plan of all sources as the simulation reads it; `cost` is given the source's place and the unit.
fn planned(tasks: &[Vec<v1::ReadTask>], cost: impl Fn(usize, &v1::UnitOfWork) -> u64) -> Vec<Vec<PlannedUnit>> {
    let of_task = |ix: usize, task: &v1::ReadTask| {
        let units = task.units.iter().filter_map(|unit| {
            let bounds = Bounds::new(EventTime::from_micros(unit.low), EventTime::from_micros(unit.high))?;
            Some(PlannedUnit { bounds, cost: cost(ix, unit) })
        });
        units.collect()
    };
    let all = tasks.iter().enumerate();
    all.flat_map(|(ix, tasks)| tasks.iter().map(|task| of_task(ix, task)).collect::<Vec<_>>()).collect()
}

fn drifts(plan: &[Vec<PlannedUnit>], tightest: Span, spec: Option<Span>, slots: usize) -> Vec<DriftSurvey> {
    let base = spec.unwrap_or(tightest).as_micros();
    let mut drifts: Vec<Span> = [1, 2, 4].map(|times| Span::from_micros(base.saturating_mul(times))).into();
    drifts.push(tightest);
    drifts.retain(|drift| *drift > Span::ZERO);
    drifts.sort_unstable();
    drifts.dedup();
    let all = drifts.into_iter().map(Some).chain([None]);
    all.map(|drift| DriftSurvey {
        drift,
        of_spec: drift == spec,
        free: simulate(plan, drift, usize::MAX),
        with_slots: simulate(plan, drift, slots),
    })
    .collect()
}

fn estimate(
    plan: &[Vec<PlannedUnit>],
    sources: &[SourceSurvey],
    max_drift: Option<Span>,
    slots: usize,
) -> Option<Estimate> {
    let unknown = |source: &SourceSurvey| source.found.units > 0 && source.sampled.bytes == 0;
    if sources.iter().any(unknown) || sources.iter().all(|source| source.found.units == 0) {
        return None;
    }
    let likely = simulate(plan, max_drift, slots).lasts;
    let fastest = sources.iter().map(|source| source.sampled.fastest).fold(0.8, f64::min);
    let slowest = sources.iter().map(|source| source.sampled.slowest).fold(1.5, f64::max);
    let times = |factor: f64| (likely as f64 * factor) as u64;
    Some(Estimate { likely, from: times(fastest), to: times(slowest) })
}

fn outputs(
    opened: &Opened,
    tables: Vec<Table>,
    branch: &str,
    sources: &[SourceSurvey],
    sample: &Sample,
) -> Vec<OutputSurvey> {
    let all = opened.resolved.outputs.iter().zip(tables).zip(&sample.outputs);
    all.map(|((output, (table, replaces)), sampled)| {
        let anchor = table.inputs.first().map(|input| &input.source);
        let name = anchor.or(table.source.first()).cloned().unwrap_or_default();
        let found_of = |name: &str| sources.iter().find(|source| source.name == name).map(|source| &source.found);
        let found = found_of(&name);
        let join = joins::plan(&table, &opened.resolved, output, found_of);
        let described = opened.resolved.sources.iter().find(|source| source.name == name);
        let column = described.and_then(|source| source.event_time.as_ref()).map(|event_time| &event_time.of);
        let column = if let Some(EventTimeOf::Column(column, _)) = column { column.as_str() } else { "" };
        let rows = found.filter(|_| join.is_none()).and_then(|found| {
            let read = found.rows_in_range.saturating_sub(found.rows_pruned);
            (sampled.read > 0).then(|| (read as f64 * sampled.passed as f64 / sampled.read as f64) as u64)
        });
        let a_row = (sampled.passed > 0).then(|| sampled.bytes as f64 / sampled.passed as f64);
        OutputSurvey {
            name: output.name.clone(),
            source: name,
            join,
            keeps_dead_letters: output.dead_letters.is_some(),
            keeps_late_of: output.late_of.and_then(|of| opened.resolved.output(of)).map(|of| of.name.clone()),
            branch: (output.publish == Publish::Staged).then(|| branch.to_owned()),
            replaces,
            partition_by: output.partition_by.iter().map(ToString::to_string).collect(),
            partitions: found
                .and_then(|found| partitions::partitions(&output.partition_by, column, found.low, found.high)),
            rows,
            bytes: rows.zip(a_row).map(|(rows, a_row)| (rows as f64 * a_row) as u64),
            table,
        }
    })
    // Nothing is made for late rows where there cannot be any.
    .filter(|output| output.keeps_late_of.is_none() || !output.table.table.is_empty())
    .collect()
}
