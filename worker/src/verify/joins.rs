//! What a journal says of an output that joins: what was shuffled of each source, and which slices were joined.
//!
//! It refuses nothing: what cannot be is noted in words, and the checks find it broken.

use std::collections::BTreeSet;

use tidegate_common::slices::{Reach, Slices};
use tidegate_common::time::{Span, Window};
use tidegate_proto::v1;

/// How an output joins.
#[derive(Clone, Debug, Default)]
pub struct JoinBook {
    /// An anchor first.
    pub inputs: Vec<InputBook>,
    /// How the window is cut; `None` until it is.
    pub slices: Option<Slices>,
    /// Rows of the anchors that were shuffled, lie in the window and were not too late: each is joined once.
    pub anchors: u64,
    /// Late rows that were handed in for their table.
    pub late_written: u64,
    /// The objects whose late rows were, by number.
    late_objects: BTreeSet<u64>,
    joined: BTreeSet<u32>,
    objects: BTreeSet<String>,
    /// What cannot be, of slices and objects.
    pub(super) wrong: Vec<String>,
}

/// What became of one source's rows for an output that joins it.
#[derive(Clone, Debug, Default)]
pub struct InputBook {
    /// The source's name.
    pub source: String,
    /// Where its rows lie, seen from those that they meet.
    pub reach: Reach,
    /// Whether its rows in the window are each joined once, and not only met.
    pub is_anchor: bool,
    /// Rows read for it.
    pub read: u64,
    /// Rows that were put into the shuffle store.
    pub shuffled: u64,
    /// Rows that the query or the window left out.
    pub filtered: u64,
    /// Rows in its objects that came when slices which need them were joined.
    pub late: u64,
    /// Rows that the source could not use.
    pub dead_letter: u64,
    /// Objects of the shuffle store that were handed in.
    pub objects: u64,
    /// Rows in those.
    pub object_rows: u64,
    /// What cannot be, of its hand-ins.
    pub(super) wrong: Vec<String>,
}

impl JoinBook {
    /// The book of a query over these; `None` where it joins nothing.
    pub(super) fn of(inputs: &[v1::JoinInput]) -> Option<Self> {
        let input = |(at, input): (usize, &v1::JoinInput)| InputBook {
            source: input.source.clone(),
            reach: input.reach(),
            is_anchor: at == 0 || input.anchor,
            ..InputBook::default()
        };
        (!inputs.is_empty()).then(|| Self { inputs: inputs.iter().enumerate().map(input).collect(), ..Self::default() })
    }

    /// Whether nothing was handed in for it.
    pub(super) fn is_blank(&self) -> bool {
        self.joined.is_empty() && self.inputs.iter().all(|input| input.read == 0 && input.objects == 0)
    }

    /// How it is cut is chosen.
    pub(super) fn cut(&mut self, window: Window, sliced: &v1::record::Sliced) {
        let width = Span::from_micros(sliced.slice);
        let slices = Slices::new(window, width);
        if slices.is_none() {
            self.wrong.push(format!("slices of {width} were chosen, which do not cut the window"));
        }
        if self.slices.is_some() && self.slices != slices {
            self.wrong.push(format!("slices of {width} were chosen, and it was cut before"));
        }
        self.slices = slices;
    }

    /// Books a part of a read of `source`, whose rows `may` be late or not.
    pub(super) fn read(&mut self, source: &str, part: &v1::OutputPart, may: bool) {
        let at = self.inputs.iter().position(|input| input.source == source);
        let Some((at, input)) = at.and_then(|at| Some((at, self.inputs.get_mut(at)?))) else {
            return self.wrong.push(format!("rows of {source} were handed in, and it joins no such source"));
        };
        input.read += part.rows_read;
        input.shuffled += part.rows_passed;
        input.filtered += part.rows_filtered;
        input.late += part.rows_late;
        input.dead_letter += part.rows_dead_letter;
        if !part.files.is_empty() {
            input.wrong.push(format!("{} data files were handed in with rows to be joined", part.files.len()));
        }
        let rows = part.shuffled.as_ref().map_or(0, |object| object.rows);
        if rows != part.rows_passed {
            let path = part.shuffled.as_ref().map_or("no object", |object| &object.path);
            input.wrong.push(format!("{} rows were shuffled, and {path} holds {rows} of them", part.rows_passed));
        }
        let Some(object) = &part.shuffled else { return };
        if object.anchors > if input.is_anchor { rows } else { 0 } {
            input.wrong.push(format!("{} holds {} anchors among {rows} rows", object.path, object.anchors));
        }
        input.objects += 1;
        input.object_rows += rows;
        let (reach, is_anchor) = (input.reach, input.is_anchor);
        self.wrong.extend(self.unfit(object));
        self.objects.insert(object.path.clone());
        let (late, lost) = self.late(object, reach, is_anchor);
        self.anchors += object.anchors.saturating_sub(lost);
        if late > 0 && !may {
            let path = &object.path;
            self.wrong.push(format!("{path} came with {late} rows that joined slices need, and none may be late"));
        }
        if let Some(input) = self.inputs.get_mut(at) {
            input.late += late;
            input.shuffled = input.shuffled.saturating_sub(late);
        }
    }

