//! Sources: what is read, and how it is cut into units.
//!
//! A [`Source`] knows its schema, finds its splits, and opens readers that read one unit at a time. The gate, the
//! window's filter, hand-ins and counting are the read task's; a source only ever yields the rows of the unit it is
//! asked for, each with its event time.

mod bounds;
mod bucket;
mod check;
mod dead;
mod error;
mod event_time;
mod files;
mod generate;
mod iceberg;
mod kafka;
mod lines;
mod parquet;
mod path_time;
mod store;
mod walk;

use std::sync::Arc;

use ::arrow::array::{Int64Array, RecordBatch};
use ::arrow::datatypes::SchemaRef;
use ::iceberg::table::Table;
use async_trait::async_trait;
use futures::stream::BoxStream;
use tidegate_common::spec::model::{OnError, SourceSpec};
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

pub(crate) use self::dead::NO_EVENT_TIME;
pub use self::dead::{DeadRecord, MAX_RAW, RawAs};
pub use self::error::{Cause, During, SourceError};
pub(crate) use self::kafka::{Described, KafkaSource};
pub use self::kafka::{PartitionRange, TopicRange};
use crate::access::Access;
use crate::storage::Lake;

/// Rows of one unit.
#[derive(Debug)]
pub struct SourceBatch {
    /// The columns that were asked for, in that order.
    pub rows: RecordBatch,
    /// Each row's event time in microseconds; null where the row has none, or one that does not fit.
    pub event_time: Int64Array,
    /// Records of the unit that are no row, where the spec wants them kept.
    pub dead: Vec<DeadRecord>,
    /// Offsets of the unit that hold no record.
    pub gaps: u64,
    /// Records of the unit that are neither row nor dead letter: tombstones, changes that the spec leaves out.
    pub void: u64,
    /// Whether rows may lie outside the unit's bounds; they are counted.
    pub may_stray: bool,
    /// Bytes of the records, where a rate limit may count them; else 0.
    pub bytes: u64,
}

impl SourceBatch {
    /// Rows and dead letters, of a source that has nothing else.
    pub fn of(rows: RecordBatch, event_time: Int64Array, dead: Vec<DeadRecord>) -> Self {
        Self { rows, event_time, dead, gaps: 0, void: 0, may_stray: false, bytes: 0 }
    }
}

/// What an enumeration found: one split and its units, not yet packed into tasks.
#[derive(Clone, Debug, Default)]
pub struct FoundSplit {
    /// What to read.
    pub split: v1::Split,
    /// Its units by low, `split` left 0; those that the window excludes for certain are left out.
    pub units: Vec<v1::UnitOfWork>,
    /// Rows of what was left out.
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

    /// Which state of it every task of the backfill is to read, where it has several.
    fn pin(&self) -> Option<v1::SourcePin> {
        None
    }

    /// How what is pinned lies in its topic now, where it is of one; of its records, those of `window` are counted.
    async fn topic(&self, _window: Window) -> Result<Option<TopicRange>, SourceError> {
        Ok(None)
    }

    /// How many of its bytes make about one of Parquet. Only how tasks are cut depends on it.
    fn bytes_a_byte(&self) -> u64 {
        1
    }

    /// Finds every split whose rows can lie in `window` and sends it; the bounds of units are clamped to `window`.
    ///
    /// One split a file: how much of it a task reads is decided by [`crate::task::pack`].
    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError>;

    /// Opens a reader over `splits` that yields the columns `columns` (indices into [`Source::schema`]). The units
    /// that it will be asked for were planned for `window`: rows outside it may lie outside their bounds.
    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError>;
}

/// Reads units of the splits it was opened over; footers and the like are loaded once.
#[async_trait]
pub trait UnitReader: Send {
    /// The rows of one unit. The stream yields exactly `unit.rows` rows, dead records, void records and gaps, all rows that
    /// lie in the window within the unit's bounds unless they may stray, or an error that names the file and the unit.
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError>;

    /// The most bytes that it holds of what it has fetched and not given yet, about; none where it fetches nothing ahead.
    fn ahead_bytes(&self) -> u64 {
        0
    }
}

/// Opens the source `name` as `spec` describes it, within what `access` allows.
///
/// # Errors
/// When the spec is unsound, when what it names is absent, unreadable or not allowed, and when its files are of no
/// known form.
pub async fn open(name: &str, spec: &SourceSpec, access: &Access) -> Result<Arc<dyn Source>, SourceError> {
    let refuse = |what: &str| SourceError::Spec { source_name: name.to_owned(), what: what.to_owned() };
    match (&spec.files, &spec.generate) {
        (Some(files), None) => {
            let on_error = spec.on_error.unwrap_or(OnError::Fail);
            files::open(name, files, spec.event_time.as_ref(), on_error, access).await
        }
        (None, Some(generated)) => generate::open(name, generated, spec.event_time.as_ref()),
        _ => Err(refuse("an Iceberg table is opened by its catalog, and a topic at its offsets")),
    }
}

/// Opens the source `name`, the Iceberg table `table` with files in `lake` that `spec` names, at the state that `pin` says; without one at
/// the snapshot of the spec, or the current one.
///
/// # Errors
/// When the spec is unsound, the snapshot is gone, or the table is not the one that was pinned.
pub fn open_table(
    name: &str,
    spec: &SourceSpec,
    access: &Access,
    (table, lake): (Table, Lake),
    pin: Option<&v1::SourcePin>,
) -> Result<Arc<dyn Source>, SourceError> {
    let Some(iceberg) = &spec.iceberg else {
        let what = "only `iceberg` names a table".to_owned();
        return Err(SourceError::Spec { source_name: name.to_owned(), what });
    };
    Ok(Arc::new(self::iceberg::IcebergSource::open(
        name,
        iceberg,
        spec.event_time.as_ref(),
        access,
        (table, lake),
        pin,
    )?))
}
