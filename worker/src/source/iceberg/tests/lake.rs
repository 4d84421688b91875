//! A catalog and its tables in a folder of their own.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use arrow::array::Int32Array;
use arrow::datatypes::{Field, Schema as ArrowSchema};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, ManifestListWriter, ManifestWriterBuilder, Operation,
    Schema, Snapshot, SnapshotReference, SnapshotRetention, Struct, Summary,
};
use iceberg::table::Table;
use iceberg::{TableRequirement, TableUpdate};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use uuid::Uuid;

use super::*;
use crate::sink::{
    CatalogConfig, Catalogs, OutputTarget, OutputWriter, Scope, Swap, WriterSettings, commit, digest, load, prepare,
};

/// Field ids of positional delete files, by the format.
const FILE_PATH: i32 = 2_147_483_546;
const POS: i32 = 2_147_483_545;

pub(super) struct Lake {
    pub(super) folder: tempfile::TempDir,
    catalogs: Catalogs,
    target: OutputTarget,
    commits: std::cell::Cell<u64>,
}

impl Lake {
    /// The table `ns.t` for rows like `like`, created.
    pub(super) async fn new(partition_by: &[&str], like: &RecordBatch) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let config = CatalogConfig::Sqlite {
            name: "lake".to_owned(),
            path: path.join("catalog.db"),
            warehouse: path.join("warehouse").display().to_string(),
        };
        let target = OutputTarget {
            catalog: "lake".to_owned(),
            namespace: vec!["ns".to_owned()],
            name: "t".to_owned(),
            partition_by: partition_by.iter().map(|text| (*text).to_owned()).collect(),
            properties: BTreeMap::from([("write.parquet.row-group-size-bytes".to_owned(), "2000".to_owned())]),
        };
        let lake = Self { folder, catalogs: Catalogs::new([("lake".to_owned(), config)]), target, commits: 0.into() };
        prepare(&lake.catalogs, &lake.target, &like.schema(), true, &Scope::of("bf")).await.unwrap();
        lake
    }

    pub(super) async fn table(&self) -> Table {
        load(&self.catalogs, &self.target).await.unwrap().table().clone()
    }

    /// Appends `rows` by the sink, one call of the writer a batch; the snapshot.
    pub(super) async fn append(&self, batches: &[RecordBatch]) -> i64 {
        let table = load(&self.catalogs, &self.target).await.unwrap();
        let metadata = table.metadata();
        let (schema_id, spec_id) = (metadata.current_schema_id(), metadata.default_partition_spec_id());
        let settings = WriterSettings::of(&table, schema_id, spec_id).unwrap();
        let mut writer = OutputWriter::open(&table, 0, Uuid::new_v4(), settings).unwrap();
        for rows in batches {
            writer.write(rows.clone()).await.unwrap();
        }
        let closed = writer.close().await.unwrap();
        let part =
            v1::OutputPart { files: closed.files, iceberg: closed.iceberg.to_vec().into(), ..Default::default() };
        self.commits.set(self.commits.get() + 1);
        let intent = v1::Intent {
            version: 1,
            sequence: 1,
            digest: digest(part.files.iter().map(|file| file.path.as_str())),
            table_uuid: metadata.uuid().to_string(),
            snapshot_id: i64::try_from(self.commits.get()).unwrap() + 1_000,
            schema_id,
            spec_id,
            files: part.files.len() as u64,
            rows: part.files.iter().map(|file| file.rows).sum(),
            ..Default::default()
        };
        let backfill = format!("bf-{}", self.commits.get());
        let result = commit(&self.catalogs, &self.target, &Scope::of(&backfill), &intent, vec![part]).await.unwrap();
        assert_eq!(result.end(), v1::CommitEnd::Committed);
        intent.snapshot_id
    }

    /// The data files of the current snapshot, by name, and their rows.
    pub(super) async fn files(&self) -> BTreeMap<String, u64> {
        let tasks = self.table().await.scan().build().unwrap().plan_files().await.unwrap();
        tasks.map_ok(|task| (task.data_file_path.clone(), task.record_count.unwrap())).try_collect().await.unwrap()
    }

    pub(super) async fn change(&self, updates: Vec<TableUpdate>) {
        let base = load(&self.catalogs, &self.target).await.unwrap();
        let catalog = self.catalogs.get("lake").await.unwrap();
        let requirements = vec![TableRequirement::UuidMatch { uuid: base.metadata().uuid() }];
        assert!(matches!(catalog.compare_and_swap(&base, updates, requirements).await.unwrap(), Swap::Done(_)));
    }

    /// Makes `evolve` of the current schema the current one.
    pub(super) async fn evolve(&self, evolve: impl FnOnce(&mut Vec<iceberg::spec::NestedFieldRef>)) {
        let table = self.table().await;
        let mut fields = table.metadata().current_schema().as_struct().fields().to_vec();
        evolve(&mut fields);
        let schema = Schema::builder().with_fields(fields).build().unwrap();
        self.change(vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }]).await;
    }

    /// Writes a file of the table by hand; columns carry the field ids given.
    pub(super) fn write(&self, name: &str, columns: Vec<(&str, Option<i32>, ArrayRef)>) -> PathBuf {
        let field = |(name, id, values): &(&str, Option<i32>, ArrayRef)| {
            let id = id.map(|id| (PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string()));
            Field::new(*name, values.data_type().clone(), true).with_metadata(HashMap::from_iter(id))
        };
        let schema = Arc::new(ArrowSchema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|column| column.2).collect()).unwrap();
        let path = self.folder.path().canonicalize().unwrap().join(name);
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), schema, None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        path
    }

    /// Deletes the rows at `places` of files; the delete file says which one it speaks of where `aimed`.
    pub(super) async fn delete_places(&self, places: &[(String, i64)], aimed: bool) {
        let paths: ArrayRef = Arc::new(StringArray::from_iter_values(places.iter().map(|place| place.0.as_str())));
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(places.iter().map(|place| place.1)));
        let name = format!("{}.parquet", Uuid::new_v4());
        let path = self.write(&name, vec![("file_path", Some(FILE_PATH), paths), ("pos", Some(POS), rows)]);
        let mut file = described(&path, DataContentType::PositionDeletes, places.len());
        file.referenced_data_file(aimed.then(|| places[0].0.clone()));
        self.commit_file(file.build().unwrap()).await;
    }

    /// Deletes the rows whose column of field `id` has one of `values`.
    pub(super) async fn delete_equal(&self, column: &str, id: i32, values: ArrayRef) {
        let count = values.len();
        let path = self.write(&format!("{}.parquet", Uuid::new_v4()), vec![(column, Some(id), values)]);
        let mut file = described(&path, DataContentType::EqualityDeletes, count);
        file.equality_ids(Some(vec![id]));
        self.commit_file(file.build().unwrap()).await;
    }

    /// Commits one data or delete file of an unpartitioned table.
    pub(super) async fn commit_file(&self, file: DataFile) {
        let table = self.table().await;
        let metadata = table.metadata();
        self.commits.set(self.commits.get() + 1);
        let (id, name) = (i64::try_from(self.commits.get()).unwrap() + 1_000, Uuid::new_v4());
        let output =
            |name: String| table.file_io().new_output(format!("{}/metadata/{name}", metadata.location())).unwrap();
        let schema = metadata.current_schema().clone();
        let spec = metadata.default_partition_spec().as_ref().clone();
        let builder = ManifestWriterBuilder::new(output(format!("{name}-m.avro")), Some(id), schema, spec);
        let is_data = file.content_type() == DataContentType::Data;
        let mut manifest = if is_data { builder.build_v2_data() } else { builder.build_v2_deletes() };
        manifest.add_file(file, -1).unwrap();
        let mut manifests = vec![manifest.write_manifest_file().await.unwrap()];
        let parent = metadata.current_snapshot();
        if let Some(parent) = parent {
            manifests.extend(table.manifest_list_reader(parent).load().await.unwrap().entries().iter().cloned());
        }
        let list = output(format!("{name}.avro"));
        let (at, parent) = (list.location().to_owned(), parent.map(|parent| parent.snapshot_id()));
        let sequence = metadata.next_sequence_number();
        let mut writer = ManifestListWriter::v2(list.writer().await.unwrap(), id, parent, sequence);
        writer.add_manifests(manifests.into_iter()).unwrap();
        writer.close().await.unwrap();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence)
            .with_timestamp_ms(metadata.last_updated_ms() + 1)
            .with_manifest_list(at)
            .with_summary(Summary { operation: Operation::Append, additional_properties: HashMap::new() })
            .with_schema_id(metadata.current_schema_id())
            .build();
        let reference = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
        let update = TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference };
        self.change(vec![TableUpdate::AddSnapshot { snapshot }, update]).await;
    }

    pub(super) async fn source(&self) -> Arc<dyn Source> {
        self.open(json!({"column": "at"}), None, None).await.unwrap()
    }

    pub(super) async fn open(
        &self,
        event_time: serde_json::Value,
        snapshot: Option<i64>,
        pin: Option<&v1::SourcePin>,
    ) -> Result<Arc<dyn Source>, SourceError> {
        self.open_with(event_time, snapshot, pin, &Access::local()).await
    }

    pub(super) async fn open_with(
        &self,
        event_time: serde_json::Value,
        snapshot: Option<i64>,
        pin: Option<&v1::SourcePin>,
        access: &Access,
    ) -> Result<Arc<dyn Source>, SourceError> {
        let mut table = json!({"table": "ns.t"});
        if let Some(snapshot) = snapshot {
            table["snapshot"] = snapshot.into();
        }
        let spec = serde_json::from_value(json!({"iceberg": table, "event_time": event_time})).unwrap();
        crate::source::open_table("trips", &spec, access, self.table().await, pin)
    }
}

/// A file of the unpartitioned spec.
pub(super) fn described(path: &std::path::Path, content: DataContentType, rows: usize) -> DataFileBuilder {
    let mut file = DataFileBuilder::default();
    file.content(content)
        .file_path(path.display().to_string())
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .record_count(rows as u64)
        .file_size_in_bytes(std::fs::metadata(path).unwrap().len());
    file
}

/// Columns of every type that an event time may have, for the same moments: whole days.
pub(super) fn days(days: &[i32]) -> RecordBatch {
    let at = |factor: i64| days.iter().map(move |day| i64::from(*day) * factor);
    let micros = TimestampMicrosecondArray::from_iter_values(at(86_400_000_000));
    let columns: [(&str, ArrayRef); 6] = [
        ("id", Arc::new(Int64Array::from_iter_values(at(1)))),
        ("zoned", Arc::new(micros.clone().with_timezone("UTC"))),
        ("local", Arc::new(micros)),
        ("date", Arc::new(arrow::array::Date32Array::from(days.to_vec()))),
        ("millis", Arc::new(Int64Array::from_iter_values(at(86_400_000)))),
        ("secs", Arc::new(Int32Array::from_iter_values(days.iter().map(|day| day * 86_400)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}
