//! The tasks of a backfill that are granted, and which sessions read.

use std::collections::BTreeMap;

use tidegate_common::ids::{OutputIx, SessionId, SourceIx, TaskId, Token};
use tidegate_common::time::EventTime;

/// A task that is granted to a session.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    session: SessionId,
    token: Token,
    /// The source that it reads, where it reads one.
    reads: Option<SourceIx>,
    pub(super) paused_at: Option<EventTime>,
    pub(super) yielding: bool,
}

impl Grant {
    pub(super) fn new(session: SessionId, token: Token, reads: Option<SourceIx>) -> Self {
        Self { session, token, reads, paused_at: None, yielding: false }
    }

    /// Who holds it.
    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// Under which token.
    pub(super) fn token(&self) -> Token {
        self.token
    }
}

/// Who holds which task. Whoever reads is counted as grants come and go, so that nobody has to walk them to know.
#[derive(Debug, Default)]
pub(super) struct Grants {
    by_task: BTreeMap<TaskId, Grant>,
    /// How many tasks that read each session holds; only those that hold one.
    readers: BTreeMap<SessionId, u32>,
    /// How many reads of each source are granted; only those that have one.
    by_source: BTreeMap<SourceIx, u32>,
    reads: u32,
}

impl Grants {
    /// Grants a task; one that was granted before is given back first.
    pub(super) fn insert(&mut self, task: TaskId, grant: Grant) {
        self.remove(task);
        if let Some(source) = grant.reads {
            *self.readers.entry(grant.session).or_default() += 1;
            *self.by_source.entry(source).or_default() += 1;
            self.reads += 1;
        }
        self.by_task.insert(task, grant);
        debug_assert!(self.is_exact());
    }

    /// Ends a task's grant.
    pub(super) fn remove(&mut self, task: TaskId) -> Option<Grant> {
        let grant = self.by_task.remove(&task)?;
        if let Some(source) = grant.reads {
            self.reads = self.reads.saturating_sub(1);
            one_less(&mut self.readers, grant.session);
            one_less(&mut self.by_source, source);
        }
        debug_assert!(self.is_exact());
        Some(grant)
    }

    /// The sessions that read.
    pub(super) fn readers(&self) -> impl Iterator<Item = SessionId> {
        self.readers.keys().copied()
    }

    /// How many reads of `source` are granted.
    pub(super) fn reads_of(&self, source: SourceIx) -> u32 {
        self.by_source.get(&source).copied().unwrap_or(0)
    }

    /// How many reads are granted.
    pub(super) fn reads(&self) -> u32 {
        self.reads
    }

    /// Whether a join is granted; nobody walks the others to know.
    pub(super) fn has_join(&self) -> bool {
        let next = self.by_task.range(TaskId::Join(OutputIx::new(0), 0)..).next();
        next.is_some_and(|(task, _)| matches!(task, TaskId::Join(..)))
    }

    /// Whether a task of late rows is granted.
    pub(super) fn has_late(&self) -> bool {
        let next = self.by_task.range(TaskId::Late(OutputIx::new(0), 0)..).next();
        next.is_some_and(|(task, _)| matches!(task, TaskId::Late(..)))
    }

    pub(super) fn get(&self, task: TaskId) -> Option<&Grant> {
        self.by_task.get(&task)
    }

    pub(super) fn get_mut(&mut self, task: TaskId) -> Option<&mut Grant> {
        self.by_task.get_mut(&task)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskId, &Grant)> {
        self.by_task.iter().map(|(task, grant)| (*task, grant))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (TaskId, &mut Grant)> {
        self.by_task.iter_mut().map(|(task, grant)| (*task, grant))
    }

    pub(super) fn len(&self) -> usize {
        self.by_task.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_task.is_empty()
    }

    /// Whether the counts are what a walk over all grants gives.
    fn is_exact(&self) -> bool {
        let mut walked = BTreeMap::new();
        for (_, grant) in self.iter().filter(|(_, grant)| grant.reads.is_some()) {
            *walked.entry(grant.session).or_default() += 1;
        }
        let all = self.reads == walked.values().sum::<u32>() && self.readers == walked;
        all && self.reads == self.by_source.values().sum::<u32>() && self.by_source.values().all(|count| *count > 0)
    }
}

/// Counts one of `key` less; what there is none of has no entry.
fn one_less<K: Ord + Copy>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

pub(super) fn is_read(task: TaskId) -> bool {
    matches!(task, TaskId::Read(..))
}

/// Whether a worker has so many of these at once as it has slots.
pub(super) fn takes_slot(task: TaskId) -> bool {
    matches!(task, TaskId::Read(..) | TaskId::Regenerate(..) | TaskId::Join(..) | TaskId::Late(..))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_common::ids::{Epoch, SegmentIx, Sequence, Term};

    use super::*;

    /// What each of them reads.
    fn source(task: TaskId) -> Option<SourceIx> {
        match task {
            TaskId::Read(source, ..) => Some(source),
            TaskId::Regenerate(..) => Some(SourceIx::new(1)),
            _ => None,
        }
    }

    /// Nine tasks, three of them reads, one a join, one of late rows, and one that reads again what was to be joined.
    fn task(at: u32) -> TaskId {
        match at {
            0 => TaskId::Prepare,
            8 => TaskId::Regenerate(OutputIx::new(1), 3),
            5 => TaskId::Join(OutputIx::new(1), 3),
            6 => TaskId::Clean,
            7 => TaskId::Late(OutputIx::new(1), 3),
            1 => TaskId::Commit(OutputIx::new(0), Sequence::default()),
            at => TaskId::Read(SourceIx::new(0), SegmentIx::new(0), at),
        }
    }

    proptest! {
        #[test]
        fn who_reads_is_what_a_walk_says(happenings in proptest::collection::vec((0..9u32, 0..3u64, any::<bool>()), 0..60)) {
            let mut grants = Grants::default();
            for (epoch, (at, session, granted)) in (0..).zip(happenings) {
                let token = Token { term: Term::default(), epoch: Epoch::new(epoch) };
                if granted {
                    grants.insert(task(at), Grant::new(SessionId::new(session), token, source(task(at))));
                } else {
                    grants.remove(task(at));
                }
                prop_assert!(grants.is_exact(), "{grants:?}");
                let mut walked: Vec<_> = grants.iter().filter(|(task, _)| source(*task).is_some()).map(|(_, grant)| grant.session).collect();
                prop_assert_eq!(grants.reads() as usize, walked.len());
                let joins = grants.iter().any(|(task, _)| matches!(task, TaskId::Join(..)));
                prop_assert_eq!(grants.has_join(), joins);
                let late = grants.iter().any(|(task, _)| matches!(task, TaskId::Late(..)));
                prop_assert_eq!(grants.has_late(), late);
                walked.sort_unstable();
                walked.dedup();
                prop_assert_eq!(grants.readers().collect::<Vec<_>>(), walked);
            }
        }
    }
}
