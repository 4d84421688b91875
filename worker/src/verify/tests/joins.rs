//! An output that joins: what was shuffled of each source, and which slices were joined, held against each other.

use super::*;
use crate::verify::table_checks::time_column;

const SPEC: &str = "version: 1\nkind: backfill\nname: a\nwindow: {from: 1970-01-01, to: 1970-01-02}\nsources:\n  \
                    s: {files: {path: /x/*.parquet}, event_time: {column: at}}\n  \
                    w: {files: {path: /y/*.parquet}, event_time: {column: at}}\noutputs:\n  \
                    o: {table: n.t, sql: 'SELECT 1'}\n";
const HOUR: i64 = 3_600_000_000;

/// Of source `source`: its unit, the rows read, those left out, and the cells of the rest.
fn read(source: u32, unit: u32, rows: u64, filtered: u64, cells: (i64, i64)) -> v1::Record {
    let shuffled = rows - filtered;
    let path = format!("{source}/{unit}");
    let object = v1::ShuffleObject {
        path,
        rows: shuffled,
        bytes: 1,
        first_cell: cells.0,
        last_cell: cells.1,
        anchors: if source == 0 { shuffled } else { 0 },
        ..Default::default()
    };
    let part = v1::OutputPart {
        rows_read: rows,
        rows_passed: shuffled,
        rows_filtered: filtered,
        shuffled: Some(object),
        ..Default::default()
    };
    let hand_in =
        v1::HandIn { first_unit: unit, end_unit: unit + 1, rows_read: rows, outputs: vec![part], ..Default::default() };
    let task = TaskId::Read(source.into_ix(), 0.into_segment(), 0);
    accepted(task, hand_in, 2, rows)
}

/// Of the slices `[first, end)`: the anchors joined, and what came of them, in a file.
fn joined(first: u32, end: u32, anchors: u64, rows: u64) -> v1::Record {
    let file = v1::DataFile { path: format!("j{first}"), rows, bytes: 1 };
    let part = v1::OutputPart { rows_read: anchors, rows_passed: rows, files: vec![file], ..Default::default() };
    let hand_in =
        v1::HandIn { first_unit: first, end_unit: end, rows_read: anchors, outputs: vec![part], ..Default::default() };
    accepted(TaskId::Join(tidegate_common::ids::OutputIx::new(0), first), hand_in, end, 0)
}

fn accepted(task: TaskId, hand_in: v1::HandIn, units_in_task: u32, rows_planned: u64) -> v1::Record {
    let (task, hand_in) = (Some(task.into()), Some(hand_in));
    record(Kind::HandIn(v1::record::HandInAccepted { task, hand_in, units_in_task, rows_planned }))
}

fn sliced(hours: i64) -> v1::Record {
    record(Kind::Sliced(v1::record::Sliced { output: 0, slice: hours * HOUR, buckets: 2 }))
}

/// A day in four slices; `w` is met from an hour before. Runs are joined out of order, one before all is read.
fn journal() -> Vec<v1::Record> {
    let mut records = begin_with(SPEC);
    let Some(Kind::Prepared(prepared)) = &mut records[1].kind else { panic!("prepared") };
    let input =
        |source: &str, low| v1::JoinInput { source: source.to_owned(), low, high: 0, keyed: true, anchor: false };
    prepared.outputs[0].inputs = vec![input("s", 0), input("w", -HOUR)];
    prepared.outputs[0].source = vec!["s".to_owned(), "w".to_owned()];
    records.truncate(2);
    for (source, rows_in_range) in [(0, 20), (1, 10)] {
        let found = Some(v1::Enumerated { units: 2, rows_in_range, ..Default::default() });
        records.push(record(Kind::Planned(v1::record::SourcePlanned { source, found, segments: Vec::new() })));
    }
    records.extend([sliced(6), read(1, 0, 6, 1, (0, 1)), read(0, 0, 10, 1, (0, 1)), joined(0, 1, 4, 5)]);
    records.extend(commit(1, 0..3, 1, 5));
    records.extend([read(1, 1, 4, 0, (2, 3)), read(0, 1, 10, 0, (2, 3)), joined(2, 4, 10, 12), joined(1, 2, 5, 3)]);
    records.extend(commit(2, 3..7, 2, 15));
    records.push(end());
    records
}

/// The hand-in of that number.
fn hand_in_at(records: &mut [v1::Record], number: usize) -> &mut v1::HandIn {
    let hand_ins = records.iter_mut().filter_map(|record| match &mut record.kind {
        Some(Kind::HandIn(accepted)) => accepted.hand_in.as_mut(),
        _ => None,
    });
    hand_ins.into_iter().nth(number).unwrap()
}

