//! What a plan holds for `apply`: the spec, and what was there when it was made.
//!
//! It stands under `apply` in a plan's document. The id seals the spec, for it is a hash of it; `seal` is SHA-256 over
//! the rest. What else a plan says is for people, and nothing rests on it.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tidegate_common::spec::model::LiveSpec;
use tidegate_common::{clock, spec};
use tidegate_proto::{expected, v1};
use tidegate_worker::survey::{OutputSurvey, SourceSurvey, Survey};

use crate::exit::{Error, Exit};
use crate::figures;
use crate::output::API_VERSION;
use crate::spec_file::{CheckedSpec, DEPLOYMENT};

/// The `kind` of a plan.
pub(crate) const KIND: &str = "Plan";
/// The `kind` that earlier releases gave to a saved plan, which none of them could apply.
const OLD_KIND: &str = "SavedPlan";
/// Bytes of file pins that are sent along, so that a changed file can be named; above it there are none.
const MAX_PINS: usize = 256 << 10;
/// Bytes of a pin besides its path and etag, at most.
const PIN: usize = 32;

/// What `apply` takes from a plan.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedPlan {
    /// The version of this form.
    version: u32,
    /// The whole id of the backfill.
    id: String,
    /// The whole spec, canonical.
    spec: Value,
    /// The group of the live job that it must not run beside; the spec's commands for that job are kept nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    live_group: Option<String>,
    /// What was found of each source.
    sources: Vec<SavedSource>,
    /// What was found of each table.
    outputs: Vec<SavedOutput>,
    /// SHA-256, in hexadecimal, over all of it but the spec.
    seal: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SavedSource {
    name: String,
    pinned: String,
    /// Over every file and unit that was found.
    digest: String,
    files: u64,
    rows: u64,
    bytes: u64,
    /// Of an Iceberg table.
    state: Option<State>,
    /// Of a Kafka topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<TopicRange>,
    /// Of a hybrid source: what of each partition is read from the archive; `range` is what comes from the topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    archive: Vec<OffsetRange>,
    pins: Vec<Pin>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct State {
    table_uuid: String,
    /// Null where the table is empty.
    snapshot: Option<String>,
    schema_id: i32,
}

/// What is read of a topic; applying the plan reads it, whatever the topic's ends are by then.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TopicRange {
    topic_id: String,
    /// How many the topic had.
    partitions: u32,
    offsets: Vec<OffsetRange>,
    /// What every worker must decode alike, in hexadecimal.
    format: String,
}

/// Offsets [start, end) of a partition.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OffsetRange {
    partition: i32,
    start: i64,
    end: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pin {
    path: String,
    size: u64,
    etag: Option<String>,
    modified: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SavedOutput {
    name: String,
    table: String,
    /// Null where the table is to be created.
    table_uuid: Option<String>,
    schema_id: i32,
    spec_id: i32,
    /// Null where it appends.
    replaces_rows: Option<u64>,
}

/// What `apply` is given: a spec, and with a saved plan what must be there.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The spec.
    pub spec: CheckedSpec,
    /// What must be there.
    pub expected: Option<v1::ExpectedPlan>,
}

