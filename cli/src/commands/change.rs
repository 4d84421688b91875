//! `pause`, `resume`, `cancel`, `retry` and `publish`.

use serde::Serialize;
use tidegate_proto::v1;

use super::Context;
use super::wait::{self, Waited};
use crate::args;
use crate::client::Client;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Format};
use crate::prompt;
use crate::report::{next, short_id};
use crate::style::plain;
use crate::view;

/// What a change would do; `kind: ChangePreview`.
#[derive(Serialize)]
struct Preview<'a> {
    change: &'a str,
    id: &'a str,
    name: &'a str,
    state: &'a str,
}

/// Asks for a change of a backfill.
pub(super) async fn change(change: v1::Change, args: args::Change, context: &Context) -> Outcome {
    let client = context.client().await?;
    let Some(after) = made(&client, change, &args, context).await? else { return Ok(Exit::Done) };
    print_changed(&after, context)
}

/// Publishes what is staged, and waits for the end.
pub(super) async fn publish(args: args::Publish, context: &Context) -> Outcome {
    let client = context.client().await?;
    let Some(after) = made(&client, v1::Change::Publish, &args.change, context).await? else { return Ok(Exit::Done) };
    if args.detach {
        return print_changed(&after, context);
    }
    let progress = context.progress(&format!("{} is published; Ctrl-C detaches, it goes on", short_id(&after.id)));
    match wait::until_end(&client, &after.id, progress, None).await? {
        Waited::Ended(backfill) => wait::ended(&backfill, context),
        Waited::Interrupted | Waited::TimedOut => Ok(Exit::Interrupted),
    }
}

/// The backfill after `change`; `None` where it was only to be shown what that would do.
async fn made(
    client: &Client,
    change: v1::Change,
    args: &args::Change,
    context: &Context,
) -> Result<Option<v1::Backfill>, Error> {
    let verb = change.as_str_name().trim_start_matches("CHANGE_").to_lowercase();
    let before = client.get(&args.of.id).await?;
    let who = format!("{} {}, which is {}", short_id(&before.id), plain(&before.name), plain(&before.state));
    if args.dry_run {
        let preview = Preview { change: &verb, id: &before.id, name: &before.name, state: &before.state };
        match context.format() {
            Format::Table | Format::Wide => {
                let id = short_id(&before.id);
                output::print(&format!("would {verb} {who}: {}\nNext: tidegate {verb} {id}\n", effect(change)))?;
            }
            format => output::print_document(format, "ChangePreview", &before.id, &preview)?,
        }
        return Ok(None);
    }
    if let v1::Change::Cancel | v1::Change::Publish = change {
        context.say(&format!("{verb} {who}: {}", effect(change)));
        prompt::confirm(if change == v1::Change::Cancel { "Cancel it?" } else { "Publish it?" }, args.yes)?;
    }
    client.change(&before.id, change, &args.reason).await.map(Some)
}

fn print_changed(after: &v1::Backfill, context: &Context) -> Outcome {
    match context.format() {
        Format::Table | Format::Wide => {
            let id = short_id(&after.id);
            output::print(&format!("{id} {} is {}\nNext: {}\n", plain(&after.name), plain(&after.state), next(after)))?;
        }
        format => output::print_document(format, "Backfill", &after.id, &view::Backfill::of(after))?,
    }
    Ok(Exit::Done)
}

fn effect(change: v1::Change) -> &'static str {
    match change {
        v1::Change::Unspecified => "nothing",
        v1::Change::Pause => "its readers hand in at their next unit boundary and stop; nothing is lost",
        v1::Change::Resume => "it goes on where it was",
        v1::Change::Cancel => {
            "its readers stop; what is committed stays, what is not is left out, what is staged is dropped"
        }
        v1::Change::Publish => {
            "what is staged becomes one snapshot of each table's main, and the branches go; it cannot be cancelled then"
        }
        v1::Change::Retry => "what failed or was parked is taken up; what is committed is not read again",
    }
}
