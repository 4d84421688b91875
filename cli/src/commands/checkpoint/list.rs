//! `checkpoint list`: the groups of a cluster, or the batches of a query.

use serde::Serialize;
use tidegate_worker::checkpoint::spark::Checkpoint;

use super::subject::Subject;
use super::{asked, failed};
use crate::args::CheckpointOf;
use crate::commands::Context;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Document, Format};
use crate::view::List;

/// A group; `kind: ConsumerGroup`.
#[derive(Serialize)]
struct Group {
    group: String,
    /// In Kafka's word.
    state: String,
    /// inactive, active, not told.
    activity: &'static str,
    members: usize,
    protocol_type: String,
}

/// A batch of a Spark query; `kind: SparkBatch`.
#[derive(Serialize)]
struct Batch {
    batch: u64,
    planned: bool,
    committed: bool,
}

/// Shows what there is.
pub(super) async fn list(of: CheckpointOf, context: &Context) -> Outcome {
    let subject = Subject::read(&of)?;
    if let Some(folder) = &subject.spark {
        let batches = Checkpoint::load(folder).await.map_err(failed)?.batches;
        let all = batches.planned.union(&batches.committed).map(|batch| Batch {
            batch: *batch,
            planned: batches.planned.contains(batch),
            committed: batches.committed.contains(batch),
        });
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let row = |one: &Batch| vec![one.batch.to_string(), yes(one.planned), yes(one.committed)];
        let items: Vec<Batch> = all.collect();
        return print(&["BATCH", "PLANNED", "COMMITTED"], "SparkBatch", "SparkBatchList", items, row, context);
    }
    let brokers = subject.logs()?;
    let Some(brokers) = brokers else { return subject.settings().map(|_| Exit::Done) };
    let groups = asked(|| brokers.groups())?;
    let items = groups.into_iter().map(|facts| Group {
        activity: facts.activity().as_str(),
        members: facts.members.len(),
        group: facts.name,
        state: facts.state,
        protocol_type: facts.protocol_type,
    });
    let row = |one: &Group| {
        let (state, members) = (one.state.clone(), one.members.to_string());
        vec![one.group.clone(), state, one.activity.to_owned(), members, one.protocol_type.clone()]
    };
    let header = ["GROUP", "STATE", "ACTIVITY", "MEMBERS", "TYPE"];
    print(&header, "ConsumerGroup", "ConsumerGroupList", items.collect(), row, context)
}

fn print<T: Serialize>(
    header: &[&str],
    one: &'static str,
    many: &'static str,
    items: Vec<T>,
    row: impl Fn(&T) -> Vec<String>,
    context: &Context,
) -> Outcome {
    let text = match context.format() {
        Format::Table | Format::Wide if items.is_empty() => {
            context.say("there is none");
            return Ok(Exit::Done);
        }
        Format::Table | Format::Wide => output::columns(header, &items.iter().map(row).collect::<Vec<_>>()),
        Format::Name => {
            items.iter().map(|item| row(item).into_iter().next().unwrap_or_default() + "\n").collect::<String>()
        }
        Format::Jsonl => {
            let lines = items.iter().map(|item| Document::new(one, item).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => Document::new(many, &List { items }).text(format)?,
    };
    output::print(&text)?;
    Ok(Exit::Done)
}
