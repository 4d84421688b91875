//! Columns of an archive beside those of its topic.

use arrow::array::{BinaryArray, Int32Array, TimestampMicrosecondArray};

use super::*;

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

fn schema(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>())
}

fn topic() -> Schema {
    let known = [
        ("topic", DataType::Utf8),
        ("partition", DataType::Int32),
        ("offset", DataType::Int64),
        ("timestamp", utc()),
        ("key", DataType::Binary),
    ];
    let known = DataType::Struct(schema(&known).fields().clone());
    schema(&[("id", DataType::Int64), ("at", utc()), ("note", DataType::Utf8), (KNOWN, known)])
}

fn spec(more: serde_json::Value) -> ArchiveSpec {
    let mut spec = serde_json::json!({"iceberg": {"table": "lake.archive"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn joined(archive: &Schema, more: serde_json::Value) -> Result<Joined, String> {
    let columns = Columns::of("s", &spec(more), archive).map_err(|e| e.to_string())?;
    Joined::of("events", &topic(), ("lake.archive", archive), &columns)
}

const PLACES: [(&str, DataType); 2] = [("_kafka_partition", DataType::Int64), ("_kafka_offset", DataType::Int64)];

#[test]
fn what_both_have_is_had_and_what_is_lacking_says_so_by_both_names() {
    let own = [("id", DataType::Int32), ("at", DataType::Timestamp(TimeUnit::Microsecond, None))];
    let archive = schema(&[&PLACES[..], &own].concat());
    let joined = joined(&archive, serde_json::json!({})).unwrap();
    assert_eq!(joined.lacks(&[0, 3]), None);
    let said = joined.lacks(&[0, 1]).unwrap();
    assert!(
        said.contains("at is Timestamp") && said.contains("topic events") && said.contains("lake.archive"),
        "{said}"
    );
    let said = joined.lacks(&[2]).unwrap();
    assert!(said.contains("topic events has a column note") && said.contains("no column note"), "{said}");
    let DataType::Struct(known) = joined.schema.field(3).data_type() else { panic!("{:?}", joined.schema) };
    let names: Vec<&str> = known.iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["topic", "partition", "offset"], "of what Kafka knows, what the archive has");
}

#[test]
fn columns_that_are_not_there_or_no_integers_are_refused_by_name() {
    let refused = |columns: &[(&str, DataType)], more| joined(&schema(columns), more).unwrap_err();
    let said = refused(&[("p", DataType::Int32)], serde_json::json!({}));
    assert!(said.contains("no column _kafka_partition") && said.contains("hybrid.archive.partition"), "{said}");
    let said = refused(&PLACES, serde_json::json!({"offset": "_kafka_ofset"}));
    assert!(said.contains("no column _kafka_ofset") && said.contains("did you mean _kafka_offset"), "{said}");
    let said = refused(&[PLACES[0].clone(), ("_kafka_offset", DataType::Utf8)], serde_json::json!({}));
    assert!(said.contains("_kafka_offset of lake.archive is Utf8"), "{said}");
    let time = ("_kafka_timestamp", DataType::Utf8);
    let said = refused(&[&PLACES[..], &[time]].concat(), serde_json::json!({"timestamp": "_kafka_timestamp"}));
    assert!(said.contains("no _kafka.timestamp"), "{said}");
    let topic = ("_kafka_topic", DataType::Int32);
    let said = refused(&[&PLACES[..], &[topic]].concat(), serde_json::json!({}));
    assert!(said.contains("_kafka_topic of lake.archive is Int32, and no text"), "{said}");
}

#[test]
fn what_is_found_by_name_alone_and_of_no_use_is_left_out_unless_it_is_named() {
    let of_no_use = [("_kafka_timestamp", DataType::Utf8), ("_kafka_key", DataType::Int32)];
    let archive = schema(&[&PLACES[..], &of_no_use].concat());
    let made = joined(&archive, serde_json::json!({})).unwrap();
    let DataType::Struct(known) = made.schema.field(3).data_type() else { panic!("{:?}", made.schema) };
    assert_eq!(known.iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["topic", "partition", "offset"]);
    let columns = Columns::of("s", &spec(serde_json::json!({})), &archive).unwrap();
    assert_eq!(columns.timestamp(), None, "nor are times looked for in it");
    let said = joined(&archive, serde_json::json!({"key": "_kafka_key"})).unwrap_err();
    assert!(said.contains("no _kafka.key") && said.contains("hybrid.archive.key"), "{said}");
}

#[test]
fn a_record_without_a_timestamp_has_none_in_the_archive_either() {
    let in_millis: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), Some(0), None, Some(-2)]));
    let in_micros: ArrayRef = Arc::new(
        TimestampMicrosecondArray::from(vec![Some(-1_000), Some(0), None, Some(-2_000)]).with_timezone("+00:00"),
    );
    let wanted = TimestampMicrosecondArray::from(vec![None, Some(0), None, Some(-2_000)]).with_timezone("+00:00");
    for held in [in_millis, in_micros] {
        assert_eq!(known_as(&held, &utc()).unwrap().as_ref(), &wanted as &dyn Array);
        assert_eq!(millis(&held).unwrap(), Int64Array::from(vec![None, Some(0), None, Some(-2)]));
    }
}

