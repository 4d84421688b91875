//! The ledger as people and programs read it: every edge with its sums and whether they add up.
//!
//! | edge | must balance |
//! |---|---|
//! | source | in range = read + pruned + gaps; rows that only reading tells of are in range once they are read |
//! | output, in | rows read of its source = rows it read, of an output of one source |
//! | output | read = passed + filtered + late + dead letter |
//! | table | passed = committed; of a staged output, passed = committed + staged |
//! | dead letters | of a source = rows of the table that keeps them |

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_proto::v1;

use crate::figures::{count, percent};

/// How an edge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
    /// Both sides are equal.
    Balanced,
    /// They are not yet: the backfill goes on.
    Open,
    /// It has ended and something was left out: parked, failed or cancelled.
    Incomplete,
    /// The sums contradict each other.
    Wrong,
}

/// One edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Edge {
    /// `source` or `output`.
    pub of: &'static str,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub balance: Balance,
    /// Its sums.
    pub text: String,
}

/// The edge of a source; `None` until it is enumerated.
pub(crate) fn source_edge(backfill: &v1::Backfill, source: &v1::SourceState) -> Option<Edge> {
    let found = source.found.as_ref()?;
    let in_range = in_range(source);
    let accounted = source.rows_read.saturating_add(found.rows_pruned).saturating_add(source.rows_gaps);
    let mut text = format!(
        "{} in range = {} read + {} pruned + {} gaps",
        count(in_range),
        count(source.rows_read),
        count(found.rows_pruned),
        count(source.rows_gaps)
    );
    if accounted < in_range {
        text.push_str(&format!(" + {} not read", count(in_range - accounted)));
    } else if accounted > in_range {
        text.push_str(&format!(", {} too many", count(accounted - in_range)));
    }
    let balance = judge(backfill, in_range, accounted);
    Some(Edge { of: "source", name: source.name.clone(), balance, text })
}

/// Rows of a source that are to be read, or proven not to be, as far as they are known; 0 until it is enumerated.
pub(crate) fn in_range(source: &v1::SourceState) -> u64 {
    source.found.as_ref().map_or(0, |found| found.rows_in_range.saturating_add(source.rows_unplanned))
}

/// How much of `backfill` is done, in percent; `None` until all sources are enumerated.
///
/// It goes by records, or by units where only reading tells how many records there are.
pub(crate) fn done_percent(backfill: &v1::Backfill) -> Option<f64> {
    let found: Option<Vec<&v1::Enumerated>> = backfill.sources.iter().map(|source| source.found.as_ref()).collect();
    let found = found.filter(|found| !found.is_empty())?;
    let (mut done, mut all) = (0, 0);
    let by_records = found.iter().all(|found| found.units == 0 || found.rows_in_range > found.rows_pruned);
    for (source, found) in backfill.sources.iter().zip(found) {
        if by_records {
            done += source.rows_read + source.rows_gaps + found.rows_pruned;
            all += in_range(source);
        } else {
            done += source.units_done;
            all += found.units;
        }
    }
    Some(percent(done, all))
}

/// The edges of an output; none until it is prepared.
pub(crate) fn output_edges(backfill: &v1::Backfill, output: &v1::OutputState) -> Vec<Edge> {
    let edge = |balance, text| Edge { of: "output", name: output.name.clone(), balance, text };
    let Some(table) = &output.table else { return Vec::new() };
    let mut edges = Vec::new();
    if let [only] = table.source.as_slice()
        && let Some(source) = backfill.sources.iter().find(|source| source.name == *only)
    {
        let text = format!("{} read of {only} = {} read for it", count(source.rows_read), count(output.rows_read));
        edges.push(edge(exact(source.rows_read, output.rows_read), text));
        if output.dead_letters_expected.is_some() {
            let (dead, kept) = (source.rows_dead_letter, output.rows_passed);
            let text = format!("{} dead letters of {only} = {} kept", count(dead), count(kept));
            edges.push(edge(exact(dead, kept), text));
        }
    }
    let parts = [output.rows_passed, output.rows_filtered, output.rows_late, output.rows_dead_letter];
    let text = format!(
        "{} read = {} passed + {} filtered + {} late + {} dead letter",
        count(output.rows_read),
        count(output.rows_passed),
        count(output.rows_filtered),
        count(output.rows_late),
        count(output.rows_dead_letter)
    );
    edges.push(edge(exact(output.rows_read, parts.into_iter().fold(0, u64::saturating_add)), text));
    let mut text = format!("{} passed = {} committed", count(output.rows_passed), count(output.rows_committed));
    if !output.branch.is_empty() {
        text.push_str(&format!(" + {} staged", count(output.rows_staged)));
    }
    let there = output.rows_committed.saturating_add(output.rows_staged);
    edges.push(edge(judge(backfill, output.rows_passed, there), text));
    edges
}

/// Whether `output` keeps more dead letters than were expected.
pub(crate) fn above_limit(output: &v1::OutputState) -> bool {
    output.dead_letters_expected.is_some_and(|expected| output.rows_passed > expected)
}

/// Every edge.
pub(crate) fn edges(backfill: &v1::Backfill) -> Vec<Edge> {
    let sources = backfill.sources.iter().filter_map(|source| source_edge(backfill, source));
    let outputs = backfill.outputs.iter().flat_map(|output| output_edges(backfill, output));
    sources.chain(outputs).collect()
}

/// Sums of one and the same moment: they are equal at every time.
fn exact(left: u64, right: u64) -> Balance {
    if left == right { Balance::Balanced } else { Balance::Wrong }
}

/// Sums that become equal at the end.
fn judge(backfill: &v1::Backfill, whole: u64, accounted: u64) -> Balance {
    match accounted.cmp(&whole) {
        std::cmp::Ordering::Equal => Balance::Balanced,
        std::cmp::Ordering::Greater => Balance::Wrong,
        std::cmp::Ordering::Less if backfill.ended == 0 => Balance::Open,
        std::cmp::Ordering::Less if backfill.phase() == v1::Phase::Succeeded => Balance::Wrong,
        std::cmp::Ordering::Less => Balance::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn rows_that_only_reading_tells_of_are_in_range_once_they_are_read() {
        let mut run = sample::succeeded();
        // given a source planned without a count of rows, half of whose units are read
        let source = &mut run.sources[1];
        let found = source.found.as_mut().unwrap();
        (found.rows_in_range, found.rows_pruned) = (0, 0);
        (source.rows_read, source.rows_unplanned) = (500, 500);
        let edge = source_edge(&run, &run.sources[1]).unwrap();
        assert_eq!(edge.balance, Balance::Balanced);
        assert_eq!(edge.text, "500 in range = 500 read + 0 pruned + 0 gaps");
        assert_eq!(done_percent(&run), Some(50.0), "by units: six of 12 and four of 8");
    }

    #[test]
    fn nothing_is_said_to_be_done_before_all_is_enumerated() {
        assert_eq!(done_percent(&sample::failed()), None);
        assert_eq!(done_percent(&sample::succeeded()), Some(100.0));
    }
}
