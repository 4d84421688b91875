//! `apply`: a spec's backfill on a coordinator.

use serde::Serialize;
use tidegate_proto::v1;

use super::wait::{self, Waited};
use super::{Context, live, show};
use crate::args;
use crate::client::Client;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};
use crate::prompt;
use crate::report::short_id;
use crate::saved_plan::Wanted;
use crate::spec_file::{self, Summary};

/// What became of an `apply` that does not wait; `kind: Applied`.
#[derive(Serialize)]
struct Applied<'a> {
    id: &'a str,
    /// created, attached, resumed or nothing_to_do.
    applied: String,
}

/// What an `apply` would do; `kind: ApplyPreview`.
#[derive(Serialize)]
struct Preview<'a> {
    /// create, attach, resume or nothing_to_do.
    would: &'static str,
    coordinator: &'a str,
    spec: &'a Summary,
}

/// Starts, attaches to or resumes a backfill, and waits for its end.
pub(super) async fn apply(args: args::Apply, context: &Context) -> Outcome {
    let wanted = spec_file::load_to_apply(&args.spec.file, &args.window)?;
    let (spec, summary) = (&wanted.spec, Summary::of(&wanted.spec));
    let mut progress = context.progress(&format!("connecting to {}", context.config.coordinator.value));
    let client = context.client().await?;
    let existing = client.find(&spec.id.to_string()).await?;
    progress.end();
    if args.dry_run {
        return preview(&args, &summary, existing.as_ref(), &client, context);
    }
    let starts = existing.as_ref().is_none_or(|one| one.ended != 0 && one.phase() != v1::Phase::Succeeded);
    if starts {
        live::must_be_paused(&spec.resolved, args.live_ok)?;
        context.say(&format!("{summary}on     {}", client.address()));
        let verb = if existing.is_some() { "Take up" } else { "Start" };
        prompt::confirm(&format!("{verb} {} ({})?", summary.name, short_id(&summary.id)), args.yes)?;
    }
    run(&args, &wanted, &client, context).await
}

async fn run(args: &args::Apply, wanted: &Wanted, client: &Client, context: &Context) -> Outcome {
    let request = v1::ApplyRequest {
        spec_json: wanted.spec.json(),
        reason: args.reason.clone(),
        allow_existing: args.allow_existing,
        expected: wanted.expected.clone(),
    };
    let reply = client.apply(request).await?;
    let short = short_id(&reply.id);
    context.say(&format!("{short} {}", show::applied_text(reply.applied())));
    if args.detach {
        let applied = reply.applied().as_str_name().trim_start_matches("APPLIED_").to_lowercase();
        match context.format() {
            Format::Table | Format::Wide => output::print(&format!("{}\n", reply.id))?,
            format => output::print_document(format, "Applied", &reply.id, &Applied { id: &reply.id, applied })?,
        }
        context.say(&format!("{}\nNext: tidegate watch {short}", show::workers_text(&client.get(&reply.id).await?)));
        return Ok(Exit::Done);
    }
    let progress = context.progress(&format!("{short} is followed; Ctrl-C detaches, the backfill goes on"));
    match wait::until_end(client, &reply.id, progress, None).await? {
        Waited::Ended(backfill) => {
            let exit = wait::ended(&backfill, context)?;
            if let (Exit::Done, Some(text)) = (exit, live::resume_text(&wanted.spec.resolved, &args.spec.file)) {
                context.say(&text);
            }
            Ok(exit)
        }
        Waited::Interrupted | Waited::TimedOut => {
            output::say(&format!(
                "detached: {short} goes on\nNext: tidegate watch {short}, or tidegate cancel {short}"
            ));
            Ok(Exit::Interrupted)
        }
    }
}

fn preview(
    args: &args::Apply,
    summary: &Summary,
    existing: Option<&v1::Backfill>,
    client: &Client,
    context: &Context,
) -> Outcome {
    let (would, text) = match existing {
        None => ("create", "it would be created"),
        Some(one) if one.phase() == v1::Phase::Staged => {
            ("nothing_to_do", "it is staged: `publish` or `cancel` is next, and nothing would be done")
        }
        Some(one) if one.ended == 0 => ("attach", "it runs already, and would be attached to"),
        Some(one) if one.phase() == v1::Phase::Succeeded => {
            ("nothing_to_do", "it has succeeded before: nothing would be done")
        }
        Some(_) => ("resume", "it has ended before its end, and would be taken up again"),
    };
    match context.format() {
        Format::Table | Format::Wide => {
            let file = args.spec.file.display();
            let address = client.address();
            output::print(&format!("{summary}on     {address}: {text}\nNext: tidegate apply {file} --reason \"…\"\n"))?;
        }
        format => {
            let preview = Preview { would, coordinator: client.address(), spec: summary };
            output::print_document(format, "ApplyPreview", &summary.id, &preview)?;
        }
    }
    Ok(Exit::Done)
}
