//! A catalog in one SQLite file, in the standard schema, so that PyIceberg's `SqlCatalog` reads and writes it too.
//!
//! The table's metadata file is durable before the row that names it is swapped, the swap is one `UPDATE` that
//! compares the row's old value, and an error while it is committed is an error here: nothing is reported done that
//! SQLite did not call done. It never drops a table or deletes a file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use iceberg::compression::CompressionCodec;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use iceberg::{MetadataLocation, TableCreation, TableIdent, TableRequirement, TableUpdate};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::durable;
use super::{Cause, LoadedTable, SinkError, Swap, TableCommitter};
use crate::failpoint::{self, hit};
use crate::storage::Lake;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name));
CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000) NOT NULL,
    PRIMARY KEY (catalog_name, namespace, property_key));";

const BUSY: Duration = Duration::from_secs(5);

/// A catalog in one SQLite file.
#[derive(Debug)]
pub struct SqliteCatalog {
    name: String,
    warehouse: String,
    lake: Lake,
    db: Arc<Mutex<Connection>>,
    /// Files written by old PyIceberg lack the column `iceberg_type`.
    typed: bool,
}

impl SqliteCatalog {
    /// Opens the catalog `name` of the file `path`, which is created where there is none; new tables go below
    /// `warehouse`, an absolute path, `file://…` or `s3://…`, which `lake` reaches.
    pub async fn open(name: &str, path: &Path, warehouse: &str, lake: Lake) -> Result<Self, SinkError> {
        let warehouse = checked_warehouse(name, warehouse, &lake)?;
        let file = path.to_owned();
        let (db, typed) = blocking(name, "open its file", move || connect(&file)).await?;
        Ok(Self { name: name.to_owned(), warehouse, lake, db: Arc::new(Mutex::new(db)), typed })
    }

    /// As [`SqliteCatalog::open`], for whoever changes nothing: the file must be there, and is left in the mode and with
    /// the tables that it has.
    pub async fn open_to_read(name: &str, path: &Path, warehouse: &str, lake: Lake) -> Result<Self, SinkError> {
        let warehouse = checked_warehouse(name, warehouse, &lake)?;
        let file = path.to_owned();
        let (db, typed) = blocking(name, "open its file", move || connect_to_read(&file)).await?;
        Ok(Self { name: name.to_owned(), warehouse, lake, db: Arc::new(Mutex::new(db)), typed })
    }

