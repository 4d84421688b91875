//! What was written comes back, each row once and where it belongs, whatever its columns, and however it was written.

use std::collections::BTreeMap;

use arrow::array::{
    BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, ListArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::*;

/// A column of a kind whose rows are made of numbers, `None` a null.
fn column(kind: usize, of: &[Option<i64>]) -> ArrayRef {
    let texts = |of: &[Option<i64>]| -> StringArray {
        of.iter().map(|n| n.map(|n| "x".repeat(usize::try_from(n.rem_euclid(30)).unwrap()))).collect()
    };
    let item = |kind| Arc::new(Field::new("item", kind, true));
    let recast = |kind: DataType| cast(&texts(of), &kind).unwrap();
    let list = || {
        let lists = of.iter().map(|n| n.map(|n| (0..n.rem_euclid(4)).map(move |m| (m != 2).then_some(n + m))));
        ListArray::from_iter_primitive::<Int64Type, _, _>(lists)
    };
    match kind {
        0 => Arc::new(of.iter().copied().collect::<Int64Array>()),
        1 => Arc::new(texts(of)),
        2 => recast(DataType::Utf8View),
        3 => recast(DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8))),
        4 => recast(DataType::BinaryView),
        5 => Arc::new(of.iter().map(|n| n.map(|n| n % 2 == 0)).collect::<BooleanArray>()),
        6 => Arc::new(of.iter().map(|n| n.map(|n| n as f64 / 8.0)).collect::<Float64Array>()),
        7 => Arc::new(of.iter().map(|n| n.map(i128::from)).collect::<Decimal128Array>()),
        8 => Arc::new(of.iter().copied().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        9 => Arc::new(list()),
        10 => cast(&list(), &DataType::LargeList(item(DataType::Utf8View))).unwrap(),
        11 => {
            let fields = vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8View, true)];
            let nulls = of.iter().map(Option::is_some).collect::<Vec<bool>>().into();
            Arc::new(StructArray::new(fields.into(), vec![column(0, of), column(2, of)], Some(nulls)))
        }
        12 => {
            let bytes = of.iter().map(|n| n.map(i64::to_le_bytes));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 8).unwrap())
        }
        13 => arrow::array::new_null_array(&DataType::Null, of.len()),
        14 => {
            let bytes: Vec<Option<[u8; 8]>> = of.iter().map(|n| n.map(i64::to_be_bytes)).collect();
            Arc::new(BinaryArray::from_iter(bytes))
        }
        15 => recast(DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(Field::new("values", DataType::Utf8, true)),
        )),
        16 => cast(&list(), &DataType::List(item(DataType::Decimal128(30, 2)))).unwrap(),
        17 => cast(&list(), &DataType::ListView(item(DataType::Int64))).unwrap(),
        _ => recast(DataType::LargeUtf8),
    }
}
const KINDS: usize = 19;

fn table(kinds: &[usize], times: &[i64], values: &[Option<i64>]) -> RecordBatch {
    let time: ArrayRef = Arc::new(times.iter().copied().map(Some).collect::<Int64Array>());
    let names: Vec<String> = kinds.iter().enumerate().map(|(at, kind)| format!("c{at}_{kind}")).collect();
    let columns = names.iter().zip(kinds).map(|(name, kind)| (name.as_str(), column(*kind, values)));
    batch(std::iter::once(("$time", time)).chain(columns).collect())
}

/// Each row, in words.
fn said(rows: &RecordBatch) -> Vec<String> {
    let row = |row| rows.columns().iter().map(move |column| array_value_to_string(column, row).unwrap());
    (0..rows.num_rows()).map(|at| row(at).collect::<Vec<_>>().join("|")).collect()
}

/// What was written: the rows of each bucket and cell, in order.
type Oracle = BTreeMap<(u32, i64), Vec<String>>;

fn oracle(rows: &RecordBatch, times: &[i64], keys: &[usize], buckets: u32) -> Oracle {
    let mut oracle = Oracle::new();
    let placed = buckets_of(rows, keys, buckets).unwrap().into_iter().zip(times);
    for ((bucket, time), row) in placed.zip(said(rows)) {
        // The grid of `slices()`.
        let cell = (time - 1_000).div_euclid(10);
        oracle.entry((bucket, cell)).or_default().push(row);
    }
    oracle
}

