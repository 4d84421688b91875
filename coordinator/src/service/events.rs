//! A journal record as an event that operators read.

use tidegate_common::ids::TaskId;
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
    let tables = prepared.outputs.iter().map(|output| {
        let how = if output.created { "created" } else { "there already" };
        format!("table {} ({how})", output.table)
    });
    tables.collect::<Vec<_>>().join(", ")
}

fn planned_text(planned: &v1::record::SourcePlanned) -> String {
    let Some(found) = &planned.found else { return String::new() };
    format!(
        "source {}: {} files, {} splits, {} units, {} rows in range, {} of them pruned",
        planned.source, found.files, found.splits, found.units, found.rows_in_range, found.rows_pruned
    )
}

fn sliced_text(sliced: &v1::record::Sliced) -> String {
    let (width, buckets) = (Span::from_micros(sliced.slice), sliced.buckets);
    format!("output {} is joined in slices of {width} and {buckets} buckets", sliced.output)
}

fn hand_in_text(accepted: &v1::record::HandInAccepted) -> String {
    let Some(hand_in) = &accepted.hand_in else { return String::new() };
    let files: usize = hand_in.outputs.iter().map(|part| part.files.len()).sum();
    if let Ok(TaskId::Join(..)) = convert::task_id(accepted.task) {
        return format!(
            "{} slices [{},{}): {} anchors joined, {files} files",
            task_text(accepted.task),
            hand_in.first_unit,
            hand_in.end_unit,
            hand_in.rows_read
        );
    }
    format!(
        "{} units [{},{}) of {}: {} rows read, {files} files",
        task_text(accepted.task),
        hand_in.first_unit,
        hand_in.end_unit,
        accepted.units_in_task,
        hand_in.rows_read
    )
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
