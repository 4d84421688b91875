//! The session: one stream to the coordinator, on which a worker's leases hang.
//!
//! `state` knows what is held and until when, and is pure; `runs` starts, tells and drops task bodies; `link`
//! connects; `driver` is the one loop that owns all three, `inbox` and `reports` what it does on a message of
//! the coordinator and of a task. The session decides nothing about work: it takes what it is
//! assigned, and refuses only what it has no slot for. It deletes nothing, and sends no hand-in past a lease's end.

mod driver;
mod inbox;
mod link;
mod reports;
mod runs;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use driver::{SessionConfig, run};
pub use link::SessionError;

/// The largest message, in bytes, that is sent or taken.
pub const MAX_MESSAGE: usize = 4 << 20;
