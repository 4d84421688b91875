//! Where files lie beside a window: tables of cases.

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Literal, NestedField, PartitionSpec,
    PrimitiveType, Schema, Struct, Type,
};
use tidegate_common::spec::model::TimeUnitSpec;

use super::super::partition::parse;
use super::super::window::{Place, Placer};
use super::*;

const DAY: i64 = 24 * HOUR;

fn schema(kind: PrimitiveType) -> Arc<Schema> {
    let fields = [(1, "id", PrimitiveType::Long), (2, "at", kind)];
    let fields = fields.map(|(id, name, kind)| Arc::new(NestedField::optional(id, name, Type::Primitive(kind))));
    Arc::new(Schema::builder().with_fields(fields).build().unwrap())
}

fn spec(schema: &Arc<Schema>, fields: &[&str]) -> PartitionSpec {
    let fields: Vec<_> = fields.iter().map(|text| (*text).to_owned()).collect();
    parse(&fields, schema).unwrap().bind(schema.clone()).unwrap()
}

/// A file in the partition `values` with bounds of `at`, and so many nulls in it.
fn file(values: &[Option<i32>], bounds: Option<(Datum, Datum)>, nulls: Option<u64>) -> DataFile {
    let partition = Struct::from_iter(values.iter().map(|value| value.map(Literal::int)));
    let (low, high): (Vec<_>, Vec<_>) = bounds.map(|(low, high)| ((2, low), (2, high))).into_iter().unzip();
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path("f".to_owned())
        .file_format(DataFileFormat::Parquet)
        .partition(partition)
        .record_count(1)
        .file_size_in_bytes(1)
        .lower_bounds(low.into_iter().collect())
        .upper_bounds(high.into_iter().collect())
        .null_value_counts(nulls.map(|nulls| (2, nulls)).into_iter().collect())
        .build()
        .unwrap()
}

fn times(low: i64, high: i64) -> Option<(Datum, Datum)> {
    Some((Datum::timestamptz_micros(low), Datum::timestamptz_micros(high)))
}

#[test]
fn the_partition_says_where_a_file_lies_and_else_its_bounds() {
    use Place::{Inside, Outside, Unproven};
    let schema = schema(PrimitiveType::Timestamptz);
    // 1970-01-02 to 1970-01-04
    let placer = Placer::new(&hours("bf-a", 24, 72, true), &schema).unwrap();
    let whole = times(DAY, 3 * DAY - 1);
    #[rustfmt::skip]
    let rows: [(&[&str], &[Option<i32>], _, _, _); 19] = [
        (&["day(at)"],   &[Some(0)],  None,                     None,    Outside),
        (&["day(at)"],   &[Some(1)],  None,                     None,    Inside),
        (&["day(at)"],   &[Some(2)],  None,                     None,    Inside),
        (&["day(at)"],   &[Some(3)],  None,                     None,    Outside),
        (&["day(at)"],   &[None],     None,                     None,    Outside),
        (&["day(at)"],   &[Some(-1)], None,                     None,    Outside),
        (&["hour(at)"],  &[Some(71)], None,                     None,    Inside),
        (&["hour(at)"],  &[Some(72)], None,                     None,    Outside),
        (&["month(at)"], &[Some(0)],  None,                     None,    Unproven),
        (&["month(at)"], &[Some(0)],  whole.clone(),            None,    Inside),
        (&["month(at)"], &[Some(0)],  times(DAY - 1, 2 * DAY),  None,    Unproven),
        (&["month(at)"], &[Some(0)],  times(3 * DAY, 4 * DAY),  None,    Outside),
        (&["month(at)"], &[Some(1)],  None,                     None,    Outside),
        (&["year(at)"],  &[Some(-1)], None,                     None,    Outside),
        (&["id"],        &[Some(1)],  None,                     None,    Unproven),
        (&[],            &[],         whole.clone(),            Some(0), Inside),
        (&[],            &[],         whole.clone(),            Some(1), Unproven),
        (&[],            &[],         whole,                    None,    Unproven),
        (&[],            &[],         times(0, DAY - 1),        None,    Outside),
    ];
    for (fields, values, bounds, nulls, expected) in rows {
        let found = placer.file(&file(values, bounds.clone(), nulls), &spec(&schema, fields));
        assert_eq!(found, expected, "{fields:?} {values:?} {bounds:?} {nulls:?}");
    }
    let both = spec(&schema, &["month(at)", "bucket(4, id)"]);
    assert_eq!(placer.file(&file(&[Some(1), Some(3)], None, None), &both), Outside);
}

