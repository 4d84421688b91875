//! The files of a query's log: what Spark writes, and nothing guessed.
//!
//! A file of `offsets` has the version `v1`, a line of metadata, and one line for each source: its positions as JSON, or
//! `-` where it has none. A file of `commits` has a version and a line of JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::checkpoint::{CheckpointError, Partition};

/// Where one source stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOffsets {
    /// A Kafka source: the next offset of each partition.
    Kafka(BTreeMap<Partition, i64>),
    /// Nowhere yet.
    None,
    /// A source that is no Kafka source.
    Other(String),
}

/// A file of `offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets {
    metadata: String,
    /// The sources, in the order of the query.
    pub sources: Vec<SourceOffsets>,
}

impl Offsets {
    /// Reads `text`; `file` is its name.
    ///
    /// # Errors
    /// A version that is not known, and what is no such file.
    pub fn read(text: &str, file: &str) -> Result<Self, CheckpointError> {
        let bad = |what: String| CheckpointError::file(file, what);
        let mut lines = text.lines();
        match lines.next().map(str::trim_end) {
            Some("v1") => {}
            Some(version) if version.starts_with('v') => {
                let version: String = version.chars().take(20).collect();
                return Err(bad(format!("its version is {version}, and only v1 is known here")));
            }
            _ => return Err(bad("it is no file of a query's log: its first line is no version".to_owned())),
        }
        let metadata = lines.next().ok_or_else(|| bad("it ends behind its first line".to_owned()))?;
        if !metadata.trim().is_empty() && serde_json::from_str::<Map<String, Value>>(metadata).is_err() {
            return Err(bad("its second line is no JSON object".to_owned()));
        }
        let sources = lines.map(|line| source(line).map_err(bad)).collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() {
            return Err(bad("it names no source".to_owned()));
        }
        Ok(Self { metadata: metadata.to_owned(), sources })
    }

    /// The text that Spark reads back.
    pub fn text(&self) -> String {
        let mut text = format!("v1\n{}", self.metadata);
        for source in &self.sources {
            text.push('\n');
            match source {
                SourceOffsets::Kafka(positions) => text.push_str(&kafka_json(positions)),
                SourceOffsets::None => text.push('-'),
                SourceOffsets::Other(line) => text.push_str(line),
            }
        }
        text
    }

    /// The positions of all Kafka sources; of a partition that several sources read, the lowest.
    pub fn positions(&self) -> BTreeMap<Partition, i64> {
        let mut all: BTreeMap<Partition, i64> = BTreeMap::new();
        for (partition, offset) in self.kafka().flatten() {
            let lowest = all.get(partition).map_or(*offset, |held| *held.min(offset));
            all.insert(partition.clone(), lowest);
        }
        all
    }

    /// The Kafka sources.
    pub fn kafka(&self) -> impl Iterator<Item = &BTreeMap<Partition, i64>> {
        self.sources.iter().filter_map(|source| match source {
            SourceOffsets::Kafka(positions) => Some(positions),
            _ => None,
        })
    }
}

/// `{"topic":{"0":1,"1":2}}`.
pub(super) fn kafka_json(positions: &BTreeMap<Partition, i64>) -> String {
    let mut topics: Map<String, Value> = Map::new();
    for (partition, offset) in positions {
        let topic = topics.entry(partition.topic.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(numbers) = topic {
            numbers.insert(partition.number.to_string(), Value::from(*offset));
        }
    }
    Value::Object(topics).to_string()
}

fn source(line: &str) -> Result<SourceOffsets, String> {
    if line == "-" {
        return Ok(SourceOffsets::None);
    }
    let Ok(document) = serde_json::from_str::<Value>(line) else {
        return Err(format!("a source's line is no JSON: {:?}", line.chars().take(80).collect::<String>()));
    };
    Ok(kafka_source(&document).map_or_else(|| SourceOffsets::Other(line.to_owned()), SourceOffsets::Kafka))
}

/// What has topics, whose partitions have offsets; `None` for another kind of source.
fn kafka_source(document: &Value) -> Option<BTreeMap<Partition, i64>> {
    let topics = document.as_object().filter(|topics| !topics.is_empty())?;
    let mut positions = BTreeMap::new();
    for (topic, numbers) in topics {
        for (number, offset) in numbers.as_object()? {
            let number = number.parse::<i32>().ok().filter(|number| *number >= 0)?;
            positions.insert(Partition::new(topic, number), offset.as_i64()?);
        }
    }
    Some(positions)
}

/// Checks a file of `commits`.
pub(super) fn check_commit(text: &str, file: &str) -> Result<(), CheckpointError> {
    let bad = |what: &str| Err(CheckpointError::file(file, what));
    let mut lines = text.lines();
    match lines.next().map(str::trim_end) {
        Some("v1" | "v2") => {}
        _ => return bad("its first line is no version that is known here"),
    }
    match lines.next() {
        Some(line) if serde_json::from_str::<Map<String, Value>>(line).is_err() => {
            bad("its second line is no JSON object")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Spark 3.5 writes it, of a query over two topics, a source without positions and a rate source.
    const FILE: &str = "v1\n{\"batchWatermarkMs\":0,\"batchTimestampMs\":1767225600000,\"conf\":{\"spark.sql.shuffle.\
                        partitions\":\"200\"}}\n{\"clicks\":{\"0\":12,\"1\":0},\"orders\":{\"0\":7}}\n-\n42";

    #[test]
    fn a_file_of_offsets_is_read_and_written_back_as_it_was() {
        let read = Offsets::read(FILE, "offsets/3").unwrap();
        assert_eq!(read.text(), FILE);
        let positions: Vec<String> = read.positions().iter().map(|(of, at)| format!("{of} {at}")).collect();
        assert_eq!(positions, ["clicks-0 12", "clicks-1 0", "orders-0 7"]);
        assert_eq!(read.sources[1..], [SourceOffsets::None, SourceOffsets::Other("42".to_owned())]);
    }

    #[test]
    fn what_spark_did_not_write_is_refused() {
        let why = |text: &str| Offsets::read(text, "offsets/3").unwrap_err().to_string();
        assert!(why("").contains("no version"));
        assert!(why("v2\n{}\n{}").contains("v2"));
        assert!(why("v1").contains("ends behind its first line"));
        assert!(why("v1\n{}").contains("names no source"));
        assert!(why("v1\n{\n{}").contains("second line"));
        assert!(why("v1\n{}\n{\"a\":").contains("no JSON"));
        for good in ["v1\n{\"nextBatchWatermarkMs\":0}", "v1\n{}", "v1"] {
            assert!(check_commit(good, "commits/3").is_ok(), "{good}");
        }
        for bad in ["1\n{}", "v1\n{", ""] {
            assert!(check_commit(bad, "commits/3").is_err(), "{bad}");
        }
    }

    #[test]
    fn only_topics_with_partitions_are_kafka() {
        for (line, is_kafka) in [
            ("{\"t\":{\"0\":1}}", true),
            ("{\"logOffset\":3}", false),
            ("{\"t\":{\"a\":1}}", false),
            ("{\"t\":{\"-1\":1}}", false),
            ("{\"t\":{\"0\":\"1\"}}", false),
            ("{}", false),
            ("7", false),
        ] {
            assert_eq!(matches!(source(line), Ok(SourceOffsets::Kafka(_))), is_kafka, "{line}");
        }
    }
}
