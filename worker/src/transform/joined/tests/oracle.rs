//! Given random joins over random rows, when they are answered slice by slice and bucket by bucket over no more than
//! what the plan says it needs, then all together are the answer of one plain query in which the window restricts the
//! anchor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tidegate_common::slices::Slices;
use tidegate_common::time::{EventTime, Span, Window};

use super::{
    AMPLE, Effort, Given, InputRows, Join, JoinInput, Query, Row, SECOND, SOURCES, plan, run, schema, shown, window,
};
use crate::transform::quirks::usual_rules;

/// SQL whose tables are written `{0}`, `{1}` and `{2}`, and the source that each of them is.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) sql: String,
    pub(super) sources: Vec<&'static str>,
    /// The same over all rows, restricted to the window by what it says of its anchors' times: they are between `{from}`
    /// and `{to}`. None where the window restricts the rows of one mention.
    pub(super) restricted: Option<String>,
}

impl Case {
    /// Of one anchor.
    pub(super) fn new(sql: String, sources: &[&'static str]) -> Self {
        Self { sql, sources: sources.to_vec(), restricted: None }
    }

    /// `sql` with its tables named.
    fn named(&self, sql: &str, name: impl Fn(usize) -> String) -> String {
        (0..self.sources.len()).fold(sql.to_owned(), |sql, at| sql.replace(&format!("{{{at}}}"), &name(at)))
    }
}

/// All rows of each source.
type Data = BTreeMap<&'static str, Vec<Row>>;

/// Rows without statistics: DataFusion's estimates of exact ones overflow.
#[derive(Debug)]
struct Stream(RecordBatch, SchemaRef);

impl PartitionStream for Stream {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = futures::stream::iter([Ok(self.0.clone())]);
        Box::pin(RecordBatchStreamAdapter::new(self.1.clone(), rows))
    }
}

/// What one plain query says, when the mention `anchor` has its rows in `window` only, or the query says itself what of
/// all rows is of the window.
async fn batch_answer(case: &Case, data: &Data, anchor: usize, window: Window) -> Vec<String> {
    let config = SessionConfig::new().with_target_partitions(1);
    let state = SessionStateBuilder::new().with_default_features().with_config(config);
    // See `quirks`.
    let session = SessionContext::new_with_state(state.with_physical_optimizer_rules(usual_rules()).build());
    for (at, source) in case.sources.iter().enumerate() {
        let within = |row: &&Row| {
            at != anchor
                || case.restricted.is_some()
                || (window.from().as_micros()..window.to().as_micros()).contains(&row.time())
        };
        let rows: Vec<Row> = data[source].iter().filter(within).cloned().collect();
        let rows = Stream(super::batch(source, &rows), schema(source));
        let table = StreamingTable::try_new(schema(source), vec![Arc::new(rows)]).unwrap();
        session.register_table(format!("mention{at}"), Arc::new(table)).unwrap();
    }
    let time = |at: EventTime| format!("to_timestamp_micros({})", at.as_micros());
    let sql = case.restricted.as_ref().unwrap_or(&case.sql);
    let sql = sql.replace("{from}", &time(window.from())).replace("{to}", &time(window.to()));
    let sql = case.named(&sql, |at| format!("mention{at}"));
    shown(&session.sql(&sql).await.unwrap().collect().await.unwrap())
}

/// How the rows are handed over.
#[derive(Clone, Copy, Debug)]
struct Handing {
    /// Of a slice, seconds.
    width: i64,
    buckets: usize,
    per_batch: usize,
    /// No row outside the reach is handed over.
    cut: bool,
    /// What may be held; none: all that is needed.
    bytes: Option<usize>,
}

fn bucket_of(input: &JoinInput, row: &Row, buckets: usize) -> usize {
    let keys = input.keys().iter().map(|key| match input.columns()[*key] {
        0 => row.k.unwrap_or(-1),
        1 => row.v,
        2 => row.s.map_or(-1, |s| i64::try_from(s.len()).unwrap()),
        _ => row.time(),
    });
    keys.fold(0, |all, key| (all * 31 + usize::try_from(key.rem_euclid(1_000)).unwrap()) % 1_009) % buckets
}

