//! Iceberg tables: one pinned snapshot, whose data files are splits and whose files' row groups are units.
//!
//! Files whose columns are the table's are read as Parquet files are; those with renamed, added or promoted columns, or
//! with deletes, by Iceberg's own reader, but for equality deletes, which are applied here. Columns are told by field
//! id, never by place. It refuses what it could only read wrongly: files of other formats, deletion vectors, files
//! without field ids in a table without a name mapping, identity partition columns that a file leaves out, and files that
//! stand neither on this machine nor on S3.
//!
//! What a query sees of a table is the schema of the snapshot that the spec names or, where it names none, the table's
//! current one: a column that was renamed or added after the last commit is there as it is now, as for every engine.

mod columns;
mod detail;
mod enumerator;
mod equality;
mod prune;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use async_trait::async_trait;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{DEFAULT_SCHEMA_NAME_MAPPING, NameMapping, SchemaRef, SnapshotRef};
use iceberg::table::Table;
use tidegate_common::spec::model::{EventTimeSpec, IcebergSpec};
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::mpsc;

use self::prune::TimeColumn;
use super::error::SourceError;
use super::event_time::EventTimeRule;
use super::parquet::plain;
use super::store::Store;
use super::{FoundSplit, Source, UnitReader, UnitSpans};
use crate::access::Access;
use crate::storage::Lake;

/// One snapshot of one table.
pub(crate) struct IcebergSource {
    shared: Arc<Shared>,
}

/// What the enumerator and every reader need.
struct Shared {
    name: String,
    table: Table,
    /// None where the table was empty.
    snapshot: Option<SnapshotRef>,
    /// What the queries see.
    fields: SchemaRef,
    /// The same, for Arrow.
    schema: ArrowSchemaRef,
    rule: EventTimeRule,
    time: TimeColumn,
    /// How the files' columns without field ids are called.
    mapping: Option<Arc<NameMapping>>,
    store: Store,
}

