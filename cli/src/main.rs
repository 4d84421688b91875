//! `tidegate`: every role and every operator command, in one binary.
//!
//! It is thin: it reads the command line and the configuration, calls the room that does the work, shows what came of
//! it and ends with the exit code of the contract. It refuses to decide anything about a backfill.

mod archive;
mod args;
mod client;
mod commands;
mod config;
mod demo_data;
mod exit;
mod figures;
mod in_process;
mod ledger;
mod local;
mod output;
mod progress;
mod prompt;
mod report;
#[cfg(test)]
mod sample;
mod saved_plan;
mod spec_file;
mod style;
mod topic;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command, Global};
use commands::Context;
use config::{ConfigFile, Places};
use exit::{Error, Outcome};
use style::{Color, Paint};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // `--help` and `--version` come here too; when they cannot be printed there is nobody to tell
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(exit::Exit::Usage.code()));
        }
    };
    let color = cli.global.color.unwrap_or_default();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::say(error.render(stderr_paint(color)).trim_end());
            error.exit().into()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let context = context(&cli)?;
    log(&cli.command, &context)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(exit::Exit::Failed, "no threads to run on").because(error))?;
    let outcome = runtime.block_on(commands::dispatch(cli.command, &context));
    // what still runs in the background is no longer waited for: whatever must last is durable
    runtime.shutdown_background();
    outcome
}

fn context(cli: &Cli) -> Result<Context, Error> {
    let folder = std::env::current_dir().map_err(|error| Error::usage("the current folder is gone").because(error))?;
    let env = |name: &str| std::env::var(name).ok();
    let places = Places { folder, env: &env, config: cli.global.config.clone() };
    let config = config::load(flags(&cli.global, &cli.command), &places)?;
    let color = config.color.value;
    Ok(Context {
        paint: Paint::new(color, no_color(), std::io::stdout().is_terminal()),
        stderr_paint: stderr_paint(color),
        quiet: cli.global.quiet,
        config,
    })
}

/// What the command line says about the configuration.
fn flags(global: &Global, command: &Command) -> ConfigFile {
    let mut flags = ConfigFile {
        coordinator: global.coordinator.clone(),
        output: global.output,
        color: global.color,
        log: global.log.clone(),
        ..ConfigFile::default()
    };
    match command {
        Command::Coordinator(coordinator) => {
            flags.listen = coordinator.listen.map(|at| at.to_string());
            flags.state.clone_from(&coordinator.state);
        }
        Command::Worker(worker) => {
            flags.worker.slots = worker.slots;
            flags.worker.memory.clone_from(&worker.memory);
            flags.worker.shuffle.clone_from(&worker.shuffle);
            flags.worker.name.clone_from(&worker.name);
            flags.allow.paths = (!worker.allow_paths.is_empty()).then(|| worker.allow_paths.clone());
        }
        Command::Run(run) => flags.state.clone_from(&run.state),
        _ => {}
    }
    flags
}

fn log(command: &Command, context: &Context) -> Result<(), Error> {
    let default = if matches!(command, Command::Coordinator(_) | Command::Worker(_)) { "info" } else { "warn" };
    let filter = context.config.log.value.as_deref().unwrap_or(default);
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|bad| Error::usage(format!("{filter:?} is no filter of the log")).because(bad))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(context.stderr_paint != Paint::plain())
        .init();
    Ok(())
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn stderr_paint(color: Color) -> Paint {
    Paint::new(color, no_color(), std::io::stderr().is_terminal())
}
