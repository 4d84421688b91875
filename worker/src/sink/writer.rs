//! Writes an output's rows into data files, and says when it is time to hand them in.
//!
//! Files stand below the table's data folder under the attempt's fresh UUID, in `name=value` folders of their
//! partition. They are immutable and nobody's until an intent names them. Memory and open partitions are bounded;
//! what is over the bound is flushed or closed, largest or longest unused first.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use bytes::Bytes;
use iceberg::spec::{
    DataFile, FormatVersion, PartitionSpecRef, SchemaRef, Struct, StructType, read_data_files_from_avro,
    write_data_files_to_avro,
};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tidegate_proto::v1;
use uuid::Uuid;

use super::data_file::OpenFile;
use super::partition::{Key, Splitter, folder};
use super::{Caster, LoadedTable, SinkError, dictionary};

const MIB: usize = 1 << 20;

/// How files are written.
#[derive(Clone, Debug)]
pub struct WriterSettings {
    /// The table's schema that the files have.
    pub schema_id: i32,
    /// The partition spec that they are cut by.
    pub spec_id: i32,
    /// Bytes of a full file.
    pub target_file_bytes: usize,
    /// Partitions that are open at a time, at least 1.
    pub max_open_partitions: usize,
    /// Bytes of memory that open row groups may take together.
    pub memory_bytes: usize,
    /// Parquet's own settings.
    pub parquet: WriterProperties,
}

impl WriterSettings {
    /// What the table's properties ask for, with the schema and the partition spec that were pinned: zstd, 512 MiB a
    /// file, where they are silent; 64 open partitions and 256 MiB of memory.
    pub fn of(table: &LoadedTable, schema_id: i32, spec_id: i32) -> Result<Self, SinkError> {
        let metadata = table.metadata();
        let properties = metadata.properties();
        let refused = |what| SinkError::Preflight { table: table.table().identifier().to_string(), what };
        let target = number(properties, "write.target-file-size-bytes").map_err(refused)?;
        Ok(Self {
            schema_id,
            spec_id,
            target_file_bytes: target.unwrap_or(512 * MIB).max(1),
            max_open_partitions: 64,
            memory_bytes: 256 * MIB,
            parquet: parquet_properties(properties).map_err(refused)?,
        })
    }
}

fn number(properties: &HashMap<String, String>, key: &str) -> Result<Option<usize>, String> {
    let parse = |text: &String| text.parse().map_err(|_| format!("property {key}: {text:?} is no number of bytes"));
    properties.get(key).map(parse).transpose()
}

/// Parquet's settings that a table's properties ask for.
pub(super) fn parquet_properties(properties: &HashMap<String, String>) -> Result<WriterProperties, String> {
    const CODEC: &str = "write.parquet.compression-codec";
    const LEVEL: &str = "write.parquet.compression-level";
    let level = properties
        .get(LEVEL)
        .map(|level| level.parse::<i32>().map_err(|_| format!("property {LEVEL}: {level:?} is no level")));
    let level = level.transpose()?;
    let natural = |default: u32| level.map_or(default, |level| u32::try_from(level).unwrap_or(u32::MAX));
    let bad = |error: parquet::errors::ParquetError| format!("property {LEVEL}: {error}");
    let codec = properties.get(CODEC).map_or("zstd", String::as_str);
    let compression = match codec.to_ascii_lowercase().as_str() {
        "zstd" => Compression::ZSTD(ZstdLevel::try_new(level.unwrap_or(1)).map_err(bad)?),
        "snappy" => Compression::SNAPPY,
        "gzip" => Compression::GZIP(GzipLevel::try_new(natural(6)).map_err(bad)?),
        "brotli" => Compression::BROTLI(BrotliLevel::try_new(natural(1)).map_err(bad)?),
        "lz4" => Compression::LZ4_RAW,
        "uncompressed" | "none" => Compression::UNCOMPRESSED,
        other => {
            return Err(format!(
                "property {CODEC}: no codec {other}; there are zstd, snappy, gzip, brotli, lz4, uncompressed"
            ));
        }
    };
    let group = number(properties, "write.parquet.row-group-size-bytes")?;
    Ok(WriterProperties::builder()
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(MIB))
        .set_max_row_group_bytes(Some(group.unwrap_or(128 * MIB).max(1)))
        .set_created_by(concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned())
        .build())
}

