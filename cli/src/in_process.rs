//! One backfill, from its spec to its end, in this process.

use std::path::PathBuf;

use tidegate_common::spec::{self, Resolved};
use tidegate_proto::v1::{self, operator_client::OperatorClient};
use tidegate_worker::worker::WorkerConfig;
use tonic::transport::Channel;

use crate::local::{Local, LocalError};
use crate::spec_file::DEPLOYMENT;

/// What a run in this process needs besides its spec.
pub(crate) struct Setup {
    /// Where the coordinator keeps its state.
    pub(crate) state: PathBuf,
    /// The workers.
    pub(crate) workers: Vec<WorkerConfig>,
    /// Why, in the operator's words.
    pub(crate) reason: String,
    /// Whether `append` may add to a window that holds rows of others.
    pub(crate) allow_existing: bool,
    /// What must be there, where a saved plan is run.
    pub(crate) expected: Option<v1::ExpectedPlan>,
    /// What is done with what is staged.
    pub(crate) then: Then,
}

/// What is done with what a run has staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It stays on its branches, to be looked at.
    Leave,
    /// It goes to main.
    Publish,
    /// It goes for good: the backfill is not run but cancelled.
    Discard,
}

/// Why a run in this process did not come to an end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The process could not go on.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The coordinator refused.
    #[error("{}", .0.message())]
    Refused(#[from] tonic::Status),
    /// It was interrupted; run again, it goes on.
    #[error("interrupted: what was read is handed in; run it again and it goes on from there")]
    Interrupted,
}

/// What a run came to.
pub(crate) struct Outcome {
    /// What the submission was met with.
    pub(crate) applied: v1::Applied,
    /// How the backfill stands at the end.
    pub(crate) last: v1::Backfill,
}

/// Runs a backfill until it ends, showing each state. The first Ctrl-C drains: it hands in and stops.
pub(crate) async fn run(
    resolved: &Resolved,
    setup: Setup,
    mut show: impl FnMut(&v1::Backfill),
) -> Result<Outcome, RunError> {
    let mut local = Local::start(setup.state, setup.workers).await?;
    let request = v1::ApplyRequest {
        spec_json: spec::canonical_json(&resolved.spec),
        reason: setup.reason,
        allow_existing: setup.allow_existing,
        expected: setup.expected,
    };
    let channel = local.channel.clone();
    let id = spec::backfill_id(DEPLOYMENT, resolved).to_string();
    let ended = tokio::select! {
        ended = follow(channel, request, &id, setup.then, &mut show) => ended,
        error = local.failed() => return Err(error.into()),
        signal = tokio::signal::ctrl_c() => match signal {
            Ok(()) => Err(RunError::Interrupted),
            Err(error) => Err(tonic::Status::internal(format!("signals cannot be received: {error}")).into()),
        },
    };
    if matches!(ended, Err(RunError::Interrupted)) {
        eprintln!("interrupted: handing in what is read; press Ctrl-C again to stop at once");
        tokio::spawn(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    }
    local.stop().await?;
    ended
}

async fn follow(
    channel: Channel,
    request: v1::ApplyRequest,
    id: &str,
    then: Then,
    show: &mut impl FnMut(&v1::Backfill),
) -> Result<Outcome, RunError> {
    let mut operator = OperatorClient::new(channel).max_decoding_message_size(64 << 20);
    let reason = request.reason.clone();
    if then == Then::Discard {
        let last = changed(&mut operator, id, v1::Change::Cancel, reason, show).await?;
        return Ok(Outcome { applied: v1::Applied::Attached, last });
    }
    let reply = operator.apply(request).await?.into_inner();
    let mut last = rest(&mut operator, id, show).await?;
    if then == Then::Publish && last.phase() == v1::Phase::Staged {
        last = changed(&mut operator, id, v1::Change::Publish, reason, show).await?;
    }
    Ok(Outcome { applied: reply.applied(), last })
}

/// A change is made, and what follows from it.
async fn changed(
    operator: &mut OperatorClient<Channel>,
    id: &str,
    change: v1::Change,
    reason: String,
    show: &mut impl FnMut(&v1::Backfill),
) -> Result<v1::Backfill, RunError> {
    operator.change(v1::ChangeRequest { id: id.to_owned(), change: change.into(), reason }).await?;
    rest(operator, id, show).await
}

/// Shows each state until nothing more happens, and gives back the last.
async fn rest(
    operator: &mut OperatorClient<Channel>,
    id: &str,
    show: &mut impl FnMut(&v1::Backfill),
) -> Result<v1::Backfill, RunError> {
    let get = v1::GetRequest { id: id.to_owned() };
    let mut states = operator.watch(get.clone()).await?.into_inner();
    while let Some(state) = states.message().await? {
        show(&state);
    }
    Ok(operator.get(get).await?.into_inner())
}
