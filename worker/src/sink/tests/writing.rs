//! Writing: files near their size, bounds that hold, memory and open partitions within their bounds.

use std::collections::BTreeSet;

use arrow::array::{Float64Array, StringViewArray};
use iceberg::expr::Reference;
use iceberg::spec::Datum;

use super::*;

async fn tuned(lake: &Lake, target: &OutputTarget, tune: impl FnOnce(&mut WriterSettings)) -> OutputWriter {
    let table = load(&lake.catalogs, target).await.unwrap();
    let metadata = table.metadata();
    let mut settings =
        WriterSettings::of(&table, metadata.current_schema_id(), metadata.default_partition_spec_id()).unwrap();
    tune(&mut settings);
    OutputWriter::open(&table, 7, Uuid::new_v4(), settings).unwrap()
}

async fn committed(lake: &Lake, target: &OutputTarget, prepared: &v1::PreparedOutput, closed: Vec<ClosedFiles>) {
    let parts: Vec<_> = closed
        .into_iter()
        .map(|closed| v1::OutputPart {
            files: closed.files,
            iceberg: closed.iceberg.to_vec().into(),
            ..Default::default()
        })
        .collect();
    let intent = intent(prepared, 1, "", &parts);
    let result = commit(&lake.catalogs, target, &Scope::of("bf-a"), &intent, parts).await.unwrap();
    assert_eq!(result.end(), v1::CommitEnd::Committed);
}

