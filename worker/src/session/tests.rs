//! A session against a scripted coordinator, over memory, in paused time.

pub(crate) mod world;

use std::time::Duration;

use tidegate_common::gate::Gate;
use tidegate_common::time::{EventTime, Span};
use tidegate_proto::v1;
use tidegate_proto::v1::from_coordinator::Kind as Down;
use tidegate_proto::v1::from_worker::Kind as Up;
use tonic::Status;

use super::SessionError;
use crate::task::{Cursor, Fenced, TaskEnd, Verdict, Wish};
use world::{LEASE, World, assign, backfill, read_work, task, token};

fn hand_in(attempt: &str, number: u64, end_unit: u32) -> v1::HandIn {
    v1::HandIn { attempt: attempt.to_owned(), number, end_unit, ..Default::default() }
}

fn reply(attempt: &str, number: u64, accepted: bool) -> Down {
    let reason = if accepted { "" } else { "the token is stale" };
    let (attempt, reason) = (attempt.to_owned(), reason.to_owned());
    Down::HandInReply(v1::HandInReply { backfill: backfill(), task: task(1), attempt, number, accepted, reason })
}

#[tokio::test(start_paused = true)]
async fn a_worker_registers_runs_what_it_is_assigned_and_says_what_came_of_it() {
    let mut world = World::new(2);
    let (mut peer, register) = world.session().await;
    assert_eq!((register.worker.as_str(), register.slots, register.memory), ("w-1", 2, 1 << 30));
    assert_eq!(register.version, env!("CARGO_PKG_VERSION"));
    assert!(register.held.is_empty());
    peer.welcome().await;
    peer.send(Down::Backfill(v1::BackfillInfo { backfill: backfill(), spec_json: "{}".into(), ..Default::default() }))
        .await;
    peer.send(assign(
        v1::task_id::Kind::Prepare(v1::task_id::Unit {}),
        1,
        v1::assign::Work::Prepare(v1::PrepareWork::default()),
    ))
    .await;
    let puppet = world.started().await;
    assert_eq!(puppet.context.info.spec_json, "{}");
    puppet.end(Ok(TaskEnd::Done(v1::done::Result::Prepared(v1::Prepared { now: 7, ..Default::default() }))));
    let Up::Done(done) = peer.next().await else { panic!("not done") };
    assert_eq!((done.backfill, done.token), (backfill(), token(1)));
    assert_eq!(done.result, Some(v1::done::Result::Prepared(v1::Prepared { now: 7, ..Default::default() })));
}

