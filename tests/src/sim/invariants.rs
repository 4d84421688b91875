//! What must hold, whatever happens: the invariants by name. The [`Oracle`](super::oracle) checks them at every step.

use std::fmt;

/// Something that must hold, whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// INV-1: each unit is accepted once, and as the next of its task.
    NextPrefix,
    /// INV-2: a token is granted once; terms rise with each leadership; a table's sequences rise by one.
    NumbersRise,
    /// INV-3: the complete watermark and committed-through never fall, restarts included.
    WatermarksRise,
    /// INV-4: a file is in one accepted hand-in and in one intent; an intent is the files of its stretch of the log, which
    /// begins where the last one ended; the next is not prepared before the end of the last is proven.
    OneIntent,
    /// INV-5: an intent is in the table's history at most once, and so is each file.
    OnceInTable,
    /// INV-6: an intent that ended as committed is in the table's history; one that ended as fenced never will be, nor one
    /// that ended as cancelled, in whose way a fence stands.
    EndsAreTrue,
    /// INV-7: committed-through is honest: no unit with a lower low is missing in the table (or its accepted log).
    HonestThrough,
    /// INV-8: success means that every unit is accepted, every row accounted for, every file in the table once.
    CompleteAtSuccess,
    /// INV-9: no file of an accepted hand-in is ever deleted, nor is a deleted file ever accepted or committed.
    NothingLostToGarbage,
    /// INV-10: the read watermark that is told is at or below the low of every unit that nobody has read yet.
    HonestGate,
    /// INV-11: a unit is begun only if its rows lie at most max(drift, widest unit) past the read watermark, as the worker
    /// knows it.
    BoundedSkew,
    /// INV-12: no unit is begun once its lease is over as the coordinator counts it.
    NothingPastTheLease,
    /// INV-13: nobody hears of what is not durable: an accepted hand-in, a commit permit, a created backfill.
    DurableFirst,
    /// INV-14: when the mishaps end, every backfill ends, within a bounded time.
    Liveness,
    /// INV-15: nothing fails, is parked or is cancelled without a cause.
    Health,
    /// INV-16: folding the journal gives the same durable state as living through it.
    FoldEquality,
    /// INV-17: no hand-in of a superseded attempt is accepted; the collector counts on it, for it deletes their files.
    SupersededStayOut,
    /// INV-18: what is staged is on main only behind the record that prepares the publish of every output, and never where
    /// it was cancelled; what is staged completely is on its branch.
    StagedApart,
    /// INV-19: a slice of an output that joins is in one accepted hand-in, and success means that every slice is.
    JoinedOnce,
    /// INV-20: a slice is joined of accepted objects whose cells it meets, of all that hold a row of these, and not before
    /// every unit that may hold something of them, and does not break its order, is accepted.
    JoinedWhole,
    /// INV-21: every row of the anchor is in one accepted file of the join, or came when its slice was joined, and never both;
    /// success means that each is one of them. As many rows are told to be late as are.
    AnchorsOnce,
    /// INV-22: no object of the shuffle store is removed while a slice needs it that is not joined, but by a cancel; and a
    /// join that is granted names none that was.
    NeededKept,
    /// INV-23: what has succeeded, is staged or cancelled has left nothing in the shuffle store.
    NothingLeft,
    /// INV-24: the live bytes that are told are those of accepted objects that slices still need and no cancel removed.
    LiveBytes,
    /// INV-25: a backfill ends as partial only when every slice is joined that can be.
    AllJoined,
    /// INV-26: an object stands in the place of another only if that was lost, and holds as many rows of the same cells.
    MadeAnew,
}

impl Invariant {
    /// Its number.
    pub fn number(self) -> usize {
        self as usize + 1
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INV-{} ({self:?})", self.number())
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What happened.
    pub what: String,
    /// When, in virtual microseconds.
    pub at: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {}.{:06} s: {}", self.invariant, self.at / 1_000_000, self.at % 1_000_000, self.what)
    }
}
