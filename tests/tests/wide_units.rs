//! Weather as it is published: three year-long runs in one file, an airport each. Its row groups are weeks wide, and
//! those that hold the end of one run and the beginning of the next a whole year.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidegate_tests::sandbox::{World, must_be_exact, root, write_file};

/// Row groups of the published form.
const UNIT: usize = 500;
const DAY: f64 = 86_400.0;

fn world() -> World {
    let world = World::new();
    let example = root().join("examples/flights");
    fs::create_dir(world.root().join("flights")).unwrap();
    for month in 1..=3 {
        let name = format!("flights/2013-{month:02}.parquet");
        fs::copy(example.join(&name), world.root().join(&name)).unwrap();
    }
    fs::create_dir(world.root().join("weather")).unwrap();
    write_file(&world.root().join("weather/weather.parquet"), &by_airport(&example), UNIT);
    let spec = fs::read_to_string(example.join("aligned.yaml")).unwrap();
    world.write("tight.yaml", &spec);
    world.write("wide.yaml", &spec.replace("{max_drift: 10d}", "{max_drift: 10d, allow_wide: true}"));
    world
}

fn by_airport(example: &Path) -> RecordBatch {
    let file = File::open(example.join("weather/weather.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = reader.schema().clone();
    let rows = concat_batches(&schema, &reader.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap()).unwrap();
    let column = |name| SortColumn { values: rows.column_by_name(name).unwrap().clone(), options: None };
    let order = lexsort_to_indices(&[column("origin"), column("time_hour")], None).unwrap();
    take_record_batch(&rows, &order).unwrap()
}

#[tokio::test]
async fn given_units_wider_than_the_drift_when_they_are_not_allowed_then_the_width_that_would_do_is_named() {
    let world = world();
    let refused = world.run_local("tight.yaml", &[]).await.with(4);
    refused.saying(&["weather", "allow_wide", "max_drift", "10d"]);
}

#[tokio::test]
async fn given_units_wider_than_the_drift_when_they_are_allowed_then_the_bound_is_the_widest_unit_and_all_is_exact() {
    let world = world();
    let ended = world.run_local("wide.yaml", &[]).await.with(0).json();

    let promised = ended["promised_skew_seconds"].as_f64().unwrap();
    assert!(promised > 300.0 * DAY, "a unit spans two runs: {promised}");
    for source in ended["sources"].as_array().unwrap() {
        let skew = source["max_skew_seconds"].as_f64().unwrap();
        assert!(skew <= promised, "the skew of {} is {skew}, its bound {promised}", source["name"]);
    }
    for edge in ended["ledger"].as_array().unwrap() {
        assert_eq!(edge["balance"], "balanced", "{edge}");
    }
    let found = must_be_exact(&world.checks_of_example(ended["id"].as_str().unwrap()));
    assert_eq!(found[1].rows, 26_115);
}
