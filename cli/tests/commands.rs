//! The binary as its users meet it: exit codes, what goes to stdout and what to stderr, and one whole run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const SPEC: &str = "\
version: 1
kind: backfill
name: made-up
alignment: {max_drift: 1h}
sources:
  a: {generate: {seed: 1, rows: 20000, rate: 10, disorder: 10s, splits: 4}}
  b: {generate: {seed: 2, rows: 2000, rate: 1, disorder: 10s, splits: 2}}
outputs:
  of_a: {table: t.a, sql: 'SELECT * FROM a'}
  of_b: {table: t.b, sql: 'SELECT * FROM b'}
";

/// A folder of its own, and what is run in it. Nothing of the machine's own configuration is seen.
struct World {
    folder: tempfile::TempDir,
    coordinator: String,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("spec.yaml"), SPEC).unwrap();
        // a port that was free a moment ago: nobody answers there
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { folder, coordinator: format!("http://127.0.0.1:{port}") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(words).current_dir(self.path()).env_clear().env("HOME", self.path());
        command.env("TIDEGATE_COORDINATOR", &self.coordinator).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn exit(&self, words: &[&str]) -> i32 {
        self.run(words).status.code().unwrap()
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_slice(&self.run(&[words, &["-o", "json"]].concat()).stdout).unwrap()
    }

    /// Starts a role; with the first line that it says.
    fn role(&self, words: &[&str]) -> (Role, String) {
        let mut child = self.command(words).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect());
        (Role { child, rest: Some(rest) }, first)
    }

    fn with_coordinator(mut self) -> (Self, Role) {
        let (role, first) = self.role(&["coordinator", "--listen", "127.0.0.1:0", "--lease", "2s"]);
        self.coordinator = first.strip_prefix("listening on ").expect("it says where it listens").to_owned();
        (self, role)
    }
}

