//! How hard a client presses on its brokers: less when they throttle it or answer slowly, more again when they do not.
//!
//! Additive increase and multiplicative decrease, as TCP does it, of the part of the time in which records are taken.
//! What is not taken fills the client's queue, and a full queue stops its fetches.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How much of the time is given back for each calm report.
const STEP: f64 = 0.1;
/// The least part of the time.
const LEAST: f64 = 1.0 / 16.0;
/// A broker that takes this many times as long as it did at its best is in trouble.
const SLOW: u64 = 8;
/// And no faster answer than this is called slow: a large fetch over a thin wire takes its time.
const NEVER_SLOW: Duration = Duration::from_secs(2);

/// What brokers said of themselves in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The longest time that one made the client wait, for having taken too much.
    pub(super) throttled: Duration,
    /// The 99th percentile of the slowest one's answers; zero where nothing was asked.
    pub(super) latency: Duration,
}

/// The part of the time in which records are taken.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    duty: f64,
    best: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(State { duty: 1.0, best: Duration::MAX }))
    }
}

impl Pace {
    /// Takes a report in.
    pub(super) fn hear(&self, report: Report) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !report.latency.is_zero() {
            state.best = state.best.min(report.latency);
        }
        let limit = state.best.saturating_mul(u32::try_from(SLOW).unwrap_or(u32::MAX)).max(NEVER_SLOW);
        let is_pressed = !report.throttled.is_zero() || report.latency > limit;
        state.duty = if is_pressed { (state.duty / 2.0).max(LEAST) } else { (state.duty + STEP).min(1.0) };
    }

    /// How long to rest after having worked for `worked`.
    pub(super) fn rest(&self, worked: Duration) -> Duration {
        let duty = self.0.lock().unwrap_or_else(PoisonError::into_inner).duty;
        worked.mul_f64(1.0 / duty - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Report = Report { throttled: Duration::ZERO, latency: Duration::from_millis(10) };

    #[test]
    fn a_throttled_client_rests_more_and_more_and_recovers_step_by_step() {
        let pace = Pace::default();
        let second = Duration::from_secs(1);
        pace.hear(CALM);
        assert_eq!(pace.rest(second), Duration::ZERO);
        let pressed = Report { throttled: Duration::from_millis(1), ..CALM };
        pace.hear(pressed);
        assert_eq!(pace.rest(second), second);
        for _ in 0..10 {
            pace.hear(pressed);
        }
        assert_eq!(pace.rest(second), 15 * second, "never less than a sixteenth of the time");
        let mut rest = pace.rest(second);
        for _ in 0..9 {
            pace.hear(CALM);
            assert!(pace.rest(second) < rest);
            rest = pace.rest(second);
        }
        pace.hear(CALM);
        assert_eq!(pace.rest(second), Duration::ZERO);
    }

    #[test]
    fn slow_is_what_is_much_slower_than_the_best_and_not_what_is_fast_enough() {
        let pace = Pace::default();
        let with = |millis| Report { latency: Duration::from_millis(millis), ..Report::default() };
        pace.hear(with(5));
        pace.hear(with(2_000));
        assert_eq!(pace.rest(Duration::from_secs(1)), Duration::ZERO);
        pace.hear(with(2_001));
        assert_eq!(pace.rest(Duration::from_secs(1)), Duration::from_secs(1));
        let far = Pace::default();
        far.hear(with(400));
        far.hear(with(3_000));
        assert_eq!(far.rest(Duration::from_secs(1)), Duration::ZERO, "it was never fast");
    }
}
