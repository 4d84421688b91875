//! What was staged, published, discarded, fenced off or put in place of something: each intent is where its end says.

use super::*;

/// Two staged intents, as records; `sequence` of the first.
fn staged(sequence: u64) -> Vec<v1::Record> {
    let intents = [(sequence, 0..1, 10), (sequence + 1, 1..2, 20)];
    let records = intents.into_iter().flat_map(|(sequence, log, rows)| commit(sequence, log, 1, rows));
    records.map(|record| altered(record, &|intent| intent.branch = BRANCH.to_owned())).collect()
}

fn altered(mut record: v1::Record, alter: &dyn Fn(&mut v1::Intent)) -> v1::Record {
    if let Some(Kind::Sealed(intent)) = &mut record.kind {
        alter(intent);
    }
    record
}

fn phase(phase: v1::Phase) -> v1::Record {
    record(Kind::Phase(v1::record::PhaseChanged { phase: phase.into(), evidence: None }))
}

fn handed_in() -> Vec<v1::Record> {
    let mut records = begin();
    records.extend([hand_in(0, 1, 10, &[("f1", 10)]), hand_in(1, 2, 20, &[("f2", 20)])]);
    records
}

/// The facts of the branch: as those of main, with the branch's markers.
fn branch_facts() -> TableFacts {
    let mut facts = facts();
    facts.branch = BRANCH.to_owned();
    for snapshot in &mut facts.history.snapshots {
        let marker = snapshot.markers.remove("tidegate.bf-a").unwrap();
        snapshot.markers.insert(format!("tidegate.bf-a@{BRANCH}"), marker);
    }
    facts.history.markers = [(format!("tidegate.bf-a@{BRANCH}"), "2:d2".to_owned())].into();
    facts
}

#[test]
fn given_a_staged_backfill_when_checked_then_its_branch_is() {
    let account = account([handed_in(), staged(1), vec![phase(v1::Phase::Staged)]].concat());
    let output = &account.outputs[0];
    assert!(output.stages() && output.committed().count() == 2);
    let mut checks = check_account(&account);
    checks.extend(check_table(&account, output, &branch_facts()));
    assert!(checks.iter().all(|check| check.verdict == Verdict::Holds), "{checks:#?}");
    assert!(checks[1].text.ends_with("30 staged"), "{}", checks[1].text);
    let mut gone = branch_facts();
    gone.history.snapshots.iter_mut().for_each(|snapshot| snapshot.in_ancestry = false);
    gone.files.clear();
    gone.contents.rows = 0;
    assert_eq!(broken(&check_table(&account, output, &gone)), ["snapshots", "manifests"]);
}

#[test]
fn given_what_was_staged_and_published_when_checked_then_main_holds_it_once() {
    let publish = |rows| {
        let [sealed, ended] = commit(3, 0..2, 2, rows);
        [altered(sealed, &|intent| intent.drop_branch = BRANCH.to_owned()), ended]
    };
    let of = |rows| account([handed_in(), staged(1), publish(rows).into(), vec![end()]].concat());
    let account = of(30);
    let mut facts = facts();
    let snapshot = SnapshotFacts {
        id: 103,
        added_rows: Some(30),
        added_files: Some(2),
        total_rows: Some(30),
        markers: [("tidegate.bf-a".to_owned(), "3:d3".to_owned())].into(),
        ..facts.history.snapshots[0].clone()
    };
    facts.history.snapshots = vec![snapshot];
    facts.history.markers = [("tidegate.bf-a".to_owned(), "3:d3".to_owned())].into();
    facts.files.iter_mut().for_each(|file| file.snapshot = Some(103));
    assert!(!account.outputs[0].stages());
    assert_eq!(broken(&check_account(&account)), [""; 0]);
    assert_eq!(broken(&check_table(&account, &account.outputs[0], &facts)), [""; 0]);
    assert!(broken(&check_account(&of(29))).contains(&"files"), "another number of rows was published than staged");
}

#[test]
fn given_what_was_discarded_and_staged_again_when_checked_then_only_the_second_counts() {
    let [sealed, ended] = commit(3, 2..2, 0, 0);
    let discard = |intent: &mut v1::Intent| {
        (intent.branch, intent.kind) = (BRANCH.to_owned(), v1::CommitKind::Discard.into());
    };
    let discarded = [handed_in(), staged(1), vec![altered(sealed, &discard), ended]].concat();
    let over = account([discarded.clone(), vec![phase(v1::Phase::Cancelled)]].concat());
    assert_eq!((over.outputs[0].committed().count(), broken(&check_account(&over))), (0, vec![]));
    assert_eq!(check_table(&over, &over.outputs[0], &facts()), []);
    let again = account([discarded, staged(4), vec![phase(v1::Phase::Staged)]].concat());
    let sequences: Vec<u64> = again.outputs[0].committed().map(|(intent, _)| intent.sequence).collect();
    assert_eq!((sequences, broken(&check_account(&again))), (vec![4, 5], vec![]));
}

#[test]
fn given_an_intent_that_was_fenced_off_when_checked_then_it_must_not_be_there() {
    let [sealed, mut ended] = commit(1, 0..1, 1, 10);
    if let Some(Kind::Ended(v1::record::IntentEnded { result: Some(result), .. })) = &mut ended.kind {
        *result = v1::CommitResult {
            end: v1::CommitEnd::Cancelled.into(),
            snapshot_id: 90,
            evidence: "1:cancelled:1".to_owned(),
            ..Default::default()
        };
    }
    let again = commit(2, 0..2, 2, 30);
    let account = account([handed_in(), vec![sealed, ended], again.into(), vec![end()]].concat());
    assert_eq!(broken(&check_account(&account)), [""; 0], "its files are in the next intent");
    let mut facts = facts();
    facts.history.snapshots[0].markers = [("tidegate.bf-a".to_owned(), "1:cancelled:1".to_owned())].into();
    (facts.history.snapshots[0].added_rows, facts.history.snapshots[0].total_rows) = (Some(0), Some(0));
    (facts.history.snapshots[1].added_rows, facts.history.snapshots[1].added_files) = (Some(30), Some(2));
    facts.files[0].snapshot = Some(102);
    let checks = check_table(&account, &account.outputs[0], &facts);
    assert_eq!(broken(&checks), [""; 0], "{checks:#?}");
    assert!(checks.iter().any(|check| check.what == "cancelled"));
    facts.history.snapshots[0].markers = [("tidegate.bf-a".to_owned(), "1:d1".to_owned())].into();
    assert!(broken(&check_table(&account, &account.outputs[0], &facts)).contains(&"cancelled"));
}

#[test]
fn given_a_replacement_when_checked_then_its_sums_hold_and_nothing_old_is_left() {
    let mut facts = facts();
    facts.left_over = Some(Vec::new());
    facts.history.snapshots[1].removed_rows = Some(5);
    facts.history.snapshots[1].total_rows = Some(25);
    assert_eq!(broken(&against(&facts)), [""; 0]);
    facts.history.snapshots[1].total_rows = Some(30);
    facts.left_over = Some(vec!["old".to_owned()]);
    assert_eq!(broken(&against(&facts)), ["snapshots", "replaced"]);
}
