//! The simulator: the real core among virtual stores, networks, workers and tables, driven by one seed.
//!
//! One seed gives one world, one run and one trace. What is real: [`tidegate_coordinator::core::Core`], the gate's rule
//! and the marker's verdict. What is virtual: time, the driver around the core, the store with its compare-and-swap, the
//! network, the workers, the Iceberg tables, their other writers, and the operators. [`Mishap`]s strike until a time
//! that the seed names; then everything must end. An oracle that shares no code with the core checks every
//! [`Invariant`] at every step. It refuses to know a real clock, a thread or a file.
//!
//! | file | plays |
//! |---|---|
//! | `scenario`, `joins`, `chance`, `mishap` | what a seed stands for; what goes wrong |
//! | `world`, `agenda`, `trace` | the events and their order; who strikes when; what is told of it |
//! | `driver`, `store`, `link` | the coordinator's processes, its store, the network |
//! | `worker`, `session`, `reading`, `joining`, `committing` | the workers and what they do |
//! | `table` | the Iceberg tables |
//! | `invariants`, `oracle` | what must hold, and who checks it |

mod agenda;
mod chance;
mod committing;
mod driver;
mod invariants;
mod joining;
mod joins;
mod link;
mod mishap;
mod oracle;
mod reading;
mod regenerating;
mod scenario;
mod session;
mod store;
mod table;
mod trace;
mod worker;
mod world;

use tidegate_common::fence::Fences;

pub use invariants::{Invariant, Violation};
pub use mishap::{Mishap, Struck};

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which fences stand.
    pub fences: Fences,
    /// Whether every event is written down.
    pub traced: bool,
    /// After how many events there must be an end; `None` for far more than any world took.
    pub most_events: Option<u64>,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first invariant that broke.
    pub violation: Option<Violation>,
    /// A hash over every event and message, in order.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// How many events the core was stepped with.
    pub steps: u64,
    /// What went wrong, and how often.
    pub struck: Struck,
    /// How many backfills succeeded.
    pub succeeded: u64,
    /// What happened, a line each, the last 200,000; empty unless it was asked for.
    pub trace: Vec<String>,
}

/// Runs the world that `seed` stands for, until all is over or an invariant breaks.
pub fn run(seed: u64, options: &Options) -> Outcome {
    world::World::new(seed, options).run()
}
