//! Given an aggregate by windows of event time, when it is planned, then its windows and keys follow from the plan; and
//! when it is larger than the memory, then whole groups are answered part by part.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tidegate_common::slices::Reach;

use super::{AMPLE, Effort, Given, InputRows, JoinInput, NOW, Row, SECOND, plan, run, shown, window};
use crate::failure::{Class, Classify};
use crate::transform::{Join, Query, SourceTable};

const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Width and origin, microseconds, of what `sql` groups by.
fn whole(sql: &str) -> (i64, i64) {
    let query = plan(sql).unwrap_or_else(|error| panic!("{sql}: {}", crate::failure::chain(&error)));
    let whole = query.join().and_then(Join::whole_windows).unwrap();
    (whole.width().as_micros(), whole.origin().as_micros())
}

#[test]
fn windows_are_as_wide_as_they_are_written_and_begin_where_they_say() {
    for (by, wanted) in [
        ("date_bin(INTERVAL '1' HOUR, ts)", (HOUR, 0)),
        ("date_bin(INTERVAL '90 minutes', ts, TIMESTAMP '1970-01-01 01:00:00')", (90 * 60 * SECOND, HOUR)),
        ("date_bin(INTERVAL '90 minutes', ts, TIMESTAMP '1969-12-31 23:00:00')", (90 * 60 * SECOND, HOUR / 2)),
        ("date_bin(INTERVAL '7 days', ts)", (7 * DAY, 0)),
        ("date_trunc('week', ts)", (7 * DAY, 4 * DAY)),
        ("date_trunc('DAY', ts)", (DAY, 0)),
        ("date_trunc('hour', ts)", (HOUR, 0)),
        ("date_trunc('minute', CAST(ts AS TIMESTAMP))", (60 * SECOND, 0)),
        ("date_trunc('second', ts)", (SECOND, 0)),
        ("date_trunc('hour', ts), date_bin(INTERVAL '20 minutes', ts)", (HOUR / 3, 0)),
    ] {
        assert_eq!(whole(&format!("SELECT count(*) AS n FROM a GROUP BY {by}")), wanted, "{by}");
    }
    for sql in [
        "SELECT date_trunc('hour', ts) AS h, count(*) AS n FROM a GROUP BY 1",
        "SELECT date_trunc('hour', ts) AS h, count(*) AS n FROM a GROUP BY h HAVING max(v) > 3",
        "SELECT h, count(*) AS n FROM (SELECT date_trunc('hour', t) AS h FROM (SELECT ts AS t FROM a)) GROUP BY h",
        "SELECT h, max(n) AS n FROM (SELECT date_trunc('hour', ts) AS h, k, count(DISTINCT v) AS n FROM a GROUP BY 1, 2) \
         GROUP BY h",
        "SELECT d, sum(n) AS n FROM (SELECT date_trunc('hour', ts) AS d, date_trunc('minute', ts) AS m, count(*) AS n \
         FROM a GROUP BY 1, 2) GROUP BY d",
    ] {
        assert_eq!(whole(sql), (HOUR, 0), "{sql}");
    }
}

/// Of each input: the source, and the columns by which its rows are distributed.
fn keys(sql: &str) -> Vec<(String, Vec<usize>)> {
    let query = plan(sql).unwrap_or_else(|error| panic!("{sql}: {}", crate::failure::chain(&error)));
    let of = |input: &JoinInput| input.keys().iter().map(|key| input.columns()[*key]).collect();
    query.join().unwrap().inputs().iter().map(|input| (input.source().to_owned(), of(input))).collect()
}

