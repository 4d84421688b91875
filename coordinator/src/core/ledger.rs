//! The ledger: the account of a backfill, balanced edge by edge.
//!
//! | edge | must balance |
//! |---|---|
//! | range | of a source that reads a topic: offsets that are pinned, on both sides of a cut = in range |
//! | source | in range = read + pruned + gaps; units whose rows only reading tells are in range with what was read |
//! | output, in | rows read of its source = rows it read |
//! | output | read = passed + filtered + late + dead letter |
//! | join, in | of each source an output joins: rows read = rows it read = shuffled + filtered + late + dead letter |
//! | join | rows of the anchor that were joined = those that were shuffled and lie in the window |
//! | files | rows in its files = rows passed |
//! | table | rows committed = rows passed; until they are published, rows staged = rows passed |
//! | late rows | of all sources that an output joins = rows passed to the table that keeps them |
//! | dead letters | of a source = rows passed to the table that keeps them |

use tidegate_common::slices::{Reach, Slices};
use tidegate_proto::v1;

use super::late::{LateBook, Lateness};

/// What was read of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceAccount {
    /// Rows read.
    pub read: u64,
    /// Rows read of units whose rows the plan did not know.
    pub unplanned: u64,
    /// Rows read that lie outside the window.
    pub outside: u64,
    /// Records read that do not decode, and rows without event time.
    pub dead_letter: u64,
    /// Offsets read over that hold no record.
    pub gaps: u64,
    /// Records read that are neither row nor dead letter.
    pub void: u64,
    /// Rows that broke the declared order, and may.
    pub disordered: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Units accepted.
    pub units: u64,
    /// The largest `row event time - read watermark at read`, in microseconds; `i64::MIN` before the first row.
    pub max_skew: i64,
    /// Processing time that readers were held at the gate, in microseconds.
    pub held: u64,
    /// Processing time that readers waited for writers, in microseconds.
    pub backpressure: u64,
    /// Processing time that readers waited for the source's rate limit, in microseconds.
    pub limited: u64,
    /// Processing time that readers worked, in microseconds.
    pub busy: u64,
}

impl SourceAccount {
    /// The account of nothing.
    pub fn new() -> Self {
        Self { max_skew: i64::MIN, ..Self::default() }
    }

    /// Books an accepted hand-in of units that were planned with `planned` rows.
    pub fn book(&mut self, hand_in: &v1::HandIn, planned: u64) {
        self.read += hand_in.rows_read;
        self.unplanned += (hand_in.rows_read + hand_in.rows_gaps).saturating_sub(planned);
        self.gaps += hand_in.rows_gaps;
        self.void += hand_in.rows_void;
        self.disordered += hand_in.rows_disordered;
        self.outside += hand_in.rows_outside;
        self.dead_letter += hand_in.rows_dead_letter;
        self.bytes += hand_in.bytes_read;
        self.units += u64::from(hand_in.end_unit.saturating_sub(hand_in.first_unit));
        self.max_skew = self.max_skew.max(hand_in.max_skew);
        self.held += hand_in.held_micros;
        self.backpressure += hand_in.backpressure_micros;
        self.limited += hand_in.limited_micros;
        self.busy += hand_in.busy_micros;
    }

    /// The edge of this source that does not balance, in words; only sensible once all is read.
    pub fn imbalance(&self, name: &str, found: &v1::Enumerated) -> Option<String> {
        let (in_range, pruned) = (found.rows_in_range + self.unplanned, found.rows_pruned);
        (in_range != self.read + pruned + self.gaps).then(|| {
            let (read, gaps) = (self.read, self.gaps);
            format!("source {name}: {in_range} rows in range != {read} read + {pruned} pruned + {gaps} gaps")
        })
    }

