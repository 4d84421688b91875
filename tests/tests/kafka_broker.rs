//! The broker of the tests does what tests of a Kafka source rely on: it keeps what it acknowledged, shows transactions as
//! Kafka does, compacts and deletes when it is told to, and comes back from a crash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_tests::sandbox::Broker;
use tidegate_tests::sandbox::kafka::{Held, Isolation, Record};

fn numbered(partition: i32, numbers: std::ops::Range<u32>) -> Vec<Record> {
    numbers.map(|number| Record::to(partition).key(format!("k{number}")).value(format!("v{number}"))).collect()
}

fn offsets(held: &[Held]) -> Vec<i64> {
    held.iter().map(|held| held.offset).collect()
}

#[tokio::test]
async fn given_records_with_all_they_can_have_when_a_topic_is_read_then_they_are_as_they_were_written() {
    let broker = Broker::shared().await;
    let topic = Broker::name("all");
    broker.create_topic(&topic, 3, &[("message.timestamp.after.max.ms", "9223372036854775807")]).await;

    let whole = Record::to(2).key("key").value([0, 255]).at(1_704_067_200_000);
    let whole = whole.header("a", Some(b"1")).header("a", None);
    let ahead = 4_102_444_800_000;
    let written =
        [whole, Record::to(0), Record::to(2).key("tombstone").at(ahead), Record::to(2).value("timeless").at(-1)];
    assert_eq!(broker.produce(&topic, &written), [0, 0, 1, 2]);

    let held = broker.content(&topic, Isolation::Committed);
    assert_eq!(held.iter().map(Held::place).collect::<Vec<_>>(), [(0, 0), (2, 0), (2, 1), (2, 2)]);
    let (empty, whole, tombstone, timeless) = (&held[0], &held[1], &held[2], &held[3]);
    assert_eq!((&empty.key, &empty.value), (&None, &None));
    assert!(empty.timestamp.is_some_and(|now| now > 1_704_067_200_000), "{empty:?}");
    assert_eq!((whole.timestamp, whole.value.as_deref()), (Some(1_704_067_200_000), Some([0, 255].as_slice())));
    assert_eq!(whole.headers, [("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None)]);
    assert_eq!((tombstone.timestamp, &tombstone.value), (Some(ahead), &None));
    assert_eq!((timeless.timestamp, timeless.value.as_deref()), (None, Some(b"timeless".as_slice())));
    assert_eq!(broker.watermarks(&topic, 1, Isolation::Committed), (0, 0));
}

#[tokio::test]
async fn given_transactions_of_each_end_when_a_topic_is_read_then_only_what_is_committed_shows_and_markers_leave_gaps()
{
    let broker = Broker::shared().await;
    let topic = Broker::name("transactions");
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, &numbered(0, 0..2));

    let mut writer = broker.writer(&Broker::name("writer"));
    writer.begin();
    assert_eq!(writer.produce(&topic, &numbered(0, 2..4)), [2, 3]);
    writer.abort();
    writer.begin();
    assert_eq!(writer.produce(&topic, &numbered(0, 4..6)), [5, 6], "the marker of the first takes 4");
    writer.commit();
    writer.begin();
    assert_eq!(writer.produce(&topic, &numbered(0, 6..7)), [8], "the marker of the second takes 7");
    drop(writer);
    assert_eq!(broker.produce(&topic, &numbered(0, 7..8)), [9]);

    assert_eq!(offsets(&broker.content(&topic, Isolation::Committed)), [0, 1, 5, 6]);
    assert_eq!(offsets(&broker.content(&topic, Isolation::Uncommitted)), [0, 1, 2, 3, 5, 6, 8, 9]);
    assert_eq!(broker.watermarks(&topic, 0, Isolation::Committed), (0, 8), "it is stable up to the open transaction");
    assert_eq!(broker.watermarks(&topic, 0, Isolation::Uncommitted), (0, 10));
}

#[tokio::test]
async fn given_keys_that_come_again_when_a_topic_is_compacted_then_their_last_records_stay() {
    let broker = Broker::shared().await;
    let topic = Broker::name("compacted");
    broker.create_topic(&topic, 2, &Broker::COMPACTED).await;
    for partition in [0, 1] {
        let time = |number: i64| 1_704_067_200_000 + number * 1_000;
        let records =
            (0..20).map(|number| Record::to(partition).key(format!("k{}", number % 4)).value("v").at(time(number)));
        broker.produce(&topic, &records.collect::<Vec<_>>());
    }

    broker.compact(&topic).await;

    let held = broker.content(&topic, Isolation::Committed);
    let places = [0, 1].map(|partition| [16, 17, 18, 19].map(|offset| (partition, offset)));
    assert_eq!(held.iter().map(Held::place).collect::<Vec<_>>(), places.as_flattened());
    assert_eq!(broker.watermarks(&topic, 0, Isolation::Committed).0, 0, "the log still begins where it did");
}

#[tokio::test]
async fn given_records_that_are_deleted_when_a_topic_is_read_then_its_log_begins_behind_them() {
    let broker = Broker::shared().await;
    let topic = Broker::name("shortened");
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, &numbered(0, 0..10));

    broker.delete_records(&topic, 0, 7).await;

    assert_eq!(offsets(&broker.content(&topic, Isolation::Committed)), [7, 8, 9]);
    assert_eq!(broker.watermarks(&topic, 0, Isolation::Committed), (7, 10));
}

#[tokio::test]
async fn given_a_topic_that_grows_and_one_that_is_made_again_when_they_are_read_then_they_are_what_they_are_now() {
    let broker = Broker::shared().await;
    let topic = Broker::name("changing");
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, &numbered(0, 0..3));
    broker.grow_topic(&topic, 2).await;
    broker.produce(&topic, &numbered(1, 0..1));
    assert_eq!(broker.places(&topic), [(0, 0), (0, 1), (0, 2), (1, 0)].into());

    broker.recreate_topic(&topic, 1, &[]).await;
    assert_eq!(broker.partitions(&topic), 1);
    assert_eq!(broker.places(&topic), [].into());
}

