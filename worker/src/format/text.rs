//! Values that are written as text: numbers, dates and times become exactly what stands there, or nothing.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::DataType;

use super::columns::{Column, Values};
use super::shown;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Appends the value that `text` writes to `column`. The error says what it is not.
pub(super) fn push(column: &mut Column, text: &str) -> Result<(), String> {
    if matches!(column.kind(), DataType::Utf8) {
        if let Values::Bytes(values) = column.next() {
            values.push(text.as_bytes());
        }
        return Ok(());
    }
    let pushed = number(column, text).or_else(|()| other(column, text));
    pushed.map_err(|()| format!("{} is no {}", shown(text), sql(column.kind())))
}

/// Appends the number `text` to `column`, one of numbers.
pub(super) fn number(column: &mut Column, text: &str) -> Result<(), ()> {
    let DataType::Decimal128(precision, scale) = *column.kind() else { return plain_number(column, text) };
    let limit = 10_i128.checked_pow(u32::from(precision)).ok_or(())?;
    let value = decimal(text, i32::from(scale)).filter(|value| value.unsigned_abs() < limit.unsigned_abs()).ok_or(())?;
    if let Values::Decimal(values) = column.next() {
        values.push(value);
    }
    Ok(())
}

fn plain_number(column: &mut Column, text: &str) -> Result<(), ()> {
    match column.kind() {
        DataType::Int32 => {
            let value = integer(text).and_then(|value| i32::try_from(value).ok()).ok_or(())?;
            if let Values::Int32(values) = column.next() {
                values.push(value);
            }
        }
        DataType::Int64 => {
            let value = integer(text).ok_or(())?;
            if let Values::Int64(values) = column.next() {
                values.push(value);
            }
        }
        DataType::Float32 => {
            let value: f32 = text.parse().map_err(|_| ())?;
            let value = Some(value).filter(|value| value.is_finite() || is_word(text)).ok_or(())?;
            if let Values::Float32(values) = column.next() {
                values.push(value);
            }
        }
        DataType::Float64 => {
            let value: f64 = text.parse().map_err(|_| ())?;
            let value = Some(value).filter(|value| value.is_finite() || is_word(text)).ok_or(())?;
            if let Values::Float64(values) = column.next() {
                values.push(value);
            }
        }
        _ => return Err(()),
    }
    Ok(())
}

/// Appends a boolean, a date or a time.
fn other(column: &mut Column, text: &str) -> Result<(), ()> {
    match column.kind() {
        DataType::Boolean => {
            let value = if text.eq_ignore_ascii_case("true") {
                true
            } else if text.eq_ignore_ascii_case("false") {
                false
            } else {
                return Err(());
            };
            if let Values::Boolean(values) = column.next() {
                values.append(value);
            }
        }
        DataType::Date32 => {
            let value = Some(text.as_bytes()).filter(|text| text.len() == 10).and_then(date).ok_or(())?;
            if let Values::Int32(values) = column.next() {
                values.push(i32::try_from(value).map_err(|_| ())?);
            }
        }
        DataType::Timestamp(..) => {
            let value = time(text).ok_or(())?;
            if let Values::Int64(values) = column.next() {
                values.push(value);
            }
        }
        _ => return Err(()),
    }
    Ok(())
}

/// A type as a spec writes it.
pub(super) fn sql(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Utf8 => "varchar".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        other => other.to_string(),
    }
}

/// Whether a number is written as a word, `NaN` or `Infinity`: a number of digits that is none is out of range.
fn is_word(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_digit())
}

/// A whole number; `1.0` and `1e3` are some, `1.5` is none.
fn integer(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (is_negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        return Some(if is_negative { -value } else { value });
    }
    decimal(text, 0).and_then(|value| i64::try_from(value).ok())
}

/// A number in units of `10^-scale`; none when it is no whole number of them, or too great.
fn decimal(text: &str, scale: i32) -> Option<i128> {
    let bytes = text.as_bytes();
    let (is_negative, bytes) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (digits, exponent) = match bytes.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        None => (bytes, 0),
        Some(at) => (bytes.get(..at)?, exponent(bytes.get(at + 1..)?)?),
    };
    let (mut value, mut zeros, mut behind, mut seen, mut is_behind) = (0_i128, 0_u32, 0_i64, false, false);
    for byte in digits {
        match byte {
            b'.' if !is_behind => {
                is_behind = true;
                continue;
            }
            b'0' => zeros += 1,
            b'1'..=b'9' => {
                // Zeros count once a digit follows them: those at the end belong to the exponent.
                let shift = if value == 0 { 1 } else { 10_i128.checked_pow(zeros.checked_add(1)?)? };
                value = value.checked_mul(shift)?.checked_add(i128::from(byte - b'0'))?;
                zeros = 0;
            }
            _ => return None,
        }
        seen = true;
        behind += i64::from(is_behind);
    }
    if !seen {
        return None;
    }
    if value == 0 {
        return Some(0);
    }
    let shift = exponent.checked_add(i64::from(zeros))?.checked_sub(behind)?.checked_add(i64::from(scale))?;
    let value = value.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?;
    Some(if is_negative { -value } else { value })
}

fn exponent(bytes: &[u8]) -> Option<i64> {
    /// Beyond, it is so great that nothing fits.
    const MOST: i64 = 1 << 32;
    let (is_negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(MOST));
    Some(if is_negative { -value } else { value })
}

/// The days since 1970 of `YYYY-MM-DD`, the beginning of `text`.
fn date(text: &[u8]) -> Option<i64> {
    let &[a, b, c, d, b'-', e, f, b'-', g, h, ..] = text else { return None };
    let (year, month, day) = (two(a, b)? * 100 + two(c, d)?, two(e, f)?, two(g, h)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // The year begins in March, so that the leap day is its last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

/// The microseconds since 1970 of a time; one without a zone is in UTC, and what is finer is cut off.
fn time(text: &str) -> Option<i64> {
    usual_time(text.as_bytes()).or_else(|| {
        let utc: Tz = "+00:00".parse().ok()?;
        string_to_datetime(&utc, text).ok().map(|time| time.timestamp_micros())
    })
}

/// The form that times most often have: `2024-01-31T12:30:00.123456Z`.
fn usual_time(text: &[u8]) -> Option<i64> {
    let days = date(text)?;
    let &[b'T' | b't' | b' ', a, b, b':', c, d, b':', e, f, ref rest @ ..] = text.get(10..)? else { return None };
    let (hour, minute, second) = (two(a, b)?, two(c, d)?, two(e, f)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, rest) = match rest {
        [b'.', rest @ ..] => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, rest) = rest.split_at_checked(length).filter(|_| (1..=9).contains(&length))?;
            let micros = (0..6).map(|at| digits.get(at).map_or(0, |digit| i64::from(digit - b'0')));
            (micros.fold(0, |value, digit| value * 10 + digit), rest)
        }
        rest => (0, rest),
    };
    let offset = match *rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d] => {
            let (hours, minutes) = (two(a, b)?, two(c, d)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some(days * DAY + ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests;
