//! Servers in Java that the tests run: their jars, from Maven artifacts that a file in `tests/java` pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shelf::{at, root};
use crate::steps::{self, Failed, Step};

/// The oldest Java that the servers run on.
const JAVA: u32 = 17;

/// A file of the clone that a server is made from, and what it holds.
pub(crate) struct Ingredient {
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
}

/// Reads the file at `path` in the clone.
pub(crate) fn ingredient(path: &str) -> Result<Ingredient, Failed> {
    let path = root().join(path);
    let content = fs::read(&path).map_err(|error| at(&path, &error))?;
    Ok(Ingredient { path, content })
}

/// What the JDK says of itself; when it is missing or too old, what to install.
pub(crate) fn jdk() -> Result<Vec<u8>, Failed> {
    asked("java", "-version")?;
    let said = asked("javac", "-version")?;
    match major(&said) {
        Some(found) if found < JAVA => Err(needed(&format!("javac is of Java {found}"))),
        _ => Ok(said),
    }
}

/// Puts the artifacts that `pinned` names, and all that they need to run, into `jars`.
pub(crate) fn fetch(name: &'static str, pinned: &Ingredient, jars: &Path) -> Result<(), Failed> {
    dependencies("dependency:copy-dependencies", name, pinned, jars)
}

/// Puts what the archives that `pinned` names hold into `folder`.
pub(crate) fn unpack(name: &'static str, pinned: &Ingredient, folder: &Path) -> Result<(), Failed> {
    dependencies("dependency:unpack-dependencies", name, pinned, folder)
}

fn dependencies(goal: &str, name: &'static str, pinned: &Ingredient, folder: &Path) -> Result<(), Failed> {
    asked("mvn", "--version")?;
    let output = format!("-DoutputDirectory={}", folder.display());
    // Where Maven notes what it has unpacked: beside it, and not in the clone.
    let markers = format!("-DmarkersDirectory={}", folder.join("markers").display());
    let words = ["--batch-mode", "--quiet", "-Dstyle.color=never", goal, "-DincludeScope=runtime", "--file"];
    // Maven ends with the codes of a terminal on stdout, even when it is quiet.
    let maven = words.into_iter().fold(Step::new(name, "mvn").aside(), Step::arg).arg(&pinned.path);
    steps::run([maven.arg(output).arg(markers)])
}

fn asked(program: &str, argument: &str) -> Result<Vec<u8>, Failed> {
    let missing = || needed(&format!("there is no {program}"));
    let answer = Command::new(program).arg(argument).stderr(Stdio::null()).output().map_err(|_| missing())?;
    if answer.status.success() { Ok(answer.stdout) } else { Err(missing()) }
}

fn needed(what: &str) -> Failed {
    Failed::new(format!(
        "{what}: the tests run a REST catalog, a Kafka broker and a schema registry in Java and need a JDK, {JAVA} or newer, and Maven; \
         install them (Debian: openjdk-{JAVA}-jdk-headless and maven)"
    ))
}

/// The first number in `javac 17.0.15`.
fn major(said: &[u8]) -> Option<u32> {
    let said = String::from_utf8_lossy(said);
    said.split(|letter: char| !letter.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_artifact_is_pinned() {
        for file in ["tests/java/pom.xml", "tests/java/kafka.xml", "tests/java/registry.xml", "bench/kafka/spark.xml"] {
            let artifacts = String::from_utf8(ingredient(file).unwrap().content).unwrap();
            let of = |tag: &str| artifacts.matches(tag).count();
            assert_eq!(
                of("<dependency>") + of("<plugin>") + 1,
                of("<version>"),
                "{file}: each has a version, and so has the whole"
            );
            assert!(!artifacts.contains("SNAPSHOT") && !artifacts.contains('['), "{artifacts}");
        }
    }

    #[test]
    fn an_old_java_is_told_from_a_new_one() {
        assert_eq!(major(b"javac 17.0.15\n"), Some(17));
        assert_eq!(major(b"javac 1.8.0_402\n"), Some(1));
        assert_eq!(major(b"javac 25-ea\n"), Some(25));
        assert_eq!(major(b""), None);
    }
}
