//! One coordinator and several workers as processes, undisturbed and disturbed: every row exactly once, by the word of
//! other engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use tidegate_proto::v1;
use tidegate_tests::sandbox::{
    Chance, PATIENCE, Scenario, Signal, World, must_balance, must_be_exact, root, wait_until,
};

const WORKERS: [&str; 3] = ["w-1", "w-2", "w-3"];

async fn start(world: &mut World) {
    world.start_coordinator().await;
    for name in WORKERS {
        world.start_worker(name, 2);
    }
}

/// Rows that were accepted so far, of all sources.
fn rows(backfill: &v1::Backfill) -> u64 {
    backfill.sources.iter().map(|source| source.rows_read).sum()
}

fn is_over(backfill: &v1::Backfill) -> bool {
    backfill.ended != 0
}

#[tokio::test]
async fn given_the_example_when_three_workers_replay_it_then_every_row_is_there_once_and_the_skew_within_its_bound() {
    let mut world = World::new();
    let example = root().join("examples/flights");
    world.take_example();
    world.write("aligned.yaml", &fs::read_to_string(example.join("aligned.yaml")).unwrap());
    start(&mut world).await;

    let id = world.apply("aligned.yaml").await;
    let ended = world.run(&["status", &id, "--wait", "--timeout", "90s", "-o", "json"]).await.with(0);

    let status = ended.json();
    assert_eq!((&status["phase"], &status["exit_code"]), (&"succeeded".into(), &0.into()), "{status:#}");
    let bound = status["promised_skew_seconds"].as_f64().unwrap();
    assert!((10.0 * 86_400.0..11.0 * 86_400.0).contains(&bound), "the drift is ten days: {bound}");
    for source in status["sources"].as_array().unwrap() {
        let skew = source["max_skew_seconds"].as_f64().unwrap();
        assert!(skew <= bound, "the skew of {} is {skew}, its bound {bound}", source["name"]);
    }
    for edge in status["ledger"].as_array().unwrap() {
        assert_eq!(edge["balance"], "balanced", "{edge}");
    }
    let last = world.until_over(&id).await;
    must_balance(&last);
    let found = must_be_exact(&world.checks_of_example(&last.id));
    assert_eq!(found.iter().map(|table| table.rows).collect::<Vec<_>>(), [336_776, 26_115]);
    assert!(found.iter().all(|table| table.spared > 0), "a scan of one month is spared the others: {found:?}");
}

/// What is done to a world that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// A worker dies and comes back.
    Worker(&'static str),
    /// A worker dies; another name takes its place.
    Replaced(&'static str),
    /// The coordinator dies and comes back on its state.
    Coordinator,
    /// All die at once and come back.
    All,
}

async fn act(world: &mut World, deed: Deed, round: u64) {
    match deed {
        Deed::Worker(name) => {
            world.kill_worker(name);
            world.start_worker(name, 2);
        }
        Deed::Replaced(name) => {
            world.kill_worker(name);
            world.start_worker(&format!("{name}-after-{round}"), 2);
        }
        Deed::Coordinator => {
            world.kill_coordinator();
            world.start_coordinator().await;
        }
        Deed::All => {
            let names: Vec<String> = world.workers.keys().cloned().collect();
            world.coordinator().signal(Signal::Kill);
            for name in &names {
                world.signal_worker(name, Signal::Kill);
            }
            world.kill_coordinator();
            world.start_coordinator().await;
            for name in &names {
                world.start_worker(name, 2);
            }
        }
    }
}

/// Does `rounds` deeds, each when a random part of the rows is accepted; everything by `seed`.
async fn disturb(seed: u64, rounds: u64, choose: fn(&mut Chance) -> Deed) {
    let mut chance = Chance::new(seed);
    let mut scenario = Scenario::large();
    start(&mut scenario.world).await;
    let id = scenario.world.apply(Scenario::SPEC).await;
    let mut done = Vec::new();
    for round in 0..rounds {
        let share = 190_000 / (rounds + 1);
        let mark = share * round + chance.below(share);
        let seen = scenario.world.until(&id, "progress", |backfill| is_over(backfill) || rows(backfill) >= mark).await;
        if is_over(&seen) {
            break;
        }
        let deed = choose(&mut chance);
        act(&mut scenario.world, deed, round).await;
        done.push((rows(&seen), deed));
    }
    println!("seed {seed}: {done:?}");
    assert!(done.len() >= 2, "seed {seed}: the run was over before it could be disturbed: {done:?}");
    let (last, tables) = scenario.must_end_exact(&id).await;
    println!("seed {seed}: term {}, {tables:?}", last.term);
    let restarts = done.iter().filter(|(_, deed)| matches!(deed, Deed::Coordinator | Deed::All)).count();
    assert_eq!(last.term, 1 + restarts as u64, "each coordinator has its term");
}

fn any_worker(chance: &mut Chance) -> &'static str {
    WORKERS[usize::try_from(chance.below(3)).unwrap()]
}

#[tokio::test]
async fn given_workers_that_are_killed_at_random_when_it_ends_then_every_row_is_there_once() {
    disturb(11, 5, |chance| {
        let name = any_worker(chance);
        if chance.below(2) == 0 { Deed::Worker(name) } else { Deed::Replaced(name) }
    })
    .await;
}

