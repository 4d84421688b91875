//! Fetches a range of one partition, to its end by position: records, and how many offsets hold none.
//!
//! A range ends where its last offset was passed, never where its last record was seen: transaction markers, aborted
//! records and what compaction removed leave offsets without a record, at the tail too. The end is passed when a record
//! at or behind it comes, or when the brokers say that the log ended there or behind it.

use std::time::Duration;

use arrow::array::{BinaryArray, BinaryBuilder};
use rdkafka::error::RDKafkaErrorCode;
use tidegate_common::clock::monotonic;

use super::native::{Fetch, Fetched, Messages, Record, Refusal};
use super::{Client, KafkaError, Quiet, TooLong};

/// Records of a batch at the most.
const BATCH_RECORDS: usize = 8192;
/// Bytes of a batch, about: a single record may be longer.
pub(crate) const BATCH_BYTES: usize = 4 << 20;
/// Messages that are waited for at a time.
const AT_ONCE: usize = 1024;
/// How long one look for messages takes: a look at the log's end waits for more, however much it has.
const TICK: Duration = Duration::from_millis(10);
/// After how long without a record the caller is asked whether it still wants one.
const IDLE: Duration = Duration::from_millis(200);
/// How long nothing may come before the attempt is given up: brokers that restart take less.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nothing may come after an answer that was too long: long enough to connect again.
const TOO_LONG: Duration = Duration::from_secs(15);

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which record of the batch has it.
    pub(crate) record: usize,
    /// Its name; what is no UTF-8 in it is replaced.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: Option<Vec<u8>>,
}

/// Consecutive records of one partition.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) offsets: Vec<i64>,
    /// Milliseconds since 1970, and whether the broker set it.
    pub(crate) timestamps: Vec<Option<(i64, bool)>>,
    pub(crate) keys: BinaryArray,
    pub(crate) values: BinaryArray,
    pub(crate) headers: Vec<Header>,
    /// Offsets before, between and behind them that hold no record.
    pub(crate) gaps: u64,
}

impl Records {
    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.value_data().len() + self.values.value_data().len()
    }
}

/// What a look brought.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// Records, perhaps none; the range goes on.
    Some(Records),
    /// The last ones: the whole range was seen.
    Last(Records),
}

/// Why a range could not be fetched to its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The log no longer holds the offset that is to be read next.
    OutOfRange {
        /// That offset.
        next: i64,
    },
    /// The log ended at `end`, before the end of the range.
    Truncated {
        /// Where it ended.
        end: i64,
    },
    /// What begins at `next` comes in an answer that is too long.
    TooLong {
        /// The offset that is to be read next.
        next: i64,
        /// The answer.
        answer: TooLong,
    },
    /// Kafka could not be asked.
    Kafka(KafkaError),
}

/// Partitions that a fetcher keeps open: each fetches ahead by itself.
pub(super) const OPEN: usize = 4;

/// Fetches ranges of a topic, one at a time. Where one begins as the last one of its partition ended, what was fetched
/// ahead is used.
pub(crate) struct Fetcher<'c> {
    client: &'c Client,
    topic: String,
    with_headers: bool,
    at_once: usize,
    /// Records and bytes of values of the last batch: the next one has about as many.
    last: (usize, usize),
    /// How long nothing may come.
    pub(super) patience: Duration,
    /// The one used last stands last.
    open: Vec<Open<'c>>,
}

/// A partition that is being fetched.
struct Open<'c> {
    partition: i32,
    /// The next offset to be accounted for.
    next: i64,
    fetch: Fetch<'c, Quiet>,
    messages: Messages,
    /// The next of `messages`.
    at: usize,
    /// Where the log ended when the brokers last said so.
    ended: Option<i64>,
    /// How long was waited since something came.
    silent: Duration,
}

impl<'c> Fetcher<'c> {
    /// A fetcher of `topic`; headers are left out where nobody asks for them.
    pub(crate) fn new(client: &'c Client, topic: &str, with_headers: bool) -> Self {
        let (topic, open) = (topic.to_owned(), Vec::with_capacity(OPEN));
        Self { client, topic, with_headers, at_once: AT_ONCE, last: (0, 0), patience: PATIENCE, open }
    }

