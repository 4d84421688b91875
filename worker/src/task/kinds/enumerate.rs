//! Enumerate: finds a source's splits and hands its plan segments on.

use tidegate_common::ids::{OutputIx, TaskId};
use tidegate_proto::v1;
use tokio::sync::mpsc;

use super::{Kinds, another_kind};
use crate::sink::{self, Catalogs};
use crate::source::Source;
use crate::task::opened::Opened;
use crate::task::pack::Packing;
use crate::task::{Fenced, TaskContext, TaskEnd, TaskError, enumerate};

/// How the tasks of `source` are cut for so many slots and, where there are `catalogs` to ask, for the files of the
/// outputs.
pub(crate) async fn packing(
    opened: &Opened,
    source: &dyn Source,
    catalogs: Option<&Catalogs>,
    slots: usize,
) -> Result<Packing, TaskError> {
    let mut file: u64 = 0;
    for (ix, output) in (0..).map(OutputIx::new).zip(&opened.resolved.outputs) {
        if let (None, Some(catalogs)) = (output.dead_letters, catalogs) {
            file = file.max(sink::file_bytes(catalogs, &opened.target(ix)?).await?);
        }
    }
    Ok(Packing {
        slots: u64::try_from(slots).unwrap_or(u64::MAX),
        file_bytes: file.saturating_mul(source.bytes_a_byte()),
        max_drift: opened.resolved.max_drift,
        ..Packing::default()
    })
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
        let packing = packing(opened, source.as_ref(), Some(&self.catalogs), slots.max(self.slots)).await?;
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
