//! Grants of joins that are not what they should be: what came just behind one, a cancel or rows that its slices need, takes
//! it back in the same breath, or it was wrong.

use tidegate_common::ids::{TaskId, Token};
use tidegate_proto::convert;
use tidegate_proto::v1;

use super::{Invariant, Oracle};
use crate::sim::scenario::Micros;

/// A grant that is to be taken back before anything else happens.
#[derive(Debug)]
pub(super) struct Doubt {
    at: Micros,
    ix: usize,
    task: TaskId,
    token: Token,
    invariant: Invariant,
    what: String,
}

impl Oracle {
    /// The grant of `task` under `token` breaks `invariant`, unless it is taken back at once.
    pub(super) fn doubt(&mut self, ix: usize, (task, token): (TaskId, Token), invariant: Invariant, what: String) {
        self.doubts.push(Doubt { at: self.now, ix, task, token, invariant, what });
    }

    /// A grant is taken back.
    pub(super) fn revoked(&mut self, ix: usize, revoke: &v1::Revoke) {
        let (Ok(task), Ok(token)) = (convert::task_id(revoke.task), convert::token(revoke.token)) else { return };
        self.doubts.retain(|doubt| (doubt.ix, doubt.task, doubt.token) != (ix, task, token));
    }

    /// Something happens at `now`: what was in doubt before was wrong.
    pub(in super::super) fn time_is(&mut self, now: Micros) {
        if let Some(at) = self.doubts.iter().position(|doubt| doubt.at < now) {
            let Doubt { invariant, what, .. } = self.doubts.swap_remove(at);
            self.breaks(invariant, what);
        }
        self.now = now;
    }
}
