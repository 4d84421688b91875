//! The Iceberg sink: prepares tables, writes data files, commits them exactly once.
//!
//! Order of use: [`prepare`] an output, [`OutputWriter::open`] on its [`LoadedTable`] and write, then [`commit()`] the
//! parts that an intent names. It decides nothing about who may commit: the permit is the session's, and what makes a
//! commit safe is the judgement in [`marker`] on the very base that the compare-and-swap asserts. It never deletes.

mod cast;
mod catalog;
mod commit;
mod data_file;
mod durable;
mod error;
pub mod inspect;
pub mod marker;
mod partition;
mod produce;
mod rest;
mod schema;
mod sqlite;
mod stats;
mod table;
mod writer;

pub use cast::Caster;
pub use catalog::{CatalogConfig, Catalogs, LoadedTable, Swap, TableCommitter};
pub use commit::{COMMITTED_THROUGH, commit, digest};
pub use error::{Cause, SinkError};
pub use rest::{RestCatalog, RestConfig, RestCredential};
pub use sqlite::SqliteCatalog;
pub use table::{OutputTarget, load, prepare};
pub use writer::{ClosedFiles, OutputWriter, WriterSettings};

#[cfg(test)]
mod tests;
