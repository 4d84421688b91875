//! Tidegate's vocabulary: ids, event time, ranges, units and the spec.
//!
//! One word per thing, as the glossary in `ARCHITECTURE.md` has it. This crate refuses to do I/O and knows
//! neither tokio, tonic nor arrow: every other room may depend on it, and it on none of them.

pub mod clock;
pub mod failpoint;
pub mod fence;
pub mod gate;
pub mod ids;
pub mod lateness;
pub mod slices;
pub mod spec;
pub mod time;
pub mod windows;
