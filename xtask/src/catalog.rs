//! The REST catalog that the tests commit to: Iceberg's own implementation in Java, from Maven artifacts.

use std::path::PathBuf;

use crate::steps::{self, Failed, Step};
use crate::{maven, shelf};

/// The folder of its jars (`jars`) and its main class (`RestCatalog`).
pub(crate) fn rest_catalog() -> Result<PathBuf, Failed> {
    let jdk = maven::jdk()?;
    let (pinned, server) =
        (maven::ingredient("tests/java/pom.xml")?, maven::ingredient("tests/java/RestCatalog.java")?);
    shelf::on("tidegate-rest-catalog", &[&jdk, &pinned.content, &server.content], |folder| {
        let jars = folder.join("jars");
        maven::fetch("artifacts of the REST catalog", &pinned, &jars)?;
        steps::run([["-Xlint:-options", "-d"]
            .into_iter()
            .fold(Step::new("REST catalog", "javac"), Step::arg)
            .arg(folder)
            .arg("-classpath")
            .arg(jars.join("*"))
            .arg(&server.path)
            .aside()])
    })
}
