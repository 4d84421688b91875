//! Given SQL over several sources, when it is planned, then anchor, reach, columns, keys and conditions follow from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidegate_common::slices::Reach;
use tidegate_common::time::Span;

use super::{NOW, Row, SECOND, batch, plan};
use crate::transform::{Join, JoinInput, Query, SourceTable, TIME_COLUMN};

const HOUR: i64 = 3_600 * SECOND;

fn reach(low: i64, high: i64) -> Reach {
    Reach { low: Span::from_micros(low), high: Span::from_micros(high) }
}

fn inputs(sql: &str) -> Vec<(String, Reach, Vec<usize>, Vec<usize>)> {
    let query = plan(sql).unwrap_or_else(|error| panic!("{sql}: {}", crate::failure::chain(&error)));
    let described =
        |input: &JoinInput| (input.source().to_owned(), input.reach(), input.columns().to_vec(), input.keys().to_vec());
    query.join().map(Join::inputs).unwrap_or_default().iter().map(described).collect()
}

#[test]
fn anchor_reach_columns_and_keys_follow_from_the_plan() {
    assert_eq!(
        inputs(
            "SELECT a.v, c.s FROM a LEFT JOIN c ON a.k = c.k AND c.ts BETWEEN a.ts - INTERVAL '4' HOUR AND a.ts + INTERVAL '1' HOUR \
             LEFT JOIN a z ON c.k = z.k AND z.ts = date_trunc('hour', c.ts)"
        ),
        [
            ("a".to_owned(), reach(-5 * HOUR + 1, HOUR), vec![0, 1, 3], vec![0]),
            ("c".to_owned(), reach(-4 * HOUR, HOUR), vec![0, 2, 3], vec![0]),
        ]
    );
    assert_eq!(
        inputs("SELECT a.v FROM a RIGHT JOIN c ON a.k = c.k AND a.ts >= c.ts AND a.ts < c.ts + INTERVAL '1' HOUR"),
        [("c".to_owned(), Reach::NONE, vec![0, 3], vec![0]), ("a".to_owned(), reach(0, HOUR), vec![0, 1, 3], vec![0]),]
    );
    assert_eq!(
        inputs(
            "SELECT a.v FROM a JOIN b ON a.k = b.k AND a.ts = b.ts JOIN c ON a.v = c.v AND a.s = c.s AND a.ts = c.ts"
        )
        .iter()
        .map(|(name, _, columns, keys)| (name.as_str(), keys.iter().map(|key| columns[*key]).collect()))
        .collect::<Vec<(&str, Vec<usize>)>>(),
        [("a", vec![]), ("b", vec![]), ("c", vec![])],
        "only the time is in both joins, and the types of its columns are not the same"
    );
    assert_eq!(
        inputs(
            "SELECT a.k FROM a WHERE EXISTS (SELECT 1 FROM a b WHERE a.k = b.k AND a.s = b.s AND a.ts > b.ts AND a.ts <= b.ts + INTERVAL '1' HOUR)"
        ),
        [("a".to_owned(), reach(-HOUR, 0), vec![0, 2, 3], vec![0, 1]),]
    );
}

#[test]
fn a_source_that_is_mentioned_twice_is_one_input() {
    let near = "y.ts BETWEEN x.ts AND x.ts + INTERVAL '1' HOUR";
    assert_eq!(
        inputs(&format!("SELECT x.v FROM a x JOIN a y ON x.k = y.k AND x.s = y.s AND {near}")),
        [("a".to_owned(), reach(0, HOUR), vec![0, 1, 2, 3], vec![0, 2])]
    );
    assert_eq!(
        inputs(&format!("SELECT x.k FROM a x JOIN a y ON x.k = y.v AND {near}")),
        [("a".to_owned(), reach(0, HOUR), vec![0, 1, 3], vec![])],
        "rows of one source cannot be distributed by two columns at once"
    );
    let mixed = inputs(&format!(
        "SELECT x.k FROM a x JOIN c y ON x.k = y.k AND {near} \
         JOIN a z ON y.k = z.k AND z.ts BETWEEN y.ts - INTERVAL '3' HOUR AND y.ts - INTERVAL '2' HOUR"
    ));
    assert_eq!(
        mixed,
        [
            ("a".to_owned(), reach(-3 * HOUR, 0), vec![0, 3], vec![0]),
            ("c".to_owned(), reach(0, HOUR), vec![0, 3], vec![0])
        ]
    );
}

