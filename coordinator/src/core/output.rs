//! One output's durable state: the files that wait for an intent, the last intent, and what stands on main and on the
//! staging branch. [`super::Backfill::apply`] alone changes it.

use sha2::{Digest, Sha256};
use tidegate_common::clock::Monotonic;
use tidegate_common::ids::{LogPosition, Sequence, SourceIx, Term};
use tidegate_common::time::EventTime;
use tidegate_proto::v1;

use super::backfill::CoreOutput;
use super::join::Join;
use super::ledger::OutputAccount;

/// One output of a backfill.
#[derive(Debug)]
pub(super) struct Output {
    /// Its source, or the anchor where it joins.
    pub(super) source: Option<SourceIx>,
    /// Where it joins several.
    pub(super) join: Option<Join>,
    pub(super) account: OutputAccount,
    /// Rises with every intent, on main and on the branch alike.
    pub(super) sequence: Sequence,
    pub(super) sealed_through: LogPosition,
    /// The last intent; it is prepared while `ended` is false.
    pub(super) intent: Option<v1::Intent>,
    pub(super) ended: bool,
    /// The term in which the prepared intent was given up: it is fenced off, whatever is wished later.
    pub(super) doomed: Option<Term>,
    /// The marker that the last proven commit, or fence, left on main.
    pub(super) marker: String,
    pub(super) last_snapshot: i64,
    pub(super) committed_through: EventTime,
    /// What the same are on the staging branch.
    pub(super) branch_marker: String,
    pub(super) branch_snapshot: i64,
    pub(super) branch_through: EventTime,
    /// Whether the staging branch may be there.
    pub(super) branched: bool,
    /// Whether what the window held was replaced: on the branch where it is staged, else on main.
    pub(super) replaced: bool,
    /// Whether what was staged is on main.
    pub(super) published: bool,
    pub(super) unsealed: Unsealed,
    /// The files of the prepared intent and all behind them: what is unsealed again if it is fenced off.
    carried: Option<Unsealed>,
    /// All files, where they are staged: what a publish adds to main.
    all: Option<Unsealed>,
    /// When the oldest unsealed file was handed in; soft.
    pub(super) unsealed_since: Option<Monotonic>,
}

/// Files of accepted hand-ins, in the order of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsealed {
    pub(super) files: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Over each file's path and a line break.
    pub(super) paths: Sha256,
}

/// What an intent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It commits new files to main.
    Direct,
    /// It commits new files to the staging branch.
    Stage,
    /// It commits all files of the staging branch to main, and drops the branch.
    Publish,
    /// It drops the staging branch.
    Discard,
}

impl Role {
    pub(super) fn of(intent: &v1::Intent) -> Self {
        match (intent.kind(), intent.branch.is_empty(), intent.drop_branch.is_empty()) {
            (v1::CommitKind::Discard, ..) => Self::Discard,
            (_, _, false) => Self::Publish,
            (_, true, _) => Self::Direct,
            (_, false, _) => Self::Stage,
        }
    }
}

impl Output {
    pub(super) fn new(spec: &CoreOutput) -> Self {
        Self {
            source: None,
            join: None,
            account: OutputAccount::default(),
            sequence: Sequence::default(),
            sealed_through: LogPosition::default(),
            intent: None,
            ended: true,
            doomed: None,
            marker: String::new(),
            last_snapshot: 0,
            committed_through: EventTime::MIN,
            branch_marker: String::new(),
            branch_snapshot: 0,
            branch_through: EventTime::MIN,
            branched: false,
            replaced: false,
            published: false,
            unsealed: Unsealed::default(),
            carried: None,
            all: spec.staged.then(Unsealed::default),
            unsealed_since: None,
        }
    }

    /// The intent that is prepared and whose end is not proven.
    pub(super) fn prepared_intent(&self) -> Option<&v1::Intent> {
        self.intent.as_ref().filter(|_| !self.ended)
    }

