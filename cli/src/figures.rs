//! Numbers as people read them: `2,362,779,042`, `1.73M/s`, `161.2 GiB`, `8m30s`, `2026-10-03T20:52:00Z`.
//!
//! Nothing here is for machines: their output has base units and whole numbers.

use tidegate_common::time::{EventTime, Span};

/// A count with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in binary units.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // what would be shown as 1024.0 belongs to the next unit
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Three digits and a decimal unit: `950`, `1.73M`, `173k`.
pub(crate) fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    if !number.is_finite() || number <= 0.0 {
        return "0".to_owned();
    }
    let mut value = number;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    match value {
        v if v >= 99.95 || unit.is_empty() && v >= 9.995 => format!("{v:.0}{unit}"),
        v if v >= 9.995 => format!("{v:.1}{unit}"),
        v => format!("{v:.2}{unit}"),
    }
}

/// A rate of records.
pub(crate) fn rate(records_a_second: f64) -> String {
    format!("{}/s", short(records_a_second))
}

/// `part` of `whole` in percent; nothing of nothing is all of it.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) }
}

/// A length of time given in microseconds, no finer than it is worth: whole seconds from ten seconds on, else a tenth.
pub(crate) fn micros(micros: u64) -> String {
    let coarse = if micros >= 10_000_000 {
        micros / 1_000_000 * 1_000_000
    } else if micros >= 100_000 {
        micros / 100_000 * 100_000
    } else {
        micros / 1_000 * 1_000
    };
    span(i64::try_from(coarse).unwrap_or(i64::MAX))
}

/// A length of event time in microseconds.
pub(crate) fn span(micros: i64) -> String {
    Span::from_micros(micros).to_string()
}

/// Where rows lie, seen from those that they are joined to, in microseconds: `from 4h before to 1h after`.
pub(crate) fn reach(low: i64, high: i64) -> String {
    let point = |at: i64| match at.signum() {
        0 => "the same time".to_owned(),
        -1 => format!("{} before", span(at.saturating_neg())),
        _ => format!("{} after", span(at)),
    };
    match (low, high) {
        (0, 0) => "at the same time".to_owned(),
        (low, high) if low == high => point(low),
        (low, 0) => format!("up to {}", point(low)),
        (0, high) => format!("up to {}", point(high)),
        (low, high) => format!("from {} to {}", point(low), point(high)),
    }
}

/// A point of event or processing time, RFC 3339 in UTC.
pub(crate) fn time(micros: i64) -> String {
    EventTime::from_micros(micros).to_string()
}

/// A point of processing time to the second.
pub(crate) fn second(micros: i64) -> String {
    time(micros.div_euclid(1_000_000) * 1_000_000)
}

/// `number` and the word for that many.
pub(crate) fn plural(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {one}s", count(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
        let said: Vec<String> = [0, 7, 999, 1_000, 2_362_779_042, u64::MAX].into_iter().map(count).collect();
        assert_eq!(said, ["0", "7", "999", "1,000", "2,362,779,042", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn sizes_are_binary() {
        let said: Vec<String> = [0, 1023, 1024, 1_048_575, 173_087_207_424, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "161.2 GiB", "16.0 EiB"]);
    }

    #[test]
    fn rates_have_three_digits() {
        let said: Vec<String> =
            [0.0, 0.5, 12.3, 950.0, 999.6, 173_412.0, 1_734_000.0, f64::NAN].into_iter().map(rate).collect();
        assert_eq!(said, ["0/s", "0.50/s", "12/s", "950/s", "1.00k/s", "173k/s", "1.73M/s", "0/s"]);
    }

    #[test]
    fn a_reach_is_said_from_where_one_stands() {
        const HOUR: i64 = 3_600_000_000;
        let cases = [(-4, 1), (-4, 0), (0, 1), (0, 0), (-2, -2), (1, 3), (-3, -1)];
        let said: Vec<String> = cases.into_iter().map(|(low, high)| reach(low * HOUR, high * HOUR)).collect();
        assert_eq!(
            said,
            [
                "from 4h before to 1h after",
                "up to 4h before",
                "up to 1h after",
                "at the same time",
                "2h before",
                "from 1h after to 3h after",
                "from 3h before to 1h before",
            ]
        );
    }

    #[test]
    fn lengths_of_time_are_no_finer_than_they_are_worth() {
        let said: Vec<String> = [0, 1_234, 567_890, 1_234_567, 510_987_654, u64::MAX].into_iter().map(micros).collect();
        assert_eq!(said[..5], ["0s", "0.001s", "0.5s", "1.2s", "8m30s"]);
    }
}
