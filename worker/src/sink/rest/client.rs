//! Requests to a REST catalog, each with its credential; what may be asked twice, and what may not.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::RestConfig;
use super::auth::{Auth, NoToken};
use crate::access::Access;
use crate::failure::chain;
use crate::sink::SinkError;
use crate::storage::is_loopback;

/// How long a catalog may take to take up a connection, and to answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// How often what changes nothing is asked.
const TRIES: usize = 4;
/// Bytes of the largest reply that is read.
const LARGEST: usize = 512 << 20;
/// Characters of a catalog's message that are passed on.
const MESSAGE: usize = 500;

/// A catalog's answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    what: String,
    body: Vec<u8>,
}

/// What came of a request that is made once.
pub(super) enum Heard {
    /// An answer.
    Reply(Reply),
    /// The request may have arrived, and there is no answer: why.
    Nothing(String),
}

/// The protocol's error document.
#[derive(Deserialize)]
struct ErrorDocument {
    error: ErrorModel,
}

#[derive(Deserialize)]
struct ErrorModel {
    message: Option<String>,
    r#type: Option<String>,
}

impl Reply {
    /// Whether it is an error that the protocol has, and not one of something on the way.
    pub(super) fn is_of_the_protocol(&self) -> bool {
        serde_json::from_slice::<ErrorDocument>(&self.body).is_ok()
    }

    /// Whether the catalog cannot answer just now.
    fn is_for_later(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// What it says, in a line.
    fn said(&self) -> String {
        let told = match serde_json::from_slice::<ErrorDocument>(&self.body) {
            Ok(ErrorDocument { error }) => {
                let kind = error.r#type.map(|kind| format!("{kind}: ")).unwrap_or_default();
                format!("{kind}{}", error.message.unwrap_or_default())
            }
            Err(_) => String::from_utf8_lossy(&self.body).into_owned(),
        };
        let told: String = told.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MESSAGE).collect();
        if told.is_empty() { self.status.to_string() } else { format!("{}: {told}", self.status) }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Lost {
    /// The request never left, for want of a token.
    #[error("{0}")]
    Refused(String),
    /// The request never left.
    #[error("{0}")]
    Unsent(String),
    /// It may have arrived.
    #[error("{0}")]
    Unanswered(String),
}

impl From<NoToken> for Lost {
    fn from(none: NoToken) -> Self {
        match none {
            NoToken::Unreachable(why) => Self::Unsent(why),
            NoToken::Refused(why) => Self::Refused(why),
        }
    }
}

/// Speaks to one catalog.
#[derive(Debug)]
pub(super) struct Client {
    catalog: String,
    uri: String,
    prefix: Option<String>,
    auth: Auth,
    http: reqwest::Client,
    /// Uses no connection twice: one that was closed meanwhile would leave open whether a commit was sent.
    commits: reqwest::Client,
}

impl Client {
    /// A client of the catalog that `config` describes; asks nothing of it yet.
    pub(super) fn new(config: &RestConfig, access: &Access) -> Result<Self, String> {
        let uri = config.uri.trim_end_matches('/').to_owned();
        check_address("uri", &uri, config.allow_http)?;
        let auth = Auth::new(&uri, &config.credential, config.allow_http, access)?;
        let mut headers = HeaderMap::new();
        headers.insert("x-iceberg-access-delegation", HeaderValue::from_static("vended-credentials"));
        for (name, value) in &config.headers {
            let bad =
                || format!("header {name:?} cannot be sent: a name is of letters, digits and -, a value is ASCII");
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).map_err(|_| bad())?, value);
        }
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone())
                .redirect(Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT)
                .timeout(ANSWER)
        };
        let built = |builder: reqwest::ClientBuilder| builder.build().map_err(|error| chain(&error));
        let (http, commits) = (built(builder())?, built(builder().pool_max_idle_per_host(0).http1_only())?);
        Ok(Self { catalog: config.name.clone(), uri, prefix: None, auth, http, commits })
    }

    /// What stands between `/v1/` and the paths of namespaces and tables; the catalog says it, ready to be used.
    pub(super) fn set_prefix(&mut self, prefix: Option<String>) {
        self.prefix = prefix.map(|prefix| prefix.trim_matches('/').to_owned()).filter(|prefix| !prefix.is_empty());
    }

    /// Asks for what changes nothing, several times where no answer comes.
    pub(super) async fn get<'a>(
        &self,
        path: &[&str],
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Reply, SinkError> {
        let url = self.url(path, query)?;
        self.ask(&url, || self.http.request(Method::GET, url.clone())).await
    }

    /// Asks for a change that does no harm when it is made twice.
    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Reply, SinkError> {
        let url = self.url(path, [])?;
        self.ask(&url, || with_body(self.http.request(Method::POST, url.clone()), body)).await
    }

    /// Asks for a change once, whatever is heard.
    ///
    /// # Errors
    /// When the request certainly was not made.
    pub(super) async fn post_once(&self, path: &[&str], body: &Value) -> Result<Heard, SinkError> {
        let url = self.url(path, [])?;
        let what = format!("POST {url}");
        let request = with_body(self.commits.request(Method::POST, url), body);
        let request = self.auth.sign(request, &self.http).await.map_err(|none| self.lost(&what, none.into()))?;
        match send(&what, request).await {
            Ok(reply) => {
                if reply.status == StatusCode::UNAUTHORIZED {
                    self.auth.forget();
                }
                Ok(Heard::Reply(reply))
            }
            Err(lost @ (Lost::Refused(_) | Lost::Unsent(_))) => Err(self.lost(&what, lost)),
            Err(Lost::Unanswered(why)) => Ok(Heard::Nothing(format!("{what}: {why}"))),
        }
    }

    async fn ask(&self, url: &Url, request: impl Fn() -> RequestBuilder) -> Result<Reply, SinkError> {
        let request = &request;
        let what = &format!("{} {url}", request().build().map_or(Method::GET, |request| request.method().clone()));
        let once = || async move {
            let signed = self.auth.sign(request(), &self.http).await?;
            let reply = send(what, signed).await?;
            if reply.status == StatusCode::UNAUTHORIZED && self.auth.forget() {
                let signed = self.auth.sign(request(), &self.http).await?;
                return send(what, signed).await;
            }
            if reply.is_for_later() { Err(Lost::Unanswered(reply.said())) } else { Ok(reply) }
        };
        let waits = ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_times(TRIES - 1);
        let asked = once.retry(waits).when(|lost| !matches!(lost, Lost::Refused(_))).await;
        asked.map_err(|lost| self.lost(what, lost))
    }

    fn url<'a>(&self, path: &[&str], query: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Url, SinkError> {
        let root = match &self.prefix {
            Some(prefix) if path.first() != Some(&"config") => format!("{}/v1/{prefix}", self.uri),
            _ => format!("{}/v1", self.uri),
        };
        let what = format!("{root} is no address");
        let bad = || SinkError::Spec { subject: format!("catalog {}", self.catalog), what: what.clone() };
        let mut url = Url::parse(&root).map_err(|_| bad())?;
        url.path_segments_mut().map_err(|()| bad())?.extend(path);
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    fn lost(&self, doing: &str, lost: Lost) -> SinkError {
        let (catalog, doing, source) = (self.catalog.clone(), doing.to_owned(), lost.to_string().into());
        match lost {
            Lost::Refused(_) => SinkError::Catalog { catalog, doing, source },
            Lost::Unsent(_) | Lost::Unanswered(_) => SinkError::Unreachable { catalog, doing, source },
        }
    }

    /// The error that `reply` is.
    pub(super) fn refused(&self, reply: &Reply) -> SinkError {
        let way_out = match reply.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => " (check the catalog's `token` or `oauth2`)",
            StatusCode::NOT_FOUND if !reply.is_of_the_protocol() => " (is `uri` the address of an Iceberg catalog?)",
            _ => "",
        };
        SinkError::Catalog {
            catalog: self.catalog.clone(),
            doing: reply.what.clone(),
            source: format!("{}{way_out}", reply.said()).into(),
        }
    }

    /// The document in `reply`.
    pub(super) fn parse<T: DeserializeOwned>(&self, reply: &Reply) -> Result<T, SinkError> {
        serde_json::from_slice(&reply.body).map_err(|error| SinkError::Catalog {
            catalog: self.catalog.clone(),
            doing: reply.what.clone(),
            source: format!("the answer cannot be understood: {error}").into(),
        })
    }
}

