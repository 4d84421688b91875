//! Prepare: opens the sources, plans the queries, creates or checks the tables, and says what was pinned.

use tidegate_common::clock;
use tidegate_common::ids::OutputIx;
use tidegate_proto::v1;

use super::Kinds;
use super::scope::scope;
use crate::failure::{Class, Classify};
use crate::sink::{self, Scope};
use crate::task::opened::Opened;
use crate::task::{TaskContext, TaskEnd, TaskError, dead_letter, late_rows};
use crate::transform::{Join, JoinInput, Query};

/// A table is not what a saved plan says.
#[derive(Debug, thiserror::Error)]
#[error("table {table} is not what the saved plan says: {what}; make the plan again and apply that")]
struct StalePlan {
    table: String,
    what: String,
}

impl Classify for StalePlan {
    fn class(&self) -> Class {
        Class::Fatal { exit_code: 4 }
    }
}

/// What was `found`, and what `query` reads: where it joins or aggregates, what it needs of each source, and the windows
/// that it groups by.
pub(crate) fn told(query: &Query, found: v1::PreparedOutput) -> v1::PreparedOutput {
    let join = query.join();
    let input = |input: &JoinInput| v1::JoinInput {
        source: input.source().to_owned(),
        low: input.reach().low.as_micros(),
        high: input.reach().high.as_micros(),
        keyed: join.is_some_and(Join::is_keyed),
        anchor: input.is_anchor(),
    };
    let whole = join.and_then(Join::whole_windows);
    v1::PreparedOutput {
        source: query.sources().map(str::to_owned).collect(),
        inputs: join.map(|join| join.inputs().iter().map(input).collect()).unwrap_or_default(),
        window_width: whole.map_or(0, |whole| whole.width().as_micros()),
        window_origin: whole.map_or(0, |whole| whole.origin().as_micros()),
        ..found
    }
}

impl Kinds {
    /// `work` holds what a saved plan says of outputs and topics; without one it is empty.
    pub(super) async fn prepare(
        &self,
        opened: &Opened,
        context: &TaskContext,
        work: v1::PrepareWork,
    ) -> Result<TaskEnd, TaskError> {
        opened.expect_ranges(work.ranges);
        // A preparation that is repeated keeps what `now()` was.
        let now = opened.prepared().map_or_else(|_| clock::processing_time_micros(), |prepared| prepared.now);
        // Every query is planned before the first table is created.
        let queries = opened.queries(now).await?;
        let sources = opened.pins().await?;
        self.compare(opened, context, queries, &work.expected).await?;
        let mut outputs = Vec::with_capacity(queries.len());
        for (ix, query) in (0..).map(OutputIx::new).zip(queries) {
            context.lease.check()?;
            let target = opened.target(ix)?;
            let scope = scope(opened, &context.backfill, ix, now).await?;
            // A table that was prepared and is gone is not made anew under the same plan.
            let create = opened.prepared().is_err();
            let found = sink::prepare(&self.catalogs, &target, &query.schema(), create, &scope).await?;
            let time_column = scope.time.map(|time| time.name).unwrap_or_default();
            outputs.push(v1::PreparedOutput { time_column, ..told(query, found) });
        }
        outputs.extend(self.prepare_keepers(opened, context).await?);
        outputs.extend(self.prepare_late(opened, context, queries).await?);
        Ok(TaskEnd::Done(v1::done::Result::Prepared(v1::Prepared { version: 1, outputs, now, sources })))
    }

    /// Every table is held against the saved plan before the first is created.
    async fn compare(
        &self,
        opened: &Opened,
        context: &TaskContext,
        queries: &[Query],
        expected: &[v1::ExpectedOutput],
    ) -> Result<(), TaskError> {
        let keepers = dead_letter::schema();
        for (ix, expected) in (0..).map(OutputIx::new).zip(expected) {
            let target = opened.target(ix)?;
            let query = usize::try_from(ix.get()).ok().and_then(|at| queries.get(at));
            let (schema, scope) = match query {
                Some(query) => (query.schema(), scope(opened, &context.backfill, ix, 0).await?),
                None => (keepers.clone(), Scope::of(context.backfill.as_str())),
            };
            let found = sink::prepare(&self.catalogs, &target, &schema, false, &scope).await?;
            if let Some(what) = expected.changed(&found) {
                return Err(StalePlan { table: target.full_name(), what }.into());
            }
        }
        Ok(())
    }

    /// The tables of dead letters: there from the beginning, so that who looks for them finds them, be they empty.
    async fn prepare_keepers(
        &self,
        opened: &Opened,
        context: &TaskContext,
    ) -> Result<Vec<v1::PreparedOutput>, TaskError> {
        let mut keepers = Vec::new();
        for (ix, source) in opened.keepers() {
            context.lease.check()?;
            let (target, schema) = (opened.target(ix)?, dead_letter::schema());
            let scope = Scope::of(context.backfill.as_str());
            let found = sink::prepare(&self.catalogs, &target, &schema, true, &scope).await?;
            let source = opened.resolved.source(source).map(|source| source.name.clone());
            keepers.push(v1::PreparedOutput { source: source.into_iter().collect(), ..found });
        }
        Ok(keepers)
    }
    /// The tables of late rows; nothing is made where there cannot be any.
    async fn prepare_late(
        &self,
        opened: &Opened,
        context: &TaskContext,
        queries: &[Query],
    ) -> Result<Vec<v1::PreparedOutput>, TaskError> {
        let mut tables = Vec::new();
        for (ix, is_made) in opened.late_keepers(queries) {
            context.lease.check()?;
            let (target, scope) = (opened.target(ix)?, Scope::of(context.backfill.as_str()));
            tables.push(match is_made {
                true => sink::prepare(&self.catalogs, &target, &late_rows::schema(), true, &scope).await?,
                false => v1::PreparedOutput::default(),
            });
        }
        Ok(tables)
    }
}
