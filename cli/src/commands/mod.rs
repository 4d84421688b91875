//! The commands: each reads its arguments, asks a coordinator or a room, and prints.

mod apply;
mod change;
mod checkpoint;
mod config;
mod coordinator;
mod demo;
mod events;
mod handoff;
mod late;
mod live;
mod load_kafka;
mod loadtest;
mod plan;
mod run;
mod schema;
mod show;
mod source;
mod spec;
mod stop;
mod stream;
mod table;
mod verify;
mod wait;
pub(crate) mod worker;

use std::io::IsTerminal as _;

use clap::CommandFactory as _;
use serde::Serialize;
use tidegate_proto::v1;

use crate::args::{self, Cli, Command, ConfigCommand, DemoCommand};
use crate::client::Client;
use crate::config::Config;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::style::Paint;

/// What every command knows.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The configuration.
    pub config: Config,
    /// The colours of stdout.
    pub paint: Paint,
    /// The colours of stderr.
    pub stderr_paint: Paint,
    /// Whether nothing but errors is said.
    pub quiet: bool,
}

impl Context {
    /// How data is written to stdout.
    pub(crate) fn format(&self) -> Format {
        self.config.output.value
    }

    /// Begins to show progress, with `text` as what is done first.
    pub(crate) fn progress(&self, text: &str) -> Progress {
        Progress::begin(text, self.quiet, std::io::stderr().is_terminal(), self.stderr_paint)
    }

    /// Says `line` on stderr, unless it is to be quiet.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            output::say(line);
        }
    }

    /// The coordinator that is configured.
    ///
    /// # Errors
    /// An address that is none (usage), a coordinator that does not answer (temporary).
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        Client::connect(&self.config.coordinator.value).await
    }
}

/// Does what the command line asks for.
///
/// # Errors
/// Whatever the command says, with the exit code that it means.
pub(crate) async fn dispatch(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Validate(spec) => spec::validate(&spec.file, context),
        Command::Plan(args) => plan::plan(args, context).await,
        Command::Source { command } => source::source(command, context).await,
        Command::Table { command } => table::table(command, context).await,
        Command::Verify(args) => verify::verify(args, context).await,
        Command::Schema { of } => schema::schema(of),
        Command::Apply(args) => apply::apply(args, context).await,
        Command::Demo(args::Demo { command: Some(DemoCommand::LoadKafka(args)), .. }) => {
            load_kafka::load_kafka(args, context).await
        }
        Command::Demo(args) => demo::demo(args, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Loadtest(args) => loadtest::loadtest(args, context).await,
        Command::List => show::list(context).await,
        Command::Status(args) => show::status(args, context).await,
        Command::Watch(of) => show::watch(&of.id, context).await,
        Command::Events(args) => events::events(args, context).await,
        Command::Pause(args) => change::change(v1::Change::Pause, args, context).await,
        Command::Resume(args) => change::change(v1::Change::Resume, args, context).await,
        Command::Cancel(args) => change::change(v1::Change::Cancel, args, context).await,
        Command::Retry(args) => change::change(v1::Change::Retry, args, context).await,
        Command::Publish(args) => change::publish(args, context).await,
        Command::Late { command } => late::late(command, context).await,
        Command::Handoff(args) => handoff::handoff(args, context).await,
        Command::Checkpoint { command } => checkpoint::checkpoint(command, context).await,
        Command::Stream { command } => stream::stream(command, context).await,
        Command::Coordinator(args) => coordinator::coordinator(args, context).await,
        Command::Worker(_) => worker::worker(context).await,
        Command::Config { command: ConfigCommand::View { show_origin } } => config::view(show_origin, context),
        Command::Completion { shell } => completion(shell),
        Command::Version => version(context),
    }
}

fn completion(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn version(context: &Context) -> Outcome {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
    }
    let version = env!("CARGO_PKG_VERSION");
    match context.format() {
        Format::Table | Format::Wide => output::print(&format!("tidegate {version}\n"))?,
        format => output::print_document(format, "Version", version, &Version { version })?,
    }
    Ok(Exit::Done)
}
