//! A world of its own: a folder with input, catalog and state, a coordinator and workers as real processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_proto::v1::{self, operator_client::OperatorClient};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::transport::{Channel, Endpoint};

use super::oracle::Check;
use super::process::{Process, Signal};
use super::{Store, binary, wait_until};

/// How long a lease lasts in these worlds.
pub const LEASE: Duration = Duration::from_secs(2);
/// How long anything may take before a test fails; far more than it does.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Worlds in which processes run at the same time: more would only make each other slow.
static ROOM: Semaphore = Semaphore::const_new(2);

/// Everything that one test has.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    /// The coordinator, while there is one.
    pub coordinator: Option<Process>,
    address: Option<String>,
    /// The workers by name.
    pub workers: BTreeMap<String, Process>,
    logs: Vec<PathBuf>,
    /// Its catalog, as the oracle wants it.
    catalog: Value,
    /// Variables of every process.
    env: Vec<(String, String)>,
    room: Option<SemaphorePermit<'static>>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout: data.
    pub stdout: String,
    /// What it wrote to stderr: messages.
    pub stderr: String,
}

impl Ended {
    /// Wants the exit code `code`; gives itself.
    ///
    /// # Panics
    /// When it is another one, with all that was said.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// All that it said: data and messages.
    pub fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// Wants each of `words` in what it said; gives itself.
    ///
    /// # Panics
    /// When one is missing.
    #[track_caller]
    pub fn saying(self, words: &[&str]) -> Self {
        let said = self.said();
        let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
        assert!(missing.is_empty(), "{missing:?} is missing in: {said}");
        self
    }

    /// Its stdout as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|bad| panic!("{bad}: {}\n{}", self.stdout, self.stderr))
    }
}

