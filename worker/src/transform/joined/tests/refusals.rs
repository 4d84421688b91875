//! Given SQL over several sources that cannot be answered slice by slice, when it is planned, then it is refused with the
//! place and the way out.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{NOW, plan, sources};
use crate::failure::{Class, Classify, chain};
use crate::transform::{Query, SourceTable};

fn shown(name: &str, said: impl Iterator<Item = (String, crate::transform::QueryError)>) {
    let mut text = String::new();
    for (sql, error) in said {
        assert_eq!(error.class(), Class::Fatal { exit_code: 3 }, "{sql}");
        writeln!(text, "{sql}\n    => {}\n", chain(&error)).unwrap();
    }
    insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!(name, text) });
}

#[test]
fn what_is_not_bounded_or_not_built_is_refused_with_what_to_add() {
    let near = "a.k = b.k AND a.ts = b.ts";
    let sql = [
        "SELECT a.v FROM a JOIN b ON a.k = b.k".to_owned(),
        "SELECT a.v\nFROM a,\n  b".to_owned(),
        "SELECT a.v FROM a CROSS JOIN b".to_owned(),
        "SELECT a.v FROM a JOIN b ON a.k = b.k AND b.ts <= a.ts".to_owned(),
        "SELECT x.v FROM a x\n JOIN a y ON x.k = y.k AND y.ts >= x.ts".to_owned(),
        "SELECT a.v FROM a JOIN b ON b.ts BETWEEN a.ts AND a.ts + INTERVAL '1' HOUR".to_owned(),
        "SELECT a.v FROM a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '1' MONTH AND a.ts".to_owned(),
        "SELECT a.v FROM a JOIN b ON a.k = b.k AND (a.ts = b.ts OR a.v = 1)".to_owned(),
        "SELECT a.v FROM a JOIN b ON make_array(a.k) = make_array(b.k) AND a.ts = b.ts".to_owned(),
        format!("SELECT a.v FROM a LEFT JOIN b ON {near} LEFT JOIN c ON a.k = c.k"),
        "SELECT a.v FROM a\n FULL JOIN b USING (k)".to_owned(),
        "SELECT a.v FROM a FULL JOIN b ON a.k = b.k".to_owned(),
        "SELECT a.v FROM a NATURAL JOIN b".to_owned(),
        format!("SELECT a.v FROM a RIGHT SEMI JOIN b ON {near}"),
        format!("SELECT count(*) AS n FROM a JOIN b ON {near}"),
        format!("SELECT DISTINCT a.v FROM a JOIN b ON {near}"),
        format!("SELECT a.v FROM a JOIN b ON {near} ORDER BY a.v"),
        format!("SELECT a.v FROM a JOIN b ON {near} LIMIT 3"),
        format!("SELECT a.v FROM a JOIN b ON {near}\nUNION SELECT v FROM a"),
        "SELECT v FROM a EXCEPT SELECT v FROM b".to_owned(),
        "SELECT v FROM a INTERSECT ALL SELECT v FROM b".to_owned(),
        "SELECT v FROM a UNION ALL BY NAME SELECT v FROM b".to_owned(),
        "SELECT v FROM a UNION ALL SELECT v, k FROM b".to_owned(),
        "SELECT v FROM a UNION ALL SELECT a.v FROM a JOIN b ON a.k = b.k".to_owned(),
        "SELECT v FROM a UNION ALL (SELECT v FROM b LIMIT 1)".to_owned(),
        "SELECT a.v FROM a JOIN (SELECT v, k, ts FROM b UNION ALL SELECT v, k, CAST(s AS TIMESTAMP) FROM c) u ON a.k = u.k AND a.ts = u.ts"
            .to_owned(),
        format!("SELECT row_number() OVER (ORDER BY a.v) AS n FROM a JOIN b ON {near}"),
        format!("SELECT random() AS r FROM a JOIN b ON {near}"),
        "SELECT a.v FROM a WHERE a.k NOT IN (SELECT k FROM b)".to_owned(),
        "SELECT a.v FROM a WHERE a.k IN (SELECT b.k FROM b WHERE a.ts = b.ts)".to_owned(),
        format!("SELECT a.v, (SELECT b.v FROM b WHERE {near}) AS w FROM a"),
        format!("SELECT a.v FROM a WHERE a.v = 1 OR EXISTS (SELECT 1 FROM b WHERE {near})"),
        format!("SELECT EXISTS (SELECT 1 FROM b WHERE {near}) AS e FROM a"),
        "SELECT a.v FROM a WHERE EXISTS (SELECT 1 FROM b)".to_owned(),
        "SELECT a.v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.v = 1 OR a.k = b.k)".to_owned(),
        format!("SELECT a.v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE {near} LIMIT 1)"),
        format!("SELECT a.v FROM a WHERE EXISTS (SELECT max(b.v) FROM b WHERE {near})"),
        "SELECT a.v FROM a JOIN LATERAL (SELECT 1 FROM b WHERE b.k = a.k) x ON true".to_owned(),
        format!("SELECT * FROM a JOIN b ON {near}"),
        format!("SELECT a.v, b.v FROM a JOIN b ON {near}"),
        "SELECT k FROM a JOIN b USING (nosuch) WHERE a.ts = b.ts".to_owned(),
        format!("SELECT v FROM a JOIN b ON {near}"),
    ];
    shown("unbounded", sql.into_iter().map(|sql| (sql.clone(), plan(&sql).expect_err(&sql))));
}

