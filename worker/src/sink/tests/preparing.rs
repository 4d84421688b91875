//! Preparing: a table is created as asked, or checked, and the refusal says what to change.

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::*;

fn schema(fields: &[(&str, DataType)]) -> Schema {
    Schema::new(fields.iter().map(|(name, r#type)| Field::new(*name, r#type.clone(), true)).collect::<Vec<_>>())
}

#[tokio::test]
async fn given_no_table_when_prepared_then_only_create_makes_it() {
    let lake = Lake::new();
    let mut target = target("t", &["month(at)", "bucket(4, id)", "name"]);
    target.properties.insert("write.parquet.compression-codec".to_owned(), "snappy".to_owned());
    let query = rows(0, 1).schema();
    let planned = prepare(&lake.catalogs, &target, &query, false, &Scope::of("bf-a")).await.unwrap();
    assert_eq!((planned.uuid.as_str(), planned.created), ("", true));
    assert_eq!(planned.columns, ["id long", "name string", "at timestamptz"]);
    assert!(load(&lake.catalogs, &target).await.is_err());
    let made = prepare(&lake.catalogs, &target, &query, true, &Scope::of("bf-a")).await.unwrap();
    assert_eq!((made.created, made.table.as_str(), made.rows_before), (true, "lake.ns.t", 0));
    let again = prepare(&lake.catalogs, &target, &query, true, &Scope::of("bf-a")).await.unwrap();
    assert_eq!(again, v1::PreparedOutput { created: false, ..made });
    let table = load(&lake.catalogs, &target).await.unwrap();
    let spec = table.metadata().default_partition_spec().clone();
    assert_eq!(
        spec.fields().iter().map(|field| field.name.as_str()).collect::<Vec<_>>(),
        ["at_month", "id_bucket", "name"]
    );
    assert_eq!(table.metadata().properties()["write.parquet.compression-codec"], "snappy");
    assert!(again.location.starts_with("file:///"), "{}", again.location);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_many_who_create_one_table_when_prepared_then_all_get_the_same() {
    let lake = Arc::new(Lake::new());
    let makers = (0..6).map(|_| {
        let lake = lake.clone();
        tokio::spawn(async move {
            let catalogs = Catalogs::new([("lake".to_owned(), config(lake.folder.path()))]);
            prepared(&catalogs, &target("t", &[])).await.uuid
        })
    });
    let mut uuids = Vec::new();
    for maker in makers.collect::<Vec<_>>() {
        uuids.push(maker.await.unwrap());
    }
    uuids.dedup();
    assert_eq!(uuids.len(), 1);
}

#[tokio::test]
async fn given_every_type_that_arrow_has_when_a_table_is_created_then_its_iceberg_type_or_a_reason() {
    let lake = Lake::new();
    let item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let known = [
        (DataType::UInt16, "int"),
        (DataType::UInt32, "long"),
        (DataType::UInt64, "decimal(20, 0)"),
        (DataType::Float16, "float"),
        (DataType::Decimal256(38, 4), "decimal(38, 4)"),
        (DataType::Date64, "date"),
        (DataType::Time32(TimeUnit::Second), "time"),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), "timestamp"),
        (DataType::Timestamp(TimeUnit::Second, Some("+02:00".into())), "timestamptz"),
        (DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8)), "string"),
        (DataType::BinaryView, "binary"),
        (DataType::FixedSizeBinary(3), "fixed(3)"),
        (DataType::List(item), "list"),
    ];
    for (number, (r#type, expected)) in known.into_iter().enumerate() {
        let query = schema(&[("c", r#type.clone())]);
        let target = target(&format!("t{number}"), &[]);
        let made = prepare(&lake.catalogs, &target, &query, true, &Scope::of("bf-a")).await.unwrap();
        assert_eq!(made.columns, [format!("c {expected}")], "{type}");
        // What was created for a query takes that query's batches.
        let table = load(&lake.catalogs, &target).await.unwrap();
        let batch = RecordBatch::try_new(Arc::new(query), vec![arrow::array::new_null_array(&r#type, 3)]).unwrap();
        let cast = Caster::new("t", table.metadata().current_schema()).unwrap().cast(&batch).unwrap();
        assert_eq!(cast.column(0).null_count(), 3, "{type}");
    }
    let unknown = schema(&[
        ("n", DataType::Null),
        ("d", DataType::Duration(TimeUnit::Second)),
        ("w", DataType::Decimal256(60, 2)),
        ("fine", DataType::Int8),
    ]);
    let error =
        prepare(&lake.catalogs, &target("u", &[]), &unknown, true, &Scope::of("bf-a")).await.unwrap_err().to_string();
    for part in ["column n", "CAST", "column d", "column w", "decimal(38)"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("fine"), "{error}");
}

#[tokio::test]
async fn given_a_table_that_does_not_fit_when_prepared_then_each_column_is_named() {
    let lake = Lake::new();
    let target = target("t", &[]);
    prepared(&lake.catalogs, &target).await;
    let query = schema(&[
        ("id", DataType::Utf8),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("extra", DataType::Int32),
    ]);
    let error = prepare(&lake.catalogs, &target, &query, true, &Scope::of("bf-a")).await.unwrap_err().to_string();
    for part in [
        "lake.ns.t",
        "column id: the query's Utf8",
        "long",
        "column at",
        "timestamptz",
        "column extra",
        "missing in the table",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let narrower = schema(&[("id", DataType::Int16)]);
    prepare(&lake.catalogs, &target, &narrower, true, &Scope::of("bf-a")).await.unwrap();
}

#[tokio::test]
async fn given_what_a_spec_must_not_ask_when_prepared_then_refused() {
    let lake = Lake::new();
    let query = rows(0, 1).schema();
    let property = |key: &str, value: &str| {
        let mut asked = target("t", &[]);
        asked.properties.insert(key.to_owned(), value.to_owned());
        asked
    };
    let named = |name: &str| OutputTarget { name: name.to_owned(), ..target("t", &[]) };
    for asked in [
        property("location", "file:///etc"),
        property("write.data.path", "file:///etc"),
        property("tidegate.bf-a", "9:x"),
        property("format-version", "4"),
        property("write.parquet.compression-codec", "lzo"),
        property("write.parquet.compression-level", "900"),
        target("t", &["week(at)"]),
        target("t", &["day(id)"]),
        target("t", &["nothing"]),
        named("../t"),
        named(""),
        OutputTarget { namespace: Vec::new(), ..target("t", &[]) },
        OutputTarget { catalog: "other".to_owned(), ..target("t", &[]) },
    ] {
        let refused = prepare(&lake.catalogs, &asked, &query, true, &Scope::of("bf-a")).await;
        assert!(matches!(refused, Err(SinkError::Spec { .. })), "{asked:?}: {refused:?}");
    }
    prepared(&lake.catalogs, &target("t", &["day(at)"])).await;
    let other =
        prepare(&lake.catalogs, &target("t", &["month(at)"]), &query, true, &Scope::of("bf-a")).await.unwrap_err();
    assert!(other.to_string().contains("partitioned by [day(at)]"), "{other}");
}
