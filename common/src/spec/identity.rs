//! What makes two specs one backfill: their canonical JSON, the id made from it, and what tells two apart.

use schemars::generate::SchemaSettings;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::shown;
use super::model::Spec;
use super::resolved::Resolved;
use super::tree::MAX_TEXT;
use crate::ids::BackfillId;

/// Why a text from the wire is not the canonical JSON of a spec.
#[derive(Debug, thiserror::Error)]
pub enum BadCanonicalSpec {
    /// It is longer than any spec.
    #[error("the canonical JSON of a spec has {0} bytes, more than the {max} allowed", max = MAX_TEXT)]
    TooLong(usize),
    /// It does not have a spec's form.
    #[error("this is not the canonical JSON of a spec")]
    Form(#[source] serde_json::Error),
}

/// `spec` as one line of JSON: fields in the order of the types, names in order.
///
/// Specs that mean the same have one canonical JSON once they are resolved: give it [`Resolved::spec`].
pub fn canonical_json(spec: &Spec) -> String {
    // Only a key that is no text could fail, and a spec has none.
    serde_json::to_string(spec).unwrap_or_default()
}

/// Reads what [`canonical_json`] wrote. No variable is expanded.
///
/// # Errors
/// What is no spec, or too long for one.
pub fn from_canonical_json(text: &str) -> Result<Spec, BadCanonicalSpec> {
    if text.len() > MAX_TEXT {
        return Err(BadCanonicalSpec::TooLong(text.len()));
    }
    serde_json::from_str(text).map_err(BadCanonicalSpec::Form)
}

/// The id of the backfill that `resolved` asks for in `deployment`.
///
/// It is SHA-256 over deployment, name, window and canonical JSON, each preceded by its length.
pub fn backfill_id(deployment: &str, resolved: &Resolved) -> BackfillId {
    let window = [resolved.window.from().as_micros().to_be_bytes(), resolved.window.to().as_micros().to_be_bytes()];
    let json = canonical_json(&resolved.spec);
    let parts =
        [b"tidegate/spec/v1", deployment.as_bytes(), resolved.spec.name.as_bytes(), &window.concat(), json.as_bytes()];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    BackfillId::from_digest(&hash.finalize().into())
}

/// The JSON Schema (draft-07) of a spec, for editors.
pub fn json_schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Spec>();
    format!("{:#}", schema.as_value())
}

/// What tells `b` from `a`: one line for each path that differs, with both values; none when they are one spec.
pub fn differences(a: &Spec, b: &Spec) -> Vec<String> {
    let mut lines = Vec::new();
    let value = |spec| serde_json::to_value(spec).unwrap_or(Value::Null);
    compare("", &value(a), &value(b), &mut lines);
    lines
}

fn compare(path: &str, a: &Value, b: &Value, lines: &mut Vec<String>) {
    let below = |key: &str| if path.is_empty() { shown(key) } else { format!("{path}.{}", shown(key)) };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, in_a) in a {
                match b.get(key) {
                    Some(in_b) => compare(&below(key), in_a, in_b, lines),
                    None => lines.push(format!("{}: {} → none", below(key), said(in_a))),
                }
            }
            for (key, in_b) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                lines.push(format!("{}: none → {}", below(key), said(in_b)));
            }
        }
        (a, b) if a == b => {}
        (a, b) => lines.push(format!("{path}: {} → {}", said(a), said(b))),
    }
}

fn said(value: &Value) -> String {
    shown(&value.to_string())
}
