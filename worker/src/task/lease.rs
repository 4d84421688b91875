//! The right to go on with a task, as a value that is asked before anything is opened or handed in.
//!
//! Safety never rests on it (the coordinator compares tokens inside its durable write): it keeps a worker that was
//! stopped or cut off from going on with work that is somebody else's by now.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_common::clock::{self, Monotonic};

use crate::failure::{Class, Classify};

/// Where a worker's time comes from: the machine's monotonic clock, or a test's.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Monotonic + Send + Sync>);

impl Clock {
    /// The machine's own.
    pub fn machine() -> Self {
        Self(Arc::new(clock::monotonic))
    }

    /// One that reads `now`.
    pub fn reading(now: impl Fn() -> Monotonic + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Reads it.
    pub fn now(&self) -> Monotonic {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

/// The lease has ended: nothing may be opened or handed in any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task's lease has ended; the attempt is abandoned and another worker may have it")]
pub struct Fenced;

impl Classify for Fenced {
    fn class(&self) -> Class {
        Class::Fenced
    }
}

/// A time-bounded right; its clones share one end, which the session moves.
#[derive(Clone, Debug)]
pub struct Lease {
    until: Arc<AtomicU64>,
    clock: Clock,
}

impl Lease {
    /// A lease on `clock` that is over, until it is extended.
    pub fn over(clock: Clock) -> Self {
        Self { until: Arc::new(AtomicU64::new(0)), clock }
    }

    /// Whether it still holds.
    ///
    /// # Errors
    /// [`Fenced`] when it does not.
    pub fn check(&self) -> Result<(), Fenced> {
        if self.clock.now() < self.until() { Ok(()) } else { Err(Fenced) }
    }

    /// The clock it is measured on.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The first moment at which it no longer holds.
    pub fn until(&self) -> Monotonic {
        Monotonic::from_micros(self.until.load(Ordering::Acquire))
    }

    /// Moves its end.
    pub fn set(&self, until: Monotonic) {
        self.until.store(until.as_micros(), Ordering::Release);
    }

    /// Ends it at once.
    pub fn end(&self) {
        self.set(Monotonic::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_end_and_not_at_it() {
        let at = Arc::new(AtomicU64::new(10));
        let reader = at.clone();
        let lease = Lease::over(Clock::reading(move || Monotonic::from_micros(reader.load(Ordering::Relaxed))));
        assert_eq!(lease.check(), Err(Fenced), "nothing was granted yet");
        lease.set(Monotonic::from_micros(20));
        assert_eq!(lease.clone().check(), Ok(()));
        at.store(20, Ordering::Relaxed);
        assert_eq!(lease.check(), Err(Fenced));
        lease.set(Monotonic::from_micros(30));
        lease.end();
        assert_eq!(lease.check(), Err(Fenced));
    }
}
