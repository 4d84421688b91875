//! What a split of a hybrid source carries for its reader: which side it is of, and what that side's reader wants.

use prost::{Message, Oneof};
use tidegate_proto::v1;

const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Detail {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(oneof = "Side", tags = "2, 3")]
    side: Option<Side>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Side {
    #[prost(message, tag = "2")]
    Archive(ArchiveSplit),
    /// The topic's own detail.
    #[prost(bytes = "bytes", tag = "3")]
    Live(bytes::Bytes),
}

/// A file of the archive.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ArchiveSplit {
    /// The archive's own detail.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) detail: bytes::Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(super) units: Vec<ArchiveUnit>,
}

/// What is taken of a unit of the archive.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ArchiveUnit {
    #[prost(uint64, tag = "1")]
    pub(super) position: u64,
    /// Rows it has, by the archive's own plan; 0 where only reading tells.
    #[prost(uint64, tag = "2")]
    pub(super) rows: u64,
    /// Rows of it below the cuts.
    #[prost(uint64, tag = "3")]
    pub(super) taken: u64,
    /// Offsets below the cuts that the archive has no row of: they are accounted for with the first unit that is read.
    #[prost(uint64, tag = "4")]
    pub(super) gaps: u64,
}

/// `split` as one of this side.
pub(super) fn wrapped(split: v1::Split, side: impl FnOnce(bytes::Bytes) -> Side) -> v1::Split {
    let detail = Detail { version: VERSION, side: Some(side(split.detail)) };
    v1::Split { file: split.file, detail: detail.encode_to_vec().into() }
}

/// The side of `split`; `None` for what is none, or of a later release.
pub(super) fn side(split: &v1::Split) -> Option<Side> {
    Detail::decode(split.detail.as_ref()).ok().filter(|detail| detail.version == VERSION)?.side
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_release_wrote_is_read() {
        let units = vec![ArchiveUnit { position: 1, rows: 9, taken: 7, gaps: 2 }];
        let archive = |detail| Side::Archive(ArchiveSplit { detail, units: units.clone() });
        let split = |detail: &'static [u8]| v1::Split { file: None, detail: detail.into() };
        for (own, made, fixture) in [
            (
                &b"x"[..],
                wrapped(split(b"x"), archive),
                &b"\x08\x01\x12\x0d\x0a\x01x\x12\x08\x08\x01\x10\x09\x18\x07\x20\x02"[..],
            ),
            (b"k", wrapped(split(b"k"), Side::Live), b"\x08\x01\x1a\x01k"),
        ] {
            assert_eq!(made, split(fixture), "{own:?}");
            let detail = match side(&made) {
                Some(Side::Archive(found)) => {
                    assert_eq!(found.units, units);
                    found.detail
                }
                Some(Side::Live(detail)) => detail,
                None => bytes::Bytes::new(),
            };
            assert_eq!(detail, own);
        }
        assert_eq!(side(&split(b"\x08\x02\x1a\x01k")), None, "a later release");
    }
}
