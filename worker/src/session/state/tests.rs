use tidegate_common::time::EventTime;

use super::*;

const LEASE: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Monotonic {
    Monotonic::from_micros(seconds * 1_000_000)
}

fn grant(task: u32, epoch: u64) -> Grant {
    use tidegate_common::ids::{Epoch, SegmentIx, SourceIx, Term};
    Grant {
        backfill: BackfillId::from_digest(&[7; 32]),
        task: TaskId::Read(SourceIx::new(0), SegmentIx::new(0), task),
        token: Token { term: Term::new(1), epoch: Epoch::new(epoch) },
    }
}

fn other(task: TaskId) -> Grant {
    Grant { task, ..grant(0, 0) }
}

/// Two slots, welcomed at second 0 with a lease of 10 s: grants hold until second 8.
fn state() -> State {
    let mut state = State::new(2, Clock::reading(Monotonic::default), Fences::default());
    state.welcomed(at(0), LEASE);
    state
}

fn read(state: &mut State, task: u32, epoch: u64) -> RunId {
    state.assigned(grant(task, epoch), format!("attempt-{task}"), 0, 10).unwrap().0
}

fn hand_in(number: u64, end_unit: u32) -> v1::HandIn {
    v1::HandIn { attempt: "attempt-1".to_owned(), number, end_unit, ..Default::default() }
}

fn reply(number: u64, accepted: bool) -> v1::HandInReply {
    v1::HandInReply { attempt: "attempt-1".to_owned(), number, accepted, ..Default::default() }
}

#[test]
fn a_grant_holds_from_the_send_time_of_what_was_answered() {
    let mut state = state();
    let run = read(&mut state, 1, 1);
    assert_eq!(state.next_expiry(), Some(at(8)));
    let (first, second) = (state.beat(at(3)), state.beat(at(5)));
    assert_eq!(state.next_expiry(), Some(at(8)), "sent is not answered");
    state.renewed(first);
    assert_eq!(state.next_expiry(), Some(at(11)), "however late the answer comes");
    state.renewed(second);
    state.renewed(first);
    assert_eq!(state.next_expiry(), Some(at(13)), "an answer that comes twice takes nothing back");
    state.renewed(99);
    assert_eq!(state.next_expiry(), Some(at(13)), "nor does one to what was never sent");
    assert!(state.expired(at(12)).is_empty());
    assert_eq!(state.expired(at(13)), [run]);
}

#[test]
fn silence_for_half_a_lease_is_deafness() {
    let mut state = state();
    let number = state.beat(at(1));
    assert!(!state.is_deaf(at(6)));
    assert!(state.is_deaf(at(7)));
    state.renewed(number);
    assert!(!state.is_deaf(at(7)));
}

#[test]
fn only_reads_take_slots() {
    let mut state = state();
    read(&mut state, 1, 1);
    read(&mut state, 2, 2);
    let third = state.assigned(grant(3, 3), String::new(), 0, 1).unwrap_err();
    assert_eq!(third, Unwilling::NoSlot(2));
    assert!(state.assigned(other(TaskId::Prepare), String::new(), 0, 0).is_ok());
    assert_eq!(state.assigned(grant(1, 1), String::new(), 0, 1).unwrap_err(), Unwilling::Running);
    state.drain();
    assert_eq!(state.assigned(grant(5, 5), String::new(), 0, 1).unwrap_err(), Unwilling::Leaving);
}

#[test]
fn the_slot_is_free_as_soon_as_the_last_hand_in_is_accepted() {
    let mut state = state();
    let run = read(&mut state, 1, 1);
    read(&mut state, 2, 2);
    state.handing_in(run, hand_in(0, 10), false).unwrap();
    assert_eq!(state.replied(&reply(0, true)), Some(run));
    assert!(state.assigned(grant(3, 3), String::new(), 0, 1).is_ok(), "the body may not have returned yet");
    assert_eq!(state.held().len(), 2, "and it is not held any more");
}

