//! Given SQL outside the closed list, when it is planned, then it is refused with the place and the way out.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{NOW, clicks, clicks_schema, plan};
use crate::failure::{Class, Classify, chain};
use crate::transform::Query;

/// Compares what is said about each statement with the snapshot `name`.
fn shown(name: &str, statements: &[&str]) {
    let mut text = String::new();
    for sql in statements {
        let error = plan(sql).expect_err(sql);
        assert_eq!(error.class(), Class::Fatal { exit_code: 3 }, "{sql}");
        writeln!(text, "{sql}\n    => {}\n", chain(&error)).unwrap();
    }
    insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!(name, text) });
}

#[test]
fn given_a_statement_that_is_no_query_then_it_is_refused() {
    shown(
        "statements",
        &[
            "",
            " ; ",
            "INSERT INTO clicks VALUES (1)",
            "CREATE TABLE x AS SELECT * FROM clicks",
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION 'secrets.csv'",
            "DROP TABLE clicks",
            "COPY clicks TO 'x.csv'",
            "EXPLAIN SELECT * FROM clicks",
            "SET datafusion.execution.batch_size = 1",
            "SHOW TABLES",
            "VALUES (1)",
            "(VALUES (1))",
            "TABLE clicks",
            "SELECT ts FROM clicks; SELECT ts FROM clicks",
            "WITH x AS (DELETE FROM clicks RETURNING *) SELECT * FROM x",
            "SELECT ts FRM clicks",
            "SELECT 'open FROM clicks",
            "SELECT ts INTO x FROM clicks",
        ],
    );
}

#[test]
fn given_a_construct_over_many_rows_then_it_is_refused_with_its_place() {
    shown(
        "constructs",
        &[
            "SELECT a.ts FROM clicks a JOIN clicks b ON a.ts = b.ts",
            "SELECT a.ts\nFROM clicks a,\n     users b",
            "SELECT a.ts FROM (clicks a CROSS JOIN clicks b)",
            "SELECT kind, count(*) FROM clicks GROUP BY kind",
            "SELECT kind FROM clicks GROUP BY ALL",
            "SELECT max(price) AS m FROM clicks",
            "SELECT kind FROM clicks HAVING true",
            "SELECT row_number() OVER (ORDER BY ts) AS n FROM clicks",
            "SELECT sum(price) OVER () AS n FROM clicks",
            "SELECT ts FROM clicks QUALIFY true",
            "SELECT DISTINCT kind FROM clicks",
            "SELECT ts FROM clicks ORDER BY ts",
            "SELECT ts FROM clicks LIMIT 10",
            "SELECT ts FROM clicks OFFSET 10",
            "SELECT ts FROM clicks FETCH FIRST 3 ROWS ONLY",
            "SELECT ts FROM (SELECT ts FROM clicks LIMIT 3)",
            "SELECT ts FROM clicks UNION SELECT ts FROM clicks",
            "SELECT ts FROM clicks EXCEPT SELECT ts FROM clicks",
            "SELECT ts FROM clicks WHERE price = (SELECT 1)",
            "SELECT (SELECT 1) AS one FROM clicks",
            "SELECT ts FROM clicks WHERE false AND user_id IN (SELECT 1)",
            "SELECT ts FROM clicks WHERE EXISTS (SELECT 1)",
            "SELECT unnest([1, 2]) AS x FROM clicks",
            "SELECT x FROM UNNEST([1, 2]) AS t(x)",
            "SELECT ts FROM clicks TABLESAMPLE (10 PERCENT)",
            "SELECT ts FROM clicks, LATERAL (SELECT 1)",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
            "SELECT 1 AS one",
            "SELECT * FROM (VALUES (1)) AS t(x)",
        ],
    );
}

#[test]
fn given_hostile_or_impure_sql_then_it_is_refused() {
    shown(
        "hostile",
        &[
            "SELECT random() AS r FROM clicks",
            "SELECT ts FROM clicks\n WHERE uuid() = kind",
            "SELECT repeat(kind, 1000000000) AS r FROM clicks",
            "SELECT range(1, 1000000000000) AS r FROM clicks",
            "SELECT lpad(kind, 2000000000) AS r FROM clicks",
            "SELECT rpad(kind, item_id) AS r FROM clicks",
            "SELECT * FROM generate_series(1, 10)",
            "SELECT * FROM 'secrets.csv'",
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM datafusion.public.clicks",
            "SELECT * FROM clicks WHERE kind = $1",
            "SELECT @@version AS v FROM clicks",
            "SELECT nosuch(kind) AS x FROM clicks",
            "SELECT uper(kind) AS x FROM clicks",
            "SELECT kind + INTERVAL '1 day' AS x FROM clicks",
        ],
    );
}

#[test]
fn given_a_name_that_is_not_there_then_the_error_says_what_is() {
    shown(
        "names",
        &[
            "SELECT * FROM click",
            "SELECT *\n  FROM orders",
            "SELECT ts, usr_id FROM clicks",
            "SELECT c.pric FROM clicks c",
            "SELECT userAgent FROM clicks",
            "SELECT ts FROM clicks WHERE kinds = 'x'",
            "SELECT users.ts FROM clicks",
            "SELECT price FROM (SELECT ts FROM clicks)",
        ],
    );
}

#[test]
fn given_two_columns_of_one_name_then_an_alias_is_asked_for() {
    shown(
        "twice",
        &[
            "SELECT ts, user_id AS ts FROM clicks",
            "SELECT ts, ts FROM clicks",
            "SELECT *, ts FROM clicks",
            "SELECT *, user_id AS ts FROM clicks",
            "SELECT upper(kind), upper(kind) FROM clicks",
            "SELECT x FROM (SELECT ts AS x, kind AS x FROM clicks)",
        ],
    );
}

#[test]
fn given_several_sources_when_there_is_no_sql_or_it_joins_then_it_is_refused() {
    let mut sources = clicks();
    sources.insert("users".to_owned(), clicks_schema().into());
    let mut text = String::new();
    for sql in
        [None, Some("SELECT c.ts FROM clicks c JOIN users u ON c.user_id = u.user_id"), Some("SELECT * FROM user")]
    {
        let error = Query::plan("cleaned", sql, &sources, NOW).expect_err("refused");
        writeln!(text, "{}", chain(&error)).unwrap();
    }
    writeln!(text, "{}", chain(&Query::plan("cleaned", None, &BTreeMap::new(), NOW).expect_err("refused"))).unwrap();
    insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!("several_sources", text) });
}
