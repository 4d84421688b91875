//! The sandbox, the simulator, end-to-end and architecture tests.

pub mod sandbox;
pub mod sim;
