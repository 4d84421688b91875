//! `checkpoint inspect`: where each partition stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidegate_common::clock;
use tidegate_common::time::Span;
use tidegate_worker::checkpoint::spark::Checkpoint;
use tidegate_worker::checkpoint::{self, Brokers, GroupFacts, Partition, PartitionFacts, Scope};

use super::subject::Subject;
use super::{asked, failed};
use crate::args::CheckpointOf;
use crate::commands::Context;
use crate::exit::{Exit, Outcome};
use crate::figures::{count, second, time};
use crate::output::{self, Format};
use crate::style::plain;

/// Where a group or a query stands; `kind: Checkpoint`.
#[derive(Serialize)]
struct View {
    #[serde(flatten)]
    of: Of,
    /// Offsets that are still to be read, of all partitions.
    lag: Option<i64>,
    partitions: Vec<PartitionView>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Of {
    Group { group: String, bootstrap_servers: String, state: String, activity: &'static str, members: Vec<MemberView> },
    Spark { folder: String, query: Option<String>, planned: Option<u64>, committed: Option<u64>, stateful: bool },
}

#[derive(Serialize)]
struct MemberView {
    id: String,
    client: String,
    host: String,
}

#[derive(Serialize)]
struct PartitionView {
    topic: String,
    partition: i32,
    position: Option<i64>,
    lag: Option<i64>,
    log_start: Option<i64>,
    log_end: Option<i64>,
    /// Whether the position is in the log.
    in_log: Option<bool>,
    /// The time of the record at the position, or of the newest before it.
    position_time: Option<String>,
    age_seconds: Option<f64>,
    /// Offsets between the log's start and the position.
    headroom: Option<i64>,
    headroom_seconds: Option<f64>,
}

/// Shows it.
pub(super) async fn inspect(of: CheckpointOf, context: &Context) -> Outcome {
    let subject = Subject::read(&of)?;
    match &subject.spark {
        None => inspect_group(&subject.group(None)?, &subject.scope(), context),
        Some(folder) => {
            let checkpoint = Checkpoint::load(folder).await.map_err(failed)?;
            let positions = checkpoint.last.as_ref().map(|(_, offsets)| offsets.positions()).unwrap_or_default();
            let scope = subject.scope();
            let positions: BTreeMap<Partition, i64> =
                positions.into_iter().filter(|(partition, _)| scope.holds(partition)).collect();
            let partitions = match subject.logs()? {
                Some(brokers) => {
                    let of = positions.keys().cloned().collect();
                    asked(|| checkpoint::inspect(&brokers, &of, &positions))?.iter().map(view).collect()
                }
                None => positions.iter().map(|(partition, position)| alone(partition, *position)).collect(),
            };
            print(&of_spark(&checkpoint, partitions), folder.name(), context)
        }
    }
}

/// Shows where a group stands.
pub(in crate::commands) fn inspect_group(brokers: &Brokers, scope: &Scope, context: &Context) -> Outcome {
    let (facts, partitions) = asked(|| {
        let facts = brokers.group()?;
        let mut of = brokers.within(scope)?;
        let committed = brokers.committed(&of)?;
        if *scope == Scope::Committed {
            of = committed.keys().cloned().collect::<BTreeSet<_>>();
        }
        let positions = committed.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect();
        Ok((facts, checkpoint::inspect(brokers, &of, &positions)?))
    })?;
    print(&of_group(brokers, facts, &partitions), brokers.group_name(), context)
}

fn of_group(brokers: &Brokers, facts: GroupFacts, partitions: &[PartitionFacts]) -> View {
    let activity = facts.activity().as_str();
    let members = facts.members.into_iter();
    let of = Of::Group {
        group: facts.name,
        bootstrap_servers: brokers.bootstrap().to_owned(),
        state: facts.state,
        activity,
        members: members.map(|one| MemberView { id: one.id, client: one.client, host: one.host }).collect(),
    };
    whole(of, partitions.iter().map(view).collect())
}

fn of_spark(checkpoint: &Checkpoint, partitions: Vec<PartitionView>) -> View {
    let of = Of::Spark {
        folder: checkpoint.folder.shown().to_owned(),
        query: checkpoint.query.clone(),
        planned: checkpoint.planned(),
        committed: checkpoint.committed(),
        stateful: checkpoint.is_stateful,
    };
    whole(of, partitions)
}

fn whole(of: Of, partitions: Vec<PartitionView>) -> View {
    let lags = partitions.iter().filter_map(|one| one.lag);
    let lag = partitions.iter().any(|one| one.lag.is_some()).then(|| lags.fold(0_i64, i64::saturating_add));
    View { of, lag, partitions }
}

fn alone(partition: &Partition, position: i64) -> PartitionView {
    PartitionView {
        topic: partition.topic.clone(),
        partition: partition.number,
        position: Some(position),
        lag: None,
        log_start: None,
        log_end: None,
        in_log: None,
        position_time: None,
        age_seconds: None,
        headroom: None,
        headroom_seconds: None,
    }
}

fn view(facts: &PartitionFacts) -> PartitionView {
    let now = clock::processing_time_micros() / 1_000;
    let seconds = |millis: i64| millis as f64 / 1e3;
    PartitionView {
        topic: facts.partition.topic.clone(),
        partition: facts.partition.number,
        position: facts.position,
        lag: facts.lag(),
        log_start: Some(facts.start),
        log_end: Some(facts.end),
        in_log: facts.position.map(|_| facts.is_inside()),
        position_time: facts.time.map(|millis| time(millis.saturating_mul(1_000))),
        age_seconds: facts.time.map(|millis| seconds(now.saturating_sub(millis))),
        headroom: facts.headroom(),
        headroom_seconds: facts.headroom_millis().map(seconds),
    }
}

fn print(view: &View, name: &str, context: &Context) -> Outcome {
    match context.format() {
        Format::Table | Format::Wide => output::print(&text(view))?,
        format => output::print_document(format, "Checkpoint", name, view)?,
    }
    Ok(Exit::Done)
}

fn text(view: &View) -> String {
    let batch = |batch: &Option<u64>| batch.map_or_else(|| "none".to_owned(), |batch| batch.to_string());
    let mut text = match &view.of {
        Of::Group { group, bootstrap_servers, state, activity, members } => {
            let mut text =
                format!("group {} at {}   {activity} ({})\n", plain(group), plain(bootstrap_servers), plain(state));
            for member in members {
                text.push_str(&format!("  member {} at {}\n", plain(&member.client), plain(&member.host)));
            }
            text
        }
        Of::Spark { folder, query, planned, committed, stateful } => {
            let query = query.as_deref().map(plain).unwrap_or_else(|| "of no id".into());
            let (planned, committed) = (batch(planned), batch(committed));
            let state = if *stateful { "   keeps state" } else { "" };
            format!("query {query} in {}\nlast batch planned {planned}, committed {committed}{state}\n", plain(folder))
        }
    };
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), signed);
    let span = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), whole_seconds);
    let rows = view.partitions.iter().map(|one| {
        let note = if one.in_log == Some(false) { "not in the log" } else { "" };
        let log =
            one.log_start.zip(one.log_end).map_or_else(|| "-".to_owned(), |(start, end)| format!("[{start}, {end})"));
        let headroom = match one.headroom_seconds {
            Some(seconds) => format!("{} ({})", number(one.headroom), whole_seconds(seconds)),
            None => number(one.headroom),
        };
        let (topic, partition) = (one.topic.clone(), one.partition.to_string());
        let position = one.position.map_or_else(|| "-".to_owned(), |position| position.to_string());
        vec![topic, partition, position, number(one.lag), span(one.age_seconds), headroom, log, note.to_owned()]
    });
    let header = ["TOPIC", "PARTITION", "POSITION", "LAG", "AGE", "HEADROOM", "LOG", ""];
    text.push_str(&output::columns(&header, &rows.collect::<Vec<_>>()));
    if let Some(lag) = view.lag {
        text.push_str(&format!("{} offsets behind\n", signed(lag)));
    }
    text
}

fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", count(number.unsigned_abs()))
}

/// A length of time, no finer than a second.
fn whole_seconds(seconds: f64) -> String {
    Span::from_micros((seconds as i64).saturating_mul(1_000_000)).to_string()
}

/// A point of time to the second; milliseconds since 1970.
pub(super) fn moment(millis: Option<i64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| second(millis.saturating_mul(1_000)))
}
