//! The process of a broker: its folder, its ports, its settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::super::oracle::of_xtask;
use super::super::port::Port;
use super::super::process::Process;

/// What makes Kafka quick in small things: one replica of everything, no waiting for members that may still come, and a log
/// cleaner that looks often.
const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.initial.task.delay.ms=100
log.retention.check.interval.ms=200
log.segment.delete.delay.ms=100
log.cleaner.backoff.ms=100
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=1
num.io.threads=2
";

/// What makes a broker come back soon that was killed: its controller waits so long for the one that it was before. Only
/// then, because a busy machine makes one that lives look dead.
const AGAIN: [&str; 4] =
    ["--override", "broker.session.timeout.ms=3000", "--override", "broker.heartbeat.interval.ms=500"];

/// A broker's process, and what stays when it dies.
#[derive(Debug)]
pub(super) struct Server {
    /// Ends before its folder goes.
    process: Option<Process>,
    folder: TempDir,
    port: Port,
    _controller: Port,
}

impl Server {
    /// Formats a folder and starts a broker on it, with `more` settings.
    ///
    /// # Panics
    /// When Kafka cannot be had, or refuses the settings.
    pub(super) fn start(more: &[(&str, &str)]) -> Self {
        Self::start_listening(&[], &[], more)
    }

    /// The same with more listeners, `NAME://host:port`, and more said when the folder is formatted.
    ///
    /// # Panics
    /// When Kafka cannot be had, or refuses the settings.
    pub(super) fn start_listening(listeners: &[&str], format: &[&str], more: &[(&str, &str)]) -> Self {
        let (port, controller) = (Port::reserve(), Port::reserve());
        let folder = TempDir::with_prefix("tidegate-broker-").expect("a folder");
        let (here, there) = (port.address(), controller.address());
        let public = [&[&*format!("PLAINTEXT://{here}")], listeners].concat().join(",");
        let mut settings = format!(
            "{SETTINGS}listeners={public},CONTROLLER://{there}\nadvertised.listeners={public}\n\
             controller.quorum.voters=1@{there}\nlog.dirs={}\n",
            folder.path().join("data").display()
        );
        for (key, value) in more {
            settings.push_str(&format!("{key}={value}\n"));
        }
        fs::write(folder.path().join("server.properties"), settings).expect("settings are written");
        let mut server = Self { process: None, folder, port, _controller: controller };
        server.format(format);
        server.run(&[]);
        server
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        self.port.address()
    }

    /// Starts the process anew, on what it left.
    pub(super) fn run_again(&mut self) {
        self.run(&AGAIN);
    }

    fn run(&mut self, arguments: &[&str]) {
        let mut command = java();
        command.arg("kafka.Kafka").arg(self.settings()).args(arguments);
        self.process = Some(Process::start_on("broker", command, self.log(), self.folder.path()));
    }

    /// Kills the process.
    pub(super) fn crash(&mut self) {
        self.process.take().expect("a broker that runs").kill();
    }

    pub(super) fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_alive)
    }

    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn format(&self, more: &[&str]) {
        let cluster = &uuid::Uuid::new_v4().simple().to_string()[..22];
        let mut tool = java();
        tool.args(["kafka.tools.StorageTool", "format", "--cluster-id", cluster]).args(more);
        tool.arg("--config").arg(self.settings());
        let output = tool.output().unwrap_or_else(|error| panic!("java cannot be started: {error}"));
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "no Kafka: {}\n{}", said(&output.stdout), said(&output.stderr));
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("---- broker\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        self.process = None;
    }
}

/// Java with Kafka's jars: those in the folder of `TIDEGATE_KAFKA`, or of what `cargo xtask kafka` makes.
fn java() -> Command {
    let made = std::env::var_os("TIDEGATE_KAFKA").map_or_else(|| of_xtask("kafka"), PathBuf::from);
    let mut command = Command::new("java");
    command.args([
        "-XX:TieredStopAtLevel=1",
        "-Xmx256m",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-classpath",
    ]);
    command.arg(Path::new(&made).join("jars").join("*"));
    command
}