/// What of `rows` is handed over for a slice.
fn handed(input: &JoinInput, rows: &[Row], slice: Window, bucket: usize, how: Handing) -> Vec<Row> {
    let around = input.reach().around(slice);
    let mut sieve = input.start().unwrap();
    let all = super::batch(input.source(), rows).project(input.columns()).unwrap();
    let mask = sieve.kept(&all).unwrap();
    let kept = |(at, row): &(usize, &Row)| {
        mask.as_ref().is_none_or(|mask| mask.value(*at))
            && bucket_of(input, row, how.buckets) == bucket
            && (!how.cut
                || around
                    .is_some_and(|around| (around.from().as_micros()..around.to().as_micros()).contains(&row.time())))
    };
    rows.iter().enumerate().filter(kept).map(|(_, row)| row.clone()).collect()
}

fn is_keyed(join: &Join) -> bool {
    join.inputs().iter().any(|input| !input.keys().is_empty())
}

/// The answer of all slices of `window` and all buckets.
async fn sliced(query: &Query, data: &Data, window: Window, how: Handing, met: &Met) -> Vec<String> {
    let join = query.join().unwrap();
    let how = if !is_keyed(join) { Handing { buckets: 1, ..how } } else { how };
    let effort = how.bytes.map_or(AMPLE, |bytes| Effort::InPieces { bytes });
    let width = Span::from_micros(how.width * SECOND);
    let width = join.whole_windows().map_or(width, |whole| whole.round_up(width));
    let slices = Slices::new(window, width).unwrap();
    let mut rows: Vec<RecordBatch> = Vec::new();
    for slice in (0..slices.count()).map(|ix| slices.slice(ix).unwrap()) {
        for bucket in 0..how.buckets {
            let input = |input: &JoinInput| {
                let rows = handed(input, &data[input.source()], slice, bucket, how);
                Arc::new(Given::new(input, &rows, how.per_batch)) as Arc<dyn InputRows>
            };
            let inputs: Vec<_> = join.inputs().iter().map(input).collect();
            let mut answer = run(query, slice, inputs.clone(), effort).await;
            met.tight.fetch_add(usize::from(answer.is_ok() && how.bytes.is_some()), Ordering::Relaxed);
            if answer.as_ref().is_err_and(|error| error.is_memory() && how.bytes.is_some()) {
                met.too_tight.fetch_add(1, Ordering::Relaxed);
                answer = run(query, slice, inputs, AMPLE).await;
            }
            rows.extend(answer.unwrap_or_else(|error| panic!("{}", crate::failure::chain(&error))));
        }
    }
    shown(&rows)
}

fn row() -> impl Strategy<Value = Row> {
    // One key is hot, and most times are whole seconds: on the edges of bounds and slices.
    let key = prop_oneof![4 => Just(Some(1)), 1 => Just(None), 4 => (0..4i64).prop_map(Some)];
    let word = prop_oneof![Just(None), Just(Some("x")), Just(Some("xy")), Just(Some(""))];
    let off = prop_oneof![4 => Just(0), 4 => Just(-1_000), 1 => Just(1_000), 1 => Just(999), 1 => Just(1)];
    (key, 0..4i64, word, -60..60i64, off).prop_map(|(k, v, s, second, off)| Row {
        k,
        v,
        s,
        nanos: second * 1_000_000_000 + off,
    })
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let some = |most| prop::collection::vec(row(), 0..most);
    prop_oneof![1 => Just(Vec::new()), 8 => some(25), 2 => some(110)]
}

