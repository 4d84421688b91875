//! A backfill as a worker has it open: its checked spec, its sources and its planned queries.
//!
//! What is open is shared by all tasks of the backfill and opened when it is first asked for. It is dropped when the
//! session no longer works for the backfill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_common::clock;
use tidegate_common::ids::{BackfillId, OutputIx, SourceIx};
use tidegate_common::spec;
use tidegate_common::spec::model::SourceSpec;
use tidegate_common::spec::{Kafka, Resolved, ResolvedOutput, ResolvedSource, SourceKind};
use tidegate_common::time::Window;
use tidegate_proto::v1;
use tokio::sync::OnceCell;

use super::slicing::{read_window, uncut};
use super::{TaskError, kinds};
use crate::access::Access;
use crate::failure::{Class, Classify};
use crate::sink::{Catalogs, OutputTarget};
use crate::source::{self, Both, Described, KafkaSource, Offsets, Source, SourceError};
use crate::transform::{Query, SourceTable};

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
    /// A query that joins or aggregates cannot be answered slice by slice here.
    #[error("output {output} is answered slice by slice, and {why}")]
    NoJoin {
        /// The output.
        output: String,
        /// What stands in its way, and the way out.
        why: String,
    },
    /// The spec says what becomes of late rows, and there cannot be any.
    #[error(
        "output {output} has `late`, and its query neither joins nor groups, so no row of it can be: take `late` away"
    )]
    NeverLate {
        /// The output.
        output: String,
    },
    /// The task needs what prepare found, and the coordinator did not send it.
    #[error("nothing was said of what is prepared")]
    NotPrepared,
}

impl Classify for BackfillError {
    fn class(&self) -> Class {
        match self {
            Self::Spec(_) | Self::NoJoin { .. } | Self::NeverLate { .. } => Class::Fatal { exit_code: 3 },
            Self::NoSuch { .. } | Self::NotPrepared => Class::Retryable,
        }
    }
}

/// What a worker lets its backfills reach.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// What specs may name.
    pub(crate) access: Access,
    /// Its catalogs.
    pub(crate) catalogs: Arc<Catalogs>,
    /// The catalog of a table whose name has none.
    pub(crate) default_catalog: String,
}

/// A backfill, open.
pub(crate) struct Opened {
    info: Arc<v1::BackfillInfo>,
    reach: Reach,
    pub(crate) resolved: Resolved,
    sources: Vec<OnceCell<Arc<dyn Source>>>,
    /// What a saved plan pinned of topics, before anything is prepared.
    ranges: Mutex<BTreeMap<String, v1::SourcePin>>,
    queries: OnceCell<Vec<Query>>,
}

impl Opened {
    fn of(info: Arc<v1::BackfillInfo>, reach: Reach) -> Result<Self, BackfillError> {
        let bad = |error: Box<dyn std::error::Error + Send + Sync>| BackfillError::Spec(error);
        let spec = spec::from_canonical_json(&info.spec_json).map_err(|error| bad(Box::new(error)))?;
        // Every time in a canonical spec is absolute: what `now` is changes nothing.
        let resolved = spec::resolve(spec, 0).map_err(|error| bad(Box::new(error)))?;
        let sources = resolved.sources.iter().map(|_| OnceCell::new()).collect();
        Ok(Self { info, reach, resolved, sources, ranges: Mutex::default(), queries: OnceCell::new() })
    }

    /// Topics that are not open yet are read at these ranges, whatever their ends are by now.
    pub(crate) fn expect_ranges(&self, ranges: impl IntoIterator<Item = v1::SourcePin>) {
        let ranges = ranges.into_iter().filter(|range| range.kafka.is_some());
        let mut expected = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        expected.extend(ranges.map(|range| (range.source.clone(), range)));
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
        let opened = cell.get_or_try_init(|| self.open_source(described, spec)).await?;
        Ok((opened.clone(), described))
    }