/// What is wrong with a saved plan.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it is not whole")]
    Form(#[from] serde_json::Error),
    #[error("{0} is not as it was saved")]
    Edited(&'static str),
    #[error("its spec cannot be read")]
    Spec(#[from] spec::BadCanonicalSpec),
    #[error("its spec is invalid")]
    Invalid(#[from] spec::SpecErrors),
    #[error("{0} is no time")]
    Time(String),
    #[error("{0} is no snapshot")]
    Snapshot(String),
    #[error("the format of the topic of {0} is no hexadecimal")]
    Format(String),
}

impl SavedPlan {
    /// What applying the plan of `survey` rests on.
    pub(crate) fn of(spec: &CheckedSpec, survey: &Survey) -> Self {
        let mut plan = Self {
            version: expected::VERSION,
            id: spec.id.to_string(),
            spec: serde_json::from_str(&spec.json()).unwrap_or_default(),
            live_group: spec.resolved.live.as_ref().map(|live| live.group.clone()),
            sources: survey.sources.iter().map(source).collect(),
            // What keeps late rows stands behind the others, and is looked at when it is prepared.
            outputs: survey.outputs.iter().filter(|one| one.keeps_late_of.is_none()).map(output).collect(),
            seal: String::new(),
        };
        plan.seal = plan.sealed();
        plan
    }

    /// The seal that is due.
    fn sealed(&self) -> String {
        let parts = (self.version, &self.id, &self.sources, &self.outputs);
        // Only a key that is no text could fail, and there is none.
        let mut text = serde_json::to_string(&parts).unwrap_or_default();
        if let Some(group) = &self.live_group {
            text.push_str(&Value::from(group.as_str()).to_string());
        }
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn open(&self) -> Result<Wanted, Damage> {
        let given = spec::from_canonical_json(&self.spec.to_string())?;
        let mut resolved = spec::resolve(given, clock::processing_time_micros())?;
        resolved.live = self.live_group.clone().map(|group| LiveSpec { group, pause: None, resume: None });
        let id = spec::backfill_id(DEPLOYMENT, &resolved);
        if id.to_string() != self.id {
            return Err(Damage::Edited("its spec"));
        }
        if self.sealed() != self.seal {
            return Err(Damage::Edited("what it says of sources and outputs"));
        }
        let expected = v1::ExpectedPlan {
            version: self.version,
            sources: self.sources.iter().map(expected_source).collect::<Result<_, _>>()?,
            outputs: self.outputs.iter().map(expected_output).collect(),
        };
        Ok(Wanted { spec: CheckedSpec { resolved, id }, expected: Some(without_many_pins(expected)) })
    }
}

/// Whether `text` is a plan, and no spec.
pub(crate) fn is_plan(text: &str) -> bool {
    kind(text).is_some_and(|kind| matches!(kind.as_str(), KIND | OLD_KIND))
}

/// The `kind` of a JSON document of ours; one that was cut off in the middle still begins with it.
fn kind(text: &str) -> Option<String> {
    if !text.trim_start().starts_with('{') || !text.contains("\"apiVersion\"") {
        return None;
    }
    if let Ok(document) = serde_json::from_str::<Value>(text) {
        return document.get("kind").and_then(Value::as_str).map(str::to_owned);
    }
    let (_, rest) = text.split_once("\"kind\"")?;
    let (_, rest) = rest.split_once('"')?;
    rest.split_once('"').map(|(kind, _)| kind.to_owned())
}

/// Reads the plan that `text`, of the file `name`, holds.
///
/// # Errors
/// A plan of another release, one that is damaged or was edited (preflight).
pub(crate) fn read(name: &Path, text: &str) -> Result<Wanted, Error> {
    let shown = name.display();
    let again = "make it again: `tidegate plan SPEC --out FILE`";
    let other = |what: String| Error::new(Exit::Preflight, format!("the plan {shown} is {what}")).hint(again);
    if kind(text).as_deref() == Some(OLD_KIND) {
        return Err(other("of an earlier release, which could not apply one".to_owned()));
    }
    let damaged = |damage: Damage| {
        Error::new(Exit::Preflight, format!("the plan {shown} was damaged or edited")).because(damage).hint(again)
    };
    let mut document: Value = serde_json::from_str(text).map_err(|bad| damaged(bad.into()))?;
    let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if version != API_VERSION {
        return Err(other(format!("of {version:?}, and this release reads {API_VERSION}")));
    }
    let apply = document.get_mut("apply").map(Value::take).unwrap_or_default();
    match apply.get("version").and_then(Value::as_u64) {
        Some(version) if version != u64::from(expected::VERSION) => {
            Err(other(format!("of version {version}, and this release reads version {}", expected::VERSION)))
        }
        _ => {
            let plan: SavedPlan = serde_json::from_value(apply).map_err(|bad| damaged(bad.into()))?;
            plan.open().map_err(damaged)
        }
    }
}

fn source(source: &SourceSurvey) -> SavedSource {
    let state = |state: &v1::SourcePin| State {
        table_uuid: state.table_uuid.clone(),
        snapshot: state.snapshot.map(|snapshot| snapshot.to_string()),
        schema_id: state.schema_id,
    };
    SavedSource {
        name: source.name.clone(),
        pinned: source.found.pinned.clone(),
        digest: source.found.digest.clone(),
        files: source.found.files,
        rows: source.found.rows_in_range,
        bytes: source.found.bytes_in_range,
        state: source.state.as_ref().filter(|state| !state.table_uuid.is_empty()).map(state),
        range: source.state.as_ref().and_then(|state| state.kafka.as_ref()).map(range),
        archive: source.state.iter().flat_map(|state| &state.archive).map(offsets).collect(),
        pins: source.pins.iter().map(pin).collect(),
    }
}

fn range(pin: &v1::KafkaPin) -> TopicRange {
    TopicRange {
        topic_id: pin.topic_id.clone(),
        partitions: pin.partitions,
        offsets: pin.ranges.iter().map(offsets).collect(),
        format: pin.format.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn offsets(range: &v1::KafkaRange) -> OffsetRange {
    OffsetRange { partition: range.partition, start: range.start, end: range.end }
}

/// The ranges that are saved: of each partition one, and that a range.
fn kafka_ranges(saved: &[OffsetRange]) -> Result<Vec<v1::KafkaRange>, Damage> {
    let mut seen = std::collections::BTreeSet::new();
    if !saved.iter().all(|range| seen.insert(range.partition) && 0 <= range.start && range.start <= range.end) {
        return Err(Damage::Edited("a range of offsets"));
    }
    let range = |range: &OffsetRange| v1::KafkaRange { partition: range.partition, start: range.start, end: range.end };
    Ok(saved.iter().map(range).collect())
}

fn kafka_pin(source: &str, range: &TopicRange) -> Result<v1::KafkaPin, Damage> {
    let digits =
        range.format.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let format: Option<Vec<u8>> = digits.collect();
    Ok(v1::KafkaPin {
        topic_id: range.topic_id.clone(),
        ranges: kafka_ranges(&range.offsets)?,
        format: format.ok_or_else(|| Damage::Format(source.to_owned()))?.into(),
        partitions: range.partitions,
    })
}

fn pin(pin: &v1::FilePin) -> Pin {
    Pin {
        path: pin.path.clone(),
        size: pin.size,
        etag: (!pin.etag.is_empty()).then(|| pin.etag.clone()),
        modified: figures::time(pin.modified),
    }
}

fn output(output: &OutputSurvey) -> SavedOutput {
    let table = &output.table;
    SavedOutput {
        name: output.name.clone(),
        table: table.table.clone(),
        table_uuid: (!table.uuid.is_empty()).then(|| table.uuid.clone()),
        schema_id: table.schema_id,
        spec_id: table.spec_id,
        replaces_rows: output.replaces.map(|_| table.rows_before),
    }
}

fn expected_source(source: &SavedSource) -> Result<v1::ExpectedSource, Damage> {
    let mut pin = v1::SourcePin { source: source.name.clone(), ..Default::default() };
    if let Some(state) = &source.state {
        let snapshot = state.snapshot.as_ref().map(|text| text.parse().map_err(|_| Damage::Snapshot(text.clone())));
        (pin.table_uuid, pin.snapshot, pin.schema_id) =
            (state.table_uuid.clone(), snapshot.transpose()?, state.schema_id);
    }
    pin.kafka = source.range.as_ref().map(|range| kafka_pin(&source.name, range)).transpose()?;
    pin.archive = kafka_ranges(&source.archive)?;
    Ok(v1::ExpectedSource {
        name: source.name.clone(),
        digest: source.digest.clone(),
        files: source.files,
        rows: source.rows,
        bytes: source.bytes,
        pins: source.pins.iter().map(file_pin).collect::<Result<_, _>>()?,
        state: (source.state.is_some() || source.range.is_some()).then_some(pin),
    })
}

fn file_pin(pin: &Pin) -> Result<v1::FilePin, Damage> {
    let modified: jiff::Timestamp = pin.modified.parse().map_err(|_| Damage::Time(pin.modified.clone()))?;
    let (path, etag) = (pin.path.clone(), pin.etag.clone().unwrap_or_default());
    Ok(v1::FilePin { path, size: pin.size, etag, modified: modified.as_microsecond() })
}

fn expected_output(output: &SavedOutput) -> v1::ExpectedOutput {
    v1::ExpectedOutput {
        table: output.table.clone(),
        uuid: output.table_uuid.clone().unwrap_or_default(),
        schema_id: output.schema_id,
        spec_id: output.spec_id,
        replaces_rows: output.replaces_rows,
    }
}

/// Pins only name what has changed; that something has, the digests say.
fn without_many_pins(mut plan: v1::ExpectedPlan) -> v1::ExpectedPlan {
    let bytes: usize =
        plan.sources.iter().flat_map(|source| &source.pins).map(|pin| pin.path.len() + pin.etag.len() + PIN).sum();
    if bytes > MAX_PINS {
        plan.sources.iter_mut().for_each(|source| source.pins.clear());
    }
    plan
}

#[cfg(test)]
mod tests;
