//! One hand-in's rows of one source for one output, while they are written: one object.

use std::collections::BTreeMap;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use prost::Message;
use tidegate_common::ids::BackfillId;
use tidegate_common::slices::Slices;
use tidegate_common::time::EventTime;
use tidegate_proto::v1::{ShuffleIndex, ShuffleObject, shuffle_index::Chunk};

use super::error::ShuffleError;
use super::format::{self, Footer, MOST_CHUNKS, MOST_INDEX};
use super::gather::Gathering;
use super::hash;
use super::plain;
use super::store::{self, Output, ShuffleStore};

/// Bytes of rows that are held before the largest places are written out, until half of that is left.
const MOST_HELD: usize = 32 << 20;

/// One hand-in's rows of one source for one output, being written: one object. Dropped, it leaves no object.
pub struct ShuffleWriter {
    store: ShuffleStore,
    path: String,
    schema: SchemaRef,
    keys: Vec<usize>,
    slices: Slices,
    buckets: u32,
    gathering: Gathering,
    most_held: usize,
    output: Option<Output>,
    chunks: Vec<Chunk>,
    bytes: u64,
    rows: u64,
    /// Rows by cell.
    cells: BTreeMap<i64, u64>,
}

impl ShuffleWriter {
    /// Begins the object `<backfill>/<name>.shuffle`; a name is used once. The first column of `schema` is the event time
    /// of its row, an `Int64` of microseconds; `keys` are the columns by which rows are put into `buckets`, none: all
    /// into the first. Nothing is made in the store before rows are written out.
    pub fn create(
        store: &ShuffleStore,
        backfill: &BackfillId,
        name: &str,
        schema: SchemaRef,
        keys: &[usize],
        slices: Slices,
        buckets: u32,
    ) -> Result<Self, ShuffleError> {
        let path = store::path_of(backfill, name)?;
        check_schema(&schema, keys, buckets)?;
        Ok(Self {
            store: store.clone(),
            path,
            gathering: Gathering::new(plain::plain(&schema)),
            schema,
            keys: keys.to_vec(),
            slices,
            buckets,
            most_held: MOST_HELD,
            output: None,
            chunks: Vec::new(),
            bytes: 0,
            rows: 0,
            cells: BTreeMap::new(),
        })
    }

    /// The same, which holds as many bytes at most.
    #[cfg(test)]
    pub(super) fn holding(self, most_held: usize) -> Self {
        Self { most_held, ..self }
    }

