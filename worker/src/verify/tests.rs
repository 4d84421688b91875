//! Accounts made by hand, held against themselves and against tables made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod intents;
mod joins;

use tidegate_common::ids::TaskId;
use tidegate_proto::v1::{self, record::Kind};

use super::*;
use crate::sink::inspect::{Contents, LiveFile, SnapshotFacts, TableHistory};

const SPEC: &str = "version: 1\nkind: backfill\nname: a\nwindow: {from: 1970-01-01, to: 1970-01-02}\nsources:\n  \
                    s: {files: {path: /x/*.parquet}, event_time: {column: at}}\noutputs:\n  o: {table: n.t}\n";
const ID: &str = "bf-a";

fn record(kind: Kind) -> v1::Record {
    v1::Record { kind: Some(kind), at: 0 }
}

fn hand_in(first: u32, end: u32, rows: u64, files: &[(&str, u64)]) -> v1::Record {
    let files = files.iter().map(|(path, rows)| v1::DataFile { path: (*path).to_owned(), rows: *rows, bytes: 1 });
    let part = v1::OutputPart { rows_read: rows, rows_passed: rows, files: files.collect(), ..Default::default() };
    let hand_in =
        v1::HandIn { first_unit: first, end_unit: end, rows_read: rows, outputs: vec![part], ..Default::default() };
    let task = TaskId::Read(0.into_ix(), 0.into_segment(), 0);
    record(Kind::HandIn(v1::record::HandInAccepted {
        task: Some(task.into()),
        hand_in: Some(hand_in),
        units_in_task: 2,
        rows_planned: rows,
    }))
}

trait Ix {
    fn into_ix(self) -> tidegate_common::ids::SourceIx;
    fn into_segment(self) -> tidegate_common::ids::SegmentIx;
}

impl Ix for u32 {
    fn into_ix(self) -> tidegate_common::ids::SourceIx {
        tidegate_common::ids::SourceIx::new(self)
    }
    fn into_segment(self) -> tidegate_common::ids::SegmentIx {
        tidegate_common::ids::SegmentIx::new(self)
    }
}

fn begin() -> Vec<v1::Record> {
    begin_with(SPEC)
}

fn begin_with(spec: &str) -> Vec<v1::Record> {
    let mut document = tidegate_common::spec::Document::read(spec, "a.yaml", &|_| None).unwrap();
    document.absolutise("/x").unwrap();
    let spec_json = tidegate_common::spec::canonical_json(&document.resolve(0).unwrap().spec);
    let table = v1::PreparedOutput {
        table: "default.n.t".to_owned(),
        uuid: "u".to_owned(),
        columns: vec!["at timestamptz".to_owned()],
        source: vec!["s".to_owned()],
        ..Default::default()
    };
    let found = v1::Enumerated { units: 2, rows_in_range: 35, rows_pruned: 5, ..Default::default() };
    vec![
        record(Kind::Created(v1::record::Created { id: ID.to_owned(), spec_json, ..Default::default() })),
        record(Kind::Prepared(v1::Prepared { version: 1, outputs: vec![table], now: 0, sources: Vec::new() })),
        record(Kind::Planned(v1::record::SourcePlanned { source: 0, found: Some(found), segments: Vec::new() })),
    ]
}

fn commit(sequence: u64, log: std::ops::Range<u64>, files: u64, rows: u64) -> [v1::Record; 2] {
    let intent = v1::Intent {
        sequence,
        digest: format!("d{sequence}"),
        log_from: log.start,
        log_to: log.end,
        files,
        rows,
        ..Default::default()
    };
    let result = v1::CommitResult {
        end: v1::CommitEnd::Committed.into(),
        snapshot_id: 100 + i64::try_from(sequence).unwrap(),
        ..Default::default()
    };
    let ended = v1::record::IntentEnded { output: 0, sequence, result: Some(result) };
    [record(Kind::Sealed(intent)), record(Kind::Ended(ended))]
}

fn end() -> v1::Record {
    record(Kind::Phase(v1::record::PhaseChanged { phase: v1::Phase::Succeeded.into(), evidence: None }))
}

