//! What an output takes that joins: how far around the window its sources are read, how it is cut, and how much waits.
//!
//! It decides nothing: the coordinator cuts by the same arithmetic, and what waits is an estimate.

use tidegate_common::slices::{Cut, Cutting, Found, Reach, Slices, waiting};
use tidegate_common::spec::{Resolved, ResolvedOutput};
use tidegate_common::time::{EventTime, Span};
use tidegate_proto::v1;

use crate::task::read_window;

/// How an output joins.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinPlan {
    /// The anchor first.
    pub inputs: Vec<JoinInputPlan>,
    /// The width of a slice.
    pub slice: Span,
    /// Slices of the window; 0 where it has no ends to be cut between.
    pub slices: u32,
    /// Buckets of a slice.
    pub buckets: u32,
    /// Bytes that wait in the shuffle store at most: an estimate.
    pub state_bytes: u64,
    /// How many may.
    pub budget: Option<u64>,
    /// How much earlier than their reach asks the sources that the anchor meets are read.
    pub warm_up: Span,
    /// Rows of the anchors in the window, about; `None` where only reading tells.
    pub anchors: Option<u64>,
}

/// One source of an output that joins it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinInputPlan {
    /// Its name.
    pub source: String,
    /// Where its rows lie, seen from those of the anchor that they meet.
    pub reach: Reach,
    /// Whether its rows decide which rows of the result there are.
    pub is_anchor: bool,
    /// Whether rows that meet agree on columns by which they can be distributed.
    pub keyed: bool,
    /// From where on it is read.
    pub from: EventTime,
    /// Where its reading ends; this point is not read.
    pub to: EventTime,
}

/// How `output`, whose `table` says what its query needs, is cut where enumeration found what `found` says; `None` where it
/// goes row by row.
pub(super) fn plan<'a>(
    table: &v1::PreparedOutput,
    spec: &Resolved,
    output: &ResolvedOutput,
    found: impl Fn(&str) -> Option<&'a v1::Enumerated>,
) -> Option<JoinPlan> {
    let inputs = &table.inputs;
    inputs.first()?;
    let sized: Vec<Found> = inputs.iter().filter_map(|input| Some(found(&input.source)?.met(input.reach()))).collect();
    let cutting = Cutting {
        window: spec.window,
        max_drift: spec.max_drift,
        bytes: sized.iter().map(|found| found.bytes).fold(0, u64::saturating_add),
        reach: inputs.iter().map(|input| input.reach().length()).max().unwrap_or_default(),
        keyed: inputs.iter().all(|input| input.keyed),
        slice: output.slice,
        buckets: output.buckets,
        whole: table.whole_windows(),
    };
    let Cut { slice, buckets } = cutting.choose();
    let input = |(at, input): (usize, &v1::JoinInput)| {
        let read =
            read_window(spec.window, output.warm_up, (at == 0 || input.anchor, input.reach())).unwrap_or(spec.window);
        let (source, from, to) = (input.source.clone(), read.from(), read.to());
        let is_anchor = at == 0 || input.anchor;
        JoinInputPlan { source, reach: input.reach(), is_anchor, keyed: input.keyed, from, to }
    };
    let rows = |found: &v1::Enumerated| found.rows_in_range.saturating_sub(found.rows_pruned);
    let anchors = || inputs.iter().enumerate().filter(|(at, input)| *at == 0 || input.anchor).map(|(_, input)| input);
    Some(JoinPlan {
        inputs: inputs.iter().enumerate().map(input).collect(),
        slice,
        slices: Slices::new(spec.window, slice).map_or(0, Slices::count),
        buckets,
        state_bytes: waiting(&sized, spec.window, slice, spec.max_drift),
        budget: output.budget,
        warm_up: output.warm_up,
        anchors: anchors().map(|input| found(&input.source).map(rows)).sum::<Option<u64>>().filter(|rows| *rows > 0),
    })
}

#[cfg(test)]
mod tests {
    use tidegate_common::spec::Document;

    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const DAY: i64 = 24 * HOUR;
    const MIB: u64 = 1 << 20;

    fn spec(alignment: &str, join: &str) -> Resolved {
        let text = format!(
            "version: 1\nkind: backfill\nname: j\nwindow: {{from: 1970-01-02, to: 1970-02-01}}\n{alignment}\nsources:\n  \
             p: {{generate: {{rows: 1, rate: 1}}}}\n  i: {{generate: {{rows: 1, rate: 1}}}}\noutputs:\n  \
             o: {{table: n.t, sql: 'SELECT 1', {join}}}\n"
        );
        Document::read(&text, "spec.yaml", &|_| None).unwrap().resolve(0).unwrap()
    }

    fn found(days: i64, bytes: u64) -> v1::Enumerated {
        v1::Enumerated {
            bytes_in_range: bytes + 7,
            bytes_pruned: 7,
            low: DAY,
            high: DAY + days * DAY - 1,
            widest_unit: HOUR,
            ..Default::default()
        }
    }

