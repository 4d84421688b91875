//! Makes the example data of `examples/flights` from the two CSV files of nycflights13.
//!
//! `make_flights --flights flights.csv --weather weather.csv --out examples/flights`; the same files give the same
//! rows in the same order. It refuses a file whose columns are not the expected ones, or a value of another type.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::kernels::cmp;
use arrow::compute::{CastOptions, cast_with_options, concat_batches, nullif, take_record_batch};
use arrow::csv::ReaderBuilder;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

type Done<T> = Result<T, Box<dyn Error>>;

const EVENT_TIME: &str = "time_hour";
const FLIGHTS: [(&str, DataType); 19] = [
    ("year", DataType::Int32),
    ("month", DataType::Int32),
    ("day", DataType::Int32),
    ("dep_time", DataType::Int32),
    ("sched_dep_time", DataType::Int32),
    ("dep_delay", DataType::Int32),
    ("arr_time", DataType::Int32),
    ("sched_arr_time", DataType::Int32),
    ("arr_delay", DataType::Int32),
    ("carrier", DataType::Utf8),
    ("flight", DataType::Int32),
    ("tailnum", DataType::Utf8),
    ("origin", DataType::Utf8),
    ("dest", DataType::Utf8),
    ("air_time", DataType::Int32),
    ("distance", DataType::Int32),
    ("hour", DataType::Int32),
    ("minute", DataType::Int32),
    (EVENT_TIME, DataType::Timestamp(TimeUnit::Microsecond, None)),
];
const WEATHER: [(&str, DataType); 15] = [
    ("origin", DataType::Utf8),
    ("year", DataType::Int32),
    ("month", DataType::Int32),
    ("day", DataType::Int32),
    ("hour", DataType::Int32),
    ("temp", DataType::Float64),
    ("dewp", DataType::Float64),
    ("humid", DataType::Float64),
    ("wind_dir", DataType::Int32),
    ("wind_speed", DataType::Float64),
    ("wind_gust", DataType::Float64),
    ("precip", DataType::Float64),
    ("pressure", DataType::Float64),
    ("visib", DataType::Float64),
    (EVENT_TIME, DataType::Timestamp(TimeUnit::Microsecond, None)),
];

fn main() -> Done<()> {
    let [flights, weather, out] = arguments()?;

    let rows = in_event_time_order(&read(&flights, &FLIGHTS)?)?;
    for (month, rows) in by_local_month(&rows)? {
        write(&out.join("flights").join(format!("{month}.parquet")), &rows, 5_000)?;
    }
    let rows = in_event_time_order(&read(&weather, &WEATHER)?)?;
    write(&out.join("weather/weather.parquet"), &rows, 500)
}

fn arguments() -> Done<[PathBuf; 3]> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for pair in given.chunks(2) {
        if let [name, value] = pair {
            named.insert(name, value);
        }
    }
    let mut of = |name| named.remove(name).map(PathBuf::from);
    match (of("--flights"), of("--weather"), of("--out"), named.is_empty() && given.len() == 6) {
        (Some(flights), Some(weather), Some(out), true) => Ok([flights, weather, out]),
        _ => Err("usage: make_flights --flights flights.csv --weather weather.csv --out examples/flights".into()),
    }
}

/// Reads a CSV file whose columns are `columns`, in their order; `NA` is null.
fn read(path: &Path, columns: &[(&str, DataType)]) -> Done<RecordBatch> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let header = fs::read_to_string(path).map_err(|error| named(&error))?;
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    if header.lines().next().map(|line| line.split(',').collect::<Vec<_>>()).as_deref() != Some(&names) {
        return Err(named(&format!("its columns must be {}", names.join(","))).into());
    }
    let strings =
        Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>()));
    let reader = ReaderBuilder::new(Arc::clone(&strings)).with_header(true).build(header.as_bytes())?;
    let text = concat_batches(&strings, &reader.collect::<Result<Vec<_>, _>>().map_err(|error| named(&error))?)?;

    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for ((name, kind), column) in columns.iter().zip(text.columns()) {
        let array = typed(column, kind).map_err(|error| named(&format!("column {name}: {error}")))?;
        fields.push(Field::new(*name, array.data_type().clone(), *name != EVENT_TIME));
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| named(&error))?)
}

fn typed(column: &ArrayRef, kind: &DataType) -> Done<ArrayRef> {
    let missing = cmp::eq(column, &StringArray::new_scalar("NA"))?;
    let kind = match kind {
        DataType::Timestamp(unit, None) => &DataType::Timestamp(*unit, Some("UTC".into())),
        kind => kind,
    };
    Ok(cast_with_options(&nullif(column, &missing)?, kind, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The rows by event time; rows of the same time stay in the file's order.
fn in_event_time_order(rows: &RecordBatch) -> Done<RecordBatch> {
    let times = rows.column_by_name(EVENT_TIME).ok_or("no event time")?.as_primitive::<TimestampMicrosecondType>();
    let mut order: Vec<u32> = (0..u32::try_from(rows.num_rows())?).collect();
    order.sort_by_key(|row| times.value(*row as usize));
    Ok(take_record_batch(rows, &UInt32Array::from(order))?)
}

/// The rows by the month of the schedule in New York, which is not the month of the event time in UTC.
fn by_local_month(rows: &RecordBatch) -> Done<BTreeMap<String, RecordBatch>> {
    let number =
        |name| Ok::<_, Box<dyn Error>>(rows.column_by_name(name).ok_or("no such column")?.as_primitive::<Int32Type>());
    let (year, month) = (number("year")?, number("month")?);
    let mut months: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        months.entry(format!("{}-{:02}", year.value(row), month.value(row))).or_default().push(u32::try_from(row)?);
    }
    let taken =
        months.into_iter().map(|(month, order)| Ok((month, take_record_batch(rows, &UInt32Array::from(order))?)));
    taken.collect()
}

fn write(path: &Path, rows: &RecordBatch, row_group: usize) -> Done<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(12)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(row_group))
        .build();
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties))?;
    writer.write(rows)?;
    let written = writer.close()?;
    println!("{}: {} rows in {} row groups", path.display(), rows.num_rows(), written.row_groups().len());
    Ok(())
}
