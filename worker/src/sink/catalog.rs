//! Catalogs: what a table is right now, and the one compare-and-swap that changes it.
//!
//! This knows no transactions, retries or rebasing: a commit is judged and staged on a loaded base, and lands on that
//! base or not at all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::io::FileIO;
use iceberg::spec::TableMetadataRef;
use iceberg::table::Table;
use iceberg::{Runtime, TableCreation, TableIdent, TableRequirement, TableUpdate};
use tidegate_common::spec::model::StorageSpec;
use tokio::sync::OnceCell;

use super::SinkError;
use super::rest::{RestCatalog, RestConfig};
use super::sqlite::SqliteCatalog;
use crate::access::Access;
use crate::storage::{Lake, S3};

/// A table as it was when it was loaded.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    table: Table,
    metadata_location: String,
    lake: Lake,
}

impl LoadedTable {
    /// The table `ident` whose metadata stands at `metadata_location` and whose files in `lake`. Needs a tokio runtime
    /// around it.
    pub fn new(
        ident: TableIdent,
        metadata: TableMetadataRef,
        metadata_location: String,
        lake: Lake,
    ) -> Result<Self, SinkError> {
        let doing = || format!("table {ident}: open {metadata_location}");
        let table = Table::builder()
            .runtime(Runtime::try_current().map_err(SinkError::lake(doing()))?)
            .identifier(ident.clone())
            .metadata(metadata)
            .metadata_location(metadata_location.clone())
            .file_io(lake.io().clone())
            .disable_cache()
            .build()
            .map_err(SinkError::lake(doing()))?;
        Ok(Self { table, metadata_location, lake })
    }

    /// Iceberg's own view of it, for scans.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Where its metadata file stands; the base of a compare-and-swap.
    pub fn metadata_location(&self) -> &str {
        &self.metadata_location
    }

    /// Its metadata.
    pub fn metadata(&self) -> TableMetadataRef {
        self.table.metadata_ref()
    }

    /// Where its files stand.
    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// The same, for Iceberg's library.
    pub fn io(&self) -> &FileIO {
        self.table.file_io()
    }
}

/// What became of a compare-and-swap.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub enum Swap {
    /// It is done; the table is this now.
    Done(LoadedTable),
    /// The table is no longer the base; nothing was changed.
    Conflict,
}

/// A catalog that can commit.
#[async_trait]
pub trait TableCommitter: Send + Sync {
    /// The table as it is now, or `None` where there is none.
    async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, SinkError>;

    /// Creates the table and its namespace. Where it exists already, however late that is found out, the table that
    /// is there is returned: the caller checks whether it fits.
    async fn create(&self, ident: &TableIdent, creation: TableCreation) -> Result<LoadedTable, SinkError>;

    /// Applies `updates` iff `requirements` hold of the table at that moment; a SQLite catalog asks more, that the table
    /// still is `base`.
    ///
    /// # Errors
    /// [`SinkError::Unknown`] when the outcome is not known; any other error means that nothing was changed.
    async fn compare_and_swap(
        &self,
        base: &LoadedTable,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<Swap, SinkError>;
}

/// Where a catalog is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogConfig {
    /// Tables of one SQLite file, in the standard schema that PyIceberg's `SqlCatalog` reads and writes.
    Sqlite {
        /// The catalog's name in the file; PyIceberg must be given the same.
        name: String,
        /// The file; created where there is none.
        path: PathBuf,
        /// The folder that new tables are put in: an absolute path, `file://…` or `s3://…`.
        warehouse: String,
        /// How buckets are reached; `None` is none at all.
        storage: Option<StorageSpec>,
    },
    /// A catalog behind Iceberg's REST protocol.
    Rest(RestConfig),
}

enum Entry {
    Configured(CatalogConfig, OnceCell<Arc<dyn TableCommitter>>),
    ToRead(CatalogConfig, OnceCell<Arc<dyn TableCommitter>>),
    Given(Arc<dyn TableCommitter>),
}

/// The catalogs that a worker may write to, by name; each is opened when it is first asked for.
#[derive(Default)]
pub struct Catalogs(BTreeMap<String, Entry>);

