//! What can go wrong, by name, and how often it did.

use std::collections::BTreeMap;

macro_rules! mishaps {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Something that goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mishap {
            $($(#[$doc])* $name,)*
        }

        impl Mishap {
            /// All of them.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];
        }
    };
}

mishaps! {
    /// The coordinator's process dies; another starts later.
    CoordinatorCrash,
    /// The coordinator's process is stopped, and goes on later as if nothing had been.
    CoordinatorPause,
    /// A second coordinator starts while the first is alive.
    SecondCoordinator,
    /// A transaction is refused because somebody else has written the head: counted, never drawn.
    Deposed,
    /// A transaction takes seconds.
    SlowTransaction,
    /// A transaction fails without effect.
    FailedTransaction,
    /// A transaction's outcome is not heard of: the coordinator dies.
    LostTransactionReply,
    /// A plan segment could not be had now.
    SegmentUnavailable,
    /// A worker's process dies; another of its name starts later.
    WorkerCrash,
    /// A worker's process is stopped, and goes on later.
    WorkerPause,
    /// A worker is asked to leave, and comes back later.
    WorkerDrain,
    /// A connection breaks; what is on the way is lost.
    LinkLoss,
    /// A connection breaks, and one end takes long to notice.
    HalfOpenLink,
    /// A connection hangs: what a worker sends from now on arrives long after it has connected anew, or is gone.
    StuckLink,
    /// A message takes seconds.
    SlowMessage,
    /// A worker sends an accepted hand-in of its once more, under its token of now.
    RepeatedHandIn,
    /// A read or a commit fails, and may pass when tried again.
    RetryableFailure,
    /// Somebody else commits to the table.
    ForeignCommit,
    /// Somebody else writes into the window, too.
    Intrusion,
    /// The table's old snapshots are expired.
    Expiry,
    /// An operator rolls the table back.
    Rollback,
    /// A tool of somebody else rewrites the table without its properties.
    PropertyLoss,
    /// A commit's reply is lost, and it has happened or will.
    LostCommitReply,
    /// A commit's request is lost.
    LostCommitRequest,
    /// A commit lands long after its worker has given up waiting.
    LateCommit,
    /// An object of the shuffle store is gone, or damaged.
    LostObject,
    /// What is read again to make up for a lost object comes to other rows.
    OtherRows,
    /// An operator pauses a backfill; it is resumed later.
    OperatorPause,
    /// An operator cancels a backfill.
    OperatorCancel,
    /// An operator cancels a backfill while a commit of it is on its way.
    RashCancel,
    /// An operator asks for what failed once more.
    OperatorRetry,
    /// Two swaps of one intent are on the way at once: counted, never drawn.
    TwoCommitters,
    /// A fence lands: counted, never drawn.
    FenceLanded,
    /// An intent that was to be fenced off had landed: counted, never drawn.
    FenceTooLate,
    /// A staging branch goes to main: counted, never drawn.
    Published,
    /// A staging branch is dropped: counted, never drawn.
    Discarded,
    /// Rows that were lost are read again: counted, never drawn.
    MadeAnew,
    /// A window that is to be replaced holds what others wrote since: counted, never drawn.
    WindowConflict,
    /// A row comes when slices that need it are joined: counted, never drawn.
    LateRow,
    /// A join is taken back, for rows came that it needs: counted, never drawn.
    DisturbedJoin,
}

/// How often each struck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Struck(BTreeMap<Mishap, u64>);

impl Struck {
    /// It struck.
    pub(super) fn count(&mut self, mishap: Mishap) {
        *self.0.entry(mishap).or_default() += 1;
    }

    /// How often it struck.
    pub fn times(&self, mishap: Mishap) -> u64 {
        self.0.get(&mishap).copied().unwrap_or(0)
    }

    /// Adds what struck elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (mishap, times) in &other.0 {
            *self.0.entry(*mishap).or_default() += times;
        }
    }
}
