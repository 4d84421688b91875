//! CSV and JSON lines: a unit is a run of whole records of about 16 MiB, or a compressed file as a whole.
//!
//! The enumerator reads each file once for exact bounds and counts, unless `event_time.bounds` promises them: such a
//! unit is its whole file and its `rows` are 0, for not known. It refuses a record that does not decode, naming its
//! file and line, unless such records are dead letters, and guesses no column that the files' beginning did not show.

mod bytes;
mod decode;
mod enumerator;
mod reader;
mod records;
mod schema;
mod sort;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::bytes::Bytes;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidegate_common::spec::model::{Compression, EventTimeSpec, FilesSpec, Format, OnError};
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

use self::decode::{BadRecord, Dialect, Form};
use self::sort::Engine;
use super::error::{During, SourceError};
use super::event_time::EventTimeRule;
use super::store::{PinnedFile, Store};
use super::{FoundSplit, Source, UnitReader};

/// Files that are read at a time while a source is enumerated.
const FILES_AT_A_TIME: usize = 4;
/// Bytes of a file's beginning from which columns are inferred, and within which its header ends.
const HEAD_BYTES: usize = 1 << 20;

/// Bytes at the beginning of a file among which there is no NUL, if it is a text.
const PROBED: usize = 4096;
const NO_SCHEMA: &str = "on_error: dead_letter needs the columns in `schema`: against inferred ones, nobody can tell a bad \
                         record from a bad guess";

/// The CSV or JSON files of one source.
#[derive(Debug)]
pub(crate) struct LinesSource {
    shared: Arc<Shared>,
}

/// What the enumerator and every reader need.
#[derive(Debug)]
struct Shared {
    name: String,
    store: Store,
    dialect: Dialect,
    compression: Option<Compression>,
    schema: SchemaRef,
    /// Whether the columns were inferred: the enumerator then checks every value, and not the times alone.
    is_inferred: bool,
    rule: EventTimeRule,
    /// What becomes of a record that does not decode.
    on_error: OnError,
    unit_bytes: u64,
}

/// What the beginning of a file says.
#[derive(Clone, Debug)]
struct Head {
    /// The source's columns in the order of the file's.
    order: Vec<usize>,
    /// The first byte behind a byte-order mark and a header.
    start: u64,
}

impl LinesSource {
    /// Opens the source; without a `schema` its columns are those that the beginning of `first` shows.
    pub(crate) async fn open(
        name: &str,
        store: Store,
        first: &v1::FilePin,
        format: Format,
        spec: &FilesSpec,
        event_time: Option<&EventTimeSpec>,
        on_error: OnError,
    ) -> Result<Self, SourceError> {
        let refuse = |what: String| SourceError::Spec { source_name: name.to_owned(), what };
        let dialect = Dialect::new(format, spec.csv.as_ref()).map_err(refuse)?;
        let (schema, is_inferred) = match &spec.schema {
            Some(columns) => (crate::format::given::schema(columns).map_err(refuse)?, false),
            None if on_error == OnError::DeadLetter => return Err(refuse(NO_SCHEMA.to_owned())),
            None => {
                let file = store.open_pinned(first).await?;
                let head = head(&file, bytes::compression_of(spec.compression, &first.path)).await?;
                let inferred = schema::inferred(&dialect, records::without_mark(&head));
                let what = |e| {
                    refuse(format!("the columns of {} cannot be inferred ({e}): give them in `schema`", first.path))
                };
                (inferred.map_err(what)?, true)
            }
        };
        let rule = EventTimeRule::resolve(name, event_time, &schema)?;
        let shared = Shared {
            name: name.to_owned(),
            store,
            dialect,
            compression: spec.compression,
            schema: Arc::new(schema),
            is_inferred,
            rule,
            on_error,
            unit_bytes: enumerator::UNIT_BYTES,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The same source, cut into units of about `bytes`.
    #[cfg(test)]
    fn with_unit_bytes(mut self, bytes: u64) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.unit_bytes = bytes;
        }
        self
    }
}

#[async_trait]
impl Source for LinesSource {
    fn schema(&self) -> SchemaRef {
        self.shared.schema.clone()
    }

    fn describe(&self) -> String {
        format!("{} {}", self.shared.dialect.name(), self.shared.store.location())
    }

