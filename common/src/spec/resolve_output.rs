//! Checks one output of a spec.

use std::time::Duration;

use super::error::{SpecError, quoted};
use super::late::Late;
use super::model::{CommitSpec, JoinSpec, Mode, OutputSpec, Publish};
use super::names::TableName;
use super::partition::PartitionField;
use super::quantity::{canonical_bytes, canonical_span, parse_bytes, parse_span};
use super::resolve::{Findings, positive_span};
use super::resolved::ResolvedOutput;
use crate::time::Span;

pub(super) const COMMIT_EVERY: Duration = Duration::from_secs(60);
pub(super) const COMMIT_BYTES: u64 = 4 << 30;
const MAX_SQL: usize = 64 << 10;
const MAX_FIELDS: usize = 16;
const MAX_PROPERTIES: usize = 256;
const MAX_BUCKETS: u32 = 1024;
const MAX_WARM_UP: Span = Span::from_micros(366 * 86_400_000_000);
/// What Tidegate itself writes into a table's properties.
const RESERVED: &str = "tidegate.";

pub(super) fn output(
    name: &str,
    spec: &mut OutputSpec,
    sources: &[(&str, bool)],
    has_window: bool,
    findings: &mut Findings,
) -> Option<ResolvedOutput> {
    replacing(spec, has_window, findings);
    let table = findings.keep("table", spec.table.trim().parse::<TableName>());
    let sql = query(spec, sources, findings);
    let partition_by = findings.within("partition_by", |findings| fields(&mut spec.partition_by, findings));
    findings.within("properties", |findings| properties(spec, findings));
    let commit = findings.within("commit", |findings| commit(&mut spec.commit, findings));
    let join = findings.within("join", |findings| join(&mut spec.join, findings));
    let late = findings.within("late", |findings| Late::of(&mut spec.late, findings));
    let (table, (commit_every, commit_bytes), join) = (table?, commit?, join?);
    spec.table = table.to_string();
    Some(ResolvedOutput {
        name: name.to_owned(),
        table,
        sql: sql?,
        partition_by: partition_by?,
        properties: spec.properties.clone(),
        mode: spec.mode,
        publish: spec.publish,
        commit_every,
        commit_bytes,
        dead_letters: None,
        late: late?,
        late_of: None,
        slice: join.slice,
        buckets: join.buckets,
        warm_up: join.warm_up,
        budget: join.budget,
    })
}

/// What replaces the window's rows needs a window, and commits once where nobody can look at a branch.
fn replacing(spec: &OutputSpec, has_window: bool, findings: &mut Findings) {
    if spec.mode != Mode::ReplaceWindow {
        return;
    }
    if !has_window {
        let error = SpecError::new("`replace_window` needs a window: without one it would replace the whole table");
        findings.add("mode", error.hint("say which `window` is replayed"));
    }
    if spec.publish == Publish::Direct && spec.commit.is_some() {
        let error =
            SpecError::new("`replace_window` commits once, when all is read: there is nothing to commit as it goes");
        findings
            .add("commit", error.hint("leave it out, or take `publish: staged`, which commits to a branch as it goes"));
    }
}

fn query(spec: &mut OutputSpec, sources: &[(&str, bool)], findings: &mut Findings) -> Option<String> {
    let given = match (&spec.sql, sources) {
        (Some(sql), _) => sql.trim().to_owned(),
        // What Kafka knows of a record is asked for by name.
        (None, [(one, true)]) => return Some(format!("SELECT * EXCEPT (_kafka) FROM \"{one}\"")),
        (None, [(one, false)]) => return Some(format!("SELECT * FROM \"{one}\"")),
        (None, _) => {
            let error = SpecError::new("the key `sql` is missing");
            findings.here(error.hint("with several sources, a query says what is written"));
            return None;
        }
    };
    let wrong = if given.is_empty() {
        "the query is empty".to_owned()
    } else if given.len() > MAX_SQL {
        format!("the query has {} bytes, more than the {MAX_SQL} allowed", given.len())
    } else if given.contains('\0') {
        "the query holds a NUL".to_owned()
    } else {
        spec.sql = Some(given.clone());
        return Some(given);
    };
    findings.add("sql", SpecError::new(wrong));
    None
}

fn fields(given: &mut [String], findings: &mut Findings) -> Option<Vec<PartitionField>> {
    if given.len() > MAX_FIELDS {
        findings.here(SpecError::new(format!("there are {} fields, more than the {MAX_FIELDS} allowed", given.len())));
        return None;
    }
    let mut fields: Vec<PartitionField> = Vec::new();
    for (at, text) in given.iter_mut().enumerate() {
        let field: PartitionField = findings.keep(&at.to_string(), text.parse())?;
        let same = |other: &&PartitionField| {
            other.column == field.column && other.transform.family() == field.transform.family()
        };
        if let Some(other) = fields.iter().find(same) {
            let message = format!("{} says no more than {}", quoted(&field.to_string()), quoted(&other.to_string()));
            findings.add(&at.to_string(), SpecError::new(message).hint("keep one of them"));
        }
        *text = field.to_string();
        fields.push(field);
    }
    Some(fields)
}