fn part_at(records: &mut [v1::Record], number: usize) -> &mut v1::OutputPart {
    &mut hand_in_at(records, number).outputs[0]
}

fn object_at(records: &mut [v1::Record], number: usize) -> &mut v1::ShuffleObject {
    part_at(records, number).shuffled.as_mut().unwrap()
}

fn inputs(records: &mut [v1::Record]) -> &mut Vec<v1::JoinInput> {
    let Some(Kind::Prepared(prepared)) = &mut records[1].kind else { panic!("prepared") };
    &mut prepared.outputs[0].inputs
}

#[test]
fn given_a_sound_join_when_checked_then_everything_holds() {
    let checks = check_account(&account(journal()));
    let said: Vec<String> =
        checks.iter().map(|check| format!("{:?} {} {}: {}", check.verdict, check.what, check.of, check.text)).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    Holds ledger s: 20 in range = 20 read + 0 pruned + 0 gaps
    Holds ledger w: 10 in range = 10 read + 0 pruned + 0 gaps
    Holds ledger default.n.t: 20 read of s = 19 shuffled + 1 filtered + 0 late + 0 dead letter; 19 rows in 2 objects
    Holds ledger default.n.t: 10 read of w = 9 shuffled + 1 filtered + 0 late + 0 dead letter; 9 rows in 2 objects
    Holds ledger default.n.t: 19 rows of the anchor shuffled = 19 joined, 20 passed; 20 committed
    Holds units all sources: 4/4 units of 2 tasks accepted, once each and in turn
    Holds slices default.n.t: 4/4 slices of 6h joined, once each
    Holds files default.n.t: 3/3 files handed in are in exactly one committed intent
    ");
}

#[test]
fn given_a_join_that_goes_on_when_checked_then_nothing_is_broken_at_any_moment() {
    let whole = journal();
    for records in 1..whole.len() {
        let checks = check_account(&account(whole[..records].to_vec()));
        assert_eq!(broken(&checks), Vec::<&str>::new(), "after {records} records");
        let told = checks.iter().all(|check| check.verdict == Verdict::Holds);
        assert_eq!(told, records + 1 == whole.len(), "after {records} records");
    }
}

#[test]
fn given_a_join_that_was_prepared_again_when_checked_then_it_is_as_it_was() {
    let mut records = journal();
    let again = records[1].clone();
    records.insert(9, again.clone());
    assert_eq!(broken(&check_account(&account(records))), Vec::<&str>::new());
    let mut anew = journal();
    anew.splice(5..5, [again, sliced(3), sliced(6)]);
    let checks = check_account(&account(anew));
    assert_eq!(broken(&checks), ["slices"], "planned anew before anything was read, and then cut twice");
}

/// What is done to a journal, the checks that then break, and what the last of them says.
type Harm = (fn(&mut Vec<v1::Record>), &'static [&'static str], &'static str);

fn hold(harms: &[Harm]) {
    for (harm, wanted, said) in harms {
        let mut records = journal();
        harm(&mut records);
        let checks = check_account(&account(records));
        assert_eq!(broken(&checks), *wanted, "{said}");
        let details = checks.iter().flat_map(|check| &check.details).cloned().collect::<Vec<_>>().join("; ");
        assert!(details.contains(said), "{details}\nlacks {said}");
    }
}

#[test]
fn given_slices_that_are_not_joined_once_each_when_checked_then_they_are_broken() {
    hold(&[
        (
            |records| {
                let Some(Kind::HandIn(twice)) = &mut records[13].kind else { panic!("a hand-in") };
                twice.task = Some(TaskId::Join(tidegate_common::ids::OutputIx::new(0), 0).into());
                hand_in_at(records, 6).first_unit = 0;
            },
            &["slices"],
            "slices [0,2) were joined, and 0 to 0 of them were before",
        ),
        (|records| hand_in_at(records, 5).end_unit = 3, &["slices"], "1 slices were not joined"),
        (|records| hand_in_at(records, 5).end_unit = 5, &["slices"], "slices [2,5) were joined by the task of slice 2"),
        (|records| hand_in_at(records, 5).end_unit = 2, &["slices"], "2 slices were not joined"),
        (
            |records| hand_in_at(records, 5).first_unit = 3,
            &["slices"],
            "slices [3,4) were joined by the task of slice 2",
        ),
        (
            |records| part_at(records, 5).shuffled = Some(v1::ShuffleObject::default()),
            &["slices"],
            "what slices [2,4) handed in is not the rows of this output alone",
        ),
        (
            |records| hand_in_at(records, 5).outputs.push(v1::OutputPart::default()),
            &["slices"],
            "what slices [2,4) handed in is not the rows of this output alone",
        ),
        (|records| drop(records.remove(4)), &["slices"], "it succeeded, and was never cut into slices"),
        (|records| records.insert(8, sliced(3)), &["slices"], "slices of 3h were chosen, and it was cut before"),
        (|records| records[4] = sliced(0), &["slices"], "slices of 0s were chosen, which do not cut the window"),
    ]);
}

