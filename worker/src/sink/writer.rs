//! Writes an output's rows into data files, and says when it is time to hand them in.
//!
//! Files stand below the table's data folder under the attempt's fresh UUID, in `name=value` folders of their
//! partition. They are immutable and nobody's until an intent names them. Memory and open partitions are bounded;
//! what is over the bound is flushed or closed, largest or longest unused first.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use bytes::Bytes;
use iceberg::spec::{
    DataFile, FormatVersion, PartitionSpecRef, SchemaRef, Struct, StructType, read_data_files_from_avro,
    write_data_files_to_avro,
};
use parquet::file::properties::WriterProperties;
use tidegate_proto::v1;
use uuid::Uuid;

use super::data_file::OpenFile;
use super::partition::{Key, Splitter, folder};
use super::settings::WriterSettings;
use super::sizing::{Due, Sizing};
use super::{Caster, LoadedTable, SinkError, dictionary};

/// Closed files that wait for a hand-in at most.
const MOST_CLOSED: usize = 64;
/// Bytes that describe the files of one output in a hand-in, about: with several outputs it is to fit into a message.
const MOST_DESCRIBED: usize = 512 << 10;

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

impl Slot {
    /// Bytes that the file would have, closed now; an estimate.
    fn size(&self, sizing: &Sizing) -> usize {
        let (written, in_progress) = self.file.size();
        written + sizing.weigh(in_progress)
    }

    /// Bytes that it may have.
    fn most(&self, sizing: &Sizing) -> usize {
        let (written, in_progress) = self.file.size();
        written + sizing.weigh_most(in_progress)
    }

    async fn write(&mut self, rows: &RecordBatch, sizing: &mut Sizing) -> Result<(), SinkError> {
        let (before, in_progress) = self.file.size();
        self.file.write(rows).await?;
        let (written, _) = self.file.size();
        if written > before {
            sizing.learn(in_progress, written - before);
        }
        Ok(())
    }

    /// Ends the row group, which gives its memory back.
    async fn flush(&mut self, sizing: &mut Sizing) -> Result<(), SinkError> {
        let (before, in_progress) = self.file.size();
        self.file.flush().await?;
        sizing.learn(in_progress, self.file.size().0 - before);
        Ok(())
    }
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
    sizing: Sizing,
    /// Bytes of all files that were closed.
    closed_bytes: u64,
    /// So many partitions were closed early that more would only make more small files.
    over: bool,
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
            sizing: Sizing::new(settings.target_file_bytes),
            settings,
            parquet: None,
            data_folder: data_folder.trim_end_matches('/').to_owned(),
            file_prefix: format!("{output_ix:03}-{attempt}"),
            files_named: 0,
            clock: 0,
            open: BTreeMap::new(),
            memory: 0,
            closed: Vec::new(),
            closed_bytes: 0,
            over: false,
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

    /// Whether it is time to hand in, at a unit's end.
    pub async fn due(&mut self) -> Result<Due, SinkError> {
        let files = self.closed.len() + self.open.len();
        if self.over || self.closed.len() >= MOST_CLOSED || files * self.described_bytes() > MOST_DESCRIBED {
            return Ok(Due::Over);
        }
        let closed = self.closed.iter().map(DataFile::file_size_in_bytes).sum();
        let due = |of: &Self| of.sizing.due(closed, of.open.values().map(|slot| slot.size(&of.sizing)));
        let said = due(self);
        if said != Due::Ripe {
            return Ok(said);
        }
        // Only row groups that are written can be weighed, and a hand-in ends them all.
        self.end_row_groups().await?;
        Ok(due(self))
    }

    /// What the description of one file takes in a hand-in, with two bounds of every column.
    fn described_bytes(&self) -> usize {
        512 + 160 * self.schema.as_struct().fields().len()
    }

    /// Draws the files ahead, at the beginning of a unit: `read` bytes of input were read by this writer's attempt, and
    /// `ahead` are those from each unit still to be read to the end, the next first, with a zero at the end.
    pub fn draw_files(&mut self, read: u64, ahead: &[u64]) {
        if self.splitter.is_some() {
            // Nobody knows what the input makes in each partition.
            return;
        }
        let open = self.open.values().map(|slot| slot.size(&self.sizing) as u64).sum();
        self.sizing.draw(read, self.closed_bytes + open, open, ahead);
    }

    /// Ends every row group: its memory is given back, and the files go on.
    pub async fn end_row_groups(&mut self) -> Result<(), SinkError> {
        for slot in self.open.values_mut() {
            slot.flush(&mut self.sizing).await?;
            slot.memory = slot.file.memory();
        }
        self.memory = self.open.values().map(|slot| slot.memory).sum();
        Ok(())
    }

    /// Bytes of memory that open files take: their row groups, and what is not sent yet.
    pub fn buffered_bytes(&self) -> usize {
        self.memory + self.open.values().map(|slot| slot.file.unsent()).sum::<usize>()
    }

    /// Closes every open file and gives them all out; the writer can be written to again, into new files.
    pub async fn close(&mut self) -> Result<ClosedFiles, SinkError> {
        while let Some((_, slot)) = self.open.pop_first() {
            self.close_slot(slot).await?;
        }
        self.over = false;
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
        slot.write(piece, &mut self.sizing).await?;
        let mut closes = false;
        if self.sizing.is_full(slot.most(&self.sizing)) {
            slot.flush(&mut self.sizing).await?;
            closes = self.sizing.is_full_enough(slot.file.size().0);
        }
        let memory = slot.file.memory();
        self.memory = self.memory + memory - slot.memory;
        slot.memory = memory;
        if let Some(slot) = closes.then(|| self.open.remove(key)).flatten() {
            self.close_slot(slot).await?;
            self.sizing.closed();
        }
        self.relieve().await
    }

    /// Ends the largest row groups until the memory is within its bound.
    async fn relieve(&mut self) -> Result<(), SinkError> {
        while self.memory > self.settings.memory_bytes {
            let Some(slot) = self.open.values_mut().max_by_key(|slot| slot.memory) else { break };
            slot.flush(&mut self.sizing).await?;
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
            self.over |= self.closed.len() >= self.settings.max_open_partitions.max(1);
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

    async fn close_slot(&mut self, mut slot: Slot) -> Result<(), SinkError> {
        self.memory = self.memory.saturating_sub(slot.memory);
        slot.flush(&mut self.sizing).await?;
        let file = slot.file.close(self.settings.spec_id).await?;
        self.closed_bytes += file.file_size_in_bytes();
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
