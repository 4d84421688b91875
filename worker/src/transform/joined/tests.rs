//! Given random joins over random rows, when they are answered slice by slice over no more than what the plan is said to
//! need, then all slices together give the answer of one query over all rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::{Joined, TimeColumns, Within, joined};

const SECOND: i64 = 1_000_000;
const TABLES: [&str; 3] = ["a", "b", "c"];

/// Key, value, event time in seconds.
type Row = (Option<i64>, i64, i64);

fn schema() -> SchemaRef {
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, false),
        Field::new("ts", stamp, false),
    ]))
}

/// Rows without statistics, as a stream has none.
#[derive(Debug)]
struct Rows(RecordBatch, SchemaRef);

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = futures::stream::iter([Ok(self.0.clone())]);
        Box::pin(RecordBatchStreamAdapter::new(self.1.clone(), rows))
    }
}

fn session(tables: &BTreeMap<&str, Vec<Row>>) -> SessionContext {
    let session = SessionContext::new();
    for (name, rows) in tables {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.1)).collect::<Int64Array>()),
            Arc::new(
                rows.iter().map(|row| Some(row.2 * SECOND)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
            ),
        ];
        let batch = RecordBatch::try_new(schema(), columns).unwrap();
        let table = StreamingTable::try_new(schema(), vec![Arc::new(Rows(batch, schema()))]).unwrap();
        session.register_table(*name, Arc::new(table)).unwrap();
    }
    session
}

async fn plan(sql: &str) -> LogicalPlan {
    let empty = TABLES.into_iter().map(|name| (name, Vec::new())).collect();
    session(&empty).sql(sql).await.unwrap().into_optimized_plan().unwrap()
}

fn times() -> TimeColumns {
    TABLES.into_iter().map(|name| (name.to_owned(), Some("ts".to_owned()))).collect()
}

async fn needs(sql: &str) -> Result<Joined, String> {
    joined(&plan(sql).await, &times()).map_err(|refusal| format!("{}; {}", refusal.what, refusal.way_out))
}

/// The answer's rows as text, sorted.
async fn answer(sql: &str, tables: &BTreeMap<&str, Vec<Row>>) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in session(tables).sql(sql).await.unwrap().collect().await.unwrap() {
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    rows.sort();
    rows
}

/// The answer of all slices of `width` seconds and all of `buckets`, each over no more than it is said to need.
async fn sliced(sql: &str, needs: &Joined, tables: &BTreeMap<&str, Vec<Row>>, width: i64, buckets: i64) -> Vec<String> {
    let buckets = if needs.inputs[0].keys.is_empty() { 1 } else { buckets };
    let mut rows = Vec::new();
    for from in (0..120).step_by(usize::try_from(width).unwrap()) {
        for bucket in 0..buckets {
            let cut = needs.inputs.iter().map(|input| {
                let (low, high) = (from * SECOND + input.reach.0, (from + width) * SECOND + input.reach.1);
                let name = TABLES.into_iter().find(|name| *name == input.source).unwrap();
                let kept = tables[name].iter().filter(|row| {
                    let key = match input.keys.first() {
                        Some(0) => row.0,
                        Some(1) => Some(row.1),
                        Some(_) => Some(row.2),
                        None => Some(0),
                    };
                    (low..high).contains(&(row.2 * SECOND)) && key.unwrap_or(0).rem_euclid(buckets) == bucket
                });
                (name, kept.copied().collect())
            });
            let mut cut: BTreeMap<&str, Vec<Row>> = cut.collect();
            TABLES.into_iter().for_each(|name| drop(cut.entry(name).or_default()));
            rows.extend(answer(sql, &cut).await);
        }
    }
    rows.sort();
    rows
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((prop::option::weighted(0.9, 0..4i64), 0..4i64, 0..120i64), 0..25)
}

/// A bound between the times of `x` and `y`.
fn bound(x: &'static str, y: &'static str) -> impl Strategy<Value = String> {
    (0..6, 0..30i64, 0..30i64).prop_map(move |(form, back, forward)| match form {
        0 => format!("{y}.ts BETWEEN {x}.ts - INTERVAL '{back}' SECOND AND {x}.ts + INTERVAL '{forward}' SECOND"),
        1 => format!("{x}.ts = {y}.ts"),
        2 => format!("{y}.ts >= {x}.ts AND {y}.ts < {x}.ts + INTERVAL '{forward} seconds'"),
        3 => format!("date_trunc('minute', {x}.ts) = date_trunc('minute', {y}.ts)"),
        4 => format!("date_bin(INTERVAL '7 seconds', {y}.ts) = {x}.ts - INTERVAL '{back} seconds'"),
        _ => format!("{x}.ts - INTERVAL '{forward}' SECOND <= {y}.ts AND {x}.ts > {y}.ts"),
    })
}

fn kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["JOIN", "LEFT JOIN", "RIGHT JOIN"][..])
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["k", "v"][..])
}

