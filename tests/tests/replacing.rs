//! A window of a table is replaced by another source's rows, and other engines read what came of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_tests::sandbox::{BEGIN, Check, DAY, Input, World, must_be_exact};

/// A world with two sources over the same forty days.
fn world() -> World {
    let world = World::new();
    for (folder, seed) in [("first", 21), ("second", 22)] {
        Input { folder, rows: 3_000, days: 40, files: 8, unit: 100, seed }.write(world.root());
    }
    world
}

/// A backfill of `source` over the days `from..to`, into one table by day.
fn spec(world: &World, file: &str, source: &str, (from, to): (i64, i64), output: &str) {
    let day = |day: i64| tidegate_common::time::EventTime::from_micros(BEGIN + day * DAY);
    let text = format!(
        "version: 1
kind: backfill
name: of-{source}
window: {{from: '{}', to: '{}'}}
sources:
  {source}: {{files: {{path: '{source}/*.parquet'}}, event_time: {{column: ts}}}}
outputs:
  out: {{table: lake.t, partition_by: ['day(ts)'], sql: 'SELECT key, ts, id, amount FROM {source}', {output}}}
",
        day(from),
        day(to)
    );
    world.write(file, &text);
}

/// The first source's rows of all days but `from..to`, and the second's of these.
fn check(world: &World, (from, to): (i64, i64)) -> Check {
    let glob = |folder: &str| world.root().join(folder).join("*.parquet").display().to_string();
    let (from, to) = (BEGIN + from * DAY, BEGIN + to * DAY);
    let within = format!("epoch_us(ts) >= {from} AND epoch_us(ts) < {to}");
    let (first, second) = (glob("first"), glob("second"));
    Check {
        catalog: world.catalog(),
        table: "lake.t".to_owned(),
        input: vec![first.clone()],
        others: Vec::new(),
        query: Some(format!(
            "SELECT key, ts, id, amount FROM read_parquet('{first}') WHERE NOT ({within}) \
             UNION ALL SELECT key, ts, id, amount FROM read_parquet('{second}') WHERE {within}"
        )),
        time: "ts",
        window: None,
        backfill: None,
        branch: None,
        may_miss: None,
    }
}

#[tokio::test]
async fn given_a_window_of_whole_days_when_replaced_then_other_engines_find_the_new_rows_and_the_old_ones_around() {
    let world = world();
    spec(&world, "first.yaml", "first", (-1, 41), "mode: append");
    world.run_local("first.yaml", &[]).await.with(0);
    spec(&world, "second.yaml", "second", (10, 20), "mode: replace_window");
    let ended = world.run_local_with("second.yaml", &["--state", "state"], &[]).await.with(0);
    let found = must_be_exact(&[check(&world, (10, 20))]);
    assert!(found.iter().all(|verdict| verdict.spared > 0), "{found:?}");
    let id = ended.json()["id"].as_str().unwrap().to_owned();
    let verified = world.run(&["verify", &id, "--state", "state"]).await.with(0);
    verified.saying(&["0 files are left of what the window held before", "everything matches"]);
}

#[tokio::test]
async fn given_a_death_at_any_point_of_a_replacement_when_run_again_then_the_window_is_replaced_once() {
    for point in ["commit.after-rewrite", "commit.after-manifests", "commit.before-swap", "commit.after-swap"] {
        let world = world();
        spec(&world, "first.yaml", "first", (-1, 41), "mode: append");
        world.run_local("first.yaml", &[]).await.with(0);
        spec(&world, "second.yaml", "second", (10, 20), "mode: replace_window");
        let died = world.run_local("second.yaml", &[("TIDEGATE_FAILPOINTS", &format!("{point}=abort@1"))]).await;
        assert_eq!((died.code, world.fired()), (None, vec![point.to_owned()]), "{died:?}");
        world.run_local("second.yaml", &[]).await.with(0);
        must_be_exact(&[check(&world, (10, 20))]);
    }
}

#[tokio::test]
async fn given_a_window_that_cuts_a_day_when_asked_to_be_replaced_then_refused_with_the_nearest_that_fits() {
    let world = world();
    let at = tidegate_common::time::EventTime::from_micros;
    spec(&world, "first.yaml", "first", (-1, 41), "mode: append");
    world.run_local("first.yaml", &[]).await.with(0);
    spec(&world, "second.yaml", "second", (10, 20), "mode: replace_window");
    let text = std::fs::read_to_string(world.root().join("second.yaml")).unwrap();
    let (from, cut) = (at(BEGIN + 10 * DAY), at(BEGIN + 10 * DAY + 60_000_000));
    world.write("second.yaml", &text.replace(&from.to_string(), &cut.to_string()));
    let ended = world.run_local("second.yaml", &[]).await.with(4);
    let nearest = format!("[{from}, {})", at(BEGIN + 20 * DAY));
    assert!(ended.stderr.contains(&nearest), "{}", ended.stderr);
    // An adjacent window that appends doubles nothing, and one that overlaps would.
    spec(&world, "later.yaml", "second", (41, 50), "mode: append");
    world.run_local("later.yaml", &[]).await.with(0);
    spec(&world, "overlapping.yaml", "second", (39, 45), "mode: append");
    let ended = world.run_local("overlapping.yaml", &[]).await.with(4);
    assert!(ended.stderr.contains("rows in the window"), "{}", ended.stderr);
}

#[tokio::test]
async fn given_a_staged_replacement_when_planned_verified_published_and_verified_then_each_says_where_it_stands() {
    let world = world();
    spec(&world, "first.yaml", "first", (-1, 41), "mode: append");
    world.run_local("first.yaml", &[]).await.with(0);
    spec(&world, "second.yaml", "second", (10, 20), "mode: replace_window, publish: staged");
    let planned = world.run(&["plan", "second.yaml"]).await.with(0);
    planned.saying(&["branch tidegate_bf-", "10 files with", "rows are removed from the window"]);
    let local = |more: &'static [&'static str]| {
        let all = [&["--state", "state"], more].concat();
        let world = &world;
        async move { world.run_local_with("second.yaml", &all, &[]).await.with(0).json() }
    };
    let staged = local(&[]).await;
    let id = staged["id"].as_str().unwrap().to_owned();
    assert_eq!(staged["phase"], "staged");
    let verify = ["verify", id.as_str(), "--state", "state"];
    let said = world.run(&verify).await.with(0);
    said.saying(&["STAGED", " staged", "0 files are left", "everything matches"]);
    assert_eq!(local(&["--publish"]).await["phase"], "succeeded");
    let said = world.run(&verify).await.with(0);
    said.saying(&["0 files are left of what the window held before", "everything matches"]);
    must_be_exact(&[check(&world, (10, 20))]);
    // Another who replaces the window takes its files away: that is no fault of this one.
    spec(&world, "third.yaml", "second", (0, 30), "mode: replace_window");
    world.run_local("third.yaml", &[]).await.with(0);
    world.run(&verify).await.with(0).saying(&["rewritten or removed since by others"]);
    must_be_exact(&[check(&world, (0, 30))]);
}