    /// How what was found differs from the offsets that are pinned, in words.
    pub fn out_of_range(&self, name: &str, found: &v1::Enumerated, pin: &v1::SourcePin) -> Option<String> {
        let (in_range, pinned) = (found.rows_in_range + self.unplanned, pin.offsets()?);
        (in_range != pinned).then(|| format!("source {name}: {pinned} offsets pinned != {in_range} in range"))
    }
}

/// What became of an output's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputAccount {
    /// Rows read for it.
    pub read: u64,
    /// Rows that its query passed on.
    pub passed: u64,
    /// Rows that its query or the window left out.
    pub filtered: u64,
    /// Rows that came too late for their slice.
    pub late: u64,
    /// Rows that its source could not use; 0 for the table that keeps them.
    pub dead_letter: u64,
    /// Files handed in.
    pub files: u64,
    /// Rows in those files.
    pub file_rows: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Files in committed snapshots of main.
    pub files_committed: u64,
    /// Rows in committed snapshots of main.
    pub rows_committed: u64,
    /// Snapshots committed to main.
    pub commits: u64,
    /// Files on the staging branch now.
    pub files_staged: u64,
    /// Rows on the staging branch now.
    pub rows_staged: u64,
    /// Snapshots that brought them there.
    pub staged_commits: u64,
}

impl OutputAccount {
    /// Books one output's part of an accepted hand-in.
    pub fn book(&mut self, part: &v1::OutputPart) {
        self.read += part.rows_read;
        self.passed += part.rows_passed;
        self.filtered += part.rows_filtered;
        self.late += part.rows_late;
        self.dead_letter += part.rows_dead_letter;
        self.files += part.files.len() as u64;
        self.file_rows += part.files.iter().map(|file| file.rows).sum::<u64>();
        self.bytes += part.files.iter().map(|file| file.bytes).sum::<u64>();
    }

    /// Books an intent that is committed to main.
    pub fn commit(&mut self, intent: &v1::Intent) {
        self.files_committed += intent.files;
        self.rows_committed += intent.rows;
        self.commits += 1;
    }

    /// Books an intent that is committed to the staging branch.
    pub fn stage(&mut self, intent: &v1::Intent) {
        self.files_staged += intent.files;
        self.rows_staged += intent.rows;
        self.staged_commits += 1;
    }

    /// The staging branch is gone, with what was on it.
    pub fn unstage(&mut self) {
        (self.files_staged, self.rows_staged, self.staged_commits) = (0, 0, 0);
    }

    /// The edges of this output that do not balance, in words; only sensible once all is committed, or `staged`.
    pub fn imbalances(&self, name: &str, source: &SourceAccount, staged: bool) -> Vec<String> {
        let out = self.passed + self.filtered + self.late + self.dead_letter;
        let edges = [
            (source.read == self.read, format!("{} rows read of its source != {} it read", source.read, self.read)),
            (
                self.read == out,
                format!(
                    "{} rows read != {} passed + {} filtered + {} late + {} dead letter",
                    self.read, self.passed, self.filtered, self.late, self.dead_letter
                ),
            ),
        ];
        let wrong = edges.into_iter().filter(|(ok, _)| !ok).map(|(_, text)| format!("output {name}: {text}"));
        wrong.chain(self.unwritten(name, staged)).collect()
    }

    /// The edges of an output that joins, behind its sources; `anchors` are the rows of its anchor to be joined.
    pub fn join_imbalances(&self, name: &str, anchors: u64, staged: bool) -> Vec<String> {
        let joined = (self.read != anchors)
            .then(|| format!("output {name}: {anchors} rows of its anchor shuffled != {} joined", self.read));
        joined.into_iter().chain(self.unwritten(name, staged)).collect()
    }

    /// The edges of the table that keeps `late` late rows.
    pub fn late_imbalances(&self, name: &str, late: u64) -> Vec<String> {
        let kept =
            (self.passed != late).then(|| format!("output {name}: {late} rows came late != {} kept", self.passed));
        kept.into_iter().chain(self.unwritten(name, false)).collect()
    }