/// Files that are closed and durable, ready to be handed in.
#[derive(Clone, Debug, Default)]
pub struct ClosedFiles {
    /// Path, rows and bytes of each.
    pub files: Vec<v1::DataFile>,
    /// Their Iceberg metadata, in the same order; empty where there are none.
    pub iceberg: Bytes,
}

struct Slot {
    file: OpenFile,
    memory: usize,
    used: u64,
}

/// Writes one output's rows in one attempt.
pub struct OutputWriter {
    table: LoadedTable,
    schema: SchemaRef,
    spec: PartitionSpecRef,
    partition_type: StructType,
    settings: WriterSettings,
    caster: Caster,
    splitter: Option<Splitter>,
    /// Parquet's settings, fitted to the rows that came first.
    parquet: Option<WriterProperties>,
    data_folder: String,
    file_prefix: String,
    files_named: u64,
    clock: u64,
    open: BTreeMap<Key, Slot>,
    memory: usize,
    closed: Vec<DataFile>,
    full: bool,
}

impl OutputWriter {
    /// A writer of output `output_ix` into `table`; `attempt` names the files and must be fresh.
    pub fn open(
        table: &LoadedTable,
        output_ix: u32,
        attempt: Uuid,
        settings: WriterSettings,
    ) -> Result<Self, SinkError> {
        let metadata = table.metadata();
        let name = table.table().identifier().to_string();
        let gone = |what: String| SinkError::Preflight { table: name.clone(), what };
        let schema = metadata
            .schema_by_id(settings.schema_id)
            .ok_or_else(|| gone(format!("schema {} is no longer in its metadata; plan again", settings.schema_id)))?;
        let spec = metadata.partition_spec_by_id(settings.spec_id).ok_or_else(|| {
            gone(format!("partition spec {} is no longer in its metadata; plan again", settings.spec_id))
        })?;
        let partition_type =
            spec.partition_type(schema).map_err(SinkError::lake(format!("table {name}: its partition spec")))?;
        let splitter = (!spec.is_unpartitioned()).then(|| Splitter::new(&name, spec, schema)).transpose()?;
        let folder = metadata.properties().get("write.data.path").cloned();
        let data_folder = folder.unwrap_or_else(|| format!("{}/data", metadata.location()));
        Ok(Self {
            caster: Caster::new(&name, schema)?,
            splitter,
            schema: schema.clone(),
            spec: spec.clone(),
            partition_type,
            settings,
            parquet: None,
            data_folder: data_folder.trim_end_matches('/').to_owned(),
            file_prefix: format!("{output_ix:03}-{attempt}"),
            files_named: 0,
            clock: 0,
            open: BTreeMap::new(),
            memory: 0,
            closed: Vec::new(),
            full: false,
            table: table.clone(),
        })
    }

