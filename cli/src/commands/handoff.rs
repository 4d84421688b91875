//! `handoff`: where each topic goes on after a backfill.

use tidegate_common::clock;
use tidegate_worker::checkpoint::HandOver;

use super::Context;
use super::checkpoint::{failed, write_new};
use super::verify::account;
use crate::args;
use crate::exit::{Exit, Outcome};
use crate::output;
use crate::report::short_id;

/// Writes the hand-over of a backfill.
pub(super) async fn handoff(args: args::Handoff, context: &Context) -> Outcome {
    let account = account(args.state.as_deref(), &args.id, context).await?;
    let made = HandOver::of(&account, args.group, clock::processing_time_micros()).map_err(failed)?;
    let file = match &args.out {
        None => {
            output::print(&made.text())?;
            "FILE".to_owned()
        }
        Some(out) => {
            let file = out.display().to_string();
            write_new(&file, &made.text())?;
            file
        }
    };
    if !made.covers {
        context.say(&format!(
            "warning: {} left records of these ranges out (its window, or parked work): moving forward over them takes \
             --allow-gap",
            short_id(&account.id)
        ));
    }
    let group = made.group.as_deref().unwrap_or("GROUP");
    context.say(&format!(
        "Next: tidegate checkpoint reset --bootstrap-server HOST:PORT --group {group} --from-handoff {file}"
    ));
    Ok(Exit::Done)
}
