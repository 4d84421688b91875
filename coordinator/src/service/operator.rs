//! The operator API.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use tidegate_common::ids::BackfillId;
use tidegate_common::spec;
use tidegate_proto::v1::{self, operator_server::Operator};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::core::{Core, Event, Refusal, Reply, Submission};
use crate::driver::{self, Coordinator};

/// How often a watch reports at most.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How long the end of a backfill waits at most to be told.
const END_WITHIN: Duration = Duration::from_millis(10);
/// A spec is at most this large, in bytes.
const MAX_SPEC: usize = 1 << 20;
/// Events of one blob of the log are numbered from its number times this.
const EVENTS_A_BLOB: u64 = 1 << 16;

/// Serves operators.
pub(super) struct OperatorService {
    coordinator: Coordinator,
}

impl OperatorService {
    pub(super) fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    /// The backfill that `name` means: an id, a unique beginning of one, or a name (the newest of that name).
    async fn find(&self, name: String) -> Result<BackfillId, Status> {
        self.coordinator.look(move |core, _| find(core, &name)).await.map_err(gone)?
    }

    async fn status(&self, id: BackfillId) -> Result<v1::Backfill, Status> {
        let found = self.coordinator.look(move |core, _| core.backfill(&id).map(|backfill| core.status(backfill)));
        found.await.map_err(gone)?.ok_or_else(|| Status::not_found("the backfill is gone"))
    }
}