    /// One that takes what comes as it comes: for a record here and there.
    pub(crate) fn looking(client: &'c Client, topic: &str) -> Self {
        Self { at_once: 1, ..Self::new(client, topic, false) }
    }

    /// The next records of `[next, end)` in `partition`, where `next` is where the last answer ended.
    pub(crate) fn next(&mut self, partition: i32, next: i64, end: i64) -> Result<Arrived, Broken> {
        let mut open = self.take(partition, next)?;
        let arrived = self.arrive(&mut open, end);
        self.open.push(open);
        if let Ok(Arrived::Some(records)) = &arrived {
            self.last = (records.offsets.len(), records.values.value_data().len());
        }
        arrived
    }

    /// The open partition, standing at `next`.
    fn take(&mut self, partition: i32, next: i64) -> Result<Open<'c>, Broken> {
        let at = self.open.iter().position(|open| open.partition == partition);
        match at.map(|at| self.open.remove(at)) {
            Some(open) if open.next == next => Ok(open),
            other => {
                drop(other); // stopped before it is started anew
                if self.open.len() >= OPEN {
                    self.open.remove(0);
                }
                self.start(partition, next)
            }
        }
    }

    /// The first record of `[from, end)` in `partition` that has a time: its offset, and the milliseconds since 1970.
    pub(crate) fn first_time(&mut self, partition: i32, from: i64, end: i64) -> Result<Option<(i64, i64)>, Broken> {
        let (mut next, mut width) = (from, 1);
        while next < end {
            // No more is waited for than one record, but where there are gaps.
            let until = end.min(next.saturating_add(width));
            width = width.saturating_mul(2);
            let (records, is_last) = match self.next(partition, next, until)? {
                Arrived::Some(records) => (records, false),
                Arrived::Last(records) => (records, true),
            };
            let mut timed = records.offsets.iter().zip(&records.timestamps);
            if let Some((offset, millis)) = timed.find_map(|(offset, at)| Some((*offset, at.as_ref()?.0))) {
                return Ok(Some((offset, millis)));
            }
            next = if is_last { until } else { records.offsets.last().map_or(next, |last| last + 1) };
        }
        Ok(None)
    }

    fn arrive(&mut self, open: &mut Open<'c>, end: i64) -> Result<Arrived, Broken> {
        let mut batch = Batch::new(self.with_headers, self.last);
        let began = monotonic();
        loop {
            while let Some(fetched) = open.messages.get(open.at) {
                match fetched {
                    Fetched::Record(record) if record.offset < open.next => open.at += 1, // of a batch that began before
                    Fetched::Record(record) if record.offset >= end => return Ok(batch.end(open, end)),
                    Fetched::Record(record) => {
                        open.ended = open.ended.filter(|ended| record.offset < *ended);
                        batch.gaps += distance(open.next, record.offset);
                        batch.push(&record);
                        open.next = record.offset + 1;
                        open.at += 1;
                        if batch.is_full() || open.next == end {
                            let is_last = open.next == end;
                            let records = batch.finish();
                            return Ok(if is_last { Arrived::Last(records) } else { Arrived::Some(records) });
                        }
                    }
                    Fetched::End(offset) => {
                        open.ended = Some(offset);
                        open.at += 1;
                    }
                    Fetched::Failed(refusal) => return Err(judged(self.client, &self.topic, open, &refusal)),
                }
            }
            if open.ended.is_some_and(|ended| ended >= end) {
                return Ok(batch.end(open, end));
            }
            if batch.len() > 0 && open.messages.len() == 0 {
                return Ok(Arrived::Some(batch.finish())); // nothing more came within a tick: hand on what there is
            }
            // How long nobody asked says nothing of the brokers: only what was waited counts.
            let asked = monotonic();
            let came = open.fetch.next(TICK, self.at_once);
            open.messages = came.map_err(|refusal| judged(self.client, &self.topic, open, &refusal))?;
            open.at = 0;
            if open.messages.len() > 0 {
                if !open.silent.is_zero() {
                    open.silent = Duration::ZERO;
                    self.client.is_well();
                }
                continue;
            }
            open.silent += monotonic().since(asked);
            if let Some(answer) = self.client.too_long() {
                // An answer holds records of all partitions that are open: it may be another one's.
                self.open.clear();
                if open.silent > TOO_LONG.min(self.patience) {
                    return Err(Broken::TooLong { next: open.next, answer });
                }
            }
            if open.silent > self.patience {
                return Err(silent(self.client, &self.topic, open, end));
            }
            if batch.len() == 0 && monotonic().since(began) > IDLE {
                return Ok(Arrived::Some(batch.finish())); // lets the reader look whether it is still wanted
            }
        }
    }

    fn start(&self, partition: i32, next: i64) -> Result<Open<'c>, Broken> {
        let fetch = Fetch::start(&self.client.consumer, &self.topic, partition, next).map_err(|refusal| {
            let doing = format!("fetching {}", self.topic);
            Broken::Kafka(self.client.judged(refusal.code, refusal.text, &doing, &self.topic, Some(partition)))
        })?;
        let messages = Messages::none();
        Ok(Open { partition, next, fetch, messages, at: 0, ended: None, silent: Duration::ZERO })
    }
}

