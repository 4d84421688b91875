//! Kafka topics that change, brokers, workers and coordinators that die, all while a range is being replayed: the table
//! holds each record of the range once, or the run fails and says what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use tidegate_proto::v1;
use tidegate_tests::sandbox::kafka::{Held, Isolation, Record, Replay};
use tidegate_tests::sandbox::{Broker, Chance, LEASE, PATIENCE, Signal, wait_until};

const HOUR: i64 = 3_600_000;
/// 2030-01-01 in milliseconds: later than the markers of transactions, which are of the time when a test runs.
const START: i64 = 1_893_456_000_000;
/// So that records of the future are taken.
const ANY_TIME: [(&str, &str); 1] = [("message.timestamp.after.max.ms", "9223372036854775807")];

fn records(partition: i32, numbers: std::ops::Range<i64>) -> Vec<Record> {
    let record = |at: i64| Record::to(partition).key(at.to_string()).value(format!("value {at}")).at(START + at * HOUR);
    numbers.map(record).collect()
}

/// A topic of two partitions of ten records each.
async fn little(broker: &Broker) -> String {
    let topic = Broker::name("little");
    broker.create_topic(&topic, 2, &ANY_TIME).await;
    (0..2).for_each(|partition| drop(broker.produce(&topic, &records(partition, 0..10))));
    topic
}

#[tokio::test]
async fn given_retention_that_eats_a_range_while_it_waits_when_read_then_it_fails_and_names_what_is_missing() {
    for record in ["prepared", "planned"] {
        let broker = Broker::shared().await;
        let topic = little(broker).await;
        let replay = Replay::of(broker, &topic);
        replay.run_to(record).await;
        broker.delete_records(&topic, 1, 7).await;

        let failed = replay.run().await.with(4);
        failed.saying(&["retention", "removed 7 offsets, 0 to 6", "partition 1", &topic, "starts at 7"]);
    }
}

#[tokio::test]
async fn given_a_whole_partition_that_is_eaten_while_it_waits_when_read_then_it_fails_and_names_what_is_missing() {
    let broker = Broker::shared().await;
    let topic = little(broker).await;
    let replay = Replay::of(broker, &topic);
    replay.run_to("planned").await;
    broker.produce(&topic, &records(0, 10..20));
    broker.delete_records(&topic, 0, 15).await;
    replay.run().await.with(4).saying(&["retention", "removed 10 offsets, 0 to 9", "partition 0", &topic]);
}

#[tokio::test]
async fn given_a_topic_that_is_deleted_while_its_range_waits_when_read_then_it_fails_and_says_so() {
    for record in ["prepared", "planned"] {
        let broker = Broker::shared().await;
        let topic = little(broker).await;
        let replay = Replay::of(broker, &topic);
        replay.run_to(record).await;
        broker.delete_topic(&topic).await;
        replay.run().await.with(4).saying(&[&topic, "deleted"]);
    }
}

#[tokio::test]
async fn given_a_topic_that_is_made_again_while_its_range_waits_when_read_then_no_record_of_the_new_one_is_taken() {
    for record in ["prepared", "planned"] {
        let broker = Broker::shared().await;
        let topic = little(broker).await;
        let replay = Replay::of(broker, &topic);
        replay.run_to(record).await;
        broker.recreate_topic(&topic, 2, &ANY_TIME).await;
        // As many records at the same offsets, and more: only its id tells that it is another topic.
        (0..2).for_each(|partition| drop(broker.produce(&topic, &records(partition, 100..120))));

        replay.run().await.with(4).saying(&[&topic, "deleted and created again"]);
        let found = replay.world.root().join("warehouse/lake/events/data");
        assert!(!found.exists() || found.read_dir().unwrap().next().is_none(), "no row of it was written");
    }
}

