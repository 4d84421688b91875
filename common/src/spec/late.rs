//! Late rows in a spec: what becomes of rows that come when slices which need them are joined, and the table that
//! keeps them.
//!
//! Only sources that may break their order (`on_disorder: allow`) have late rows. A table of late rows is an output like
//! any other, behind those of dead letters, and of one output. Whether a query joins or groups at all is known to who
//! plans the SQL and not here: it is an output wherever the query names such a source, and no table is made of it where
//! the query goes row by row.

use super::error::{SpecError, quoted};
use super::model::{LatePolicy, LateSpec, Mode, Publish, Spec};
use super::names::TableName;
use super::resolve::Findings;
use super::resolve_output::{COMMIT_BYTES, COMMIT_EVERY};
use super::resolved::{ResolvedOutput, ResolvedSource};
use crate::ids::OutputIx;
use crate::time::Span;

/// What tables and outputs of late rows are called: `flights__late`.
const COMPANION: &str = "late";

/// What becomes of an output's late rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// What becomes of them.
    pub policy: LatePolicy,
    /// The table that keeps them, where the spec names one.
    pub table: Option<TableName>,
}

impl Late {
    /// What the spec says under `late`, which is written in one way from then on.
    pub(super) fn of(given: &mut Option<LateSpec>, findings: &mut Findings) -> Option<Self> {
        let Some(spec) = given else { return Some(Self::default()) };
        let table = spec.table.as_deref().map(|name| name.trim().parse::<TableName>()).transpose();
        let table = findings.keep("table", table)?;
        let policy = spec.policy.unwrap_or_default();
        if table.is_some() && policy != LatePolicy::SideOutput {
            let error = SpecError::new("only `policy: side_output` keeps late rows in a table");
            findings.add("table", error.hint("take one of the two away"));
            return None;
        }
        *spec = LateSpec { policy: spec.policy, table: table.as_ref().map(ToString::to_string) };
        if *spec == LateSpec::default() {
            *given = None;
        }
        Some(Self { policy, table })
    }
}

/// The tables that keep the late rows of `outputs`, which are all that there are by now.
pub(super) fn tables(
    spec: &Spec,
    sources: &[ResolvedSource],
    outputs: &[ResolvedOutput],
    findings: &mut Findings,
) -> Vec<ResolvedOutput> {
    let disorderly: Vec<String> =
        sources.iter().filter(|source| source.may_be_late()).map(|source| source.name.to_lowercase()).collect();
    let mut tables: Vec<ResolvedOutput> = Vec::new();
    for (ix, of) in (0..).map(OutputIx::new).zip(outputs) {
        // A spec without a query has all rows of its source, one by one.
        let sql = spec.outputs.get(&of.name).and_then(|of| of.sql.as_ref()).map(|sql| sql.to_lowercase());
        let may = sql.is_some_and(|sql| disorderly.iter().any(|source| sql.contains(source)));
        if !may || of.late.policy != LatePolicy::SideOutput {
            continue;
        }
        let table = output(of, ix);
        findings.within(&of.name, |findings| alone(&table, outputs.iter().chain(&tables), findings));
        tables.push(table);
    }
    tables
}

fn output(of: &ResolvedOutput, ix: OutputIx) -> ResolvedOutput {
    ResolvedOutput {
        name: format!("{}__{COMPANION}", of.name),
        table: of.late.table.clone().unwrap_or_else(|| of.table.companion(COMPANION)),
        sql: String::new(),
        partition_by: Vec::new(),
        properties: Default::default(),
        mode: Mode::Append,
        publish: Publish::Direct,
        commit_every: COMMIT_EVERY,
        commit_bytes: COMMIT_BYTES,
        dead_letters: None,
        late: Late::default(),
        late_of: Some(ix),
        slice: None,
        buckets: None,
        warm_up: Span::ZERO,
        budget: None,
    }
}

/// Refuses a table, or the name of an output, that another output has.
fn alone<'a>(table: &ResolvedOutput, others: impl Iterator<Item = &'a ResolvedOutput>, findings: &mut Findings) {
    for other in others {
        if other.table == table.table {
            let message = format!("its late rows would go to {}, which {} writes", table.table, quoted(&other.name));
            findings.add("late", SpecError::new(message).hint("name another `table`"));
        }
        if other.name == table.name {
            let message = format!("{} is what the output of its late rows is called", quoted(&table.name));
            findings.here(SpecError::new(message).hint("give the output of that name another one"));
        }
    }
}
