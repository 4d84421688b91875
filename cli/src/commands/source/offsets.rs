//! `source offsets`: where the ranges of a spec's topics lie in their logs. All of them: the spec's window is left aside.

use std::path::Path;

use serde::Serialize;
use tidegate_common::clock;
use tidegate_common::spec::ResolvedSource;
use tidegate_worker::survey::{self, SourceSurvey, TopicRange};

use super::{loaded, means, task_error};
use crate::commands::Context;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Document, Format};
use crate::topic::{self, Topic};
use crate::view::List;

/// A source that is a topic; `kind: SourceOffsets`.
#[derive(Serialize)]
struct Offsets {
    name: String,
    #[serde(flatten)]
    range: Topic,
}

/// Shows offsets.
pub(super) async fn offsets(file: &Path, only: Option<&str>, context: &Context) -> Outcome {
    let spec = loaded(file, only)?;
    let mut progress = context.progress("asking the brokers");
    let wanted = |source: &ResolvedSource| source.kafka().is_some() && only.is_none_or(|only| only == source.name);
    let found = survey::sources(&spec.resolved, &spec.id, wanted, &means(context)).await;
    progress.end();
    let found = found.map_err(|failed| task_error(&failed))?;
    let found: Vec<(&SourceSurvey, &TopicRange)> =
        found.iter().filter_map(|source| Some((source, source.topic.as_ref()?))).collect();
    if found.is_empty() {
        let what = only.map_or_else(|| "no source of the spec".to_owned(), |only| format!("the source {only} not"));
        return Err(Error::usage(format!("{what} is a Kafka topic: only topics have offsets"))
            .hint("`tidegate source describe` shows sources of any kind"));
    }
    let now = clock::processing_time_micros();
    let document = |(source, range): &(&SourceSurvey, &TopicRange)| Offsets {
        name: source.name.clone(),
        range: Topic::of(range, &topic::of_topic(source)),
    };
    let text = match context.format() {
        Format::Table | Format::Wide => {
            let text = found.iter().map(|(source, range)| {
                let (name, table, headroom) = (&source.name, topic::table(range), topic::headroom(range, now));
                format!("{name}   topic {}   {headroom}\n{table}", range.topic)
            });
            text.collect::<Vec<_>>().join("\n")
        }
        Format::Name => found.iter().map(|(source, _)| format!("{}\n", source.name)).collect(),
        Format::Jsonl => {
            let lines = found.iter().map(|one| Document::new("SourceOffsets", &document(one)).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => {
            let items = found.iter().map(document).collect();
            Document::new("SourceOffsetsList", &List { items }).text(format)?
        }
    };
    output::print(&text)?;
    Ok(Exit::Done)
}
