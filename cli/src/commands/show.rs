//! `list`, `status` and `watch`.

use futures::{StreamExt as _, TryStreamExt as _};
use tidegate_proto::v1;

use super::Context;
use super::wait::{self, Waited};
use crate::args;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{count, plural, second};
use crate::ledger;
use crate::output::{self, Document, Format};
use crate::report::short_id;
use crate::view;

/// Shows every backfill, the newest first.
pub(super) async fn list(context: &Context) -> Outcome {
    let mut all = context.client().await?.list().await?;
    all.sort_by(|a, b| (b.created, &a.id).cmp(&(a.created, &b.id)));
    let text = match context.format() {
        Format::Table | Format::Wide if all.is_empty() => {
            context.say("no backfills; start one with `tidegate apply FILE`");
            return Ok(Exit::Done);
        }
        Format::Table | Format::Wide => table(&all, context.format() == Format::Wide),
        Format::Name => all.iter().map(|one| format!("{}\n", one.id)).collect(),
        Format::Jsonl => {
            let lines = all.iter().map(|one| Document::new("Backfill", &view::Backfill::of(one)).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => {
            let items = all.iter().map(view::Backfill::of).collect();
            Document::new("BackfillList", &view::List { items }).text(format)?
        }
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

fn table(all: &[v1::Backfill], wide: bool) -> String {
    let mut header = vec!["ID", "NAME", "STATE", "DONE", "RECORDS READ", "COMMITTED", "STAGED", "CREATED"];
    if wide {
        header.extend(["PARKED", "READ WATERMARK", "TABLES"]);
    }
    let rows: Vec<Vec<String>> = all.iter().map(|one| row(one, wide)).collect();
    output::columns(&header, &rows)
}

fn row(one: &v1::Backfill, wide: bool) -> Vec<String> {
    let read: u64 = one.sources.iter().map(|source| source.rows_read).sum();
    let done = ledger::done_percent(one).map_or_else(|| "-".to_owned(), |part| format!("{part:.1}%"));
    let committed = one.outputs.iter().map(|output| output.rows_committed).sum();
    let staged = one.outputs.iter().map(|output| output.rows_staged).sum();
    let id = if wide { one.id.clone() } else { short_id(&one.id).to_owned() };
    let mut row = vec![
        id,
        one.name.clone(),
        one.state.clone(),
        done,
        count(read),
        count(committed),
        count(staged),
        second(one.created),
    ];
    if wide {
        let tables = one.outputs.iter().filter_map(|output| output.table.as_ref()).map(|table| table.table.clone());
        row.push(count(one.parked.len() as u64));
        row.push(one.read_watermark.map_or_else(|| "-".to_owned(), second));
        row.push(tables.collect::<Vec<_>>().join(", "));
    }
    row
}

/// Shows how a backfill stands, now or at its end.
pub(super) async fn status(args: args::Status, context: &Context) -> Outcome {
    let id = args.of.id;
    if !args.wait {
        let backfill = context.client().await?.get(&id).await?;
        wait::print_backfill(&backfill, context)?;
        return Ok(Exit::Done);
    }
    let progress = context.progress(&format!("waiting for {id}"));
    let client = context.client().await?;
    match wait::until_end(&client, &id, progress, args.timeout).await? {
        Waited::Ended(backfill) => wait::ended(&backfill, context),
        Waited::Interrupted => Ok(Exit::Interrupted),
        Waited::TimedOut => {
            let backfill = client.get(&id).await?;
            wait::print_backfill(&backfill, context)?;
            Err(Error::new(Exit::TimedOut, format!("{id} is {} and has not ended in time", backfill.state))
                .hint("it goes on; wait again, or follow it with `tidegate watch`"))
        }
    }
}

/// Follows a backfill until it ends.
pub(super) async fn watch(id: &str, context: &Context) -> Outcome {
    if context.format() == Format::Jsonl {
        return watch_lines(id, context).await;
    }
    let progress = context.progress(&format!("looking at {id}"));
    let client = context.client().await?;
    match wait::until_end(&client, id, progress, None).await? {
        Waited::Ended(backfill) => wait::ended(&backfill, context),
        Waited::Interrupted | Waited::TimedOut => {
            context.say("no longer watching; the backfill goes on");
            Ok(Exit::Interrupted)
        }
    }
}

/// One line of JSON for each state.
async fn watch_lines(id: &str, context: &Context) -> Outcome {
    let client = context.client().await?;
    let mut updates = std::pin::pin!(client.watch(id).fuse());
    let mut exit = Exit::Temporary;
    while let Some(update) = updates.try_next().await? {
        output::print(&Document::new("Backfill", &view::Backfill::of(&update)).text(Format::Jsonl)?)?;
        exit = crate::report::exit_code(&update);
    }
    Ok(exit)
}

/// What `applied` means, in words.
pub(super) fn applied_text(applied: v1::Applied) -> &'static str {
    match applied {
        v1::Applied::Created => "created",
        v1::Applied::Attached => "is there already: attached to it",
        v1::Applied::Resumed => "had ended before its end: taken up again",
        v1::Applied::NothingToDo => "has succeeded before: nothing to do",
    }
}

/// `3 workers` or how to get one.
pub(super) fn workers_text(backfill: &v1::Backfill) -> String {
    match backfill.workers.len() as u64 {
        0 => "no worker is connected: start one with `tidegate worker`".to_owned(),
        many => plural(many, "worker"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_table_of_backfills() {
        let all = [sample::running(), sample::staged(), sample::succeeded(), sample::partial(), sample::failed()];
        insta::assert_snapshot!(format!("{}\n{}", table(&all, false), table(&all, true)));
    }

    #[test]
    fn a_backfill_for_programs() {
        let text =
            |one: &v1::Backfill, format| Document::new("Backfill", &view::Backfill::of(one)).text(format).unwrap();
        insta::assert_snapshot!("partial_json", text(&sample::partial(), Format::Json));
        insta::assert_snapshot!("failed_yaml", text(&sample::failed(), Format::Yaml));
        assert_eq!(text(&sample::running(), Format::Jsonl).lines().count(), 1);
        let join = view::Backfill::of(&sample::joining()).outputs.remove(0).join;
        insta::assert_snapshot!("join_json", Document::new("Join", &join).text(Format::Json).unwrap());
    }
}
