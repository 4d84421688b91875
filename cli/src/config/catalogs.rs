//! The catalogs of a configuration: where each is, and how its tables' files are reached.
//!
//! Credentials are only ever named. Who writes the configuration is whom the worker belongs to, so nothing here is asked
//! of an allow-list.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_common::spec::model::{Secret, StorageSpec};
use tidegate_worker::sink::CatalogConfig;

/// An Iceberg catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum CatalogSpec {
    /// Tables of one SQLite file, in the schema of `PyIceberg`'s `SqlCatalog`.
    Sqlite(SqliteSpec),
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
        }
    }

    /// What is wrong with it: the key, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        match self {
            Self::Sqlite(sqlite) => sqlite.storage.iter().try_for_each(check_storage),
        }
    }

    /// The catalog `name`, for a worker.
    pub(crate) fn of_worker(&self, name: &str) -> CatalogConfig {
        let name = name.to_owned();
        match self.clone() {
            Self::Sqlite(SqliteSpec { path, warehouse, storage }) => {
                CatalogConfig::Sqlite { name, path, warehouse, storage }
            }
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
                entries.extend(sqlite.storage.iter().flat_map(|storage| storage_entries("sqlite", storage)));
                entries
            }
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

fn storage_entries(catalog: &str, storage: &StorageSpec) -> Vec<(String, Value)> {
    let Value::Object(entries) = json!(storage) else { return Vec::new() };
    entries.into_iter().map(|(key, value)| (format!("{catalog}.storage.{key}"), value)).collect()
}
