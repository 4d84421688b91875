#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Date64Array, Int32Array, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::Field;
use serde_json::json;

use super::*;

fn rule(kind: &DataType, event_time: serde_json::Value) -> Result<EventTimeRule, SourceError> {
    let schema = Schema::new(vec![Field::new("ts", kind.clone(), true)]);
    EventTimeRule::resolve("s", Some(&serde_json::from_value(event_time).unwrap()), &schema)
}

fn times(array: ArrayRef, event_time: serde_json::Value) -> Vec<Option<i64>> {
    rule(array.data_type(), event_time).unwrap().of_column(&array).iter().collect()
}

fn micros(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_microsecond()
}

#[test]
fn every_type_of_time_becomes_microseconds_and_what_does_not_fit_is_null() {
    let plain = || json!({"column": "ts"});
    let cases: Vec<(ArrayRef, serde_json::Value, Vec<Option<i64>>)> = vec![
        (
            Arc::new(TimestampSecondArray::from(vec![Some(-1), None, Some(i64::MAX)])),
            plain(),
            vec![Some(-1_000_000), None, None],
        ),
        (Arc::new(TimestampMillisecondArray::from(vec![7]).with_timezone("+02:00")), plain(), vec![Some(7_000)]),
        (Arc::new(TimestampMicrosecondArray::from(vec![7, i64::MAX, i64::MIN])), plain(), vec![Some(7), None, None]),
        (Arc::new(TimestampNanosecondArray::from(vec![1_999, -1])), plain(), vec![Some(1), Some(-1)]),
        (Arc::new(Date32Array::from(vec![1, -1])), plain(), vec![Some(86_400_000_000), Some(-86_400_000_000)]),
        (Arc::new(Date64Array::from(vec![86_400_000])), plain(), vec![Some(86_400_000_000)]),
        (Arc::new(Int32Array::from(vec![2])), json!({"column": "ts", "unit": "seconds"}), vec![Some(2_000_000)]),
        (
            Arc::new(UInt64Array::from(vec![2, u64::MAX])),
            json!({"column": "ts", "unit": "millis"}),
            vec![Some(2_000), None],
        ),
        (Arc::new(Int64Array::from(vec![-1])), json!({"column": "ts", "unit": "nanos"}), vec![Some(-1)]),
    ];
    for (array, event_time, expected) in cases {
        assert_eq!(times(array.clone(), event_time), expected, "{}", array.data_type());
    }
}

#[test]
fn a_wall_time_is_read_in_its_zone_and_keeps_the_order_across_both_changes() {
    let zone = json!({"column": "ts", "time_zone": "America/New_York"});
    let walls = [
        "2013-03-10T01:59:00Z",
        "2013-03-10T02:30:00Z",
        "2013-03-10T03:00:00Z",
        "2013-11-03T01:30:00Z",
        "2013-11-03T02:00:00Z",
    ];
    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(walls.map(micros)));
    let expected = [
        "2013-03-10T06:59:00Z",
        "2013-03-10T07:00:00Z",
        "2013-03-10T07:00:00Z",
        "2013-11-03T05:30:00Z",
        "2013-11-03T07:00:00Z",
    ];
    assert_eq!(times(array.clone(), zone.clone()), expected.map(|at| Some(micros(at))));

    let zoned: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![5]).with_timezone("UTC"));
    assert_eq!(times(zoned, zone), [Some(5)], "a timestamp with a zone needs none");
}

#[test]
fn what_cannot_be_an_event_time_is_refused_with_the_way_out() {
    let cases = [
        (DataType::Utf8, json!({"column": "ts"}), "give it the type timestamp"),
        (DataType::Int64, json!({"column": "ts"}), "event_time.unit must say"),
        (DataType::Date32, json!({"column": "ts", "unit": "seconds"}), "remove the unit"),
        (DataType::Float64, json!({"column": "ts"}), "event time is a timestamp"),
        (DataType::Date32, json!({"column": "ts", "time_zone": "Mars/Olympus"}), "no time zone"),
        (DataType::Date32, json!({"column": "ts", "bounds": "path"}), "needs event_time.path"),
        (DataType::Date32, json!({"path": "dt=%H"}), "no date can be read by it"),
        (DataType::Date32, json!({"column": "ts", "path": "dt=%Y"}), "both a column and a path"),
        (DataType::Date32, json!({}), "neither a column nor a path"),
    ];
    for (kind, event_time, said) in cases {
        let error = rule(&kind, event_time).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_path_names_the_start_of_its_smallest_part() {
    let cases = [
        ("dt=%Y-%m-%d", "UTC", "/x/dt=2024-02-29/a", "2024-02-29T00:00:00Z", "2024-02-29T23:59:59.999999Z"),
        (
            "dt=%Y-%m-%d/hour=%H",
            "UTC",
            "s3://b/dt=2024-02-29/hour=07/a",
            "2024-02-29T07:00:00Z",
            "2024-02-29T07:59:59.999999Z",
        ),
        ("year=%Y/month=%m", "UTC", "/x/year=2024/month=2/a", "2024-02-01T00:00:00Z", "2024-02-29T23:59:59.999999Z"),
        ("%Y", "America/New_York", "/x/2013/a", "2013-01-01T05:00:00Z", "2014-01-01T04:59:59.999999Z"),
    ];
    for (form, zone, path, low, high) in cases {
        let rule = rule(&DataType::Date32, json!({"column": "ts", "path": form, "time_zone": zone, "bounds": "path"}))
            .unwrap();
        let bounds = rule.promised(path).unwrap().unwrap();
        assert_eq!((bounds.low().as_micros(), bounds.high().as_micros()), (micros(low), micros(high)), "{form}");
        assert!(rule.promised("/x/other/a").unwrap().unwrap_err().contains("no date parts"));
    }
    let declared = json!({"column": "ts", "path": "dt=%Y-%m-%d", "bounds": {"declared": "36h"}});
    let bounds = rule(&DataType::Date32, declared).unwrap().promised("/dt=2024-01-01/a").unwrap().unwrap();
    assert_eq!(bounds.high().as_micros(), micros("2024-01-02T11:59:59.999999Z"));
}

#[test]
fn a_length_of_time_is_read_in_both_forms() {
    let read = ["90s", "2h30m", "10d", "PT1H"].map(|text| span_micros(text).unwrap() / 1_000_000);
    assert_eq!(read, [90, 9_000, 864_000, 3_600]);
    for bad in ["", "10", "-1h", "1 month", "soon"] {
        assert!(span_micros(bad).is_err(), "{bad}");
    }
}
