//! What the coordinator says, and what the session does about it.

use tidegate_common::ids::TaskId;
use tidegate_proto::convert::{BadMessage, backfill_id, task_id, token};
use tidegate_proto::v1;
use tidegate_proto::v1::assign::Work;
use tidegate_proto::v1::from_coordinator::Kind as Down;
use tidegate_proto::v1::from_worker::Kind as Up;

use super::driver::Session;
use super::state::{Adoption, Grant, Unwilling};
use crate::failure::{Class, Classify, evidence};
use crate::task::Verdict;
use tidegate_common::clock::Monotonic;

/// Why an assignment is answered with a Fail.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{task} was assigned before anything was said of its backfill {backfill}")]
    UnknownBackfill { task: TaskId, backfill: String },
    #[error("{0} was assigned with work of another kind, or none: is the coordinator of another version?")]
    UnknownWork(TaskId),
    #[error("{0} cannot be taken")]
    Unwilling(TaskId, #[source] Unwilling),
}

impl Classify for Refusal {
    fn class(&self) -> Class {
        match self {
            Self::UnknownBackfill { .. } | Self::Unwilling(..) => Class::Retryable,
            Self::UnknownWork(_) => Class::WorkerSick,
        }
    }
}

impl Session {
    pub(super) fn told(&mut self, message: v1::FromCoordinator) -> Result<(), BadMessage> {
        match message.kind.ok_or(BadMessage::Missing("kind"))? {
            Down::Welcome(_) => Err(BadMessage::Nonsense { part: "kind", why: "a second Welcome".to_owned() }),
            Down::Backfill(info) => backfill_id(&info.backfill).map(|id| self.runs.learn(id, info)),
            Down::Assign(assign) => self.assigned(assign),
            Down::Gate(gate) => backfill_id(&gate.backfill).map(|id| self.runs.gate(&id, &gate)),
            Down::Renewed(renewed) => {
                self.state.renewed(renewed.heartbeat);
                Ok(())
            }
            Down::Revoke(revoke) => {
                if let Some(id) = self.state.find(&grant(&revoke.backfill, revoke.task, revoke.token)?) {
                    let (run, reason) = (self.state.grant(id), revoke.reason);
                    // A cursor that crossed the answer to the last hand-in: the lease has ended as it should.
                    match self.state.is_leaving(id) {
                        true => tracing::debug!(?run, reason, "revoked what was handed in to its end"),
                        false => tracing::info!(?run, reason, "revoked"),
                    }
                    self.drop_run(id);
                }
                Ok(())
            }
            Down::Yield(wish) => {
                let run = self.state.find(&grant(&wish.backfill, wish.task, wish.token)?);
                run.into_iter().for_each(|id| self.runs.ask_to_leave(id));
                Ok(())
            }
            Down::HandInReply(reply) => {
                self.replied(reply);
                Ok(())
            }
            Down::Adopted(adopted) => self.adopted(adopted),
            Down::Drain(drain) => {
                self.drain(&drain.reason);
                Ok(())
            }
        }
    }

    fn assigned(&mut self, assign: v1::Assign) -> Result<(), BadMessage> {
        let grant = grant(&assign.backfill, assign.task, assign.token)?;
        match self.take(&grant, assign.work) {
            Ok(()) => {}
            // Given back untouched: it raced with this worker's decision to leave.
            Err(Refusal::Unwilling(_, Unwilling::Leaving)) => self.send(grant.release()),
            Err(refusal) => self.fail(&grant, evidence(&refusal)),
        }
        Ok(())
    }

