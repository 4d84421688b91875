//! Folding the journal: how one record changes a backfill's durable state. Nothing else changes it.
//!
//! A restarted coordinator folds the same records and has the same state.

use tidegate_common::ids::{OutputIx, SourceIx, TaskId, Term};
use tidegate_proto::convert;
use tidegate_proto::v1::{self, record};

use super::backfill::{Backfill, Source};
use super::join::{Input, Join, Origin};
use super::ledger::InputAccount;
use super::output::Output;
use super::regenerate::Reloads;

impl Backfill {
    /// Folds one journalled record into the state.
    pub(super) fn apply(&mut self, record: &v1::Record) {
        use record::Kind;
        self.updated = record.at;
        match &record.kind {
            Some(Kind::Created(created)) => {
                self.created = record.at;
                self.spec_json.clone_from(&created.spec_json);
                self.allow_existing = created.allow_existing;
                self.expected.clone_from(&created.expected);
            }
            Some(Kind::Term(raised)) => self.term = Term::new(raised.term),
            Some(Kind::Prepared(prepared)) => self.apply_prepared(prepared),
            Some(Kind::Planned(planned)) => self.apply_planned(planned),
            Some(Kind::HandIn(accepted)) => self.apply_hand_in(accepted),
            Some(Kind::Sliced(sliced)) => {
                let window = self.spec.window;
                let join = self.outputs.get_mut(sliced.output as usize).and_then(|output| output.join.as_mut());
                join.into_iter().for_each(|join| join.cut(window, sliced));
            }
            Some(Kind::Sealed(intent)) => self.apply_sealed(intent),
            Some(Kind::Publishing(publishing)) => self.apply_publishing(publishing),
            Some(Kind::Ended(ended)) => self.apply_ended(ended),
            Some(Kind::Parked(parked)) => self.apply_parked(parked),
            Some(Kind::Wish(changed)) => self.apply_wish(changed.wish()),
            Some(Kind::Phase(changed)) => {
                self.phase = changed.phase();
                self.failure.clone_from(&changed.evidence);
                self.ended = if self.is_over() { record.at } else { 0 };
            }
            Some(Kind::Retried(retried)) => self.apply_retried(retried),
            Some(Kind::Regenerated(regenerated)) => self.apply_regenerated(regenerated),
            None => {}
        }
    }

    fn apply_prepared(&mut self, prepared: &v1::Prepared) {
        if std::mem::take(&mut self.repin)
            && let Some(pinned) = &mut self.prepared
        {
            // The plan stands; only what the windows held is looked at anew.
            for (pinned, found) in pinned.outputs.iter_mut().zip(&prepared.outputs) {
                pinned.rows_before = found.rows_before;
                pinned.sequence_before = found.sequence_before;
                pinned.head_before = found.head_before;
            }
            return;
        }
        for (output, found) in self.outputs.iter_mut().zip(&prepared.outputs) {
            let reads = found.source.first();
            let at = self.spec.sources.iter().position(|name| Some(name) == reads);
            output.source = at.and_then(|at| u32::try_from(at).ok()).map(SourceIx::new);
            let source = |name: &String| self.spec.sources.iter().position(|known| known == name);
            let ix = |name: &String| source(name).and_then(|at| u32::try_from(at).ok()).map(SourceIx::new);
            let input = |(at, input): (usize, &v1::JoinInput)| {
                let (source, reach) = (ix(&input.source)?, input.reach());
                Some(Input { source, reach, is_anchor: at == 0 || input.anchor, account: InputAccount::default() })
            };
            let inputs: Vec<_> = found.inputs.iter().enumerate().filter_map(input).collect();
            output.join = (!inputs.is_empty()).then(|| Join::new(inputs));
        }
        for (keeper, spec) in (0..).zip(&self.spec.outputs) {
            let of = spec.late_of.and_then(|of| self.outputs.get_mut(of.get() as usize));
            of.and_then(|of| of.join.as_mut()).into_iter().for_each(|join| join.keeper = Some(keeper));
        }
        self.prepared = Some(prepared.clone());
        self.phase = if self.is_found() { v1::Phase::Running } else { v1::Phase::Enumerating };
    }

