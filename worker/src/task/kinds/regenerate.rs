//! Regenerate: reads again the units whose rows an object of the shuffle store held that is lost, and writes it anew.

use tidegate_common::ids::{SourceIx, TaskId};
use tidegate_common::spec::RateLimit;
use tidegate_proto::v1;

use super::read::LEAST_MEMORY;
use super::{Kinds, another_kind};
use crate::task::opened::{BackfillError, Opened, Used};
use crate::task::read::{ReadJob, read_again};
use crate::task::{TaskContext, TaskEnd, TaskError};

impl Kinds {
    pub(super) async fn regenerate(
        &self,
        opened: &Opened,
        context: TaskContext,
        work: v1::RegenerateWork,
    ) -> Result<TaskEnd, TaskError> {
        let TaskId::Regenerate(output, _) = context.task else { return Err(another_kind()) };
        let ix = SourceIx::new(work.source);
        let (source, described) = opened.source(ix).await?;
        let queries = opened.queries(opened.prepared()?.now).await?;
        let query = usize::try_from(output.get()).ok().and_then(|at| queries.get(at));
        let no_such = || BackfillError::NoSuch { what: format!("join of output {output}") };
        let join = query.and_then(|query| query.join()).ok_or_else(no_such)?;
        let Used { columns, window } = opened.used(ix).await?;
        let memory = self.memory_per_read.max(LEAST_MEMORY);
        let shape = work.shape.as_ref();
        let port = self.shuffle_port(opened, &context, (ix, output, join), shape, (&columns, memory))?;
        let task = work.task.unwrap_or_default();
        context.lease.check()?;
        let reader = source.reader(&task.splits, &columns, window).await?;
        let rate_limit = described.kafka().map_or_else(RateLimit::default, |kafka| kafka.rate_limit);
        let job = ReadJob { source: ix, task, next_unit: 0, window, rate_limit, fences: self.fences.clone() };
        let closed = read_again(context, job, reader, Box::new(port), &self.budget).await?;
        // Whether it is what was lost, the coordinator judges: also where nothing came of it.
        Ok(TaskEnd::Done(v1::done::Result::Regenerated(v1::Regenerated { object: closed.shuffled })))
    }
}
