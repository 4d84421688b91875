//! `late`: which rows of a backfill came when their slice was joined, and what they held.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use futures::TryStreamExt as _;
use schemars::JsonSchema;
use serde::Serialize;
use tidegate_common::lateness::CLASS_NAMES;
use tidegate_proto::v1;
use tidegate_worker::sink::{self, Catalogs};

use super::table::{sink_error, target};
use super::{Context, worker};
use crate::args::{LateCommand, LateExport};
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{count, plural, span, time};
use crate::output::{self, Document, Format};
use crate::report::short_id;
use crate::style::plain;
use crate::view::{LateRows, List, late_rows};

/// Windows that are shown of each output; `-o wide` and `-o json` have them all.
const SHOWN: usize = 10;

/// The late rows of one source, for one output; `kind: LateRows`.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub(crate) struct LateOfSource {
    pub output: String,
    pub source: String,
    pub rows: u64,
    /// The table that keeps them; null where they are only counted.
    pub table: Option<String>,
    #[serde(flatten)]
    pub late: LateRows,
}

/// Looks at late rows.
pub(super) async fn late(command: LateCommand, context: &Context) -> Outcome {
    match command {
        LateCommand::List(of) => list(&of.id, context).await,
        LateCommand::Export(args) => export(args, context).await,
    }
}

