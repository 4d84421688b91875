//! Topics whose schemas a real registry keeps: written by other libraries than the one that reads, with schemas that change
//! within the range.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apache_avro::types::Value as Avro;
use protox::prost_reflect::prost::Message as _;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, Value as Field};
use serde_json::{Value, json};
use tidegate_tests::sandbox::kafka::{Record, Replay};
use tidegate_tests::sandbox::{BEGIN, Broker, Registry, Signal, read_table, wait_until};

/// [`BEGIN`] in milliseconds.
const START: i64 = BEGIN / 1_000;
const PATIENCE: std::time::Duration = tidegate_tests::sandbox::PATIENCE;

/// A visit, by the version of its schema: `note` came with the second, `code` went with the third.
fn visits(version: u32) -> String {
    let mut fields = vec![json!({"name": "id", "type": "long"}), json!({"name": "city", "type": "string"})];
    if version <= 2 {
        fields.push(json!({"name": "code", "type": "int", "default": 7}));
    }
    if version >= 2 {
        fields.push(json!({"name": "note", "type": "string", "default": "none"}));
    }
    json!({"type": "record", "name": "Visit", "fields": fields}).to_string()
}

/// The visit `id`, written by `version` of the schema.
fn visit(version: u32, id: i64) -> Vec<u8> {
    let mut fields = vec![("id", Avro::Long(id)), ("city", Avro::String(format!("city {id}")))];
    if version <= 2 {
        fields.push(("code", Avro::Int(100)));
    }
    if version >= 2 {
        fields.push(("note", Avro::String(format!("note {id}"))));
    }
    let record = Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    apache_avro::to_avro_datum(&apache_avro::Schema::parse_str(&visits(version)).unwrap(), record).unwrap()
}

/// A value in the registry's framing.
fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], value].concat()
}

/// A topic of `values`, one after another in one partition.
async fn topic(broker: &Broker, name: &str, values: impl IntoIterator<Item = Vec<u8>>) -> String {
    let topic = Broker::name(name);
    broker.create_topic(&topic, 1, &[]).await;
    let records: Vec<Record> =
        values.into_iter().zip(START..).map(|(value, at)| Record::to(0).value(value).at(at)).collect();
    broker.produce(&topic, &records);
    topic
}

/// Its replay as `format`, with the columns `columns` in the table, in the order of the topic.
fn replay(broker: &Broker, topic: &str, format: Value, columns: &str) -> Replay {
    Replay::of(broker, topic)
        .with("/sources/events/kafka/format", format)
        .with("/sources/events/on_error", "dead_letter".into())
        .with("/sources/events/dead_letter", json!({"limit": 5}))
        .with("/outputs/events/sql", format!("SELECT _kafka.offset AS o, {columns} FROM events").into())
}

/// The rows of the table, in the order of the topic.
fn rows(replay: &Replay) -> Vec<Value> {
    let mut rows = read_table(&replay.world.catalog(), Replay::TABLE);
    rows.sort_by_key(|row| row["o"].as_i64());
    rows
}

/// Offset and error of each dead letter, in the order of the topic.
fn letters(replay: &Replay) -> Vec<(i64, String)> {
    let rows = read_table(&replay.world.catalog(), &format!("{}__dead_letter", Replay::TABLE));
    let letter = |row: &Value| (row["position"].as_i64().unwrap(), row["error"].as_str().unwrap().to_owned());
    let mut letters: Vec<_> = rows.iter().map(letter).collect();
    letters.sort();
    letters
}

#[tokio::test]
async fn given_schemas_that_change_within_a_range_when_replayed_as_avro_then_each_record_is_read_as_the_one_that_was_planned()
 {
    let (broker, registry) = (Broker::shared().await, Registry::shared().await);
    let subject = Broker::name("visits");
    let ids = [1, 2, 3].map(|version| registry.register(&subject, "AVRO", &visits(version), &[]));
    assert!(ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
    // The versions by turns, an id that nobody gave, and a value without framing.
    let version = |at: u32| at % 3 + 1;
    let mut values: Vec<Vec<u8>> =
        (0..300).map(|at| framed(ids[version(at) as usize - 1], &visit(version(at), at.into()))).collect();
    values[100] = framed(9_999_999, &visit(1, 100));
    values[200] = b"{\"id\": 200}".to_vec();
    let topic = topic(broker, "visits", values).await;

    let registry = |version: Option<u32>| json!({"url": registry.url(), "subject": subject, "version": version});
    let as_version = |version: Option<u32>, columns: &str| {
        let format = json!({"type": "avro", "schema_registry": registry(version)});
        replay(broker, &topic, format, columns)
    };
    let wanted = |columns: fn(u32, u32) -> Value| -> Vec<Value> {
        let good = (0..300_u32).filter(|at| ![100, 200].contains(at));
        let row = |at: u32| {
            let mut row = json!({"o": at, "id": at, "city": format!("city {at}")});
            row.as_object_mut().unwrap().extend(columns(at, at % 3 + 1).as_object().unwrap().clone());
            row
        };
        good.map(row).collect()
    };
    let latest = as_version(None, "id, city, note");
    latest.must_balance(&latest.run().await.with(0).json());
    let note = |at: u32, version: u32| json!({"note": if version == 1 { "none".into() } else { format!("note {at}") }});
    assert_eq!(rows(&latest), wanted(note));
    let letters = letters(&latest);
    assert_eq!(letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [100, 200]);
    assert!(letters[0].1.contains("9999999") && letters[1].1.contains("framing"), "{letters:?}");

    let first = as_version(Some(1), "id, city, code");
    first.must_balance(&first.run().await.with(0).json());
    assert_eq!(rows(&first), wanted(|_, version| json!({"code": if version == 3 { 7 } else { 100 }})));
}

const PLACE: &str = "syntax = \"proto3\"; package geo; message Place { string city = 1; sint32 height = 2; }";

/// A trip by the version of its schema: `note` came with the second one.
fn trips(version: u32) -> String {
    let note = if version == 2 { "optional string note = 9;" } else { "" };
    format!(
        "syntax = \"proto3\"; package air; import \"geo/place.proto\"; message Trip {{ int64 id = 1; geo.Place to = 2; \
         repeated sint64 legs = 3; Kind kind = 4; enum Kind {{ NONE = 0; RETURN = 1; }} {note} }} message Other {{ int64 id = 1; }}"
    )
}

/// The trip `id`, written by `version` of the schema: what a compiler of another kind makes of it.
fn trip(version: u32, id: i64) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("geo")).unwrap();
    std::fs::write(folder.path().join("geo/place.proto"), PLACE).unwrap();
    std::fs::write(folder.path().join("trip.proto"), trips(version)).unwrap();
    let files = protox::compile(["trip.proto"], [folder.path()]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
    let message = |name: &str| DynamicMessage::new(pool.get_message_by_name(name).unwrap());
    let (mut trip, mut place) = (message("air.Trip"), message("geo.Place"));
    place.set_field_by_name("city", Field::String(format!("city {id}")));
    place.set_field_by_name("height", Field::I32(-3));
    trip.set_field_by_name("id", Field::I64(id));
    trip.set_field_by_name("to", Field::Message(place));
    trip.set_field_by_name("legs", Field::List(vec![Field::I64(-id), Field::I64(id)]));
    trip.set_field_by_name("kind", Field::EnumNumber(1));
    if version == 2 {
        trip.set_field_by_name("note", Field::String(format!("note {id}")));
    }
    trip.encode_to_vec()
}

