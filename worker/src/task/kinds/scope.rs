//! What an output covers: the window, and the event-time column that its query passes on.

use tidegate_common::ids::{BackfillId, OutputIx};
use tidegate_common::spec::model::Mode;
use tidegate_common::spec::{EventTimeOf, ResolvedSource, SourceKind};

use crate::sink::{Scope, TimeColumn};
use crate::task::TaskError;
use crate::task::opened::{BackfillError, Opened};
use crate::transform::Query;

/// The event-time column of generated rows.
const GENERATED: &str = "ts";

/// What the output `ix` of `backfill` covers; `now_micros` as for its queries.
pub(crate) async fn scope(
    opened: &Opened,
    backfill: &BackfillId,
    ix: OutputIx,
    now_micros: i64,
) -> Result<Scope, TaskError> {
    let no_such = || BackfillError::NoSuch { what: format!("output {ix}") };
    let output = opened.resolved.output(ix).ok_or_else(no_such)?;
    if !output.is_queried() {
        // What it keeps has no event time of its own, and no query.
        return Ok(Scope::of(backfill.as_str()));
    }
    let queries = opened.queries(now_micros).await?;
    let query = usize::try_from(ix.get()).ok().and_then(|at| queries.get(at)).ok_or_else(no_such)?;
    let source = opened.resolved.sources.iter().find(|source| source.name == query.source());
    // Of several copies, the one that the table is partitioned by says the most.
    let wanted = |copy: &&TimeColumn| output.partition_by.iter().any(|field| field.column == copy.name);
    let copies = source.map(|source| copies(source, query)).unwrap_or_default();
    Ok(Scope {
        window: opened.resolved.window,
        time: copies.iter().find(wanted).or(copies.first()).cloned(),
        replaces: output.mode == Mode::ReplaceWindow,
        ..Scope::of(backfill.as_str())
    })
}

/// What the output `ix` of `backfill` covers, from the spec and what was prepared: no source is opened.
pub(super) fn pinned_scope(opened: &Opened, backfill: &BackfillId, ix: OutputIx) -> Result<Scope, TaskError> {
    let no_such = || BackfillError::NoSuch { what: format!("output {ix}") };
    let output = opened.resolved.output(ix).ok_or_else(no_such)?;
    let pinned = usize::try_from(ix.get()).ok().and_then(|at| opened.prepared().ok()?.outputs.get(at));
    let pinned = pinned.ok_or_else(no_such)?;
    let source = opened.resolved.sources.iter().find(|source| pinned.source.first() == Some(&source.name));
    let named = |(_, time): (_, TimeColumn)| TimeColumn { name: pinned.time_column.clone(), ..time };
    let time = source.and_then(event_time).filter(|_| !pinned.time_column.is_empty()).map(named);
    Ok(Scope {
        window: opened.resolved.window,
        time,
        replaces: output.mode == Mode::ReplaceWindow,
        ..Scope::of(backfill.as_str())
    })
}

/// The source's column that is event time, and how it is to be read.
fn event_time(source: &ResolvedSource) -> Option<(&str, TimeColumn)> {
    let (column, unit) = match source.event_time.as_ref().map(|event_time| &event_time.of) {
        Some(EventTimeOf::Column(column, unit)) => (column.as_str(), *unit),
        None if matches!(source.kind, SourceKind::Generate(_)) => (GENERATED, None),
        Some(EventTimeOf::Path(_) | EventTimeOf::Record) | None => return None,
    };
    let zone = source.event_time.as_ref().map_or(jiff::tz::TimeZone::UTC, |event_time| event_time.time_zone.clone());
    Some((column, TimeColumn { name: column.to_owned(), unit, zone }))
}

/// The source's column that is event time in UTC as it is, if there is one.
pub(crate) fn utc_column(source: &ResolvedSource) -> Option<String> {
    let (_, time) = event_time(source)?;
    (time.unit.is_none() && time.zone == jiff::tz::TimeZone::UTC).then_some(time.name)
}

/// The columns of a query's result that are its source's event time as it is.
fn copies(source: &ResolvedSource, query: &Query) -> Vec<TimeColumn> {
    let Some((column, time)) = event_time(source) else { return Vec::new() };
    query.copies_of(column).into_iter().map(|name| TimeColumn { name, ..time.clone() }).collect()
}