#[test]
fn given_objects_that_cannot_be_when_checked_then_the_slices_are_broken() {
    hold(&[
        (|records| object_at(records, 3).path = "1/0".to_owned(), &["slices"], "1/0 was handed in before"),
        (
            |records| straggle(object_at(records, 3)),
            &["slices"],
            "1/1 came with 1 rows that joined slices need, and none may be late",
        ),
        (
            |records| {
                straggle(object_at(records, 3));
                object_at(records, 3).cell_rows[1] = 2;
            },
            &["slices"],
            "1/1 has 4 rows in cells 0 to 3, and 5 in those it names",
        ),
        (|records| object_at(records, 0).first_cell = 2, &["slices"], "1/0 has cells 2 to 1"),
        (|records| inputs(records)[1].source = "x".to_owned(), &["slices"], "rows of w were handed in"),
    ]);
}

#[test]
fn given_rows_that_are_lost_or_doubled_when_checked_then_the_ledger_is_broken() {
    hold(&[
        (
            |records| {
                hand_in_at(records, 6).rows_read -= 1;
                part_at(records, 6).rows_read -= 1;
            },
            &["ledger"],
            "19 rows of the anchor were shuffled, and 18 were joined",
        ),
        (
            |records| {
                hand_in_at(records, 6).rows_read += 1;
                part_at(records, 6).rows_read += 1;
            },
            &["ledger"],
            "19 rows of the anchor were shuffled, and 20 were joined",
        ),
        (
            |records| part_at(records, 6).rows_passed += 1,
            &["ledger"],
            "21 rows were passed on, and its files were handed in with 20; 21 rows were passed on, and 20 are committed",
        ),
        (
            |records| {
                object_at(records, 1).rows -= 1;
                object_at(records, 1).anchors -= 1;
                hand_in_at(records, 6).rows_read -= 1;
                part_at(records, 6).rows_read -= 1;
            },
            &["ledger"],
            "9 rows were shuffled, and 0/0 holds 8 of them; 19 rows were shuffled and 0 were late, and its objects hold 18",
        ),
        (|records| object_at(records, 3).anchors = 1, &["ledger", "ledger"], "1/1 holds 1 anchors among 4 rows"),
        (|records| object_at(records, 1).anchors = 10, &["ledger", "ledger"], "0/0 holds 10 anchors among 9 rows"),
        (
            |records| part_at(records, 3).shuffled = None,
            &["ledger"],
            "4 rows were shuffled, and no object holds 0 of them",
        ),
        (
            |records| {
                object_at(records, 0).rows += 1;
                object_at(records, 3).rows -= 1;
            },
            &["ledger"],
            "5 rows were shuffled, and 1/0 holds 6 of them; 4 rows were shuffled, and 1/1 holds 3 of them",
        ),
        (
            |records| part_at(records, 0).rows_late += 1,
            &["ledger"],
            "the rows read of w are not the sum of what became of them",
        ),
        (
            |records| {
                let part = part_at(records, 0);
                (part.rows_read, part.rows_filtered) = (part.rows_read + 1, part.rows_filtered + 1);
            },
            &["ledger"],
            "10 rows of w were read, 11 of them for it",
        ),
        (
            |records| part_at(records, 0).files.push(v1::DataFile::default()),
            &["ledger", "files"],
            "1 data files were handed in with rows to be joined",
        ),
    ]);
}

#[test]
fn given_rows_of_the_anchor_beyond_the_window_when_checked_then_they_need_not_be_joined() {
    let mut records = journal();
    object_at(&mut records, 4).anchors -= 3;
    hand_in_at(&mut records, 6).rows_read -= 3;
    part_at(&mut records, 6).rows_read -= 3;
    let checks = check_account(&account(records));
    assert_eq!(broken(&checks), Vec::<&str>::new());
    assert!(checks[4].text.starts_with("16 rows of the anchor shuffled = 16 joined"), "{}", checks[4].text);
}

#[test]
fn given_a_journal_that_joins_what_joins_nothing_when_booked_then_it_is_refused() {
    for (place, what) in [(4, "cut"), (7, "joined")] {
        let mut records = journal();
        inputs(&mut records).clear();
        let mut account = Account::new(ID);
        let refused = [0, 1, place].map(|at| account.book(records[at].clone()).map_err(|bad| bad.to_string()));
        assert!(matches!(&refused[2], Err(why) if why.ends_with("output 0 joins nothing")), "{what}: {refused:?}");
    }
}

