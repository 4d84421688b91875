//! The table of dead letters: one row for each record that a source could not use.
//!
//! | column | what it holds |
//! |---|---|
//! | source | the source's name in the spec |
//! | file | the file it stands in, or the topic and partition: `kafka:flights/3` |
//! | position | the byte where it begins, in a text as it is when it is decompressed; the row group, in a columnar file; the offset, in Kafka |
//! | row | which row of its row group it is, from 0; null in a text |
//! | error | what is wrong with it |
//! | raw | its bytes, at most 1 MiB of them |
//! | raw_bytes | how many it has in all: `raw` is cut where this is more |
//! | raw_as | what they are: `csv`, `json`, `row as json`, or `record value` |
//! | read_at | processing time of the attempt that read it |
//! | backfill | who read it |

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::sink::json_lines;
use crate::source::{DeadRecord, NO_EVENT_TIME, RawAs};

/// What all dead letters of one attempt say.
#[derive(Clone, Debug)]
pub struct Letterhead {
    /// The source's name.
    pub source: String,
    /// The backfill's id.
    pub backfill: String,
    /// Processing time when the attempt began, microseconds since 1970.
    pub read_at: i64,
}

/// The columns.
pub(crate) fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("source", DataType::Utf8),
        field("file", DataType::Utf8),
        field("position", DataType::Int64),
        field("row", DataType::Int64),
        field("error", DataType::Utf8),
        field("raw", DataType::Binary),
        field("raw_bytes", DataType::Int64),
        field("raw_as", DataType::Utf8),
        field("read_at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))),
        field("backfill", DataType::Utf8),
    ]))
}

/// `dead`, records of `file`, as rows of the table.
pub(crate) fn letters(head: &Letterhead, file: &str, dead: &[DeadRecord]) -> Result<RecordBatch, ArrowError> {
    let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(dead.iter().map(|_| text))) };
    let numbers =
        |of: fn(&DeadRecord) -> Option<u64>| cast(&UInt64Array::from_iter(dead.iter().map(of)), &DataType::Int64);
    let read_at = TimestampMicrosecondArray::from_iter_values(dead.iter().map(|_| head.read_at));
    let columns: Vec<ArrayRef> = vec![
        same(&head.source),
        same(file),
        numbers(|one| Some(one.position))?,
        numbers(|one| one.row)?,
        Arc::new(StringArray::from_iter_values(dead.iter().map(|one| &one.error))),
        Arc::new(BinaryArray::from_iter_values(dead.iter().map(|one| &one.raw))),
        numbers(|one| Some(one.length))?,
        Arc::new(StringArray::from_iter_values(dead.iter().map(|one| one.raw_as.word()))),
        Arc::new(read_at.with_timezone("+00:00")),
        same(&head.backfill),
    ];
    RecordBatch::try_new(schema(), columns)
}

/// Each of `rows`, which lack an event time, as a JSON object; `places` are their places in the unit at `position`.
pub(crate) fn rows_as_json(
    rows: &RecordBatch,
    position: u64,
    places: impl Iterator<Item = u64>,
) -> Result<Vec<DeadRecord>, ArrowError> {
    let text = json_lines(rows)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let dead = lines.zip(places).map(|(line, row)| {
        let letter = DeadRecord::new(position, &text.slice_ref(line), RawAs::RowAsJson, NO_EVENT_TIME.to_owned());
        DeadRecord { row: Some(row), ..letter }
    });
    Ok(dead.collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn a_row_without_event_time_is_kept_whole_and_a_long_one_is_cut() {
        let texts = StringArray::from(vec![Some("a\nb \"c\"".to_owned()), None, Some("x".repeat(2 << 20))]);
        let numbers = Int32Array::from(vec![Some(1), None, Some(3)]);
        let rows = RecordBatch::try_from_iter([
            ("text", Arc::new(texts) as ArrayRef),
            ("number", Arc::new(numbers) as ArrayRef),
        ]);
        let dead = rows_as_json(&rows.unwrap(), 7, [4, 9, 12].into_iter()).unwrap();
        let said: Vec<_> = dead.iter().map(|one| (one.row, String::from_utf8_lossy(&one.raw).into_owned())).collect();
        assert_eq!(said[0], (Some(4), r#"{"text":"a\nb \"c\"","number":1}"#.to_owned()));
        assert_eq!(said[1], (Some(9), r#"{"text":null,"number":null}"#.to_owned()));
        assert_eq!((dead[2].raw.len(), dead[2].length), (1 << 20, (2 << 20) + 22));

        let head = Letterhead { source: "s".to_owned(), backfill: "bf-1".to_owned(), read_at: 5 };
        let batch = letters(&head, "/in/a", &dead).unwrap();
        assert_eq!(batch.schema(), schema());
        let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(column("position"), [7, 7, 7]);
        assert_eq!(column("raw_bytes")[2], (2 << 20) + 22);
    }
}
