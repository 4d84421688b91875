//! A range of a topic beside its log, for people and for programs.

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_proto::v1;
use tidegate_worker::survey::{PartitionRange, SourceSurvey, TopicRange};

use crate::figures::{bytes, count, plural, second, span, time};
use crate::output;

/// Microseconds of a thousand years: no unit is wider whose records have bounds.
const UNBOUNDED: i64 = 365_250 * 86_400_000_000;
/// Partitions that are named one by one.
const NAMED: usize = 5;

/// A pinned range of a topic, beside its log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TopicRange")]
pub(crate) struct Topic {
    topic: String,
    partitions: Vec<Partition>,
    /// Offsets that will be read: at most as many records.
    offsets_to_read: u64,
    /// Offsets whose records lie in the window, about; null where no order is promised that would tell.
    offsets_in_window: Option<u64>,
    /// offsets_to_read / offsets_in_window.
    read_amplification: Option<f64>,
    /// The fewest offsets between the start of a log and of its range; negative where retention has passed it.
    offsets_ahead_of_retention: Option<i64>,
    /// Until when retention keeps the whole range at the least; null where it keeps it for ever, or is not known.
    kept_until: Option<String>,
    /// The topic's settings; null where the brokers do not tell them.
    retention: Option<Retention>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TopicPartition")]
struct Partition {
    partition: i32,
    log_start: i64,
    start: i64,
    end: i64,
    log_end: i64,
    /// At most as many records.
    offsets: u64,
    /// The timestamp of the first record of the range.
    first: Option<String>,
    last: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TopicRetention")]
struct Retention {
    /// Null is for ever.
    seconds: Option<f64>,
    /// Of a partition; null is without limit.
    bytes: Option<i64>,
    deletes: bool,
    compacts: bool,
}

impl Topic {
    /// `range` for programs, of a source of which this was found.
    pub(crate) fn of(range: &TopicRange, found: &v1::Enumerated) -> Self {
        Self {
            topic: range.topic.clone(),
            partitions: range.partitions.iter().map(partition).collect(),
            offsets_to_read: to_read(found),
            offsets_in_window: range.in_window,
            read_amplification: amplification(range, found),
            offsets_ahead_of_retention: range.ahead(),
            kept_until: range.kept_until().map(time),
            retention: range.retention.map(|retention| Retention {
                seconds: retention.millis.map(|millis| millis as f64 / 1e3),
                bytes: retention.bytes,
                deletes: retention.deletes,
                compacts: retention.compacts,
            }),
        }
    }
}

fn partition(range: &PartitionRange) -> Partition {
    Partition {
        partition: range.partition,
        log_start: range.log_start,
        start: range.start,
        end: range.end,
        log_end: range.log_end,
        offsets: range.offsets(),
        first: range.first.map(time),
        last: range.last.map(time),
    }
}

/// What a source consists of, counted: files and rows, or partitions and records.
pub(crate) fn counted(source: &SourceSurvey) -> (String, String) {
    let (parts, rows) = if source.topic.is_some() { ("partition", "record") } else { ("file", "row") };
    let rows = plural(source.found.rows_in_range, rows);
    match &source.archive {
        Some(archive) => {
            let parts = plural(source.found.files.saturating_sub(archive.files), parts);
            (format!("{}, {parts}", plural(archive.files, "file")), rows)
        }
        None => (plural(source.found.files, parts), rows),
    }
}

/// How wide a unit is, in microseconds; one that nothing bounds is as wide as all of time.
pub(crate) fn width(micros: i64) -> String {
    if micros > UNBOUNDED { "as wide as all of time".to_owned() } else { span(micros) }
}

/// From when to when a source's rows are: by the bounds of its units, or of a topic by its first and last timestamps. None
/// where there is nothing to read.
pub(crate) fn times(source: &SourceSurvey) -> Option<String> {
    let archived = source.archive.as_ref().and_then(|archive| archive.times);
    let own = match &source.topic {
        Some(range) => range.times(),
        None => Some((source.found.low, source.found.high)).filter(|(low, high)| low <= high),
    };
    let both = archived.into_iter().chain(own);
    let (low, high) = both.reduce(|(low, high), (from, to)| (low.min(from), high.max(to)))?;
    Some(format!("{} to {}", second(low), second(high)))
}

/// What was found of a source, less what comes from its archive.
pub(crate) fn of_topic(source: &SourceSurvey) -> v1::Enumerated {
    let Some(archive) = &source.archive else { return source.found.clone() };
    let (rows, gaps, _) = archive.counted();
    v1::Enumerated {
        rows_in_range: source.found.rows_in_range.saturating_sub(rows + gaps),
        rows_pruned: source.found.rows_pruned.saturating_sub(archive.rows_pruned),
        ..source.found.clone()
    }
}

fn to_read(found: &v1::Enumerated) -> u64 {
    found.rows_in_range.saturating_sub(found.rows_pruned)
}

/// Offsets that are read for one of the window.
fn amplification(range: &TopicRange, found: &v1::Enumerated) -> Option<f64> {
    let in_window = range.in_window.filter(|many| *many > 0)?;
    Some(to_read(found) as f64 / in_window as f64)
}

/// The partitions, a row each.
pub(crate) fn table(range: &TopicRange) -> String {
    let at = |micros: Option<i64>| micros.map_or_else(|| "-".to_owned(), second);
    let row = |range: &PartitionRange| {
        let edges = [range.log_start, range.start, range.end, range.log_end].map(|offset| offset.to_string());
        let mut row = vec![range.partition.to_string()];
        row.extend(edges);
        row.extend([count(range.offsets()), at(range.first), at(range.last)]);
        row
    };
    let rows: Vec<Vec<String>> = range.partitions.iter().map(row).collect();
    let header = ["PARTITION", "LOG START", "RANGE START", "RANGE END", "LOG END", "OFFSETS", "FIRST", "LAST"];
    output::columns(&header, &rows)
}

/// What is read for what the window holds; nothing where there is nothing to read.
pub(crate) fn reading(range: &TopicRange, found: &v1::Enumerated) -> Option<String> {
    let reads = to_read(found);
    if reads == 0 {
        return None;
    }
    let offsets = plural(reads, "offset");
    Some(match (range.in_window, amplification(range, found)) {
        (Some(in_window), Some(times)) => {
            format!("{offsets} for about {} of the window, {times:.2} for one", count(in_window))
        }
        (Some(_), None) => format!("{offsets}, and the window holds none of them by the time index"),
        (None, _) => format!("{offsets}, whatever the window: event_time.out_of_orderness would narrow them"),
    })
}

/// What the topic has lost of what is asked for from `from` on, in microseconds, where it begins later: by its first records'
/// timestamps.
pub(crate) fn short(range: &TopicRange, from: i64) -> Option<String> {
    let begins_later = |part: &&PartitionRange| {
        part.log_start > 0 && part.start == part.log_start && part.first.is_none_or(|first| first > from)
    };
    let late: Vec<&PartitionRange> = range.partitions.iter().filter(begins_later).collect();
    let said = |part: &&PartitionRange| {
        let first = part.first.map_or_else(String::new, |first| format!(", {}", second(first)));
        format!("offset {}{first} in partition {}", part.log_start, part.partition)
    };
    let named: Vec<String> = late.iter().take(NAMED).map(said).collect();
    let more = late.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and so {} more", plural(more as u64, "partition")) } else { String::new() };
    (!late.is_empty()).then(|| {
        format!(
            "{} is asked for, and the topic begins later: with {}{more}; what was before is gone from it. Where a table keeps \
             it, read both as one source: `hybrid: {{archive: {{iceberg: …}}, live: {{kafka: …}}}}`",
            second(from),
            named.join("; ")
        )
    })
}

/// How far the range is from being eaten; `now` in microseconds.
pub(crate) fn headroom(range: &TopicRange, now: i64) -> String {
    let ahead = match range.ahead() {
        None => return "nothing to keep".to_owned(),
        Some(ahead) if ahead < 0 => return format!("{} are gone already", plural(ahead.unsigned_abs(), "offset")),
        Some(ahead) => format!("{} before the range are still there", plural(ahead.unsigned_abs(), "offset")),
    };
    let Some(retention) = range.retention else { return format!("{ahead}; the brokers do not tell what is kept") };
    let mut text = match (retention.deletes, retention.millis, range.kept_until()) {
        (false, ..) => "no record goes for its age".to_owned(),
        (true, None, _) => "kept for ever".to_owned(),
        (true, Some(_), Some(until)) if until > now => {
            format!("kept for {} at the least, until {}", span((until - now) / 60_000_000 * 60_000_000), second(until))
        }
        (true, Some(_), Some(_)) => "older than what is kept: it may go at any moment".to_owned(),
        (true, Some(millis), None) => format!("kept for {}", span(millis.saturating_mul(1_000))),
    };
    if let Some(limit) = retention.bytes {
        text.push_str(&format!(
            ", while its partition holds no more than {}",
            bytes(u64::try_from(limit).unwrap_or(0))
        ));
    }
    if retention.compacts {
        text.push_str("; the topic is compacted");
    }
    format!("{ahead}; {text}")
}

#[cfg(test)]
mod tests {
    use tidegate_worker::survey::Retention;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn range(retention: Option<Retention>) -> TopicRange {
        let partition = PartitionRange {
            partition: 3,
            log_start: 10,
            start: 12,
            end: 112,
            log_end: 200,
            first: Some(5 * HOUR),
            last: Some(9 * HOUR),
        };
        TopicRange { topic: "t".to_owned(), partitions: vec![partition], retention, in_window: Some(40) }
    }