/// A bound between the times of `x` and `y`.
pub(super) fn bound(x: &'static str, y: &'static str) -> BoxedStrategy<String> {
    let forms = (0..9, 0..30i64, 0..30i64).prop_map(move |(form, back, forward)| match form {
        0 => format!("{y}.ts BETWEEN {x}.ts - INTERVAL '{back}' SECOND AND {x}.ts + INTERVAL '{forward}' SECOND"),
        1 => format!("{x}.ts = {y}.ts"),
        2 => format!("{y}.ts >= {x}.ts AND {y}.ts < {x}.ts + INTERVAL '{forward} seconds'"),
        3 => format!("date_trunc('minute', {x}.ts) = date_trunc('minute', {y}.ts)"),
        4 => format!("date_bin(INTERVAL '7 seconds', {y}.ts) = {x}.ts - INTERVAL '{back} seconds'"),
        5 => format!("CAST({x}.ts AS TIMESTAMP(0)) = CAST({y}.ts AS TIMESTAMP(0))"),
        6 => format!("NOT ({y}.ts < {x}.ts - INTERVAL '{back} seconds') AND date_trunc('second', {y}.ts) <= {x}.ts"),
        7 => format!(
            "{y}.ts > date_bin(INTERVAL '{} seconds', {x}.ts) AND {y}.ts <= {x}.ts + INTERVAL '{forward} seconds'",
            back + 1
        ),
        _ => format!("{x}.ts - INTERVAL '{forward}' SECOND <= {y}.ts AND {x}.ts > {y}.ts"),
    });
    forms.boxed()
}

pub(super) fn pick(words: &'static [&'static str]) -> BoxedStrategy<&'static str> {
    prop::sample::select(words).boxed()
}

pub(super) fn kind() -> BoxedStrategy<&'static str> {
    pick(&["JOIN", "INNER JOIN", "LEFT JOIN", "RIGHT JOIN"])
}

pub(super) fn key() -> BoxedStrategy<&'static str> {
    pick(&["k", "k", "k", "k", "v", "s"])
}

/// What is said of one side, or of both, besides.
fn more() -> BoxedStrategy<&'static str> {
    pick(&["", "", "", "x.v < 3", "y.v > 0", "x.v <> y.v", "upper(y.s) = 'X'", "x.s IS NOT NULL", "now() > x.ts"])
}

fn filter() -> BoxedStrategy<&'static str> {
    pick(&[
        "",
        "",
        "",
        "coalesce(x.v, 0) <> 1",
        "y.v > 0",
        "y.v IS NULL",
        "x.v + y.v < 4",
        "x.s <> y.s",
        "x.k = 1 OR y.k = 2",
    ])
}

fn with(word: &str, condition: &str) -> String {
    if condition.is_empty() { String::new() } else { format!(" {word} ({condition})") }
}

/// SQL over two mentions.
fn two() -> BoxedStrategy<String> {
    let plain = (kind(), key(), bound("x", "y"), more(), filter()).prop_map(|(kind, key, bound, more, filter)| {
        let (more, filter) = (with("AND", more), with("WHERE", filter));
        format!(
            "SELECT x.k, x.v + 1 AS v, x.s, x.ts, y.k AS yk, y.v AS yv, upper(y.s) AS ys, y.ts AS yts, x.v * y.v AS vv \
             FROM {{0}} x {kind} {{1}} y ON x.{key} = y.{key} AND {bound}{more}{filter}"
        )
    });
    let comma = (key(), bound("x", "y"), filter()).prop_map(|(key, bound, filter)| {
        let filter = with("AND", filter);
        format!(
            "SELECT x.v, x.ts, y.v AS yv, y.s AS ys FROM {{0}} x, {{1}} y WHERE x.{key} = y.{key} AND {bound}{filter}"
        )
    });
    let using = (kind(), bound("x", "y"), more()).prop_map(|(kind, bound, more)| {
        let more = with("AND", more);
        format!("SELECT k, x.v, y.v AS yv, x.ts, y.ts AS yts FROM {{0}} x {kind} {{1}} y USING (k) WHERE {bound}{more}")
    });
    let exists = (key(), bound("x", "y"), more(), any::<bool>(), pick(&["", "v > 0", "s IS NULL"]));
    let exists = exists.prop_map(|(key, bound, more, not, filter)| {
        let (not, more, filter) = (if not { "NOT " } else { "" }, with("AND", more), with("AND", filter));
        format!(
            "SELECT k, v, ts FROM (SELECT k, v, s, ts FROM {{0}}) x WHERE {not}EXISTS \
             (SELECT 1 FROM {{1}} y WHERE x.{key} = y.{key} AND {bound}{more}){filter}"
        )
    });
    let semi = (pick(&["LEFT SEMI", "LEFT ANTI"]), key(), bound("x", "y"), more());
    let semi = semi.prop_map(|(kind, key, bound, more)| {
        let more = with("AND", more);
        format!("SELECT x.k, x.v, x.ts FROM {{0}} x {kind} JOIN {{1}} y ON x.{key} = y.{key} AND {bound}{more}")
    });
    prop_oneof![4 => plain, 1 => comma, 1 => using, 3 => exists, 1 => semi].boxed()
}

