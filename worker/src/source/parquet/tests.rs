#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{Int64Type, Int96, Int96Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use serde_json::json;
use tidegate_common::time::{EventTime, Window};

use crate::access::Access;
use crate::failure::{Class, Classify};
use crate::source::{FoundSplit, Source, SourceError, open};

/// A row: its id and its event time.
type Row = (i64, Option<i64>);

struct Lake(tempfile::TempDir);

impl Lake {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// Writes row groups of `(id, ts)`.
    fn write(&self, name: &str, groups: &[Vec<Row>], statistics: bool) -> PathBuf {
        let batches: Vec<RecordBatch> = groups.iter().map(|rows| rows_of(rows)).collect();
        self.write_batches(name, &batches, statistics)
    }

    fn write_batches(&self, name: &str, batches: &[RecordBatch], statistics: bool) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let level = if statistics { EnabledStatistics::Chunk } else { EnabledStatistics::None };
        let properties =
            WriterProperties::builder().set_statistics_enabled(level).set_dictionary_enabled(false).build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
            writer.flush().unwrap();
        }
        writer.close().unwrap();
        path
    }

    async fn source(&self) -> Result<Arc<dyn Source>, SourceError> {
        self.source_with(json!({"column": "ts"})).await
    }

    async fn source_with(&self, event_time: serde_json::Value) -> Result<Arc<dyn Source>, SourceError> {
        let spec = json!({"files": {"path": self.path("")}, "event_time": event_time});
        open("trips", &serde_json::from_value(spec).unwrap(), &Access::local()).await
    }
}

fn rows_of(rows: &[Row]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("ts", times, true)]).unwrap()
}

fn window(from: i64, to: i64) -> Window {
    Window::new(EventTime::from_micros(from), EventTime::from_micros(to)).unwrap()
}

async fn find(source: &dyn Source, window: Window) -> Result<Vec<FoundSplit>, SourceError> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
    source.enumerate(window, sender).await?;
    let mut found = Vec::new();
    while let Some(split) = receiver.recv().await {
        found.push(split);
    }
    Ok(found)
}

async fn read(source: &dyn Source, found: &[FoundSplit], window: Window) -> Result<Vec<Row>, SourceError> {
    let mut rows = Vec::new();
    for split in found {
        let mut reader = source.reader(std::slice::from_ref(&split.split), &[0], window).await?;
        for unit in &split.units {
            let batches: Vec<_> = reader.read(unit).await?.try_collect().await?;
            for batch in batches {
                let ids = batch.rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
                rows.extend(ids.values().iter().copied().zip(batch.event_time.iter()));
            }
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

fn bounds(found: &[FoundSplit]) -> Vec<(u64, i64, i64)> {
    found.iter().flat_map(|s| &s.units).map(|u| (u.position, u.low, u.high)).collect()
}

#[tokio::test]
async fn units_are_row_groups_by_low_with_exact_bounds_cut_to_the_window() {
    let lake = Lake::new();
    lake.write("a.parquet", &[vec![(1, Some(50)), (2, Some(90))], vec![(3, Some(10)), (4, Some(30))]], true);
    let source = lake.source().await.unwrap();
    assert_eq!(bounds(&find(&*source, Window::ALL).await.unwrap()), [(1, 10, 30), (0, 50, 90)]);

    let found = find(&*source, window(20, 60)).await.unwrap();
    assert_eq!(bounds(&found), [(1, 20, 30), (0, 50, 59)]);
    let found = find(&*source, window(31, 51)).await.unwrap();
    assert_eq!(bounds(&found), [(0, 50, 50)]);
    assert_eq!(found[0].rows_pruned, 2);
    assert!(found[0].bytes_pruned > 0);
}

#[tokio::test]
async fn without_statistics_the_column_is_read_for_exact_bounds() {
    let lake = Lake::new();
    lake.write("a.parquet", &[vec![(1, Some(50)), (2, Some(90)), (3, Some(7))], vec![(4, None)]], false);
    let source = lake.source().await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    assert_eq!(bounds(&found), [(1, 7, 7), (0, 7, 90)], "rows without event time are put at the file's beginning");
}

#[tokio::test]
async fn a_row_group_with_a_null_event_time_is_never_pruned() {
    for statistics in [true, false] {
        let lake = Lake::new();
        let groups = [vec![(1, Some(500)), (2, None)], vec![(3, Some(600))], vec![(4, None)], vec![(5, Some(1))]];
        lake.write("a.parquet", &groups, statistics);
        let source = lake.source().await.unwrap();
        let found = find(&*source, window(10, 20)).await.unwrap();
        assert_eq!(bounds(&found), [(2, 10, 10), (0, 19, 19)]);
        assert_eq!(found[0].rows_pruned, 2);
        assert_eq!(read(&*source, &found, window(10, 20)).await.unwrap(), [(1, Some(500)), (2, None), (4, None)]);
    }
}

#[tokio::test]
async fn a_file_that_is_cut_off_fails_the_plan_and_is_named() {
    let lake = Lake::new();
    let path = lake.write("a.parquet", &[vec![(1, Some(50))]], true);
    let bytes = std::fs::read(&path).unwrap();
    for keep in [0, 3, 11, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        let error = lake.source().await.err().unwrap();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 }, "{error:?}");
        assert!(error.place().contains("a.parquet"), "{error}");
    }
}

#[tokio::test]
async fn a_row_group_that_cannot_be_decoded_is_poison_and_is_named() {
    let lake = Lake::new();
    let rows: Vec<Row> = (0..1000).map(|i| (i, Some(i))).collect();
    let path = lake.write("a.parquet", &[rows.clone(), rows], true);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4..40].fill(0xFF);
    std::fs::write(&path, &bytes).unwrap();
    let source = lake.source().await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    let error = read(&*source, &found, Window::ALL).await.unwrap_err();
    assert_eq!(error.class(), Class::Poison, "{error:?}");
    assert!(error.to_string().contains("a.parquet, row group 0"), "{error}");
}

