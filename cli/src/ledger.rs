//! The ledger as people and programs read it: every edge with its sums and whether they add up.
//!
//! | edge | must balance |
//! |---|---|
//! | source | in range = read + pruned + gaps; rows that only reading tells of are in range once they are read |
//! | output, in | rows read of its source = rows it read, of an output of one source |
//! | output | read = passed + filtered + late + dead letter |
//! | join, in | of each source that an output joins: rows read of it = rows read for it = shuffled + filtered + late + dead letter |
//! | join | rows of the anchor that were shuffled and lie in the window = rows of it joined; what comes of one may be several rows, or none |
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
/// It goes by records, or by units where only reading tells how many records there are. Where an output joins, that is one
/// half of it, and the slices that are joined are the other.
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
    let read = percent(done, all);
    let mut joins = backfill.outputs.iter().filter_map(|output| output.join.as_ref()).peekable();
    if joins.peek().is_none() {
        return Some(read);
    }
    let joined =
        joins.map(|join| if join.slices == 0 { 0.0 } else { percent(join.slices_done.into(), join.slices.into()) });
    let joined: Vec<f64> = joined.collect();
    Some((read + joined.iter().sum::<f64>() / joined.len() as f64) / 2.0)
}

/// The edges of an output; none until it is prepared.
pub(crate) fn output_edges(backfill: &v1::Backfill, output: &v1::OutputState) -> Vec<Edge> {
    let Some(table) = &output.table else { return Vec::new() };
    let mut edges = match &output.join {
        Some(join) => join_edges(backfill, output, join),
        None => query_edges(backfill, output, table),
    };
    let mut text = format!("{} passed = {} committed", count(output.rows_passed), count(output.rows_committed));
    if !output.branch.is_empty() {
        text.push_str(&format!(" + {} staged", count(output.rows_staged)));
    }
    let there = output.rows_committed.saturating_add(output.rows_staged);
    edges.push(of_output(output, judge(backfill, output.rows_passed, there), text));
    edges
}

fn of_output(output: &v1::OutputState, balance: Balance, text: String) -> Edge {
    Edge { of: "output", name: output.name.clone(), balance, text }
}

/// The edges of an output of one source, up to what its query passed on.
fn query_edges(backfill: &v1::Backfill, output: &v1::OutputState, table: &v1::PreparedOutput) -> Vec<Edge> {
    let mut edges = Vec::new();
    if let [only] = table.source.as_slice()
        && let Some(source) = backfill.sources.iter().find(|source| source.name == *only)
    {
        edges.push(read_for(output, source, output.rows_read));
        if output.dead_letters_expected.is_some() {
            let (dead, kept) = (source.rows_dead_letter, output.rows_passed);
            let text = format!("{} dead letters of {only} = {} kept", count(dead), count(kept));
            edges.push(of_output(output, exact(dead, kept), text));
        }
    }
    if let Some(of) = backfill.outputs.iter().find(|of| of.name == output.late_of)
        && let Some(join) = &of.join
    {
        let late = join.inputs.iter().map(|input| input.rows_late).sum();
        let text = format!("{} late rows of {} = {} kept", count(late), of.name, count(output.rows_passed));
        return vec![of_output(output, judge(backfill, late, output.rows_passed), text)];
    }
    let parts = [output.rows_passed, output.rows_filtered, output.rows_late, output.rows_dead_letter];
    let text = format!("{} read = {}", count(output.rows_read), became(parts, "passed"));
    edges.push(of_output(output, exact(output.rows_read, sum(parts)), text));
    edges
}

/// The edges of an output that joins, up to what was joined.
fn join_edges(backfill: &v1::Backfill, output: &v1::OutputState, join: &v1::JoinState) -> Vec<Edge> {
    let mut edges = Vec::new();
    for input in &join.inputs {
        let source = backfill.sources.iter().find(|source| source.name == input.source);
        edges.extend(source.map(|source| read_for(output, source, input.rows_read)));
        let parts = [input.rows_shuffled, input.rows_filtered, input.rows_late, input.rows_dead_letter];
        let (read, name) = (count(input.rows_read), &input.source);
        let text = format!("{read} read of {name} = {}", became(parts, "shuffled"));
        edges.push(of_output(output, exact(input.rows_read, sum(parts)), text));
    }
    let text = format!("{} rows of the anchor shuffled = {} joined", count(join.anchors), count(output.rows_read));
    edges.push(of_output(output, judge(backfill, join.anchors, output.rows_read), text));
    edges
}

