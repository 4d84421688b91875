//! Prepare: opens the sources, plans the queries, creates or checks the tables, and says what was pinned.

use tidegate_common::clock;
use tidegate_common::ids::OutputIx;
use tidegate_proto::v1;

use super::Kinds;
use super::scope::scope;
use crate::sink::{self, Scope};
use crate::task::opened::Opened;
use crate::task::{TaskContext, TaskEnd, TaskError, dead_letter};

impl Kinds {
    pub(super) async fn prepare(&self, opened: &Opened, context: &TaskContext) -> Result<TaskEnd, TaskError> {
        // A preparation that is repeated keeps what `now()` was.
        let now = opened.prepared().map_or_else(|_| clock::processing_time_micros(), |prepared| prepared.now);
        // Every query is planned before the first table is created.
        let queries = opened.queries(now).await?;
        let sources = opened.pins().await?;
        let mut outputs = Vec::with_capacity(queries.len());
        for (ix, query) in (0..).map(OutputIx::new).zip(queries) {
            context.lease.check()?;
            let target = opened.target(ix)?;
            let scope = scope(opened, &context.backfill, ix, now).await?;
            // A table that was prepared and is gone is not made anew under the same plan.
            let create = opened.prepared().is_err();
            let found = sink::prepare(&self.catalogs, &target, &query.schema(), create, &scope).await?;
            let time_column = scope.time.map(|time| time.name).unwrap_or_default();
            outputs.push(v1::PreparedOutput { source: vec![query.source().to_owned()], time_column, ..found });
        }
        outputs.extend(self.prepare_keepers(opened, context).await?);
        Ok(TaskEnd::Done(v1::done::Result::Prepared(v1::Prepared { version: 1, outputs, now, sources })))
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
}