    fn bytes_a_byte(&self) -> u64 {
        4
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        let shared = self.shared.clone();
        let mut splits = shared
            .store
            .files()
            .map(move |pin| {
                let shared = shared.clone();
                async move { shared.find(pin?, window).await }
            })
            .buffered(FILES_AT_A_TIME);
        while let Some(split) = splits.next().await {
            found.send(split?).await.map_err(|_| SourceError::Abandoned)?;
        }
        Ok(())
    }

    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError> {
        Ok(Box::new(reader::LinesReader::new(self.shared.clone(), splits, columns, window)?))
    }
}

impl Shared {
    fn compression_of(&self, path: &str) -> Compression {
        bytes::compression_of(self.compression, path)
    }

    fn input(&self, what: String) -> SourceError {
        SourceError::Input { source_name: self.name.clone(), what }
    }

    /// Decodes a text of `form` that begins at byte `at`; `time` is the event time's place among its columns.
    fn engine(&self, form: Arc<Form>, time: Option<usize>, at: u64) -> Result<Engine, BadRecord> {
        match self.on_error {
            OnError::Fail => Engine::strict(form),
            OnError::DeadLetter => Ok(Engine::sorting(form, time.map(|time| (time, self.rule.clone())), at)),
        }
    }

    /// Reads the beginning of `file`: where its records start, and in what order its columns stand.
    async fn head(&self, file: &PinnedFile) -> Result<Head, SourceError> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let bytes = head(file, self.compression_of(file.name())).await?;
        if self.on_error == OnError::DeadLetter && bytes.iter().take(PROBED).any(|byte| *byte == 0) {
            return Err(self.input(format!(
                "{} is not a text: it begins with NUL bytes; set files.format or files.compression, or narrow the path",
                file.name()
            )));
        }
        let mark = bytes.len() - records::without_mark(&bytes).len();
        let Some(csv) = self.dialect.csv().filter(|csv| csv.header) else {
            return Ok(Head { order: all, start: mark as u64 });
        };
        let text = records::without_mark(&bytes);
        let end = records::first_end(text, Some(csv.delimiter)).unwrap_or(text.len());
        let header = text.get(..end).unwrap_or_default();
        let names = schema::names(csv, header).map_err(|e| self.input(format!("{}: its header: {e}", file.name())))?;
        let order = names.iter().map(|name| {
            let unknown = || format!("{} has a column {name}, which the source has not", file.name());
            self.schema.index_of(name).map_err(|_| self.input(unknown()))
        });
        let order: Vec<usize> = if bytes.is_empty() { all } else { order.collect::<Result<_, _>>()? };
        if let Some(missing) = (0..self.schema.fields().len()).find(|at| !order.contains(at)) {
            let missing = self.schema.field(missing).name();
            return Err(self.input(format!(
                "{} has no column {missing}: its header names {}",
                file.name(),
                names.join(", ")
            )));
        }
        Ok(Head { order, start: (mark + end) as u64 })
    }

    /// The file's records from byte `from` (of the decompressed file) on, `length` bytes of them.
    async fn bytes(
        &self,
        file: &PinnedFile,
        from: u64,
        length: Option<u64>,
        during: During,
    ) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
        let compression = self.compression_of(file.name());
        if compression == Compression::None {
            let end = length.map_or(file.size(), |length| from.saturating_add(length)).min(file.size());
            return if from >= end { Ok(futures::stream::empty().boxed()) } else { file.stream(from..end).await };
        }
        Ok(bytes::skip(bytes::decompressed(file, compression, during).await?, from))
    }
}

/// The beginning of a file, decompressed.
async fn head(file: &PinnedFile, compression: Compression) -> Result<Vec<u8>, SourceError> {
    let mut stream = match compression {
        Compression::None if file.size() == 0 => return Ok(Vec::new()),
        Compression::None => file.stream(0..file.size().min(HEAD_BYTES as u64)).await?,
        compression => bytes::decompressed(file, compression, During::Plan).await?,
    };
    let mut head = Vec::new();
    while let Some(chunk) = stream.try_next().await? {
        head.extend_from_slice(&chunk);
        if head.len() >= HEAD_BYTES {
            break;
        }
    }
    Ok(head)
}

/// The source's columns at `places`.
fn project(schema: &Schema, places: &[usize]) -> SchemaRef {
    Arc::new(Schema::new(places.iter().filter_map(|at| schema.fields().get(*at).cloned()).collect::<Vec<_>>()))
}
