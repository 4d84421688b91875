//! Clients of Kafka: made from what a spec says, within what the worker allows, and what they are asked.
//!
//! A cluster is where to connect and how; a client is connected, belongs to no consumer group, commits nothing and
//! never resets an offset by itself. Its calls block, with a time-out: they run off the async threads.

mod config;
mod error;
mod fetch;
pub mod load;
mod native;
mod pace;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::statistics::{Statistics, Window};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidegate_common::spec::model::KafkaSpec;
use tidegate_common::spec::parse_bytes;

pub use self::config::Retention;
pub use self::error::KafkaError;
pub(crate) use self::fetch::{Arrived, Broken, Fetcher, Records};
use self::pace::{Pace, Report};
use crate::access::{Access, resolve_secret};

/// Reports and errors that are taken in at a time: more come only from many brokers at once.
const LISTENED: usize = 16;
/// How long a client rests at most before it works again.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long one question may take.
const WAIT: Duration = Duration::from_secs(30);
/// Kibibytes that a client fetches ahead, where the spec says nothing: what is fetched and not read at a range's end is
/// fetched for nothing.
const AHEAD_KIB: u64 = 8192;

/// The settings under which range reads are fast and tell the truth; those above the line may be given otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidegate"),
    ("isolation.level", "read_committed"),
    ("queued.min.messages", "1000000"),
    ("fetch.queue.backoff.ms", "2"),
    // Nobody waits for records that are yet to come; a fetch that does would hold up those of other partitions.
    ("fetch.wait.max.ms", "10"),
    ("socket.keepalive.enable", "true"),
    ("check.crcs", "true"),
];
const FIXED: &[(&str, &str)] = &[
    ("enable.partition.eof", "true"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
    // What the brokers say of themselves is looked at so often, in milliseconds.
    ("statistics.interval.ms", "5000"),
];

/// For a few records.
const LITTLE: &[(&str, &str)] =
    &[("queued.min.messages", "1"), ("queued.max.messages.kbytes", "1024"), ("fetch.message.max.bytes", "65536")];

/// Where to connect, and how.
#[derive(Clone)]
pub(crate) struct Cluster {
    config: ClientConfig,
    servers: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds secrets.
        f.debug_struct("Cluster").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// Refuses a mechanism that this binary was built without.
fn built_for(spec: &KafkaSpec) -> Result<(), KafkaError> {
    let given = ["sasl.mechanism", "sasl.mechanisms"].map(|key| spec.properties.get(key));
    let is_given = |mechanism: &str| given.iter().flatten().any(|given| given.trim().eq_ignore_ascii_case(mechanism));
    let lacks = if is_given("GSSAPI") && !cfg!(feature = "gssapi") {
        "Kerberos needs a binary built with `--features gssapi`"
    } else if is_given("OAUTHBEARER") && !cfg!(feature = "oidc") {
        "OAUTHBEARER needs a binary built with `--features oidc`"
    } else {
        return Ok(());
    };
    Err(KafkaError::Denied(format!("{lacks}: build this worker so, or use SCRAM-SHA-512 or PLAIN over TLS")))
}

/// How much a client may fetch ahead of each partition: under a rate limit no more than a second's worth.
fn ahead_kib(spec: &KafkaSpec) -> u64 {
    let limit = spec.rate_limit.as_ref().and_then(|limit| limit.bytes.as_deref());
    let a_second = limit.and_then(|bytes| parse_bytes(bytes).ok()).map_or(AHEAD_KIB, |bytes| bytes / 1024);
    a_second.clamp(64, AHEAD_KIB)
}

/// `host[:port]` of a URL.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

impl Cluster {
    /// The cluster of `spec`, whose settings were checked.
    ///
    /// # Errors
    /// [`KafkaError::Denied`] for brokers that the worker does not allow, and secrets that it does not have.
    pub(crate) fn of(spec: &KafkaSpec, access: &Access) -> Result<Self, KafkaError> {
        let servers = spec.properties.get("bootstrap.servers").cloned().unwrap_or_default();
        if let Some(allowed) = &access.endpoints {
            let token = spec.properties.get("sasl.oauthbearer.token.endpoint.url").map(|url| host_of(url));
            let mut brokers = servers.split(',').map(|broker| host_of(broker.trim())).chain(token);
            let is_allowed = |broker: &str| {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
                allowed.iter().any(|allowed| allowed == broker || allowed == host)
            };
            if let Some(broker) = brokers.find(|broker| !is_allowed(broker)) {
                let what = format!("this worker does not allow the broker {broker}: add it to allow.endpoints");
                return Err(KafkaError::Denied(what));
            }
        }
        built_for(spec)?;
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS {
            config.set(*key, *value);
        }
        config.set("queued.max.messages.kbytes", ahead_kib(spec).to_string());
        for (key, value) in &spec.properties {
            config.set(key, value);
        }
        for (key, secret) in &spec.secrets {
            let value = resolve_secret(secret, access).map_err(|e| KafkaError::Denied(format!("{key}: {e}")))?;
            config.set(key, value);
        }
        for (key, value) in FIXED {
            config.set(*key, *value);
        }
        if cfg!(feature = "gssapi") {
            // No command is run to get a ticket: whoever runs the worker keeps one.
            config.set("sasl.kerberos.kinit.cmd", "").set("sasl.kerberos.min.time.before.relogin", "0");
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        Ok(Self { config, servers })
    }

    /// The brokers as the spec names them.
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    /// A client of it; connects when it is first asked something.
    pub(crate) fn client(&self) -> Result<Client, KafkaError> {
        self.connected(&self.config)
    }

    /// A client that is shown open and aborted transactions, too.
    pub(crate) fn uncommitted_client(&self) -> Result<Client, KafkaError> {
        self.connected(self.config.clone().set("isolation.level", "read_uncommitted"))
    }

    fn connected(&self, config: &ClientConfig) -> Result<Client, KafkaError> {
        let consumer = config.create_with_context(Quiet::default()).map_err(|e| KafkaError::Settings(told(&e)))?;
        Ok(Client { consumer, servers: self.servers.clone() })
    }

    /// A client that fetches little at a time: what reads a few records here and there needs no more.
    pub(crate) fn looking_client(&self) -> Result<Client, KafkaError> {
        let mut config = self.config.clone();
        for (key, value) in LITTLE {
            config.set(*key, *value);
        }
        Self { config, servers: self.servers.clone() }.client()
    }

    /// Where the consumer group `group` stands in `partitions` of `topic`; none where it never committed.
    pub(crate) fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<Vec<(i32, Option<i64>)>, KafkaError> {
        let mut config = self.config.clone();
        let client = self.connected(config.set("group.id", group))?;
        let doing = format!("asking where the group {group} stands");
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked.add_partition(topic, *partition);
        }
        let answer = client.consumer.committed_offsets(asked, WAIT).map_err(|e| client.judge(&e, &doing, topic))?;
        client.offsets(&answer, &doing, topic)
    }
}

/// What is wrong with the settings, without the value: it may be a secret.
pub(crate) fn told(error: &ClientError) -> String {
    match error {
        ClientError::ClientConfig(_, _, key, _) => format!("{key} has a value that the client does not take"),
        other => other.to_string(),
    }
}

/// A client's callbacks: what it says goes to the log of this process, and what the brokers say sets its pace.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    pace: Pace,
    /// Why the brokers let nobody in, when they last did not.
    refused: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "kafka client: {message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka client: {message}"),
            _ => tracing::debug!(facility, "kafka client: {message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let millis = |window: &Option<Window>| window.as_ref().map_or(0, |window| window.max);
        let micros = |window: &Option<Window>| window.as_ref().map_or(0, |window| window.p99);
        let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
        let brokers = || statistics.brokers.values();
        let throttled = brokers().map(|broker| millis(&broker.throttle)).max().map_or(0, unsigned);
        let latency = brokers().map(|broker| micros(&broker.rtt)).max().map_or(0, unsigned);
        let report = Report { throttled: Duration::from_millis(throttled), latency: Duration::from_micros(latency) };
        self.pace.hear(report);
    }

    fn error(&self, error: ClientError, reason: &str) {
        let code = error::code_of(&error);
        if error::is_refusal(code) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
        }
        tracing::warn!("kafka client: {error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

/// What a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicState {
    /// Its id; empty where the brokers do not have one (before Kafka 2.8).
    pub(crate) id: String,
    /// How many partitions it has: 0 to this.
    pub(crate) partitions: u32,
}

/// A connected client.
pub(crate) struct Client {
    consumer: BaseConsumer<Quiet>,
    servers: String,
}

impl Client {
    /// Takes in what the brokers say of themselves: reports wait for that, and take memory until then.
    pub(crate) fn listen(&self) {
        for _ in 0..LISTENED {
            // Only reports and errors come this way, and the callbacks see them.
            let _ = self.consumer.poll(Duration::ZERO);
        }
    }

    /// How long to rest after having worked for `worked`.
    pub(crate) fn rest(&self, worked: Duration) -> Duration {
        self.consumer.context().pace.rest(worked).min(LONGEST_REST)
    }

    /// What `code` means; where it is silence, what the brokers said before it.
    fn judged(
        &self,
        code: RDKafkaErrorCode,
        text: String,
        doing: &str,
        topic: &str,
        partition: Option<i32>,
    ) -> KafkaError {
        self.listen();
        let refused = self.consumer.context().refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (code, text) = refused.filter(|_| error::is_silence(code)).unwrap_or((code, text));
        error::judged(code, text, &self.servers, doing, topic, partition)
    }

    /// What `topic` is.
    pub(crate) fn topic(&self, topic: &str) -> Result<TopicState, KafkaError> {
        let doing = format!("looking at the topic {topic}");
        match native::describe(&self.consumer, topic, WAIT) {
            Ok(found) => {
                let partitions = u32::try_from(found.partitions).unwrap_or(u32::MAX);
                Ok(TopicState { id: found.id, partitions })
            }
            // A broker that cannot describe topics can still list their partitions.
            Err(refusal) if refusal.code == RDKafkaErrorCode::UnsupportedFeature => self.listed(topic, &doing),
            Err(refusal) => Err(self.judged(refusal.code, refusal.text, &doing, topic, None)),
        }
    }

    fn listed(&self, topic: &str, doing: &str) -> Result<TopicState, KafkaError> {
        let judge = |e: ClientError| self.judge(&e, doing, topic);
        let metadata = self.consumer.fetch_metadata(Some(topic), WAIT).map_err(judge)?;
        let partitions = metadata.topics().iter().find(|found| found.name() == topic).map(|t| t.partitions().len());
        let none = || KafkaError::NoTopic { topic: topic.to_owned(), servers: self.servers.clone(), partition: None };
        let partitions = partitions.filter(|many| *many > 0).ok_or_else(none)?;
        Ok(TopicState { id: String::new(), partitions: u32::try_from(partitions).unwrap_or(u32::MAX) })
    }

    /// The first offset of each of `partitions`.
    pub(crate) fn starts(&self, topic: &str, partitions: &[i32]) -> Result<Vec<(i32, i64)>, KafkaError> {
        self.edges(topic, partitions, Offset::Beginning)
    }

    /// The end of each of `partitions`: of what is committed, or of the log under `read_uncommitted`.
    pub(crate) fn ends(&self, topic: &str, partitions: &[i32]) -> Result<Vec<(i32, i64)>, KafkaError> {
        self.edges(topic, partitions, Offset::End)
    }

    fn edges(&self, topic: &str, partitions: &[i32], edge: Offset) -> Result<Vec<(i32, i64)>, KafkaError> {
        let doing = format!("asking for the offsets of {topic}");
        let asked: Vec<(i32, Offset)> = partitions.iter().map(|partition| (*partition, edge)).collect();
        let found = self.ask(topic, &asked, &doing)?;
        found
            .into_iter()
            .map(|(partition, offset)| {
                let nothing = || KafkaError::Client {
                    servers: self.servers.clone(),
                    doing: doing.clone(),
                    what: format!("no answer for partition {partition}"),
                };
                Ok((partition, offset.ok_or_else(nothing)?))
            })
            .collect()
    }

    /// The first record of each partition whose timestamp is `at` (milliseconds since 1970) or later; none where there is none.
    pub(crate) fn offsets_at(&self, topic: &str, at: &[(i32, i64)]) -> Result<Vec<(i32, Option<i64>)>, KafkaError> {
        let asked: Vec<(i32, Offset)> =
            at.iter().map(|(partition, at)| (*partition, Offset::Offset((*at).max(0)))).collect();
        self.ask(topic, &asked, &format!("asking {topic} for the offsets of times"))
    }

    /// Those of `partitions` in which the time index finds no record at all. That says nothing: while deleted records
    /// (`DeleteRecords`) are still in their files, it stops at them and finds nothing behind them either.
    pub(crate) fn timeless(&self, topic: &str, partitions: &[i32]) -> Result<Vec<i32>, KafkaError> {
        let asked: Vec<(i32, i64)> = partitions.iter().map(|partition| (*partition, 0)).collect();
        let found = self.offsets_at(topic, &asked)?;
        Ok(found.into_iter().filter(|(_, offset)| offset.is_none()).map(|(partition, _)| partition).collect())
    }

    /// The library takes times and edges where offsets stand.
    fn ask(&self, topic: &str, asked: &[(i32, Offset)], doing: &str) -> Result<Vec<(i32, Option<i64>)>, KafkaError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(asked.len());
        for (partition, offset) in asked {
            list.add_partition_offset(topic, *partition, *offset).map_err(|e| self.judge(&e, doing, topic))?;
        }
        let found = self.consumer.offsets_for_times(list, WAIT).map_err(|e| self.judge(&e, doing, topic))?;
        self.offsets(&found, doing, topic)
    }

    fn offsets(
        &self,
        found: &TopicPartitionList,
        doing: &str,
        topic: &str,
    ) -> Result<Vec<(i32, Option<i64>)>, KafkaError> {
        found
            .elements_for_topic(topic)
            .iter()
            .map(|element| {
                let partition = element.partition();
                element.error().map_err(|e| {
                    let code = error::code_of(&e);
                    self.judged(code, e.to_string(), doing, topic, Some(partition))
                })?;
                let offset = if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None };
                Ok((partition, offset))
            })
            .collect()
    }

    fn judge(&self, error: &ClientError, doing: &str, topic: &str) -> KafkaError {
        self.judged(error::code_of(error), error.to_string(), doing, topic, None)
    }
}