#[test]
fn event_times_come_from_the_column_of_the_same_name_or_of_the_timestamps() {
    let archive = schema(&[&PLACES[..], &[("_kafka_metadata_timestamp", DataType::Int64), ("at", utc())]].concat());
    let columns = Columns::of("s", &spec(serde_json::json!({})), &archive).unwrap();
    let by_record = columns.event_time("s", true, None, &archive).unwrap();
    assert_eq!(
        (by_record.column.as_deref(), by_record.unit),
        (Some("_kafka_metadata_timestamp"), Some(TimeUnitSpec::Millis))
    );
    let given: EventTimeSpec = serde_json::from_value(serde_json::json!({"column": "at", "unit": "seconds"})).unwrap();
    let by_column = columns.event_time("s", false, Some(&given), &archive).unwrap();
    assert_eq!((by_column.column.as_deref(), by_column.unit), (Some("at"), None), "a time in the archive has no unit");
    let without = schema(&PLACES);
    let columns = Columns::of("s", &spec(serde_json::json!({})), &without).unwrap();
    let said = columns.event_time("s", true, None, &without).unwrap_err().to_string();
    assert!(said.contains("no column _kafka_timestamp") && said.contains("hybrid.archive.timestamp"), "{said}");
}

#[test]
fn rows_of_an_archive_are_as_the_topic_would_give_them() {
    let time = ("_kafka_timestamp", DataType::Int64);
    let archive = schema(&[&PLACES[..], &[time, ("_kafka_key", DataType::Utf8), ("id", DataType::Int32)]].concat());
    let joined = joined(&archive, serde_json::json!({})).unwrap();
    let columns = [0, 3];
    let mut held = vec![0, 1];
    held.extend(joined.wanted(&columns).into_iter().filter(|column| *column > 1));
    assert_eq!(held, [0, 1, 4, 2, 3]);
    let kept: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        Arc::new(Int64Array::from(vec![70])),
        Arc::new(Int32Array::from(vec![5])),
        Arc::new(Int64Array::from(vec![1_500])),
        Arc::new(StringArray::from(vec!["k"])),
    ];
    let rows = RecordBatch::try_new(Arc::new(archive.project(&held).unwrap()), kept).unwrap();
    let made = joined.of_archive(&columns, &rows, &held).unwrap();
    assert_eq!(made[0].as_ref(), &Int64Array::from(vec![5]) as &dyn Array);
    let known = made[1].as_any().downcast_ref::<StructArray>().unwrap();
    let at = TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("+00:00");
    let wanted: [(&str, ArrayRef); 5] = [
        ("topic", Arc::new(StringArray::from(vec!["events"]))),
        ("partition", Arc::new(Int32Array::from(vec![7]))),
        ("offset", Arc::new(Int64Array::from(vec![70]))),
        ("timestamp", Arc::new(at)),
        ("key", Arc::new(BinaryArray::from_vec(vec![b"k"]))),
    ];
    for (name, wanted) in wanted {
        assert_eq!(known.column_by_name(name).unwrap(), &wanted, "{name}");
    }
    let too_wide = Int64Array::from(vec![i64::MAX]);
    assert!(known_as(&(Arc::new(too_wide) as ArrayRef), &DataType::Int32).is_err(), "nothing is cut off");
}
