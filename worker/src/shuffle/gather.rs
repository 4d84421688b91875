//! Rows on their way into chunks: held until those of one bucket and cell are many, within a bound on memory.
//!
//! Each batch is sorted by place once when it comes, which copies it, so that it holds no memory of others; when memory
//! is to be given back, the largest places are put together from all batches.

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::plain;

/// Most rows of a chunk.
const CHUNK_ROWS: usize = 64 << 10;
/// About as many bytes are in a large chunk, and in what is put together at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// Runs of so many rows are copied as a whole, shorter ones row by row.
const LONG_RUN: usize = 16;

/// Where rows belong: the bucket of their keys, then the cell of their event time, so that the cells that one task wants
/// of a bucket lie side by side.
pub(super) type Place = (u32, i64);

/// Rows of one place that lie side by side in a batch.
#[derive(Clone, Copy, Debug)]
struct Run {
    place: Place,
    first: usize,
    rows: usize,
}

#[derive(Debug)]
struct Held {
    rows: RecordBatch,
    /// By place.
    runs: Vec<Run>,
    bytes: usize,
}

impl Held {
    fn new(rows: RecordBatch, runs: Vec<Run>) -> Self {
        let bytes = rows.get_array_memory_size() + runs.len() * size_of::<Run>();
        Self { rows, runs, bytes }
    }

    /// About how many bytes `rows` of it are.
    fn bytes_of(&self, rows: usize) -> usize {
        self.bytes.saturating_mul(rows) / self.rows.num_rows().max(1)
    }
}

/// A run of one of the batches.
type Piece = (usize, Run);

/// Pieces that are put together at a time, and make one chunk for each place at most.
#[derive(Debug)]
pub(super) struct Portion(Vec<Piece>);

impl Portion {
    /// Its rows' places, when they are put together.
    fn runs(&self) -> Vec<Run> {
        runs(self.0.iter().map(|(_, run)| (run.place, run.rows)))
    }
}

/// What is to be written out, by place, and what stays.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) given: Vec<Portion>,
    pub(super) left: Vec<Portion>,
}

/// The rows that are held.
#[derive(Debug)]
pub(super) struct Gathering {
    plain: SchemaRef,
    /// In the order in which they came.
    held: Vec<Held>,
    bytes: usize,
}

