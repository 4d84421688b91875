//! Checks one source of a spec.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::error::{SpecError, quoted};
use super::interpolate::is_variable;
use super::location::{check_endpoint, check_location};
use super::model::{
    BoundsSpec, ColumnSpec, CsvSpec, EventTimeSpec, FilesSpec, Format, GenerateSpec, OnDisorder, OnError, Secret,
    SourceSpec, StorageSpec,
};
use super::names::{TableName, check_column};
use super::quantity::{canonical_span, parse_span};
use super::resolve::Findings;
use super::resolve_hybrid::hybrid;
use super::resolve_kafka::kafka;
use super::resolved::{EventTimeBounds, EventTimeOf, Generate, ResolvedEventTime, ResolvedSource, SourceKind};
use super::time_of::{parse_event_time, zone};
use crate::time::{EventTime, Span};

/// 2024-01-01T00:00:00Z, where generated rows start.
const GENERATE_FROM: EventTime = EventTime::from_micros(1_704_067_200_000_000);
const ROWS_A_SPLIT: u64 = 1_000_000;
const MAX_COLUMNS: usize = 10_000;

pub(super) fn source(
    name: &str,
    spec: &mut SourceSpec,
    now_micros: i64,
    findings: &mut Findings,
) -> Option<ResolvedSource> {
    let kind = match (&mut spec.files, &mut spec.iceberg, &mut spec.kafka, &mut spec.hybrid, &mut spec.generate) {
        (Some(given), None, None, None, None) => findings.within("files", |findings| files(given, findings)),
        (None, Some(given), None, None, None) => findings.within("iceberg", |findings| {
            let table: TableName = findings.keep("table", given.table.trim().parse())?;
            given.table = table.to_string();
            Some(SourceKind::Iceberg { table, snapshot: given.snapshot })
        }),
        (None, None, Some(given), None, None) => {
            let kafka = findings.within("kafka", |findings| kafka(given, now_micros, findings));
            kafka.map(|kafka| SourceKind::Kafka(Box::new(kafka)))
        }
        (None, None, None, Some(given), None) => {
            findings.within("hybrid", |findings| hybrid(given, now_micros, findings))
        }
        (None, None, None, None, Some(given)) => findings.within("generate", |findings| generate(given, findings)),
        _ => {
            findings.here(SpecError::new(
                "exactly one of `files`, `iceberg`, `kafka`, `hybrid` and `generate` says what a source reads",
            ));
            return None;
        }
    };
    let event_time = event_time_of(spec, findings)?;
    let on_error = on_error(spec, findings)?;
    Some(ResolvedSource { name: name.to_owned(), kind: kind?, event_time, on_error })
}

/// Where event times come from; nothing in it for generated rows.
fn event_time_of(spec: &mut SourceSpec, findings: &mut Findings) -> Option<Option<ResolvedEventTime>> {
    let reader = match (&spec.files, spec.topic()) {
        (Some(_), _) => Reader::Files,
        (_, Some(_)) => Reader::Kafka,
        _ => Reader::Table,
    };
    match (&mut spec.event_time, &spec.generate) {
        (Some(_), Some(_)) => {
            findings
                .add("event_time", SpecError::new("generated rows bring their own event time").hint("take it away"));
            None
        }
        (None, Some(_)) => Some(None),
        (None, None) if reader == Reader::Kafka => Some(Some(ResolvedEventTime::of_records())),
        (None, None) => {
            let error = SpecError::new("the key `event_time` is missing");
            findings.here(error.hint("say where event times come from: `event_time: {column: …}`"));
            None
        }
        (Some(given), None) => {
            let resolved = findings.within("event_time", |findings| event_time(given, reader, findings))?;
            spec.event_time.take_if(|given| *given == EventTimeSpec::default());
            Some(Some(resolved))
        }
    }
}

