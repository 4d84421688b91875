//! Decides: the pure core, its stores and its gRPC service. It touches no data and holds no credentials of any
//! source or sink.

pub mod core;
pub mod driver;
pub mod service;
pub mod store;
