//! Prepares an output's table: creates it where it may, or checks that what is there fits the query.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{FormatVersion, Schema, SchemaRef, Transform};
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use tidegate_proto::v1;

use super::partition;
use super::replace::{self, Found, Planned};
use super::schema::{misfits, table_schema};
use super::scope::Scope;
use super::settings::{WriterSettings, parquet_properties, target_file_bytes};
use super::window::Placer;
use super::{Catalogs, LoadedTable, SinkError, marker, occupied};

/// The table that an output goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputTarget {
    /// The catalog's name in the configuration.
    pub catalog: String,
    /// The namespace, outermost part first; at least one.
    pub namespace: Vec<String>,
    /// The table's name.
    pub name: String,
    /// Partition fields of a table to be created: `month(at)`, `bucket(16, id)`, `origin`. A table that is there
    /// must be partitioned so, unless this is empty.
    pub partition_by: Vec<String>,
    /// Properties of a table to be created.
    pub properties: BTreeMap<String, String>,
}

impl OutputTarget {
    /// `catalog.namespace.table`.
    pub fn full_name(&self) -> String {
        format!("{}.{}.{}", self.catalog, self.namespace.join("."), self.name)
    }

    /// Its name within the catalog.
    pub fn ident(&self) -> Result<TableIdent, SinkError> {
        let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['/', '\\', '\0']);
        if bad(&self.name) || self.namespace.iter().any(|part| bad(part) || part.contains('.')) {
            let what = "a name has an empty part, or one that a path cannot have".to_owned();
            return Err(SinkError::Spec { subject: format!("table {}", self.full_name()), what });
        }
        let namespace = NamespaceIdent::from_vec(self.namespace.clone()).map_err(|_| SinkError::Spec {
            subject: format!("table {}", self.full_name()),
            what: "it has no namespace; write namespace.table".to_owned(),
        })?;
        Ok(TableIdent::new(namespace, self.name.clone()))
    }

    fn preflight(&self, what: String) -> SinkError {
        SinkError::Preflight { table: self.full_name(), what }
    }

    /// The table is not there where it must be.
    pub(super) fn gone(&self) -> SinkError {
        self.preflight("it does not exist (any more)".to_owned())
    }

    fn spec(&self, what: impl std::fmt::Display) -> SinkError {
        SinkError::Spec { subject: format!("table {}", self.full_name()), what: what.to_string() }
    }
}

/// Loads the table of an output, which must be there.
pub async fn load(catalogs: &Catalogs, target: &OutputTarget) -> Result<LoadedTable, SinkError> {
    let loaded = catalogs.get(&target.catalog).await?.load(&target.ident()?).await?;
    loaded.ok_or_else(|| target.gone())
}

/// Creates the table for a query whose result is `query` where it is missing and `create` allows it, checks it where
/// it is there, and pins it. Without `create` a missing table is described with an empty uuid. Where `scope` replaces
/// its window, whole partitions must make that up.
///
/// # Errors
/// [`SinkError::Spec`] for what the spec asks of a table and cannot have, [`SinkError::Preflight`] with a line for
/// each column that does not fit, and for a window that cannot be replaced.
pub async fn prepare(
    catalogs: &Catalogs,
    target: &OutputTarget,
    query: &ArrowSchema,
    create: bool,
    scope: &Scope,
) -> Result<v1::PreparedOutput, SinkError> {
    let committer = catalogs.get(&target.catalog).await?;
    let ident = target.ident()?;
    if let Some(table) = committer.load(&ident).await? {
        return check(&table, target, query, scope).await;
    }
    let creation = creation(target, query, scope)?;
    if !create {
        let columns = columns(&creation.schema);
        return Ok(v1::PreparedOutput { table: target.full_name(), created: true, columns, ..Default::default() });
    }
    let table = committer.create(&ident, creation).await?;
    let prepared = check(&table, target, query, scope).await?;
    Ok(v1::PreparedOutput { created: true, ..prepared })
}

