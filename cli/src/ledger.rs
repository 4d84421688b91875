//! The ledger as people and programs read it: every edge with its sums and whether they add up.
//!
//! | edge | must balance |
//! |---|---|
//! | source | in range = read + pruned + gaps |
//! | output, in | rows read of its source = rows it read, of an output of one source |
//! | output | read = passed + filtered + late + dead letter |
//! | table | passed = committed |

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_proto::v1;

use crate::figures::count;

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
    let accounted = source.rows_read.saturating_add(found.rows_pruned);
    let mut text = format!(
        "{} in range = {} read + {} pruned + 0 gaps",
        count(found.rows_in_range),
        count(source.rows_read),
        count(found.rows_pruned)
    );
    if accounted < found.rows_in_range {
        text.push_str(&format!(" + {} not read", count(found.rows_in_range - accounted)));
    } else if accounted > found.rows_in_range {
        text.push_str(&format!(", {} too many", count(accounted - found.rows_in_range)));
    }
    let balance = judge(backfill, found.rows_in_range, accounted);
    Some(Edge { of: "source", name: source.name.clone(), balance, text })
}

/// The edges of an output.
pub(crate) fn output_edges(backfill: &v1::Backfill, output: &v1::OutputState) -> Vec<Edge> {
    let edge = |balance, text| Edge { of: "output", name: output.name.clone(), balance, text };
    let mut edges = Vec::new();
    let sources = output.table.as_ref().map(|table| table.source.as_slice()).unwrap_or_default();
    if let [only] = sources
        && let Some(source) = backfill.sources.iter().find(|source| source.name == *only)
    {
        let text = format!("{} read of {only} = {} read for it", count(source.rows_read), count(output.rows_read));
        edges.push(edge(exact(source.rows_read, output.rows_read), text));
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
    let text = format!("{} passed = {} committed", count(output.rows_passed), count(output.rows_committed));
    edges.push(edge(judge(backfill, output.rows_passed, output.rows_committed), text));
    edges
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