async fn check(segments: &Segments, oracle: &Oracle, schema: &SchemaRef, buckets: u32) {
    let cells: Vec<i64> = oracle.keys().map(|(_, cell)| *cell).collect();
    let (low, high) = (*cells.iter().min().unwrap(), *cells.iter().max().unwrap());
    let mut ranges: Vec<_> = cells.iter().map(|cell| *cell..=*cell).collect();
    ranges.extend([
        low..=high,
        low..=(low + high) / 2,
        (low + high) / 2..=high,
        low - 3..=low - 1,
        i64::MIN..=i64::MAX,
    ]);
    for cells in ranges {
        for bucket in 0..=buckets {
            let read: Vec<RecordBatch> = segments.rows(cells.clone(), bucket).try_collect().await.unwrap();
            assert!(read.iter().all(|rows| rows.schema() == *schema));
            let weight = segments.weigh(cells.clone(), bucket);
            assert_eq!(weight.rows, count(&read) as u64);
            assert_eq!(weight.rows > 0, weight.bytes > 0);
            let expected = oracle.iter().filter(|((of, cell), _)| *of == bucket && cells.contains(cell));
            let mut expected: Vec<String> = expected.flat_map(|(_, rows)| rows.clone()).collect();
            let mut found: Vec<String> = read.iter().flat_map(said).collect();
            if cells.start() != cells.end() {
                // Of several cells, only the order within each is promised.
                expected.sort();
                found.sort();
            }
            assert_eq!(found, expected, "bucket {bucket} of cells {cells:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_row_comes_back_once_where_it_belongs(
        kinds in prop::collection::vec(0..KINDS, 0..5), key in 0..5usize, buckets in 1..7u32,
        of in prop::collection::vec((940..1_200i64, prop::option::weighted(0.8, -40..40i64)), 1..120),
        sizes in prop::collection::vec((1..40usize, any::<bool>()), 1..10), most_held in 100..20_000usize,
        in_bucket in any::<bool>(),
    ) {
        let (times, values): (Vec<i64>, Vec<Option<i64>>) = of.into_iter().unzip();
        let rows = table(&kinds, &times, &values);
        // A key where its type can be one.
        let keys: Vec<usize> = Some(key).filter(|key| (1..=kinds.len()).contains(key)).into_iter()
            .filter(|key| !matches!(kinds[key - 1], 9 | 10 | 11 | 16 | 17)).collect();
        let oracle = oracle(&rows, &times, &keys, buckets);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_folder, store) = on_disk();
            let store = if in_bucket { in_memory() } else { store };
            let name = "0/source/attempt-1";
            let mut writer = ShuffleWriter::create(&store, &backfill(), name, rows.schema(), &keys, slices(), buckets)
                .unwrap().holding(most_held);
            let (mut at, mut sizes) = (0, sizes.into_iter().cycle());
            while at < rows.num_rows() {
                let (size, is_flushed) = sizes.next().unwrap();
                let size = size.min(rows.num_rows() - at);
                writer.write(&rows.slice(at, size)).await.unwrap();
                writer.write(&rows.slice(at, 0)).await.unwrap();
                if is_flushed {
                    writer.flush().await.unwrap();
                    assert!(in_bucket || writer.buffered_bytes() == 0);
                }
                at += size;
            }
            let object = writer.close().await.unwrap().unwrap();
            let cells: Vec<i64> = oracle.keys().map(|(_, cell)| *cell).collect();
            assert_eq!(object.rows, rows.num_rows() as u64);
            assert_eq!((object.first_cell, object.last_cell), (*cells.iter().min().unwrap(), *cells.iter().max().unwrap()));
            let mut by_cell = BTreeMap::<i64, u64>::new();
            for ((_, cell), rows) in &oracle {
                *by_cell.entry(*cell).or_default() += rows.len() as u64;
            }
            assert_eq!(object.cells.iter().copied().zip(object.cell_rows.iter().copied()).collect::<BTreeMap<_, _>>(), by_cell);
            let segments = Segments::open(&store, &object).await.unwrap();
            check(&segments, &oracle, &rows.schema(), buckets).await;
        });
    }
}

