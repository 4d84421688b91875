//! The threads that fetch: each has a client of its own, takes one order at a time and outlives the reader that started it.
//!
//! A task of a partition mostly begins where an earlier one ended. The thread that read that one is still connected, and
//! has fetched ahead already.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_common::clock::monotonic;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{PATIENCE, Shared, pin};
use crate::kafka::{Arrived, Broken, Client, Fetcher, KafkaError, Records, TooLong};
use crate::source::error::SourceError;

/// How often a client that is not asked anything is heard.
const HEARD_EVERY: Duration = Duration::from_secs(1);
/// How long a thread waits for an order: at the end of a log its client asks the brokers again and again.
const IDLE: Duration = Duration::from_secs(10);
/// Batches that are fetched ahead of being decoded.
pub(super) const AHEAD: usize = 2;

/// What was fetched, batch by batch; it ends behind the last offset that was ordered.
pub(super) type Arriving = mpsc::Receiver<Result<Records, SourceError>>;

/// A range that is to be fetched.
struct Order {
    partition: i32,
    offsets: Range<i64>,
    to: mpsc::Sender<Result<Records, SourceError>>,
}

/// Threads of one source that nobody uses now.
#[derive(Default)]
pub(super) struct Idle(Mutex<Vec<Thread>>);

impl Idle {
    /// Of those that bring the same, the one that goes on at `offset`, or else the one that was used last.
    fn take(&self, with_headers: bool, partition: i32, offset: i64) -> Option<Thread> {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.orders.is_closed());
        let alike = |thread: &Thread| thread.with_headers == with_headers;
        let goes_on = |thread: &Thread| alike(thread) && thread.stands.get(&partition) == Some(&offset);
        let at = threads.iter().rposition(goes_on).or_else(|| threads.iter().rposition(alike))?;
        Some(threads.remove(at))
    }

    fn put(&self, thread: Thread) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

/// A thread that takes orders.
struct Thread {
    orders: mpsc::Sender<Order>,
    with_headers: bool,
    /// Where its last order of each partition ended, if it came so far.
    stands: BTreeMap<i32, i64>,
}

impl Thread {
    fn start(shared: Arc<Shared>, with_headers: bool) -> Self {
        let (orders, taken) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || serve(&shared, with_headers, taken));
        Self { orders, with_headers, stands: BTreeMap::new() }
    }

    /// Gives `order` back where it takes none any more.
    async fn order(&mut self, order: Order) -> Result<(), Order> {
        let (partition, end) = (order.partition, order.offsets.end);
        self.orders.send(order).await.map_err(|mpsc::error::SendError(order)| order)?;
        self.stands.insert(partition, end);
        Ok(())
    }
}

/// Fetches for one reader, on one thread at a time.
pub(super) struct Fetching {
    shared: Arc<Shared>,
    idle: Arc<Idle>,
    with_headers: bool,
    thread: Option<Thread>,
}

impl Fetching {
    /// One that has the threads of `idle` work for it, and leaves its own there.
    pub(super) fn new(shared: Arc<Shared>, idle: Arc<Idle>, with_headers: bool) -> Self {
        Self { shared, idle, with_headers, thread: None }
    }

    /// Orders a range of a partition.
    pub(super) async fn order(&mut self, partition: i32, offsets: Range<i64>) -> Result<Arriving, SourceError> {
        let (to, arriving) = mpsc::channel(AHEAD);
        let known = self.thread.take().or_else(|| self.idle.take(self.with_headers, partition, offsets.start));
        let mut order = Order { partition, offsets, to };
        if let Some(mut thread) = known {
            match thread.order(order).await {
                Ok(()) => {
                    self.thread = Some(thread);
                    return Ok(arriving);
                }
                Err(back) => order = back, // it has failed or waited for too long: another one may not
            }
        }
        let mut thread = Thread::start(self.shared.clone(), self.with_headers);
        thread.order(order).await.map_err(|_| SourceError::Abandoned)?;
        self.thread = Some(thread);
        Ok(arriving)
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.idle.put(thread);
        }
    }
}

/// Fetches what is ordered, until nobody has ordered anything for long.
fn serve(shared: &Shared, with_headers: bool, mut orders: mpsc::Receiver<Order>) {
    let Some(first) = orders.blocking_recv() else { return };
    let connected = shared.cluster.client().map_err(|e| shared.failed(e));
    let checked = connected.and_then(|client| shared.check_topic(&client, PATIENCE).map(|()| client));
    let client = match checked {
        Ok(client) => client,
        Err(e) => {
            let _ = first.to.blocking_send(Err(e)); // nobody listens any more: nothing is lost
            return;
        }
    };
    let mut fetcher = Fetcher::new(&client, &shared.topic, with_headers);
    let mut order = Some(first);
    while let Some(Order { partition, offsets, to }) = order {
        if let Err(e) = shared.fetch_range(&client, &mut fetcher, partition, offsets, &to) {
            let _ = to.blocking_send(Err(e));
            return;
        }
        drop(to); // the unit is over
        order = next_order(&client, &mut orders);
    }
}

/// The next order; what the client has to say is heard meanwhile. None where none comes for long, or none can come.
fn next_order(client: &Client, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
    let (here, began) = (Handle::current(), monotonic());
    loop {
        client.listen();
        match here.block_on(tokio::time::timeout(HEARD_EVERY, orders.recv())) {
            Ok(order) => return order,
            Err(_) if monotonic().since(began) < IDLE => continue,
            Err(_) => {
                orders.close();
                return orders.try_recv().ok(); // one that came this very moment is served
            }
        }
    }
}