fn account(records: Vec<v1::Record>) -> Account {
    let mut account = Account::new(ID);
    records.into_iter().for_each(|record| account.book(record).unwrap());
    account
}

/// A backfill of two units, each handed in with a file, committed one by one.
fn sound() -> Account {
    let mut records = begin();
    records.push(hand_in(0, 1, 10, &[("f1", 10)]));
    records.extend(commit(1, 0..1, 1, 10));
    records.push(hand_in(1, 2, 20, &[("f2", 20)]));
    records.extend(commit(2, 1..2, 1, 20));
    records.push(end());
    account(records)
}

fn facts() -> TableFacts {
    let snapshot = |id: i64, parent, added, total| SnapshotFacts {
        id,
        parent,
        at: id,
        operation: "append".to_owned(),
        added_rows: Some(added),
        added_files: Some(1),
        removed_rows: Some(0),
        removed_files: Some(0),
        total_rows: Some(total),
        markers: [("tidegate.bf-a".to_owned(), format!("{}:d{}", id - 100, id - 100))].into(),
        committed_through: None,
        in_ancestry: true,
        current: id == 102,
    };
    let file = |path: &str, rows, snapshot| LiveFile { path: path.to_owned(), rows, snapshot: Some(snapshot) };
    TableFacts {
        branch: "main".to_owned(),
        history: TableHistory {
            table: "default.n.t".to_owned(),
            uuid: "u".to_owned(),
            location: String::new(),
            snapshots: vec![snapshot(101, None, 10, 10), snapshot(102, Some(101), 20, 30)],
            markers: [("tidegate.bf-a".to_owned(), "2:d2".to_owned())].into(),
        },
        files: vec![file("f1", 10, 101), file("f2", 20, 102)],
        contents: Contents { rows: 30, hours: (0..24).map(|hour| (hour, 1)).collect(), ..Contents::default() },
        column: Some("at".to_owned()),
        left_over: None,
    }
}

fn broken(checks: &[Check]) -> Vec<&'static str> {
    checks.iter().filter(|check| check.verdict == Verdict::Broken).map(|check| check.what).collect()
}

fn against(facts: &TableFacts) -> Vec<Check> {
    let account = sound();
    check_table(&account, &account.outputs[0], facts)
}

#[test]
fn given_a_sound_backfill_when_checked_then_everything_holds() {
    let account = sound();
    let mut checks = check_account(&account);
    checks.extend(check_table(&account, &account.outputs[0], &facts()));
    let said: Vec<String> =
        checks.iter().map(|check| format!("{:?} {} {}: {}", check.verdict, check.what, check.of, check.text)).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    Holds ledger s: 35 in range = 30 read + 5 pruned + 0 gaps
    Holds ledger default.n.t: 30 read = 30 passed + 0 filtered + 0 late + 0 dead letter; 30 committed
    Holds units all sources: 2/2 units of 1 tasks accepted, once each and in turn
    Holds files default.n.t: 2/2 files handed in are in exactly one committed intent
    Holds snapshots default.n.t: 2/2 commits in the table's ancestry, each with its marker; rows before + added = after
    Holds manifests default.n.t: 2/2 files once each; 30 rows in the manifests = 30 committed
    Holds contents default.n.t: 30 rows read back from the files = 30 in the manifests
    Holds coverage default.n.t: 24/24 hours have rows, by column at
    ");
}

#[test]
fn given_a_unit_accepted_twice_when_checked_then_units_and_ledger_are_broken() {
    let mut records = begin();
    records.push(hand_in(0, 1, 10, &[("f1", 10)]));
    records.push(hand_in(0, 1, 10, &[("f2", 10)]));
    records.push(hand_in(1, 2, 20, &[("f3", 20)]));
    records.extend(commit(1, 0..3, 3, 40));
    records.push(end());
    assert_eq!(broken(&check_account(&account(records))), ["ledger", "units"]);
}

