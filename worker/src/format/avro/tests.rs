#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::{Schema as Oracle, from_avro_datum, to_avro_datum};
use arrow::array::RecordBatch;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::registry::tests::Served;
use super::super::tests::{bad, binary, cells, decode, now, one, opened, opened_with, sorts_out, sorts_out_values};
use super::super::{Format, FormatError, NoRow, columns};
use super::{Plan, Schema};
use crate::access::Access;
use crate::failure::{Class, Classify};

/// The format of bare values of `schema`.
fn bare(schema: &Json) -> Result<Arc<dyn Format>, FormatError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schema.avsc");
    std::fs::write(&file, schema.to_string()).unwrap();
    now(opened(json!({"type": "avro", "avro_schema": file})))
}

fn record(fields: Json) -> Json {
    json!({"type": "record", "name": "R", "fields": fields})
}

fn encoded(schema: &Json, value: Value) -> Vec<u8> {
    to_avro_datum(&Oracle::parse(schema).unwrap(), value).unwrap()
}

fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], value].concat()
}

/// The shape of a generated schema.
#[derive(Clone, Debug)]
enum Shape {
    Plain(&'static str),
    Fixed,
    Enum,
    Array(Box<Shape>),
    Map(Box<Shape>),
    Nullable(Box<Shape>),
    Either(&'static str, &'static str),
    Record(Vec<(String, Shape)>),
}

const PLAIN: [&str; 7] = ["boolean", "int", "long", "float", "double", "bytes", "string"];

impl Shape {
    fn json(&self, path: &str) -> Json {
        match self {
            Self::Plain(kind) => json!(kind),
            Self::Fixed => json!({"type": "fixed", "name": format!("F{path}"), "size": 3}),
            Self::Enum => json!({"type": "enum", "name": format!("E{path}"), "symbols": ["A", "B", "C"]}),
            Self::Array(of) => json!({"type": "array", "items": of.json(&format!("{path}a"))}),
            Self::Map(of) => json!({"type": "map", "values": of.json(&format!("{path}m"))}),
            Self::Nullable(of) => json!(["null", of.json(path)]),
            Self::Either(a, b) => json!([a, "null", b]),
            Self::Record(fields) => {
                let fields: Vec<Json> = fields
                    .iter()
                    .map(|(name, of)| json!({"name": name, "type": of.json(&format!("{path}{name}"))}))
                    .collect();
                json!({"type": "record", "name": format!("R{path}"), "fields": fields})
            }
        }
    }

    fn value(&self) -> BoxedStrategy<Value> {
        match self {
            Self::Plain(kind) => plain(kind),
            Self::Fixed => any::<[u8; 3]>().prop_map(|bytes| Value::Fixed(3, bytes.to_vec())).boxed(),
            Self::Enum => (0_u32..3).prop_map(|at| Value::Enum(at, ["A", "B", "C"][at as usize].to_owned())).boxed(),
            Self::Array(of) => proptest::collection::vec(of.value(), 0..4).prop_map(Value::Array).boxed(),
            Self::Map(of) => {
                proptest::collection::hash_map("[a-z]{1,4}", of.value(), 0..4).prop_map(Value::Map).boxed()
            }
            Self::Nullable(of) => prop_oneof![
                Just(Value::Union(0, Box::new(Value::Null))),
                of.value().prop_map(|value| Value::Union(1, Box::new(value)))
            ]
            .boxed(),
            Self::Either(a, b) => prop_oneof![
                plain(a).prop_map(|value| Value::Union(0, Box::new(value))),
                Just(Value::Union(1, Box::new(Value::Null))),
                plain(b).prop_map(|value| Value::Union(2, Box::new(value))),
            ]
            .boxed(),
            Self::Record(fields) => {
                let names: Vec<String> = fields.iter().map(|(name, _)| name.clone()).collect();
                let values: Vec<BoxedStrategy<Value>> = fields.iter().map(|(_, of)| of.value()).collect();
                values.prop_map(move |values| Value::Record(names.iter().cloned().zip(values).collect())).boxed()
            }
        }
    }

