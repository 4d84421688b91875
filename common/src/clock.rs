//! The one place that reads the machine's clocks.
//!
//! Everything that decides gets its time as an argument; the edges ask here. Clippy bans the clocks of `std`
//! everywhere else, so that a test or a simulator can stand in for time.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point of the machine's monotonic clock, in microseconds since this process first asked.
///
/// It is comparable within one process only, and never crosses the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The point `micros` microseconds after the clock's zero.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This point, `later` further on; saturates at the end of time.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long it is from `earlier` to this point; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Reads the monotonic clock.
pub fn monotonic() -> Monotonic {
    static ZERO: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let zero = *ZERO.get_or_init(Instant::now);
    Monotonic(u64::try_from(zero.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Reads the wall clock: processing time, in microseconds since 1970-01-01T00:00:00Z.
pub fn processing_time_micros() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}
