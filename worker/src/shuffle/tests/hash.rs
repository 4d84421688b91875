//! Buckets, held against numbers that another program computed from the table at the top of the module.

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal64Array, Decimal128Array, Decimal256Array,
    DictionaryArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    LargeBinaryArray, LargeStringArray, ListArray, NullArray, StringArray, StringViewArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{Int32Type, Int64Type, i256};

use super::*;

/// As many buckets as there can be.
const MANY: u32 = u32::MAX;

fn hashes(keys: impl Into<Vec<ArrayRef>>) -> Vec<u32> {
    let columns: Vec<_> = keys.into().into_iter().enumerate().map(|(at, key)| (format!("k{at}"), key, true)).collect();
    let keys: Vec<usize> = (0..columns.len()).collect();
    buckets_of(&RecordBatch::try_from_iter_with_nullable(columns).unwrap(), &keys, MANY).unwrap()
}

fn of(key: impl arrow::array::Array + 'static) -> Vec<u32> {
    hashes([Arc::new(key) as ArrayRef])
}

#[test]
fn buckets_are_those_of_every_release() {
    let (zero, one, minus_one, seven) = (1_885_348_155, 2_366_889_748, 305_890_378, 3_024_739_795);
    assert_eq!(of(Int64Array::from(vec![0, 1, -1, 7])), [zero, one, minus_one, seven]);
    assert_eq!(of(Int64Array::from(vec![i64::MIN, i64::MAX])), [2_577_223_563, 4_241_310_240]);
    assert_eq!(of(UInt64Array::from(vec![u64::MAX])), [3_944_066_346]);
    assert_eq!(of(BooleanArray::from(vec![false, true])), [zero, one]);
    let decimals = Decimal128Array::from(vec![150, -1, 12_345_678_901_234_567_890_123_456_789_012]);
    let decimals = decimals.with_precision_and_scale(38, 2).unwrap();
    assert_eq!(of(decimals), [3_928_636_839, 2_033_764_047, 1_012_004_671]);
    let long = i256::from_string(&format!("1{}1", "0".repeat(59))).unwrap();
    let long = Decimal256Array::from(vec![long]).with_precision_and_scale(76, 3).unwrap();
    assert_eq!(of(long), [3_750_071_963]);
    let floats = Float64Array::from(vec![0.0, 1.5, f64::NAN, f64::NEG_INFINITY]);
    assert_eq!(of(floats), [3_914_707_087, 1_971_084_364, 1_604_523_878, 452_499_182]);
    let texts = StringArray::from(vec!["", "a", "é", "customer-0000000042"]);
    assert_eq!(of(texts), [1_932_987_921, 2_688_714_196, 2_468_812_743, 2_629_980_887]);
    let times = TimestampMicrosecondArray::from(vec![0, 1, -1, 19_723 * 86_400_000_000]);
    assert_eq!(of(times), [3_226_453_250, 144_027_803, 259_662_915, 3_550_027_225]);
    assert_eq!(of(NullArray::new(1)), [693_780_687]);
    let two = hashes([
        Arc::new(Int64Array::from(vec![Some(7), None, Some(7)])) as ArrayRef,
        Arc::new(StringArray::from(vec![Some("a"), Some("a"), None])) as ArrayRef,
    ]);
    assert_eq!(two, [2_530_357_803, 1_804_713_528, 3_348_791_729]);
}

