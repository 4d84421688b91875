//! `events`: what happened in a backfill, from its journal.

use std::time::Duration;

use tidegate_proto::v1;

use super::Context;
use crate::args;
use crate::client::Client;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::second;
use crate::output::{self, Document, Format};
use crate::report::is_at_rest;
use crate::style::plain;
use crate::view;

const PAGE: u32 = 500;
/// How often the journal is looked at while it is followed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows what happened.
pub(super) async fn events(args: args::Events, context: &Context) -> Outcome {
    let client = context.client().await?;
    let backfill = client.get(&args.of.id).await?;
    match context.format() {
        Format::Json | Format::Yaml if args.follow => {
            Err(Error::usage("--follow has no end to close a document at").hint("take -o jsonl"))
        }
        format @ (Format::Json | Format::Yaml) => document(&client, &backfill.id, args.after, format).await,
        format => lines(&client, &backfill.id, &args, format).await,
    }
}

async fn document(client: &Client, id: &str, mut after: u64, format: Format) -> Outcome {
    let mut items = Vec::new();
    loop {
        let page = client.events(id, after, PAGE).await?;
        after = page.events.last().map_or(after, |last| last.number);
        items.extend(page.events.iter().map(view::event));
        if !page.more {
            output::print(&Document::new("EventList", &view::List { items }).text(format)?)?;
            return Ok(Exit::Done);
        }
    }
}

async fn lines(client: &Client, id: &str, args: &args::Events, format: Format) -> Outcome {
    let mut after = args.after;
    loop {
        // asked first: what is journalled before the end is then on the page that follows
        let over = args.follow && is_at_rest(&client.get(id).await?);
        let page = client.events(id, after, PAGE).await?;
        after = page.events.last().map_or(after, |last| last.number);
        output::print(&page.events.iter().map(|event| line(event, format)).collect::<Result<String, Error>>()?)?;
        if !page.more && (over || !args.follow) {
            return Ok(Exit::Done);
        }
        if !page.more {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn line(event: &v1::BackfillEvent, format: Format) -> Result<String, Error> {
    Ok(match format {
        Format::Jsonl => Document::new("Event", &view::event(event)).text(Format::Jsonl)?,
        Format::Name => format!("{}\n", event.number),
        Format::Wide => format!("{:>8}  {}", event.number, human(event)),
        _ => human(event),
    })
}

fn human(event: &v1::BackfillEvent) -> String {
    format!("{}  {:<8}  {}\n", second(event.at), plain(&event.kind), plain(&event.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = v1::BackfillEvent { number: 7, at: 0, kind: "phase".to_owned(), text: "run\nning".to_owned() };
        assert_eq!(line(&event, Format::Table).unwrap(), "1970-01-01T00:00:00Z  phase     run\\nning\n");
        assert_eq!(
            line(&event, Format::Jsonl).unwrap(),
            "{\"apiVersion\":\"tidegate/v1\",\"kind\":\"Event\",\"number\":7,\"at\":\"1970-01-01T00:00:00Z\",\
             \"event\":\"phase\",\"text\":\"run\\nning\"}\n"
        );
    }
}
