//! A journal record as an event that operators read: one line, from that record alone.

use tidegate_common::ids::{OutputIx, TaskId};
use tidegate_common::time::{EventTime, Span};
use tidegate_proto::convert;
use tidegate_proto::v1::{self, record::Kind};

/// What `record` says, in one line.
pub(super) fn operator_event((number, record): (u64, &v1::Record)) -> v1::BackfillEvent {
    let (kind, text) = match &record.kind {
        Some(Kind::Created(created)) => ("created", said("created", &created.reason)),
        Some(Kind::Term(raised)) => ("term", format!("a coordinator leads it in term {}", raised.term)),
        Some(Kind::Prepared(prepared)) => ("prepared", prepared_text(prepared)),
        Some(Kind::Planned(planned)) => ("planned", planned_text(planned)),
        Some(Kind::HandIn(accepted)) => ("hand_in", hand_in_text(accepted)),
        Some(Kind::Sliced(sliced)) => ("sliced", sliced_text(sliced)),
        Some(Kind::Sealed(intent)) => ("sealed", intent_text(intent)),
        Some(Kind::Ended(ended)) => ("ended", ended_text(ended)),
        Some(Kind::Parked(parked)) => ("parked", parked_text(parked)),
        Some(Kind::Wish(changed)) => {
            let wish = changed.wish().as_str_name().trim_start_matches("WISH_").to_lowercase();
            ("wish", said(&format!("asked to {wish}"), &changed.reason))
        }
        Some(Kind::Phase(changed)) => {
            let phase = changed.phase().as_str_name().trim_start_matches("PHASE_").to_lowercase();
            ("phase", said(&phase, changed.evidence.as_ref().map_or("", |evidence| &evidence.message)))
        }
        Some(Kind::Publishing(publishing)) => {
            let intents: Vec<String> = publishing.intents.iter().map(intent_text).collect();
            let what = format!("what is staged goes to main: {}", intents.join("; "));
            ("publishing", said(&what, &publishing.reason))
        }
        Some(Kind::Regenerated(regenerated)) => ("regenerated", regenerated_text(regenerated)),
        Some(Kind::Retried(retried)) => ("retried", said("tried again", &retried.reason)),
        None => ("unknown", String::new()),
    };
    v1::BackfillEvent { number, at: record.at, kind: kind.to_owned(), text }
}

fn said(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") }
}

fn intent_text(intent: &v1::Intent) -> String {
    let branch = &intent.branch;
    let what = match (intent.kind(), branch.is_empty()) {
        (v1::CommitKind::Discard, _) => {
            return format!("intent #{} of output {}: drops branch {branch}", intent.sequence, intent.output);
        }
        (v1::CommitKind::Replace, true) => " in place of what the window held".to_owned(),
        (v1::CommitKind::Replace, false) => format!(" in place of what the window held, on branch {branch}"),
        (_, true) => String::new(),
        (_, false) => format!(" on branch {branch}"),
    };
    format!(
        "intent #{} of output {}: {} files, {} rows{what}, complete through {}",
        intent.sequence,
        intent.output,
        intent.files,
        intent.rows,
        EventTime::from_micros(intent.committed_through)
    )
}

fn task_text(task: Option<v1::TaskId>) -> String {
    convert::task_id(task).map_or_else(|_| "?".to_owned(), |task| task.to_string())
}

fn prepared_text(prepared: &v1::Prepared) -> String {
    let made = prepared.outputs.iter().filter(|output| !output.table.is_empty());
    let tables = made.map(|output| {
        let how = if output.created { "created" } else { "there already" };
        let table = format!("table {} ({how})", output.table);
        match output.inputs.split_first() {
            Some((anchor, others)) => {
                let others: Vec<&str> = others.iter().map(|input| input.source.as_str()).collect();
                format!("{table}, which joins {} with {}", anchor.source, others.join(" and "))
            }
            None => table,
        }
    });
    tables.collect::<Vec<_>>().join("; ")
}

fn planned_text(planned: &v1::record::SourcePlanned) -> String {
    let Some(found) = &planned.found else { return String::new() };
    format!(
        "source {}: {} files, {} splits, {} units, {} rows in range, {} of them pruned",
        planned.source, found.files, found.splits, found.units, found.rows_in_range, found.rows_pruned
    )
}

fn sliced_text(sliced: &v1::record::Sliced) -> String {
    let (width, buckets) = (Span::from_micros(sliced.slice), plural(sliced.buckets.into(), "bucket"));
    format!("output {} is joined in slices of {width}, {buckets} each", sliced.output)
}