/// Every row of a source is read for an output that reads it.
fn read_for(output: &v1::OutputState, source: &v1::SourceState, read: u64) -> Edge {
    let text = format!("{} read of {} = {} read for it", count(source.rows_read), source.name, count(read));
    of_output(output, exact(source.rows_read, read), text)
}

/// What became of rows: those that went on, as `what` says, then those that did not.
fn became([on, filtered, late, dead_letter]: [u64; 4], what: &str) -> String {
    let (on, filtered, late, dead) = (count(on), count(filtered), count(late), count(dead_letter));
    format!("{on} {what} + {filtered} filtered + {late} late + {dead} dead letter")
}

fn sum(parts: [u64; 4]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

/// Rows that were late, of all outputs that join.
pub(crate) fn late(backfill: &v1::Backfill) -> u64 {
    let inputs = backfill.outputs.iter().filter_map(|output| output.join.as_ref()).flat_map(|join| &join.inputs);
    inputs.map(|input| input.rows_late).sum()
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
    fn each_sum_of_a_join_that_is_wrong_is_wrong_in_its_own_edges() {
        type Harm = fn(&mut v1::Backfill);
        fn input(run: &mut v1::Backfill, at: usize) -> &mut v1::JoinInputState {
            &mut run.outputs[0].join.as_mut().unwrap().inputs[at]
        }
        let harms: [(Harm, &[&str]); 6] = [
            (|_| {}, &[]),
            (|run| run.sources[1].rows_read += 1, &["26,115 in range", "25,116 read of weather = 25,115 read for it"]),
            (
                |run| input(run, 1).rows_shuffled -= 1,
                &["25,115 read of weather = 24,999 shuffled + 115 filtered + 0 late + 0 dead letter"],
            ),
            (
                |run| input(run, 0).rows_late += 1,
                &["335,776 read of flights = 335,700 shuffled + 76 filtered + 1 late + 0 dead letter"],
            ),
            (|run| run.outputs[0].rows_read -= 1, &["335,700 rows of the anchor shuffled = 335,699 joined"]),
            (|run| run.outputs[0].rows_passed += 1, &["335,913 passed = 335,912 committed"]),
        ];
        for (harm, wanted) in harms {
            let mut run = sample::joined();
            harm(&mut run);
            let wrong: Vec<Edge> = edges(&run).into_iter().filter(|edge| edge.balance != Balance::Balanced).collect();
            assert!(wrong.iter().all(|edge| edge.balance == Balance::Wrong), "{wrong:?}");
            assert_eq!(wrong.len(), wanted.len(), "{wrong:?}");
            assert!(wrong.iter().zip(wanted).all(|(edge, text)| edge.text.starts_with(text)), "{wrong:?}");
        }
    }

    #[test]
    fn anchors_that_wait_to_be_joined_are_an_open_edge() {
        let open: Vec<Edge> =
            edges(&sample::joining()).into_iter().filter(|edge| edge.balance == Balance::Open).collect();
        let texts: Vec<&str> = open.iter().map(|edge| edge.text.as_str()).collect();
        assert_eq!(texts[2..], ["137,924 rows of the anchor shuffled = 30,000 joined", "30,010 passed = 0 committed"]);
        assert!(edges(&sample::joining()).iter().all(|edge| edge.balance != Balance::Wrong));
    }

    #[test]
    fn where_slices_wait_to_be_joined_reading_is_half_of_what_is_to_be_done() {
        let mut run = sample::joined();
        assert_eq!(done_percent(&run), Some(100.0));
        let join = run.outputs[0].join.as_mut().unwrap();
        (join.slices, join.slices_done) = (8, 2);
        assert_eq!(done_percent(&run), Some(62.5), "all is read, and a quarter is joined");
        run.outputs[0].join.as_mut().unwrap().slices = 0;
        assert_eq!(done_percent(&run), Some(50.0), "nothing is joined before it is cut");
    }

    #[test]
    fn nothing_is_said_to_be_done_before_all_is_enumerated() {
        assert_eq!(done_percent(&sample::failed()), None);
        assert_eq!(done_percent(&sample::succeeded()), Some(100.0));
    }
}