/// Sends what was fetched, however long that takes; `false` when nobody takes it any more.
fn deliver(client: &Client, to: &mpsc::Sender<Result<Records, SourceError>>, records: Records) -> bool {
    let here = Handle::current();
    let mut records = Ok(records);
    loop {
        client.listen();
        match here.block_on(to.send_timeout(records, HEARD_EVERY)) {
            Ok(()) => return true,
            Err(mpsc::error::SendTimeoutError::Timeout(back)) => records = back,
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return false,
        }
    }
}

impl Shared {
    /// Sends the records of `offsets`, and ends when all were sent or nobody takes them.
    fn fetch_range(
        &self,
        client: &Client,
        fetcher: &mut Fetcher<'_>,
        partition: i32,
        offsets: Range<i64>,
        to: &mpsc::Sender<Result<Records, SourceError>>,
    ) -> Result<(), SourceError> {
        let mut next = offsets.start;
        while next < offsets.end && !to.is_closed() {
            let began = monotonic();
            let arrived = fetcher.next(partition, next, offsets.end);
            let worked = monotonic().since(began);
            let (records, is_last) = match arrived {
                Ok(Arrived::Some(records)) => (records, false),
                Ok(Arrived::Last(records)) => (records, true),
                Err(broken) => return Err(self.broken(client, partition, offsets.end, broken)),
            };
            next = records.offsets.last().map_or(next, |last| last + 1);
            if is_last {
                next = offsets.end;
                // A topic that was made anew meanwhile would have answered as well.
                self.check_topic(client, PATIENCE)?;
            }
            if (is_last || !records.offsets.is_empty()) && !deliver(client, to, records) {
                return Ok(());
            }
            let rest = client.rest(worked);
            if !rest.is_zero() {
                std::thread::sleep(rest); // the brokers have asked for it
            }
        }
        Ok(())
    }

    pub(super) fn broken(&self, client: &Client, partition: i32, end: i64, broken: Broken) -> SourceError {
        let input = |what: String| SourceError::Input { source_name: self.name.clone(), what };
        let next = match broken {
            // One broker that has just started may not know it yet.
            Broken::Kafka(e @ KafkaError::NoTopic { .. }) => {
                let again = || KafkaError::Client {
                    servers: self.cluster.servers().to_owned(),
                    doing: format!("fetching {}", self.place(partition)),
                    what: e.to_string(),
                };
                return self.check_topic(client, PATIENCE).err().unwrap_or_else(|| self.failed(again()));
            }
            Broken::Kafka(e) => return self.failed(e),
            Broken::TooLong { next, answer: TooLong { bytes, limit } } => {
                let place = self.place(partition);
                return input(format!(
                    "{place}: the batch of records from offset {next} on comes in an answer of {bytes} bytes, and no more than \
                     {limit} are taken: raise receive.message.max.bytes in kafka.properties (up to 256 MiB), and fetch less at a \
                     time with fetch.max.bytes"
                ));
            }
            Broken::OutOfRange { next } => next,
            Broken::Truncated { end: log_end } => {
                let place = self.place(partition);
                return input(format!(
                    "{place}: the log ends at {log_end}, and offsets up to {end} were pinned: it was truncated; plan again"
                ));
            }
        };
        if let Err(e) = self.check_topic(client, PATIENCE) {
            return e;
        }
        let edges = client.starts(&self.topic, &[partition]).and_then(|starts| {
            let ends = client.ends(&self.topic, &[partition])?;
            Ok(starts.first().zip(ends.first()).map(|((_, start), (_, end))| *start..*end))
        });
        match edges {
            Ok(Some(log)) if log.start > next => input(pin::eaten(&self.topic, partition, next, end, log.start)),
            // An answer to an earlier question: the offset is there.
            Ok(Some(log)) if log.contains(&next) => self.failed(KafkaError::Client {
                servers: self.cluster.servers().to_owned(),
                doing: format!("fetching {}", self.place(partition)),
                what: format!("the offset {next} was said not to be there, and is"),
            }),
            Ok(_) => input(format!("{}: the log does not hold the offset {next} any more", self.place(partition))),
            Err(e) => self.failed(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that stands at offset 100 of each of `partitions`; it takes orders as long as the other half is kept.
    fn thread(with_headers: bool, partitions: &[i32]) -> (Thread, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(1);
        let stands = partitions.iter().map(|partition| (*partition, 100)).collect();
        (Thread { orders, with_headers, stands }, taken)
    }

    #[test]
    fn given_threads_when_one_is_taken_then_the_one_that_goes_on_or_the_last_of_its_kind_and_none_that_has_ended() {
        let idle = Idle::default();
        let ((first, _first), (second, _second), (ended, gone)) =
            (thread(false, &[0]), thread(false, &[1, 2]), thread(false, &[0, 7]));
        let (with_headers, _with_headers) = thread(true, &[0]);
        [first, second, ended, with_headers].into_iter().for_each(|thread| idle.put(thread));
        drop(gone);
        let taken = |with_headers, partition, offset| {
            idle.take(with_headers, partition, offset).map(|thread| thread.stands.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(taken(false, 0, 100), Some(vec![0]), "it goes on");
        assert_eq!(taken(false, 7, 100), Some(vec![1, 2]), "the one that goes on has ended");
        assert_eq!(taken(false, 0, 100), None, "what is left brings headers, too");
        assert_eq!(taken(true, 0, 50), Some(vec![0]), "none goes on there");
    }
}