#[test]
fn given_a_join_when_its_hours_are_counted_then_by_the_column_that_was_pinned() {
    let mut account = account(journal());
    assert_eq!(time_column(&account, &account.outputs[0]), None, "`at` may be that of either source");
    account.outputs[0].table.as_mut().unwrap().time_column = "at".to_owned();
    assert_eq!(time_column(&account, &account.outputs[0]).as_deref(), Some("at"));
    assert_eq!(account.outputs[0].anchor(), Some("s"));
}

/// One of its four rows is of the first cell, which joined slices need.
fn straggle(object: &mut v1::ShuffleObject) {
    object.first_cell = 0;
    object.cells = vec![0, 2, 3];
    object.cell_rows = vec![1, 1, 2];
}

/// A join whose second source may break its order: of its last four rows one is late, and `kept` times in its table.
fn late_journal(kept: &[u64]) -> Vec<v1::Record> {
    let kafka = "{kafka: {topic: w, properties: {bootstrap.servers: 'h:1'}, format: {type: json, schema: [{name: at, type: \
                 timestamptz}]}}, event_time: {column: at, out_of_orderness: 1h, on_disorder: allow}}";
    let spec = SPEC.replace("{files: {path: /y/*.parquet}, event_time: {column: at}}", kafka);
    let begun = begin_with(&spec.replace("SELECT 1", "SELECT 1 FROM s JOIN w ON 1 = 1"));
    let mut records = journal();
    records[0] = begun[0].clone();
    let Some(Kind::Prepared(prepared)) = &mut records[1].kind else { panic!("prepared") };
    let table =
        v1::PreparedOutput { table: "default.n.t__late".to_owned(), uuid: "l".to_owned(), ..Default::default() };
    prepared.outputs.push(table);
    straggle(object_at(&mut records, 3));
    let end = records.pop().unwrap();
    for (number, rows) in (7..).zip(kept) {
        let file = v1::DataFile { path: format!("l{number}"), rows: *rows, bytes: 1 };
        let part =
            v1::OutputPart { output: 1, rows_read: *rows, rows_passed: *rows, files: vec![file], ..Default::default() };
        let hand_in = v1::HandIn { end_unit: 1, rows_read: *rows, outputs: vec![part], ..Default::default() };
        records.push(accepted(TaskId::Late(tidegate_common::ids::OutputIx::new(0), 2), hand_in, 1, 0));
        let [mut sealed, mut ended] = commit(number, number..number + 1, 1, *rows);
        if let (Some(Kind::Sealed(intent)), Some(Kind::Ended(ended))) = (&mut sealed.kind, &mut ended.kind) {
            (intent.output, ended.output) = (1, 1);
        }
        records.extend([sealed, ended]);
    }
    records.push(end);
    records
}

#[test]
fn given_late_rows_when_checked_then_each_is_in_the_table_that_keeps_them_once() {
    let checks = check_account(&account(late_journal(&[1])));
    assert_eq!(broken(&checks), Vec::<&str>::new());
    let texts: Vec<&str> =
        checks.iter().filter(|check| check.what == "ledger").map(|check| check.text.as_str()).collect();
    assert_eq!(texts[3], "10 read of w = 8 shuffled + 1 filtered + 1 late + 0 dead letter; 9 rows in 2 objects");
    assert!(texts[5].ends_with("1 committed; 1 late rows = 1 kept"), "{texts:?}");
    for (kept, wanted, said) in [
        (&[][..], &["ledger"][..], "1 rows were late, and 0 of them were kept"),
        (&[2], &["ledger"], "1 rows were late, and 2 of them were kept"),
        (&[1, 1], &["ledger", "slices"], "the late rows of object 2 were handed in before"),
    ] {
        let checks = check_account(&account(late_journal(kept)));
        assert_eq!(broken(&checks), wanted, "{said}");
        let details = checks.iter().flat_map(|check| &check.details).cloned().collect::<Vec<_>>().join("; ");
        assert!(details.contains(said), "{details}\nlacks {said}");
    }
    let account = account(late_journal(&[1]));
    assert_eq!(time_column(&account, &account.outputs[1]), None, "late rows are of no hour of their own");
}

#[test]
fn given_late_rows_that_are_yet_to_be_written_when_checked_then_that_is_not_told() {
    let mut records = late_journal(&[]);
    records.pop();
    let checks = check_account(&account(records));
    assert_eq!(broken(&checks), Vec::<&str>::new());
    let of_late = checks.iter().find(|check| check.what == "ledger" && check.of == "default.n.t__late").unwrap();
    assert_eq!(of_late.verdict, Verdict::Untold);
}
