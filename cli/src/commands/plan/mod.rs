//! `plan`: what a backfill would read, write and take. It changes nothing.

mod document;
mod text;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_common::slices::OverBudget;
use tidegate_common::time::Span;
use tidegate_worker::access::Access;
use tidegate_worker::sink::Catalogs;
use tidegate_worker::survey::{self, Means, SourceSurvey, Survey};
use tidegate_worker::task::TaskError;

pub(super) use self::document::Plan as Document;
use super::{Context, worker};
use crate::args;
use crate::config::{Config, DEFAULT_CATALOG};
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Format};
use crate::saved_plan;
use crate::spec_file::{self, CheckedSpec};

/// How long units are read to learn how fast that is.
const SAMPLE: Duration = Duration::from_secs(2);

/// A survey, and with what it was made.
struct Planned<'a> {
    file: &'a Path,
    /// Where it is saved.
    out: Option<&'a Path>,
    window: &'a args::WindowArgs,
    spec: &'a CheckedSpec,
    survey: Survey,
    slots: u32,
    /// Slots of one worker.
    slots_a_worker: u32,
    /// What an hour of a worker costs.
    price: Option<f64>,
}

/// Plans.
pub(super) async fn plan(args: args::Plan, context: &Context) -> Outcome {
    let spec = spec_file::load_over(&args.spec.file, &args.window)?;
    let config = &context.config;
    let slots = args.slots.unwrap_or(config.worker_slots.value);
    let mut progress = context.progress("looking at tables and files, and reading a few units");
    let found = surveyed(&spec, config, slots, SAMPLE).await;
    progress.end();
    let planned = Planned {
        file: &args.spec.file,
        out: args.out.as_deref(),
        window: &args.window,
        spec: &spec,
        survey: found?,
        slots,
        slots_a_worker: config.worker_slots.value,
        price: config.price_worker_hour.value,
    };
    refuse_wide(&planned)?;
    refuse_over_budget(&planned)?;
    if let Some(path) = &args.out {
        save(&planned, path)?;
        context.say(&format!("saved to {}", path.display()));
    }
    match context.format() {
        Format::Table | Format::Wide => output::print(&text::text(&planned, context.format() == Format::Wide))?,
        format => {
            output::print_document(format, saved_plan::KIND, &spec.id.to_string(), &document::Plan::of(&planned))?
        }
    }
    Ok(if args.detailed_exitcode && text::has_work(&planned) { Exit::WorkToDo } else { Exit::Done })
}

async fn surveyed(spec: &CheckedSpec, config: &Config, slots: u32, sample: Duration) -> Result<Survey, Error> {
    let means = means(config, slots, sample);
    survey::survey(&spec.resolved, &spec.id, &means).await.map_err(|failed| task_error(&failed))
}

/// With what this process surveys: what the user may read, and the configured catalogs, to be read only.
pub(super) fn means(config: &Config, slots: u32, sample: Duration) -> Means {
    Means {
        access: Access::local(),
        catalogs: Arc::new(Catalogs::to_read(worker::catalogs(config))),
        default_catalog: DEFAULT_CATALOG.to_owned(),
        slots: usize::try_from(slots).unwrap_or(usize::MAX),
        sample,
    }
}

/// What a task's failure means here: its own exit code, or that the preflight failed.
pub(super) fn task_error(failed: &TaskError) -> Error {
    let evidence = failed.evidence();
    let exit = match (Exit::from_code(evidence.exit_code), evidence.class()) {
        (Some(exit), _) if exit != Exit::Done => exit,
        (_, tidegate_proto::v1::Failure::Retryable) => Exit::Temporary,
        _ => Exit::Preflight,
    };
    let place = if evidence.place.is_empty() || evidence.message.contains(&evidence.place) {
        String::new()
    } else {
        format!(" ({})", evidence.place)
    };
    Error::new(exit, format!("{}{place}", evidence.message))
}

/// A unit wider than the drift is read only where the spec allows it.
fn refuse_wide(planned: &Planned<'_>) -> Result<(), Error> {
    let resolved = &planned.spec.resolved;
    let Some(drift) = resolved.max_drift.filter(|_| !resolved.allow_wide) else { return Ok(()) };
    let tightest = planned.survey.tightest_drift;
    if tightest <= drift {
        return Ok(());
    }
    let wide = planned.survey.sources.iter().filter(|source| source.found.widest_unit > drift.as_micros());
    let wide: Vec<String> = wide
        .map(|source| {
            let place = if source.widest_in.is_empty() { String::new() } else { format!(" ({})", source.widest_in) };
            format!("source {} has a unit {} wide{place}", source.name, Span::from_micros(source.found.widest_unit))
        })
        .collect();
    let allows = planned.survey.drifts.iter().find(|one| one.drift == Some(tightest));
    let slots = allows.map_or(0.0, |one| one.free.average);
    let is_topic = |source: &&SourceSurvey| source.topic.is_some() && source.found.widest_unit > drift.as_micros();
    let (of, less) = match planned.survey.sources.iter().find(is_topic) {
        Some(_) => ("units", "A topic allows less where event_time.out_of_orderness is declared, or a shorter one"),
        None => ("files", "Smaller row groups allow less"),
    };
    Err(Error::new(Exit::Preflight, format!("alignment.max_drift is {drift}, and {}", wide.join("; "))).hint(format!(
        "these {of} allow max_drift: {} and wider (which keeps {slots:.1} slots busy on average), or take \
         alignment.allow_wide: true: one source is then up to {tightest} ahead of another. {less}",
        tightest.to_be_written()
    )))
}

/// What may wait to be joined is no more than the spec allows: the coordinator refuses it for the same reason.
fn refuse_over_budget(planned: &Planned<'_>) -> Result<(), Error> {
    let max_drift = planned.spec.resolved.max_drift;
    let over = planned.survey.outputs.iter().find_map(|output| {
        let join = output.join.as_ref()?;
        Some((&output.name, OverBudget::of(join.state_bytes, join.budget, max_drift)?))
    });
    over.map_or(Ok(()), |(name, over)| Err(Error::new(Exit::Preflight, format!("output {name}: {over}"))))
}

fn save(planned: &Planned<'_>, path: &Path) -> Result<(), Error> {
    let text = output::Document::new(saved_plan::KIND, &document::Plan::of(planned)).text(Format::Json)?;
    std::fs::write(path, text)
        .map_err(|error| Error::new(Exit::Failed, format!("{} cannot be written", path.display())).because(error))
}

#[cfg(test)]
mod tests;