    /// `value` as rows show it.
    fn shown(&self, value: &Value) -> Json {
        match (self, value) {
            (_, Value::Null) => Json::Null,
            (Self::Nullable(of), Value::Union(_, value)) => of.shown(value),
            (Self::Either(..), Value::Union(_, value)) if **value == Value::Null => Json::Null,
            (Self::Either(a, _), Value::Union(at, value)) => {
                let value = Self::Plain(a).shown(value);
                if *at == 0 {
                    json!({"member0": value, "member1": null})
                } else {
                    json!({"member0": null, "member1": value})
                }
            }
            (_, Value::Boolean(value)) => json!(value),
            (_, Value::Int(value)) => json!(value),
            (_, Value::Long(value)) => json!(value),
            (_, Value::Float(value)) => json!(value),
            (_, Value::Double(value)) => json!(value),
            (_, Value::Bytes(value) | Value::Fixed(_, value)) => {
                json!(value.iter().map(|b| format!("{b:02x}")).collect::<String>())
            }
            (_, Value::String(value) | Value::Enum(_, value)) => json!(value),
            (Self::Array(of), Value::Array(values)) => values.iter().map(|value| of.shown(value)).collect(),
            (Self::Map(of), Value::Map(values)) => {
                Json::Object(values.iter().map(|(key, value)| (key.clone(), of.shown(value))).collect())
            }
            (Self::Record(fields), Value::Record(values)) => Json::Object(
                fields.iter().zip(values).map(|((name, of), (_, value))| (name.clone(), of.shown(value))).collect(),
            ),
            other => panic!("{other:?}"),
        }
    }

    /// A schema as which this one's values can be read, by `how`.
    fn evolved(&self, how: u8) -> Self {
        match (self, how % 4) {
            (Self::Plain("int"), 0) => Self::Plain("long"),
            (Self::Plain("int"), 1) => Self::Plain("double"),
            (Self::Plain("float"), 0 | 1) => Self::Plain("double"),
            (Self::Plain("string"), 0) => Self::Plain("bytes"),
            // A union holds no union.
            (Self::Nullable(_), 2) => self.clone(),
            (Self::Nullable(of), _) => match of.evolved(how) {
                Self::Nullable(of) => Self::Nullable(of),
                of => Self::Nullable(Box::new(of)),
            },
            (Self::Array(of), _) => Self::Array(Box::new(of.evolved(how))),
            (Self::Map(of), _) => Self::Map(Box::new(of.evolved(how))),
            (Self::Plain(_) | Self::Enum | Self::Fixed | Self::Record(_), 2) => Self::Nullable(Box::new(self.clone())),
            (Self::Record(fields), _) => Self::Record(
                fields
                    .iter()
                    .rev()
                    .zip((0..=u8::MAX).cycle().skip(how.into()))
                    .filter(|(_, how)| how % 5 != 0)
                    .map(|((name, of), how)| (name.clone(), of.evolved(how)))
                    .collect(),
            ),
            (same, _) => same.clone(),
        }
    }
}

fn plain(kind: &str) -> BoxedStrategy<Value> {
    match kind {
        "boolean" => any::<bool>().prop_map(Value::Boolean).boxed(),
        "int" => any::<i32>().prop_map(Value::Int).boxed(),
        "long" => any::<i64>().prop_map(Value::Long).boxed(),
        "float" => any::<i16>().prop_map(|value| Value::Float(f32::from(value) / 4.0)).boxed(),
        "double" => any::<i32>().prop_map(|value| Value::Double(f64::from(value) / 4.0)).boxed(),
        "bytes" => any::<Vec<u8>>().prop_map(Value::Bytes).boxed(),
        _ => any::<String>().prop_map(Value::String).boxed(),
    }
}

fn any_record() -> impl Strategy<Value = Shape> {
    let fields = |of: BoxedStrategy<Shape>| {
        proptest::collection::vec(of, 1..5).prop_map(|shapes| {
            Shape::Record(shapes.into_iter().enumerate().map(|(at, of)| (format!("f{at}"), of)).collect())
        })
    };
    let leaf = prop_oneof![
        8 => prop::sample::select(PLAIN.to_vec()).prop_map(Shape::Plain),
        1 => Just(Shape::Fixed),
        1 => Just(Shape::Enum),
        1 => prop::sample::subsequence(PLAIN.to_vec(), 2).prop_map(|two| Shape::Either(two[0], two[1])),
    ];
    let of = leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            inner.clone().prop_map(|of| Shape::Array(Box::new(of))),
            inner.clone().prop_map(|of| Shape::Map(Box::new(of))),
            inner
                .clone()
                .prop_filter("no union within a union", |of| !matches!(of, Shape::Nullable(_) | Shape::Either(..)))
                .prop_map(|of| Shape::Nullable(Box::new(of))),
            fields(inner.boxed()),
        ]
    });
    fields(of.boxed())
}

fn with_values() -> impl Strategy<Value = (Shape, Vec<Value>)> {
    any_record().prop_flat_map(|shape| {
        let values = proptest::collection::vec(shape.value(), 1..6);
        (Just(shape), values)
    })
}