    fn take(&mut self, grant: &Grant, work: Option<Work>) -> Result<(), Refusal> {
        let task = grant.task;
        if !self.runs.knows(&grant.backfill) {
            return Err(Refusal::UnknownBackfill { task, backfill: grant.backfill.to_string() });
        }
        let work = work.filter(|work| fits(&task, work)).ok_or(Refusal::UnknownWork(task))?;
        let (next_unit, units) = match &work {
            Work::Read(read) => (read.next_unit, units(read)),
            Work::Join(join) => (first_slice(&task), join.end_slice),
            Work::Late(_) => (0, 1),
            Work::Prepare(_) | Work::Enumerate(_) | Work::Regenerate(_) | Work::Commit(_) | Work::Clean(_) => (0, 0),
        };
        if let Some(old) = self.state.superseded(grant) {
            self.drop_run(old);
        }
        let attempt = uuid::Uuid::new_v4().to_string();
        let taken = self.state.assigned(grant.clone(), attempt.clone(), next_unit, units);
        let (run, lease) = taken.map_err(|unwilling| Refusal::Unwilling(task, unwilling))?;
        if let Work::Read(v1::ReadWork { gate: Some(gate), .. })
        | Work::Regenerate(v1::RegenerateWork { gate: Some(gate), .. }) = &work
        {
            self.runs.gate(&grant.backfill, gate);
        }
        self.runs.start(run, grant.clone(), attempt, lease, work);
        Ok(())
    }

    fn adopted(&mut self, adopted: v1::Adopted) -> Result<(), BadMessage> {
        let grant = grant(&adopted.backfill, adopted.task, adopted.token)?;
        match self.state.adopted(grant.clone(), &adopted.attempt, adopted.next_unit) {
            Adoption::GoesOn(None) => self.beat_due = Monotonic::default(),
            Adoption::GoesOn(Some(delivery)) => self.send(Up::HandIn(*delivery)),
            Adoption::Stale(id) => self.give_back(id),
            Adoption::Gone => self.send(grant.release()),
        }
        Ok(())
    }

    fn replied(&mut self, reply: v1::HandInReply) {
        if let Some(id) = self.state.replied(&reply) {
            if !reply.accepted {
                tracing::warn!(run = ?self.state.grant(id), number = reply.number, reason = reply.reason, "hand-in refused");
            }
            let verdict = if reply.accepted { Verdict::Accepted } else { Verdict::Refused { reason: reply.reason } };
            self.runs.answer(id, verdict);
        }
    }

    pub(super) fn drain(&mut self, reason: &str) {
        tracing::info!(reason, "draining");
        self.state.drain();
        self.beat_due = Monotonic::default();
        for id in self.state.ids() {
            match self.state.grant(id).map(|grant| grant.task) {
                Some(TaskId::Read(..)) => self.runs.ask_to_leave(id),
                // A commit or a join that was begun is better ended; nothing waits for the others.
                Some(TaskId::Commit(..) | TaskId::Join(..) | TaskId::Late(..) | TaskId::Clean) | None => {}
                Some(TaskId::Prepare | TaskId::Enumerate(_) | TaskId::Regenerate(..)) => self.give_back(id),
            }
        }
    }
}

/// Whether `work` is what `task` says, and complete.
fn fits(task: &TaskId, work: &Work) -> bool {
    match (task, work) {
        (TaskId::Read(..), Work::Read(read)) => read.task.is_some() && read.gate.is_some(),
        (TaskId::Commit(..), Work::Commit(commit)) => commit.intent.is_some(),
        (TaskId::Enumerate(source), Work::Enumerate(enumerate)) => source.get() == enumerate.source,
        (TaskId::Regenerate(..), Work::Regenerate(lost)) => {
            lost.task.is_some() && lost.shape.is_some() && lost.object.is_some() && lost.gate.is_some()
        }
        (TaskId::Join(_, first), Work::Join(join)) => *first < join.end_slice && join.shape.is_some(),
        (TaskId::Late(..), Work::Late(late)) => late.shape.is_some() && late.object.is_some(),
        (TaskId::Prepare, Work::Prepare(_)) | (TaskId::Clean, Work::Clean(_)) => true,
        _ => false,
    }
}

fn units(read: &v1::ReadWork) -> u32 {
    read.task.as_ref().map_or(0, |task| u32::try_from(task.units.len()).unwrap_or(u32::MAX))
}

fn first_slice(task: &TaskId) -> u32 {
    if let TaskId::Join(_, first) = task { *first } else { 0 }
}

fn grant(backfill: &str, task: Option<v1::TaskId>, of: Option<v1::Token>) -> Result<Grant, BadMessage> {
    Ok(Grant { backfill: backfill_id(backfill)?, task: task_id(task)?, token: token(of)? })
}
