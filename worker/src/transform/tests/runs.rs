//! Given a planned query, when batches are pushed, then the result is exact, typed and as cheap as it can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Date32Type, Field, Int32Type, Int64Type, Schema, TimestampNanosecondType};

use super::{NOW, clicks_schema, plan};
use crate::failure::{Class, Classify, chain};
use crate::transform::Query;

pub(super) fn clicks_batch() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(1), None, Some(3)]).with_timezone("UTC")),
        Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), Some(0)])),
        Arc::new(Int32Array::from(vec![Some(10), None, Some(30), Some(40)])),
        Arc::new(StringArray::from(vec![Some("view"), Some("share"), None, Some("buy")])),
        Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), Some(3.0), None])),
        Arc::new(StringViewArray::from(vec![
            Some("/a"),
            Some("/b"),
            Some("/c"),
            Some("/a rather long path, out of line"),
        ])),
        Arc::new(StringArray::from(vec![Some("x"); 4])),
    ];
    RecordBatch::try_new(clicks_schema(), columns).unwrap()
}

/// The result over the whole batch, all columns offered.
fn run(sql: &str) -> RecordBatch {
    let query = plan(sql).unwrap();
    let rows = query.start(clicks_schema()).unwrap().push(clicks_batch()).unwrap();
    assert_eq!(rows.schema(), query.schema());
    rows
}

#[test]
fn given_plain_columns_then_they_are_passed_without_a_copy() {
    let batch = clicks_batch();
    let query = plan("SELECT kind AS k, user_id FROM clicks WHERE user_id >= 0").unwrap();
    let rows = query.start(clicks_schema()).unwrap().push(batch.clone()).unwrap();
    assert!(rows.column(0).to_data().ptr_eq(&batch.column(3).to_data()));
    assert!(rows.column(1).to_data().ptr_eq(&batch.column(1).to_data()));
}

#[test]
fn given_a_filter_then_null_is_not_true_and_rows_keep_their_order() {
    let rows = run("SELECT user_id, upper(kind) AS k, price * 1.2 AS p, url FROM clicks WHERE kind <> 'share'");
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[1, 0]);
    assert_eq!(rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["VIEW", "BUY"]);
    assert_eq!(rows.column(3).as_string::<i32>().value(1), "/a rather long path, out of line");
}

#[test]
fn given_only_the_columns_asked_for_or_more_in_another_order_then_they_are_found_by_name() {
    let query = plan("SELECT item_id FROM clicks WHERE kind = 'buy'").unwrap();
    for order in [vec![2, 3], vec![5, 3, 0, 2]] {
        let batch = clicks_batch().project(&order).unwrap();
        let rows = query.start(batch.schema()).unwrap().push(batch).unwrap();
        assert_eq!(rows.column(0).as_primitive::<Int32Type>().values(), &[40]);
    }
}

#[test]
fn given_a_query_that_needs_no_column_then_rows_are_still_counted() {
    let query = plan("SELECT 7 AS seven FROM clicks").unwrap();
    let none = clicks_batch().project(query.columns()).unwrap();
    assert_eq!(query.start(none.schema()).unwrap().push(none).unwrap().num_rows(), 4);
    assert_eq!(run("SELECT 7 AS seven FROM clicks WHERE kind = 'buy'").num_rows(), 1);
    assert_eq!(run("SELECT ts FROM clicks WHERE false").num_rows(), 0);
}

#[test]
fn given_inner_selects_then_each_stage_sees_the_one_below() {
    let sql = "SELECT k || '!' AS k FROM (SELECT upper(kind) AS k, price / 2 AS half FROM clicks WHERE user_id > 0) WHERE half < 1 AND k <> 'SHARE'";
    assert_eq!(run(sql).column(0).as_string::<i32>().value(0), "VIEW!");
}

#[test]
fn given_now_then_it_is_the_time_of_the_plan() {
    let rows = run(
        "SELECT now() AS n, current_timestamp AS c, current_date AS d, current_timestamp() AS e FROM clicks WHERE ts < now()",
    );
    assert_eq!(rows.num_rows(), 3);
    assert_eq!(rows.column(0).as_primitive::<TimestampNanosecondType>().value(0), NOW * 1000);
    assert_eq!(rows.column(1).as_primitive::<TimestampNanosecondType>().value(0), NOW * 1000);
    assert_eq!(i64::from(rows.column(2).as_primitive::<Date32Type>().value(0)), NOW / 86_400_000_000);
}

#[test]
fn given_an_expression_that_fails_on_a_row_then_the_error_is_poison_and_says_so() {
    let mut text = String::new();
    for sql in ["SELECT 10 / user_id AS q FROM clicks", "SELECT CAST(kind AS BIGINT) AS n FROM clicks"] {
        let error = plan(sql).unwrap().start(clicks_schema()).unwrap().push(clicks_batch()).unwrap_err();
        assert_eq!(error.class(), Class::Poison);
        text.push_str(&format!("{}\n", chain(&error)));
    }
    insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!("failures", text) });
    assert_eq!(run("SELECT 10 / user_id AS q FROM clicks WHERE user_id > 0").num_rows(), 3);
}