    /// Runs `work` on the connection, off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SinkError> {
        let db = self.db.clone();
        let locked = move || work(&mut db.lock().unwrap_or_else(PoisonError::into_inner)).map_err(Into::into);
        blocking(&self.name, doing, locked).await
    }

    fn key(&self, ident: &TableIdent) -> [String; 3] {
        [self.name.clone(), ident.namespace().as_ref().join("."), ident.name().to_owned()]
    }

    fn location_of(&self, ident: &TableIdent) -> String {
        format!("{}/{}/{}", self.warehouse, ident.namespace().as_ref().join("/"), ident.name())
    }

    async fn write_metadata(&self, ident: &TableIdent, metadata: &TableMetadata, at: &str) -> Result<(), SinkError> {
        hit(failpoint::COMMIT_BEFORE_METADATA)?;
        let doing = || format!("table {ident}: write {at}");
        let json = serde_json::to_vec(metadata)
            .map_err(|source| SinkError::Lake { doing: doing(), source: Box::new(source) })?;
        let content = match metadata.metadata_compression_codec().map_err(SinkError::lake(doing()))? {
            CompressionCodec::Gzip(_) => gzip(&json).map_err(|source| SinkError::Io { path: at.into(), source })?,
            _ => json,
        };
        let Some(path) = durable::local_path(at) else {
            return self.lake.put_new(at, content.into()).await.map_err(SinkError::lake(doing()));
        };
        blocking(&self.name, "write the table's metadata", move || Ok(durable::put_new(&path, &content))).await?
    }

    async fn swap_row(&self, ident: &TableIdent, from: &str, to: &str) -> Result<bool, SinkError> {
        let [catalog, namespace, name] = self.key(ident);
        let (from, to) = (from.to_owned(), to.to_owned());
        let swapped = self.run("swap the table's row", move |db| {
            db.execute(
                "UPDATE iceberg_tables SET metadata_location = ?1, previous_metadata_location = ?2
                 WHERE catalog_name = ?3 AND table_namespace = ?4 AND table_name = ?5 AND metadata_location = ?2",
                (to, from, catalog, namespace, name),
            )
        });
        match swapped.await {
            Ok(rows) => Ok(rows == 1),
            // A statement that never got the lock was rolled back; anything else may have reached the disk.
            Err(error) if never_ran(&error) => Err(error),
            Err(error) => Err(SinkError::Unknown { table: ident.to_string(), source: Box::new(error) }),
        }
    }

    async fn insert_row(&self, ident: &TableIdent, location: &str) -> Result<bool, SinkError> {
        let [catalog, namespace, name] = self.key(ident);
        let (location, typed) = (location.to_owned(), self.typed);
        self.run("create the table's row", move |db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change.execute(
                "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value)
                 VALUES (?1, ?2, 'exists', 'true') ON CONFLICT DO NOTHING",
                (&catalog, &namespace),
            )?;
            let insert = if typed {
                "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type)
                 VALUES (?1, ?2, ?3, ?4, 'TABLE') ON CONFLICT DO NOTHING"
            } else {
                "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location)
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
            };
            let rows = change.execute(insert, (&catalog, &namespace, &name, &location))?;
            change.commit()?;
            Ok(rows == 1)
        })
        .await
    }
}

#[async_trait]
impl TableCommitter for SqliteCatalog {
    async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, SinkError> {
        let key = self.key(ident);
        let location = self.run("look up a table", move |db| {
            db.query_row(
                "SELECT metadata_location FROM iceberg_tables
                 WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3",
                key,
                |row| row.get::<_, Option<String>>(0),
            )
            .optional()
        });
        let Some(location) = location.await?.flatten() else { return Ok(None) };
        let metadata = TableMetadata::read_from(self.lake.io(), &location)
            .await
            .map_err(SinkError::lake(format!("table {ident}: read {location}")))?;
        LoadedTable::new(ident.clone(), Arc::new(metadata), location, self.lake.clone()).map(Some)
    }

    async fn create(&self, ident: &TableIdent, mut creation: TableCreation) -> Result<LoadedTable, SinkError> {
        if let Some(table) = self.load(ident).await? {
            return Ok(table);
        }
        let doing = || format!("table {ident}: create");
        let location = creation.location.get_or_insert_with(|| self.location_of(ident)).clone();
        let metadata = TableMetadataBuilder::from_table_creation(creation)
            .and_then(TableMetadataBuilder::build)
            .map_err(SinkError::lake(doing()))?
            .metadata;
        let at = MetadataLocation::new_with_metadata(location, &metadata).to_string();
        self.write_metadata(ident, &metadata, &at).await?;
        if self.insert_row(ident, &at).await? {
            return LoadedTable::new(ident.clone(), Arc::new(metadata), at, self.lake.clone());
        }
        self.load(ident).await?.ok_or_else(|| SinkError::Catalog {
            catalog: self.name.clone(),
            doing: doing(),
            source: "somebody created the table and dropped it again; try once more".into(),
        })
    }

