//! A backfill as a worker has it open: its checked spec, its sources and its planned queries.
//!
//! What is open is shared by all tasks of the backfill and opened when it is first asked for. It is dropped when the
//! session no longer works for the backfill.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_common::ids::{BackfillId, OutputIx, SourceIx};
use tidegate_common::spec;
use tidegate_common::spec::{Resolved, ResolvedOutput, ResolvedSource};
use tidegate_proto::v1;
use tokio::sync::OnceCell;

use super::TaskError;
use crate::access::Access;
use crate::failure::{Class, Classify};
use crate::sink::OutputTarget;
use crate::source::{self, Source};
use crate::transform::Query;

/// Why a backfill cannot be worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BackfillError {
    /// The spec that came over the wire is none.
    #[error("the spec that the coordinator sent cannot be read")]
    Spec(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A task names what the spec does not have.
    #[error("the spec has no {what}: is the coordinator of another version?")]
    NoSuch {
        /// A source or an output, by number.
        what: String,
    },
    /// The task needs what prepare found, and the coordinator did not send it.
    #[error("nothing was said of what is prepared")]
    NotPrepared,
}

impl Classify for BackfillError {
    fn class(&self) -> Class {
        match self {
            Self::Spec(_) => Class::Fatal { exit_code: 3 },
            Self::NoSuch { .. } | Self::NotPrepared => Class::Retryable,
        }
    }
}

/// A backfill, open.
pub(crate) struct Opened {
    info: Arc<v1::BackfillInfo>,
    access: Access,
    pub(crate) resolved: Resolved,
    sources: Vec<OnceCell<Arc<dyn Source>>>,
    queries: OnceCell<Vec<Query>>,
}

impl Opened {
    fn of(info: Arc<v1::BackfillInfo>, access: Access) -> Result<Self, BackfillError> {
        let bad = |error: Box<dyn std::error::Error + Send + Sync>| BackfillError::Spec(error);
        let spec = spec::from_canonical_json(&info.spec_json).map_err(|error| bad(Box::new(error)))?;
        // Every time in a canonical spec is absolute: what `now` is changes nothing.
        let resolved = spec::resolve(spec, 0).map_err(|error| bad(Box::new(error)))?;
        let sources = resolved.sources.iter().map(|_| OnceCell::new()).collect();
        Ok(Self { info, access, resolved, sources, queries: OnceCell::new() })
    }

    /// What prepare pinned.
    pub(crate) fn prepared(&self) -> Result<&v1::Prepared, BackfillError> {
        self.info.prepared.as_ref().ok_or(BackfillError::NotPrepared)
    }

    /// The source of that number, and what the spec says of it.
    pub(crate) async fn source(&self, ix: SourceIx) -> Result<(Arc<dyn Source>, &ResolvedSource), TaskError> {
        let no_such = || BackfillError::NoSuch { what: format!("source {ix}") };
        let described = self.resolved.source(ix).ok_or_else(no_such)?;
        let spec = self.resolved.spec.sources.get(&described.name).ok_or_else(no_such)?;
        let cell = usize::try_from(ix.get()).ok().and_then(|at| self.sources.get(at)).ok_or_else(no_such)?;
        let opened = cell.get_or_try_init(|| source::open(&described.name, spec, &self.access)).await?;
        Ok((opened.clone(), described))
    }

    /// The outputs' queries, in the order of the outputs. `now_micros` is what `now()` stands for; the same in every
    /// task of the backfill.
    pub(crate) async fn queries(&self, now_micros: i64) -> Result<&[Query], TaskError> {
        let plan = || async {
            let mut schemas = BTreeMap::new();
            for (ix, described) in (0..).map(SourceIx::new).zip(&self.resolved.sources) {
                schemas.insert(described.name.clone(), self.source(ix).await?.0.schema());
            }
            let plan = |output: &ResolvedOutput| Query::plan(&output.name, Some(&output.sql), &schemas, now_micros);
            Ok::<_, TaskError>(self.resolved.outputs.iter().map(plan).collect::<Result<Vec<_>, _>>()?)
        };
        self.queries.get_or_try_init(plan).await.map(Vec::as_slice)
    }

    /// The table of the output of that number.
    pub(crate) fn target(&self, ix: OutputIx, default_catalog: &str) -> Result<OutputTarget, BackfillError> {
        let no_such = || BackfillError::NoSuch { what: format!("output {ix}") };
        let output = self.resolved.output(ix).ok_or_else(no_such)?;
        Ok(target(output, default_catalog))
    }
}

/// The table that `output` names; `default_catalog` is that of a name without one.
pub(crate) fn target(output: &ResolvedOutput, default_catalog: &str) -> OutputTarget {
    let catalog = output.table.catalog.as_deref().unwrap_or(default_catalog);
    OutputTarget {
        catalog: catalog.to_owned(),
        namespace: vec![output.table.namespace.clone()],
        name: output.table.name.clone(),
        partition_by: output.partition_by.iter().map(ToString::to_string).collect(),
        properties: output.properties.clone(),
    }
}

/// The backfills that a worker has open.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<BTreeMap<BackfillId, Arc<Opened>>>);

impl Shelf {
    /// The backfill that `info` describes. Another description than before opens it anew; what no session speaks of
    /// any more is dropped.
    pub(crate) fn open(
        &self,
        backfill: &BackfillId,
        info: &Arc<v1::BackfillInfo>,
        access: &Access,
    ) -> Result<Arc<Opened>, BackfillError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open.get(backfill).filter(|opened| Arc::ptr_eq(&opened.info, info)) {
            return Ok(opened.clone());
        }
        open.retain(|_, opened| Arc::strong_count(&opened.info) > 1);
        let opened = Arc::new(Opened::of(info.clone(), access.clone())?);
        open.insert(backfill.clone(), opened.clone());
        Ok(opened)
    }
}