fn on_error(spec: &mut SourceSpec, findings: &mut Findings) -> Option<OnError> {
    // What is left out and what is given as it would be anyway is one meaning, and has one id.
    let on_error = spec.on_error.take_if(|given| *given == OnError::Fail).or(spec.on_error).unwrap_or(OnError::Fail);
    if on_error == OnError::DeadLetter && spec.generate.is_some() {
        findings.add("on_error", SpecError::new("generated rows are all sound").hint("take it away"));
        return None;
    }
    if on_error == OnError::Fail && spec.dead_letter.is_some() {
        let error = SpecError::new("there are no dead letters while a bad record fails the run");
        findings.add("dead_letter", error.hint("write `on_error: dead_letter` beside it, or take it away"));
        return None;
    }
    Some(on_error)
}

fn files(spec: &mut FilesSpec, findings: &mut Findings) -> Option<SourceKind> {
    let path = findings.keep("path", check_location(&spec.path));
    if let Some(columns) = &spec.schema {
        findings.within("schema", |findings| check_columns(columns, findings));
        if spec.format == Some(Format::Parquet) {
            findings.add("schema", SpecError::new("Parquet files bring their schema").hint("take it away"));
        }
    }
    if let Some(csv) = &spec.csv {
        if matches!(spec.format, Some(Format::Parquet | Format::Json)) {
            findings.add("csv", SpecError::new("the files are not CSV").hint("take it away, or write `format: csv`"));
        }
        findings.within("csv", |findings| check_csv(csv, findings));
    }
    if let Some(storage) = &spec.storage {
        findings.within("storage", |findings| check_storage(storage, findings));
        if path.as_ref().is_some_and(|path| path.starts_with('/') || path.starts_with("file:")) {
            let error = SpecError::new("a local path needs no store's settings");
            findings.add("storage", error.hint("take them away, or name a path in a store: `s3://…`"));
        }
    }
    spec.path = path?;
    Some(SourceKind::Files(Box::new(spec.clone())))
}

