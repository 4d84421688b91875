//! A schema registry: Apicurio's, which serves Confluent's API, on a port of its own, its schemas in memory, and gone with
//! the test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::oracle::of_xtask;
use super::port::Port;
use super::process::Process;
use super::world::PATIENCE;
use super::{http, wait_until};

/// The server that the tests of one binary share, under subjects of their own.
static SHARED: OnceCell<Registry> = OnceCell::const_new();

/// Where it has Confluent's API.
const API: &str = "/apis/ccompat/v7";

/// A schema registry.
#[derive(Debug)]
pub struct Registry {
    port: Port,
    process: Process,
    folder: TempDir,
}

impl Registry {
    /// The one that tests share.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// One of its own, which may be killed.
    ///
    /// # Panics
    /// When it cannot be had, or does not start.
    pub async fn start() -> Self {
        let (port, folder) = (Port::reserve(), TempDir::with_prefix("tidegate-registry-").expect("a folder"));
        let process = run(&port, &folder);
        let mut registry = Self { port, process, folder };
        registry.until_up().await;
        registry
    }

    /// Kills it; its schemas are gone with it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after it was killed, where it was, and empty. Its ids begin anew.
    pub async fn start_again(&mut self) {
        self.process = run(&self.port, &self.folder);
        self.until_up().await;
    }

    /// The address of Confluent's API.
    pub fn url(&self) -> String {
        format!("http://{}{API}", self.port.address())
    }

    /// Registers a schema of `kind` (`AVRO`, `PROTOBUF`) as the next version of `subject`; gives its id. `references` are
    /// first versions of others: the name under which the schema refers to each, and its subject.
    ///
    /// # Panics
    /// When it is refused.
    pub fn register(&self, subject: &str, kind: &str, schema: &str, references: &[(&str, &str)]) -> u32 {
        let references: Vec<Value> =
            references.iter().map(|(name, subject)| json!({"name": name, "subject": subject, "version": 1})).collect();
        let body = json!({"schema": schema, "schemaType": kind, "references": references}).to_string();
        let (path, headers) = (format!("{API}/subjects/{subject}/versions"), [("content-type", "application/json")]);
        let answer = http::send(&self.port.address(), "POST", &path, &headers, body.as_bytes()).well();
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["id"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("an id")
    }

    async fn until_up(&mut self) {
        let process = &mut self.process;
        wait_until("the schema registry to listen", PATIENCE, async || {
            let said = process.said();
            let listens = said.contains("Listening on: http://");
            assert!(listens || process.is_alive(), "the schema registry has ended: {said}");
            listens.then_some(())
        })
        .await;
    }
}

/// The program in the folder of `TIDEGATE_REGISTRY`, or of what `cargo xtask registry` makes.
fn run(port: &Port, folder: &TempDir) -> Process {
    let made = std::env::var_os("TIDEGATE_REGISTRY").map_or_else(|| of_xtask("registry"), PathBuf::from);
    let mut files = fs::read_dir(&made).unwrap_or_else(|error| panic!("{}: {error}", made.display())).flatten();
    let program = files.find(|file| file.file_name().to_string_lossy().ends_with("-runner.jar"));
    let program = program.unwrap_or_else(|| panic!("no schema registry in {}", made.display())).path();
    let address = port.address();
    let (host, port) = address.rsplit_once(':').expect("host and port");
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-Xmx256m"]);
    command.arg(format!("-Dquarkus.http.host={host}")).arg(format!("-Dquarkus.http.port={port}"));
    command.arg("-jar").arg(program);
    Process::start("registry", command, folder.path().join("log"))
}
