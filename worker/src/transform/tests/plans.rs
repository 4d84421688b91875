//! Given SQL on the closed list, when it is planned, then the reader learns what to read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::{NOW, clicks, plan};
use crate::transform::{Query, read_columns};

fn filters(sql: &str) -> Vec<String> {
    plan(sql).unwrap().filters().iter().map(ToString::to_string).collect()
}

#[test]
fn given_no_sql_then_everything_is_read() {
    let query = Query::plan("cleaned", None, &clicks(), NOW).unwrap();
    assert_eq!(query.source(), "clicks");
    assert_eq!(query.columns(), [0, 1, 2, 3, 4, 5, 6]);
    assert!(query.filters().is_empty());
    let odd = BTreeMap::from([("Odd \"name\"".to_owned(), super::clicks_schema().into())]);
    assert_eq!(Query::plan("cleaned", None, &odd, NOW).unwrap().source(), "Odd \"name\"");
}

#[test]
fn given_a_projection_then_only_its_columns_and_those_of_the_filter_are_read() {
    let query = plan("SELECT url AS u, user_id FROM clicks WHERE kind <> 'share'").unwrap();
    assert_eq!(query.columns(), [1, 3, 5]);
    assert_eq!(query.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["u", "user_id"]);
    let other = plan("SELECT item_id FROM clicks").unwrap();
    assert_eq!(read_columns([&query, &other]), [1, 2, 3, 5]);
    assert_eq!(read_columns([]), Vec::<usize>::new());
    assert_eq!(plan("SELECT 1 AS one FROM clicks").unwrap().columns(), Vec::<usize>::new());
}

#[test]
fn given_views_then_the_result_has_plain_types() {
    let query = plan("SELECT url, substr(kind, 1, 2) AS k, CAST(price AS VARCHAR) AS p, ts FROM clicks").unwrap();
    let types: Vec<_> = query.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(types, [DataType::Utf8, DataType::Utf8, DataType::Utf8, stamp]);
}

#[test]
fn given_conditions_then_those_on_the_sources_columns_can_prune() {
    assert_eq!(
        filters("SELECT ts FROM clicks c WHERE c.item_id > 3 AND kind = 'x'"),
        ["item_id > Int32(3)", "kind = Utf8(\"x\")"]
    );
    let nested = "SELECT n FROM (SELECT item_id AS n, upper(kind) AS k FROM clicks) WHERE n BETWEEN 2 AND 3";
    assert_eq!(filters(nested), ["item_id >= Int32(2)", "item_id <= Int32(3)"]);
    assert_eq!(filters("SELECT ts FROM clicks WHERE true"), Vec::<String>::new());
}

#[test]
fn given_a_condition_that_is_never_true_then_nothing_is_read() {
    for sql in [
        "SELECT ts, kind FROM clicks WHERE false",
        "SELECT ts, kind FROM clicks WHERE 1 = 2",
        "SELECT ts, kind FROM clicks WHERE NULL",
    ] {
        let query = plan(sql).unwrap();
        assert_eq!(query.source(), "clicks");
        assert_eq!(query.columns(), Vec::<usize>::new(), "{sql}");
        assert_eq!(filters(sql), ["Boolean(false)"]);
        assert_eq!(query.schema().fields().len(), 2);
    }
}

#[test]
fn given_inner_selects_and_aliases_then_they_are_planned() {
    for sql in [
        "WITH recent AS (SELECT * FROM clicks WHERE item_id > 1) SELECT r.kind FROM recent AS r WHERE r.price > 1",
        "WITH clicks AS (SELECT ts FROM clicks) SELECT * FROM clicks",
        "SELECT k FROM (SELECT kind FROM clicks) AS t(k)",
        "(SELECT kind FROM clicks);",
        "SELECT * EXCLUDE (ts) FROM clicks",
        "SELECT \"userAgent\" FROM CLICKS",
        "SELECT lpad(kind, 8, '0') AS k FROM clicks",
        "SELECT date_bin(INTERVAL '15 minutes', ts) AS b, date_trunc('hour', ts) AS h FROM clicks",
        "SELECT count FROM (SELECT item_id AS count FROM clicks)",
    ] {
        plan(sql).expect(sql);
    }
}

#[test]
fn given_a_filter_and_a_projection_then_they_are_one_stage() {
    let sql = "SELECT ts, user_id, item_id, upper(kind), price*1.2, url FROM clicks WHERE kind <> 'share'";
    let query = plan(sql).unwrap();
    assert_eq!(query.columns(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(format!("{query:?}").matches("Stage {").count(), 1);
}

#[test]
fn given_a_wide_source_then_its_width_is_not_held_against_it() {
    let fields: Vec<_> = (0..700).map(|n| Field::new(format!("c{n}"), DataType::Int64, true)).collect();
    let wide = BTreeMap::from([("wide".to_owned(), Arc::new(Schema::new(fields)).into())]);
    let mut sql = "SELECT * FROM wide".to_owned();
    for _ in 0..29 {
        sql = format!("SELECT * FROM ({sql})");
    }
    assert_eq!(Query::plan("cleaned", Some(&sql), &wide, NOW).unwrap().columns().len(), 700);
}

#[test]
fn given_a_time_that_now_cannot_be_then_it_is_refused() {
    let error = Query::plan("cleaned", None, &clicks(), i64::MAX).unwrap_err();
    assert_eq!(
        error.to_string(),
        "output cleaned: now() cannot be 9223372036854775807 microseconds since 1970; take a time between 1678 and 2262"
    );
}
