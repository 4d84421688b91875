//! The example data is what its README says it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int32Type, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::statistics::Statistics;
use tidegate_tests::sandbox::root;

const HOUR: i64 = 3_600_000_000;

fn folder() -> PathBuf {
    root().join("examples/flights")
}

fn months() -> Vec<PathBuf> {
    (1..=12).map(|month| folder().join(format!("flights/2013-{month:02}.parquet"))).collect()
}

fn weather() -> PathBuf {
    folder().join("weather/weather.parquet")
}

fn metadata(path: &Path) -> ArrowReaderMetadata {
    ArrowReaderMetadata::load(&File::open(path).unwrap(), Default::default()).unwrap()
}

fn rows(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    concat_batches(&schema, &reader.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap()).unwrap()
}

fn times(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("time_hour").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

/// The event-time bounds of each row group, by its statistics: the first and the last time in it.
fn units(path: &Path) -> Vec<(i64, i64)> {
    let metadata = metadata(path);
    let column = metadata.schema().index_of("time_hour").unwrap();
    let groups = metadata.metadata().row_groups().iter();
    groups
        .map(|group| match group.column(column).statistics().expect("statistics are on") {
            Statistics::Int64(bounds) => {
                assert_eq!(bounds.null_count_opt(), Some(0));
                (*bounds.min_opt().unwrap(), *bounds.max_opt().unwrap())
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_counts_are_those_of_nycflights13() {
    let count = |path: &PathBuf| metadata(path).metadata().file_metadata().num_rows();
    assert_eq!(months().iter().map(count).sum::<i64>(), 336_776);
    assert_eq!(count(&weather()), 26_115);
}

#[test]
fn every_file_is_sorted_by_a_proper_event_time_that_its_statistics_bound() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for path in months().iter().chain([&weather()]) {
        let rows = rows(path);
        let schema = rows.schema();
        let field = schema.field_with_name("time_hour").unwrap();
        assert_eq!((field.data_type(), field.is_nullable()), (&utc, false));
        let times = times(&rows);
        assert!(times.is_sorted(), "{}", path.display());
        let mut from = 0;
        for (group, (low, high)) in metadata(path).metadata().row_groups().iter().zip(units(path)) {
            let to = from + usize::try_from(group.num_rows()).unwrap();
            assert_eq!((low, high), (times[from], times[to - 1]));
            from = to;
        }
        assert_eq!(from, times.len());
    }
}

#[test]
fn every_file_holds_the_local_month_of_its_name() {
    for (month, path) in (1..).zip(months()) {
        let rows = rows(&path);
        let local = rows.column_by_name("month").unwrap().as_primitive::<Int32Type>();
        assert!(local.values().iter().all(|found| *found == month), "{}", path.display());
    }
}

#[test]
fn row_groups_have_the_promised_sizes_and_zstd() {
    for (path, size) in months().into_iter().map(|path| (path, 5_000)).chain([(weather(), 500)]) {
        let metadata = metadata(&path);
        let (last, full) = metadata.metadata().row_groups().split_last().unwrap();
        assert!(full.iter().all(|group| group.num_rows() == size), "{}", path.display());
        assert!((1..=size).contains(&last.num_rows()));
        let mut columns = metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
        assert!(columns.all(|column| matches!(column.compression(), Compression::ZSTD(_))));
    }
}

#[test]
fn keys_are_unique() {
    let mut flights = BTreeSet::new();
    let mut count = 0;
    for path in months() {
        let rows = rows(&path);
        let text = |name| rows.column_by_name(name).unwrap().as_string::<i32>();
        let (carrier, origin) = (text("carrier"), text("origin"));
        let flight = rows.column_by_name("flight").unwrap().as_primitive::<Int32Type>();
        for (row, time) in times(&rows).into_iter().enumerate() {
            flights.insert((carrier.value(row).to_owned(), flight.value(row), time, origin.value(row).to_owned()));
            count += 1;
        }
    }
    assert_eq!(flights.len(), count);

    let rows = rows(&weather());
    let origin = rows.column_by_name("origin").unwrap().as_string::<i32>();
    let hours: BTreeSet<_> =
        times(&rows).into_iter().enumerate().map(|(row, time)| (origin.value(row), time)).collect();
    assert_eq!(hours.len(), rows.num_rows());
}

#[test]
fn missing_values_are_nulls_and_no_value_was_lost() {
    let nulls = |rows: &RecordBatch, name: &str| rows.column_by_name(name).unwrap().null_count();
    let weather = rows(&weather());
    let found: Vec<usize> =
        ["wind_gust", "pressure", "wind_dir", "wind_speed", "temp"].map(|name| nulls(&weather, name)).to_vec();
    assert_eq!(found, [20_778, 2_729, 460, 4, 1]);
    let flights: Vec<RecordBatch> = months().iter().map(|path| rows(path)).collect();
    let over_the_year = |name: &str| flights.iter().map(|rows| nulls(rows, name)).sum::<usize>();
    let found = ["dep_delay", "arr_delay", "tailnum", "carrier"].map(over_the_year);
    assert_eq!(found, [8_255, 9_430, 2_512, 0]);
}

#[test]
fn the_widest_unit_is_about_a_week_and_within_the_drift_of_the_example() {
    let widest = |paths: &[PathBuf]| {
        let wide = paths.iter().flat_map(|path| units(path)).map(|(low, high)| high - low);
        wide.max().unwrap() / HOUR
    };
    let (flights, weather) = (widest(&months()), widest(&[weather()]));
    println!("widest unit: flights {flights} h, weather {weather} h");
    assert!((24..=7 * 24).contains(&flights), "flights {flights} h");
    assert!((6 * 24..=8 * 24).contains(&weather), "weather {weather} h");
}
