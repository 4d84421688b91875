//! The fences that exactly-once and alignment rest on, by name, so that a test can take one down.
//!
//! A fence that nothing needs would be noise, and a test that passes without it proves nothing: the simulator runs
//! with each fence down in turn and must catch what then breaks. In release builds every fence stands: there is
//! nothing to switch.

#[cfg(debug_assertions)]
use std::collections::BTreeSet;

/// One rule whose removal must break an invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fence {
    /// A hand-in is refused unless its token is the task's live one.
    TokenCompare,
    /// A hand-in's units are exactly the next prefix of what remains.
    PrefixRule,
    /// A durable write compares the term.
    TermCompare,
    /// A commit is judged by the marker on the loaded base.
    MarkerVerdict,
    /// A prepared intent is never rewritten.
    IntentImmutability,
    /// `committed-through` is taken from the complete watermark, not the read watermark.
    CompleteWatermark,
    /// A unit is begun only if the gate permits it.
    GateBetweenUnits,
    /// A file is garbage only if it is in no accepted hand-in and no intent.
    GarbageRule,
    /// An intent starts where the last one ended.
    SealedThrough,
    /// A worker that cannot renew its lease stops before it ends.
    SelfFencing,
    /// An unknown commit is resolved by reading only.
    UnknownOutcome,
    /// An intent that is given up has an end only when a fence stands in the table, or the intent itself.
    CancelFence,
    /// A slice is joined only when everything that it meets is accepted.
    SliceReadiness,
    /// Of the shuffle store nothing is removed that a slice still needs.
    NeededObjects,
}

impl Fence {
    /// Every fence.
    pub const ALL: [Self; 14] = [
        Self::TokenCompare,
        Self::PrefixRule,
        Self::TermCompare,
        Self::MarkerVerdict,
        Self::IntentImmutability,
        Self::CompleteWatermark,
        Self::GateBetweenUnits,
        Self::GarbageRule,
        Self::SealedThrough,
        Self::SelfFencing,
        Self::UnknownOutcome,
        Self::CancelFence,
        Self::SliceReadiness,
        Self::NeededObjects,
    ];
}

/// Which fences stand; all of them, unless a test says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Fences {
    #[cfg(debug_assertions)]
    down: BTreeSet<Fence>,
}

impl Fences {
    /// All fences but one; for tests, in debug builds only.
    #[cfg(debug_assertions)]
    pub fn without(fence: Fence) -> Self {
        Self { down: BTreeSet::from([fence]) }
    }

    /// All fences but those that `TIDEGATE_FENCES_DOWN` names, with commas between; in release builds all.
    pub fn from_env() -> Self {
        #[cfg(debug_assertions)]
        {
            let named = std::env::var("TIDEGATE_FENCES_DOWN").unwrap_or_default();
            let is_named = |fence: &Fence| named.split(',').any(|name| name.trim() == format!("{fence:?}"));
            Self { down: Fence::ALL.into_iter().filter(is_named).collect() }
        }
        #[cfg(not(debug_assertions))]
        Self::default()
    }

    /// Whether `fence` stands.
    #[inline]
    pub fn stands(&self, fence: Fence) -> bool {
        #[cfg(debug_assertions)]
        return !self.down.contains(&fence);
        #[cfg(not(debug_assertions))]
        {
            let _ = fence;
            true
        }
    }
}
