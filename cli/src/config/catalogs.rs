//! The catalogs of a configuration: where each is, and how its tables' files are reached.
//!
//! Credentials are only ever named. Who writes the configuration is whom the worker belongs to, so nothing here is asked
//! of an allow-list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_common::spec::model::{Secret, StorageSpec};
use tidegate_worker::sink::{CatalogConfig, RestConfig, RestCredential};

use super::view::redacted;

/// An Iceberg catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum CatalogSpec {
    /// Tables of one SQLite file, in the schema of `PyIceberg`'s `SqlCatalog`.
    Sqlite(SqliteSpec),
    /// A catalog behind Iceberg's REST protocol.
    Rest(RestSpec),
}

/// Tables of one SQLite file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqliteSpec {
    /// The file; it is made if it is missing.
    pub path: PathBuf,
    /// The folder that new tables are put into: a path, or `s3://bucket/folder`.
    pub warehouse: String,
    /// How buckets are reached: endpoint, region, credentials by reference. Without it no bucket is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
}

/// A catalog behind Iceberg's REST protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestSpec {
    /// Its address, without `/v1`: `https://catalog.example.com`.
    pub uri: String,
    /// The warehouse, in whatever words the catalog has for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warehouse: Option<String>,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A client that tokens are asked for with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2Spec>,
    /// More headers of each request. They are written in clear: no place for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// How buckets are reached, where the catalog does not hand that out with its tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// Whether an `http://` address of another machine is meant. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
}

/// An OAuth2 client, by its credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OAuth2Spec {
    /// The client's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// What tokens are to be good for. Default `catalog`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Where tokens are given out. Default the catalog's own `/v1/oauth/tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_uri: Option<String>,
}

impl RestSpec {
    fn secrets(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        let token = self.token.iter().map(|secret| ("rest.token", secret));
        token.chain(self.oauth2.iter().map(|client| ("rest.oauth2.client_secret", &client.client_secret)))
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.token.is_some() && self.oauth2.is_some() {
            return Err(("rest", "one of token and oauth2 says who asks, not both".to_owned()));
        }
        if !self.uri.starts_with("https://") && !self.uri.starts_with("http://") {
            return Err(("rest.uri", format!("expected https://host/path, found {:?}", redacted(&self.uri))));
        }
        self.secrets().try_for_each(|(key, secret)| check_secret(key, secret))?;
        self.storage.iter().try_for_each(check_storage)
    }

    fn of_worker(self, name: String) -> RestConfig {
        let credential = match (self.token, self.oauth2) {
            (Some(token), _) => RestCredential::Token(token),
            (None, Some(OAuth2Spec { client_id, client_secret, scope, token_uri })) => {
                RestCredential::OAuth2 { client_id, client_secret, scope, token_uri }
            }
            (None, None) => RestCredential::None,
        };
        let Self { uri, warehouse, headers, storage, allow_http, .. } = self;
        RestConfig { name, uri, warehouse, credential, headers, storage, allow_http }
    }

    fn entries(&self) -> Vec<(String, Value)> {
        let mut shown = self.clone();
        shown.uri = redacted(&shown.uri);
        shown.headers.values_mut().for_each(|value| "***".clone_into(value));
        let storage = shown.storage.take();
        let client = shown.oauth2.take();
        let client = client.iter().flat_map(|client| flat("rest.oauth2", client));
        let own = flat("rest", &shown);
        own.into_iter().chain(client).chain(storage.iter().flat_map(|storage| flat("rest.storage", storage))).collect()
    }
}

impl SqliteSpec {
    /// A catalog of this machine's disk, in `folder`.
    pub(crate) fn local(file: &Path, warehouse: &Path) -> Self {
        Self { path: file.to_owned(), warehouse: warehouse.display().to_string(), storage: None }
    }
}

impl CatalogSpec {
    /// With its relative paths below `folder`.
    pub(super) fn below(&mut self, folder: &Path) {
        match self {
            Self::Sqlite(sqlite) => {
                sqlite.path = folder.join(&sqlite.path);
                if !sqlite.warehouse.contains("://") {
                    sqlite.warehouse = folder.join(&sqlite.warehouse).display().to_string();
                }
                sqlite.storage.iter_mut().for_each(|storage| storage_below(storage, folder));
            }
            Self::Rest(rest) => {
                rest.token.iter_mut().for_each(|token| secret_below(token, folder));
                rest.oauth2.iter_mut().for_each(|client| secret_below(&mut client.client_secret, folder));
                rest.storage.iter_mut().for_each(|storage| storage_below(storage, folder));
            }
        }
    }

    /// What is wrong with it: the key, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        match self {
            Self::Sqlite(sqlite) => sqlite.storage.iter().try_for_each(check_storage),
            Self::Rest(rest) => rest.check(),
        }
    }

    /// The catalog `name`, for a worker.
    pub(crate) fn of_worker(&self, name: &str) -> CatalogConfig {
        let name = name.to_owned();
        match self.clone() {
            Self::Sqlite(SqliteSpec { path, warehouse, storage }) => {
                CatalogConfig::Sqlite { name, path, warehouse, storage }
            }
            Self::Rest(rest) => CatalogConfig::Rest(rest.of_worker(name)),
        }
    }

    /// Its keys and values for people; secrets are shown by their names.
    pub(super) fn entries(&self) -> Vec<(String, Value)> {
        match self {
            Self::Sqlite(sqlite) => {
                let mut entries = vec![
                    ("sqlite.path".to_owned(), json!(sqlite.path.display().to_string())),
                    ("sqlite.warehouse".to_owned(), json!(sqlite.warehouse)),
                ];
                entries.extend(sqlite.storage.iter().flat_map(|storage| flat("sqlite.storage", storage)));
                entries
            }
            Self::Rest(rest) => rest.entries(),
        }
    }
}

fn secrets_of(storage: &mut StorageSpec) -> impl Iterator<Item = &mut Secret> {
    [&mut storage.access_key_id, &mut storage.secret_access_key, &mut storage.session_token].into_iter().flatten()
}

fn secret_below(secret: &mut Secret, folder: &Path) {
    if let Some(file) = &mut secret.from_file {
        *file = folder.join(&*file).display().to_string();
    }
}

fn storage_below(storage: &mut StorageSpec, folder: &Path) {
    secrets_of(storage).for_each(|secret| secret_below(secret, folder));
}

fn check_secret(key: &'static str, secret: &Secret) -> Result<(), (&'static str, String)> {
    if secret.from_env.is_some() == secret.from_file.is_some() {
        return Err((key, "exactly one of from_env and from_file says where a secret is".to_owned()));
    }
    Ok(())
}

fn check_storage(storage: &StorageSpec) -> Result<(), (&'static str, String)> {
    let secrets = [
        ("storage.access_key_id", &storage.access_key_id),
        ("storage.secret_access_key", &storage.secret_access_key),
        ("storage.session_token", &storage.session_token),
    ];
    for (key, secret) in secrets {
        secret.iter().try_for_each(|secret| check_secret(key, secret))?;
    }
    if storage.access_key_id.is_some() != storage.secret_access_key.is_some() {
        return Err(("storage", "access_key_id and secret_access_key come together".to_owned()));
    }
    Ok(())
}

/// The entries of `value`, each below `above`.
fn flat(above: &str, value: &impl Serialize) -> Vec<(String, Value)> {
    let Value::Object(entries) = json!(value) else { return Vec::new() };
    entries.into_iter().map(|(key, value)| (format!("{above}.{key}"), value)).collect()
}
