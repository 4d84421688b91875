//! What becomes of rows that come when their slice is joined.

use super::*;
use crate::ids::OutputIx;

const LATE: &str = "\
version: 1
kind: backfill
name: attributed
window: {from: 2013-01-01, to: 2014-01-01}
sources:
  plays:
    kafka:
      topic: plays
      properties: {bootstrap.servers: \"localhost:9092\"}
      scan: {start: earliest, stop: latest}
      format: {type: json, schema: [{name: ts, type: timestamptz}, {name: who, type: bigint}]}
    event_time: {column: ts, out_of_orderness: 60m, on_disorder: allow}
  users:
    files: {path: users/*.parquet}
    event_time: {column: ts}
outputs:
  attributed: {table: a.b, sql: \"SELECT who FROM Plays p JOIN users USING (ts)\"}
  users_only: {table: a.c, sql: SELECT * FROM users}
";

/// The tables of late rows that the spec has, and whose they are.
fn tables(text: &str) -> Vec<String> {
    let resolved = check(text).unwrap();
    let of = |ix: OutputIx| resolved.output(ix).unwrap().name.clone();
    let kept = resolved.outputs.iter().filter_map(|output| Some((output, output.late_of?)));
    kept.map(|(output, ix)| format!("{} {} of {}", output.name, output.table, of(ix))).collect()
}

fn attributed(late: &str) -> String {
    LATE.replacen("{table: a.b,", &format!("{{table: a.b, late: {late},"), 1)
}

#[test]
fn given_a_source_that_may_break_its_order_then_what_names_it_has_a_table_of_late_rows() {
    assert_eq!(tables(LATE), ["attributed__late a.b__late of attributed"]);
    assert_eq!(tables(&LATE.replace(", on_disorder: allow", "")), [""; 0], "nothing can be late");
    assert_eq!(tables(&attributed("{table: lake.x.y}")), ["attributed__late lake.x.y of attributed"]);
    assert_eq!(tables(&attributed("{policy: drop}")), [""; 0]);
    assert_eq!(tables(&attributed("{policy: include}")), [""; 0]);
    let both = LATE.replace("SELECT * FROM users", "SELECT * FROM plays");
    assert_eq!(tables(&both).len(), 2, "whether it goes row by row is not known here");
    let policy = |text: &str| check(text).unwrap().outputs[0].late.policy;
    assert_eq!([policy(LATE), policy(&attributed("{policy: drop}"))], [LatePolicy::SideOutput, LatePolicy::Drop]);
}

#[test]
fn given_a_source_without_a_query_then_its_rows_are_never_late() {
    let (head, tail) = LATE.split_once("  users:\n").unwrap();
    let outputs = tail
        .split_once("outputs:\n")
        .unwrap()
        .1
        .replace(", sql: \"SELECT who FROM Plays p JOIN users USING (ts)\"", "");
    let one = format!("{head}outputs:\n{}", outputs.split_once("  users_only").unwrap().0);
    assert_eq!(tables(&one), [""; 0]);
}

#[test]
fn given_late_behind_dead_letters_then_the_order_of_outputs_is_that_of_the_kinds() {
    let text = LATE.replace("on_disorder: allow}", "on_disorder: allow}\n    on_error: dead_letter");
    let names: Vec<String> = check(&text).unwrap().outputs.into_iter().map(|output| output.name).collect();
    assert_eq!(names, ["attributed", "users_only", "plays__dead_letter", "attributed__late"]);
}

#[test]
fn what_says_nothing_new_is_the_same_backfill() {
    let id = |text: &str| backfill_id("here", &check(text).unwrap());
    assert_eq!(id(&attributed("{}")), id(LATE));
    assert_ne!(id(&attributed("{policy: drop}")), id(LATE));
    assert_eq!(id(&attributed("{table: ' x.y '}")), id(&attributed("{table: x.y}")));
}

#[test]
fn late_rows_that_cannot_be_kept_are_refused() {
    let bad = |late: &str| errors(&attributed(late));
    insta::assert_snapshot!(bad("{policy: dropp}"), @"spec.yaml:17:43: outputs.attributed.late.policy: unknown value `dropp`; did you mean `drop`?");
    insta::assert_snapshot!(bad("{policy: drop, table: x.y}"), @"spec.yaml:17:56: outputs.attributed.late.table: only `policy: side_output` keeps late rows in a table; take one of the two away");
    insta::assert_snapshot!(bad("{policy: include, table: x.y}"), @"spec.yaml:17:59: outputs.attributed.late.table: only `policy: side_output` keeps late rows in a table; take one of the two away");
    insta::assert_snapshot!(bad("{table: x}"), @"spec.yaml:17:42: outputs.attributed.late.table: `x` is not the name of a table: it has 1 parts; write `namespace.table` or `catalog.namespace.table`");
    insta::assert_snapshot!(bad("{table: a.c}"), @"spec.yaml:17:28: outputs.attributed.late: its late rows would go to a.c, which `users_only` writes; name another `table`");
    insta::assert_snapshot!(bad("{table: a.b}"), @"spec.yaml:17:28: outputs.attributed.late: its late rows would go to a.b, which `attributed` writes; name another `table`");
    insta::assert_snapshot!(bad("{kind: drop}"), @"spec.yaml:17:35: outputs.attributed.late: unknown key `kind`; expected one of policy, table");
    insta::assert_snapshot!(errors(&LATE.replace("users_only", "attributed__late")), @"spec.yaml:17:3: outputs.attributed: `attributed__late` is what the output of its late rows is called; give the output of that name another one");
}
