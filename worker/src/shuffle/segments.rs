//! An object while it is read: its index, and of its chunks those that are asked for.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tidegate_common::ids::BackfillId;
use tidegate_proto::v1::shuffle_index::Chunk;
use tidegate_proto::v1::{ShuffleIndex, ShuffleObject};

use super::error::ShuffleError;
use super::format::{self, FOOTER, Footer};
use super::plain;
use super::store::{self, ShuffleStore};

/// What is read of an object's end at first: most indexes are in it.
const TAIL: u64 = 64 << 10;
/// Bytes of chunks side by side that are read in one request, as long as one chunk is not more.
const REQUEST: u64 = 8 << 20;
/// Requests that are under way at a time.
const REQUESTS: usize = 2;

/// How much it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Rows.
    pub rows: u64,
    /// Bytes in memory, about.
    pub bytes: u64,
}

/// An object, its index read and checked.
#[derive(Clone, Debug)]
pub struct Segments {
    object: Arc<Object>,
}

#[derive(Debug)]
struct Object {
    store: ShuffleStore,
    path: String,
    schema: SchemaRef,
    plain: SchemaRef,
    /// By bucket, cell and place in the object.
    chunks: Vec<Placed>,
}

/// A chunk and where it stands.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// Its number in the object.
    at: usize,
    first: u64,
    chunk: Chunk,
}

impl Placed {
    fn end(&self) -> u64 {
        self.first + u64::from(self.chunk.bytes)
    }
}

impl Segments {
    /// Reads the index of `object`, and holds it against what the journal says of it.
    pub async fn open(store: &ShuffleStore, object: &ShuffleObject) -> Result<Self, ShuffleError> {
        check_path(&object.path)?;
        let index = index_of(store, object).await?;
        let corrupt = |expected: &dyn Display, found: &dyn Display| corrupt(&object.path, "index", expected, found);
        let crc = crc32fast::hash(&index.1);
        if crc != object.index_crc {
            return Err(corrupt(&format!("checksum {:08x}", object.index_crc), &format!("{crc:08x}")));
        }
        let (chunk_bytes, index) = index;
        let index = ShuffleIndex::decode(index).map_err(|error| corrupt(&"a ShuffleIndex", &error))?;
        if index.version != format::VERSION {
            return Err(corrupt(&format!("version {}", format::VERSION), &index.version));
        }
        let schema = format::decode_schema(&index.schema).map_err(|what| corrupt(&"a schema", &what))?;
        if let Some(field) = schema.fields().iter().find(|field| !plain::is_kept(field.data_type())) {
            return Err(corrupt(&"types that are kept", field.data_type()));
        }
        let chunks =
            placed(&index.chunks, object, chunk_bytes).map_err(|(expected, found)| corrupt(&expected, &found))?;
        let (store, path, plain) = (store.clone(), object.path.clone(), plain::plain(&schema));
        Ok(Self { object: Arc::new(Object { store, path, schema: schema.into(), plain, chunks }) })
    }

    /// The schema of its rows: that with which they were written.
    pub fn schema(&self) -> &SchemaRef {
        &self.object.schema
    }

    /// Rows and bytes of one bucket in these cells.
    pub fn weigh(&self, cells: RangeInclusive<i64>, bucket: u32) -> Weight {
        self.object.chunks_of(&cells, bucket).iter().fold(Weight::default(), |weight, placed| Weight {
            rows: weight.rows + u64::from(placed.chunk.rows),
            bytes: weight.bytes + u64::from(placed.chunk.raw),
        })
    }

    /// The rows of one bucket in these cells, chunk by chunk; within a cell they are in the order in which they were
    /// written. Each chunk is held against its checksum before it is unpacked. Only these chunks are read, those side by
    /// side in one request.
    pub fn rows(
        &self,
        cells: RangeInclusive<i64>,
        bucket: u32,
    ) -> BoxStream<'static, Result<RecordBatch, ShuffleError>> {
        let mut chunks = self.object.chunks_of(&cells, bucket).to_vec();
        chunks.sort_unstable_by_key(|placed| placed.first);
        let object = self.object.clone();
        let read = move |request: Vec<Placed>| {
            let object = object.clone();
            async move {
                let bytes = object.read(&request).await?;
                let rows = request.into_iter().map(move |placed| object.decode(&placed, &bytes));
                Ok::<_, ShuffleError>(futures::stream::iter(rows))
            }
        };
        futures::stream::iter(requests(chunks)).map(read).buffered(REQUESTS).try_flatten().boxed()
    }
}

impl Object {
    fn chunks_of(&self, cells: &RangeInclusive<i64>, bucket: u32) -> &[Placed] {
        let place = |placed: &Placed| (placed.chunk.bucket, placed.chunk.cell);
        let first = self.chunks.partition_point(|placed| place(placed) < (bucket, *cells.start()));
        let end = self.chunks.partition_point(|placed| place(placed) <= (bucket, *cells.end()));
        self.chunks.get(first..end).unwrap_or_default()
    }