#[test]
fn rows_are_distributed_by_what_every_join_and_every_group_agrees_on() {
    let by = "date_trunc('hour', a.ts)";
    let one = |keys: &[usize]| vec![("a".to_owned(), keys.to_vec())];
    let two = |keys: &[usize]| vec![("a".to_owned(), keys.to_vec()), ("c".to_owned(), keys.to_vec())];
    assert_eq!(keys(&format!("SELECT count(*) AS n FROM a GROUP BY {by}")), one(&[]));
    assert_eq!(keys(&format!("SELECT count(*) AS n FROM a GROUP BY {by}, k, s")), one(&[0, 2]));
    assert_eq!(keys(&format!("SELECT count(*) AS n FROM a GROUP BY {by}, k + 1")), one(&[]), "it is computed");
    assert_eq!(
        keys(&format!(
            "SELECT max(n) AS n FROM (SELECT {by} AS h, k, s, count(*) AS n FROM a GROUP BY 1, 2, 3) GROUP BY h, s"
        )),
        one(&[2])
    );
    let near = "a.k = c.k AND c.ts BETWEEN a.ts AND a.ts + INTERVAL '1' HOUR";
    let joined = |join: &str, columns: &str| {
        keys(&format!("SELECT count(*) AS n FROM a {join} c ON {near} GROUP BY {by}{columns}"))
    };
    assert_eq!(joined("JOIN", ", a.k"), two(&[0]));
    assert_eq!(joined("JOIN", ", c.k"), two(&[0]));
    assert_eq!(joined("JOIN", ", a.s"), two(&[]), "one group is of several keys");
    assert_eq!(joined("LEFT JOIN", ", a.k"), two(&[0]));
    assert_eq!(joined("LEFT JOIN", ", c.k"), two(&[]), "that which is null is of any key");
    let reaches = |input: &JoinInput| (input.reach().low.as_micros(), input.reach().high.as_micros());
    let query = plan(&format!("SELECT count(*) AS n FROM a LEFT JOIN c ON {near} GROUP BY {by}")).unwrap();
    assert_eq!(query.join().unwrap().inputs().iter().map(reaches).collect::<Vec<_>>(), [(0, 0), (0, HOUR)]);
}

#[test]
fn one_source_that_is_aggregated_is_one_input_without_reach() {
    let query =
        plan("SELECT date_trunc('hour', ts) AS h, k, ts, avg(v) AS v FROM a WHERE s = 'x' GROUP BY 1, 2, 3").unwrap();
    let [input] = query.join().unwrap().inputs() else { panic!("one input") };
    assert_eq!((input.source(), input.reach(), input.filters().len()), ("a", Reach::NONE, 1));
    assert_eq!(
        (query.copies_of("ts"), query.copies_of("k")),
        (vec!["h".to_owned(), "ts".to_owned()], vec!["k".to_owned()])
    );
    assert_eq!(query.sources().collect::<Vec<_>>(), ["a"]);
    assert!(query.start(super::schema("a")).unwrap_err().to_string().contains("row by row"));
    assert!(plan("SELECT k FROM a").unwrap().join().is_none());
    let nothing = plan("SELECT date_trunc('hour', ts) AS h, count(*) AS n FROM a WHERE 1 = 2 GROUP BY 1").unwrap();
    assert!(nothing.join().is_none(), "the optimizer sees through it");
}