#[tonic::async_trait]
impl Operator for OperatorService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Backfill, Status>> + Send>>;
    type JournalStream = Pin<Box<dyn Stream<Item = Result<v1::Record, Status>> + Send>>;

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyReply>, Status> {
        let request = request.into_inner();
        if request.spec_json.len() > MAX_SPEC {
            return Err(Status::invalid_argument(format!("the spec is larger than {MAX_SPEC} bytes")));
        }
        let resolved = driver::resolve(&request.spec_json).map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        let id = spec::backfill_id(DEPLOYMENT, &resolved);
        if let Some(why) = request.expected.as_ref().and_then(|expected| unlike(expected, &resolved)) {
            return Err(Status::invalid_argument(format!("the saved plan is not one of this spec: {why}")));
        }
        let submission = Submission {
            id: id.clone(),
            spec: driver::core_spec(&resolved),
            spec_json: spec::canonical_json(&resolved.spec),
            reason: request.reason,
            allow_existing: request.allow_existing,
            expected: request.expected.map(Box::new),
        };
        let answer = self.coordinator.request(move |request| Event::Submit(request, submission)).await;
        match answer.map_err(gone)? {
            Ok(Reply::Applied(applied)) => {
                Ok(Response::new(v1::ApplyReply { id: id.to_string(), applied: applied.into() }))
            }
            Ok(Reply::Changed) => Err(Status::internal("a submission was answered as a change")),
            Err(Refusal::LiveName { name, other }) => Err(self.live_name(&name, other, &resolved.spec).await),
            Err(refusal) => Err(refused(&refusal)),
        }
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Backfill>, Status> {
        let id = self.find(request.into_inner().id).await?;
        Ok(Response::new(self.status(id).await?))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListReply>, Status> {
        let all = self.coordinator.look(|core, _| core.backfills().map(|one| core.status(one)).collect());
        Ok(Response::new(v1::ListReply { backfills: all.await.map_err(gone)? }))
    }

    async fn watch(&self, request: Request<v1::GetRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = self.find(request.into_inner().id).await?;
        let (reports, queue) = mpsc::channel(4);
        tokio::spawn(watch(self.coordinator.clone(), id, reports));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<v1::EventsReply>, Status> {
        let request = request.into_inner();
        let id = self.find(request.id).await?;
        let from = request.after / EVENTS_A_BLOB;
        let limit = request.limit.clamp(1, 10_000) as usize;
        let blobs = self.coordinator.look(move |_, log| log.blobs_from(&id, from)).await.map_err(gone)?;
        let mut events = Vec::new();
        for (number, path) in blobs {
            let blob = log_blob(&self.coordinator, &path).await?;
            let numbered = (number * EVENTS_A_BLOB + 1..).zip(&blob.records);
            events.extend(numbered.filter(|(number, _)| *number > request.after).map(super::events::operator_event));
            if events.len() > limit {
                events.truncate(limit);
                return Ok(Response::new(v1::EventsReply { events, more: true }));
            }
        }
        Ok(Response::new(v1::EventsReply { events, more: false }))
    }

    async fn journal(&self, request: Request<v1::GetRequest>) -> Result<Response<Self::JournalStream>, Status> {
        let id = self.find(request.into_inner().id).await?;
        let blobs = self.coordinator.look(move |_, log| log.blobs_from(&id, 0)).await.map_err(gone)?;
        let (records, queue) = mpsc::channel(16);
        tokio::spawn(journal(self.coordinator.clone(), blobs, records));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn change(&self, request: Request<v1::ChangeRequest>) -> Result<Response<v1::Backfill>, Status> {
        let request = request.into_inner();
        let change = request.change();
        let id = self.find(request.id).await?;
        let (of, reason) = (id.clone(), request.reason);
        let answer = self.coordinator.request(move |request| Event::Change(request, of, change, reason)).await;
        answer.map_err(gone)?.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(self.status(id).await?))
    }
}

impl OperatorService {
    /// The refusal of another spec under a live name, with what differs.
    async fn live_name(&self, name: &str, other: BackfillId, mine: &spec::model::Spec) -> Status {
        let short = other.short().to_owned();
        let theirs = self.coordinator.look(move |core, _| core.backfill(&other).map(|one| one.spec_json().to_owned()));
        let theirs = theirs.await.ok().flatten().and_then(|json| spec::from_canonical_json(&json).ok());
        let differs = theirs.map(|theirs| spec::differences(&theirs, mine).join("\n  ")).unwrap_or_default();
        Status::already_exists(format!(
            "another spec runs under the name {name} ({short}): let it end or cancel it, or choose another name. \
             What differs:\n  {differs}"
        ))
    }
}

/// Why a plan is not of `spec`, or not to be read by this release.
fn unlike(expected: &v1::ExpectedPlan, spec: &spec::Resolved) -> Option<String> {
    let sources = expected.sources.iter().map(|source| source.name.as_str());
    if expected.version != tidegate_proto::expected::VERSION {
        return Some(format!("it is of version {}, and this coordinator reads another", expected.version));
    }
    if !sources.eq(spec.sources.iter().map(|source| source.name.as_str())) {
        return Some("it has other sources".to_owned());
    }
    // What keeps late rows stands behind the others, and is in no plan.
    let planned = spec.outputs.iter().filter(|output| output.late_of.is_none()).count();
    (expected.outputs.len() != planned).then(|| "it has other outputs".to_owned())
}

/// The deployment that a backfill's identity names; one until a coordinator can be told otherwise.
const DEPLOYMENT: &str = "default";

async fn log_blob(coordinator: &Coordinator, path: &str) -> Result<v1::LogBlob, Status> {
    let bytes = coordinator.blobs().get(path).await.map_err(|bad| Status::data_loss(bad.to_string()))?;
    v1::LogBlob::decode(bytes).map_err(|bad| Status::data_loss(format!("{path}: {bad}")))
}

async fn journal(
    coordinator: Coordinator,
    blobs: Vec<(u64, String)>,
    records: mpsc::Sender<Result<v1::Record, Status>>,
) {
    for (_, path) in blobs {
        let (found, failed) = match log_blob(&coordinator, &path).await {
            Ok(blob) => (blob.records, None),
            Err(status) => (Vec::new(), Some(Err(status))),
        };
        for record in found.into_iter().map(Ok).chain(failed) {
            let ended = record.is_err();
            if records.send(record).await.is_err() || ended {
                return;
            }
        }
    }
}

async fn watch(coordinator: Coordinator, id: BackfillId, reports: mpsc::Sender<Result<v1::Backfill, Status>>) {
    let mut changes = coordinator.changes();
    loop {
        changes.mark_unchanged();
        let of = id.clone();
        let found = coordinator
            .look(move |core, _| core.backfill(&of).map(|backfill| (core.status(backfill), backfill.is_at_rest())))
            .await;
        let Ok(Some((status, rests))) = found else { return };
        if reports.send(Ok(status)).await.is_err() || rests {
            return;
        }
        let calm = tokio::time::timeout(WATCH_EVERY, end(&coordinator, &id, changes.clone()));
        let _ = calm.await; // its end is told at once, all else when it is time
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = reports.closed() => return,
        }
    }
}

/// Waits until the backfill is at rest, or is no more.
async fn end(coordinator: &Coordinator, id: &BackfillId, mut changes: watch::Receiver<u64>) {
    loop {
        tokio::time::sleep(END_WITHIN).await;
        let of = id.clone();
        let rests = coordinator.look(move |core, _| core.backfill(&of).is_none_or(|backfill| backfill.is_at_rest()));
        if rests.await.unwrap_or(true) || changes.changed().await.is_err() {
            return;
        }
    }
}

fn find(core: &Core, name: &str) -> Result<BackfillId, Status> {
    if let Some(exact) = name.parse().ok().filter(|id| core.backfill(id).is_some()) {
        return Ok(exact);
    }
    let newest = core.backfills().filter(|one| one.name() == name).max_by_key(|one| one.created());
    if let Some(named) = newest {
        return Ok(named.id().clone());
    }
    let mut begins = core.backfills().filter(|one| name.len() >= 4 && one.id().as_str().starts_with(name));
    match (begins.next(), begins.next()) {
        (Some(only), None) => Ok(only.id().clone()),
        (Some(_), Some(_)) => Err(Status::invalid_argument(format!("more than one backfill begins with {name}"))),
        (None, _) => Err(Status::not_found(format!("there is no backfill {name:?}: `tidegate list` shows them all"))),
    }
}

fn refused(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Unknown(_) => Status::not_found(refusal.to_string()),
        Refusal::LiveName { .. } => Status::already_exists(refusal.to_string()),
        Refusal::NotNow { .. } => Status::failed_precondition(refusal.to_string()),
    }
}

fn gone(gone: driver::Gone) -> Status {
    Status::unavailable(gone.to_string())
}