#[tokio::test]
async fn each_type_comes_back_as_it_was() {
    let store = in_memory();
    let (times, values): (Vec<i64>, Vec<Option<i64>>) = (0..200).map(|n| (900 + n, (n % 7 > 0).then_some(n))).unzip();
    for kind in 0..KINDS {
        let rows = table(&[kind], &times, &values);
        let name = format!("0/s/{kind}");
        let mut writer =
            ShuffleWriter::create(&store, &backfill(), &name, rows.schema(), &[], slices(), 1).unwrap().holding(2_000);
        for at in 0..20 {
            writer.write(&rows.slice(at * 10, 10)).await.unwrap();
        }
        let object = writer.close().await.unwrap().unwrap();
        let read = read(&store, &object, 1).await.unwrap();
        let read = concat_batches(&rows.schema(), &read).unwrap();
        let mut found = said(&read);
        let mut expected = said(&rows);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{}", rows.schema());
    }
}

#[tokio::test]
async fn many_rows_are_written_out_in_large_chunks_within_the_bound_on_memory() {
    let (_folder, disk) = on_disk();
    for store in [disk, in_memory()] {
        // 1.2 million rows of about 50 bytes, nine in ten of one place; texts that LZ4 does not make shorter.
        let mut writer = writer(&store, "0/o/a-1", 8);
        let mut expected: BTreeMap<(u32, i64), u64> = BTreeMap::new();
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 20
        };
        for at in 0..150u64 {
            let texts: Vec<String> = (0..8_000)
                .map(|row| {
                    if row % 10 > 0 { "hot".to_owned() } else { format!("{:x}{:x}{:x}", random(), random(), random()) }
                })
                .collect();
            let of: Vec<(i64, &str)> = texts
                .iter()
                .enumerate()
                .map(|(row, text)| (1_000 + (row as i64 % 10) * (at as i64 % 3), &**text))
                .collect();
            let rows = rows(&of);
            let buckets = buckets_of(&rows, &[1], 8).unwrap();
            for (bucket, (time, _)) in buckets.into_iter().zip(&of) {
                *expected.entry((bucket, (time - 1_000).div_euclid(10))).or_default() += 1;
            }
            writer.write(&rows).await.unwrap();
            assert!(writer.buffered_bytes() < 50 << 20, "{}", writer.buffered_bytes());
        }
        let object = writer.close().await.unwrap().unwrap();
        assert_eq!(object.rows, 1_200_000);
        let segments = Segments::open(&store, &object).await.unwrap();
        let mut chunks = 0;
        for ((bucket, cell), rows) in expected {
            let weight = segments.weigh(cell..=cell, bucket);
            assert_eq!(weight.rows, rows);
            let read: Vec<RecordBatch> = segments.rows(cell..=cell, bucket).try_collect().await.unwrap();
            assert_eq!(count(&read) as u64, rows);
            assert!(read.iter().all(|rows| rows.num_rows() <= 64 << 10));
            chunks += read.len();
        }
        assert!(chunks < 80, "{chunks} chunks");
    }
}

#[tokio::test]
async fn rows_that_cannot_be_kept_are_refused() {
    let store = in_memory();
    let create = |schema: SchemaRef, keys: &[usize], buckets| {
        ShuffleWriter::create(&store, &backfill(), "0/o/a-1", schema, keys, slices(), buckets)
    };
    let of = |kinds: Vec<DataType>| -> SchemaRef {
        let fields = kinds.into_iter().enumerate().map(|(at, kind)| Field::new(format!("c{at}"), kind, true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    };
    let list = DataType::new_list(DataType::Int64, true);
    let union = DataType::Union(arrow::datatypes::UnionFields::empty(), arrow::datatypes::UnionMode::Dense);
    for (schema, keys, buckets) in [
        (of(vec![]), &[][..], 1),
        (of(vec![DataType::Utf8]), &[], 1),
        (of(vec![DataType::Int64, union]), &[], 1),
        (of(vec![DataType::Int64, list]), &[1], 2),
        (of(vec![DataType::Int64]), &[1], 2),
        (of(vec![DataType::Int64]), &[], 0),
    ] {
        let error = create(schema, keys, buckets).err().unwrap();
        assert!(matches!(error, ShuffleError::Rows { .. }) && error.class() == Class::Poison, "{error}");
    }
    let mut writer = create(of(vec![DataType::Int64, DataType::Utf8]), &[1], 2).unwrap();
    let other = batch(vec![("$time", Arc::new(Int64Array::from(vec![1])))]);
    assert!(writer.write(&other).await.is_err());
    let timeless = RecordBatch::try_from_iter_with_nullable([
        ("$time", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef, true),
        ("text", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef, true),
    ]);
    assert!(writer.write(&timeless.unwrap()).await.unwrap_err().to_string().contains("no event time"));
    assert_eq!(writer.close().await.unwrap(), None);
}
