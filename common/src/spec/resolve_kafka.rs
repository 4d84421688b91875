//! Checks the Kafka source of a spec.

use std::collections::BTreeMap;

use super::error::{SpecError, quoted};
use super::kafka_properties::{self, Value};
use super::location::{check_endpoint, check_location};
use super::model::{KafkaSpec, OffsetSpec, RateLimitSpec, RecordFormat, RecordFormatSpec, RegistrySpec, ScanSpec};
use super::quantity::{canonical_bytes, parse_bytes};
use super::resolve::Findings;
use super::resolve_source::{check_columns, check_csv, check_secret};
use super::resolved::{Kafka, RateLimit, ScanOffset};
use super::time_of::parse_event_time;

/// The most partitions that `{offsets: …}` may name.
const MAX_PARTITIONS: usize = 100_000;

pub(super) fn kafka(spec: &mut KafkaSpec, now_micros: i64, findings: &mut Findings) -> Option<Kafka> {
    findings.keep("topic", check_topic(&spec.topic));
    findings.within("properties", |findings| properties(&mut spec.properties, findings));
    findings.within("secrets", |findings| {
        for (key, secret) in &spec.secrets {
            findings.keep(key, kafka_properties::check(key, Value::Secret).and_then(|()| check_secret(secret)));
        }
    });
    for key in spec.secrets.keys().filter(|key| spec.properties.contains_key(*key)) {
        findings.add("secrets", SpecError::new(format!("{} is a property, too: keep one of them", quoted(key))));
    }
    let (start, stop) = findings.within("scan", |findings| scan(&mut spec.scan, now_micros, findings))?;
    findings.within("format", |findings| format(&spec.format, findings));
    let rate_limit = findings.within("rate_limit", |findings| rate_limit(&mut spec.rate_limit, findings))?;
    Some(Kafka { start, stop, rate_limit, spec: spec.clone() })
}

/// Kafka's own rule for the names of topics.
fn check_topic(topic: &str) -> Result<(), SpecError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=249).contains(&topic.len()) && topic != "." && topic != ".." && topic.chars().all(fits) {
        return Ok(());
    }
    let error = SpecError::new(format!("{} is not the name of a topic", quoted(topic)));
    Err(error.hint("use 1 to 249 letters, digits, `.`, `-` and `_`"))
}

/// What may be the name of a consumer group.
pub(super) fn check_group(group: &str) -> Result<(), SpecError> {
    if group.is_empty() || group.len() > 255 || group.chars().any(char::is_control) {
        return Err(SpecError::new(format!("{} is not the name of a group", quoted(group))));
    }
    Ok(())
}

fn properties(given: &mut BTreeMap<String, String>, findings: &mut Findings) {
    if !given.contains_key("bootstrap.servers") {
        let error = SpecError::new("`bootstrap.servers` is missing");
        findings.here(error.hint("name a broker or several: `{bootstrap.servers: \"host:9092\"}`"));
    }
    for (key, value) in given {
        findings.keep(key, kafka_properties::check(key, Value::Text(value)));
    }
}

fn scan(given: &mut Option<ScanSpec>, now_micros: i64, findings: &mut Findings) -> Option<(ScanOffset, ScanOffset)> {
    let Some(spec) = given else { return Some((ScanOffset::Earliest, ScanOffset::Latest)) };
    let mut one = |key: &str, given: &mut Option<OffsetSpec>, default: ScanOffset| match given {
        None => Some(default),
        Some(offset) => findings.within(key, |findings| scan_offset(offset, now_micros, findings)),
    };
    let start = one("start", &mut spec.start, ScanOffset::Earliest);
    let stop = one("stop", &mut spec.stop, ScanOffset::Latest);
    // What is left out and what is given as it would be anyway is one meaning, and has one id.
    spec.start.take_if(|offset| *offset == OffsetSpec::Earliest);
    spec.stop.take_if(|offset| *offset == OffsetSpec::Latest);
    if *spec == ScanSpec::default() {
        *given = None;
    }
    let (start, stop) = (start?, stop?);
    let backwards = match (&start, &stop) {
        (ScanOffset::Latest, ScanOffset::Latest | ScanOffset::Earliest) => true,
        (_, ScanOffset::Earliest) => true,
        (ScanOffset::Timestamp(start), ScanOffset::Timestamp(stop)) => start >= stop,
        (ScanOffset::Offsets(start), ScanOffset::Offsets(stop)) => {
            let behind = |(partition, offset): (&i32, &i64)| stop.get(partition).is_some_and(|stop| offset > stop);
            start.iter().any(behind)
        }
        _ => false,
    };
    if backwards {
        findings.here(SpecError::new("the range ends before it starts").hint("`stop` is the first offset not read"));
        return None;
    }
    Some((start, stop))
}

fn scan_offset(spec: &mut OffsetSpec, now_micros: i64, findings: &mut Findings) -> Option<ScanOffset> {
    Some(match spec {
        OffsetSpec::Earliest => ScanOffset::Earliest,
        OffsetSpec::Latest => ScanOffset::Latest,
        OffsetSpec::Timestamp(text) => {
            let at = findings.keep("timestamp", parse_event_time(text, &jiff::tz::TimeZone::UTC, now_micros))?;
            *text = at.to_string();
            ScanOffset::Timestamp(at)
        }
        OffsetSpec::Group(group) => {
            findings.keep("group", check_group(group))?;
            ScanOffset::Group(group.clone())
        }
        OffsetSpec::Offsets(given) => {
            ScanOffset::Offsets(findings.within("offsets", |findings| offsets(given, findings))?)
        }
    })
}

