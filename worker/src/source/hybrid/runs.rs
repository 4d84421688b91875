//! Offsets as runs of consecutive ones.

use std::ops::Range;

/// Offsets in the order in which they came; those that follow each other are one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Vec<Range<i64>>);

impl Runs {
    /// Takes in `offset`; whether a run begins with it.
    pub(super) fn push(&mut self, offset: i64) -> bool {
        match self.0.last_mut() {
            Some(run) if run.end == offset => {
                run.end = offset.saturating_add(1);
                false
            }
            _ => {
                self.0.push(offset..offset.saturating_add(1));
                true
            }
        }
    }

    /// The runs by where they begin, joined where they touch. An offset that came twice lies in two of them.
    pub(super) fn sorted(mut self) -> Vec<Range<i64>> {
        self.0.sort_unstable_by_key(|run| (run.start, run.end));
        let mut joined: Vec<Range<i64>> = Vec::new();
        for run in self.0 {
            match joined.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => joined.push(run),
            }
        }
        joined
    }
}

/// The first offset that lies in two of `runs`, which are sorted by where they begin.
pub(super) fn twice<'a>(runs: impl IntoIterator<Item = &'a Range<i64>>) -> Option<i64> {
    let mut end = i64::MIN;
    for run in runs {
        if run.start < end {
            return Some(run.start);
        }
        end = end.max(run.end);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_hold_each_offset_as_often_as_it_came(offsets in prop::collection::vec(0i64..40, 0..60)) {
            let mut runs = Runs::default();
            let begun = offsets.iter().filter(|offset| runs.push(**offset)).count();
            prop_assert_eq!(begun, runs.0.len());
            let runs = runs.sorted();
            let (mut came, mut held) = (BTreeMap::new(), BTreeMap::new());
            offsets.iter().for_each(|offset| *came.entry(*offset).or_insert(0) += 1);
            runs.iter().flat_map(Clone::clone).for_each(|offset| *held.entry(offset).or_insert(0) += 1);
            prop_assert_eq!(&came, &held);
            let first = came.iter().find(|(_, times)| **times > 1).map(|(offset, _)| *offset);
            prop_assert_eq!(twice(&runs), first);
        }
    }
}