#[tokio::test]
async fn a_file_that_changed_since_the_plan_is_refused() {
    let lake = Lake::new();
    let path = lake.write("a.parquet", &[vec![(1, Some(50))]], true);
    let source = lake.source().await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    for change in ["touched", "grown", "gone"] {
        match change {
            "grown" => drop(lake.write("a.parquet", &[vec![(1, Some(50)), (2, Some(60))]], true)),
            "gone" => std::fs::remove_file(&path).unwrap(),
            _ => {}
        }
        let error = read(&*source, &found, Window::ALL).await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 }, "{change}: {error:?}");
        assert!(error.to_string().contains("a.parquet"), "{change}: {error}");
    }
}

#[tokio::test]
async fn a_row_outside_its_units_bounds_is_poison_unless_it_lies_outside_the_window() {
    let lake = Lake::new();
    lake.write("a.parquet", &[vec![(1, Some(10)), (2, Some(40))]], true);
    let source = lake.source().await.unwrap();
    let mut found = find(&*source, window(0, 30)).await.unwrap();
    assert_eq!(read(&*source, &found, window(0, 30)).await.unwrap().len(), 2, "40 is outside the window");
    found[0].units[0].high = 35;
    let error = read(&*source, &found, window(0, 50)).await.unwrap_err();
    assert_eq!(error.class(), Class::Poison);
    assert!(error.place().contains("a.parquet, row group 0, row 1"), "{}", error.place());
    found[0].units[0].rows = 3;
    assert!(matches!(read(&*source, &found, window(0, 30)).await, Err(SourceError::Changed { .. })));
}

#[tokio::test]
async fn a_missing_column_is_told_with_the_nearest() {
    let lake = Lake::new();
    lake.write("a.parquet", &[vec![(1, Some(50))]], true);
    let error = lake.source_with(json!({"column": "tz"})).await.err().unwrap();
    assert_eq!(error.class(), Class::Fatal { exit_code: 3 });
    assert!(error.to_string().contains("no column tz: did you mean ts? the columns are id, ts"), "{error}");
    let error = lake.source_with(json!({"column": "id"})).await.err().unwrap();
    assert!(error.to_string().contains("seconds, millis"), "{error}");
    assert!(lake.source_with(json!({"column": "id", "unit": "seconds"})).await.is_ok());
}