#[test]
fn what_is_not_grouped_by_windows_of_the_anchor_is_refused_with_what_to_write() {
    let near = "a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '1' HOUR";
    let hour = "date_trunc('hour', a.ts)";
    let by = |by: &str| format!("SELECT count(*) AS n\nFROM a\nGROUP BY {by}");
    let of = |what: &str| format!("SELECT {what} AS x FROM a GROUP BY {hour}");
    let mut sql = vec![
        "SELECT count(*) AS n FROM a".to_owned(),
        "SELECT max(v) + 1 AS n FROM a".to_owned(),
        by("k"),
        by("ts"),
        by("CAST(ts AS DATE)"),
        by("date_trunc('hour', ts + INTERVAL '1' HOUR)"),
        by("date_trunc('hour', CAST(ts AS TIMESTAMP(0)))"),
        by("date_trunc('month', ts)"),
        by("date_trunc('quarter', ts)"),
        by("date_trunc('year', ts)"),
        by("date_bin(INTERVAL '1' MONTH, ts)"),
        by("extract(hour FROM ts)"),
        by("date_trunc(s, ts)"),
        by("ALL"),
        by("ROLLUP (date_trunc('hour', ts))"),
        by("GROUPING SETS ((date_trunc('hour', ts)), (k))"),
        by("CUBE (date_trunc('hour', ts), k)"),
        by("date_trunc('hour', ts), random()"),
        by("date_trunc('hour', ts) ORDER BY 1"),
        "SELECT k FROM a HAVING true".to_owned(),
        format!("SELECT count(*) AS n FROM a JOIN b ON {near} GROUP BY date_trunc('hour', b.ts)"),
        format!("SELECT count(*) AS n FROM a LEFT JOIN b ON a.k = b.k AND a.ts = b.ts GROUP BY date_trunc('hour', b.ts)"),
        format!("SELECT count(*) AS n FROM a RIGHT JOIN b ON {near} GROUP BY {hour}"),
        format!("SELECT a.k, x.n FROM a JOIN (SELECT k, date_trunc('hour', ts) AS h, count(*) AS n FROM b GROUP BY 1, 2) x ON a.k = x.k AND x.h = {hour}"),
        format!("SELECT a.k FROM a WHERE EXISTS (SELECT max(b.v) FROM b WHERE {near} GROUP BY date_trunc('hour', b.ts))"),
        format!("SELECT max(n) AS n FROM (SELECT {hour} AS h, k, count(*) AS n FROM a GROUP BY 1, 2) GROUP BY k"),
        format!("SELECT max(n) AS n FROM (SELECT {hour} AS h, k, count(*) AS n FROM a GROUP BY 1, 2) GROUP BY date_trunc('day', h)"),
        "SELECT max(n) AS n FROM (SELECT date_bin(INTERVAL '2 hours', ts) AS p, date_bin(INTERVAL '3 hours', ts) AS q, count(*) \
         AS n FROM a GROUP BY 1, 2) GROUP BY q"
            .to_owned(),
        format!("SELECT sum(count(*)) AS n FROM a GROUP BY {hour}"),
        format!("SELECT sum(v) OVER () AS n FROM a GROUP BY {hour}, v"),
        format!("SELECT v FROM a GROUP BY {hour}"),
        "SELECT date_trunc('hour', ts) AS h, count(*) AS n FROM (SELECT ts FROM a UNION ALL SELECT ts + INTERVAL '1' HOUR FROM b) \
         GROUP BY 1"
            .to_owned(),
        "SELECT h, count(*) AS n FROM (SELECT date_bin(INTERVAL '2 hours', ts) AS h FROM a UNION ALL SELECT date_bin(INTERVAL \
         '3 hours', ts) FROM b) GROUP BY 1"
            .to_owned(),
        format!("SELECT {hour} AS h, count(*) AS n FROM a FULL JOIN b ON {near} GROUP BY 1"),
    ];
    let starts = |starts: &str| format!("SELECT w, count(*) AS n\nFROM (SELECT {starts} AS w, k FROM a)\nGROUP BY w");
    sql.extend(
        [
            "unnest([ts])",
            "unnest(range(date_bin(INTERVAL '1' HOUR, ts), ts, INTERVAL '1' HOUR))",
            "unnest(generate_series(1, 3))",
            "unnest(generate_series(v, v + 3, 1))",
            "unnest(generate_series(ts - INTERVAL '2' HOUR, ts, INTERVAL '1' HOUR))",
            "unnest(generate_series(date_trunc('hour', ts), date_trunc('hour', ts) - INTERVAL '1' HOUR, INTERVAL '1' HOUR))",
            "unnest(generate_series(date_trunc('hour', ts) - INTERVAL '2' HOUR, date_trunc('day', ts), INTERVAL '1' HOUR))",
            "unnest(generate_series(date_trunc('hour', ts) - INTERVAL '2' HOUR, date_trunc('hour', ts), INTERVAL '30' MINUTE))",
            "unnest(generate_series(date_trunc('hour', ts) - INTERVAL '1001' HOUR, date_trunc('hour', ts), INTERVAL '1' HOUR))",
            "unnest(generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2260-01-01', INTERVAL '1' SECOND))",
            "unnest(generate_series(date_trunc('hour', now()) - INTERVAL '2' HOUR, date_trunc('hour', now()), INTERVAL '1' HOUR))",
            "generate_series(date_trunc('hour', ts) - INTERVAL '2' HOUR, date_trunc('hour', ts), INTERVAL '1' HOUR)",
        ]
        .map(starts),
    );
    let hops = "SELECT unnest(generate_series(date_trunc('hour', ts) - INTERVAL '2' HOUR, date_trunc('hour', ts), INTERVAL '1' HOUR))";
    sql.push(format!("SELECT count(*) AS n FROM ({hops} AS w, k FROM a) GROUP BY k"));
    sql.push(format!("SELECT h.w, b.v FROM ({hops} AS w, k, ts FROM a) h JOIN b ON h.k = b.k AND h.ts = b.ts"));
    sql.push(format!("{hops} AS w, unnest([k]) AS k FROM a"));
    sql.extend(
        [
            "array_agg(v)",
            "string_agg(s, ',')",
            "first_value(v)",
            "first_value(v ORDER BY ts)",
            "last_value(v)",
            "nth_value(v, 2)",
            "approx_distinct(v)",
            "approx_median(v)",
            "percentile_cont(v, 0.5)",
            "regr_slope(v, k)",
            "sum(v ORDER BY ts)",
            "max(DISTINCT v)",
            "median(DISTINCT v)",
            "sum(random())",
            "sum(v) FILTER (WHERE random() > 0.5)",
            "cont(v)",
        ]
        .map(of),
    );
    shown("groups", sql.into_iter().map(|sql| (sql.clone(), plan(&sql).expect_err(&sql))));
}

