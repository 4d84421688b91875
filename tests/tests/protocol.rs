//! What a coordinator does with a worker that is not one of ours: of another version, or back after its lease.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_proto::v1::{self, from_coordinator, from_worker, workers_client::WorkersClient};
use tidegate_tests::sandbox::{LEASE, PATIENCE, Scenario, World};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A worker made of nothing but its session.
struct Puppet {
    up: mpsc::Sender<v1::FromWorker>,
    down: Streaming<v1::FromCoordinator>,
}

impl Puppet {
    async fn connect(world: &World, version: &str, slots: u32) -> Result<Self, tonic::Status> {
        let (up, queue) = mpsc::channel(64);
        let register =
            v1::Register { worker: "puppet".to_owned(), version: version.to_owned(), slots, ..Default::default() };
        up.try_send(v1::FromWorker { kind: Some(from_worker::Kind::Register(register)) }).unwrap();
        let down = WorkersClient::new(world.channel()).session(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { up, down })
    }

    async fn say(&self, kind: from_worker::Kind) {
        self.up.send(v1::FromWorker { kind: Some(kind) }).await.unwrap();
    }

    async fn hear(&mut self) -> from_coordinator::Kind {
        let message = tokio::time::timeout(PATIENCE, self.down.message()).await.expect("it says something");
        message.unwrap().expect("the session goes on").kind.expect("a kind")
    }

    /// The next read that it is given; all else it gives back.
    async fn next_read(&mut self) -> v1::Assign {
        loop {
            let from_coordinator::Kind::Assign(assign) = self.hear().await else { continue };
            if matches!(assign.work, Some(v1::assign::Work::Read(_))) {
                return assign;
            }
            let v1::Assign { backfill, task, token, .. } = assign;
            self.say(from_worker::Kind::Release(v1::Release { backfill, task, token })).await;
        }
    }
}

#[tokio::test]
async fn given_a_worker_of_another_version_when_it_registers_then_it_is_refused_and_told_why() {
    let mut world = World::new();
    world.start_coordinator().await;
    let refused = Puppet::connect(&world, "0.0.0-other", 1).await.err().expect("it is refused");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    for word in ["puppet", "0.0.0-other", env!("CARGO_PKG_VERSION"), "same version"] {
        assert!(refused.message().contains(word), "{word} is missing in {refused}");
    }
}

#[tokio::test]
async fn given_a_worker_whose_lease_is_over_when_it_hands_in_then_that_is_refused_and_nothing_is_doubled() {
    let mut scenario = Scenario::little();
    scenario.world.start_coordinator().await;
    let mut puppet = Puppet::connect(&scenario.world, env!("CARGO_PKG_VERSION"), 8).await.unwrap();
    scenario.world.start_worker("real", 1);
    let id = scenario.world.apply(Scenario::SPEC).await;
    let assign = puppet.next_read().await;

    // It says nothing until its lease has run out and the others have done all.
    let last = scenario.world.until_over(&id).await;
    let Some(v1::assign::Work::Read(work)) = &assign.work else { panic!("a read") };
    let units = work.task.as_ref().unwrap().units.len();
    let hand_in = v1::HandIn {
        attempt: "00000000-0000-4000-8000-000000000000".to_owned(),
        first_unit: 0,
        end_unit: u32::try_from(units).unwrap(),
        rows_read: 1,
        ..Default::default()
    };
    let v1::Assign { backfill, task, token, .. } = assign;
    let late = v1::Delivery { backfill, task, token, hand_in: Some(hand_in), released: true };
    puppet.say(from_worker::Kind::HandIn(late)).await;
    let reply = loop {
        if let from_coordinator::Kind::HandInReply(reply) = puppet.hear().await {
            break reply;
        }
    };
    assert!(!reply.accepted, "{reply:?}");
    assert!(!reply.reason.is_empty());
    assert_eq!(last.ended, scenario.world.until_over(&id).await.ended);
    scenario.must_end_exact(&id).await;
    // A lease that nobody renews ends by itself: the run took at least as long.
    let took = std::time::Duration::from_micros(u64::try_from(last.ended - last.created).unwrap());
    assert!(took >= LEASE, "the puppet's task was waited for: {took:?}");
}
