//! An aggregate in less memory than all groups of a slice take.
//!
//! A group's rows are of anchors that lie in one window and agree on the group's columns. So the anchor's rows are dealt
//! out by the hash of both, and each part is answered by itself: it holds whole groups. A part that does not fit is dealt
//! out in two; everything is read anew for each part.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_common::time::{EventTime, Window};
use tidegate_common::windows::WholeWindows;

use super::join::Join;
use super::pieces;
use super::rows::{InputRows, Mentioned};
use super::run::{Answer, Leaves};
use crate::shuffle::buckets_of;
use crate::transform::error::QueryError;

/// Parts at most: each reads all rows, and one group is in one of them however many there are.
const MOST: u32 = 4_096;

/// The answer of `join` for `slice`, within `bytes`; a group lies in one of these windows, and agrees on these columns of
/// the anchor's input.
pub(super) fn answer(
    join: &Join,
    slice: Window,
    inputs: &[Arc<dyn InputRows>],
    bytes: usize,
    by: (WholeWindows, Vec<usize>),
) -> Answer {
    let leaves = join.leaves(slice, inputs).0;
    let Some(anchor) = leaves.get(&join.anchor).cloned() else { return futures::stream::empty().boxed() };
    let by = Arc::new(by);
    let parts = Parts { join: join.clone(), leaves, anchor, bytes, by, ahead: vec![Part::ALL], running: None };
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
    leaves: BTreeMap<usize, Arc<Mentioned>>,
    anchor: Arc<Mentioned>,
    bytes: usize,
    by: Arc<(WholeWindows, Vec<usize>)>,
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
        let mut leaves = self.leaves.clone();
        // All of it is built of the smaller side; of a part, the anchor's is what becomes smaller.
        let rules = if part.of == 1 { PhysicalOptimizer::new().rules } else { pieces::rules() };
        let dealt = Dealt { rows: Arc::clone(&self.anchor.rows), by: Arc::clone(&self.by), part };
        let anchor = Mentioned {
            rows: Arc::new(dealt),
            window: self.anchor.window,
            input: Arc::clone(&self.anchor.input),
            picked: self.anchor.picked.clone(),
            is_anchor: true,
        };
        leaves.insert(self.join.anchor, Arc::new(anchor));
        self.join.whole(Leaves(leaves), self.bytes, rules)
    }
}

/// One part of the anchor's rows.
struct Dealt {
    rows: Arc<dyn InputRows>,
    by: Arc<(WholeWindows, Vec<usize>)>,
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
fn dealt(batch: RecordBatch, (whole, places): &(WholeWindows, Vec<usize>), part: Part) -> Result<RecordBatch> {
    let times = batch.columns().first().and_then(|times| times.as_primitive_opt::<Int64Type>());
    let Some(times) = times.filter(|_| part.of > 1) else { return Ok(batch) };
    let number = |time: i64| whole.number(EventTime::from_micros(time));
    let numbers: ArrayRef = Arc::new(times.values().iter().map(|time| number(*time)).collect::<Int64Array>());
    let columns = places.iter().filter_map(|place| batch.columns().get(*place)).cloned();
    let columns: Vec<ArrayRef> = std::iter::once(numbers).chain(columns).collect();
    let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("{at}"), column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
    let keys: Vec<usize> = (0..columns.len()).collect();
    let rows = RecordBatch::try_new(Arc::new(schema), columns)?;
    let buckets = buckets_of(&rows, &keys, part.of).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let kept: BooleanArray = buckets.into_iter().map(|bucket| Some(bucket == part.number)).collect();
    Ok(filter_record_batch(&batch, &kept)?)
}
