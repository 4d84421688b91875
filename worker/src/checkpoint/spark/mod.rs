//! Checkpoint folders of Spark Structured Streaming: where a query stands, as its own log says.
//!
//! How Spark (3.x and 4.x, micro-batches) takes up a folder, as its published source has it (`MicroBatchExecution`,
//! `OffsetSeqLog`, `KafkaMicroBatchStream`, `CompactibleFileStreamLog`):
//!
//! | the folder holds | then |
//! |---|---|
//! | `offsets/N` and `commits/N`, N the last of both | the next batch is N+1, from the positions in `offsets/N` to wherever the topic ends |
//! | `offsets/N`, and `commits` end at N−1 | batch N is run again, with exactly the positions in `offsets/N−1` and `offsets/N` |
//! | `offsets/N` without `offsets/N−1`, N above 0 | the query fails |
//! | nothing in `offsets` | the query begins anew, at its `startingOffsets` |
//!
//! So a reset is one write: the positions in `offsets/N` are replaced where N is committed, and batch N+1 begins there. No
//! batch is added, for sinks keep count: a file sink fails over a missing batch when it compacts its log, and what a
//! sink has written as batch N+1 it does not write again. It is refused where batch N is yet to be run (the sink may have
//! some of it), where the query keeps state (the state belongs to the positions), and in a form that is not known here.

mod checkpoint;
mod copy;
mod folder;
mod log;
mod reset;

pub use checkpoint::{Batches, Checkpoint};
pub use copy::{CopiedFile, SparkBackup, backup, restore, verify_copy};
pub use folder::Folder;
pub use log::{Offsets, SourceOffsets};
pub use reset::{must_be_resettable, reset, starting_offsets};