#[test]
fn equal_values_are_of_one_bucket_whatever_their_type() {
    let numbers = of(Int64Array::from(vec![Some(0), Some(1), Some(100), None]));
    assert_eq!(of(Int8Array::from(vec![Some(0), Some(1), Some(100), None])), numbers);
    assert_eq!(of(Int16Array::from(vec![Some(0), Some(1), Some(100), None])), numbers);
    assert_eq!(of(Int32Array::from(vec![Some(0), Some(1), Some(100), None])), numbers);
    assert_eq!(of(UInt8Array::from(vec![Some(0), Some(1), Some(100), None])), numbers);
    assert_eq!(of(UInt64Array::from(vec![Some(0), Some(1), Some(100), None])), numbers);
    let decimals = Decimal128Array::from(vec![Some(0), Some(1_000), Some(100_000), None]);
    assert_eq!(of(decimals.with_precision_and_scale(20, 3).unwrap()), numbers);
    let decimals = Decimal64Array::from(vec![Some(0), Some(10), Some(1_000), None]);
    assert_eq!(of(decimals.with_precision_and_scale(9, 1).unwrap()), numbers);
    let decimals = [0, 1_000_000, 100_000_000].map(|n| Some(i256::from_i128(n)));
    let decimals = Decimal256Array::from_iter(decimals.into_iter().chain([None]));
    assert_eq!(of(decimals.with_precision_and_scale(60, 6).unwrap()), numbers);
    let hundreds = Decimal128Array::from(vec![0, 1]).with_precision_and_scale(5, -2).unwrap();
    assert_eq!(of(hundreds), [numbers[0], numbers[2]]);

    assert_eq!(of(Float64Array::from(vec![-0.0])), of(Float64Array::from(vec![0.0])));
    let nan = f64::from_bits(0xfff8_0000_0000_0001);
    assert_eq!(of(Float64Array::from(vec![nan])), of(Float64Array::from(vec![f64::NAN])));
    assert_eq!(of(Float32Array::from(vec![0.5, -0.0])), of(Float64Array::from(vec![0.5, 0.0])));

    let micros = of(TimestampMicrosecondArray::from(vec![-86_400_000_000, 0]));
    assert_eq!(of(TimestampSecondArray::from(vec![-86_400, 0])), micros);
    assert_eq!(of(TimestampMillisecondArray::from(vec![-86_400_000, 0]).with_timezone("+02:00")), micros);
    assert_eq!(of(TimestampNanosecondArray::from(vec![-86_400_000_000_000, 0])), micros);
    assert_eq!(of(Date32Array::from(vec![-1, 0])), micros);
    assert_eq!(of(Date64Array::from(vec![-86_400_000, 0])), micros);
}

#[test]
fn equal_values_are_of_one_bucket_however_they_lie_in_memory() {
    let texts = vec![Some("x"), None, Some("a text that no view holds inline"), Some("")];
    let plain = of(StringArray::from(texts.clone()));
    assert_eq!(of(LargeStringArray::from(texts.clone())), plain);
    assert_eq!(of(StringViewArray::from(texts.clone())), plain);
    assert_eq!(of(texts.iter().copied().collect::<DictionaryArray<Int32Type>>()), plain);
    let bytes: Vec<Option<&[u8]>> = texts.iter().map(|text| text.map(str::as_bytes)).collect();
    assert_eq!(of(BinaryArray::from(bytes.clone())), plain);
    assert_eq!(of(LargeBinaryArray::from(bytes)), plain);
    let run_ends = DataType::RunEndEncoded(
        Arc::new(Field::new("run_ends", DataType::Int32, false)),
        Arc::new(Field::new("values", DataType::Utf8, true)),
    );
    let array: ArrayRef = Arc::new(StringArray::from(texts));
    assert_eq!(hashes([cast(&array, &run_ends).unwrap()]), plain);
    for view in [DataType::Utf8, DataType::Utf8View, DataType::LargeUtf8] {
        assert_eq!(hashes([cast(&array, &view).unwrap().slice(1, 3)]), plain[1..]);
    }
    let fixed = FixedSizeBinaryArray::try_from_iter(["ab", "cd"].into_iter()).unwrap();
    assert_eq!(of(fixed), of(StringArray::from(vec!["ab", "cd"])));
}

#[test]
fn buckets_are_filled_evenly() {
    let rows = batch(vec![("k", Arc::new(Int64Array::from_iter_values(0..64_000)))]);
    let mut filled = [0; 64];
    buckets_of(&rows, &[0], 64).unwrap().into_iter().for_each(|bucket| filled[bucket as usize] += 1);
    assert!(filled.iter().all(|rows| (850..1150).contains(rows)), "{filled:?}");
    assert_eq!(buckets_of(&rows, &[], 64).unwrap(), vec![0; 64_000]);
}

#[test]
fn what_cannot_be_hashed_is_said() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
    let rows = batch(vec![("l", Arc::new(lists))]);
    for (keys, buckets, said) in [(&[0], 2, "are not hashed"), (&[1], 2, "no column 1"), (&[0], 0, "no buckets")] {
        let error = buckets_of(&rows, keys, buckets).unwrap_err();
        assert!(error.to_string().contains(said) && error.class() == Class::Poison, "{error}");
    }
}