/// The rows of bare values of the schema `written`, read as `reader`.
fn resolved(written: &Json, reader: &Json, bytes: &[Vec<u8>]) -> RecordBatch {
    let [writer, reader] = [written, reader].map(|schema| Arc::new(Schema::parse(&schema.to_string(), &[]).unwrap()));
    let schema = Arc::new(arrow::datatypes::Schema::new(reader.columns().unwrap()));
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let plan = Plan::new(&writer, &reader, &all).unwrap();
    let mut columns = columns::empty(&schema).unwrap();
    bytes.iter().for_each(|bytes| plan.read(bytes, &mut columns).unwrap());
    RecordBatch::try_new(schema, columns.iter_mut().map(|column| column.finish().unwrap()).collect()).unwrap()
}

/// The rows as JSON.
pub(in super::super) fn json_of(rows: &RecordBatch) -> Vec<Json> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap_or_default()
}

proptest! {
    #[test]
    fn values_are_those_that_another_library_wrote((shape, values) in with_values()) {
        let schema = shape.json("");
        let bytes: Vec<Option<Vec<u8>>> = values.iter().map(|value| Some(encoded(&schema, value.clone()))).collect();
        let decoded = now(decode(bare(&schema).unwrap().as_ref(), &bytes));
        prop_assert_eq!(&decoded.others, &[]);
        let expected: Vec<Json> = values.iter().map(|value| shape.shown(value)).collect();
        prop_assert_eq!(json_of(&decoded.rows), expected);
    }

    #[test]
    fn values_of_another_schema_are_read_as_another_library_reads_them((shape, values) in with_values(), how in any::<u8>()) {
        let Shape::Record(read) = shape.evolved(4 * (how / 4)) else { unreachable!() };
        prop_assume!(!read.is_empty());
        let as_ = Shape::Record(read);
        let (written, mut reader) = (shape.json(""), as_.json(""));
        reader["fields"].as_array_mut().unwrap().push(json!({"name": "more", "type": {"type": "array", "items": "long"}, "default": [1, -2]}));
        let oracle = (Oracle::parse(&written).unwrap(), Oracle::parse(&reader).unwrap());
        let bytes: Vec<Vec<u8>> = values.iter().map(|value| encoded(&written, value.clone())).collect();
        let rows = resolved(&written, &reader, &bytes);
        let Shape::Record(mut fields) = as_ else { unreachable!() };
        fields.push(("more".to_owned(), Shape::Array(Box::new(Shape::Plain("long")))));
        let as_ = Shape::Record(fields);
        let expected: Vec<Json> = bytes.iter().map(|bytes| as_.shown(&from_avro_datum(&oracle.0, &mut bytes.as_slice(), Some(&oracle.1)).unwrap())).collect();
        prop_assert_eq!(json_of(&rows), expected);
    }

    #[test]
    fn no_bytes_make_it_panic((shape, values) in with_values(), noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>(), others in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
        let schema = shape.json("");
        let mut bytes: Vec<Vec<u8>> = values.iter().map(|value| encoded(&schema, value.clone())).collect();
        for bytes in &mut bytes {
            for (at, byte) in &noise {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes.extend(others);
        now(decode(bare(&schema).unwrap().as_ref(), &bytes.into_iter().map(Some).collect::<Vec<_>>()));
    }

    #[test]
    fn no_schema_makes_it_panic(text in prop_oneof![any::<String>(), "[\\[\\]{}\":,a-z]{0,40}"]) {
        let _ = Schema::parse(&text, &[]).map(|schema| schema.columns());
    }

    #[test]
    fn bad_records_among_good_ones_are_named(order in any::<Vec<u8>>()) {
        let schema = record(json!([{"name": "id", "type": "long"}, {"name": "tags", "type": {"type": "array", "items": "string"}}, {"name": "note", "type": ["null", "string"]}]));
        let good = |id: i64, tags: &[&str]| {
            let tags = tags.iter().map(|tag| Value::String((*tag).to_owned())).collect();
            let note = Value::Union(1, Box::new(Value::String("n".to_owned())));
            encoded(&schema, Value::Record(vec![("id".into(), Value::Long(id)), ("tags".into(), Value::Array(tags)), ("note".into(), note)]))
        };
        let goods = [good(1, &["a", "b"]), good(2, &[]), good(-3, &["c"])];
        let mut trailing = goods[0].clone();
        trailing.push(0);
        let bads = [goods[0][..4].to_vec(), trailing, vec![2, 0, 4], vec![]];
        sorts_out(bare(&schema).unwrap().as_ref(), &goods, &bads, &order);
        sorts_out_values(bare(&schema).unwrap().as_ref(), &goods, &[vec![2, 2, 2, 0xff, 0, 0]], &order);
    }
}

#[test]
fn logical_types_become_columns_of_their_meaning() {
    let field =
        |name: &str, kind: &str, logical: &str| json!({"name": name, "type": {"type": kind, "logicalType": logical}});
    let schema = record(json!([
        field("date", "int", "date"),
        field("tm", "int", "time-millis"),
        field("tu", "long", "time-micros"),
        field("ms", "long", "timestamp-millis"),
        field("us", "long", "timestamp-micros"),
        field("ns", "long", "timestamp-nanos"),
        field("local", "long", "local-timestamp-millis"),
        field("uuid", "string", "uuid"),
        {"name": "dec", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "fix", "type": {"type": "fixed", "name": "D", "size": 20, "logicalType": "decimal", "precision": 38, "scale": 0}},
        {"name": "odd", "type": {"type": "int", "logicalType": "parsecs"}},
    ]));
    let mut bytes = Vec::new();
    // Zigzag by hand: 19000 days, 1000 ms, 1 us, then times of 1.5 s each in their units, the last one negative.
    for value in [19_000_i64, 1000, 1, 1500, 1_500_000, 1_500_000_999, -1500] {
        bytes.extend(encoded(&json!("long"), Value::Long(value)));
    }
    bytes.extend(encoded(&json!("string"), Value::String("x".to_owned())));
    bytes.extend([4, 0xff, 0x85]);
    bytes.extend([0xff; 20]);
    bytes.extend(encoded(&json!("int"), Value::Int(7)));
    let format = bare(&schema).unwrap();
    assert_eq!(
        one(format.as_ref(), &bytes).unwrap(),
        [
            "2022-01-08",
            "00:00:01",
            "00:00:00.000001",
            "1970-01-01T00:00:01.500Z",
            "1970-01-01T00:00:01.500Z",
            "1970-01-01T00:00:01.500Z",
            "1969-12-31T23:59:58.500",
            "x",
            "-1.23",
            "-1",
            "7"
        ]
    );
    let kinds: Vec<String> = format.schema().fields().iter().map(|f| f.data_type().to_string()).collect();
    assert_eq!(kinds[8..10], ["Decimal128(9, 2)", "Decimal128(38, 0)"]);
    let at = bytes.len() - 21;
    bytes.splice(at - 3..at, [10, 0x7f, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(bad(format.as_ref(), &bytes), "a decimal does not fit decimal(9,2)");
}

/// A registry of two versions of a subject: the ids 1 and 2.
fn two_versions() -> (Served, Json, Json) {
    let first = record(
        json!([{"name": "id", "type": "int"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]),
    );
    let second = record(json!([
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "key", "aliases": ["id"], "type": "long"},
        {"name": "note", "type": ["null", "string"], "default": null},
    ]));
    let registry = Served::new();
    for (id, schema) in [(1, &first), (2, &second)] {
        registry.put(&format!("/schemas/ids/{id}"), &json!({"schema": schema.to_string()}));
        registry.put(&format!("/subjects/flights-value/versions/{id}"), &json!({"schema": schema.to_string()}));
    }
    registry.put("/subjects/flights-value/versions/latest", &json!({"schema": second.to_string()}));
    (registry, first, second)
}

#[test]
fn a_range_of_two_schemas_is_read_as_the_one_that_is_pinned() {
    let (registry, first, second) = two_versions();
    let spec = json!({"type": "avro", "schema_registry": {"url": registry.url()}});
    let format = now(opened(spec.clone())).unwrap();
    let old = framed(
        1,
        &encoded(&first, Value::Record(vec![("id".into(), Value::Int(7)), ("at".into(), Value::Long(1500))])),
    );
    let new = framed(
        2,
        &encoded(
            &second,
            Value::Record(vec![
                ("at".into(), Value::Long(1_500_000)),
                ("key".into(), Value::Long(8)),
                ("note".into(), Value::Union(1, Box::new(Value::String("n".into())))),
            ]),
        ),
    );
    let unknown = framed(9, b"");
    let other = vec![1, 0, 0, 0, 1];
    let values = [&old, &new, &unknown, &old, &other, &new].map(Some);
    let decoded = now(decode(format.as_ref(), &values));
    let at = "1970-01-01T00:00:01.500Z";
    let (old_row, new_row) = ([at, "7", "null"], [at, "8", "n"]);
    assert_eq!(cells(&decoded.rows), [old_row, new_row, old_row, new_row]);
    let said: Vec<String> = decoded.others.iter().map(|(at, why)| format!("{at} {why:?}")).collect();
    assert!(said[0].starts_with("2 Bad") && said[0].contains("does not know schemas/ids/9"), "{said:?}");
    assert!(said[1].starts_with("4 Bad") && said[1].contains("begins with no zero"), "{said:?}");

    // What another worker opens with the pin does not follow the subject, and asks for each id once.
    registry.put("/subjects/flights-value/versions/latest", &json!({"schema": first.to_string()}));
    let before = registry.asked().len();
    let again = now(opened_with(spec, &Access::local(), Some(&format.pin()))).unwrap();
    assert_eq!(again.schema(), format.schema());
    let mut decoder = again.decoder(&[1]).unwrap();
    for _ in 0..2 {
        let rows = now(decoder.decode(&binary::<&str>(&[None; 6]), &binary(&values))).unwrap().rows;
        assert_eq!(cells(&rows), [["7"], ["8"], ["7"], ["8"]]);
    }
    assert_eq!(registry.asked().len() - before, 3);
}

#[test]
fn a_registry_that_is_gone_is_an_error_and_no_bad_record() {
    let (registry, ..) = two_versions();
    let format =
        now(opened(json!({"type": "avro", "schema_registry": {"url": registry.url(), "version": 1}}))).unwrap();
    assert_eq!(format.schema().fields().len(), 2);
    drop(registry);
    let mut decoder = format.decoder(&[0]).unwrap();
    let error = now(decoder.decode(&binary::<&str>(&[None]), &binary(&[Some(framed(1, b""))]))).unwrap_err();
    assert_eq!((error.class(), error.exit_code()), (Class::Retryable, Some(75)));
}

#[test]
fn a_writer_that_does_not_resolve_makes_its_records_bad() {
    let (registry, ..) = two_versions();
    registry.put("/schemas/ids/3", &json!({"schema": record(json!([{"name": "at", "type": "string"}, {"name": "key", "type": "long"}])).to_string()}));
    registry.put("/schemas/ids/4", &json!({"schema": record(json!([{"name": "key", "type": "long"}])).to_string()}));
    registry.put("/schemas/ids/6", &json!({"schema": "no schema"}));
    let format = now(opened(json!({"type": "avro", "schema_registry": {"url": registry.url()}}))).unwrap();
    for (id, said) in [
        (3, "at: what was written as string is not read as long"),
        (4, "lacks the field at, which has no default"),
        (6, "is no JSON"),
    ] {
        let what = bad(format.as_ref(), framed(id, &[]));
        assert!(what.contains(said), "{what}");
    }
}

#[test]
fn what_has_no_columns_is_refused() {
    let node = json!({"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]});
    let deep = (0..40).fold(json!("int"), |of, at| {
        record(json!([{"name": format!("f{at}"), "type": of}]))
            .to_string()
            .replace("\"R\"", &format!("\"R{at}\""))
            .parse()
            .unwrap()
    });
    for (schema, said) in [
        (json!("int"), "is no record"),
        (node, "recursive"),
        (record(json!([{"name": "a", "type": "Unknown"}])), "Unknown is not known"),
        (record(json!([{"name": "a", "type": "int"}, {"name": "a", "type": "int"}])), "defined twice"),
        (json!({"type": "record", "name": "R"}), "lacks its `fields`"),
    ] {
        let error = bare(&schema).err().unwrap();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(bare(&deep).is_ok());
}

#[test]
fn a_long_is_read_as_a_float_and_a_double() {
    let written = record(json!([{"name": "a", "type": "long"}, {"name": "b", "type": "long"}]));
    let read = record(json!([{"name": "a", "type": "double"}, {"name": "b", "type": ["null", "float"]}]));
    let value = Value::Record(vec![("a".into(), Value::Long(-(1 << 52))), ("b".into(), Value::Long(1 << 20))]);
    let rows = resolved(&written, &read, &[encoded(&written, value)]);
    assert_eq!(cells(&rows), [["-4503599627370496.0", "1048576.0"]]);
}

#[test]
fn arrays_of_what_takes_no_bytes_are_bounded() {
    let empty = json!({"type": "record", "name": "Empty", "fields": []});
    let schema = record(json!([{"name": "a", "type": {"type": "array", "items": empty}}]));
    let format = bare(&schema).unwrap();
    let of = |count: i64| [encoded(&json!("long"), Value::Long(count)), vec![0]].concat();
    assert!(one(format.as_ref(), of(100)).is_ok());
    for count in [5000, i64::MAX, i64::MIN] {
        assert!(matches!(one(format.as_ref(), of(count)), Err(NoRow::Bad(_))), "{count}");
    }
}