#[test]
fn given_views_inside_lists_structs_and_maps_then_they_are_plain_too() {
    let rows = run("SELECT make_array(url) AS l, named_struct('u', url) AS s, map([user_id], [url]) AS m FROM clicks");
    assert!(!format!("{:?}", rows.schema()).contains("View"), "{:?}", rows.schema());
    assert_eq!(rows.column(0).as_list::<i32>().value(1).as_string::<i32>().value(0), "/b");
    assert_eq!(rows.column(1).as_struct().column(0).as_string::<i32>().value(2), "/c");
    assert_eq!(rows.column(2).as_map().values().as_string::<i32>().value(0), "/a");
}

#[test]
fn given_a_started_query_then_it_can_move_to_another_thread() {
    let mut running = plan("SELECT kind FROM clicks").unwrap().start(clicks_schema()).unwrap();
    let rows = std::thread::spawn(move || running.push(clicks_batch()).unwrap().num_rows()).join().unwrap();
    assert_eq!(rows, 4);
}

#[test]
fn given_an_end_of_time_that_a_kernel_cannot_count_then_the_error_is_poison() {
    let end_of_time = TimestampMicrosecondArray::from(vec![253_402_300_799_999_999]).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([("ts", Arc::new(end_of_time) as ArrayRef)]).unwrap();
    let query = plan("SELECT date_trunc('hour', ts) AS h FROM clicks").unwrap();
    let error = query.start(batch.schema()).unwrap().push(batch).unwrap_err();
    assert_eq!(error.class(), Class::Poison);
    assert!(chain(&error).contains("overflow"), "{}", chain(&error));
}

#[test]
fn given_a_column_of_the_source_then_its_copies_are_found_through_aliases_filters_and_inner_selects() {
    for (sql, expected) in [
        ("SELECT * FROM clicks", vec!["ts"]),
        ("SELECT user_id, ts AS at, ts AS again, ts + INTERVAL '1 hour' AS later FROM clicks", vec!["at", "again"]),
        (
            "SELECT kind, t AS at FROM (SELECT ts AS t, kind FROM clicks WHERE user_id > 0) WHERE kind <> 'x'",
            vec!["at"],
        ),
        ("SELECT t FROM (SELECT user_id AS ts, ts AS t FROM clicks WHERE user_id > 1)", vec!["t"]),
        ("SELECT date_trunc('hour', ts) AS ts FROM clicks", vec![]),
        ("SELECT CAST(ts AS DATE) AS ts, user_id FROM clicks", vec![]),
        ("SELECT coalesce(ts, now()) AS ts FROM clicks", vec![]),
        ("SELECT user_id AS ts FROM clicks", vec![]),
        ("SELECT ts FROM clicks WHERE false", vec![]),
    ] {
        assert_eq!(plan(sql).unwrap().copies_of("ts"), expected, "{sql}");
    }
    assert!(plan("SELECT * FROM clicks").unwrap().copies_of("nothing").is_empty());
}

#[test]
fn given_a_dictionary_then_the_result_has_its_values() {
    let words: ArrayRef = Arc::new(vec!["a", "b", "a"].into_iter().collect::<DictionaryArray<Int32Type>>());
    let batch = RecordBatch::try_from_iter([("word", words)]).unwrap();
    let sources = BTreeMap::from([("t".to_owned(), batch.schema().into())]);
    let query = Query::plan("out", Some("SELECT word FROM t WHERE word = 'a'"), &sources, NOW).unwrap();
    let rows = query.start(batch.schema()).unwrap().push(batch).unwrap();
    assert_eq!(rows.schema(), query.schema());
    assert_eq!(rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "a"]);
}

#[test]
fn given_a_column_that_is_declared_without_nulls_when_one_comes_then_the_error_is_poison() {
    let strict = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let lax = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let query = Query::plan("out", None, &BTreeMap::from([("t".to_owned(), strict.into())]), NOW).unwrap();
    assert!(!query.schema().field(0).is_nullable());
    let batch = RecordBatch::try_new(Arc::clone(&lax), vec![Arc::new(Int64Array::from(vec![None]))]).unwrap();
    let error = query.start(lax).unwrap().push(batch).unwrap_err();
    assert_eq!(error.class(), Class::Poison);
}

#[test]
fn given_rows_of_another_schema_then_the_error_names_the_column() {
    let query = plan("SELECT user_id FROM clicks").unwrap();
    let missing = query.start(Arc::new(Schema::empty())).unwrap_err();
    assert_eq!(missing.to_string(), "output cleaned: column user_id is missing; the SQL was planned for Int64");
    let other = Arc::new(Schema::new(vec![Field::new("user_id", DataType::Utf8, true)]));
    let changed = query.start(other).unwrap_err();
    assert_eq!(changed.to_string(), "output cleaned: column user_id is Utf8; the SQL was planned for Int64");
    assert_eq!(changed.class(), Class::Poison);
    let short = query.start(clicks_schema()).unwrap().push(clicks_batch().project(&[1]).unwrap()).unwrap_err();
    assert_eq!(short.to_string(), "output cleaned: a batch has 1 columns, not 7");
}