    /// Rows of an object that slices need which are joined, and rows of the anchor that such slices are to be made of.
    fn late(&self, object: &v1::ShuffleObject, reach: Reach, is_anchor: bool) -> (u64, u64) {
        let Some(slices) = self.slices else { return (0, 0) };
        let (mut late, mut lost) = (0, 0);
        for (cell, rows) in object.cells.iter().zip(&object.cell_rows) {
            if self.joined.range(slices.needing(*cell..=*cell, reach)).next().is_some() {
                late += rows;
            }
            if is_anchor && u32::try_from(*cell).is_ok_and(|slice| self.joined.contains(&slice)) {
                lost += rows;
            }
        }
        (late, lost)
    }

    /// Books the late rows of an object that were handed in for their table.
    pub(super) fn late_handed_in(&mut self, number: u64, hand_in: &v1::HandIn) {
        if !self.late_objects.insert(number) {
            self.wrong.push(format!("the late rows of object {number} were handed in before"));
        }
        self.late_written += hand_in.rows_read;
    }

    /// Rows that were late, of all sources.
    pub(super) fn all_late(&self) -> u64 {
        self.inputs.iter().map(|input| input.late).sum()
    }

    /// What cannot be of an object.
    fn unfit(&self, object: &v1::ShuffleObject) -> Option<String> {
        let path = &object.path;
        if self.objects.contains(path) {
            return Some(format!("{path} was handed in before"));
        }
        let (first, last) = (object.first_cell, object.last_cell);
        if self.slices.is_none() || first > last {
            return Some(format!("{path} has cells {first} to {last}, which the window is not cut into"));
        }
        let (in_cells, rows) = (object.cell_rows.iter().sum::<u64>(), object.rows);
        let ends = (object.cells.first(), object.cells.last()) == (Some(&first), Some(&last));
        // An object of an earlier release does not say.
        let sound = object.cells.is_empty() || (ends && in_cells == rows && object.cells.is_sorted());
        (!sound).then(|| format!("{path} has {rows} rows in cells {first} to {last}, and {in_cells} in those it names"))
    }

    /// Books what a join of the slices from `first` on handed in for the output of that number.
    pub(super) fn joined(&mut self, (output, first): (u32, u32), hand_in: &v1::HandIn) {
        let (from, end) = (hand_in.first_unit, hand_in.end_unit);
        let count = self.slices.map_or(0, Slices::count);
        if from != first || end <= from || end > count {
            self.wrong
                .push(format!("slices [{from},{end}) were joined by the task of slice {first}; there are {count}"));
        }
        let again: Vec<u32> = (from..end.min(count)).filter(|slice| !self.joined.insert(*slice)).collect();
        if let (Some(low), Some(high)) = (again.first(), again.last()) {
            self.wrong.push(format!("slices [{from},{end}) were joined, and {low} to {high} of them were before"));
        }
        let fits = |part: &v1::OutputPart| {
            part.output == output && part.rows_read == hand_in.rows_read && part.shuffled.is_none()
        };
        if !matches!(hand_in.outputs.as_slice(), [part] if fits(part)) {
            self.wrong.push(format!("what slices [{from},{end}) handed in is not the rows of this output alone"));
        }
    }

    /// Slices that are joined.
    pub fn slices_joined(&self) -> u32 {
        u32::try_from(self.joined.len()).unwrap_or(u32::MAX)
    }
}
