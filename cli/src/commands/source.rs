//! `source describe`: what a spec reads, all of it: the spec's window is left aside.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tidegate_common::time::Span;
use tidegate_worker::survey::{self, SourceSurvey};

use super::Context;
use super::plan::{means, task_error};
use crate::args::SourceCommand;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{bytes, plural, second};
use crate::output::{self, Document, Format};
use crate::spec_file;
use crate::style::plain;
use crate::view::{Found, List, found};

/// A source; `kind: Source`.
#[derive(Serialize)]
struct Source {
    name: String,
    event_time: String,
    columns: Vec<String>,
    found: Found,
}

/// Looks at sources.
pub(super) async fn source(command: SourceCommand, context: &Context) -> Outcome {
    let SourceCommand::Describe { spec, source } = command;
    describe(&spec.file, source.as_deref(), context).await
}

async fn describe(file: &Path, only: Option<&str>, context: &Context) -> Outcome {
    let spec = spec_file::load(file)?;
    let mut resolved = spec.resolved;
    resolved.spec.window = None;
    if let Some(only) = only
        && !resolved.sources.iter().any(|source| source.name == only)
    {
        let known: Vec<&str> = resolved.sources.iter().map(|source| source.name.as_str()).collect();
        return Err(
            Error::usage(format!("the spec has no source {only:?}")).hint(format!("it has {}", known.join(", ")))
        );
    }
    let mut progress = context.progress("looking at the files");
    let means = means(&context.config, context.config.worker_slots.value, Duration::ZERO);
    let surveyed = survey::sources(&resolved, &spec.id, only, &means).await;
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
    }
}

fn text(source: &SourceSurvey) -> String {
    let found = &source.found;
    let mut text = format!("{}   {}\n", source.name, plain(&found.pinned));
    let times = if found.low > found.high {
        "no rows".to_owned()
    } else {
        format!("{} to {}", second(found.low), second(found.high))
    };
    let _ = writeln!(text, "  event time  {}   {times}", plain(&source.event_time));
    let (files, size) = (plural(found.files, "file"), bytes(found.bytes_in_range));
    let _ = writeln!(text, "  holds       {files}   {size}   {}", plural(found.rows_in_range, "row"));
    let widest = Span::from_micros(found.widest_unit);
    let units = plural(found.units, "unit");
    let _ = writeln!(text, "  is read as  {units}, the widest {widest}, at most {} at one time", found.overlap_depth);
    let _ = writeln!(text, "  columns");
    source.columns.iter().for_each(|column| text.push_str(&format!("    {}\n", plain(column))));
    text
}
