//! Sources: what is read, and how it is cut into units.
//!
//! A [`Source`] knows its schema, finds its splits, and opens readers that read one unit at a time. The gate, the
//! window's filter, hand-ins and counting are the read task's; a source only ever yields the rows of the unit it is
//! asked for, each with its event time.

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

/// Rows of one unit.
#[derive(Debug)]
pub struct SourceBatch {
    /// The columns that were asked for, in that order.
    pub rows: RecordBatch,
    /// Each row's event time in microseconds; null where the row has none.
    pub event_time: Int64Array,
}

/// What an enumeration found: one split and its units, not yet packed into tasks.
#[derive(Clone, Debug, Default)]
pub struct FoundSplit {
    /// What to read.
    pub split: v1::Split,
    /// Its units by low, `split` left 0; those that the window excludes for certain are left out.
    pub units: Vec<v1::UnitOfWork>,
    /// Rows and bytes of what was left out.
    pub rows_pruned: u64,
    /// Bytes of what was left out.
    pub bytes_pruned: u64,
}

/// One topic, table or path that is read.
#[async_trait]
pub trait Source: Send + Sync {
    /// The columns it has.
    fn schema(&self) -> SchemaRef;

    /// What is pinned, in a few words for people.
    fn describe(&self) -> String;

    /// Finds every split whose rows can lie in `window` and sends it; the bounds of units are clamped to `window`.
    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError>;

    /// Opens a reader over `splits` that yields the columns `columns` (indices into [`Source::schema`]).
    async fn reader(&self, splits: &[v1::Split], columns: &[usize]) -> Result<Box<dyn UnitReader>, SourceError>;
}

/// Reads units of the splits it was opened over; footers and the like are loaded once.
#[async_trait]
pub trait UnitReader: Send {
    /// The rows of one unit. The stream yields exactly `unit.rows` rows or an error that names the file and the unit.
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError>;
}

mod error;
pub use error::SourceError;
