//! What the oracle thinks of grants, gates, units that are begun, and of what workers are told.

use tidegate_common::gate::Gate;
use tidegate_common::ids::TaskId;
use tidegate_common::time::EventTime;
use tidegate_proto::convert;
use tidegate_proto::v1::{self, from_coordinator::Kind};

use super::{Invariant, Oracle};
use crate::sim::scenario::{LEASE, Micros};

impl Oracle {
    /// A coordinator lets a message out; `current` is whether its term is the one in the store.
    pub(in super::super) fn sent(&mut self, message: &Kind, current: bool) {
        match message {
            Kind::Assign(assign) => {
                let Some(ix) = self.named(&assign.backfill) else { return };
                self.granted(ix, assign.task, assign.token, None);
                if let Some(v1::assign::Work::Read(work)) = &assign.work {
                    self.gate_told(ix, work.gate.as_ref(), current);
                }
                if let Some(v1::assign::Work::Regenerate(work)) = &assign.work {
                    self.regeneration_granted(ix, assign, work, current);
                }
                if let Some(v1::assign::Work::Join(work)) = &assign.work {
                    self.join_granted(ix, assign, work);
                }
            }
            Kind::Revoke(revoke) => {
                let Some(ix) = self.named(&revoke.backfill) else { return };
                self.revoked(ix, revoke);
            }
            Kind::Adopted(adopted) => {
                let Some(ix) = self.named(&adopted.backfill) else { return };
                self.granted(ix, adopted.task, adopted.token, Some(&adopted.attempt));
            }
            Kind::Gate(gate) => {
                let Some(ix) = self.named(&gate.backfill) else { return };
                self.gate_told(ix, Some(gate), current);
            }
            _ => {}
        }
    }

    fn named(&self, backfill: &str) -> Option<usize> {
        backfill.parse().ok().map(|id| self.ix(&id))
    }

    fn granted(&mut self, ix: usize, task: Option<v1::TaskId>, token: Option<v1::Token>, attempt: Option<&str>) {
        let (Ok(task), Ok(token)) = (convert::task_id(task), convert::token(token)) else { return };
        let book = &mut self.books[ix];
        let fresh = book.tokens.insert(token);
        if let Some(of) = book.tasks.get_mut(&task) {
            of.granted = of.granted.max(Some(token));
        }
        if let Some(of) = attempt.and_then(|attempt| self.attempts.get_mut(attempt)) {
            of.token = token;
        }
        self.require(fresh, Invariant::NumbersRise, || format!("{task} is granted under {token}, again"));
    }

    /// The lowest event time that nobody has read yet and that is not parked.
    fn unread(&self, ix: usize) -> i64 {
        self.books[ix].unread.first().map_or(i64::MAX, |(low, ..)| *low)
    }

    fn gate_told(&mut self, ix: usize, gate: Option<&v1::Gate>, current: bool) {
        let Some(gate) = gate.filter(|_| current) else { return };
        let (told, unread) = (gate.watermark, self.unread(ix));
        self.require(told <= unread, Invariant::HonestGate, || {
            format!("the read watermark is told as {told}, and nobody has read {unread} yet")
        });
    }

    /// A worker begins a unit, knowing `gate`; the coordinator last heard of it `renewed`.
    pub(in super::super) fn begun(&mut self, ix: usize, task: TaskId, unit: u32, gate: Gate, renewed: Micros) {
        let book = &self.books[ix];
        let Some(of) = book.tasks.get(&task).and_then(|task| task.units.get(unit as usize)).copied() else { return };
        let widest = book.order.sources.iter().map(|source| source.found.widest_unit).max().unwrap_or(0);
        let most = book.order.spec.max_drift.map(|drift| drift.as_micros().max(widest));
        let watermark = gate.watermark;
        let skew = EventTime::from_micros(of.high).since(watermark).as_micros();
        let unbegun = watermark == EventTime::MIN;
        self.require(most.is_none_or(|most| skew <= most && !unbegun), Invariant::BoundedSkew, || {
            format!(
                "{task} unit {unit} [{}, {}] is begun at watermark {watermark}, {most:?} was promised",
                of.low, of.high
            )
        });
        let now = self.now;
        self.require(now <= renewed + LEASE, Invariant::NothingPastTheLease, || {
            format!("{task} unit {unit} is begun at {now}, and the lease was renewed at {renewed}")
        });
    }

    /// A worker has read a unit through.
    pub(in super::super) fn read_through(&mut self, ix: usize, task: TaskId, unit: u32) {
        let book = &mut self.books[ix];
        let Some(of) = book.tasks.get(&task).and_then(|task| task.units.get(unit as usize)) else { return };
        book.unread.remove(&(of.low, task, unit));
        book.read_through.insert((task, unit));
    }

    /// A worker hears something.
    pub(in super::super) fn heard(&mut self, message: &Kind) {
        match message {
            Kind::HandInReply(reply) if reply.accepted => {
                let Some(ix) = self.named(&reply.backfill) else { return };
                let durable = self.books[ix].hand_ins.contains(&(reply.attempt.clone(), reply.number));
                self.require(durable, Invariant::DurableFirst, || {
                    format!("hand-in {} of {} is answered as accepted, and is not durable", reply.number, reply.attempt)
                });
            }
            Kind::Assign(v1::Assign { backfill, work: Some(v1::assign::Work::Commit(work)), .. }) => {
                let (Some(ix), Some(intent)) = (self.named(backfill), &work.intent) else { return };
                let output = self.books[ix].outputs.get(intent.output as usize);
                let durable = output.is_some_and(|output| output.sequence >= intent.sequence);
                self.require(durable, Invariant::DurableFirst, || {
                    format!("#{} may be committed, and is not durable", intent.sequence)
                });
            }
            _ => {}
        }
    }

    /// An operator hears that a backfill exists.
    pub(in super::super) fn applied(&mut self, ix: usize) {
        let created = self.books[ix].created;
        self.require(created, Invariant::DurableFirst, || "a backfill was confirmed, and is not durable".to_owned());
    }
}
