//! Commit: fetches the files of an intent from the coordinator's log and commits them exactly once.

use tidegate_common::ids::TaskId;
use tidegate_proto::v1;
use tidegate_proto::v1::workers_client::WorkersClient;
use tonic::{Code, Status};

use super::scope::pinned_scope;
use super::{Kinds, another_kind};
use crate::failure::{Class, Classify};
use crate::session::MAX_MESSAGE;
use crate::sink::{self, Scope};
use crate::task::opened::Opened;
use crate::task::{TaskContext, TaskEnd, TaskError};

/// The files of an intent could not be had.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator did not give the files of intent {sequence} of output {output}")]
struct NoFiles {
    output: u32,
    sequence: u64,
    source: Status,
}

impl Classify for NoFiles {
    fn class(&self) -> Class {
        match self.source.code() {
            Code::FailedPrecondition => Class::Fenced,
            _ => Class::Retryable,
        }
    }
}

impl Kinds {
    pub(super) async fn commit(
        &self,
        opened: &Opened,
        context: &TaskContext,
        work: v1::CommitWork,
    ) -> Result<TaskEnd, TaskError> {
        let (TaskId::Commit(output, _), Some(intent)) = (context.task, work.intent) else {
            return Err(another_kind());
        };
        let target = opened.target(output)?;
        // Sources may be gone by now: none is opened.
        let scope = match intent.kind() {
            v1::CommitKind::Replace if work.cancel == 0 => pinned_scope(opened, &context.backfill, output)?,
            _ => Scope::of(context.backfill.as_str()),
        };
        if work.cancel > 0 {
            context.lease.check()?;
            let result = sink::cancel(&self.catalogs, &target, &scope, &intent, work.cancel).await?;
            return Ok(TaskEnd::Done(v1::done::Result::Commit(result)));
        }
        let parts = match intent.kind() {
            v1::CommitKind::Fence | v1::CommitKind::Discard => Vec::new(),
            v1::CommitKind::Append | v1::CommitKind::Replace if intent.files == 0 => Vec::new(),
            v1::CommitKind::Append | v1::CommitKind::Replace => self
                .parts(context, &intent)
                .await
                .map_err(|source| NoFiles { output: output.get(), sequence: intent.sequence, source })?,
        };
        context.lease.check()?;
        let result = sink::commit(&self.catalogs, &target, &scope, &intent, parts).await?;
        Ok(TaskEnd::Done(v1::done::Result::Commit(result)))
    }

    async fn parts(&self, context: &TaskContext, intent: &v1::Intent) -> Result<Vec<v1::OutputPart>, Status> {
        let mut client = WorkersClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = v1::ReadIntentRequest {
            backfill: context.backfill.to_string(),
            output: intent.output,
            sequence: intent.sequence,
            token: Some(context.granted),
        };
        let mut stream = client.read_intent(request).await?.into_inner();
        let mut parts = Vec::new();
        while let Some(part) = stream.message().await? {
            parts.push(part);
        }
        Ok(parts)
    }
}