    /// Plays and the impressions around each, from four hours before to one after.
    fn inputs() -> Vec<v1::JoinInput> {
        let input = |source: &str, low, high| v1::JoinInput {
            source: source.to_owned(),
            low: low * HOUR,
            high: high * HOUR,
            keyed: true,
            anchor: false,
        };
        vec![input("p", 0, 0), input("i", -4, 1)]
    }

    fn table(inputs: &[v1::JoinInput]) -> v1::PreparedOutput {
        v1::PreparedOutput { inputs: inputs.to_vec(), ..Default::default() }
    }

    fn planned(spec: &Resolved, inputs: &[v1::JoinInput], bytes: u64) -> JoinPlan {
        let (p, i) = (found(30, bytes), found(30, 2 * bytes));
        plan(&table(inputs), spec, &spec.outputs[0], |name| Some(if name == "p" { &p } else { &i })).unwrap()
    }

    #[test]
    fn given_a_join_when_planned_then_each_source_is_read_as_far_as_it_is_met() {
        let spec = spec("alignment: {max_drift: 1d}", "");
        let join = planned(&spec, &inputs(), MIB);
        let read: Vec<(String, String)> =
            join.inputs.iter().map(|one| (one.from.to_string(), one.to.to_string())).collect();
        let times = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(
            read,
            [
                times("1970-01-02T00:00:00Z", "1970-02-01T00:00:00Z"),
                times("1970-01-01T20:00:00Z", "1970-02-01T01:00:00Z"),
            ]
        );
        assert_eq!((join.slice.as_micros(), join.slices, join.buckets), (DAY, 30, 1));
        assert_eq!(plan(&table(&[]), &spec, &spec.outputs[0], |_| None), None, "it joins nothing");
    }

    #[test]
    fn given_what_the_spec_says_when_planned_then_it_is_cut_so_and_without_keys_there_is_one_bucket() {
        let spec = spec("alignment: {max_drift: 1d}", "join: {slice: 6h, buckets: 8}");
        let join = planned(&spec, &inputs(), MIB);
        assert_eq!((join.slice.as_micros(), join.slices, join.buckets), (6 * HOUR, 120, 8));
        let mut unkeyed = inputs();
        unkeyed[1].keyed = false;
        assert_eq!(planned(&spec, &unkeyed, MIB).buckets, 1);
    }

    #[test]
    fn given_windows_that_are_grouped_by_when_planned_then_slices_are_made_of_them() {
        let spec = spec("alignment: {max_drift: 1d}", "");
        let grouped = v1::PreparedOutput { window_width: 120 * HOUR, ..table(&inputs()[..1]) };
        let plan = plan(&grouped, &spec, &spec.outputs[0], |_| None).unwrap();
        assert_eq!((plan.slice.as_micros(), plan.slices), (5 * DAY, 6));
    }

    #[test]
    fn given_a_drift_when_estimated_then_rows_wait_for_it_a_slice_and_what_is_met() {
        // Of 30 days, p waits a day, a slice of 6 h, and for the next cell of i: 36 h. i waits 4 h more.
        let aligned = spec("alignment: {max_drift: 1d}", "join: {slice: 6h}");
        assert_eq!(planned(&aligned, &inputs(), 720 * MIB).state_bytes, (36 + 2 * 40) * MIB);
        let loose = spec("", "join: {slice: 6h}");
        assert_eq!(planned(&loose, &inputs(), 720 * MIB).state_bytes, 3 * 720 * MIB, "nothing holds them together");
        let wide = spec("alignment: {max_drift: 60d}", "join: {slice: 6h}");
        assert_eq!(planned(&wide, &inputs(), 720 * MIB).state_bytes, 3 * 720 * MIB, "no more than there is");
    }

    #[test]
    fn given_nothing_to_read_when_estimated_then_nothing_waits() {
        let spec = spec("alignment: {max_drift: 1d}", "");
        let none = v1::Enumerated { low: i64::MAX, high: i64::MIN, ..Default::default() };
        let join = plan(&table(&inputs()), &spec, &spec.outputs[0], |_| Some(&none)).unwrap();
        assert_eq!((join.state_bytes, join.buckets), (0, 1));
        let unfound = plan(&table(&inputs()), &spec, &spec.outputs[0], |_| None).unwrap();
        assert_eq!(unfound, join);
    }

    #[test]
    fn given_units_wider_than_the_drift_when_estimated_then_they_say_how_far_one_is_ahead() {
        let spec = spec("alignment: {max_drift: 1d, allow_wide: true}", "join: {slice: 6h}");
        let wide = v1::Enumerated { widest_unit: 2 * DAY, ..found(30, 720 * MIB) };
        let join = plan(&table(&inputs()[..1]), &spec, &spec.outputs[0], |_| Some(&wide)).unwrap();
        assert_eq!(join.state_bytes, (48 + 6) * MIB);
    }
}
