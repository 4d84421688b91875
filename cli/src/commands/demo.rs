//! `tidegate demo`: a year of real flights and weather, replayed under one watermark, in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_common::clock;
use tidegate_common::fence::Fences;
use tidegate_common::spec::{Document, Resolved, SpecErrors};
use tidegate_common::time::Span;
use tidegate_proto::v1;
use tidegate_worker::access::Access;
use tidegate_worker::sink::{CatalogConfig, Catalogs};
use tidegate_worker::worker::WorkerConfig;

use crate::demo_data;
use crate::in_process::{self, RunError, Setup};

/// Workers of the demo, one slot each: one for each source, so that only the gate keeps them together.
const WORKERS: usize = 2;
const MEMORY: u64 = 512 << 20;

/// Why the demo did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// A file cannot be written.
    #[error("{} cannot be written", .0.display())]
    Unpack(PathBuf, #[source] std::io::Error),
    /// The demo's own spec is refused.
    #[error(transparent)]
    Spec(#[from] SpecErrors),
    /// The run did not come to an end.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// What the demo came to: the aligned run, and the same with alignment off.
pub(crate) struct Demo {
    /// Where everything is.
    pub(crate) folder: PathBuf,
    /// With the gate.
    pub(crate) aligned: v1::Backfill,
    /// Without it.
    pub(crate) free: v1::Backfill,
}

/// Runs the demo in `folder`, showing each state of both runs.
pub(crate) async fn run(folder: &Path, mut show: impl FnMut(&v1::Backfill)) -> Result<Demo, DemoError> {
    demo_data::unpack(folder).map_err(|(path, error)| DemoError::Unpack(path, error))?;
    let folder = folder.canonicalize().map_err(|error| DemoError::Unpack(folder.to_owned(), error))?;
    let catalog = CatalogConfig::Sqlite {
        name: "default".to_owned(),
        path: folder.join("catalog.db"),
        warehouse: folder.join("warehouse").display().to_string(),
    };
    let catalogs = Arc::new(Catalogs::new([("default".to_owned(), catalog)]));
    let aligned = backfill(&folder, &spec(&folder, true)?, &catalogs, &mut show).await?;
    let free = backfill(&folder, &spec(&folder, false)?, &catalogs, &mut show).await?;
    Ok(Demo { folder, aligned, free })
}

/// The example's spec; without alignment it goes under another name and to other tables.
fn spec(folder: &Path, aligned: bool) -> Result<Resolved, DemoError> {
    let text = include_str!("../../../examples/flights/aligned.yaml");
    let mut document = Document::read(text, "aligned.yaml", &|_| None)?;
    if !aligned {
        document.spec.name.push_str("-unaligned");
        document.spec.alignment = None;
        for output in document.spec.outputs.values_mut() {
            output.table = output.table.replace("air.", "unaligned.");
        }
    }
    document.absolutise(&folder.display().to_string())?;
    Ok(document.resolve(clock::processing_time_micros())?)
}

async fn backfill(
    folder: &Path,
    spec: &Resolved,
    catalogs: &Arc<Catalogs>,
    show: &mut impl FnMut(&v1::Backfill),
) -> Result<v1::Backfill, DemoError> {
    let worker = |number: usize| WorkerConfig {
        name: format!("demo-{number}"),
        slots: 1,
        memory_bytes: MEMORY,
        access: Access::local(),
        catalogs: Arc::clone(catalogs),
        default_catalog: "default".to_owned(),
        fences: Fences::default(),
    };
    let setup = Setup {
        state: folder.join("state"),
        workers: (1..=WORKERS).map(worker).collect(),
        reason: "demo".to_owned(),
        allow_existing: false,
    };
    Ok(in_process::run(spec, setup, show).await?.last)
}

/// The two runs side by side: how far ahead each source was read, at most.
pub(crate) fn comparison(demo: &Demo) -> String {
    let drift = demo.aligned.promised_skew.map_or_else(String::new, |bound| Span::from_micros(bound).to_string());
    let mut text = format!("{:<12}{:>24}{:>24}\n", "read ahead", format!("aligned, at most {drift}"), "alignment off");
    for (aligned, free) in demo.aligned.sources.iter().zip(&demo.free.sources) {
        let skew = |source: &v1::SourceState| Span::from_micros(source.max_skew).to_string();
        text.push_str(&format!("{:<12}{:>24}{:>24}\n", aligned.name, skew(aligned), skew(free)));
    }
    text
}