pub(super) fn check_columns(columns: &[ColumnSpec], findings: &mut Findings) {
    if columns.is_empty() || columns.len() > MAX_COLUMNS {
        findings.here(SpecError::new(format!("a schema has 1 to {MAX_COLUMNS} columns")));
    }
    let mut seen = BTreeSet::new();
    for (at, column) in columns.iter().enumerate() {
        findings.within(&at.to_string(), |findings| {
            findings.keep("name", check_column(&column.name));
            if !seen.insert(&column.name) {
                let error = SpecError::new(format!("the column {} is given twice", quoted(&column.name)));
                findings.add("name", error);
            }
            if column.r#type.trim().is_empty() || column.r#type.len() > 64 {
                findings.add("type", SpecError::new(format!("{} is not a type", quoted(&column.r#type))));
            }
        });
    }
}

pub(super) fn check_csv(csv: &CsvSpec, findings: &mut Findings) {
    let one = <[u8; 1]>::try_from(csv.delimiter.as_bytes()).ok();
    if !one.is_some_and(|[b]| b == b'\t' || ((b' '..=b'~').contains(&b) && b != b'"')) {
        let error = SpecError::new(format!("{} does not stand between fields", quoted(&csv.delimiter)));
        findings.add("delimiter", error.hint("write one ASCII character, not a quotation mark: `\"\\t\"` is a tab"));
    }
}

fn check_storage(storage: &StorageSpec, findings: &mut Findings) {
    if let Some(endpoint) = &storage.endpoint {
        findings.keep("endpoint", check_endpoint(endpoint, storage.allow_http));
    }
    if let Some(region) = &storage.region {
        let fits = (1..=64).contains(&region.len()) && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fits {
            findings.add("region", SpecError::new(format!("{} is not a region", quoted(region))));
        }
    }
    let secrets = [
        ("access_key_id", &storage.access_key_id),
        ("secret_access_key", &storage.secret_access_key),
        ("session_token", &storage.session_token),
    ];
    for (key, secret) in secrets {
        if let Some(secret) = secret {
            findings.keep(key, check_secret(secret));
        }
    }
    if storage.access_key_id.is_some() != storage.secret_access_key.is_some() {
        findings.here(SpecError::new("`access_key_id` and `secret_access_key` come together"));
    } else if storage.session_token.is_some() && storage.access_key_id.is_none() {
        findings.add("session_token", SpecError::new("a session token needs `access_key_id` and `secret_access_key`"));
    }
}

pub(super) fn check_secret(secret: &Secret) -> Result<(), SpecError> {
    match (&secret.from_env, &secret.from_file) {
        (Some(variable), None) if is_variable(variable) => Ok(()),
        (Some(variable), None) => {
            let error = SpecError::new(format!("{} is not the name of an environment variable", quoted(variable)));
            Err(error.hint("write the bare name: `{from_env: AWS_SECRET_ACCESS_KEY}`"))
        }
        (None, Some(file)) if file.contains("${") => {
            Err(SpecError::new("nothing is expanded in the reference of a secret").hint("write the path itself"))
        }
        (None, Some(file)) => match check_location(file) {
            Ok(_) if file.starts_with('/') => Ok(()),
            Ok(_) => Err(SpecError::new(format!("{} is not a local file", quoted(file)))),
            Err(error) => Err(error),
        },
        _ => Err(SpecError::new("exactly one of `from_env` and `from_file` says where a secret is")),
    }
}

/// Who reads, and so where event times can come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Files,
    Table,
    Kafka,
}

fn event_time(spec: &mut EventTimeSpec, reader: Reader, findings: &mut Findings) -> Option<ResolvedEventTime> {
    let is_files = reader == Reader::Files;
    let of = match (&spec.column, &spec.path) {
        (Some(column), None) => {
            findings.keep("column", check_column(column)).map(|()| EventTimeOf::Column(column.clone(), spec.unit))
        }
        (None, None) if reader == Reader::Kafka => Some(EventTimeOf::Record),
        (None, Some(_)) if !is_files => {
            findings.add("path", SpecError::new("only files have a path").hint("name a `column`"));
            None
        }
        (None, Some(path)) => findings.keep("path", check_pattern(path)).map(|()| EventTimeOf::Path(path.clone())),
        _ => {
            findings.here(SpecError::new("exactly one of `column` and `path` says where event times come from"));
            None
        }
    };
    if spec.unit.is_some() && spec.column.is_none() {
        findings.add("unit", SpecError::new("a unit belongs to an integer `column`"));
    }
    let zone = findings.keep("time_zone", spec.time_zone.as_deref().map_or(Ok(TimeZone::UTC), zone));
    if spec.bounds.is_some() && !is_files {
        findings.add("bounds", SpecError::new("only files have declared bounds").hint("take them away"));
    }
    let bounds = findings.keep("bounds", spec.bounds.as_ref().map(EventTimeBounds::of).transpose())?;
    if let Some(EventTimeBounds::Declared(span)) = bounds {
        spec.bounds = Some(BoundsSpec::Declared(canonical_span(span)));
    }
    let out_of_orderness = out_of_orderness(spec, reader, findings)?;
    let allow_disorder = spec.on_disorder == Some(OnDisorder::Allow);
    Some(ResolvedEventTime { of: of?, time_zone: zone?, bounds, out_of_orderness, allow_disorder })
}

fn out_of_orderness(spec: &mut EventTimeSpec, reader: Reader, findings: &mut Findings) -> Option<Option<Span>> {
    if reader != Reader::Kafka {
        for (key, is_given) in
            [("out_of_orderness", spec.out_of_orderness.is_some()), ("on_disorder", spec.on_disorder.is_some())]
        {
            if is_given {
                findings.add(key, SpecError::new("only Kafka's records have an order").hint("take it away"));
            }
        }
        return Some(None);
    }
    let span = findings.keep("out_of_orderness", spec.out_of_orderness.as_deref().map(parse_span).transpose())?;
    spec.out_of_orderness = span.map(canonical_span);
    spec.on_disorder.take_if(|given| *given == OnDisorder::Fail);
    if span.is_none() && spec.on_disorder.is_some() {
        let error = SpecError::new("there is no promise to break").hint("declare an `out_of_orderness`");
        findings.add("on_disorder", error);
    }
    Some(span)
}

/// A pattern names a year and goes down without a gap: year, month, day, hour, minute.
fn check_pattern(pattern: &str) -> Result<(), SpecError> {
    const PARTS: [&str; 5] = ["%Y", "%m", "%d", "%H", "%M"];
    let bad = |why: &str| {
        let error = SpecError::new(format!("{} is not the form of a path: {why}", quoted(pattern)));
        Err(error.hint("write date parts from the year down: `dt=%Y-%m-%d/hour=%H`"))
    };
    let parts: Vec<String> =
        pattern.match_indices('%').map(|(at, _)| pattern[at..].chars().take(2).collect()).collect();
    if let Some(other) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return bad(&format!("{} is none of {}", quoted(other), PARTS.join(" ")));
    }
    if pattern.len() > 255 || pattern.chars().any(char::is_control) {
        return bad("it is too long or holds a control character");
    }
    let known = PARTS.iter().take_while(|part| parts.iter().any(|given| given == *part)).count();
    match known {
        0 => bad("it names no year (`%Y`)"),
        _ if parts.len() > known => bad("a part is missing above another, or given twice"),
        _ => Ok(()),
    }
}

fn generate(spec: &mut GenerateSpec, findings: &mut Findings) -> Option<SourceKind> {
    let at_least_one = |n: u64| if n > 0 { Ok(n) } else { Err(SpecError::new("at least 1")) };
    let rows = findings.keep("rows", at_least_one(spec.rows));
    let keys = findings.keep("keys", at_least_one(spec.keys));
    let rate = findings.keep("rate", number(spec.rate, 1e-6, 1e12));
    let skew = findings.keep("skew", if spec.skew == 0.0 { Ok(0.0) } else { number(spec.skew, 1e-6, 100.0) });
    // A relative start would make other rows tomorrow: `now` is refused by giving none.
    let start = match &spec.start {
        Some(text) if text.trim_start().starts_with("now") => {
            findings.add("start", SpecError::new("generated rows start at a fixed point").hint("write a date"));
            None
        }
        Some(text) => findings.keep("start", parse_event_time(text, &TimeZone::UTC, 0)),
        None => Some(GENERATE_FROM),
    };
    let disorder = findings.keep("disorder", spec.disorder.as_deref().map_or(Ok(Span::ZERO), parse_span));
    let rows = rows?;
    let splits = spec.splits.unwrap_or_else(|| rows.div_ceil(ROWS_A_SPLIT));
    if splits == 0 || splits > rows {
        findings.add("splits", SpecError::new(format!("from 1 to the number of rows, {rows}")));
        return None;
    }
    let made = Generate {
        seed: spec.seed,
        rows,
        rate: rate?,
        start: start?,
        disorder: disorder?,
        skew: skew?,
        keys: keys?,
        splits,
    };
    (spec.rate, spec.skew) = (made.rate, made.skew);
    spec.start = spec.start.as_ref().map(|_| made.start.to_string());
    spec.disorder = spec.disorder.as_ref().map(|_| canonical_span(made.disorder));
    Some(SourceKind::Generate(made))
}

/// A number in range, to 15 digits: so many survive every reader of JSON, and the id hangs on them.
fn number(given: f64, least: f64, most: f64) -> Result<f64, SpecError> {
    let rounded: f64 = format!("{given:.14e}").parse().unwrap_or(f64::NAN);
    if (least..=most).contains(&rounded) {
        return Ok(rounded);
    }
    Err(SpecError::new(format!("{given} is not from {least} to {most}")))
}
