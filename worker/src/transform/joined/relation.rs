//! What is known of the rows that a part of a plan yields.

use std::collections::BTreeSet;

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use tidegate_common::windows::WholeWindows;

use super::bounds::Times;
use super::windows::Clock;
use super::{Mention, Within};

/// Where a column comes from as it is: the mention, and the column of its source.
pub(super) type Origin = Option<(usize, usize)>;

/// Columns of mentions, one of each, that are equal in rows that meet.
pub(super) type Class = Vec<(usize, usize)>;

/// A relation of the plan: the rows of all its branches.
pub(super) struct Relation {
    /// As its anchor is called.
    pub(super) name: String,
    /// None of what the optimizer has seen to be empty.
    pub(super) branches: Vec<Branch>,
}

/// What rows that are groups are groups of.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// Which aggregate made them: a group may be of rows of all its branches.
    pub(super) of: usize,
    /// Each group lies in one of these windows of its anchors' event time.
    pub(super) whole: WholeWindows,
    /// Of each expression that is grouped by, the column of the anchor's source that has one value in a group, where
    /// there is one in every branch of the aggregate.
    pub(super) columns: Vec<Option<usize>>,
}

/// The rows of a relation that one mention of a source, their anchor, decides about.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// The anchor first.
    pub(super) mentions: Vec<Mention>,
    /// By column of the relation.
    pub(super) times: Times,
    /// By column of the relation.
    pub(super) clocks: Vec<Option<Clock>>,
    /// By column of the relation.
    pub(super) origins: Vec<Origin>,
    /// Sets of columns that are equal in rows that meet, and in all rows of a group; of a single mention that is not
    /// grouped every column is one.
    pub(super) classes: Vec<Class>,
    /// Mentions whose columns are null where nothing was met.
    pub(super) padded: BTreeSet<usize>,
    /// Where it aggregates.
    pub(super) groups: Option<Groups>,
    /// Where the anchor's time is the beginning of windows that overlap, and not its event time: how many hold a row at most;
    /// else 0.
    pub(super) hops: usize,
}

impl Branch {
    /// The columns that are equal to `origin` in every row.
    pub(super) fn class_of(&self, origin: (usize, usize)) -> Option<Class> {
        match self.mentions.len() {
            1 => Some(vec![origin]),
            _ => self.classes.iter().find(|class| class.contains(&origin)).cloned(),
        }
    }

    /// Whether a row of it may be of several rows of its anchor, or one of those in several of its rows.
    pub(super) fn gathers(&self) -> bool {
        self.hops > 0 || self.groups.is_some()
    }

    /// The mention that decides about its rows.
    pub(super) fn anchor(&self) -> Option<&Mention> {
        self.mentions.first()
    }

    /// Its rows with what they meet of `others`, whose anchors lie within these of its own.
    pub(super) fn meeting(&self, others: &[(&Self, Within)], meeting: &Meeting<'_>) -> Self {
        let mut met = self.clone();
        met.classes = meeting.keys.iter().filter_map(|(a, b)| self.class(others, meeting, a, b)).collect();
        for (other, within) in others {
            let behind = met.mentions.len();
            let null = (0..other.mentions.len()).filter(|at| meeting.is_outer || other.padded.contains(at));
            met.padded.extend(null.map(|at| at + behind));
            let moved = other.mentions.iter().cloned();
            met.mentions.extend(moved.map(|of| Mention { within: of.within.plus(*within), ..of }));
        }
        if !meeting.passes_on {
            return met;
        }
        let columns = meeting.other.fields().len();
        let time = |column: usize| {
            let of = others.iter().map(|(other, within)| Some(other.times.get(column).copied()??.plus(*within)));
            of.collect::<Option<Vec<_>>>().map(|of| of.into_iter().fold(Within::NEVER, Within::or))
        };
        let behind = self.mentions.len();
        let origin = |column: usize| match others {
            [(other, _)] => other.origins.get(column).copied().flatten().map(|(mention, at)| (mention + behind, at)),
            _ => None,
        };
        let of_other = (0..columns).map(time).collect::<Vec<_>>();
        let origins = (0..columns).map(origin).collect::<Vec<_>>();
        let clocks = vec![None; columns];
        match meeting.other_first {
            true => {
                met.times = [of_other, met.times].concat();
                met.clocks = [clocks, met.clocks].concat();
                met.origins = [origins, met.origins].concat();
            }
            false => {
                met.times.extend(of_other);
                met.clocks.extend(clocks);
                met.origins.extend(origins);
            }
        }
        met
    }

    /// What is equal in rows that meet, for `a` of this equals `b` of the others.
    fn class(&self, others: &[(&Self, Within)], meeting: &Meeting<'_>, a: &Expr, b: &Expr) -> Option<Class> {
        let mut class = self.class_of(origin_of(a, meeting.anchor, &self.origins)?)?;
        let mut behind = self.mentions.len();
        for (other, _) in others {
            let of_other = other.class_of(origin_of(b, meeting.other, &other.origins)?)?;
            class.extend(of_other.into_iter().map(|(mention, column)| (mention + behind, column)));
            behind += other.mentions.len();
        }
        Some(class)
    }
}

/// How rows meet.
pub(super) struct Meeting<'a> {
    pub(super) anchor: &'a DFSchema,
    pub(super) other: &'a DFSchema,
    /// What is equal: of the anchor's side, and of the other.
    pub(super) keys: Vec<(&'a Expr, &'a Expr)>,
    /// Whether a row that meets none has nulls instead.
    pub(super) is_outer: bool,
    /// Whether the other side's columns are passed on, and whether they come first.
    pub(super) passes_on: bool,
    pub(super) other_first: bool,
}

/// The column of a source that `expr` is as it is.
pub(super) fn origin_of(expr: &Expr, schema: &DFSchema, origins: &[Origin]) -> Origin {
    match expr {
        Expr::Column(column) => origins.get(schema.index_of_column(column).ok()?).copied().flatten(),
        Expr::Alias(alias) => origin_of(&alias.expr, schema, origins),
        _ => None,
    }
}
