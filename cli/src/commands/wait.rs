//! Waiting for the end of a backfill, with progress; and what is printed then.

use std::time::Duration;

use tidegate_proto::v1;

use super::Context;
use crate::client::Client;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Format};
use crate::progress::{Progress, follow};
use crate::report;
use crate::style::plain;
use crate::view;

/// How a wait was over.
pub(super) enum Waited {
    /// The backfill has ended.
    Ended(Box<v1::Backfill>),
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// It took longer than was allowed.
    TimedOut,
}

/// Follows the backfill `id` until it ends, is interrupted or the time is up.
pub(super) async fn until_end(
    client: &Client,
    id: &str,
    mut progress: Progress,
    timeout: Option<Duration>,
) -> Result<Waited, Error> {
    let time_is_up = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let waited = tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| Error::new(Exit::Failed, "signals cannot be heard").because(error))?;
            Waited::Interrupted
        }
        last = follow(client.watch(id), &mut progress) => match last? {
            Some(last) => Waited::Ended(Box::new(last)),
            None => return Err(Error::new(Exit::Temporary, format!("the watch of {id} ended without a word"))),
        },
        () = time_is_up => Waited::TimedOut,
    };
    progress.end();
    Ok(waited)
}

/// Prints how an ended backfill ended, and says with which code the process ends.
pub(super) fn ended(backfill: &v1::Backfill, context: &Context) -> Outcome {
    print_backfill(backfill, context)?;
    // the report tells people why; who reads documents is told on stderr
    if let (Some(failure), false) = (&backfill.failure, matches!(context.format(), Format::Table | Format::Wide)) {
        output::say(&format!("error: {}", plain(&failure.message)));
    }
    Ok(report::exit_code(backfill))
}

/// Prints a backfill: the report for people, the document for programs.
pub(super) fn print_backfill(backfill: &v1::Backfill, context: &Context) -> Result<(), Error> {
    match context.format() {
        Format::Table | Format::Wide => report::print_report(backfill, context.paint),
        format => output::print_document(format, "Backfill", &backfill.id, &view::Backfill::of(backfill)),
    }
}