    fn apply_planned(&mut self, planned: &record::SourcePlanned) {
        if let (Some(source), Some(found)) = (self.sources.get_mut(planned.source as usize), &planned.found) {
            source.plan.planned(found.clone(), planned.segments.clone());
            source.finding = Vec::new();
        }
        if self.prepared.is_some() && self.is_found() {
            self.phase = v1::Phase::Running;
        }
    }

    fn apply_hand_in(&mut self, accepted: &record::HandInAccepted) {
        let (Ok(task), Some(hand_in)) = (convert::task_id(accepted.task), &accepted.hand_in) else { return };
        if let TaskId::Join(output, first) = task {
            return self.apply_joined(output, first, hand_in);
        }
        if let TaskId::Late(output, number) = task {
            return self.apply_late(output, number, hand_in);
        }
        let TaskId::Read(ix, segment, at) = task else { return };
        let Some(source) = self.sources.get_mut(ix.get() as usize) else { return };
        source.account.book(hand_in, accepted.rows_planned);
        let total = accepted.units_in_task;
        source.plan.accept((segment, at), hand_in.end_unit, total, &hand_in.attempt, hand_in.number);
        let origin = Origin { source: ix, place: (segment, at), first: hand_in.first_unit, end: hand_in.end_unit };
        for part in &hand_in.outputs {
            match self.outputs.get_mut(part.output as usize) {
                Some(Output { join: Some(join), .. }) => join.book(origin, part),
                Some(output) => output.book(part),
                None => {}
            }
        }
        self.log = self.log.next();
        self.parked.remove(&task);
        self.tries.remove(&task);
    }

    fn apply_joined(&mut self, ix: OutputIx, first: u32, hand_in: &v1::HandIn) {
        let Some(output) = self.outputs.get_mut(ix.get() as usize) else { return };
        hand_in.outputs.iter().for_each(|part| output.book(part));
        if let Some(join) = &mut output.join {
            join.joined(first..hand_in.end_unit.max(first));
            let needed = |task: &TaskId| match task {
                TaskId::Regenerate(of, object) => *of != ix || join.object(*object).is_some(),
                _ => true,
            };
            self.parked.retain(|task, _| needed(task));
        }
        self.log = self.log.next();
        for slice in first..hand_in.end_unit {
            self.parked.remove(&TaskId::Join(ix, slice));
            self.tries.remove(&TaskId::Join(ix, slice));
        }
    }

    fn apply_late(&mut self, ix: OutputIx, number: u64, hand_in: &v1::HandIn) {
        for part in &hand_in.outputs {
            self.outputs.get_mut(part.output as usize).into_iter().for_each(|output| output.book(part));
        }
        self.join_mut(ix).into_iter().for_each(|join| join.late_written(number));
        self.log = self.log.next();
        self.parked.remove(&TaskId::Late(ix, number));
        self.tries.remove(&TaskId::Late(ix, number));
    }

    fn apply_sealed(&mut self, intent: &v1::Intent) {
        if let Some(output) = self.outputs.get_mut(intent.output as usize) {
            output.seal(intent);
        }
    }

    fn apply_publishing(&mut self, publishing: &record::Publishing) {
        self.publishing = true;
        self.phase = v1::Phase::Running;
        publishing.intents.iter().for_each(|intent| self.apply_sealed(intent));
        // What has nothing to publish is published with this.
        let staged = self.outputs.iter_mut().zip(&self.spec.outputs).filter(|(_, spec)| spec.staged);
        for (output, _) in staged.filter(|(output, _)| output.prepared_intent().is_none()) {
            output.published = true;
        }
    }

