//! Given random rows and random expressions, when a query is run batch by batch, then its result is DataFusion's own.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;

use super::NOW;
use crate::transform::Query;

const COLUMNS: &str = "id, small, price, kind, url, ts, day, flag";

fn schema() -> SchemaRef {
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = [
        ("id", DataType::Int64),
        ("small", DataType::Int32),
        ("price", DataType::Float64),
        ("kind", DataType::Utf8),
        ("url", DataType::Utf8View),
        ("ts", stamp),
        ("day", DataType::Date32),
        ("flag", DataType::Boolean),
    ];
    Arc::new(Schema::new(fields.into_iter().map(|(name, of)| Field::new(name, of, true)).collect::<Vec<_>>()))
}

type Row =
    (Option<i64>, Option<i32>, Option<f64>, Option<String>, Option<String>, Option<i64>, Option<i32>, Option<bool>);

fn row() -> impl Strategy<Value = Row> {
    let word =
        || prop_oneof![Just(String::new()), "[a-c]{1,3}", Just("straße İ 🚲".to_owned()), "-?[0-9]{1,4}", "\\PC{0,20}"];
    (
        prop::option::of(prop_oneof![-3..3i64, Just(i64::MIN), Just(i64::MAX), any::<i64>()]),
        prop::option::of(prop_oneof![-3..3i32, Just(i32::MIN), Just(i32::MAX)]),
        prop::option::of(prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(f64::NAN),
            Just(f64::INFINITY),
            -1e3..1e3,
            any::<f64>()
        ]),
        prop::option::of(word()),
        prop::option::of(word()),
        prop::option::of(prop_oneof![
            0..4_000_000_000_000_000i64,
            Just(-62_135_596_800_000_000),
            Just(253_402_300_799_999_999)
        ]),
        prop::option::of(-800_000..3_000_000i32),
        prop::option::of(any::<bool>()),
    )
}