/// Offsets by partition, in their normal form.
pub(super) fn offsets(given: &mut BTreeMap<String, i64>, findings: &mut Findings) -> Option<BTreeMap<i32, i64>> {
    if given.is_empty() || given.len() > MAX_PARTITIONS {
        findings.here(SpecError::new(format!("it names 1 to {MAX_PARTITIONS} partitions")));
        return None;
    }
    let mut offsets = BTreeMap::new();
    for (key, offset) in given.iter() {
        let Some(partition) = key.trim().parse::<i32>().ok().filter(|partition| *partition >= 0) else {
            findings.here(SpecError::new(format!("{} is not a partition", quoted(key))));
            return None;
        };
        if *offset < 0 {
            findings.add(key, SpecError::new("an offset is 0 or more"));
            return None;
        }
        if offsets.insert(partition, *offset).is_some() {
            findings.here(SpecError::new(format!("the partition {partition} is given twice")));
            return None;
        }
    }
    *given = offsets.iter().map(|(partition, offset)| (partition.to_string(), *offset)).collect();
    Some(offsets)
}

fn rate_limit(given: &mut Option<RateLimitSpec>, findings: &mut Findings) -> Option<RateLimit> {
    let Some(spec) = given else { return Some(RateLimit::default()) };
    let bytes = findings.keep("bytes", spec.bytes.as_deref().map(parse_bytes).transpose())?;
    spec.bytes = bytes.map(canonical_bytes);
    for (key, value) in [("bytes", bytes), ("records", spec.records)] {
        if value == Some(0) {
            findings.add(key, SpecError::new("a limit of 0 would read nothing").hint("take it away, or `pause`"));
        }
    }
    let limit = RateLimit { bytes, records: spec.records };
    if *spec == RateLimitSpec::default() {
        *given = None;
    }
    Some(limit)
}

/// Which keys a format takes, and which it needs.
fn format(spec: &RecordFormatSpec, findings: &mut Findings) {
    use RecordFormat::{Avro, Csv, DebeziumJson, Json, Protobuf, Raw};
    let kind = spec.r#type;
    let given = [
        ("schema", spec.schema.is_some(), matches!(kind, Json | Csv | DebeziumJson)),
        ("schema_registry", spec.schema_registry.is_some(), matches!(kind, Avro | Protobuf)),
        ("avro_schema", spec.avro_schema.is_some(), kind == Avro),
        ("descriptor_set", spec.descriptor_set.is_some(), kind == Protobuf),
        ("message", spec.message.is_some(), kind == Protobuf),
        ("csv", spec.csv.is_some(), kind == Csv),
        ("changes", spec.changes.is_some(), kind == DebeziumJson),
    ];
    for (key, is_given, fits) in given {
        if is_given && !fits {
            findings.add(key, SpecError::new(format!("`{key}` is not for this format")).hint("take it away"));
        }
    }
    let lacks = match kind {
        Json | Csv | DebeziumJson if spec.schema.is_none() => "its columns in `schema`",
        Avro if spec.schema_registry.is_none() && spec.avro_schema.is_none() => {
            "a `schema_registry` or an `avro_schema`"
        }
        Protobuf if spec.schema_registry.is_none() && spec.descriptor_set.is_none() => {
            "a `schema_registry` or a `descriptor_set`"
        }
        Protobuf if spec.descriptor_set.is_some() && spec.message.is_none() => "the name of its `message`",
        _ => "",
    };
    if !lacks.is_empty() {
        findings.here(SpecError::new(format!("this format needs {lacks}")));
    }
    debug_assert!(kind != Raw || lacks.is_empty());
    if let Some(columns) = &spec.schema {
        findings.within("schema", |findings| check_columns(columns, findings));
    }
    if let Some(csv) = &spec.csv {
        findings.within("csv", |findings| check_csv(csv, findings));
    }
    for (key, file) in [("avro_schema", &spec.avro_schema), ("descriptor_set", &spec.descriptor_set)] {
        let Some(file) = file else { continue };
        findings.keep(
            key,
            check_location(file).and_then(|file| match file.starts_with('/') {
                true => Ok(()),
                false => Err(SpecError::new(format!("{} is not a local file", quoted(&file)))),
            }),
        );
    }
    if let Some(registry) = &spec.schema_registry {
        findings.within("schema_registry", |findings| check_registry(registry, findings));
    }
}

fn check_registry(registry: &RegistrySpec, findings: &mut Findings) {
    let is_near = ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|near| {
        registry.url.strip_prefix(near).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    findings.keep("url", check_endpoint(&registry.url, registry.allow_http || is_near));
    for (key, secret) in [("user", &registry.user), ("password", &registry.password)] {
        if let Some(secret) = secret {
            findings.keep(key, check_secret(secret));
        }
    }
    if registry.user.is_some() != registry.password.is_some() {
        findings.here(SpecError::new("`user` and `password` come together"));
    }
}
