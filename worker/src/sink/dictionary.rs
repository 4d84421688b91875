//! Which columns are written without a dictionary: those of which a sample says that it would not hold their values.
//!
//! Parquet's writer tries a dictionary for every column and gives it up when it is full. For times and ids, which hardly
//! repeat, that is a look-up for each of some hundred thousand values of a file, and no byte less.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

/// A sample of fewer rows tells nothing.
pub(super) const SAMPLE: usize = 4096;

/// `properties` for files of such rows as `sample` holds.
pub(super) fn fitted(properties: &WriterProperties, sample: &RecordBatch) -> WriterProperties {
    let fields = sample.schema_ref().fields().iter().zip(sample.columns());
    let limit = properties.dictionary_page_size_limit();
    let mut fitted = properties.clone().into_builder();
    for (field, _) in fields.filter(|(_, column)| is_too_various(column, limit)) {
        fitted = fitted.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
    }
    fitted.build()
}

/// Whether a dictionary of `limit` bytes is too small for what the sample says: of `n` values, drawn from `d` different
/// ones, about `n²/2d` were there before.
fn is_too_various(column: &ArrayRef, limit: usize) -> bool {
    let values = values(column);
    let count = values.len();
    if count < SAMPLE {
        return false;
    }
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    let held = limit / (bytes / count).max(1);
    let repeats = count - values.into_iter().collect::<HashSet<_>>().len();
    repeats.saturating_mul(2).saturating_mul(held) < count * count
}

/// The values that are not null; none of types that are left as they are.
fn values(column: &ArrayRef) -> Vec<&[u8]> {
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().flatten().map(str::as_bytes).collect(),
        DataType::Binary => column.as_binary::<i32>().iter().flatten().collect(),
        DataType::Int64 => fixed(column, column.as_primitive::<Int64Type>().values().inner()),
        DataType::Float64 => fixed(column, column.as_primitive::<Float64Type>().values().inner()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            fixed(column, column.as_primitive::<TimestampMicrosecondType>().values().inner())
        }
        _ => Vec::new(),
    }
}

fn fixed<'a>(column: &ArrayRef, values: &'a [u8]) -> Vec<&'a [u8]> {
    let values = values.chunks_exact(size_of::<i64>()).enumerate();
    values.filter(|(row, _)| column.is_valid(*row)).map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    /// The columns that have a dictionary, of files that begin with such rows.
    fn kept(columns: [(&str, ArrayRef); 3]) -> Vec<String> {
        let names: Vec<_> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let fitted = fitted(&WriterProperties::builder().build(), &rows);
        names.into_iter().filter(|name| fitted.dictionary_enabled(&ColumnPath::from(name.as_str()))).collect()
    }

    fn longs(values: impl Iterator<Item = i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(values))
    }

    fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }

    #[test]
    fn what_repeats_keeps_its_dictionary_and_what_does_not_loses_it() {
        let columns = [
            ("id", longs(0..8192)),
            ("shop", longs((0..8192).map(|at| at * 7 % 5000))),
            ("kind", texts((0..8192).map(|at| format!("kind {}", at % 9)))),
        ];
        assert_eq!(kept(columns), ["shop", "kind"]);
        // 3,000 texts of 1 KiB do not fit into 1 MiB, and 3,000 numbers do.
        let columns = [
            ("text", texts((0..8192).map(|at| format!("{:01024}", at * 7 % 3000)))),
            ("number", longs((0..8192).map(|at| at * 7 % 3000))),
            ("url", texts((0..8192).map(|at| format!("https://shop.example/{at:032x}")))),
        ];
        assert_eq!(kept(columns), ["number"]);
    }

    #[test]
    fn few_rows_tell_nothing_and_nulls_are_no_values() {
        let few = [("a", longs(0..100)), ("b", longs(0..100)), ("c", texts((0..100).map(|at| at.to_string())))];
        assert_eq!(kept(few), ["a", "b", "c"]);
        let rare = Int64Array::from_iter((0..8192).map(|at| (at % 10 == 0).then_some(at)));
        let often = Int64Array::from_iter((0..8192).map(|at| (at % 10 > 0).then_some(at)));
        let columns =
            [("rare", Arc::new(rare) as ArrayRef), ("often", Arc::new(often)), ("none", longs((0..8192).map(|_| 1)))];
        assert_eq!(kept(columns), ["rare", "none"]);
    }

    #[test]
    fn a_slice_is_sampled_where_it_is() {
        let halves = longs((0..8192).chain((0..8192).map(|_| 7)));
        assert!(is_too_various(&halves.slice(0, 8192), 1 << 20));
        assert!(!is_too_various(&halves.slice(8192, 8192), 1 << 20));
    }
}
