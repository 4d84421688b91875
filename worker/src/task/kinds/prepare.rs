//! Prepare: opens the sources, plans the queries, creates or checks the tables, and says what was pinned.

use tidegate_common::clock;
use tidegate_common::ids::OutputIx;
use tidegate_common::spec::Resolved;
use tidegate_common::spec::model::{Mode, Publish};
use tidegate_proto::v1;

use super::Kinds;
use crate::failure::{Class, Classify};
use crate::sink;
use crate::task::opened::Opened;
use crate::task::{TaskContext, TaskEnd, TaskError, dead_letter};

/// The spec asks for what this release does not do.
#[derive(Debug, thiserror::Error)]
#[error("output {output}: `{what}` cannot be done yet; {way_out}")]
pub(crate) struct NotYet {
    output: String,
    what: &'static str,
    way_out: &'static str,
}

impl Classify for NotYet {
    fn class(&self) -> Class {
        Class::Fatal { exit_code: 3 }
    }
}

/// Refuses a spec that asks for what this release does not do.
pub(crate) fn refuse_not_yet(spec: &Resolved) -> Result<(), NotYet> {
    for output in &spec.outputs {
        let not_yet = |what, way_out| NotYet { output: output.name.clone(), what, way_out };
        if output.mode != Mode::Append {
            return Err(not_yet("mode: replace_window", "append, after removing the window's rows"));
        }
        if output.publish != Publish::Direct {
            return Err(not_yet("publish: staged", "publish: direct commits as it goes"));
        }
    }
    Ok(())
}

impl Kinds {
    pub(super) async fn prepare(&self, opened: &Opened, context: &TaskContext) -> Result<TaskEnd, TaskError> {
        refuse_not_yet(&opened.resolved)?;
        // A preparation that is repeated keeps what `now()` was.
        let now = opened.prepared().map_or_else(|_| clock::processing_time_micros(), |prepared| prepared.now);
        // Every query is planned before the first table is created.
        let queries = opened.queries(now).await?;
        let sources = opened.pins().await?;
        let mut outputs = Vec::with_capacity(queries.len());
        for (ix, query) in (0..).map(OutputIx::new).zip(queries) {
            context.lease.check()?;
            let target = opened.target(ix)?;
            let found =
                sink::prepare(&self.catalogs, &target, &query.schema(), true, context.backfill.as_str()).await?;
            outputs.push(v1::PreparedOutput { source: vec![query.source().to_owned()], ..found });
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
            let found = sink::prepare(&self.catalogs, &target, &schema, true, context.backfill.as_str()).await?;
            let source = opened.resolved.source(source).map(|source| source.name.clone());
            keepers.push(v1::PreparedOutput { source: source.into_iter().collect(), ..found });
        }
        Ok(keepers)
    }
}
