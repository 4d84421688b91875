//! Tidegate's wire: the worker protocol, the operator API and the records that are stored.
//!
//! The messages are generated from `proto/tidegate/v1/*.proto`. [`convert`] turns the ids and times of
//! `tidegate_common` into their messages and back, refusing what a peer must not send; [`expected`] holds what a saved
//! plan says against what is found.

pub mod convert;
pub mod expected;

/// Version 1 of every message and service.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("tidegate.v1");
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate.bin"));
