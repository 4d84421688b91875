//! The Kafka example: its loader fills a topic of a real broker, its spec replays a month of it, and the table holds what the
//! flights' files hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tidegate_tests::sandbox::kafka::Isolation;
use tidegate_tests::sandbox::{Broker, World, read_table, root};

/// The airports, by the partition that the loader gives each.
const AIRPORTS: [&str; 3] = ["EWR", "JFK", "LGA"];
/// March 2013, UTC, in microseconds.
const MARCH: std::ops::Range<i64> = 1_362_096_000_000_000..1_364_774_400_000_000;

/// A flight as its file has it: time (µs), carrier, flight, destination, tail number, delays.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight {
    time: i64,
    carrier: String,
    flight: i64,
    dest: String,
    tailnum: Option<String>,
    delays: [Option<i64>; 2],
}

/// The flights of each airport in the order of the files: the place of each is its offset.
fn flights() -> BTreeMap<&'static str, Vec<Flight>> {
    let mut found: BTreeMap<&str, Vec<Flight>> = BTreeMap::new();
    for month in 1..=12 {
        let file = File::open(root().join(format!("examples/flights/flights/2013-{month:02}.parquet"))).unwrap();
        for rows in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let rows = rows.unwrap();
            let column = |name: &str| rows.column_by_name(name).unwrap().clone();
            let text = |name: &str, row: usize| {
                let column = column(name);
                let column = column.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            let number = |name: &str, row: usize| {
                let column = column(name);
                let column = column.as_primitive::<Int32Type>();
                column.is_valid(row).then(|| i64::from(column.value(row)))
            };
            let times = column("time_hour");
            for row in 0..rows.num_rows() {
                let origin = text("origin", row).unwrap();
                let origin = AIRPORTS.iter().find(|airport| **airport == origin).unwrap();
                found.entry(origin).or_default().push(Flight {
                    time: times.as_primitive::<TimestampMicrosecondType>().value(row),
                    carrier: text("carrier", row).unwrap(),
                    flight: number("flight", row).unwrap(),
                    dest: text("dest", row).unwrap(),
                    tailnum: text("tailnum", row),
                    delays: ["dep_delay", "arr_delay"].map(|name| number(name, row)),
                });
            }
        }
    }
    found
}

fn load(topic: &str, broker: &Broker) -> [String; 6] {
    ["demo", "load-kafka", "--bootstrap-server", broker.bootstrap(), "--topic", topic].map(str::to_owned)
}

async fn run(world: &World, words: &[String]) -> tidegate_tests::sandbox::Ended {
    world.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Microseconds of `2013-03-01T05:00:00+00:00`: these flights all lie in one month of whole hours.
fn micros(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    assert_eq!((&text[..8], &text[13..]), ("2013-03-", ":00:00+00:00"), "{text}");
    MARCH.start + ((number(8..10) - 1) * 24 + number(11..13)) * 3_600_000_000
}

#[tokio::test]
async fn given_the_loaded_topic_when_the_examples_spec_is_run_then_the_table_holds_the_flights_of_its_window() {
    let broker = Broker::shared().await;
    let topic = Broker::name("flights");
    let world = World::new();
    let flights = flights();

    // The loader fills the topic, and says what comes next.
    let spec = "tidegate-demo/kafka-window.yaml";
    let next = format!("KAFKA={} TOPIC={topic} tidegate run {spec} --local", broker.bootstrap());
    run(&world, &load(&topic, broker)).await.with(0).saying(&["336,776 records", &next]);
    for (partition, airport) in (0..).zip(AIRPORTS) {
        let end = i64::try_from(flights[airport].len()).unwrap();
        assert_eq!(broker.watermarks(&topic, partition, Isolation::Committed), (0, end), "{airport}");
    }
    // Once more adds nothing.
    run(&world, &load(&topic, broker)).await.with(4).saying(&["holds 336776 records already", &next]);

    // What is in the repository is what the loader wrote.
    let written = std::fs::read_to_string(world.root().join(spec)).unwrap();
    assert_eq!(written, std::fs::read_to_string(root().join("examples/kafka/window.yaml")).unwrap());
    let ended = world.run_local(spec, &[("KAFKA", broker.bootstrap()), ("TOPIC", &topic)]).await.with(0).json();
    let edges = ended["ledger"].as_array().unwrap();
    assert!(!edges.is_empty() && edges.iter().all(|edge| edge["balance"] == "balanced"), "{edges:#?}");
    let found = &ended["sources"][0]["found"];
    assert_eq!(found["rows_in_range"], 336_776);
    // March and the units that it cuts: about a day more on either side.
    assert!(found["rows_pruned"].as_u64().unwrap() > 300_000, "{found}");

    let rows = read_table(&world.catalog(), "air.flights_from_kafka");
    let mut places = BTreeSet::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        let (partition, offset) = (row["kafka_partition"].as_u64().unwrap(), row["kafka_offset"].as_u64().unwrap());
        let airport = AIRPORTS[usize::try_from(partition).unwrap()];
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let flight = Flight {
            time: micros(row["time_hour"].as_str().unwrap()),
            carrier: text("carrier").unwrap(),
            flight: row["flight"].as_i64().unwrap(),
            dest: text("dest").unwrap(),
            tailnum: text("tailnum"),
            delays: ["dep_delay", "arr_delay"].map(|name| row[name].as_i64()),
        };
        assert_eq!(row["origin"], Value::from(airport));
        assert_eq!(flight, flights[airport][usize::try_from(offset).unwrap()], "{airport} at {offset}");
        assert!(places.insert((partition, offset)), "{airport} at {offset} is there twice");
        *counts.entry(airport).or_default() += 1;
    }
    let expected = flights
        .iter()
        .map(|(airport, flights)| (*airport, flights.iter().filter(|flight| MARCH.contains(&flight.time)).count()));
    assert_eq!(counts, expected.collect());
    assert!(rows.len() > 25_000, "{}", rows.len());
}

#[tokio::test]
async fn given_a_topic_that_drops_old_records_or_has_other_partitions_when_loaded_then_it_is_refused_and_stays_empty() {
    let broker = Broker::shared().await;
    let world = World::new();
    type Case<'a> = (i32, &'a [(&'a str, &'a str)], &'a str);
    let settings: [Case<'_>; 2] = [
        (3, &[("retention.ms", "604800000")], "retention.ms to -1"),
        (2, &[("retention.ms", "-1")], "has 2 partitions"),
    ];
    for (partitions, settings, said) in settings {
        let topic = Broker::name("flights");
        broker.create_topic(&topic, partitions, settings).await;
        run(&world, &load(&topic, broker)).await.with(4).saying(&[said, "name another topic"]);
        assert_eq!(broker.content(&topic, Isolation::Uncommitted), []);
    }
    let nobody = ["demo", "load-kafka", "--bootstrap-server", "127.0.0.1:1"].map(str::to_owned);
    run(&world, &nobody).await.with(75).saying(&["127.0.0.1:1 does not answer"]);
}
