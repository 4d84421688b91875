//! Joins in a report: how far they are, and which rows came too late for them.

use tidegate_common::lateness::CLASS_NAMES;
use tidegate_proto::v1;

use crate::figures::{bytes, count, plural, span};

/// How far the joining is: `12 of 53 slices of 7d, 4 buckets each, 18.2 MiB live in the shuffle store, 40.1 MiB at most`.
pub(crate) fn joined(join: &v1::JoinState) -> String {
    if join.slices == 0 {
        return "nothing: it is not cut into slices yet".to_owned();
    }
    let (done, all, width) = (count(join.slices_done.into()), plural(join.slices.into(), "slice"), span(join.slice));
    let running = if join.running > 0 { format!(", {} under way", count(join.running.into())) } else { String::new() };
    let (buckets, live, peak) = (plural(join.buckets.into(), "bucket"), bytes(join.live_bytes), bytes(join.peak_bytes));
    let late = match join.inputs.iter().map(|input| input.rows_late).sum() {
        0 => String::new(),
        late => format!(", {} late", plural(late, "row")),
    };
    let again = match join.regenerated {
        0 => String::new(),
        lost => format!(", {} lost and read again", plural(lost, "object")),
    };
    format!(
        "{done} of {all} of {width}{running}, {buckets} each, {live} live in the shuffle store, {peak} at most{late}{again}"
    )
}

/// How late the rows of a source were: `3 rows of plays: 2 <1m, 1 <1h; at most 20m, missed by 2 windows`.
pub(crate) fn late_text(input: &v1::JoinInputState, late: &v1::LateRows) -> String {
    let classes = CLASS_NAMES.iter().zip(&late.rows_by).filter(|(_, rows)| **rows > 0);
    let classes: Vec<String> = classes.map(|(name, rows)| format!("{} {name}", count(*rows))).collect();
    let windows = plural(late.missed_by.len() as u64, "window");
    let (rows, most) = (plural(input.rows_late, "row"), span(late.most));
    format!("{rows} of {}: {}; at most {most}, missed by {windows}", input.source, classes.join(", "))
}
