//! Enumerate: finds a source's splits and hands its plan segments on.

use tidegate_common::ids::TaskId;
use tidegate_common::time::Span;
use tidegate_proto::v1;
use tokio::sync::mpsc;

use super::{Kinds, another_kind};
use crate::task::opened::Opened;
use crate::task::pack::Packing;
use crate::task::{Fenced, TaskContext, TaskEnd, TaskError, enumerate};

/// Tasks for each slot that the data should make at least: what is left over at the end is then small, also where a
/// few more workers help.
const TASKS_A_SLOT: u64 = 8;

/// How tasks are cut for so many slots.
pub(crate) fn packing(slots: usize, max_drift: Option<Span>) -> Packing {
    let tasks_wanted = u64::try_from(slots).unwrap_or(u64::MAX).saturating_mul(TASKS_A_SLOT);
    Packing { tasks_wanted, max_drift, ..Packing::default() }
}

impl Kinds {
    pub(super) async fn enumerate(
        &self,
        opened: &Opened,
        context: &TaskContext,
        work: &v1::EnumerateWork,
    ) -> Result<TaskEnd, TaskError> {
        let (expected, slots) = (work.expected.as_ref(), usize::try_from(work.slots).unwrap_or(usize::MAX));
        let TaskId::Enumerate(ix) = context.task else { return Err(another_kind()) };
        opened.expect_ranges(expected.and_then(|expected| expected.state.clone()));
        let (source, _) = opened.source(ix).await?;
        let packing = packing(slots.max(self.slots), opened.resolved.max_drift);
        let (segments, mut found) = mpsc::channel::<v1::PlanSegment>(2);
        let hand_on = async move {
            while let Some(segment) = found.recv().await {
                context.segment(segment).await?;
            }
            Ok::<_, Fenced>(())
        };
        let finding = enumerate::enumerate(source.as_ref(), opened.resolved.window, packing, expected, segments);
        let (enumerated, handed_on) = tokio::join!(finding, hand_on);
        handed_on?;
        Ok(TaskEnd::Done(v1::done::Result::Enumerated(enumerated?)))
    }
}
