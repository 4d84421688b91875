#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::csv::ReaderBuilder;
use proptest::prelude::*;
use serde_json::json;

use super::super::Format;
use super::super::tests::{bad, cells, decode, now, one, opened, sorts_out};

fn format(csv: serde_json::Value) -> Arc<dyn Format> {
    let schema = json!([{"name": "id", "type": "bigint"}, {"name": "note", "type": "varchar"}, {"name": "ts", "type": "timestamptz"}]);
    now(opened(json!({"type": "csv", "schema": schema, "csv": csv}))).unwrap()
}

fn plain() -> Arc<dyn Format> {
    format(json!({}))
}

#[test]
fn a_line_is_a_row() {
    let row = |cells: [&str; 3]| Ok(cells.map(str::to_owned).to_vec());
    let at = "2024-01-01T00:00:00Z";
    assert_eq!(one(plain().as_ref(), "7,a b,2024-01-01"), row(["7", "a b", at]));
    assert_eq!(one(plain().as_ref(), "7,\"a,\"\"b\"\"\n\",2024-01-01\r\n"), row(["7", "a,\"b\"\n", at]));
    assert_eq!(one(plain().as_ref(), ",,\n"), row(["null", "null", "null"]));
    assert_eq!(one(plain().as_ref(), "7,a\"b,"), row(["7", "a\"b", "null"]));
    let other = format(json!({"delimiter": "|", "null": "\\N"}));
    assert_eq!(one(other.as_ref(), "\\N||2024-01-01"), row(["null", "", at]));
}

#[test]
fn what_is_no_line_of_the_schema_is_bad() {
    let wrong = [
        ("", "the line is empty"),
        ("\n", "the line is empty"),
        ("1,b", "the line has 2 fields, and the schema 3 columns"),
        ("1,b,,", "the line has 4 fields, and the schema 3 columns"),
        ("1,\"b,", "field 2: its closing quote is missing"),
        ("1,\"b\"c,", "field 2: something follows its closing quote"),
        ("1,b,\n2,c,", "the value has more than one line"),
        ("1,b,\r2,c,", "the value has more than one line"),
        ("x,b,", "column id: \"x\" is no bigint"),
        ("1,b,1700000000", "column ts: \"1700000000\" is no timestamptz"),
    ];
    for (line, what) in wrong {
        assert_eq!(bad(plain().as_ref(), line), what, "{line:?}");
    }
    assert_eq!(bad(plain().as_ref(), b"1,\xff,"), "the value is no UTF-8 at byte 2");
}

proptest! {
    #[test]
    fn rows_are_those_that_arrow_csv_makes(rows in proptest::collection::vec((any::<i64>(), any::<String>(), 0_i64..4_000_000_000), 1..10)) {
        let format = plain();
        let lines: Vec<String> = rows.iter().map(|(id, note, at)| {
            let at = jiff::Timestamp::from_second(*at).unwrap();
            format!("{id},\"{}\",{at}", note.replace('"', "\"\""))
        }).collect();
        let values: Vec<Option<&String>> = lines.iter().map(Some).collect();
        let decoded = now(decode(format.as_ref(), &values));
        prop_assert_eq!(&decoded.others, &[]);
        let text = lines.join("\n");
        let mut by_arrow = ReaderBuilder::new(format.schema()).build(text.as_bytes()).unwrap();
        prop_assert_eq!(cells(&decoded.rows), cells(&by_arrow.next().unwrap().unwrap()));
    }

    #[test]
    fn no_bytes_make_it_panic(records in proptest::collection::vec(proptest::option::of(prop_oneof![any::<Vec<u8>>(), "[\",a1\n\r]{0,12}".prop_map(String::into_bytes)]), 0..20)) {
        now(decode(plain().as_ref(), &records));
    }

    #[test]
    fn bad_records_among_good_ones_are_named(order in any::<Vec<u8>>()) {
        let good = [&b"1,a,2024-01-01T00:00:00Z"[..], b",\"b\",", b"3,,"].map(<[u8]>::to_vec);
        let bad = [&b"1"[..], b"1,\"a,", b"1,a,\"\"x"].map(<[u8]>::to_vec);
        sorts_out(plain().as_ref(), &good, &bad, &order);
    }
}
