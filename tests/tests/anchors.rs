//! SQL with several anchors, and windows that overlap, in real processes: the answer of another engine over all rows at
//! once, of which those count that are of the window.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use tidegate_tests::sandbox::{BEGIN, Check, DAY, Input, Other, World, must_be_exact};

const HOUR: i64 = DAY / 24;
const SPEC: &str = "spec.yaml";

fn rfc3339(micros: i64) -> String {
    tidegate_common::time::EventTime::from_micros(micros).to_string()
}

fn spec(name: &str, window: (i64, i64), sql: &str) -> String {
    format!(
        "version: 1\nkind: backfill\nname: {name}\nwindow: {{from: '{}', to: '{}'}}\nalignment: {{max_drift: 3d}}\n\
         sources:\n  plays: {{files: {{path: 'plays/*.parquet'}}, event_time: {{column: ts}}}}\n  \
         shows: {{files: {{path: 'shows/*.parquet'}}, event_time: {{column: ts}}}}\noutputs:\n  \
         out:\n    table: lake.{name}\n    sql: \"{sql}\"\n    join: {{slice: 6h}}\n",
        rfc3339(window.0),
        rfc3339(window.1),
    )
}

/// That the table `name` holds what `query` says of all rows.
fn check(world: &World, name: &str, query: String, id: &Value) -> Check {
    let files = |name: &str| vec![world.root().join(name).join("*.parquet").display().to_string()];
    Check {
        catalog: world.catalog(),
        table: format!("lake.{name}"),
        branch: None,
        input: files("plays"),
        others: vec![Other { name: "shows", input: files("shows"), window: (0, 4_000_000_000_000_000) }],
        query: Some(query.replace("FROM plays p", "FROM input p")),
        time: "ts",
        window: None,
        backfill: Some(id.as_str().unwrap().to_owned()),
        may_miss: None,
    }
}

fn world() -> World {
    let world = World::new();
    Input { folder: "plays", rows: 12_000, days: 12, files: 6, unit: 500, seed: 3 }.write(world.root());
    Input { folder: "shows", rows: 6_000, days: 12, files: 2, unit: 400, seed: 4 }.write(world.root());
    world
}

/// Runs `sql` over two windows next to each other, and holds both tables against `answer`, in which `{w}` stands for a
/// condition on the time `of`.
async fn is_exact(world: &World, name: &str, sql: &str, (answer, of): (&str, &str)) -> u64 {
    let (from, cut, to) = (BEGIN + DAY, BEGIN + 6 * DAY + 5 * HOUR, BEGIN + 11 * DAY);
    let mut checks = Vec::new();
    for (half, window) in [("first", (from, cut)), ("second", (cut, to))] {
        let name = format!("{name}_{half}");
        world.write(SPEC, &spec(&name, window, sql));
        let report = world.run_local(SPEC, &[]).await.with(0).json();
        let join = &report["outputs"][0]["join"];
        assert_eq!((&join["slices_done"], &join["live_bytes"]), (&join["slices"], &0.into()), "{join}");
        world.run(&["verify", report["id"].as_str().unwrap(), "--state", ".tidegate"]).await.with(0);
        let time = |at: i64| format!("TIMESTAMPTZ '{}'", rfc3339(at));
        let within = format!("{of} >= {} AND {of} < {}", time(window.0), time(window.1));
        checks.push(check(world, &name, answer.replace("{w}", &within), &report["id"]));
    }
    must_be_exact(&checks).iter().map(|found| found.rows).sum()
}

#[tokio::test]
async fn given_a_full_join_when_two_windows_are_joined_then_each_row_of_either_side_is_there_once() {
    let sql = "SELECT coalesce(p.ts, s.ts) AS at, p.id, s.id AS show, coalesce(p.key, s.key) AS key FROM plays p FULL JOIN shows s \
               ON p.key = s.key AND s.ts BETWEEN p.ts - INTERVAL '1' HOUR AND p.ts";
    let rows = is_exact(&world(), "full_join", sql, (&format!("{sql} WHERE {{w}}"), "coalesce(p.ts, s.ts)")).await;
    assert!((12_000..15_000).contains(&rows), "{rows}");
}

#[tokio::test]
async fn given_parts_put_together_when_two_windows_are_read_then_each_part_is_there_once() {
    let met = "SELECT p.ts, p.id, s.amount FROM plays p LEFT JOIN shows s ON p.key = s.key \
               AND s.ts BETWEEN p.ts - INTERVAL '30' MINUTE AND p.ts";
    let shows = "SELECT ts, id, amount FROM shows WHERE id % 3 = 0";
    let sql = format!("SELECT ts, id, amount FROM ({met} UNION ALL {shows}) WHERE id % 2 = 0");
    let answer =
        format!("SELECT ts, id, amount FROM (SELECT * FROM ({met}) UNION ALL {shows}) WHERE id % 2 = 0 AND {{w}}");
    let rows = is_exact(&world(), "parts", &sql, (&answer, "ts")).await;
    assert!(rows > 5_000, "{rows}");
}

#[tokio::test]
async fn given_windows_that_overlap_when_rows_are_counted_in_them_then_each_is_whole_at_the_ends_too() {
    let series = "unnest(generate_series(date_trunc('hour', p.ts) - INTERVAL '2' HOUR, date_trunc('hour', p.ts), INTERVAL '1' HOUR))";
    let sql = format!(
        "SELECT start, key, count(*) AS plays, sum(id) AS ids FROM (SELECT {series} AS start, p.key, p.id FROM plays p) \
         GROUP BY start, key"
    );
    let answer = format!("SELECT * FROM ({sql}) WHERE {{w}}");
    let rows = is_exact(&world(), "hops", &sql, (&answer, "start")).await;
    assert!(rows > 5_000, "{rows}");
}
