//! Waiting, by level and never by edge: a condition is looked at until it holds or its time is over.

use std::time::Duration;

use tidegate_common::clock;

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` finds something. The only place where these tests wait for time.
///
/// # Panics
/// When nothing is found `within` the time; the message says `what` was waited for.
pub async fn wait_until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let over = clock::monotonic().after(within);
    loop {
        ticks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(clock::monotonic() < over, "waited {within:?} for {what}");
    }
}
