//! Read: opens the reader and the outputs that read this source, and gives them to the gated loop.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use tidegate_common::clock;
use tidegate_common::ids::{OutputIx, SourceIx, TaskId};
use tidegate_common::slices::Slices;
use tidegate_common::spec::RateLimit;
use tidegate_common::time::Span;
use tidegate_proto::v1;
use uuid::Uuid;

use super::{Kinds, another_kind};
use crate::sink;
use crate::source::Source;
use crate::task::dead_letter::Letterhead;
use crate::task::opened::{BackfillError, Opened, Used};
use crate::task::ports::IcebergPort;
use crate::task::read::{DeadLetters, OutputPort, ReadJob, read};
use crate::task::shuffle_port::{ShufflePort, Shuffling};
use crate::task::{TaskContext, TaskEnd, TaskError};
use crate::transform::{Join, Query};

/// A writer is left this much memory, however many there are.
pub(super) const LEAST_MEMORY: usize = 8 << 20;

impl Kinds {
    pub(super) async fn read(
        &self,
        opened: &Opened,
        context: TaskContext,
        work: v1::ReadWork,
    ) -> Result<TaskEnd, TaskError> {
        let TaskId::Read(ix, ..) = context.task else { return Err(another_kind()) };
        let (source, described) = opened.source(ix).await?;
        let queries = opened.queries(opened.prepared()?.now).await?;
        let Used { columns, window } = opened.used(ix).await?;
        let input = projected(source.as_ref(), &columns);
        let keeper = opened.keeper_of(ix);
        let reads = |query: &&Query| query.sources().any(|name| name == described.name);
        let writers = queries.iter().filter(reads).count() + usize::from(keeper.is_some());
        let memory = (self.memory_per_read / writers.max(1)).max(LEAST_MEMORY);
        let mut outputs: Vec<Box<dyn OutputPort>> = Vec::with_capacity(writers);
        for (output, query) in (0..).map(OutputIx::new).zip(queries).filter(|(_, query)| reads(query)) {
            match query.join() {
                Some(join) => {
                    let shape = work.shapes.iter().find(|shape| shape.output == output.get());
                    outputs.push(Box::new(self.shuffle_port(
                        opened,
                        &context,
                        (ix, output, join),
                        shape,
                        (&columns, memory),
                    )?));
                }
                None => {
                    let query = Some((query, input.clone()));
                    let port = self.port(opened, &context.attempt, output, query, memory).await?;
                    let is_wider = window != opened.resolved.window;
                    outputs.push(Box::new(if is_wider { port.within(opened.resolved.window) } else { port }));
                }
            }
        }
        let task = work.task.unwrap_or_default();
        let mut dead_letters = None;
        if let Some(output) = keeper {
            outputs.push(Box::new(self.port(opened, &context.attempt, output, None, memory).await?));
            let all: Vec<usize> = (0..source.schema().fields().len()).collect();
            let whole = source.reader(&task.splits, &all, window).await?;
            let letterhead = Letterhead {
                source: described.name.clone(),
                backfill: context.backfill.to_string(),
                read_at: clock::processing_time_micros(),
            };
            dead_letters = Some(DeadLetters { output, letterhead, whole });
        }
        context.lease.check()?;
        let reader = source.reader(&task.splits, &columns, window).await?;
        let rate_limit = described.kafka().map_or_else(RateLimit::default, |kafka| kafka.rate_limit);
        let next_unit = work.next_unit;
        let job = ReadJob { source: ix, task, next_unit, window, rate_limit, fences: self.fences.clone() };
        read(context, job, reader, outputs, dead_letters, &self.budget).await
    }

    /// The part of an output that joins, of the source that a task reads.
    pub(super) fn shuffle_port(
        &self,
        opened: &Opened,
        context: &TaskContext,
        (ix, output, join): (SourceIx, OutputIx, &Join),
        shape: Option<&v1::ShuffleShape>,
        (columns, memory): (&[usize], usize),
    ) -> Result<ShufflePort, TaskError> {
        let no_such = || BackfillError::NoSuch { what: format!("join of output {output}") };
        let described = opened.resolved.source(ix).ok_or_else(no_such)?;
        let input = join.input(&described.name).ok_or_else(no_such)?;
        let shape = shape.ok_or_else(no_such)?;
        let slices = Slices::new(opened.resolved.window, Span::from_micros(shape.slice)).ok_or_else(no_such)?;
        let place = |column: &usize| columns.binary_search(column).map_err(|_| no_such());
        let places = input.columns().iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let to = Shuffling {
            store: self.shuffle.clone(),
            backfill: context.backfill.clone(),
            prefix: format!("{output}/{ix}/{}", context.attempt),
            slices,
            met: input.reach().around(opened.resolved.window).ok_or_else(no_such)?,
            buckets: shape.buckets,
            memory,
            anchors_in: input.is_anchor().then_some(opened.resolved.window),
        };
        ShufflePort::open(output, input, places, to)
    }

    /// The Iceberg writer of an output in an attempt, and its query where it has one of its own.
    pub(super) async fn port(
        &self,
        opened: &Opened,
        attempt: &str,
        output: OutputIx,
        query: Option<(&Query, SchemaRef)>,
        memory: usize,
    ) -> Result<IcebergPort, TaskError> {
        let place = usize::try_from(output.get()).ok();
        let pinned = place.and_then(|at| opened.prepared().ok()?.outputs.get(at)).ok_or(BackfillError::NotPrepared)?;
        let table = sink::load(&self.catalogs, &opened.target(output)?).await?;
        let attempt = Uuid::parse_str(attempt).map_err(|_| BackfillError::NoSuch { what: "attempt".into() })?;
        IcebergPort::open(output, query, &table, pinned, attempt, memory)
    }
}

/// What a reader of `columns` yields.
pub(crate) fn projected(source: &dyn Source, columns: &[usize]) -> SchemaRef {
    let schema = source.schema();
    let fields: Vec<_> = columns.iter().filter_map(|at| schema.fields().get(*at).cloned()).collect();
    Arc::new(Schema::new(fields))
}