    /// Writes rows of the output's query; they are cast to the table's schema. After an error the writer is of no
    /// more use.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<(), SinkError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = self.caster.cast(&rows)?;
        if self.parquet.is_none() && rows.num_rows() >= dictionary::SAMPLE {
            self.parquet = Some(dictionary::fitted(&self.settings.parquet, &rows));
        }
        let Some(splitter) = self.splitter.as_mut() else {
            return self.write_rows(Key::default(), &rows, |_| Ok(Struct::empty())).await;
        };
        let (shares, values) = splitter.split(&rows)?;
        for share in shares {
            let sample = share.sample;
            self.write_rows(share.key, &share.rows, |writer| match &writer.splitter {
                Some(splitter) => splitter.partition(&values, sample),
                None => Ok(Struct::empty()),
            })
            .await?;
        }
        Ok(())
    }

    /// Whether it is time to hand in: a file is full, or so many partitions were closed early that more would only
    /// make more small files.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Bytes of memory that open row groups take.
    pub fn buffered_bytes(&self) -> usize {
        self.memory
    }

    /// Closes every open file and gives them all out; the writer can be written to again, into new files.
    pub async fn close(&mut self) -> Result<ClosedFiles, SinkError> {
        while let Some((_, slot)) = self.open.pop_first() {
            self.close_slot(slot).await?;
        }
        self.full = false;
        let closed = std::mem::take(&mut self.closed);
        let files = closed.iter().map(|file| v1::DataFile {
            path: file.file_path().to_owned(),
            rows: file.record_count(),
            bytes: file.file_size_in_bytes(),
        });
        Ok(ClosedFiles { files: files.collect(), iceberg: encode(closed, &self.partition_type)? })
    }

    /// Writes one partition's rows in pieces that are small beside a file, so that files end near their size.
    async fn write_rows(
        &mut self,
        key: Key,
        rows: &RecordBatch,
        partition: impl Fn(&Self) -> Result<Struct, SinkError>,
    ) -> Result<(), SinkError> {
        let bytes = rows.get_array_memory_size().max(1);
        let pieces = bytes.div_ceil((self.settings.target_file_bytes / 4).max(1)).min(64);
        let step = rows.num_rows().div_ceil(pieces).max(1);
        for start in (0..rows.num_rows()).step_by(step) {
            if !self.open.contains_key(&key) {
                let partition = partition(self)?;
                self.open_file(key.clone(), partition).await?;
            }
            let piece = if step >= rows.num_rows() {
                rows.clone()
            } else {
                rows.slice(start, step.min(rows.num_rows() - start))
            };
            self.write_piece(&key, &piece).await?;
        }
        Ok(())
    }

    async fn write_piece(&mut self, key: &Key, piece: &RecordBatch) -> Result<(), SinkError> {
        self.clock += 1;
        let Some(slot) = self.open.get_mut(key) else { return Ok(()) };
        slot.used = self.clock;
        slot.file.write(piece).await?;
        let memory = slot.file.memory();
        self.memory = self.memory + memory - slot.memory;
        slot.memory = memory;
        if slot.file.size() >= self.settings.target_file_bytes {
            if let Some(slot) = self.open.remove(key) {
                self.close_slot(slot).await?;
            }
            self.full = true;
        }
        self.relieve().await
    }

    /// Ends the largest row groups until the memory is within its bound.
    async fn relieve(&mut self) -> Result<(), SinkError> {
        while self.memory > self.settings.memory_bytes {
            let Some(slot) = self.open.values_mut().max_by_key(|slot| slot.memory) else { break };
            slot.file.flush().await?;
            let left = slot.file.memory();
            if left >= slot.memory {
                break;
            }
            self.memory -= slot.memory - left;
            slot.memory = left;
        }
        Ok(())
    }

    async fn open_file(&mut self, key: Key, partition: Struct) -> Result<(), SinkError> {
        while self.open.len() >= self.settings.max_open_partitions.max(1) {
            let Some(oldest) = self.open.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(slot) = self.open.remove(&oldest) {
                self.close_slot(slot).await?;
            }
            self.full |= self.closed.len() >= self.settings.max_open_partitions.max(1);
        }
        let name = format!("{}-{:05}.parquet", self.file_prefix, self.files_named);
        self.files_named += 1;
        let path = match folder(&self.spec, &self.partition_type, &partition) {
            folder if folder.is_empty() => format!("{}/{name}", self.data_folder),
            folder => format!("{}/{folder}/{name}", self.data_folder),
        };
        let schemas = (&self.schema, self.caster.schema());
        let parquet = self.parquet.as_ref().unwrap_or(&self.settings.parquet).clone();
        let file = OpenFile::create(self.table.io(), path, partition, schemas, parquet).await?;
        self.open.insert(key, Slot { file, memory: 0, used: self.clock });
        Ok(())
    }

    async fn close_slot(&mut self, slot: Slot) -> Result<(), SinkError> {
        self.memory = self.memory.saturating_sub(slot.memory);
        let file = slot.file.close(self.settings.spec_id).await?;
        self.closed.push(file);
        Ok(())
    }
}

/// The version that file metadata crosses the wire in, whatever the table's own.
const WIRE: FormatVersion = FormatVersion::V2;

fn encode(files: Vec<DataFile>, partition_type: &StructType) -> Result<Bytes, SinkError> {
    if files.is_empty() {
        return Ok(Bytes::new());
    }
    let mut bytes = Vec::new();
    write_data_files_to_avro(&mut bytes, files, partition_type, WIRE)
        .map_err(SinkError::lake("encode file metadata"))?;
    Ok(bytes.into())
}

/// File metadata as [`OutputWriter::close`] gave it.
pub(super) fn decode(bytes: &[u8], schema: &SchemaRef, spec: &PartitionSpecRef) -> Result<Vec<DataFile>, SinkError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let doing = || SinkError::lake("decode file metadata");
    let partition_type = spec.partition_type(schema).map_err(doing())?;
    let mut bytes = bytes;
    read_data_files_from_avro(&mut bytes, schema, spec.spec_id(), &partition_type, WIRE).map_err(doing())
}