impl IcebergSource {
    /// Opens the source: `table` as `pin` says, else at the snapshot that `spec` names, else as it is.
    pub(crate) fn open(
        name: &str,
        spec: &IcebergSpec,
        event_time: Option<&EventTimeSpec>,
        access: &Access,
        (table, lake): (Table, Lake),
        pin: Option<&v1::SourcePin>,
    ) -> Result<Self, SourceError> {
        let input = |what: String| SourceError::Input { source_name: name.to_owned(), what };
        let (snapshot, fields, schema) = state(name, spec, &table, pin)?;
        let rule = EventTimeRule::resolve(name, event_time, &schema)?;
        let time = TimeColumn::of(&rule, &fields, event_time).ok_or_else(|| SourceError::Spec {
            source_name: name.to_owned(),
            what: "the event time of a table comes from a column: write event_time: {column: …}".to_owned(),
        })?;
        let mapping = table.metadata().properties().get(DEFAULT_SCHEMA_NAME_MAPPING);
        let mapping = mapping.map(|text| serde_json::from_str(text)).transpose().map_err(|e| {
            input(format!("property {DEFAULT_SCHEMA_NAME_MAPPING} of {} is no name mapping: {e}", table.identifier()))
        })?;
        let store = Store::of_table(name, &table.identifier().to_string(), lake, access);
        let shared = Shared {
            name: name.to_owned(),
            table,
            snapshot,
            fields,
            schema: Arc::new(schema),
            rule,
            time,
            mapping: mapping.map(Arc::new),
            store,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

#[async_trait]
impl Source for IcebergSource {
    fn schema(&self) -> ArrowSchemaRef {
        self.shared.schema.clone()
    }

    fn describe(&self) -> String {
        let table = self.shared.table.identifier();
        match &self.shared.snapshot {
            Some(snapshot) => format!("iceberg {table} @ snapshot {}", snapshot.snapshot_id()),
            None => format!("iceberg {table} @ no snapshot: it is empty"),
        }
    }

    fn pin(&self) -> Option<v1::SourcePin> {
        Some(v1::SourcePin {
            source: self.shared.name.clone(),
            table_uuid: self.shared.table.metadata().uuid().to_string(),
            snapshot: self.shared.snapshot.as_ref().map(|snapshot| snapshot.snapshot_id()),
            schema_id: self.shared.fields.schema_id(),
            ..Default::default()
        })
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        match &self.shared.snapshot {
            Some(snapshot) => enumerator::enumerate(&self.shared, snapshot, window, found).await,
            None => Ok(()),
        }
    }

    async fn spans(&self, split: &v1::Split, columns: &[usize]) -> Result<Vec<UnitSpans>, SourceError> {
        enumerator::spans(&self.shared, split, columns).await
    }

    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError> {
        Ok(Box::new(reader::IcebergReader::new(self.shared.clone(), splits, columns, window)?))
    }
}

impl Shared {
    fn input(&self, what: String) -> SourceError {
        SourceError::Input { source_name: self.name.clone(), what }
    }

    /// The name that the file at `location` is pinned by: its path on this machine, or its URL.
    fn place_of<'a>(&self, location: &'a str) -> Result<&'a str, SourceError> {
        let path = match location.strip_prefix("file:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None => location,
        };
        if path.starts_with('/') || ["s3://", "s3a://", "s3n://"].iter().any(|scheme| path.starts_with(scheme)) {
            return Ok(path);
        }
        let table = self.table.identifier();
        Err(self.input(format!("{table} has the file {location}: only tables on a disk or on s3:// can be read")))
    }
}

/// The columns of `table` as `pin` says, else at the snapshot that `spec` names, else as it is.
pub(super) fn columns(
    name: &str,
    spec: &IcebergSpec,
    table: &Table,
    pin: Option<&v1::SourcePin>,
) -> Result<ArrowSchema, SourceError> {
    state(name, spec, table, pin).map(|(_, _, schema)| schema)
}

type State = (Option<SnapshotRef>, SchemaRef, ArrowSchema);

fn state(name: &str, spec: &IcebergSpec, table: &Table, pin: Option<&v1::SourcePin>) -> Result<State, SourceError> {
    let input = |what: String| SourceError::Input { source_name: name.to_owned(), what };
    let (snapshot, fields) = match pin {
        Some(pin) => pinned(table, pin)?,
        None => chosen(table, spec).map_err(input)?,
    };
    let unsound = |e: iceberg::Error| input(format!("the schema of {}: {e}", table.identifier()));
    let schema = arrow_schema(&schema_to_arrow_schema(&fields).map_err(unsound)?);
    Ok((snapshot, fields, schema))
}

fn pinned(table: &Table, pin: &v1::SourcePin) -> Result<(Option<SnapshotRef>, SchemaRef), SourceError> {
    let metadata = table.metadata();
    let changed = |what: String| SourceError::Changed { file: format!("iceberg {}", table.identifier()), what };
    if metadata.uuid().to_string() != pin.table_uuid {
        let what =
            format!("its uuid was {} and is {}: it was dropped and created anew", pin.table_uuid, metadata.uuid());
        return Err(changed(what));
    }
    let snapshot = pin.snapshot.map(|id| {
        let found = metadata.snapshot_by_id(id).cloned();
        found.ok_or_else(|| changed(format!("snapshot {id} has expired")))
    });
    let fields = metadata.schema_by_id(pin.schema_id).cloned();
    let fields = fields.ok_or_else(|| changed(format!("schema {} is no longer in its metadata", pin.schema_id)))?;
    Ok((snapshot.transpose()?, fields))
}

fn chosen(table: &Table, spec: &IcebergSpec) -> Result<(Option<SnapshotRef>, SchemaRef), String> {
    let metadata = table.metadata();
    let current = metadata.current_snapshot().cloned();
    let Some(wanted) = spec.snapshot else { return Ok((current, metadata.current_schema().clone())) };
    let Some(snapshot) = metadata.snapshot_by_id(wanted).cloned() else {
        let now = current.map_or_else(|| "none".to_owned(), |current| current.snapshot_id().to_string());
        let table = table.identifier();
        return Err(format!(
            "{table} has no snapshot {wanted}: it has expired or never was; the current one is {now}, which is read \
             when iceberg.snapshot is left out"
        ));
    };
    let fields = snapshot.schema(metadata).map_err(|e| format!("the schema of snapshot {wanted}: {e}"))?;
    Ok((Some(snapshot), fields))
}

/// The source's columns: nullable, without remarks of the table.
fn arrow_schema(table: &ArrowSchema) -> ArrowSchema {
    let field = |field: &Arc<Field>| Field::new(field.name(), plain(field.data_type()), true);
    ArrowSchema::new(table.fields().iter().map(field).collect::<Vec<_>>())
}