    /// Takes rows up; writes some out where too many are held.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), ShuffleError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let cells = self.cells_of(rows)?;
        let buckets = hash::buckets_of(rows, &self.keys, self.buckets)?;
        for run in cells.chunk_by(|one, next| one == next) {
            let rows = self.cells.entry(run.first().copied().unwrap_or_default()).or_default();
            *rows += u64::try_from(run.len()).unwrap_or(u64::MAX);
        }
        self.rows += u64::try_from(rows.num_rows()).unwrap_or(u64::MAX);
        self.gathering.add(rows, buckets.into_iter().zip(cells)).map_err(ShuffleError::rows)?;
        if self.gathering.bytes() > self.most_held { self.write_out(self.most_held / 2).await } else { Ok(()) }
    }

    fn cells_of(&self, rows: &RecordBatch) -> Result<Vec<i64>, ShuffleError> {
        let (schema, expected) = (rows.schema(), self.schema.fields());
        if !schema.fields().iter().map(|f| f.data_type()).eq(expected.iter().map(|f| f.data_type())) {
            return Err(ShuffleError::rows(format!("their columns are {}, not {}", schema, self.schema)));
        }
        let times = rows.columns().first().and_then(|times| times.as_any().downcast_ref::<Int64Array>());
        let times = times.filter(|times| times.null_count() == 0);
        let times = times.ok_or_else(|| ShuffleError::rows("a row has no event time"))?;
        Ok(times.values().iter().map(|at| self.slices.cell_of(EventTime::from_micros(*at))).collect())
    }

    /// Bytes of memory that it holds.
    pub fn buffered_bytes(&self) -> usize {
        self.gathering.bytes() + self.output.as_ref().map_or(0, Output::held)
    }

    /// Writes out what is held, so that memory is given back; an upload keeps the parts that are on their way.
    pub async fn flush(&mut self) -> Result<(), ShuffleError> {
        self.write_out(0).await
    }

    /// Bytes of the object that are written out.
    pub fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// The object, which survives a loss of power from then on; `None`, and no object, where no row was written.
    pub async fn close(mut self) -> Result<Option<ShuffleObject>, ShuffleError> {
        self.write_out(0).await?;
        let ends = self.cells.keys().next().copied().zip(self.cells.keys().next_back().copied());
        let Some((first_cell, last_cell)) = ends else { return Ok(None) };
        if self.chunks.iter().map(|chunk| u64::from(chunk.rows)).sum::<u64>() != self.rows {
            return Err(given_up());
        }
        let schema = format::encode_schema(&self.schema).into();
        let index = ShuffleIndex { version: format::VERSION, schema, chunks: std::mem::take(&mut self.chunks) };
        let index = index.encode_to_vec();
        let index_bytes = u32::try_from(index.len()).ok().filter(|_| index.len() <= MOST_INDEX);
        let footer = Footer { index_at: self.bytes, index_bytes: index_bytes.ok_or_else(too_many)? };
        self.put(&index).await?;
        self.put(&footer.encode()).await?;
        self.output.take().ok_or_else(given_up)?.finish().await?;
        Ok(Some(ShuffleObject {
            anchors: 0, // whoever knows which rows they are says how many
            path: self.path,
            bytes: self.bytes,
            rows: self.rows,
            first_cell,
            last_cell,
            index_crc: crc32fast::hash(&index),
            cells: self.cells.keys().copied().collect(),
            cell_rows: self.cells.values().copied().collect(),
        }))
    }

    /// Writes out what is held beyond about `most_left` bytes.
    async fn write_out(&mut self, most_left: usize) -> Result<(), ShuffleError> {
        let cut = self.gathering.cut(most_left);
        for portion in &cut.given {
            for ((bucket, cell), rows) in self.gathering.rows_of(portion).map_err(ShuffleError::rows)? {
                self.put_chunk(bucket, cell, &rows).await?;
            }
        }
        self.gathering.keep(&cut.left).map_err(ShuffleError::rows)
    }

    async fn put_chunk(&mut self, bucket: u32, cell: i64, rows: &RecordBatch) -> Result<(), ShuffleError> {
        if self.chunks.len() >= MOST_CHUNKS {
            return Err(too_many());
        }
        let (packed, chunk) = format::encode_chunk(rows, bucket, cell).map_err(ShuffleError::rows)?;
        self.put(&packed).await?;
        self.chunks.push(chunk);
        Ok(())
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), ShuffleError> {
        // Taken out while it is written to: what fails or is dropped half-way is not gone on with.
        let mut output = match self.output.take() {
            Some(output) => output,
            None if self.bytes == 0 => self.store.create(&self.path)?,
            None => return Err(given_up()),
        };
        if let Err(error) = output.write(bytes).await {
            output.abort().await;
            return Err(error);
        }
        self.output = Some(output);
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

fn check_schema(schema: &SchemaRef, keys: &[usize], buckets: u32) -> Result<(), ShuffleError> {
    let kind_of = |column: usize| schema.fields().get(column).map(|field| field.data_type());
    if kind_of(0) != Some(&DataType::Int64) {
        return Err(ShuffleError::rows("their first column is no Int64, which the event time is"));
    }
    if let Some(field) = schema.fields().iter().find(|field| !plain::is_kept(field.data_type())) {
        return Err(ShuffleError::rows(format!("column {} of type {} is not kept", field.name(), field.data_type())));
    }
    if let Some(key) = keys.iter().find(|key| !kind_of(**key).is_some_and(hash::is_hashed)) {
        return Err(ShuffleError::rows(format!("column {key} is none by which rows are put into buckets")));
    }
    if buckets == 0 { Err(ShuffleError::rows("there are no buckets")) } else { Ok(()) }
}

fn too_many() -> ShuffleError {
    ShuffleError::rows(format!(
        "one hand-in makes more than {MOST_CHUNKS} pieces: make slices wider, or buckets or rows of a hand-in fewer"
    ))
}

fn given_up() -> ShuffleError {
    ShuffleError::rows("writing them was given up before")
}
