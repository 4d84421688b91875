//! The python environments that the tests check tables with and the bench runs Spark in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::maven;
use crate::shelf::{self, at, root};
use crate::steps::{self, Failed, Step};

/// What is installed, pinned.
const REQUIREMENTS: &str = "tests/requirements.txt";

/// The interpreter of an environment that has all the requirements.
pub(crate) fn python() -> Result<PathBuf, Failed> {
    let requirements = root().join(REQUIREMENTS);
    let wanted = fs::read(&requirements).map_err(|error| at(&requirements, &error))?;
    let version = python_version()?;
    let folder =
        shelf::on("tidegate-venv", &[version.as_bytes(), &wanted], |environment| make(environment, &requirements))?;
    Ok(folder.join("bin/python"))
}

/// The folder of what the bench holds Tidegate's reading of Kafka against: Spark's environment (`venv`) and its jars
/// (`jars`).
pub(crate) fn spark() -> Result<PathBuf, Failed> {
    maven::jdk()?;
    let (requirements, pinned) =
        (maven::ingredient("bench/kafka/spark.txt")?, maven::ingredient("bench/kafka/spark.xml")?);
    let version = python_version()?;
    shelf::on("tidegate-spark", &[version.as_bytes(), &requirements.content, &pinned.content], |folder| {
        make(&folder.join("venv"), &requirements.path)?;
        maven::fetch("artifacts of Spark", &pinned, &folder.join("jars"))
    })
}

/// Makes an environment that has all that the file `requirements` names.
fn make(environment: &Path, requirements: &Path) -> Result<(), Failed> {
    steps::run([
        Step::new("python environment", "python3").arg("-m").arg("venv").arg("--clear").arg(environment).aside(),
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--requirement"]
            .into_iter()
            .fold(Step::new("python packages", environment.join("bin/python")), Step::arg)
            .arg(requirements)
            .aside(),
    ])
}

fn python_version() -> Result<String, Failed> {
    let needs = "the tests check tables with other engines and need it";
    let ask = |code: &str| Command::new("python3").args(["-c", code]).stderr(Stdio::null()).output();
    match ask("import sys; print(sys.version)") {
        Ok(answer) if answer.status.success() => match ask("import venv, ensurepip") {
            Ok(found) if found.status.success() => Ok(String::from_utf8_lossy(&answer.stdout).into_owned()),
            _ => Err(Failed::new(format!("python3 has no venv: {needs}; install python3-venv"))),
        },
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(Path::new("python3"), &error)),
        _ => Err(Failed::new(format!("there is no python3: {needs}; install python3 and python3-venv"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned() {
        let requirements = fs::read_to_string(root().join(REQUIREMENTS)).unwrap();
        let lines = requirements.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert!(lines.into_iter().all(|line| line.contains("==")), "{requirements}");
    }
}