/// SQL over two or three sources that is legal by construction.
fn sql() -> impl Strategy<Value = String> {
    let two = (kind(), key(), bound("a", "b"), any::<bool>()).prop_map(|(kind, key, bound, more)| {
        let more = if more { " WHERE coalesce(a.v, 0) <> 1" } else { "" };
        format!(
            "SELECT a.k, a.v, a.ts, b.k bk, b.v bv, b.ts bts FROM a {kind} b ON a.{key} = b.{key} AND {bound}{more}"
        )
    });
    let comma = (key(), bound("a", "b")).prop_map(|(key, bound)| {
        format!("SELECT a.v, a.ts, b.v bv, b.ts bts FROM a, b WHERE a.{key} = b.{key} AND {bound}")
    });
    let exists = (key(), bound("a", "b"), any::<bool>()).prop_map(|(key, bound, not)| {
        let not = if not { "NOT " } else { "" };
        format!("SELECT a.k, a.v, a.ts FROM a WHERE {not}EXISTS (SELECT 1 FROM b WHERE a.{key} = b.{key} AND {bound})")
    });
    let chain = (kind(), key(), bound("a", "b"), kind(), key(), bound("b", "c"), bound("a", "c"), any::<bool>());
    let chain = chain.prop_map(|(first, key, bound, second, other, by_b, by_a, on_b)| {
        let (on, by) = if on_b { ("b", by_b) } else { ("a", by_a) };
        format!(
            "SELECT a.v, a.ts, b.v bv, b.ts bts, c.v cv, c.ts cts FROM a {first} b ON a.{key} = b.{key} AND {bound} \
             {second} c ON {on}.{other} = c.{other} AND {by}"
        )
    });
    let nested = (kind(), key(), bound("b", "c"), kind(), key(), bound("a", "x")).prop_map(
        |(inner, key, bound, outer, other, by)| {
            format!(
                "SELECT a.v, a.ts, x.v bv, x.ts bts, x.cv FROM a {outer} (SELECT b.k, b.v, b.ts, c.v AS cv FROM b {inner} c \
                 ON b.{key} = c.{key} AND {bound}) x ON a.{other} = x.{other} AND {by}"
            )
        },
    );
    prop_oneof![3 => two, 1 => comma, 2 => exists, 3 => chain, 2 => nested]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn slices_add_up_to_the_answer_of_one_query(
        sql in sql(), a in rows(), b in rows(), c in rows(), width in 1..60i64, buckets in 1..4i64,
    ) {
        let tables: BTreeMap<&str, Vec<Row>> = [("a", a), ("b", b), ("c", c)].into();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // A chain of outer joins may have its anchor where nothing bounds the others: it is refused, and no more is asked.
            let Ok(needs) = needs(&sql).await else { return Ok(()) };
            prop_assert_eq!(answer(&sql, &tables).await, sliced(&sql, &needs, &tables, width, buckets).await, "{}", sql);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn anchor_reach_and_keys_follow_from_the_plan() {
    let input = |needs: &Joined, at: usize| {
        let input = &needs.inputs[at];
        (input.source.clone(), input.reach, input.keys.clone())
    };
    let found = needs(
        "SELECT a.v FROM a LEFT JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '4' HOUR AND a.ts + INTERVAL '1' HOUR \
         LEFT JOIN c ON b.k = c.k AND c.ts = date_trunc('hour', b.ts)",
    );
    let found = found.await.unwrap();
    let hour = 3_600 * SECOND;
    assert_eq!(input(&found, 0), ("a".to_owned(), Within::SAME, vec![0]));
    assert_eq!(input(&found, 1), ("b".to_owned(), Within(-4 * hour, hour), vec![0]));
    assert_eq!(input(&found, 2), ("c".to_owned(), Within(-5 * hour + 1, hour), vec![0]));
    assert_eq!(found.inputs[1].reach.to_string(), "from 4h before to 1h after");

    let found =
        needs("SELECT a.v FROM a RIGHT JOIN b ON a.k = b.k AND a.ts >= b.ts AND a.ts < b.ts + INTERVAL '1' HOUR");
    let found = found.await.unwrap();
    assert_eq!(input(&found, 0), ("b".to_owned(), Within::SAME, vec![0]));
    assert_eq!(input(&found, 1), ("a".to_owned(), Within(0, hour), vec![0]));

    let found = needs("SELECT a.v FROM a JOIN b ON a.k = b.k AND a.ts = b.ts JOIN c ON a.v = c.v AND a.ts = c.ts")
        .await
        .unwrap();
    assert_eq!(
        found.inputs.iter().map(|input| input.keys.clone()).collect::<Vec<_>>(),
        [[2], [2], [2]],
        "only the time is in both"
    );
}

#[tokio::test]
async fn what_is_not_bounded_is_refused_with_what_to_add() {
    for (sql, said) in [
        ("SELECT a.v FROM a JOIN b ON a.k = b.k", "b.<time> BETWEEN a.<time>"),
        ("SELECT a.v FROM a JOIN b ON a.k = b.k AND b.ts <= a.ts", "no lower bound"),
        ("SELECT a.v FROM a JOIN b ON a.k = b.k AND b.ts >= a.ts", "no upper bound"),
        ("SELECT a.v FROM a JOIN b ON b.ts BETWEEN a.ts AND a.ts + INTERVAL '1' HOUR", "has no equality"),
        ("SELECT a.v FROM a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '1' MONTH AND a.ts", "no lower bound"),
        ("SELECT a.v FROM a FULL JOIN b ON a.k = b.k AND a.ts = b.ts", "Full join"),
        ("SELECT count(*) AS n FROM a JOIN b ON a.k = b.k AND a.ts = b.ts", "Aggregate"),
        ("SELECT a.v FROM a WHERE a.k NOT IN (SELECT k FROM b)", "join"),
    ] {
        let refused = needs(sql).await.expect_err(sql);
        assert!(refused.contains(said), "{sql}: {refused}");
    }
}