/// Bytes that a data file of `target`'s table is to be near: as the table says, or, where there is none or there are no
/// `catalogs` to ask, as it would be created.
///
/// # Errors
/// [`SinkError::Preflight`] for a property that is no number.
pub async fn file_bytes(catalogs: Option<&Catalogs>, target: &OutputTarget) -> Result<u64, SinkError> {
    let loaded = match catalogs {
        Some(catalogs) => catalogs.get(&target.catalog).await?.load(&target.ident()?).await?,
        None => None,
    };
    let bytes = match &loaded {
        Some(table) => target_file_bytes(table.metadata().properties()),
        None => target_file_bytes(&target.properties.clone().into_iter().collect()),
    };
    Ok(bytes.map_err(|what| target.preflight(what))? as u64)
}

/// Checks a table that is there against the query, and describes it.
async fn check(
    table: &LoadedTable,
    target: &OutputTarget,
    query: &ArrowSchema,
    scope: &Scope,
) -> Result<v1::PreparedOutput, SinkError> {
    let metadata = table.metadata();
    let lines = misfits(query, metadata.current_schema());
    if !lines.is_empty() {
        return Err(target.preflight(format!("the query's columns do not fit it:\n  {}", lines.join("\n  "))));
    }
    check_partition(target, table)?;
    if scope.replaces {
        check_replaces(target, table, scope).await?;
    }
    let marked = |branch: &str| metadata.properties().get(&marker::key(&scope.backfill, branch)).cloned();
    WriterSettings::of(table, metadata.current_schema_id(), metadata.default_partition_spec_id())?;
    Ok(v1::PreparedOutput {
        table: target.full_name(),
        uuid: metadata.uuid().to_string(),
        location: metadata.location().to_owned(),
        schema_id: metadata.current_schema_id(),
        spec_id: metadata.default_partition_spec_id(),
        created: false,
        marker: marked(marker::MAIN).unwrap_or_default(),
        columns: columns(metadata.current_schema()),
        source: Vec::new(),
        rows_before: occupied::rows(table, scope).await?,
        sequence_before: metadata.last_sequence_number(),
        branch_marker: marked(&marker::staging_branch(&scope.backfill)).unwrap_or_default(),
        time_column: String::new(),
        head_before: metadata.current_snapshot_id().unwrap_or_default(),
        inputs: Vec::new(),
        window_width: 0,
        window_origin: 0,
    })
}

fn check_partition(target: &OutputTarget, table: &LoadedTable) -> Result<(), SinkError> {
    if target.partition_by.is_empty() {
        return Ok(());
    }
    let metadata = table.metadata();
    let wanted = partition::parse(&target.partition_by, metadata.current_schema()).map_err(|what| target.spec(what))?;
    let fields = metadata.default_partition_spec().fields();
    let same = wanted.fields().len() == fields.len()
        && wanted.fields().iter().zip(fields).all(|(a, b)| a.source_id == b.source_id && a.transform == b.transform);
    if same {
        return Ok(());
    }
    let there = partition::describe(metadata.default_partition_spec(), metadata.current_schema());
    Err(target.preflight(format!(
        "it is partitioned by [{there}], and the spec says [{}]; leave partition_by out to write to it as it is",
        target.partition_by.join(", ")
    )))
}

/// Checks that the window of `scope` can be replaced in a table that is there, and by which files that is proven.
async fn check_replaces(target: &OutputTarget, table: &LoadedTable, scope: &Scope) -> Result<(), SinkError> {
    let metadata = table.metadata();
    if metadata.format_version() == FormatVersion::V1 {
        return Err(target.preflight(V1_CANNOT.to_owned()));
    }
    let schema = metadata.current_schema();
    let fields = metadata.default_partition_spec().fields().iter().map(|field| (field.source_id, field.transform));
    whole_partitions(scope, schema, &fields.collect::<Vec<_>>()).map_err(|what| target.preflight(what))?;
    to_be_replaced(table, scope, schema).await.map(|_| ())
}