#[tokio::test]
async fn the_columns_of_one_source_agree_by_name_in_any_order() {
    let lake = Lake::new();
    lake.write("a.parquet", &[vec![(1, Some(50))]], true);
    let other = rows_of(&[(2, Some(60))]).project(&[1, 0]).unwrap();
    lake.write_batches("b.parquet", &[other], true);
    let source = lake.source().await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    assert_eq!(read(&*source, &found, Window::ALL).await.unwrap(), [(1, Some(50)), (2, Some(60))]);

    let (ids, times) = (rows_of(&[(3, Some(70))]).column(0).clone(), rows_of(&[(3, Some(70))]).column(1).clone());
    let text: ArrayRef = Arc::new(StringArray::from(vec!["3"]));
    let bad: [(RecordBatch, &str); 3] = [
        (RecordBatch::try_from_iter([("ts", times.clone())]).unwrap(), "c.parquet has no column id"),
        (RecordBatch::try_from_iter([("ts", times.clone()), ("id", text.clone())]).unwrap(), "column id is Utf8 in"),
        (RecordBatch::try_from_iter([("id", ids), ("more", text), ("ts", times)]).unwrap(), "has a column more"),
    ];
    for (batch, said) in bad {
        lake.write_batches("c.parquet", &[batch], true);
        let error = find(&*source, Window::ALL).await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
        assert!(error.to_string().contains(said) && error.to_string().contains("a.parquet"), "{error}");
    }
}

#[tokio::test]
async fn no_columns_at_all_still_gives_rows_and_times() {
    let lake = Lake::new();
    lake.write("a.parquet", &[vec![(1, Some(50)), (2, None)]], true);
    let source = lake.source().await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    let mut reader = source.reader(&[found[0].split.clone()], &[], Window::ALL).await.unwrap();
    let batches: Vec<_> = reader.read(&found[0].units[0]).await.unwrap().try_collect().await.unwrap();
    assert_eq!((batches[0].rows.num_rows(), batches[0].rows.num_columns()), (2, 0));
    assert_eq!(batches[0].event_time, Int64Array::from(vec![Some(50), None]));
}

#[tokio::test]
async fn nanoseconds_floor_in_bounds_and_rows_alike() {
    let lake = Lake::new();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1, 1_999]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("ts", times)]).unwrap();
    lake.write_batches("a.parquet", &[batch], true);
    let source = lake.source().await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    assert_eq!(bounds(&found), [(0, -1, 1)]);
    assert_eq!(read(&*source, &found, Window::ALL).await.unwrap(), [(1, Some(-1)), (2, Some(1))]);
}

#[tokio::test]
async fn a_time_of_96_bits_beyond_the_reach_of_nanoseconds_is_read_as_it_is() {
    let lake = Lake::new();
    let file = std::fs::File::create(lake.path("a.parquet")).unwrap();
    let schema = parse_message_type("message m { required int96 ts; required int64 id; }").unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut times = Int96::new();
    times.set_data(1_000, 0, 2_440_588 + 200_000); // a microsecond after midnight, 200,000 days after 1970
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&[times], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[1], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let source = lake.source().await.unwrap();
    let found = find(&*source, Window::ALL).await.unwrap();
    let at = 200_000 * 86_400_000_000 + 1;
    assert_eq!(bounds(&found), [(0, at, at)]);
    let mut reader = source.reader(&[found[0].split.clone()], &[1], Window::ALL).await.unwrap();
    let batches: Vec<_> = reader.read(&found[0].units[0]).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches[0].event_time, Int64Array::from(vec![at]));
}