async fn list(id: &str, context: &Context) -> Outcome {
    let backfill = context.client().await?.get(id).await?;
    let found = found(&backfill);
    let text = match context.format() {
        Format::Table | Format::Wide if found.is_empty() => {
            context.say(&format!("no row of {} came late", short_id(&backfill.id)));
            return Ok(Exit::Done);
        }
        format @ (Format::Table | Format::Wide) => text(&backfill, &found, format == Format::Wide),
        Format::Name => found.iter().map(|one| format!("{}/{}\n", one.output, one.source)).collect(),
        Format::Jsonl => {
            let lines = found.iter().map(|one| Document::new("LateRows", one).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => Document::new("LateRowsList", &List { items: found }).text(format)?,
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

/// The late rows of a backfill by output and source.
fn found(backfill: &v1::Backfill) -> Vec<LateOfSource> {
    let joins = backfill.outputs.iter().filter_map(|output| Some((output, output.join.as_ref()?)));
    let all = joins.flat_map(|(output, join)| {
        join.inputs.iter().filter_map(move |input| {
            Some(LateOfSource {
                output: output.name.clone(),
                source: input.source.clone(),
                rows: input.rows_late,
                table: keeper(backfill, &output.name),
                late: late_rows(input.late.as_ref()?),
            })
        })
    });
    all.collect()
}

/// The table that keeps the late rows of `output`.
fn keeper(backfill: &v1::Backfill, output: &str) -> Option<String> {
    let keeper = backfill.outputs.iter().find(|one| one.late_of == output)?;
    keeper.table.as_ref().map(|table| table.table.clone())
}

fn text(backfill: &v1::Backfill, found: &[LateOfSource], wide: bool) -> String {
    let mut header = vec!["OUTPUT", "SOURCE", "LATE"];
    header.extend(CLASS_NAMES);
    header.extend(["AT MOST", "KEPT IN"]);
    let row = |one: &LateOfSource| {
        let classes = one.late.by_lateness.iter().map(|class| count(class.rows));
        let most = span((one.late.most_seconds * 1e6) as i64);
        let table = one.table.clone().unwrap_or_else(|| "-".to_owned());
        let head = [one.output.clone(), one.source.clone(), count(one.rows)];
        head.into_iter().chain(classes).chain([most, table]).collect()
    };
    let mut text = output::columns(&header, &found.iter().map(row).collect::<Vec<_>>());
    for (output, windows) in missed(backfill) {
        text.push_str(&format!("\n{} went without some of them in\n", plain(&output.name)));
        let shown = if wide { usize::MAX } else { SHOWN };
        for (from, to) in windows.iter().take(shown) {
            text.push_str(&format!("  {}/{}\n", time(*from), time(*to)));
        }
        if let Some(more) = windows.len().checked_sub(shown).filter(|more| *more > 0) {
            text.push_str(&format!("  and {more} more: -o wide\n"));
        }
        text.push_str(&next(output, &windows));
    }
    text
}

/// The windows that each output went without late rows in, those of all its sources together, ascending.
fn missed(backfill: &v1::Backfill) -> Vec<(&v1::OutputState, Vec<(i64, i64)>)> {
    let of = |output: &v1::OutputState| {
        let inputs = output.join.iter().flat_map(|join| &join.inputs).filter_map(|input| input.late.as_ref());
        let mut ranges: Vec<_> = inputs.flat_map(|late| &late.missed_by).map(|range| (range.from, range.to)).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    };
    let outputs = backfill.outputs.iter().map(|output| (output, of(output)));
    outputs.filter(|(_, windows)| !windows.is_empty()).collect()
}

/// How a backfill of just these windows takes the rows in.
fn next(output: &v1::OutputState, windows: &[(i64, i64)]) -> String {
    let Some((from, to)) = windows.first() else { return String::new() };
    let (name, window) = (plain(&output.name), format!("{}/{}", time(*from), time(*to)));
    let each = if windows.len() > 1 { ", and so for each of the others" } else { "" };
    let has_time = output.table.as_ref().is_some_and(|table| !table.time_column.is_empty());
    let how = match has_time {
        true => format!("`mode: replace_window` at {name}"),
        false => format!(
            "another `table` at {name} (this one has no column that is an event time as it is, so `replace_window` is \
             refused: take these windows over from there)"
        ),
    };
    format!(
        "Next: tidegate plan FILE --window {window}{each}, where FILE is the same spec with another `name`, {how}, and as \
         much `out_of_orderness` as there is\n"
    )
}

async fn export(args: LateExport, context: &Context) -> Outcome {
    let backfill = context.client().await?.get(&args.of.id).await?;
    let tables = tables(&backfill, args.only.as_deref())?;
    let catalogs = Catalogs::to_read(worker::catalogs(&context.config));
    let mut to = Destination::open(args.out.as_deref())?;
    let mut written = 0;
    for table in tables {
        let loaded = sink::load(&catalogs, &target(&table)?).await.map_err(|bad| sink_error(&bad))?;
        let mut lines = sink::lines_of(&loaded, &backfill.id).await.map_err(|bad| sink_error(&bad))?;
        while let Some(lines) = lines.try_next().await.map_err(|bad| sink_error(&bad))? {
            written += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
            to.write(&lines)?;
        }
    }
    to.end()?;
    context.say(&format!("{} of {}", plural(written, "late row"), short_id(&backfill.id)));
    Ok(Exit::Done)
}

/// The tables that keep late rows of a backfill; of one output, where it is named.
fn tables(backfill: &v1::Backfill, only: Option<&str>) -> Result<Vec<String>, Error> {
    let joins: Vec<&str> =
        backfill.outputs.iter().filter(|output| output.join.is_some()).map(|output| output.name.as_str()).collect();
    if let Some(only) = only.filter(|only| !joins.contains(only)) {
        let known = if joins.is_empty() { "it has none".to_owned() } else { format!("it has {}", joins.join(", ")) };
        return Err(Error::usage(format!("{only:?} is no output that joins or groups")).hint(known));
    }
    let tables: Vec<String> = joins
        .into_iter()
        .filter(|output| only.is_none_or(|only| only == *output))
        .filter_map(|output| keeper(backfill, output))
        .collect();
    if tables.is_empty() {
        return Err(Error::usage(format!("{} keeps no late rows", short_id(&backfill.id)))
            .hint("they are kept with `late: {policy: side_output}`, of sources with `on_disorder: allow`"));
    }
    Ok(tables)
}

/// Where the rows go.
enum Destination {
    Stdout,
    File(String, BufWriter<File>),
}

impl Destination {
    fn open(out: Option<&Path>) -> Result<Self, Error> {
        let Some(out) = out else { return Ok(Self::Stdout) };
        let name = out.display().to_string();
        let file = File::create_new(out).map_err(|bad| {
            Error::new(Exit::Failed, format!("{name} cannot be made")).because(bad).hint("name a new file")
        })?;
        Ok(Self::File(name, BufWriter::new(file)))
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Error> {
        match self {
            Self::Stdout => output::print(&String::from_utf8_lossy(lines)),
            Self::File(name, file) => file.write_all(lines).map_err(|bad| unwritten(name, bad)),
        }
    }

    fn end(self) -> Result<(), Error> {
        let Self::File(name, mut file) = self else { return Ok(()) };
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(|bad| unwritten(&name, bad))
    }
}

fn unwritten(name: &str, bad: std::io::Error) -> Error {
    Error::new(Exit::Failed, format!("{name} cannot be written")).because(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn late_rows_by_output_and_source_and_the_windows_that_went_without_them() {
        let run = sample::late();
        insta::assert_snapshot!(text(&run, &found(&run), false));
        let items = found(&run);
        insta::assert_snapshot!(
            "late_json",
            Document::new("LateRowsList", &List { items }).text(Format::Json).unwrap()
        );
    }

    #[test]
    fn windows_of_several_sources_are_merged_and_many_are_cut_short() {
        let mut run = sample::late();
        let inputs = &mut run.outputs[0].join.as_mut().unwrap().inputs;
        let range = |from: i64, to: i64| v1::TimeRange { from, to };
        let late = |missed_by: Vec<v1::TimeRange>| v1::LateRows { rows_by: vec![1; 6], most: 1, missed_by };
        inputs[0].late = Some(late(vec![range(0, 10), range(40, 50)]));
        inputs[1].late = Some(late(vec![range(5, 20), range(20, 30)]));
        assert_eq!(missed(&run)[0].1, [(0, 30), (40, 50)]);
        inputs_of(&mut run)[1].late = Some(late((0..12).map(|at| range(at * 100, at * 100 + 1)).collect()));
        inputs_of(&mut run)[0].late = None;
        let said = text(&run, &found(&run), false);
        assert!(said.contains("  and 2 more: -o wide\n") && said.contains("and so for each of the others"), "{said}");
    }

    fn inputs_of(run: &mut v1::Backfill) -> &mut Vec<v1::JoinInputState> {
        &mut run.outputs[0].join.as_mut().unwrap().inputs
    }

    #[test]
    fn what_keeps_no_late_rows_exports_none() {
        let of = |run: &v1::Backfill, only| tables(run, only).map_err(|bad| bad.exit());
        assert_eq!(of(&sample::late(), None), Ok(vec!["default.air.flights_weather__late".to_owned()]));
        assert_eq!(
            of(&sample::late(), Some("flights_weather")),
            Ok(vec!["default.air.flights_weather__late".to_owned()])
        );
        assert_eq!(of(&sample::late(), Some("flights_weather__late")), Err(Exit::Usage));
        assert_eq!(of(&sample::joined(), None), Err(Exit::Usage));
    }
}