    fn week(millis: Option<i64>, bytes: Option<i64>) -> Option<Retention> {
        Some(Retention { millis, bytes, deletes: true, compacts: false })
    }

    #[test]
    fn headroom_says_in_offsets_and_in_time_how_near_retention_is() {
        let said = |retention| headroom(&range(retention), 6 * HOUR);
        let ahead = "2 offsets before the range are still there; ";
        for (retention, words) in [
            (None, "the brokers do not tell what is kept"),
            (week(None, None), "kept for ever"),
            (week(Some(7_200_000), None), "kept for 1h at the least, until 1970-01-01T07:00:00Z"),
            (week(Some(3_600_000), None), "older than what is kept: it may go at any moment"),
            (week(None, Some(1 << 20)), "kept for ever, while its partition holds no more than 1.0 MiB"),
            (
                Some(Retention { compacts: true, ..Retention::default() }),
                "no record goes for its age; the topic is compacted",
            ),
        ] {
            assert_eq!(said(retention), format!("{ahead}{words}"));
        }
        let mut eaten = range(None);
        eaten.partitions[0].log_start = 15;
        assert_eq!(headroom(&eaten, 0), "3 offsets are gone already");
        assert_eq!(headroom(&TopicRange::default(), 0), "nothing to keep");
    }