#[test]
fn a_source_whose_event_time_is_no_utc_column_is_named() {
    let timeless = |name: &str| {
        let all = sources().into_iter();
        let told = |(source, table): (String, SourceTable)| match source == name {
            true => (source, table.schema.into()),
            false => (source, table),
        };
        all.map(told).collect::<BTreeMap<String, SourceTable>>()
    };
    let sql = "SELECT a.v FROM a JOIN b ON a.k = b.k AND a.ts = b.ts";
    let refused = |name| (format!("{name}: {sql}"), Query::plan("out", Some(sql), &timeless(name), NOW).unwrap_err());
    shown("timeless", ["a", "b"].into_iter().map(refused));
}

#[test]
fn sql_made_to_exhaust_the_planner_is_refused() {
    let on = "x.k = y.k AND x.ts = y.ts";
    let doubled = |levels: usize| {
        let with: Vec<_> = (1..levels)
            .map(|n| format!("c{n} AS (SELECT x.k, x.ts FROM c{} x JOIN c{} y ON {on})", n - 1, n - 1))
            .collect();
        format!("WITH c0 AS (SELECT k, ts FROM a), {} SELECT k FROM c{}", with.join(", "), levels - 1)
    };
    let chained = |joins: usize| {
        let joins: String = (1..=joins).map(|n| format!(" JOIN a x{n} ON x0.k = x{n}.k AND x0.ts = x{n}.ts")).collect();
        format!("SELECT x0.k FROM a x0{joins}")
    };
    let exists = |levels: usize| {
        (0..levels).fold("SELECT 1 FROM a".to_owned(), |sql, _| format!("SELECT 1 FROM a x WHERE EXISTS ({sql})"))
    };
    for sql in [
        doubled(6),
        doubled(200),
        chained(16),
        chained(400),
        exists(20),
        format!("SELECT a.k FROM a{}", ", a".repeat(3_000)),
        format!("SELECT a.k FROM a WHERE {}", "EXISTS (SELECT 1 FROM b) AND ".repeat(30) + "true"),
        format!(
            "WITH n AS (SELECT 1 FROM a, a) SELECT 1 FROM n, (WITH n AS (SELECT 1 FROM a) SELECT 1 FROM n){}",
            ", n".repeat(9)
        ),
    ] {
        let error = plan(&sql).expect_err(&sql);
        assert!(error.to_string().contains("more than 16 times"), "{sql:.80}: {error}");
    }
    let deep = (0..12).fold("x.v".to_owned(), |sum, _| format!("({sum}) + ({sum})"));
    let error = plan(&format!("SELECT x.v FROM a x JOIN a y ON {on} AND {deep} > 0")).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    let mut inner = "SELECT k, ts, v FROM a".to_owned();
    for _ in 0..20 {
        inner = format!("SELECT k, ts, v + v + v + v AS v FROM ({inner})");
    }
    let multiplied = format!("SELECT x.k FROM ({inner}) x WHERE EXISTS (SELECT 1 FROM a y WHERE {on} AND y.v = x.v)");
    let error = plan(&multiplied).unwrap_err();
    assert!(error.to_string().contains("parts"), "{error}");
    plan(&chained(15)).unwrap();
    plan(&doubled(5)).unwrap();
}