fn properties(spec: &OutputSpec, findings: &mut Findings) {
    if spec.properties.len() > MAX_PROPERTIES {
        findings.here(SpecError::new(format!("more than {MAX_PROPERTIES} properties")));
    }
    for (key, value) in spec.properties.iter().take(MAX_PROPERTIES) {
        if key.trim().is_empty() || key.len() > 255 || key.chars().any(char::is_control) || value.len() > 4_096 {
            findings.add(key, SpecError::new("a property has a name of 1 to 255 characters and at most 4096 bytes"));
        } else if key.to_ascii_lowercase().starts_with(RESERVED) {
            findings.add(key, SpecError::new(format!("properties that begin with `{RESERVED}` are Tidegate's own")));
        }
    }
}

fn commit(spec: &mut Option<CommitSpec>, findings: &mut Findings) -> Option<(Duration, u64)> {
    let Some(given) = spec else { return Some((COMMIT_EVERY, COMMIT_BYTES)) };
    let every = findings.keep("every", given.every.as_deref().map(positive_span).transpose());
    let bytes = findings.keep("bytes", given.bytes.as_deref().map(positive_bytes).transpose());
    let (every, bytes) = (every?, bytes?);
    *given = CommitSpec { every: every.map(canonical_span), bytes: bytes.map(canonical_bytes) };
    if *given == CommitSpec::default() {
        *spec = None;
    }
    let every = every.map_or(COMMIT_EVERY, |span| Duration::from_micros(span.as_micros().unsigned_abs()));
    Some((every, bytes.unwrap_or(COMMIT_BYTES)))
}

/// What is said of a join, checked.
#[derive(Default)]
struct Joining {
    slice: Option<Span>,
    buckets: Option<u32>,
    warm_up: Span,
    budget: Option<u64>,
}

fn join(spec: &mut Option<JoinSpec>, findings: &mut Findings) -> Option<Joining> {
    let Some(given) = spec else { return Some(Joining::default()) };
    let slice = findings.keep("slice", given.slice.as_deref().map(positive_span).transpose());
    let warm_up = findings.keep("warm_up", given.warm_up.as_deref().map(warm_up).transpose());
    let budget = findings.keep("budget", given.budget.as_deref().map(positive_bytes).transpose());
    let buckets = given.buckets;
    if buckets.is_some_and(|buckets| !(1..=MAX_BUCKETS).contains(&buckets)) {
        findings.add("buckets", SpecError::new(format!("rows are distributed into 1 to {MAX_BUCKETS} buckets")));
        return None;
    }
    let (slice, warm_up, budget) = (slice?, warm_up?.filter(|span| *span > Span::ZERO), budget?);
    *given = JoinSpec {
        slice: slice.map(canonical_span),
        buckets,
        warm_up: warm_up.map(canonical_span),
        budget: budget.map(canonical_bytes),
    };
    if *given == JoinSpec::default() {
        *spec = None;
    }
    Some(Joining { slice, buckets, warm_up: warm_up.unwrap_or_default(), budget })
}

fn warm_up(text: &str) -> Result<Span, SpecError> {
    let span = parse_span(text)?;
    let too_long = || SpecError::new(format!("sources are read at most {MAX_WARM_UP} earlier than they are met"));
    (span <= MAX_WARM_UP).then_some(span).ok_or_else(too_long)
}

fn positive_bytes(text: &str) -> Result<u64, SpecError> {
    match parse_bytes(text)? {
        0 => Err(SpecError::new("it must be more than nothing")),
        bytes => Ok(bytes),
    }
}

/// Refuses two outputs that write one table, be it the companion of the other's.
pub(super) fn one_writer_each(outputs: &[ResolvedOutput], findings: &mut Findings) {
    for (at, output) in outputs.iter().enumerate() {
        for other in outputs.iter().take(at) {
            if other.table == output.table {
                let message = format!("the outputs {} and {} both write it", quoted(&other.name), quoted(&output.name));
                let error = SpecError::new(message).hint("name another table, or make one query of both");
                findings.within(&output.name, |findings| findings.add("table", error));
            }
        }
        for what in ["late", "dead_letter"] {
            let companion = output.table.companion(what);
            if let Some(other) = outputs.iter().find(|other| other.table == companion) {
                let message = format!("it is kept for rows that {} cannot write", quoted(&output.name));
                let error = SpecError::new(message).hint("name another table");
                findings.within(&other.name, |findings| findings.add("table", error));
            }
        }
    }
}
