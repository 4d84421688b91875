//! The running task bodies of a worker: starts them, tells them what the coordinator says, drops them.
//!
//! Bodies run on the runtime for CPU work, so that no query and no encoder ever delays a heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_common::gate::Gate;
use tidegate_common::ids::BackfillId;
use tidegate_proto::v1;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::state::Grant;
use crate::task::{self, Cursor, Desk, Lease, Report, RunId, TaskBody, TaskContext, Verdict, Wish};

struct Running {
    abort: AbortHandle,
    wish: watch::Sender<Wish>,
    cursor: watch::Receiver<Option<Cursor>>,
    reply: Option<oneshot::Sender<Verdict>>,
}

/// What is known of a backfill that has work here.
struct Known {
    info: Arc<v1::BackfillInfo>,
    gate: watch::Sender<Gate>,
    /// How many read tasks run, by source; empty where no source has a rate limit.
    readers: watch::Sender<Vec<u32>>,
}

/// The running task bodies.
pub(crate) struct Runs {
    body: Arc<dyn TaskBody>,
    cpu: Handle,
    reports: mpsc::Sender<Report>,
    moved: Arc<Notify>,
    running: BTreeMap<RunId, Running>,
    backfills: BTreeMap<BackfillId, Known>,
}

impl Runs {
    pub(crate) fn new(body: Arc<dyn TaskBody>, cpu: Handle, reports: mpsc::Sender<Report>, moved: Arc<Notify>) -> Self {
        Self { body, cpu, reports, moved, running: BTreeMap::new(), backfills: BTreeMap::new() }
    }

    /// What is said of a backfill replaces what was known.
    pub(crate) fn learn(&mut self, backfill: BackfillId, info: v1::BackfillInfo) {
        let info = Arc::new(info);
        match self.backfills.get_mut(&backfill) {
            Some(known) => known.info = info,
            None => {
                let (gate, readers) = (watch::Sender::new(Gate::OPEN), watch::Sender::new(Vec::new()));
                self.backfills.insert(backfill, Known { info, gate, readers });
            }
        }
    }

    pub(crate) fn knows(&self, backfill: &BackfillId) -> bool {
        self.backfills.contains_key(backfill)
    }

    /// Forgets the backfills that `keep` does not hold.
    pub(crate) fn retain(&mut self, keep: impl Fn(&BackfillId) -> bool) {
        self.backfills.retain(|id, _| keep(id));
    }

    /// The gate has moved, or other tasks read.
    pub(crate) fn gate(&self, backfill: &BackfillId, gate: &v1::Gate) {
        if let Some(known) = self.backfills.get(backfill) {
            known.gate.send_replace(gate.value());
            known.readers.send_replace(gate.readers.clone());
        }
    }

    /// Starts a body; does nothing for a backfill that is not known.
    pub(crate) fn start(&mut self, run: RunId, grant: Grant, attempt: String, lease: Lease, work: v1::assign::Work) {
        let Some(known) = self.backfills.get(&grant.backfill) else { return };
        let (wish, wishes) = watch::channel(Wish::Run);
        let (cursor, cursors) = watch::channel(None);
        let context = TaskContext {
            backfill: grant.backfill,
            info: known.info.clone(),
            task: grant.task,
            work,
            attempt,
            gate: known.gate.subscribe(),
            readers: known.readers.subscribe(),
            wish: wishes,
            lease,
            granted: grant.token.into(),
            desk: Desk { run, reports: self.reports.clone(), cursor, moved: self.moved.clone() },
        };
        let abort = self.cpu.spawn(task::run(self.body.clone(), context)).abort_handle();
        self.running.insert(run, Running { abort, wish, cursor: cursors, reply: None });
    }

    /// The body waits for the answer to a hand-in.
    pub(crate) fn waits(&mut self, run: RunId, reply: oneshot::Sender<Verdict>) {
        if let Some(running) = self.running.get_mut(&run) {
            running.reply = Some(reply);
        }
    }

    /// The answer has come.
    pub(crate) fn answer(&mut self, run: RunId, verdict: Verdict) {
        if let Some(reply) = self.running.get_mut(&run).and_then(|running| running.reply.take()) {
            // A body that was dropped meanwhile needs no answer.
            let _ = reply.send(verdict);
        }
    }

    /// Asks a body to hand in and leave.
    pub(crate) fn ask_to_leave(&self, run: RunId) {
        if let Some(running) = self.running.get(&run) {
            running.wish.send_replace(Wish::Leave);
        }
    }

    /// What a body promises; `None` before it has.
    pub(crate) fn cursor(&self, run: RunId) -> Option<Cursor> {
        self.running.get(&run).and_then(|running| *running.cursor.borrow())
    }

    /// Drops a body, if it still runs, and all that is known of it.
    pub(crate) fn end(&mut self, run: RunId) {
        if let Some(running) = self.running.remove(&run) {
            running.abort.abort();
        }
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.abort.abort());
    }
}