fn regenerated_text(regenerated: &v1::record::Regenerated) -> String {
    let rows = plural(regenerated.made.as_ref().map_or(0, |made| made.rows), "row");
    let task = TaskId::Regenerate(OutputIx::new(regenerated.output), regenerated.object);
    format!("{task}: {rows} that waited to be joined were lost, and are read again")
}

fn hand_in_text(accepted: &v1::record::HandInAccepted) -> String {
    let Some(hand_in) = &accepted.hand_in else { return String::new() };
    let sum = |of: fn(&v1::OutputPart) -> u64| hand_in.outputs.iter().map(of).sum::<u64>();
    let files = sum(|part| part.files.len() as u64);
    let (task, first, end) = (task_text(accepted.task), hand_in.first_unit, hand_in.end_unit);
    if let Ok(TaskId::Join(..)) = convert::task_id(accepted.task) {
        let (anchors, rows) = (plural(hand_in.rows_read, "row"), plural(sum(|part| part.rows_passed), "row"));
        return format!("{task} slices [{first},{end}): {anchors} of the anchor joined to {rows}, {files} files");
    }
    if let Ok(TaskId::Late(..)) = convert::task_id(accepted.task) {
        return format!("{task}: {} kept, {files} files", plural(hand_in.rows_read, "late row"));
    }
    let units = accepted.units_in_task;
    let text = format!("{task} units [{first},{end}) of {units}: {} rows read, {files} files", hand_in.rows_read);
    let objects = sum(|part| u64::from(part.shuffled.is_some()));
    if objects == 0 {
        return text;
    }
    let shuffled = sum(|part| part.shuffled.as_ref().map_or(0, |object| object.rows));
    format!("{text}, {} shuffled into {}", plural(shuffled, "row"), plural(objects, "object"))
}