#[test]
fn given_rows_that_were_not_read_when_it_succeeded_then_broken_and_when_it_goes_on_then_untold() {
    let mut records = begin();
    records.push(hand_in(0, 1, 10, &[("f1", 10)]));
    records.extend(commit(1, 0..1, 1, 10));
    let open = check_account(&account(records.clone()));
    assert_eq!(broken(&open), Vec::<&str>::new());
    assert_eq!(open[0].verdict, Verdict::Untold);
    records.push(end());
    assert_eq!(broken(&check_account(&account(records))), ["ledger", "units"]);
}

#[test]
fn given_a_range_that_is_not_what_was_pinned_when_checked_then_the_ledger_is_broken() {
    let pinned = |cut, end| {
        let range = |start, end| v1::KafkaRange { partition: 0, start, end };
        let kafka = v1::KafkaPin { ranges: vec![range(cut, end)], ..Default::default() };
        let pin = v1::SourcePin {
            source: "s".to_owned(),
            kafka: Some(kafka),
            archive: vec![range(0, cut)],
            ..Default::default()
        };
        let mut account = sound();
        account.pins = vec![pin];
        account
    };
    assert_eq!(broken(&check_account(&pinned(20, 35))), Vec::<&str>::new());
    let checks = check_account(&pinned(20, 36));
    assert_eq!(broken(&checks), ["ledger"]);
    assert_eq!(checks[0].details, ["36 offsets are pinned, 35 are in range"]);
}

#[test]
fn given_a_file_in_two_intents_or_handed_in_twice_when_checked_then_files_are_broken() {
    let mut records = begin();
    records.push(hand_in(0, 1, 10, &[("f1", 10)]));
    records.push(hand_in(1, 2, 20, &[("f1", 20)]));
    records.extend(commit(1, 0..2, 2, 30));
    records.extend(commit(2, 1..2, 1, 20));
    records.push(end());
    let checks = check_account(&account(records));
    assert_eq!(broken(&checks), ["ledger", "files"]);
    let details = checks.iter().find(|check| check.what == "files").unwrap().details.join("; ");
    assert!(details.contains("f1 was handed in 2 times") && details.contains("an earlier one took"), "{details}");
}

#[test]
fn given_rows_in_no_file_when_checked_then_the_ledger_is_broken() {
    let mut records = begin();
    records.push(hand_in(0, 2, 30, &[("f1", 29)]));
    records.extend(commit(1, 0..1, 1, 29));
    records.push(end());
    assert_eq!(broken(&check_account(&account(records))), ["ledger"]);
}

#[test]
fn given_a_file_that_left_the_table_when_checked_then_the_manifests_are_broken() {
    let mut facts = facts();
    facts.files.remove(0);
    facts.contents.rows = 20;
    let checks = against(&facts);
    assert_eq!(broken(&checks), ["manifests"]);
    assert_eq!(checks[1].details, ["f1 (10 rows) is no longer in the table"]);
}

#[test]
fn given_a_compaction_since_when_files_are_gone_then_it_cannot_be_told() {
    let mut facts = facts();
    let compaction =
        SnapshotFacts { id: 103, operation: "replace".to_owned(), in_ancestry: true, ..SnapshotFacts::default() };
    facts.history.snapshots.push(compaction);
    facts.files.remove(0);
    facts.contents.rows = 20;
    let checks = against(&facts);
    assert_eq!(broken(&checks), Vec::<&str>::new());
    assert_eq!(checks[1].verdict, Verdict::Untold);
}

#[test]
fn given_what_a_table_must_not_hold_when_checked_then_it_is_named() {
    type Harm = fn(&mut TableFacts);
    let harms: [(&str, &str, Harm); 9] = [
        ("twice", "manifests", |facts| facts.files.push(facts.files[0].clone())),
        ("other rows", "manifests", |facts| facts.files[0].rows = 11),
        ("a stray file", "manifests", |facts| {
            facts.files.push(LiveFile { path: "f9".to_owned(), rows: 1, snapshot: Some(102) });
        }),
        ("rolled back", "snapshots", |facts| facts.history.snapshots[1].in_ancestry = false),
        ("marker gone", "snapshots", |facts| facts.history.snapshots[0].markers.clear()),
        ("adds other rows", "snapshots", |facts| facts.history.snapshots[1].added_rows = Some(21)),
        ("total", "snapshots", |facts| facts.history.snapshots[1].total_rows = Some(31)),
        ("unreadable", "contents", |facts| facts.contents.unreadable.push(("f1".to_owned(), "gone".to_owned()))),
        ("another table", "snapshots", |facts| facts.history.uuid = "v".to_owned()),
    ];
    for (name, what, harm) in harms {
        let mut facts = facts();
        harm(&mut facts);
        assert!(broken(&against(&facts)).contains(&what), "{name}");
    }
}