#[tokio::test]
async fn given_messages_of_a_registry_that_refer_to_others_when_replayed_as_protobuf_then_rows_are_what_was_written() {
    let (broker, registry) = (Broker::shared().await, Registry::shared().await);
    let (place, subject) = (Broker::name("place"), Broker::name("trips"));
    registry.register(&place, "PROTOBUF", PLACE, &[]);
    let refers = [("geo/place.proto", place.as_str())];
    let ids = [1, 2].map(|version| registry.register(&subject, "PROTOBUF", &trips(version), &refers));
    assert_ne!(ids[0], ids[1]);
    // Behind the id stands which message of the schema it is: a zero is the first one, a count and places are any.
    let other = |value: &[u8]| framed(ids[1], &[&[2, 2], value].concat());
    let of = |version: u32, id: i64| framed(ids[version as usize - 1], &[&[0], &trip(version, id)[..]].concat());
    let values = [of(1, 0), of(2, 1), other(&[8, 2]), of(1, 3), framed(9_999_999, &[0]), of(2, 5)];
    let topic = topic(broker, "trips", values).await;

    let format = json!({"type": "protobuf", "schema_registry": {"url": registry.url(), "subject": subject}, "message": "air.Trip"});
    let columns = "id, to.city AS city, to.height AS height, legs, kind, note";
    let replay = replay(broker, &topic, format, &columns.replace("to.", "\"to\"."));
    replay.must_balance(&replay.run().await.with(0).json());
    let row = |(offset, version): (i64, u32)| {
        let note = if version == 1 { Value::Null } else { format!("note {offset}").into() };
        json!({"o": offset, "id": offset, "city": format!("city {offset}"), "height": -3, "legs": [-offset, offset],
               "kind": "RETURN", "note": note})
    };
    assert_eq!(rows(&replay), [(0, 1), (1, 2), (3, 1), (5, 2)].map(row));
    let letters = letters(&replay);
    assert_eq!(letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [2, 4]);
    assert!(letters[0].1.contains("air.Other") && letters[1].1.contains("9999999"), "{letters:?}");
}

#[tokio::test]
async fn given_a_registry_that_is_down_when_a_range_is_read_then_it_is_tried_again_until_it_is_back() {
    let (broker, mut registry) = (Broker::shared().await, Registry::start().await);
    let subject = Broker::name("visits");
    let id = registry.register(&subject, "AVRO", &visits(1), &[]);
    let topic = topic(broker, "down", (0..20).map(|at| framed(id, &visit(1, at)))).await;
    let spec = json!({"url": registry.url(), "subject": subject});
    let mut replay = replay(broker, &topic, json!({"type": "avro", "schema_registry": spec}), "id");
    replay.run_to("planned").await;
    registry.kill();

    let command = replay.world.command(&["run", Replay::SPEC, "--local", "--yes", "-o", "json"]);
    let mut running = replay.world.spawn("run", command);
    wait_until("an attempt that nobody answered", PATIENCE, async || {
        let said = running.said();
        assert!(running.is_alive(), "it has ended: {said}");
        said.contains("does not answer").then_some(())
    })
    .await;
    // Nobody asks until it has its schema again: what it did not know in between would be a dead letter.
    running.signal(Signal::Stop);
    registry.start_again().await;
    assert_eq!(registry.register(&subject, "AVRO", &visits(1), &[]), id, "the schema has its id again");
    running.signal(Signal::Cont);
    let ended = running.ended(PATIENCE).await;
    assert!(ended.success(), "{}", running.said());
    let ids: Vec<i64> = rows(&replay).iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());

    registry.kill();
    let planned = replay.with("/name", "down".into()).world.run(&["plan", Replay::SPEC]).await.with(75);
    planned.saying(&["schema registry", "does not answer"]);
}