impl World {
    /// An empty world with a catalog of its own.
    #[allow(clippy::new_without_default, reason = "a world is made on purpose")]
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("tidegate-world-").expect("a folder");
        let warehouse = format!("file://{}", folder.path().join("warehouse").display());
        let catalog = json!({"name": "default", "file": folder.path().join("catalog.db"), "warehouse": warehouse});
        let mut world = Self {
            folder,
            coordinator: None,
            address: None,
            workers: BTreeMap::new(),
            logs: Vec::new(),
            catalog: Value::Null,
            env: Vec::new(),
            room: None,
        };
        world.configure(&json!({"sqlite": {"path": "catalog.db", "warehouse": "warehouse"}}), catalog);
        world
    }

    /// Gives it another catalog: as the configuration says it, and as the oracle wants it.
    pub fn configure(&mut self, catalog: &Value, oracle: Value) {
        let env: Vec<&String> = self.env.iter().map(|(name, _)| name).collect();
        let allow = json!({"paths": ["."], "env": env, "endpoints": ["127.0.0.1"]});
        self.write("tidegate.yaml", &json!({"catalogs": {"default": catalog}, "allow": allow}).to_string());
        self.catalog = oracle;
    }

    /// A world whose catalog is a file and whose tables are in a bucket of `store`, which its specs may reach too.
    pub fn in_store(store: &Store, bucket: &str) -> Self {
        let mut world = Self::new();
        world.env = store.env().map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let warehouse = format!("s3://{bucket}/warehouse");
        let file = world.root().join("catalog.db");
        let oracle = json!({"name": "default", "file": file, "warehouse": warehouse, "properties": store.properties()});
        let sqlite = json!({"path": "catalog.db", "warehouse": warehouse, "storage": store.storage()});
        world.configure(&json!({"sqlite": sqlite}), oracle);
        world
    }

    /// Sets a variable of every process that is started from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(held, _)| held != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Writes `text` to the file `name` in it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().expect("it is below the world")).expect("a folder");
        std::fs::write(&path, text).expect("a file is written");
        path
    }

    /// Its catalog, as the oracle wants it.
    pub fn catalog(&self) -> Value {
        self.catalog.clone()
    }

    /// Puts the files of the flights example into it: the folders `flights` and `weather`.
    pub fn take_example(&self) {
        for folder in ["flights", "weather"] {
            let target = self.root().join(folder);
            std::fs::create_dir(&target).expect("a folder");
            for file in std::fs::read_dir(binary::root().join("examples/flights").join(folder)).expect("the example") {
                let file = file.expect("a file of the example");
                std::fs::copy(file.path(), target.join(file.file_name())).expect("a copy");
            }
        }
    }

    /// What the two tables of the flights example must hold after the backfill `id`: their sources, unchanged.
    pub fn checks_of_example(&self, id: &str) -> [Check; 2] {
        ["flights", "weather"].map(|name| Check {
            catalog: self.catalog(),
            table: format!("air.{name}"),
            branch: None,
            input: vec![self.root().join(name).join("*.parquet").display().to_string()],
            others: Vec::new(),
            query: Some("SELECT * FROM input".to_owned()),
            time: "time_hour",
            window: None,
            backfill: Some(id.to_owned()),
            may_miss: None,
        })
    }

    /// Where failpoints say that they fired.
    pub fn fired(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root().join("fired")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// `tidegate` with `arguments`, in this world and with nothing of the machine's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary::tidegate());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.root()).env("HOME", self.root()).env("NO_COLOR", "1");
        command.env_remove("XDG_CONFIG_HOME").env("TIDEGATE_FAILPOINTS_LOG", self.root().join("fired"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(address) = &self.address {
            command.env("TIDEGATE_COORDINATOR", address);
        }
        command
    }

    /// Runs `tidegate` with `arguments` to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_command(self.command(arguments)).await
    }

    /// Runs `command` to its end.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    pub async fn run_command(&self, command: Command) -> Ended {
        let what = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap_or_else(|_| panic!("{what} does not end"));
        let output = output.unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a spec in one process, coordinator and worker, once there is room.
    pub async fn run_local(&self, spec: &str, env: &[(&str, &str)]) -> Ended {
        self.run_local_with(spec, &[], env).await
    }

    /// Runs a spec in one process, with more said on the command line.
    pub async fn run_local_with(&self, spec: &str, more: &[&str], env: &[(&str, &str)]) -> Ended {
        let _room = ROOM.acquire().await.expect("it is never closed");
        let mut command = self.command(&["run", spec, "--local", "--yes", "-o", "json"]);
        command.args(more);
        command.envs(env.iter().copied());
        self.run_command(command).await
    }

    /// Starts `command` in the background, its words in a log that a failing test shows.
    pub fn spawn(&mut self, name: &str, command: Command) -> Process {
        let log = self.root().join(format!("{:02}-{name}.log", self.logs.len()));
        self.logs.push(log.clone());
        Process::start(name, command, log)
    }

    /// Starts the coordinator, on the state that is there and where its workers look for it.
    pub async fn start_coordinator(&mut self) {
        self.start_coordinator_with(&[]).await;
    }

    /// Starts the coordinator with variables in its environment; waits until it listens.
    pub async fn start_coordinator_with(&mut self, env: &[(&str, &str)]) {
        self.start_coordinator_saying(&[], env).await;
    }

    /// As [`World::start_coordinator_with`], with more said on the command line.
    pub async fn start_coordinator_saying(&mut self, more: &[&str], env: &[(&str, &str)]) {
        if self.room.is_none() {
            self.room = Some(ROOM.acquire().await.expect("it is never closed"));
        }
        let listen = self.address.as_deref().map_or("127.0.0.1:0", |address| address.trim_start_matches("http://"));
        let lease = format!("{}ms", LEASE.as_millis());
        let mut command = self.command(&["coordinator", "--listen", listen, "--state", "state", "--lease", &lease]);
        command.args(more).envs(env.iter().copied());
        let mut process = self.spawn("coordinator", command);
        let address = wait_until("the coordinator to listen", PATIENCE, async || {
            let said = process.said();
            let address =
                said.lines().find_map(|line| line.split_once("listening on ")).map(|(_, rest)| rest.to_owned());
            assert!(address.is_some() || process.is_alive(), "the coordinator has ended: {said}");
            address
        });
        let address = address.await.split_whitespace().next().expect("an address").to_owned();
        self.address = Some(address);
        self.coordinator = Some(process);
    }

    /// Starts a worker.
    pub fn start_worker(&mut self, name: &str, slots: u32) {
        self.start_worker_with(name, slots, &[]);
    }

    /// Starts a worker with variables in its environment.
    pub fn start_worker_with(&mut self, name: &str, slots: u32, env: &[(&str, &str)]) {
        let (slots, address) = (slots.to_string(), self.address());
        let root = self.root().display().to_string();
        let arguments = ["worker", "--coordinator", &address, "--name", name, "--slots", &slots, "--allow-path", &root];
        let mut command = self.command(&arguments);
        command.envs(env.iter().copied());
        let process = self.spawn(name, command);
        self.workers.insert(name.to_owned(), process);
    }

    /// Starts a worker that can write no file of more than `blocks` blocks of 512 bytes, as if the disk had no more room.
    /// The system would end it with a signal; told to ignore that, it gets the error.
    pub fn start_worker_without_room(&mut self, name: &str, slots: u32, blocks: u32) {
        let (slots, address) = (slots.to_string(), self.address());
        let root = self.root().display().to_string();
        let arguments = ["worker", "--coordinator", &address, "--name", name, "--slots", &slots, "--allow-path", &root];
        let worker = self.command(&arguments);
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\""]).arg(blocks.to_string());
        command.arg(worker.get_program()).args(worker.get_args()).current_dir(self.root());
        for (name, value) in worker.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let process = self.spawn(name, command);
        self.workers.insert(name.to_owned(), process);
    }

    /// Kills a worker, if it is there.
    pub fn kill_worker(&mut self, name: &str) {
        drop(self.workers.remove(name));
    }

    /// Kills the coordinator, if it is there.
    pub fn kill_coordinator(&mut self) {
        drop(self.coordinator.take());
    }

    /// The coordinator.
    ///
    /// # Panics
    /// When there is none.
    pub fn coordinator(&mut self) -> &mut Process {
        self.coordinator.as_mut().expect("a coordinator was started")
    }

    /// A worker.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn worker(&mut self, name: &str) -> &mut Process {
        self.workers.get_mut(name).expect("the worker was started")
    }

    /// Tells a worker a signal.
    pub fn signal_worker(&mut self, name: &str, signal: Signal) {
        self.worker(name).signal(signal);
    }

    /// Where the coordinator is.
    ///
    /// # Panics
    /// When none was started yet.
    pub fn address(&self) -> String {
        self.address.clone().expect("a coordinator was started")
    }

    /// To the coordinator, whether it is there or not.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address())
            .expect("an address")
            .connect_timeout(Duration::from_secs(5))
            .connect_lazy()
    }

    /// Applies the spec `file`; gives the backfill's id.
    pub async fn apply(&self, file: &str) -> String {
        let ended = self.run(&["apply", file, "--detach", "--yes", "-o", "name"]).await.with(0);
        ended.stdout.trim().to_owned()
    }

    /// How a backfill stands, when the coordinator answers.
    pub async fn backfill(&self, id: &str) -> Option<v1::Backfill> {
        let mut operator = OperatorClient::new(self.channel());
        let request = v1::GetRequest { id: id.to_owned() };
        let answer = tokio::time::timeout(Duration::from_secs(5), operator.get(request)).await.ok()?;
        answer.ok().map(tonic::Response::into_inner)
    }

    /// Waits until a backfill `is` so; gives it.
    pub async fn until(&self, id: &str, what: &str, is: impl Fn(&v1::Backfill) -> bool) -> v1::Backfill {
        wait_until(what, PATIENCE, async || self.backfill(id).await.filter(&is)).await
    }

    /// Waits for the end of a backfill, of whatever kind.
    pub async fn until_over(&self, id: &str) -> v1::Backfill {
        self.until(id, "the end of the backfill", |backfill| backfill.ended != 0).await
    }

    /// What happened in a backfill: kind and text of each event.
    pub async fn events(&self, id: &str) -> Vec<(String, String)> {
        let mut operator = OperatorClient::new(self.channel());
        let request = v1::EventsRequest { id: id.to_owned(), after: 0, limit: 10_000 };
        let events = operator.events(request).await.expect("the coordinator answers").into_inner().events;
        events.into_iter().map(|event| (event.kind, event.text)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.workers.clear();
        self.coordinator = None;
        if std::thread::panicking() {
            for log in &self.logs {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = said.lines().collect();
                let last = &lines[lines.len().saturating_sub(60)..];
                eprintln!("---- {}\n{}", log.display(), last.join("\n"));
            }
        }
    }
}
