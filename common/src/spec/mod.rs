//! The spec: what a user asks for.
//!
//! [`model`] holds the one schema: the same types are read from YAML, published as JSON Schema, hashed into the
//! backfill's id and sent over the wire as canonical JSON. The way of a spec is
//! [`Document::read`] → [`Document::absolutise`] → [`Document::resolve`]; what comes out is [`Resolved`], and
//! [`backfill_id`] names it. A spec that has lost its text (from the wire) goes through [`from_canonical_json`]
//! and [`resolve()`].
//!
//! Specs are hostile: nothing here reads a file, a clock or an environment; all three are arguments.

mod dead_letter;
mod error;
mod identity;
mod interpolate;
mod kafka_properties;
mod late;
mod live;
mod location;
pub mod model;
mod names;
mod parse;
mod partition;
mod quantity;
mod reader;
mod resolve;
mod resolve_hybrid;
mod resolve_kafka;
mod resolve_output;
mod resolve_source;
mod resolved;
mod time_of;
mod tree;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use dead_letter::{DeadLetterLimit, DeadLetters};
pub use error::{SpecError, SpecErrors};
pub use identity::{BadCanonicalSpec, backfill_id, canonical_json, differences, from_canonical_json, json_schema};
pub use late::Late;
pub use location::absolutise;
pub use names::TableName;
pub use parse::{Document, parse};
pub use partition::{PartitionField, Transform};
pub use quantity::{canonical_span, parse_bytes, parse_span};
pub use resolve::{MAX_OUTPUTS, MAX_SOURCES, resolve};
pub use resolved::{
    EventTimeBounds, EventTimeOf, Generate, Hybrid, Kafka, RateLimit, Resolved, ResolvedEventTime, ResolvedOutput,
    ResolvedSource, ScanOffset, SourceKind,
};
pub use time_of::{parse_event_time, zone};