#[tokio::test]
async fn given_more_rows_than_a_file_holds_when_written_then_files_near_their_size_and_ripe_is_said() {
    const TARGET: u64 = 256 << 10;
    let lake = Lake::new();
    let target = target("t", &[]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let mut writer = tuned(&lake, &target, |settings| settings.target_file_bytes = TARGET as usize).await;
    let ahead: Vec<u64> = (0..=80).rev().map(|units| units * 1_000).collect();
    let mut parts = Vec::new();
    for unit in 0..80 {
        writer.draw_files(unit as u64 * 1_000, &ahead[unit..]);
        let first = 5_000 * unit as i64;
        writer.write(rows(first, first + 5_000)).await.unwrap();
        if writer.due().await.unwrap() == Due::Ripe {
            parts.push(writer.close().await.unwrap());
            assert_eq!(writer.due().await.unwrap(), Due::Free);
            assert_eq!(writer.buffered_bytes(), 0);
        }
    }
    parts.push(writer.close().await.unwrap());
    let files: Vec<_> = parts.iter().flat_map(|part| &part.files).collect();
    assert!(files.len() >= 3, "{}", files.len());
    assert!(files.iter().all(|file| (TARGET * 3 / 4..TARGET * 9 / 5).contains(&file.bytes)), "{files:?}");
    assert_eq!(files.iter().map(|file| &file.path).collect::<BTreeSet<_>>().len(), files.len());
    for file in &files {
        let size = std::fs::metadata(file.path.strip_prefix("file://").unwrap()).unwrap().len();
        assert_eq!(size, file.bytes);
    }
    committed(&lake, &target, &prepared, parts).await;
    assert_eq!(ids(&lake.catalogs, &target).await, (0..400_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn given_more_partitions_than_may_be_open_when_written_then_capped_and_every_row_is_where_it_belongs() {
    let lake = Lake::new();
    let target = target("t", &["bucket(16, id)", "name"]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let mut writer = tuned(&lake, &target, |settings| {
        settings.max_open_partitions = 5;
        settings.memory_bytes = 100_000;
    })
    .await;
    writer.write(rows(0, 1_000)).await.unwrap();
    assert_eq!(writer.due().await.unwrap(), Due::Over);
    writer.write(rows(1_000, 1_500)).await.unwrap();
    assert!(writer.buffered_bytes() <= 100_000);
    let closed = writer.close().await.unwrap();
    assert!(
        closed.files.iter().all(|file| file.path.contains("/data/id_bucket=") && file.path.contains("/name=name%20"))
    );
    committed(&lake, &target, &prepared, vec![closed]).await;
    assert_eq!(ids(&lake.catalogs, &target).await, (0..1_500).collect::<Vec<_>>());

    let table = load(&lake.catalogs, &target).await.unwrap();
    let only =
        table.table().scan().with_filter(Reference::new("name").equal_to(Datum::string("name 3"))).build().unwrap();
    let batches: Vec<RecordBatch> = only.to_arrow().await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), (0..1_500).filter(|id| id % 7 == 3).count());
}

#[tokio::test]
async fn given_hours_in_order_when_written_by_day_then_one_file_a_day_and_pruned_reads_are_right() {
    let lake = Lake::new();
    let target = target("t", &["day(at)"]);
    let prepared = prepared(&lake.catalogs, &target).await;
    let mut writer = tuned(&lake, &target, |_| {}).await;
    writer.write(rows(-48, 72)).await.unwrap();
    let closed = writer.close().await.unwrap();
    assert_eq!(closed.files.len(), 5);
    assert!(closed.files.iter().any(|file| file.path.contains("/at_day=1969-12-30/")), "{:?}", closed.files);
    committed(&lake, &target, &prepared, vec![closed]).await;
    let table = load(&lake.catalogs, &target).await.unwrap();
    let from = Reference::new("at").greater_than_or_equal_to(Datum::timestamptz_micros(24 * 3_600_000_000));
    let scan = table.table().scan().with_filter(from).build().unwrap();
    let files: Vec<_> = scan.plan_files().await.unwrap().try_collect().await.unwrap();
    assert_eq!(files.len(), 2);
    let batches: Vec<RecordBatch> = scan.to_arrow().await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 48);
}

#[tokio::test]
async fn given_long_strings_nans_and_nulls_in_several_row_groups_when_written_then_every_bound_holds() {
    let lake = Lake::new();
    let target = target("t", &[]);
    let (short, long_a, long_z) = ("m", format!("a{}", "x".repeat(500)), format!("z{}", "x".repeat(500)));
    let batch = |text: &str, number: Option<f64>| {
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from(vec![1, 2]))),
            ("text", Arc::new(StringViewArray::from(vec![text, text]))),
            ("number", Arc::new(Float64Array::from(vec![number, None]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
    };
    let query = batch("", None).schema();
    let prepared = prepare(&lake.catalogs, &target, &query, true, &Scope::of("bf-a")).await.unwrap();
    // With no memory at all every batch is a row group.
    let mut writer = tuned(&lake, &target, |settings| settings.memory_bytes = 0).await;
    for (text, number) in [(short, Some(f64::NAN)), (long_z.as_str(), Some(2.0)), (long_a.as_str(), Some(-0.0))] {
        writer.write(batch(text, number)).await.unwrap();
    }
    let closed = writer.close().await.unwrap();
    assert_eq!(closed.files.len(), 1);
    let table = load(&lake.catalogs, &target).await.unwrap();
    let metadata = table.metadata();
    let decoded =
        super::super::writer::decode(&closed.iceberg, metadata.current_schema(), metadata.default_partition_spec())
            .unwrap();
    let file = &decoded[0];
    assert_eq!(file.split_offsets().unwrap().len(), 3);
    let (low, high) = (&file.lower_bounds()[&2], &file.upper_bounds()[&2]);
    assert!(*low <= Datum::string(&long_a) && *low > Datum::string(""), "{low}");
    assert!(*high >= Datum::string(&long_z), "{high}");
    assert!(file.lower_bounds()[&3] <= Datum::double(-0.0) && file.upper_bounds()[&3] == Datum::double(2.0));
    assert_eq!((file.nan_value_counts()[&3], file.null_value_counts()[&3], file.value_counts()[&3]), (1, 3, 6));
    committed(&lake, &target, &prepared, vec![closed]).await;
    let table = load(&lake.catalogs, &target).await.unwrap();
    let only =
        table.table().scan().with_filter(Reference::new("text").equal_to(Datum::string(&long_z))).build().unwrap();
    let batches: Vec<RecordBatch> = only.to_arrow().await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[tokio::test]
async fn given_nothing_written_when_closed_then_nothing_is_handed_in() {
    let lake = Lake::new();
    let target = target("t", &[]);
    prepared(&lake.catalogs, &target).await;
    let mut writer = tuned(&lake, &target, |_| {}).await;
    writer.write(rows(0, 0)).await.unwrap();
    let closed = writer.close().await.unwrap();
    assert!(closed.files.is_empty() && closed.iceberg.is_empty());
}
