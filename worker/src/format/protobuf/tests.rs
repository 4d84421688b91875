#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap as Map;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use protox::prost_reflect::prost::Message as _;
use protox::prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, Value};
use serde_json::{Value as Json, json};

use super::super::avro::tests::json_of;
use super::super::registry::tests::Served;
use super::super::tests::{bad, cells, decode, now, one, opened, opened_with, sorts_out, sorts_out_values};
use super::*;
use crate::failure::{Class, Classify};

const EVERYTHING: &str = r#"
    syntax = "proto3";
    package air;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Color { NONE = 0; RED = 1; BLUE = -7; }
    message Inner { int32 a = 1; optional string b = 2; repeated sint64 c = 3; }
    message Node { string name = 1; Node next = 2; repeated Node more = 3; }
    message Empty {}
    message Everything {
        double f1 = 1; float f2 = 2; int32 f3 = 3; int64 f4 = 4; uint32 f5 = 5; uint64 f6 = 6; sint32 f7 = 7; sint64 f8 = 8;
        fixed32 f9 = 9; fixed64 f10 = 10; sfixed32 f11 = 11; sfixed64 f12 = 12; bool f13 = 13; string f14 = 14; bytes f15 = 15;
        Color f16 = 16; Inner f17 = 17; optional int32 f18 = 18; optional Color f19 = 19;
        repeated int32 f20 = 20; repeated sint64 f21 = 21 [packed = false]; repeated double f22 = 22; repeated string f23 = 23;
        repeated Inner f24 = 24; repeated Color f25 = 25; repeated bool f26 = 26; repeated fixed32 f27 = 27;
        map<string, int32> f30 = 30; map<int32, Inner> f31 = 31; map<bool, bytes> f32 = 32; map<sint64, Color> f33 = 33;
        oneof choice { int32 f40 = 40; string f41 = 41; Inner f42 = 42; }
        google.protobuf.Timestamp f50 = 500; google.protobuf.Int64Value f51 = 501; google.protobuf.StringValue f52 = 502;
        repeated google.protobuf.BoolValue f53 = 503;
    }
    message Outer { message Within { map<string, int32> m = 1; message Deep { int32 x = 1; } } int32 y = 1; }
"#;

fn descriptor(text: &str, name: &str) -> MessageDescriptor {
    let file = compile(&registry::Schema { text: text.to_owned(), references: Vec::new() }).unwrap();
    find(file.parent_pool(), name).unwrap()
}

fn format_of(message: &MessageDescriptor) -> Arc<dyn Format> {
    let spec = json!({"type": "protobuf", "descriptor_set": "/nowhere", "message": "m"});
    now(opened_with(spec, &Access::local(), Some(&pin(message)))).unwrap()
}

fn everything() -> MessageDescriptor {
    descriptor(EVERYTHING, "air.Everything")
}

/// A value of `kind`; messages as any of theirs.
fn value_of(kind: &Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Double => any::<i32>().prop_map(|v| Value::F64(f64::from(v) / 4.0)).boxed(),
        Kind::Float => any::<i16>().prop_map(|v| Value::F32(f32::from(v) / 4.0)).boxed(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => any::<i32>().prop_map(Value::I32).boxed(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => any::<i64>().prop_map(Value::I64).boxed(),
        Kind::Uint32 | Kind::Fixed32 => any::<u32>().prop_map(Value::U32).boxed(),
        Kind::Uint64 | Kind::Fixed64 => any::<u64>().prop_map(Value::U64).boxed(),
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Kind::String => any::<String>().prop_map(Value::String).boxed(),
        Kind::Bytes => any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(Bytes::from(bytes))).boxed(),
        Kind::Enum(_) => prop::sample::select(vec![0, 1, -7, 5]).prop_map(Value::EnumNumber).boxed(),
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
            let message = message.clone();
            (-62_135_596_800_i64..253_402_300_800, 0..1_000_000_000)
                .prop_map(move |(seconds, nanos)| {
                    let mut time = DynamicMessage::new(message.clone());
                    time.set_field_by_name("seconds", Value::I64(seconds));
                    time.set_field_by_name("nanos", Value::I32(nanos));
                    Value::Message(time)
                })
                .boxed()
        }
        Kind::Message(message) => message_of(message).prop_map(Value::Message).boxed(),
    }
}