#[tokio::test]
async fn given_a_coordinator_that_is_killed_at_random_when_it_ends_then_every_row_is_there_once() {
    disturb(12, 4, |_| Deed::Coordinator).await;
}

#[tokio::test]
async fn given_all_are_killed_at_once_when_they_come_back_then_every_row_is_there_once() {
    disturb(13, 3, |_| Deed::All).await;
}

#[tokio::test]
async fn given_any_of_these_in_any_order_when_it_ends_then_every_row_is_there_once() {
    let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(14);
    disturb(seed, 6, |chance| match chance.below(4) {
        0 => Deed::Worker(any_worker(chance)),
        1 => Deed::Replaced(any_worker(chance)),
        2 => Deed::Coordinator,
        _ => Deed::All,
    })
    .await;
}

#[tokio::test]
async fn given_a_worker_that_stood_still_longer_than_its_lease_when_it_goes_on_then_it_gives_up_what_it_held() {
    let mut scenario = Scenario::large();
    let world = &mut scenario.world;
    world.start_coordinator().await;
    world.start_worker("steady", 1);
    world.start_worker("sleepy", 3);
    let id = world.apply(Scenario::SPEC).await;
    let busy = |backfill: &v1::Backfill, name: &str| {
        backfill.workers.iter().find(|worker| worker.name == name).map_or(0, |worker| worker.busy)
    };
    world.until(&id, "sleepy to read", |backfill| rows(backfill) > 10_000 && busy(backfill, "sleepy") > 0).await;

    world.signal_worker("sleepy", Signal::Stop);
    let gone = |backfill: &v1::Backfill| backfill.workers.iter().all(|worker| worker.name != "sleepy");
    let seen = world.until(&id, "the coordinator to take its tasks from it", gone).await;
    assert!(!is_over(&seen), "it must still run when the sleeper comes back");
    world.signal_worker("sleepy", Signal::Cont);

    let sleepy = world.worker("sleepy");
    wait_until("the sleeper to see that its lease is over", PATIENCE, async || {
        sleepy.said().contains("lease ended without a renewal").then_some(())
    })
    .await;
    scenario.must_end_exact(&id).await;
}

#[tokio::test]
async fn given_a_worker_that_stood_still_before_it_handed_in_when_it_hands_in_late_then_that_is_refused_and_no_row_is_doubled()
 {
    // A worker that fences itself sends no late hand-in: this one does not, and stands still each time that it has
    // closed a file, which is just before it hands that in.
    let mut scenario = Scenario::large();
    let world = &mut scenario.world;
    world.start_coordinator().await;
    let point = tidegate_worker::failpoint::FILE_AFTER_CLOSE;
    let stops = format!("{point}=stop");
    world.start_worker_with("late", 1, &[("TIDEGATE_FAILPOINTS", &stops), ("TIDEGATE_FENCES_DOWN", "SelfFencing")]);
    let id = world.apply(Scenario::SPEC).await;
    let log = world.coordinator().log().to_owned();
    let is_refused = || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        said.lines().any(|line| line.contains("hand-in refused") && line.contains("the lease is over"))
    };
    let mut stops = 0;
    while !is_refused() {
        stops += 1;
        wait_until("the worker to stand still", PATIENCE, async || (world.fired().len() >= stops).then_some(())).await;
        let gone = |backfill: &v1::Backfill| backfill.workers.iter().all(|worker| worker.name != "late");
        world.until(&id, "the coordinator to take its task from it", gone).await;
        assert!(!is_refused(), "nothing was handed in yet");
        world.signal_worker("late", Signal::Cont);
        // It hands in late; or the coordinator is quicker to tell it, it begins anew, and stands still again.
        wait_until("the late hand-in to be answered", PATIENCE, async || {
            (is_refused() || world.fired().len() > stops).then_some(())
        })
        .await;
    }
    assert!(!is_over(&world.backfill(&id).await.unwrap()));
    world.kill_worker("late");
    world.start_worker("steady", 2);
    scenario.must_end_exact(&id).await;
}

#[tokio::test]
async fn given_a_coordinator_that_stood_still_longer_than_the_lease_when_it_goes_on_then_its_workers_come_back() {
    let mut scenario = Scenario::large();
    let world = &mut scenario.world;
    start(world).await;
    let id = world.apply(Scenario::SPEC).await;
    world.until(&id, "reading", |backfill| rows(backfill) > 10_000).await;

    world.coordinator().signal(Signal::Stop);
    wait_until("a worker to fence itself", PATIENCE, async || {
        let fenced = WORKERS.iter().any(|name| world.workers[*name].said().contains("lease ended without a renewal"));
        fenced.then_some(())
    })
    .await;
    world.coordinator().signal(Signal::Cont);

    let (last, _) = scenario.must_end_exact(&id).await;
    assert_eq!(last.term, 1, "nobody else led it meanwhile");
}

#[tokio::test]
async fn given_a_worker_that_is_told_to_end_when_it_drains_then_it_exits_with_zero_and_nothing_is_done_twice() {
    let mut scenario = Scenario::large();
    let world = &mut scenario.world;
    start(world).await;
    let id = world.apply(Scenario::SPEC).await;
    world.until(&id, "reading", |backfill| rows(backfill) > 10_000).await;
    world.signal_worker("w-1", Signal::Term);
    let status = world.worker("w-1").ended(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", world.worker("w-1").said());
    scenario.must_end_exact(&id).await;
}