    async fn open_source(&self, described: &ResolvedSource, spec: &SourceSpec) -> Result<Arc<dyn Source>, TaskError> {
        let mut pins = self.info.prepared.iter().flat_map(|prepared| &prepared.sources);
        let pin = pins.find(|pin| pin.source == described.name).cloned().or_else(|| {
            let expected = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
            expected.get(&described.name).cloned()
        });
        let pin = pin.as_ref();
        let table = match &described.kind {
            SourceKind::Iceberg { table, .. } => table,
            SourceKind::Hybrid(hybrid) => &hybrid.table,
            SourceKind::Kafka(kafka) => return Ok(self.open_topic(described, kafka, spec, pin).await?),
            _ => return Ok(source::open(&described.name, spec, &self.reach.access).await?),
        };
        let catalog = table.catalog.as_ref().unwrap_or(&self.reach.default_catalog);
        let target = OutputTarget {
            catalog: catalog.clone(),
            namespace: vec![table.namespace.clone()],
            name: table.name.clone(),
            ..OutputTarget::default()
        };
        let loaded = self.reach.catalogs.get(catalog).await?.load(&target.ident()?).await?;
        let loaded = loaded.ok_or_else(|| SourceError::Input {
            source_name: described.name.clone(),
            what: format!("there is no table {}: check the catalog and the name", target.full_name()),
        })?;
        let table = (loaded.table().clone(), loaded.lake().clone());
        if let SourceKind::Hybrid(hybrid) = &described.kind {
            let live = self.described(described, &hybrid.live)?;
            let both = Both { hybrid, live, table, pin };
            return Ok(source::open_hybrid(&described.name, spec, both, &self.reach.access).await?);
        }
        Ok(source::open_table(&described.name, spec, &self.reach.access, table, pin)?)
    }

    async fn open_topic(
        &self,
        described: &ResolvedSource,
        kafka: &Kafka,
        spec: &SourceSpec,
        pin: Option<&v1::SourcePin>,
    ) -> Result<Arc<dyn Source>, SourceError> {
        let said = self.described(described, kafka)?;
        let offsets = pin.and_then(|pin| pin.kafka.as_ref()).map_or(Offsets::OfSpec, Offsets::Pinned);
        Ok(Arc::new(KafkaSource::open(&described.name, spec, said, &self.reach.access, offsets).await?))
    }

    fn described<'a>(&self, described: &'a ResolvedSource, kafka: &'a Kafka) -> Result<Described<'a>, SourceError> {
        let Some(event_time) = &described.event_time else {
            let what = "nothing says what its event times are".to_owned();
            return Err(SourceError::Spec { source_name: described.name.clone(), what });
        };
        Ok(Described { kafka, event_time, max_drift: self.resolved.max_drift })
    }

    /// Which states of its sources every task is to read.
    pub(crate) async fn pins(&self) -> Result<Vec<v1::SourcePin>, TaskError> {
        let mut pins = Vec::new();
        for (ix, _) in (0..).map(SourceIx::new).zip(&self.resolved.sources) {
            pins.extend(self.source(ix).await?.0.pin());
        }
        Ok(pins)
    }

    /// The outputs that keep dead letters, behind all others, and the source of each.
    pub(crate) fn keepers(&self) -> impl Iterator<Item = (OutputIx, SourceIx)> {
        let outputs = (0..).map(OutputIx::new).zip(&self.resolved.outputs);
        outputs.filter_map(|(ix, output)| Some((ix, output.dead_letters?.source)))
    }

    /// The output that keeps the dead letters of `source`.
    pub(crate) fn keeper_of(&self, source: SourceIx) -> Option<OutputIx> {
        self.keepers().find(|(_, of)| *of == source).map(|(ix, _)| ix)
    }

    /// The outputs that keep late rows, behind all others, and whether there are to be tables for them: only of queries
    /// that join or group sources which may break their order.
    pub(crate) fn late_keepers(&self, queries: &[Query]) -> Vec<(OutputIx, bool)> {
        let outputs = (0..).map(OutputIx::new).zip(&self.resolved.outputs);
        let may_be_late = |query: &Query| {
            let mut disorderly = self.resolved.sources.iter().filter(|source| source.may_be_late());
            query.join().is_some_and(|join| disorderly.any(|source| join.input(&source.name).is_some()))
        };
        let of = |of: OutputIx| usize::try_from(of.get()).ok().and_then(|at| queries.get(at));
        outputs.filter_map(|(ix, output)| Some((ix, of(output.late_of?).is_some_and(may_be_late)))).collect()
    }

    /// The queries of all outputs but those that keep dead letters or late rows, in the order of the outputs. `now_micros` is what `now()` stands for; the same in every
    /// task of the backfill.
    pub(crate) async fn queries(&self, now_micros: i64) -> Result<&[Query], TaskError> {
        self.queries.get_or_try_init(|| self.plan(now_micros)).await.map(Vec::as_slice)
    }

