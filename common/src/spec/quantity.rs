//! Durations and sizes as people write them, and the one way in which they are written back.

use jiff::SpanRelativeTo;

use super::error::{SpecError, quoted};
use crate::time::Span;

/// Ten thousand years of 365 days, in microseconds.
const LONGEST: i64 = 10_000 * 365 * 86_400_000_000;

/// A length of time: `90s`, `2h30m`, `10d`, `500ms`, or ISO 8601 (`PT1H`, `P1D`). A day has 24 hours. Never negative.
///
/// # Errors
/// What is no duration, has no fixed length (months, years), is negative, finer than a microsecond, or longer
/// than ten thousand years.
pub fn parse_span(text: &str) -> Result<Span, SpecError> {
    let bad = |why: &str| {
        let error = SpecError::new(format!("{} is not a duration{why}", quoted(text)));
        error.hint("write `90s`, `2h30m`, `10d`, `500ms`, or ISO 8601 such as `PT1H`")
    };
    let span: jiff::Span = text.trim().parse().map_err(|_| bad(""))?;
    if span.get_months() != 0 || span.get_years() != 0 {
        return Err(bad(": months and years have no fixed length"));
    }
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad(""))?;
    if length.is_negative() {
        return Err(bad(": it is negative"));
    }
    if length.subsec_nanos() % 1_000 != 0 {
        return Err(bad(": it is finer than a microsecond"));
    }
    match i64::try_from(length.as_micros()) {
        Ok(micros) if micros <= LONGEST => Ok(Span::from_micros(micros)),
        _ => Err(bad(": it is too long")),
    }
}

/// The one way to write `span` back; every length has one, and [`parse_span`] reads it.
pub fn canonical_span(span: Span) -> String {
    const UNITS: [(i64, &str); 6] =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us")];
    let mut rest = span.as_micros().max(0);
    let mut text = String::new();
    for (length, unit) in UNITS {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// A number of bytes: `512MiB`, `4GiB`, `1GB`, `100B`, or a bare number.
///
/// # Errors
/// What is no size, or more than 2⁶³ − 1 bytes.
pub fn parse_bytes(text: &str) -> Result<u64, SpecError> {
    let trimmed = text.trim();
    let (number, factor) = SIZES
        .iter()
        .find_map(|(unit, factor)| trimmed.strip_suffix(unit).map(|number| (number.trim_end(), *factor)))
        .unwrap_or((trimmed, 1));
    let whole = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| whole).and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| {
        let error = SpecError::new(format!("{} is not a size", quoted(text)));
        error.hint("write a whole number and a unit: `512MiB`, `4GiB`, `1GB`")
    })
}

/// The one way to write `bytes` back: the largest binary unit that divides it.
pub(super) fn canonical_bytes(bytes: u64) -> String {
    let binary = SIZES.iter().filter(|(unit, _)| unit.ends_with("iB"));
    match binary.into_iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        for (text, micros) in [
            ("90s", 90_000_000),
            ("2h30m", 9_000_000_000),
            ("10d", 864_000_000_000),
            ("500ms", 500_000),
            ("PT1H", 3_600_000_000),
            ("P1D", 86_400_000_000),
            ("1us", 1),
            ("0s", 0),
        ] {
            assert_eq!(parse_span(text).unwrap(), Span::from_micros(micros), "{text}");
        }
        for text in ["", "10", "x", "-5s", "5s ago", "1ns", "1mo", "P1M", "P1Y", "999999999999999999h", "10 d d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        for (text, bytes) in [("512MiB", 512 << 20), ("4GiB", 4 << 30), ("1GB", 1_000_000_000), ("7", 7), ("7 B", 7)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GiB", "-1B", "+1B", "1.5GiB", "1gib", "99999999999TiB", "16777216TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
