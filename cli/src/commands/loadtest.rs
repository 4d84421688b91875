//! `loadtest`: many workers of this process over generated rows, into one table.

use std::path::Path;

use tidegate_common::clock;
use tidegate_common::spec::Document;

use super::run::{in_this_process, setup};
use super::{Context, run};
use crate::args;
use crate::exit::{Error, Exit, Outcome};

/// Rows an event-second of the generated source.
const RATE: u32 = 1_000;

/// Runs the load test.
pub(super) async fn loadtest(args: args::Loadtest, context: &Context) -> Outcome {
    let folder = args.folder.clone();
    let failed = |error: std::io::Error| {
        Error::new(Exit::Failed, format!("the folder {} cannot be used", folder.display())).because(error)
    };
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    let folder = args.folder.canonicalize().map_err(failed)?;
    let mut document = Document::read(&spec(&args), "loadtest", &|_| None).map_err(impossible)?;
    document.absolutise(&folder.display().to_string()).map_err(impossible)?;
    let resolved = document.resolve(clock::processing_time_micros()).map_err(impossible)?;
    let context = Context { config: here(context, &folder), ..context.clone() };
    context.say(&format!(
        "{} rows in {} splits by {} workers, into {}",
        args.rows,
        args.splits,
        args.workers,
        folder.display()
    ));
    let apply = args::Apply::silent();
    in_this_process(&resolved, setup(args.workers, folder.join("state"), &apply, &context)?, &context).await
}

fn impossible(errors: tidegate_common::spec::SpecErrors) -> Error {
    run::invalid("loadtest", errors)
}

/// Everything that the test writes is in its folder.
fn here(context: &Context, folder: &Path) -> crate::config::Config {
    let mut config = context.config.clone();
    config.use_folder(folder);
    config
}

fn spec(args: &args::Loadtest) -> String {
    let args::Loadtest { rows, splits, seed, skew, disorder, .. } = args;
    format!(
        "version: 1\nkind: backfill\nname: loadtest-{seed}-{rows}-{splits}\n\
         sources:\n  events:\n    generate: {{seed: {seed}, rows: {rows}, rate: {RATE}, skew: {skew}, \
         disorder: {disorder}, splits: {splits}}}\n\
         outputs:\n  events:\n    table: loadtest.events_{seed}_{rows}_{splits}\n"
    )
}