    /// The bytes of chunks side by side, and where they begin.
    async fn read(&self, request: &[Placed]) -> Result<(u64, Bytes), ShuffleError> {
        let [first, ..] = request else { return Ok((0, Bytes::new())) };
        let end = request.last().unwrap_or(first).end();
        let bytes = self.store.read(&self.path, first.first..end).await?;
        Ok((first.first, bytes))
    }

    fn decode(&self, placed: &Placed, (begin, bytes): &(u64, Bytes)) -> Result<RecordBatch, ShuffleError> {
        let chunk = &placed.chunk;
        let corrupt = |expected: &dyn Display, found: &dyn Display| {
            let place = format!("chunk {} (bucket {}, cell {})", placed.at, chunk.bucket, chunk.cell);
            corrupt(&self.path, &place, expected, found)
        };
        let place = |at: u64| usize::try_from(at.saturating_sub(*begin)).unwrap_or(usize::MAX);
        let found = bytes.get(place(placed.first)..place(placed.end()));
        let found = found.ok_or_else(|| corrupt(&format!("{} bytes", chunk.bytes), &"the object's end"))?;
        let crc = crc32fast::hash(found);
        if crc != chunk.crc {
            return Err(corrupt(&format!("checksum {:08x}", chunk.crc), &format!("{crc:08x}")));
        }
        let rows = format::decode_chunk(found, chunk, &self.plain);
        let rows = rows.map_err(|found| corrupt(&format!("a batch of {} rows", chunk.rows), &found))?;
        plain::as_schema(&rows, &self.schema).map_err(|error| corrupt(&"its columns", &error))
    }
}

/// A path comes over the wire; the backfill is what it says it is.
fn check_path(path: &str) -> Result<(), ShuffleError> {
    let (backfill, _) = path.split_once('/').unwrap_or_default();
    let backfill: Result<BackfillId, _> = backfill.parse();
    let what = "it does not begin with a backfill's id";
    let path_error = |_| ShuffleError::Path { path: path.chars().take(256).collect(), backfill: String::new(), what };
    store::check_path(&backfill.map_err(path_error)?, path)
}

/// The bytes of an object's index, and of its chunks how many there are.
async fn index_of(store: &ShuffleStore, object: &ShuffleObject) -> Result<(u64, Bytes), ShuffleError> {
    let (tail, size) = store.tail(&object.path, TAIL).await?;
    if size != object.bytes {
        return Err(corrupt(&object.path, "size", &format!("{} bytes", object.bytes), &size));
    }
    let footer = Footer::decode(&tail, size);
    let footer = footer.map_err(|(expected, found)| corrupt(&object.path, "footer", &expected, &found))?;
    let bytes = usize::try_from(footer.index_bytes).unwrap_or(usize::MAX);
    let behind = tail.len().saturating_sub(FOOTER);
    let index = match behind.checked_sub(bytes) {
        Some(first) => tail.slice(first..behind),
        None => {
            let range: Range<u64> = footer.index_at..footer.index_at + u64::from(footer.index_bytes);
            store.read(&object.path, range).await?
        }
    };
    Ok((footer.index_at, index))
}

/// The chunks of an index, where they stand; an error says what was expected, and what was found.
fn placed(chunks: &[Chunk], object: &ShuffleObject, bytes: u64) -> Result<Vec<Placed>, (String, String)> {
    let (mut end, mut rows) = (0u64, 0u64);
    let mut placed = Vec::with_capacity(chunks.len());
    for (at, chunk) in chunks.iter().enumerate() {
        if !format::may_be(chunk) || !(object.first_cell..=object.last_cell).contains(&chunk.cell) {
            return Err((format!("an entry that can be for chunk {at}"), format!("{chunk:?}")));
        }
        placed.push(Placed { at, first: end, chunk: *chunk });
        (end, rows) = (end + u64::from(chunk.bytes), rows + u64::from(chunk.rows));
    }
    if (end, rows) != (bytes, object.rows) {
        let expected = format!("{bytes} bytes of {} rows", object.rows);
        return Err((expected, format!("{end} bytes of {rows} rows")));
    }
    placed.sort_by_key(|placed| (placed.chunk.bucket, placed.chunk.cell));
    Ok(placed)
}

/// Chunks in the order of the object, those side by side together.
fn requests(chunks: Vec<Placed>) -> Vec<Vec<Placed>> {
    let mut requests: Vec<Vec<Placed>> = Vec::new();
    for placed in chunks {
        match requests.last_mut() {
            Some(request)
                if request.last().is_some_and(|last| last.end() == placed.first)
                    && request.first().is_some_and(|first| placed.end() - first.first <= REQUEST) =>
            {
                request.push(placed);
            }
            _ => requests.push(vec![placed]),
        }
    }
    requests
}

fn corrupt(path: &str, place: &str, expected: &dyn Display, found: &dyn Display) -> ShuffleError {
    let (path, place) = (path.to_owned(), place.to_owned());
    ShuffleError::Corrupt { path, place, expected: expected.to_string(), found: found.to_string() }
}