#[test]
fn the_beginning_of_whole_windows_stands_for_the_event_time() {
    let near = "a.k = c.k AND a.ts = c.ts";
    let starts = "unnest(generate_series(date_trunc('hour', ts) - INTERVAL '1' HOUR, date_trunc('hour', ts), INTERVAL '1' HOUR))";
    for (sql, times) in [
        ("SELECT date_trunc('hour', ts) AS h, date_trunc('day', ts) AS d, count(*) AS n FROM a GROUP BY 1, 2".to_owned(), vec!["h"]),
        ("SELECT date_trunc('hour', ts) + INTERVAL '1' HOUR AS h, count(*) AS n FROM a GROUP BY date_trunc('hour', ts)".to_owned(), vec![]),
        (format!("SELECT date_trunc('hour', a.ts) AS h, a.v FROM a JOIN c ON {near}"), vec![]),
        (format!("SELECT coalesce(a.ts, c.ts) AS at, a.ts, c.ts AS cts FROM a FULL JOIN c ON {near}"), vec!["at"]),
        (format!("SELECT date_trunc('hour', coalesce(a.ts, c.ts)) AS h, count(*) AS n FROM a FULL JOIN c ON {near} GROUP BY 1"), vec!["h"]),
        ("SELECT ts AS at, v FROM a UNION ALL SELECT ts, v FROM c".to_owned(), vec!["at"]),
        ("SELECT ts AS at, v FROM a UNION ALL SELECT ts + INTERVAL '1' HOUR, v FROM c".to_owned(), vec![]),
        (format!("SELECT {starts} AS w, ts, v FROM a"), vec!["w"]),
        (format!("SELECT w, count(*) AS n FROM (SELECT {starts} AS w, ts FROM a) GROUP BY w, ts"), vec!["w"]),
    ] {
        assert_eq!(plan(&sql).unwrap().copies_of("ts"), times, "{sql}");
    }
}

#[tokio::test]
async fn dates_lie_in_windows_too() {
    let schema = Arc::new(Schema::new(vec![Field::new("day", DataType::Date32, false)]));
    let sources = BTreeMap::from([("d".to_owned(), SourceTable { schema, time: Some("day".to_owned()) })]);
    let sql = "SELECT date_trunc('week', day) AS week, count(*) AS n FROM d GROUP BY 1";
    let query = Query::plan("out", Some(sql), &sources, NOW).unwrap();
    let whole = query.join().unwrap().whole_windows().unwrap();
    assert_eq!((whole.width().as_micros(), whole.origin().as_micros()), (7 * DAY, 4 * DAY));
}

const ROWS: i64 = 6_000;
const BYTES: usize = 96 << 10;

/// Rows of a minute: a key for each, but for one that many have.
fn rows() -> Vec<Row> {
    let key = |n: i64| if n % 30 == 0 { 1 } else { n };
    let row = |n: i64| Row { k: Some(key(n)), v: n % 50, s: Some("some text"), nanos: (n % 60) * 1_000_000_000 };
    (0..ROWS).map(row).collect()
}

fn given(inputs: &[JoinInput]) -> Vec<Arc<dyn InputRows>> {
    inputs.iter().map(|input| Arc::new(Given::new(input, &rows(), 400)) as _).collect()
}

