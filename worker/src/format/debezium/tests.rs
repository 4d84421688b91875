#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::tests::{bad, cells, decode, now, one, opened, sorts_out, sorts_out_values};
use super::super::{Format, NoRow};

fn format(changes: Json) -> Arc<dyn Format> {
    let schema = json!([{"name": "id", "type": "bigint"}, {"name": "at", "type": "timestamptz"}, {"name": "day", "type": "date"}, {"name": "price", "type": "decimal(9,3)"}]);
    now(opened(json!({"type": "debezium_json", "schema": schema, "changes": changes}))).unwrap()
}

fn event(op: &str, after: Json) -> Json {
    json!({"before": null, "after": after, "source": {"table": "t"}, "op": op, "ts_ms": 1})
}

/// The event with a schema that says what its row's fields are.
fn enveloped(fields: Json, payload: Json) -> String {
    let row = json!({"type": "struct", "fields": fields, "optional": true});
    let with = |name: &str| {
        let mut row = row.clone();
        row["field"] = json!(name);
        row
    };
    json!({"schema": {"type": "struct", "fields": [with("before"), with("after"), {"type": "string", "field": "op"}]}, "payload": payload}).to_string()
}

#[test]
fn inserts_and_snapshot_reads_are_rows_with_and_without_an_envelope() {
    let after = json!({"id": 7, "at": "2024-01-01T00:00:00Z", "price": "1.5", "more": {}});
    let row = Ok(["7", "2024-01-01T00:00:00Z", "null", "1.500"].map(str::to_owned).to_vec());
    for op in ["c", "r"] {
        assert_eq!(one(format(json!({})).as_ref(), event(op, after.clone()).to_string()), row);
        assert_eq!(one(format(json!({})).as_ref(), enveloped(json!([]), event(op, after.clone()))), row);
    }
}

#[test]
fn the_spec_says_what_becomes_of_updates_and_deletes() {
    let update = event("u", json!({"id": 8})).to_string();
    let delete = event("d", Json::Null).to_string();
    let refuse = format(json!({}));
    assert!(bad(refuse.as_ref(), &update).contains("it is an update: see format.changes.updates"));
    assert!(bad(refuse.as_ref(), &delete).contains("it is a delete: see format.changes.deletes"));
    let skip = format(json!({"updates": "skip", "deletes": "skip"}));
    let decoded = now(decode(skip.as_ref(), &[Some(&update), Some(&delete), None]));
    assert_eq!(decoded.others, [(0, NoRow::Skipped), (1, NoRow::Skipped), (2, NoRow::Tombstone)]);
    let after = format(json!({"updates": "after"}));
    assert_eq!(one(after.as_ref(), &update).unwrap()[0], "8");
    assert!(bad(after.as_ref(), &delete).contains("it is a delete"));
}

#[test]
fn all_else_is_refused_by_name() {
    let format = format(json!({"updates": "after"}));
    for (record, said) in [
        (event("t", Json::Null).to_string(), "a truncation"),
        (event("m", Json::Null).to_string(), "a message of the database's log"),
        (event("x", Json::Null).to_string(), "its `op` is \"x\""),
        (event("c", Json::Null).to_string(), "no row in `after`"),
        (event("u", json!([])).to_string(), "no row in `after`"),
        (json!({"id": 1}).to_string(), "no `op`"),
        (json!({"schema": {}, "payload": 1}).to_string(), "it is not an object"),
        ("{\"op\":\"c\",\"after\":{}".to_owned(), "no JSON"),
        ("[]".to_owned(), "it is not an object"),
        (event("c", json!({"id": "x"})).to_string(), "column id: \"x\" is no bigint"),
        (event("c", json!({"at": 1_700_000_000_000_i64})).to_string(), "does not say its unit"),
    ] {
        let what = bad(format.as_ref(), record);
        assert!(what.contains(said), "{what}");
    }
    assert_eq!(one(format.as_ref(), json!({"schema": null, "payload": null}).to_string()), Err(NoRow::Tombstone));
}

#[test]
fn the_events_schema_says_what_its_numbers_count() {
    let format = format(json!({}));
    let fields = |time: &str, scale: &str| {
        json!([
            {"type": "int64", "field": "id"},
            {"type": "int64", "field": "at", "name": time},
            {"type": "int32", "field": "day", "name": "io.debezium.time.Date"},
            {"type": "bytes", "field": "price", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": scale}},
        ])
    };
    let at = "1970-01-01T00:00:01.500Z";
    // 0x30 39 is 12345, 0xCF C7 is -12345.
    for (time, number, scale, price, shown) in [
        ("io.debezium.time.Timestamp", 1500_i64, "2", "MDk=", "123.450"),
        ("org.apache.kafka.connect.data.Timestamp", 1500, "2", "MDk", "123.450"),
        ("io.debezium.time.MicroTimestamp", 1_500_000, "3", "z8c=", "-12.345"),
        ("io.debezium.time.NanoTimestamp", 1_500_000_999, "0", "MDk=", "12345.000"),
    ] {
        let after = json!({"id": 1, "at": number, "day": 19_000, "price": price});
        let row = one(format.as_ref(), enveloped(fields(time, scale), event("c", after))).unwrap();
        assert_eq!(row, ["1", at, "2022-01-08", shown]);
    }
    let broken = json!({"id": 1, "price": "M*"});
    assert!(bad(format.as_ref(), enveloped(fields("x", "2"), event("c", broken))).contains("column price"));
    let too_fine = json!({"price": "MDk="});
    assert!(bad(format.as_ref(), enveloped(fields("x", "9"), event("c", too_fine))).contains("is no decimal(9,3)"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(records in proptest::collection::vec(proptest::option::of(any::<Vec<u8>>()), 0..10), cut in any::<prop::sample::Index>()) {
        let whole = enveloped(json!([]), event("c", json!({"id": 1})));
        let cut = whole.as_bytes()[..cut.index(whole.len())].to_vec();
        let format = format(json!({}));
        now(decode(format.as_ref(), &records));
        prop_assert!(matches!(one(format.as_ref(), cut), Err(NoRow::Bad(_))));
    }

    #[test]
    fn bad_records_among_good_ones_are_named(order in any::<Vec<u8>>()) {
        let good = [event("c", json!({"id": 1})), event("r", json!({"id": 2, "price": 3}))].map(|e| e.to_string().into_bytes());
        let bad = [event("d", Json::Null), event("c", json!([]))].map(|e| e.to_string().into_bytes());
        sorts_out(format(json!({})).as_ref(), &good, &bad, &order);
        let bad = [event("c", json!({"id": 1, "price": "x"})).to_string().into_bytes()];
        sorts_out_values(format(json!({})).as_ref(), &good, &bad, &order);
    }
}

#[test]
fn rows_keep_their_order() {
    let events: Vec<Option<String>> = (0..100).map(|id| Some(event("c", json!({"id": id})).to_string())).collect();
    let rows = cells(&now(decode(format(json!({})).as_ref(), &events)).rows);
    assert!(rows.iter().enumerate().all(|(at, row)| row[0] == at.to_string()));
}