#[tokio::test(start_paused = true)]
async fn renewals_keep_a_task_for_as_long_as_it_takes() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let puppet = world.reading(&mut peer, 1, 1).await;
    let began = world.now();
    while world.now().since(began) < 20 * LEASE {
        peer.heartbeat().await;
        assert_eq!(puppet.context.lease.check(), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_dropped_before_its_lease_ends_when_renewals_stop() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let mut puppet = world.reading(&mut peer, 1, 1).await;
    peer.heartbeat().await;
    let renewed = world.now();
    peer.renews = false;
    puppet.dropped().await;
    let lasted = world.now().since(renewed);
    assert!(lasted < LEASE, "{lasted:?} is past the lease that the coordinator counts");
    assert!(lasted >= LEASE * 7 / 10, "{lasted:?} is much too early");
    assert_eq!(puppet.context.lease.check(), Err(Fenced));
    let sent = puppet.context.hand_in(hand_in("a", 0, 1), false).await;
    assert_eq!(sent, Err(Fenced), "no hand-in is sent past the lease");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_stopped_looks_at_the_clock_before_it_does_anything() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let mut puppet = world.reading(&mut peer, 1, 1).await;
    // A renewal and an assignment wait in the pipe while the process stands still.
    let number = peer.heartbeat_unanswered().await;
    peer.send(Down::Renewed(v1::Renewed { heartbeat: number })).await;
    world.skip(2 * LEASE);
    assert_eq!(puppet.context.lease.check(), Err(Fenced), "the task sees it by itself");
    puppet.dropped().await;
    assert!(matches!(peer.next().await, Up::Release(release) if release.token == token(1)));
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_found_again_and_the_task_goes_on_undisturbed() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let puppet = world.reading(&mut peer, 1, 1).await;
    let attempt = puppet.context.attempt.clone();
    let waiting = puppet.hands_in(hand_in(&attempt, 0, 4), false);
    let Up::HandIn(first) = peer.next().await else { panic!("no hand-in") };
    assert_eq!(first.token, token(1));
    peer.lose(Status::unavailable("the coordinator restarts")).await;

    let (mut peer, register) = world.session().await;
    let held =
        v1::Held { backfill: backfill(), task: task(1), token: token(1), attempt: attempt.clone(), next_unit: 0 };
    assert_eq!(register.held, [held]);
    peer.welcome().await;
    peer.adopt(1, 7, &attempt, 0).await;
    let Up::HandIn(again) = peer.next().await else { panic!("the hand-in was not sent again") };
    assert_eq!((again.token, again.hand_in), (token(7), first.hand_in), "the same, under the new token");
    peer.send(reply(&attempt, 0, true)).await;
    let (puppet, verdict) = waiting.await.unwrap();
    assert_eq!(verdict, Ok(Verdict::Accepted));
    for _ in 0..100 {
        peer.heartbeat().await;
    }
    assert_eq!(puppet.context.lease.check(), Ok(()), "it is renewed like any other");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_nobody_adopts_ends_with_the_lease_it_had() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let mut puppet = world.reading(&mut peer, 1, 1).await;
    peer.heartbeat().await;
    let renewed = world.now();
    peer.lose(Status::unavailable("gone")).await;
    let (mut peer, _) = world.session().await;
    peer.welcome().await;
    let renewing = tokio::spawn(async move { while peer.heard().await.is_some() {} });
    puppet.dropped().await;
    assert!(world.now().since(renewed) < LEASE);
    renewing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_revoked_task_is_dropped_at_once_and_its_slot_is_free() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let mut puppet = world.reading(&mut peer, 1, 1).await;
    let began = world.now();
    let revoke = |epoch| {
        Down::Revoke(v1::Revoke {
            backfill: backfill(),
            task: task(1),
            token: token(epoch),
            reason: "cancelled".into(),
        })
    };
    peer.send(revoke(99)).await;
    peer.send(assign_read(2, 2)).await;
    assert!(matches!(peer.next().await, Up::Fail(_)), "another token is another grant: the slot is still taken");
    peer.send(revoke(1)).await;
    puppet.dropped().await;
    assert!(world.now().since(began) < Duration::from_secs(1));
    assert_eq!(puppet.context.lease.check(), Err(Fenced));
    world.reading(&mut peer, 2, 3).await;
}

fn assign_read(at: u32, epoch: u64) -> Down {
    assign(world::read_id(at), epoch, read_work())
}

#[tokio::test(start_paused = true)]
async fn a_refused_hand_in_is_told_to_the_task() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let puppet = world.reading(&mut peer, 1, 1).await;
    let attempt = puppet.context.attempt.clone();
    let waiting = puppet.hands_in(hand_in(&attempt, 0, 4), false);
    assert!(matches!(peer.next().await, Up::HandIn(_)));
    peer.send(reply(&attempt, 0, false)).await;
    let (puppet, verdict) = waiting.await.unwrap();
    assert_eq!(verdict, Ok(Verdict::Refused { reason: "the token is stale".to_owned() }));
    puppet.end(Err(Fenced.into()));
    assert!(matches!(peer.next().await, Up::Release(_)), "an attempt that lost its right is no failure");
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_hands_in_gives_back_and_ends() {
    for by_coordinator in [true, false] {
        let mut world = World::new(2);
        let mut peer = world.up().await;
        let mut puppet = world.reading(&mut peer, 1, 1).await;
        let enumerate = v1::assign::Work::Enumerate(v1::EnumerateWork::default());
        peer.send(assign(v1::task_id::Kind::Enumerate(0), 2, enumerate)).await;
        let mut other = world.started().await;
        if by_coordinator {
            peer.send(Down::Drain(v1::Drain { reason: "upgrade".into() })).await;
        } else {
            world.shut_down();
        }
        assert!(matches!(peer.next().await, Up::Release(release) if release.token == token(2)));
        other.dropped().await;
        puppet.context.wish.wait_for(|wish| *wish == Wish::Leave).await.unwrap();
        peer.send(assign_read(3, 3)).await;
        assert!(matches!(peer.next().await, Up::Release(release) if release.token == token(3)), "no more work");
        let attempt = puppet.context.attempt.clone();
        let waiting = puppet.hands_in(hand_in(&attempt, 0, 2), true);
        assert!(matches!(peer.next().await, Up::HandIn(v1::Delivery { released: true, .. })));
        assert!(peer.said_draining);
        peer.send(reply(&attempt, 0, true)).await;
        waiting.await.unwrap().0.end(Ok(TaskEnd::HandedIn));
        peer.heard_until_the_end().await;
        assert!(world.ended().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_yield_concerns_one_task() {
    let mut world = World::new(2);
    let mut peer = world.up().await;
    let mut one = world.reading(&mut peer, 1, 1).await;
    let two = world.reading(&mut peer, 2, 2).await;
    peer.send(Down::Yield(v1::Yield { backfill: backfill(), task: task(1), token: token(1), reason: String::new() }))
        .await;
    one.context.wish.wait_for(|wish| *wish == Wish::Leave).await.unwrap();
    assert_eq!(*two.context.wish.borrow(), Wish::Run);
    one.end(Ok(TaskEnd::GivenBack));
    assert!(matches!(peer.next().await, Up::Release(release) if release.task == task(1)));
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_another_version_is_told_so_and_ends() {
    let mut world = World::new(1);
    let (peer, _) = world.session().await;
    peer.lose(Status::failed_precondition("the coordinator is of version 9.9.9")).await;
    let error = world.ended().await.unwrap_err();
    let SessionError::Refused { reason, .. } = &error;
    assert_eq!(reason, "the coordinator is of version 9.9.9");
    assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn work_that_cannot_be_taken_fails_and_says_why() {
    let mut world = World::new(1);
    let (mut peer, _) = world.session().await;
    peer.welcome().await;
    let prepare = v1::assign::Work::Prepare(v1::PrepareWork::default());
    let mut fails = Vec::new();
    peer.send(assign_read(1, 1)).await;
    fails.push(peer.fail().await);
    peer.send(Down::Backfill(v1::BackfillInfo { backfill: backfill(), ..Default::default() })).await;
    peer.send(assign(world::read_id(1), 2, prepare)).await;
    fails.push(peer.fail().await);
    let _busy = world.reading(&mut peer, 1, 3).await;
    peer.send(assign_read(2, 4)).await;
    fails.push(peer.fail().await);
    for (evidence, word) in fails.iter().zip(["before anything was said", "work of another kind", "no free slot"]) {
        assert!(evidence.message.contains(word), "{}", evidence.message);
        assert_eq!(evidence.worker, "w-1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_moves_is_told_at_once_and_moves_meanwhile_are_one() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let puppet = world.reading(&mut peer, 1, 1).await;
    peer.heartbeat().await;
    let (before, beats) = (world.now(), peer.beats);
    for micros in 1..=100 {
        puppet.context.report(Cursor { at: EventTime::from_micros(micros), paused: micros == 100 });
    }
    let cursor = peer.cursor().await;
    assert_eq!((cursor.cursor, cursor.paused, cursor.token), (100, true, token(1)));
    assert_eq!(world.now(), before, "not at the next beat");
    assert!(peer.beats - beats <= 2, "{} heartbeats for one moment", peer.beats - beats);
}

#[tokio::test(start_paused = true)]
async fn the_gate_reaches_every_read_of_its_backfill() {
    let mut world = World::new(2);
    let mut peer = world.up().await;
    let (mut one, mut two) = (world.reading(&mut peer, 1, 1).await, world.reading(&mut peer, 2, 2).await);
    assert_eq!(one.context.gate.borrow().watermark, EventTime::from_micros(0), "the one of its assignment");
    let gate = Gate::new(EventTime::from_micros(50), Some(Span::from_micros(5)));
    peer.send(Down::Gate(v1::Gate { backfill: backfill(), watermark: 50, gate: Some(55), readers: Vec::new() })).await;
    one.context.gate.wait_for(|at| *at == gate).await.unwrap();
    two.context.gate.wait_for(|at| *at == gate).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_task_and_nothing_else() {
    let mut world = World::new(2);
    let mut peer = world.up().await;
    let (one, two) = (world.reading(&mut peer, 1, 1).await, world.reading(&mut peer, 2, 2).await);
    one.panics();
    let evidence = peer.fail().await;
    assert_eq!(evidence.class, i32::from(v1::Failure::Retryable));
    assert!(evidence.message.contains("panicked"), "{}", evidence.message);
    peer.heartbeat().await;
    assert_eq!(two.context.lease.check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_hand_in_that_no_message_can_carry_fails_its_task() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let puppet = world.reading(&mut peer, 1, 1).await;
    let outputs = vec![v1::OutputPart { iceberg: vec![0; 5 << 20].into(), ..Default::default() }];
    let attempt = puppet.context.attempt.clone();
    let waiting = puppet.hands_in(v1::HandIn { outputs, ..hand_in(&attempt, 0, 1) }, false);
    assert!(peer.fail().await.message.contains("files are too many"));
    assert_eq!(waiting.await.unwrap().1, Err(Fenced));
}

#[tokio::test(start_paused = true)]
async fn plan_segments_arrive_in_order_and_before_the_end() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    peer.send(assign(v1::task_id::Kind::Enumerate(0), 1, v1::assign::Work::Enumerate(v1::EnumerateWork::default())))
        .await;
    let puppet = world.started().await;
    let sending = tokio::spawn(async move {
        for index in 0..200 {
            puppet.context.segment(v1::PlanSegment { version: 1, index, tasks: Vec::new() }).await.unwrap();
        }
        puppet.end(Ok(TaskEnd::Done(v1::done::Result::Enumerated(v1::Enumerated::default()))));
    });
    for index in 0..200 {
        let Up::Segment(found) = peer.next().await else { panic!("segment {index} is missing") };
        assert_eq!(found.segment.unwrap().index, index);
    }
    assert!(matches!(peer.next().await, Up::Done(_)));
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_granted_anew_starts_anew() {
    let mut world = World::new(1);
    let mut peer = world.up().await;
    let mut old = world.reading(&mut peer, 1, 1).await;
    let new = world.reading(&mut peer, 1, 2).await;
    old.dropped().await;
    assert_eq!(old.context.lease.check(), Err(Fenced));
    assert_eq!(new.context.lease.check(), Ok(()));
    assert_ne!(old.context.attempt, new.context.attempt);
}