const V1_CANNOT: &str = "mode: replace_window needs a table of format version 2 or later, whose files say when they \
                         were written: upgrade it, or append after removing the window's rows";

/// The data files that a replacement of the window of `scope` removes from the table's main branch as it is, and their
/// rows.
///
/// # Errors
/// [`SinkError::Preflight`] where nothing proves whether a file lies in the window.
pub async fn replaced(table: &LoadedTable, scope: &Scope) -> Result<(u64, u64), SinkError> {
    to_be_replaced(table, scope, table.metadata().current_schema()).await
}

async fn to_be_replaced(table: &LoadedTable, scope: &Scope, schema: &SchemaRef) -> Result<(u64, u64), SinkError> {
    let metadata = table.metadata();
    let now = Planned { through: i64::MAX, head: None };
    match replace::find(table, metadata.current_snapshot(), scope, schema, now).await? {
        Found::Removal(removal) => Ok(removal.data()),
        Found::Conflict(what) => Err(SinkError::Preflight { table: table.table().identifier().to_string(), what }),
    }
}

/// Whether whole partitions of `fields` make up the window of `scope`; the error says why not, and the way out.
fn whole_partitions(scope: &Scope, schema: &Schema, fields: &[(i32, Transform)]) -> Result<(), String> {
    let no_time = || {
        "mode: replace_window finds the window's rows by their event time, and the query passes no event-time column \
         of its source on as it is: select it, under whatever name, or use mode: append"
            .to_owned()
    };
    Placer::new(scope, schema).ok_or_else(no_time)?.whole_partitions(fields)
}

fn creation(target: &OutputTarget, query: &ArrowSchema, scope: &Scope) -> Result<TableCreation, SinkError> {
    let mut properties: HashMap<String, String> = target.properties.clone().into_iter().collect();
    let forbidden = |key: &&String| {
        *key == "location"
            || key.starts_with("tidegate.")
            || ["write.data.path", "write.metadata.path"].contains(&key.as_str())
            || *key == "write.folder-storage.path"
            || *key == "write.object-storage.path"
    };
    if let Some(key) = target.properties.keys().find(forbidden) {
        return Err(
            target.spec(format!("property {key}: where a table's files stand is the catalog's to say; leave it out"))
        );
    }
    let version = match properties.remove("format-version").as_deref() {
        None | Some("2") => FormatVersion::V2,
        Some("1") => FormatVersion::V1,
        Some("3") => FormatVersion::V3,
        Some(other) => return Err(target.spec(format!("format-version {other}: there are 1, 2 and 3"))),
    };
    let schema = table_schema(query, version).map_err(|what| target.preflight(what))?;
    let spec = partition::parse(&target.partition_by, &schema).map_err(|what| target.spec(what))?;
    if scope.replaces {
        let fields = spec.fields().iter().map(|field| (field.source_id, field.transform));
        whole_partitions(scope, &schema, &fields.collect::<Vec<_>>()).map_err(|what| target.spec(what))?;
        if version == FormatVersion::V1 {
            return Err(target.spec(V1_CANNOT));
        }
    }
    parquet_properties(&properties).map_err(|what| target.spec(what))?;
    // Stated in the table, so that every other writer follows.
    properties.entry("write.parquet.compression-codec".to_owned()).or_insert_with(|| "zstd".to_owned());
    let mut creation = TableCreation::builder()
        .name(target.name.clone())
        .schema(schema)
        .properties(properties)
        .format_version(version)
        .build();
    creation.partition_spec = (!spec.fields().is_empty()).then_some(spec);
    Ok(creation)
}

fn columns(schema: &Schema) -> Vec<String> {
    schema.as_struct().fields().iter().map(|field| format!("{} {}", field.name, field.field_type)).collect()
}