    /// The edges behind the query that do not balance.
    fn unwritten(&self, name: &str, staged: bool) -> Vec<String> {
        let (there, how) = if staged { (self.rows_staged, "staged") } else { (self.rows_committed, "committed") };
        let edges = [
            (self.file_rows == self.passed, format!("{} rows in files != {} passed", self.file_rows, self.passed)),
            (there == self.passed, format!("{there} rows {how} != {} passed", self.passed)),
        ];
        edges.into_iter().filter(|(ok, _)| !ok).map(|(_, text)| format!("output {name}: {text}")).collect()
    }

    /// The edge between a source's dead letters and this output, the table that keeps them, where it does not balance.
    pub fn unkept(&self, name: &str, source: &SourceAccount) -> Option<String> {
        let (dead, kept) = (source.dead_letter, self.passed);
        (dead != kept).then(|| format!("output {name}: {dead} dead letters of its source != {kept} kept"))
    }
}

/// What became of one source's rows for an output that joins it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InputAccount {
    read: u64,
    /// Rows that wait, or waited, in the shuffle store.
    shuffled: u64,
    filtered: u64,
    late: u64,
    dead_letter: u64,
    /// How late those are, and which slices missed them.
    by_lateness: LateBook,
}

impl InputAccount {
    /// Books the output's part of an accepted hand-in of the source.
    pub(super) fn book(&mut self, part: &v1::OutputPart) {
        self.read += part.rows_read;
        self.shuffled += part.rows_passed;
        self.filtered += part.rows_filtered;
        self.late += part.rows_late;
        self.dead_letter += part.rows_dead_letter;
    }

    /// Books which of the rows that were shuffled are late.
    pub(super) fn book_late(&mut self, late: &Lateness) {
        self.shuffled = self.shuffled.saturating_sub(late.rows);
        self.late += late.rows;
        self.by_lateness.book(late);
    }

    /// Rows that were late.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// The edges that do not balance, of the output and the source of these names.
    pub(super) fn imbalances(&self, output: &str, source: &str, account: &SourceAccount) -> Vec<String> {
        let out = self.shuffled + self.filtered + self.late + self.dead_letter;
        let edges = [
            (account.read == self.read, format!("{} rows read of {source} != {} it read", account.read, self.read)),
            (
                self.read == out,
                format!(
                    "{} rows read of {source} != {} shuffled + {} filtered + {} late + {} dead letter",
                    self.read, self.shuffled, self.filtered, self.late, self.dead_letter
                ),
            ),
        ];
        edges.into_iter().filter(|(ok, _)| !ok).map(|(_, text)| format!("output {output}: {text}")).collect()
    }

    /// As operators see it.
    pub(super) fn state(&self, source: String, reach: Reach, slices: Option<Slices>) -> v1::JoinInputState {
        v1::JoinInputState {
            source,
            low: reach.low.as_micros(),
            high: reach.high.as_micros(),
            rows_read: self.read,
            rows_shuffled: self.shuffled,
            rows_filtered: self.filtered,
            rows_late: self.late,
            rows_dead_letter: self.dead_letter,
            late: slices.and_then(|slices| self.by_lateness.state(slices)),
        }
    }
}

/// What is wrong with the hand-in of a join's own sums; `None` when they add up.
pub(super) fn unsound_join(hand_in: &v1::HandIn, output: u32) -> Option<String> {
    let [part] = hand_in.outputs.as_slice() else { return Some("a join hands in one output".to_owned()) };
    let in_files: u64 = part.files.iter().map(|file| file.rows).sum();
    let same = part.output == output && part.rows_read == hand_in.rows_read;
    (!same || in_files != part.rows_passed || part.shuffled.is_some()).then(|| {
        format!(
            "output {}: {} anchors joined of {}, {} rows passed, {in_files} in files",
            part.output, part.rows_read, hand_in.rows_read, part.rows_passed
        )
    })
}

