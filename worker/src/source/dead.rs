//! Dead letters: records that a source cannot use, as they stand in it.

use bytes::Bytes;

/// Bytes of a record that are kept, 1 MiB; of a longer one, the first.
pub const MAX_RAW: usize = 1 << 20;
/// What is wrong with a row that has everything but a time.
pub(crate) const NO_EVENT_TIME: &str = "it has no event time";
/// Characters of an error that are kept: some decoders repeat the whole value.
const MAX_ERROR: usize = 1_000;

/// A record that does not decode, or a row without event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRecord {
    /// Where it begins: a text's byte, counted in the decompressed file; a Kafka record's offset.
    pub position: u64,
    /// Which row of its unit it is, from 0, where it is a row.
    pub row: Option<u64>,
    /// What is wrong with it.
    pub error: String,
    /// Its bytes, without the line's end; the first [`MAX_RAW`] of them.
    pub raw: Bytes,
    /// How many bytes it has in all.
    pub length: u64,
    /// What `raw` is.
    pub raw_as: RawAs,
}

/// How the bytes of a dead letter are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawAs {
    /// A record of a CSV file, as it stands there.
    Csv,
    /// A line of a JSON file, as it stands there.
    Json,
    /// A row of a columnar file, every column of it, as a JSON object.
    RowAsJson,
    /// The value of a Kafka record, as it stands there.
    RecordValue,
}

impl RawAs {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::RowAsJson => "row as json",
            Self::RecordValue => "record value",
        }
    }
}

impl DeadRecord {
    /// A record of `raw` at `position`, and what is wrong with it.
    pub(crate) fn new(position: u64, raw: &Bytes, raw_as: RawAs, error: String) -> Self {
        let kept = raw.slice(..raw.len().min(MAX_RAW));
        Self { position, row: None, error: shortened(error), raw: kept, length: raw.len() as u64, raw_as }
    }
}

fn shortened(mut error: String) -> String {
    if let Some((end, _)) = error.char_indices().nth(MAX_ERROR) {
        error.truncate(end);
        error.push('…');
    }
    error
}
