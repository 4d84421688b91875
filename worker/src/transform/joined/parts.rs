//! An aggregate in less memory than all groups of a slice take.
//!
//! A group's rows are of anchors that lie in one window and agree on the group's columns. So the anchor's rows are dealt
//! out by the hash of both, and each part is answered by itself: it holds whole groups. A part that does not fit is dealt
//! out in two; everything is read anew for each part.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::error::{DataFusionError, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::time::EventTime;

use super::join::{Dealing, Join, Unit};
use super::pieces;
use super::rows::InputRows;
use super::run::{Answer, Leaves};
use crate::shuffle::buckets_of;
use crate::transform::error::QueryError;
use crate::transform::quirks::usual_rules;

/// Parts at most: each reads all rows, and one group is in one of them however many there are.
const MOST: u32 = 4_096;

/// The answer of `join` over `leaves`, of which the anchors of `unit` alone decide about rows, within `bytes`.
pub(super) fn answer(join: Join, leaves: Leaves, unit: Unit, bytes: usize) -> Answer {
    let parts = Parts { join, leaves, unit, bytes, ahead: vec![Part::ALL], running: None };
    futures::stream::try_unfold(parts, |mut parts| async move { Ok(parts.next().await?.map(|rows| (rows, parts))) })
        .boxed()
}

/// Those rows whose hash leaves `number` of `of`.
#[derive(Clone, Copy, Debug)]
struct Part {
    number: u32,
    of: u32,
}

impl Part {
    const ALL: Self = Self { number: 0, of: 1 };

    /// Two parts with the same rows between them.
    fn halves(self) -> [Self; 2] {
        let of = self.of * 2;
        [Self { of, ..self }, Self { number: self.number + self.of, of }]
    }
}

struct Parts {
    join: Join,
    leaves: Leaves,
    unit: Unit,
    bytes: usize,
    /// What is still to be answered.
    ahead: Vec<Part>,
    /// What is being answered, and which part it is, before its first row.
    running: Option<(Option<Part>, Answer)>,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        loop {
            let (part, mut answer) = match (self.running.take(), self.ahead.last().copied()) {
                (Some(running), _) => running,
                (None, Some(part)) => {
                    self.ahead.pop();
                    (Some(part), self.start(part)?)
                }
                (None, None) => return Ok(None),
            };
            match (answer.next().await, part) {
                (Some(Ok(rows)), _) => {
                    // From now on it cannot begin anew.
                    self.running = Some((None, answer));
                    return Ok(Some(rows));
                }
                (Some(Err(error)), Some(part)) if error.is_memory() && part.of < MOST => {
                    self.ahead.extend(part.halves());
                }
                (Some(Err(error)), _) => return Err(error),
                (None, _) => {}
            }
        }
    }

    fn start(&self, part: Part) -> Result<Answer, QueryError> {
        // All of it is built of the smaller side; of a part, the anchor's is what becomes smaller.
        let rules = if part.of == 1 { usual_rules() } else { pieces::rules() };
        let dealt = |leaves: Leaves, (anchor, by): &(usize, Dealing)| {
            let Some(rows) = leaves.get(*anchor).map(|leaf| Arc::clone(&leaf.rows)) else { return leaves };
            leaves.with(*anchor, Arc::new(Dealt { rows, by: Arc::new(by.clone()), part }))
        };
        let leaves = self.unit.anchors.iter().fold(self.leaves.clone(), dealt);
        self.join.whole(leaves, self.bytes, rules)
    }
}

/// One part of the anchor's rows.
struct Dealt {
    rows: Arc<dyn InputRows>,
    by: Arc<Dealing>,
    part: Part,
}

impl fmt::Debug for Dealt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.part, self.rows)
    }
}

impl InputRows for Dealt {
    fn open(&self) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
        let (by, part) = (Arc::clone(&self.by), self.part);
        self.rows.open().map(move |rows| dealt(rows?, &by, part)).boxed()
    }

    fn rows(&self) -> usize {
        self.rows.rows().div_ceil(usize::try_from(self.part.of).unwrap_or(1))
    }

    fn bytes(&self) -> usize {
        self.rows.bytes().div_ceil(usize::try_from(self.part.of).unwrap_or(1))
    }
}

/// The rows of `batch` that are of `part`.
fn dealt(batch: RecordBatch, by: &Dealing, part: Part) -> Result<RecordBatch> {
    let times = batch.columns().first().and_then(|times| times.as_primitive_opt::<Int64Type>());
    let Some(times) = times.filter(|_| part.of > 1) else { return Ok(batch) };
    let number = |time: i64| by.by.map_or(0, |whole| whole.number(EventTime::from_micros(time)));
    let numbers: ArrayRef = Arc::new(times.values().iter().map(|time| number(*time)).collect::<Int64Array>());
    let columns = by.places.iter().filter_map(|place| batch.columns().get(*place)).cloned();
    let columns: Vec<ArrayRef> = std::iter::once(numbers).chain(columns).collect();
    let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("{at}"), column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
    let keys: Vec<usize> = (0..columns.len()).collect();
    let rows = RecordBatch::try_new(Arc::new(schema), columns)?;
    let buckets = buckets_of(&rows, &keys, part.of).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let kept: BooleanArray = buckets.into_iter().map(|bucket| Some(bucket == part.number)).collect();
    Ok(filter_record_batch(&batch, &kept)?)
}
