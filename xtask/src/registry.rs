//! The schema registry that the tests ask: Apicurio's, from a Maven artifact that holds the whole program.

use std::path::PathBuf;

use crate::steps::Failed;
use crate::{maven, shelf};

/// The folder of the program (`*-runner.jar`) and its libraries.
pub(crate) fn registry() -> Result<PathBuf, Failed> {
    maven::jdk()?;
    let pinned = maven::ingredient("tests/java/registry.xml")?;
    shelf::on("tidegate-registry", &[&pinned.content], |folder| {
        maven::unpack("schema registry (142 MB)", &pinned, folder)
    })
}
