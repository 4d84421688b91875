//! Whose positions are meant, and where they are.

use std::path::Path;

use tidegate_common::spec::model::{KafkaSpec, StorageSpec};
use tidegate_worker::access::Access;
use tidegate_worker::checkpoint::spark::Folder;
use tidegate_worker::checkpoint::{Brokers, Scope, Settings, TopicScope};

use super::failed;
use crate::args::CheckpointOf;
use crate::exit::Error;
use crate::spec_file;

/// The group that only logs are read with.
const NOBODY: &str = "tidegate-checkpoint";

/// What the command line says, read.
#[derive(Debug)]
pub(super) struct Subject {
    /// How the brokers are reached, where they are named.
    settings: Option<Settings>,
    group: Option<String>,
    /// The topics of the command line.
    topics: Vec<TopicScope>,
    /// The topic of the spec's source.
    topic: Option<String>,
    /// The folder of a Spark query.
    pub(super) spark: Option<Folder>,
}

impl Subject {
    /// What `of` says.
    pub(super) fn read(of: &CheckpointOf) -> Result<Self, Error> {
        let topics = of.topics.iter().map(|topic| topic.parse::<TopicScope>().map_err(failed));
        let mut subject = Self {
            settings: None,
            group: of.group.clone(),
            topics: topics.collect::<Result<Vec<_>, _>>()?,
            topic: None,
            spark: of.spark.as_deref().map(folder).transpose()?,
        };
        if let Some(bootstrap) = &of.bootstrap_server {
            let config = of.command_config.as_deref().map(text).transpose()?;
            subject.settings = Some(Settings::of_tools(bootstrap, config.as_deref()).map_err(failed)?);
        } else if let Some(spec) = &of.spec {
            let spec = spec_file::load(spec)?.resolved;
            let kafka = source(&spec.sources, of.source.as_deref())?;
            subject.settings = Some(Settings::of_spec(kafka, &Access::local()).map_err(failed)?);
            subject.topic = Some(kafka.topic.clone());
            if subject.spark.is_none() {
                subject.group = subject.group.or_else(|| spec.live.as_ref().map(|live| live.group.clone()));
            }
        }
        Ok(subject)
    }

    /// How the brokers are reached.
    pub(super) fn settings(&self) -> Result<&Settings, Error> {
        self.settings.as_ref().ok_or_else(|| {
            Error::usage("no brokers are named").hint("take --bootstrap-server HOST:PORT, or --spec FILE")
        })
    }

    /// The group's brokers; `group` where the command line names none.
    pub(super) fn group(&self, group: Option<&str>) -> Result<Brokers, Error> {
        let settings = self.settings()?;
        let name = self.group.as_deref().or(group).filter(|name| !name.is_empty()).ok_or_else(|| {
            Error::usage("no group is named").hint("take --group GROUP, or --spark FOLDER for a Spark query")
        })?;
        Brokers::open(settings, name).map_err(failed)
    }

    /// Brokers of which no group is asked; none where none are named.
    pub(super) fn logs(&self) -> Result<Option<Brokers>, Error> {
        self.settings.as_ref().map(|settings| Brokers::open(settings, NOBODY).map_err(failed)).transpose()
    }

    /// Which partitions are meant, in so far as the command line or the spec says.
    pub(super) fn scope(&self) -> Scope {
        if !self.topics.is_empty() {
            return Scope::Topics(self.topics.clone());
        }
        let of_spec = self.topic.iter().map(|topic| TopicScope { topic: topic.clone(), partitions: None });
        let of_spec: Vec<TopicScope> = of_spec.collect();
        if of_spec.is_empty() { Scope::Committed } else { Scope::Topics(of_spec) }
    }
}

fn source<'s>(
    sources: &'s [tidegate_common::spec::ResolvedSource],
    name: Option<&str>,
) -> Result<&'s KafkaSpec, Error> {
    let kafka = sources.iter().filter_map(|source| Some((source.name.as_str(), &source.kafka()?.spec)));
    let kafka: Vec<(&str, &KafkaSpec)> = kafka.collect();
    let names = || kafka.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    match (name, kafka.as_slice()) {
        (_, []) => Err(Error::usage("no source of the spec reads Kafka")),
        (None, [(_, one)]) => Ok(one),
        (None, _) => {
            Err(Error::usage("several sources of the spec read Kafka").hint(format!("take --source: {}", names())))
        }
        (Some(name), all) => all.iter().find(|(found, _)| *found == name).map(|(_, one)| *one).ok_or_else(|| {
            Error::usage(format!("the spec has no Kafka source {name:?}")).hint(format!("it has {}", names()))
        }),
    }
}

/// The folder at `location`, made whole from where the user is.
pub(super) fn folder(location: &str) -> Result<Folder, Error> {
    let location = match location.contains("://") {
        true => location.to_owned(),
        false => std::path::absolute(location)
            .map_err(|bad| Error::usage(format!("{location:?} is no folder")).because(bad))?
            .display()
            .to_string(),
    };
    Folder::open(&location, &storage()).map_err(failed)
}

/// A store's address from the variables that others take it from as well; keys and region come from theirs.
fn storage() -> StorageSpec {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].into_iter().find_map(variable);
    let allow_http = variable("AWS_ALLOW_HTTP").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    StorageSpec { endpoint, allow_http, ..StorageSpec::default() }
}

/// The text of a file of the user's.
pub(super) fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|bad| Error::usage(format!("{} cannot be read", path.display())).because(bad))
}

#[cfg(test)]
mod tests {
    use tidegate_common::spec;

    use super::*;

    #[test]
    fn the_topic_of_an_archive_and_a_topic_is_one_like_any_other() {
        let kafka = |topic: &str| serde_json::json!({"topic": topic, "properties": {"bootstrap.servers": "b:9092"}, "format": {"type": "raw"}});
        let hybrid =
            serde_json::json!({"archive": {"iceberg": {"table": "lake.archive"}}, "live": {"kafka": kafka("old")}});
        let mut of = serde_json::json!({"version": 1, "kind": "backfill", "name": "replay", "sources": {"both": {"hybrid": hybrid}},
                                        "outputs": {"out": {"table": "lake.out", "sql": "SELECT value FROM both"}}});
        let sources = |of: &serde_json::Value| {
            spec::resolve(spec::from_canonical_json(&of.to_string()).unwrap(), 0).unwrap().sources
        };
        let found = |of: &serde_json::Value, name| source(&sources(of), name).map(|kafka| kafka.topic.clone()).ok();
        assert_eq!(found(&of, None).as_deref(), Some("old"));
        of["sources"]["alone"] = serde_json::json!({"kafka": kafka("new")});
        assert_eq!(found(&of, None), None, "which one is not said");
        assert_eq!(found(&of, Some("both")).as_deref(), Some("old"));
    }
}
