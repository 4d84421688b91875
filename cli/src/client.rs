//! The client of a coordinator: the operator API with errors that say what to do.
//!
//! | gRPC status | exit |
//! |---|---|
//! | invalid argument | 2 usage (3 spec invalid, of a spec) |
//! | already exists, failed precondition | 4 refused before anything was done |
//! | unavailable, deadline exceeded, resource exhausted, aborted | 75 temporary |
//! | anything else | 1 failed |

use std::time::Duration;

use futures::stream::{Stream, try_unfold};
use tidegate_common::clock::{self, Monotonic};
use tidegate_proto::v1::{self, operator_client::OperatorClient};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use crate::config::redacted;
use crate::exit::{Error, Exit};
use crate::report::is_at_rest;

/// Where a coordinator listens unless it is told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:7411";

const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take; every one of them is small.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a watch goes on without its coordinator before it gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const MAX_MESSAGE: usize = 64 << 20;

/// A coordinator, from here.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    operator: OperatorClient<Channel>,
    address: String,
}

impl Client {
    /// Connects to the coordinator at `url`.
    ///
    /// # Errors
    /// A URL that is none (usage), and a coordinator that does not answer (temporary).
    pub(crate) async fn connect(url: &str) -> Result<Self, Error> {
        let address = redacted(url);
        let channel = endpoint(url)?.connect().await.map_err(|error| unreachable(&address).because(error))?;
        let operator = OperatorClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { operator, address })
    }

    /// The coordinator's address, fit to be shown.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Starts, attaches to or resumes a backfill.
    pub(crate) async fn apply(&self, request: v1::ApplyRequest) -> Result<v1::ApplyReply, Error> {
        let answer = self.operator.clone().apply(timed(request)).await;
        answer.map(Response::into_inner).map_err(|status| match status.code() {
            Code::InvalidArgument => Error::new(Exit::SpecInvalid, status.message()),
            _ => self.failed(status),
        })
    }

    /// How a backfill stands.
    pub(crate) async fn get(&self, id: &str) -> Result<v1::Backfill, Error> {
        self.answer(self.operator.clone().get(timed(v1::GetRequest { id: id.to_owned() })).await)
    }

    /// As [`Self::get`]; `None` where there is no such backfill.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<v1::Backfill>, Error> {
        match self.operator.clone().get(timed(v1::GetRequest { id: id.to_owned() })).await {
            Err(status) if status.code() == Code::NotFound => Ok(None),
            answer => self.answer(answer).map(Some),
        }
    }

    /// Every backfill.
    pub(crate) async fn list(&self) -> Result<Vec<v1::Backfill>, Error> {
        Ok(self.answer(self.operator.clone().list(timed(v1::ListRequest {})).await)?.backfills)
    }

    /// What happened behind the event with number `after`.
    pub(crate) async fn events(&self, id: &str, after: u64, limit: u32) -> Result<v1::EventsReply, Error> {
        let request = v1::EventsRequest { id: id.to_owned(), after, limit };
        self.answer(self.operator.clone().events(timed(request)).await)
    }

    /// Every record of a backfill's journal as it stands, in order.
    pub(crate) async fn journal(&self, id: &str) -> Result<Streaming<v1::Record>, Error> {
        self.answer(self.operator.clone().journal(v1::GetRequest { id: id.to_owned() }).await)
    }

    /// Asks for a change.
    pub(crate) async fn change(&self, id: &str, change: v1::Change, reason: &str) -> Result<v1::Backfill, Error> {
        let request = v1::ChangeRequest { id: id.to_owned(), change: change.into(), reason: reason.to_owned() };
        self.answer(self.operator.clone().change(timed(request)).await)
    }

    /// A backfill's state now and at each change, until it ends.
    ///
    /// A coordinator that goes away and comes back is waited for; two minutes without it are an error (temporary).
    pub(crate) fn watch(&self, id: &str) -> impl Stream<Item = Result<v1::Backfill, Error>> + Send + use<> {
        let watch = Watch { client: self.clone(), id: id.to_owned(), open: None, lost: None, over: false };
        try_unfold(watch, |mut watch| async move { Ok(watch.next().await?.map(|update| (update, watch))) })
    }

    fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Error> {
        answer.map(Response::into_inner).map_err(|status| self.failed(status))
    }

    /// What `status` means.
    pub(crate) fn failed(&self, status: Status) -> Error {
        let exit = exit_of(status.code());
        match (status.code(), exit) {
            _ if is_lost(&status) => unreachable(&self.address).because(status_text(&status)),
            (Code::Unimplemented, _) => {
                Error::new(exit, format!("the coordinator at {} does not know this", self.address)).hint(
                    "it is of another release, or something else listens there: `tidegate version` says which this is",
                )
            }
            (_, Exit::Temporary) => Error::new(exit, status_text(&status)).hint("try again"),
            _ => Error::new(exit, status_text(&status)),
        }
    }
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::InvalidArgument => Exit::Usage,
        Code::AlreadyExists | Code::FailedPrecondition => Exit::Preflight,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted => Exit::Temporary,
        _ => Exit::Failed,
    }
}

