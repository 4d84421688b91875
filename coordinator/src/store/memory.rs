//! A meta store in memory, for tests and the simulator. It forgets all when its last clone is dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::Result;
use super::meta::{MetaStore, Outcome, Txn, Versioned};

/// A meta store in memory; its clones share one state, as two opened handles of a file would.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    revision: u64,
    entries: BTreeMap<String, Versioned>,
}

impl MemoryStore {
    // No code panics between two changes of the state, so a poisoned lock still guards a whole one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MetaStore for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        Ok(self.state().entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(self
            .state()
            .entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, versioned)| (key.clone(), versioned.clone()))
            .collect())
    }

    async fn transact(&self, txn: Txn) -> Result<Outcome> {
        txn.check()?;
        let mut state = self.state();
        if let Some(key) = txn.conflict(|key| Ok(state.entries.get(key).map(|found| found.version)))? {
            return Ok(Outcome::Conflict { key });
        }
        state.revision += 1;
        let version = state.revision;
        let versions = vec![version; txn.puts.len()];
        state.entries.extend(txn.puts.into_iter().map(|(key, value)| (key, Versioned { version, value })));
        for key in &txn.deletes {
            state.entries.remove(key);
        }
        Ok(Outcome::Done { versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn the_memory_store_keeps_the_contract() {
        conformance::contract(&MemoryStore::default()).await;
    }

    #[test]
    fn the_memory_store_agrees_with_a_plain_map() {
        conformance::agrees_with_a_map(&MemoryStore::default(), 256);
    }
}