#[test]
fn given_expired_snapshots_when_checked_then_they_cannot_be_told_and_the_files_still_can() {
    let mut facts = facts();
    facts.history.snapshots.remove(0);
    let checks = against(&facts);
    assert_eq!(checks[0].verdict, Verdict::Untold);
    assert_eq!(checks[1].verdict, Verdict::Holds);
}

#[test]
fn given_hours_without_rows_when_checked_then_they_are_listed_and_nothing_is_broken() {
    let mut facts = facts();
    facts.contents.hours = [(0, 30)].into();
    let coverage = against(&facts).pop().unwrap();
    assert_eq!(coverage.verdict, Verdict::Holds);
    assert_eq!(coverage.text, "1/24 hours have rows, by column at");
    assert_eq!(coverage.details, ["no rows in [1970-01-01T01:00:00Z, 1970-01-02T00:00:00Z), 23 h"]);
}

/// The sound backfill with a table of dead letters, to which `kept` of `dead` went.
fn with_dead_letters(dead: u64, kept: u64) -> Account {
    let spec = SPEC.replace("event_time:", "on_error: dead_letter, event_time:");
    let mut records = begin_with(&spec);
    let Some(Kind::Prepared(prepared)) = &mut records[1].kind else { panic!("prepared") };
    let keeper = v1::PreparedOutput { table: "default.n.t__dead_letter".to_owned(), ..prepared.outputs[0].clone() };
    prepared.outputs.push(keeper);
    let mut all = hand_in(0, 2, 30, &[("f1", 30 - dead)]);
    let Some(Kind::HandIn(accepted)) = &mut all.kind else { panic!("a hand-in") };
    let hand_in = accepted.hand_in.as_mut().unwrap();
    hand_in.rows_dead_letter = dead;
    (hand_in.outputs[0].rows_passed, hand_in.outputs[0].rows_dead_letter) = (30 - dead, dead);
    let file = v1::DataFile { path: "d1".to_owned(), rows: kept, bytes: 1 };
    hand_in.outputs.push(v1::OutputPart {
        output: 1,
        rows_read: 30,
        rows_passed: kept,
        rows_filtered: 30 - kept,
        files: vec![file],
        ..Default::default()
    });
    records.push(all);
    records.extend(commit(1, 0..1, 1, 30 - dead));
    let mut of_keeper = commit(1, 0..1, 1, kept);
    for one in &mut of_keeper {
        match &mut one.kind {
            Some(Kind::Sealed(intent)) => intent.output = 1,
            Some(Kind::Ended(ended)) => ended.output = 1,
            _ => {}
        }
    }
    records.extend(of_keeper);
    records.push(end());
    account(records)
}

#[test]
fn given_dead_letters_when_checked_then_each_is_in_the_table_that_keeps_them() {
    let checks = check_account(&with_dead_letters(4, 4));
    assert_eq!(broken(&checks), Vec::<&str>::new());
    assert!(checks[2].text.ends_with("4 committed; 4 dead letters of s = 4 kept"), "{}", checks[2].text);
    let checks = check_account(&with_dead_letters(4, 3));
    assert_eq!(broken(&checks), ["ledger"]);
    assert_eq!(checks[2].details, ["s has 4 dead letters, and 3 of them were kept"]);
    let account = with_dead_letters(4, 4);
    let of_table = check_table(&account, &account.outputs[1], &facts());
    assert!(of_table.iter().all(|check| check.what != "coverage"), "dead letters have no event time");
}

const BRANCH: &str = "tidegate_bf-a";
