//! `stream`: the live job of a spec, paused and resumed by the commands that the spec names.
//!
//! They run here and nowhere else: by the user who has the spec's file, once they were shown and confirmed.

use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_common::clock;
use tidegate_common::spec::Resolved;
use tidegate_common::spec::model::LiveSpec;
use tidegate_worker::checkpoint::Activity;

use super::Context;
use super::checkpoint::{asked, hand_over, inspect_group, keep_group};
use super::live::{self, LiveGroup};
use crate::args::{SpecFile, StreamChange, StreamCommand, StreamResume, WayArgs};
use crate::exit::{Error, Exit, Outcome};
use crate::output;
use crate::prompt;
use crate::spec_file;
use crate::style::plain;

/// How often a group that changes is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Does what `command` says.
pub(super) async fn stream(command: StreamCommand, context: &Context) -> Outcome {
    match command {
        StreamCommand::Status(file) => status(&file, context),
        StreamCommand::Pause(args) => pause(&args, context).await,
        StreamCommand::Resume(args) => resume(&args, context).await,
    }
}

fn load(file: &SpecFile) -> Result<(Resolved, LiveSpec), Error> {
    let spec = spec_file::load(&file.file)?.resolved;
    let live = spec.live.clone().ok_or_else(|| {
        Error::usage(format!("{} names no live job", file.file.display()))
            .hint("add `live: {group: GROUP, pause: COMMAND, resume: COMMAND}`")
    })?;
    Ok((spec, live))
}

fn status(file: &SpecFile, context: &Context) -> Outcome {
    let (spec, live) = load(file)?;
    for group in live::groups(&spec, &live)? {
        inspect_group(&group.brokers, &group.scope, context)?;
    }
    Ok(Exit::Done)
}

async fn pause(args: &StreamChange, context: &Context) -> Outcome {
    let (spec, live) = load(&args.spec)?;
    let groups = live::groups(&spec, &live)?;
    if !run("pause", live.pause.as_deref(), args, context)? {
        return Ok(Exit::Done);
    }
    for group in &groups {
        wait(group, &live.group, false, args.timeout).await?;
        let committed = asked(|| group.brokers.committed(&group.brokers.within(&group.scope)?))?;
        if committed.is_empty() {
            context.say(&format!("{} is inactive; it has no positions", plain(&live.group)));
            continue;
        }
        let kept = keep_group(&group.brokers, &committed, args.backup_to.as_deref())?;
        context.say(&format!("{} is inactive; its positions are kept in {kept}", plain(&live.group)));
        output::print(&format!("{kept}\n"))?;
    }
    context.say(&format!("Next: tidegate apply {}", args.spec.file.display()));
    Ok(Exit::Done)
}

async fn resume(args: &StreamResume, context: &Context) -> Outcome {
    let (spec, live) = load(&args.change.spec)?;
    let groups = live::groups(&spec, &live)?;
    if let Some(file) = &args.from_handoff {
        let [group] = groups.as_slice() else {
            return Err(Error::usage("the spec reads several clusters")
                .hint("move each with `tidegate checkpoint reset --from-handoff FILE`, then resume without it"));
        };
        let way = WayArgs {
            execute: !args.change.dry_run,
            confirm: args.confirm.clone(),
            allow_gap: args.allow_gap,
            backup_to: args.change.backup_to.clone(),
        };
        hand_over(&group.brokers, file, &way, context).await?;
    }
    if !run("resume", live.resume.as_deref(), &args.change, context)? {
        return Ok(Exit::Done);
    }
    for group in &groups {
        wait(group, &live.group, true, args.change.timeout).await?;
    }
    context.say(&format!(
        "{} is active\nNext: tidegate stream status {}",
        plain(&live.group),
        args.change.spec.file.display()
    ));
    Ok(Exit::Done)
}

/// Shows the command, asks, and runs it; whether it was run.
fn run(verb: &str, command: Option<&str>, args: &StreamChange, context: &Context) -> Result<bool, Error> {
    let Some(command) = command else {
        return Err(Error::usage(format!("the spec's live job has no `{verb}` command"))
            .hint(format!("{verb} it by hand, or add `live: {{{verb}: COMMAND}}`")));
    };
    let lines: String = command.lines().map(|line| format!("  {}\n", plain(line))).collect();
    output::say(&format!("{} says, to {verb} the live job:\n{}", args.spec.file.display(), lines.trim_end()));
    if args.dry_run {
        context.say("a dry run: it was not run");
        return Ok(false);
    }
    prompt::confirm("Run it in your shell?", args.yes)?;
    // What it prints is no data of ours.
    let ended = Command::new("sh").arg("-c").arg(command).stdout(Stdio::from(std::io::stderr())).status();
    let ended = ended.map_err(|bad| Error::new(Exit::Failed, "no shell to run it with").because(bad))?;
    if !ended.success() {
        let how = ended.code().map_or_else(|| "was ended by a signal".to_owned(), |code| format!("ended with {code}"));
        return Err(Error::new(Exit::Failed, format!("the command to {verb} the live job {how}"))
            .hint("`tidegate stream status` says how the group stands"));
    }
    Ok(true)
}

/// Waits until the group is active, or is not.
async fn wait(group: &LiveGroup, name: &str, active: bool, timeout: Duration) -> Result<(), Error> {
    let began = clock::monotonic();
    loop {
        let (activity, who) = group.activity()?;
        if (activity == Activity::Active) == active || activity == Activity::Untold {
            return Ok(());
        }
        if clock::monotonic().since(began) >= timeout {
            let state = if active { "not active yet".to_owned() } else { format!("still active ({who})") };
            return Err(Error::new(Exit::TimedOut, format!("the command has ended, and the group {name} is {state}"))
                .hint("`tidegate stream status` says how it stands; --timeout waits longer"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
