//! A topic's own settings, asked for: what retention and compaction may take from it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;

use super::Cluster;

/// How long the answer may take.
pub(super) const WAIT: Duration = Duration::from_secs(15);

/// What may remove records of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds that a record is kept at the least, by its timestamp; none is for ever.
    pub millis: Option<i64>,
    /// Bytes that are kept of a partition, about; none is all.
    pub bytes: Option<i64>,
    /// Whether old records go at all.
    pub deletes: bool,
    /// Whether records go that have a successor of the same key.
    pub compacts: bool,
}

/// A client's callbacks: nothing is said. An administrator's client warns of every setting of a consumer's.
pub(super) struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "kafka client: {message}");
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!("kafka client: {error}: {reason}");
    }
}

impl Cluster {
    /// What may remove records of `topic`; none where the brokers do not say: not everybody may ask.
    pub(crate) async fn retention(&self, topic: &str) -> Option<Retention> {
        let admin: AdminClient<Silent> = self.config.create_with_context(Silent).ok()?;
        let options = AdminOptions::new().request_timeout(Some(WAIT));
        let answer = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await.ok()?;
        let found = answer.into_iter().next()?.ok()?;
        let settings = found.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect();
        Some(Retention::of(&settings))
    }
}

impl Retention {
    fn of(settings: &BTreeMap<String, String>) -> Self {
        let number =
            |key: &str| settings.get(key).and_then(|value| value.parse().ok()).filter(|value: &i64| *value >= 0);
        let policy = settings.get("cleanup.policy").map_or("delete", String::as_str);
        let deletes = policy.contains("delete");
        Self {
            millis: number("retention.ms").filter(|_| deletes),
            bytes: number("retention.bytes").filter(|_| deletes),
            deletes,
            compacts: policy.contains("compact"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &[(&str, &str)]) -> Retention {
        Retention::of(&settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_limit_of_minus_one_is_none_and_what_only_compacts_has_none() {
        let week = of(&[("retention.ms", "604800000"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")]);
        assert_eq!(week, Retention { millis: Some(604_800_000), bytes: None, deletes: true, compacts: false });
        let kept = of(&[("retention.ms", "-1"), ("retention.bytes", "5"), ("cleanup.policy", "compact,delete")]);
        assert_eq!(kept, Retention { millis: None, bytes: Some(5), deletes: true, compacts: true });
        let compacted = of(&[("retention.ms", "1"), ("retention.bytes", "5"), ("cleanup.policy", "compact")]);
        assert_eq!(compacted, Retention { millis: None, bytes: None, deletes: false, compacts: true });
    }
}
