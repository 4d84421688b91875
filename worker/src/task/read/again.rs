//! A read of what was read before: at no gate, into one output, with nothing handed in and no dead letters.

use tidegate_common::time::EventTime;

use super::{Closed, OutputPort, ReadJob, Reading};
use crate::source::UnitReader;
use crate::task::budget::Budget;
use crate::task::{TaskContext, TaskError};

/// Reads all units of `job` from `source` into `output`, and answers what that holds of them. Records that are none are
/// left out: they were kept, or not, when they were first read.
///
/// # Errors
/// Whatever the source and the output say, and [`super::ReadError`] where a unit is not what was planned; an error of
/// class fenced when the right is lost.
pub async fn read_again(
    context: TaskContext,
    job: ReadJob,
    source: Box<dyn UnitReader>,
    output: Box<dyn OutputPort>,
    budget: &Budget,
) -> Result<Closed, TaskError> {
    let mut reading = Reading::new(context, job, source, vec![output], None, budget)?;
    reading.again = true;
    reading.all_again().await
}

impl Reading {
    async fn all_again(&mut self) -> Result<Closed, TaskError> {
        let mut at = self.job.next_unit;
        self.charge.set(self.source.ahead_bytes());
        while self.unit(at).is_some() {
            self.context.lease.check()?;
            // Nothing holds it back, so it is ahead of nothing.
            self.read_unit(at, EventTime::MIN).await?;
            if self.charge.over_share() {
                self.flush().await?;
            }
            at += 1;
        }
        self.context.lease.check()?;
        match self.outputs.first_mut() {
            Some(output) => output.close().await,
            None => Ok(Closed::default()),
        }
    }
}
