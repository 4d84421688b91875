//! Decides: the pure core, its stores and its gRPC service. It refuses to touch data.

pub mod store;
