//! Asks a schema registry by Confluent's API for schemas, by their ids and by a subject's versions.
//!
//! It only reads. An answer is no longer than it may be and comes in time; where none comes, it asks again a few times
//! and then says that the registry does not answer, which may pass. What it does not know is no error.

#[cfg(test)]
pub(super) mod tests;

use std::collections::HashSet;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::{RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use tidegate_common::spec::model::RegistrySpec;
use url::Url;

use super::FormatError;
use crate::access::{Access, resolve_secret};
use crate::failure::chain;

/// Bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;
/// Schemas that one schema refers to, over however many others.
const MAX_REFERENCES: usize = 200;
/// How often a question is asked.
const TRIES: usize = 4;
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(20);

/// A client of one registry.
pub(super) struct Registry {
    url: Url,
    /// The address as it may be shown.
    shown: String,
    user: Option<(String, String)>,
    http: reqwest::Client,
}

/// A schema, and those that it refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schema {
    pub(super) text: String,
    /// Each before those that refer to it: what it is called there, and its text.
    pub(super) references: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Clone, Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

/// Why nothing came of a question.
enum Lost {
    /// It may come when it is asked again.
    Unanswered(String),
    Refused(String),
}

/// The subject of the values of `topic`.
pub(super) fn subject(spec: &RegistrySpec, topic: &str) -> String {
    spec.subject.clone().unwrap_or_else(|| format!("{topic}-value"))
}

impl Registry {
    /// A client of the registry that `spec` names; asks nothing of it yet.
    pub(super) fn open(spec: &RegistrySpec, access: &Access) -> Result<Self, FormatError> {
        let no_address = || FormatError::Spec("schema_registry.url is no address".to_owned());
        let url = Url::parse(&spec.url).map_err(|_| no_address())?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(no_address());
        }
        let bare = url.host_str().ok_or_else(no_address)?.to_owned();
        let host = url.port_or_known_default().map_or(bare.clone(), |port| format!("{bare}:{port}"));
        if access.endpoints.as_ref().is_some_and(|allowed| !allowed.iter().any(|a| *a == host || *a == bare)) {
            let what = format!("this worker does not allow the schema registry {host}: add it to allow.endpoints");
            return Err(FormatError::Denied(what));
        }
        let secret = |key: &str, secret| {
            resolve_secret(secret, access).map_err(|e| FormatError::Denied(format!("schema_registry.{key}: {e}")))
        };
        let user = match (&spec.user, &spec.password) {
            (Some(user), Some(password)) => Some((secret("user", user)?, secret("password", password)?)),
            _ => None,
        };
        let http = reqwest::Client::builder()
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .build()
            .map_err(|error| FormatError::Spec(format!("schema_registry: {}", chain(&error))))?;
        Ok(Self { url, shown: host, user, http })
    }

    /// The schema of `kind` (`AVRO`, `PROTOBUF`) with this id, or why there is none.
    pub(super) async fn by_id(&self, id: u32, kind: &str) -> Result<Result<Schema, String>, FormatError> {
        self.schema(&["schemas", "ids", &id.to_string()], kind).await
    }

    /// The schema of `kind` that is a version of `subject`, the latest one where none is given.
    pub(super) async fn version(&self, subject: &str, version: Option<u32>, kind: &str) -> Result<Schema, FormatError> {
        let version = version.map_or("latest".to_owned(), |version| version.to_string());
        let found = self.schema(&["subjects", subject, "versions", &version], kind).await?;
        found.map_err(|what| FormatError::Schema(format!("{what}: see schema_registry.subject and .version")))
    }

    async fn schema(&self, path: &[&str], kind: &str) -> Result<Result<Schema, String>, FormatError> {
        let what = path.join("/");
        let Some(answer) = self.get(path).await? else {
            return Ok(Err(format!("the schema registry {} does not know {what}", self.shown)));
        };
        let found = answer.kind.as_deref().unwrap_or("AVRO");
        if found != kind {
            return Ok(Err(format!("{what} of the schema registry {} is a schema of {found}, not {kind}", self.shown)));
        }
        let references = self.references(answer.references).await?;
        Ok(references.map(|references| Schema { text: answer.schema, references }))
    }

    /// Those schemas and all that they refer to, each behind its own references.
    async fn references(&self, roots: Vec<Reference>) -> Result<Result<Vec<(String, String)>, String>, FormatError> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        // What is asked for still, and what is done once its own references are there.
        let mut open: Vec<(Reference, Option<String>)> = roots.into_iter().rev().map(|root| (root, None)).collect();
        while let Some((reference, text)) = open.pop() {
            if let Some(text) = text {
                found.push((reference.name, text));
                continue;
            }
            if !seen.insert(reference.name.clone()) {
                continue;
            }
            if seen.len() > MAX_REFERENCES {
                return Ok(Err(format!(
                    "a schema of the registry {} refers to more than {MAX_REFERENCES}",
                    self.shown
                )));
            }
            let version = reference.version.to_string();
            let path = ["subjects", &reference.subject, "versions", &version];
            let Some(answer) = self.get(&path).await? else {
                let what = path.join("/");
                return Ok(Err(format!("the schema registry {} lacks {what}, to which a schema refers", self.shown)));
            };
            open.push((reference, Some(answer.schema)));
            open.extend(answer.references.into_iter().rev().map(|reference| (reference, None)));
        }
        Ok(Ok(found))
    }

    async fn get(&self, path: &[&str]) -> Result<Option<Answer>, FormatError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = || {
            let request = self.http.get(url.clone()).header("accept", "application/vnd.schemaregistry.v1+json");
            match &self.user {
                Some((user, password)) => request.basic_auth(user, Some(password)),
                None => request,
            }
        };
        let request = &request;
        let once = || async move { ask(request()).await };
        let waits = ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_times(TRIES - 1);
        let asked = once.retry(waits).when(|lost| matches!(lost, Lost::Unanswered(_))).await;
        let what = path.join("/");
        let body = asked.map_err(|lost| match lost {
            Lost::Unanswered(why) => {
                FormatError::Unreachable { registry: self.shown.clone(), what: format!("GET {what}: {why}") }
            }
            Lost::Refused(why) => {
                FormatError::Schema(format!("the schema registry {} refuses GET {what}: {why}", self.shown))
            }
        })?;
        let Some(body) = body else { return Ok(None) };
        let answer = serde_json::from_slice(&body);
        answer.map(Some).map_err(|e| {
            let what =
                format!("the answer of the schema registry {} to GET {what} cannot be understood: {e}", self.shown);
            FormatError::Schema(what)
        })
    }
}

/// The answer's document; none when there is no such one.
async fn ask(request: RequestBuilder) -> Result<Option<Vec<u8>>, Lost> {
    let lost = |error: reqwest::Error| Lost::Unanswered(chain(&error.without_url()));
    let mut response = request.send().await.map_err(lost)?;
    let status = response.status();
    match status {
        StatusCode::OK | StatusCode::NOT_FOUND => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Lost::Refused(format!("{status} (check schema_registry.user and .password)")));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            return Err(Lost::Unanswered(status.to_string()));
        }
        status if status.is_server_error() => return Err(Lost::Unanswered(status.to_string())),
        status => return Err(Lost::Refused(status.to_string())),
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Lost::Refused(format!("the answer has more than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    if status == StatusCode::OK {
        return Ok(Some(body));
    }
    // That there is no such schema is said with a code; a page that is not there is another thing.
    let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    if said.is_some_and(|said| said.get("error_code").is_some()) {
        return Ok(None);
    }
    Err(Lost::Refused(format!("{status} (is schema_registry.url the address of a schema registry?)")))
}
