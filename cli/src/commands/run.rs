//! `run`: plan, apply and wait in one, on the coordinator or in this process.

use std::path::PathBuf;

use tidegate_common::spec::Resolved;
use tidegate_common::spec::model::Publish;
use tidegate_proto::v1::{Applied, Phase};
use tidegate_worker::access::Access;

use super::worker::worker_config;
use super::{Context, apply, live, wait};
use crate::args;
use crate::exit::{Error, Exit, Outcome};
use crate::in_process::{self, RunError, Setup, Then};
use crate::local::LocalError;
use crate::prompt;
use crate::saved_plan::Wanted;
use crate::spec_file;

/// Runs the backfill of a spec to its end.
pub(super) async fn run(args: args::Run, context: &Context) -> Outcome {
    if !args.local {
        return apply::apply(args.apply, context).await;
    }
    let Wanted { spec, expected } = spec_file::load_to_apply(&args.apply.spec.file, &args.apply.window)?;
    if args.publish && spec.resolved.outputs.iter().all(|output| output.publish == Publish::Direct) {
        let told = Error::usage("--publish: no output of this spec is staged");
        return Err(told.hint("without --publish it commits as it goes; `publish: staged` in an output stages it"));
    }
    let mut setup = setup(args.workers, context.config.state.value.clone(), &args.apply, context)?;
    setup.expected = expected;
    setup.then = match (args.publish, args.discard) {
        (_, true) => Then::Discard,
        (true, _) => Then::Publish,
        _ => Then::Leave,
    };
    if setup.then == Then::Discard {
        let question = format!("Cancel {}, and drop what it has staged?", spec.resolved.spec.name);
        prompt::confirm(&question, args.apply.yes)?;
    }
    live::must_be_paused(&spec.resolved, args.apply.live_ok)?;
    let exit = in_this_process(&spec.resolved, setup, context).await?;
    if let (Exit::Done, Some(text)) = (exit, live::resume_text(&spec.resolved, &args.apply.spec.file)) {
        context.say(&text);
    }
    Ok(exit)
}

/// Workers of this process: what the user may reach, they may reach.
///
/// # Errors
/// The configuration names no place for what waits to be joined.
pub(super) fn setup(workers: u32, state: PathBuf, args: &args::Apply, context: &Context) -> Result<Setup, Error> {
    let one = worker_config(&context.config, String::new(), Access::local())?;
    // The configured slots are those of this machine; they are shared out, at least one each.
    let slots = (one.slots / workers.max(1) as usize).max(1);
    let memory_bytes = one.memory_bytes / u64::from(workers.max(1));
    let named = |number: u32| {
        let name = format!("local-{}-{number}", std::process::id());
        tidegate_worker::worker::WorkerConfig { name, slots, memory_bytes, ..one.clone() }
    };
    Ok(Setup {
        state,
        workers: (1..=workers).map(named).collect(),
        reason: args.reason.clone(),
        allow_existing: args.allow_existing,
        expected: None,
        then: Then::Leave,
    })
}

/// Runs a backfill in this process with progress, and prints its report.
pub(super) async fn in_this_process(spec: &Resolved, setup: Setup, context: &Context) -> Outcome {
    let mut progress = context.progress("starting a coordinator and its workers in this process");
    let then = setup.then;
    let ended = in_process::run(spec, setup, |state| progress.update(state)).await;
    progress.end();
    let ended = ended.map_err(failed)?;
    if ended.applied == Applied::NothingToDo {
        context.say("nothing to do: this backfill has succeeded before");
    }
    let exit = wait::ended(&ended.last, context)?;
    match ended.last.phase() {
        Phase::Staged => {
            context.say("without a server: run it again with --publish, or with --discard");
            Ok(exit)
        }
        Phase::Cancelled if then == Then::Discard => Ok(Exit::Done),
        _ => Ok(exit),
    }
}

/// How a run in this process ends when it does not come to an end.
pub(super) fn failed(error: RunError) -> Error {
    let (exit, hint) = match &error {
        RunError::Interrupted => (Exit::Interrupted, None),
        RunError::Refused(status) => match status.code() {
            tonic::Code::InvalidArgument => (Exit::SpecInvalid, None),
            tonic::Code::AlreadyExists | tonic::Code::FailedPrecondition => (Exit::Preflight, None),
            _ => (Exit::Failed, None),
        },
        RunError::Local(LocalError::State(state)) if state.is_retryable() => {
            (Exit::Temporary, Some("wait for the other process, or choose another folder with --state"))
        }
        RunError::Local(LocalError::State(_)) => (Exit::Preflight, Some("choose another folder with --state")),
        RunError::Local(_) => (Exit::Failed, Some("what was accepted is kept: run it again and it goes on from there")),
    };
    let told = Error::new(exit, "the run did not come to its end").because(error);
    match hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// A spec that is refused.
pub(super) fn invalid(name: &str, errors: tidegate_common::spec::SpecErrors) -> Error {
    Error::new(Exit::SpecInvalid, format!("{name} is no valid spec")).because(errors)
}
