//! An object while it is written to a bucket: in one request where it is small, in parts where it is not.
//!
//! What a worker that dies has sent of an object is no object, and no list shows it: a rule of the bucket that ends
//! unfinished uploads removes it.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};

use crate::storage::PART;

/// Parts that are sent at a time, beside the one that is filled.
const PARTS_AT_A_TIME: usize = 2;

/// An object on its way; there is none before it is finished. A bucket makes it durable before it answers.
pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    key: Path,
    state: State,
}

enum State {
    Held(Vec<u8>),
    Parts(WriteMultipart),
}

impl Upload {
    /// Begins the object; asks nothing of the store yet.
    pub(super) fn create(store: Arc<dyn ObjectStore>, key: Path) -> Self {
        Self { store, key, state: State::Held(Vec::new()) }
    }

    /// Bytes that wait in memory, at most.
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Held(held) => held.len(),
            State::Parts(_) => PART * (PARTS_AT_A_TIME + 1),
        }
    }

    /// Writes the next bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> object_store::Result<()> {
        if let State::Held(held) = &mut self.state {
            held.extend_from_slice(bytes);
            if held.len() <= PART {
                return Ok(());
            }
            let parts = self.store.put_multipart(&self.key).await?;
            let held = std::mem::take(held);
            self.state = State::Parts(WriteMultipart::new_with_chunk_size(parts, PART));
            return self.send(&held).await;
        }
        self.send(bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> object_store::Result<()> {
        let State::Parts(parts) = &mut self.state else { return Ok(()) };
        for part in bytes.chunks(PART) {
            parts.write(part);
            parts.wait_for_capacity(PARTS_AT_A_TIME).await?;
        }
        Ok(())
    }

    /// Makes the object be there.
    pub(super) async fn finish(self) -> object_store::Result<()> {
        match self.state {
            State::Held(held) => {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                self.store.put_opts(&self.key, held.into(), options).await.map(drop)
            }
            // It aborts what it cannot complete.
            State::Parts(parts) => parts.finish().await.map(drop),
        }
    }

    /// Gives back what the store holds of an object that will not be.
    pub(super) async fn abort(self) {
        if let State::Parts(parts) = self.state
            && let Err(error) = parts.abort().await
        {
            tracing::warn!(%error, key = %self.key, "parts of a shuffle object were left in the bucket");
        }
    }
}
