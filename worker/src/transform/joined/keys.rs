//! The columns by which rows can be distributed so that those that meet, and those of a group, are together.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;

use super::join::JoinInput;
use super::relation::{Branch, Relation};

/// Ways to distribute that are looked at, at most.
const MOST: usize = 64;

/// Of each source, a column.
type Columns<'a> = BTreeMap<&'a str, usize>;

/// The places in [`JoinInput::columns`] of each input's keys; none of an input whose rows meet no others. Empty where no
/// columns serve all joins and groups.
pub(super) fn keys(inputs: &[JoinInput], relation: &Relation) -> Vec<Vec<usize>> {
    let mut keys = vec![Vec::new(); inputs.len()];
    for columns in together(relation) {
        let place = |input: &JoinInput| match columns.get(input.source()) {
            Some(column) => Some(Some(input.columns().binary_search(column).ok()?)),
            None => Some(None),
        };
        let Some(places) = inputs.iter().map(place).collect::<Option<Vec<_>>>() else { continue };
        let kind = |(input, place): (&JoinInput, &Option<usize>)| {
            place.map(|place| input.kept().fields().get(place + 1).map(|field| field.data_type().clone()))
        };
        let kinds = inputs.iter().zip(&places).filter_map(kind).map(|of| of.filter(spreads).map(|of| of.to_string()));
        let kinds: BTreeSet<Option<String>> = kinds.collect();
        if kinds.len() == 1 && !kinds.contains(&None) {
            keys.iter_mut().zip(places).for_each(|(keys, place)| keys.extend(place));
        }
    }
    keys
}

/// Columns of the sources that are equal in all rows that meet, in every branch.
fn together(relation: &Relation) -> Vec<Columns<'_>> {
    let of = |branch: &Branch| branch.groups.as_ref().map(|groups| groups.of);
    // Rows of several branches may be of one group, and are not looked at for what they have in common.
    let is_shared = |branch: &Branch| {
        of(branch).is_some() && relation.branches.iter().filter(|other| of(other) == of(branch)).count() > 1
    };
    if relation.branches.iter().any(is_shared) {
        return Vec::new();
    }
    let mut found = vec![Columns::new()];
    for branch in relation.branches.iter().filter(|branch| branch.mentions.len() > 1 || branch.groups.is_some()) {
        let of_branch: Vec<Columns<'_>> = branch.classes.iter().filter_map(|class| columns(branch, class)).collect();
        found = found.iter().flat_map(|one| of_branch.iter().filter_map(|other| both(one, other))).take(MOST).collect();
    }
    found.retain(|columns| !columns.is_empty());
    found
}

/// The columns of both, where they agree.
fn both<'a>(one: &Columns<'a>, other: &Columns<'a>) -> Option<Columns<'a>> {
    let agree = other.iter().all(|(of, at)| one.get(of).is_none_or(|had| had == at));
    agree.then(|| one.iter().chain(other).map(|(of, at)| (*of, *at)).collect())
}

/// Of each source that a branch mentions, its column of `class`; none where that is not one, for rows of a source are
/// distributed once, whoever mentions it.
fn columns<'a>(branch: &'a Branch, class: &[(usize, usize)]) -> Option<Columns<'a>> {
    let met = branch.mentions.iter().enumerate().filter(|(_, mention)| !mention.within.is_never());
    if met.map(|(at, _)| at).any(|at| class.iter().all(|(mention, _)| *mention != at)) {
        return None;
    }
    let mut columns = Columns::new();
    for (mention, column) in class {
        let had = columns.insert(&branch.mentions.get(*mention)?.source, *column);
        if had.is_some_and(|had| had != *column) {
            return None;
        }
    }
    Some(columns)
}

/// Whether equal values of this type are the same bytes.
pub(super) fn spreads(of: &DataType) -> bool {
    !of.is_nested()
        && !of.is_floating()
        && !matches!(of, DataType::Dictionary(..) | DataType::RunEndEncoded(..) | DataType::Null)
        && !matches!(of, DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) | DataType::Interval(_))
}
