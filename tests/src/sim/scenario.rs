//! What a seed stands for: the backfills and their data, the workers, and which mishaps may strike.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_common::ids::{BackfillId, SegmentIx, SourceIx, TaskId};
use tidegate_common::spec::model::LatePolicy;
use tidegate_common::time::{EventTime, Span, Window};
use tidegate_coordinator::core::{CoreOutput, CoreSpec};
use tidegate_proto::v1;

use super::chance::Chance;
use super::joins::Joins;
use super::mishap::Mishap;

/// Virtual microseconds since the world began.
pub(super) type Micros = u64;

pub(super) const MILLI: Micros = 1_000;
pub(super) const SECOND: Micros = 1_000_000;
/// How long a lease lasts, and the grace of a restarted coordinator.
pub(super) const LEASE: Micros = 10 * SECOND;
/// The window's end, in microseconds of event time; it begins at 0.
pub(super) const WINDOW: u64 = 10_000;

/// One backfill that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) id: BackfillId,
    pub(super) spec: CoreSpec,
    pub(super) sources: Vec<SourceData>,
    /// The source that each output reads; of one that joins, the anchor.
    pub(super) reads: Vec<u32>,
    /// The output that joins, where one does.
    pub(super) joins: Option<Joins>,
    /// The table that each output writes.
    pub(super) tables: Vec<usize>,
    /// Units that no reader can process.
    pub(super) poison: BTreeSet<(TaskId, u32)>,
    /// Whether a unit is wider than the drift without leave: it must be refused.
    pub(super) too_wide: bool,
    pub(super) submit_at: Micros,
}

/// What an enumeration will find of one source.
#[derive(Clone, Debug)]
pub(super) struct SourceData {
    pub(super) segments: Vec<Vec<v1::ReadTask>>,
    pub(super) found: v1::Enumerated,
}

/// One worker.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub(super) slots: u32,
    /// How many of its microseconds pass in a thousand of the world's.
    pub(super) clock: u64,
    /// How many times as long as others it reads.
    pub(super) slow: u64,
}

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) orders: Vec<Order>,
    pub(super) hands: Vec<Hand>,
    pub(super) tables: usize,
    /// The mishaps that strike in this world.
    pub(super) mishaps: Vec<Mishap>,
    /// The mean time between two of them.
    pub(super) pace: Micros,
    /// When they stop.
    pub(super) calm_at: Micros,
    /// How many hand-ins in a thousand boundaries come early.
    pub(super) eager: u64,
}

impl Scenario {
    pub(super) fn new(chance: &mut Chance) -> Self {
        let tables = 3;
        let orders = (0..chance.between(1, 3)).map(|n| order(chance, n, tables)).collect();
        let hand = |chance: &mut Chance| Hand {
            slots: u32::try_from(chance.between(1, 3)).unwrap_or(1),
            clock: chance.between(960, 1040),
            slow: chance.pick(&[1, 1, 1, 4, 8]).unwrap_or(1),
        };
        let hands = (0..chance.between(1, 4)).map(|_| hand(chance)).collect();
        let mishaps = Mishap::ALL.into_iter().filter(|_| chance.permille(450)).collect();
        let pace = chance.between(1, 6) * SECOND;
        let calm_at = chance.between(20, 80) * SECOND;
        Self {
            orders,
            hands,
            tables,
            mishaps,
            pace,
            calm_at,
            eager: if chance.one_in(3) { 0 } else { chance.between(100, 600) },
        }
    }
}

fn order(chance: &mut Chance, n: u64, tables: usize) -> Order {
    let mut digest = [0u8; 32];
    digest[..8].copy_from_slice(&n.to_be_bytes());
    let id = BackfillId::from_digest(&[digest[7].wrapping_mul(37).wrapping_add(11); 32]);
    let drift = (!chance.one_in(4)).then(|| Span::from_micros(chance.between(30, 2_000).try_into().unwrap_or(30)));
    let joins = chance.permille(400);
    let mut sources: Vec<SourceData> =
        (0..chance.between(if joins { 2 } else { 1 }, 4)).map(|_| source(chance)).collect();
    let widest = sources.iter().map(|source| source.found.widest_unit).max().unwrap_or(0);
    let is_wide = drift.is_some_and(|drift| widest > drift.as_micros());
    let allow_wide = chance.permille(if is_wide { 930 } else { 300 });
    let outputs = chance.between(1, 3);
    let joining = u32::try_from(chance.below(outputs)).unwrap_or(0);
    let joins = joins.then(|| Joins::new(chance, joining, &mut sources));
    let joins_at = |at: u64| joins.as_ref().filter(|joins| u64::from(joins.output) == at);
    let first_table = chance.below(tables as u64);
    let poison = if chance.one_in(5) { poison(chance, &sources) } else { BTreeSet::new() };
    // Readers are then told how many they are, which changes no decision.
    let limited = sources.len().is_multiple_of(2);
    Order {
        id,
        spec: CoreSpec {
            name: format!("backfill-{n}"),
            window: Window::new(EventTime::from_micros(0), EventTime::from_micros(WINDOW as i64))
                .unwrap_or(Window::ALL),
            max_drift: drift,
            allow_wide,
            sources: (0..sources.len()).map(|at| format!("source-{at}")).collect(),
            limited,
            disorderly: joins.iter().flat_map(disorderly).collect(),
            outputs: (0..outputs).map(|at| output(chance, at, joins_at(at).is_some())).collect(),
        },
        reads: (0..outputs).map(|at| reads(chance, joins_at(at), sources.len() as u64)).collect(),
        tables: (0..outputs).map(|at| usize::try_from(first_table + at).unwrap_or(0) % tables).collect(),
        sources,
        joins,
        poison,
        too_wide: is_wide && !allow_wide,
        submit_at: chance.below(10 * SECOND),
    }
}