/// A message with some of its fields.
fn message_of(message: &MessageDescriptor) -> BoxedStrategy<DynamicMessage> {
    let fields: Vec<BoxedStrategy<Option<Value>>> = message
        .fields()
        .map(|field| {
            let value = if field.is_map() {
                let Kind::Message(entry) = field.kind() else { unreachable!() };
                let key = value_of(&entry.map_entry_key_field().kind()).prop_map(|key| match key {
                    Value::String(v) => MapKey::String(v),
                    Value::I32(v) => MapKey::I32(v),
                    Value::I64(v) => MapKey::I64(v),
                    Value::Bool(v) => MapKey::Bool(v),
                    other => panic!("{other:?}"),
                });
                proptest::collection::hash_map(key, value_of(&entry.map_entry_value_field().kind()), 0..3)
                    .prop_map(Value::Map)
                    .boxed()
            } else if field.is_list() {
                proptest::collection::vec(value_of(&field.kind()), 0..3).prop_map(Value::List).boxed()
            } else {
                value_of(&field.kind())
            };
            proptest::option::of(value).boxed()
        })
        .collect();
    let message = message.clone();
    fields
        .prop_map(move |values| {
            let mut made = DynamicMessage::new(message.clone());
            for (field, value) in message.fields().zip(values) {
                if let Some(value) = value {
                    made.set_field(&field, value);
                }
            }
            made
        })
        .boxed()
}

/// `message` as rows show it.
fn shown(message: &DynamicMessage) -> Json {
    let descriptor = message.descriptor();
    let fields = descriptor.fields().map(|field| {
        let is_there = message.has_field(&field) || !field.supports_presence();
        let value = if is_there { shown_value(&message.get_field(&field), &field.kind()) } else { Json::Null };
        (field.name().to_owned(), value)
    });
    Json::Object(fields.collect())
}

