//! Given a planned join, when it is run over one slice, then failures say whose they are.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{AMPLE, Effort, Given, InputRows, JoinInput, Row, SECOND, plan, run, shown, window};
use crate::failure::{Class, Classify, chain};

const SQL: &str =
    "SELECT a.v, b.v AS w FROM a LEFT JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '2' SECOND";

fn row(k: i64, v: i64, second: i64) -> Row {
    Row { k: Some(k), v, s: None, nanos: second * 1_000_000_000 }
}

#[tokio::test]
async fn a_slice_is_cut_at_its_edges() {
    let query = plan(SQL).unwrap();
    let [a, b] = query.join().unwrap().inputs() else { panic!("two inputs") };
    let anchors: Vec<Row> = (0..10).map(|second| row(1, second, second)).collect();
    let others: Vec<Row> = (0..10).map(|second| row(1, 100 + second, second)).collect();
    let rows: Vec<Arc<dyn InputRows>> = vec![Arc::new(Given::new(a, &anchors, 3)), Arc::new(Given::new(b, &others, 4))];
    let answer = run(&query, window(8 * SECOND, 10 * SECOND), rows.clone(), AMPLE).await.unwrap();
    assert_eq!(shown(&answer), ["8|108", "8|109", "9|109"]);
    let twice = run(&query, window(8 * SECOND, 10 * SECOND), rows, AMPLE).await.unwrap();
    assert_eq!(shown(&twice), shown(&answer), "inputs are opened anew");
}

#[derive(Debug)]
struct Broken;

#[derive(Debug, thiserror::Error)]
#[error("segment 7 is gone")]
struct Gone;

impl InputRows for Broken {
    fn open(&self) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
        futures::stream::iter([Err(DataFusionError::External(Box::new(Gone)))]).boxed()
    }

    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        1
    }
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_no_fault_of_the_rows() {
    let query = plan(SQL).unwrap();
    let [a, b] = query.join().unwrap().inputs() else { panic!("two inputs") };
    let some = |input| Arc::new(Given::new(input, &[row(1, 1, 1)], 1)) as Arc<dyn InputRows>;
    let tight = Effort::InPieces { bytes: 1 << 20 };
    for (inputs, effort) in [
        (vec![Arc::new(Broken) as _, some(b)], AMPLE),
        (vec![some(a), Arc::new(Broken) as _], AMPLE),
        (vec![Arc::new(Broken) as _, some(b)], tight),
        (vec![some(a), Arc::new(Broken) as _], tight),
    ] {
        let error = run(&query, window(0, 2 * SECOND), inputs, effort).await.unwrap_err();
        assert_eq!(error.class(), Class::Retryable, "{error:?}");
        assert!(chain(&error).contains("segment 7 is gone"), "{}", chain(&error));
        assert!(!error.is_memory());
    }
    let too_few = query.join().unwrap().run(window(0, SECOND), vec![some(a)], AMPLE).err().unwrap();
    assert!(too_few.to_string().contains("joins 2 sources, and there are rows of 1"), "{too_few}");
    let mixed_up = run(&query, window(0, 2 * SECOND), vec![some(b), some(a)], AMPLE).await.unwrap_err();
    assert_eq!(mixed_up.class(), Class::Poison);
}

#[tokio::test]
async fn an_expression_that_fails_is_the_fault_of_the_rows() {
    let query = plan(&SQL.replace("a.v, b.v AS w", "a.v / b.v AS w")).unwrap();
    let [a, b] = query.join().unwrap().inputs() else { panic!("two inputs") };
    let inputs: Vec<Arc<dyn InputRows>> =
        vec![Arc::new(Given::new(a, &[row(1, 1, 1)], 1)), Arc::new(Given::new(b, &[row(1, 0, 1)], 1))];
    let error = run(&query, window(0, 2 * SECOND), inputs, AMPLE).await.unwrap_err();
    assert_eq!(error.class(), Class::Poison);
    assert!(chain(&error).contains("Divide by zero"), "{}", chain(&error));
}

#[tokio::test]
async fn now_is_that_of_the_plan() {
    let query = plan(&SQL.replace("a.v, b.v AS w", "now() AS at, b.v AS w")).unwrap();
    let [a, b] = query.join().unwrap().inputs() else { panic!("two inputs") };
    let inputs: Vec<Arc<dyn InputRows>> =
        vec![Arc::new(Given::new(a, &[row(1, 1, 1)], 1)), Arc::new(Given::new(b, &[], 1))];
    let answer = run(&query, window(0, 2 * SECOND), inputs, AMPLE).await.unwrap();
    assert_eq!(shown(&answer), ["2026-03-01T12:00:00|NULL"]);
}