    fn apply_ended(&mut self, ended: &record::IntentEnded) {
        let Some(output) = self.outputs.get_mut(ended.output as usize) else { return };
        let open = output.prepared_intent().is_some_and(|intent| intent.sequence == ended.sequence);
        if let Some(result) = ended.result.as_ref().filter(|_| open) {
            output.end(result);
        }
    }

    fn apply_wish(&mut self, wish: v1::Wish) {
        self.wish = wish;
        if wish != v1::Wish::Cancel {
            return;
        }
        self.cleaned = false;
        self.outputs.iter_mut().for_each(|output| output.doom(self.term));
        self.outputs.iter_mut().filter_map(|output| output.join.as_mut()).for_each(Join::lose_all);
        self.tries.clear();
        self.reloads = Reloads::default();
        if matches!(self.phase, v1::Phase::Staged | v1::Phase::Partial | v1::Phase::Failed) {
            self.phase = v1::Phase::Running;
            self.ended = 0;
        }
    }

    fn apply_parked(&mut self, parked: &record::Parked) {
        let Ok(task) = convert::task_id(parked.task) else { return };
        if let TaskId::Join(output, slice) = task {
            let join = self.outputs.get_mut(output.get() as usize).and_then(|output| output.join.as_mut());
            join.into_iter().for_each(|join| join.park(slice));
        } else if let TaskId::Regenerate(output, object) = task {
            self.join_mut(output).into_iter().for_each(|join| join.park_object(object));
        } else if let TaskId::Late(output, number) = task {
            self.join_mut(output).into_iter().for_each(|join| join.park_late(number));
        } else if let Some((plan, place)) = self.read_task(task) {
            plan.park(place);
        } else {
            return;
        }
        self.parked.insert(task, parked.evidence.clone().unwrap_or_default());
    }

    fn apply_retried(&mut self, retried: &record::Retried) {
        self.allow_existing |= retried.allow_existing;
        if retried.submitted {
            self.expected.clone_from(&retried.expected);
        }
        if retried.allow_existing {
            self.pin_anew();
        }
        for task in std::mem::take(&mut self.parked).into_keys() {
            if let TaskId::Join(output, slice) = task {
                let join = self.outputs.get_mut(output.get() as usize).and_then(|output| output.join.as_mut());
                join.into_iter().for_each(|join| join.unpark(slice));
            } else if let TaskId::Late(output, number) = task {
                self.join_mut(output).into_iter().for_each(|join| join.unpark_late(number));
            } else if let Some((plan, place)) = self.read_task(task) {
                plan.unpark(place);
            }
        }
        self.outputs.iter_mut().filter_map(|output| output.join.as_mut()).for_each(Join::try_anew);
        self.tries.clear();
        self.cleaned = false;
        self.failure = None;
        self.ended = 0;
        self.wish = v1::Wish::Run;
        if !self.is_begun() {
            // Nothing was accepted or sealed, so nothing holds it to what was pinned: it is planned anew.
            self.prepared = None;
            self.repin = false;
            self.sources = self.spec.sources.iter().map(|_| Source::new()).collect();
            self.outputs.iter_mut().for_each(|output| output.join = None);
        }
        self.phase = if self.prepared.is_none() {
            v1::Phase::Preparing
        } else if !self.is_found() {
            v1::Phase::Enumerating
        } else {
            v1::Phase::Running
        };
    }

    /// What is to be replaced and is not yet: an intent that would replace what the window held before is given up, and
    /// the tables are looked at anew.
    fn pin_anew(&mut self) {
        for (output, spec) in self.outputs.iter_mut().zip(&self.spec.outputs) {
            let done = if spec.staged { output.published } else { output.replaced };
            if !spec.replaces || done {
                continue;
            }
            self.repin = true;
            if output.prepared_intent().is_some_and(|intent| intent.kind() == v1::CommitKind::Replace) {
                output.doom(self.term);
            }
        }
    }
}