fn shown_value(value: &Value, kind: &Kind) -> Json {
    match value {
        Value::Bool(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::U32(v) => json!(v),
        // Decimals are written as JSON numbers of any length, which are read as doubles here beyond an i64.
        Value::U64(v) => json!(v),
        Value::F32(v) => json!(v),
        Value::F64(v) => json!(v),
        Value::String(v) => json!(v),
        Value::Bytes(v) => json!(v.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        Value::EnumNumber(number) => {
            let Kind::Enum(of) = kind else { panic!("{kind:?}") };
            of.get_value(*number).map_or_else(|| json!(number.to_string()), |value| json!(value.name()))
        }
        Value::List(values) => values.iter().map(|value| shown_value(value, kind)).collect(),
        Value::Map(values) => {
            let Kind::Message(entry) = kind else { panic!("{kind:?}") };
            let of = entry.map_entry_value_field().kind();
            let key = |key: &MapKey| match key {
                MapKey::String(v) => v.clone(),
                MapKey::I32(v) => v.to_string(),
                MapKey::I64(v) => v.to_string(),
                MapKey::Bool(v) => v.to_string(),
                other => panic!("{other:?}"),
            };
            Json::Object(values.iter().map(|(at, value)| (key(at), shown_value(value, &of))).collect())
        }
        Value::Message(message) => match message.descriptor().full_name() {
            "google.protobuf.Timestamp" => {
                let [seconds, nanos] =
                    ["seconds", "nanos"].map(|name| message.get_field_by_name(name).unwrap().into_owned());
                let micros = seconds.as_i64().unwrap() * 1_000_000 + i64::from(nanos.as_i32().unwrap()) / 1000;
                json!(micros)
            }
            name if name.ends_with("Value") => shown_value(
                &message.get_field_by_name("value").unwrap(),
                &message.descriptor().fields().next().unwrap().kind(),
            ),
            _ => shown(message),
        },
    }
}

/// The rows as JSON, times in microseconds, maps by the text of their keys.
fn rows_of(rows: &arrow::array::RecordBatch) -> Vec<Json> {
    use arrow::array::{Array, ArrayRef, AsArray, MapArray, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field, Int64Type};
    fn plain(array: &ArrayRef) -> ArrayRef {
        match array.data_type() {
            DataType::Timestamp(..) => Arc::new(
                array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().reinterpret_cast::<Int64Type>(),
            ),
            DataType::Map(..) => {
                let map: &MapArray = array.as_map();
                let keys: ArrayRef = Arc::new(
                    arrow::compute::cast(map.keys(), &DataType::Utf8)
                        .unwrap()
                        .as_string::<i32>()
                        .iter()
                        .collect::<StringArray>(),
                );
                let values = plain(map.values());
                let fields = vec![
                    Field::new("key", DataType::Utf8, false),
                    Field::new("value", values.data_type().clone(), true),
                ]
                .into();
                let entries = StructArray::new(fields, vec![keys, values], None);
                let entry = Arc::new(Field::new("entries", entries.data_type().clone(), false));
                Arc::new(MapArray::new(entry, map.offsets().clone(), entries, map.nulls().cloned(), false))
            }
            DataType::Struct(fields) => {
                let arrays: Vec<ArrayRef> = array.as_struct().columns().iter().map(plain).collect();
                let fields = fields
                    .iter()
                    .zip(&arrays)
                    .map(|(f, a)| Field::new(f.name(), a.data_type().clone(), true))
                    .collect();
                Arc::new(StructArray::new(fields, arrays, array.nulls().cloned()))
            }
            _ => array.clone(),
        }
    }
    let columns: Vec<(String, ArrayRef)> =
        rows.schema().fields().iter().zip(rows.columns()).map(|(f, a)| (f.name().clone(), plain(a))).collect();
    json_of(
        &arrow::array::RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
            .unwrap(),
    )
}

proptest! {
    #[test]
    fn values_are_those_that_another_library_wrote(messages in proptest::collection::vec(message_of(&everything()), 1..5)) {
        let format = format_of(&everything());
        let bytes: Vec<Option<Vec<u8>>> = messages.iter().map(|message| Some(message.encode_to_vec())).collect();
        let decoded = now(decode(format.as_ref(), &bytes));
        prop_assert_eq!(&decoded.others, &[]);
        let expected: Vec<Json> = messages.iter().map(shown).collect();
        prop_assert_eq!(rows_of(&decoded.rows), expected);
    }

    /// Two messages, one behind another, are one merged: fields come twice, lists go on, a oneof changes its mind.
    #[test]
    fn what_stands_several_times_is_merged_as_another_library_does(first in message_of(&everything()), second in message_of(&everything())) {
        let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();
        let merged = DynamicMessage::decode(everything(), bytes.as_slice()).unwrap();
        let decoded = now(decode(format_of(&everything()).as_ref(), &[Some(bytes)]));
        prop_assert_eq!(&decoded.others, &[]);
        prop_assert_eq!(rows_of(&decoded.rows), vec![shown(&merged)]);
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_it_takes_another_library_takes(message in message_of(&everything()), noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(), other in any::<Vec<u8>>()) {
        let mut bytes = message.encode_to_vec();
        for (at, byte) in &noise {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let format = format_of(&everything());
        for bytes in [bytes, other] {
            let decoded = now(decode(format.as_ref(), &[Some(bytes.clone())]));
            if decoded.others.is_empty() {
                let by_other = DynamicMessage::decode(everything(), bytes.as_slice());
                prop_assert!(by_other.is_ok(), "{by_other:?}");
                // Times that are none, and floats that JSON cannot say, are not compared.
            }
        }
    }

    #[test]
    fn bad_records_among_good_ones_are_named(order in any::<Vec<u8>>()) {
        let message = descriptor(EVERYTHING, "air.Inner");
        let good = [&[8, 1, 18, 1, b'x'][..], &[26, 2, 1, 2], &[]].map(<[u8]>::to_vec);
        let bad = [&[8, 1, 26, 2, 1][..], &[0], &[8]].map(<[u8]>::to_vec);
        sorts_out(format_of(&message).as_ref(), &good, &bad, &order);
        let bad = [&[8, 1, 18, 1, 0xff][..], &[18, 1, b'y', 26, 2, 1, 0x80], &[10, 0]].map(<[u8]>::to_vec);
        sorts_out_values(format_of(&message).as_ref(), &good, &bad, &order);
    }
}

#[test]
fn a_message_within_itself_or_without_fields_is_its_bytes() {
    let format = format_of(&descriptor(EVERYTHING, "air.Node"));
    let inner = [10, 1, b'x'];
    let bytes = [&[18, 3], &inner[..], &[26, 3], &inner[..], &[26, 0]].concat();
    assert_eq!(one(format.as_ref(), bytes).unwrap(), ["", "0a0178", "[0a0178, ]"]);
    assert_eq!(one(format.as_ref(), []).unwrap(), ["", "null", "[]"]);
}

#[test]
fn what_is_no_message_of_the_type_is_bad() {
    let format = format_of(&everything());
    let time = |seconds: &[u8]| [&[0xa2, 0x1f, seconds.len() as u8 + 1, 8], seconds].concat();
    for (bytes, said) in [
        (vec![0x1a, 1, b'x'], "the field f3 (3) is not encoded as its type is"),
        (vec![0x72, 1, 0xff], "f14: the text is no UTF-8"),
        (vec![0x18], "the record ends too early"),
        (vec![0x72, 5, b'x'], "the record ends too early"),
        (vec![0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "a number has more than 64 bits"),
        (vec![0], "a field has the number 0"),
        (vec![0x0f], "a field is encoded in the unknown way 7"),
        (vec![0x0c], "a group ends that did not begin"),
        (time(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), "are no time"),
        ([0xcb, 0x3e].repeat(100_000), "nested too deeply"),
    ] {
        let what = bad(format.as_ref(), &bytes);
        assert!(what.contains(said), "{what}");
    }
    // A field and a group that nobody knows.
    assert!(one(format.as_ref(), [0xc8, 0x3e, 1, 0xcb, 0x3e, 0xc8, 0x3e, 1, 0xcc, 0x3e]).is_ok());
}

#[test]
fn presence_of_proto2_is_null_and_what_is_required_must_be_there() {
    let text = r#"syntax = "proto2"; message M { required int32 a = 1; optional int32 b = 2 [default = 7]; optional group G = 3 { optional string s = 1; } }"#;
    let format = format_of(&descriptor(text, "M"));
    assert_eq!(one(format.as_ref(), [8, 1]).unwrap(), ["1", "null", "null"]);
    assert_eq!(one(format.as_ref(), [8, 1, 27, 10, 1, b'x', 28]).unwrap()[2], "{s: x}");
    assert_eq!(bad(format.as_ref(), []), "a: it is required, and missing");
}

#[test]
fn a_descriptor_set_names_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("air.pb");
    std::fs::write(&file, everything().parent_pool().encode_to_vec()).unwrap();
    let spec = |message: &str| json!({"type": "protobuf", "descriptor_set": file, "message": message});
    let format = now(opened(spec("air.Inner"))).unwrap();
    assert_eq!(one(format.as_ref(), [8, 7]).unwrap(), ["7", "null", "[]"]);
    let error = now(opened(spec("air.Outer.Missing"))).err().unwrap();
    assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
    assert!(error.to_string().contains("there is no message air.Outer.Missing; there are "), "{error}");
    assert!(now(opened(spec("air.Empty"))).err().unwrap().to_string().contains("no columns"));
    let none = Access { paths: Some(Vec::new()), ..Access::local() };
    let denied = now(opened_with(spec("air.Inner"), &none, None)).err().unwrap();
    assert!(denied.to_string().contains("allow.paths"), "{denied}");
    std::fs::write(&file, "text").unwrap();
    assert!(now(opened(spec("air.Inner"))).err().unwrap().to_string().contains("--include_imports"));
}

#[test]
fn a_registrys_schema_is_compiled_with_what_it_imports() {
    let registry = Served::new();
    let point = r#"syntax = "proto3"; package geo; message Point { double x = 1; double y = 2; }"#;
    let air = |more: &str| {
        format!(
            r#"syntax = "proto3"; package air; import "geo/point.proto"; import "google/protobuf/timestamp.proto";
               message Flight {{ int64 id = 1; geo.Point at = 2; google.protobuf.Timestamp ts = 3; map<string, int32> m = 4; message In {{ int32 a = 1; }} {more} }}
               message Other {{ int32 a = 1; }}"#
        )
    };
    let refers = |text: &str| json!({"schemaType": "PROTOBUF", "schema": text, "references": [{"name": "geo/point.proto", "subject": "point", "version": 1}]});
    registry.put("/subjects/point/versions/1", &json!({"schemaType": "PROTOBUF", "schema": point}));
    registry.put("/schemas/ids/1", &refers(&air("")));
    registry.put("/schemas/ids/2", &refers(&air("string more = 9;")));
    registry.put("/schemas/ids/3", &json!({"schema": "\"int\""}));
    registry.put("/subjects/flights-value/versions/latest", &refers(&air("")));
    let spec = json!({"type": "protobuf", "schema_registry": {"url": registry.url()}});
    let format = now(opened(spec.clone())).unwrap();
    let names: Vec<String> = format.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "at", "ts", "m"]);
    let framed = |id: u8, path: &[u8], message: &[u8]| [&[0, 0, 0, 0, id], path, message].concat();
    let values = [
        framed(1, &[0], &[8, 7]),
        framed(2, &[2, 0], &[8, 8, 74, 1, b'x']),
        framed(1, &[2, 2], &[8, 9]),
        framed(1, &[4, 0, 0], &[8, 9]),
        framed(3, &[0], &[]),
        framed(9, &[0], &[]),
        framed(1, &[1], &[]),
        framed(1, &[2, 200, 1], &[]),
        framed(1, &[0], &[8, 10]),
    ];
    let decoded = now(decode(format.as_ref(), &values.map(Some)));
    let ids: Vec<String> = cells(&decoded.rows).iter().map(|row| row[0].clone()).collect();
    assert_eq!(ids, ["7", "8", "10"]);
    let said: Vec<String> = decoded.others.iter().map(|(at, why)| format!("{at} {why:?}")).collect();
    for (said, expected) in said.iter().zip([
        "it is a air.Other, and rows are air.Flight",
        "it is a air.Flight.In, and rows are air.Flight",
        "is a schema of AVRO, not PROTOBUF",
        "does not know schemas/ids/9",
        "by a negative number",
        "has no such message",
    ]) {
        assert!(said.contains(expected), "{said}");
    }
    let again = now(opened_with(spec, &Access::local(), Some(&format.pin()))).unwrap();
    assert_eq!(again.schema(), format.schema());
    assert!(unpin(&[0, 200, 1]).is_none());
    registry.put("/subjects/flights-value/versions/latest", &json!({"schemaType": "PROTOBUF", "schema": "no proto"}));
    let error = now(opened(json!({"type": "protobuf", "schema_registry": {"url": registry.url()}}))).err().unwrap();
    assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
}

#[test]
fn messages_are_named_as_the_framing_counts_them() {
    let file = everything().parent_file();
    let name = |path: &[u64]| named(&file, path).map(|message| message.full_name().to_owned());
    assert_eq!(name(&[0]).as_deref(), Some("air.Inner"));
    assert_eq!(name(&[4, 0, 0]).as_deref(), Some("air.Outer.Within.Deep"));
    assert_eq!(name(&[4, 0, 1]), None);
    let none: Map<String, String> = Map::new();
    assert!(Texts(none).open_file("x").is_err());
}
