//! The Kafka broker that the tests read from: Apache Kafka itself, from Maven artifacts.

use std::path::PathBuf;

use crate::steps::Failed;
use crate::{maven, shelf};

/// The folder of its jars (`jars`).
pub(crate) fn kafka() -> Result<PathBuf, Failed> {
    maven::jdk()?;
    let pinned = maven::ingredient("tests/java/kafka.xml")?;
    shelf::on("tidegate-kafka", &[&pinned.content], |folder| {
        maven::fetch("artifacts of Kafka", &pinned, &folder.join("jars"))
    })
}