    #[test]
    fn a_topic_that_begins_later_than_what_is_asked_for_says_so_and_what_to_do() {
        let mut range = range(None);
        range.partitions[0].start = 10;
        let said = short(&range, 4 * HOUR).unwrap();
        assert!(said.contains("with offset 10, 1970-01-01T05:00:00Z in partition 3;"), "{said}");
        assert!(said.starts_with("1970-01-01T04:00:00Z is asked for") && said.contains("`hybrid: {archive"), "{said}");
        assert_eq!(short(&range, 5 * HOUR), None, "it reaches back so far");
        range.partitions[0].log_start = 0;
        range.partitions[0].start = 0;
        assert_eq!(short(&range, 0), None, "nothing was ever before");
        (range.partitions[0].log_start, range.partitions[0].start) = (10, 12);
        assert_eq!(short(&range, 0), None, "nothing before it is asked for");
    }

    #[test]
    fn what_is_read_is_held_against_what_the_window_holds() {
        let found = v1::Enumerated { rows_in_range: 100, rows_pruned: 50, ..Default::default() };
        let said = |in_window| reading(&TopicRange { in_window, ..range(None) }, &found).unwrap();
        assert_eq!(said(Some(40)), "50 offsets for about 40 of the window, 1.25 for one");
        assert_eq!(said(Some(0)), "50 offsets, and the window holds none of them by the time index");
        assert!(said(None).starts_with("50 offsets, whatever the window"));
        assert_eq!(reading(&range(None), &v1::Enumerated::default()), None);
    }

    #[test]
    fn a_unit_without_bounds_is_as_wide_as_all_of_time() {
        assert_eq!((width(HOUR).as_str(), width(i64::MAX).as_str()), ("1h", "as wide as all of time"));
    }

    #[test]
    fn partitions_are_rows() {
        assert_eq!(
            table(&range(None)).lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
            ["3", "10", "12", "112", "200", "100", "1970-01-01T05:00:00Z", "1970-01-01T09:00:00Z"]
        );
    }
}
