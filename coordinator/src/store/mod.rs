//! What the coordinator keeps: small facts under compare-and-swap, and immutable blobs.
//!
//! A store refuses to know what it stores: records, their versions and their meaning belong to those who write them.
//! No store sees another; only the driver holds them all.

pub mod blobs;
mod error;
pub mod memory;
pub mod meta;
pub mod redb;

#[cfg(test)]
pub(crate) mod conformance;

pub use error::StoreError;

/// What a store answers.
pub type Result<T> = std::result::Result<T, StoreError>;