fn plural(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

fn ended_text(ended: &v1::record::IntentEnded) -> String {
    let Some(result) = &ended.result else { return String::new() };
    let end = result.end().as_str_name().trim_start_matches("COMMIT_END_").to_lowercase();
    let text = format!("intent #{} of output {}: {end}, snapshot {}", ended.sequence, ended.output, result.snapshot_id);
    said(&text, &result.evidence)
}

fn parked_text(parked: &v1::record::Parked) -> String {
    let evidence = parked.evidence.clone().unwrap_or_default();
    said(&format!("{} is parked after {} tries", task_text(parked.task), evidence.attempts), &evidence.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_common::ids::{SegmentIx, SourceIx};

    fn said(kind: Kind) -> (String, String) {
        let event = operator_event((7, &v1::Record { kind: Some(kind), at: 1 }));
        assert_eq!((event.number, event.at), (7, 1));
        (event.kind, event.text)
    }

    fn hand_in(task: TaskId, parts: Vec<v1::OutputPart>) -> Kind {
        let hand_in = v1::HandIn { first_unit: 5, end_unit: 9, rows_read: 1_000, outputs: parts, ..Default::default() };
        Kind::HandIn(v1::record::HandInAccepted {
            task: Some(task.into()),
            hand_in: Some(hand_in),
            units_in_task: 12,
            rows_planned: 1_000,
        })
    }

    fn read(parts: Vec<v1::OutputPart>) -> Kind {
        hand_in(TaskId::Read(SourceIx::new(0), SegmentIx::new(0), 3), parts)
    }

    fn with_files(rows: u64, files: usize) -> v1::OutputPart {
        v1::OutputPart { rows_passed: rows, files: vec![v1::DataFile::default(); files], ..Default::default() }
    }

    #[test]
    fn a_read_says_what_it_wrote_and_what_it_shuffled() {
        let (kind, text) = said(read(vec![with_files(990, 2), with_files(10, 1)]));
        assert_eq!(
            (kind.as_str(), text.as_str()),
            ("hand_in", "read-s0g0.3 units [5,9) of 12: 1000 rows read, 3 files")
        );
        let object = v1::ShuffleObject { rows: 990, ..Default::default() };
        let shuffled = v1::OutputPart { rows_passed: 990, shuffled: Some(object), ..Default::default() };
        let (_, text) = said(read(vec![shuffled.clone()]));
        assert_eq!(text, "read-s0g0.3 units [5,9) of 12: 1000 rows read, 0 files, 990 rows shuffled into 1 object");
        let (_, text) = said(read(vec![shuffled.clone(), with_files(7, 1), shuffled]));
        assert_eq!(text, "read-s0g0.3 units [5,9) of 12: 1000 rows read, 1 files, 1980 rows shuffled into 2 objects");
    }

    #[test]
    fn a_join_says_its_slices_and_what_came_of_the_anchor() {
        let (kind, text) = said(hand_in(TaskId::Join(OutputIx::new(2), 5), vec![with_files(1_204, 3)]));
        assert_eq!(kind, "hand_in");
        assert_eq!(text, "join-o2.5 slices [5,9): 1000 rows of the anchor joined to 1204 rows, 3 files");
    }

    #[test]
    fn late_rows_say_how_many_they_are() {
        let (_, text) = said(hand_in(TaskId::Late(OutputIx::new(2), 7), vec![with_files(1_000, 1)]));
        assert_eq!(text, "late-o2.7: 1000 late rows kept, 1 files");
    }

    #[test]
    fn an_output_that_joins_says_what_and_how_it_is_cut() {
        let input = |source: &str| v1::JoinInput { source: source.to_owned(), ..Default::default() };
        let joins = v1::PreparedOutput {
            table: "default.air.flights_weather".to_owned(),
            created: true,
            inputs: vec![input("flights"), input("weather"), input("planes")],
            ..Default::default()
        };
        let other = v1::PreparedOutput { table: "default.air.flights".to_owned(), ..Default::default() };
        let (kind, text) = said(Kind::Prepared(v1::Prepared { outputs: vec![joins, other], ..Default::default() }));
        assert_eq!(kind, "prepared");
        assert_eq!(
            text,
            "table default.air.flights_weather (created), which joins flights with weather and planes; \
             table default.air.flights (there already)"
        );
        let sliced = |buckets| Kind::Sliced(v1::record::Sliced { output: 1, slice: 604_800_000_000, buckets });
        assert_eq!(said(sliced(1)).1, "output 1 is joined in slices of 7d, 1 bucket each");
        assert_eq!(
            said(sliced(16)),
            ("sliced".to_owned(), "output 1 is joined in slices of 7d, 16 buckets each".to_owned())
        );
    }

    #[test]
    fn a_slice_that_is_parked_is_named() {
        let evidence = v1::Evidence { attempts: 4, message: "a key is too hot".to_owned(), ..Default::default() };
        let parked =
            v1::record::Parked { task: Some(TaskId::Join(OutputIx::new(0), 17).into()), evidence: Some(evidence) };
        assert_eq!(said(Kind::Parked(parked)).1, "join-o0.17 is parked after 4 tries: a key is too hot");
    }

    #[test]
    fn every_other_record_is_a_line_of_its_own() {
        let retried = Kind::Retried(v1::record::Retried { reason: "mended".to_owned(), ..Default::default() });
        let phase = v1::record::PhaseChanged { phase: v1::Phase::Succeeded.into(), evidence: None };
        let wish = v1::record::WishChanged { wish: v1::Wish::Pause.into(), reason: String::new() };
        let found =
            v1::Enumerated { files: 1, splits: 1, units: 8, rows_in_range: 100, rows_pruned: 3, ..Default::default() };
        let planned = v1::record::SourcePlanned { source: 1, found: Some(found), segments: Vec::new() };
        let intent = v1::Intent { sequence: 3, files: 2, rows: 40, committed_through: 0, ..Default::default() };
        let result = v1::CommitResult { end: v1::CommitEnd::Committed.into(), snapshot_id: 99, ..Default::default() };
        let ended = v1::record::IntentEnded { output: 0, sequence: 3, result: Some(result) };
        let made = v1::ShuffleObject { rows: 40, ..Default::default() };
        let regenerated = v1::record::Regenerated { output: 1, object: 7, made: Some(made) };
        let regenerated = Kind::Regenerated(regenerated);
        let cases = [
            (Kind::Term(v1::record::TermRaised { term: 2 }), "a coordinator leads it in term 2"),
            (Kind::Planned(planned), "source 1: 1 files, 1 splits, 8 units, 100 rows in range, 3 of them pruned"),
            (Kind::Sealed(intent), "intent #3 of output 0: 2 files, 40 rows, complete through 1970-01-01T00:00:00Z"),
            (Kind::Ended(ended), "intent #3 of output 0: committed, snapshot 99"),
            (Kind::Wish(wish), "asked to pause"),
            (Kind::Phase(phase), "succeeded"),
            (retried, "tried again: mended"),
            (regenerated, "regenerate-o1.7: 40 rows that waited to be joined were lost, and are read again"),
        ];
        for (kind, text) in cases {
            assert_eq!(said(kind).1, text);
        }
    }
}
