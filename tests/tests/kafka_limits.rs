//! What a source takes, and how fast: records that are too long, brokers that are not there, rates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use serde_json::json;
use tidegate_common::clock::monotonic;
use tidegate_proto::v1;
use tidegate_tests::sandbox::kafka::{Isolation, Record, Replay};
use tidegate_tests::sandbox::{BEGIN, Broker};

/// [`BEGIN`] in milliseconds.
const START: i64 = BEGIN / 1_000;
/// Long before a reader gives up that only waits.
const SOON: Duration = Duration::from_secs(60);

fn small(partition: i32, count: i64) -> Vec<Record> {
    (0..count).map(|at| Record::to(partition).value(format!("value {at}")).at(START + at)).collect()
}

#[tokio::test]
async fn given_a_record_longer_than_the_client_takes_when_read_then_its_place_and_the_setting_are_told_and_raised_it_is_read()
 {
    let broker = Broker::shared().await;
    let topic = Broker::name("giant");
    broker.create_topic(&topic, 2, &[("max.message.bytes", "8000000")]).await;
    (0..2).for_each(|partition| drop(broker.produce(&topic, &small(partition, 150))));
    let giant = Record::to(1).value(vec![b'x'; 3_000_000]).at(START + 150);
    let offset = broker.plain_writer(&[("message.max.bytes", "8000000")]).produce(&topic, &[giant])[0];
    (0..2).for_each(|partition| drop(broker.produce(&topic, &small(partition, 150))));

    let replay = Replay::of(broker, &topic)
        .property("fetch.max.bytes", "1000000")
        .property("receive.message.max.bytes", "1000512");
    let began = monotonic();
    let refused = replay.run().await.with(4);
    let took = monotonic().since(began);
    let place = format!("kafka:{topic}/1");
    refused.saying(&[&place, &format!("offset {offset}"), "1000512", "receive.message.max.bytes"]);
    assert!(took < SOON, "{took:?}");

    let raised = Replay::of(broker, &topic).property("receive.message.max.bytes", "100000000");
    raised.must_give(&broker.content(&topic, Isolation::Committed)).await;
}

#[tokio::test]
async fn given_a_value_longer_than_any_may_be_when_read_then_its_place_and_both_sizes_are_told() {
    const LONGEST: usize = 64 << 20;
    let broker = Broker::shared().await;
    let topic = Broker::name("longest");
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, &small(0, 20));
    // Little of it goes over the wire.
    let mut writer = broker.plain_writer(&[("compression.type", "lz4"), ("message.max.bytes", "100000000")]);
    let offset = writer.produce(&topic, &[Record::to(0).value(vec![0; LONGEST + 1]).at(START + 20)])[0];

    let failed = Replay::of(broker, &topic).run().await;
    assert_ne!(failed.code, Some(0));
    let sizes = [(LONGEST + 1).to_string(), LONGEST.to_string()];
    failed.saying(&[&format!("kafka:{topic}/0"), &offset.to_string(), &sizes[0], &sizes[1]]);
}

#[tokio::test]
async fn given_brokers_that_are_not_there_when_planned_then_it_is_told_soon_why_no_connection_came() {
    let replay = Replay::of(Broker::shared().await, "any").property("bootstrap.servers", "127.0.0.1:9");
    let began = monotonic();
    let ended = replay.world.run(&["plan", Replay::SPEC]).await.with(75);
    let took = monotonic().since(began);
    ended.saying(&["127.0.0.1:9 does not answer", "Connection refused", "bootstrap.servers"]);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn given_a_rate_limit_when_two_workers_read_then_both_wait_for_it_and_together_they_keep_it() {
    const EACH: i64 = 5_000;
    const LIMIT: i64 = 2_000;
    let broker = Broker::shared().await;
    let topic = Broker::name("limited");
    broker.create_topic(&topic, 2, &[]).await;
    // So much that it makes tasks for both.
    let records =
        |partition| small(partition, EACH).into_iter().map(|record| record.key([b'k'; 600])).collect::<Vec<_>>();
    (0..2).for_each(|partition| drop(broker.produce(&topic, &records(partition))));
    // Little at a time, so that the whole time is spent waiting.
    let mut replay = Replay::of(broker, &topic)
        .with("/sources/events/kafka/rate_limit", json!({"records": LIMIT}))
        .property("queued.min.messages", "1")
        .property("fetch.message.max.bytes", "50000");
    replay.world.start_coordinator().await;
    ["w-1", "w-2"].iter().for_each(|name| replay.world.start_worker(name, 1));
    let id = replay.world.apply(Replay::SPEC).await;

    let two_read = |backfill: &v1::Backfill| backfill.sources.iter().map(|source| source.running).sum::<u32>() == 2;
    let both = replay.world.until(&id, "two workers to read", two_read).await;
    assert!(both.workers.iter().all(|worker| worker.busy == 1), "{:?}", both.workers);
    let last = replay.world.until_over(&id).await;
    assert_eq!(last.phase(), v1::Phase::Succeeded, "{:?}", last.failure);
    let (source, took) = (&last.sources[0], last.ended - last.created);
    assert!(source.limited_micros > 0, "{source:?}");
    // A task that ends may owe a tenth of a second's worth.
    let tasks = i64::try_from(source.tasks_done).unwrap();
    let (read, allowed) = (2 * EACH, LIMIT * (took + 100_000 * tasks) / 1_000_000);
    assert!(read <= allowed, "{read} records in {took} µs by {tasks} tasks, and {allowed} are allowed");
    replay.must_hold(&broker.content(&topic, Isolation::Committed));
}
