//! The table of late rows: one row for each that came when slices which need it were joined.
//!
//! | column | what it holds |
//! |---|---|
//! | source | the source's name in the spec |
//! | event_time | the row's |
//! | slice_from, slice_to | from the first slice that went without it to the last, as event time, half-open |
//! | late_micros | how late it is at most |
//! | row | its columns that the query uses, as a JSON object |
//! | read_at | processing time of the attempt that wrote it |
//! | backfill | whose it is |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::sink::json_lines;

/// What all late rows of one cell say.
#[derive(Clone, Debug)]
pub(crate) struct Letterhead {
    /// The source's name.
    pub(crate) source: String,
    /// The backfill's id.
    pub(crate) backfill: String,
    /// Processing time when the attempt began, microseconds since 1970.
    pub(crate) read_at: i64,
    /// What went without them: microseconds of event time, half-open.
    pub(crate) missed_by: (i64, i64),
    /// How late they are at most, in microseconds.
    pub(crate) late: i64,
}

/// The columns.
pub(crate) fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, true);
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    Arc::new(Schema::new(vec![
        field("source", DataType::Utf8),
        field("event_time", time()),
        field("slice_from", time()),
        field("slice_to", time()),
        field("late_micros", DataType::Int64),
        field("row", DataType::Utf8),
        field("read_at", time()),
        field("backfill", DataType::Utf8),
    ]))
}

/// `rows`, whose first column is their event time, as rows of the table.
pub(crate) fn letters(head: &Letterhead, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let no_times = || ArrowError::SchemaError("the first column of late rows is no event time".to_owned());
    let (times, columns) = rows.columns().split_first().ok_or_else(no_times)?;
    let times = times.as_any().downcast_ref::<Int64Array>().ok_or_else(no_times)?;
    let kept: Vec<usize> = (1..=columns.len()).collect();
    let json = rows_as_json(&rows.project(&kept)?)?;
    let many = rows.num_rows();
    let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, many))) };
    let time = |times: TimestampMicrosecondArray| -> ArrayRef { Arc::new(times.with_timezone("+00:00")) };
    let always = |at: i64| time(TimestampMicrosecondArray::from_iter_values(std::iter::repeat_n(at, many)));
    let columns: Vec<ArrayRef> = vec![
        same(&head.source),
        time(TimestampMicrosecondArray::new(times.values().clone(), times.nulls().cloned())),
        always(head.missed_by.0),
        always(head.missed_by.1),
        Arc::new(Int64Array::from_iter_values(std::iter::repeat_n(head.late, many))),
        Arc::new(StringArray::from_iter_values(json)),
        always(head.read_at),
        same(&head.backfill),
    ];
    RecordBatch::try_new(schema(), columns)
}

fn rows_as_json(rows: &RecordBatch) -> Result<Vec<String>, ArrowError> {
    if rows.num_columns() == 0 {
        return Ok(vec!["{}".to_owned(); rows.num_rows()]);
    }
    let text = json_lines(rows)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    use super::*;

    fn head() -> Letterhead {
        let (source, backfill) = ("plays".to_owned(), "bf-1".to_owned());
        Letterhead { source, backfill, read_at: 9, missed_by: (100, 300), late: 250 }
    }

    #[test]
    fn a_late_row_says_when_it_was_who_missed_it_and_what_it_held() {
        let rows = RecordBatch::try_from_iter([
            ("__time", Arc::new(Int64Array::from(vec![50, 51])) as ArrayRef),
            ("who", Arc::new(StringArray::from(vec![Some("a\n\"b\""), None])) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![Some(1), Some(2)])) as ArrayRef),
        ]);
        let letters = letters(&head(), &rows.unwrap()).unwrap();
        assert_eq!(letters.schema(), schema());
        let times = |name: &str| {
            let column = letters.column_by_name(name).unwrap();
            column.as_primitive::<TimestampMicrosecondType>().values().to_vec()
        };
        assert_eq!(
            (times("event_time"), times("slice_from"), times("slice_to")),
            (vec![50, 51], vec![100; 2], vec![300; 2])
        );
        let late = letters.column_by_name("late_micros").unwrap().as_primitive::<Int64Type>().values().to_vec();
        assert_eq!((late, times("read_at")), (vec![250; 2], vec![9; 2]));
        let row: Vec<_> = letters.column_by_name("row").unwrap().as_string::<i32>().iter().flatten().collect();
        assert_eq!(row, [r#"{"who":"a\n\"b\"","n":1}"#, r#"{"who":null,"n":2}"#]);
    }

    #[test]
    fn a_row_of_which_only_the_time_is_used_is_an_empty_object() {
        let rows = RecordBatch::try_from_iter([("__time", Arc::new(Int64Array::from(vec![50, 51])) as ArrayRef)]);
        let letters = letters(&head(), &rows.unwrap()).unwrap();
        let row: Vec<_> = letters.column_by_name("row").unwrap().as_string::<i32>().iter().flatten().collect();
        assert_eq!(row, ["{}", "{}"]);
    }
}
