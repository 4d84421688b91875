//! What a client hears of its brokers beside the answers: how hard it may press, and what last went wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::statistics::{Statistics, Window};
use tidegate_common::clock::monotonic;

use super::pace::{Pace, Report};
use super::{LISTENED, LOST_WAIT, REFUSED_WAIT, WAIT, error};

/// How long is waited for a broker before it is listened to.
const GLANCE: Duration = Duration::from_millis(100);

/// A client's callbacks: what it says goes to the log of this process, and what the brokers say sets its pace.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    pub(super) pace: Pace,
    trouble: Mutex<Trouble>,
}

/// What went wrong since the brokers last answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// Why they let nobody in.
    pub(super) refused: Option<(RDKafkaErrorCode, String)>,
    /// Why there is no connection.
    pub(super) lost: Option<String>,
    /// An answer that was longer than the client takes one.
    pub(super) too_long: Option<TooLong>,
}

/// An answer that was not taken for its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    /// Its bytes.
    pub(crate) bytes: u64,
    /// What is taken: `receive.message.max.bytes`.
    pub(crate) limit: u64,
}

impl TooLong {
    /// From the library's words, "Invalid response size 3000128 (0..1000512)": it has no others.
    fn of(reason: &str) -> Option<Self> {
        let (_, said) = reason.split_once("Invalid response size ")?;
        let mut numbers = said.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok());
        let (bytes, _least, limit) = (numbers.next()?, numbers.next()?, numbers.next()?);
        (bytes > limit).then_some(Self { bytes, limit })
    }
}

impl Quiet {
    /// What went wrong since the brokers last answered.
    pub(super) fn trouble(&self) -> Trouble {
        self.lock().clone()
    }

    /// The brokers have answered.
    pub(super) fn is_well(&self) {
        *self.lock() = Trouble::default();
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why no broker lets a client in.
pub(crate) enum Unreached {
    /// They refuse it; with the way out.
    Refused(String),
    /// There is no connection.
    Lost(String),
}

/// Waits until the brokers let the client in. Where nothing is heard of them, whoever asks next is told.
pub(crate) fn reach(client: &BaseConsumer<Quiet>) -> Result<(), Unreached> {
    let began = monotonic();
    loop {
        if client.client().fetch_cluster_id(GLANCE).is_some() {
            return Ok(());
        }
        // Errors come this way, and the callbacks hear them.
        (0..LISTENED).for_each(|_| drop(client.poll(Duration::ZERO)));
        let (trouble, waited) = (client.context().trouble(), monotonic().since(began));
        match (trouble.refused, trouble.lost) {
            (Some((code, text)), _) if waited > REFUSED_WAIT => {
                return Err(Unreached::Refused(format!("{text}; {}", error::way_out(code))));
            }
            (None, Some(lost)) if waited > LOST_WAIT => return Err(Unreached::Lost(lost)),
            _ if waited > WAIT => return Ok(()),
            _ => {}
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A connection that the other side closes is no error to the library, but it may say why.
        if facility == "FAIL" {
            let (_thread, said) = message.split_once("]: ").unwrap_or(("", message));
            self.lock().lost = Some(said.to_owned());
        }
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
        let mut trouble = self.lock();
        match code {
            code if error::is_refusal(code) => trouble.refused = Some((code, reason.to_owned())),
            RDKafkaErrorCode::BadMessage => trouble.too_long = TooLong::of(reason).or(trouble.too_long),
            // It says less than what was said before it.
            RDKafkaErrorCode::AllBrokersDown => {}
            code if error::is_silence(code) => trouble.lost = Some(reason.to_owned()),
            _ => {}
        }
        drop(trouble);
        tracing::warn!("kafka client: {error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_long_is_known_by_its_size_and_damage_is_none() {
        let of = |said: &str| TooLong::of(&format!("127.0.0.1:9092/1: Receive failed: Invalid response size {said}"));
        let whole = "3000128 (0..1000512): increase receive.message.max.bytes (after 12ms in state UP)";
        assert_eq!(of(whole), Some(TooLong { bytes: 3_000_128, limit: 1_000_512 }));
        assert_eq!(of("2 (0..1000512): increase receive.message.max.bytes"), None);
        assert_eq!(TooLong::of("127.0.0.1:9092/1: Receive failed: Disconnected"), None);
    }
}