#[test]
fn every_kind_of_event_time_column_is_read_in_its_own_way() {
    use Place::{Inside, Outside};
    let zone = |name: &str| jiff::tz::TimeZone::get(name).unwrap();
    // 1970-01-02 to 1970-01-03 in UTC; in Berlin it was an hour later.
    let scope = |unit, name: &str| {
        let time = Some(TimeColumn { name: "at".to_owned(), unit, zone: zone(name) });
        Scope { time, ..hours("bf-a", 24, 48, true) }
    };
    let place = |kind: PrimitiveType, unit, name: &str, value: Datum| {
        let schema = schema(kind);
        let placer = Placer::new(&scope(unit, name), &schema).unwrap();
        placer.file(&file(&[], Some((value.clone(), value)), Some(0)), &spec(&schema, &[]))
    };
    use PrimitiveType as P;
    assert_eq!(place(P::Timestamp, None, "UTC", Datum::timestamp_micros(DAY)), Inside);
    assert_eq!(place(P::Timestamp, None, "Europe/Berlin", Datum::timestamp_micros(DAY)), Outside);
    assert_eq!(place(P::Timestamp, None, "Europe/Berlin", Datum::timestamp_micros(DAY + HOUR)), Inside);
    assert_eq!(place(P::Timestamptz, None, "Europe/Berlin", Datum::timestamptz_micros(DAY)), Inside);
    assert_eq!(place(P::TimestamptzNs, None, "UTC", Datum::timestamptz_nanos(DAY * 1_000 - 1)), Outside);
    assert_eq!(place(P::Date, None, "UTC", Datum::date(1)), Inside);
    assert_eq!(place(P::Date, None, "UTC", Datum::date(2)), Outside);
    assert_eq!(place(P::Long, Some(TimeUnitSpec::Seconds), "UTC", Datum::long(86_400)), Inside);
    assert_eq!(place(P::Long, Some(TimeUnitSpec::Nanos), "UTC", Datum::long(DAY * 2_000)), Outside);
    assert_eq!(place(P::Int, Some(TimeUnitSpec::Seconds), "UTC", Datum::int(86_400)), Inside);
    assert!(Placer::new(&scope(None, "UTC"), &schema(P::Long)).is_none(), "a number of nobody knows what");
    assert!(Placer::new(&scope(None, "UTC"), &schema(P::String)).is_none());
    assert!(Placer::new(&Scope::of("bf-a"), &schema(P::Date)).is_none());
}

#[test]
fn a_window_is_whole_or_the_nearest_that_is_is_named() {
    use tidegate_common::time::{EventTime, Window};
    let at = |text: &str| EventTime::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
    let check = |kind: PrimitiveType, zone: &str, fields: &[&str], from: &str, to: &str| {
        let schema = schema(kind);
        let time = TimeColumn { name: "at".to_owned(), unit: None, zone: jiff::tz::TimeZone::get(zone).unwrap() };
        let window = Window::new(at(from), at(to)).unwrap();
        let scope = Scope { window, time: Some(time), replaces: true, ..Scope::of("bf-a") };
        let fields: Vec<_> =
            spec(&schema, fields).fields().iter().map(|field| (field.source_id, field.transform)).collect();
        Placer::new(&scope, &schema).unwrap().whole_partitions(&fields)
    };
    use PrimitiveType::{Date, Timestamp, Timestamptz};
    let (midnight, month) = ("2026-03-05T00:00:00Z", "2026-04-01T00:00:00Z");
    check(Timestamptz, "UTC", &["day(at)"], midnight, month).unwrap();
    check(Timestamptz, "UTC", &["hour(at)"], "2026-03-05T07:00:00Z", "2026-03-05T08:00:00Z").unwrap();
    check(Timestamptz, "UTC", &["bucket(4, id)", "hour(at)"], midnight, "2026-03-05T08:00:00Z").unwrap();
    check(Date, "UTC", &["at"], midnight, month).unwrap();
    check(Timestamp, "Europe/Berlin", &["day(at)"], "2026-03-04T23:00:00Z", "2026-03-31T22:00:00Z").unwrap();
    for (kind, zone, fields, from, to, said) in [
        (
            Timestamptz,
            "UTC",
            "month(at)",
            midnight,
            month,
            "month(at); the nearest window that fits is [2026-03-01T00:00:00Z, 2026-04-01T00:00:00Z)",
        ),
        (Timestamptz, "UTC", "year(at)", midnight, month, "[2026-01-01T00:00:00Z, 2027-01-01T00:00:00Z)"),
        (
            Timestamptz,
            "UTC",
            "day(at)",
            "2026-03-04T23:59:59.999999Z",
            month,
            "[2026-03-04T00:00:00Z, 2026-04-01T00:00:00Z)",
        ),
        (
            Timestamptz,
            "UTC",
            "hour(at)",
            midnight,
            "2026-03-05T08:00:01Z",
            "[2026-03-05T00:00:00Z, 2026-03-05T09:00:00Z)",
        ),
        (Timestamp, "Europe/Berlin", "day(at)", midnight, month, "[2026-03-04T23:00:00Z, 2026-04-01T22:00:00Z)"),
        (
            Date,
            "UTC",
            "at",
            "2026-03-05T07:00:00Z",
            month,
            "one of at; the nearest window that fits is [2026-03-05T00:00:00Z",
        ),
        (Timestamptz, "UTC", "id", midnight, month, "no partitions of the event time at"),
        (Timestamptz, "UTC", "bucket(4, at)", midnight, month, "no partitions of the event time at"),
    ] {
        let refused = check(kind, zone, &[fields], from, to).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
    // The hour that Berlin's clocks showed twice: which of them is meant, the column cannot say.
    let twice = ("2026-10-25T00:00:00Z", "2026-10-25T05:00:00Z");
    assert!(check(Timestamp, "Europe/Berlin", &["hour(at)"], twice.0, twice.1).is_err());
}
