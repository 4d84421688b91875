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

/// How the tasks of `source`, of that name, are cut for so many slots and for the files of the outputs; without
/// `catalogs` to ask, these are what the spec says.
pub(crate) async fn packing(
    opened: &Opened,
    (name, source): (&str, &dyn Source),
    catalogs: Option<&Catalogs>,
    slots: usize,
) -> Result<Packing, TaskError> {
    let prepared = opened.prepared().map_or(&[][..], |prepared| &prepared.outputs);
    let mut file: u64 = 0;
    for (at, output) in opened.resolved.outputs.iter().enumerate() {
        let reads = prepared.get(at).is_none_or(|prepared| prepared.source.iter().any(|read| read == name));
        if reads && output.is_queried() {
            let target = opened.target(OutputIx::new(u32::try_from(at).unwrap_or(u32::MAX)))?;
            file = file.max(sink::file_bytes(catalogs, &target).await?);
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
        opened.expect_ranges(work.ranges.iter().cloned());
        let (source, described) = opened.source(ix).await?;
        // A saved plan is held against its sources before anything is made, a catalog included.
        let catalogs = opened.prepared().ok().map(|_| &*self.catalogs);
        let named = (described.name.as_str(), source.as_ref());
        let packing = packing(opened, named, catalogs, slots.max(self.slots)).await?;
        let (segments, mut found) = mpsc::channel::<v1::PlanSegment>(2);
        let hand_on = async move {
            while let Some(segment) = found.recv().await {
                context.segment(segment).await?;
            }
            Ok::<_, Fenced>(())
        };
        let window = opened.used(ix).await?.window;
        let finding = enumerate::enumerate(source.as_ref(), window, packing, expected, segments);
        let (enumerated, handed_on) = tokio::join!(finding, hand_on);
        handed_on?;
        Ok(TaskEnd::Done(v1::done::Result::Enumerated(enumerated?)))
    }
}
