//! Fills a topic with events of about 200 bytes, and drains it as fast as librdkafka can: what a replay is held against.
//!
//! `kafka_load fill SERVERS TOPIC json|avro EVENTS` and `kafka_load drain SERVERS TOPIC`, which prints a JSON object.

use std::process::ExitCode;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidegate_common::clock::monotonic;
use tidegate_worker::kafka::drain::{self, Drained};

type Failed = Box<dyn std::error::Error>;

/// 2024-01-01T00:00:00Z, in milliseconds.
const BEGIN: i64 = 1_704_067_200_000;
/// Milliseconds between two events.
const STEP: i64 = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        ["fill", servers, topic, format @ ("json" | "avro"), events] => {
            events.parse().map_err(Failed::from).and_then(|events| fill(servers, topic, *format == "avro", events))
        }
        ["drain", servers, topic] => drain(servers, topic),
        _ => Err("usage: kafka_load fill SERVERS TOPIC json|avro EVENTS | kafka_load drain SERVERS TOPIC".into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn fill(servers: &str, topic: &str, avro: bool, events: i64) -> Result<(), Failed> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("linger.ms", "20").set("batch.size", "1000000");
    let producer: BaseProducer = config.set("queue.buffering.max.messages", "500000").create()?;
    // The broker makes a topic that a producer asks for, a little later.
    let partitions = loop {
        let metadata = producer.client().fetch_metadata(Some(topic), Duration::from_secs(60))?;
        let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if found > 0 {
            break i32::try_from(found)?;
        }
    };
    let mut value = Vec::new();
    for at in 0..events {
        value.clear();
        if avro {
            write_avro(&mut value, at)
        } else {
            write_json(&mut value, at)
        }
        let mut record = BaseRecord::<(), [u8]>::to(topic)
            .payload(&value)
            .partition(i32::try_from(at % i64::from(partitions))?)
            .timestamp(BEGIN + at * STEP);
        while let Err((error, again)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(50));
            record = again;
        }
        if at % 10_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    Ok(producer.flush(Duration::from_secs(300))?)
}

/// What an event says.
struct Event {
    user: i64,
    item: i64,
    kind: &'static str,
    cents: i64,
    url: String,
}

fn event(at: i64) -> Event {
    let kind = ["view", "click", "share", "buy"][usize::try_from(at % 4).unwrap_or(0)];
    let url = format!("https://shop.example/item/{}?from=mail&session={:032x}", at * 31 % 5_003, at * 2_654_435_761);
    Event { user: at * 7_919 % 100_003, item: at * 31 % 5_003, kind, cents: at * 37 % 99_999, url }
}

fn write_json(out: &mut Vec<u8>, at: i64) {
    use std::io::Write;
    let Event { user, item, kind, cents, url } = event(at);
    let (whole, rest) = (cents / 100, cents % 100);
    let text = format!(
        "{{\"ts\":{},\"event_id\":{at},\"user_id\":{user},\"item_id\":{item},\"kind\":\"{kind}\",\"price\":{whole}.{rest:02},\"url\":\"{url}\"}}",
        BEGIN + at * STEP
    );
    let _ = out.write_all(text.as_bytes()); // a vector takes everything
}

/// The fields of `events.avsc`, in order, in Avro's binary encoding.
fn write_avro(out: &mut Vec<u8>, at: i64) {
    let Event { user, item, kind, cents, url } = event(at);
    for number in [BEGIN + at * STEP, at, user, item] {
        write_long(out, number);
    }
    write_text(out, kind);
    #[allow(clippy::cast_precision_loss)]
    out.extend_from_slice(&(cents as f64 / 100.0).to_le_bytes());
    write_text(out, &url);
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_long(out, i64::try_from(text.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// Zigzag, then seven bits a byte.
fn write_long(out: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    out.push(left.to_le_bytes()[0]);
}

/// Takes every record of the topic by the bulk call and counts its bytes, with librdkafka's own settings but for those
/// that hold up a topic which nobody writes to.
fn drain(servers: &str, topic: &str) -> Result<(), Failed> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("fetch.queue.backoff.ms", "2").set("fetch.wait.max.ms", "10");
    config.set("queued.min.messages", "1000000");
    let began = monotonic();
    let Drained { records, bytes } = drain::drain(&config, topic)?;
    let seconds = monotonic().since(began).as_secs_f64();
    println!("{{\"records\": {records}, \"bytes\": {bytes}, \"seconds\": {seconds:.3}}}");
    Ok(())
}
