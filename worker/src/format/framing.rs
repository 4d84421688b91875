//! Confluent's framing: a zero, the id of the writer's schema in four bytes, the value; and what is known of ids.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::BinaryArray;

use super::FormatError;
use super::registry::{Registry, Schema};

/// Ids that are remembered: more are asked for again.
const MAX_IDS: usize = 1000;

/// The id and what follows it.
pub(super) fn split(value: &[u8]) -> Result<(u32, &[u8]), String> {
    let Some((&[0, a, b, c, d], rest)) = value.split_first_chunk::<5>() else {
        return Err("the value is not in a schema registry's framing: it begins with no zero and schema id".to_owned());
    };
    Ok((u32::from_be_bytes([a, b, c, d]), rest))
}

/// The ids of `values`.
pub(super) fn ids(values: &BinaryArray) -> HashSet<u32> {
    let (mut ids, mut last) = (HashSet::new(), None);
    for id in values.iter().flatten().filter_map(|value| split(value).ok()).map(|(id, _)| id) {
        if last.replace(id) != Some(id) {
            ids.insert(id);
        }
    }
    ids
}

/// What is known of the ids that a registry gave, or why nothing is.
pub(super) struct Writers<T> {
    registry: Registry,
    kind: &'static str,
    known: Mutex<HashMap<u32, Result<Arc<T>, String>>>,
}

impl<T> Writers<T> {
    pub(super) fn new(registry: Registry, kind: &'static str) -> Self {
        Self { registry, kind, known: Mutex::default() }
    }

    /// What `make` makes of the schema with that id. The error of the result concerns the records of that id only.
    pub(super) async fn get(
        &self,
        id: u32,
        make: impl Fn(&Schema) -> Result<T, String>,
    ) -> Result<Result<Arc<T>, String>, FormatError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = self.registry.by_id(id, self.kind).await?;
        let made = found.and_then(|schema| make(&schema).map_err(|e| format!("the schema with the id {id}: {e}")));
        let made = made.map(Arc::new);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_IDS {
            known.clear();
        }
        known.insert(id, made.clone());
        Ok(made)
    }
}