#[tokio::test]
async fn a_path_gives_every_row_of_a_file_its_event_time() {
    let lake = Lake::new();
    lake.write("dt=2024-01-02/hour=03/a.parquet", &[vec![(1, None)], vec![(2, Some(5))]], true);
    let source = lake.source_with(json!({"path": "dt=%Y-%m-%d/hour=%H"})).await.unwrap();
    let at = "2024-01-02T03:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let found = find(&*source, Window::ALL).await.unwrap();
    assert_eq!(bounds(&found), [(0, at, at), (1, at, at)]);
    assert_eq!(read(&*source, &found, Window::ALL).await.unwrap(), [(1, Some(at)), (2, Some(at))]);
}

#[tokio::test]
async fn text_and_dictionaries_are_read_as_plain_text() {
    let lake = Lake::new();
    let words: arrow::array::DictionaryArray<arrow::datatypes::Int32Type> = vec!["a", "b", "a"].into_iter().collect();
    let times = rows_of(&[(1, Some(1)), (2, Some(2)), (3, Some(3))]).column(1).clone();
    let columns: [(&str, ArrayRef); 2] = [("word", Arc::new(words)), ("ts", times)];
    lake.write_batches("a.parquet", &[RecordBatch::try_from_iter(columns).unwrap()], true);
    let source = lake.source().await.unwrap();
    assert_eq!(source.schema().field(0).data_type(), &arrow::datatypes::DataType::Utf8);
    let found = find(&*source, Window::ALL).await.unwrap();
    let mut reader = source.reader(&[found[0].split.clone()], &[0], Window::ALL).await.unwrap();
    let batches: Vec<_> = reader.read(&found[0].units[0]).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches[0].rows.column(0).as_ref(), &StringArray::from(vec!["a", "b", "a"]));
}

fn row_groups() -> impl Strategy<Value = Vec<Vec<Vec<Option<i64>>>>> {
    let time = prop_oneof![9 => (0_i64..100).prop_map(Some), 1 => Just(None)];
    let group = prop::collection::vec(time, 1..8);
    prop::collection::vec(prop::collection::vec(group, 1..5), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the files hold: each row of the window and each row without event time is read exactly once, and what
    /// is not read was counted as pruned.
    #[test]
    fn every_row_of_the_window_is_read_exactly_once(files in row_groups(), from in 0_i64..90, length in 1_i64..60, statistics: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lake = Lake::new();
            let mut expected: Vec<Row> = Vec::new();
            let mut id = 0;
            for (at, groups) in files.iter().enumerate() {
                let groups: Vec<Vec<Row>> = groups.iter().map(|times| times.iter().map(|time| { id += 1; (id, *time) }).collect()).collect();
                expected.extend(groups.iter().flatten());
                lake.write(&format!("{at}.parquet"), &groups, statistics);
            }
            let window = window(from, from + length);
            let source = lake.source().await.unwrap();
            let found = find(&*source, window).await.unwrap();
            let is_wanted = |row: &Row| row.1.is_none_or(|at| window.contains(EventTime::from_micros(at)));
            let mut got = read(&*source, &found, window).await.unwrap();
            let pruned: u64 = found.iter().map(|split| split.rows_pruned).sum();
            assert_eq!(got.len() as u64 + pruned, expected.len() as u64);
            got.retain(is_wanted);
            expected.retain(is_wanted);
            assert_eq!(got, expected);
            for unit in found.iter().flat_map(|split| &split.units) {
                assert!(from <= unit.low && unit.low <= unit.high && unit.high < from + length);
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A damaged file gives rows or an error that names it, and never takes the worker down.
    #[test]
    fn a_damaged_file_is_an_error_and_no_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), statistics: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lake = Lake::new();
            let path = lake.write("a.parquet", &[(0..40).map(|i| (i, Some(i))).collect(), vec![(7, None)]], statistics);
            let mut bytes = std::fs::read(&path).unwrap();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            std::fs::write(&path, &bytes).unwrap();
            let outcome = async {
                let source = lake.source().await?;
                let found = find(&*source, Window::ALL).await?;
                read(&*source, &found, Window::ALL).await
            };
            if let Err(error) = outcome.await {
                let said = format!("{error} {}", error.place());
                assert!(said.contains("a.parquet") || said.contains("no column ts"), "{error:?}");
            }
        });
    }
}
