//! Where rows wait between the task that reads them and the task that joins them: one object per hand-in, cut by cell of
//! event time and by bucket of their keys.
//!
//! It knows neither SQL nor tasks nor tables, and never decides whether rows are late, wanted or done with. It refuses
//! whatever in a store is not what was written, and paths that lead out of a backfill's folder.
//!
//! # An object
//! ```text
//! chunk … chunk | index (`ShuffleIndex`) | footer: index's first byte u64, its length u32, version u32, "TGSHUFFL"
//! ```
//! Numbers are little endian. A chunk is one LZ4 block; unpacked it is the body of an Arrow IPC record batch, then the
//! batch's message, then the message's length, u32. The checksum of a chunk stands in the index, and the index's own in
//! the journal.

mod disk;
mod error;
mod format;
mod gather;
mod hash;
mod plain;
mod segments;
mod store;
mod upload;
mod writer;

pub use self::error::ShuffleError;
pub(crate) use self::error::lost_in;
pub use self::hash::{buckets_of, is_hashed};
pub use self::segments::{Segments, Weight};
pub use self::store::ShuffleStore;
pub use self::writer::ShuffleWriter;

#[cfg(test)]
mod tests;