    async fn compare_and_swap(
        &self,
        base: &LoadedTable,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<Swap, SinkError> {
        let ident = base.table().identifier();
        let metadata = base.metadata();
        if requirements.iter().any(|requirement| requirement.check(Some(&metadata)).is_err()) {
            return Ok(Swap::Conflict);
        }
        let from = base.metadata_location();
        let mut builder = metadata.as_ref().clone().into_builder(Some(from.to_owned()));
        let doing = || format!("table {ident}: apply a commit to {from}");
        for update in updates {
            builder = update.apply(builder).map_err(SinkError::lake(doing()))?;
        }
        let next = builder.build().map_err(SinkError::lake(doing()))?.metadata;
        let to = next_location(from, &next);
        self.write_metadata(ident, &next, &to).await?;
        hit(failpoint::COMMIT_BEFORE_SWAP)?;
        if !self.swap_row(ident, from, &to).await? {
            return Ok(Swap::Conflict);
        }
        hit(failpoint::COMMIT_AFTER_SWAP)
            .map_err(SinkError::from)
            .and_then(|()| LoadedTable::new(ident.clone(), Arc::new(next), to, self.lake.clone()))
            .map(Swap::Done)
            .map_err(|source| SinkError::Unknown { table: ident.to_string(), source: Box::new(source) })
    }
}

fn gzip(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content)?;
    encoder.finish()
}

/// A fresh name for the metadata file that follows `from`; where another engine named that one its own way, the
/// count starts anew.
fn next_location(from: &str, next: &TableMetadata) -> String {
    match MetadataLocation::from_str(from) {
        Ok(from) => from.with_next_version().with_new_metadata(next),
        Err(_) => MetadataLocation::new_with_metadata(next.location(), next).with_next_version(),
    }
    .to_string()
}

/// The warehouse as tables name it, without a slash at its end.
fn checked_warehouse(name: &str, warehouse: &str, lake: &Lake) -> Result<String, SinkError> {
    let bad = |what| SinkError::Spec { subject: format!("catalog {name}"), what };
    let Some(path) = durable::local_path(warehouse) else {
        lake.object(warehouse).map_err(|why| bad(format!("warehouse {why}")))?;
        return Ok(warehouse.trim_end_matches('/').to_owned());
    };
    if !path.is_absolute() {
        return Err(bad(format!("warehouse {warehouse:?} is neither an absolute path, file://… nor s3://…")));
    }
    Ok(format!("file://{}", path.display()).trim_end_matches('/').to_owned())
}

/// Opens the file and creates what it lacks; says whether tables carry their type.
fn connect(path: &PathBuf) -> Result<(Connection, bool), Cause> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        durable::create_folder(folder)?;
    }
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_millis(200))?;
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        // It lasts once it is set. Where somebody reads just now it fails, which costs waiting, never truth.
        let asked: rusqlite::Result<String> = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        if let Err(error) = asked {
            tracing::warn!(path = %path.display(), %error, "catalog file is not in WAL mode: readers can delay commits");
        }
    }
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch(SCHEMA)?;
    let typed = is_typed(&db)?;
    Ok((db, typed))
}

/// It may write all the same: whoever closes a file in WAL mode last tidies up, and one that only reads cannot.
fn connect_to_read(path: &PathBuf) -> Result<(Connection, bool), Cause> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.busy_timeout(BUSY)?;
    let typed = is_typed(&db)?;
    Ok((db, typed))
}

fn is_typed(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT count(*) FROM pragma_table_info('iceberg_tables') WHERE name = 'iceberg_type'", [], |row| {
        row.get::<_, i64>(0)
    })
    .map(|columns| columns == 1)
}

/// Does blocking `work`; a thread that died is an error like any other.
async fn blocking<T: Send + 'static>(
    catalog: &str,
    doing: &str,
    work: impl FnOnce() -> Result<T, Cause> + Send + 'static,
) -> Result<T, SinkError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|died| Err(died.into()));
    done.map_err(|source| SinkError::Catalog { catalog: catalog.to_owned(), doing: doing.to_owned(), source })
}

/// Whether a statement failed because it never got the database's lock: it changed nothing.
fn never_ran(error: &SinkError) -> bool {
    let SinkError::Catalog { source, .. } = error else { return false };
    let code = source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
