//! The Iceberg sink: prepares tables, writes data files, commits them exactly once.
//!
//! Order of use: [`prepare`] an output, [`OutputWriter::open`] on its [`LoadedTable`] and write, then [`commit()`] the
//! parts that an intent names. It decides nothing about who may commit: the permit is the session's, and what makes a
//! commit safe is the judgement in [`marker`] on the very base that the compare-and-swap asserts. It never deletes.

mod cast;
mod catalog;
mod commit;
mod data_file;
mod dictionary;
mod discard;
mod durable;
mod error;
mod export;
mod fence;
pub mod inspect;
mod intent;
pub mod marker;
mod occupied;
mod partition;
mod produce;
mod replace;
mod rest;
mod schema;
mod scope;
mod settings;
mod sizing;
mod sqlite;
mod staged;
mod stats;
mod table;
mod window;
mod writer;

pub use cast::Caster;
pub use catalog::{CatalogConfig, Catalogs, LoadedTable, Swap, TableCommitter};
pub use commit::{COMMITTED_THROUGH, cancel, commit, digest};
pub use error::{Cause, SinkError};
pub use export::{json_lines, lines_of};
pub use replace::left_over;
pub use rest::{RestCatalog, RestConfig, RestCredential};
pub use scope::{Scope, TimeColumn};
pub use settings::WriterSettings;
pub use sizing::Due;
pub use sqlite::SqliteCatalog;
pub use table::{OutputTarget, file_bytes, load, prepare, replaced};
pub use writer::{ClosedFiles, OutputWriter};

#[cfg(test)]
mod tests;
