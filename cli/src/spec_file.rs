//! A spec's file: read, its paths made absolute, checked.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_common::clock;
use tidegate_common::ids::BackfillId;
use tidegate_common::spec::model::{Mode, Publish, WindowSpec};
use tidegate_common::spec::{self, Document, Resolved, SourceKind, SpecErrors};
use tidegate_common::time::{Span, Window};

use crate::args::WindowArgs;
use crate::exit::{Error, Exit};
use crate::saved_plan::{self, Wanted};
use crate::style::plain;

/// The deployment that a backfill's identity names; one until a coordinator can be told otherwise.
pub(crate) const DEPLOYMENT: &str = "default";
/// No spec is longer, in bytes.
const LONGEST: u64 = 1 << 20;
/// No saved plan is longer, in bytes: it names every file.
const LONGEST_PLAN: u64 = 256 << 20;

/// A spec that was checked, and the backfill that it asks for.
#[derive(Clone, Debug)]
pub(crate) struct CheckedSpec {
    /// The spec.
    pub resolved: Resolved,
    /// The backfill's id.
    pub id: BackfillId,
}

impl CheckedSpec {
    /// What goes over the wire.
    pub(crate) fn json(&self) -> String {
        spec::canonical_json(&self.resolved.spec)
    }
}

/// Reads and checks the spec in `path`; `-` is stdin.
///
/// # Errors
/// A file that cannot be read (usage), and whatever is wrong with the spec, with file, line and column (spec invalid).
pub(crate) fn load(path: &Path) -> Result<CheckedSpec, Error> {
    load_over(path, &WindowArgs::default())
}

/// As [`load`], with the window of the command line in place of the spec's, where there is one.
///
/// # Errors
/// As [`load`]; a window that is none (usage).
pub(crate) fn load_over(path: &Path, window: &WindowArgs) -> Result<CheckedSpec, Error> {
    let given = Given::read(path, LONGEST)?;
    if saved_plan::is_plan(&given.text) {
        let plan = Error::usage(format!("{} is a saved plan, and a spec is wanted here", given.name));
        return Err(plan.hint("`tidegate apply` takes it; its spec stands in it under `apply.spec`"));
    }
    given.check(window)
}

/// Reads what is to be applied: a spec, or a saved plan.
///
/// # Errors
/// As [`load_over`]; a plan that was damaged or edited, or is of another release (preflight); another window than that
/// of a plan (usage).
pub(crate) fn load_to_apply(path: &Path, window: &WindowArgs) -> Result<Wanted, Error> {
    let given = Given::read(path, LONGEST_PLAN)?;
    if !saved_plan::is_plan(&given.text) {
        return Ok(Wanted { spec: given.check(window)?, expected: None });
    }
    if window.window.is_some() || window.last.is_some() {
        let fixed = Error::usage(format!("{} is a saved plan, and its window is fixed", given.name));
        return Err(fixed.hint("make a plan of the other window: `tidegate plan SPEC --window A/B --out FILE`"));
    }
    saved_plan::read(path, &given.text)
}

/// The window of the command line, where there is one.
fn other_window(window: &WindowArgs) -> Result<Option<WindowSpec>, Error> {
    Ok(match (&window.window, &window.last) {
        (Some(between), _) => {
            let bad = |bad| Error::usage("--window cannot be read").because(bad);
            Some(WindowSpec::between(between).map_err(bad)?)
        }
        (None, Some(last)) => Some(WindowSpec::last(last)),
        (None, None) => None,
    })
}

/// What stands in a file.
struct Given {
    name: String,
    text: String,
    folder: PathBuf,
}

impl Given {
    fn read(path: &Path, longest: u64) -> Result<Self, Error> {
        let (name, text, folder) =
            if path == Path::new("-") { from_stdin(longest)? } else { from_file(path, longest)? };
        Ok(Self { name, text, folder })
    }

    fn check(&self, window: &WindowArgs) -> Result<CheckedSpec, Error> {
        let (window, name) = (other_window(window)?, &self.name);
        check(&self.text, name, &self.folder.display().to_string(), window).map_err(|errors| {
            let many = crate::figures::plural(errors.iter().count() as u64, "error");
            Error::new(Exit::SpecInvalid, format!("{name} is no valid spec, {many}"))
                .because(errors)
                .hint("`tidegate schema spec` prints what may stand in a spec; nothing was run")
        })
    }
}

fn check(text: &str, name: &str, folder: &str, window: Option<WindowSpec>) -> Result<CheckedSpec, SpecErrors> {
    let mut document = Document::read(text, name, &|name| std::env::var(name).ok())?;
    document.absolutise(folder)?;
    if window.is_some() {
        document.spec.window = window;
    }
    let resolved = document.resolve(clock::processing_time_micros())?;
    let id = spec::backfill_id(DEPLOYMENT, &resolved);
    Ok(CheckedSpec { resolved, id })
}