impl Gathering {
    /// Nothing yet; rows will be of plain types, `plain`.
    pub(super) fn new(plain: SchemaRef) -> Self {
        Self { plain, held: Vec::new(), bytes: 0 }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes rows up; one place for each.
    pub(super) fn add(&mut self, rows: &RecordBatch, places: impl Iterator<Item = Place>) -> Result<(), ArrowError> {
        let mut sorted: Vec<(Place, u32)> = places.zip(0..).collect();
        sorted.sort_unstable();
        let order: UInt32Array = sorted.iter().map(|(_, row)| *row).collect::<Vec<_>>().into();
        let rows = plain::as_schema(&take_record_batch(rows, &order)?, &self.plain)?;
        self.hold(Held::new(rows, runs(sorted.into_iter().map(|(place, _)| (place, 1)))));
        Ok(())
    }

    fn hold(&mut self, held: Held) {
        self.bytes += held.bytes;
        self.held.push(held);
    }

    /// What is to be written out so that about `most_left` bytes stay, the largest places before others, and what stays.
    pub(super) fn cut(&self, most_left: usize) -> Cut {
        let (given, left) = self.split(most_left);
        Cut { given: self.portions(given), left: self.portions(left) }
    }

    /// The rows of a portion, place by place; those of a place are in the order in which they came.
    pub(super) fn rows_of(&self, portion: &Portion) -> Result<Vec<(Place, RecordBatch)>, ArrowError> {
        let rows = self.put_together(&portion.0)?;
        Ok(portion.runs().into_iter().map(|run| (run.place, rows.slice(run.first, run.rows))).collect())
    }

    /// Holds these alone from now on.
    pub(super) fn keep(&mut self, left: &[Portion]) -> Result<(), ArrowError> {
        let kept = left.iter().map(|portion| Ok(Held::new(self.copied(&portion.0)?, portion.runs())));
        let kept = kept.collect::<Result<Vec<_>, ArrowError>>()?;
        (self.held, self.bytes) = (Vec::new(), 0);
        kept.into_iter().for_each(|held| self.hold(held));
        Ok(())
    }

    /// All runs, by place and then in the order in which they came: those to be given away, and those that stay.
    fn split(&self, most_left: usize) -> (Vec<Piece>, Vec<Piece>) {
        let mut sizes: BTreeMap<Place, usize> = BTreeMap::new();
        let mut pieces: Vec<Piece> = Vec::new();
        for (at, held) in self.held.iter().enumerate() {
            for run in &held.runs {
                *sizes.entry(run.place).or_default() += held.bytes_of(run.rows);
                pieces.push((at, *run));
            }
        }
        pieces.sort_by_key(|(_, run)| run.place);
        if most_left == 0 {
            return (pieces, Vec::new());
        }
        let mut by_size: Vec<(usize, Place)> = sizes.into_iter().map(|(place, bytes)| (bytes, place)).collect();
        by_size.sort_unstable_by(|a, b| b.cmp(a));
        let mut left = self.bytes;
        let mut given: Vec<Place> = Vec::new();
        for (bytes, place) in by_size {
            if left <= most_left {
                break;
            }
            left = left.saturating_sub(bytes);
            given.push(place);
        }
        given.sort_unstable();
        pieces.into_iter().partition(|(_, run)| given.binary_search(&run.place).is_ok())
    }

    /// The pieces, in portions of the size of a chunk.
    fn portions(&self, pieces: Vec<Piece>) -> Vec<Portion> {
        let mut portions = Vec::new();
        let (mut portion, mut rows, mut bytes) = (Vec::new(), 0, 0);
        for (at, mut run) in pieces {
            let each = self.held.get(at).map_or(1, |held| held.bytes_of(1)).max(1);
            while run.rows > 0 {
                let room = (CHUNK_ROWS - rows).min(CHUNK_BYTES.saturating_sub(bytes) / each);
                let taken = room.max(usize::from(portion.is_empty())).min(run.rows);
                if taken == 0 {
                    portions.push(Portion(std::mem::take(&mut portion)));
                    (rows, bytes) = (0, 0);
                    continue;
                }
                portion.push((at, Run { rows: taken, ..run }));
                (rows, bytes) = (rows + taken, bytes + taken * each);
                (run.first, run.rows) = (run.first + taken, run.rows - taken);
            }
        }
        portions.push(Portion(portion));
        portions.retain(|portion| !portion.0.is_empty());
        portions
    }

    /// The rows of these pieces, one behind the other.
    fn put_together(&self, pieces: &[Piece]) -> Result<RecordBatch, ArrowError> {
        // Of one batch they lie side by side more often than not.
        if let Some((at, first)) = pieces.first()
            && let Some(held) = self.held.get(*at)
        {
            let mut end = first.first;
            let is_next = |(of, run): &Piece| {
                let begins = std::mem::replace(&mut end, run.first + run.rows);
                of == at && run.first == begins
            };
            if pieces.iter().all(is_next) {
                return Ok(held.rows.slice(first.first, end - first.first));
            }
        }
        self.copied(pieces)
    }

    /// The same, and never a part of what is held.
    fn copied(&self, pieces: &[Piece]) -> Result<RecordBatch, ArrowError> {
        let rows: usize = pieces.iter().map(|(_, run)| run.rows).sum();
        // One alone would be a part of what is held, put together with nothing.
        if pieces.len() > 1 && rows / pieces.len() >= LONG_RUN {
            let held = pieces.iter().filter_map(|(at, run)| Some(self.held.get(*at)?.rows.slice(run.first, run.rows)));
            return concat_batches(&self.plain, &held.collect::<Vec<_>>());
        }
        let batches: Vec<&RecordBatch> = self.held.iter().map(|held| &held.rows).collect();
        let rows = pieces.iter().flat_map(|(at, run)| (run.first..run.first + run.rows).map(|row| (*at, row)));
        interleave_record_batch(&batches, &rows.collect::<Vec<_>>())
    }
}

/// The runs of rows of which so many, one behind the other, are of one place.
fn runs(places: impl Iterator<Item = (Place, usize)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut first = 0;
    for (place, rows) in places {
        match runs.last_mut() {
            Some(run) if run.place == place => run.rows += rows,
            _ => runs.push(Run { place, first, rows }),
        }
        first += rows;
    }
    runs
}
