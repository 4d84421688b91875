//! Which bucket a row belongs to: the same for equal keys on every worker, in every release.
//!
//! Each key is turned into bytes that equal values share, whatever their type or layout, and the bytes of all keys of a
//! row are hashed together by FNV-1a (64 bit; Fowler, Noll and Vo), of which the finaliser of MurmurHash3 (Appleby)
//! spreads what lies in the low bits. The bucket is the rest modulo the number of buckets.
//!
//! | values | bytes |
//! |---|---|
//! | null | `0` |
//! | integers, decimals, booleans | `1`, how many digits stand behind the point, zeros at their end left out, as `i8`, then all digits as the first of `i64`, `i128` and `i256` that holds them |
//! | floats | `2`, the bits of the `f64`; `-0.0` as `0.0`, any NaN as one |
//! | strings, binary | `3`, the length as `u64`, the bytes |
//! | dates, timestamps | `4`, microseconds since 1970 as `i64` |
//!
//! Numbers are little endian. Other types are refused, and so are the lists and structs that hold any.

use arrow::array::{Array, ArrayAccessor, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type, i256,
};

use super::error::ShuffleError;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// The bucket of each row, by the columns `keys`; without keys, all rows are of bucket 0.
pub fn buckets_of(rows: &RecordBatch, keys: &[usize], buckets: u32) -> Result<Vec<u32>, ShuffleError> {
    if buckets == 0 {
        return Err(ShuffleError::rows("there are no buckets"));
    }
    if keys.is_empty() || buckets == 1 {
        return Ok(vec![0; rows.num_rows()]);
    }
    let mut hashes = vec![FNV_BASIS; rows.num_rows()];
    for key in keys {
        let column = rows.columns().get(*key).ok_or_else(|| ShuffleError::rows(format!("there is no column {key}")))?;
        add(&mut hashes, column)?;
    }
    let bucket = |hash| u32::try_from(spread(hash) % u64::from(buckets)).unwrap_or(0);
    Ok(hashes.into_iter().map(bucket).collect())
}

