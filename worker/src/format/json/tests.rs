#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::json::ReaderBuilder;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::Format;
use super::super::tests::{bad, cells, decode, now, one, opened, sorts_out};

fn all_types() -> Arc<dyn Format> {
    let types = [
        ("t", "boolean"),
        ("i", "int"),
        ("l", "bigint"),
        ("f", "real"),
        ("d", "double"),
        ("s", "varchar"),
        ("day", "date"),
        ("ts", "timestamp"),
        ("tz", "timestamptz"),
        ("n", "decimal(9,2)"),
    ];
    let schema: Vec<Json> = types.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
    now(opened(json!({"type": "json", "schema": schema}))).unwrap()
}

/// A format of one column `a`.
fn of(kind: &str) -> Arc<dyn Format> {
    now(opened(json!({"type": "json", "schema": [{"name": "a", "type": kind}]}))).unwrap()
}

/// What `{"a": value}` is as a `kind`.
fn read(kind: &str, value: &str) -> Result<String, String> {
    match one(of(kind).as_ref(), format!("{{\"a\": {value}}}")) {
        Ok(mut row) => Ok(row.remove(0)),
        Err(super::NoRow::Bad(what)) => Err(what),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn every_type_takes_what_it_can_hold_exactly_and_nothing_else() {
    let good = [
        ("boolean", "true", "true"),
        ("int", "-2147483648", "-2147483648"),
        ("int", "1e3", "1000"),
        ("bigint", "9223372036854775807", "9223372036854775807"),
        ("bigint", "1.0", "1"),
        ("bigint", "\"9007199254740993\"", "9007199254740993"),
        ("bigint", "-0", "0"),
        ("bigint", "-0.0e5", "0"),
        ("double", "1e-400", "0.0"),
        ("double", "\"NaN\"", "NaN"),
        ("double", "-12.5E1", "-125.0"),
        ("real", "0.1", "0.1"),
        ("varchar", "\"a\\u00e4\\ud83d\\ude00\\n\\/\"", "aä😀\n/"),
        ("varchar", "\"\"", ""),
        ("varchar", "null", "null"),
        ("date", "\"2024-02-29\"", "2024-02-29"),
        ("date", "\"0000-03-01\"", "0000-03-01"),
        ("timestamp", "\"2024-01-31T12:30:00.1234567\"", "2024-01-31T12:30:00.123456"),
        ("timestamp", "\"2024-01-31 12:30:00+02:00\"", "2024-01-31T10:30:00"),
        ("timestamptz", "\"2024-01-31\"", "2024-01-31T00:00:00Z"),
        ("timestamptz", "\"1969-12-31T23:59:59.999999Z\"", "1969-12-31T23:59:59.999999Z"),
        ("timestamptz", "\"2024-01-31T12:30:00-00:30\"", "2024-01-31T13:00:00Z"),
        ("decimal(9,2)", "1234567.89", "1234567.89"),
        ("decimal(9,2)", "\"-1.5\"", "-1.50"),
        ("decimal(9,2)", "12.340000", "12.34"),
        ("decimal(38,0)", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
    ];
    for (kind, written, expected) in good {
        assert_eq!(read(kind, written), Ok(expected.to_owned()), "{kind} {written}");
    }
    let wrong = [
        ("boolean", "1"),
        ("boolean", "\"true\""),
        ("int", "2147483648"),
        ("int", "true"),
        ("bigint", "1.5"),
        ("bigint", "9223372036854775808"),
        ("bigint", "\"\""),
        ("bigint", "\" 1\""),
        ("bigint", "1e99999999999999999999"),
        ("double", "1e999"),
        ("real", "1e39"),
        ("double", "{}"),
        ("varchar", "1"),
        ("varchar", "{\"b\": 1}"),
        ("varchar", "[]"),
        ("date", "19000"),
        ("date", "\"2023-02-29\""),
        ("date", "\"2024-1-1\""),
        ("timestamp", "1700000000000"),
        ("timestamptz", "\"yesterday\""),
        ("timestamptz", "\"2024-01-31T25:00:00Z\""),
        ("decimal(9,2)", "1.234"),
        ("decimal(9,2)", "10000000"),
    ];
    for (kind, written) in wrong {
        let what = read(kind, written).unwrap_err();
        assert!(what.starts_with("column a: "), "{kind} {written}: {what}");
    }
    assert!(read("timestamp", "1700000000000").unwrap_err().contains("does not say its unit"));
}

#[test]
fn a_record_is_exactly_one_object() {
    let format = of("bigint");
    let wrong = [
        "",
        " ",
        "1",
        "[]",
        "null",
        "\"a\"",
        "{}{}",
        "{} {}",
        "{},",
        "{\"a\":1",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":nul}",
        "{\"b\":[1,]}",
        "{\"b\":[1 2]}",
        "{\"b\":\"\u{1}\"}",
        "{\"b\":\"\\x\"}",
        "{\"b\":\"\\ud800\"}",
        "{\"b\":\"\\udc00\\ud800\"}",
        "{\"b\":\"\\u12\"}",
        "{\"b\":\"",
        "\u{feff}{}",
        "{}\0",
        "{\"a\":NaN}",
    ];
    for record in wrong {
        assert!(serde_json::from_str::<Map<String, Json>>(record).is_err(), "{record}");
        assert!(bad(format.as_ref(), record).starts_with("no JSON: "), "{record}");
    }
    assert_eq!(bad(format.as_ref(), b"{\"b\": \"\xff\"}"), "the value is no UTF-8 at byte 7");
    assert_eq!(one(format.as_ref(), "\t{ \"b\" : [ { } , [ ] ] , \"a\" : 1 } \r\n"), Ok(vec!["1".to_owned()]));
}

#[test]
fn a_name_may_be_written_with_escapes_and_of_two_fields_the_last_counts() {
    let format = of("bigint");
    assert_eq!(one(format.as_ref(), r#"{"\u0061": 7}"#), Ok(vec!["7".to_owned()]));
    assert_eq!(one(format.as_ref(), r#"{"a": "x", "a": 7}"#), Ok(vec!["7".to_owned()]));
    assert_eq!(one(format.as_ref(), r#"{"A": 7}"#), Ok(vec!["null".to_owned()]));
}

#[test]
fn what_is_nested_too_deeply_is_bad_and_no_overflow() {
    let format = of("bigint");
    let nested = |depth: usize| format!("{{\"b\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(one(format.as_ref(), nested(127)), Ok(vec!["null".to_owned()]));
    assert!(bad(format.as_ref(), nested(128)).contains("nested too deeply"));
    assert!(bad(format.as_ref(), "{\"b\":".repeat(1_000_000)).contains("nested too deeply"));
}

/// JSON of any shape.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// A record of `all_types` with columns left out, null, of the right type, or of any other.
fn any_record() -> impl Strategy<Value = Json> {
    let field = |value: BoxedStrategy<Json>| prop_oneof![6 => value.prop_map(Some), 1 => any_json().prop_map(Some), 1 => Just(Some(Json::Null)), 1 => Just(None)];
    let time = (-62_135_596_800_000_000_i64..253_402_300_799_000_000)
        .prop_map(|micros| jiff::Timestamp::from_microsecond(micros).unwrap().to_string());
    let columns = (
        field(any::<bool>().prop_map(Json::from).boxed()),
        field(any::<i32>().prop_map(Json::from).boxed()),
        field(any::<i64>().prop_map(Json::from).boxed()),
        field(any::<f32>().prop_map(|f| json!(f)).boxed()),
        field(any::<f64>().prop_map(Json::from).boxed()),
        field(any::<String>().prop_map(Json::from).boxed()),
        field(time.clone().prop_map(|text| json!(text.get(..10))).boxed()),
        field(time.clone().prop_map(|text| json!(text.trim_end_matches('Z'))).boxed()),
        field(time.prop_map(Json::from).boxed()),
        field(
            (-999_999_999_i64..1_000_000_000)
                .prop_map(|n| json!(format!("{}{}.{:02}", if n < 0 { "-" } else { "" }, n.abs() / 100, n.abs() % 100)))
                .boxed(),
        ),
    );
    let others = proptest::collection::btree_map("[a-z]{0,3}", any_json(), 0..3);
    (columns, others).prop_map(|((t, i, l, f, d, s, day, ts, tz, n), others)| {
        let mut record: Map<String, Json> = others.into_iter().collect();
        for (name, value) in
            [("t", t), ("i", i), ("l", l), ("f", f), ("d", d), ("s", s), ("day", day), ("ts", ts), ("tz", tz), ("n", n)]
        {
            record.remove(name);
            record.extend(value.map(|value| (name.to_owned(), value)));
        }
        Json::from(record)
    })
}

/// What arrow-json makes of one record.
fn by_arrow(format: &dyn Format, record: &[u8]) -> Option<Vec<String>> {
    let mut decoder = ReaderBuilder::new(format.schema()).with_batch_size(2).build_decoder().unwrap();
    decoder.decode(record).ok()?;
    Some(cells(&decoder.flush().ok()??).remove(0))
}

proptest! {
    #[test]
    fn rows_are_those_that_arrow_json_makes(records in proptest::collection::vec((any_record(), any::<bool>()), 1..20)) {
        let format = all_types();
        let texts: Vec<Vec<u8>> = records
            .iter()
            .map(|(record, pretty)| if *pretty { serde_json::to_vec_pretty(record) } else { serde_json::to_vec(record) }.unwrap())
            .collect();
        let values: Vec<Option<&Vec<u8>>> = texts.iter().map(Some).collect();
        let decoded = now(decode(format.as_ref(), &values));
        let mut rows = cells(&decoded.rows).into_iter();
        for (at, text) in texts.iter().enumerate() {
            let by_arrow = by_arrow(format.as_ref(), text);
            if decoded.others.iter().any(|(other, _)| *other == at) {
                // Stricter than arrow-json: a number for a time or date, a fraction for a whole number, digits too many.
                let record = &records[at].0;
                let is_coerced = ["day", "ts", "tz", "n", "i", "l", "f", "d"].iter().any(|name| record[name].is_number() || record[name].is_string());
                prop_assert!(by_arrow.is_none() || is_coerced, "{record}");
            } else {
                prop_assert_eq!(rows.next(), by_arrow, "{}", records[at].0);
            }
        }
    }

    #[test]
    fn a_text_is_json_exactly_where_serde_json_says_so(record in any_record(), at in any::<prop::sample::Index>(), byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u0e-. \n".to_vec())], how in 0..3) {
        let format = of("bigint");
        let mut text = serde_json::to_vec(&json!({"b": record})).unwrap();
        let at = at.index(text.len());
        match how {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            _ => text.truncate(at),
        }
        // serde_json also refuses numbers beyond a double.
        let expected = serde_json::from_slice::<Map<String, Json>>(&text);
        if expected.as_ref().is_err_and(|e| e.to_string().contains("out of range")) {
            return Ok(());
        }
        prop_assert_eq!(one(format.as_ref(), &text).is_ok(), expected.is_ok(), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn no_bytes_make_it_panic(records in proptest::collection::vec(proptest::option::of(any::<Vec<u8>>()), 0..20)) {
        now(decode(all_types().as_ref(), &records));
    }

    #[test]
    fn texts_come_back_as_they_were(text in any::<String>()) {
        let record = serde_json::to_vec(&json!({"a": text})).unwrap();
        prop_assert_eq!(one(of("varchar").as_ref(), record), Ok(vec![text]));
    }

    #[test]
    fn bad_records_among_good_ones_are_named(order in any::<Vec<u8>>()) {
        let good: Vec<Vec<u8>> = vec![
            br#"{"t":true,"i":1,"l":2,"s":"x","day":"2024-01-01","tz":"2024-01-01T00:00:00Z","n":1.25}"#.to_vec(),
            br#"{"i":null,"s":"a\tb","d":0.5}"#.to_vec(),
            br#"{"z":1}"#.to_vec(),
        ];
        let bad = [&b"{\"t\":true,\"s\":\"long\",,}"[..], b"{\"t\":", b"\xff", b"{}{}"].map(<[u8]>::to_vec);
        sorts_out(all_types().as_ref(), &good, &bad, &order);
    }
}

#[test]
fn a_value_of_a_wrong_type_takes_back_what_its_record_gave_to_other_columns() {
    let format = all_types();
    let records = [
        r#"{"t":true,"i":1,"s":"one","n":1}"#,
        r#"{"t":false,"i":2,"s":"two","n":"x"}"#,
        r#"{"t":null,"i":3,"s":"three","n":3}"#,
    ];
    let decoded = now(decode(format.as_ref(), &records.map(Some)));
    let rows = cells(&decoded.rows);
    assert_eq!([&rows[0][5], &rows[1][5]], ["one", "three"]);
    assert_eq!([&rows[0][0], &rows[1][0]], ["true", "null"]);
    assert_eq!(decoded.others[0].1, super::NoRow::Bad("column n: \"x\" is no decimal(9,2)".to_owned()));
}
