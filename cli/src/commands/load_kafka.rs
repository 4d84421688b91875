//! `demo load-kafka`: the year of flights as a Kafka topic, and the spec that reads a month of it.

use serde::Serialize;
use tidegate_worker::failure::{Class, Classify as _};
use tidegate_worker::kafka::load::{self, Load, LoadError, Loaded};

use super::Context;
use crate::args;
use crate::demo_data;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{count, second, time};
use crate::output::{self, Format};

/// The airports of New York: a partition each.
const AIRPORTS: &[&str] = &["EWR", "JFK", "LGA"];
/// The example's spec, within the binary.
const SPEC: &str = include_str!("../../../examples/kafka/window.yaml");
/// Its file.
const NAME: &str = "kafka-window.yaml";
/// Where the spec looks for the broker and the topic when nothing is said.
const DEFAULTS: (&str, &str) = ("localhost:9092", "flights");

/// A topic that was filled; `kind: LoadedTopic`.
#[derive(Serialize)]
struct Topic {
    topic: String,
    bootstrap_servers: String,
    records: u64,
    partitions: Vec<Partition>,
    /// The spec that reads it.
    spec: String,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    key: String,
    records: u64,
    first: String,
    last: String,
}

/// Loads.
pub(super) async fn load_kafka(args: args::LoadKafka, context: &Context) -> Outcome {
    let spec = args.folder.join(NAME);
    let written = std::fs::create_dir_all(&args.folder).and_then(|()| std::fs::write(&spec, SPEC));
    written.map_err(|error| {
        let error = Error::new(Exit::Failed, format!("{} cannot be written", spec.display())).because(error);
        error.hint("try --folder")
    })?;
    let mut progress = context.progress("loading a year of flights");
    let loaded = load::load(flights(&args)).await;
    progress.end();
    let loaded = loaded.map_err(|failed| refused(&failed, &args))?;
    let records = loaded.iter().map(|partition| partition.records).sum();
    match context.format() {
        Format::Table | Format::Wide => {
            let table = output::columns(
                &["PARTITION", "ORIGIN", "RECORDS", "FIRST", "LAST"],
                &loaded.iter().map(row).collect::<Vec<_>>(),
            );
            let all = count(records);
            let next = next(&args, &spec.display().to_string());
            output::print(&format!("{} at {} holds {all} records\n{table}{next}", args.topic, args.bootstrap_server))?;
        }
        format => {
            let document = Topic {
                topic: args.topic.clone(),
                bootstrap_servers: args.bootstrap_server.clone(),
                records,
                partitions: loaded.iter().map(partition).collect(),
                spec: spec.display().to_string(),
            };
            output::print_document(format, "LoadedTopic", &args.topic, &document)?;
        }
    }
    Ok(Exit::Done)
}

fn flights(args: &args::LoadKafka) -> Load {
    let is_flights = |name: &str| name.starts_with("flights/");
    let files = demo_data::FILES.iter().filter(|(name, _)| is_flights(name));
    Load {
        servers: args.bootstrap_server.clone(),
        topic: args.topic.clone(),
        key: "origin",
        keys: AIRPORTS,
        time: "time_hour",
        files: files.map(|(_, content)| *content).collect(),
    }
}

fn refused(failed: &LoadError, args: &args::LoadKafka) -> Error {
    let code = failed.exit_code().or(match failed.class() {
        Class::Fatal { exit_code } => Some(exit_code),
        _ => None,
    });
    let exit = code.and_then(Exit::from_code).unwrap_or(Exit::Failed);
    let error = Error::new(exit, failed.to_string());
    match failed {
        LoadError::Unfit { .. } => {
            let next = next(args, &format!("{}/{NAME}", args.folder.display()));
            error.hint(format!("if it was loaded before, go on: {}", next.trim_start_matches("Next: ").trim_end()))
        }
        _ => error,
    }
}

fn row(loaded: &Loaded) -> Vec<String> {
    let (first, last) = loaded.times;
    vec![loaded.partition.to_string(), loaded.key.clone(), count(loaded.records), second(first), second(last)]
}

fn partition(loaded: &Loaded) -> Partition {
    let (first, last) = loaded.times;
    let (partition, key, records) = (loaded.partition, loaded.key.clone(), loaded.records);
    Partition { partition, key, records, first: time(first), last: time(last) }
}

/// The next command: what differs from the spec's defaults stands before it.
fn next(args: &args::LoadKafka, spec: &str) -> String {
    let given = [("KAFKA", &args.bootstrap_server, DEFAULTS.0), ("TOPIC", &args.topic, DEFAULTS.1)];
    let given = given.iter().filter(|(_, value, default)| value.as_str() != *default);
    let given: String = given.map(|(name, value, _)| format!("{name}={value} ")).collect();
    format!("Next: {given}tidegate run {spec} --local\n")
}
