//! Where streaming jobs stand: the positions of consumer groups and of Spark's checkpoint folders; how they are looked at,
//! kept, put back and moved.
//!
//! A position is the next offset that will be read. It refuses to move one while somebody may be using it, to lose records
//! unless that is meant, and to guess: what cannot be told is said to be so.

mod backup;
mod brokers;
mod error;
mod group;
mod handoff;
mod inspect;
mod partition;
mod plan;
mod records;
mod reset;
mod settings;
pub mod spark;
mod verify;

pub use backup::{BackedUp, GroupBackup};
pub use brokers::Brokers;
pub use error::CheckpointError;
pub use group::{Activity, GroupFacts, Member};
pub use handoff::{HandOver, HandOverPartition, HandOverTopic};
pub use inspect::{PartitionFacts, inspect};
pub use partition::{Committed, Partition, Scope, TopicScope};
pub use plan::{PartitionMove, Plan, Target, apply, plan};
pub use reset::{Facts, Move, NoTarget, To, decide};
pub use settings::Settings;
pub use verify::{Finding, verify_backup, verify_positions};
