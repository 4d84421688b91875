//! Tables that move on: other snapshots, other columns, other files.

use iceberg::TableUpdate;
use iceberg::spec::{DataContentType, NestedField, PrimitiveType, Type};

use super::lake::described;
use super::*;

#[tokio::test]
async fn what_is_pinned_is_read_while_others_commit() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    let first = lake.append(&[rows(0, 100)]).await;
    let pin = lake.source().await.pin().unwrap();
    lake.append(&[rows(100, 150)]).await;
    assert_eq!(ids(&*lake.source().await, Window::ALL).await, (0..150).collect::<Vec<_>>());
    let pinned = lake.open(json!({"column": "at"}), None, Some(&pin)).await.unwrap();
    assert_eq!(ids(&*pinned, Window::ALL).await, (0..100).collect::<Vec<_>>());
    let named = lake.open(json!({"column": "at"}), Some(first), None).await.unwrap();
    assert_eq!((named.pin(), named.describe()), (Some(pin), format!("iceberg ns.t @ snapshot {first}")));
}

#[tokio::test]
async fn an_empty_table_stays_empty_once_it_is_pinned() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    let source = lake.source().await;
    assert_eq!(find(&*source, Window::ALL).await.unwrap().len(), 0);
    lake.append(&[rows(0, 5)]).await;
    let pinned = lake.open(json!({"column": "at"}), None, source.pin().as_ref()).await.unwrap();
    assert_eq!(find(&*pinned, Window::ALL).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_snapshot_that_expired_is_named() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    let first = lake.append(&[rows(0, 100)]).await;
    let source = lake.source().await;
    let (pin, found) = (source.pin().unwrap(), find(&*source, Window::ALL).await.unwrap());
    let second = lake.append(&[rows(100, 150)]).await;
    lake.change(vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![first] }]).await;

    let said = refused(lake.open(json!({"column": "at"}), None, Some(&pin)).await);
    assert_eq!(
        said,
        format!("iceberg ns.t changed since the plan: snapshot {first} has expired; plan the backfill again")
    );
    let said = refused(lake.open(json!({"column": "at"}), Some(first), None).await);
    assert!(said.contains(&format!("no snapshot {first}")) && said.contains(&second.to_string()), "{said}");

    let now = lake.source().await;
    let said = refused(read(&*now, &found, "id", Window::ALL).await);
    assert!(said.contains(&format!("the plan is of snapshot {first}")), "{said}");
    let file = lake
        .files()
        .await
        .into_keys()
        .find(|path| found[0].split.file.as_ref().unwrap().path.ends_with(path.trim_start_matches("file://")))
        .unwrap();
    std::fs::remove_file(file.trim_start_matches("file://")).unwrap();
    let said = refused(read(&*source, &found, "id", Window::ALL).await);
    assert!(said.contains("changed since the plan") && said.contains(&first.to_string()), "{said}");
}

#[tokio::test]
async fn renamed_and_added_columns_are_read_by_their_ids() {
    let lake = Lake::new(&["day(at)"], &rows(0, 1)).await;
    let before = lake.append(&[rows(0, 48)]).await;
    lake.evolve(|fields| {
        let column = |id, name, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
        // Two columns change places by name: only the id tells them apart.
        fields[0] = column(1, "number", PrimitiveType::Long);
        fields[1] = column(2, "id", PrimitiveType::String);
        fields[2] = column(3, "moment", PrimitiveType::Timestamptz);
        fields.push(column(9, "extra", PrimitiveType::Long));
    })
    .await;
    let event_time = json!({"column": "moment"});
    let source = lake.open(event_time.clone(), None, None).await.unwrap();
    let names: Vec<_> = source.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["number", "id", "moment", "extra"]);
    let window = hours(24, 48);
    let found = find(&*source, window).await.unwrap();
    assert_eq!(counted(&found), (24, 24), "the renamed column still prunes");
    let column = |name: &'static str| async { read(&*source, &found, name, window).await.unwrap() };
    let wanted = |of: fn(i64) -> String| (24..48).map(|id| (of(id), Some(id * HOUR))).collect::<Vec<_>>();
    assert_eq!(column("number").await, wanted(|id| id.to_string()));
    assert_eq!(column("id").await, wanted(|id| format!("name {}", id % 7)));
    assert_eq!(column("extra").await, wanted(|_| String::new()));

    let old = lake.open(json!({"column": "at"}), Some(before), None).await.unwrap();
    assert_eq!(ids(&*old, window).await, (24..48).collect::<Vec<_>>(), "a named snapshot has its own schema");
}