fn from_file(path: &Path, longest: u64) -> Result<(String, String, PathBuf), Error> {
    let name = path.display().to_string();
    let failed = |error: std::io::Error| Error::usage(format!("the spec {name} cannot be read")).because(error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let text = read(file, longest).map_err(failed)?;
    let whole = path.canonicalize().map_err(failed)?;
    let folder = whole.parent().unwrap_or(Path::new("/")).to_path_buf();
    Ok((name, text, folder))
}

fn from_stdin(longest: u64) -> Result<(String, String, PathBuf), Error> {
    let failed = |error: std::io::Error| Error::usage("the spec on stdin cannot be read").because(error);
    let text = read(std::io::stdin().lock(), longest).map_err(failed)?;
    Ok(("stdin".to_owned(), text, std::env::current_dir().map_err(failed)?))
}

/// One byte more than there may be is read, so that whoever checks it sees that it is too long.
fn read(from: impl std::io::Read, longest: u64) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(longest + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// What a spec asks for, in short; `kind: SpecSummary`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Summary {
    /// The whole id of the backfill.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The window, half-open; `null` is all of event time.
    pub window: Option<SummaryWindow>,
    /// How far past the slowest source one may read; `null` is without a gate.
    pub max_drift_seconds: Option<f64>,
    /// What is read.
    pub sources: Vec<SummarySource>,
    /// What is written.
    pub outputs: Vec<SummaryOutput>,
}

/// A half-open window.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct SummaryWindow {
    /// The first point in it, RFC 3339.
    pub from: String,
    /// The first point after it.
    pub to: String,
}

/// What is read.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct SummarySource {
    /// Its name.
    pub name: String,
    /// files, iceberg or generate.
    pub kind: &'static str,
    /// A path, a table, or how many rows.
    pub from: String,
}

/// What is written.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct SummaryOutput {
    /// Its name.
    pub name: String,
    /// The table.
    pub table: String,
    /// append or replace_window.
    pub mode: &'static str,
    /// direct or staged.
    pub publish: &'static str,
}

impl Summary {
    /// What `spec` asks for.
    pub(crate) fn of(spec: &CheckedSpec) -> Self {
        let resolved = &spec.resolved;
        let window = SummaryWindow { from: resolved.window.from().to_string(), to: resolved.window.to().to_string() };
        let sources = resolved.sources.iter().map(|source| {
            let (kind, from) = match &source.kind {
                SourceKind::Files(files) => ("files", files.path.clone()),
                SourceKind::Iceberg { table, snapshot: None } => ("iceberg", table.to_string()),
                SourceKind::Iceberg { table, snapshot: Some(at) } => ("iceberg", format!("{table} @ snapshot {at}")),
                SourceKind::Kafka(kafka) => ("kafka", kafka.spec.topic.clone()),
                SourceKind::Hybrid(both) => ("hybrid", format!("{}, then {}", both.table, both.live.spec.topic)),
                SourceKind::Generate(made) => ("generate", crate::figures::plural(made.rows, "row")),
            };
            SummarySource { name: source.name.clone(), kind, from }
        });
        let outputs = resolved.outputs.iter().map(|output| SummaryOutput {
            name: output.name.clone(),
            table: output.table.to_string(),
            mode: match output.mode {
                Mode::Append => "append",
                Mode::ReplaceWindow => "replace_window",
            },
            publish: match output.publish {
                Publish::Direct => "direct",
                Publish::Staged => "staged",
            },
        });
        Self {
            id: spec.id.to_string(),
            name: resolved.spec.name.clone(),
            window: (resolved.window != Window::ALL).then_some(window),
            max_drift_seconds: resolved.max_drift.map(|drift| drift.as_micros() as f64 / 1e6),
            sources: sources.collect(),
            outputs: outputs.collect(),
        }
    }
}

impl fmt::Display for Summary {
    /// For people, a few lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window.as_ref().map_or("all of event time".to_owned(), |w| format!("[{}, {})", w.from, w.to));
        writeln!(f, "Backfill {} ({})   window {window}", self.name, crate::report::short_id(&self.id))?;
        for source in &self.sources {
            writeln!(f, "reads  {}   {} {}", source.name, source.kind, plain(&source.from))?;
        }
        for output in &self.outputs {
            writeln!(f, "writes {}   {}, {}, {}", output.table, output.name, output.mode, output.publish)?;
        }
        match self.max_drift_seconds {
            Some(drift) => writeln!(f, "aligns within {}", Span::from_micros((drift * 1e6) as i64)),
            None => writeln!(f, "aligns nothing: no gate holds a source back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::Paint;

    #[test]
    fn a_bad_spec_says_file_line_and_column_at_the_start_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.yaml");
        let text = "version: 1\nkind: backfill\nname: a\nsources:\n  s: {files: {pth: x}}\noutputs:\n  o: {table: t}\n";
        std::fs::write(&path, text).unwrap();
        let error = load(&path).unwrap_err();
        assert_eq!(error.exit(), Exit::SpecInvalid);
        let said = error.render(Paint::plain()).replace(&folder.path().display().to_string(), "…");
        insta::assert_snapshot!(said);
    }

    #[test]
    fn a_spec_that_is_not_there_is_a_matter_of_usage() {
        assert_eq!(load(Path::new("/nowhere/spec.yaml")).unwrap_err().exit(), Exit::Usage);
        assert_eq!(load(Path::new("/")).unwrap_err().exit(), Exit::Usage, "a folder is no spec");
    }

    #[test]
    fn paths_of_a_spec_are_below_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("good.yaml");
        let text = "version: 1\nkind: backfill\nname: a\nsources:\n  s: {files: {path: 'x/*.parquet'}, event_time: {column: t}}\n\
                    outputs:\n  o: {table: n.t}\n";
        std::fs::write(&path, text).unwrap();
        let files = load(&path).unwrap().resolved.spec.sources["s"].files.clone().unwrap();
        let whole = folder.path().canonicalize().unwrap().join("x/*.parquet");
        assert_eq!(files.path, whole.display().to_string());
    }
}
