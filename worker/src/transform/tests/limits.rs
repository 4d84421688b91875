//! Given SQL made to exhaust the planner, when it is planned, then it is refused, and the caller's stack is whole.

use super::plan;
use crate::transform::QueryError;

fn refused(sql: &str) -> String {
    match plan(sql) {
        Err(error @ (QueryError::Refused { .. } | QueryError::Syntax { .. })) => error.to_string(),
        other => panic!("{:.80}…: {other:?}", sql),
    }
}

#[test]
fn given_too_long_a_text_then_it_is_refused() {
    assert!(refused(&format!("SELECT ts FROM clicks -- {}", "x".repeat(70_000))).contains("bytes"));
    assert!(refused(&format!("SELECT ts FROM clicks WHERE item_id IN (1{})", ",1".repeat(9_000))).contains("words"));
}

#[test]
fn given_deep_expressions_then_they_are_refused() {
    for sql in [
        format!("SELECT {}1{} AS x FROM clicks", "(".repeat(500), ")".repeat(500)),
        format!("SELECT {}ts{} AS x FROM clicks", "[".repeat(500), "]".repeat(500)),
        format!("SELECT {}true AS x FROM clicks", "NOT ".repeat(4_000)),
        format!("SELECT {}1 AS x FROM clicks", "- ".repeat(4_000)),
        format!("SELECT 1{} AS x FROM clicks", " + 1".repeat(4_000)),
        format!("SELECT item_id{} AS x FROM clicks", "::BIGINT".repeat(2_000)),
        format!("SELECT {}1{} AS x FROM clicks", "CASE WHEN true THEN ".repeat(1_500), " END".repeat(1_500)),
        format!("SELECT ts FROM {}clicks{}", "(".repeat(30), ")".repeat(29)),
        format!("SELECT ts FROM {}SELECT ts FROM clicks{}", "(".repeat(30), ")".repeat(29)),
        format!("SELECT {}ts{} AS x FROM clicks", "(".repeat(30), ")".repeat(29)),
        format!("SELECT {}ts{} AS x FROM clicks", "upper(".repeat(30), ")".repeat(29)),
        format!("SELECT ts FROM clicks WHERE {}ts{}", "ts IN (".repeat(30), ")".repeat(29)),
        format!("SELECT {}1{} AS x FROM clicks", "{a: ".repeat(30), "}".repeat(29)),
        format!("SELECT ts FROM {}clicks{} x", "(clicks JOIN ".repeat(30), ")".repeat(29)),
        format!("SELECT ts FROM clicks {}", "UNION SELECT ts FROM clicks ".repeat(1_500)),
        format!("SELECT ts FROM clicks {}", "UNION ALL SELECT ts FROM clicks ".repeat(1_300)),
    ] {
        refused(&sql);
    }
}

#[test]
fn given_inner_selects_that_multiply_then_they_are_refused() {
    let mut sql = "SELECT item_id AS a FROM clicks".to_owned();
    for _ in 0..20 {
        sql = format!("SELECT a + a + a + a AS a FROM ({sql})");
    }
    assert!(refused(&format!("SELECT a FROM ({sql}) WHERE a > 0")).contains("parts"));
    let mut sql = "SELECT item_id AS a FROM clicks".to_owned();
    for _ in 0..28 {
        sql = format!("SELECT a{} AS a FROM ({sql})", " + 1".repeat(20));
    }
    assert!(refused(&sql).contains("levels"));
}

#[test]
fn given_an_expression_just_inside_the_limits_then_it_runs_on_a_small_stack() {
    let sql = format!("SELECT item_id{} AS x FROM clicks", " + 1.5".repeat(250));
    let query = plan(&sql).unwrap();
    let batch = super::runs::clicks_batch().project(query.columns()).unwrap();
    let rows = query.start(batch.schema()).unwrap().push(batch).unwrap();
    assert_eq!(rows.num_rows(), 4);
}
