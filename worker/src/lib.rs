//! Touches data: reads sources, runs SQL, writes Iceberg; does what its leases say and nothing else.

pub mod access;
pub mod checkpoint;
pub mod failpoint;
pub mod failure;
mod format;
pub mod kafka;
pub mod session;
pub mod shuffle;
pub mod sink;
pub mod source;
pub mod storage;
pub mod survey;
pub mod task;
pub mod transform;
pub mod verify;
pub mod worker;