/// SQL over three mentions.
fn three() -> BoxedStrategy<String> {
    let chain =
        (kind(), key(), bound("x", "y"), kind(), key(), bound("y", "z"), bound("x", "z"), any::<bool>(), filter());
    let chain = chain.prop_map(|(first, key, bound, second, other, by_y, by_x, on_y, filter)| {
        let (on, by) = if on_y { ("y", by_y) } else { ("x", by_x) };
        let filter = with("WHERE", filter);
        format!(
            "SELECT x.v, x.ts, y.v AS yv, y.ts AS yts, z.v AS zv, z.ts AS zts FROM {{0}} x {first} {{1}} y \
             ON x.{key} = y.{key} AND {bound} {second} {{2}} z ON {on}.{other} = z.{other} AND {by}{filter}"
        )
    });
    let nested = (kind(), key(), bound("i", "j"), kind(), key(), bound("x", "y"));
    let nested = nested.prop_map(|(inner, key, bound, outer, other, by)| {
        format!(
            "SELECT x.v, x.ts, y.v AS yv, y.ts AS yts, y.jv FROM {{0}} x {outer} (SELECT i.k, i.v, i.s, i.ts, j.v AS jv \
             FROM {{1}} i {inner} {{2}} j ON i.{key} = j.{key} AND {bound}) y ON x.{other} = y.{other} AND {by}"
        )
    });
    let both = (kind(), key(), bound("x", "y"), key(), bound("x", "z"), any::<bool>());
    let both = both.prop_map(|(kind, key, bound, other, by, not)| {
        let not = if not { "NOT " } else { "" };
        format!(
            "WITH n AS (SELECT z.* FROM {{2}} z WHERE z.v < 3) SELECT x.v, x.ts, y.s AS ys, y.ts AS yts FROM {{0}} x {kind} {{1}} y \
             ON x.{key} = y.{key} AND {bound} WHERE {not}EXISTS (SELECT 1 FROM n z WHERE x.{other} = z.{other} AND {by})"
        )
    });
    let deep = (key(), bound("x", "y"), key(), bound("y", "z"), any::<bool>(), any::<bool>());
    let deep = deep.prop_map(|(key, bound, other, by, outer, inner)| {
        let not = |not| if not { "NOT " } else { "" };
        format!(
            "SELECT x.k, x.v, x.ts FROM {{0}} x WHERE {}EXISTS (SELECT y.v FROM {{1}} y WHERE x.{key} = y.{key} AND {bound} \
             AND {}EXISTS (SELECT z.v FROM {{2}} z WHERE y.{other} = z.{other} AND {by}))",
            not(outer),
            not(inner)
        )
    });
    prop_oneof![3 => chain, 2 => nested, 1 => both, 1 => deep].boxed()
}

