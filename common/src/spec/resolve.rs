//! Checks what a spec says, and writes it in its normal form.
//!
//! Everything that can be judged without looking at data is judged here, and all of it in one go. Whether a mode
//! can be carried out, a table exists or a query makes sense is for others to say.

use std::collections::BTreeMap;

use super::error::{SpecError, SpecErrors};
use super::identity::canonical_json;
use super::model::{AlignmentSpec, Spec, WindowSpec};
use super::names::check_name;
use super::quantity::{canonical_span, parse_span};
use super::resolved::{Resolved, ResolvedOutput, ResolvedSource};
use super::tree::MAX_TEXT;
use super::{dead_letter, late, live, resolve_output, resolve_source, time_of};
use crate::time::{Span, Window};

/// The most sources that a backfill may have.
pub const MAX_SOURCES: usize = 64;
/// The most outputs that a backfill may have.
pub const MAX_OUTPUTS: usize = 64;

/// Checks `spec`; `now_micros` is processing time, microseconds since 1970, and fixes what `now` means in it.
///
/// Paths must be absolute by now: see [`super::absolutise`].
///
/// # Errors
/// All that is wrong, each with the keys that lead there.
pub fn resolve(spec: Spec, now_micros: i64) -> Result<Resolved, SpecErrors> {
    resolve_all(spec, now_micros).map_err(|found| SpecErrors::new(found, ""))
}

pub(super) fn resolve_all(mut spec: Spec, now_micros: i64) -> Result<Resolved, Vec<SpecError>> {
    let mut findings = Findings::default();
    if spec.version != 1 {
        findings.add("version", SpecError::new(format!("the version is {}, and this release reads 1", spec.version)));
    }
    findings.keep("name", check_name("a backfill", &spec.name));
    let window = findings.within("window", |findings| window(&mut spec.window, now_micros, findings));
    let max_drift = findings.within("alignment", |findings| max_drift(&mut spec.alignment, findings));
    let allow_wide = spec.alignment.as_ref().is_some_and(|alignment| alignment.allow_wide);
    let sources = findings.within("sources", |findings| sources(&mut spec, now_micros, findings));
    let mut outputs = findings.within("outputs", |findings| outputs(&mut spec, findings));
    let live = findings.within("live", |findings| live::take(&mut spec, findings));
    let kept = findings.within("sources", |findings| dead_letter::tables(&mut spec, &sources, &outputs, findings));
    outputs.extend(kept);
    let late = findings.within("outputs", |findings| late::tables(&spec, &sources, &outputs, findings));
    outputs.extend(late);
    match (window, max_drift) {
        (Some(window), Some(max_drift)) if findings.found.is_empty() => {
            check_size(&spec)?;
            Ok(Resolved { spec, window, max_drift, allow_wide, live, sources, outputs })
        }
        _ => Err(findings.found),
    }
}

fn check_size(spec: &Spec) -> Result<(), Vec<SpecError>> {
    match canonical_json(spec).len() {
        bytes if bytes > MAX_TEXT => {
            let message = format!("the spec has {bytes} bytes as canonical JSON, more than the {MAX_TEXT} allowed");
            Err(vec![SpecError::new(message)])
        }
        _ => Ok(()),
    }
}

fn window(spec: &mut Option<WindowSpec>, now_micros: i64, findings: &mut Findings) -> Option<Window> {
    let Some(given) = spec else { return Some(Window::ALL) };
    match time_of::window(given, now_micros) {
        Ok(window) => {
            *given = WindowSpec { from: window.from().to_string(), to: window.to().to_string(), time_zone: None };
            Some(window)
        }
        Err(found) => {
            for (key, error) in found {
                findings.add(key, error);
            }
            None
        }
    }
}

fn max_drift(spec: &mut Option<AlignmentSpec>, findings: &mut Findings) -> Option<Option<Span>> {
    let Some(given) = spec else { return Some(None) };
    let drift = findings.keep("max_drift", positive_span(&given.max_drift))?;
    given.max_drift = canonical_span(drift);
    Some(Some(drift))
}

fn sources(spec: &mut Spec, now_micros: i64, findings: &mut Findings) -> Vec<ResolvedSource> {
    count(&spec.sources, MAX_SOURCES, "source", findings);
    let mut resolved = Vec::new();
    for (name, source) in spec.sources.iter_mut().take(MAX_SOURCES) {
        findings.keep(name, check_name("a source", name));
        resolved.extend(findings.within(name, |findings| resolve_source::source(name, source, now_micros, findings)));
    }
    resolved
}

fn outputs(spec: &mut Spec, findings: &mut Findings) -> Vec<ResolvedOutput> {
    count(&spec.outputs, MAX_OUTPUTS, "output", findings);
    let sources: Vec<(&str, bool)> =
        spec.sources.iter().map(|(name, source)| (name.as_str(), source.topic().is_some())).collect();
    let has_window = spec.window.is_some();
    let mut resolved = Vec::new();
    for (name, output) in spec.outputs.iter_mut().take(MAX_OUTPUTS) {
        findings.keep(name, check_name("an output", name));
        let resolve = |findings: &mut Findings| resolve_output::output(name, output, &sources, has_window, findings);
        resolved.extend(findings.within(name, resolve));
    }
    resolve_output::one_writer_each(&resolved, findings);
    resolved
}

fn count<T>(given: &BTreeMap<String, T>, most: usize, what: &str, findings: &mut Findings) {
    match given.len() {
        0 => findings.here(SpecError::new(format!("there is no {what}")).hint(format!("name at least one {what}"))),
        many if many > most => {
            let error = SpecError::new(format!("there are {many} {what}s, more than the {most} allowed"));
            findings.here(error.hint("split the work into several backfills"));
        }
        _ => {}
    }
}

/// A duration above zero.
pub(super) fn positive_span(text: &str) -> Result<Span, SpecError> {
    let span = parse_span(text)?;
    if span == Span::ZERO {
        return Err(SpecError::new("it must be longer than nothing"));
    }
    Ok(span)
}

/// What was found wrong so far, and where the search is.
#[derive(Default)]
pub(super) struct Findings {
    found: Vec<SpecError>,
    path: Vec<String>,
}

impl Findings {
    /// Looks at what stands under `key`.
    pub(super) fn within<T>(&mut self, key: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let seen = look(self);
        self.path.pop();
        seen
    }

    /// Adds an error about the value of `key`.
    pub(super) fn add(&mut self, key: &str, error: SpecError) {
        self.within(key, |findings| findings.here(error));
    }

    /// Adds an error about the place of the search.
    pub(super) fn here(&mut self, error: SpecError) {
        self.found.push(error.of(self.path.clone()));
    }

    /// The value, or an error about `key`.
    pub(super) fn keep<T>(&mut self, key: &str, checked: Result<T, SpecError>) -> Option<T> {
        checked.map_err(|error| self.add(key, error)).ok()
    }
}
