//! The sandbox: worlds of real processes for tests, and what other engines say of their tables.
//!
//! A world owns all it touches: a folder, a port that the system gave it, its processes; nothing of it outlives the
//! test. Waiting is by level, in one place ([`wait_until`]). It refuses to look into the program: a test sees what an
//! operator sees, and what PyIceberg and DuckDB read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod binary;
mod catalog;
mod chance;
pub mod http;
mod input;
pub mod kafka;
mod oracle;
mod port;
mod process;
mod registry;
mod scenario;
mod store;
mod wait;
mod world;

pub use binary::{root, tidegate};
pub use catalog::{Lossy, RestCatalog};
pub use chance::Chance;
pub use input::{BEGIN, DAY, Input, write_file};
pub use kafka::Broker;
pub use oracle::{Check, Other, Verdict, judge, must_be_exact, read_table};
pub use process::{Process, Signal};
pub use registry::Registry;
pub use scenario::{Scenario, must_balance};
pub use store::Store;
pub use wait::wait_until;
pub use world::{Ended, LEASE, PATIENCE, World};