#[tokio::test]
async fn groups_that_do_not_fit_are_answered_part_by_part() {
    let near = "x.k = y.k AND x.v = y.v AND y.ts = x.ts";
    for sql in [
        "SELECT date_trunc('minute', ts) AS w, k, count(*) AS n, sum(v) AS v, min(s) AS s FROM a GROUP BY 1, 2".to_owned(),
        "SELECT date_trunc('minute', ts) AS w, k, count(DISTINCT v) AS n, max(v) AS v FROM a GROUP BY 1, 2".to_owned(),
        "SELECT w, k, count(*) AS n FROM (SELECT date_trunc('minute', ts) AS w, k, v, max(s) AS s FROM a GROUP BY 1, 2, 3) \
         GROUP BY w, k, s HAVING count(*) > 1"
            .to_owned(),
        "SELECT date_trunc('second', ts) AS w, v + k AS kv, count(*) AS n FROM a GROUP BY 1, 2".to_owned(),
        format!("SELECT date_trunc('minute', x.ts) AS w, x.k, count(*) AS n, sum(y.v) AS v FROM a x JOIN b y ON {near} GROUP BY 1, 2"),
        format!(
            "SELECT date_trunc('minute', x.ts) AS w, x.k, count(y.s) AS n FROM a x LEFT JOIN b y ON {near} AND y.v > 30 GROUP BY 1, 2"
        ),
    ] {
        let query = plan(&sql).unwrap();
        let slice = window(0, 60 * SECOND);
        let inputs = || given(query.join().unwrap().inputs());
        let whole = run(&query, slice, inputs(), AMPLE).await.unwrap();
        let in_memory = run(&query, slice, inputs(), Effort::InMemory { bytes: BYTES }).await;
        assert!(in_memory.is_err_and(|error| error.is_memory()), "it is meant to be too large: {sql}");
        let parts = run(&query, slice, inputs(), Effort::InPieces { bytes: BYTES }).await;
        let parts = parts.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert!(shown(&parts) == shown(&whole) && !shown(&whole).is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn groups_of_several_anchors_that_do_not_fit_stay_together() {
    const GROUPS: i64 = 2_000;
    let row = |k: Option<i64>, v: i64, n: i64| Row { k, v, s: None, nanos: (n % 60) * 1_000_000_000 };
    let of = |input: &JoinInput| -> Vec<Row> {
        match input.source() {
            "a" => (0..GROUPS).map(|n| row(Some(n), 0, n)).collect(),
            "b" => (0..GROUPS).map(|n| row(None, n, n)).collect(),
            _ => (0..GROUPS).map(|n| row(Some(n), 1, n)).collect(),
        }
    };
    let starts = "unnest(generate_series(date_trunc('minute', ts) - INTERVAL '1' MINUTE, date_trunc('minute', ts), INTERVAL '1' MINUTE))";
    for sql in [
        // What met nothing has no number, though the anchor has.
        "SELECT date_trunc('minute', ts) AS w, u, v, count(*) AS n FROM (SELECT x.ts, x.v AS u, y.v AS v FROM b x LEFT JOIN b y \
         ON x.v = y.v AND y.ts = x.ts AND y.v > 5000 UNION ALL SELECT ts, v AS u, k AS v FROM b) GROUP BY 1, 2, 3"
            .to_owned(),
        // One row is in several windows, the other in one.
        format!(
            "SELECT w, k, count(*) AS n FROM (SELECT {starts} AS w, k FROM a UNION ALL SELECT date_trunc('minute', ts), v FROM b) \
             GROUP BY w, k"
        ),
    ] {
        let query = plan(&sql).unwrap();
        let given = |input: &JoinInput| Arc::new(Given::new(input, &of(input), 400)) as Arc<dyn InputRows>;
        let inputs = || query.join().unwrap().inputs().iter().map(given).collect::<Vec<_>>();
        let slice = window(0, 60 * SECOND);
        let in_memory = run(&query, slice, inputs(), Effort::InMemory { bytes: BYTES }).await;
        assert!(in_memory.is_err_and(|error| error.is_memory()), "it is meant to be too large: {sql}");
        let parts = shown(&run(&query, slice, inputs(), Effort::InPieces { bytes: BYTES }).await.unwrap());
        assert_eq!(parts.len(), usize::try_from(GROUPS).unwrap(), "{sql}");
        assert!(parts.iter().all(|group| group.ends_with("|2")), "{sql}: {:?}", parts.first());
    }
}

#[tokio::test]
async fn windows_that_overlap_a_thousandfold_take_no_more_than_there_is() {
    let sql = "SELECT unnest(generate_series(date_trunc('second', ts) - INTERVAL '999' SECOND, date_trunc('second', ts), \
               INTERVAL '1' SECOND)) AS w, k FROM a";
    let query = plan(sql).unwrap();
    let [a] = query.join().unwrap().inputs() else { panic!("one input") };
    let rows: Vec<Arc<dyn InputRows>> = vec![Arc::new(Given::new(a, &rows(), 10_000))];
    let mut answer =
        query.join().unwrap().run(window(0, 60 * SECOND), rows, Effort::InMemory { bytes: 1 << 20 }).unwrap();
    let (mut count, mut most) = (0, 0);
    while let Some(batch) = futures::StreamExt::next(&mut answer).await {
        let batch = batch.unwrap();
        count += batch.num_rows();
        most = most.max(batch.num_rows());
    }
    // Of each row, the windows that begin in the slice: at its second and before.
    assert_eq!(i64::try_from(count).unwrap(), (0..ROWS).map(|n| n % 60 + 1).sum::<i64>());
    assert!(most <= 1_000, "{most} rows at once");
}

#[tokio::test]
async fn a_group_that_does_not_fit_by_itself_says_that_it_is_the_memory() {
    let query = plan("SELECT date_trunc('minute', ts) AS w, median(v) AS v FROM a GROUP BY 1").unwrap();
    let inputs = || given(query.join().unwrap().inputs());
    for effort in [Effort::InMemory { bytes: 8 << 10 }, Effort::InPieces { bytes: 8 << 10 }] {
        let error = run(&query, window(0, 60 * SECOND), inputs(), effort).await.unwrap_err();
        assert!(error.is_memory() && error.class() == Class::Retryable, "{error:?}");
    }
    let ample = run(&query, window(0, 60 * SECOND), inputs(), Effort::InPieces { bytes: 64 << 20 }).await.unwrap();
    assert_eq!(shown(&ample), ["1970-01-01T00:00:00Z|24"]);
}

#[tokio::test]
async fn groups_of_a_slice_are_of_its_anchors_alone() {
    let query = plan("SELECT date_bin(INTERVAL '2 seconds', ts) AS w, count(*) AS n FROM a GROUP BY 1").unwrap();
    let [a] = query.join().unwrap().inputs() else { panic!("one input") };
    let at = |micros: i64| Row { k: None, v: 0, s: None, nanos: micros * 1_000 };
    let rows = [at(-1), at(0), at(2 * SECOND - 1), at(2 * SECOND), at(4 * SECOND - 1), at(4 * SECOND)];
    let rows: Vec<Arc<dyn InputRows>> = vec![Arc::new(Given::new(a, &rows, 4))];
    let answer = run(&query, window(0, 4 * SECOND), rows, AMPLE).await.unwrap();
    assert_eq!(shown(&answer), ["1970-01-01T00:00:00Z|2", "1970-01-01T00:00:02Z|2"]);
}

#[test]
fn what_datafusion_plans_and_cannot_compute_is_refused_when_it_is_planned() {
    let by = "FROM a GROUP BY date_trunc('hour', ts)";
    let error = plan(&format!("SELECT avg(DISTINCT ts - ts) AS x, avg(DISTINCT v) AS y {by}")).unwrap_err();
    assert_eq!(error.class(), Class::Fatal { exit_code: 3 }, "{error:?}");
    for fine in [
        "avg(DISTINCT v) AS x, avg(DISTINCT k) AS y",
        "sum(DISTINCT v) AS x, count(DISTINCT s) AS y",
        "avg(ts - ts) AS x",
    ] {
        plan(&format!("SELECT {fine} {by}")).unwrap();
    }
}

#[test]
fn windows_that_are_finer_than_their_column_are_refused() {
    let fields = vec![Field::new("ts", DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None), false)];
    let table = SourceTable { schema: Arc::new(Schema::new(fields)), time: Some("ts".to_owned()) };
    let sources = BTreeMap::from([("s".to_owned(), table)]);
    let grouped = |by: &str| {
        let sql = format!("SELECT {by} AS w, count(*) AS n FROM s GROUP BY 1");
        Query::plan("o", Some(&sql), &sources, NOW).map(|query| query.join().and_then(Join::whole_windows).is_some())
    };
    for by in [
        "date_bin(INTERVAL '400 milliseconds', ts)",
        "date_bin(INTERVAL '1' DAY, ts, TIMESTAMP '1970-01-01 00:00:00.5')",
    ] {
        assert!(grouped(by).is_err(), "{by}: two of them have one key");
    }
    assert!(grouped("date_bin(INTERVAL '2 seconds', ts)").unwrap());
}