    async fn plan(&self, now_micros: i64) -> Result<Vec<Query>, TaskError> {
        let mut tables = BTreeMap::new();
        for (ix, described) in (0..).map(SourceIx::new).zip(&self.resolved.sources) {
            let (schema, time) = (self.source(ix).await?.0.schema(), kinds::utc_column(described));
            tables.insert(described.name.clone(), SourceTable { schema, time });
        }
        let plan = |output: &ResolvedOutput| Query::plan(&output.name, Some(&output.sql), &tables, now_micros);
        let queried = self.resolved.outputs.iter().filter(|output| output.is_queried());
        let queries = queried.map(plan).collect::<Result<Vec<_>, _>>()?;
        for (ix, described) in (0..).map(SourceIx::new).zip(&self.resolved.sources) {
            let (source, _) = self.source(ix).await?;
            let used = queries.iter().filter_map(|query| query.columns_of(&described.name));
            used.into_iter().try_for_each(|columns| source.offers(columns))?;
        }
        for (output, query) in self.resolved.outputs.iter().zip(&queries) {
            self.may_join(output, query)?;
        }
        Ok(queries)
    }

    /// Refuses to answer slice by slice what cannot be cut into slices.
    fn may_join(&self, output: &ResolvedOutput, query: &Query) -> Result<(), BackfillError> {
        let name = || output.name.clone();
        let Some(join) = query.join() else {
            let has_late = self.resolved.spec.outputs.get(&output.name).is_some_and(|spec| spec.late.is_some());
            return if has_late { Err(BackfillError::NeverLate { output: name() }) } else { Ok(()) };
        };
        let why = uncut(self.resolved.window, output.slice, join.whole_windows());
        why.map_or(Ok(()), |why| Err(BackfillError::NoJoin { output: name(), why }))
    }

    /// What is read of the source of that number for all outputs together.
    pub(crate) async fn used(&self, ix: SourceIx) -> Result<Used, TaskError> {
        let (_, described) = self.source(ix).await?;
        let planned;
        let queries = match self.queries.get() {
            Some(queries) => queries,
            None => {
                // Not to be kept: what `now()` is may not be known yet.
                let now = self.prepared().map_or_else(|_| clock::processing_time_micros(), |prepared| prepared.now);
                planned = self.plan(now).await?;
                &planned
            }
        };
        let (mut columns, mut window) = (BTreeSet::new(), None::<Window>);
        let over = self.resolved.window;
        // Those that keep dead letters come last, and have no query.
        for (query, output) in queries.iter().zip(&self.resolved.outputs) {
            let Some(of_query) = query.columns_of(&described.name) else { continue };
            columns.extend(of_query.iter().copied());
            let input = query.join().and_then(|join| join.input(&described.name));
            let input = input.map(|input| (input.is_anchor(), input.reach()));
            let met = input.map_or(Some(over), |input| read_window(over, output.warm_up, input));
            window = window.zip(met).map(|(one, other)| one.hull(other)).or(window).or(met);
        }
        let window = window.unwrap_or(over);
        Ok(Used { columns: columns.into_iter().collect(), window })
    }

    /// The table of the output of that number.
    pub(crate) fn target(&self, ix: OutputIx) -> Result<OutputTarget, BackfillError> {
        let no_such = || BackfillError::NoSuch { what: format!("output {ix}") };
        let output = self.resolved.output(ix).ok_or_else(no_such)?;
        Ok(target(output, &self.reach.default_catalog))
    }
}

/// What is read of a source.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    /// Its columns, ascending.
    pub(crate) columns: Vec<usize>,
    /// Where its rows are met: wider than the window of the spec where a join reaches beyond that.
    pub(crate) window: Window,
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
pub(crate) struct Shelf {
    reach: Reach,
    open: Mutex<BTreeMap<BackfillId, Arc<Opened>>>,
}

impl Shelf {
    /// None yet.
    pub(crate) fn new(reach: Reach) -> Self {
        Self { reach, open: Mutex::default() }
    }

    /// The backfill that `info` describes. Another description than before opens it anew; what no session speaks of
    /// any more is dropped.
    pub(crate) fn open(
        &self,
        backfill: &BackfillId,
        info: &Arc<v1::BackfillInfo>,
    ) -> Result<Arc<Opened>, BackfillError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open.get(backfill).filter(|opened| Arc::ptr_eq(&opened.info, info)) {
            return Ok(opened.clone());
        }
        open.retain(|_, opened| Arc::strong_count(&opened.info) > 1);
        let opened = Arc::new(Opened::of(info.clone(), self.reach.clone())?);
        open.insert(backfill.clone(), opened.clone());
        Ok(opened)
    }
}
