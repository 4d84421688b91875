//! Buckets that speak S3's protocol.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use tidegate_common::spec::model::{Secret, StorageSpec};
use url::{Host, Url};

use crate::access::{self, Access};

/// How often, and for how long, a request that a store did not answer is made again.
const RETRIES: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(60);

/// What it takes to reach buckets, secrets resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct S3 {
    endpoint: Option<String>,
    region: Option<String>,
    virtual_hosted: bool,
    allow_http: bool,
    keys: Keys,
}

/// With whose right a bucket is reached.
#[derive(Clone, Default, PartialEq, Eq)]
enum Keys {
    /// Nobody's: public buckets only.
    #[default]
    None,
    /// This worker's own: its environment, or the role of its machine.
    Ambient,
    /// Those that were named; `until` in milliseconds of processing time, where they end.
    Given { id: String, secret: String, token: Option<String>, until: Option<i64> },
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Ambient => "ambient",
            Self::Given { .. } => "given",
        })
    }
}

impl S3 {
    /// Settings as `storage` says. Without keys, those of this worker where its environment is open to whoever asks,
    /// else none.
    pub(crate) fn of(storage: &StorageSpec, access: &Access) -> Result<Self, String> {
        let value = |name: &str, given: &Option<Secret>| {
            let resolved = given.as_ref().map(|secret| access::resolve_secret(secret, access)).transpose();
            resolved.map_err(|why| format!("storage.{name}: {why}"))
        };
        let id = value("access_key_id", &storage.access_key_id)?;
        let secret = value("secret_access_key", &storage.secret_access_key)?;
        let token = value("session_token", &storage.session_token)?;
        let keys = match (id, secret) {
            (Some(id), Some(secret)) => Keys::Given { id, secret, token, until: None },
            (None, None) if access.env.is_none() => Keys::Ambient,
            (None, None) => Keys::None,
            _ => return Err("storage.access_key_id and storage.secret_access_key come together".to_owned()),
        };
        let (endpoint, region) = (storage.endpoint.clone(), storage.region.clone());
        let virtual_hosted = storage.path_style == Some(false);
        let settings = Self { endpoint, region, virtual_hosted, allow_http: storage.allow_http, keys };
        settings.host()?;
        Ok(settings)
    }

    /// These, with what a catalog's properties (`s3.endpoint` and the like) say instead.
    pub(crate) fn with_properties(&self, properties: &HashMap<String, String>) -> Result<Self, String> {
        let get = |key: &str| properties.get(key).cloned();
        let mut settings = self.clone();
        settings.endpoint = get("s3.endpoint").or(settings.endpoint);
        settings.region = get("s3.region").or_else(|| get("client.region")).or(settings.region);
        if let Some(style) = get("s3.path-style-access") {
            settings.virtual_hosted = style == "false";
        }
        if let (Some(id), Some(secret)) = (get("s3.access-key-id"), get("s3.secret-access-key")) {
            let until = get("s3.session-token-expires-at-ms").and_then(|at| at.parse().ok());
            settings.keys = Keys::Given { id, secret, token: get("s3.session-token"), until };
        }
        settings.host()?;
        Ok(settings)
    }

    /// The host that is spoken to: `host` or `host:port`.
    pub(crate) fn host(&self) -> Result<String, String> {
        host_of(self.endpoint.as_deref(), self.allow_http)
    }

    /// The keys that were named, and when they end.
    pub(super) fn given(&self) -> Option<(AwsCredential, Option<i64>)> {
        let Keys::Given { id, secret, token, until } = &self.keys else { return None };
        let key = AwsCredential { key_id: id.clone(), secret_key: secret.clone(), token: token.clone() };
        Some((key, *until))
    }

    /// Opens `bucket` as the environment of this worker says, which is its operator's word: keys, region, endpoint.
    pub(crate) fn ambient(bucket: &str) -> Result<AmazonS3, String> {
        AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retries())
            .build()
            .map_err(|error| error.to_string())
    }

    /// Opens `bucket`, with the keys of `keys` where there is such; asks nothing of it yet.
    pub(crate) fn open(&self, bucket: &str, keys: Option<AwsCredentialProvider>) -> Result<AmazonS3, String> {
        let mut builder = match &self.keys {
            Keys::Ambient => AmazonS3Builder::from_env(),
            Keys::None => AmazonS3Builder::new().with_skip_signature(true),
            Keys::Given { id, secret, token, .. } => {
                let builder = AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret);
                token.iter().fold(builder, |builder, token| builder.with_token(token))
            }
        };
        if let Some(keys) = keys {
            builder = builder.with_credentials(keys);
        }
        builder = builder
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(self.virtual_hosted)
            .with_retry(retries());
        let is_near = self.endpoint.as_deref().is_some_and(is_loopback);
        builder = builder.with_allow_http(self.allow_http || is_near);
        if let Some(endpoint) = &self.endpoint {
            builder =
                builder.with_endpoint(if self.virtual_hosted { hosted(endpoint, bucket)? } else { endpoint.clone() });
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        builder.build().map_err(|error| error.to_string())
    }
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() }
}

/// The endpoint of one bucket: `https://bucket.host`.
fn hosted(endpoint: &str, bucket: &str) -> Result<String, String> {
    let bad = || format!("storage.endpoint {endpoint} has no name that a bucket can stand before: use path_style");
    let mut url = Url::parse(endpoint).map_err(|_| bad())?;
    let Some(Host::Domain(host)) = url.host() else { return Err(bad()) };
    let host = format!("{bucket}.{host}");
    url.set_host(Some(&host)).map_err(|_| bad())?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The host of a store's endpoint, as an allow-list names it; plain http is for this machine, or where it is allowed.
fn host_of(endpoint: Option<&str>, allow_http: bool) -> Result<String, String> {
    let Some(endpoint) = endpoint else { return Ok("s3.amazonaws.com".to_owned()) };
    let url = Url::parse(endpoint).map_err(|error| format!("storage.endpoint {endpoint}: {error}"))?;
    if url.scheme() != "https" && !(url.scheme() == "http" && (allow_http || is_loopback(endpoint))) {
        return Err(format!("storage.endpoint {endpoint} is not encrypted: use https, or set storage.allow_http"));
    }
    let host = url.host_str().ok_or_else(|| format!("storage.endpoint {endpoint} names no host"))?;
    Ok(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Whether `url` names this very machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
