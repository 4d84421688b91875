//! A catalog behind Iceberg's REST protocol.
//!
//! A commit is one request that is never made again: its requirements carry the compare, and the catalog does the swap.
//! 409 says that it lost a race; a time-out, a broken connection, a 5xx and a reply that makes no sense say nothing, and
//! only reading the table tells. Credentials that a catalog hands out with a table go into that table's storage and
//! nowhere else. Refused: requests over plain http to another machine, redirects, remote signing.

mod auth;
mod client;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use iceberg::{TableCreation, TableIdent, TableRequirement, TableUpdate};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_common::spec::model::{Secret, StorageSpec};

use self::client::{Client, Heard, Reply};
use super::{LoadedTable, SinkError, Swap, TableCommitter};
use crate::access::Access;
use crate::failpoint::{self, hit};
use crate::storage::{Lake, Renew, S3};

/// Where a REST catalog is, and with whose right it is spoken to. Secrets are only named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestConfig {
    /// The catalog's name in the configuration.
    pub name: String,
    /// Its address, without `/v1`. `http://` is for this machine, or where `allow_http` says so.
    pub uri: String,
    /// The warehouse, in whatever words the catalog has for one.
    pub warehouse: Option<String>,
    /// What it is shown with each request.
    pub credential: RestCredential,
    /// More headers of each request.
    pub headers: BTreeMap<String, String>,
    /// How buckets are reached; what the catalog hands out with a table stands above it.
    pub storage: Option<StorageSpec>,
    /// Whether `http://` to another machine is meant.
    pub allow_http: bool,
}

/// What a REST catalog is shown with each request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RestCredential {
    /// Nothing.
    #[default]
    None,
    /// This bearer token.
    Token(Secret),
    /// A token that is asked for with an OAuth2 client's id and secret, and again before it ends.
    OAuth2 {
        /// The client's id.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// What the token is to be good for; default `catalog`.
        scope: Option<String>,
        /// Where tokens are given out; default the catalog's own `/v1/oauth/tokens`.
        token_uri: Option<String>,
    },
}

/// A catalog behind Iceberg's REST protocol.
#[derive(Debug)]
pub struct RestCatalog {
    client: Arc<Client>,
    /// As the configuration and the catalog's defaults say; `None` reaches no bucket.
    storage: Option<S3>,
    /// The storage that was last handed out, so that its connections are used again.
    last: Mutex<Option<(S3, Lake)>>,
}

/// What `/v1/config` answers.
#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    defaults: HashMap<String, String>,
    #[serde(default)]
    overrides: HashMap<String, String>,
}

/// What loading and creating a table answer, and a commit in part.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Found {
    metadata_location: Option<String>,
    metadata: TableMetadata,
    #[serde(default)]
    config: HashMap<String, String>,
    #[serde(default)]
    storage_credentials: Vec<Vended>,
}

/// Credentials for the files below a prefix.
#[derive(Deserialize)]
struct Vended {
    prefix: String,
    #[serde(default)]
    config: HashMap<String, String>,
}

impl Found {
    /// How the table's buckets are reached: as `own` says, and what came with the table above it.
    fn storage(&self, own: Option<S3>) -> Result<Option<S3>, String> {
        let mut properties = self.config.clone();
        let near = self.storage_credentials.iter().filter(|given| self.metadata.location().starts_with(&given.prefix));
        if let Some(nearest) = near.max_by_key(|given| given.prefix.len()) {
            properties.extend(nearest.config.clone());
        }
        if properties.get("s3.remote-signing-enabled").is_some_and(|on| on == "true") && own.is_none() {
            return Err(
                "the catalog wants to sign each request to the store itself, which Tidegate cannot use: have it \
                        hand out credentials, or give the catalog `storage`"
                    .to_owned(),
            );
        }
        storage(own, &properties)
    }
}

/// Asks for a table again, for the keys that come with it.
#[derive(Debug)]
struct Renewing {
    client: Arc<Client>,
    ident: TableIdent,
    storage: Option<S3>,
}

#[async_trait]
impl Renew for Renewing {
    async fn renew(&self) -> Result<S3, String> {
        let told = |error: SinkError| crate::failure::chain(&error);
        let path = ["namespaces", &RestCatalog::namespace(&self.ident), "tables", self.ident.name()];
        let reply = self.client.get(&path, []).await.map_err(told)?;
        if reply.status != StatusCode::OK {
            return Err(told(self.client.refused(&reply)));
        }
        let found: Found = self.client.parse(&reply).map_err(told)?;
        found.storage(self.storage.clone())?.ok_or_else(|| format!("{} comes without keys now", self.ident))
    }
}

impl RestCatalog {
    /// Speaks to the catalog for the first time, and learns how it wants to be spoken to.
    ///
    /// # Errors
    /// What the configuration asks for and cannot be, a secret that is not there, a catalog that does not answer or
    /// does not know who asks.
    pub async fn open(config: &RestConfig) -> Result<Self, SinkError> {
        let bad = |what| SinkError::Spec { subject: format!("catalog {}", config.name), what };
        let access = Access::local();
        let mut client = Client::new(config, &access).map_err(bad)?;
        let own = config.storage.as_ref().map(|storage| S3::of(storage, &access)).transpose().map_err(bad)?;
        let warehouse = config.warehouse.iter().map(|warehouse| ("warehouse", warehouse.as_str()));
        let reply = client.get(&["config"], warehouse).await?;
        let Settings { defaults, overrides } = match reply.status {
            StatusCode::OK => client.parse(&reply)?,
            _ => return Err(client.refused(&reply)),
        };
        client.set_prefix(overrides.get("prefix").or_else(|| defaults.get("prefix")).cloned());
        let own = match own {
            Some(own) => Some(own),
            None => storage(None, &defaults).map_err(bad)?,
        };
        let storage = storage(own, &overrides).map_err(bad)?;
        Ok(Self { client: Arc::new(client), storage, last: Mutex::default() })
    }

