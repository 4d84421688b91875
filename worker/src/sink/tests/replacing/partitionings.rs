//! Windows of tables that were partitioned otherwise before, or that hold delete files.

use super::*;

/// Makes `fields` the table's partitioning, as another program would.
async fn partition_anew(lake: &Lake, target: &OutputTarget, fields: &[&str]) {
    let table = load(&lake.catalogs, target).await.unwrap();
    let fields: Vec<_> = fields.iter().map(|text| (*text).to_owned()).collect();
    let spec = super::super::partition::parse(&fields, table.metadata().current_schema()).unwrap();
    meddle(lake, target, vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }]).await;
}

#[tokio::test]
async fn given_files_of_an_older_partitioning_when_replaced_then_only_what_is_proven() {
    let lake = Lake::new();
    let months = target("t", &["month(at)"]);
    let first = by_another(&lake.catalogs, &months, rows(0, 24)).await;
    by_another(&lake.catalogs, &months, rows(24, 48)).await;
    partition_anew(&lake, &months, &["day(at)"]).await;
    let days = target("t", &[]);
    by_another(&lake.catalogs, &days, rows(48, 96)).await;
    // Its bounds prove that each file lies in one day, though its partition is a month.
    let scope = hours("bf-a", 24, 72, true);
    let prepared = plan(&lake, &days, &scope).await.unwrap();
    assert_eq!(prepared.rows_before, 48);
    let (intent, parts) = replacement(&lake, &days, &prepared, (1, ""), Some(rows(24, 25))).await;
    let result = commit(&lake.catalogs, &days, &scope, &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed, "{result:?}");
    assert_eq!(ids(&lake.catalogs, &days).await, (0..25).chain(72..96).collect::<Vec<_>>());
    let table = load(&lake.catalogs, &days).await.unwrap();
    assert!(live(&table).await.values().any(|(snapshot, ..)| *snapshot == first));

    // A file of two days, of which the window holds one.
    let lake = Lake::new();
    by_another(&lake.catalogs, &months, rows(0, 48)).await;
    partition_anew(&lake, &months, &["day(at)"]).await;
    let refused = plan(&lake, &days, &scope).await.unwrap_err().to_string();
    assert!(refused.contains(".parquet") && refused.contains("another way"), "{refused}");
    plan(&lake, &days, &hours("bf-a", 0, 48, true)).await.unwrap();
    plan(&lake, &days, &hours("bf-a", 48, 72, true)).await.unwrap();
}

/// Commits position delete files of the names and days given, whose content nobody may read.
async fn delete_files(lake: &Lake, target: &OutputTarget, of: &[(&str, i32, Option<String>)]) {
    let table = load(&lake.catalogs, target).await.unwrap();
    let metadata = table.metadata();
    let parent = metadata.current_snapshot().unwrap().clone();
    let (id, sequence) = (Uuid::new_v4().as_u128() as i64 & i64::MAX, metadata.next_sequence_number());
    let at = |name: &str| format!("{}/metadata/{}-{name}.avro", metadata.location(), Uuid::new_v4());
    let spec = metadata.default_partition_spec().as_ref().clone();
    let output = table.io().new_output(at("deletes")).unwrap();
    let builder = ManifestWriterBuilder::new(output, Some(id), metadata.current_schema().clone(), spec);
    let mut manifest = builder.build_v2_deletes();
    for (name, day, only) in of {
        let file = DataFileBuilder::default()
            .content(DataContentType::PositionDeletes)
            .file_path(format!("{}/data/{name}.parquet", metadata.location()))
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::from_iter([Some(Literal::date(*day))]))
            .record_count(1)
            .file_size_in_bytes(1)
            .referenced_data_file(only.clone())
            .build()
            .unwrap();
        manifest.add_file(file, -1).unwrap();
    }
    let manifest = manifest.write_manifest_file().await.unwrap();
    let list = at("list");
    let output = table.io().new_output(&list).unwrap().writer().await.unwrap();
    let mut writer = ManifestListWriter::v2(output, id, Some(parent.snapshot_id()), sequence);
    let before = table.table().manifest_list_reader(&parent).load().await.unwrap();
    writer.add_manifests(before.entries().iter().cloned().chain([manifest])).unwrap();
    writer.close().await.unwrap();
    let mut properties = parent.summary().additional_properties.clone();
    properties.insert("total-delete-files".to_owned(), of.len().to_string());
    let snapshot = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(Some(parent.snapshot_id()))
        .with_sequence_number(sequence)
        .with_timestamp_ms(metadata.last_updated_ms())
        .with_manifest_list(list)
        .with_summary(Summary { operation: Operation::Delete, additional_properties: properties })
        .with_schema_id(metadata.current_schema_id())
        .build();
    let reference = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
    let moved = TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference };
    meddle(lake, target, vec![TableUpdate::AddSnapshot { snapshot }, moved]).await;
}

#[tokio::test]
async fn given_delete_files_of_the_window_when_replaced_then_they_go_with_what_they_apply_to() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    by_another(&lake.catalogs, &target, rows(0, 48)).await;
    let table = load(&lake.catalogs, &target).await.unwrap();
    let of_day = |day: &str| {
        let folder = format!("at_day=1970-01-0{day}");
        let table = &table;
        async move { live(table).await.into_keys().find(|path| path.contains(&folder)).unwrap() }
    };
    let (first, second) = (of_day("1").await, of_day("2").await);
    let deletes = [("a", 1, None), ("b", 1, Some(second.clone())), ("c", 0, None), ("d", 0, Some(first))];
    delete_files(&lake, &target, &deletes).await;
    let scope = hours("bf-a", 24, 48, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (intent, parts) = replacement(&lake, &target, &prepared, (1, ""), Some(rows(24, 25))).await;
    let result = commit(&lake.catalogs, &target, &scope, &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed, "{result:?}");
    let table = load(&lake.catalogs, &target).await.unwrap();
    let left: Vec<_> = live(&table).await.into_keys().filter(|path| path.contains("/data/")).collect();
    let deletes: Vec<_> =
        left.iter().filter_map(|path| path.rsplit('/').next()).filter(|name| name.len() == 9).collect();
    assert_eq!(deletes, ["c.parquet", "d.parquet"]);
    let head = table.metadata().current_snapshot().unwrap().clone();
    let summary = &head.summary().additional_properties;
    assert_eq!((summary["removed-delete-files"].as_str(), summary["total-delete-files"].as_str()), ("2", "2"));

    // Somebody who deletes rows of the window after the plan wrote into it as well.
    let scope = hours("bf-b", 24, 48, true);
    let prepared = plan(&lake, &target, &scope).await.unwrap();
    let (intent, _) = replacement(&lake, &target, &prepared, (1, ""), None).await;
    delete_files(&lake, &target, &[("e", 1, None)]).await;
    let result = commit(&lake.catalogs, &target, &scope, &intent, Vec::new()).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Conflict);
    assert!(result.evidence.contains("/e.parquet"), "{}", result.evidence);
}
