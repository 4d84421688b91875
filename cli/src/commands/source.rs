//! `source`: what a spec reads, all of it: the spec's window is left aside.

mod offsets;
mod sample;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tidegate_common::clock;
use tidegate_common::spec::ResolvedSource;
use tidegate_worker::survey::{self, Means, SourceSurvey};

use super::Context;
use super::plan::task_error;
use crate::archive::{self, Archive};
use crate::args::SourceCommand;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{bytes, plural};
use crate::output::{self, Document, Format};
use crate::spec_file::{self, CheckedSpec};
use crate::style::plain;
use crate::topic::{self, Topic};
use crate::view::{Found, List, found};

/// A source; `kind: Source`.
#[derive(Serialize)]
struct Source {
    name: String,
    event_time: String,
    columns: Vec<String>,
    found: Found,
    /// Of a Kafka topic alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<Topic>,
    /// Of a hybrid source alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<Archive>,
}

/// Looks at sources.
pub(super) async fn source(command: SourceCommand, context: &Context) -> Outcome {
    match command {
        SourceCommand::Describe { spec, source } => describe(&spec.file, source.as_deref(), context).await,
        SourceCommand::Offsets { spec, source } => offsets::offsets(&spec.file, source.as_deref(), context).await,
        SourceCommand::Sample { spec, source, limit } => {
            sample::sample(&spec.file, source.as_deref(), limit, context).await
        }
    }
}

/// The spec of `file` without its window; `only`, where it is given, is a source of it.
fn loaded(file: &Path, only: Option<&str>) -> Result<CheckedSpec, Error> {
    let mut spec = spec_file::load(file)?;
    let resolved = &mut spec.resolved;
    resolved.spec.window = None;
    if let Some(only) = only
        && !resolved.sources.iter().any(|source| source.name == only)
    {
        let known: Vec<&str> = resolved.sources.iter().map(|source| source.name.as_str()).collect();
        return Err(
            Error::usage(format!("the spec has no source {only:?}")).hint(format!("it has {}", known.join(", ")))
        );
    }
    Ok(spec)
}

/// With what sources are looked at.
fn means(context: &Context) -> Means {
    super::plan::means(&context.config, context.config.worker_slots.value, Duration::ZERO)
}

async fn describe(file: &Path, only: Option<&str>, context: &Context) -> Outcome {
    let spec = loaded(file, only)?;
    let mut progress = context.progress("looking at the sources");
    let wanted = |source: &ResolvedSource| only.is_none_or(|only| only == source.name);
    let surveyed = survey::sources(&spec.resolved, &spec.id, wanted, &means(context)).await;
    progress.end();
    let surveyed = surveyed.map_err(|failed| task_error(&failed))?;
    let text = match context.format() {
        Format::Table | Format::Wide => surveyed.iter().map(text).collect::<Vec<_>>().join("\n"),
        Format::Name => surveyed.iter().map(|source| format!("{}\n", source.name)).collect(),
        Format::Jsonl => {
            let lines = surveyed.iter().map(|one| Document::new("Source", &document(one)).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => {
            let items = surveyed.iter().map(document).collect();
            Document::new("SourceList", &List { items }).text(format)?
        }
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

fn document(source: &SourceSurvey) -> Source {
    Source {
        name: source.name.clone(),
        event_time: source.event_time.clone(),
        columns: source.columns.clone(),
        found: found(&source.found),
        topic: source.topic.as_ref().map(|range| Topic::of(range, &topic::of_topic(source))),
        archive: source.archive.as_ref().map(Archive::of),
    }
}

fn text(source: &SourceSurvey) -> String {
    let found = &source.found;
    let mut text = format!("{}   {}\n", source.name, plain(&found.pinned));
    let times = topic::times(source).unwrap_or_else(|| "no rows".to_owned());
    let _ = writeln!(text, "  event time  {}   {times}", plain(&source.event_time));
    let (parts, rows) = topic::counted(source);
    let _ = writeln!(text, "  holds       {parts}   {}   {rows}", bytes(found.bytes_in_range));
    let widest = topic::width(found.widest_unit);
    let units = plural(found.units, "unit");
    let _ = writeln!(text, "  is read as  {units}, the widest {widest}, at most {} at one time", found.overlap_depth);
    for said in source.archive.iter().flat_map(archive::said) {
        let _ = writeln!(text, "  reads       {}", plain(&said));
    }
    if let Some(range) = &source.topic {
        let _ = writeln!(text, "  retention   {}", topic::headroom(range, clock::processing_time_micros()));
        topic::table(range).lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    let _ = writeln!(text, "  columns");
    source.columns.iter().for_each(|column| text.push_str(&format!("    {}\n", plain(column))));
    text
}
