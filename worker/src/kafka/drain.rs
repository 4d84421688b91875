//! Takes a topic from end to end by librdkafka's bulk call and does nothing with it: what a replay is held against.

use std::thread;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;

use super::native::{Fetch, Fetched, Refusal};
use super::{KafkaError, WAIT, error, told};

/// Messages that are asked for at a time.
const AT_ONCE: usize = 10_000;
/// How long one look for messages takes.
const TICK: Duration = Duration::from_millis(50);
/// The offset that stands for a log's first one.
const BEGINNING: i64 = -2;

/// What was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
}

/// Takes every record of `topic` with a client of these settings, a thread for each partition.
///
/// # Errors
/// Whatever the client says.
pub fn drain(config: &ClientConfig, topic: &str) -> Result<Drained, KafkaError> {
    let servers = config.get("bootstrap.servers").unwrap_or_default();
    let failed = |code, text, partition| error::judged(code, text, servers, "draining", topic, partition);
    let of_client = |e: ClientError| failed(error::code_of(&e), e.to_string(), None);
    // It is done with a partition when its end was seen.
    let mut config = config.clone();
    config.set("enable.partition.eof", "true");
    let client: BaseConsumer = config.create().map_err(|e| KafkaError::Settings(told(&e)))?;
    let metadata = client.fetch_metadata(Some(topic), WAIT).map_err(of_client)?;
    let partitions: Vec<i32> =
        metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    let fetches = partitions.iter().map(|partition| (*partition, Fetch::start(&client, topic, *partition, BEGINNING)));
    let drained = thread::scope(|scope| {
        let threads: Vec<_> = fetches
            .map(|(partition, fetch)| (partition, scope.spawn(move || fetch.and_then(|fetch| drain_partition(fetch)))))
            .collect();
        let joined = threads.into_iter().map(|(partition, thread)| (partition, thread.join()));
        joined.collect::<Vec<_>>()
    });
    let mut all = Drained::default();
    for (partition, drained) in drained {
        let of_partition = |refusal: Refusal| failed(refusal.code, refusal.text, Some(partition));
        let panicked = || KafkaError::Settings(format!("the thread of partition {partition} has panicked"));
        let Drained { records, bytes } = drained.map_err(|_| panicked())?.map_err(of_partition)?;
        (all.records, all.bytes) = (all.records + records, all.bytes + bytes);
    }
    Ok(all)
}

fn drain_partition(mut fetch: Fetch<'_, impl rdkafka::consumer::ConsumerContext>) -> Result<Drained, Refusal> {
    let mut drained = Drained::default();
    loop {
        let messages = fetch.next(TICK, AT_ONCE)?;
        for fetched in (0..messages.len()).filter_map(|at| messages.get(at)) {
            match fetched {
                Fetched::Record(record) => {
                    drained.records += 1;
                    drained.bytes += record.value.map_or(0, |value| value.len() as u64);
                }
                Fetched::End(_) => return Ok(drained),
                Fetched::Failed(refusal) => return Err(refusal),
            }
        }
    }
}