#[tokio::test]
async fn given_partitions_that_are_added_while_a_range_waits_when_read_then_it_is_noticed_and_the_range_is_exact() {
    for record in ["prepared", "planned"] {
        let broker = Broker::shared().await;
        let topic = little(broker).await;
        let expected = broker.content(&topic, Isolation::Committed);
        let replay = Replay::of(broker, &topic);
        replay.run_to(record).await;
        broker.grow_topic(&topic, 3).await;
        (0..3).for_each(|partition| drop(broker.produce(&topic, &records(partition, 10..20))));

        let ended = replay.run().await.with(0).saying(&[&topic, "3 partitions"]);
        replay.must_balance(&ended.json());
        replay.must_hold(&expected);
    }
}

const PARTITIONS: i32 = 8;
const WORKERS: [&str; 3] = ["w-1", "w-2", "w-3"];
/// Records of a partition in one transaction, and transactions: two of eight are aborted.
const EACH: i64 = 750;
const ROUNDS: i64 = 8;

/// A topic of 48,000 records, a quarter of them aborted, and its replay by three workers under a gate that lets none of
/// them get far ahead: many small hand-ins, over some seconds.
struct Large {
    topic: String,
    replay: Replay,
    expected: Vec<Held>,
}

impl Large {
    async fn on(broker: &Broker) -> Self {
        let topic = Broker::name("large");
        broker.create_topic(&topic, PARTITIONS, &ANY_TIME).await;
        let settings = [("batch.num.messages", "100"), ("linger.ms", "20")];
        let mut writer = broker.writer_with(&Broker::name("writer"), &settings);
        for round in 0..ROUNDS {
            writer.begin();
            let each = |partition| records(partition, round * EACH..(round + 1) * EACH);
            writer.produce(&topic, &(0..PARTITIONS).flat_map(each).collect::<Vec<_>>());
            if round % 4 == 2 { writer.abort() } else { writer.commit() }
        }
        let expected = broker.content(&topic, Isolation::Committed);
        assert_eq!(expected.len(), 36_000);
        let replay = Replay::of(broker, &topic)
            .with("/alignment", json!({"max_drift": "20d"}))
            .with("/sources/events/event_time", json!({"out_of_orderness": "1h"}))
            .with("/outputs/events/commit/every", "200ms".into())
            .property("queued.min.messages", "1")
            .property("fetch.message.max.bytes", "1000");
        Self { topic, replay, expected }
    }

    async fn start(&mut self) -> String {
        self.replay.world.start_coordinator().await;
        WORKERS.iter().for_each(|name| self.replay.world.start_worker(name, 1));
        self.replay.world.apply(Replay::SPEC).await
    }

    /// Waits until `rows` of them are accepted; gives how many are, or that it is over.
    async fn until(&self, id: &str, rows: u64) -> Option<u64> {
        let reached = |backfill: &v1::Backfill| backfill.ended != 0 || read(backfill) >= rows;
        let seen = self.replay.world.until(id, &format!("{rows} rows"), reached).await;
        (seen.ended == 0).then(|| read(&seen))
    }

    async fn must_end_exact(&self, id: &str) -> v1::Backfill {
        let last = self.replay.world.until_over(id).await;
        assert_eq!(last.phase(), v1::Phase::Succeeded, "{:?}", last.failure);
        assert_eq!(last.imbalances, [""; 0]);
        self.replay.must_hold(&self.expected);
        self.replay.world.run(&["verify", id]).await.with(0);
        last
    }
}

