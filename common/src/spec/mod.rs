//! The spec: what a user asks for.
//!
//! [`model`] holds the one schema: the same types are read from YAML, published as JSON Schema, hashed into the
//! backfill's id and sent over the wire as canonical JSON.

pub mod model;