/// The sources that may break their order.
fn disorderly(joins: &Joins) -> Vec<SourceIx> {
    let inputs = joins.inputs.iter().filter(|_| joins.disorder > 0);
    inputs.map(|input| SourceIx::new(input.source)).collect()
}

/// The source that an output reads.
fn reads(chance: &mut Chance, joins: Option<&Joins>, sources: u64) -> u32 {
    let anchor = joins.and_then(|joins| joins.inputs.first()).map(|anchor| anchor.source);
    anchor.unwrap_or_else(|| u32::try_from(chance.below(sources)).unwrap_or(0))
}

fn output(chance: &mut Chance, at: u64, joins: bool) -> CoreOutput {
    let cut = joins && !chance.one_in(3);
    let slices = chance.pick(&[1, 4, 10, 40]).unwrap_or(1);
    let width = WINDOW / chance.between(1, slices) + chance.below(7);
    CoreOutput {
        name: format!("output-{at}"),
        commit_every: Duration::from_micros(chance.between(SECOND, 15 * SECOND)),
        commit_bytes: if chance.one_in(3) { chance.between(1, 20_000) } else { u64::MAX },
        staged: chance.one_in(4),
        replaces: chance.one_in(5),
        dead_letters: None,
        // Late rows are counted: nobody here writes them.
        late: LatePolicy::Drop,
        late_of: None,
        slice: cut.then(|| Span::from_micros(width.cast_signed())),
        budget: None,
        buckets: (joins && chance.one_in(2)).then(|| u32::try_from(chance.between(1, 9)).unwrap_or(1)),
    }
}

fn poison(chance: &mut Chance, sources: &[SourceData]) -> BTreeSet<(TaskId, u32)> {
    let tasks = tasks(sources);
    let one = |chance: &mut Chance| {
        let (task, units) = chance.pick(&tasks)?;
        Some((task, u32::try_from(chance.below(units.units.len() as u64)).ok()?))
    };
    (0..chance.between(1, 2)).filter_map(|_| one(chance)).collect()
}

/// Every read task of `sources` by name.
pub(super) fn tasks(sources: &[SourceData]) -> Vec<(TaskId, v1::ReadTask)> {
    let mut all = Vec::new();
    for (source, data) in (0u32..).zip(sources) {
        for (segment, tasks) in (0u32..).zip(&data.segments) {
            for (at, task) in (0u32..).zip(tasks) {
                all.push((TaskId::Read(SourceIx::new(source), SegmentIx::new(segment), at), task.clone()));
            }
        }
    }
    all
}

impl SourceData {
    /// Moves everything in event time.
    pub(super) fn shift(&mut self, by: i64) {
        for unit in self.segments.iter_mut().flatten().flat_map(|task| &mut task.units) {
            unit.low += by;
            unit.high += by;
        }
        if self.found.units > 0 {
            self.found.low += by;
            self.found.high += by;
        }
    }
}

/// How a source's units lie in event time.
#[derive(Clone, Copy)]
enum Shape {
    Even,
    Early,
    Wide,
    Clumsy,
}

fn source(chance: &mut Chance) -> SourceData {
    let count = if chance.one_in(12) { 0 } else { chance.between(1, 9) };
    let shape =
        chance.pick(&[Shape::Even, Shape::Even, Shape::Early, Shape::Wide, Shape::Clumsy]).unwrap_or(Shape::Even);
    let mut tasks: Vec<v1::ReadTask> = (0..count).map(|at| task(chance, shape, at, count)).collect();
    tasks.sort_by_key(|task| task.units.first().map(|unit| unit.low));
    let size = usize::try_from(chance.between(1, 4)).unwrap_or(1);
    let segments: Vec<Vec<v1::ReadTask>> = tasks.chunks(size).map(<[_]>::to_vec).collect();
    let units: Vec<&v1::UnitOfWork> = tasks.iter().flat_map(|task| &task.units).collect();
    let rows_pruned = chance.below(50);
    let found = v1::Enumerated {
        version: 1,
        segments: u32::try_from(segments.len()).unwrap_or(0),
        files: count,
        splits: count,
        tasks: count,
        units: units.len() as u64,
        rows_in_range: units.iter().map(|unit| unit.rows).sum::<u64>() + rows_pruned,
        rows_pruned,
        widest_unit: units.iter().map(|unit| unit.high - unit.low).max().unwrap_or(0),
        low: units.iter().map(|unit| unit.low).min().unwrap_or(0),
        high: units.iter().map(|unit| unit.high).max().unwrap_or(-1),
        ..Default::default()
    };
    SourceData { segments, found }
}

fn task(chance: &mut Chance, shape: Shape, at: u64, count: u64) -> v1::ReadTask {
    let even = WINDOW * at / count.max(1);
    let (start, width, step) = match shape {
        Shape::Even => (even, 40, WINDOW / count.max(1) / 4),
        Shape::Early => (chance.below(WINDOW / 20), 30, 60),
        Shape::Wide => (even, 3_000, WINDOW / count.max(1) / 3),
        Shape::Clumsy => (chance.below(WINDOW - 1), chance.between(1, 900), chance.between(0, 500)),
    };
    let mut low = start;
    let mut units = Vec::new();
    for position in 0..chance.between(1, 6) {
        low = (low + chance.below(step + 1)).min(WINDOW - 1);
        let high = (low + chance.below(width + 1)).min(WINDOW - 1);
        let rows = chance.below(40);
        units.push(v1::UnitOfWork {
            position,
            rows,
            bytes: rows * 100,
            low: low as i64,
            high: high as i64,
            ..Default::default()
        });
    }
    v1::ReadTask { splits: Vec::new(), units }
}
