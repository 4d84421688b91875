//! What comes from an archive of a topic, for people and for programs.

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_worker::survey::{ArchiveRange, ArchivedPart};

use crate::figures::{count, plural};

/// Partitions whose cuts are named one by one.
const NAMED: usize = 6;

/// What comes from an archive of a topic.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ArchiveRange")]
pub(crate) struct Archive {
    table: String,
    files: u64,
    /// Rows below the cuts.
    rows: u64,
    /// Offsets below the cuts that the archive has no row of.
    gaps: u64,
    /// Rows from the cuts on, which are left to the topic.
    rows_beyond: u64,
    partitions: Vec<Part>,
}

/// Offsets [start, cut) come from the archive, [cut, end) from the topic.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ArchivedPartition")]
struct Part {
    partition: i32,
    start: i64,
    cut: i64,
    end: i64,
    rows: u64,
    gaps: u64,
    rows_beyond: u64,
}

impl Archive {
    /// `range` for programs.
    pub(crate) fn of(range: &ArchiveRange) -> Self {
        let (rows, gaps, rows_beyond) = range.counted();
        let part = |part: &ArchivedPart| Part {
            partition: part.partition,
            start: part.start,
            cut: part.cut,
            end: part.end,
            rows: part.rows,
            gaps: part.gaps,
            rows_beyond: part.beyond,
        };
        let (table, partitions) = (range.table.clone(), range.partitions.iter().map(part).collect());
        Self { table, files: range.files, rows, gaps, rows_beyond, partitions }
    }
}

/// What it gives, and where it is cut, a line each.
pub(crate) fn said(range: &ArchiveRange) -> Vec<String> {
    let (rows, gaps, beyond) = range.counted();
    let mut first = format!("{} of the archive {}", plural(rows, "row"), range.table);
    if gaps > 0 {
        let none = plural(gaps, "offset");
        first.push_str(&format!(", which has none for {none}: a gap of the topic, or lost there; nobody can tell"));
    }
    if beyond > 0 {
        first.push_str(&format!(", and {} more, left to the topic", count(beyond)));
    }
    let live: i64 = range.partitions.iter().map(|part| part.end - part.cut).sum();
    let live = plural(u64::try_from(live).unwrap_or(0), "offset");
    let cuts: Vec<String> = range
        .partitions
        .iter()
        .take(NAMED)
        .map(|part| format!("{} in partition {}", part.cut, part.partition))
        .collect();
    let more = range.partitions.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and so in {more} more (-o json has them)") } else { String::new() };
    vec![first, format!("{live} of the topic, from {}{more}", cuts.join(", "))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_says_what_it_gives_and_where_it_ends() {
        let part =
            |partition, gaps| ArchivedPart { partition, start: 0, cut: 10, end: 15, rows: 10 - gaps, gaps, beyond: 2 };
        let range = |many: i32, gaps| ArchiveRange {
            table: "lake.a".to_owned(),
            partitions: (0..many).map(|partition| part(partition, gaps)).collect(),
            ..ArchiveRange::default()
        };
        assert_eq!(
            said(&range(2, 0)),
            [
                "20 rows of the archive lake.a, and 4 more, left to the topic",
                "10 offsets of the topic, from 10 in partition 0, 10 in partition 1"
            ]
        );
        let many = said(&range(8, 1));
        assert!(many[0].contains("which has none for 8 offsets"), "{many:?}");
        assert!(many[1].ends_with("10 in partition 5 and so in 2 more (-o json has them)"), "{many:?}");
    }
}