fn batch(rows: Vec<Row>) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.3.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.4.as_deref()).collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|row| row.5).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.6).collect::<Date32Array>()),
        Arc::new(rows.iter().map(|row| row.7).collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn pick(words: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(words).prop_map(str::to_owned).boxed()
}

fn number(depth: u32) -> BoxedStrategy<String> {
    let leaf = pick(&["id", "small", "price", "0", "1", "-7", "2.5", "NULL", "9223372036854775807"]);
    if depth == 0 {
        return leaf;
    }
    let sub = || number(depth - 1);
    prop_oneof![
        leaf,
        (sub(), prop::sample::select(&["+", "-", "*", "/", "%"][..]), sub())
            .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (truth(depth - 1), sub(), sub()).prop_map(|(c, a, b)| format!("CASE WHEN {c} THEN {a} ELSE {b} END")),
        (sub(), sub()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
        text(depth - 1).prop_map(|t| format!("char_length({t})")),
        text(depth - 1).prop_map(|t| format!("TRY_CAST({t} AS BIGINT)")),
        text(0).prop_map(|t| format!("CASE WHEN {t} = '7' THEN CAST({t} AS INT) END")),
        time(depth - 1).prop_map(|t| format!("extract(hour FROM {t})")),
        time(depth - 1).prop_map(|t| format!("date_part('year', {t})")),
        sub().prop_map(|a| format!("CAST({a} AS DOUBLE)")),
    ]
    .boxed()
}

fn text(depth: u32) -> BoxedStrategy<String> {
    let leaf = pick(&["kind", "url", "'a'", "''", "'straße'", "CAST(NULL AS VARCHAR)"]);
    if depth == 0 {
        return leaf;
    }
    let sub = || text(depth - 1);
    prop_oneof![
        leaf,
        (prop::sample::select(&["upper", "lower", "trim", "reverse", "md5"][..]), sub())
            .prop_map(|(f, t)| format!("{f}({t})")),
        (sub(), sub()).prop_map(|(a, b)| format!("({a} || {b})")),
        (sub(), sub()).prop_map(|(a, b)| format!("concat({a}, '-', {b})")),
        sub().prop_map(|t| format!("substr({t}, 2, 3)")),
        sub().prop_map(|t| format!("replace({t}, 'a', 'ä')")),
        sub().prop_map(|t| format!("split_part({t}, 'b', 1)")),
        sub().prop_map(|t| format!("regexp_replace({t}, '[a-b]+', 'x')")),
        (truth(depth - 1), sub(), sub()).prop_map(|(c, a, b)| format!("CASE WHEN {c} THEN {a} ELSE {b} END")),
        number(depth - 1).prop_map(|n| format!("CAST({n} AS VARCHAR)")),
    ]
    .boxed()
}

fn time(depth: u32) -> BoxedStrategy<String> {
    let leaf = pick(&["ts", "CAST(day AS TIMESTAMP)", "TIMESTAMP '2026-01-01T00:00:00Z'"]);
    if depth == 0 {
        return leaf;
    }
    let sub = || time(depth - 1);
    prop_oneof![
        leaf,
        sub().prop_map(|t| format!("date_trunc('hour', {t})")),
        sub().prop_map(|t| format!("date_bin(INTERVAL '15 minutes', {t})")),
        sub().prop_map(|t| format!("({t} + INTERVAL '1 day')")),
        sub().prop_map(|t| format!("({t} - INTERVAL '90 seconds')")),
    ]
    .boxed()
}

fn truth(depth: u32) -> BoxedStrategy<String> {
    let leaf = pick(&["flag", "id IS NOT NULL", "kind IS NOT NULL", "true", "small > 0", "NOT flag", "NULL"]);
    if depth == 0 {
        return leaf;
    }
    let (n, t, s) = (|| number(depth - 1), || text(depth - 1), || time(depth - 1));
    let sub = || truth(depth - 1);
    prop_oneof![
        leaf,
        (n(), prop::sample::select(&["=", "<>", "<", ">=", "IS DISTINCT FROM"][..]), n())
            .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (t(), prop::sample::select(&["=", "<>", "<"][..]), t()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (s(), s()).prop_map(|(a, b)| format!("({a} <= {b})")),
        (n(), n(), n()).prop_map(|(a, b, c)| format!("({a} BETWEEN {b} AND {c})")),
        t().prop_map(|a| format!("({a} IN ('a', 'bc', NULL))")),
        t().prop_map(|a| format!("({a} NOT IN ('a', 'b', 'c', 'ab'))")),
        t().prop_map(|a| format!("({a} LIKE 'a%')")),
        t().prop_map(|a| format!("({a} NOT ILIKE '%B_')")),
        (sub(), sub()).prop_map(|(a, b)| format!("({a} AND {b})")),
        (sub(), sub()).prop_map(|(a, b)| format!("({a} OR {b})")),
        sub().prop_map(|a| format!("(NOT {a})")),
    ]
    .boxed()
}

fn any_expression() -> BoxedStrategy<String> {
    prop_oneof![number(2), text(2), time(2), truth(2), pick(&["id", "kind", "url", "ts", "day"])].boxed()
}

fn select() -> impl Strategy<Value = String> {
    let exprs = || prop::collection::vec(any_expression(), 1..4);
    (exprs(), prop::option::of(truth(2)), prop::option::of((any_expression(), prop::option::of(truth(1))))).prop_map(
        |(exprs, filter, inner)| {
            let mut items: Vec<_> = exprs.iter().enumerate().map(|(n, expr)| format!("{expr} AS c{n}")).collect();
            let filter = filter.map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
            let from = match inner {
                None => "t".to_owned(),
                Some((extra, inner)) => {
                    items.push("extra".to_owned());
                    let inner = inner.map(|inner| format!(" WHERE {inner}")).unwrap_or_default();
                    format!("(SELECT {COLUMNS}, {extra} AS extra FROM t{inner}) AS t")
                }
            };
            format!("SELECT {} FROM {from}{filter}", items.join(", "))
        },
    )
}

/// DataFusion's answer, in the types of `wanted`.
fn oracle(sql: &str, batches: &[RecordBatch], wanted: &SchemaRef) -> Result<RecordBatch, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = MemTable::try_new(schema(), vec![batches.to_vec()]).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    let run = || runtime.block_on(async { context.sql(sql).await?.collect().await });
    let answer = catch_unwind(AssertUnwindSafe(run)).map_err(|_| "it panicked".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let columns = wanted.fields().iter().enumerate().map(|(index, field)| {
        let parts: Vec<_> = answer.iter().map(|batch| cast(batch.column(index), field.data_type()).unwrap()).collect();
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() {
            arrow::array::new_empty_array(field.data_type())
        } else {
            arrow::compute::concat(&parts).unwrap()
        }
    });
    RecordBatch::try_new(Arc::clone(wanted), columns.collect()).map_err(|error| error.to_string())
}

/// The rows of `batches`, cut in other ways: all at once, one by one, and without the empty batches.
fn other_cuts(batches: &[RecordBatch]) -> [Vec<RecordBatch>; 3] {
    let all = concat_batches(&schema(), batches).unwrap();
    let one_by_one = (0..all.num_rows()).map(|row| all.slice(row, 1)).collect();
    let filled = batches.iter().filter(|batch| batch.num_rows() > 0).cloned().collect();
    [vec![all], one_by_one, filled]
}

/// Whether DataFusion says `ours` of the same rows in another cut, or of each row alone. Whether an expression that
/// fails on one row (or on a constant) is reached at all hangs on the batch it is in: AND, OR and CASE skip a side that
/// no row of the batch needs. And a filter may stand before or behind what fails: of a row that ours leaves out,
/// DataFusion may say that it fails.
fn said_of_another_cut(ours: &Result<RecordBatch, String>, sql: &str, batches: &[RecordBatch], query: &Query) -> bool {
    let of = query.schema();
    let same = |cut: &Vec<RecordBatch>| match (ours, oracle(sql, cut, &of)) {
        (Ok(ours), Ok(theirs)) => *ours == theirs,
        (ours, theirs) => ours.is_err() && theirs.is_err(),
    };
    other_cuts(batches).iter().any(same) || ours.as_ref().is_ok_and(|ours| *ours == row_by_row(sql, batches, query))
}

/// What DataFusion says of each row alone; where it fails, nothing if ours leaves that row out.
fn row_by_row(sql: &str, batches: &[RecordBatch], query: &Query) -> RecordBatch {
    let of = query.schema();
    let [_, rows, _] = other_cuts(batches);
    let answers = rows.iter().filter_map(|row| match oracle(sql, std::slice::from_ref(row), &of) {
        Ok(theirs) => Some(theirs),
        Err(_) => ours(query, std::slice::from_ref(row)).is_ok_and(|ours| ours.num_rows() > 0).then(|| {
            panic!("{sql}\nours passes a row on which DataFusion fails: {row:?}");
        }),
    });
    concat_batches(&of, &answers.collect::<Vec<_>>()).unwrap()
}

fn ours(query: &Query, batches: &[RecordBatch]) -> Result<RecordBatch, String> {
    let read = |batch: &RecordBatch| batch.project(query.columns()).unwrap();
    let mut running = query.start(read(&RecordBatch::new_empty(schema())).schema()).unwrap();
    let results = batches.iter().map(|batch| running.push(read(batch)));
    let results = results.collect::<Result<Vec<_>, _>>().map_err(|error| crate::failure::chain(&error))?;
    assert!(results.iter().all(|batch| batch.schema() == query.schema()));
    Ok(concat_batches(&query.schema(), &results).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn given_random_sql_over_random_rows_then_the_result_is_datafusions(
        sql in select(),
        rows in prop::collection::vec(prop::collection::vec(row(), 0..24), 1..4),
    ) {
        let batches: Vec<_> = rows.into_iter().map(batch).collect();
        let sources = BTreeMap::from([("t".to_owned(), schema().into())]);
        match Query::plan("out", Some(&sql), &sources, NOW) {
            Err(error) => {
                let said = oracle(&sql, &batches, &schema());
                prop_assert!(said.is_err(), "{sql}\nonly we refuse: {}", crate::failure::chain(&error));
            }
            Ok(query) => match (ours(&query, &batches), oracle(&sql, &batches, &query.schema())) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs, "{}", sql),
                (Err(_), Err(_)) => {}
                (ours, theirs) => prop_assert!(
                    said_of_another_cut(&ours, &sql, &batches, &query),
                    "{sql}\nours {ours:?}\ntheirs {theirs:?}"
                ),
            },
        }
    }
}