#[tokio::test]
async fn given_a_group_when_it_commits_offsets_then_they_are_its_own() {
    let broker = Broker::shared().await;
    let (topic, group) = (Broker::name("read"), Broker::name("group"));
    broker.create_topic(&topic, 2, &[]).await;
    broker.produce(&topic, &numbered(1, 0..5));

    broker.commit_offsets(&group, &topic, &[(1, 3)]);

    assert_eq!(broker.committed_offset(&group, &topic, 1), Some(3));
    assert_eq!(broker.committed_offset(&group, &topic, 0), None);
    assert_eq!(broker.committed_offset(&Broker::name("other"), &topic, 1), None);
}

#[tokio::test]
async fn given_a_broker_that_is_killed_when_it_comes_back_then_it_keeps_what_it_acknowledged() {
    let mut broker = Broker::start().await;
    let (address, topic) = (broker.bootstrap().to_owned(), Broker::name("kept"));
    broker.create_topic(&topic, 4, &[]).await;
    let records: Vec<Record> = (0..4).flat_map(|partition| numbered(partition, 0..500)).collect();
    broker.produce(&topic, &records);
    let mut writer = broker.writer("writer");
    writer.begin();
    writer.produce(&topic, &numbered(3, 500..510));
    writer.commit();
    let before = broker.content(&topic, Isolation::Committed);
    assert_eq!(before.len(), 2_010);

    for _ in 0..2 {
        broker.crash();
        broker.restart().await;
        assert_eq!(broker.bootstrap(), address);
        assert_eq!(broker.content(&topic, Isolation::Committed), before);
    }
    assert_eq!(broker.produce(&topic, &numbered(3, 510..511)), [511], "and goes on where it was");
}
