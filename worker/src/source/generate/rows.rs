//! What a generated row holds: a function of the seed and the row's number.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tidegate_common::spec::model::GenerateSpec;

use crate::source::event_time::span_micros;

/// What `kind` may be.
const KINDS: [&str; 4] = ["view", "click", "play", "stop"];
/// The most keys of an uneven distribution; each takes eight bytes.
const MAX_SKEWED_KEYS: u64 = 10_000_000;
/// Where time starts by default: 2024-01-01T00:00:00Z.
const START: i64 = 1_704_067_200_000_000;
const ZONE: &str = "+00:00";

/// The rows of one source.
#[derive(Debug)]
pub(super) struct Rows {
    seed: u64,
    count: u64,
    rate: f64,
    start: i64,
    disorder: u64,
    keys: Keys,
}

/// How keys are drawn.
#[derive(Debug)]
enum Keys {
    Even(u64),
    /// The distribution function of a Zipf law, key by key, up to 1.
    Skewed(Vec<f64>),
}

/// The columns: `ts`, `id`, `key`, `kind`, `value`.
pub(super) fn schema() -> SchemaRef {
    let ts = DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into()));
    Arc::new(Schema::new(vec![
        Field::new("ts", ts, true),
        Field::new("id", DataType::Int64, true),
        Field::new("key", DataType::Int64, true),
        Field::new("kind", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
    ]))
}

/// What chance decides of a row, each from its own stream.
#[derive(Clone, Copy)]
enum Chance {
    Disorder = 1,
    Key,
    Kind,
    Value,
}

impl Rows {
    /// The rows of `spec`; refuses rates, skews and spans that make none.
    pub(super) fn new(spec: &GenerateSpec) -> Result<Self, String> {
        if !(spec.rate.is_finite() && spec.rate > 0.0) {
            return Err(format!("generate.rate {} is no number of rows a second", spec.rate));
        }
        let start = spec.start.as_deref().map_or(Ok(START), start_of).map_err(|e| format!("generate.start: {e}"))?;
        let disorder =
            spec.disorder.as_deref().map_or(Ok(0), span_micros).map_err(|e| format!("generate.disorder: {e}"))?;
        let length = spec.rows as f64 * 1e6 / spec.rate;
        let last = i64::MAX - start.max(0);
        if length >= last as f64 || start.checked_sub(disorder).is_none_or(|first| first == i64::MIN) {
            return Err(format!("generate: {} rows at {} a second reach beyond the end of time", spec.rows, spec.rate));
        }
        let keys = Keys::new(spec.keys, spec.skew)?;
        Ok(Self {
            seed: spec.seed,
            count: spec.rows,
            rate: spec.rate,
            start,
            disorder: u64::try_from(disorder).unwrap_or(0),
            keys,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The event time of a row: on the line that `rate` draws, less at most `disorder`.
    pub(super) fn event_time(&self, row: u64) -> i64 {
        let on_line = self.start.saturating_add((row as f64 * 1e6 / self.rate) as i64);
        let back = self.chance(row, Chance::Disorder) % self.disorder.saturating_add(1);
        on_line.saturating_sub(i64::try_from(back).unwrap_or(i64::MAX))
    }

    /// The values of a column of [`schema`] for `rows`.
    pub(super) fn column(&self, column: usize, rows: Range<u64>) -> ArrayRef {
        match column {
            0 => {
                let times = TimestampMicrosecondArray::from_iter_values(rows.map(|row| self.event_time(row)));
                Arc::new(times.with_timezone(ZONE))
            }
            1 => Arc::new(Int64Array::from_iter_values(rows.map(|row| i64::try_from(row).unwrap_or(i64::MAX)))),
            2 => Arc::new(Int64Array::from_iter_values(rows.map(|row| self.keys.draw(self.chance(row, Chance::Key))))),
            3 => Arc::new(StringArray::from_iter_values(rows.map(|row| kind(self.chance(row, Chance::Kind))))),
            _ => {
                Arc::new(Float64Array::from_iter_values(rows.map(|row| even(self.chance(row, Chance::Value)) * 1000.0)))
            }
        }
    }

    fn chance(&self, row: u64, chance: Chance) -> u64 {
        mix(mix(mix(self.seed).wrapping_add(chance as u64)).wrapping_add(row))
    }
}

impl Keys {
    fn new(keys: u64, skew: f64) -> Result<Self, String> {
        if keys == 0 || i64::try_from(keys).is_err() {
            return Err(format!("generate.keys is {keys}: there is at least one, and at most 2^63"));
        }
        if skew == 0.0 {
            return Ok(Self::Even(keys));
        }
        if !(skew.is_finite() && skew > 0.0) {
            return Err(format!("generate.skew {skew} is no exponent: 0 is even, 1 is Zipf's law"));
        }
        if keys > MAX_SKEWED_KEYS {
            return Err(format!("generate.keys {keys}: with a skew, at most {MAX_SKEWED_KEYS}"));
        }
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        let sums: Vec<f64> = sums.collect();
        Ok(Self::Skewed(sums.iter().map(|at| at / sum).collect()))
    }

    fn draw(&self, chance: u64) -> i64 {
        let key = match self {
            Self::Even(keys) => chance % keys,
            Self::Skewed(upto) => {
                let at = even(chance);
                upto.partition_point(|edge| *edge <= at).min(upto.len().saturating_sub(1)) as u64
            }
        };
        i64::try_from(key).unwrap_or(i64::MAX)
    }
}

fn kind(chance: u64) -> &'static str {
    KINDS.get((chance % 4) as usize).copied().unwrap_or("view")
}

/// A number in [0, 1), from the upper 53 bits.
fn even(chance: u64) -> f64 {
    (chance >> 11) as f64 / (1_u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn start_of(text: &str) -> Result<i64, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_microsecond());
    }
    let day = text.parse::<Date>().ok().and_then(|day| TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok());
    let refused = || format!("{text:?} is neither a date nor a time: write 2024-01-01 or 2024-01-01T00:00:00Z");
    day.map(Timestamp::as_microsecond).ok_or_else(refused)
}
