//! Objects that are not what was written: an error, whatever it is, and never rows, a panic or memory without bound.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use proptest::prelude::*;
use prost::Message;
use tidegate_proto::v1::ShuffleIndex;
use tidegate_proto::v1::shuffle_index::Chunk;

use super::super::format::{self, FOOTER, Footer};
use super::*;

const PATH: &str = "bf-abcdefghijklmnop/0/o/a-1.shuffle";

/// A bucket in which an object is put anew.
struct Bucket {
    memory: Arc<InMemory>,
    store: ShuffleStore,
}

impl Bucket {
    fn new() -> Self {
        let memory = Arc::new(InMemory::new());
        let store = ShuffleStore::in_bucket("s3://b", memory.clone(), Path::from(""));
        Self { memory, store }
    }

    async fn get(&self) -> Vec<u8> {
        self.memory.get(&Path::from(PATH)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    async fn put(&self, bytes: Vec<u8>) {
        self.memory.put(&Path::from(PATH), bytes.into()).await.unwrap();
    }

    /// Puts chunks and an index of which every checksum and length is right.
    async fn put_right(&self, chunks: &[u8], index: &[u8], rows: u64) -> ShuffleObject {
        let footer = Footer { index_at: chunks.len() as u64, index_bytes: index.len() as u32 };
        let bytes = [chunks, index, &footer.encode()].concat();
        let object = ShuffleObject {
            anchors: 0,
            path: PATH.to_owned(),
            bytes: bytes.len() as u64,
            rows,
            first_cell: i64::MIN,
            last_cell: i64::MAX,
            index_crc: crc32fast::hash(index),
            ..Default::default()
        };
        self.put(bytes).await;
        object
    }
}

fn small() -> [(i64, &'static str); 5] {
    [(1_000, "a"), (1_001, "bb"), (990, "ccc"), (1_055, "a"), (1_000, "")]
}

fn split(object: &[u8]) -> (&[u8], ShuffleIndex) {
    let footer = Footer::decode(object, object.len() as u64).unwrap();
    let (chunks, rest) = object.split_at(footer.index_at as usize);
    (chunks, ShuffleIndex::decode(&rest[..rest.len() - FOOTER]).unwrap())
}

#[tokio::test]
async fn an_object_that_ends_early_or_late_is_an_error() {
    let bucket = Bucket::new();
    let object = written(&bucket.store, "0/o/a-1", &small()).await;
    let whole = bucket.get().await;
    assert_eq!(count(&read(&bucket.store, &object, 4).await.unwrap()), 5);
    for end in 0..whole.len() {
        bucket.put(whole[..end].to_vec()).await;
        read(&bucket.store, &object, 4).await.unwrap_err();
        // Nor does it help that the journal believes it.
        let shorter = ShuffleObject { anchors: 0, bytes: end as u64, ..object.clone() };
        read(&bucket.store, &shorter, 4).await.unwrap_err();
    }
    bucket.put([whole, vec![0]].concat()).await;
    let error = read(&bucket.store, &object, 4).await.unwrap_err();
    assert!(matches!(error, ShuffleError::Corrupt { .. }) && error.class() == Class::Retryable, "{error}");
    assert!(error.to_string().contains(PATH), "{error}");
}

#[tokio::test]
async fn a_bit_that_flips_is_an_error() {
    let bucket = Bucket::new();
    let object = written(&bucket.store, "0/o/a-1", &small()).await;
    let whole = bucket.get().await;
    for at in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        bucket.put(flipped).await;
        let error = read(&bucket.store, &object, 4).await.unwrap_err();
        assert!(matches!(error, ShuffleError::Corrupt { .. }), "bit {at}: {error}");
    }
}

#[tokio::test]
async fn what_the_journal_says_of_an_object_is_held_against_it() {
    let bucket = Bucket::new();
    let object = written(&bucket.store, "0/o/a-1", &small()).await;
    for other in [
        ShuffleObject { bytes: object.bytes + 1, ..object.clone() },
        ShuffleObject { rows: object.rows - 1, ..object.clone() },
        ShuffleObject { first_cell: object.first_cell + 1, ..object.clone() },
        ShuffleObject { last_cell: object.last_cell - 1, ..object.clone() },
        ShuffleObject { index_crc: object.index_crc ^ 1, ..object.clone() },
    ] {
        let error = Segments::open(&bucket.store, &other).await.unwrap_err();
        assert!(matches!(error, ShuffleError::Corrupt { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_index_that_claims_too_much_is_refused_before_memory_is_taken() {
    let bucket = Bucket::new();
    written(&bucket.store, "0/o/a-1", &small()).await;
    let whole = bucket.get().await;
    let (chunks, index) = split(&whole);
    let first = index.chunks[0];
    for chunk in [
        Chunk { raw: u32::MAX, ..first },
        Chunk { rows: u32::MAX, ..first },
        Chunk { rows: 0, ..first },
        Chunk { bytes: 0, ..first },
        Chunk { bytes: u32::MAX, ..first },
        Chunk { raw: first.raw + 1, ..first },
        Chunk { raw: first.raw - 1, ..first },
        Chunk { raw: 0, ..first },
    ] {
        let mut index = index.clone();
        index.chunks[0] = chunk;
        let rows = index.chunks.iter().map(|chunk| u64::from(chunk.rows)).sum();
        let object = bucket.put_right(chunks, &index.encode_to_vec(), rows).await;
        let error = read(&bucket.store, &object, 4).await.unwrap_err();
        assert!(matches!(error, ShuffleError::Corrupt { .. }), "{chunk:?}: {error}");
    }
    let mut footer = whole[whole.len() - FOOTER..].to_vec();
    footer[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Footer::decode(&footer, u64::MAX).unwrap_err().0.contains("at most 16 MiB"));
    footer[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    footer[8..12].copy_from_slice(&9u32.to_le_bytes());
    assert!(Footer::decode(&footer, 100).is_err(), "nor does a sum that is too large wrap");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whoever writes into the store can make every checksum right. Rows may come out wrong then; nothing worse.
    #[test]
    fn damage_under_right_checksums_neither_panics_nor_takes_memory(
        what in 0..3usize, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bucket = Bucket::new();
            written(&bucket.store, "0/o/a-1", &small()).await;
            let whole = bucket.get().await;
            let (chunks, mut index) = split(&whole);
            let edited = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                edits.iter().for_each(|(at, byte)| { let at = at.index(bytes.len()); bytes[at] = *byte; });
                bytes
            };
            let rows = index.chunks.iter().map(|chunk| u64::from(chunk.rows)).sum();
            let object = match what {
                0 => {
                    // One chunk, edited as it is unpacked.
                    let chunk = index.chunks[0];
                    let raw = lz4_flex::block::decompress(&chunks[..chunk.bytes as usize], chunk.raw as usize).unwrap();
                    let packed = lz4_flex::block::compress(&edited(&raw));
                    let (bytes, crc) = (packed.len() as u32, crc32fast::hash(&packed));
                    index.chunks = vec![Chunk { bytes, crc, ..chunk }];
                    bucket.put_right(&packed, &index.encode_to_vec(), u64::from(chunk.rows)).await
                }
                1 => {
                    let chunk = index.chunks[0];
                    let packed = edited(&chunks[..chunk.bytes as usize]);
                    index.chunks = vec![Chunk { crc: crc32fast::hash(&packed), ..chunk }];
                    bucket.put_right(&packed, &index.encode_to_vec(), u64::from(chunk.rows)).await
                }
                _ => {
                    index.schema = Bytes::from(edited(&index.schema));
                    bucket.put_right(chunks, &index.encode_to_vec(), rows).await
                }
            };
            if let Ok(batches) = read(&bucket.store, &object, 4).await {
                assert!(count(&batches) <= 5);
                batches.iter().for_each(|batch| drop(format!("{batch:?}")));
            }
        });
    }
}

#[tokio::test]
async fn what_release_1_wrote_is_read() {
    let bucket = Bucket::new();
    bucket.put(include_bytes!("v1.shuffle").to_vec()).await;
    let object = ShuffleObject {
        anchors: 0,
        path: PATH.to_owned(),
        bytes: 766,
        rows: 5,
        first_cell: -1,
        last_cell: 5,
        index_crc: 1_878_177_308,
        ..Default::default()
    };
    assert_eq!(format::VERSION, 1);
    let read = read(&bucket.store, &object, 4).await.unwrap();
    let columns = read.iter().flat_map(|rows| {
        let times = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
        let texts = rows.column(1).as_any().downcast_ref::<StringArray>().unwrap();
        times.into_iter().zip(texts.iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>())
    });
    let mut found: Vec<(i64, String)> = columns.collect();
    found.sort();
    let mut expected = small().map(|(time, text)| (time, text.to_owned()));
    expected.sort();
    assert_eq!(found, expected);
}