/// What is wrong with the hand-in of `late` rows for the output `table`; `None` when it adds up.
pub(super) fn unsound_late(hand_in: &v1::HandIn, table: u32, late: u64) -> Option<String> {
    let [part] = hand_in.outputs.as_slice() else { return Some("late rows are handed in for one output".to_owned()) };
    let in_files: u64 = part.files.iter().map(|file| file.rows).sum();
    let whole = [hand_in.rows_read, part.rows_read, part.rows_passed, in_files].iter().all(|rows| *rows == late);
    (part.output != table || !whole || part.shuffled.is_some()).then(|| {
        format!(
            "output {}: {late} rows are late, {} were read, {} passed, {in_files} are in files",
            part.output, hand_in.rows_read, part.rows_passed
        )
    })
}

/// What is wrong with a hand-in's own sums; `None` when they add up.
///
/// It is asked before a hand-in is accepted, so that what does not add up never enters the account. `units` is what
/// the plan says of what it covers.
pub(super) fn unsound(hand_in: &v1::HandIn, units: &[v1::UnitOfWork]) -> Option<String> {
    let planned = planned_rows(units);
    let known = units.iter().all(|unit| unit.rows > 0);
    let accounted = hand_in.rows_read.saturating_add(hand_in.rows_gaps);
    if accounted < planned || (known && accounted > planned) {
        let (read, gaps) = (hand_in.rows_read, hand_in.rows_gaps);
        return Some(format!("read {read} rows and {gaps} gaps of units that hold {planned}"));
    }
    if hand_in.rows_void > hand_in.rows_read {
        return Some(format!("{} of {} records read are no row", hand_in.rows_void, hand_in.rows_read));
    }
    for part in &hand_in.outputs {
        let out = part.rows_passed + part.rows_filtered + part.rows_late + part.rows_dead_letter;
        let shuffled = part.shuffled.as_ref().map_or(0, |object| object.rows);
        let in_files = part.files.iter().map(|file| file.rows).sum::<u64>() + shuffled;
        if part.rows_read != hand_in.rows_read || out != part.rows_read || in_files != part.rows_passed {
            return Some(format!(
                "output {}: {} read, of which it accounts for {out}; {} passed, {in_files} in files; source read {}",
                part.output, part.rows_read, part.rows_passed, hand_in.rows_read
            ));
        }
    }
    None
}

/// What is wrong with the dead letters of a hand-in; `keepers` are the outputs that keep those of its source.
pub(super) fn unkept(hand_in: &v1::HandIn, keepers: &[u32]) -> Option<String> {
    let kept = hand_in.outputs.iter().find(|part| keepers.contains(&part.output)).map(|part| part.rows_passed);
    let wrong = kept.filter(|kept| *kept != hand_in.rows_dead_letter)?;
    Some(format!("{} dead letters, {wrong} of them kept", hand_in.rows_dead_letter))
}

/// Rows that the plan says `units` hold.
pub(super) fn planned_rows(units: &[v1::UnitOfWork]) -> u64 {
    units.iter().map(|unit| unit.rows).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_not_all_of_what_is_pinned_does_not_balance() {
        let range = |start, end| v1::KafkaRange { partition: 0, start, end };
        let kafka = v1::KafkaPin { ranges: vec![range(40, 100)], ..Default::default() };
        let pin = v1::SourcePin { kafka: Some(kafka), archive: vec![range(10, 40)], ..Default::default() };
        let said = |rows_in_range, pin: &v1::SourcePin| {
            let found = v1::Enumerated { rows_in_range, ..Default::default() };
            SourceAccount::new().out_of_range("s", &found, pin)
        };
        assert_eq!(said(90, &pin), None);
        assert_eq!(said(89, &pin).as_deref(), Some("source s: 90 offsets pinned != 89 in range"));
        assert_eq!(said(89, &v1::SourcePin::default()), None, "of a table nobody knows beforehand");
    }
}
