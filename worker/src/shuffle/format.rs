//! The bytes of an object: chunks, index, footer. What is read is held against what bounds it before memory is taken.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow::ipc::{MetadataVersion, root_as_message, root_as_schema};
use tidegate_proto::v1::shuffle_index::Chunk;

/// Version of what is written.
pub(super) const VERSION: u32 = 1;
/// Bytes of a footer.
pub(super) const FOOTER: usize = 24;
/// Most bytes of an index.
pub(super) const MOST_INDEX: usize = 16 << 20;
/// Most chunks of an object: their index, at 45 bytes each, stays below [`MOST_INDEX`].
pub(super) const MOST_CHUNKS: usize = 350_000;

const MAGIC: &[u8; 8] = b"TGSHUFFL";
/// Every buffer of a chunk begins at a multiple of it, which suits every type.
const ALIGNMENT: usize = 16;
/// LZ4 makes at most 255 bytes of one; with room for what begins and ends a block.
const MOST_UNPACKED: u64 = 256;

/// What stands at the very end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// The index's first byte.
    pub(super) index_at: u64,
    /// Its bytes.
    pub(super) index_bytes: u32,
}

impl Footer {
    pub(super) fn encode(self) -> Vec<u8> {
        let Self { index_at, index_bytes } = self;
        [&index_at.to_le_bytes()[..], &index_bytes.to_le_bytes(), &VERSION.to_le_bytes(), MAGIC].concat()
    }

    /// Of the last bytes of an object of `size` bytes; an error says what was expected, and what was found.
    pub(super) fn decode(tail: &[u8], size: u64) -> Result<Self, (String, String)> {
        let said = |expected: &str, found: &dyn Display| (expected.to_owned(), found.to_string());
        let short = || said("a footer of 24 bytes", &tail.len());
        let (_, footer) = tail.split_last_chunk::<FOOTER>().ok_or_else(short)?;
        let (index_at, rest) = footer.split_first_chunk::<8>().ok_or_else(short)?;
        let (index_bytes, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (version, magic) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        if magic != MAGIC {
            return Err(said("a shuffle object's mark", &format!("{magic:02x?}")));
        }
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(said("version 1", &version));
        }
        let footer = Self { index_at: u64::from_le_bytes(*index_at), index_bytes: u32::from_le_bytes(*index_bytes) };
        let bytes = u64::from(footer.index_bytes);
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > MOST_INDEX) {
            return Err(said("an index of at most 16 MiB", &bytes));
        }
        let end = footer.index_at.checked_add(bytes).and_then(|end| end.checked_add(u64::try_from(FOOTER).ok()?));
        if end != Some(size) {
            let found = format!("{bytes} bytes from byte {} on", footer.index_at);
            return Err((format!("an index that ends before the footer of {size} bytes"), found));
        }
        Ok(footer)
    }
}

/// A schema as it stands in an index.
pub(super) fn encode_schema(schema: &Schema) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(false);
    let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut dictionaries);
    encoder.schema_to_fb(schema).finished_data().to_vec()
}

/// The schema that an index names.
pub(super) fn decode_schema(bytes: &[u8]) -> Result<Schema, String> {
    caught(|| Ok(fb_to_schema(root_as_schema(bytes).map_err(|error| error.to_string())?)))
}

/// Rows of plain types as a chunk, and its entry in the index.
pub(super) fn encode_chunk(rows: &RecordBatch, bucket: u32, cell: i64) -> Result<(Vec<u8>, Chunk), ArrowError> {
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut dictionaries = DictionaryTracker::new(false);
    let (_, encoded) =
        IpcDataGenerator::default().encode(rows, &mut dictionaries, &options, &mut CompressionContext::default())?;
    let mut raw = encoded.arrow_data;
    let count = |of: usize| u32::try_from(of).map_err(|_| ArrowError::IpcError(format!("{of} are too many")));
    let message = count(encoded.ipc_message.len())?;
    raw.extend_from_slice(&encoded.ipc_message);
    raw.extend_from_slice(&message.to_le_bytes());
    let (rows, raw_bytes) = (count(rows.num_rows())?, count(raw.len())?);
    let packed = lz4_flex::block::compress(&raw);
    let (bytes, crc) = (count(packed.len())?, crc32fast::hash(&packed));
    Ok((packed, Chunk { cell, bucket, rows, bytes, raw: raw_bytes, crc }))
}

/// Whether a chunk may be what its entry in the index says, as far as that can be told without it.
pub(super) fn may_be(chunk: &Chunk) -> bool {
    chunk.rows > 0 && chunk.bytes > 0 && u64::from(chunk.raw) <= u64::from(chunk.bytes).saturating_mul(MOST_UNPACKED)
}

/// The rows of a chunk of plain columns; `packed` was found to be what was written.
pub(super) fn decode_chunk(packed: &[u8], chunk: &Chunk, plain: &SchemaRef) -> Result<RecordBatch, String> {
    caught(|| {
        let mut raw = MutableBuffer::from_len_zeroed(usize::try_from(chunk.raw).map_err(|e| e.to_string())?);
        let bytes = lz4_flex::block::decompress_into(packed, raw.as_slice_mut()).map_err(|e| e.to_string())?;
        if bytes != raw.len() {
            return Err(format!("{bytes} bytes when unpacked, and {} were", raw.len()));
        }
        let raw: Buffer = raw.into();
        let cut = || {
            let (rest, message) = raw.as_slice().split_last_chunk::<4>()?;
            let body = rest.len().checked_sub(usize::try_from(u32::from_le_bytes(*message)).ok()?)?;
            Some((raw.slice_with_length(0, body), rest.split_at_checked(body)?.1))
        };
        let (body, message) = cut().ok_or("no message")?;
        let message = root_as_message(message).map_err(|error| error.to_string())?;
        let batch = message.header_as_record_batch().ok_or("a message that is no batch")?;
        // Neither is written; to be unpacked again, a buffer would take memory that nothing bounds.
        if batch.compression().is_some() || message.version() != MetadataVersion::V5 {
            return Err("a batch that is packed, or of another version".to_owned());
        }
        let rows = read_record_batch(&body, batch, plain.clone(), &HashMap::new(), None, &message.version())
            .map_err(|error| error.to_string())?;
        if u32::try_from(rows.num_rows()) != Ok(chunk.rows) {
            return Err(format!("{} rows", rows.num_rows()));
        }
        Ok(rows)
    })
}

/// Runs a decoder that may panic over damaged bytes; that is its error then.
fn caught<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("what the decoder gave up on: {}", said.unwrap_or("it does not say why"))
}