fn case() -> impl Strategy<Value = Case> {
    let source = || prop::sample::select(&SOURCES[..]);
    prop_oneof![
        (two(), [source(), source()]).prop_map(|(sql, sources)| Case::new(sql, &sources)),
        (three(), [source(), source(), source()]).prop_map(|(sql, sources)| Case::new(sql, &sources)),
    ]
}

fn handing() -> impl Strategy<Value = Handing> {
    let memory =
        prop_oneof![2 => Just(None), 1 => Just(Some(1_500)), 1 => (1usize..200).prop_map(|kib| Some(kib << 10))];
    (prop_oneof![5..20i64, 20..130i64], 1..4usize, prop_oneof![1..4usize, Just(1_000)], any::<bool>(), memory)
        .prop_map(|(width, buckets, per_batch, cut, bytes)| Handing { width, buckets, per_batch, cut, bytes })
}

/// What the cases were.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) refused: AtomicUsize,
    rowwise: AtomicUsize,
    pub(super) joined: AtomicUsize,
    pub(super) keyed: AtomicUsize,
    pub(super) not_empty: AtomicUsize,
    /// Slices in little memory: joined, and refused for it.
    pub(super) tight: AtomicUsize,
    pub(super) too_tight: AtomicUsize,
}

async fn check(case: &Case, data: &Data, window: Window, how: Handing, met: &Met) -> Result<(), TestCaseError> {
    let count = |of: &AtomicUsize| of.fetch_add(1, Ordering::Relaxed);
    let sql = case.named(&case.sql, |at| case.sources[at].to_owned());
    let query = match plan(&sql) {
        Ok(query) => query,
        // A chain of outer joins may have its anchor where nothing bounds the others.
        Err(error) if error.to_string().contains("event time") => {
            count(&met.refused);
            return Ok(());
        }
        Err(error) => return Err(TestCaseError::fail(format!("{sql}\n{}", crate::failure::chain(&error)))),
    };
    let Some(join) = query.join() else {
        count(&met.rowwise);
        return Ok(());
    };
    let again = plan(&sql).unwrap();
    let again = again.join().unwrap();
    prop_assert_eq!(format!("{:?}", join.inputs()), format!("{:?}", again.inputs()), "{}", sql);
    count(&met.joined);
    let window = join.whole_windows().map_or(window, |whole| whole.around(window).unwrap());
    met.keyed.fetch_add(usize::from(is_keyed(join)), Ordering::Relaxed);
    let ours = sliced(&query, data, window, how, met).await;
    met.not_empty.fetch_add(usize::from(!ours.is_empty()), Ordering::Relaxed);
    let mut theirs = Vec::new();
    for at in (0..case.sources.len()).filter(|at| case.sources[*at] == query.source()) {
        theirs = batch_answer(case, data, at, window).await;
        if theirs == ours {
            return Ok(());
        }
    }
    prop_assert_eq!(ours, theirs, "{}\n{:?}", sql, join.inputs());
    Ok(())
}

/// Holds what is answered slice by slice against one query over the same rows.
pub(super) fn held_against_one_query(case: impl Strategy<Value = Case>) -> Met {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let met = Met::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let all = (case, rows(), rows(), rows(), (-65..60i64, 1..130i64), handing());
    let checked = runner.run(&all, |(case, a, b, c, (from, length), how)| {
        let data: Data = [("a", a), ("b", b), ("c", c)].into();
        let window = window(from * SECOND, (from + length) * SECOND);
        runtime.block_on(check(&case, &data, window, how, &met))
    });
    if let Err(error) = checked {
        panic!("{error}\n{met:?}");
    }
    met
}

#[test]
fn slices_and_buckets_add_up_to_the_answer_of_one_query() {
    let met = held_against_one_query(case());
    let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    assert!(of(&met.tight) > of(&met.too_tight), "{met:?}");
    assert!(of(&met.joined) > 6 * of(&met.refused), "{met:?}");
    assert!(2 * of(&met.keyed) > of(&met.joined) && 3 * of(&met.not_empty) > of(&met.joined), "{met:?}");
}