/// Whether [`buckets_of`] takes keys of that type.
pub fn is_hashed(kind: &DataType) -> bool {
    add(&mut [], &arrow::array::new_empty_array(kind)).is_ok()
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

fn spread(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Hashes one more key into each row's hash.
fn add(hashes: &mut [u64], keys: &ArrayRef) -> Result<(), ShuffleError> {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    match keys.data_type() {
        DataType::Null => hashes.iter_mut().for_each(|hash| *hash = fnv(*hash, &[0])),
        DataType::Boolean => each(hashes, keys.as_boolean(), |hash, value| number(hash, i128::from(value), 0)),
        DataType::Int8 => integers::<Int8Type>(hashes, keys),
        DataType::Int16 => integers::<Int16Type>(hashes, keys),
        DataType::Int32 => integers::<Int32Type>(hashes, keys),
        DataType::Int64 => integers::<Int64Type>(hashes, keys),
        DataType::UInt8 => integers::<UInt8Type>(hashes, keys),
        DataType::UInt16 => integers::<UInt16Type>(hashes, keys),
        DataType::UInt32 => integers::<UInt32Type>(hashes, keys),
        DataType::UInt64 => integers::<UInt64Type>(hashes, keys),
        DataType::Decimal32(_, scale) => decimals::<Decimal32Type>(hashes, keys, *scale),
        DataType::Decimal64(_, scale) => decimals::<Decimal64Type>(hashes, keys, *scale),
        DataType::Decimal128(_, scale) => decimals::<Decimal128Type>(hashes, keys, *scale),
        DataType::Decimal256(_, scale) => {
            each(hashes, keys.as_primitive::<Decimal256Type>(), |hash, value| long_number(hash, value, *scale));
        }
        DataType::Float16 => floats::<Float16Type>(hashes, keys),
        DataType::Float32 => floats::<Float32Type>(hashes, keys),
        DataType::Float64 => floats::<Float64Type>(hashes, keys),
        DataType::Utf8 => each(hashes, keys.as_string::<i32>(), |hash, value| text(hash, value.as_bytes())),
        DataType::LargeUtf8 => each(hashes, keys.as_string::<i64>(), |hash, value| text(hash, value.as_bytes())),
        DataType::Utf8View => each(hashes, keys.as_string_view(), |hash, value| text(hash, value.as_bytes())),
        DataType::Binary => each(hashes, keys.as_binary::<i32>(), text),
        DataType::LargeBinary => each(hashes, keys.as_binary::<i64>(), text),
        DataType::BinaryView => each(hashes, keys.as_binary_view(), text),
        DataType::FixedSizeBinary(_) => each(hashes, keys.as_fixed_size_binary(), text),
        DataType::Date32 => times::<Date32Type>(hashes, keys, |day| i64::from(day).wrapping_mul(MICROS_A_DAY)),
        DataType::Date64 => times::<Date64Type>(hashes, keys, |at| at.wrapping_mul(1_000)),
        DataType::Timestamp(Second, _) => {
            times::<TimestampSecondType>(hashes, keys, |at| at.wrapping_mul(1_000_000));
        }
        DataType::Timestamp(Millisecond, _) => {
            times::<TimestampMillisecondType>(hashes, keys, |at| at.wrapping_mul(1_000));
        }
        DataType::Timestamp(Microsecond, _) => times::<TimestampMicrosecondType>(hashes, keys, |at| at),
        DataType::Timestamp(Nanosecond, _) => {
            times::<TimestampNanosecondType>(hashes, keys, |at| at.div_euclid(1_000));
        }
        DataType::Dictionary(_, values) => return add(hashes, &plain(keys, values)?),
        DataType::RunEndEncoded(_, values) => return add(hashes, &plain(keys, values.data_type())?),
        kind => return Err(ShuffleError::rows(format!("keys of type {kind} are not hashed"))),
    }
    Ok(())
}

fn plain(keys: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ShuffleError> {
    cast(keys, kind).map_err(ShuffleError::rows)
}

fn each<A: ArrayAccessor>(hashes: &mut [u64], keys: A, with: impl Fn(u64, A::Item) -> u64) {
    for (row, hash) in hashes.iter_mut().enumerate() {
        *hash = if keys.is_null(row) { fnv(*hash, &[0]) } else { with(*hash, keys.value(row)) };
    }
}

/// The digits of a number, of which `scale` stand behind the point.
fn number(hash: u64, mut digits: i128, mut scale: i8) -> u64 {
    while scale > 0 && digits % 10 == 0 {
        (digits, scale) = (digits / 10, scale - 1);
    }
    while let (true, Some(longer)) = (scale < 0, digits.checked_mul(10)) {
        (digits, scale) = (longer, scale + 1);
    }
    let hash = fnv(fnv(hash, &[1]), &scale.to_le_bytes());
    match i64::try_from(digits) {
        Ok(digits) => fnv(hash, &digits.to_le_bytes()),
        Err(_) => fnv(hash, &digits.to_le_bytes()),
    }
}

fn long_number(hash: u64, mut digits: i256, mut scale: i8) -> u64 {
    let ten = i256::from_i128(10);
    while scale > 0 && digits.wrapping_rem(ten) == i256::ZERO {
        (digits, scale) = (digits.wrapping_div(ten), scale - 1);
    }
    match digits.to_i128() {
        Some(digits) => number(hash, digits, scale),
        None => fnv(fnv(fnv(hash, &[1]), &scale.to_le_bytes()), &digits.to_le_bytes()),
    }
}

fn text(hash: u64, value: &[u8]) -> u64 {
    let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
    fnv(fnv(fnv(hash, &[3]), &length.to_le_bytes()), value)
}

fn integers<T: ArrowPrimitiveType<Native: Into<i128>>>(hashes: &mut [u64], keys: &ArrayRef) {
    each(hashes, keys.as_primitive::<T>(), |hash, value| number(hash, value.into(), 0));
}

fn decimals<T: ArrowPrimitiveType<Native: Into<i128>>>(hashes: &mut [u64], keys: &ArrayRef, scale: i8) {
    each(hashes, keys.as_primitive::<T>(), |hash, value| number(hash, value.into(), scale));
}

fn floats<T: ArrowPrimitiveType<Native: Into<f64>>>(hashes: &mut [u64], keys: &ArrayRef) {
    each(hashes, keys.as_primitive::<T>(), |hash, value| {
        let value: f64 = value.into();
        let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { (value + 0.0).to_bits() };
        fnv(fnv(hash, &[2]), &bits.to_le_bytes())
    });
}

fn times<T: ArrowPrimitiveType>(hashes: &mut [u64], keys: &ArrayRef, micros: impl Fn(T::Native) -> i64) {
    each(hashes, keys.as_primitive::<T>(), |hash, value| fnv(fnv(hash, &[4]), &micros(value).to_le_bytes()));
}