#[tokio::test]
async fn rows_on_the_last_microsecond_of_bounds_and_slices_meet() {
    let near = "c.ts BETWEEN a.ts - INTERVAL '2' SECOND AND a.ts + INTERVAL '2' SECOND";
    let query = plan(&format!("SELECT a.v, c.v AS w FROM a LEFT JOIN c ON a.k = c.k AND {near}")).unwrap();
    let [a, c] = query.join().unwrap().inputs() else { panic!("two inputs") };
    let at = |v: i64, micros: i64| Row { nanos: micros * 1_000, ..row(1, v, 0) };
    let slice = window(8 * SECOND, 10 * SECOND);
    let around = c.reach().around(slice).unwrap();
    assert_eq!(around, window(6 * SECOND, 12 * SECOND));
    let anchors = [at(1, 8 * SECOND - 1), at(2, 8 * SECOND), at(3, 10 * SECOND - 1), at(4, 10 * SECOND)];
    let others = [at(5, 6 * SECOND - 1), at(6, 6 * SECOND), at(7, 12 * SECOND - 1), at(8, 12 * SECOND)];
    let rows: Vec<Arc<dyn InputRows>> = vec![Arc::new(Given::new(a, &anchors, 4)), Arc::new(Given::new(c, &others, 4))];
    assert_eq!(shown(&run(&query, slice, rows, AMPLE).await.unwrap()), ["2|6", "3|7"]);
}

#[tokio::test]
async fn a_condition_on_what_was_not_met_is_of_its_own_side() {
    let near = "ON x.k = y.k AND y.ts BETWEEN x.ts - INTERVAL '1' SECOND AND x.ts";
    let inner = format!("SELECT x.v, coalesce(x.s, 'none') AS s, y.v AS yv FROM a x RIGHT JOIN c y {near}");
    let row = |k, v| Row { k, v, s: None, nanos: 0 };
    for (sql, expected) in [
        (format!("SELECT v, s, yv FROM ({inner}) p WHERE v < 3"), vec!["1|none|9"]),
        (format!("SELECT v, s, yv FROM ({inner} UNION ALL SELECT v, s, 7 FROM c) WHERE v < 3"), vec!["1|none|9"]),
        (
            format!("SELECT v, s, yv FROM ({inner} UNION ALL SELECT v, s, 7 FROM a) WHERE v < 3"),
            vec!["1|NULL|7", "1|none|9"],
        ),
        (format!("SELECT v, s, yv FROM ({inner}) p WHERE v IS NULL"), vec!["NULL|none|9"]),
    ] {
        let query = plan(&sql).unwrap();
        let rows = |input: &JoinInput| match input.source() {
            "a" => vec![row(Some(1), 1)],
            _ => vec![row(Some(1), 9), row(Some(2), 9)],
        };
        let given = |input: &JoinInput| Arc::new(Given::new(input, &rows(input), 10)) as Arc<dyn InputRows>;
        for effort in [AMPLE, Effort::InPieces { bytes: 1 << 20 }] {
            let inputs = query.join().unwrap().inputs().iter().map(given).collect();
            let answer = run(&query, window(-SECOND, SECOND), inputs, effort).await.unwrap();
            assert_eq!(shown(&answer), expected, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_filter_that_is_null_counts_nothing() {
    let from = "a x LEFT JOIN b z ON x.k = z.k AND date_trunc('minute', x.ts) = date_trunc('minute', z.ts)";
    let of = "date_bin(INTERVAL '7 seconds', x.ts)";
    let sql = format!(
        "SELECT count(*) FILTER (WHERE z.v > 1) AS n, count(z.v) FILTER (WHERE z.v > 1) AS m FROM {from} GROUP BY {of}"
    );
    let query = plan(&sql).unwrap();
    let rows = |input: &JoinInput| match input.source() {
        "a" => vec![row(1, 0, 35), Row { k: None, ..row(0, 0, 36) }, row(1, 0, 0)],
        _ => vec![row(1, 2, 1)],
    };
    let given = |input: &JoinInput| Arc::new(Given::new(input, &rows(input), 1)) as Arc<dyn InputRows>;
    let inputs = query.join().unwrap().inputs().iter().map(given).collect();
    let answer = run(&query, window(35 * SECOND, 42 * SECOND), inputs, AMPLE).await.unwrap();
    assert_eq!(shown(&answer), ["1|1"]);
}
