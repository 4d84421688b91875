//! What a REST catalog is shown with each request: nothing, a token, or a token that is asked for and kept until it ends.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::RequestBuilder;
use serde::Deserialize;
use tidegate_common::clock::{self, Monotonic};
use url::form_urlencoded;

use super::RestCredential;
use super::client::check_address;
use crate::access::{self, Access};
use crate::failure::chain;

/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a token is used whose end nobody states.
const UNSTATED: Duration = Duration::from_secs(15 * 60);
const SCOPE: &str = "catalog";

/// The credential of one catalog, secrets resolved.
pub(super) enum Auth {
    None,
    Token(String),
    OAuth2 { uri: String, request: String, held: Mutex<Option<(String, Monotonic)>> },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Token(_) => "a token",
            Self::OAuth2 { .. } => "an OAuth2 client",
        })
    }
}

/// Why there is no token.
pub(super) enum NoToken {
    /// Whoever gives them out does not answer, or cannot just now.
    Unreachable(String),
    /// It does not give one to this client.
    Refused(String),
}

/// What whoever gives out tokens answers.
#[derive(Deserialize)]
struct Given {
    access_token: String,
    expires_in: Option<u64>,
}

/// What it answers instead.
#[derive(Deserialize)]
struct NotGiven {
    #[serde(default)]
    error: Option<String>,
    error_description: Option<String>,
}

impl Auth {
    /// The credential that is named, for the catalog at `catalog`.
    pub(super) fn new(
        catalog: &str,
        credential: &RestCredential,
        allow_http: bool,
        access: &Access,
    ) -> Result<Self, String> {
        let resolve = |key: &str, secret| {
            let value = access::resolve_secret(secret, access).map_err(|why| format!("{key}: {why}"))?;
            if value.is_empty() { Err(format!("{key} is empty")) } else { Ok(value) }
        };
        Ok(match credential {
            RestCredential::None => Self::None,
            RestCredential::Token(token) => Self::Token(resolve("token", token)?),
            RestCredential::OAuth2 { client_id, client_secret, scope, token_uri } => {
                let uri = token_uri.clone().unwrap_or_else(|| format!("{catalog}/v1/oauth/tokens"));
                check_address("oauth2.token_uri", &uri, allow_http)?;
                let request = form_urlencoded::Serializer::new(String::new())
                    .append_pair("grant_type", "client_credentials")
                    .append_pair("client_id", client_id)
                    .append_pair("client_secret", &resolve("oauth2.client_secret", client_secret)?)
                    .append_pair("scope", scope.as_deref().unwrap_or(SCOPE))
                    .finish();
                Self::OAuth2 { uri, request, held: Mutex::default() }
            }
        })
    }

    /// `request`, with the credential; asks for a token where there is none that still holds.
    pub(super) async fn sign(
        &self,
        request: RequestBuilder,
        http: &reqwest::Client,
    ) -> Result<RequestBuilder, NoToken> {
        Ok(match self {
            Self::None => request,
            Self::Token(token) => request.bearer_auth(token),
            Self::OAuth2 { uri, request: wanted, held } => {
                let now = clock::monotonic();
                let good = held.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|(_, end)| now < *end);
                if let Some((token, _)) = good {
                    return Ok(request.bearer_auth(token));
                }
                let given = ask(uri, wanted, http).await?;
                let lasts = given.expires_in.map_or(UNSTATED, Duration::from_secs).saturating_sub(MARGIN);
                let token = given.access_token;
                *held.lock().unwrap_or_else(PoisonError::into_inner) = Some((token.clone(), now.after(lasts)));
                request.bearer_auth(token)
            }
        })
    }

    /// Forgets a token that the catalog does not take; whether another can be asked for.
    pub(super) fn forget(&self) -> bool {
        let Self::OAuth2 { held, .. } = self else { return false };
        held.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

async fn ask(uri: &str, wanted: &str, http: &reqwest::Client) -> Result<Given, NoToken> {
    let none = |why: String| format!("no token from {uri}: {why}");
    let lost = |error: reqwest::Error| NoToken::Unreachable(none(chain(&error.without_url())));
    let request = http.post(uri).header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let response = request.body(wanted.to_owned()).send().await.map_err(lost)?;
    let status = response.status();
    let body = response.bytes().await.map_err(lost)?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| NoToken::Refused(none("the answer holds none".to_owned())));
    }
    let said = serde_json::from_slice(&body).unwrap_or(NotGiven { error: None, error_description: None });
    let said = [said.error, said.error_description].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let why = none(format!("{status} {said}"));
    if status.is_server_error() {
        return Err(NoToken::Unreachable(why));
    }
    Err(NoToken::Refused(format!("{why} (check oauth2.client_id and client_secret)")))
}
