//! The memory that all read tasks of a process share.
//!
//! Nobody ever waits for it: a reader that holds rows behind the gate while another waits for memory would be a
//! deadlock. A reader that holds its share of a budget that is used up ends its row groups instead. It refuses nothing:
//! one unit larger than the budget is read all the same.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    bytes: u64,
    tasks: u64,
}

/// A number of bytes, shared.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: u64,
    used: Arc<watch::Sender<Used>>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: Arc::new(watch::Sender::new(Used::default())) }
    }

    /// An account for one task, with nothing on it.
    pub fn open(&self) -> Charge {
        self.used.send_modify(|used| used.tasks += 1);
        Charge { budget: self.clone(), changes: self.used.subscribe(), bytes: 0 }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.borrow().bytes
    }
}

/// What one task holds; given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    changes: watch::Receiver<Used>,
    bytes: u64,
}

impl Charge {
    /// The task holds `bytes` now.
    pub fn set(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before != bytes {
            self.budget.used.send_modify(|used| used.bytes = used.bytes.saturating_sub(before).saturating_add(bytes));
        }
    }

    /// Whether the budget is used up and this task holds its share of it or more: whenever the budget is used up,
    /// that is true of one task at least.
    pub fn over_share(&self) -> bool {
        let used = *self.changes.borrow();
        self.bytes > 0 && used.bytes >= self.budget.limit && self.bytes.saturating_mul(used.tasks) >= self.budget.limit
    }

    /// Resolves once [`Charge::over_share`]; cancel-safe.
    pub async fn until_over_share(&mut self) {
        while !self.over_share() {
            // The sender lives as long as `self.budget`.
            if self.changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
        self.budget.used.send_modify(|used| used.tasks = used.tasks.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_the_budget_is_used_up_somebody_is_over_its_share() {
        let budget = Budget::new(100);
        let (mut small, mut large) = (budget.open(), budget.open());
        small.set(30);
        large.set(60);
        assert!(!small.over_share() && !large.over_share());
        small.set(45);
        assert!(!small.over_share() && large.over_share(), "45 of 100 is less than a half, 60 is more");
        drop(large);
        assert_eq!(budget.used(), 45);
        small.set(100);
        assert!(small.over_share());
    }
}
