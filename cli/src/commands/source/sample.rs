//! `source sample`: the first records of a spec's sources, decoded. The spec's window is left aside.

use std::path::Path;

use serde::Serialize;
use tidegate_worker::survey::{self, Rows};

use super::{loaded, means, task_error};
use crate::commands::Context;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Document, Format};
use crate::style::plain;
use crate::view::List;

/// Characters of a cell that a narrow table shows.
const CELL: usize = 80;

/// The first rows of a source; `kind: SourceSample`.
#[derive(Serialize)]
struct Sample<'a> {
    name: &'a str,
    rows: &'a [serde_json::Value],
}

/// A row; `kind: SourceRow`.
#[derive(Serialize)]
struct Row<'a> {
    source: &'a str,
    row: &'a serde_json::Value,
}

/// Shows rows.
pub(super) async fn sample(file: &Path, only: Option<&str>, limit: usize, context: &Context) -> Outcome {
    let spec = loaded(file, only)?;
    let mut progress = context.progress("reading a few records");
    let found = survey::rows(&spec.resolved, &spec.id, only, limit, &means(context)).await;
    progress.end();
    let found = found.map_err(|failed| task_error(&failed))?;
    for rows in &found {
        for (place, dead) in &rows.dead {
            let (source, error) = (&rows.source, plain(&dead.error));
            context.say(&format!("dead letter of {source}: {}, position {}: {error}", plain(place), dead.position));
        }
    }
    let text = match context.format() {
        format @ (Format::Table | Format::Wide) => {
            let several = found.len() > 1;
            let text = |rows: &Rows| {
                let head = if several { format!("{}\n", rows.source) } else { String::new() };
                head + &table(rows, format == Format::Wide)
            };
            found.iter().map(text).collect::<Vec<_>>().join("\n")
        }
        Format::Name => found.iter().map(|rows| format!("{}\n", rows.source)).collect(),
        Format::Jsonl => {
            let rows = found.iter().flat_map(|rows| rows.objects.iter().map(|row| Row { source: &rows.source, row }));
            let lines = rows.map(|row| Document::new("SourceRow", &row).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => {
            let items = found.iter().map(|rows| Sample { name: &rows.source, rows: &rows.objects }).collect();
            Document::new("SourceSampleList", &List { items }).text(format)?
        }
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

fn table(rows: &Rows, wide: bool) -> String {
    let header: Vec<&str> = rows.columns.iter().map(String::as_str).collect();
    let shown = |cell: &String| match cell.char_indices().nth(CELL) {
        Some((end, _)) if !wide => format!("{}…", cell.get(..end).unwrap_or_default()),
        _ => cell.clone(),
    };
    let cells: Vec<Vec<String>> = rows.cells.iter().map(|row| row.iter().map(shown).collect()).collect();
    output::columns(&header, &cells)
}