    /// All files, where they are staged.
    pub(super) fn staged_files(&self) -> Unsealed {
        self.all.clone().unwrap_or_default()
    }

    /// Whether every accepted file waits for an intent.
    pub(super) fn is_gathered(&self) -> bool {
        self.unsealed.files == self.account.files
    }

    /// Books an accepted hand-in's part.
    pub(super) fn book(&mut self, part: &v1::OutputPart) {
        self.account.book(part);
        self.unsealed.book(part);
        self.carried.iter_mut().chain(&mut self.all).for_each(|files| files.book(part));
    }

    /// An intent is prepared.
    pub(super) fn seal(&mut self, intent: &v1::Intent) {
        let role = Role::of(intent);
        self.sequence = Sequence::new(intent.sequence);
        self.sealed_through = LogPosition::new(intent.log_to);
        self.intent = Some(intent.clone());
        self.ended = false;
        self.doomed = None;
        self.carried = None;
        if matches!(role, Role::Direct | Role::Stage) {
            self.carried = Some(std::mem::take(&mut self.unsealed));
            self.unsealed_since = None;
        }
        self.branched |= role == Role::Stage;
    }

    /// The prepared intent is given up in `term`; once given up it stays so. What drops a branch is not given up.
    pub(super) fn doom(&mut self, term: Term) {
        if self.prepared_intent().is_some_and(|intent| Role::of(intent) != Role::Discard) {
            self.doomed.get_or_insert(term);
        }
    }

    /// The end of the prepared intent is proven.
    pub(super) fn end(&mut self, result: &v1::CommitResult) {
        let Some(intent) = self.prepared_intent().cloned() else { return };
        self.ended = true;
        let doomed = self.doomed.take();
        let carried = self.carried.take();
        match (result.end(), doomed) {
            (v1::CommitEnd::Committed, _) => self.committed(&intent, result.snapshot_id),
            (v1::CommitEnd::Cancelled, Some(term)) => {
                let fence = format!("{}:cancelled:{}", intent.sequence, term.get());
                if intent.branch.is_empty() {
                    self.marker = fence;
                } else {
                    self.branch_marker = fence;
                }
                if let Some(files) = carried {
                    self.unsealed = files;
                    self.sealed_through = LogPosition::new(intent.log_from);
                }
            }
            _ => {}
        }
    }

    fn committed(&mut self, intent: &v1::Intent, snapshot: i64) {
        let marker = format!("{}:{}", intent.sequence, intent.digest);
        let through = EventTime::from_micros(intent.committed_through);
        match Role::of(intent) {
            Role::Direct | Role::Publish => {
                self.marker = marker;
                self.last_snapshot = snapshot;
                self.committed_through = self.committed_through.max(through);
                self.account.commit(intent);
            }
            Role::Stage => {
                self.branch_marker = marker;
                self.branch_snapshot = snapshot;
                self.branch_through = self.branch_through.max(through);
                self.account.stage(intent);
            }
            Role::Discard => self.branch_marker = marker,
        }
        match Role::of(intent) {
            Role::Direct | Role::Stage => self.replaced |= intent.kind() == v1::CommitKind::Replace,
            Role::Publish => {
                self.published = true;
                self.unstage();
            }
            // Whoever takes it up again stages everything anew.
            Role::Discard => {
                self.unstage();
                self.replaced = false;
                self.unsealed = self.staged_files();
                self.sealed_through = LogPosition::default();
            }
        }
    }

    /// The branch is gone.
    fn unstage(&mut self) {
        self.branched = false;
        self.branch_snapshot = 0;
        self.account.unstage();
    }
}

impl Unsealed {
    fn book(&mut self, part: &v1::OutputPart) {
        for file in &part.files {
            self.files += 1;
            self.rows += file.rows;
            self.bytes += file.bytes;
            self.paths.update(file.path.as_bytes());
            self.paths.update(b"\n");
        }
    }

    /// SHA-256, hex, of the paths.
    pub(super) fn digest(&self) -> String {
        self.paths.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
