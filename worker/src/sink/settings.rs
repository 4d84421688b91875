//! How data files are written: what a table's properties ask for.

use std::collections::HashMap;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::{LoadedTable, SinkError};

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
        Ok(Self {
            schema_id,
            spec_id,
            target_file_bytes: target_file_bytes(properties).map_err(refused)?,
            max_open_partitions: 64,
            memory_bytes: 256 * MIB,
            parquet: parquet_properties(properties).map_err(refused)?,
        })
    }
}

/// Bytes of a full file that a table's properties ask for: 512 MiB where they are silent.
pub(super) fn target_file_bytes(properties: &HashMap<String, String>) -> Result<usize, String> {
    Ok(number(properties, "write.target-file-size-bytes")?.unwrap_or(512 * MIB).max(1))
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
