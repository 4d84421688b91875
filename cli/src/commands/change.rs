//! `pause`, `resume`, `cancel` and `retry`.

use serde::Serialize;
use tidegate_proto::v1;

use super::Context;
use crate::args;
use crate::exit::{Exit, Outcome};
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
    let verb = change.as_str_name().trim_start_matches("CHANGE_").to_lowercase();
    let client = context.client().await?;
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
        return Ok(Exit::Done);
    }
    if change == v1::Change::Cancel {
        context.say(&format!("cancel {who}: {}", effect(change)));
        prompt::confirm("Cancel it?", args.yes)?;
    }
    let after = client.change(&before.id, change, &args.reason).await?;
    match context.format() {
        Format::Table | Format::Wide => {
            let id = short_id(&after.id);
            output::print(&format!(
                "{id} {} is {}\nNext: {}\n",
                plain(&after.name),
                plain(&after.state),
                next(&after)
            ))?;
        }
        format => output::print_document(format, "Backfill", &after.id, &view::Backfill::of(&after))?,
    }
    Ok(Exit::Done)
}

fn effect(change: v1::Change) -> &'static str {
    match change {
        v1::Change::Unspecified => "nothing",
        v1::Change::Pause => "its readers hand in at their next unit boundary and stop; nothing is lost",
        v1::Change::Resume => "it goes on where it was",
        v1::Change::Cancel => "its readers stop; what is committed stays, what is not is left out",
        v1::Change::Publish => "what is staged becomes one snapshot of each table, and its branches go",
        v1::Change::Retry => "what failed or was parked is taken up; what is committed is not read again",
    }
}
