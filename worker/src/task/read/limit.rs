//! Keeps a source's rate limit: this task's share of it, by the number of tasks that read the source now.
//!
//! Every batch makes a debt in time: what it takes at the whole limit. It is paid off as time goes by, at the pace of
//! this task's share then; whoever owes more than a little waits before reading on.

use std::time::Duration;

use tidegate_common::clock::Monotonic;
use tidegate_common::spec::RateLimit;

/// What may be owed before anybody waits.
const CREDIT: Duration = Duration::from_millis(100);

/// One task's share of a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    /// What is owed, in time at the whole limit.
    debt: Duration,
    /// When that was so.
    at: Monotonic,
}

impl Limiter {
    /// Nothing is owed yet.
    pub(super) fn new(limit: RateLimit) -> Self {
        Self { limit, debt: Duration::ZERO, at: Monotonic::default() }
    }

    /// Whether there is no limit at all.
    pub(super) fn is_open(&self) -> bool {
        self.limit == RateLimit::default()
    }

    /// `records` of `bytes` were read.
    pub(super) fn owe(&mut self, records: u64, bytes: u64) {
        let price = price(records, self.limit.records).max(price(bytes, self.limit.bytes));
        self.debt = self.debt.saturating_add(price);
    }

    /// How long to wait at `now`, when `readers` tasks share the limit.
    pub(super) fn wait(&mut self, now: Monotonic, readers: u32) -> Duration {
        let readers = readers.max(1);
        self.debt = self.debt.saturating_sub(now.since(self.at) / readers);
        self.at = now;
        self.debt.saturating_mul(readers).saturating_sub(CREDIT)
    }
}

/// How long `amount` takes at `rate` a second.
fn price(amount: u64, rate: Option<u64>) -> Duration {
    let Some(rate) = rate.filter(|rate| *rate > 0) else { return Duration::ZERO };
    let micros = u128::from(amount) * 1_000_000 / u128::from(rate);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever waits as told reads no more in any stretch of time than the limit gives, but for one batch and the credit.
        #[test]
        fn all_readers_together_keep_the_limit(
            batches in proptest::collection::vec((0usize..4, 1u64..5_000, 0u64..20_000), 1..200),
            rate in 1_000u64..1_000_000,
        ) {
            let limit = RateLimit { records: Some(rate), bytes: None };
            let mut readers = [(); 4].map(|()| (Limiter::new(limit), Monotonic::from_micros(1)));
            let (mut records, mut largest) = (0u64, 0u64);
            let mut last = Monotonic::from_micros(1);
            for (reader, batch, work) in batches {
                let (limiter, free_at) = &mut readers[reader];
                let now = free_at.after(Duration::from_micros(work));
                limiter.wait(now, 4);
                limiter.owe(batch, 0);
                let wait = limiter.wait(now, 4);
                *free_at = now.after(wait);
                records += batch;
                largest = largest.max(batch);
                last = last.max(*free_at);
            }
            let seconds = last.as_micros() as f64 / 1e6;
            // Four readers may each owe the credit.
            let most = rate as f64 * (seconds + CREDIT.as_secs_f64()) + 4.0;
            prop_assert!(records as f64 <= most + largest as f64 * 4.0, "{records} in {seconds} s at {rate}");
        }
    }

    #[test]
    fn the_tighter_of_two_limits_counts_and_no_limit_waits_for_nothing() {
        let now = Monotonic::from_micros(5);
        let mut both = Limiter::new(RateLimit { records: Some(1_000), bytes: Some(1_000_000) });
        both.owe(1_000, 3_000_000);
        assert_eq!(both.wait(Monotonic::default(), 2), Duration::from_millis(5_900));
        let later = Monotonic::from_micros(2_000_000);
        assert_eq!(both.wait(later, 1), Duration::from_millis(1_900 - 1_000), "who is left pays faster");
        let mut none = Limiter::new(RateLimit::default());
        assert!(none.is_open());
        none.owe(u64::MAX, u64::MAX);
        assert_eq!(none.wait(now, u32::MAX), Duration::ZERO);
    }
}
