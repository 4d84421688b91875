//! An archive of every other record, and what it is refused for.

use arrow::array::Array;

use super::*;

/// Every other record of ten is archived in one unit, of a topic that has all of them.
fn sparse() -> World {
    let records = |held: usize| (0..10).map(|at| (true, if at % 2 == held { vec![0] } else { Vec::new() })).collect();
    let window = Window::ALL;
    World { records: [records(0), records(1)], log_starts: [0, 0], deleted: BTreeSet::new(), window }
}

#[tokio::test]
async fn an_archive_of_which_no_row_is_of_the_topic_is_refused_by_the_name_of_another() {
    let decided = async |named| {
        let archive = World::opened(Side { named: Some(named), ..sparse().archive() });
        archive.decide(&sparse().asked(), None).await.map(|decided| decided.cuts.len()).map_err(|e| e.to_string())
    };
    assert_eq!(decided("t").await, Ok(2));
    let said = decided("other").await.unwrap_err();
    assert!(said.contains("none of the topic t") && said.contains("_kafka_topic names other"), "{said}");
    let empty = World::opened(Side { records: Vec::new(), named: Some("other"), ..sparse().archive() });
    assert_eq!(empty.decide(&sparse().asked(), None).await.unwrap().cuts.len(), 2, "an empty one is one");
}

#[tokio::test]
async fn an_archive_of_more_pieces_than_may_be_held_is_refused_while_it_is_read() {
    let decided = async |most| {
        let archive = sparse().open_archive().with_max_pieces(most);
        archive.decide(&sparse().asked(), None).await.map(|decided| decided.cuts.len()).map_err(|e| e.to_string())
    };
    assert_eq!(decided(10).await, Ok(2));
    let said = decided(9).await.unwrap_err();
    assert!(said.contains("more than 9 pieces"), "{said}");
}

#[tokio::test]
async fn rows_without_event_time_are_named_by_their_place_in_the_unit_whatever_is_left_out_before_them() {
    let records = (0..10).map(|_| (true, vec![0])).collect::<Vec<_>>();
    let world = World { records: [records, Vec::new()], ..sparse() };
    let archive = World::opened(Side { timeless: BTreeSet::from([5, 8]), ..world.archive() });
    let mut asked = world.asked();
    asked.ranges.truncate(1);
    asked.ranges[0].start = Edge::Offset(3);
    asked.ranges[0].log_start = 9;
    let (log_end, switch) = (OFFSETS as i64, BTreeMap::from([(0, 9)]));
    let decided = archive.decide(&asked, Some(&switch)).await.unwrap();
    let live = world.topic(vec![v1::KafkaRange { partition: 0, start: 9, end: log_end }]);
    let source = HybridSource::open("s", archive, Arc::new(Arc::new(live)), decided).unwrap();
    let (sender, mut receiver) = mpsc::channel(64);
    source.enumerate(Window::ALL, sender).await.unwrap();
    let found = receiver.recv().await.unwrap();
    let mut reader = source.reader(std::slice::from_ref(&found.split), &[0], Window::ALL).await.unwrap();
    let batches: Vec<_> = reader.read(&found.units[0]).await.unwrap().collect().await;
    let mut named = Vec::new();
    for batch in batches.into_iter().map(Result::unwrap) {
        let nulls = (0..batch.event_time.len()).filter(|row| batch.event_time.is_null(*row));
        named.extend(nulls.map(|row| batch.places.as_ref().unwrap()[row]));
    }
    assert_eq!(named, [5, 8], "the unit's first row is offset 0, and 3 is the first one taken");
}

#[test]
fn an_event_time_of_a_record_without_a_timestamp_is_none() {
    let archive = sparse().open_archive();
    assert_eq!(archive.timed(Some(-1_000)), Some(-1_000), "of a column it is a time like any other");
    let archive = archive.by_record(true);
    assert_eq!([Some(-1_000), Some(-1), None].map(|at| archive.timed(at)), [None, Some(-1), None]);
}