/// Whether there was no answer: the connection is gone. An answer of a coordinator has nothing behind it.
fn is_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

fn status_text(status: &Status) -> String {
    if status.message().is_empty() { status.code().description().to_owned() } else { status.message().to_owned() }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ANSWER);
    request
}

/// What leads to a coordinator at `url`.
///
/// # Errors
/// A URL that is none, or of a scheme that this release does not speak.
pub(crate) fn endpoint(url: &str) -> Result<Endpoint, Error> {
    let shown = redacted(url);
    let bad = |why: &str| {
        Error::usage(format!("{shown:?} is not the address of a coordinator: {why}"))
            .hint(format!("write http://HOST:PORT, as in http://{DEFAULT_ADDRESS}"))
    };
    if url.starts_with("https://") {
        return Err(bad("this release does not speak TLS"));
    }
    if !url.starts_with("http://") {
        return Err(bad("it does not begin with http://"));
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| bad("it is no URL"))?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(20)))
}

fn unreachable(address: &str) -> Error {
    Error::new(Exit::Temporary, format!("no coordinator answers at {address}"))
        .hint("start one with `tidegate coordinator`, or name another with --coordinator URL or TIDEGATE_COORDINATOR")
}

struct Watch {
    client: Client,
    id: String,
    open: Option<Streaming<v1::Backfill>>,
    /// Since when there is no coordinator.
    lost: Option<Monotonic>,
    over: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<v1::Backfill>, Error> {
        if self.over {
            return Ok(None);
        }
        loop {
            match self.try_next().await {
                Ok(Some(update)) => {
                    self.lost = None;
                    self.over = is_at_rest(&update);
                    return Ok(Some(update));
                }
                // the coordinator is shutting down: it ends a watch without a word
                Ok(None) => self.wait(Status::unavailable("the coordinator has ended the watch")).await?,
                Err(status) if is_lost(&status) || exit_of(status.code()) == Exit::Temporary => {
                    self.wait(status).await?;
                }
                Err(status) => return Err(self.client.failed(status)),
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<v1::Backfill>, Status> {
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                let request = v1::GetRequest { id: self.id.clone() };
                closed.insert(self.client.operator.clone().watch(request).await?.into_inner())
            }
        };
        open.message().await
    }

    async fn wait(&mut self, status: Status) -> Result<(), Error> {
        self.open = None;
        let now = clock::monotonic();
        let since = *self.lost.get_or_insert_with(|| {
            tracing::warn!(status = status_text(&status), "the coordinator is gone; waiting for it");
            now
        });
        let gone = now.since(since);
        if gone >= PATIENCE {
            return Err(self.client.failed(status));
        }
        tokio::time::sleep((gone / 4).clamp(Duration::from_millis(200), Duration::from_secs(5))).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_ends_the_process_as_the_contract_says() {
        let codes = (0..=16).map(Code::from_i32);
        let table: Vec<String> = codes.map(|code| format!("{code:?} {}", exit_of(code).code())).collect();
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn an_address_that_is_none_is_refused_before_anything_is_tried() {
        for url in ["localhost:7411", "https://host:1", "http://", "http://a b"] {
            assert_eq!(endpoint(url).unwrap_err().exit(), Exit::Usage, "{url}");
        }
    }

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_is_temporary_and_says_how_to_start_one() {
        // given a port that nobody listens on
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = Client::connect(&format!("http://127.0.0.1:{port}")).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Temporary);
        let said = error.render(crate::style::Paint::plain()).replace(&port.to_string(), "PORT");
        insta::assert_snapshot!(said);
    }
}
