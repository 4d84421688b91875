//! Clean: removes from the shuffle store what the coordinator says nothing needs any more.

use tidegate_proto::v1;

use super::Kinds;
use crate::task::{TaskContext, TaskEnd, TaskError};

impl Kinds {
    pub(super) async fn clean(&self, context: &TaskContext, work: v1::CleanWork) -> Result<TaskEnd, TaskError> {
        context.lease.check()?;
        match work.all {
            true => self.shuffle.delete_all(&context.backfill).await?,
            false => self.shuffle.delete(&context.backfill, &work.paths).await?,
        }
        Ok(TaskEnd::Done(v1::done::Result::Cleaned(v1::Cleaned {})))
    }
}
