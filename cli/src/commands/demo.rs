//! `demo`: a year of real flights and weather, joined under one watermark, in this process.

use std::path::Path;

use tidegate_common::clock;
use tidegate_common::spec::{Document, Resolved, SpecErrors};
use tidegate_common::time::Span;
use tidegate_proto::v1;

use super::run::{failed, invalid, setup};
use super::{Context, wait};
use crate::args;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::bytes;
use crate::output::{self, Format};
use crate::{demo_data, in_process};

/// One worker for each source, one slot each, so that only the gate keeps them together.
const WORKERS: u32 = 2;

/// Runs the demo: the aligned run with its report, then the same without alignment, and both side by side.
pub(super) async fn demo(args: args::Demo, context: &Context) -> Outcome {
    let unusable = |path: &Path, error: std::io::Error| {
        Error::new(Exit::Failed, format!("{} cannot be written", path.display())).because(error).hint("try --folder")
    };
    demo_data::unpack(&args.folder).map_err(|(path, error)| unusable(&path, error))?;
    let folder = args.folder.canonicalize().map_err(|error| unusable(&args.folder, error))?;
    let mut context = context.clone();
    context.config.use_folder(&folder);
    context.config.worker_slots.value = WORKERS;
    context.say(&format!(
        "every flight of 2013 with the weather at its origin: {} and {}",
        shown(&folder, "flights"),
        shown(&folder, "weather")
    ));
    let aligned = backfill(&folder, true, &context).await?;
    let ended = wait::ended(&aligned, &context)?;
    if ended != Exit::Done {
        return Ok(ended);
    }
    let free = backfill(&folder, false, &context).await?;
    if matches!(context.format(), Format::Table | Format::Wide) {
        output::print(&format!("\n{}\n{}", comparison(&aligned, &free), what_next(&folder)))?;
    }
    Ok(crate::report::exit_code(&free))
}

fn shown(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

async fn backfill(folder: &Path, aligned: bool, context: &Context) -> Result<v1::Backfill, Error> {
    let spec = spec(folder, aligned).map_err(|errors| invalid("the demo", errors))?;
    let setup = setup(WORKERS, folder.join("state"), &args::Apply::silent(), context)?;
    let text = if aligned {
        "replaying and joining both, aligned within ten days"
    } else {
        "the same again, with alignment off"
    };
    let mut progress = context.progress(text);
    let ended = in_process::run(&spec, setup, |state| progress.update(state)).await;
    progress.end();
    Ok(ended.map_err(failed)?.last)
}

/// The example's spec; without alignment it goes under another name and to other tables.
fn spec(folder: &Path, aligned: bool) -> Result<Resolved, SpecErrors> {
    let text = include_str!("../../../examples/flights/joined.yaml");
    let mut document = Document::read(text, "joined.yaml", &|_| None)?;
    if !aligned {
        document.spec.name.push_str("-unaligned");
        document.spec.alignment = None;
        for output in document.spec.outputs.values_mut() {
            output.table = output.table.replace("air.", "unaligned.");
        }
    }
    document.absolutise(&folder.display().to_string())?;
    document.resolve(clock::processing_time_micros())
}

/// The two runs side by side: how far ahead of the watermark each source was read, and how much waited to be joined, at
/// most.
fn comparison(aligned: &v1::Backfill, free: &v1::Backfill) -> String {
    let bound = aligned.promised_skew.map_or_else(String::new, |bound| Span::from_micros(bound).to_string());
    let mut text = format!("{:<12}{:>24}{:>24}\n", "read ahead", format!("aligned, at most {bound}"), "alignment off");
    for (aligned, free) in aligned.sources.iter().zip(&free.sources) {
        let skew = |source: &v1::SourceState| Span::from_micros(source.max_skew).to_string();
        text.push_str(&format!("{:<12}{:>24}{:>24}\n", aligned.name, skew(aligned), skew(free)));
    }
    let waited = |run: &v1::Backfill| {
        bytes(run.outputs.iter().filter_map(|output| Some(output.join.as_ref()?.peak_bytes)).sum::<u64>())
    };
    text.push_str(&format!("{:<12}{:>24}{:>24}\n", "to be joined", waited(aligned), waited(free)));
    text
}

fn what_next(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "The tables are Iceberg's: {folder}/catalog.db, a SQLite catalog, names them, and PyIceberg reads them:\n\
         \x20 SqlCatalog(\"default\", uri=\"sqlite:///{folder}/catalog.db\").load_table(\"air.flights_weather\").scan().to_pandas()\n\
         Next: run the demo again (it has nothing to do), or change {folder}/joined.yaml and\n\
         \x20 tidegate run {folder}/joined.yaml --local\n"
    )
}