    /// The path of a table's namespace, below the prefix.
    fn namespace(ident: &TableIdent) -> String {
        ident.namespace().as_ref().join("\u{1f}")
    }

    fn table(&self, ident: &TableIdent, reply: &Reply) -> Result<LoadedTable, SinkError> {
        let found: Found = self.client.parse(reply)?;
        let lake = self.lake(ident, &found)?;
        LoadedTable::new(ident.clone(), Arc::new(found.metadata), found.metadata_location.unwrap_or_default(), lake)
    }

    /// Where the table's files stand, with the credentials that came with it.
    fn lake(&self, ident: &TableIdent, found: &Found) -> Result<Lake, SinkError> {
        let bad = |what| SinkError::Preflight { table: ident.to_string(), what };
        let Some(s3) = found.storage(self.storage.clone()).map_err(bad)? else { return Ok(Lake::local()) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, lake)) = last.as_ref().filter(|(held, _)| *held == s3) {
            return Ok(lake.clone());
        }
        let renew = Renewing { client: self.client.clone(), ident: ident.clone(), storage: self.storage.clone() };
        let lake = Lake::with_renewed(s3.clone(), Arc::new(renew));
        *last = Some((s3, lake.clone()));
        Ok(lake)
    }

    async fn create_namespace(&self, ident: &TableIdent) -> Result<(), SinkError> {
        let parts = ident.namespace().as_ref();
        for depth in 1..=parts.len() {
            let body = json!({"namespace": parts.get(..depth), "properties": {}});
            let reply = self.client.post(&["namespaces"], &body).await?;
            if !reply.status.is_success() && reply.status != StatusCode::CONFLICT {
                return Err(self.client.refused(&reply));
            }
        }
        Ok(())
    }
}

/// `own`, with what a catalog's properties say instead; they alone, where they hold keys of a store.
fn storage(own: Option<S3>, properties: &HashMap<String, String>) -> Result<Option<S3>, String> {
    if own.is_none() && !properties.contains_key("s3.access-key-id") {
        return Ok(None);
    }
    own.unwrap_or_default().with_properties(properties).map(Some)
}

/// What is asked of a catalog that is to create a table.
fn creation_of(mut creation: TableCreation) -> Value {
    let version = creation.format_version as u8;
    creation.properties.insert("format-version".to_owned(), version.to_string());
    json!({
        "name": creation.name,
        "location": creation.location,
        "schema": creation.schema,
        "partition-spec": creation.partition_spec.map(|spec| spec.with_spec_id(0)),
        "write-order": creation.sort_order,
        "properties": creation.properties,
        "stage-create": false,
    })
}

#[async_trait]
impl TableCommitter for RestCatalog {
    async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, SinkError> {
        let reply = self.client.get(&["namespaces", &Self::namespace(ident), "tables", ident.name()], []).await?;
        match reply.status {
            StatusCode::OK => self.table(ident, &reply).map(Some),
            StatusCode::NOT_FOUND if reply.is_of_the_protocol() => Ok(None),
            _ => Err(self.client.refused(&reply)),
        }
    }

    async fn create(&self, ident: &TableIdent, creation: TableCreation) -> Result<LoadedTable, SinkError> {
        if let Some(table) = self.load(ident).await? {
            return Ok(table);
        }
        let (namespace, body) = (Self::namespace(ident), creation_of(creation));
        let path = ["namespaces", &namespace, "tables"];
        let mut reply = self.client.post(&path, &body).await?;
        if reply.status == StatusCode::NOT_FOUND {
            self.create_namespace(ident).await?;
            reply = self.client.post(&path, &body).await?;
        }
        match reply.status {
            StatusCode::OK => self.table(ident, &reply),
            StatusCode::CONFLICT => self.load(ident).await?.ok_or_else(|| self.client.refused(&reply)),
            _ => Err(self.client.refused(&reply)),
        }
    }

    async fn compare_and_swap(
        &self,
        base: &LoadedTable,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<Swap, SinkError> {
        let ident = base.table().identifier();
        let unknown = |source| SinkError::Unknown { table: ident.to_string(), source };
        let body = json!({"identifier": ident, "requirements": requirements, "updates": updates});
        hit(failpoint::COMMIT_BEFORE_SWAP)?;
        let path = ["namespaces", &Self::namespace(ident), "tables", ident.name()];
        let reply = match self.client.post_once(&path, &body).await? {
            Heard::Reply(reply) => reply,
            Heard::Nothing(why) => return Err(unknown(why.into())),
        };
        match reply.status {
            StatusCode::OK => {
                // It is done, whatever follows: what cannot be understood of the reply is read anew.
                let understood = || {
                    hit(failpoint::COMMIT_AFTER_SWAP)?;
                    let found: Found = self.client.parse(&reply)?;
                    let location = found.metadata_location.unwrap_or_default();
                    LoadedTable::new(ident.clone(), Arc::new(found.metadata), location, base.lake().clone())
                };
                understood().map(Swap::Done).map_err(|error| unknown(Box::new(error)))
            }
            StatusCode::CONFLICT => Ok(Swap::Conflict),
            status if status.is_client_error() || status.is_redirection() => Err(self.client.refused(&reply)),
            _ => Err(unknown(self.client.refused(&reply).into())),
        }
    }
}
