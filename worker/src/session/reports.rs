//! What running tasks report, and what the session tells the coordinator of it.

use prost::Message;
use tidegate_proto::v1;
use tidegate_proto::v1::from_worker::Kind as Up;

use super::MAX_MESSAGE;
use super::driver::Session;
use crate::failure::{Class, Classify, evidence};
use crate::task::{Report, RunId, TaskEnd};

/// A message that no coordinator would take.
#[derive(Debug, thiserror::Error)]
#[error(
    "a message of {bytes} bytes would be sent, more than the {MAX_MESSAGE} of the protocol: \
         its files are too many for their columns and partitions; partition the output more coarsely, or raise write.target-file-size-bytes"
)]
struct TooLarge {
    bytes: usize,
}

impl Classify for TooLarge {
    fn class(&self) -> Class {
        Class::Poison
    }
}

impl Session {
    pub(super) fn reported(&mut self, report: Report) {
        match report {
            Report::HandIn { run, hand_in, released, reply } => {
                let Some(grant) = self.state.grant(run).cloned() else { return };
                if hand_in.encoded_len() > MAX_MESSAGE - 1024 {
                    self.fail(&grant, evidence(&TooLarge { bytes: hand_in.encoded_len() }));
                    return self.drop_run(run);
                }
                self.runs.waits(run, reply);
                let delivery = self.state.handing_in(run, hand_in, released);
                delivery.into_iter().for_each(|delivery| self.send(Up::HandIn(delivery)));
            }
            Report::Segment { run, segment } => {
                let Some(grant) = self.state.grant(run).cloned() else { return };
                let (backfill, task, token) = grant.message();
                self.send(Up::Segment(v1::SegmentFound { backfill, task, token, segment: Some(segment) }));
            }
            Report::End { run, end } => self.ended(run, end),
        }
    }

    fn ended(&mut self, run: RunId, end: Result<TaskEnd, v1::Evidence>) {
        let Some(grant) = self.state.grant(run).cloned() else { return };
        let attached = self.state.is_attached(run);
        self.drop_run(run);
        if !attached {
            return;
        }
        match end {
            Ok(TaskEnd::HandedIn) => {}
            Ok(TaskEnd::Done(result)) => {
                let (backfill, task, token) = grant.message();
                self.send(Up::Done(v1::Done { backfill, task, token, result: Some(result) }));
            }
            Ok(TaskEnd::GivenBack) => self.send(grant.release()),
            Err(evidence) if evidence.class == i32::from(v1::Failure::Fenced) => self.send(grant.release()),
            Err(evidence) => self.fail(&grant, evidence),
        }
    }
}