/// A process that goes on until it is told to stop.
struct Role {
    child: Child,
    rest: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Role {
    /// Asks it to stop; its exit code, and what it said.
    fn terminate(&mut self) -> (Option<i32>, Vec<String>) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        let code = self.child.wait().unwrap().code();
        (code, self.rest.take().unwrap().join().unwrap())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // it has ended already where the test went well
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bad_input_ends_with_the_code_of_the_contract_and_nothing_on_stdout() {
    let world = World::new();
    std::fs::write(world.path().join("bad.yaml"), SPEC.replace("rows:", "rwos:")).unwrap();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["validate", "bad.yaml"], 3, "bad.yaml:6:27: sources.a.generate: unknown key `rwos`; did you mean `rows`?"),
        (&["apply", "bad.yaml", "--yes"], 3, "hint: "),
        (&["validate", "nowhere.yaml"], 2, "the spec nowhere.yaml cannot be read"),
        (&["apply", "spec.yaml", "--dry-run", "--detach"], 2, "cannot be used with"),
        (&["list", "--coordinator", "https://host"], 2, "does not speak TLS"),
        (&["coordinator", "--listen", "0.0.0.0:0"], 2, "--insecure-listen-anywhere"),
        (&["list"], 75, "hint: start one with `tidegate coordinator`"),
        (&["watch", "x", "--config", "nowhere.yaml"], 2, "there is no configuration file"),
    ];
    for (words, code, said) in cases {
        let output = world.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{words:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{words:?}");
    }
}

#[test]
fn what_needs_no_coordinator_works_without_one() {
    let world = World::new();
    for words in [&["validate", "spec.yaml"][..], &["schema", "config"], &["completion", "bash"], &["config", "view"]] {
        let output = world.run(words);
        assert!(output.status.success() && !output.stdout.is_empty(), "{words:?}: {}", text(&output.stderr));
    }
    for of in ["spec", "config", "output"] {
        let schema: serde_json::Value = serde_json::from_slice(&world.run(&["schema", of]).stdout).unwrap();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    }
    assert_eq!(world.json(&["validate", "spec.yaml"])["kind"], "SpecSummary");
    assert_eq!(world.json(&["version"])["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_backfill_without_workers_waits_and_can_be_changed() {
    let (world, _coordinator) = World::new().with_coordinator();
    assert_eq!(world.exit(&["status", "nobody"]), 1, "an id that there is not");
    assert_eq!(world.exit(&["apply", "spec.yaml"]), 5, "nobody to ask");
    assert_eq!(world.json(&["apply", "spec.yaml", "--dry-run"])["would"], "create");
    assert_eq!(world.json(&["list"])["items"].as_array().unwrap().len(), 0, "a dry run and a no start nothing");

    let applied = world.json(&["apply", "spec.yaml", "--yes", "--detach", "--reason", "a test"]);
    assert_eq!((&applied["kind"], &applied["applied"]), (&"Applied".into(), &"created".into()));
    assert_eq!(text(&world.run(&["list", "-o", "name"]).stdout).trim(), applied["id"]);
    assert_eq!(world.json(&["apply", "spec.yaml", "--dry-run"])["would"], "attach");
    assert_eq!(world.exit(&["status", "made-up", "--wait", "--timeout", "100ms"]), 8);

    assert_eq!(world.json(&["pause", "made-up"])["state"], "paused");
    assert_eq!(world.json(&["resume", "made-up"])["wish"], "run");
    assert_eq!(world.exit(&["cancel", "made-up"]), 5, "a cancel asks");
    assert_eq!(world.exit(&["cancel", "made-up", "--dry-run"]), 0);
    assert_eq!(world.json(&["cancel", "made-up", "--yes"])["phase"], "cancelled");
    assert_eq!(world.exit(&["pause", "made-up"]), 4, "it has ended");
    let events = text(&world.run(&["events", "made-up", "--follow"]).stdout);
    assert!(events.contains("created: a test") && events.contains("cancelled"), "{events}");
}

#[test]
fn a_run_succeeds_adds_up_and_is_done_once_while_the_coordinator_comes_and_goes() {
    let (world, mut coordinator) = World::new().with_coordinator();
    let address = world.coordinator.strip_prefix("http://").unwrap().to_owned();
    let lake = world.path().display().to_string();
    let applied = world.run(&["apply", "spec.yaml", "--yes", "--detach", "-q"]);
    assert!(applied.status.success());

    // given somebody who waits while the coordinator is exchanged for another
    let mut watch = world.command(&["watch", "made-up", "-o", "json"]);
    let mut waiting = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("PREPARING")), "it watches");
    let said_since = std::thread::spawn(move || lines.collect::<Vec<_>>());
    let (code, said) = coordinator.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    let (_coordinator, _) = world.role(&["coordinator", "--listen", &address, "--lease", "2s"]);

    // when a worker comes
    let (mut worker, _) = world.role(&["worker", "--allow-path", &lake, "--slots", "2"]);

    // then the wait ends with the backfill
    let output = waiting.wait_with_output().unwrap();
    let said = said_since.join().unwrap().join("\n");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the coordinator is gone; waiting for it"), "the exchange was felt: {said}");
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["kind"], &done["phase"]), (&"Backfill".into(), &"succeeded".into()));
    let edges = done["ledger"].as_array().unwrap();
    assert_eq!(edges.len(), 8, "{edges:?}");
    assert!(edges.iter().all(|edge| edge["balance"] == "balanced"), "{edges:?}");
    assert_eq!(done["outputs"][0]["rows_committed"], 20_000);

    let again = world.run(&["apply", "spec.yaml"]);
    assert_eq!(again.status.code(), Some(0), "nothing to do needs no yes: {}", text(&again.stderr));
    assert!(text(&again.stderr).contains("nothing to do"));
    assert!(text(&again.stdout).contains("SUCCEEDED"));
    assert_eq!(worker.terminate().0, Some(0), "an idle worker drains at once");
}
