//! A worker's messages as events; a message that makes no sense ends its session.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tidegate_common::ids::{BackfillId, SessionId};
use tidegate_proto::convert::{self, BadMessage};
use tidegate_proto::v1::{self, from_worker::Kind};

use crate::core::{CursorReport, Event, FoundSegment, HeldTask, LeaseRef, Registration};
use tidegate_common::time::EventTime;

/// Held tasks and cursors that one message may carry at most.
const MAX_TASKS: usize = 4096;

/// What a worker's message means.
pub(super) fn event(session: SessionId, message: v1::FromWorker) -> Result<Event, BadMessage> {
    let lease = |backfill: &str, task: Option<v1::TaskId>, token: Option<v1::Token>| {
        Ok::<_, BadMessage>(LeaseRef {
            session,
            id: convert::backfill_id(backfill)?,
            task: convert::task_id(task)?,
            token: convert::token(token)?,
        })
    };
    Ok(match message.kind.ok_or(BadMessage::Missing("kind"))? {
        Kind::Register(_) => return Err(BadMessage::Nonsense { part: "register", why: "it came twice".to_owned() }),
        Kind::Heartbeat(beat) => {
            let cursors = bounded("cursors", beat.cursors)?.into_iter().map(cursor).collect::<Result<_, _>>()?;
            Event::Heartbeat(session, beat.number, cursors, beat.draining)
        }
        Kind::HandIn(delivery) => {
            let lease = lease(&delivery.backfill, delivery.task, delivery.token)?;
            Event::HandIn(lease, delivery.hand_in.ok_or(BadMessage::Missing("hand_in"))?, delivery.released)
        }
        Kind::Segment(found) => {
            let lease = lease(&found.backfill, found.task, found.token)?;
            Event::SegmentFound(lease, segment(found.segment.ok_or(BadMessage::Missing("segment"))?)?)
        }
        Kind::Done(done) => {
            let lease = lease(&done.backfill, done.task, done.token)?;
            Event::Done(lease, done.result.ok_or(BadMessage::Missing("result"))?)
        }
        Kind::Fail(fail) => {
            let lease = lease(&fail.backfill, fail.task, fail.token)?;
            Event::Failed(lease, fail.evidence.ok_or(BadMessage::Missing("evidence"))?)
        }
        Kind::Release(release) => Event::Released(lease(&release.backfill, release.task, release.token)?),
    })
}

/// What a worker says of itself.
pub(super) fn registration(register: v1::Register) -> Result<Registration, BadMessage> {
    let held = bounded("held", register.held)?.into_iter().map(held).collect::<Result<_, _>>()?;
    let worker = register.worker.chars().filter(|c| !c.is_control()).take(128).collect();
    Ok(Registration { worker, slots: register.slots.min(1024), held })
}

fn bounded<T>(part: &'static str, all: Vec<T>) -> Result<Vec<T>, BadMessage> {
    if all.len() > MAX_TASKS {
        return Err(BadMessage::Nonsense { part, why: format!("{} of them, at most {MAX_TASKS}", all.len()) });
    }
    Ok(all)
}

fn held(held: v1::Held) -> Result<HeldTask, BadMessage> {
    Ok(HeldTask {
        id: convert::backfill_id(&held.backfill)?,
        task: convert::task_id(held.task)?,
        token: convert::token(held.token)?,
        attempt: held.attempt,
        next_unit: held.next_unit,
    })
}

fn cursor(cursor: v1::Cursor) -> Result<CursorReport, BadMessage> {
    let id: BackfillId = convert::backfill_id(&cursor.backfill)?;
    Ok(CursorReport {
        id,
        task: convert::task_id(cursor.task)?,
        token: convert::token(cursor.token)?,
        cursor: EventTime::from_micros(cursor.cursor),
        paused: cursor.paused,
    })
}

/// Checks and counts a plan segment: its tasks have units, by low, with bounds that are bounds.
fn segment(segment: v1::PlanSegment) -> Result<FoundSegment, BadMessage> {
    let nonsense = |why: &str| BadMessage::Nonsense { part: "segment", why: why.to_owned() };
    let mut low = i64::MAX;
    let mut units = 0u64;
    for task in &segment.tasks {
        let first = task.units.first().ok_or_else(|| nonsense("a task has no units"))?;
        if !task.units.is_sorted_by_key(|unit| unit.low) {
            return Err(nonsense("a task's units are not in the order of their lows"));
        }
        for unit in &task.units {
            convert::bounds(unit)?;
            if unit.split as usize >= task.splits.len() {
                return Err(nonsense("a unit names a split that is not there"));
            }
        }
        low = low.min(first.low);
        units += task.units.len() as u64;
    }
    let tasks = u32::try_from(segment.tasks.len()).map_err(|_| nonsense("too many tasks"))?;
    if tasks == 0 {
        return Err(nonsense("it has no tasks"));
    }
    let bytes = Bytes::from(segment.encode_to_vec());
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let info = v1::record::SegmentInfo { low, tasks, units, blob: String::new(), sha256 };
    Ok(FoundSegment { index: segment.index, info, bytes })
}