#[tokio::test]
async fn rows_older_than_the_event_time_column_have_none_and_are_in_every_window() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    lake.append(&[rows(0, 3)]).await;
    lake.evolve(|fields| fields.push(Arc::new(NestedField::optional(9, "seen", Type::Primitive(PrimitiveType::Date)))))
        .await;
    let source = lake.open(json!({"column": "seen"}), None, None).await.unwrap();
    let found = find(&*source, hours(0, 1)).await.unwrap();
    let wanted: Vec<_> = (0..3).map(|id| (id.to_string(), None)).collect();
    assert_eq!(read(&*source, &found, "id", hours(0, 1)).await.unwrap(), wanted);
}

#[tokio::test]
async fn columns_of_equal_type_in_another_order_are_not_taken_for_each_other() {
    let like = RecordBatch::try_from_iter([
        ("a", Arc::new(Int64Array::from(vec![0])) as ArrayRef),
        ("b", Arc::new(Int64Array::from(vec![0])) as ArrayRef),
        ("c", Arc::new(Int64Array::from(vec![0])) as ArrayRef),
    ])
    .unwrap();
    let lake = Lake::new(&[], &like).await;
    let values = |values: [i64; 3]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let columns =
        vec![("c", Some(3), values([7, 8, 9])), ("b", Some(2), values([4, 5, 6])), ("a", Some(1), values([1, 2, 3]))];
    let path = lake.write("shuffled.parquet", columns);
    lake.commit_file(described(&path, DataContentType::Data, 3).build().unwrap()).await;
    // With a delete the file goes through Iceberg's reader.
    lake.delete_places(&[(path.display().to_string(), 1)], true).await;
    let source = lake.open(json!({"column": "b", "unit": "micros"}), None, None).await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    for (column, wanted) in [("a", ["1", "3"]), ("b", ["4", "6"]), ("c", ["7", "9"])] {
        let read = read(&*source, &found, column, Window::ALL).await.unwrap();
        assert_eq!(read, [(wanted[0].to_owned(), Some(4)), (wanted[1].to_owned(), Some(6))], "{column}");
    }
}

#[tokio::test]
async fn files_without_field_ids_are_read_by_the_name_mapping_and_not_at_all_without_one() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    let rows = rows(0, 5);
    // In another order than the table's, so that reading by place would be wrong.
    let column = |name: &'static str| (name, None, rows.column_by_name(name).unwrap().clone());
    let path = lake.write("foreign.parquet", vec![column("at"), column("name"), column("id")]);
    lake.commit_file(described(&path, DataContentType::Data, 5).build().unwrap()).await;
    let said = refused(find(&*lake.source().await, Window::ALL).await);
    assert!(said.contains("schema.name-mapping.default"), "{said}");

    let mapping = r#"[{"field-id":1,"names":["id"]},{"field-id":2,"names":["name"]},{"field-id":3,"names":["at"]}]"#;
    let updates = [("schema.name-mapping.default".to_owned(), mapping.to_owned())].into();
    lake.change(vec![TableUpdate::SetProperties { updates }]).await;
    assert_eq!(ids(&*lake.source().await, Window::ALL).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_table_that_was_created_anew_is_not_the_one_that_was_pinned() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    lake.append(&[rows(0, 1)]).await;
    let pin = lake.source().await.pin().unwrap();
    let other = v1::SourcePin { table_uuid: uuid::Uuid::new_v4().to_string(), ..pin };
    assert!(refused(lake.open(json!({"column": "at"}), None, Some(&other)).await).contains("created anew"));
}

#[tokio::test]
async fn a_type_that_became_wider_is_read_and_one_that_has_nothing_to_do_with_it_is_refused() {
    let lake = Lake::new(&[], &rows(0, 1)).await;
    let by_hand = async |name: &str, ids: ArrayRef| {
        let (rows, column) = (rows(0, 3), |name, id, values: &ArrayRef| (name, Some(id), values.clone()));
        let columns = vec![column("id", 1, &ids), column("name", 2, rows.column(1)), column("at", 3, rows.column(2))];
        let path = lake.write(name, columns);
        lake.commit_file(described(&path, DataContentType::Data, 3).build().unwrap()).await;
    };
    by_hand("narrow.parquet", Arc::new(arrow::array::Int32Array::from(vec![7, 8, 9]))).await;
    assert_eq!(ids(&*lake.source().await, Window::ALL).await, [7, 8, 9]);
    by_hand("text.parquet", Arc::new(StringArray::from(vec!["7", "8", "9"]))).await;
    let said = refused(find(&*lake.source().await, Window::ALL).await);
    assert!(said.contains("column id is Utf8 in") && said.contains("text.parquet"), "{said}");
}
