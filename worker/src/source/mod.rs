//! Sources: what is read, and how it is cut into units.
//!
//! A [`Source`] knows its schema, finds its splits, and opens readers that read one unit at a time. The gate, the
//! window's filter, hand-ins and counting are the read task's; a source only ever yields the rows of the unit it is
//! asked for, each with its event time.

mod asked;
mod bounds;
mod bucket;
mod check;
mod dead;
mod error;
mod event_time;
mod files;
mod generate;
mod hybrid;
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
use tidegate_common::spec::{EventTimeOf, Hybrid};
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

pub(crate) use self::asked::Offsets;
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
    /// Whether it is of an archive: a rate limit is the topic's alone.
    pub is_archived: bool,
    /// Which row of its unit each row is, where rows between them were left out.
    pub places: Option<Vec<u64>>,
}

impl SourceBatch {
    /// Rows and dead letters, of a source that has nothing else.
    pub fn of(rows: RecordBatch, event_time: Int64Array, dead: Vec<DeadRecord>) -> Self {
        Self { rows, event_time, dead, gaps: 0, void: 0, may_stray: false, bytes: 0, is_archived: false, places: None }
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

/// What is known of a unit's integers without reading them: least and greatest of each column, none where they are not known or
/// one is null. Only units of which no row was deleted have any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSpans {
    /// The unit.
    pub position: u64,
    /// In the order of the columns.
    pub bounds: Vec<Option<(i64, i64)>>,
}

/// What comes from an archive of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveRange {
    /// The table.
    pub table: String,
    /// Each partition.
    pub partitions: Vec<ArchivedPart>,
    /// Files with rows that it gives.
    pub files: u64,
    /// Rows and gaps that lie outside the window for certain.
    pub rows_pruned: u64,
    /// The event times of what is read, about.
    pub times: Option<(i64, i64)>,
}

/// What of a partition comes from an archive: offsets `[start, cut)`, as `[cut, end)` come from the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchivedPart {
    /// Its number.
    pub partition: i32,
    /// The first offset that is read.
    pub start: i64,
    /// The first one that is read from the topic.
    pub cut: i64,
    /// The first one behind the range.
    pub end: i64,
    /// Rows of `[start, cut)`.
    pub rows: u64,
    /// Offsets of `[start, cut)` that the archive has no row of.
    pub gaps: u64,
    /// Rows of the archive from the cut on.
    pub beyond: u64,
}

impl ArchiveRange {
    /// Rows, gaps, and rows that are left to the topic, of all partitions.
    pub fn counted(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&ArchivedPart) -> u64| self.partitions.iter().map(of).sum();
        (sum(|part| part.rows), sum(|part| part.gaps), sum(|part| part.beyond))
    }
}

/// One topic, table or path that is read.
#[async_trait]
pub trait Source: Send + Sync {
    /// The columns it has.
    fn schema(&self) -> SchemaRef;

    /// Whether the columns `columns` can be had of all that it reads; only where it reads from several places can that fail.
    fn offers(&self, _columns: &[usize]) -> Result<(), SourceError> {
        Ok(())
    }

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

    /// What comes from its archive, where it has one; of it, what lies in `window` is read.
    async fn archive(&self, _window: Window) -> Result<Option<ArchiveRange>, SourceError> {
        Ok(None)
    }

    /// What is known without reading of the integers in the columns `columns`, of units of `split`.
    async fn spans(&self, _split: &v1::Split, _columns: &[usize]) -> Result<Vec<UnitSpans>, SourceError> {
        Ok(Vec::new())
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

/// What a hybrid source is opened with.
pub(crate) struct Both<'a> {
    /// What the spec says of it, checked.
    pub(crate) hybrid: &'a Hybrid,
    /// The topic's part of it.
    pub(crate) live: Described<'a>,
    /// The archive.
    pub(crate) table: (Table, Lake),
    /// What the plan pinned, where there is one.
    pub(crate) pin: Option<&'a v1::SourcePin>,
}

/// Opens the source `name`: an archive, and the topic that it is of. Without a pin it is decided here where the one ends and the
/// other begins.
///
/// # Errors
/// When either cannot be read, when the archive's columns are not those of the topic, and when the two leave a hole.
pub(crate) async fn open_hybrid(
    name: &str,
    spec: &SourceSpec,
    both: Both<'_>,
    access: &Access,
) -> Result<Arc<dyn Source>, SourceError> {
    let Both { hybrid, live, table, pin } = both;
    let kafka = live.kafka;
    let schema = self::iceberg::columns(name, &hybrid.archive.iceberg, &table.0, pin)?;
    let columns = self::hybrid::Columns::of(name, &hybrid.archive, &schema)?;
    let by_record = live.event_time.of == EventTimeOf::Record;
    let time = columns.event_time(name, by_record, spec.event_time.as_ref(), &schema)?;
    let opened = self::iceberg::IcebergSource::open(name, &hybrid.archive.iceberg, Some(&time), access, table, pin)?;
    let title = &hybrid.archive.iceberg.table;
    let archive =
        self::hybrid::Archive::new(name, &kafka.spec.topic, title, Arc::new(opened), columns).by_record(by_record);
    let (decided, live) = match pin.and_then(|pin| Some((pin, pin.kafka.as_ref()?))) {
        Some((pin, topic)) => {
            let live = KafkaSource::open(name, spec, live, access, Offsets::Pinned(topic)).await?;
            (self::hybrid::Decided::pinned(pin), live)
        }
        None => {
            // The table was loaded before: what it holds, the topic had by now.
            let asked = KafkaSource::ask(name, kafka, access).await?;
            let decided = archive.decide(&asked, hybrid.switch.as_ref()).await?;
            let (topic_id, partitions, ranges) = (asked.topic_id, asked.partitions, decided.live());
            let found = v1::KafkaPin { topic_id, partitions, ranges, format: Default::default() };
            let live = KafkaSource::open(name, spec, live, access, Offsets::Found(found)).await?;
            (decided, live)
        }
    };
    Ok(Arc::new(self::hybrid::HybridSource::open(name, archive, Arc::new(live), decided)?))
}