fn read(backfill: &v1::Backfill) -> u64 {
    backfill.sources.iter().map(|source| source.rows_read).sum()
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Worker(&'static str),
    Coordinator,
    Broker,
}

/// Does a deed whenever some more of the rows are accepted; everything by `seed`.
async fn disturb(broker: &mut Broker, seed: u64, rounds: u64, mut choose: impl FnMut(&mut Chance) -> Deed) {
    let mut chance = Chance::new(seed);
    let mut large = Large::on(broker).await;
    let id = large.start().await;
    let mut done = Vec::new();
    for round in 0..rounds {
        let share = 34_000 / rounds;
        let mark = if round == 0 { 1 } else { share * round + chance.below(share) };
        let Some(rows) = large.until(&id, mark).await else { break };
        let deed = choose(&mut chance);
        let world = &mut large.replay.world;
        match deed {
            Deed::Worker(name) => {
                world.signal_worker(name, Signal::Kill);
                world.kill_worker(name);
                world.start_worker(name, 1);
            }
            Deed::Coordinator => {
                world.coordinator().signal(Signal::Kill);
                world.kill_coordinator();
                world.start_coordinator().await;
            }
            Deed::Broker => {
                broker.crash();
                broker.restart().await;
            }
        }
        done.push((rows, deed));
    }
    println!("seed {seed}: {done:?}");
    large.must_end_exact(&id).await;
    assert!(done.len() >= 2, "seed {seed}: the run was over before it could be disturbed: {done:?}");
    assert_eq!(broker.content(&large.topic, Isolation::Committed), large.expected, "the topic is what it was");
}

fn any_worker(chance: &mut Chance) -> Deed {
    Deed::Worker(WORKERS[usize::try_from(chance.below(3)).unwrap()])
}

#[tokio::test]
async fn given_workers_that_are_killed_at_random_when_a_topic_is_replayed_then_every_record_is_there_once() {
    disturb(&mut Broker::start().await, 31, 4, any_worker).await;
}

#[tokio::test]
async fn given_a_coordinator_that_is_killed_at_random_when_a_topic_is_replayed_then_every_record_is_there_once() {
    disturb(&mut Broker::start().await, 32, 3, |_| Deed::Coordinator).await;
}

#[tokio::test]
async fn given_a_broker_that_is_killed_at_random_when_a_topic_is_replayed_then_every_record_is_there_once() {
    disturb(&mut Broker::start().await, 33, 3, |_| Deed::Broker).await;
}

#[tokio::test]
async fn given_all_of_these_in_any_order_when_a_topic_is_replayed_then_every_record_is_there_once() {
    disturb(&mut Broker::start().await, 34, 6, |chance| match chance.below(4) {
        0 => Deed::Coordinator,
        1 => Deed::Broker,
        _ => any_worker(chance),
    })
    .await;
}

#[tokio::test]
async fn given_a_broker_that_is_away_longer_than_a_lease_when_it_comes_back_then_the_same_workers_end_the_range() {
    let mut broker = Broker::start().await;
    let mut large = Large::on(&broker).await;
    let id = large.start().await;
    large.until(&id, 1).await.expect("it still runs");
    broker.crash();
    let over = tidegate_common::clock::monotonic().after(LEASE * 2);
    wait_until("two leases", PATIENCE, async || (tidegate_common::clock::monotonic() > over).then_some(())).await;
    let waiting = large.replay.world.backfill(&id).await.expect("the coordinator answers");
    assert_eq!(waiting.ended, 0, "{:?}", waiting.failure);
    broker.restart().await;

    let last = large.must_end_exact(&id).await;
    assert_eq!(last.parked, [], "nothing was given up");
}

#[tokio::test]
async fn given_retention_that_overtakes_a_reader_when_it_gets_there_then_the_run_fails_and_names_what_is_missing() {
    let broker = Broker::shared().await;
    let mut large = Large::on(broker).await;
    let id = large.start().await;
    large.until(&id, 1).await.expect("it still runs");
    for partition in 0..PARTITIONS {
        let (_, end) = broker.watermarks(&large.topic, partition, Isolation::Committed);
        broker.delete_records(&large.topic, partition, end - 1).await;
    }
    let last = large.replay.world.until_over(&id).await;
    let failure = last.failure.clone().unwrap_or_default().message;
    assert_ne!(last.phase(), v1::Phase::Succeeded, "{failure}");
    assert!(failure.contains("retention has removed") && failure.contains(&large.topic), "{failure}");
}
