//! What a seed stands for of an output that joins: its sources, how far they reach, the rows that lie in them, and the
//! virtual shuffle store in which those wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tidegate_common::ids::TaskId;
use tidegate_proto::v1;

use super::chance::Chance;
use super::scenario::{SourceData, WINDOW};

/// One source of an output that joins, and how far from an anchor's its rows lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    pub(super) source: u32,
    pub(super) low: i64,
    pub(super) high: i64,
}

/// An output that joins.
#[derive(Clone, Debug)]
pub(super) struct Joins {
    pub(super) output: u32,
    /// The anchor first.
    pub(super) inputs: Vec<Input>,
    /// What a row takes in the shuffle store.
    pub(super) bytes: u64,
    /// Event times whose slices no join can process.
    pub(super) poison: BTreeSet<i64>,
    /// How far behind their units some rows lie, whose sources may then break their order; 0 where none does.
    pub(super) disorder: i64,
}

/// A row that an output passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) at: i64,
    task: TaskId,
    unit: u32,
    row: u64,
}

/// How many of a unit's rows an output passes: all but every seventh.
pub(super) fn passed(rows: u64, output: u32) -> u64 {
    rows - (rows + u64::from(output)) / 7 % (rows + 1)
}

/// The rows of a unit that the output passes which joins them, spread over the unit's bounds; some lie far before these.
pub(super) fn rows(task: TaskId, unit: u32, (low, high, rows): (i64, i64, u64), joins: &Joins) -> Vec<Row> {
    let last = rows.saturating_sub(1).max(1);
    let at = |row: u64| {
        let at = low + (high - low) * row.cast_signed() / last.cast_signed();
        let strays = (row + u64::from(unit)) % 6 == 5;
        if strays { (at - joins.disorder).max(low.min(0)) } else { at }
    };
    (0..passed(rows, joins.output)).map(|row| Row { at: at(row), task, unit, row }).collect()
}

/// The slice that holds an event time, where slices are so wide.
pub(super) fn slice_of(at: i64, width: i64) -> i64 {
    let (width, window) = (width.max(1), WINDOW.cast_signed());
    // What lies behind the window is in cells of its own.
    if at < window { at.div_euclid(width) } else { (window + width - 1) / width + (at - window) / width }
}

impl Joins {
    /// An output that joins two or three of `sources`; all but the anchor are moved, so that they begin and end elsewhere.
    pub(super) fn new(chance: &mut Chance, output: u32, sources: &mut [SourceData]) -> Self {
        let mut left: Vec<u32> = (0..u32::try_from(sources.len()).unwrap_or(0)).collect();
        let bytes = chance.pick(&[100, 1 << 16, 1 << 20]).unwrap_or(100);
        let mut inputs = Vec::new();
        for at in 0..chance.between(2, 3.min(sources.len() as u64)) {
            let source = left.remove(usize::try_from(chance.below(left.len() as u64)).unwrap_or(0));
            let Some(data) = sources.get_mut(source as usize) else { continue };
            data.found.bytes_in_range =
                data.segments.iter().flatten().flat_map(|task| &task.units).map(|unit| unit.rows).sum::<u64>() * bytes;
            let (low, high) = if at == 0 { (0, 0) } else { reach(chance) };
            if at > 0 {
                data.shift(chance.between(0, 2_400).cast_signed() - 1_200);
            }
            inputs.push(Input { source, low, high });
        }
        let hot = if chance.one_in(6) { chance.between(1, 2) } else { 0 };
        let poison = (0..hot).map(|_| chance.below(WINDOW).cast_signed()).collect();
        let disorder = if chance.one_in(2) { chance.between(50, WINDOW).cast_signed() } else { 0 };
        Self { output, inputs, bytes, poison, disorder }
    }

    /// Which of its inputs a source is.
    pub(super) fn input(&self, source: u32) -> Option<usize> {
        self.inputs.iter().position(|input| input.source == source)
    }
}

fn reach(chance: &mut Chance) -> (i64, i64) {
    let (one, other) = (chance.between(0, 900).cast_signed(), chance.between(0, 900).cast_signed());
    match chance.below(6) {
        0 => (0, 0),
        1 => (-one, 0),
        2 => (0, one),
        3 => (-one, other),
        4 => (one, one + other),
        _ => (-one - other, -one),
    }
}

/// The virtual shuffle store.
#[derive(Debug, Default)]
pub(super) struct Shuffle {
    /// What lies in it, by path, and of which backfill.
    objects: BTreeMap<String, (usize, Vec<Row>)>,
    /// The task, and the first of its units, whose rows stood or stand at a path.
    origins: BTreeMap<String, (TaskId, u32)>,
}

impl Shuffle {
    /// An object is written.
    pub(super) fn write(&mut self, path: &str, ix: usize, rows: Vec<Row>, origin: (TaskId, u32)) {
        self.objects.insert(path.to_owned(), (ix, rows));
        self.origins.insert(path.to_owned(), origin);
    }

    /// Where the rows of an object come from, whether it is still there or not.
    pub(super) fn origin(&self, path: &str) -> Option<(TaskId, u32)> {
        self.origins.get(path).copied()
    }

    /// What an object holds; `None` where it is not there.
    pub(super) fn read(&self, path: &str) -> Option<&[Row]> {
        self.objects.get(path).map(|(_, rows)| rows.as_slice())
    }

    /// An object is removed, where it is there.
    pub(super) fn remove(&mut self, path: &str) {
        self.objects.remove(path);
    }

    /// Everything that a backfill has there.
    pub(super) fn of(&self, ix: usize) -> Vec<String> {
        self.objects.iter().filter(|(_, (of, _))| *of == ix).map(|(path, _)| path.clone()).collect()
    }
}

/// The object of the rows of one hand-in, to be written to `path`; `None` where there are none.
pub(super) fn object(path: String, rows: &[Row], width: i64, bytes: u64, anchors: bool) -> Option<v1::ShuffleObject> {
    let inside = rows.iter().filter(|row| (0..WINDOW.cast_signed()).contains(&row.at)).count() as u64;
    let mut cells: BTreeMap<i64, u64> = BTreeMap::new();
    rows.iter().for_each(|row| *cells.entry(slice_of(row.at, width)).or_default() += 1);
    Some(v1::ShuffleObject {
        path,
        bytes: rows.len() as u64 * bytes,
        rows: rows.len() as u64,
        first_cell: *cells.keys().next()?,
        last_cell: *cells.keys().next_back()?,
        anchors: if anchors { inside } else { 0 },
        cells: cells.keys().copied().collect(),
        cell_rows: cells.into_values().collect(),
        ..Default::default()
    })
}

/// Those of `rows` that lie in the slices.
pub(super) fn within(rows: &[Row], slices: &Range<u32>, width: i64) -> Vec<Row> {
    let slices = i64::from(slices.start)..i64::from(slices.end);
    rows.iter().filter(|row| slices.contains(&slice_of(row.at, width))).copied().collect()
}