#[test]
fn what_the_optimizer_makes_of_the_sql_is_what_counts() {
    let join = "a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '1' HOUR";
    let anchors = |sql: &str| inputs(sql).into_iter().map(|(source, ..)| source).collect::<Vec<_>>();
    assert_eq!(anchors(&format!("SELECT a.v FROM a RIGHT JOIN b ON {join}")), ["b", "a"]);
    assert_eq!(
        anchors(&format!("SELECT a.v FROM a RIGHT JOIN b ON {join} WHERE a.v > 0")),
        ["a", "b"],
        "no null passes"
    );
    assert_eq!(anchors(&format!("SELECT a.v FROM b, a WHERE {join}")), ["b", "a"]);
    let nothing = "(SELECT * FROM b WHERE false) b ON a.k = b.k AND a.ts = b.ts";
    assert_eq!(anchors(&format!("SELECT a.v, b.s FROM a LEFT JOIN {nothing}")), ["a"]);
    for sql in [
        "SELECT a.v, b.s FROM a JOIN b ON a.k = b.k AND a.ts = b.ts WHERE 1 = 2",
        &format!("SELECT a.v, b.s FROM a JOIN {nothing}"),
    ] {
        let query = plan(sql).unwrap();
        assert!(query.join().is_none(), "{sql}");
        assert_eq!(query.sources().collect::<Vec<_>>(), ["a"], "{sql}");
        assert_eq!(query.schema().fields().len(), 2);
    }
}

#[test]
fn a_query_tells_of_its_anchor() {
    let query = plan(
        "SELECT b.ts AS at, a.ts, b.ts + INTERVAL '1' HOUR AS later, b.k, upper(a.s) AS s \
         FROM a RIGHT JOIN b ON a.k = b.k AND a.ts = b.ts",
    );
    let query = query.unwrap();
    assert_eq!(query.source(), "b");
    assert_eq!(query.sources().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(query.copies_of("ts"), ["at"]);
    assert_eq!(query.copies_of("k"), ["k"]);
    assert_eq!(query.columns(), [0, 3]);
    let types: Vec<_> = query.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let stamp = |unit| DataType::Timestamp(unit, Some("UTC".into()));
    let (fine, coarse) = (stamp(TimeUnit::Nanosecond), stamp(TimeUnit::Microsecond));
    assert_eq!(types, [fine.clone(), coarse, fine, DataType::Int64, DataType::Utf8], "no views");
    assert!(query.schema().field(1).is_nullable() && !query.schema().field(0).is_nullable());
    assert!(query.start(super::schema("b")).unwrap_err().to_string().contains("row by row"));
    let input = query.join().unwrap().input("a").unwrap();
    assert_eq!(input.schema().field(0), &Field::new(TIME_COLUMN, DataType::Int64, false));
    assert_eq!(input.schema().fields().len(), 1 + input.columns().len());
    assert!(query.join().unwrap().input("c").is_none());
}

#[test]
fn a_sieve_keeps_what_any_mention_needs() {
    let rows = [(Some(1), 0), (Some(1), 1), (Some(2), 2), (None, 3)];
    let rows: Vec<Row> = rows.into_iter().map(|(k, v)| Row { k, v, s: Some("x"), nanos: 0 }).collect();
    let kept = |sql: &str| {
        let query = plan(sql).unwrap();
        let input = query.join().unwrap().input("a").unwrap();
        let mask = input.start().unwrap().kept(&batch("a", &rows).project(input.columns()).unwrap()).unwrap()?;
        assert_eq!(mask.null_count(), 0);
        Some(mask.values().iter().collect::<Vec<_>>())
    };
    let join = "SELECT x.v FROM a x LEFT JOIN a y ON x.s = y.s AND x.ts = y.ts";
    assert_eq!(kept(join), None);
    assert_eq!(kept(&format!("{join} AND y.k = 1")), None, "the other mention needs every row");
    assert_eq!(kept(&format!("{join} AND y.k = 1 WHERE x.v > 2")), Some(vec![true, true, false, true]));
    let query = plan("SELECT a.v FROM a JOIN b ON a.k = b.k AND a.ts = b.ts WHERE a.v / 0 = 1").unwrap();
    let input = query.join().unwrap().input("a").unwrap();
    let columns = batch("a", &rows).project(input.columns()).unwrap();
    let failed = input.start().unwrap().kept(&columns).unwrap_err();
    assert!(crate::failure::chain(&failed).contains("Divide by zero"), "{failed}");
    let other = input.start().unwrap().kept(&batch("a", &rows)).unwrap_err();
    assert!(other.to_string().contains("rows have the columns"), "{other}");
}

#[test]
fn dates_are_event_times_and_floats_are_no_keys() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("day", DataType::Date32, false),
        Field::new("f", DataType::Float64, true),
        Field::new("n", DataType::Int32, true),
    ]));
    let table = SourceTable { schema, time: Some("day".to_owned()) };
    let sources: BTreeMap<_, _> = ["d", "e"].into_iter().map(|name| (name.to_owned(), table.clone())).collect();
    let sql = "SELECT d.n FROM d JOIN e ON d.f = e.f AND e.day BETWEEN d.day AND d.day + INTERVAL '1' DAY";
    let query = Query::plan("out", Some(sql), &sources, NOW).unwrap();
    let inputs = query.join().unwrap().inputs();
    assert_eq!(inputs[1].reach(), reach(0, 24 * HOUR));
    assert!(inputs.iter().all(|input| input.keys().is_empty()));
}