fn with_body(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.to_string())
}

async fn send(what: &str, request: RequestBuilder) -> Result<Reply, Lost> {
    let lost = |error: reqwest::Error| {
        let error = error.without_url();
        let why = chain(&error);
        if error.is_connect() || error.is_builder() { Lost::Unsent(why) } else { Lost::Unanswered(why) }
    };
    let mut response = request.send().await.map_err(lost)?;
    let mut body = Vec::new();
    // The status alone is no answer: a connection that breaks here leaves everything open.
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST {
            return Err(Lost::Unanswered(format!("the answer has more than {LARGEST} bytes")));
        }
    }
    Ok(Reply { status: response.status(), what: what.to_owned(), body })
}

/// Checks an address: https, or http to this machine or where it is meant; no user and password in it.
pub(super) fn check_address(key: &str, address: &str, allow_http: bool) -> Result<(), String> {
    let url = Url::parse(address).map_err(|error| format!("{key} is no address: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{key} must not hold a user or password: name them by from_env or from_file"));
    }
    if url.query().is_some() || url.fragment().is_some() || url.host().is_none() {
        return Err(format!("{key} {address} is not an address: write https://host/path"));
    }
    if url.scheme() == "https" || (url.scheme() == "http" && (allow_http || is_loopback(address))) {
        return Ok(());
    }
    Err(format!("{key} {address} is not encrypted: use https, or set allow_http if that is meant"))
}