impl std::fmt::Debug for Catalogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Catalogs {
    /// Catalogs from their configurations, by name.
    pub fn new(configs: impl IntoIterator<Item = (String, CatalogConfig)>) -> Self {
        let entry = |config| Entry::Configured(config, OnceCell::new());
        Self(configs.into_iter().map(|(name, config)| (name, entry(config))).collect())
    }

    /// As [`Catalogs::new`], for whoever changes nothing: a catalog whose file is not there has no tables, and no file
    /// is made for it.
    pub fn to_read(configs: impl IntoIterator<Item = (String, CatalogConfig)>) -> Self {
        let entry = |name: String, config: CatalogConfig| match &config {
            CatalogConfig::Sqlite { path, .. } if !path.exists() => {
                (name.clone(), Entry::Given(Arc::new(Absent { name })))
            }
            CatalogConfig::Sqlite { .. } | CatalogConfig::Rest(_) => (name, Entry::ToRead(config, OnceCell::new())),
        };
        Self(configs.into_iter().map(|(name, config)| entry(name, config)).collect())
    }

    /// These, and one that is open already.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, committer: Arc<dyn TableCommitter>) -> Self {
        self.0.insert(name.into(), Entry::Given(committer));
        self
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The catalog `name`, opened.
    pub async fn get(&self, name: &str) -> Result<Arc<dyn TableCommitter>, SinkError> {
        match self.0.get(name) {
            Some(Entry::Given(committer)) => Ok(committer.clone()),
            Some(Entry::Configured(config, cell)) => cell.get_or_try_init(|| open(config)).await.cloned(),
            Some(Entry::ToRead(config, cell)) => cell.get_or_try_init(|| open_to_read(config)).await.cloned(),
            None => {
                let known = self.names().collect::<Vec<_>>().join(", ");
                let what = format!("no catalog of this name is configured; there is: {known}");
                Err(SinkError::Spec { subject: format!("catalog {name}"), what })
            }
        }
    }
}

/// A catalog that nobody has made yet, for those who only read.
struct Absent {
    name: String,
}

impl Absent {
    fn only_read(&self) -> SinkError {
        let what = "it was opened to be read, and is not there".to_owned();
        SinkError::Spec { subject: format!("catalog {}", self.name), what }
    }
}

#[async_trait]
impl TableCommitter for Absent {
    async fn load(&self, _: &TableIdent) -> Result<Option<LoadedTable>, SinkError> {
        Ok(None)
    }

    async fn create(&self, _: &TableIdent, _: TableCreation) -> Result<LoadedTable, SinkError> {
        Err(self.only_read())
    }

    async fn compare_and_swap(
        &self,
        _: &LoadedTable,
        _: Vec<TableUpdate>,
        _: Vec<TableRequirement>,
    ) -> Result<Swap, SinkError> {
        Err(self.only_read())
    }
}

async fn open(config: &CatalogConfig) -> Result<Arc<dyn TableCommitter>, SinkError> {
    match config {
        CatalogConfig::Sqlite { name, path, warehouse, storage } => {
            let lake = lake(name, storage.as_ref())?;
            Ok(Arc::new(SqliteCatalog::open(name, path, warehouse, lake).await?))
        }
        CatalogConfig::Rest(rest) => Ok(Arc::new(RestCatalog::open(rest).await?)),
    }
}

async fn open_to_read(config: &CatalogConfig) -> Result<Arc<dyn TableCommitter>, SinkError> {
    match config {
        CatalogConfig::Sqlite { name, path, warehouse, storage } => {
            let lake = lake(name, storage.as_ref())?;
            Ok(Arc::new(SqliteCatalog::open_to_read(name, path, warehouse, lake).await?))
        }
        CatalogConfig::Rest(rest) => Ok(Arc::new(RestCatalog::open(rest).await?)),
    }
}

/// Where a catalog's tables stand. Who configures a catalog is whom the worker belongs to: any secret may be named.
fn lake(catalog: &str, storage: Option<&StorageSpec>) -> Result<Lake, SinkError> {
    let bad = |what| SinkError::Spec { subject: format!("catalog {catalog}"), what };
    let Some(storage) = storage else { return Ok(Lake::local()) };
    Ok(Lake::with_buckets(S3::of(storage, &Access::local()).map_err(bad)?))
}