fn judged(client: &Client, topic: &str, open: &Open<'_>, refusal: &Refusal) -> Broken {
    if matches!(refusal.code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) {
        return Broken::OutOfRange { next: open.next };
    }
    let doing = format!("fetching {topic}");
    Broken::Kafka(client.judged(refusal.code, refusal.text.clone(), &doing, topic, Some(open.partition)))
}

/// Nothing came for long: the log ended early, or the brokers do not answer.
fn silent(client: &Client, topic: &str, open: &Open<'_>, end: i64) -> Broken {
    let log_end = client.ends(topic, &[open.partition]).ok().and_then(|ends| ends.first().map(|(_, end)| *end));
    if let Some(log_end) = log_end.filter(|log_end| *log_end < end) {
        return Broken::Truncated { end: log_end };
    }
    let doing = format!("fetching {topic}, partition {} from offset {}", open.partition, open.next);
    let what = format!("nothing came for {} s", open.silent.as_secs());
    Broken::Kafka(client.judged(RDKafkaErrorCode::OperationTimedOut, what, &doing, topic, Some(open.partition)))
}

fn distance(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

/// Records on their way into a batch.
struct Batch {
    offsets: Vec<i64>,
    timestamps: Vec<Option<(i64, bool)>>,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    headers: Vec<Header>,
    with_headers: bool,
    bytes: usize,
    gaps: u64,
}

impl Batch {
    /// One with room for so many records and bytes of their values.
    fn new(with_headers: bool, (records, bytes): (usize, usize)) -> Self {
        Self {
            offsets: Vec::with_capacity(records),
            timestamps: Vec::with_capacity(records),
            keys: BinaryBuilder::with_capacity(records, 0),
            values: BinaryBuilder::with_capacity(records, bytes + bytes / 8),
            headers: Vec::new(),
            with_headers,
            bytes: 0,
            gaps: 0,
        }
    }

    fn len(&self) -> usize {
        self.offsets.len()
    }

    fn is_full(&self) -> bool {
        self.offsets.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }

    fn push(&mut self, record: &Record<'_>) {
        if self.with_headers {
            let (at, headers) = (self.offsets.len(), &mut self.headers);
            let bytes = &mut self.bytes;
            record.headers(|name, value| {
                *bytes += name.len() + value.map_or(0, <[u8]>::len);
                let name = String::from_utf8_lossy(name).into_owned();
                headers.push(Header { record: at, name, value: value.map(<[u8]>::to_vec) });
            });
        }
        self.bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        self.offsets.push(record.offset);
        self.timestamps.push(record.timestamp);
        self.keys.append_option(record.key);
        self.values.append_option(record.value);
    }

    /// The range is over: what is left of it are gaps.
    fn end(mut self, open: &mut Open<'_>, end: i64) -> Arrived {
        self.gaps += distance(open.next, end);
        open.next = end;
        Arrived::Last(self.finish())
    }

    fn finish(mut self) -> Records {
        Records {
            offsets: self.offsets,
            timestamps: self.timestamps,
            keys: self.keys.finish(),
            values: self.values.finish(),
            headers: self.headers,
            gaps: self.gaps,
        }
    }
}
