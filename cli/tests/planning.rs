//! Looking without touching: `plan`, `source describe`, `table snapshots` and `verify`, as their users meet them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const SPEC: &str = "\
version: 1
kind: backfill
name: weather
window: {from: 2013-01-01, to: 2013-03-01}
alignment: {max_drift: 60d}
sources:
  weather: {files: {path: weather.parquet}, event_time: {column: time_hour}}
outputs:
  weather: {table: air.weather, sql: 'SELECT time_hour, origin, temp FROM weather'}
";

/// Of the clone that cargo runs this in.
fn weather() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).join("../examples/flights/weather/weather.parquet")
}

/// A folder of its own, with weather in it, and what is run there.
struct World {
    folder: tempfile::TempDir,
    coordinator: String,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("spec.yaml"), SPEC).unwrap();
        std::fs::copy(weather(), folder.path().join("weather.parquet")).unwrap();
        Self { folder, coordinator: "http://127.0.0.1:9".to_owned() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(words).current_dir(self.folder.path()).env_clear().env("HOME", self.folder.path());
        command.env("TIDEGATE_COORDINATOR", &self.coordinator).stdin(Stdio::null());
        command
    }

    /// What it printed, when it ended with `code`.
    fn ends(&self, code: i32, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        let (out, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert_eq!(status.code(), Some(code), "{words:?}: {said}{out}");
        out.into_owned() + &said
    }

    fn json(&self, code: i32, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ends(code, &[words, &["-q", "-o", "json"]].concat())).unwrap()
    }

    fn role(&self, words: &[&str]) -> (Role, String) {
        let mut child = self.command(words).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        std::thread::spawn(move || lines.map_while(Result::ok).count());
        (Role(child), first)
    }

    /// Everything below the folder that is written: each path with its content.
    fn listing(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let content = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
                open.extend(path.is_dir().then(|| path.clone()));
                found.push((path, content));
            }
        }
        found.sort();
        found
    }

    /// The newest file whose path ends so and holds `part`.
    fn file(&self, part: &str, end: &str) -> PathBuf {
        let is_it = |path: &Path| path.to_string_lossy().contains(part) && path.to_string_lossy().ends_with(end);
        self.listing().into_iter().map(|(path, _)| path).filter(|path| is_it(path)).max().unwrap()
    }
}

struct Role(Child);

impl Role {
    fn terminate(&mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(asked.success() && self.0.wait().unwrap().success());
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // it has ended already where the test went well
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn looking_changes_nothing() {
    let world = World::new();
    let before = world.listing();
    let plan = world.ends(0, &["plan", "spec.yaml"]);
    assert!(plan.contains("+ default.air.weather"), "{plan}");
    assert!(plan.contains("Next: tidegate apply spec.yaml"), "{plan}");
    world.ends(10, &["plan", "spec.yaml", "--detailed-exitcode"]);
    world.ends(0, &["plan", "spec.yaml", "--detailed-exitcode", "--window", "1999-01-01/1999-02-01"]);
    world.ends(2, &["plan", "spec.yaml", "--window", "1999-01-01"]);
    let plan = world.json(0, &["plan", "spec.yaml", "--slots", "3"]);
    assert_eq!((&plan["kind"], &plan["slots"]), (&"Plan".into(), &3.into()));
    assert_eq!(plan["outputs"][0]["exists"], false);
    let described = world.ends(0, &["source", "describe", "spec.yaml", "weather"]);
    assert!(described.contains("time_hour Timestamp"), "{described}");
    world.ends(2, &["source", "describe", "spec.yaml", "wether"]);
    let none = world.ends(4, &["table", "snapshots", "air.weather"]);
    assert!(none.contains("does not exist"), "{none}");
    world.ends(2, &["verify", "weather", "--state", "nowhere"]);
    assert_eq!(world.listing(), before, "nothing was made and nothing changed");
}

#[test]
fn a_table_that_lost_what_was_committed_to_it_is_caught() {
    // given a backfill that succeeded
    let mut world = World::new();
    let (mut coordinator, first) = world.role(&["coordinator", "--listen", "127.0.0.1:0", "--lease", "2s"]);
    world.coordinator = first.strip_prefix("listening on ").expect("it says where it listens").to_owned();
    let lake = world.folder.path().display().to_string();
    let (mut worker, _) = world.role(&["worker", "--allow-path", &lake, "--slots", "1"]);
    world.ends(0, &["apply", "spec.yaml", "--yes"]);

    // then its coordinator and its state folder say what the table holds
    for of in ["weather", "air.weather"] {
        let verified = world.json(0, &["verify", of]);
        assert_eq!(verified["items"][0]["matches"], true, "{verified}");
    }
    let snapshots = world.json(0, &["table", "snapshots", "air.weather"]);
    let newest = &snapshots["items"][0];
    assert_eq!((&newest["operation"], &newest["current"]), (&"append".into(), &true.into()), "{snapshots}");
    assert_eq!(newest["markers"].as_object().unwrap().len(), 1);
    let again = world.ends(0, &["plan", "spec.yaml"]);
    assert!(again.contains("this backfill has committed to it before"), "{again}");
    worker.terminate();
    coordinator.terminate();
    let before = world.listing();
    let sound = world.ends(0, &["verify", "weather", "--state", ".tidegate"]);
    world.ends(0, &["plan", "spec.yaml"]);
    world.ends(0, &["table", "snapshots", "air.weather"]);
    let changed: Vec<_> =
        world.listing().into_iter().filter(|one| !before.contains(one)).map(|(path, _)| path).collect();
    assert!(changed.iter().all(|path| path.ends_with("state.redb")), "only its own lock is noted there: {changed:?}");
    assert!(sound.contains("everything matches"), "{sound}");
    assert!(sound.contains("hours have rows, by column time_hour"), "{sound}");
    world.ends(1, &["verify", "nobody", "--state", ".tidegate"]);

    // when a data file is deleted
    let file = world.file("/data/", ".parquet");
    let content = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let said = world.ends(7, &["verify", "weather", "--state", ".tidegate"]);
    assert!(said.contains("✗ contents") && said.contains("cannot be read"), "{said}");
    std::fs::write(&file, content).unwrap();
    world.ends(0, &["verify", "weather", "--state", ".tidegate"]);

    // when the table is set back to what it was before the commit
    let (created, newest) =
        (world.file("/metadata/00000-", ".metadata.json"), world.file("/metadata/", ".metadata.json"));
    assert_ne!(created, newest);
    std::fs::copy(created, newest).unwrap();
    let said = world.ends(7, &["verify", "weather", "--state", ".tidegate"]);
    assert!(said.contains("✗ manifests") && said.contains("is no longer in the table"), "{said}");
}
