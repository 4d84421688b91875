//! Clients of Kafka: made from what a spec says, within what the worker allows, and what they are asked.
//!
//! A cluster is where to connect and how; a client is connected, belongs to no consumer group, commits nothing and
//! never resets an offset by itself. Its calls block, with a time-out: they run off the async threads.

mod config;
pub mod drain;
mod error;
mod fetch;
mod heard;
pub mod load;
mod native;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidegate_common::clock::monotonic;
use tidegate_common::spec::model::KafkaSpec;
use tidegate_common::spec::parse_bytes;

pub use self::config::Retention;
pub use self::error::KafkaError;
use self::fetch::OPEN;
pub(crate) use self::fetch::{Arrived, BATCH_BYTES, Broken, Fetcher, Records};
pub(crate) use self::heard::{Quiet, TooLong, Unreached, reach};
use crate::access::{Access, resolve_secret};

/// Reports and errors that are taken in at a time: more come only from many brokers at once.
const LISTENED: usize = 16;
/// How long a client rests at most before it works again.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long one question may take.
const WAIT: Duration = Duration::from_secs(30);
/// How long a client that gets no connection goes on trying: brokers may be on their way up.
const LOST_WAIT: Duration = Duration::from_secs(10);
/// How long a client that is let in nowhere goes on trying: another broker may have the right certificate.
const REFUSED_WAIT: Duration = Duration::from_secs(2);
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

/// What this binary was built without and `given` asks for.
pub(crate) fn lacking(given: &BTreeMap<String, String>) -> Option<&'static str> {
    let mechanisms = ["sasl.mechanism", "sasl.mechanisms"].map(|key| given.get(key));
    let asks = |for_it: &str| mechanisms.iter().flatten().any(|given| given.trim().eq_ignore_ascii_case(for_it));
    if asks("GSSAPI") && !cfg!(feature = "gssapi") {
        Some("Kerberos needs a binary built with `--features gssapi`")
    } else if asks("OAUTHBEARER") && !cfg!(feature = "oidc") {
        Some("OAUTHBEARER needs a binary built with `--features oidc`")
    } else {
        None
    }
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

/// What `spec` says of a client, its secrets resolved, within what the worker allows.
///
/// # Errors
/// [`KafkaError::Denied`] for brokers that the worker does not allow, mechanisms that this binary lacks, and secrets that
/// are not there.
pub(crate) fn settings(spec: &KafkaSpec, access: &Access) -> Result<BTreeMap<String, String>, KafkaError> {
    if let Some(allowed) = &access.endpoints {
        let servers = spec.properties.get("bootstrap.servers").map_or("", String::as_str);
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
    if let Some(lacks) = lacking(&spec.properties) {
        let what = format!("{lacks}: build this worker so, or use SCRAM-SHA-512 or PLAIN over TLS");
        return Err(KafkaError::Denied(what));
    }
    let mut values = spec.properties.clone();
    for (key, secret) in &spec.secrets {
        let value = resolve_secret(secret, access).map_err(|e| KafkaError::Denied(format!("{key}: {e}")))?;
        values.insert(key.clone(), value);
    }
    if cfg!(feature = "gssapi") {
        // No command is run to get a ticket: whoever runs the worker keeps one.
        for (key, value) in [("sasl.kerberos.kinit.cmd", ""), ("sasl.kerberos.min.time.before.relogin", "0")] {
            values.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(values)
}

impl Cluster {
    /// The cluster of `spec`, whose settings were checked.
    ///
    /// # Errors
    /// [`KafkaError::Denied`] for brokers that the worker does not allow, and secrets that it does not have.
    pub(crate) fn of(spec: &KafkaSpec, access: &Access) -> Result<Self, KafkaError> {
        let given = settings(spec, access)?;
        let servers = spec.properties.get("bootstrap.servers").cloned().unwrap_or_default();
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS {
            config.set(*key, *value);
        }
        let ahead = ahead_kib(spec);
        config.set("queued.max.messages.kbytes", ahead.to_string());
        // Half of it at a time: brokers answer few large fetches with less work than many small ones.
        config.set("fetch.message.max.bytes", (ahead * 1024 / 2).to_string());
        for (key, value) in given {
            config.set(key, value);
        }
        for (key, value) in FIXED {
            config.set(*key, *value);
        }
        config.set_log_level(RDKafkaLogLevel::Info);
        Ok(Self { config, servers })
    }

    /// The most bytes that a reader of so many partitions has fetched ahead, about.
    pub(crate) fn ahead_bytes(&self, partitions: usize) -> u64 {
        let number = |key: &str| self.config.get(key).and_then(|given| given.parse::<u64>().ok());
        let queued = number("queued.max.messages.kbytes").unwrap_or(AHEAD_KIB).saturating_mul(1024);
        // A fetch is sent as long as the queue is not full.
        let each = queued.saturating_add(number("fetch.message.max.bytes").unwrap_or(0));
        each.saturating_mul(partitions.min(OPEN) as u64)
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

/// The id of `topic`; none where the brokers have none (before Kafka 2.8).
pub(crate) fn topic_id(
    client: &BaseConsumer<Quiet>,
    topic: &str,
    wait: Duration,
) -> Result<Option<String>, ClientError> {
    let began = monotonic();
    match native::describe(client, topic, wait, || monotonic().since(began) > wait) {
        Ok(found) => Ok(Some(found.id).filter(|id| !id.is_empty())),
        Err(refusal) if refusal.code == RDKafkaErrorCode::UnsupportedFeature => Ok(None),
        Err(refusal) => Err(ClientError::MetadataFetch(refusal.code)),
    }
}

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

    /// An answer that the client did not take for its length, if there was one since the brokers last answered well.
    fn too_long(&self) -> Option<TooLong> {
        self.listen();
        self.consumer.context().trouble().too_long
    }

    /// The brokers have answered: what went wrong before is over.
    fn is_well(&self) {
        self.consumer.context().is_well();
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
        let trouble = self.consumer.context().trouble();
        let (code, text) = match (error::is_silence(code), trouble.refused, trouble.lost) {
            (true, Some(refused), _) => refused,
            (true, None, Some(lost)) => (code, lost),
            _ => (code, text),
        };
        error::judged(code, text, &self.servers, doing, topic, partition)
    }

    /// What `topic` is.
    pub(crate) fn topic(&self, topic: &str) -> Result<TopicState, KafkaError> {
        let doing = format!("looking at the topic {topic}");
        let began = monotonic();
        let in_vain = || {
            self.listen();
            let trouble = self.consumer.context().trouble();
            let wait = match (trouble.refused, trouble.lost) {
                (Some(_), _) => REFUSED_WAIT,
                (None, Some(_)) => LOST_WAIT,
                (None, None) => WAIT,
            };
            monotonic().since(began) > wait
        };
        match native::describe(&self.consumer, topic, WAIT, in_vain) {
            Ok(found) => {
                self.is_well();
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