#[test]
fn a_reply_concerns_the_hand_in_that_waits_for_it_and_no_other() {
    let mut state = state();
    let run = read(&mut state, 1, 1);
    state.handing_in(run, hand_in(0, 4), false).unwrap();
    assert_eq!(state.replied(&reply(1, true)), None);
    assert_eq!(state.replied(&reply(0, true)), Some(run));
    assert_eq!(state.replied(&reply(0, true)), None, "said twice");
    assert_eq!(state.held()[0].next_unit, 4);
    state.handing_in(run, hand_in(1, 6), false).unwrap();
    state.replied(&reply(1, false));
    assert_eq!(state.held()[0].next_unit, 4, "a refused hand-in covers nothing");
}

#[test]
fn a_lost_session_keeps_reads_until_their_lease_ends_and_drops_the_rest() {
    let mut state = state();
    let read = read(&mut state, 1, 1);
    let (prepare, _) = state.assigned(other(TaskId::Prepare), String::new(), 0, 0).unwrap();
    assert_eq!(state.lost(), [prepare]);
    state.forget(prepare);
    // A new session does not prolong what it has not adopted.
    state.welcomed(at(6), LEASE);
    let number = state.beat(at(7));
    state.renewed(number);
    assert_eq!(state.expired(at(8)), [read]);
}

#[test]
fn an_adopted_run_goes_on_under_the_new_token_and_sends_its_hand_in_again() {
    let mut state = state();
    let run = read(&mut state, 1, 1);
    state.handing_in(run, hand_in(0, 4), false).unwrap();
    state.lost();
    state.welcomed(at(6), LEASE);
    assert_eq!(state.cursor(run, Cursor { at: EventTime::MIN, paused: false }), None, "not the coordinator's yet");
    let Adoption::GoesOn(Some(again)) = state.adopted(grant(1, 9), "attempt-1", 4) else { panic!("not adopted") };
    assert_eq!(again.token, Some(grant(1, 9).token.into()));
    assert_eq!(again.hand_in, Some(hand_in(0, 4)));
    assert_eq!(state.next_expiry(), Some(at(14)), "counted from the Register");
    assert_eq!(state.find(&grant(1, 1)), None, "the old token means nothing any more");
    assert_eq!(state.find(&grant(1, 9)), Some(run));
}

#[test]
fn a_hand_in_made_while_the_session_is_lost_waits_for_the_adoption() {
    let mut state = state();
    let run = read(&mut state, 1, 1);
    state.lost();
    assert_eq!(state.handing_in(run, hand_in(0, 4), true), None);
    state.welcomed(at(1), LEASE);
    let adoption = state.adopted(grant(1, 2), "attempt-1", 0);
    assert!(matches!(adoption, Adoption::GoesOn(Some(again)) if again.released));
}

#[test]
fn an_adoption_that_goes_on_elsewhere_is_stale_and_one_of_nobody_is_gone() {
    let mut state = state();
    let run = read(&mut state, 1, 1);
    state.lost();
    state.welcomed(at(1), LEASE);
    assert_eq!(state.adopted(grant(1, 2), "attempt-of-another", 0), Adoption::Gone);
    assert_eq!(state.adopted(grant(1, 2), "attempt-1", 3), Adoption::Stale(run));
}

#[test]
fn a_newer_grant_of_the_same_task_makes_the_old_one_void() {
    let mut state = state();
    let run = read(&mut state, 1, 4);
    assert_eq!(state.superseded(&grant(1, 5)), Some(run));
    assert_eq!(state.superseded(&grant(1, 4)), None, "it is the same");
    assert_eq!(state.superseded(&grant(1, 3)), None, "it is older");
    assert_eq!(state.superseded(&grant(2, 5)), None, "it is another task");
}

#[test]
fn what_is_forgotten_is_fenced_at_once() {
    let mut state = state();
    let (run, lease) = state.assigned(grant(1, 1), String::new(), 0, 1).unwrap();
    assert!(lease.check().is_ok());
    state.forget(run);
    assert!(lease.check().is_err());
}

#[test]
fn without_self_fencing_a_lease_never_ends() {
    let mut state = State::new(1, Clock::reading(|| at(0)), Fences::without(Fence::SelfFencing));
    state.welcomed(at(0), LEASE);
    read(&mut state, 1, 1);
    assert!(state.expired(at(1_000_000)).is_empty());
}
