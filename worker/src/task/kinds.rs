//! What a worker does for each kind of task: prepare, enumerate, read, regenerate, join, late, commit, clean.
//!
//! Each brings a source, a query and a table together for one job; none knows the session. Everything a spec names is
//! reached through the worker's allow-list and its catalogs.

mod clean;
mod commit;
mod enumerate;
mod join;
mod late;
mod prepare;
mod read;
mod regenerate;
mod scope;

use std::sync::Arc;

use async_trait::async_trait;
use tidegate_common::fence::Fences;
use tidegate_proto::v1::assign::Work;
use tonic::transport::Channel;

pub(crate) use self::enumerate::packing;
pub(crate) use self::prepare::told;
pub(crate) use self::read::projected;
pub(crate) use self::scope::{scope, utc_column};
use super::budget::Budget;
use super::opened::{BackfillError, Opened, Shelf};
use super::{TaskBody, TaskContext, TaskEnd, TaskError};
use crate::shuffle::ShuffleStore;
use crate::sink::Catalogs;

/// What every task of a worker shares.
pub(crate) struct Kinds {
    pub(crate) catalogs: Arc<Catalogs>,
    /// To the coordinator, for the files of an intent.
    pub(crate) channel: Channel,
    pub(crate) budget: Budget,
    /// Bytes that the writers of one read may take.
    pub(crate) memory_per_read: usize,
    /// How many reads this worker takes at once.
    pub(crate) slots: usize,
    pub(crate) fences: Fences,
    pub(crate) shelf: Shelf,
    /// Where rows wait to be joined.
    pub(crate) shuffle: ShuffleStore,
}

#[async_trait]
impl TaskBody for Kinds {
    async fn run(&self, mut context: TaskContext) -> Result<TaskEnd, TaskError> {
        let opened: Arc<Opened> = self.shelf.open(&context.backfill, &context.info)?;
        match std::mem::replace(&mut context.work, Work::Prepare(Default::default())) {
            Work::Prepare(work) => self.prepare(&opened, &context, work).await,
            Work::Enumerate(work) => self.enumerate(&opened, &context, &work).await,
            Work::Read(work) => self.read(&opened, context, work).await,
            Work::Commit(work) => self.commit(&opened, &context, work).await,
            Work::Regenerate(work) => self.regenerate(&opened, context, work).await,
            Work::Join(work) => self.join(&opened, &context, work).await,
            Work::Late(work) => self.late(&opened, &context, work).await,
            Work::Clean(work) => self.clean(&context, work).await,
        }
    }
}

/// A task whose id is of another kind than its work; the session lets none through.
fn another_kind() -> TaskError {
    BackfillError::NoSuch { what: "task of this kind".to_owned() }.into()
}
