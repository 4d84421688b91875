//! The REST catalog that the tests commit to: Iceberg's own implementation in Java, from Maven artifacts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shelf::{self, at, root};
use crate::steps::{self, Failed, Step};

/// The artifacts, pinned, and the server around them.
const ARTIFACTS: &str = "tests/java/pom.xml";
const SERVER: &str = "tests/java/RestCatalog.java";

/// The folder of its jars (`jars`) and its main class (`RestCatalog`).
pub(crate) fn rest_catalog() -> Result<PathBuf, Failed> {
    let read = |path: &Path| fs::read(path).map_err(|error| at(path, &error));
    let (artifacts, server) = (root().join(ARTIFACTS), root().join(SERVER));
    let (wanted, source) = (read(&artifacts)?, read(&server)?);
    let version = version("javac", "-version")?;
    shelf::on("tidegate-rest-catalog", &[&version, &wanted, &source], |folder| {
        version_of_maven()?;
        let jars = folder.join("jars");
        let output = format!("-DoutputDirectory={}", jars.display());
        steps::run([
            [
                "--batch-mode",
                "--quiet",
                "-Dstyle.color=never",
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                "--file",
            ]
            .into_iter()
            .fold(Step::new("artifacts of the REST catalog", "mvn"), Step::arg)
            .arg(&artifacts)
            .arg(output)
            .aside(),
            ["-Xlint:-options", "-d"]
                .into_iter()
                .fold(Step::new("REST catalog", "javac"), Step::arg)
                .arg(folder)
                .arg("-classpath")
                .arg(jars.join("*"))
                .arg(&server)
                .aside(),
        ])
    })
}

fn version_of_maven() -> Result<(), Failed> {
    version("mvn", "--version").map(drop)
}

/// What `program` says of itself; without it, what to install.
fn version(program: &str, argument: &str) -> Result<Vec<u8>, Failed> {
    let missing = || {
        Failed::new(format!(
            "there is no {program}: the tests commit to a REST catalog in Java and need a JDK, 17 or newer, and Maven; \
             install them (Debian: openjdk-17-jdk-headless and maven)"
        ))
    };
    let answer = Command::new(program).arg(argument).stderr(Stdio::null()).output().map_err(|_| missing())?;
    if answer.status.success() { Ok(answer.stdout) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_artifact_is_pinned() {
        let artifacts = fs::read_to_string(root().join(ARTIFACTS)).unwrap();
        let of = |tag: &str| artifacts.matches(tag).count();
        assert_eq!(
            of("<dependency>") + of("<plugin>") + 1,
            of("<version>"),
            "each has a version, and so has the whole"
        );
        assert!(!artifacts.contains("SNAPSHOT") && !artifacts.contains('['), "{artifacts}");
    }
}
