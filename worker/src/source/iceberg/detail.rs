//! What a split of an Iceberg table carries for its reader: the snapshot, the file as the table names it, its deletes.
//!
//! It goes through the coordinator as opaque bytes and is read by every later release.

use iceberg::scan::FileScanTaskDeleteFile;
use iceberg::spec::DataContentType;
use prost::Message;

/// The version that is written.
const VERSION: u32 = 1;

/// What the reader of a data file must know.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Detail {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// The snapshot that it was found in.
    #[prost(int64, tag = "2")]
    pub(super) snapshot: i64,
    /// The schema that its units were planned with.
    #[prost(int32, tag = "3")]
    pub(super) schema_id: i32,
    /// The file's name in the table's metadata: positional deletes are matched with it letter by letter.
    #[prost(string, tag = "4")]
    pub(super) location: String,
    /// The delete files that apply to it, by the rules of sequence numbers and partitions.
    #[prost(message, repeated, tag = "5")]
    deletes: Vec<Delete>,
}

#[derive(Clone, PartialEq, Message)]
struct Delete {
    #[prost(string, tag = "1")]
    location: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(int32, tag = "3")]
    spec_id: i32,
    /// Field ids that make two rows equal; empty for positional deletes.
    #[prost(int32, repeated, tag = "4")]
    equality_ids: Vec<i32>,
}

impl Detail {
    pub(super) fn new(snapshot: i64, schema_id: i32, location: String, deletes: &[FileScanTaskDeleteFile]) -> Self {
        let deletes = deletes.iter().map(|delete| Delete {
            location: delete.file_path.clone(),
            size: delete.file_size_in_bytes,
            spec_id: delete.partition_spec_id,
            equality_ids: delete.equality_ids.clone().unwrap_or_default(),
        });
        Self { version: VERSION, snapshot, schema_id, location, deletes: deletes.collect() }
    }

    /// `None` for what is no detail, or one of a later release.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok().filter(|detail| detail.version == VERSION)
    }

    pub(super) fn has_deletes(&self) -> bool {
        !self.deletes.is_empty()
    }

    /// The positional deletes.
    pub(super) fn positional(&self) -> Vec<FileScanTaskDeleteFile> {
        self.deletes().into_iter().filter(|delete| delete.equality_ids.is_none()).collect()
    }

    /// The deletes as Iceberg's reader wants them.
    pub(super) fn deletes(&self) -> Vec<FileScanTaskDeleteFile> {
        let delete = |delete: &Delete| {
            let is_equality = !delete.equality_ids.is_empty();
            FileScanTaskDeleteFile {
                file_path: delete.location.clone(),
                file_size_in_bytes: delete.size,
                file_type: if is_equality {
                    DataContentType::EqualityDeletes
                } else {
                    DataContentType::PositionDeletes
                },
                partition_spec_id: delete.spec_id,
                equality_ids: is_equality.then(|| delete.equality_ids.clone()),
            }
        };
        self.deletes.iter().map(delete).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As release 0.1 wrote it: version 1, snapshot 7, schema 2, file /a, an equality delete /d of 9 bytes, spec 1, id 3.
    const FIXTURE: &[u8] = b"\x08\x01\x10\x07\x18\x02\x22\x02/a\x2a\x0b\x0a\x02/d\x10\x09\x18\x01\x22\x01\x03";

    #[test]
    fn what_the_first_release_wrote_is_read() {
        let delete = FileScanTaskDeleteFile {
            file_path: "/d".to_owned(),
            file_size_in_bytes: 9,
            file_type: DataContentType::EqualityDeletes,
            partition_spec_id: 1,
            equality_ids: Some(vec![3]),
        };
        let detail = Detail::read(FIXTURE);
        assert_eq!(detail, Some(Detail::new(7, 2, "/a".to_owned(), std::slice::from_ref(&delete))));
        assert_eq!(
            detail.map(|detail| (detail.encode_to_vec(), detail.deletes())),
            Some((FIXTURE.to_vec(), vec![delete]))
        );
        assert_eq!(Detail::read(b"\x08\x02"), None, "a later release");
    }
}
